//! What a pass keeps of its rows for ways back, as far as there is room for it.

use std::collections::BTreeSet;

use super::group::Group;
use super::member::Member;
use super::packing::Seat;
use super::party::placed;
use super::rider::Rider;
use crate::loaded::Loaded;
use crate::pass::{PassState, attention_hooks, attention_of};
use crate::plan::{edits, room};

impl Rider<'_, '_> {
    /// Keeps what the way back through a stage reads, for each invoke whose way back goes through it.
    pub(super) fn tape(&mut self, stage: usize, state: &PassState) {
        let list = self.loaded.model.stages();
        let looking = attention_of(list, stage).map_or_else(Vec::new, |scores| attention_hooks(list, scores));
        let segments = &self.loaded.schedule.segments;
        let begins = segments.iter().find(|segment| segment.stages.start == stage + 1);
        for (party, span) in placed(self.parties.iter()) {
            // What a program keeps of rows in common it keeps once.
            let mut first: Option<Seat> = None;
            for &seat in &party.seats {
                let member = &mut self.run.members[seat.member];
                if !member.groups[seat.invoke].tracks(stage) {
                    continue;
                }
                // Scores and pattern may be there because another looks at them.
                let looks = |hook: &usize| {
                    self.touched.get(hook).is_some_and(|seats| seats.binary_search(&seat).is_ok())
                };
                let ragged = party.own || looking.iter().any(looks);
                let mut tape = std::mem::take(&mut member.groups[seat.invoke].tape);
                let known = first.filter(|first| first.member == seat.member);
                let known = known.map(|first| &member.groups[first.invoke].tape);
                let mut bytes = tape.record(&list.stages[stage], state, span.clone(), ragged, known);
                if room(&member.job.program.price, &member.job.options).is_some() {
                    if member.edited(seat.invoke, stage) {
                        bytes += tape.record_edit(&list.stages[stage], state, span.clone());
                    }
                    if let Some(segment) = begins {
                        bytes += tape.record_root(segment, state, span.clone(), known);
                    }
                }
                member.groups[seat.invoke].tape = tape;
                if first.is_none_or(|first| first.member != seat.member) {
                    first = Some(seat);
                }
                member.job.hold_for_way_back(bytes);
            }
        }
        // At the end of a segment it is seen whether there is room for it.
        if segments.iter().any(|segment| segment.stages.end == stage + 1) {
            let riding: BTreeSet<usize> = self.spans.keys().map(|seat| seat.member).collect();
            for member in riding {
                self.run.members[member].make_room(stage + 1, self.loaded);
            }
        }
    }
}

impl Member<'_> {
    /// Whether an invoke was edited at a stage.
    fn edited(&self, invoke: usize, stage: usize) -> bool {
        let group = &self.groups[invoke];
        let kind = |id| &self.job.program.program.node(id).kind;
        let from = group.touches.partition_point(|touch| touch.0 < stage);
        let mut here = group.touches[from..].iter().take_while(|touch| touch.0 == stage);
        here.any(|(_, instance)| edits(kind(instance.1)) && !self.job.is_lost(*instance))
    }

    /// Gives up what is kept of segments that end before a stage, the first ones first, until there is room for what is left.
    fn make_room(&mut self, before: usize, loaded: &Loaded) {
        let Some(room) = room(&self.job.program.price, &self.job.options) else { return };
        let mut kept: u64 = self.groups.iter().map(|group| group.tape.bytes()).sum();
        let segments = loaded.schedule.segments.iter().take_while(|segment| segment.stages.end <= before);
        for segment in segments {
            if kept <= room {
                return;
            }
            let Self { groups, job, .. } = &mut *self;
            let can_be_followed = |group: &Group| {
                let kind = |id| &job.program.program.node(id).kind;
                let mut own = group.touches.iter().filter(|touch| segment.stages.contains(&touch.0));
                own.all(|touch| group.tracks(touch.0) || !edits(kind(touch.1.1)))
            };
            // What was edited where no way back goes through was not kept: then nothing is computed again.
            let able: Vec<bool> = groups.iter().map(can_be_followed).collect();
            for (group, _) in groups.iter_mut().zip(able).filter(|(_, able)| *able) {
                let free = group.tape.give_up(segment, loaded.model.stages());
                job.let_go(free);
                kept = kept.saturating_sub(free);
            }
        }
    }
}
