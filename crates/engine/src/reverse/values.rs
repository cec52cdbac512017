//! Cotangents of a program's values on one way back.
//!
//! A value's cotangent is the sum of what its users bring, added in program order of the users and, for one user, in order
//! of its arguments: whenever they happened to come. It is finished when all have come.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pellucid_graph::check::GradientPlan;
use pellucid_graph::{DType, NodeId, NodeKind, Value};

use super::Failure;
use super::sums;
use super::tape::Tape;
use crate::job::{Job, OUTSIDE};
use crate::tensor::Tensor;

/// What a user brings, by the place of the argument through which it read the value.
type Brought = ((NodeId, usize), u32, Tensor);

/// The cotangents of one way back.
#[derive(Default)]
pub(crate) struct Values {
    /// Of each node on the path: how many uses have not brought anything yet.
    waiting: HashMap<NodeId, usize>,
    brought: HashMap<NodeId, Vec<Brought>>,
    /// Bytes of what was brought and is not taken yet, and how many of them are counted.
    held: u64,
    counted: u64,
    /// Nodes whose cotangent is complete and has not been gone on with.
    complete: BTreeSet<NodeId>,
    /// Getters whose cotangent is finished, for the walker that passes them.
    getters: HashMap<NodeId, Option<Tensor>>,
    /// Of each setter, skip and set weight on the path: the value that it wrote.
    written: BTreeMap<NodeId, Value>,
    /// Of each value of two branches on the path: the branch's that ran.
    picked: HashMap<NodeId, Value>,
}

impl Values {
    /// Nothing brought yet, but the cotangent that it begins with.
    pub fn new(plan: &GradientPlan, job: &Job<'_>, of: Value, cotangent: Tensor) -> Values {
        let mut values = Values::default();
        // What was lost brings nothing, and nothing is brought to it.
        let there = |id: &NodeId| !job.is_lost((OUTSIDE, *id));
        values.waiting.extend(plan.path.iter().copied().filter(there).map(|id| (id, 0)));
        for user in plan.path.iter().copied().filter(there) {
            let kind = &job.program.program.node(user).kind;
            let set = match kind {
                NodeKind::SetWeight { value, .. } => Some(*value),
                _ => kind.written().map(|(_, value)| value),
            };
            if let Some(value) = set {
                values.written.insert(user, value);
                *values.waiting.entry(user).or_default() += 1;
            }
            if let NodeKind::Merge { condition, then, otherwise } = *kind
                && let Some(holds) = job.truth(condition, OUTSIDE)
            {
                values.picked.insert(user, if holds { then } else { otherwise });
            }
            for value in values.flows(job, user) {
                if let Some(waiting) = values.waiting.get_mut(&value.node) {
                    *waiting += 1;
                }
            }
        }
        *values.waiting.entry(of.node).or_default() += 1;
        values
            .complete
            .extend(values.waiting.iter().filter(|(_, waiting)| **waiting == 0).map(|(&id, _)| id));
        values.bring(of, (plan.backward, 0), Some(cotangent));
        values
    }

    /// Whether nothing is complete that was not gone on with.
    pub fn is_empty(&self) -> bool {
        self.complete.is_empty()
    }

    /// A user brings its part, or that there is none.
    pub fn bring(&mut self, value: Value, place: (NodeId, usize), part: Option<Tensor>) {
        if !self.waiting.contains_key(&value.node) {
            return;
        }
        if let Some(part) = part {
            self.held += part.bytes_len();
            self.brought.entry(value.node).or_default().push((place, value.output, part));
        }
        self.count_down(value.node);
    }

    fn count_down(&mut self, id: NodeId) {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.complete.insert(id);
            }
        }
    }

    /// A node to which all has been brought, with what was, of each of its outputs; the last in program order first.
    pub fn next_complete(&mut self, outputs: impl Fn(NodeId) -> usize) -> Option<(NodeId, Vec<Vec<Tensor>>)> {
        let id = self.complete.pop_last()?;
        let mut brought = self.brought.remove(&id).unwrap_or_default();
        brought.sort_by_key(|(place, _, _)| *place);
        let mut parts: Vec<Vec<Tensor>> = vec![Vec::new(); outputs(id)];
        for (_, output, tensor) in brought {
            self.held -= tensor.bytes_len();
            if let Some(parts) = parts.get_mut(output as usize) {
                parts.push(tensor);
            }
        }
        Some((id, parts))
    }

    /// Bytes of what was brought, as they were counted last and as they are: these count from now on.
    pub fn account(&mut self) -> (u64, u64) {
        (std::mem::replace(&mut self.counted, self.held), self.held)
    }

    /// Bytes that are counted.
    pub fn counted(&self) -> u64 {
        self.counted
    }

    /// A getter's cotangent is finished.
    pub fn finish_getter(&mut self, getter: NodeId, cotangent: Option<Tensor>) {
        self.getters.insert(getter, cotangent);
    }

    /// Whether a getter's cotangent is finished.
    pub fn is_finished(&self, getter: NodeId) -> bool {
        self.getters.contains_key(&getter)
    }

    /// A getter's finished cotangent, if it has one.
    pub fn take_finished(&mut self, getter: NodeId) -> Option<Tensor> {
        self.getters.remove(&getter).flatten()
    }

    /// Whether a node was there, or might still come, when the way back began.
    pub fn goes_through(&self, id: NodeId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Whether a setter's value has a gradient that is needed.
    pub fn waits_for(&self, setter: NodeId) -> bool {
        self.written.contains_key(&setter)
    }

    /// What a setter wrote has this cotangent, in the hook point's shape.
    pub fn of_setter(
        &mut self,
        setter: NodeId,
        cotangent: Option<Tensor>,
        tape: &Tape,
    ) -> Result<(), Failure> {
        let Some(&value) = self.written.get(&setter) else { return Ok(()) };
        let part = match (cotangent, tape.written.get(&(OUTSIDE, setter))) {
            (Some(cotangent), Some((shape, dtype))) => {
                Some(sums::sum_to(&cotangent, shape, *dtype).map_err(|error| Failure::at(setter, error))?)
            }
            _ => None,
        };
        self.of_written(setter, value, part);
        Ok(())
    }

    /// What a weight was set to has this cotangent; none: nothing came to it, or it was not set.
    pub fn of_weight(
        &mut self,
        setter: NodeId,
        cotangent: Option<Tensor>,
        dtype: DType,
    ) -> Result<(), Failure> {
        let Some(&value) = self.written.get(&setter) else { return Ok(()) };
        let part = cotangent.map(|cotangent| cotangent.cast(dtype)).transpose();
        self.of_written(setter, value, part.map_err(|error| Failure::at(setter, error))?);
        Ok(())
    }

    /// A setter has come to nothing: it was lost after the way back began.
    pub fn lose(&mut self, setter: NodeId) {
        if let Some(&value) = self.written.get(&setter) {
            self.of_written(setter, value, None);
        }
    }

    fn of_written(&mut self, setter: NodeId, value: Value, part: Option<Tensor>) {
        self.written.remove(&setter);
        self.bring(value, (setter, 0), part);
        self.count_down(setter);
    }

    /// The branch's value that a value of two branches is.
    pub fn picked(&self, id: NodeId) -> Option<Value> {
        self.picked.get(&id).copied()
    }

    /// The values that gradients flow to from a node, one for each argument that reads one.
    pub fn flows(&self, job: &Job<'_>, user: NodeId) -> Vec<Value> {
        match job.program.program.node(user).kind {
            NodeKind::Merge { .. } => self.picked(user).into_iter().collect(),
            _ => flows(job, user),
        }
    }
}

/// A node and the cotangent of each of its outputs.
pub(crate) type Complete = (NodeId, Vec<Option<Tensor>>);

/// The values that gradients flow to from a node other than a value of two branches.
pub(crate) fn flows(job: &Job<'_>, user: NodeId) -> Vec<Value> {
    let float = |value: &Value| {
        let outputs = &job.program.nodes[value.node.index()].outputs;
        outputs.get(value.output as usize).is_some_and(|output| output.dtype.is_float())
    };
    match &job.program.program.node(user).kind {
        NodeKind::Set { value, .. } | NodeKind::Skip { value, .. } | NodeKind::SetWeight { value, .. } => {
            vec![*value]
        }
        NodeKind::Apply { input, .. } => vec![*input],
        NodeKind::Operation(operation) if operation.kind.definition().differentiable => {
            let reads = operation.reads().into_iter();
            reads.filter(|(value, elements)| *elements && float(value)).map(|(value, _)| value).collect()
        }
        _ => Vec::new(),
    }
}
