//! A program's own small nodes, a slice of time after another: how its bodies begin, and how the nodes run that can run.
//!
//! A program of a few hundred bytes may have a quarter of a million nodes. Where it has neighbours its nodes run until its
//! slice is over ([`Job::slice`]), in the middle of a pass or between two; what is left then goes on when it is the program's
//! turn. So that nothing is missed, a body begins as a whole before its first node runs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pellucid_graph::{NodeId, NodeKind};

use super::{Instance, Job, OUTSIDE, needed_on_the_way_back, runs_by_itself};
use crate::loaded::Loaded;
use crate::slots::BufferPool;

/// Nodes that are made known between two looks at the clock.
const AT_ONCE: usize = 64;

/// A body whose nodes are being made known.
pub(super) struct Beginning {
    /// The trace or `steps` that owns it; none: the program.
    owner: Option<NodeId>,
    step: u64,
    /// Its next node.
    next: usize,
    ready: BTreeSet<Instance>,
    lost: Vec<Instance>,
}

impl Job<'_> {
    /// Makes the nodes between traces known; those that read nothing run.
    pub fn begin_session(&mut self, models: &[Loaded], pool: &mut BufferPool) {
        self.begin(None, OUTSIDE, models, pool);
    }

    /// Makes the nodes of a trace known; those that read nothing run.
    pub fn begin_trace(&mut self, trace: NodeId, models: &[Loaded], pool: &mut BufferPool) {
        self.begin(Some(trace), OUTSIDE, models, pool);
    }

    /// Makes the nodes of a `steps` body known at a step, once.
    pub fn begin_step(&mut self, owner: NodeId, step: u64, models: &[Loaded], pool: &mut BufferPool) {
        if self.live_steps.entry(owner).or_default().insert(step) {
            self.begin(Some(owner), step, models, pool);
        }
    }

    fn begin(&mut self, owner: Option<NodeId>, step: u64, models: &[Loaded], pool: &mut BufferPool) {
        self.beginnings.push_back(Beginning {
            owner,
            step,
            next: 0,
            ready: BTreeSet::new(),
            lost: Vec::new(),
        });
        // One that waits for its turn already goes on then.
        if self.beginnings.len() == 1 && !self.slice_is_over() {
            self.go_on_beginning(models, pool);
        }
    }

    /// Whether nodes of bodies that have begun are not known yet.
    pub fn is_beginning(&self) -> bool {
        !self.beginnings.is_empty()
    }

    /// Whether nodes were left because a slice was over.
    pub fn has_postponed(&self) -> bool {
        !self.postponed.is_empty() || self.is_beginning()
    }

    /// Whether a node waits that was left for the time between passes.
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty() || self.has_postponed()
    }

    /// Whether the program's nodes have taken what they may for now.
    pub fn slice_is_over(&self) -> bool {
        self.slice.is_some_and(|slice| slice.is_zero())
    }

    /// The program has used so much of its slice.
    pub fn spend(&mut self, took: Duration) {
        self.own += took;
        self.slice = self.slice.map(|slice| slice.saturating_sub(took));
    }

    /// What its own nodes have taken since this was asked last.
    pub fn take_own(&mut self) -> Duration {
        std::mem::take(&mut self.own)
    }

    /// What its own nodes have taken since that was asked last.
    pub fn own(&self) -> Duration {
        self.own
    }

    /// Goes on with what was left, for a slice: at least a little.
    pub fn go_on(&mut self, models: &[Loaded], pool: &mut BufferPool) {
        self.go_on_beginning(models, pool);
        if !self.is_beginning() {
            let ready = std::mem::take(&mut self.postponed);
            self.run(ready, true, models, pool);
        }
    }

    /// Runs nodes that can run, in program order, and those that can run then, until the slice is over.
    pub(super) fn run_ready(&mut self, ready: BTreeSet<Instance>, models: &[Loaded], pool: &mut BufferPool) {
        if !ready.is_empty() {
            self.run(ready, false, models, pool);
        }
    }

    fn run(
        &mut self,
        mut ready: BTreeSet<Instance>,
        at_least_one: bool,
        models: &[Loaded],
        pool: &mut BufferPool,
    ) {
        let begun = Instant::now();
        let mut may = at_least_one || !self.slice_is_over();
        while may && let Some(instance) = ready.pop_first() {
            if self.failed.is_some() {
                return;
            }
            if !self.is_settled(instance) && !self.is_cut_off(instance.1) {
                self.at_node = Some(instance.1);
                self.run_one(instance, &mut ready, models, pool);
                self.check_budget();
            }
            may = self.slice.is_none_or(|slice| begun.elapsed() < slice);
        }
        self.spend(begun.elapsed());
        if self.postponed.len() < ready.len() {
            std::mem::swap(&mut self.postponed, &mut ready);
        }
        self.postponed.extend(ready);
    }

    /// Goes on with the bodies that begin, until the slice is over: at least a little.
    fn go_on_beginning(&mut self, models: &[Loaded], pool: &mut BufferPool) {
        while let Some(mut beginning) = self.beginnings.pop_front() {
            let begun = Instant::now();
            let mut over = false;
            while !over && self.make_known(&mut beginning) {
                let Some(slice) = self.slice else { continue };
                over = begun.elapsed() >= slice;
                self.check_budget();
                if self.failed.is_some() {
                    return;
                }
            }
            self.spend(begun.elapsed());
            if over {
                return self.beginnings.push_front(beginning);
            }
            let Beginning { mut ready, lost, .. } = beginning;
            lost.into_iter().for_each(|instance| self.lose_quietly(instance, &mut ready));
            self.run_ready(ready, models, pool);
            if self.slice_is_over() {
                return;
            }
        }
    }

    /// Makes some more nodes of a body known. Whether any were left.
    fn make_known(&mut self, beginning: &mut Beginning) -> bool {
        if self.wired < self.program.nodes.len() {
            self.wire();
            return true;
        }
        let program = self.program.clone();
        let body: &[NodeId] = match beginning.owner.map(|owner| &program.program.node(owner).kind) {
            None => &program.program.body,
            Some(NodeKind::Trace(trace)) => &trace.body,
            Some(NodeKind::Steps { body, .. }) => body,
            Some(_) => &[],
        };
        let left = &body[beginning.next.min(body.len())..];
        let some = &left[..left.len().min(AT_ONCE)];
        beginning.next += some.len();
        for &id in some.iter().filter(|id| program.nodes[id.index()].needed) {
            self.make_one_known((beginning.step, id), beginning);
        }
        !some.is_empty()
    }

    fn make_one_known(&mut self, instance: Instance, beginning: &mut Beginning) {
        let (step, id) = instance;
        let program = self.program.clone();
        let kind = &program.program.node(id).kind;
        // Of a body that began late something may be over.
        if matches!(kind, NodeKind::Steps { .. } | NodeKind::Trace(_)) || self.done.contains(&instance) {
            return;
        }
        let reads: Vec<Instance> = self.reads(id).iter().map(|value| self.at(value.node, step)).collect();
        let missing = match kind {
            NodeKind::Merge { .. } => reads.iter().filter(|read| !self.is_settled(**read)).count(),
            _ => reads.iter().filter(|read| !self.done.contains(read)).count(),
        };
        self.pending.insert(instance, missing);
        if self.is_never(instance) {
            beginning.lost.push(instance);
        } else if missing == 0 && matches!(kind, NodeKind::Backward { .. }) {
            self.backwards.push_back(id);
        } else if missing == 0 && runs_by_itself(kind) {
            beginning.ready.insert(instance);
        }
    }

    /// Notes of some more nodes whom they read; at the end, what ways back need.
    fn wire(&mut self) {
        let program = self.program.clone();
        let end = (self.wired + AT_ONCE).min(program.nodes.len());
        for position in self.wired..end {
            if program.nodes[position].needed {
                for value in program.program.nodes[position].values() {
                    self.users[value.node.index()].push(NodeId(position as u32));
                }
            }
        }
        self.wired = end;
        if end < program.nodes.len() {
            return;
        }
        for plan in program.gradients.iter().filter(|plan| program.nodes[plan.backward.index()].needed) {
            needed_on_the_way_back(&program, plan).into_iter().for_each(|id| self.kept[id.index()] += 1);
            self.users[plan.backward.index()].extend(&plan.targets);
        }
    }
}
