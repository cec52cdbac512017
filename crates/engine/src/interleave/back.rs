//! Ways back, between the passes: each begins when the value is there that it goes back from, and goes on as far as it can.

use std::collections::BTreeMap;

use pellucid_graph::{NodeId, NodeKind};

use super::Interleaver;
use super::group::Group;
use crate::error::EngineError;
use crate::job::OUTSIDE;
use crate::nodes::Evaluator;
use crate::operations::OperationError;
use crate::reverse::{Failure, Lent, Tape, Trail, WayBack, Ways};

impl Interleaver<'_, '_> {
    /// Begins the ways back that can begin, and goes on with all. Whether any got anywhere.
    pub(super) fn go_back(&mut self) -> bool {
        let mut moved = false;
        for job in 0..self.jobs.len() {
            while let Some(backward) = self.jobs[job].next_backward() {
                if self.dry {
                    self.pretend(job, backward);
                } else if self.jobs[job].failed.is_none() {
                    self.begin_way_back(job, backward);
                }
                moved = true;
            }
        }
        let mut backs = std::mem::take(&mut self.backs);
        for back in &mut backs {
            let number = back.job;
            let Self { groups, places, jobs, pool, models, model, schedule, .. } = self;
            let trail = |invoke: usize| places.get(&(number, invoke)).map(|&place| groups[place].trail());
            let mut lent = Lent { models, model, schedule, job: &mut jobs[number], pool };
            moved |= back.advance(&trail, &mut lent);
        }
        backs.retain(|back| {
            let over = back.is_done(&self.jobs[back.job]);
            if over {
                self.jobs[back.job].end_way_back(back.plan());
                self.forget(back.job, back.plan().backward);
            }
            !over
        });
        self.backs = backs;
        moved
    }

    /// After the last way back of a trace nothing is kept for one.
    fn forget(&mut self, job: usize, backward: NodeId) {
        let Some(ways) = self.ways.get_mut(&job) else { return };
        ways.end(backward);
        if ways.is_empty() {
            self.ways.remove(&job);
            for group in self.groups.iter_mut().filter(|group| group.job == job) {
                self.jobs[job].let_go(group.tape.bytes());
                (group.tape, group.tracked) = (Tape::default(), None);
            }
        }
    }

    fn begin_way_back(&mut self, job: usize, backward: NodeId) {
        let none = Ways::default();
        let Self { groups, places, jobs, pool, models, model, schedule, ways, .. } = self;
        let program = jobs[job].program;
        let Ok(plan) = program.gradients.binary_search_by_key(&backward, |plan| plan.backward) else {
            return;
        };
        let plan = &program.gradients[plan];
        let ways = ways.get(&job).unwrap_or(&none);
        let mut setters: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
        for (invoke, _) in ways.of_backward(backward) {
            if let Some(&place) = places.get(&(job, invoke)) {
                setters.insert(invoke, setters_of(&groups[place], program));
            }
        }
        let trail = |invoke: usize| -> Option<Trail<'_>> {
            places.get(&(job, invoke)).map(|&place| groups[place].trail())
        };
        let mut lent = Lent { models, model, schedule, job: &mut jobs[job], pool };
        match WayBack::begin(job, plan, ways, &trail, setters, &mut lent) {
            Ok(back) => self.backs.push(back),
            Err(Failure::Node(id, error)) => jobs[job].fail(id, &error),
            Err(Failure::Internal(message)) => {
                jobs[job].failed.get_or_insert(EngineError::Internal(message));
            }
        }
    }

    /// In a dry run gradients are there without being computed.
    fn pretend(&mut self, job: usize, backward: NodeId) {
        let program = self.jobs[job].program;
        let evaluator = Evaluator { models: self.models, program };
        self.jobs[job].applied((OUTSIDE, backward));
        let plan = program.gradients.iter().find(|plan| plan.backward == backward);
        for &target in plan.into_iter().flat_map(|plan| &plan.targets) {
            match program.program.node(target).kind {
                NodeKind::Grad { .. } => {
                    self.jobs[job].deliver((OUTSIDE, target), Vec::new(), &evaluator, self.pool);
                }
                _ => self.jobs[job].applied((OUTSIDE, target)),
            }
        }
    }

    /// Ways back that wait for ever fail. The checker should have refused their programs.
    pub(super) fn fail_stuck_on_the_way_back(&mut self) -> bool {
        let stuck = std::mem::take(&mut self.backs);
        for back in &stuck {
            let error = OperationError::new("it waits for a gradient that waits for this one itself");
            self.jobs[back.job].fail(back.waits_at(), &error);
        }
        !stuck.is_empty()
    }
}

/// The setters of a group that takes one step, in program order.
fn setters_of(group: &Group, program: &pellucid_graph::check::CheckedProgram) -> Vec<NodeId> {
    let touches = group.asked.outside.values().flatten().map(|&(_, id)| id);
    let mut setters: Vec<NodeId> =
        touches.filter(|&id| matches!(program.program.node(id).kind, NodeKind::Set { .. })).collect();
    setters.sort_unstable();
    setters
}
