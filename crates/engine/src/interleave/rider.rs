//! What happens at each touched hook point of a pass: getters and setters in program order, and who must wait.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use pellucid_graph::{NodeId, NodeKind};
use pellucid_models::stage::{HookLayout, Kernel, Slot};

use super::Interleaver;
use super::group::Place;
use super::member::{Ground, Member};
use super::packing::Seat;
use super::party::{Party, owners, spans};
use super::turns::Turn;
use crate::error::Interruption;
use crate::job::{Instance, OUTSIDE, Progress};
use crate::loaded::Loaded;
use crate::operations::OperationError;
use crate::pass::{PassState, Visitor};
use crate::plan::columns_together;
use crate::slots::BufferPool;
use crate::tensor::Tensor;
use crate::view::{self, fit};

/// Watches one pass for its invokes.
pub(super) struct Rider<'v, 'e> {
    pub(super) run: &'v mut Interleaver<'e>,
    pub(super) loaded: &'e Loaded,
    /// Whose the sequences of the pass are, in packed order.
    pub(super) parties: Vec<Party>,
    /// The party of each sequence.
    pub(super) owners: Vec<usize>,
    /// The sequences of each invoke.
    pub(super) spans: BTreeMap<Seat, Range<usize>>,
    /// The invokes that touch a hook point in this pass, by its stage; each list is sorted.
    pub(super) touched: BTreeMap<usize, Vec<Seat>>,
    /// The skips of each invoke whose module begins at a stage.
    skipping: BTreeMap<usize, Vec<(Seat, Instance)>>,
    /// At which stage the first module begins that an invoke may skip.
    pub(super) skips_from: BTreeMap<Seat, usize>,
    /// The stages that a way back of one of the invokes goes through; empty: none.
    tracked: Vec<bool>,
    /// The layer that programs were told of last.
    told: Option<u64>,
    /// Buffers for what nodes compute while the pass has the others.
    scratch: BufferPool,
}

/// A touched hook point.
struct Hook {
    point: usize,
    layout: HookLayout,
    slot: Slot,
    /// Whether it is of logits.
    logits: bool,
    /// Whether the value may be taken along: nobody else looks at it, and the pass ends there.
    last: bool,
}

impl<'v, 'e> Rider<'v, 'e> {
    /// A watcher of sequences that belong to those parties, whose invokes touch hook points at those stages.
    pub fn new(
        run: &'v mut Interleaver<'e>,
        loaded: &'e Loaded,
        parties: Vec<Party>,
        touched: BTreeMap<usize, Vec<Seat>>,
    ) -> Self {
        let (spans, owners) = (spans(&parties), owners(&parties));
        let mut skipping: BTreeMap<usize, Vec<(Seat, Instance)>> = BTreeMap::new();
        let mut skips_from: BTreeMap<Seat, usize> = BTreeMap::new();
        let mut tracked = Vec::new();
        for &seat in spans.keys() {
            let member = &run.members[seat.member];
            let (program, group) = (&member.job.program, &member.groups[seat.invoke]);
            for &(_, instance) in &group.touches[group.next_touch..] {
                if let NodeKind::Skip { .. } = program.program.node(instance.1).kind
                    && let Some(module) = program.nodes[instance.1.index()].module
                    && let Some(Some((from, _))) = loaded.schedule.skippable.get(module)
                {
                    skipping.entry(*from).or_default().push((seat, instance));
                    let first = skips_from.entry(seat).or_insert(*from);
                    *first = *from.min(first);
                }
            }
            if let Some(own) = group.tracked.as_deref() {
                tracked.resize(own.len(), false);
                tracked.iter_mut().zip(own).for_each(|(all, own)| *all |= own);
            }
        }
        let scratch = BufferPool::default();
        let told = None;
        Rider { run, loaded, parties, owners, spans, touched, skipping, skips_from, tracked, told, scratch }
    }

    /// Whose the sequences are that are left in the pass.
    pub fn into_parties(self) -> Vec<Party> {
        self.parties
    }

    /// Whether the rows of an invoke are its own.
    fn owns(&self, seat: Seat) -> bool {
        let place = self.spans.get(&seat).and_then(|span| self.owners.get(span.start));
        place.is_some_and(|&place| self.parties[place].own)
    }

    pub(super) fn span(&self, seat: Seat) -> Range<usize> {
        self.spans.get(&seat).cloned().unwrap_or_default()
    }

    /// Getters and setters of a touched hook point.
    pub fn visit_stage(&mut self, stage: usize, state: &mut PassState) -> Result<(), Interruption> {
        let kernel = &self.loaded.model.stages().stages[stage];
        let Kernel::Hook { point, layout } = kernel.kernel else { return Ok(()) };
        self.fork(stage, state);
        let seats = self.touched.get(&stage).cloned().unwrap_or_default();
        let touches = self.turns(stage, &seats);
        // The one touch with which the pass ends may take the value along instead of copying it, where nobody draws a token from it:
        // not only who touches it has these rows.
        let wants_token = |seat: Seat| self.run.members[seat.member].groups[seat.invoke].wants_token;
        let draws = self.parties.iter().flat_map(|party| &party.seats).copied().any(wants_token);
        let last = touches.len() == 1 && self.run.pass_end == stage + 1 && !draws;
        let logits = self.loaded.schedule.unembedding.is_some_and(|unembedding| stage > unembedding);
        let hook = Hook { point, layout, slot: kernel.outputs[0], logits, last };
        let mut blocked: BTreeSet<Seat> = BTreeSet::new();
        let mut writing = None;
        // Parties of which all wait: nothing is written of these rows here, and all are copied at once.
        let mut behind: Vec<(usize, BTreeSet<Seat>)> = Vec::new();
        for (number, turn) in touches.iter().enumerate() {
            let &Turn { seat, instance, company, round, writes, .. } = turn;
            let Seat { member: place, invoke } = seat;
            if let (Some(company), true) = (company, writes && writing != company.map(|own| (own, round))) {
                // The first of a round to write: who waits has rows of its own from here on.
                writing = Some((company, round));
                let waiting = self.waiting(&touches[number..], (company, round), &blocked);
                blocked.extend(&waiting);
                if waiting.len() == self.parties[company].seats.len() {
                    behind.push((company, waiting));
                } else if !waiting.is_empty() {
                    self.stay_behind(&[(company, waiting)], state);
                }
            }
            let span = self.span(seat);
            let own = self.owns(seat);
            let (ground, loaded, scratch) = (self.run.ground, self.loaded, &mut self.scratch);
            let member = &mut self.run.members[place];
            if member.gives_up(&member.groups[invoke]) || blocked.contains(&seat) {
                continue;
            }
            // Who has taken all its time goes on in another pass, where the rows are its own to be parked.
            // A skip is not put off: its module was left out because of it. Nor are a few logits, which others' rows have no place
            // for.
            let waits = !(logits && member.groups[invoke].vocabulary.is_some()) && member.may_wait(instance);
            if own && member.advanced && member.job.slice_is_over() && waits {
                blocked.insert(seat);
                continue;
            }
            let goes_on = member.timed(|member| {
                member.touch(&hook, (invoke, instance), span, state, loaded, ground, scratch)
            });
            member.advanced = true;
            if goes_on == Some(false) {
                blocked.insert(seat);
            }
        }
        self.stay_behind(&behind, state);
        self.leave(stage, state, &seats, &blocked)
    }

    /// Parks the invokes that must wait, and lets those go that are at their end or whose trace has failed.
    fn leave(
        &mut self,
        stage: usize,
        state: &mut PassState,
        seats: &[Seat],
        blocked: &BTreeSet<Seat>,
    ) -> Result<(), Interruption> {
        let leaves = |seat: &&Seat| {
            let member = &self.run.members[seat.member];
            let group = &member.groups[seat.invoke];
            let over = group.next_touch >= group.touches.len() && !group.wants_token;
            let failed = member.gives_up(group);
            matches!(group.place, Place::Riding) && (failed || over || blocked.contains(seat))
        };
        let leaving: Vec<Seat> = seats.iter().filter(leaves).copied().collect();
        for &seat in &leaving {
            let span = self.span(seat);
            let group = &self.run.members[seat.member].groups[seat.invoke];
            let label = self.run.recording.then(|| self.run.label(seat.member, group));
            if let Some(label) = label.filter(|_| blocked.contains(&seat)) {
                self.run.record_parked(stage, label);
            }
            let Interleaver { members, ground, .. } = &mut *self.run;
            let member = &mut members[seat.member];
            if member.gives_up(&member.groups[seat.invoke]) {
                member.groups[seat.invoke].place = Place::Done;
            } else if blocked.contains(&seat) {
                let sequences: Vec<usize> = span.collect();
                member.waits_at(seat.invoke, Place::Parked(state.park(&sequences, stage)));
            } else {
                // Early exit: nothing above matters to it.
                let (ground, scratch) = (*ground, &mut self.scratch);
                let none = 0..0;
                let finished =
                    member.guarded(|member| member.finish_step(seat.invoke, state, none, ground, scratch));
                finished.unwrap_or(Ok(()))?;
            }
        }
        self.remove(&leaving, stage, state);
        Ok(())
    }

    /// Takes those invokes out of the pass, and their sequences, unless others need them.
    fn remove(&mut self, leaving: &[Seat], stage: usize, state: &mut PassState) {
        if !leaving.is_empty() {
            let leaving: BTreeSet<Seat> = leaving.iter().copied().collect();
            // Of an owner whose programs have not all failed others may attend to rows, now or when they go on.
            let members = self.run.members.iter().enumerate();
            let there = members.filter(|(_, member)| member.job.failed.is_none());
            let there: BTreeSet<usize> = there.map(|(place, _)| self.run.owner(place)).collect();
            for party in &mut self.parties {
                party.seats.retain(|seat| !leaving.contains(seat));
                if party.seats.is_empty() && !there.contains(&party.owner) {
                    party.until = 0;
                }
            }
            self.seat_all();
        }
        self.tidy(stage, state);
    }

    /// Tells the programs that ride how far the pass is, once in each layer.
    fn tell(&mut self, stage: usize) {
        let layer = self.loaded.costs.layer(stage);
        if self.told == Some(layer) {
            return;
        }
        self.told = Some(layer);
        let end = self.run.pass_end.max(1);
        let layers = self.loaded.model.spec().sizes.layers;
        for seats in chunks(&self.spans) {
            let member = &mut self.run.members[seats[0].member];
            let Some(on_progress) = member.job.options.on_progress.clone() else { continue };
            let step = seats.iter().map(|seat| member.groups[seat.invoke].step).max().unwrap_or(0);
            let (trace, traces) = member.traces();
            let progress = Progress {
                passes: member.job.results.report.passes,
                part: stage as f64 / end as f64,
                layer,
                layers,
                step,
                trace,
                traces,
            };
            member.guarded(|_| on_progress(&progress));
        }
    }
}

/// The invokes of each program.
fn chunks(spans: &BTreeMap<Seat, Range<usize>>) -> Vec<Vec<Seat>> {
    let seats: Vec<Seat> = spans.keys().copied().collect();
    seats.chunk_by(|one, other| one.member == other.member).map(<[Seat]>::to_vec).collect()
}

impl Member<'_> {
    /// Whether what is to be done at a hook point can be done in another pass just as well.
    fn may_wait(&self, instance: Instance) -> bool {
        let kind = &self.job.program.program.node(instance.1).kind;
        !matches!(kind, NodeKind::Skip { .. }) && self.job.is_ready(instance)
    }

    /// One getter, setter or skip of an invoke, whose sequences stand in `span`. Whether it goes on: not where it is set
    /// to a value that is not there.
    #[allow(clippy::too_many_arguments, reason = "one call; they are what a pass lends to a program")]
    fn touch(
        &mut self,
        hook: &Hook,
        (invoke, instance): (usize, Instance),
        span: Range<usize>,
        state: &mut PassState,
        loaded: &Loaded,
        ground: Ground<'_>,
        pool: &mut BufferPool,
    ) -> bool {
        self.job.at_node = Some(instance.1);
        let written = match self.job.program.program.node(instance.1).kind {
            NodeKind::Get(_) => None,
            NodeKind::Set { value, .. } | NodeKind::Skip { value, .. } => Some(value),
            _ => return true,
        };
        if let Some(value) = written {
            if !self.job.is_ready(instance) {
                return false;
            }
            if !ground.dry {
                let written = self.job.value(value, instance.0);
                let outcome = match written {
                    _ if self.job.is_lost(instance) => Ok(()),
                    Some(written) => self.write(hook, (invoke, instance.1), span, state, loaded, &written),
                    None => Err(OperationError::new("the value is not there")),
                };
                if let Err(error) = outcome {
                    self.job.fail(instance.1, &error);
                }
            }
            if !self.job.is_lost(instance) {
                self.job.applied(instance);
            }
        } else {
            // A getter may stand there for its gradient alone.
            let outputs = if ground.dry || !self.job.is_read(instance) {
                Ok(Vec::new())
            } else {
                let mut rectangle = self.groups[invoke].rectangle(span, state.narrowed);
                rectangle.vocabulary = self.groups[invoke].vocabulary.clone().filter(|_| hook.logits);
                let value = if hook.last {
                    view::take(state, hook.slot, hook.layout, &rectangle)
                } else {
                    view::read(state, hook.slot, hook.layout, &rectangle)
                };
                value.map(|tensor| vec![tensor])
            };
            self.deliver(instance, outputs, ground, pool);
        }
        self.groups[invoke].next_touch += 1;
        true
    }

    fn write(
        &mut self,
        hook: &Hook,
        (invoke, id): (usize, NodeId),
        span: Range<usize>,
        state: &mut PassState,
        loaded: &Loaded,
        value: &Tensor,
    ) -> Result<(), OperationError> {
        let group = &mut self.groups[invoke];
        let rectangle = group.rectangle(span, state.narrowed);
        let spec = &loaded.model.spec().hook_points[hook.point];
        if group.tracked.is_some() {
            group.tape.written.insert((OUTSIDE, id), (value.shape().to_vec(), value.dtype()));
        }
        let value = fit(value, &spec.shape, spec.dtype, &rectangle)?;
        view::write(state, hook.slot, hook.layout, &rectangle, &value, loaded.schedule.id_limit(hook.slot))
    }
}

impl Visitor for Rider<'_, '_> {
    fn touches(&self, stage: usize) -> bool {
        self.touched.contains_key(&stage)
    }

    fn sequence_touches(&self, stage: usize, sequence: usize) -> bool {
        let Some(seats) = self.touched.get(&stage) else { return false };
        self.parties[self.owners[sequence]].seats.iter().any(|seat| seats.binary_search(seat).is_ok())
    }

    fn skips(&self, stage: usize) -> Option<usize> {
        let skipping = self.skipping.get(&stage)?;
        // A value that is still to come may be lost: then the module is computed after all.
        let comes = |(seat, instance): &&(Seat, Instance)| {
            let job = &self.run.members[seat.member].job;
            job.is_granted(*instance) && job.is_ready(*instance)
        };
        let granted: BTreeSet<Seat> = skipping.iter().filter(comes).map(|(seat, _)| *seat).collect();
        // Where others attend to rows, these are computed.
        if !self.spans.keys().all(|seat| granted.contains(seat))
            || self.parties.iter().any(|party| party.until > stage)
        {
            return None;
        }
        let &(seat, instance) = skipping.first()?;
        let module = self.run.members[seat.member].job.program.nodes[instance.1.index()].module?;
        self.loaded.schedule.skippable.get(module).copied().flatten().map(|(_, output)| output)
    }

    fn vocabulary(&self, sequence: usize) -> Option<Arc<[usize]>> {
        let party = &self.parties[*self.owners.get(sequence)?];
        let of = |seat: &Seat| self.run.members[seat.member].groups[seat.invoke].vocabulary.as_ref();
        let size = self.loaded.model.spec().sizes.vocabulary as usize;
        columns_together(party.seats.iter().map(of), size)
    }

    fn tracks(&self, stage: usize) -> bool {
        let tracked = self.tracked.get(stage).copied().unwrap_or(false);
        tracked || (self.run.streams && self.loaded.costs.boundary(stage + 1).is_some())
    }

    fn record(&mut self, stage: usize, state: &PassState) {
        self.keep_streams(stage + 1, state);
        self.tape(stage, state);
    }

    fn visit(&mut self, stage: usize, _point: usize, state: &mut PassState) -> Result<(), Interruption> {
        self.visit_stage(stage, state)
    }

    fn between(&mut self, stage: usize, state: &mut PassState) -> Result<(), Interruption> {
        self.tell(stage);
        let mut leaving = Vec::new();
        for &seat in self.spans.keys() {
            let member = &mut self.run.members[seat.member];
            member.job.check_budget();
            if member.gives_up(&member.groups[seat.invoke]) {
                member.groups[seat.invoke].place = Place::Done;
                leaving.push(seat);
            }
        }
        // Rows that nobody wants any more are not computed.
        self.remove(&leaving, stage, state);
        if stage == self.loaded.costs.late_from() && !state.narrowed {
            self.let_early_positions_go(state);
        }
        if self.parties.is_empty() { Err(Interruption::AllFailed) } else { Ok(()) }
    }
}
