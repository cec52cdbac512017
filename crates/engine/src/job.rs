//! One program's run: which values are there, which nodes may run now.
//!
//! Nodes run as soon as what they read is there, in program order; a value is freed after its last use. A node inside
//! `steps` has an instance for each step. In a dry run nothing is computed: values are there without tensors.
//!
//! So a reduction is made in place: an activation that is only reduced is reduced at the hook point where it arises, in the middle of
//! the pass, and is gone before the next stage.
//!
//! **Needs:** it is known of each value which needed nodes read it, before it is there. Held longer is what a way back reads, to
//! its end, and what is read at every step of a generation, to the program's. Where programs ride together nodes that take long wait for
//! the time between passes (`running`), with what they read; how much may wait so is `interleave::room`'s.
//!
//! **Keeps:** a value is never changed once it is there, so it makes no difference when its readers run.

mod columns;
mod conditions;
mod held;
mod memory;
mod options;
mod running;
mod slices;
mod turns;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pellucid_graph::check::{CheckedProgram, GradientPlan};
use pellucid_graph::{GradientOf, NodeId, NodeKind, Value};

use crate::error::{EngineError, Failure};
use crate::loaded::Loaded;
use crate::operations::OperationError;
use crate::results::Results;
use crate::slots::BufferPool;
use crate::tensor::Tensor;

pub(crate) use held::Held;
use memory::Views;
pub use options::{GeneratedToken, OnLog, OnProgress, OnSaved, OnToken, Progress, RunOptions, SavedValue};
use running::Left;
pub(crate) use running::{Errand, Made, Part, PartOf, Step, Task, is_long};
use slices::Beginning;
use turns::Turns;

/// Views of views that are followed to where what they show is kept.
const VIEWS: usize = 8;

/// The step of nodes outside `steps`.
pub(crate) const OUTSIDE: u64 = u64::MAX;

/// A node at a step.
pub(crate) type Instance = (u64, NodeId);

pub(crate) struct Job<'a> {
    pub program: Held<'a, CheckedProgram>,
    pub options: RunOptions,
    /// Set to stop what is being computed: the caller's cancellation.
    pub stop: Arc<AtomicBool>,
    pub failed: Option<EngineError>,
    pub results: Results,
    /// The trace that is running: of those that run together the one whose turn it is.
    pub trace: Option<NodeId>,
    turns: Turns,
    /// Every saved name with its node.
    saved: Vec<(String, NodeId)>,
    /// Getters whose value has only some columns of the rectangle: which.
    pub narrowed: HashMap<Instance, Vec<usize>>,
    /// Getters of logits, and what picks positions of them, that have only some columns of the vocabulary: which.
    pub vocabulary: HashMap<Instance, Arc<[usize]>>,
    values: HashMap<Instance, Vec<Tensor>>,
    /// Of each instance that has not run: how many values that it reads are not there.
    pending: HashMap<Instance, usize>,
    /// Of each value that is there: how many readers have not run.
    unread: HashMap<Instance, usize>,
    users: Vec<Vec<NodeId>>,
    live_steps: HashMap<NodeId, BTreeSet<u64>>,
    done: HashSet<Instance>,
    /// What never comes, because a generation stopped before its step, or a condition does not hold.
    lost: HashSet<Instance>,
    /// Of each node: how many ways back need what it gave.
    kept: Vec<usize>,
    /// Ways back that can begin.
    backwards: VecDeque<NodeId>,
    held_bytes: u64,
    /// What views keep, by the values that they are views of.
    views: Views,
    started: Instant,
    dry: bool,
    /// Whether nodes that take long are left for whoever runs the program to run between passes.
    pub defers: bool,
    /// Those that were left.
    deferred: VecDeque<Left>,
    /// What has come of what ways back have left.
    gone_through: Vec<(PartOf, Vec<Option<Tensor>>)>,
    /// What its own small nodes may take before others have their turn; none: no bound.
    pub slice: Option<Duration>,
    /// What they took since somebody asked.
    own: Duration,
    /// Nodes that can run, and were left because the slice was over.
    postponed: BTreeSet<Instance>,
    /// Bodies that begin, and how far they are.
    beginnings: VecDeque<Beginning>,
    /// Of how many nodes it is known who reads them.
    wired: usize,
    /// The node that is being worked on: to be named if something panics.
    pub at_node: Option<NodeId>,
}

impl<'a> Job<'a> {
    pub fn new(program: Held<'a, CheckedProgram>, options: RunOptions, dry: bool) -> Job<'a> {
        let (users, kept) = (vec![Vec::new(); program.nodes.len()], vec![0; program.nodes.len()]);
        Job {
            program,
            stop: options.cancel.clone().unwrap_or_default(),
            options,
            failed: None,
            results: Results::default(),
            trace: None,
            turns: Turns::default(),
            saved: Vec::new(),
            narrowed: HashMap::new(),
            vocabulary: HashMap::new(),
            values: HashMap::new(),
            pending: HashMap::new(),
            unread: HashMap::new(),
            users,
            live_steps: HashMap::new(),
            done: HashSet::new(),
            lost: HashSet::new(),
            kept,
            backwards: VecDeque::new(),
            held_bytes: 0,
            views: Views::default(),
            started: Instant::now(),
            dry,
            defers: false,
            deferred: VecDeque::new(),
            gone_through: Vec::new(),
            slice: None,
            own: Duration::ZERO,
            postponed: BTreeSet::new(),
            beginnings: VecDeque::new(),
            wired: 0,
            at_node: None,
        }
    }

    fn kind(&self, id: NodeId) -> &NodeKind {
        &self.program.program.node(id).kind
    }

    /// What a node waits for: the values that it reads, and the conditions of its guards.
    fn reads(&self, id: NodeId) -> Vec<Value> {
        self.program.program.node(id).values()
    }

    /// The node's instance at a step: nodes outside `steps` have only one.
    fn at(&self, id: NodeId, step: u64) -> Instance {
        (if self.program.nodes[id.index()].steps.is_some() { step } else { OUTSIDE }, id)
    }

    /// Whether a setter may go on: everything that it reads is there, or never comes.
    pub fn is_ready(&self, instance: Instance) -> bool {
        self.is_lost(instance) || self.pending.get(&instance).is_some_and(|&missing| missing == 0)
    }

    /// Whether it never comes: a generation stopped before its step, or a condition does not hold.
    pub fn is_lost(&self, instance: Instance) -> bool {
        self.lost.contains(&instance)
    }

    /// How many nodes have run, once for each step.
    pub fn nodes_done(&self) -> u64 {
        self.done.len() as u64
    }

    /// Whether anything was lost at all.
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// A value that is there.
    pub fn value(&self, value: Value, step: u64) -> Option<Tensor> {
        self.values.get(&self.at(value.node, step))?.get(value.output as usize).cloned()
    }

    /// Files a node's outputs, and runs whatever can run now.
    pub fn deliver(
        &mut self,
        instance: Instance,
        mut outputs: Vec<Tensor>,
        models: &[Loaded],
        pool: &mut BufferPool,
    ) {
        if self.lost.contains(&instance) || self.is_cut_off(instance.1) {
            return;
        }
        if matches!(self.kind(instance.1), NodeKind::Save(_)) {
            return self.deliver_saved(instance, outputs);
        }
        let mut ready = BTreeSet::new();
        if let Err(error) = self.note_views(instance, &mut outputs) {
            return self.fail(instance.1, &error);
        }
        self.file(instance, outputs, &mut ready);
        self.release(instance);
        self.run_ready(ready, models, pool);
    }

    /// Files what a task made, and runs what can run then.
    pub fn deliver_made(
        &mut self,
        Errand { instance, back, .. }: Errand,
        made: Vec<Option<Tensor>>,
        models: &[Loaded],
        pool: &mut BufferPool,
    ) {
        match back {
            Some((backward, part)) => self.gone_through.push(((backward, instance.1, part), made)),
            None => self.deliver(instance, made.into_iter().flatten().collect(), models, pool),
        }
    }

    /// A setter has been applied: its value has one reader less.
    pub fn applied(&mut self, instance: Instance) {
        self.done.insert(instance);
        self.pending.remove(&instance);
        self.release(instance);
    }

    fn file(&mut self, instance: Instance, outputs: Vec<Tensor>, ready: &mut BTreeSet<Instance>) {
        let (step, id) = instance;
        self.done.insert(instance);
        self.pending.remove(&instance);
        self.hold(outputs.iter().map(Tensor::bytes_len).sum());
        let users = std::mem::take(&mut self.users[id.index()]);
        let mut unread = if step == OUTSIDE { self.kept[id.index()] } else { 0 };
        for &user in &users {
            let steps = self.program.nodes[user.index()].steps;
            let same = step != OUTSIDE || steps.is_none();
            if same && self.is_settled((step, user)) {
                continue;
            } else if same {
                unread += 1;
                self.count_down((step, user), ready);
            } else {
                // Read at every step of a body: kept to the end.
                unread = usize::MAX / 2;
                let live: Vec<u64> = steps
                    .and_then(|owner| self.live_steps.get(&owner))
                    .into_iter()
                    .flatten()
                    .copied()
                    .collect();
                for step in live {
                    self.count_down((step, user), ready);
                }
            }
        }
        if unread > 0 {
            self.unread.insert(instance, unread);
            self.values.insert(instance, outputs);
            self.judge(instance, &users, ready);
            self.users[id.index()] = users;
        } else {
            self.users[id.index()] = users;
            self.forget_values(instance, &outputs);
        }
    }

    fn count_down(&mut self, user: Instance, ready: &mut BTreeSet<Instance>) {
        if let Some(missing) = self.pending.get_mut(&user) {
            *missing -= 1;
            let ready_now = *missing == 0;
            if ready_now && matches!(self.kind(user.1), NodeKind::Backward { .. }) {
                self.backwards.push_back(user.1);
            } else if ready_now && runs_by_itself(self.kind(user.1)) {
                ready.insert(user);
            }
        }
    }

    /// The values that an instance has read are free if nobody else reads them.
    fn release(&mut self, instance: Instance) {
        for value in self.reads(instance.1) {
            self.release_one(self.at(value.node, instance.0));
        }
    }

    /// A value has one reader less.
    fn release_one(&mut self, read: Instance) {
        let Some(unread) = self.unread.get_mut(&read) else { return };
        *unread -= 1;
        if *unread == 0 {
            self.unread.remove(&read);
            self.narrowed.remove(&read);
            self.vocabulary.remove(&read);
            if let Some(values) = self.values.remove(&read) {
                self.forget_values(read, &values);
            }
        }
    }

    /// A `backward` that can begin.
    pub fn next_backward(&mut self) -> Option<NodeId> {
        self.backwards.pop_front()
    }

    /// A way back has come to its end: what was kept for it may be free.
    pub fn end_way_back(&mut self, plan: &GradientPlan) {
        for id in needed_on_the_way_back(&self.program, plan) {
            self.kept[id.index()] = self.kept[id.index()].saturating_sub(1);
            self.release_one((OUTSIDE, id));
        }
    }

    /// All that a node gave, if it is there.
    pub fn outputs(&self, instance: Instance) -> Option<Vec<Tensor>> {
        self.values.get(&instance).cloned()
    }

    /// The nodes that read what a node gives; none: gradients need it too.
    pub fn readers(&self, id: NodeId) -> Option<&[NodeId]> {
        (self.kept[id.index()] == 0).then_some(self.users[id.index()].as_slice())
    }

    /// The nodes that read what a node gives, whether or not gradients need it too.
    pub fn users_of(&self, id: NodeId) -> &[NodeId] {
        &self.users[id.index()]
    }

    /// Whether somebody will read what a node gives.
    pub fn is_read(&self, (_, id): Instance) -> bool {
        !self.users[id.index()].is_empty() || self.kept[id.index()] > 0
    }

    /// Whether a node has given what it gives.
    pub fn has_given(&self, instance: Instance) -> bool {
        self.done.contains(&instance)
    }

    /// Bytes of what a node gave that are still held: for who has not read it, or in what is saved or logged of it.
    pub fn kept_of(&self, instance: Instance) -> u64 {
        self.kept_along(instance, VIEWS)
    }

    fn kept_along(&self, instance: Instance, views: usize) -> u64 {
        let (step, id) = instance;
        let node = &self.program.nodes[id.index()];
        let bytes = node.outputs.iter().fold(0u64, |sum, output| sum.saturating_add(output.bytes(1)));
        // What has no elements is read for nothing, by operations of any kind.
        if views == 0 || bytes == 0 || self.values.contains_key(&instance) {
            return bytes;
        }
        let users = self.users[id.index()].iter().map(|&user| match self.kind(user) {
            NodeKind::Save(_) | NodeKind::Log(_) => bytes,
            // What costs nothing is a view.
            NodeKind::Operation(_) if self.program.nodes[user.index()].flops == 0 => {
                self.kept_along(self.at(user, step), views - 1)
            }
            _ => 0,
        });
        users.fold(0u64, u64::saturating_add).min(bytes)
    }

    /// The program ends here, with the node at fault.
    pub fn fail(&mut self, id: NodeId, error: &OperationError) {
        let fault = error.at(self.program.program.node(id));
        self.fail_in_turn(id, EngineError::Node(Box::new(fault)));
    }

    /// Whether cancellation or the deadline ends the program.
    pub fn check_budget(&mut self) {
        if self.failed.is_some() || self.dry {
            return;
        }
        if self.options.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
            self.failed = Some(EngineError::Cancelled);
        } else if let Some(seconds) = self.options.seconds
            && self.started.elapsed().as_secs_f64() > seconds
        {
            self.failed = Some(EngineError::DeadlineExceeded { seconds });
        }
    }

    /// The saves of a trace that never ran: their steps were lost to stopping.
    pub fn note_absent(&mut self, body: &[NodeId], total: u64) {
        let mut absent = Vec::new();
        for &id in body {
            match self.kind(id) {
                NodeKind::Save(_) if !self.done.contains(&(OUTSIDE, id)) => {
                    absent.push(self.program.program.node(id).name.clone());
                }
                NodeKind::Steps { steps, body } => {
                    let chosen = (steps.from..steps.to.unwrap_or(total).min(total))
                        .step_by(steps.every.max(1) as usize);
                    for step in chosen {
                        for &inner in body {
                            if matches!(self.kind(inner), NodeKind::Save(_))
                                && !self.done.contains(&(step, inner))
                            {
                                absent.push(format!("{}/{step}", self.program.program.node(inner).name));
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        self.results.absent.extend(absent);
    }

    /// What came of the run.
    pub fn outcome(&mut self) -> Result<Results, Box<Failure>> {
        let mut results = std::mem::take(&mut self.results);
        results.report.seconds = self.elapsed();
        match self.failed.take() {
            Some(error) => Err(Failure::new(error, &self.program, self.trace, results, &self.saved)),
            None => Ok(results),
        }
    }

    /// Seconds since the program began.
    fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

/// Whether a node runs as soon as its values are there; the others wait for their hook point.
fn runs_by_itself(kind: &NodeKind) -> bool {
    !matches!(
        kind,
        NodeKind::Get(_)
            | NodeKind::Set { .. }
            | NodeKind::Skip { .. }
            | NodeKind::SetWeight { .. }
            | NodeKind::Stop { .. }
            | NodeKind::Generated(_)
            | NodeKind::Trace(_)
            | NodeKind::Steps { .. }
            | NodeKind::Backward { .. }
            | NodeKind::Grad { .. }
            | NodeKind::SetGrad { .. }
    )
}

/// The nodes whose values a way back reads: what operations on it read and gave, and what a gradient is asked of.
fn needed_on_the_way_back(program: &CheckedProgram, plan: &GradientPlan) -> BTreeSet<NodeId> {
    let mut needed = BTreeSet::new();
    for &id in &plan.path {
        let kind = &program.program.node(id).kind;
        if matches!(kind, NodeKind::Operation(_) | NodeKind::Apply { .. }) {
            needed.insert(id);
            needed.extend(kind.values().iter().map(|value| value.node));
        } else if let NodeKind::Merge { condition, .. } = kind {
            needed.insert(condition.node);
        }
    }
    let trace = program.nodes[plan.backward.index()].trace;
    for &target in &plan.targets {
        if let Some((_, GradientOf::Value(value))) = program.program.node(target).kind.gradient() {
            // The way back passes the getters of its own trace; one of another trace is a value as any other.
            let getter = matches!(program.program.node(value.node).kind, NodeKind::Get(_));
            if !(getter && trace.is_some() && program.nodes[value.node.index()].trace == trace) {
                needed.insert(value.node);
            }
        }
    }
    needed
}
