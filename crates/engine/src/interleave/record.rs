//! What is noted of a pass for whoever asked for the plan.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Interleaver;
use super::group::Group;
use super::packing::{How, Plan, Seat};
use super::party::{Party, spans};
use crate::explain::{PassRecord, Passenger, PassengerShares};
use crate::job::Instance;
use crate::pass::PassState;
use crate::plan::{Aboard, Trunk, Work, companies};

/// What is noted of a plan by itself, at most, in names and numbers; of all that is beyond only the sums are.
const NOTED: usize = 100_000;

/// What a pass, and a passenger, are of that beside their lists.
const OF_PASS: usize = 24;
const OF_PASSENGER: usize = 16;

impl Interleaver<'_> {
    /// Notes a pass before it walks.
    pub(super) fn record(&mut self, plan: &Plan, parties: &[Party], state: &PassState) {
        let Some(loaded) = self.ground.models.get(plan.model) else { return };
        let spans = spans(parties);
        let mut aboard: BTreeMap<Seat, (&Trunk, &Aboard)> = BTreeMap::new();
        let mut together: BTreeMap<Seat, Vec<usize>> = BTreeMap::new();
        for trunk in &plan.trunks {
            for (one, firsts) in trunk.aboard.iter().zip(companies(&trunk.aboard)) {
                aboard.insert(one.seat(), (trunk, one));
                together.insert(one.seat(), firsts);
            }
        }
        let mut naive = Work::default();
        let (mut back_flops, mut naive_back_flops) = (0_u64, 0_u64);
        let (mut passengers, mut more) = (HashMap::<Passenger, (usize, usize)>::new(), 0);
        let is_told = self.noted < NOTED;
        self.noted += OF_PASS;
        for seat in &plan.riders {
            let groups = &self.members[seat.member].groups;
            let group = &groups[seat.invoke];
            // One that goes on from the cache begins there.
            if plan.stand.how == How::Start || group.resumed == Some(plan.stand.stage) {
                naive = naive.and_then(loaded.costs.naive(group.whole_rows()));
                for stages in self.members[seat.member].ways.through(group.trace, group.invoke) {
                    let (own, whole) = loaded.costs.back(group.back_rows(), group.whole_rows(), stages);
                    back_flops = back_flops.saturating_add(own);
                    naive_back_flops = naive_back_flops.saturating_add(whole);
                }
            }
            let span = spans.get(seat).cloned().unwrap_or_default();
            let width = if group.step == 0 { group.width } else { 1 };
            let starts = state.sequences[span.clone()].iter().zip(&group.prompts);
            let starts = starts.map(|(sequence, prompt)| group.width - prompt.tokens.len() + sequence.start);
            let first = |trunk: &Trunk| -> Arc<str> {
                let first = trunk.aboard.first();
                first.map_or_else(Arc::default, |first| {
                    self.label(first.member, &self.members[first.member].groups[first.invoke])
                })
            };
            let found = aboard.get(seat);
            let links = found.into_iter().flat_map(|(trunk, _)| trunk.links.iter().flatten());
            let after = links
                .clone()
                .filter_map(|link| Some((first(plan.trunks.get(link.trunk()?)?), link.positions)))
                .collect();
            let cached = links.filter(|link| link.trunk().is_none()).map(|link| link.positions).max();
            let lends =
                found.filter(|(trunk, _)| trunk.aboard.first().is_some_and(|one| one.seat() == *seat));
            let lends = lends.map(|(trunk, _)| trunk.lends(&loaded.costs)).map(|(until, needed)| {
                let padding = group.prompts.iter().map(|prompt| group.width - prompt.tokens.len());
                let columns = needed.iter().zip(padding).filter(|(needed, _)| **needed > 0);
                (until, columns.map(|(needed, padding)| needed + padding).max().unwrap_or(0))
            });
            let shares = found.filter(|(trunk, _)| trunk.aboard.len() > 1).map(|(trunk, one)| {
                let firsts = together.get(seat).map_or(&[][..], Vec::as_slice);
                let lengths: Vec<usize> = trunk.prompts.iter().map(Vec::len).collect();
                let then = firsts.iter().enumerate().filter_map(|(number, &first)| {
                    let first = trunk.aboard.get(first)?.seat();
                    let label = self.label(first.member, &self.members[first.member].groups[first.invoke]);
                    Some((label, one.partings.get(number + 1).map(|next| next.stage)))
                });
                PassengerShares {
                    with: first(trunk),
                    until: one.differs(),
                    then: then.collect(),
                    column: one.partings.get(firsts.len()).map_or(0, |parting| parting.column),
                    tokens: one.rows_at(firsts.len(), &lengths).tokens as usize,
                }
            });
            let passenger = Passenger {
                invoke: self.label(seat.member, group),
                step: group.step,
                prompts: span.len(),
                width,
                rows_from: if group.step == 0 { starts.min().unwrap_or(0) } else { 0 },
                tokens: if plan.stand.how == How::Start {
                    group.tokens()
                } else {
                    state.sequences[span].iter().map(|sequence| sequence.tokens.len()).sum()
                },
                late_from: if group.step == 0 && group.end > loaded.costs.late_from() {
                    group.outlook.late
                } else {
                    0
                },
                late_is_read: group.reads_fewer_late(loaded.costs.late_from()),
                columns: group.columns.clone(),
                vocabulary: group.vocabulary.as_ref().map(|columns| columns.len()),
                until: group.end,
                shares,
                after,
                lends: lends.filter(|&(until, columns)| until > 0 && columns > 0),
                cached: group.resumed_positions().max(cached.unwrap_or(0)),
                resumed: group.resumed.is_some(),
                back: group.way_back(),
            };
            // Equals are told once, with how many they are: a sweep's cells.
            let place = passengers.len();
            if let Some((_, cells)) = passengers.get_mut(&passenger) {
                *cells += 1;
            } else if self.noted < NOTED {
                self.noted += OF_PASSENGER + passenger.numbers();
                passengers.insert(passenger, (place, 1));
            } else {
                more += 1;
            }
        }
        let mut passengers: Vec<(Passenger, (usize, usize))> = passengers.into_iter().collect();
        passengers.sort_by_key(|(_, (place, _))| *place);
        let passengers = passengers.into_iter().map(|(passenger, (_, cells))| (passenger, cells)).collect();
        // Numbers of traces say something within one program.
        let riders = plan.riders.iter().filter(|_| plan.shares.len() < 2);
        let places = riders.filter_map(|seat| self.members[seat.member].place_of(seat.invoke));
        let places: BTreeSet<usize> = places.collect();
        let getters = self.getters_ahead(plan);
        let record = PassRecord {
            model: plan.model,
            traces: places.first().copied().zip(places.last().copied()).unwrap_or_default(),
            from: plan.stand.stage,
            to: plan.to,
            cut: plan.to < plan.end,
            tokens: plan.rows.values().map(|rows| rows.1).sum(),
            work: plan.work,
            naive,
            back_flops,
            naive_back_flops,
            getters,
            read_bytes: 0,
            freed_bytes: 0,
            estimated_ms: plan.estimated_ms,
            measured_ms: None,
            passengers,
            more_passengers: more,
            parked: BTreeMap::new(),
            more_passes: 0,
        };
        match self.records.last_mut() {
            Some(last) if !is_told => last.goes_on_with(record),
            _ => self.records.push(record),
        }
    }

    /// Notes that an invoke waits at a stage.
    pub(super) fn record_parked(&mut self, stage: usize, label: Arc<str>) {
        let Some(record) = self.records.last_mut() else { return };
        if let Some(cells) = record.parked.get_mut(&(stage, label.clone())) {
            *cells += 1;
        } else if self.noted < NOTED {
            self.noted += OF_PASSENGER;
            record.parked.insert((stage, label), 1);
        }
    }

    /// The name of an invoke, with its program's number where there are several.
    pub(super) fn label(&self, member: usize, group: &Group) -> Arc<str> {
        match self.serials {
            ..=1 => group.label.clone(),
            _ => format!("{} of program {}", group.label, self.members[member].ticket.0 + 1).into(),
        }
    }

    /// The getters that a pass's riders have ahead, with what each gives.
    fn getters_ahead(&self, plan: &Plan) -> Vec<(usize, Instance, u64)> {
        let ahead = plan.riders.iter().flat_map(|seat| {
            let member = &self.members[seat.member];
            let getters = member.groups[seat.invoke].getters(&member.job);
            getters.map(|(instance, bytes)| (seat.member, instance, bytes))
        });
        ahead.collect()
    }

    /// Notes of a pass that has been made what getters gave in it, and what of that is free again.
    pub(super) fn note_getters(&mut self) {
        let Some(record) = self.records.last_mut() else { return };
        for (member, instance, bytes) in std::mem::take(&mut record.getters) {
            let job = &self.members[member].job;
            if job.has_given(instance) {
                record.read_bytes = record.read_bytes.saturating_add(bytes);
                let freed = bytes.saturating_sub(job.kept_of(instance));
                record.freed_bytes = record.freed_bytes.saturating_add(freed);
            }
        }
    }
}
