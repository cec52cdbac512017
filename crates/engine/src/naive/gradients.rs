//! Gradients, the simple way: a node's cotangent is the sum over all of its users, each asked in turn, and an invoke is
//! walked back through every stage from the last getter that matters to wherever somebody asks. Nothing is left out
//! because nobody needs it. It shares the stages' and operations' own products with the planned way back, and nothing else.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use pellucid_graph::{DType, GradientOf, HookAddress, NodeId, NodeKind, Value};
use pellucid_models::stage::{HookLayout, Kernel, Slot, SlotShape};

use super::Naive;
use crate::job::{Instance, OUTSIDE};
use crate::operations::{OperationError, gradients};
use crate::pass::{PassState, Sequence};
use crate::reverse::stages::Back as StageBack;
use crate::reverse::weights::OfWeights;
use crate::reverse::{apply_backward, sums};
use crate::slots::{Rows, SlotValue};
use crate::tensor::Tensor;
use crate::view;
use crate::weights::{self, Weights};

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

/// An invoke that is walked back; slots hold cotangents.
struct Walk {
    state: PassState,
    /// The stage that was gone back through last.
    at: usize,
    /// Touches of the stage at hand that are left, in program order.
    left: Option<Vec<NodeId>>,
    /// Gradients of the weights that were set.
    of_weights: OfWeights,
    /// Whether the gradients of the version at hand were given out.
    given: bool,
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

    /// Walks an invoke back until the gradient `until` is given out or the cotangent of the setter `until` is known.
    fn walk_back(&mut self, backward: NodeId, invoke: usize, until: NodeId) -> Result<()> {
        let mut walk = match self.back(backward)?.walks.insert(invoke, None) {
            Some(Some(walk)) => walk,
            Some(None) => {
                let message = "it waits for a gradient that waits for this one itself";
                return Err(OperationError::new(message));
            }
            None => self.begin_walk(backward, invoke)?,
        };
        let outcome = loop {
            // A setter has a value too, that of the way there.
            let setter = self.program.program.node(until).kind.gradient().is_none();
            let reached = match setter {
                true => self.back(backward)?.written.contains_key(&until),
                false => self.values.contains_key(&(OUTSIDE, until)),
            };
            if reached {
                break Ok(());
            }
            if walk.at == 0 && walk.left.is_none() {
                match self.end_walk(backward, invoke, &mut walk) {
                    Ok(()) if self.back(backward)?.written.contains_key(&until) => break Ok(()),
                    Ok(()) => break Err(OperationError::new("the way back ended before it")),
                    Err(error) => break Err(error),
                }
            }
            if let Err(error) = self.step_back(backward, invoke, &mut walk) {
                break Err(error);
            }
        };
        self.back(backward)?.walks.insert(invoke, Some(walk));
        outcome
    }

    /// At the beginning of an invoke the gradients of its weights are known: of several values of one parameter, that of the
    /// last.
    fn end_walk(&mut self, backward: NodeId, invoke: usize, walk: &mut Walk) -> Result<()> {
        for id in self.walkers[invoke].set.clone().into_iter().rev() {
            let cotangent = match self.program.nodes[id.index()].parameter {
                Some(parameter) if !self.is_lost(id) => {
                    let weight = weights::weight_id(parameter)?;
                    let shape = self.model.weight(weight).map(|weight| weight.parameter().shape().to_vec());
                    walk.of_weights.take(weight, &shape.unwrap_or_default())?
                }
                _ => None,
            };
            self.back(backward)?.written.insert(id, cotangent);
        }
        Ok(())
    }

    /// An invoke behind every stage that anybody reads.
    fn begin_walk(&mut self, backward: NodeId, invoke: usize) -> Result<Walk> {
        let list = self.model.stages();
        let sequences =
            self.walkers[invoke].prompts.iter().map(|tokens| Sequence::new(vec![0; tokens.len()]));
        let mut state = PassState::begin(list, sequences.collect());
        state.clear();
        let _ = self.back(backward)?;
        // Nothing was walked beyond the walker's own stage.
        let at = self.walkers[invoke].stage.max(1);
        let of_weights = OfWeights::of(&self.walkers[invoke].tape.weights);
        Ok(Walk { state, at: at.min(list.stages.len()), left: None, of_weights, given: false })
    }

    /// One stage back, or at a hook point one touch.
    fn step_back(&mut self, backward: NodeId, invoke: usize, walk: &mut Walk) -> Result<()> {
        let (model, list) = (self.model, self.model.stages());
        if walk.left.is_none() {
            walk.at -= 1;
            walk.state.narrowed = walk.at >= list.token_wise_from;
            let stage = &list.stages[walk.at];
            if !matches!(stage.kernel, Kernel::Hook { .. }) {
                let wanted = vec![true; list.slots as usize];
                let walker = &self.walkers[invoke];
                let weights = Weights::new(model, walker.weights.as_deref());
                let back = StageBack { model, weights, tape: &walker.tape, wanted: &wanted };
                let (state, pool) = (&mut walk.state, &mut self.pool);
                let done = back.of_weights(stage, state, &mut walk.of_weights, pool);
                return done.and_then(|()| back.stage(walk.at, state, pool)).map_err(|interruption| {
                    match interruption {
                        crate::error::Interruption::Internal(message) => OperationError::new(message),
                        crate::error::Interruption::AllFailed => OperationError::new("interrupted"),
                    }
                });
            }
            walk.left = Some(self.touches_at(backward, invoke, walk.at)?);
            walk.given = false;
        }
        let stage = &list.stages[walk.at];
        let Kernel::Hook { point, layout } = stage.kernel else { return Ok(()) };
        let to = stage.outputs[0];
        let rectangle = self.rectangle(invoke);
        // The getters of the latest version that is left, in program order.
        let left = walk.left.clone().unwrap_or_default();
        let setter = |id: &NodeId| self.program.program.node(*id).kind.written().is_some();
        let version = left.iter().rposition(setter);
        let getters = &left[version.map_or(0, |place| place + 1)..];
        for &getter in getters {
            let cotangent = self.cotangent(backward, getter)?.first().cloned().flatten();
            if let Some(cotangent) = cotangent {
                self.ensure(&mut walk.state, to);
                let held = view::read(&walk.state, to, layout, &rectangle)?;
                if let Some(total) = sums::sum(vec![held, cotangent])? {
                    view::write(&mut walk.state, to, layout, &rectangle, &total, u64::MAX)?;
                }
            }
        }
        let made_by = version.map(|place| left[place]);
        self.give_out(backward, invoke, (walk.at, made_by), (point, layout, to), walk)?;
        if let Some(place) = version {
            let cotangent = match walk.state.slot(to) {
                Some(_) => Some(view::read(&walk.state, to, layout, &rectangle)?),
                None => None,
            };
            let _ = walk.state.take(to);
            self.back(backward)?.written.insert(left[place], cotangent);
            walk.left = Some(left[..place].to_vec());
            return Ok(());
        }
        walk.left = None;
        let wanted = vec![true; list.slots as usize];
        let walker = &self.walkers[invoke];
        let weights = Weights::new(model, walker.weights.as_deref());
        let back = StageBack { model, weights, tape: &walker.tape, wanted: &wanted };
        back.hook(stage, &mut walk.state, &mut self.pool);
        Ok(())
    }

    /// Gradients of a version are given out and written, in program order.
    fn give_out(
        &mut self,
        backward: NodeId,
        invoke: usize,
        (stage, made_by): (usize, Option<NodeId>),
        (point, layout, slot): (usize, HookLayout, Slot),
        walk: &mut Walk,
    ) -> Result<()> {
        let program = self.program;
        let rectangle = self.rectangle(invoke);
        let setters: Vec<NodeId> = self
            .touches_at(backward, invoke, stage)?
            .into_iter()
            .filter(|id| program.program.node(*id).kind.written().is_some())
            .collect();
        for target in self.back(backward)?.targets.clone() {
            let kind = &program.program.node(target).kind;
            let Some((_, of)) = kind.gradient() else { continue };
            if self.invoke_of(backward, of) != Some(invoke) {
                continue;
            }
            let (id, version) = match of {
                GradientOf::Hook(_) => (target, setters.last()),
                GradientOf::Value(value) => {
                    (value.node, setters.iter().rfind(|setter| **setter < value.node))
                }
            };
            let own = program.nodes[id.index()].place.map(|place| self.schedule.hook_stage[place]);
            if own != Some(stage) || version.copied() != made_by || self.is_lost(target) {
                continue;
            }
            self.ensure(&mut walk.state, slot);
            if let NodeKind::SetGrad { value, .. } = kind {
                if let Some(given) = self.demand(target, *value)? {
                    let axes = &self.model.spec().hook_points[point].shape;
                    let given = view::fit(&given, axes, DType::F32, &rectangle)?;
                    view::write(&mut walk.state, slot, layout, &rectangle, &given, u64::MAX)?;
                }
            } else {
                let read = view::read(&walk.state, slot, layout, &rectangle)?;
                let gradient = sums::given_out(&read, DType::F32)?;
                self.values.insert((OUTSIDE, target), Some(vec![gradient]));
            }
        }
        Ok(())
    }

    /// The setters of an invoke at a stage that set something, and the getters that matter, in program order.
    fn touches_at(&mut self, backward: NodeId, invoke: usize, stage: usize) -> Result<Vec<NodeId>> {
        let program = self.program;
        let touches = self.walkers[invoke].touches.clone().into_iter();
        let at: Vec<NodeId> = touches.filter(|touch| touch.1 == stage).map(|(_, _, (_, id))| id).collect();
        let back = self.back(backward)?;
        let matters = |id: &NodeId| match &program.program.node(*id).kind {
            NodeKind::Get(_) => back.ancestors.contains(id),
            _ => true,
        };
        let at: Vec<NodeId> = at.into_iter().filter(matters).collect();
        Ok(at.into_iter().filter(|id| !self.is_lost(*id)).collect())
    }

    fn ensure(&self, state: &mut PassState, slot: Slot) {
        if state.slot(slot).is_some() {
            return;
        }
        let value = match self.model.stages().shapes.get(slot.0 as usize) {
            Some(SlotShape::Context { heads }) => {
                let lengths = state.rows.iter().map(|rows| rows.len());
                SlotValue::Ragged(
                    lengths.map(|length| Some(Arc::new(vec![0.0; heads * length * length]))).collect(),
                )
            }
            Some(SlotShape::Inner(inner)) => {
                let width: usize = inner.iter().product();
                SlotValue::Rows(Rows::contiguous(vec![0.0; state.tokens() * width], inner))
            }
            _ => return,
        };
        state.put(slot, value);
    }
}
