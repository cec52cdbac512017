//! Programs' own operations that take long, and small ones that are too many: they run between passes, as many as are worth
//! about half a pass; one that takes longer than a pass may runs beside them, on a thread of its own. No more of these are under way
//! than there are threads: when one comes back, whose turn it is decides which goes next, however many another program has.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use pellucid_kernels::{Isa, pool};

use super::guard::said;
use super::member::{Ground, Member};
use super::{Interleaver, LEAST_SLICE_MS, milliseconds};
use crate::job::{Errand, Made, Task};
use crate::loaded::Loaded;
use crate::plan::Clock;
use crate::serve::Waiting;
use crate::slots::BufferPool;

/// Threads beside the one that runs passes.
pub(crate) struct Helpers<'e> {
    tasks: Sender<Sent<'e>>,
    done: Receiver<Done>,
    /// How many there are.
    threads: usize,
    /// Nodes that were sent and have not come back, those included whose program has left.
    under_way: usize,
}

/// A node that runs on another thread.
struct Sent<'e> {
    /// The program's number.
    serial: u64,
    task: Task<'e>,
    /// Set when nobody waits for it any more.
    stop: Arc<AtomicBool>,
    /// Set when it begins.
    begun: Arc<OnceLock<Instant>>,
}

/// A node that has run on another thread.
struct Done {
    /// The program's number.
    serial: u64,
    errand: Errand,
    /// What it gave; or what it said when it panicked.
    made: Result<Made, String>,
    milliseconds: f64,
}

impl<'e> Helpers<'e> {
    /// So many threads, or as many as the system gives, which end when this is dropped. Their kernels run on one thread each, by
    /// this thread's instruction-set path: what they give is the same to the bit.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, 'e>,
        models: &'e [Loaded],
        threads: usize,
    ) -> Helpers<'e>
    where
        'e: 'scope,
    {
        let (tasks, queue) = channel::<Sent<'e>>();
        let (report, done) = channel();
        let (queue, isa) = (Arc::new(Mutex::new(queue)), Isa::current());
        let start = |_| {
            let (queue, report) = (queue.clone(), report.clone());
            let work = move || {
                let mut buffers = BufferPool::default();
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Sent { serial, task, stop, begun }) = next else { return };
                    let started = *begun.get_or_init(Instant::now);
                    let errand = task.errand;
                    let run =
                        || isa.scope(|| pool::with_threads(1, || task.run(models, &mut buffers, &stop)));
                    let made = catch_unwind(AssertUnwindSafe(run)).map_err(|payload| said(payload.as_ref()));
                    let ms = milliseconds(started.elapsed());
                    if report.send(Done { serial, errand, made, milliseconds: ms }).is_err() {
                        return;
                    }
                }
            };
            Builder::new().spawn_scoped(scope, work).ok()
        };
        let threads = (0..threads).map_while(start).count();
        Helpers { tasks, done, threads, under_way: 0 }
    }

    /// Whether there are any, and all have something to do.
    fn are_busy(&self) -> bool {
        self.threads > 0 && self.under_way >= self.threads
    }

    /// What one of them has done, if one has: waits for it no longer than that.
    fn next_done(&mut self, most: Duration) -> Option<Done> {
        let done = self.done.recv_timeout(most).ok()?;
        self.under_way = self.under_way.saturating_sub(1);
        Some(done)
    }
}

impl Interleaver<'_> {
    /// Runs what programs have left for between passes, all but the first so many, by whose turn it is, until about half a
    /// pass's time is over; and takes what other threads have done, where all are asked whose turn it is then.
    pub(super) fn run_deferred(&mut self, from: usize, order: &mut dyn FnMut(&mut [Waiting])) {
        while from == 0
            && let Some(done) = self.helpers.as_mut().and_then(|helpers| helpers.next_done(Duration::ZERO))
        {
            self.take_back(done);
        }
        let most = self.budget.milliseconds.unwrap_or(f64::INFINITY);
        let mut left = most / 2.0;
        loop {
            let places = from..self.members.len();
            let can_go_on = |place: &usize| {
                let member = &self.members[*place];
                let has_left = member.job.failed.is_none() && member.job.has_deferred();
                has_left && !self.waits_for_helper(member)
            };
            let waiting: Vec<usize> = places.filter(can_go_on).collect();
            let Some(&place) = self.in_turn(waiting.into_iter(), order).first() else { return };
            left -= self.run_one_deferred(place, most);
            if left <= 0.0 {
                return;
            }
        }
    }

    /// Whether what a program has left for between passes begins with a node for another thread, and all those have something to do.
    pub(super) fn waits_for_helper(&self, member: &Member<'_>) -> bool {
        let most = self.budget.milliseconds.unwrap_or(f64::INFINITY);
        self.helpers.as_ref().is_some_and(Helpers::are_busy)
            && !member.job.has_postponed()
            && member.job.first_deferred().is_some_and(|errand| {
                self.clock.own(errand.flops, member.job.applies(errand.instance.1)) > most
            })
    }

    /// Runs one operation of a program, or sends it to another thread; gives back the milliseconds that it took here.
    fn run_one_deferred(&mut self, place: usize, most: f64) -> f64 {
        let Self { members, pool, ground, clock, helpers, .. } = self;
        let (member, ground) = (&mut members[place], *ground);
        member.job.check_budget();
        if member.job.has_postponed() {
            return Self::run_some_small(member, ground, pool, clock, most);
        }
        let Some(mut task) = member.job.next_deferred() else { return 0.0 };
        let errand = task.errand;
        let (flops, applies) = (errand.flops, member.job.applies(errand.instance.1));
        let estimated = clock.own(flops, applies);
        member.usage.flops = member.usage.flops.saturating_add(flops);
        member.usage.estimated_ms += estimated;
        if let Some(helpers) = helpers.as_mut().filter(|helpers| estimated > most && helpers.threads > 0) {
            let begun = Arc::<OnceLock<Instant>>::default();
            let stop = member.presence.gone();
            let sent = Sent { serial: member.serial, task, stop, begun: begun.clone() };
            match helpers.tasks.send(sent) {
                Ok(()) => {
                    member.away.push((errand, begun));
                    helpers.under_way += 1;
                    return 0.0;
                }
                // Nobody is there to take it.
                Err(unsent) => task = unsent.0.task,
            }
        }
        let started = Instant::now();
        member.job.at_node = Some(errand.instance.1);
        let made = member.guarded(|member| {
            let made = task.run(ground.models, pool, &member.job.stop);
            member.job.check_budget();
            made
        });
        let took = milliseconds(started.elapsed());
        member.usage.measured_ms += took;
        let Some(made) = made else { return took };
        // What was stopped tells nothing, nor does a way back: it is estimated roughly, by what the way there is priced at.
        if !applies && errand.back.is_none() && member.job.failed.is_none() {
            clock.learn_own(flops, took);
        }
        took + Self::deliver_own(member, (errand, made), (ground, pool, clock), most)
    }

    /// Delivers what an operation of its own gave a program. The small nodes that can run then have a slice, as those that were left;
    /// it is their program's time. Gives back the milliseconds that it took.
    fn deliver_own(
        member: &mut Member<'_>,
        (errand, made): (Errand, Made),
        (ground, pool, clock): (Ground<'_>, &mut BufferPool, &Clock),
        most: f64,
    ) -> f64 {
        Self::in_a_slice(member, clock, most, |member| member.deliver_made(errand, made, ground, pool))
    }

    /// What a program does of its own between passes, of which small nodes run for a slice: measured, and counted as its own.
    fn in_a_slice(
        member: &mut Member<'_>,
        clock: &Clock,
        most: f64,
        work: impl FnOnce(&mut Member<'_>),
    ) -> f64 {
        let started = Instant::now();
        member.job.slice = Duration::try_from_secs_f64((most / 8.0).max(LEAST_SLICE_MS) / 1000.0).ok();
        member.guarded(work);
        member.usage.nodes_ms += milliseconds(member.job.take_own());
        let took = milliseconds(started.elapsed());
        member.usage.measured_ms += took;
        member.usage.flops = member.usage.flops.saturating_add(clock.worth(took));
        took
    }

    /// Runs small nodes of a program that were left, for a slice; gives back the milliseconds that it took.
    fn run_some_small(
        member: &mut Member<'_>,
        ground: Ground<'_>,
        pool: &mut BufferPool,
        clock: &Clock,
        most: f64,
    ) -> f64 {
        Self::in_a_slice(member, clock, most, |member| member.job.go_on(ground.models, pool))
    }

    /// Waits for other threads, not longer than that. Whether there was one to wait for, be it that what it does is nobody's any
    /// more: others may wait for the thread.
    pub fn wait_for_helpers(&mut self, most: Duration) -> bool {
        let Some(helpers) = self.helpers.as_mut().filter(|helpers| helpers.under_way > 0) else {
            return false;
        };
        if let Some(done) = helpers.next_done(most) {
            self.take_back(done);
        }
        true
    }

    /// Delivers what another thread has done, if its program is still there.
    fn take_back(&mut self, done: Done) {
        let Self { members, pool, ground, clock, budget, .. } = self;
        let most = budget.milliseconds.unwrap_or(f64::INFINITY);
        let Some(member) = members.iter_mut().find(|member| member.serial == done.serial) else { return };
        let ground = *ground;
        member.away.retain(|(errand, _)| *errand != done.errand);
        member.usage.measured_ms += done.milliseconds;
        member.job.at_node = Some(done.errand.instance.1);
        match done.made {
            Ok(made) => {
                Self::deliver_own(member, (done.errand, made), (ground, pool, clock), most);
            }
            Err(message) => member.fail_by_panic(&message),
        }
    }
}
