//! What happens at each touched hook point of a pass: getters and setters in program order, and who must wait.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use pellucid_graph::{NodeId, NodeKind};
use pellucid_models::stage::{HookLayout, Kernel, Slot};

use super::Interleaver;
use super::group::Place;
use crate::error::Interruption;
use crate::job::{Instance, OUTSIDE, Progress};
use crate::operations::OperationError;
use crate::pass::{PassState, Visitor};
use crate::slots::BufferPool;
use crate::tensor::Tensor;
use crate::view::{self, fit};

/// Watches one pass for its groups.
pub(super) struct Rider<'v, 'r, 'a> {
    run: &'v mut Interleaver<'r, 'a>,
    /// The group of each sequence of the pass; a group's sequences stand together.
    owners: Vec<usize>,
    /// The sequences of each group.
    spans: BTreeMap<usize, Range<usize>>,
    /// The groups that touch a hook point in this pass, by its stage; each list is sorted.
    touched: BTreeMap<usize, Vec<usize>>,
    /// The skips of each group whose module begins at a stage.
    skipping: BTreeMap<usize, Vec<(usize, Instance)>>,
    /// The stages that a way back of one of the groups goes through; empty: none.
    tracked: Vec<bool>,
    /// Buffers for what nodes compute while the pass has the others.
    scratch: BufferPool,
}

/// Where each group's sequences stand.
fn spans(owners: &[usize]) -> BTreeMap<usize, Range<usize>> {
    let mut spans: BTreeMap<usize, Range<usize>> = BTreeMap::new();
    for (at, &owner) in owners.iter().enumerate() {
        spans.entry(owner).or_insert(at..at).end = at + 1;
    }
    spans
}

impl<'v, 'r, 'a> Rider<'v, 'r, 'a> {
    /// A watcher of sequences that belong to those groups, which touch hook points at those stages.
    pub fn new(
        run: &'v mut Interleaver<'r, 'a>,
        owners: Vec<usize>,
        touched: BTreeMap<usize, Vec<usize>>,
    ) -> Self {
        let spans = spans(&owners);
        let mut skipping: BTreeMap<usize, Vec<(usize, Instance)>> = BTreeMap::new();
        for &number in spans.keys() {
            let group = &run.groups[number];
            let program = run.jobs[group.job].program;
            for &(_, instance) in &group.touches[group.next_touch..] {
                if let NodeKind::Skip { .. } = program.program.node(instance.1).kind
                    && let Some(module) = program.nodes[instance.1.index()].module
                    && let Some(Some((from, _))) = run.schedule.skippable.get(module)
                {
                    skipping.entry(*from).or_default().push((number, instance));
                }
            }
        }
        let mut tracked = Vec::new();
        for own in spans.keys().filter_map(|&number| run.groups[number].tracked.as_deref()) {
            tracked.resize(own.len(), false);
            tracked.iter_mut().zip(own).for_each(|(all, own)| *all |= own);
        }
        Rider { run, spans, owners, touched, skipping, tracked, scratch: BufferPool::default() }
    }

    /// Whose the sequences are that are left in the pass.
    pub fn into_owners(self) -> Vec<usize> {
        self.owners
    }

    fn span(&self, number: usize) -> Range<usize> {
        self.spans.get(&number).cloned().unwrap_or_default()
    }

    /// Getters and setters of a touched hook point.
    pub fn visit_stage(&mut self, stage: usize, state: &mut PassState) -> Result<(), Interruption> {
        let kernel = &self.run.model.stages().stages[stage];
        let Kernel::Hook { point, layout } = kernel.kernel else { return Ok(()) };
        let groups = self.touched.get(&stage).cloned().unwrap_or_default();
        // All touches of this hook point, program by program, in program order.
        let mut touches: Vec<(usize, NodeId, usize, Instance)> = Vec::new();
        for &number in &groups {
            let group = &self.run.groups[number];
            if !matches!(group.place, Place::Riding) {
                continue;
            }
            // Touches before this stage are those of a branch that is lost, inside a module that was skipped.
            let passed = group.touches[group.next_touch..].iter().take_while(|touch| touch.0 < stage).count();
            self.run.groups[number].next_touch += passed;
            let group = &self.run.groups[number];
            let own = group.touches[group.next_touch..].iter().take_while(|touch| touch.0 == stage);
            touches.extend(own.map(|&(_, instance)| (group.job, instance.1, number, instance)));
        }
        touches.sort_by_key(|&(job, id, number, _)| (job, id, number));
        // The one touch with which the pass ends may take the value along instead of copying it.
        let last = touches.len() == 1
            && self.run.passes.last().is_some_and(|pass| pass.to == stage + 1)
            && groups.iter().all(|&number| !self.run.groups[number].wants_token);
        let mut blocked: BTreeSet<usize> = BTreeSet::new();
        for (job, id, number, instance) in touches {
            if self.run.jobs[job].failed.is_some() || blocked.contains(&number) {
                continue;
            }
            match &self.run.jobs[job].program.program.node(id).kind {
                NodeKind::Get(_) => {
                    // A getter may stand there for its gradient alone.
                    let outputs = if self.run.dry || !self.run.jobs[job].is_read(instance) {
                        Ok(Vec::new())
                    } else {
                        let rectangle = self.run.groups[number].rectangle(self.span(number), state.narrowed);
                        let slot = kernel.outputs[0];
                        let value = if last {
                            view::take(state, slot, layout, &rectangle)
                        } else {
                            view::read(state, slot, layout, &rectangle)
                        };
                        value.map(|tensor| vec![tensor])
                    };
                    std::mem::swap(self.run.pool, &mut self.scratch);
                    self.run.deliver(job, instance, outputs);
                    std::mem::swap(self.run.pool, &mut self.scratch);
                    self.run.groups[number].next_touch += 1;
                }
                NodeKind::Set { .. } | NodeKind::Skip { .. } if !self.run.jobs[job].is_ready(instance) => {
                    blocked.insert(number);
                }
                NodeKind::Set { value, .. } | NodeKind::Skip { value, .. } => {
                    if !self.run.dry {
                        let written = self.run.jobs[job].value(*value, instance.0);
                        let outcome = match written {
                            _ if self.run.jobs[job].is_lost(instance) => Ok(()),
                            Some(written) => {
                                self.write(state, kernel.outputs[0], point, layout, (number, id), &written)
                            }
                            None => Err(OperationError::new("the value is not there")),
                        };
                        if let Err(error) = outcome {
                            self.run.jobs[job].fail(id, &error);
                        }
                    }
                    if !self.run.jobs[job].is_lost(instance) {
                        self.run.jobs[job].applied(instance);
                    }
                    self.run.groups[number].next_touch += 1;
                }
                _ => {}
            }
        }
        self.leave(stage, state, &groups, &blocked)
    }

    fn write(
        &mut self,
        state: &mut PassState,
        slot: Slot,
        point: usize,
        layout: HookLayout,
        (number, id): (usize, NodeId),
        value: &Tensor,
    ) -> Result<(), OperationError> {
        let rectangle = self.run.groups[number].rectangle(self.span(number), state.narrowed);
        let hook = &self.run.model.spec().hook_points[point];
        let group = &mut self.run.groups[number];
        if group.tracked.is_some() {
            group.tape.written.insert((OUTSIDE, id), (value.shape().to_vec(), value.dtype()));
        }
        let value = fit(value, &hook.shape, hook.dtype, &rectangle)?;
        view::write(state, slot, layout, &rectangle, &value, self.run.schedule.id_limit(slot))
    }

    /// Parks the groups that must wait, and lets those go that are at their end or whose program has failed.
    fn leave(
        &mut self,
        stage: usize,
        state: &mut PassState,
        groups: &[usize],
        blocked: &BTreeSet<usize>,
    ) -> Result<(), Interruption> {
        let mut leaving: Vec<usize> = Vec::new();
        for &number in groups {
            let group = &self.run.groups[number];
            let failed = self.run.jobs[group.job].failed.is_some();
            let over = group.next_touch >= group.touches.len() && !group.wants_token;
            if matches!(group.place, Place::Riding) && (failed || over || blocked.contains(&number)) {
                leaving.push(number);
            }
        }
        if leaving.is_empty() {
            return Ok(());
        }
        for &number in &leaving {
            let sequences: Vec<usize> = self.span(number).collect();
            let parked = if blocked.contains(&number) { state.park(&sequences, stage) } else { Vec::new() };
            if parked.is_empty() {
                state.remove(&sequences);
            }
            self.owners.retain(|&owner| owner != number);
            self.spans = spans(&self.owners);
            let group = &mut self.run.groups[number];
            if self.run.jobs[group.job].failed.is_some() {
                group.place = Place::Done;
            } else if blocked.contains(&number) {
                group.place = Place::Parked(parked);
                if let Some(record) = self.run.passes.last_mut() {
                    record.parked.push((stage, group.label.clone()));
                }
            } else {
                // Early exit: nothing above matters to it.
                let finished = self.run.finish_step(number, state, &[]);
                finished.map_err(|error| Interruption::Internal(error.to_string()))?;
            }
        }
        Ok(())
    }
}

impl Visitor for Rider<'_, '_, '_> {
    fn touches(&self, stage: usize) -> bool {
        self.touched.contains_key(&stage)
    }

    fn sequence_touches(&self, stage: usize, sequence: usize) -> bool {
        self.touched.get(&stage).is_some_and(|groups| groups.binary_search(&self.owners[sequence]).is_ok())
    }

    fn skips(&self, stage: usize) -> Option<usize> {
        let skipping = self.skipping.get(&stage)?;
        let granted = |number: &usize| {
            let job = &self.run.jobs[self.run.groups[*number].job];
            skipping.iter().any(|(skips, instance)| skips == number && job.is_granted(*instance))
        };
        if !self.spans.keys().all(granted) {
            return None;
        }
        let &(number, instance) = skipping.first()?;
        let program = self.run.jobs[self.run.groups[number].job].program;
        let module = program.nodes[instance.1.index()].module?;
        self.run.schedule.skippable.get(module).copied().flatten().map(|(_, output)| output)
    }

    fn tracks(&self, stage: usize) -> bool {
        self.tracked.get(stage).copied().unwrap_or(false)
    }

    fn record(&mut self, stage: usize, state: &PassState) {
        let list = self.run.model.stages();
        for (&number, span) in &self.spans {
            let group = &mut self.run.groups[number];
            if group.tracks(stage) {
                let bytes = group.tape.record(&list.stages[stage], state, span.clone());
                self.run.jobs[group.job].hold_for_way_back(bytes);
            }
        }
    }

    fn visit(&mut self, stage: usize, _point: usize, state: &mut PassState) -> Result<(), Interruption> {
        self.visit_stage(stage, state)
    }

    fn between(&mut self, stage: usize, _state: &PassState) -> Result<(), Interruption> {
        let mut alive = false;
        let passes = self.run.passes.len();
        let end = self.run.passes.last().map_or(1, |pass| pass.to).max(1);
        for &number in &self.owners {
            let job = &mut self.run.jobs[self.run.groups[number].job];
            job.check_budget();
            alive |= job.failed.is_none();
            if let Some(on_progress) = &job.options.on_progress {
                on_progress(&Progress { passes, part: stage as f64 / end as f64 });
            }
        }
        if alive { Ok(()) } else { Err(Interruption::AllFailed) }
    }
}
