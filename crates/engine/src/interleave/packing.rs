//! One pass: who rides, from where to where.

use std::collections::BTreeMap;

use super::Interleaver;
use super::group::Place;
use super::rider::Rider;
use crate::error::{EngineError, Interruption};
use crate::explain::{PassRecord, Passenger};
use crate::pass::{PassState, walk};

/// Tokens of one pass at most, unless one invoke alone has more.
const PASS_TOKENS: usize = 8192;

impl Interleaver<'_, '_> {
    /// The groups that walk next: all that can go on from the earliest stage.
    pub(super) fn next_pass(&self) -> Option<(usize, Vec<usize>)> {
        let mut ready: Vec<(usize, bool, usize)> = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            match &group.place {
                Place::Start => ready.push((0, false, number)),
                Place::Parked(parked) => {
                    let instance = group.touches.get(group.next_touch).map(|touch| touch.1);
                    if instance.is_some_and(|instance| self.jobs[group.job].is_ready(instance)) {
                        ready.push((parked.first().map_or(0, |parked| parked.stage), true, number));
                    }
                }
                Place::Waiting | Place::Deciding | Place::Riding | Place::Done => {}
            }
        }
        let (stage, resumed) = ready.iter().map(|&(stage, resumed, _)| (stage, resumed)).min()?;
        let mut riders: Vec<usize> = Vec::new();
        let mut tokens = 0;
        for (_, _, number) in ready.into_iter().filter(|&(at, parked, _)| (at, parked) == (stage, resumed)) {
            // Rows with different weights cannot share a product.
            let key = |number: usize| &self.groups[number].weights_key;
            if riders.first().is_some_and(|&first| key(first) != key(number)) {
                continue;
            }
            let own = self.groups[number].tokens();
            if !riders.is_empty() && tokens + own > PASS_TOKENS {
                break;
            }
            tokens += own;
            riders.push(number);
        }
        Some((stage, riders))
    }

    /// Runs one pass of those groups from a stage on.
    pub(super) fn pass(&mut self, stage: usize, riders: Vec<usize>) -> Result<(), EngineError> {
        let list = self.model.stages();
        let mut owners = Vec::new();
        let mut starting = Vec::new();
        let mut resuming = Vec::new();
        for &number in &riders {
            let group = &mut self.groups[number];
            match std::mem::replace(&mut group.place, Place::Riding) {
                Place::Parked(parked) => {
                    for parked in parked {
                        owners.push(number);
                        resuming.push(parked);
                    }
                }
                _ => {
                    for prompt in &mut group.prompts {
                        if let Some(sequence) = prompt.sequence.take_if(|_| !prompt.finished) {
                            owners.push(number);
                            starting.push(sequence);
                        }
                    }
                }
            }
        }
        let resumed = !resuming.is_empty();
        let mut state =
            if resumed { PassState::resume(list, resuming) } else { PassState::begin(list, starting) };
        state.weights = riders.first().and_then(|&number| self.groups[number].weights.clone());
        let end = riders.iter().map(|&number| self.groups[number].end).max().unwrap_or(0);
        let passengers = riders.iter().map(|&number| {
            let group = &self.groups[number];
            Passenger {
                invoke: group.label.clone(),
                step: group.step,
                prompts: owners.iter().filter(|&&owner| owner == number).count(),
                tokens: owners
                    .iter()
                    .zip(&state.sequences)
                    .filter(|(owner, _)| **owner == number)
                    .map(|(_, sequence)| sequence.tokens.len())
                    .sum(),
                columns: group.columns.clone(),
                until: group.end,
            }
        });
        self.passes.push(PassRecord {
            model: self.number,
            from: stage,
            to: end,
            passengers: passengers.collect(),
            parked: Vec::new(),
        });
        let mut riding: Vec<usize> = riders.iter().map(|&number| self.groups[number].job).collect();
        riding.dedup();
        for &job in &riding {
            let report = &mut self.jobs[job].results.report;
            report.passes += 1;
        }
        for (owner, sequence) in owners.iter().zip(&state.sequences) {
            self.jobs[self.groups[*owner].job].results.report.tokens += sequence.tokens.len() as u64;
        }
        let outcome = self.walk(stage, end, resumed, &mut state, owners);
        match outcome {
            Ok(owners) => self.finish_pass(&mut state, &owners),
            Err(Interruption::AllFailed) => Ok(()),
            Err(Interruption::Internal(message)) => Err(EngineError::Internal(message)),
        }
    }

    /// Walks the pass; gives back whose the sequences are that reached its end.
    fn walk(
        &mut self,
        stage: usize,
        end: usize,
        resumed: bool,
        state: &mut PassState,
        owners: Vec<usize>,
    ) -> Result<Vec<usize>, Interruption> {
        let (model, schedule, dry) = (self.model, self.schedule, self.dry);
        let mut pool = std::mem::take(self.pool);
        let mut touched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, &number) in owners.iter().enumerate() {
            if place > 0 && owners[place - 1] == number {
                continue;
            }
            let group = &self.groups[number];
            let gradients = group.asked.gradients.iter().map(|&place| schedule.hook_stage[place]);
            let touches = group.touches[group.next_touch..].iter().map(|touch| touch.0);
            for at in touches.chain(gradients) {
                let groups = touched.entry(at).or_default();
                if groups.last() != Some(&number) {
                    groups.push(number);
                }
            }
        }
        let stages: Vec<usize> = touched.keys().copied().collect();
        let mut rider = Rider::new(self, owners, touched);
        let mut outcome = Ok(());
        if resumed {
            outcome = rider.visit_stage(stage, state);
        }
        let from = if resumed { stage + 1 } else { stage };
        if outcome.is_ok() {
            outcome = if dry {
                stages
                    .iter()
                    .filter(|&&at| at >= from && at < end)
                    .try_for_each(|&at| rider.visit_stage(at, state))
            } else {
                walk(model, schedule, from..end, state, &mut pool, &mut rider)
            };
        }
        let owners = rider.into_owners();
        *self.pool = pool;
        outcome.map(|()| owners)
    }

    /// Groups that reached the end of their step go on to the next, or are done.
    fn finish_pass(&mut self, state: &mut PassState, owners: &[usize]) -> Result<(), EngineError> {
        let mut numbers: Vec<usize> = owners.to_vec();
        numbers.dedup();
        for number in numbers {
            let members: Vec<usize> = (0..owners.len()).filter(|&at| owners[at] == number).collect();
            self.finish_step(number, state, &members)?;
        }
        Ok(())
    }
}
