//! Running checked programs together: which invokes share a pass, where each waits for another, what each reads and
//! writes on the way.
//!
//! Every invoke is a group of sequences with a place in time: its step, and the stage that comes next. Groups that stand at
//! the same stage, whosever they are, walk on in one pass. At a hook point that a program touches its getters and setters
//! run in program order; where several of it are edited alike as one, all of these read before any of them writes
//! (`turns`). A group whose setter waits for a value that another group has still to compute is parked there, its rows held
//! by its program as values are, and taken up when the value has come. So passes are cut just where the programs' own
//! dependencies cut them; the checker has made sure that some group can always go on.
//!
//! Programs come and go between passes: each is at a trace, or several that run together, and at a step of its own. Nothing
//! of one owner is seen by another: all that their programs share is the time, the buffers and the kernels, which give a row
//! the same bits whatever other rows there are. Programs that were given the same cache are one owner's. This is the planner's rewrite between programs:
//!
//! **Needs:** the same model in memory, with the weights that it was loaded with; the same stage (`packing`); none that was to run alone.
//!
//! **Keeps:** within a pass all other rewrites hold for the programs of each owner as if they were one: rows are shared, and prompts begin
//! with one another's, only among invokes of one owner (`plan::sharing` looks for no other), whatever two owners have in common. What
//! outlives a program is in the cache that its owner gave it, and nowhere else. A program that fails or is called off leaves alone: rows
//! that others of its owner attend to stay.
//!
//! | module | holds |
//! | --- | --- |
//! | `member` | one program: where it is in its traces |
//! | `group` | one invoke on its way: its prompts, its place, its rectangle |
//! | `touches` | which hook points a trace reads and writes of each invoke |
//! | `steps` | how a group's step begins and ends; the next tokens |
//! | `packing` | who rides in the next pass, from where to where |
//! | `room` | how much a program's getters may bring in one pass |
//! | `party` | rows of a pass, and the invokes whose they are |
//! | `ride` | one pass |
//! | `turns` | in which order the touches of a hook point are made |
//! | `cached` | what programs take from their caches of prefixes, and put there |
//! | `record` | what is noted of a pass for whoever asked for the plan |
//! | `fork` | where invokes leave the rows that they share |
//! | `rider` | what happens at each touched hook point of a pass |
//! | `taping` | what a pass keeps of its rows for ways back |
//! | `vocabulary` | which columns of the vocabulary an invoke reads of its logits |
//! | `waiting` | invokes that wait for conditions and weights before they start, or for the word to stop |
//! | `back` | ways back, between the passes |
//! | `between` | programs' own operations that take long, between the passes and beside them |
//! | `guard` | panics |

mod back;
mod between;
mod cached;
mod fork;
mod group;
mod guard;
mod member;
mod packing;
mod party;
mod record;
mod ride;
mod rider;
mod room;
mod steps;
mod taping;
mod touches;
mod turns;
mod vocabulary;
mod waiting;

use std::time::{Duration, Instant};

use pellucid_graph::check::CheckedProgram;

use crate::error::{EngineError, Failure};
use crate::explain::PassRecord;
use crate::job::{Held, RunOptions};
use crate::loaded::Loaded;
use crate::plan::{Clock, Rewrites, Work};
use crate::results::Results;
use crate::serve::{Load, PassReport, ServeOptions, Ticket, Usage, Waiting};
use crate::slots::BufferPool;

pub(crate) use between::Helpers;
use group::Group;
use member::Ground;
pub(crate) use member::Member;
pub(crate) use steps::stops;
pub(crate) use waiting::stopped;

/// What a pass may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Tokens, unless one invoke alone has more.
    pub tokens: u64,
    /// Bytes of what stages hand on to one another, unless one invoke alone has more.
    pub bytes: u64,
    /// Estimated milliseconds; none: no bound. Where there is one, programs also make way for one another between passes.
    pub milliseconds: Option<f64>,
}

impl Budget {
    /// That of a service.
    pub fn of(options: &ServeOptions, bytes: u64) -> Budget {
        Budget { tokens: options.pass_tokens.max(1), bytes, milliseconds: Some(options.pass_ms.max(0.0)) }
    }
}

/// Programs that always have a slice of a pass's time each for their small nodes.
const FEW: usize = 4;
/// The least slice: some hundreds of nodes.
const LEAST_SLICE_MS: f64 = 0.5;

/// Programs that run together.
pub(crate) struct Interleaver<'e> {
    ground: Ground<'e>,
    budget: Budget,
    members: Vec<Member<'e>>,
    pub pool: BufferPool,
    pub clock: Clock,
    helpers: Option<Helpers<'e>>,
    /// Whether passes are noted.
    recording: bool,
    /// Those that were made.
    pub records: Vec<PassRecord>,
    /// How much is noted in them.
    noted: usize,
    /// Where the current pass ends.
    pass_end: usize,
    /// Whether the residual stream of some of its rows goes into a cache.
    streams: bool,
    serials: u64,
    /// Floating-point operations that each program would have been given that was always here, if all always got the same.
    fair_share: u64,
}

/// A program that has ended.
pub(crate) struct Left<'e> {
    pub ticket: Ticket,
    pub outcome: Result<Results, Box<Failure>>,
    pub usage: Usage,
    /// All else of it: of a program of many nodes it takes a while to be freed.
    pub rest: Member<'e>,
}

impl<'e> Interleaver<'e> {
    /// Nobody there yet. In a dry run nothing is computed.
    pub fn new(
        models: &'e [Loaded],
        pool: BufferPool,
        budget: Budget,
        rewrites: Rewrites,
        dry: bool,
    ) -> Self {
        Interleaver {
            ground: Ground { models, dry, rewrites },
            budget,
            members: Vec::new(),
            pool,
            clock: Clock::default(),
            helpers: None,
            recording: false,
            records: Vec::new(),
            noted: 0,
            pass_end: 0,
            streams: false,
            serials: 0,
            fair_share: 0,
        }
    }

    /// The same, with threads that take what is too long to make others wait for it.
    pub fn with_helpers(self, helpers: Helpers<'e>) -> Self {
        Interleaver { helpers: Some(helpers), ..self }
    }

    /// The same, noting its passes.
    pub fn recording(self) -> Self {
        Interleaver { recording: true, ..self }
    }

    /// What work in passes takes here, in milliseconds, by what has been learnt.
    pub fn estimate(&self, work: Work) -> f64 {
        self.clock.pass(work)
    }

    /// A program joins.
    pub fn add(
        &mut self,
        ticket: Ticket,
        program: Held<'e, CheckedProgram>,
        options: RunOptions,
        alone: bool,
    ) {
        let mut member = Member::new(ticket, self.serials, program, options, self.ground.dry);
        member.alone = alone;
        member.came_at_flops = self.fair_share;
        member.job.defers = self.budget.milliseconds.is_some();
        self.serials += 1;
        self.members.push(member);
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many programs are there.
    pub fn programs(&self) -> usize {
        self.members.len()
    }

    /// Does what is to be done between passes, of all programs but the first so many: they begin, go from trace to trace and back,
    /// and end. Where time is bounded, long operations and ways back take about half as long as a pass each; whose turn it is comes
    /// first.
    pub fn settle(&mut self, from: usize, order: &mut dyn FnMut(&mut [Waiting])) {
        self.run_deferred(from, order);
        let half = self.most_ms().map(|ms| Duration::from_secs_f64(ms.max(0.0) / 2000.0));
        let mut now = Instant::now();
        let until = half.map(|half| now + half);
        // Ways back take long; everything else is soon done.
        let (mut turns, backs): (Vec<usize>, Vec<usize>) =
            (from..self.members.len()).partition(|&place| self.members[place].backs.is_empty());
        turns.extend(self.in_turn(backs.into_iter(), order));
        let slice = self.slice();
        for place in turns {
            let member = &mut self.members[place];
            let (ground, pool) = (self.ground, &mut self.pool);
            member.job.slice = slice;
            member.guarded(|member| member.settle(ground, pool, until));
            member.usage.nodes_ms += milliseconds(member.job.take_own());
            let then = Instant::now();
            let took = milliseconds(then - now);
            member.usage.measured_ms += took;
            if until.is_some() && (!member.backs.is_empty() || member.job.has_postponed()) {
                member.usage.flops = member.usage.flops.saturating_add(self.clock.worth(took));
            }
            now = then;
        }
    }

    /// Milliseconds after which others have their turn; none: no bound. In a dry run nothing takes any, and plans depend on no clock.
    fn most_ms(&self) -> Option<f64> {
        self.budget.milliseconds.filter(|_| !self.ground.dry)
    }

    /// What the small nodes of one program may take in a pass, and as much again right after it; none: no bound. All those
    /// together that have more to do than that get about a quarter of a pass's time.
    fn slice(&self) -> Option<Duration> {
        let most = self.most_ms()?;
        let many = self.members.iter().filter(|member| member.job.has_postponed()).count();
        let ms = (most / 4.0 / many.max(FEW) as f64).max(LEAST_SLICE_MS);
        // A bound of days is none.
        Duration::try_from_secs_f64(ms / 1000.0).ok()
    }

    /// What there is to know of a program that waits with so many tokens and operations.
    fn waiting(&self, place: usize, tokens: u64, flops: u64) -> Waiting {
        let member = &self.members[place];
        Waiting {
            ticket: member.ticket,
            tokens,
            flops,
            served_flops: member.usage.flops,
            came_at_flops: member.came_at_flops,
            pass_flops: self.budget.milliseconds.map_or(u64::MAX, |most| self.clock.worth(most)),
            member: place,
        }
    }

    /// Those programs, by whose turn it is.
    fn in_turn(
        &self,
        places: impl Iterator<Item = usize>,
        order: &mut dyn FnMut(&mut [Waiting]),
    ) -> Vec<usize> {
        let mut waiting: Vec<Waiting> = places.map(|place| self.waiting(place, 0, 0)).collect();
        if waiting.len() > 1 {
            order(&mut waiting);
        }
        waiting.into_iter().map(|waiting| waiting.member).collect()
    }

    /// Takes out the programs that have ended.
    pub fn leave(&mut self) -> Vec<Left<'e>> {
        let ended = self.members.extract_if(.., |member| member.has_ended());
        ended.map(Member::into_left).collect()
    }

    /// All programs that are left end here, by a fault of the engine.
    pub fn abandon(&mut self) {
        for member in &mut self.members {
            let error = EngineError::Internal("no program can go on".into());
            member.job.failed.get_or_insert(error);
        }
    }

    /// Whether a program has work of its own to do before it can go on in a pass, and needs no other thread for that which is busy.
    pub fn has_own_work(&self) -> bool {
        self.members.iter().any(|member| {
            // A way back that has gone as far as it can waits for what is left or away, if anything is.
            let waits = member.job.has_deferred() || !member.away.is_empty();
            let goes_back = member.backs.iter().any(|back| back.is_late() || !waits);
            goes_back || (member.job.has_deferred() && !self.waits_for_helper(member))
        })
    }

    /// What there is, for whoever decides who may join.
    pub fn load(&self) -> Load {
        let mut load = Load {
            programs: self.members.len(),
            pass_tokens: self.budget.tokens,
            pass_ms: self.budget.milliseconds.unwrap_or(f64::INFINITY),
            ..Load::default()
        };
        for member in &self.members {
            load.held_bytes = load.held_bytes.saturating_add(member.job.held_bytes());
            let price = member.job.program.price;
            let priced = price.within(member.job.options.memory_bytes.unwrap_or(u64::MAX)).peak_bytes;
            load.reserved_bytes = load.reserved_bytes.saturating_add(priced);
            let Some(loaded) = self.ground.models.get(member.model) else { continue };
            let mut work = Work::default();
            for group in member.groups.iter().filter(|group| member.is_ready(group)) {
                load.tokens += group.tokens() as u64;
                work = work.with(group.ahead(loaded));
            }
            load.estimated_ms += self.clock.pass(Work { weights: 0, ..work });
        }
        load
    }

    /// Runs all that are there to their ends.
    pub fn run(&mut self) -> Vec<Left<'e>> {
        let mut left = Vec::new();
        loop {
            self.settle(0, &mut Waiting::fairly);
            left.extend(self.leave());
            if self.pass(&mut Waiting::fairly).is_none() {
                if self.is_empty() {
                    return left;
                }
                self.abandon();
            }
        }
    }

    /// Runs the next pass; none: nobody can go on in one.
    pub fn pass(&mut self, order: &mut dyn FnMut(&mut [Waiting])) -> Option<PassReport> {
        let plan = self.choose(order)?;
        let slice = self.slice();
        for member in &mut self.members {
            member.job.slice = slice;
            member.advanced = false;
        }
        let started = Instant::now();
        let failure = self.ride_guarded(&plan);
        if self.recording {
            self.note_getters();
        }
        let measured_ms = milliseconds(started.elapsed());
        // What programs compute of their own is theirs: it says nothing of what passes take.
        let own_ms: f64 = self.members.iter().map(|member| milliseconds(member.job.own())).sum();
        let shared_ms = (measured_ms - own_ms).max(0.0);
        if failure.is_none() && !self.ground.dry {
            self.clock.learn(plan.work, shared_ms);
        }
        for member in &mut self.members {
            let own = milliseconds(member.job.take_own());
            member.usage.measured_ms += own;
            member.usage.nodes_ms += own;
            if member.job.has_postponed() {
                member.usage.flops = member.usage.flops.saturating_add(self.clock.worth(own));
            }
        }
        Some(self.account(plan, failure, measured_ms, shared_ms))
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
