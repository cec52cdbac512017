//! Resumption: an invoke leaves the rows that it shares at the first hook point at which it is edited, and goes on from there; with
//! those that are edited alike, as one row that they leave in their turn.
//! So a sweep over layers starts each of its rows at its layer, from the shared row's residual stream: no rewrite but this is needed for it.
//!
//! **Needs:** the invoke is aboard a trunk (`plan::depth`), and it is known which of the rows it takes from there on (`plan::length`).
//! What stages hand on to one another lies in the slots of the pass: to copy its rows of these is all that there is to do. Keys and values
//! of columns that it leaves behind, it attends to where they are; the trunk's rows go on as far as somebody attends to them.
//!
//! **Keeps:** until that hook point the rows are those of the invoke itself, bit for bit, and copies are made before the edit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::packing::Seat;
use super::party::{Party, owners, placed, spans};
use super::rider::Rider;
use super::steps::agree_on_columns;
use crate::pass::PassState;
use crate::plan::{Parting, edits};

impl Rider<'_, '_> {
    /// Gives the invokes rows of their own that are edited at a stage, before it is.
    pub(super) fn fork(&mut self, stage: usize, state: &mut PassState) {
        let Some(touching) = self.touched.get(&stage) else { return };
        if self.parties.iter().all(|party| party.own) {
            return;
        }
        let touching: BTreeSet<Seat> = touching.iter().copied().collect();
        let (mut copies, mut forked): (Vec<(usize, usize)>, Vec<Party>) = (Vec::new(), Vec::new());
        let mut first = 0;
        for place in 0..self.parties.len() {
            let span = first..first + self.parties[place].count;
            first = span.end;
            if self.parties[place].own {
                continue;
            }
            let (leaving, staying): (Vec<Seat>, Vec<Seat>) = self.parties[place]
                .seats
                .iter()
                .copied()
                .partition(|seat| touching.contains(seat) && self.is_edited(*seat, stage));
            if leaving.is_empty() {
                continue;
            }
            self.parties[place].seats = staying;
            for &seat in &leaving {
                self.expect_attention(place, span.clone(), seat, state);
            }
            // Those that are edited alike go on together.
            let owner = self.parties[place].owner;
            let (companies, mut leaving) = self.companies(&leaving, stage);
            for company in companies {
                let Some(&first) = company.first() else { continue };
                let positions = self.run.members[first.member].groups[first.invoke].fork_positions();
                copies.extend(span.clone().zip(positions));
                for seat in &company {
                    self.run.members[seat.member].groups[seat.invoke].part();
                }
                forked.push(Party::of(owner, company, span.len()));
            }
            let party = &mut self.parties[place];
            if party.seats.is_empty() && party.until <= stage {
                // Nobody needs these rows any more: one of those that take them all has them.
                let members = &self.run.members;
                let whole = |seat: &Seat| {
                    let positions = members[seat.member].groups[seat.invoke].fork_positions();
                    let mut starts = state.sequences[span.clone()].iter().map(|sequence| sequence.start);
                    positions.iter().all(|&position| starts.next().is_some_and(|start| position <= start))
                };
                if let Some(heir) = leaving.iter().position(whole) {
                    let heir = leaving.remove(heir);
                    party.seats = vec![heir];
                    (party.own, party.needed, party.until) = (true, Vec::new(), 0);
                    let group = &self.run.members[heir.member].groups[heir.invoke];
                    for (sequence, prompt) in state.sequences[span.clone()].iter_mut().zip(&group.prompts) {
                        sequence.publishes = None;
                        sequence.keep_caches = group.keeps_caches();
                        if !state.narrowed {
                            sequence.narrow = group.narrow(prompt.tokens.len(), sequence.start);
                        }
                    }
                }
            }
            for seat in leaving {
                let group = &mut self.run.members[seat.member].groups[seat.invoke];
                copies.extend(span.clone().zip(group.fork_positions()));
                group.part();
                forked.push(Party::own(owner, seat, span.len()));
            }
        }
        self.copy(&copies, forked, state);
        self.tidy(stage, state);
    }

    /// Of those that leave rows at a stage: those that go on with others, together, and those that go on alone.
    fn companies(&self, leaving: &[Seat], stage: usize) -> (Vec<Vec<Seat>>, Vec<Seat>) {
        let mut alike: BTreeMap<(usize, Parting), Vec<Seat>> = BTreeMap::new();
        let mut alone = Vec::new();
        for &seat in leaving {
            let parting = self.run.members[seat.member].groups[seat.invoke].next_parting();
            match parting.filter(|parting| parting.stage == stage && parting.alike.is_some()) {
                Some(parting) => alike.entry((seat.member, parting)).or_default().push(seat),
                None => alone.push(seat),
            }
        }
        let (companies, single): (Vec<_>, Vec<_>) =
            alike.into_values().partition(|company| company.len() > 1);
        alone.extend(single.into_iter().flatten());
        alone.sort_unstable();
        (companies, alone)
    }

    /// Of parties that are edited alike those wait for what they are set to: they go on with rows of their own.
    pub(super) fn stay_behind(&mut self, behind: &[(usize, BTreeSet<Seat>)], state: &mut PassState) {
        if behind.is_empty() {
            return;
        }
        let (mut whole, mut own) = (Vec::new(), Vec::new());
        let firsts: Vec<usize> = placed(self.parties.iter()).map(|(_, span)| span.start).collect();
        for (place, waiting) in behind {
            let (Some(party), Some(&first)) = (self.parties.get_mut(*place), firsts.get(*place)) else {
                continue;
            };
            party.seats.retain(|seat| !waiting.contains(seat));
            for &seat in waiting {
                whole.extend((first..first + party.count).map(|number| (number, 0)));
                own.push(Party::own(party.owner, seat, party.count));
            }
        }
        self.copy(&whole, own, state);
    }

    /// Whether an invoke's rows are edited at a stage.
    pub(super) fn is_edited(&self, seat: Seat, stage: usize) -> bool {
        let member = &self.run.members[seat.member];
        let group = &member.groups[seat.invoke];
        let mut here = group.touches[group.next_touch..].iter().filter(|touch| touch.0 == stage);
        here.any(|(_, instance)| edits(&member.job.program.program.node(instance.1).kind))
    }

    /// Notes what an invoke that leaves a party's rows will attend to of them.
    fn expect_attention(&mut self, place: usize, span: Range<usize>, seat: Seat, state: &PassState) {
        let group = &self.run.members[seat.member].groups[seat.invoke];
        let positions = group.fork_positions();
        let party = &mut self.parties[place];
        let attends = positions
            .iter()
            .zip(&state.sequences[span])
            .any(|(&position, sequence)| position > sequence.start);
        if attends {
            party.until = party.until.max(self.loaded.costs.last_attention(group.end));
            party.needed.resize(positions.len(), 0);
            for (needed, position) in party.needed.iter_mut().zip(positions) {
                *needed = (*needed).max(position);
            }
        }
    }

    /// Copies rows to the end of the pass for those whose they are from now on.
    fn copy(&mut self, copies: &[(usize, usize)], forked: Vec<Party>, state: &mut PassState) {
        let mut next = state.sequences.len();
        state.fork(copies);
        let from = self.loaded.model.stages().token_wise_from;
        for party in &forked {
            let Some(&first) = party.seats.first() else { continue };
            let members = &mut self.run.members;
            let group = |seat: &Seat| &members[seat.member].groups[seat.invoke];
            let keeps = party.seats.iter().any(|seat| group(seat).keeps_caches());
            // Whoever leaves these rows behind its own first one attends to them.
            let attends = |seat: &Seat| {
                let group = group(seat);
                group.next_parting().is_some_and(|next| next.column > group.forked)
            };
            let lends = !party.own && party.seats.iter().any(attends);
            let mut narrows = first;
            if !party.own && !state.narrowed {
                let there = party.seats.iter().copied().filter(|seat| {
                    let group = group(seat);
                    group.next_parting().map_or(group.end > from, |next| next.stage >= from)
                });
                let there: Vec<Seat> = there.collect();
                narrows = agree_on_columns(members, &there, from).unwrap_or(narrows);
            }
            let group = &members[narrows.member].groups[narrows.invoke];
            let mut tokens = 0;
            for prompt in &group.prompts {
                let sequence = &mut state.sequences[next];
                next += 1;
                sequence.keep_caches = keeps;
                if lends {
                    sequence.publishes = Some(Arc::default());
                }
                tokens += sequence.tokens.len() as u64;
                if !state.narrowed {
                    sequence.narrow = group.narrow(prompt.tokens.len(), sequence.start);
                }
            }
            members[first.member].job.results.report.tokens += tokens;
        }
        self.parties.extend(forked);
        self.seat_all();
    }

    /// After the last attention lets the positions go that nothing reads or writes from there on.
    pub(super) fn let_early_positions_go(&mut self, state: &mut PassState) {
        let mut kept: Vec<Vec<usize>> = state.rows.iter().map(|rows| (0..rows.len()).collect()).collect();
        for (party, span) in placed(self.parties.iter()) {
            let members = &mut self.run.members;
            let group = |seat: &Seat| &members[seat.member].groups[seat.invoke];
            let columns = party.seats.iter().map(|seat| group(seat).outlook.late);
            let Some((column, first)) = columns.min().zip(party.seats.first()) else { continue };
            let only_read = party.seats.iter().all(|seat| group(seat).outlook.late_is_read);
            let prompts = group(first).fork_positions_at(column);
            for (number, position) in span.zip(prompts) {
                let sequence = &state.sequences[number];
                match &sequence.narrow {
                    Some(read) if only_read => kept[number].clone_from(read),
                    _ => kept[number].retain(|&place| sequence.start + place >= position),
                }
            }
            for seat in &party.seats {
                let forked = &mut members[seat.member].groups[seat.invoke].forked;
                *forked = column.max(*forked);
            }
        }
        state.keep_only(&kept);
    }

    /// Takes rows out of the pass that nobody reads and nobody attends to any more, and those positions of others that
    /// nobody attends to.
    pub(super) fn tidy(&mut self, stage: usize, state: &mut PassState) {
        let idle = |party: &Party| party.seats.is_empty() && (party.until <= stage || !party.cropped);
        if !self.parties.iter().any(idle) {
            return;
        }
        let mut leaving: Vec<usize> = Vec::new();
        let mut lengths: Vec<usize> = state.rows.iter().map(Range::len).collect();
        for (party, span) in placed(self.parties.iter()).filter(|(party, _)| party.seats.is_empty()) {
            // What goes on attends to what is published; nobody goes on after these rows.
            state.sequences[span.clone()].iter_mut().for_each(|sequence| sequence.keep_caches = false);
            if party.until <= stage {
                leaving.extend(span);
            } else if !party.cropped && !state.narrowed {
                for (sequence, &needed) in span.zip(&party.needed) {
                    lengths[sequence] = needed.saturating_sub(state.sequences[sequence].start).max(1);
                }
            }
        }
        for party in self.parties.iter_mut().filter(|party| party.seats.is_empty()) {
            party.cropped = true;
        }
        state.crop(&lengths);
        if !leaving.is_empty() {
            state.remove(&leaving);
            self.parties.retain(|party| !party.seats.is_empty() || party.until > stage);
        }
        self.seat_all();
    }

    /// Finds where everybody is.
    pub(super) fn seat_all(&mut self) {
        self.spans = spans(&self.parties);
        self.owners = owners(&self.parties);
    }
}
