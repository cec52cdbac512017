//! What a pass keeps of its rows for ways back.

use super::party::placed;
use super::rider::Rider;
use crate::pass::{PassState, attention_hooks, attention_of};

impl Rider<'_, '_> {
    /// Keeps what the way back through a stage reads, for each invoke whose way back goes through it.
    pub(super) fn tape(&mut self, stage: usize, state: &PassState) {
        let list = self.loaded.model.stages();
        let looking = attention_of(list, stage).map_or_else(Vec::new, |scores| attention_hooks(list, scores));
        for (party, span) in placed(self.parties.iter()) {
            let member = &mut self.run.members[party.member];
            // What is kept of rows in common is kept once.
            let mut first: Option<usize> = None;
            for seat in party.seats() {
                if !member.groups[seat.invoke].tracks(stage) {
                    continue;
                }
                // Scores and pattern may be there because another looks at them.
                let looks = |hook: &usize| {
                    self.touched.get(hook).is_some_and(|seats| seats.binary_search(&seat).is_ok())
                };
                let ragged = party.own || looking.iter().any(looks);
                let mut tape = std::mem::take(&mut member.groups[seat.invoke].tape);
                let known = first.map(|first| &member.groups[first].tape);
                let bytes = tape.record(&list.stages[stage], state, span.clone(), ragged, known);
                member.groups[seat.invoke].tape = tape;
                first.get_or_insert(seat.invoke);
                member.job.hold_for_way_back(bytes);
            }
        }
    }
}
