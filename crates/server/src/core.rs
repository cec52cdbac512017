//! What all parts of the service share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pellucid_client::api::{Job, JobState, Problem, QueuePlace};
use tokio::sync::Semaphore;

use crate::account::{Meters, Turns, Watchers};
use crate::config::Config;
use crate::events::{Hub, LocalHub};
use crate::files::{self, Files, ProgramFiles};
use crate::history::History;
use crate::metrics::Metrics;
use crate::models::Registry;
use crate::prefixes::Prefixes;
use crate::schedule::board::Board;
use crate::schedule::handover::{Handover, LocalHandover};
use crate::schedule::queue::{Bounds, Waiting};
use crate::store::{Account, Store, StoredJob};
use crate::time;
use crate::together::Together;
use crate::traces::JobSpans;

/// From one wiping of what was erased to the next, at least: whoever writes waits meanwhile.
const WIPING: Duration = Duration::from_millis(200);

/// What all parts of the service share.
pub struct Core {
    /// The configuration.
    pub config: Config,
    /// Accounts, jobs, usage.
    pub store: Arc<dyn Store>,
    /// Results and large programs.
    pub files: Files,
    /// Those of them that are programs of jobs which have not ended.
    pub program_files: ProgramFiles,
    /// What happens to jobs.
    pub hub: Arc<dyn Hub>,
    /// Who is told of jobs that wait or are to end.
    pub handover: Arc<dyn Handover>,
    /// What accounts use over time.
    pub meters: Meters,
    /// Models.
    pub registry: Arc<Registry>,
    /// Accounts' caches of prefixes.
    pub prefixes: Arc<Prefixes>,
    /// What is measured.
    pub metrics: Metrics,
    /// What was done lately.
    pub history: History,
    /// Whose large result is made ready to be written.
    pub writing: Semaphore,
    /// What is computed outside of the engines.
    pub turns: Turns,
    /// Requests that wait for what happens to jobs.
    pub watchers: Watchers,
    /// Connections, by address and account.
    pub seats: Watchers,
    /// What jobs go through, where it is traced.
    pub spans: JobSpans,
    /// When it was last looked whether the store can be written, and whether it could.
    pub readiness: tokio::sync::Mutex<Option<(Instant, bool)>>,
    wipes: Together,
    board: Arc<Mutex<Board>>,
    unsettled: Mutex<Vec<Unsettled>>,
    draining: AtomicBool,
    /// When it was started.
    pub started: Instant,
}

impl Core {
    /// With nothing waiting and nothing running.
    pub fn new(config: Config, store: Arc<dyn Store>, files: Files, registry: Registry) -> Core {
        let (registry, board) = (Arc::new(registry), Arc::<Mutex<Board>>::default());
        let prefixes = Arc::new(Prefixes::new(config.engine.prefix_bytes));
        let handover =
            LocalHandover { board: board.clone(), registry: registry.clone(), prefixes: prefixes.clone() };
        Core {
            config,
            store,
            files,
            program_files: ProgramFiles::default(),
            hub: Arc::new(LocalHub::default()),
            handover: Arc::new(handover),
            meters: Meters::default(),
            registry,
            prefixes,
            metrics: Metrics::default(),
            history: History::default(),
            writing: Semaphore::new(1),
            turns: Turns::default(),
            watchers: Watchers::default(),
            seats: Watchers::default(),
            spans: JobSpans::default(),
            readiness: tokio::sync::Mutex::default(),
            wipes: Together::new(WIPING),
            board,
            unsettled: Mutex::default(),
            draining: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// Who waits and who runs. Held for moments only.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is being shut down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// No new jobs from here on, and none begins.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// There may be something to do for every model.
    pub fn ring(&self) {
        self.registry.entries().iter().for_each(|entry| entry.bell.notify_one());
    }

    /// Wipes what was erased until now; many who erase share it.
    pub async fn wipe(&self) {
        if let Err(error) = self.wipes.once(self.store.wipe()).await {
            // It is tried again when what is over is deleted.
            tracing::error!(%error, "what was erased cannot be wiped yet");
        }
    }

    /// A job as its owner sees it.
    pub fn view(&self, job: StoredJob) -> Job {
        let queue = (job.state == JobState::Queued).then(|| self.board().place(&job.id)).flatten();
        self.shown(job, queue)
    }

    /// Jobs of an account as it sees them in a list: without what each saved, which may be much.
    pub fn views(&self, account: &str, jobs: Vec<StoredJob>) -> Vec<Job> {
        let queued = jobs.iter().any(|job| job.state == JobState::Queued);
        let mut places = if queued { self.board().places(account) } else { HashMap::new() };
        jobs.into_iter()
            .map(|job| {
                let place = places.remove(&job.id);
                Job { saved: Vec::new(), absent: Vec::new(), ..self.shown(job, place) }
            })
            .collect()
    }

    fn shown(&self, job: StoredJob, queue: Option<QueuePlace>) -> Job {
        let queue = queue.filter(|_| job.state == JobState::Queued);
        let progress = (job.state == JobState::Running)
            .then(|| self.hub.get(&job.id).and_then(|channel| channel.latest_progress()))
            .flatten();
        let ran = job.state.is_final() && job.attempts > 0;
        Job {
            id: job.id,
            model: job.model,
            state: job.state,
            priority: job.priority,
            label: job.label,
            created_at: time::text(job.submitted_ms),
            started_at: job.started_ms.map(time::text),
            finished_at: job.finished_ms.map(time::text),
            deadline_at: job.deadline_ms.map(time::text),
            attempts: job.attempts,
            price: job.price,
            queue,
            progress,
            saved: job.outcome.saved,
            absent: job.outcome.absent,
            result: job.result,
            milliseconds: ran.then_some(job.outcome.milliseconds),
            passes: ran.then_some(job.outcome.passes),
            tokens: ran.then_some(job.outcome.tokens),
            error: job.problem,
        }
    }

    /// Tells those who watch a job that it has ended, as the store has it now.
    pub async fn tell_end(&self, account: &str, job: &str) {
        match self.store.job(account, job).await {
            Ok(Some(stored)) if stored.state.is_final() => self.ended(stored, None),
            // It was put back for the next start, which needs its program.
            Ok(Some(_)) => {}
            Ok(None) => {
                self.spans.ended(job, "gone");
                self.needs_no_program(job);
                self.hub.forget(job);
            }
            Err(error) => {
                tracing::error!(%error, job, "its end cannot be told; it is tried again");
                self.metrics.store_failed();
                self.unsettled().push(Unsettled {
                    account: account.to_owned(),
                    job: job.to_owned(),
                    problem: None,
                });
            }
        }
    }

    /// Tells those who watch a job that it has ended so; to those who wait for it, with its result's bytes, where these are at hand.
    pub fn ended(&self, stored: StoredJob, result: Option<Bytes>) {
        let (state, took) =
            (stored.state.name(), stored.finished_ms.map(|at| at.saturating_sub(stored.submitted_ms)));
        let problem = stored.problem.as_ref().map(|problem| problem.kind.clone());
        self.spans.ended(&stored.id, state);
        self.needs_no_program(&stored.id);
        // Two may find that it has ended, its owner's request and the engine's report: it is counted once.
        if self.hub.end(self.view(stored), result) {
            self.metrics.ended(state, problem.as_ref().map(|kind| kind.name()));
            if let Some(milliseconds) = took {
                self.metrics.took(milliseconds as f64 / 1000.0);
            }
        }
    }

    /// A job will not run any more: its program, where that is a file, is deleted.
    pub fn needs_no_program(&self, job: &str) {
        if self.program_files.remove(job) {
            let (files, file) = (self.files.clone(), files::program(job));
            tokio::spawn(async move {
                if let Err(error) = files.delete(&file).await {
                    // What belongs to no job that will run is deleted at the next start.
                    tracing::error!(%error, "a file cannot be deleted");
                }
            });
        }
    }

    /// Fails a job that has not begun.
    pub async fn refuse(&self, account: &str, job: &str, problem: &Problem) {
        match self.store.refuse(job, problem, time::now_ms()).await {
            Ok(_) => self.tell_end(account, job).await,
            Err(error) => {
                tracing::error!(%error, job, "it cannot be failed; it is tried again");
                self.metrics.store_failed();
                let problem = Some(problem.clone());
                self.unsettled().push(Unsettled {
                    account: account.to_owned(),
                    job: job.to_owned(),
                    problem,
                });
            }
        }
    }

    /// Fails those that could not be failed when they were to be, and tells of ends that could not be told, in their order. Where the store
    /// still fails the others are left for the next time.
    pub async fn settle_again(&self) {
        let mut left = std::mem::take(&mut *self.unsettled()).into_iter();
        while let Some(Unsettled { account, job, problem }) = left.next() {
            match problem {
                Some(problem) => self.refuse(&account, &job, &problem).await,
                None => self.tell_end(&account, &job).await,
            }
            let mut unsettled = self.unsettled();
            if !unsettled.is_empty() {
                unsettled.extend(left);
                break;
            }
        }
    }

    /// Jobs whose end the store does not know yet, or nobody was told of. In no queue any more.
    pub fn unsettled(&self) -> MutexGuard<'_, Vec<Unsettled>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job that has ended, and is still to be made known.
pub struct Unsettled {
    /// Whose it is.
    pub account: String,
    /// Its id.
    pub job: String,
    /// Why it is to fail; none: the store knows how it ended.
    pub problem: Option<Problem>,
}

/// Bytes that a checked program takes in memory, about. `bytes`: its own; `nodes`: as many as it was written out to, which may be very
/// many of a few bytes.
pub fn in_memory(bytes: u64, nodes: u64) -> u64 {
    const OF_ALL: u64 = 65_536;
    const OF_BYTE: u64 = 16;
    const OF_NODE: u64 = 1_024;
    OF_ALL.saturating_add(OF_BYTE.saturating_mul(bytes)).saturating_add(OF_NODE.saturating_mul(nodes))
}

/// A job that is to wait, whose program takes so many bytes in memory: it is there as long as the job runs.
pub fn waiting(job: &StoredJob, account: &Account, program_bytes: u64) -> Waiting {
    Waiting {
        job: job.id.clone(),
        account: job.account.clone(),
        weight: account.weight,
        concurrent: account.limits.concurrent_jobs,
        priority: job.priority,
        cost: job.price.milliseconds,
        bytes: job.price.peak_bytes.saturating_add(program_bytes),
        bounds: Bounds { peak_bytes: account.limits.peak_bytes, result_bytes: account.limits.result_bytes },
        flops: job.price.flops,
        nodes: job.price.nodes,
        since_ms: job.submitted_ms,
        deadline_ms: job.deadline_ms,
        is_long: false,
    }
}
