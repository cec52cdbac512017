//! Proposals of what depends on values, and of what stands in for parts of the model: conditions, stops, skips, weights.
//!
//! A `cond` is proposed as what it is expanded to: nodes with guards, and merges.

use pellucid_graph::spec::Application;
use pellucid_graph::{Argument, DType, Guard, IndexItem, NodeKind, OperationKind, Scalar, Value};

use super::{Builder, Draft, number};

impl Builder<'_> {
    pub(super) fn dynamic(&mut self) {
        match self.dice.below(10) {
            0..4 => self.conditional(),
            4..7 if self.steps.is_some() => self.stop(),
            4..7 => self.skip(),
            7 => self.weight(),
            _ => self.set_weight(),
        }
    }

    /// A truth value that depends on all of some value, about as often true as false.
    fn condition(&mut self, draft: &mut Draft) -> Value {
        let value = match self.some_value(|known| known.dtype.is_float()) {
            Some(known) if self.dice.chance(0.5) => known.value,
            _ => {
                let place = self.float_place();
                let address = self.address(place);
                draft.add(NodeKind::Get(address))
            }
        };
        let bent = self.scalar_of(value, draft);
        let above = self.dice.range(0, 40) as f64 / 100.0 - 0.2;
        draft.operation(OperationKind::Gt, vec![Argument::Value(bent), number(above)])
    }

    fn float_place(&mut self) -> usize {
        loop {
            let place = self.place();
            if self.index.spec().hook_points[place].dtype != DType::I64 {
                return place;
            }
        }
    }

    fn conditional(&mut self) {
        let mut draft = self.draft();
        let condition = self.condition(&mut draft);
        let one =
            draft.operation(OperationKind::To, vec![Argument::Value(condition), Argument::DType(DType::F32)]);
        let mut yields = Vec::new();
        for holds in [true, false] {
            let nested = self.dice.chance(0.2);
            draft.guards.push(Guard { condition, holds });
            if nested {
                let inner = self.condition(&mut draft);
                draft.guards.push(Guard { condition: inner, holds: self.dice.chance(0.5) });
            }
            for _ in 0..self.dice.range(1, 3) {
                self.in_branch(one, &mut draft);
            }
            if nested {
                draft.guards.pop();
            }
            let factor = if holds { 2.0 } else { -0.5 };
            let shifted = draft.operation(OperationKind::Add, vec![Argument::Value(one), number(factor)]);
            yields.push(shifted);
            draft.guards.pop();
        }
        draft.add(NodeKind::Merge { condition, then: yields[0], otherwise: yields[1] });
        self.put(draft);
    }

    /// Something that runs under a condition.
    fn in_branch(&mut self, one: Value, draft: &mut Draft) {
        match self.dice.below(6) {
            0 => {
                draft.add(NodeKind::Save(one));
            }
            1 if self.steps.is_some() => {
                let truth = draft.operation(OperationKind::Gt, vec![Argument::Value(one), number(-0.5)]);
                let invoke = self.some_invoke();
                draft.add(NodeKind::Stop { invoke, when: truth });
            }
            2 => {
                let (invoke, module) = (self.some_invoke(), self.some_module());
                draft.add(NodeKind::Skip { invoke, module, step: None, value: one });
            }
            _ => {
                let place = self.float_place();
                let address = self.address(place);
                let seen = draft.add(NodeKind::Get(address.clone()));
                let kind = *self.dice.of(&[OperationKind::Add, OperationKind::Sub]);
                let value = draft.operation(kind, vec![Argument::Value(seen), Argument::Value(one)]);
                draft.add(NodeKind::Set { address, value });
            }
        }
    }

    fn some_invoke(&mut self) -> usize {
        self.dice.below(self.current().invokes.len() as u64) as usize
    }

    /// A whole layer more often than one of its many parts.
    fn some_module(&mut self) -> String {
        let spec = self.index.spec();
        let modules = spec.modules.iter().filter(|module| module.applied != Application::None);
        let modules: Vec<String> = modules.map(|module| module.path.clone()).collect();
        let is_layer = |alias: &str| {
            let number = alias.strip_prefix("layers.");
            number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let layers = spec.aliases.iter().filter(|known| is_layer(&known.alias)).map(|known| &known.target);
        let layers: Vec<String> = layers.filter(|layer| modules.contains(layer)).cloned().collect();
        if !layers.is_empty() && self.dice.chance(0.2) {
            return self.dice.of(&layers).clone();
        }
        self.dice.of(&modules).clone()
    }

    fn some_parameter(&mut self) -> String {
        let count = self.index.spec().parameters.len() as u64;
        let place = self.dice.below(count) as usize;
        self.index.spec().parameters[place].name.clone()
    }

    /// For all prompts at once, or for each by its own row.
    fn stop(&mut self) {
        let mut draft = self.draft();
        let place = self.float_place();
        let address = self.address(place);
        let invoke = address.invoke;
        let rank = self.index.spec().hook_points[place].shape.len() as i64;
        let when = if self.dice.chance(0.4) {
            self.condition(&mut draft)
        } else {
            let read = draft.add(NodeKind::Get(address));
            let dims = Argument::Integers((1..rank).collect());
            let mean = draft.operation(OperationKind::Mean, vec![Argument::Value(read), dims]);
            let above = self.dice.range(0, 40) as f64 / 100.0 - 0.2;
            draft.operation(OperationKind::Gt, vec![Argument::Value(mean), number(above)])
        };
        draft.add(NodeKind::Stop { invoke, when });
        self.put(draft);
    }

    fn skip(&mut self) {
        let mut draft = self.draft();
        let value = match self.some_value(|known| known.dtype.is_float()) {
            Some(known) if self.dice.chance(0.7) => self.scalar_of(known.value, &mut draft),
            _ => draft.add(NodeKind::Literal {
                dtype: DType::F32,
                shape: Vec::new(),
                elements: vec![Scalar::Float(0.25)],
            }),
        };
        let (invoke, module) = (self.some_invoke(), self.some_module());
        draft.add(NodeKind::Skip { invoke, module, step: None, value });
        self.put(draft);
    }

    fn weight(&mut self) {
        let mut draft = self.draft();
        let parameter = self.some_parameter();
        let index = match self.dice.below(4) {
            0 => None,
            1 => Some(vec![IndexItem::Integer(-1)]),
            2 => Some(vec![IndexItem::Slice { start: Some(1), stop: None, step: 2 }]),
            _ => Some(vec![IndexItem::Ellipsis, IndexItem::Integer(0)]),
        };
        draft.add(NodeKind::Weight { parameter, index });
        self.put(draft);
    }

    fn set_weight(&mut self) {
        let mut draft = self.draft();
        let parameter = self.some_parameter();
        let own = draft.add(NodeKind::Weight { parameter: parameter.clone(), index: None });
        let by = match self.some_value(|known| known.dtype.is_float()) {
            Some(known) if self.dice.chance(0.4) => Argument::Value(self.scalar_of(known.value, &mut draft)),
            _ => number(1.5),
        };
        let value = draft.operation(OperationKind::Mul, vec![Argument::Value(own), by]);
        let invoke = self.some_invoke();
        draft.add(NodeKind::SetWeight { invoke, parameter, value });
        self.put(draft);
    }
}
