//! One pass: from its riders' sequences to where each of them stands afterwards.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Interleaver;
use super::group::Place;
use super::guard::said;
use super::packing::{How, Plan, Seat};
use super::rider::Rider;
use crate::error::Interruption;
use crate::explain::{PassRecord, Passenger};
use crate::pass::{PassState, walk};

impl Interleaver<'_> {
    /// Runs a pass; gives back what went wrong with the pass itself, with which none of its programs can go on.
    pub(super) fn ride_guarded(&mut self, plan: &Plan) -> Option<String> {
        // Of what a panic leaves half done the riders' state goes with their programs; of buffers the contents do not matter.
        match catch_unwind(AssertUnwindSafe(|| self.ride(plan))) {
            Ok(Ok(()) | Err(Interruption::AllFailed)) => None,
            Ok(Err(Interruption::Internal(message))) => Some(message),
            Err(payload) => Some(format!("it panicked: {}", said(payload.as_ref()))),
        }
    }

    fn ride(&mut self, plan: &Plan) -> Result<(), Interruption> {
        let models = self.ground.models;
        let loaded = models.get(plan.model).ok_or_else(|| Interruption::missing("the model"))?;
        let list = loaded.model.stages();
        let (mut owners, mut starting, mut resuming) = (Vec::new(), Vec::new(), Vec::new());
        for &seat in &plan.riders {
            let group = &mut self.members[seat.member].groups[seat.invoke];
            match std::mem::replace(&mut group.place, Place::Riding) {
                Place::Parked(parked) | Place::Cut(parked) => {
                    owners.extend(parked.iter().map(|_| seat));
                    resuming.extend(parked);
                }
                _ => {
                    for prompt in &mut group.prompts {
                        if let Some(sequence) = prompt.sequence.take_if(|_| !prompt.finished) {
                            owners.push(seat);
                            starting.push(sequence);
                        }
                    }
                }
            }
        }
        let mut state = match plan.stand.how {
            How::Start => PassState::begin(list, starting),
            How::Cut | How::Touch => PassState::resume(list, resuming),
        };
        let first = plan.riders.first();
        state.weights = first.and_then(|seat| self.members[seat.member].groups[seat.invoke].weights.clone());
        for (owner, sequence) in owners.iter().zip(&state.sequences) {
            self.members[owner.member].job.results.report.tokens += sequence.tokens.len() as u64;
        }
        for &member in plan.shares.keys() {
            self.members[member].job.results.report.passes += 1;
        }
        if self.ground.dry {
            self.record(plan, &owners, &state);
        }
        self.pass_end = plan.end;
        let owners = self.walk(plan, &mut state, owners)?;
        self.finish_pass(plan, &mut state, &owners)
    }

    /// Walks the pass; gives back whose the sequences are that reached its end.
    fn walk(
        &mut self,
        plan: &Plan,
        state: &mut PassState,
        owners: Vec<Seat>,
    ) -> Result<Vec<Seat>, Interruption> {
        let models = self.ground.models;
        let loaded = models.get(plan.model).ok_or_else(|| Interruption::missing("the model"))?;
        let (model, schedule, dry) = (&loaded.model, &loaded.schedule, self.ground.dry);
        let mut touched: BTreeMap<usize, Vec<Seat>> = BTreeMap::new();
        let mut riders = plan.riders.clone();
        riders.sort_unstable();
        for &seat in &riders {
            let group = &self.members[seat.member].groups[seat.invoke];
            let gradients = group.asked.gradients.iter().map(|&place| schedule.hook_stage[place]);
            let touches = group.touches[group.next_touch..].iter().map(|touch| touch.0);
            for at in touches.chain(gradients) {
                let seats = touched.entry(at).or_default();
                if seats.last() != Some(&seat) {
                    seats.push(seat);
                }
            }
        }
        let stages: Vec<usize> = touched.keys().copied().collect();
        let mut pool = std::mem::take(&mut self.pool);
        let (stage, to) = (plan.stand.stage, plan.to);
        let mut rider = Rider::new(self, loaded, owners, touched);
        let mut outcome = Ok(());
        let mut from = stage;
        if plan.stand.how == How::Touch {
            outcome = rider.visit_stage(stage, state);
            from += 1;
        }
        if outcome.is_ok() {
            outcome = if dry {
                let passed = stages.iter().filter(|&&at| at >= from && at < to);
                passed.copied().try_for_each(|at| rider.visit_stage(at, state))
            } else {
                walk(model, schedule, from..to, state, &mut pool, &mut rider)
            };
        }
        let owners = rider.into_owners();
        self.pool = pool;
        outcome.map(|()| owners)
    }

    /// Invokes that reached the end of their step go on to the next, or are done; where the pass was cut they stand there.
    fn finish_pass(
        &mut self,
        plan: &Plan,
        state: &mut PassState,
        owners: &[Seat],
    ) -> Result<(), Interruption> {
        let mut from = 0;
        for sequences in owners.chunk_by(|one, other| one == other) {
            let (seat, span) = (sequences[0], from..from + sequences.len());
            from = span.end;
            let Self { members, pool, ground, .. } = self;
            let member = &mut members[seat.member];
            if member.job.failed.is_some() {
                continue;
            }
            if plan.to < plan.end {
                let places: Vec<usize> = span.collect();
                member.groups[seat.invoke].place = Place::Cut(state.park(&places, plan.to));
                continue;
            }
            let ground = *ground;
            let finished =
                member.guarded(|member| member.finish_step(seat.invoke, state, span, ground, pool));
            finished.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// Notes a pass for whoever asked for the plan.
    fn record(&mut self, plan: &Plan, owners: &[Seat], state: &PassState) {
        let mut spans: BTreeMap<Seat, Range<usize>> = BTreeMap::new();
        for (at, &owner) in owners.iter().enumerate() {
            spans.entry(owner).or_insert(at..at).end = at + 1;
        }
        let passengers = plan.riders.iter().map(|seat| {
            let group = &self.members[seat.member].groups[seat.invoke];
            let sequences = &state.sequences[spans.get(seat).cloned().unwrap_or_default()];
            Passenger {
                invoke: group.label.clone(),
                step: group.step,
                prompts: sequences.len(),
                tokens: sequences.iter().map(|sequence| sequence.tokens.len()).sum(),
                columns: group.columns.clone(),
                until: group.end,
            }
        });
        self.records.push(PassRecord {
            model: plan.model,
            from: plan.stand.stage,
            to: plan.end,
            passengers: passengers.collect(),
            parked: Vec::new(),
        });
    }
}
