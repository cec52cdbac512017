//! What the service does, whoever asks and however: the HTTP routes are thin over it.

mod admit;
mod caller;
mod compute;
mod start;
mod submit;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use pellucid_client::api::{
    AccountUse, Explanation, Job, JobList, JobQuery, JobState, ModelList, Price, Problem, ProblemKind,
    ServiceState, ServiceStatus, UsageReport,
};
use pellucid_engine::RunOptions;

use crate::account::{Watcher, exceeded, policy};
use crate::core::Core;
use crate::events::Channel;
use crate::store::{AuditEntry, ERASE, StoreError, StoredJob};
use crate::{keys, time};

pub use caller::Caller;
pub use start::{OPEN_ACCOUNT, StartError, open_store, open_store_to_read};
pub use submit::SubmitOptions;

/// What comes of asking the service.
pub type Result<T> = std::result::Result<T, Box<Problem>>;

/// Jobs of one page of a list.
const PAGE: u32 = 50;
/// The same, at most.
const LONGEST_PAGE: u32 = 200;
/// The part of an address's connections on which requests of one account may wait: one of so many. Where a proxy stands before the
/// service, all come from one address.
const WATCHING: usize = 4;
/// How long a job that is to be erased may take to leave its engine.
const LEAVING: Duration = Duration::from_secs(5);

/// The service. A clone is the same.
#[derive(Clone)]
pub struct Service {
    pub(crate) core: Arc<Core>,
}

impl From<StoreError> for Box<Problem> {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        let mut problem = Problem::new(
            ProblemKind::StoreUnavailable,
            "What is asked for cannot be read or written down now.",
        );
        problem.retry_after_s = Some(5.0);
        Box::new(problem)
    }
}

fn not_found(what: &str) -> Box<Problem> {
    Box::new(Problem::new(
        ProblemKind::NotFound,
        format!("There is no such {what}, or it is somebody else's."),
    ))
}

impl Service {
    /// A job of the caller's.
    pub async fn stored_job(&self, caller: &Caller, id: &str) -> Result<StoredJob> {
        if !keys::is_job_id(id) {
            return Err(not_found("job"));
        }
        self.core.store.job(&caller.account.name, id).await?.ok_or_else(|| not_found("job"))
    }

    /// The same as its owner sees it, once it has ended or after so long.
    pub async fn job(&self, caller: &Caller, id: &str, wait: Option<Duration>) -> Result<Job> {
        let job = self.stored_job(caller, id).await?;
        if let Some(wait) = wait.filter(|_| !job.state.is_final()) {
            let channel = self.core.hub.get(id);
            if let Some(ended) = match channel {
                Some(channel) => channel.ended(wait).await,
                None => None,
            } {
                return Ok(ended.as_ref().clone());
            }
            return Ok(self.core.view(self.stored_job(caller, id).await?));
        }
        Ok(self.core.view(job))
    }

    /// The caller's jobs, the newest first.
    pub async fn jobs(&self, caller: &Caller, query: &JobQuery) -> Result<JobList> {
        let limit = query.limit.unwrap_or(PAGE);
        if !(1..=LONGEST_PAGE).contains(&limit)
            || query.after.as_ref().is_some_and(|after| !keys::is_job_id(after))
        {
            let message = format!("`limit` is from 1 to {LONGEST_PAGE}, and `after` a job's id.");
            return Err(Box::new(Problem::new(ProblemKind::BadRequest, message)));
        }
        let mut found = self.core.store.jobs(&caller.account.name, query, limit + 1).await?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next = found.last().filter(|_| more).map(|job| job.id.clone());
        Ok(JobList { jobs: self.core.views(&caller.account.name, found), next })
    }

    /// Counts a request of the caller's that waits for what happens to a job, as long as what comes back lives. Without keys all are
    /// one account, and nobody is counted.
    pub fn watch(&self, caller: &Caller) -> Result<Option<Watcher>> {
        let server = &self.core.config.server;
        if server.open {
            return Ok(None);
        }
        let most = server.connections_per_address.div_ceil(WATCHING);
        let come = self.core.watchers.come(&caller.account.name, most);
        come.map(Some).map_err(|there| {
            let (allowed, used) = (most as f64, there as f64 + 1.0);
            let mut problem =
                exceeded(ProblemKind::TooManyRequests, "waiting_requests", allowed, used, "requests");
            problem.detail =
                Some("So many of the account's requests wait for jobs or follow their events.".into());
            problem.hint = Some("follow fewer jobs at once, or ask without `Prefer: wait`".into());
            problem.retry_after_s = Some(1.0);
            Box::new(problem)
        })
    }

    /// Ends a job of the caller's, if it has not ended.
    pub async fn cancel(&self, caller: &Caller, id: &str) -> Result<Job> {
        let core = &self.core;
        let before = self.stored_job(caller, id).await?;
        if before.state.is_final() {
            return Ok(core.view(before));
        }
        let job = core.store.cancel(&caller.account.name, id, time::now_ms()).await?;
        let job = job.ok_or_else(|| not_found("job"))?;
        core.handover.cancel(id);
        if job.state == JobState::Cancelled {
            core.tell_end(&caller.account.name, id).await;
        }
        Ok(core.view(job))
    }

    /// Ends a job of the caller's and deletes everything of it.
    pub async fn erase(&self, caller: &Caller, id: &str) -> Result<()> {
        let job = self.cancel(caller, id).await?;
        if let Some(channel) = self.core.hub.get(id).filter(|_| !job.state.is_final()) {
            // What it took is written down before it is forgotten.
            channel.ended(LEAVING).await;
        }
        let files = self.core.store.erase(&caller.account.name, id, time::now_ms()).await?;
        let files = files.ok_or_else(|| not_found("job"))?;
        self.core.hub.forget(id);
        self.core.program_files.remove(id);
        // What its prompts left there is of it too.
        self.core.handover.forget(&caller.account.name);
        for file in files {
            if let Err(error) = self.core.files.delete(&file).await {
                // What belongs to no job is deleted at the next start.
                tracing::error!(%error, "a file cannot be deleted");
            }
        }
        self.audit(caller, ERASE, id).await;
        self.core.wipe().await;
        Ok(())
    }

    /// Where what happens to a job of the caller's is told; none: it ended long ago.
    pub async fn channel(&self, caller: &Caller, id: &str) -> Result<(StoredJob, Option<Arc<dyn Channel>>)> {
        let job = self.stored_job(caller, id).await?;
        Ok((job, self.core.hub.get(id)))
    }

    /// What a program would compute where, and at what price: as it would run here by itself now, with what its account's cache
    /// has where the model is in memory.
    pub async fn explain(
        &self,
        caller: &Caller,
        model: Option<&str>,
        body: bytes::Bytes,
    ) -> Result<Explanation> {
        let (core, account) = (self.core.clone(), caller.account.name.clone());
        self.check(caller, model, body, move |admitted| {
            let failed =
                || Box::new(Problem::new(ProblemKind::Internal, "The program could not be planned."));
            let options = RunOptions {
                memory_bytes: Some(admitted.memory_bytes),
                prefixes: core.prefixes.peek(&account),
                ..RunOptions::default()
            };
            let _held = admitted.entry.hold();
            let planner = admitted.entry.house().and_then(|house| house.planner());
            let engine = planner.as_deref().unwrap_or(&admitted.outline.engine);
            let alone = [(&*admitted.program, &options)];
            let plan = engine.explain_together(&alone, &core.config.engine.serves());
            let plan = plan.map_err(|_| failed())?;
            let text = plan.to_string();
            let passes = plan.passes.iter().map(serde_json::to_value).collect::<std::result::Result<_, _>>();
            let models = plan.models.iter().map(serde_json::to_value).collect::<std::result::Result<_, _>>();
            Ok(Explanation {
                model: admitted.entry.id().to_owned(),
                price: Price::new(&admitted.program.price, admitted.price.milliseconds),
                kept_at_most: plan.kept_at_most,
                cached_tokens: plan.cached_tokens,
                passes: passes.map_err(|_| failed())?,
                nodes: (plan.nodes.0 as u64, plan.nodes.1 as u64),
                dropped: plan.dropped.into_iter().map(|(name, nodes)| (name, nodes as u64)).collect(),
                models: models.map_err(|_| failed())?,
                text,
            })
        })
        .await
    }

    /// The models that the caller may use.
    pub fn models(&self, caller: &Caller) -> ModelList {
        let entries = self.core.registry.entries().iter();
        let own = entries.filter(|entry| policy::allows_model(&caller.account.limits, entry.id()));
        let models: Vec<_> = own.map(|entry| entry.summary()).collect();
        let default = models.iter().find(|model| model.default).map(|model| model.id.clone());
        ModelList { models, default }
    }

    /// What the caller uses, and has used.
    pub async fn used(&self, caller: &Caller) -> Result<AccountUse> {
        let name = &caller.account.name;
        self.know_day(name).await?;
        let (milliseconds_minute, milliseconds_day) = self.core.meters.used(name, time::now_ms());
        let stored_bytes = self.core.store.stored_bytes(name).await?;
        let board = self.core.board();
        Ok(AccountUse {
            running_jobs: board.running_of(name) as u64,
            queued_jobs: board.queued_of(name) as u64,
            milliseconds_minute,
            milliseconds_day,
            stored_bytes,
        })
    }

    /// What the caller has used, day by day.
    pub async fn usage(&self, caller: &Caller, days: Option<u32>) -> Result<UsageReport> {
        let days = days.unwrap_or(30);
        if !(1..=366).contains(&days) {
            return Err(Box::new(Problem::new(ProblemKind::BadRequest, "`days` is from 1 to 366.")));
        }
        let since = time::day_before(time::now_ms(), days - 1);
        let account = caller.account.name.clone();
        Ok(UsageReport { days: self.core.store.usage(&account, &since).await?, account })
    }

    /// How the service is, as far as the caller may see.
    pub fn status(&self, caller: &Caller) -> ServiceStatus {
        let core = &self.core;
        let (queue, running) = {
            let board = core.board();
            (board.status(), board.running_count() as u64)
        };
        ServiceStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: if core.is_draining() { ServiceState::Draining } else { ServiceState::Serving },
            uptime_s: core.started.elapsed().as_secs_f64(),
            models: self.models(caller).models,
            queue,
            running,
            history: core.history.all(),
        }
    }

    async fn audit(&self, caller: &Caller, action: &str, subject: &str) {
        let entry = AuditEntry {
            at_ms: time::now_ms(),
            account: caller.account.name.clone(),
            key: caller.key.clone().unwrap_or_default(),
            action: action.to_owned(),
            subject: subject.to_owned(),
        };
        if let Err(error) = self.core.store.audit(entry).await {
            tracing::error!(%error, action, "the audit log cannot be written");
        }
    }
}

/// What came of work that computes, beside the threads that wait.
fn blocking_answer<T>(answer: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    answer.unwrap_or_else(|_| {
        Err(Box::new(Problem::new(ProblemKind::Internal, "Something failed in the service.")))
    })
}
