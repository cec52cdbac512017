//! Ways back, between the passes: each begins when the value is there that it goes back from, and goes on as far as it can.

use std::time::Instant;

use pellucid_graph::{NodeId, NodeKind};

use super::group::Place;
use super::member::{Ground, Member};
use crate::error::EngineError;
use crate::job::OUTSIDE;
use crate::operations::OperationError;
use crate::reverse::{Failure, Lent, Tape, WayBack};
use crate::slots::BufferPool;

impl Member<'_> {
    /// Begins the ways back that can begin, and goes on with all, until their time is over. Whether any got anywhere.
    pub(super) fn go_back(
        &mut self,
        ground: Ground<'_>,
        pool: &mut BufferPool,
        until: Option<Instant>,
    ) -> bool {
        let mut moved = false;
        while let Some(backward) = self.job.next_backward() {
            self.job.at_node = Some(backward);
            if ground.dry {
                self.pretend(backward, ground, pool);
            } else if self.job.failed.is_none() {
                self.begin_way_back(backward, ground, pool);
            }
            moved = true;
        }
        let Some(loaded) = ground.models.get(self.model) else { return moved };
        let mut backs = std::mem::take(&mut self.backs);
        for back in &mut backs {
            let Self { groups, job, .. } = self;
            job.at_node = job.program.gradients.get(back.plan()).map(|plan| plan.backward);
            let trail = |invoke: usize| groups.get(invoke).map(|group| group.trail());
            let (models, model, schedule) = (ground.models, &*loaded.model, &loaded.schedule);
            let mut lent = Lent { models, model, schedule, job, pool, until };
            moved |= back.advance(&trail, &mut lent);
        }
        let program = self.job.program.clone();
        backs.retain(|back| {
            let over = back.is_done(&self.job);
            if let (true, Some(plan)) = (over, program.gradients.get(back.plan())) {
                back.end(&mut self.job);
                self.job.end_way_back(plan);
                self.forget(plan.backward);
            }
            !over
        });
        self.backs = backs;
        moved
    }

    /// After the last way back of a trace nothing is kept for one.
    fn forget(&mut self, backward: NodeId) {
        self.ways.end(backward);
        if self.ways.is_empty() {
            for group in &mut self.groups {
                self.job.let_go(group.tape.bytes());
                (group.tape, group.tracked) = (Tape::default(), None);
                if matches!(group.place, Place::Done) {
                    group.weights = None;
                }
            }
        }
    }

    fn begin_way_back(&mut self, backward: NodeId, ground: Ground<'_>, pool: &mut BufferPool) {
        let Some(loaded) = ground.models.get(self.model) else { return };
        let plan = self.job.program.gradients.binary_search_by_key(&backward, |plan| plan.backward);
        let Ok(plan) = plan else { return };
        let setters = self.setters(self.ways.of_backward(backward).map(|(invoke, _)| invoke));
        let Self { job, ways, .. } = self;
        let (models, model, schedule) = (ground.models, &*loaded.model, &loaded.schedule);
        let mut lent = Lent { models, model, schedule, job, pool, until: None };
        match WayBack::begin(plan, ways, setters, &mut lent) {
            Ok(back) => self.backs.push(back),
            Err(Failure::Node(id, error)) => job.fail(id, &error),
            Err(Failure::Internal(message)) => {
                job.failed.get_or_insert(EngineError::Internal(message));
            }
        }
    }

    /// In a dry run gradients are there without being computed, all at once: what one of them waits for, because a gradient
    /// behind it is written late, is not seen.
    fn pretend(&mut self, backward: NodeId, ground: Ground<'_>, pool: &mut BufferPool) {
        let program = self.job.program.clone();
        self.job.applied((OUTSIDE, backward));
        let plan = program.gradients.iter().find(|plan| plan.backward == backward);
        for &target in plan.into_iter().flat_map(|plan| &plan.targets) {
            match program.program.node(target).kind {
                NodeKind::Grad { .. } => {
                    self.job.deliver((OUTSIDE, target), Vec::new(), ground.models, pool);
                }
                _ => self.job.applied((OUTSIDE, target)),
            }
        }
    }

    /// Ways back that wait for ever fail. The checker should have refused their programs.
    pub(super) fn fail_stuck_on_the_way_back(&mut self) {
        let program = self.job.program.clone();
        for back in std::mem::take(&mut self.backs) {
            let error = OperationError::new("it waits for a gradient that waits for this one itself");
            let Some(plan) = program.gradients.get(back.plan()) else { continue };
            self.job.fail(plan.targets.first().copied().unwrap_or(plan.backward), &error);
        }
    }
}
