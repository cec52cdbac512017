//! Ways back in random programs: losses of whatever there is, gradients of whatever there is, read and written.

use pellucid_graph::{Argument, GradientOf, HookAddress, NodeId, NodeKind, OperationKind};

use super::{Builder, Draft, Known, number};

impl Builder<'_> {
    /// A new way back with a gradient, or one more gradient of one that there is.
    pub(super) fn gradients(&mut self) {
        if self.steps.is_some() || self.current().generation.is_some() {
            return;
        }
        if self.dice.chance(0.5) {
            return self.through_an_operation();
        }
        let mut draft = self.draft();
        let backward = match self.dice.chance(0.6) {
            true if !self.backwards.is_empty() => {
                let backward = *self.dice.of(&self.backwards);
                // Those of earlier traces are over.
                if Some(backward) <= self.trace {
                    return;
                }
                backward
            }
            _ => match self.backward(&mut draft) {
                Some(backward) => backward,
                None => return,
            },
        };
        let new = backward.index() >= self.program.nodes.len();
        let of = self.gradient_of();
        let seen = draft.add(NodeKind::Grad { backward, of: of.clone() });
        if self.dice.chance(0.4) {
            let value = match self.dice.below(3) {
                0 => draft.operation(OperationKind::Mul, vec![Argument::Value(seen), number(-0.5)]),
                1 => draft.operation(OperationKind::Tanh, vec![Argument::Value(seen)]),
                _ => match self.some_value(|known| known.dtype.is_float()) {
                    Some(known) => self.scalar_of(known.value, &mut draft),
                    None => draft.operation(OperationKind::Neg, vec![Argument::Value(seen)]),
                },
            };
            draft.add(NodeKind::SetGrad { backward, of: of.clone(), value });
            let earlier = if self.dice.chance(0.5) { of } else { self.gradient_of() };
            // What is written has to be seen.
            let shown = draft.add(NodeKind::Grad { backward, of: earlier });
            draft.add(NodeKind::Save(shown));
        }
        if self.put(draft) && new {
            self.backwards.push(backward);
        }
    }

    /// A way back through an operation of the table, each as likely as any other, from a hook point to what it makes of it.
    fn through_an_operation(&mut self) {
        let flows: Vec<OperationKind> = pellucid_graph::operation::table()
            .iter()
            .filter(|definition| definition.differentiable)
            .map(|definition| definition.kind)
            .collect();
        let mut made = None;
        for _ in 0..4 {
            let kind = *self.dice.of(&flows);
            let before = self.program.nodes.len();
            self.an_operation(kind);
            let new = (before..self.program.nodes.len()).rev().map(|place| NodeId(place as u32));
            made = new.into_iter().find(|id| match &self.program.node(*id).kind {
                NodeKind::Operation(operation) => operation.kind == kind,
                _ => false,
            });
            if made.is_some() {
                break;
            }
        }
        let Some(made) = made else { return };
        let operation = match &self.program.node(made).kind {
            NodeKind::Operation(operation) => operation.clone(),
            _ => return,
        };
        let float = |value: &pellucid_graph::Value| {
            let known = self.known.iter().find(|known| known.value == *value);
            known.is_some_and(|known| known.dtype.is_float())
        };
        let Some(&read) = operation.values().iter().find(|value| float(value)) else { return };
        let mut draft = self.draft();
        let loss = self.scalar_of(made.into(), &mut draft);
        let backward = draft.add(NodeKind::Backward { of: loss, cotangent: None }).node;
        let gradient = draft.add(NodeKind::Grad { backward, of: GradientOf::Value(read) });
        draft.add(NodeKind::Save(gradient));
        if self.put(draft) {
            self.backwards.push(backward);
            // And one of a hook point on the way.
            let place = self.place();
            let of = GradientOf::Hook(HookAddress { step: None, ..self.address(place) });
            let mut draft = self.draft();
            draft.add(NodeKind::Grad { backward, of });
            self.put(draft);
        }
    }

    /// A `backward` of a value made one number, or of the value itself with a cotangent.
    fn backward(&mut self, draft: &mut Draft) -> Option<NodeId> {
        let float = |known: &Known| known.dtype.is_float();
        let value = match self.dice.chance(0.3) {
            true => {
                let invokes = self.current().invokes.len() as u64;
                let invoke = self.dice.below(invokes) as usize;
                draft.add(NodeKind::Get(HookAddress { invoke, hook: "output".into(), step: None }))
            }
            false => self.some_value(float)?.value,
        };
        let kind = if self.dice.chance(0.25) {
            let bent = draft.operation(OperationKind::Tanh, vec![Argument::Value(value)]);
            NodeKind::Backward { of: value, cotangent: Some(bent) }
        } else {
            NodeKind::Backward { of: self.scalar_of(value, draft), cotangent: None }
        };
        Some(draft.add(kind).node)
    }

    /// A value that there is, or a hook point.
    fn gradient_of(&mut self) -> GradientOf {
        if self.dice.chance(0.5)
            && let Some(known) = self.some_value(|known| known.dtype.is_float())
        {
            return GradientOf::Value(known.value);
        }
        let place = self.place();
        GradientOf::Hook(HookAddress { step: None, ..self.address(place) })
    }
}
