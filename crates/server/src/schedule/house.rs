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
    /// The thread itself has ended, though nobody closed it: the engine panicked where it must not. Once for those who were in then,
    /// and again for those who come before it is known.
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
    /// The thread has ended by a panic: nobody takes anything out any more.
    dead: bool,
}

/// A model's engine thread.
pub struct House {
    model: String,
    shared: Arc<Shared>,
    reports: mpsc::UnboundedSender<Report>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Plans as the thread's own engine does, by what that has learnt; until it is closed.
    planner: Mutex<Option<Arc<Engine>>>,
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
        let planner = Arc::new(engine.share());
        let house = House::spawn(model, reports, move |tenant| engine.serve(tenant, &options))?;
        *house.planner.lock().unwrap_or_else(PoisonError::into_inner) = Some(planner);
        Ok(house)
    }

    /// An engine that plans what this one would run; none: it is closed.
    pub fn planner(&self) -> Option<Arc<Engine>> {
        self.planner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts a thread that does this for a model.
    pub(crate) fn spawn(
        model: &str,
        reports: mpsc::UnboundedSender<Report>,
        work: impl FnOnce(&mut dyn Host) + Send + 'static,
    ) -> std::io::Result<House> {
        let (shared, model) = (Arc::<Shared>::default(), model.to_owned());
        let mut tenant = Tenant { shared: shared.clone(), reports: reports.clone(), model: model.clone() };
        let thread = std::thread::Builder::new().name(format!("engine {model}")).spawn(move || {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut tenant)));
            if ended.is_err() {
                // Who comes from here on sees that it is dead; who came before is among them.
                let mut inbox = tenant.shared.inbox();
                inbox.dead = true;
                inbox.programs.clear();
                let tickets = tenant.shared.clocks().all();
                *tenant.shared.pulse() = None;
                let _ = tenant.reports.send(Report::Ended { model: tenant.model.clone(), tickets });
            }
        })?;
        Ok(House { model, shared, reports, thread: Mutex::new(Some(thread)), planner: Mutex::default() })
    }

    /// Hands programs over: they join at the next pass boundary. Where the thread has ended by a panic that is reported of them too.
    pub fn admit(&self, programs: impl IntoIterator<Item = (Admitted, Owner)>) {
        {
            let mut inbox = self.shared.inbox();
            if inbox.dead {
                let tickets = programs.into_iter().map(|(admitted, _)| admitted.ticket).collect();
                let _ = self.reports.send(Report::Ended { model: self.model.clone(), tickets });
                return;
            }
            let mut clocks = self.shared.clocks();
            for (admitted, owner) in programs {
                clocks.come(admitted.ticket, owner);
                inbox.programs.push_back(admitted);
            }
        }
        self.shared.bell.notify_one();
    }

    /// Whether its thread has ended by a panic.
    pub fn is_dead(&self) -> bool {
        self.shared.inbox().dead
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
        // It keeps the model's weights in memory.
        *self.planner.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
        let reports = mpsc::unbounded_channel().0;
        let house = House {
            model: "m".into(),
            shared: shared.clone(),
            reports: reports.clone(),
            thread: Mutex::default(),
            planner: Mutex::default(),
        };
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

    /// A program of no job, with its number.
    fn program(number: u64) -> (Admitted, Owner) {
        let model = pellucid_models::Model::outline(
            pellucid::bundled_folder().unwrap().to_str().unwrap(),
            &pellucid_models::ModelOptions::default(),
        );
        let program = pellucid_graph::Program::from_bytes(br#"{"pellucid":1,"body":[]}"#).unwrap();
        let program = Arc::new(Engine::new(Arc::new(model.unwrap())).check(program).unwrap());
        let admitted = Admitted::new(Ticket(number), program, pellucid_engine::RunOptions::default());
        (admitted, Owner { account: "a".into(), weight: 1.0 })
    }

    fn ended(reports: &mut mpsc::UnboundedReceiver<Report>) -> Vec<Ticket> {
        match reports.blocking_recv() {
            Some(Report::Ended { model, tickets }) if model == "m" => tickets,
            _ => Vec::new(),
        }
    }

    #[test]
    fn whoever_is_in_a_thread_that_panics_is_told_and_whoever_comes_after_it_too() {
        let (reports, mut reported) = mpsc::unbounded_channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let house = House::spawn("m", reports, move |_| {
            let _ = wait.recv();
            std::panic::resume_unwind(Box::new("the engine ends at its start"));
        });
        let house = house.unwrap();
        house.admit([program(1), program(2)]);
        assert!(!house.is_dead());
        go.send(()).unwrap();
        let mut tickets = ended(&mut reported);
        tickets.sort_unstable();
        assert_eq!(tickets, [Ticket(1), Ticket(2)]);
        assert!(house.is_dead() && !house.is_stuck(Duration::ZERO));
        house.admit([program(3)]);
        // Where it is missed nothing comes any more.
        let told = reported.try_recv();
        assert!(
            matches!(&told, Ok(Report::Ended { tickets, .. }) if *tickets == [Ticket(3)]),
            "who came after is not told"
        );
        house.close();
    }
}
