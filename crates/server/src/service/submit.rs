//! Taking a job: once it is acknowledged, it is not lost.

use std::sync::Arc;

use bytes::Bytes;
use pellucid_client::api::{Job, Problem, ProblemKind, Submission};
use sha2::{Digest, Sha256};
use tracing::{Instrument, info_span};

use super::{Caller, Result, Service};
use crate::account::exceeded;
use crate::core::{self, Core};
use crate::events::Channel;
use crate::schedule::board::Queued;
use crate::schedule::handover::{KeptProgram, Work};
use crate::store::{Accepted, JobState, NewJob, StoredJob};
use crate::{files, keys, time};

/// Bytes of a program that is kept with its job; a larger one is a file.
const INLINE: usize = 256 << 10;
/// Characters of a label.
const LABEL: usize = 200;
/// The longest deadline, in seconds.
const LONGEST: f64 = 366.0 * 86_400.0;

/// How a job is to be run.
#[derive(Clone, Debug, Default)]
pub struct SubmitOptions {
    /// What stands in the query.
    pub query: Submission,
    /// Its owner's key against doing it twice.
    pub idempotency_key: Option<String>,
}

/// A job that was taken.
pub struct Submitted {
    /// The job.
    pub job: Job,
    /// It was taken before, under the same idempotency key.
    pub replayed: bool,
    /// Where what happens to it is told.
    pub channel: Option<Arc<dyn Channel>>,
}

impl Service {
    /// Takes a job: checks it, prices it, keeps it, queues it.
    ///
    /// # Errors
    /// What is wrong with the program, the limit that is exceeded, or why no job is taken now.
    pub async fn submit(&self, caller: &Caller, options: SubmitOptions, body: Bytes) -> Result<Submitted> {
        let core = &self.core;
        valid(&options)?;
        let name = caller.account.name.clone();
        // Most keys are new: the program is checked while it is looked up whether this one is.
        let check = async {
            self.has_room(caller, false)?;
            // What a large body is known by takes its time too.
            let (query, of) = (options.query.clone(), body.clone());
            let known = move |admitted| Ok((fingerprint(&query, &of), admitted));
            self.check(caller, options.query.model.as_deref(), body.clone(), known).await
        };
        let (before, admitted) = tokio::join!(self.before(&name, options.idempotency_key.as_deref()), check);
        if let Some((job, kept)) = before? {
            // Also where it would be refused now.
            let own = match admitted {
                Ok((own, _)) => own,
                Err(_) => {
                    let query = options.query.clone();
                    let own = tokio::task::spawn_blocking(move || fingerprint(&query, &body)).await;
                    own.map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))?
                }
            };
            return if kept == own { Ok(self.again(job)) } else { Err(conflict()) };
        }
        let (fingerprint, admitted) = admitted?;
        // Others may have come while it was checked.
        let place = self.has_room(caller, true)?;
        core.meters.job(&name, &caller.account.limits, admitted.price.milliseconds, time::now_ms())?;
        let taken = self.keep(caller, &options, fingerprint, &admitted, body, place).await;
        if !matches!(taken, Ok(Submitted { replayed: false, .. })) {
            core.meters.forget(&name, admitted.price.milliseconds);
        }
        taken
    }

    /// The job that was taken under an idempotency key, with its fingerprint.
    async fn before(&self, account: &str, key: Option<&str>) -> Result<Option<(StoredJob, Vec<u8>)>> {
        match key {
            Some(key) => Ok(self.core.store.job_by_idempotency_key(account, key).await?),
            None => Ok(None),
        }
    }

    async fn keep(
        &self,
        caller: &Caller,
        options: &SubmitOptions,
        fingerprint: Vec<u8>,
        admitted: &super::admit::Admitted,
        body: Bytes,
        place: Option<Place>,
    ) -> Result<Submitted> {
        let core = &self.core;
        let id = keys::job_id().map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))?;
        let entry = &admitted.entry;
        let (size, now) = (body.len(), time::now_ms());
        if size > INLINE {
            // From here on it counts, so that of many who come at once each sees the others.
            core.program_files.add(&id, &caller.account.name, size as u64);
            // Its file need not be written to learn that it cannot be kept: a smaller one learns it with the rest.
            if let Err(full) = self.can_be_stored(caller, admitted.price.result_bytes).await {
                core.needs_no_program(&id);
                return Err(full);
            }
        }
        let waiting = core.program_files.bytes(&caller.account.name);
        let job = NewJob {
            id: id.clone(),
            account: caller.account.name.clone(),
            model: entry.id().to_owned(),
            label: options.query.label.clone(),
            priority: options.query.priority.unwrap_or_default(),
            submitted_ms: now,
            deadline_ms: options.query.deadline_s.map(|seconds| now + (seconds * 1000.0) as u64),
            idempotency_key: options.idempotency_key.clone(),
            fingerprint,
            price: admitted.price,
            stored_bytes: caller.account.limits.stored_bytes.map(|most| most.saturating_sub(waiting)),
            program: (size <= INLINE).then(|| body.to_vec()),
        };
        if size > INLINE {
            core.files.put(&files::program(&id), body).await.map_err(|error| {
                tracing::error!(%error, "a program cannot be written");
                core.needs_no_program(&id);
                Problem::new(ProblemKind::StoreUnavailable, "The program cannot be written down now.")
            })?;
        }
        let stored = fresh(&job);
        let channel = core.hub.open(&id, 0, core.config.admission.event_bytes);
        match core.store.accept(job).instrument(info_span!("keep")).await {
            Ok(Accepted::New) => {}
            other => {
                core.hub.forget(&id);
                core.needs_no_program(&id);
                return match other? {
                    Accepted::Before(job) => Ok(self.again(*job)),
                    Accepted::Full(used) => {
                        let allowed = caller.account.limits.stored_bytes.unwrap_or(0);
                        Err(full(allowed, used.saturating_add(waiting)))
                    }
                    _ => Err(conflict()),
                };
            }
        }
        core.spans.waits(&id, entry.id());
        // Constants are held as they came, and priced with what it holds.
        let constants = admitted.program.program.constants.values();
        let constants: u64 = constants.map(|constant| constant.bytes.len() as u64).sum();
        let nodes = admitted.program.nodes.len() as u64;
        let written = core::in_memory((size as u64).saturating_sub(constants), nodes);
        let program = KeptProgram {
            program: admitted.program.clone(),
            bytes: written.saturating_add(constants),
            bound: core.config.admission.waiting_bytes,
        };
        core.handover.wait(Work {
            model: entry.id().to_owned(),
            waiting: core::waiting(&stored, &caller.account, written),
            suspect: false,
            program: Some(program),
            has_place: place.is_some_and(Place::pass_on),
        });
        tracing::info!(
            job = id,
            account = caller.account.name,
            model = entry.id(),
            milliseconds = admitted.price.milliseconds,
            "is taken"
        );
        Ok(Submitted { job: core.view(stored), replayed: false, channel: Some(channel) })
    }

    fn again(&self, job: StoredJob) -> Submitted {
        let channel = self.core.hub.get(&job.id);
        Submitted { job: self.core.view(job), replayed: true, channel }
    }

    /// Whether one more job can be taken at all; if it is to be, a place in the queue is kept for it, as long as what comes back
    /// lives.
    fn has_room(&self, caller: &Caller, keep: bool) -> Result<Option<Place>> {
        let (core, limits) = (&self.core, &caller.account.limits);
        if core.is_draining() {
            let mut problem =
                Problem::new(ProblemKind::Draining, "The service is being shut down, and takes no new jobs.");
            problem.retry_after_s = Some(10.0);
            return Err(Box::new(problem));
        }
        let mut board = core.board();
        let Queued { all: queued, own } = board.waiting(&caller.account.name);
        let most = core.config.admission.queued_jobs;
        if queued >= most {
            let mut problem = exceeded(
                ProblemKind::QueueFull,
                "admission.queued_jobs",
                most as f64,
                queued as f64 + 1.0,
                "jobs",
            );
            problem.detail = Some("The queue of the whole service is full.".into());
            problem.retry_after_s = Some(5.0);
            return Err(Box::new(problem));
        }
        if let Some(allowed) = limits.queued_jobs
            && own as u64 >= allowed
        {
            let mut problem = exceeded(
                ProblemKind::TooManyRequests,
                "queued_jobs",
                allowed as f64,
                own as f64 + 1.0,
                "jobs",
            );
            problem.retry_after_s = Some(1.0);
            return Err(Box::new(problem));
        }
        Ok(keep.then(|| {
            board.keep_place(&caller.account.name);
            Place { core: core.clone(), account: caller.account.name.clone(), passed_on: false }
        }))
    }

    /// Whether a result can be kept beside those that are and the files of programs that wait, its own among them; whether beside
    /// those too that are still to come is known when it is written down.
    async fn can_be_stored(&self, caller: &Caller, bytes: u64) -> Result<()> {
        let Some(allowed) = caller.account.limits.stored_bytes else { return Ok(()) };
        let account = &caller.account.name;
        let waiting = self.core.program_files.bytes(account);
        let stored =
            self.core.store.stored_bytes(account).await?.saturating_add(waiting).saturating_add(bytes);
        if stored <= allowed {
            return Ok(());
        }
        Err(full(allowed, stored))
    }

    /// What an account used today before the service started counts.
    pub(super) async fn know_day(&self, account: &str) -> Result<()> {
        let now = time::now_ms();
        if !self.core.meters.knows_day(account, now) {
            // As the meter would have it: what jobs were priced at.
            let used = self.core.store.metered(account, &time::day(now), time::day_begins(now)).await?;
            self.core.meters.tell_day(account, now, used);
        }
        Ok(())
    }
}

/// A place in the queue that is kept for a job, until this is dropped.
struct Place {
    core: Arc<Core>,
    account: String,
    passed_on: bool,
}

impl Place {
    /// Whoever puts the job into the queue lets go of it in the same moment: it is counted neither twice nor not at all.
    fn pass_on(mut self) -> bool {
        self.passed_on = true;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.passed_on {
            self.core.board().let_go(&self.account);
        }
    }
}

fn full(allowed: u64, used: u64) -> Box<Problem> {
    let mut problem = exceeded(ProblemKind::TooLarge, "stored_bytes", allowed as f64, used as f64, "bytes");
    problem.detail = Some(
        "The account's results, with what its jobs that have not ended may come to, would take more.".into(),
    );
    problem.hint = Some(
        "erase jobs whose results are not needed, DELETE /v1/jobs/{id}?erase=true, or wait for those that have not ended"
            .into(),
    );
    Box::new(problem)
}

fn valid(options: &SubmitOptions) -> Result<()> {
    let wrong = |message: &str| Err(Box::new(Problem::new(ProblemKind::BadRequest, message)));
    if let Some(key) = &options.idempotency_key
        && (key.is_empty() || key.len() > 255 || !key.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return wrong("The header `Idempotency-Key` is 1 to 255 visible ASCII characters.");
    }
    if let Some(label) = &options.query.label
        && (label.chars().count() > LABEL || label.chars().any(char::is_control))
    {
        return wrong("`label` is at most 200 characters, none of them a control character.");
    }
    if options.query.deadline_s.is_some_and(|seconds| !(seconds > 0.0 && seconds <= LONGEST)) {
        return wrong("`deadline_s` is above 0 and at most a year.");
    }
    Ok(())
}

/// By it a retried submission is known to be the same.
fn fingerprint(query: &Submission, body: &[u8]) -> Vec<u8> {
    let mut digest = Sha256::new();
    // A query is plain data: it can always be written.
    let query = serde_json::to_vec(query).unwrap_or_default();
    digest.update((query.len() as u64).to_le_bytes());
    digest.update(query);
    digest.update(body);
    digest.finalize().to_vec()
}

fn conflict() -> Box<Problem> {
    let message = "The idempotency key was used before, for another program or other options.";
    Box::new(Problem::new(ProblemKind::IdempotencyConflict, message))
}

/// A job as it is kept when it has just been.
fn fresh(job: &NewJob) -> StoredJob {
    StoredJob {
        id: job.id.clone(),
        account: job.account.clone(),
        model: job.model.clone(),
        label: job.label.clone(),
        priority: job.priority,
        state: JobState::Queued,
        suspect: false,
        cancel_requested: false,
        attempts: 0,
        submitted_ms: job.submitted_ms,
        started_ms: None,
        finished_ms: None,
        deadline_ms: job.deadline_ms,
        price: job.price,
        result: None,
        result_key: None,
        result_gone: false,
        outcome: Default::default(),
        problem: None,
    }
}
