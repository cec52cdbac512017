//! Who waits and who runs, of all models: the one place where that is known in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pellucid_client::api::{QueuePlace, QueueStatus};
use pellucid_engine::Ticket;
use pellucid_graph::check::CheckedProgram;

use super::queue::{FairQueue, Fit, Waiting};
use super::room::Begun;
use crate::config::EngineConfig;
use crate::models::{Haste, Held};

/// A job that has begun.
pub struct Running {
    /// What it was when it waited.
    pub waiting: Waiting,
    /// Which attempt.
    pub attempt: u32,
    /// Set to end it.
    pub cancel: Arc<AtomicBool>,
    /// Set where it is ended because the service is: it runs again later.
    pub put_back: Arc<AtomicBool>,
    /// It logs more than its result may have.
    pub overflows: Arc<AtomicBool>,
    /// It runs while nothing else does.
    pub alone: bool,
    /// Bytes of its result while that is being written.
    pub leaving: u64,
    /// Its model, which stays in memory until this has ended.
    pub held: Held,
}

impl Running {
    /// Its model's id.
    pub fn model(&self) -> &str {
        self.held.entry().id()
    }
}

/// A job that was chosen, and counts as begun from here on.
pub struct Chosen {
    /// The job.
    pub waiting: Waiting,
    /// Whether nothing else may run meanwhile.
    pub alone: bool,
    /// Its program, where it is in memory.
    pub program: Option<Arc<CheckedProgram>>,
}

/// Who waits and who runs.
#[derive(Default)]
pub struct Board {
    queues: HashMap<String, FairQueue>,
    /// Jobs that the process died on, with their models: each runs while nothing else does.
    suspects: VecDeque<(String, Waiting)>,
    suspect_runs: bool,
    /// When the one that runs was chosen.
    suspect_since: Option<Instant>,
    /// Until when what else waits has its turn, after one that ran alone: for as long as that took.
    respite: Option<Instant>,
    programs: HashMap<String, (Arc<CheckedProgram>, u64)>,
    program_bytes: u64,
    /// Jobs that were chosen and have no ticket yet, and whether their owner wants them to end.
    beginning: HashMap<String, bool>,
    running: HashMap<Ticket, Running>,
    tickets: HashMap<String, Ticket>,
    begun: HashMap<String, Begun>,
    next_ticket: u64,
    /// Places in the queue that are kept for jobs which are being written down, by account.
    kept: HashMap<String, usize>,
}

/// How many jobs wait, those that are being written down included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Of all accounts.
    pub all: usize,
    /// Of the one.
    pub own: usize,
}

impl Board {
    /// Adds a job to its model's queue; a suspect to those that run alone.
    pub fn push(&mut self, model: &str, waiting: Waiting, suspect: bool) {
        if suspect {
            self.suspects.push_back((model.to_owned(), waiting));
        } else {
            self.queues.entry(model.to_owned()).or_default().push(waiting);
        }
    }

    /// How many jobs wait, those that are being written down included.
    pub fn waiting(&self, account: &str) -> Queued {
        let kept: usize = self.kept.values().sum();
        Queued {
            all: self.queued() + kept,
            own: self.queued_of(account) + self.kept.get(account).copied().unwrap_or(0),
        }
    }

    /// Keeps a place in the queue for a job of an account, until [`Board::let_go`].
    pub fn keep_place(&mut self, account: &str) {
        *self.kept.entry(account.to_owned()).or_default() += 1;
    }

    /// Such a place is not kept any more: the job waits, or does not come.
    pub fn let_go(&mut self, account: &str) {
        if let Some(kept) = self.kept.get_mut(account) {
            *kept = kept.saturating_sub(1);
            if *kept == 0 {
                self.kept.remove(account);
            }
        }
    }

    /// Keeps a job's checked program in memory, as long as all take no more than `bound` bytes.
    pub fn keep_program(&mut self, job: &str, program: Arc<CheckedProgram>, bytes: u64, bound: u64) {
        if self.program_bytes.saturating_add(bytes) <= bound {
            self.program_bytes += bytes;
            self.programs.insert(job.to_owned(), (program, bytes));
        }
    }

    fn take_program(&mut self, job: &str) -> Option<Arc<CheckedProgram>> {
        let (program, bytes) = self.programs.remove(job)?;
        self.program_bytes -= bytes;
        Some(program)
    }

    /// Takes a job out that has not begun; gives its model.
    pub fn remove(&mut self, job: &str) -> Option<String> {
        self.take_program(job);
        if let Some(place) = self.suspects.iter().position(|(_, waiting)| waiting.job == job) {
            return self.suspects.remove(place).map(|(model, _)| model);
        }
        let (model, queue) = self.queues.iter_mut().find(|(_, queue)| queue.contains(job))?;
        queue.remove(job);
        Some(model.clone())
    }

    /// Whether a job runs on a model that takes more than a pass.
    pub fn runs_long(&self, model: &str) -> bool {
        self.begun.get(model).is_some_and(Begun::has_long)
    }

    /// Jobs of a model that go now: of every account what keeps the engine busy for about two passes, and a few that take longer;
    /// these not where `short_only`, nor while a suspect waits, for which the engines would have to be emptied of them again.
    pub fn choose(&mut self, model: &str, engine: &EngineConfig, short_only: bool) -> Vec<Chosen> {
        if self.suspect_runs {
            return Vec::new();
        }
        if let Some(of) = self.next_suspect() {
            // Nothing else begins until it is through, so that an innocent neighbour is not taken for the culprit.
            if of != model || self.begun.values().any(|begun| !begun.is_empty()) {
                return Vec::new();
            }
            let Some((_, waiting)) = self.suspects.pop_front() else { return Vec::new() };
            self.suspect_runs = true;
            self.suspect_since = Some(Instant::now());
            let program = self.take_program(&waiting.job);
            self.beginning.insert(waiting.job.clone(), false);
            self.begun(model).add(&waiting);
            return vec![Chosen { waiting, alone: true, program }];
        }
        let mut chosen = Vec::new();
        let elsewhere = self.elsewhere(model);
        let short_only = short_only || !self.suspects.is_empty();
        loop {
            let begun = self.begun.entry(model.to_owned()).or_default();
            let of = |waiting: &Waiting| elsewhere.get(&waiting.account).copied().unwrap_or(0);
            let is_long = |waiting: &Waiting| waiting.cost > engine.pass_ms();
            let mut short_only = short_only;
            let fit = |waiting: &Waiting| {
                let fit = begun.fits(waiting, of(waiting), engine);
                short_only |= fit == Fit::WaitsForLong;
                if fit == Fit::Goes && short_only && is_long(waiting) { Fit::AccountWaits } else { fit }
            };
            let picked = self.queues.get_mut(model).and_then(|queue| queue.pick(fit));
            let Some(mut waiting) = picked else { break };
            waiting.is_long = is_long(&waiting);
            self.begun(model).add(&waiting);
            let program = self.take_program(&waiting.job);
            self.beginning.insert(waiting.job.clone(), false);
            chosen.push(Chosen { waiting, alone: false, program });
        }
        chosen
    }

    /// How many jobs of each account other models have begun.
    fn elsewhere(&self, model: &str) -> HashMap<String, usize> {
        let mut jobs = HashMap::new();
        for (_, begun) in self.begun.iter().filter(|(of, _)| *of != model) {
            for (account, own) in begun.accounts() {
                *jobs.entry(account.to_owned()).or_default() += own;
            }
        }
        jobs
    }

    /// The model of the suspect that is next; none: there is none, or what else waits has its turn. Suspects run alone, and one of
    /// them may take minutes: so after each all others have as much time, or until none of them waits.
    fn next_suspect(&self) -> Option<&str> {
        let (model, _) = self.suspects.front()?;
        let respite = self.respite.is_some_and(|until| Instant::now() < until);
        (!respite || self.queues.values().all(FairQueue::is_empty)).then_some(model)
    }

    fn begun(&mut self, model: &str) -> &mut Begun {
        self.begun.entry(model.to_owned()).or_default()
    }

    /// A chosen job does not begin after all.
    pub fn unchoose(&mut self, model: &str, waiting: &Waiting, alone: bool) {
        self.beginning.remove(&waiting.job);
        self.begun(model).remove(waiting);
        self.suspect_runs &= !alone;
    }

    /// A chosen job begins: gives the number that it has in the engine.
    pub fn begin(&mut self, running: Running) -> Ticket {
        if self.beginning.remove(&running.waiting.job) == Some(true) {
            running.cancel.store(true, Ordering::Relaxed);
        }
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(running.waiting.job.clone(), ticket);
        self.running.insert(ticket, running);
        ticket
    }

    /// A job has left the engine: its room is free, unless it ran alone, but for so many bytes of its result until that is written.
    pub fn left(&mut self, ticket: Ticket, milliseconds: f64, bytes: u64) {
        let Some(running) = self.running.get_mut(&ticket) else { return };
        if running.alone {
            return;
        }
        running.leaving = bytes;
        let (model, waiting) = (running.model().to_owned(), running.waiting.clone());
        let begun = self.begun(&model);
        begun.leaves(&waiting.account, bytes);
        begun.remove(&waiting);
        if let Some(queue) = self.queues.get_mut(&model) {
            queue.charge(&waiting.account, waiting.weight, milliseconds - waiting.cost);
        }
    }

    /// An account pays for what was done for one of its jobs beside the engine, in milliseconds.
    pub fn charge(&mut self, model: &str, waiting: &Waiting, milliseconds: f64) {
        if let Some(queue) = self.queues.get_mut(model) {
            queue.charge(&waiting.account, waiting.weight, milliseconds);
        }
    }

    /// A job that has left is recorded: it does not run any more.
    pub fn end(&mut self, ticket: Ticket) -> Option<Running> {
        let running = self.running.remove(&ticket)?;
        self.tickets.remove(&running.waiting.job);
        if running.leaving > 0 {
            self.begun(running.model()).has_left(&running.waiting.account, running.leaving);
        }
        if running.alone {
            self.suspect_runs = false;
            let now = Instant::now();
            self.respite = self.suspect_since.take().and_then(|since| now.checked_add(now - since));
            self.begun(running.model()).remove(&running.waiting);
        }
        Some(running)
    }

    /// What is known of a running job, by its number.
    pub fn running(&self, ticket: Ticket) -> Option<&Running> {
        self.running.get(&ticket)
    }

    /// Tells a running job to end; one that is about to run, as soon as it does.
    pub fn cancel(&mut self, job: &str) {
        if let Some(cancelled) = self.beginning.get_mut(job) {
            *cancelled = true;
        }
        if let Some(running) = self.tickets.get(job).and_then(|ticket| self.running.get(ticket)) {
            running.cancel.store(true, Ordering::Relaxed);
        }
    }

    /// Tells all running jobs to end, to be run again later.
    pub fn put_back(&self) {
        for running in self.running.values() {
            running.put_back.store(true, Ordering::Relaxed);
            running.cancel.store(true, Ordering::Relaxed);
        }
    }

    /// Jobs of all models whose time is over, taken out.
    pub fn overdue(&mut self, now_ms: u64) -> Vec<Waiting> {
        let over: Vec<Waiting> = self.queues.values_mut().flat_map(|queue| queue.overdue(now_ms)).collect();
        for waiting in &over {
            if let Some((_, bytes)) = self.programs.remove(&waiting.job) {
                self.program_bytes -= bytes;
            }
        }
        over
    }

    /// Every job that waits for a model, taken out.
    pub fn drain(&mut self, model: &str) -> Vec<Waiting> {
        let queue = self.queues.get_mut(model);
        let mut all: Vec<Waiting> =
            queue.map_or_else(Vec::new, |queue| std::iter::from_fn(|| queue.pick(|_| Fit::Goes)).collect());
        let (own, others) = std::mem::take(&mut self.suspects).into_iter().partition(|(of, _)| of == model);
        self.suspects = others;
        let own: VecDeque<(String, Waiting)> = own;
        all.extend(own.into_iter().map(|(_, waiting)| waiting));
        all.iter().for_each(|waiting| drop(self.take_program(&waiting.job)));
        all
    }

    /// Whether it is a model's turn, and with how much haste: something waits for it, and nothing that must be through first waits
    /// for another. Only then is it loaded, so that a suspect's model has never to wait for one that is of no use yet.
    pub fn turn(&self, model: &str) -> Option<Haste> {
        if self.suspect_runs {
            return None;
        }
        match self.next_suspect() {
            Some(of) => (of == model).then_some(Haste::All),
            None => self.queues.get(model).is_some_and(|queue| !queue.is_empty()).then_some(Haste::None),
        }
    }

    /// A job's place.
    pub fn place(&self, job: &str) -> Option<QueuePlace> {
        if let Some(position) = self.suspects.iter().position(|(_, waiting)| waiting.job == job) {
            let before = self.suspects.iter().take(position);
            let ahead_milliseconds = before.fold(0.0, |sum, (_, waiting)| sum + waiting.cost);
            return Some(QueuePlace { position: position as u64, ahead_milliseconds });
        }
        self.queues.values().find_map(|queue| queue.place(job))
    }

    /// The places of an account's jobs.
    pub fn places(&self, account: &str) -> HashMap<String, QueuePlace> {
        let queued = self.queues.values().flat_map(|queue| queue.places(account));
        let mut places: HashMap<String, QueuePlace> =
            queued.map(|(job, place)| (job.to_owned(), place)).collect();
        let own = self.suspects.iter().filter(|(_, waiting)| waiting.account == account);
        places.extend(own.filter_map(|(_, waiting)| Some((waiting.job.clone(), self.place(&waiting.job)?))));
        places
    }

    /// Jobs that wait, of all models.
    pub fn queued(&self) -> usize {
        self.queues.values().map(FairQueue::len).sum::<usize>() + self.suspects.len()
    }

    /// Jobs of an account that wait.
    pub fn queued_of(&self, account: &str) -> usize {
        let suspects = self.suspects.iter().filter(|(_, waiting)| waiting.account == account);
        self.queues.values().map(|queue| queue.of_account(account)).sum::<usize>() + suspects.count()
    }

    /// Jobs that run.
    pub fn running_count(&self) -> usize {
        self.running.len()
    }

    /// Jobs of an account that run.
    pub fn running_of(&self, account: &str) -> usize {
        self.running.values().filter(|running| running.waiting.account == account).count()
    }

    /// What waits, in short.
    pub fn status(&self) -> QueueStatus {
        let mut accounts: Vec<&String> = self.queues.values().flat_map(FairQueue::accounts).collect();
        accounts.extend(self.suspects.iter().map(|(_, waiting)| &waiting.account));
        accounts.sort_unstable();
        accounts.dedup();
        QueueStatus {
            jobs: self.queued() as u64,
            milliseconds: self.queues.values().fold(0.0, |sum, queue| sum + queue.cost()),
            accounts: accounts.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests;
