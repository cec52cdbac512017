//! Running the nodes that touch no hook point, as soon as what they read is there.
//!
//! Most run at once, where their last value came: often in the middle of a pass, in which others ride too. Those that take
//! long are left, where the program has neighbours, for the time between passes: they are then [`Task`]s.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pellucid_graph::check::CheckedProgram;
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

/// What a task is for: a node, or a node that a `backward` goes back through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errand {
    pub instance: Instance,
    pub backward: Option<NodeId>,
}

/// What a task gives: a node's outputs; on a way back the gradient of each value that the node read, if one flows to it.
pub(crate) type Made = Result<Vec<Option<Tensor>>, OperationError>;

/// The rule by which one goes back through a node, with all that it reads.
pub(crate) type Rule = Box<dyn Fn(&[Loaded], &mut BufferPool) -> Made + Send>;

/// A task that was left for the time between passes.
pub(super) struct Left {
    errand: Errand,
    /// Of one on a way back.
    rule: Option<Rule>,
}

/// A node with the values that it reads, or the rule of one that is gone back through: all that is needed to run it, on any
/// thread.
pub(crate) struct Task<'a> {
    program: Held<'a, CheckedProgram>,
    pub errand: Errand,
    /// Stands for the node's own.
    operation: Option<Operation>,
    reads: HashMap<Value, Tensor>,
    rule: Option<Rule>,
}

impl Task<'_> {
    /// What it gives, unless it is stopped.
    pub fn run(&self, models: &[Loaded], pool: &mut BufferPool, stop: &Arc<AtomicBool>) -> Made {
        let (step, id) = self.errand.instance;
        let step = (step != OUTSIDE).then_some(step);
        let lookup = |value: Value| self.reads[&value].clone();
        let run = || {
            if let Some(rule) = &self.rule {
                return rule(models, pool);
            }
            if let NodeKind::Save(value) = self.program.program.node(id).kind {
                return Ok(vec![Some(lookup(value).contiguous()?)]);
            }
            let evaluator = Evaluator { models, program: &self.program };
            let outputs = evaluator.evaluate(id, self.operation.as_ref(), step, &lookup, pool)?;
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
                self.deferred.push_back(Left { errand: Errand { instance, backward: None }, rule: None });
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
            _ if flops < LONG_OPERATION => false,
            NodeKind::Save(value) => is_copied(*value),
            NodeKind::Operation(operation) if matches!(operation.kind, Reshape | Flatten | Unflatten) => {
                operation.values().first().is_none_or(|&input| is_copied(input))
            }
            _ => true,
        }
    }

    /// Whether a way back leaves a node that it goes through for the time between passes.
    pub fn is_long_on_the_way_back(&self, id: NodeId) -> bool {
        let least = if self.applies(id) { LONG_APPLICATION } else { LONG_OPERATION };
        let errand = Errand { instance: (OUTSIDE, id), backward: Some(id) };
        self.defers && !self.dry && self.flops(errand) >= least
    }

    /// Leaves that for the time between passes: what the rule gives is among [`Job::gone_through`] then.
    pub fn leave_on_the_way_back(&mut self, backward: NodeId, id: NodeId, rule: Rule) {
        let errand = Errand { instance: (OUTSIDE, id), backward: Some(backward) };
        self.deferred.push_back(Left { errand, rule: Some(rule) });
    }

    /// What has come since of the nodes that this way back has left.
    pub fn gone_through(&mut self, backward: NodeId) -> Vec<(NodeId, Vec<Option<Tensor>>)> {
        self.gone_through
            .extract_if(.., |(of, ..)| *of == backward)
            .map(|(_, id, parts)| (id, parts))
            .collect()
    }

    /// Whether a node applies a module.
    pub fn applies(&self, id: NodeId) -> bool {
        matches!(self.kind(id), NodeKind::Apply { .. })
    }

    /// Floating-point operations that a task was priced at. On the way back there is a product for each operand.
    pub fn flops(&self, errand: Errand) -> u64 {
        let there = self.program.nodes[errand.instance.1.index()].flops;
        if errand.backward.is_some() { there.saturating_mul(2) } else { there }
    }

    /// Whether nobody needs what would come of it any more. A way back waits for all that it has left.
    fn is_needless(&self, Errand { instance, backward }: Errand) -> bool {
        backward.is_none() && (self.is_settled(instance) || self.is_cut_off(instance.1))
    }

    /// The next of what was left.
    pub fn first_deferred(&self) -> Option<Errand> {
        self.deferred.iter().map(|left| left.errand).find(|errand| !self.is_needless(*errand))
    }

    /// The next of what was left, if there is room for what it makes: that is to be delivered.
    pub fn next_deferred(&mut self) -> Option<Task<'a>> {
        while let Some(Left { errand, rule }) = self.deferred.pop_front() {
            let id = errand.instance.1;
            if self.is_needless(errand) {
                continue;
            }
            if rule.is_some() {
                let (program, reads) = (self.program.clone(), HashMap::new());
                return Some(Task { program, errand, operation: None, reads, rule });
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
    fn finish(&mut self, instance: Instance, outputs: Vec<Tensor>, ready: &mut BTreeSet<Instance>) {
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
        let errand = Errand { instance, backward: None };
        Ok(Task { program: self.program.clone(), errand, operation, reads, rule: None })
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
        match tensor.contiguous() {
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
        let kept = value.bytes_len();
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
