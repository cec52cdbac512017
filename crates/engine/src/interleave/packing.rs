//! Batching: who rides in the next pass, from where to where. Packed rows, in as few passes as what a pass may hold allows.
//!
//! **Needs:** who rides together stands at the same stage of the same model, with the same weights set. What the pass comes to, with
//! all that they share, fits: the bytes that its rows hold, and at a service tokens, milliseconds
//! by what passes have been seen to take (`plan::cost`), getters and setters, and what getters bring into a program's memory (`room`). Whoever finds no room rides in the next; one invoke alone always does, in
//! parts if it takes too long: then it is cut where little is alive between two stages.
//!
//! **Keeps:** kernels give a row the same bits whatever other rows there are, and each sequence attends to its own. Where a pass begins
//! and ends changes nothing of what a stage gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::group::Place;
use super::waiting::SetWeight;
use super::{Group, Interleaver, Member};
use crate::error::EngineError;
use crate::loaded::Loaded;
use crate::plan::{Aboard, Rewrites, Sharing, Trunk, Work};
use crate::serve::{PassReport, Waiting};

/// An invoke of a program that is there: the program's place, and the invoke's among those that are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    pub member: usize,
    pub invoke: usize,
}

/// Where an invoke stands: before which stage, and how it is taken up there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stand {
    pub stage: usize,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// From its tokens.
    Start,
    /// Where its pass was cut.
    Cut,
    /// At a hook point, with the touch that comes next.
    Touch,
}

/// A pass.
pub(super) struct Plan {
    /// The model's place among the engine's.
    pub model: usize,
    pub stand: Stand,
    /// Who rides; a program's stand together.
    pub riders: Vec<Seat>,
    /// Where it begins with tokens: whose rows these are.
    pub trunks: Vec<Trunk>,
    /// The stage after the last that somebody needs.
    pub end: usize,
    /// The stage before which it stops: its end, unless it is cut.
    pub to: usize,
    pub work: Work,
    /// Floating-point operations of each program's part.
    pub shares: BTreeMap<usize, u64>,
    /// Prompts and tokens of each.
    pub rows: BTreeMap<usize, (usize, usize)>,
    /// Getters and setters that its riders have ahead.
    touches: usize,
    /// Programs that could have ridden.
    pub waiting: usize,
    pub estimated_ms: f64,
}

/// Getters and setters of a pass, unless one invoke alone has more: each takes a microsecond or two.
const PASS_TOUCHES: usize = 8_192;

/// A pass into which invokes are taken.
#[derive(Default)]
struct Boarding {
    /// Of those that begin.
    sharing: Sharing,
    /// Of those that go on: their work; and of each program operations, prompts and tokens.
    work: Work,
    shares: BTreeMap<usize, (u64, usize, usize)>,
}

impl Boarding {
    fn tokens(&self) -> usize {
        self.sharing.tokens + self.shares.values().map(|share| share.2).sum::<usize>()
    }

    fn work(&self) -> Work {
        self.sharing.work.with(self.work)
    }

    /// Takes an invoke in, if what the pass comes to with it fits. Whether it does.
    fn take(
        &mut self,
        (member, owner): (usize, usize),
        group: &Group,
        loaded: &Loaded,
        rewrites: Rewrites,
        fits: &mut dyn FnMut(usize, Work) -> bool,
    ) -> bool {
        if group.stand().how == How::Start && group.step == 0 {
            let candidate = group.candidate(member, owner);
            let offer = self.sharing.offer(&candidate, &loaded.costs, rewrites);
            let fits = fits(self.tokens() + offer.tokens, self.work().with(offer.work));
            if fits {
                self.sharing.accept(offer, &candidate, &loaded.costs);
            }
            return fits;
        }
        let own = group.ahead(loaded);
        let fits = fits(self.tokens() + group.tokens(), self.work().with(own));
        if fits {
            self.work = self.work.with(own);
            let share = self.shares.entry(member).or_default();
            share.0 = share.0.saturating_add(own.flops);
            share.1 += group.prompts.iter().filter(|prompt| !prompt.finished).count();
            share.2 += group.tokens();
        }
        fits
    }

    /// Everybody is aboard.
    fn close(mut self, plan: &mut Plan, loaded: &Loaded) {
        let total = self.sharing.total(&loaded.costs);
        plan.trunks = self.sharing.trunks;
        plan.work = total.work.with(self.work);
        for (member, (flops, prompts, tokens)) in total.shares.into_iter().chain(self.shares) {
            let share = plan.shares.entry(member).or_default();
            *share = share.saturating_add(flops);
            let rows = plan.rows.entry(member).or_default();
            rows.0 += prompts;
            rows.1 += tokens;
        }
    }
}

impl Aboard {
    pub(super) fn seat(&self) -> Seat {
        Seat { member: self.member, invoke: self.invoke }
    }
}

impl Group {
    pub(super) fn stand(&self) -> Stand {
        let (parked, how) = match &self.place {
            Place::Parked(parked) => (Some(parked), How::Touch),
            Place::Cut(parked) => (Some(parked), How::Cut),
            _ => (None, How::Start),
        };
        let stage = parked.and_then(|parked| parked.first()).map_or(0, |parked| parked.stage);
        Stand { stage, how }
    }

    /// What its next walk costs by itself, to the end of its step.
    pub(super) fn ahead(&self, loaded: &Loaded) -> Work {
        let from = self.stand().stage;
        loaded.costs.of(self.rows(), from, self.end.max(from))
    }
}

impl Member<'_> {
    /// Its invokes that can go on.
    fn ready(&self) -> impl Iterator<Item = &Group> {
        let ready = if self.job.failed.is_some() { &[][..] } else { &self.groups[..] };
        ready.iter().filter(|group| self.is_ready(group))
    }
}

impl Interleaver<'_> {
    /// The next pass: of the program that comes first, those invokes that stand at its earliest stage, where none was cut; and with them
    /// all that stand there too, program by program, until the pass is full.
    pub(super) fn choose(&self, order: &mut dyn FnMut(&mut [Waiting])) -> Option<Plan> {
        let mut waiting: Vec<Waiting> = Vec::new();
        for (place, member) in self.members.iter().enumerate() {
            let Some(loaded) = self.ground.models.get(member.model) else { continue };
            let (mut tokens, mut flops) = (0, 0_u64);
            for group in member.ready() {
                tokens += group.tokens() as u64;
                flops = flops.saturating_add(group.ahead(loaded).flops);
            }
            if member.ready().next().is_some() {
                waiting.push(self.waiting(place, tokens, flops));
            }
        }
        order(&mut waiting);
        let leader = self.members.get(waiting.first()?.member)?;
        // What was cut goes on first: of many invokes that each take too long for one pass, few wait with their rows at once.
        let order = |group: &&Group| (group.stand().how != How::Cut, group.stand());
        let first = leader.ready().min_by_key(order)?;
        let (stand, key) = (first.stand(), first.weights_key.as_slice());
        let mut plan = Plan {
            model: leader.model,
            stand,
            riders: Vec::new(),
            trunks: Vec::new(),
            end: 0,
            to: 0,
            work: Work::default(),
            shares: BTreeMap::new(),
            rows: BTreeMap::new(),
            touches: 0,
            waiting: waiting.len(),
            estimated_ms: 0.0,
        };
        let mut boarding = Boarding::default();
        for place in waiting.iter().map(|waiting| waiting.member) {
            let Some(member) = self.members.get(place) else { continue };
            let shares = std::ptr::eq(member, leader) || !(leader.alone || member.alone);
            if shares && member.model == leader.model {
                self.board(&mut plan, &mut boarding, place, key);
            }
        }
        if let Some(loaded) = self.ground.models.get(plan.model) {
            boarding.close(&mut plan, loaded);
        }
        plan.to = plan.end;
        plan.estimated_ms = self.clock.pass(plan.work);
        if let (Some(most), &[seat]) = (self.budget.milliseconds, plan.riders.as_slice())
            && plan.estimated_ms > most
        {
            self.cut(&mut plan, seat, most);
        }
        Some(plan)
    }

    /// Whose a program is, as a place among the programs: those that were given the same cache are one owner's.
    pub(super) fn owner(&self, place: usize) -> usize {
        let cache = |member: &Member<'_>| member.job.options.prefixes.as_ref().map(Arc::as_ptr);
        let own = self.members.get(place).and_then(cache);
        let first = own.and_then(|own| self.members.iter().position(|other| cache(other) == Some(own)));
        first.unwrap_or(place)
    }

    /// Takes a program's invokes into a pass: all of them, or none where they fit into a pass of their own but not into what
    /// is left of this one; of one that fills a pass, as many as there is room for.
    fn board(&self, plan: &mut Plan, boarding: &mut Boarding, place: usize, key: &[SetWeight]) {
        let (Some(member), Some(loaded)) = (self.members.get(place), self.ground.models.get(plan.model))
        else {
            return;
        };
        // Rows with different weights cannot share a product.
        let alike = |group: &&Group| group.stand() == plan.stand && group.weights_key == key;
        let ready: Vec<&Group> = member.ready().filter(alike).collect();
        let fits = |tokens: usize, work: Work| {
            tokens as u64 <= self.budget.tokens
                && loaded.costs.held(tokens, work) <= self.budget.bytes
                && self.budget.milliseconds.is_none_or(|most| self.clock.pass(work) <= most)
        };
        let (rewrites, owner) = (self.ground.rewrites, self.owner(place));
        if !plan.riders.is_empty() {
            let mut own = Boarding::default();
            for group in &ready {
                own.take((place, owner), group, loaded, rewrites, &mut |_, _| true);
            }
            let together = (boarding.tokens() + own.tokens(), boarding.work().with(own.work()));
            if fits(own.tokens(), own.work()) && !fits(together.0, together.1) {
                return;
            }
        }
        let room = member.room();
        let mut brought = 0_u64;
        for group in ready {
            let first = plan.riders.is_empty();
            if let Some(room) = room {
                brought = brought.saturating_add(group.brings(&member.job));
                if !first && brought > room {
                    return;
                }
            }
            plan.touches += group.touches.len().saturating_sub(group.next_touch);
            if self.budget.milliseconds.is_some() && !first && plan.touches > PASS_TOUCHES {
                return;
            }
            let mut fits = |tokens: usize, work: Work| first || fits(tokens, work);
            if !boarding.take((place, owner), group, loaded, rewrites, &mut fits) {
                return;
            }
            plan.end = plan.end.max(group.end);
            plan.riders.push(Seat { member: place, invoke: group.seat });
        }
    }

    /// One invoke that takes too long for one pass walks in several.
    fn cut(&self, plan: &mut Plan, seat: Seat, most: f64) {
        let (Some(member), Some(loaded)) =
            (self.members.get(seat.member), self.ground.models.get(plan.model))
        else {
            return;
        };
        let Some(group) = member.groups.get(seat.invoke) else { return };
        let Some(to) = loaded.costs.cut(group.rows(), plan.stand.stage..group.end, most, &self.clock) else {
            return;
        };
        plan.to = to;
        plan.work = loaded.costs.of(group.rows(), plan.stand.stage, to);
        plan.shares.insert(seat.member, plan.work.flops);
        plan.estimated_ms = self.clock.pass(plan.work);
    }

    /// Books a pass that has been made: what it took, and that without what programs computed of their own, which is theirs already.
    pub(super) fn account(
        &mut self,
        plan: Plan,
        failure: Option<String>,
        measured_ms: f64,
        shared_ms: f64,
    ) -> PassReport {
        let programs = plan.shares.len();
        self.fair_share = self.fair_share.saturating_add(plan.work.flops / plan.waiting.max(1) as u64);
        let mut report = PassReport {
            programs,
            rows: 0,
            tokens: 0,
            flops: plan.work.flops,
            estimated_ms: plan.estimated_ms,
            measured_ms,
            from: plan.stand.stage,
            to: plan.to,
            tickets: Vec::with_capacity(programs),
        };
        if let (true, Some(record)) = (self.recording && !self.ground.dry, self.records.last_mut()) {
            record.measured_ms = Some(record.measured_ms.unwrap_or(0.0) + measured_ms);
        }
        for (&place, &flops) in &plan.shares {
            let (rows, tokens) = plan.rows.get(&place).copied().unwrap_or_default();
            let member = &mut self.members[place];
            let share = if plan.work.flops == 0 {
                1.0 / programs.max(1) as f64
            } else {
                flops as f64 / plan.work.flops as f64
            };
            member.usage.passes += 1;
            member.usage.rows += rows as u64;
            member.usage.tokens += tokens as u64;
            member.usage.flops = member.usage.flops.saturating_add(flops);
            member.usage.estimated_ms += plan.estimated_ms * share;
            member.usage.measured_ms += shared_ms * share;
            member.usage.pass_flops = member.usage.pass_flops.saturating_add(flops);
            member.usage.pass_ms += shared_ms * share;
            member.job.results.report.note_pass(measured_ms * share);
            report.rows += rows;
            report.tokens += tokens;
            report.tickets.push(member.ticket);
            if let Some(message) = &failure {
                let message = message.clone();
                member.job.failed.get_or_insert(match programs {
                    1 => EngineError::Internal(message),
                    _ => EngineError::PassFailed { programs, message },
                });
            }
        }
        report
    }
}
