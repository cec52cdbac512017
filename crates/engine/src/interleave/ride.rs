//! One pass: from its riders' sequences to where each of them stands afterwards.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Interleaver;
use super::group::Place;
use super::guard::said;
use super::packing::{How, Plan, Seat};
use super::party::{Party, placed};
use super::rider::Rider;
use super::steps::agree_on_columns;
use crate::error::Interruption;
use crate::loaded::Loaded;
use crate::pass::{PassState, Sequence, Visitor, walk};
use crate::plan::{Aboard, Source};

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
        let mut parties = Vec::new();
        let mut state = match plan.stand.how {
            How::Start => PassState::begin(list, self.board_trunks(plan, loaded, &mut parties)),
            How::Cut | How::Touch => {
                let mut resuming = Vec::new();
                for &seat in &plan.riders {
                    let owner = self.owner(seat.member);
                    if let Place::Parked(parked) | Place::Cut(parked) =
                        self.members[seat.member].goes_to(seat.invoke, Place::Riding)
                    {
                        parties.push(Party::own(owner, seat, parked.len()));
                        resuming.extend(parked);
                    }
                }
                PassState::resume(list, resuming)
            }
        };
        let first = plan.riders.first();
        state.weights = first.and_then(|seat| self.members[seat.member].groups[seat.invoke].weights.clone());
        for (party, span) in placed(parties.iter()) {
            let tokens: usize = state.sequences[span].iter().map(|sequence| sequence.tokens.len()).sum();
            if let Some(first) = party.seats.first() {
                self.members[first.member].job.results.report.tokens += tokens as u64;
            }
        }
        for &member in plan.shares.keys() {
            self.members[member].job.results.report.passes += 1;
        }
        if self.recording {
            self.record(plan, &parties, &state);
        }
        self.pass_end = plan.end;
        self.streams = state.sequences.iter().any(|sequence| sequence.streams.is_some());
        let parties = self.walk(plan, &mut state, parties)?;
        self.finish_pass(plan, &mut state, &parties)
    }

    /// The sequences with which a pass begins: of each trunk those of one aboard.
    fn board_trunks(&mut self, plan: &Plan, loaded: &Loaded, parties: &mut Vec<Party>) -> Vec<Sequence> {
        let (ground, narrowing) = (self.ground, loaded.model.stages().token_wise_from);
        let mut starting: Vec<Sequence> = Vec::new();
        // Of each trunk: the place of its first sequence.
        let mut firsts = Vec::new();
        for trunk in &plan.trunks {
            firsts.push(starting.len());
            let own = trunk.is_own();
            let there = trunk.aboard.iter().filter(|one| !own && one.is_aboard(narrowing));
            let there: Vec<Seat> = there.map(Aboard::seat).collect();
            let there = agree_on_columns(&mut self.members, &there, narrowing);
            let mut taken = Vec::new();
            let mut keeps = false;
            for (number, seat) in trunk.aboard.iter().map(Aboard::seat).enumerate() {
                let group = &mut self.members[seat.member].groups[seat.invoke];
                // Whoever stays aboard to the end goes on after these rows.
                keeps |= group.keeps_caches();
                group.place = Place::Riding;
                for prompt in &mut group.prompts {
                    let sequence = prompt.sequence.take_if(|_| !prompt.finished);
                    taken.extend(sequence.filter(|_| number == 0));
                }
            }
            let count = taken.len();
            taken.iter_mut().for_each(|sequence| sequence.keep_caches = keeps);
            let Some(first) = trunk.aboard.first() else { continue };
            let collected = self.members[first.member].collect_prefixes(trunk, loaded, ground);
            if let Some(group) = there.map(|seat| &self.members[seat.member].groups[seat.invoke]) {
                for (sequence, prompt) in taken.iter_mut().zip(&group.prompts) {
                    sequence.narrow = group.narrow(prompt.tokens.len(), 0);
                }
            }
            for (prompt, mut sequence) in taken.into_iter().enumerate() {
                if let Some(Some(link)) = trunk.links.get(prompt) {
                    let prefix = match &link.source {
                        Source::Trunk { trunk, prompt } => {
                            let donor: &mut Sequence = &mut starting[firsts[*trunk] + prompt];
                            donor.publishes.get_or_insert_default().clone()
                        }
                        Source::Cache { prefix, .. } => {
                            self.members[first.member].takes_from_cache(link.positions, ground.dry);
                            prefix.clone()
                        }
                    };
                    sequence.begin_after(link.positions, prefix);
                }
                if !own {
                    sequence.publishes = Some(Arc::default());
                }
                if let Some((_, publishes, streams)) = collected.iter().find(|one| one.0 == prompt) {
                    sequence.publishes = publishes.clone().or(sequence.publishes);
                    sequence.streams = Some(streams.clone());
                }
                starting.push(sequence);
            }
            parties.push(Party {
                owner: trunk.owner,
                seats: trunk.aboard.iter().map(Aboard::seat).collect(),
                count,
                own,
                until: trunk.until,
                needed: trunk.needed.clone(),
                cropped: false,
            });
        }
        // Later steps of generations.
        for &seat in &plan.riders {
            let owner = self.owner(seat.member);
            let group = &mut self.members[seat.member].groups[seat.invoke];
            if !matches!(group.place, Place::Riding) {
                group.place = Place::Riding;
                let before = starting.len();
                for prompt in &mut group.prompts {
                    starting.extend(prompt.sequence.take_if(|_| !prompt.finished));
                }
                parties.push(Party::own(owner, seat, starting.len() - before));
            }
        }
        starting
    }

    /// Walks the pass; gives back whose the sequences are that reached its end.
    fn walk(
        &mut self,
        plan: &Plan,
        state: &mut PassState,
        parties: Vec<Party>,
    ) -> Result<Vec<Party>, Interruption> {
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
        let mut rider = Rider::new(self, loaded, parties, touched);
        let mut outcome = Ok(());
        let mut from = stage;
        if plan.stand.how == How::Touch {
            outcome = rider.visit_stage(stage, state);
            if outcome.is_ok() && !dry && rider.tracks(stage) {
                rider.record(stage, state);
            }
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
        let parties = rider.into_parties();
        self.pool = pool;
        outcome.map(|()| parties)
    }

    /// Invokes that reached the end of their step go on to the next, or are done; where the pass was cut they stand there.
    fn finish_pass(
        &mut self,
        plan: &Plan,
        state: &mut PassState,
        parties: &[Party],
    ) -> Result<(), Interruption> {
        let riding = placed(parties.iter());
        for (seat, span) in
            riding.flat_map(|(party, span)| party.seats.iter().map(move |&seat| (seat, span.clone())))
        {
            let Self { members, pool, ground, .. } = self;
            let member = &mut members[seat.member];
            if member.gives_up(&member.groups[seat.invoke]) {
                continue;
            }
            if plan.to < plan.end {
                let places: Vec<usize> = span.collect();
                member.waits_at(seat.invoke, Place::Cut(state.park(&places, plan.to)));
                continue;
            }
            let ground = *ground;
            let finished =
                member.guarded(|member| member.finish_step(seat.invoke, state, span, ground, pool));
            finished.unwrap_or(Ok(()))?;
        }
        Ok(())
    }
}
