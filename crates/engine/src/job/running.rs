//! Running the nodes that touch no hook point, as soon as what they read is there.
//!
//! Most run at once, where their last value came: often in the middle of a pass, in which others ride too. Those that take
//! long are left, where the program has neighbours, for the time between passes: they are then [`Task`]s.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pellucid_graph::check::CheckedProgram;
use pellucid_graph::limits::COPIED_VIEW;
use pellucid_graph::{NodeId, NodeKind, Operation, OperationKind, Value};
use pellucid_kernels::pool::Stopped;

use super::turns::Given;
use super::{Held, Instance, Job, OUTSIDE, SavedValue};
use crate::loaded::Loaded;
use crate::nodes::Evaluator;
use crate::operations::OperationError;
use crate::results::LogEntry;
use crate::slots::BufferPool;
use crate::tensor::Tensor;

/// Operations, as they are priced, from which an operation takes long: half a millisecond.
const LONG_OPERATION: u64 = 10_000_000;
/// The same for applied modules, which are matrix products.
const LONG_APPLICATION: u64 = 200_000_000;

/// Whether an operation takes long, by its price.
pub(crate) fn is_long(program: &CheckedProgram, id: NodeId) -> bool {
    program.nodes.get(id.index()).is_some_and(|node| node.flops >= LONG_OPERATION)
}

/// What a task is for: a node, or a part of a way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errand {
    pub instance: Instance,
    /// The `backward`, and what is done at the node.
    pub back: Option<(NodeId, Part)>,
    /// Floating-point operations that it is estimated at.
    pub flops: u64,
}

/// A `backward`, a node that it goes back through, and what it does there.
pub(crate) type PartOf = (NodeId, NodeId, Part);

/// What a way back does at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// It adds up what the readers of the node's outputs have brought.
    Sum,
    /// It gives out a gradient, to this node.
    Target,
    /// It goes through the node.
    Rule,
}

/// What a task gives: a node's outputs; on a way back gradients, where there are any: of each output for a sum, of each value that
/// the node read for a rule.
pub(crate) type Made = Result<Vec<Option<Tensor>>, OperationError>;

/// A part of a way back, with all that it reads.
pub(crate) type Step = Box<dyn FnOnce(&[Loaded], &mut BufferPool) -> Made + Send>;

/// A task that was left for the time between passes.
pub(super) struct Left {
    errand: Errand,
    /// Of one on a way back.
    step: Option<Step>,
}

/// A node with the values that it reads, or a part of a way back: all that is needed to run it, on any thread.
pub(crate) struct Task<'a> {
    program: Held<'a, CheckedProgram>,
    pub errand: Errand,
    /// Stands for the node's own.
    operation: Option<Operation>,
    reads: HashMap<Value, Tensor>,
    step: Option<Step>,
}

impl Task<'_> {
    /// What it gives, unless it is stopped.
    pub fn run(self, models: &[Loaded], pool: &mut BufferPool, stop: &Arc<AtomicBool>) -> Made {
        let Task { program, errand, operation, reads, step } = self;
        let (number, id) = errand.instance;
        let run = || {
            if let Some(step) = step {
                return step(models, pool);
            }
            let lookup = |value: Value| reads[&value].clone();
            if let NodeKind::Save(value) = program.program.node(id).kind {
                return Ok(vec![Some(lookup(value).compact()?)]);
            }
            let evaluator = Evaluator { models, program: &program };
            let number = (number != OUTSIDE).then_some(number);
            let outputs = evaluator.evaluate(id, operation.as_ref(), number, &lookup, pool)?;
            Ok(outputs.into_iter().map(Some).collect())
        };
        match pellucid_kernels::pool::stoppable(stop, run) {
            Ok(made) => made,
            Err(Stopped) => Err(OperationError::new("it was stopped")),
        }
    }
}

impl<'a> Job<'a> {
    pub(super) fn run_one(
        &mut self,
        instance: Instance,
        ready: &mut BTreeSet<Instance>,
        models: &[Loaded],
        pool: &mut BufferPool,
    ) {
        let (step, id) = instance;
        match *self.kind(id) {
            NodeKind::Merge { condition, then, otherwise } => {
                // In a dry run there are no values to choose from.
                let holds = self.truth(condition, step).unwrap_or(true);
                let picked = if holds { then } else { otherwise };
                match self.value(picked, step) {
                    _ if self.dry => self.finish(instance, Vec::new(), ready),
                    Some(tensor) => self.finish(instance, vec![tensor], ready),
                    None => self.lose_quietly(instance, ready),
                }
            }
            _ if self.defers && !self.dry && self.takes_long(instance) => {
                let flops = self.program.nodes[id.index()].flops;
                self.deferred.push_back(Left { errand: Errand { instance, back: None, flops }, step: None });
            }
            NodeKind::Save(value) => {
                let kept = self.value(value, step).map_or(0, |tensor| self.save(instance, tensor));
                self.applied(instance);
                self.hold(kept);
            }
            NodeKind::Log(value) => {
                let kept = self.value(value, step).map_or(0, |value| self.log(instance, value));
                self.applied(instance);
                self.hold(kept);
            }
            _ => self.evaluate(instance, ready, models, pool),
        }
    }

    fn evaluate(
        &mut self,
        instance: Instance,
        ready: &mut BTreeSet<Instance>,
        models: &[Loaded],
        pool: &mut BufferPool,
    ) {
        if !self.has_room(instance.1) {
            return;
        }
        let outputs = if self.dry {
            Ok(Vec::new())
        } else {
            self.task(instance).and_then(|task| task.run(models, pool, &self.stop))
        };
        match outputs {
            Ok(outputs) => self.finish(instance, outputs.into_iter().flatten().collect(), ready),
            Err(error) => {
                // Where it was stopped that is why it failed.
                self.check_budget();
                self.fail(instance.1, &error);
            }
        }
    }

    fn takes_long(&self, (step, id): Instance) -> bool {
        use OperationKind::{Flatten, Reshape, Unflatten};
        let flops = self.program.nodes[id.index()].flops;
        // The price is that of a copy: whether it comes to one shows the layout.
        let is_copied =
            |value: Value| self.value(value, step).is_some_and(|read| !read.data().is_contiguous());
        match self.kind(id) {
            NodeKind::Log(_) | NodeKind::Merge { .. } => false,
            NodeKind::Apply { .. } => flops >= LONG_APPLICATION,
            _ if !is_long(&self.program, id) => false,
            NodeKind::Save(value) => {
                is_copied(*value) || self.value(*value, step).is_some_and(|read| read.is_part())
            }
            NodeKind::Operation(operation) if matches!(operation.kind, Reshape | Flatten | Unflatten) => {
                operation.values().first().is_none_or(|&input| is_copied(input))
            }
            _ => true,
        }
    }

    /// Whether a way back leaves what takes so many operations at a node for the time between passes.
    pub fn is_long_on_the_way_back(&self, id: NodeId, flops: u64) -> bool {
        let least = if self.applies(id) { LONG_APPLICATION } else { LONG_OPERATION };
        self.defers && !self.dry && flops >= least
    }

    /// Leaves a part of a way back for the time between passes: what it gives is among [`Job::gone_through`] then.
    pub fn leave_on_the_way_back(&mut self, (backward, id, part): PartOf, flops: u64, step: Step) {
        let errand = Errand { instance: (OUTSIDE, id), back: Some((backward, part)), flops };
        self.deferred.push_back(Left { errand, step: Some(step) });
    }

    /// What has come since of what this way back has left.
    pub fn gone_through(&mut self, backward: NodeId) -> Vec<(NodeId, Part, Vec<Option<Tensor>>)> {
        let own = self.gone_through.extract_if(.., |((of, ..), _)| *of == backward);
        own.map(|((_, id, part), made)| (id, part, made)).collect()
    }

    /// Whether a node applies a module.
    pub fn applies(&self, id: NodeId) -> bool {
        matches!(self.kind(id), NodeKind::Apply { .. })
    }

    /// Whether nobody needs what would come of it any more. A way back waits for all that it has left.
    fn is_needless(&self, Errand { instance, back, .. }: Errand) -> bool {
        back.is_none() && (self.is_settled(instance) || self.is_cut_off(instance.1))
    }

    /// The next of what was left.
    pub fn first_deferred(&self) -> Option<Errand> {
        self.deferred.iter().map(|left| left.errand).find(|errand| !self.is_needless(*errand))
    }

    /// The next of what was left, if there is room for what it makes: that is to be delivered.
    pub fn next_deferred(&mut self) -> Option<Task<'a>> {
        while let Some(Left { errand, step }) = self.deferred.pop_front() {
            let id = errand.instance.1;
            if self.is_needless(errand) {
                continue;
            }
            if step.is_some() {
                let (program, reads) = (self.program.clone(), HashMap::new());
                return Some(Task { program, errand, operation: None, reads, step });
            }
            if !self.has_room(id) {
                continue;
            }
            match self.task(errand.instance) {
                Ok(task) => return Some(task),
                Err(error) => self.fail(id, &error),
            }
        }
        None
    }

    /// Files what a node made; what it read may be free then.
    fn finish(&mut self, instance: Instance, mut outputs: Vec<Tensor>, ready: &mut BTreeSet<Instance>) {
        if let Err(error) = self.note_views(instance, &mut outputs) {
            return self.fail(instance.1, &error);
        }
        self.release(instance);
        self.file(instance, outputs, ready);
    }

    /// A node that can run, with what it reads.
    fn task(&self, instance: Instance) -> Result<Task<'a>, OperationError> {
        let (step, id) = instance;
        let mut reads: HashMap<Value, Tensor> = HashMap::new();
        for value in self.kind(id).values() {
            // Every value is there, or the node would not run; the check keeps a mistake from becoming a panic.
            let tensor = self.value(value, step).ok_or_else(|| {
                OperationError::new(format!(
                    "the value of `{}` is not there",
                    self.program.program.node(value.node).name
                ))
            })?;
            reads.insert(value, tensor);
        }
        let mut operation = self.in_narrowed_columns(instance);
        if let Some(among) = self.among_read_columns(instance, operation.as_ref())? {
            if let Some((value, places)) = among.index
                && let Some(index) = reads.get_mut(&value)
            {
                *index = Tensor::from_i64(places, index.shape())?;
            }
            operation = Some(among.operation);
        }
        let errand = Errand { instance, back: None, flops: self.program.nodes[id.index()].flops };
        Ok(Task { program: self.program.clone(), errand, operation, reads, step: None })
    }

    /// What a save that was left gives: its value in row-major order.
    pub(super) fn deliver_saved(&mut self, instance: Instance, outputs: Vec<Tensor>) {
        let kept = outputs.into_iter().next().map_or(0, |tensor| self.save(instance, tensor));
        self.applied(instance);
        self.hold(kept);
    }

    /// Files a result; the bytes that it keeps to the end of the run.
    fn save(&mut self, (step, id): Instance, tensor: Tensor) -> u64 {
        let name = &self.program.program.node(id).name;
        let name = if step == OUTSIDE { name.clone() } else { format!("{name}/{step}") };
        match tensor.compact() {
            Ok(tensor) => {
                let kept = tensor.bytes_len();
                self.give(id, Given::Saved(name, tensor));
                kept
            }
            Err(error) => {
                self.fail(id, &error);
                0
            }
        }
    }

    /// Files what is logged; the bytes that it keeps to the end of the run.
    fn log(&mut self, (step, id): Instance, value: Tensor) -> u64 {
        // A small part is copied; a large one keeps what it is a part of, and counts as that.
        let is_copied = value.is_part() && value.bytes_len() <= COPIED_VIEW;
        let value = match if is_copied { value.compact() } else { Ok(value) } {
            Ok(value) => value,
            Err(error) => {
                self.fail(id, &error);
                return 0;
            }
        };
        let kept = value.bytes_len().max(value.stored_bytes());
        let node = self.program.program.node(id);
        let (name, coordinates) = (node.label().to_owned(), node.coordinates().to_vec());
        let step = (step != OUTSIDE).then_some(step);
        self.give(id, Given::Logged(LogEntry { name, coordinates, step, value }));
        kept
    }

    /// Tells what a node gives, and puts it among the results.
    pub(super) fn tell(&mut self, id: NodeId, given: Given) {
        match given {
            Given::Saved(name, tensor) => {
                if let Some(on_saved) = &self.options.on_saved {
                    on_saved(&SavedValue { name: &name, value: &tensor });
                }
                self.saved.push((name.clone(), id));
                self.results.tensors.insert(name, tensor);
            }
            Given::Logged(entry) => {
                if let Some(on_log) = &self.options.on_log {
                    on_log(&entry);
                }
                self.results.logs.push(entry);
            }
        }
    }
}
