//! A model's engine thread, and what stands between it and everything that waits: an inbox with a bell, and who has left.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pellucid_engine::{
    Admission, Admitted, Engine, Failure, Host, Load, PassReport, Results, ServeOptions, Ticket, Usage,
    Waiting,
};
use tokio::sync::mpsc;

use super::clocks::{Clocks, Owner};

/// What comes from engine threads.
pub enum Report {
    /// A program has left.
    Left {
        /// Which.
        ticket: Ticket,
        /// With what.
        outcome: Box<Result<Results, Box<Failure>>>,
        /// What it took.
        usage: Usage,
    },
    /// A pass has ended.
    Passed {
        /// The model.
        model: String,
        /// What it was.
        report: PassReport,
    },
    /// The thread itself has ended, though nobody closed it: the engine panicked where it must not.
    Ended {
        /// The model.
        model: String,
        /// Who was in.
        tickets: Vec<Ticket>,
    },
}

#[derive(Default)]
struct Inbox {
    programs: VecDeque<Admitted>,
    closed: bool,
}

/// A model's engine thread.
pub struct House {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    bell: Condvar,
    /// Whose the programs are.
    clocks: Mutex<Clocks>,
    /// Bytes that programs' values held at the last pass boundary, and what the programs were priced at.
    held: AtomicU64,
    reserved: AtomicU64,
    /// When it last came to a pass boundary; none: it has nothing to do.
    pulse: Mutex<Option<Instant>>,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pulse(&self) -> MutexGuard<'_, Option<Instant>> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl House {
    /// Starts the thread of a model.
    ///
    /// # Errors
    /// Where the system gives no more threads.
    pub fn start(
        model: &str,
        engine: Engine,
        options: ServeOptions,
        reports: mpsc::UnboundedSender<Report>,
    ) -> std::io::Result<House> {
        let shared = Arc::<Shared>::default();
        let mut tenant = Tenant { shared: shared.clone(), reports, model: model.to_owned() };
        let thread = std::thread::Builder::new().name(format!("engine {model}")).spawn(move || {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                engine.serve(&mut tenant, &options);
            }));
            if ended.is_err() {
                let tickets = tenant.shared.clocks().all();
                let _ = tenant.reports.send(Report::Ended { model: tenant.model.clone(), tickets });
            }
        })?;
        Ok(House { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Hands programs over: they join at the next pass boundary.
    pub fn admit(&self, programs: impl IntoIterator<Item = (Admitted, Owner)>) {
        {
            let (mut inbox, mut clocks) = (self.shared.inbox(), self.shared.clocks());
            for (admitted, owner) in programs {
                clocks.come(admitted.ticket, owner);
                inbox.programs.push_back(admitted);
            }
        }
        self.shared.bell.notify_one();
    }

    /// Whether it has had something to do for so long without coming to the end of a pass.
    pub fn is_stuck(&self, patience: Duration) -> bool {
        self.shared.pulse().is_some_and(|at| at.elapsed() > patience)
    }

    /// Bytes that the values of the programs which are in hold, and that these were priced at at most, with their caches.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.held.load(Ordering::Relaxed), self.shared.reserved.load(Ordering::Relaxed))
    }

    /// Ends the thread, once everything that is in has ended.
    pub fn close(&self) {
        self.shared.inbox().closed = true;
        self.shared.bell.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread was reported by itself.
            let _ = thread.join();
        }
    }
}

struct Tenant {
    shared: Arc<Shared>,
    reports: mpsc::UnboundedSender<Report>,
    model: String,
}

impl Host for Tenant {
    fn admit(&mut self, load: &Load) -> Admission {
        self.shared.held.store(load.held_bytes, Ordering::Relaxed);
        self.shared.reserved.store(load.reserved_bytes, Ordering::Relaxed);
        *self.shared.pulse() = (!load.is_idle()).then(Instant::now);
        let mut inbox = self.shared.inbox();
        while load.is_idle() && inbox.programs.is_empty() && !inbox.closed {
            inbox = self.shared.bell.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        if inbox.programs.is_empty() && inbox.closed {
            return Admission::Close;
        }
        if !inbox.programs.is_empty() {
            *self.shared.pulse() = Some(Instant::now());
        }
        Admission::Programs(inbox.programs.drain(..).collect())
    }

    fn order(&mut self, waiting: &mut [Waiting]) {
        self.shared.clocks().order(waiting);
    }

    fn finished(&mut self, ticket: Ticket, outcome: Result<Results, Box<Failure>>, usage: Usage) {
        self.shared.clocks().leave(ticket, usage.flops);
        // Who listens has gone only when the process ends.
        let _ = self.reports.send(Report::Left { ticket, outcome: Box::new(outcome), usage });
    }

    fn passed(&mut self, report: &PassReport) {
        let _ = self.reports.send(Report::Passed { model: self.model.clone(), report: report.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_comes_to_no_boundary_is_stuck_and_one_without_work_is_not() {
        let shared = Arc::<Shared>::default();
        let house = House { shared: shared.clone(), thread: Mutex::default() };
        let reports = mpsc::unbounded_channel().0;
        let mut tenant = Tenant { shared, reports, model: "m".into() };
        assert!(!house.is_stuck(Duration::ZERO));
        let load = Load { programs: 1, held_bytes: 3, reserved_bytes: 5, ..Load::default() };
        assert!(matches!(tenant.admit(&load), Admission::Programs(programs) if programs.is_empty()));
        std::thread::sleep(Duration::from_millis(5));
        assert!(house.is_stuck(Duration::from_millis(1)) && !house.is_stuck(Duration::from_secs(600)));
        assert_eq!(house.bytes(), (3, 5));
        house.close();
        assert!(matches!(tenant.admit(&Load::default()), Admission::Close));
        assert!(!house.is_stuck(Duration::ZERO));
        assert_eq!(house.bytes(), (0, 0));
    }
}
