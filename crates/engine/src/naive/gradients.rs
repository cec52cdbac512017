//! Gradients, the simple way: a node's cotangent is the sum over all of its users, each asked in turn, and an invoke is
//! walked back through every stage from the last getter that matters to wherever somebody asks. Nothing is left out
//! because nobody needs it. It shares the stages' and operations' own products with the planned way back, and nothing else.

mod walks;

use std::collections::{BTreeSet, HashMap};

use pellucid_graph::{GradientOf, HookAddress, NodeId, NodeKind, Value};

use super::Naive;
use crate::job::{Instance, OUTSIDE};
use crate::operations::{OperationError, gradients};
use crate::reverse::{apply_backward, sums};
use crate::tensor::Tensor;
use walks::Walk;

type Result<T> = std::result::Result<T, OperationError>;

/// One `backward`.
pub(super) struct Back {
    of: Value,
    seed: Tensor,
    /// Everything that the value is computed from, but what never came.
    ancestors: BTreeSet<NodeId>,
    targets: Vec<NodeId>,
    cotangents: HashMap<NodeId, Vec<Option<Tensor>>>,
    /// What a node brings to each value that it reads.
    parts: HashMap<NodeId, Vec<Option<Tensor>>>,
    /// The invokes that are walked back; none: one that is at work.
    walks: HashMap<usize, Option<Walk>>,
    /// The cotangents of what setters wrote, in the hook point's shape.
    written: HashMap<NodeId, Option<Tensor>>,
}

impl Naive<'_> {
    fn back(&mut self, backward: NodeId) -> Result<&mut Back> {
        self.backs.get_mut(&backward).ok_or_else(|| OperationError::new("its `backward` has not begun"))
    }

    /// A gradient, once everything is known that its `backward` may go through. Gives back what must be computed first, if
    /// something must.
    pub(super) fn need_gradient(&mut self, target: NodeId, backward: NodeId) -> Result<Option<Instance>> {
        let program = self.program;
        let mut reads = program.program.node(target).values();
        reads.extend(program.program.node(backward).values());
        let missing = |id: NodeId| {
            let instance = (OUTSIDE, id);
            let unknown = program.nodes[id.index()].needed && !self.values.contains_key(&instance);
            unknown.then_some(instance)
        };
        if let Some(missing) = reads.iter().find_map(|value| missing(value.node)) {
            return Ok(Some(missing));
        }
        // It is not to be, or nothing is gone back from.
        let mut lost = self.is_lost(target)
            || self.is_lost(backward)
            || reads.iter().any(|value| self.is_lost(value.node));
        if !lost && !self.backs.contains_key(&backward) {
            let plan = program.gradients.iter().find(|plan| plan.backward == backward);
            let path = plan.into_iter().flat_map(|plan| &plan.path);
            if let Some(missing) = path.into_iter().find_map(|&id| missing(id)) {
                return Ok(Some(missing));
            }
        }
        if !lost && let Some((_, GradientOf::Value(value))) = program.program.node(target).kind.gradient() {
            if let Some(missing) = missing(value.node) {
                return Ok(Some(missing));
            }
            // The gradient is that of nothing.
            lost = self.is_lost(value.node);
        }
        if !lost {
            self.begin_back(backward)?;
            lost = self.is_behind(backward, target);
        }
        if lost {
            self.values.insert((OUTSIDE, target), None);
            return Ok(None);
        }
        self.gradient(target).map(|()| None)
    }

    /// Whether a gradient is that of a hook point after everything that was read of its invoke for the value.
    fn is_behind(&self, backward: NodeId, target: NodeId) -> bool {
        let program = self.program;
        let Some((_, of)) = program.program.node(target).kind.gradient() else { return false };
        let Some(invoke) = self.invoke_of(backward, of) else { return false };
        let (id, reader) = match of {
            GradientOf::Hook(_) => (target, None),
            GradientOf::Value(value) => (value.node, Some(value.node)),
        };
        let place = program.nodes[id.index()].place;
        let trace = program.nodes[backward.index()].trace;
        let own = |id: &NodeId| program.nodes[id.index()].trace == trace && !self.is_lost(*id);
        let all = (0..program.program.nodes.len()).map(|position| NodeId(position as u32));
        let set = |id: &NodeId| {
            let to = program.program.node(*id).kind.written().is_some_and(|(to, _)| to == invoke);
            to && program.nodes[id.index()].place == place && reader.is_none_or(|reader| *id < reader)
        };
        let version = all.filter(set).rfind(own);
        let plan = program.gradients.iter().find(|plan| plan.backward == backward);
        let path = plan.into_iter().flat_map(|plan| &plan.path).filter(|id| own(id));
        !path.into_iter().any(|id| match &program.program.node(*id).kind {
            NodeKind::Get(address) if address.invoke == invoke => {
                (program.nodes[id.index()].place, *id) > (place, version.unwrap_or(NodeId(0)))
            }
            _ => false,
        })
    }

    /// Computes a gradient whose `backward`'s values are there.
    pub(super) fn gradient(&mut self, target: NodeId) -> Result<()> {
        let program = self.program;
        let Some((backward, of)) = program.program.node(target).kind.gradient() else { return Ok(()) };
        match self.invoke_of(backward, of) {
            Some(invoke) => self.walk_back(backward, invoke, target),
            None => match of {
                GradientOf::Value(value) => self.cotangent(backward, value.node).map(|_| ()),
                GradientOf::Hook(_) => Ok(()),
            },
        }
    }

    /// The invoke at whose hook point a gradient is given out; none: at a value.
    fn invoke_of(&self, backward: NodeId, of: &GradientOf) -> Option<usize> {
        let program = self.program;
        match of {
            GradientOf::Hook(address) => Some(address.invoke),
            GradientOf::Value(value) => match &program.program.node(value.node).kind {
                NodeKind::Get(address) => {
                    let trace = program.nodes[backward.index()].trace;
                    (trace.is_some() && program.nodes[value.node.index()].trace == trace)
                        .then_some(address.invoke)
                }
                _ => None,
            },
        }
    }

    /// Whether a gradient is asked of, or written to, a value that never came.
    fn is_gradient_of_lost(&self, target: NodeId) -> bool {
        match self.program.program.node(target).kind.gradient() {
            Some((_, GradientOf::Value(value))) => self.is_lost(value.node),
            _ => false,
        }
    }

    fn begin_back(&mut self, backward: NodeId) -> Result<()> {
        let program = self.program;
        let NodeKind::Backward { of, cotangent } = program.program.node(backward).kind else { return Ok(()) };
        if self.backs.contains_key(&backward) {
            return Ok(());
        }
        let value = self.known(of)?;
        let seed = match cotangent {
            Some(cotangent) => self.known(cotangent)?.cast(value.dtype())?,
            None => Tensor::from_f64(vec![1.0; value.elements()], value.shape())?.cast(value.dtype())?,
        };
        let trace = program.nodes[backward.index()].trace;
        let (mut ancestors, mut open) = (BTreeSet::new(), vec![of.node]);
        while let Some(id) = open.pop() {
            if self.is_lost(id) || !ancestors.insert(id) {
                continue;
            }
            match &program.program.node(id).kind {
                NodeKind::Get(address) if trace.is_some() && program.nodes[id.index()].trace == trace => {
                    for (position, node) in program.program.nodes.iter().enumerate() {
                        let (invoke, weight) = match (&node.kind, node.kind.written()) {
                            (NodeKind::SetWeight { invoke, .. }, _) => (*invoke, true),
                            (_, Some((invoke, _))) => (invoke, false),
                            _ => continue,
                        };
                        let before = (program.nodes[position].place, position)
                            < (program.nodes[id.index()].place, id.index());
                        if invoke == address.invoke
                            && program.nodes[position].trace == trace
                            && (weight || before)
                        {
                            open.push(NodeId(position as u32));
                        }
                    }
                }
                _ => open.extend(self.read_by(id).into_iter().flatten().map(|value| value.node)),
            }
        }
        let targets = program.program.nodes.iter().enumerate().filter(|(position, node)| {
            program.nodes[*position].needed && node.kind.gradient().is_some_and(|(of, _)| of == backward)
        });
        let targets = targets.map(|(position, _)| NodeId(position as u32));
        let comes =
            |target: &NodeId| !self.is_gradient_of_lost(*target) && !self.is_behind(backward, *target);
        let targets = targets.filter(comes).collect();
        let back = Back {
            of,
            seed,
            ancestors,
            targets,
            cotangents: HashMap::new(),
            parts: HashMap::new(),
            walks: HashMap::new(),
            written: HashMap::new(),
        };
        self.backs.insert(backward, back);
        Ok(())
    }

    /// The values that a node reads, by argument: those that a gradient flows to.
    fn read_by(&self, id: NodeId) -> Vec<Option<Value>> {
        let program = self.program;
        let float = |value: Value| {
            let outputs = &program.nodes[value.node.index()].outputs;
            outputs.get(value.output as usize).is_some_and(|output| output.dtype.is_float())
        };
        match &program.program.node(id).kind {
            NodeKind::Set { value, .. }
            | NodeKind::Skip { value, .. }
            | NodeKind::SetWeight { value, .. } => {
                vec![Some(*value).filter(|value| float(*value))]
            }
            NodeKind::Merge { condition, then, otherwise } => {
                let picked = match self.truth(*condition, OUTSIDE) {
                    Ok(Some(holds)) => Some(if holds { *then } else { *otherwise }),
                    _ => None,
                };
                vec![picked.filter(|value| float(*value))]
            }
            NodeKind::Apply { input, .. } => vec![Some(*input).filter(|value| float(*value))],
            NodeKind::Operation(operation) if operation.kind.definition().differentiable => {
                let reads = operation.reads().into_iter();
                reads.map(|(value, elements)| Some(value).filter(|value| elements && float(*value))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn known(&self, value: Value) -> Result<Tensor> {
        let outputs = self.values.get(&(OUTSIDE, value.node)).cloned().flatten();
        let tensor = outputs.and_then(|outputs| outputs.get(value.output as usize).cloned());
        tensor.ok_or_else(|| OperationError::new("a value of the way there is not there"))
    }

    /// The cotangent of each output of a node; on the way the gradients of it are given out and written.
    fn cotangent(&mut self, backward: NodeId, id: NodeId) -> Result<Vec<Option<Tensor>>> {
        let program = self.program;
        let back = self.back(backward)?;
        if let Some(known) = back.cotangents.get(&id) {
            return Ok(known.clone());
        }
        let (of, seed) = (back.of, back.seed.clone());
        let users: Vec<NodeId> = back.ancestors.iter().copied().collect();
        let mut brought: Vec<((NodeId, usize), u32, Tensor)> = Vec::new();
        if of.node == id {
            brought.push(((backward, 0), of.output, seed));
        }
        for user in users {
            let reads = self.read_by(user);
            if !reads.iter().flatten().any(|value| value.node == id) {
                continue;
            }
            let parts = self.parts(backward, user)?;
            for (place, (value, part)) in reads.into_iter().zip(parts).enumerate() {
                if let (Some(value), Some(part)) = (value, part)
                    && value.node == id
                {
                    brought.push(((user, place), value.output, part));
                }
            }
        }
        brought.sort_by_key(|(place, _, _)| *place);
        let mut cotangents = Vec::new();
        for output in 0..program.nodes[id.index()].outputs.len().max(1) {
            let own = brought.iter().filter(|(_, other, _)| *other as usize == output);
            cotangents.push(sums::sum(own.map(|(_, _, part)| part.clone()).collect())?);
        }
        for target in self.back(backward)?.targets.clone() {
            let kind = &program.program.node(target).kind;
            let Some((_, GradientOf::Value(value))) = kind.gradient() else { continue };
            let elsewhere = kind.gradient().is_some_and(|(_, of)| self.invoke_of(backward, of).is_some());
            if value.node != id || elsewhere || self.is_lost(target) {
                continue;
            }
            let known = self.known(*value)?;
            let Some(cotangent) = cotangents.get_mut(value.output as usize) else { continue };
            if let NodeKind::SetGrad { value, .. } = kind {
                if let Some(given) = self.demand(target, *value)? {
                    *cotangent = Some(sums::fit(&given, known.shape(), known.dtype())?);
                }
            } else {
                let gradient = match cotangent {
                    Some(cotangent) => sums::given_out(cotangent, known.dtype())?,
                    None => sums::zeros(known.shape(), known.dtype())?,
                };
                self.values.insert((OUTSIDE, target), Some(vec![gradient]));
            }
        }
        self.back(backward)?.cotangents.insert(id, cotangents.clone());
        Ok(cotangents)
    }

    /// The value of a gradient that is written, computed now if it was not yet; none: it never comes, or is not written.
    fn demand(&mut self, target: NodeId, value: Value) -> Result<Option<Tensor>> {
        self.need((OUTSIDE, target)).map_err(|error| OperationError::new(error.to_string()))?;
        match self.is_lost(target) || self.is_lost(value.node) {
            true => Ok(None),
            false => self.known(value).map(Some),
        }
    }

    /// What a node brings to each value that it reads.
    fn parts(&mut self, backward: NodeId, user: NodeId) -> Result<Vec<Option<Tensor>>> {
        let program = self.program;
        if let Some(known) = self.back(backward)?.parts.get(&user) {
            return Ok(known.clone());
        }
        let parts = match &program.program.node(user).kind {
            NodeKind::Set { address: HookAddress { invoke, .. }, value }
            | NodeKind::Skip { invoke, value, .. }
            | NodeKind::SetWeight { invoke, value, .. } => {
                if !self.back(backward)?.written.contains_key(&user) {
                    self.walk_back(backward, *invoke, user)?;
                }
                let known = self.known(*value)?;
                let written = self.back(backward)?.written.get(&user).cloned().flatten();
                vec![
                    written
                        .map(|written| sums::sum_to(&written, known.shape(), known.dtype()))
                        .transpose()?,
                ]
            }
            NodeKind::Merge { .. } => self.cotangent(backward, user)?.into_iter().take(1).collect(),
            NodeKind::Apply { input, .. } => {
                let (input, module) = (self.known(*input)?, program.nodes[user.index()].module);
                let cotangent = self.cotangent(backward, user)?.first().cloned().flatten();
                match (module, cotangent) {
                    (Some(module), Some(cotangent)) => {
                        let (model, schedule) = (self.model, self.schedule);
                        let lengths = program.nodes[user.index()].lengths.as_deref();
                        let pool = &mut self.pool;
                        let part = apply_backward(model, schedule, module, &input, lengths, &cotangent, pool);
                        vec![Some(self.blamed(user, part)?)]
                    }
                    _ => vec![None],
                }
            }
            NodeKind::Operation(operation) => {
                let cotangents = self.cotangent(backward, user)?;
                let reads = operation.reads();
                let inputs: Result<Vec<Tensor>> = reads.iter().map(|(value, _)| self.known(*value)).collect();
                let outputs = self.values.get(&(OUTSIDE, user)).cloned().flatten().unwrap_or_default();
                let wanted: Vec<bool> = self.read_by(user).iter().map(Option::is_some).collect();
                match cotangents.iter().any(Option::is_some) {
                    true => {
                        let parts = gradients::vjp(operation, &inputs?, &outputs, &cotangents, &wanted);
                        self.blamed(user, parts)?
                    }
                    false => vec![None; reads.len()],
                }
            }
            _ => Vec::new(),
        };
        self.back(backward)?.parts.insert(user, parts.clone());
        Ok(parts)
    }

    /// Where a rule fails, the node is named whose rule it is, not the gradient that was asked for.
    fn blamed<T>(&mut self, user: NodeId, outcome: Result<T>) -> Result<T> {
        outcome.inspect_err(|_| self.touching = Some((OUTSIDE, user)))
    }
}
