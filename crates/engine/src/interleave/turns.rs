//! In which order the touches of a hook point are made.
//!
//! Program by program, in program order. But where several invokes have rows in common and are edited alike, all of them read before
//! any of them writes, edit by edit: what each reads is what it would read by itself, and what each writes is the same. Their touches
//! come where the last of them stands: what they are set to may be read of others before.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_graph::NodeId;

use super::group::Place;
use super::packing::Seat;
use super::rider::Rider;
use crate::job::Instance;
use crate::plan::edits;

/// A touch of a hook point, as its turn comes.
pub(super) struct Turn {
    pub seat: Seat,
    pub instance: Instance,
    /// The party of those whose rows are edited alike here, if the invoke is one of them.
    pub company: Option<usize>,
    /// How many edits of the invoke come before, twice; one more for an edit.
    pub round: usize,
    pub writes: bool,
    /// The last touch of that party here, or this one.
    lead: NodeId,
}

impl Turn {
    fn order(&self) -> (usize, NodeId, Option<(usize, usize)>, NodeId, usize) {
        let Turn { seat, instance, lead, company, round, .. } = *self;
        (seat.member, lead, company.map(|company| (company, round)), instance.1, seat.invoke)
    }
}

impl Rider<'_, '_> {
    /// The touches that those invokes make at a stage, in order.
    pub(super) fn turns(&mut self, stage: usize, seats: &[Seat]) -> Vec<Turn> {
        let mut turns: Vec<Turn> = Vec::new();
        let mut leads: BTreeMap<usize, NodeId> = BTreeMap::new();
        for &seat in seats {
            let company = self.company(seat, stage);
            let group = &mut self.run.members[seat.member].groups[seat.invoke];
            if !matches!(group.place, Place::Riding) {
                continue;
            }
            // Touches before this stage are those of a branch that is lost, inside a module that was skipped.
            let passed = group.touches[group.next_touch..].iter().take_while(|touch| touch.0 < stage).count();
            group.next_touch += passed;
            let member = &self.run.members[seat.member];
            let (program, group) = (&member.job.program.program, &member.groups[seat.invoke]);
            let own = group.touches[group.next_touch..].iter().take_while(|touch| touch.0 == stage);
            let mut round = 0;
            for &(_, instance) in own {
                let id = instance.1;
                let writes = edits(&program.node(id).kind);
                round += usize::from(writes);
                if let Some(company) = company {
                    let lead = leads.entry(company).or_insert(id);
                    *lead = id.max(*lead);
                }
                turns.push(Turn { seat, instance, company, round, writes, lead: id });
                round += usize::from(writes);
            }
        }
        for turn in &mut turns {
            turn.lead = turn.company.and_then(|company| leads.get(&company).copied()).unwrap_or(turn.lead);
        }
        turns.sort_by_key(Turn::order);
        turns
    }

    /// The party in which an invoke is edited at a stage as all others there are.
    fn company(&self, seat: Seat, stage: usize) -> Option<usize> {
        let place = self.spans.get(&seat).and_then(|span| self.owners.get(span.start)).copied()?;
        (!self.parties[place].own && self.is_edited(seat, stage)).then_some(place)
    }

    /// Of the turns from the first on with which a party writes in a round: whose values are not there.
    pub(super) fn waiting(
        &self,
        turns: &[Turn],
        (company, round): (usize, usize),
        blocked: &BTreeSet<Seat>,
    ) -> BTreeSet<Seat> {
        let own = turns.iter().take_while(|turn| turn.company == Some(company) && turn.round == round);
        let waiting = own.filter(|turn| {
            let member = &self.run.members[turn.seat.member];
            let group = &member.groups[turn.seat.invoke];
            !blocked.contains(&turn.seat) && !member.job.is_ready(turn.instance) && !member.gives_up(group)
        });
        waiting.map(|turn| turn.seat).collect()
    }
}
