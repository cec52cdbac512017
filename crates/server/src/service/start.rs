//! Starting, mending what a crash left, ending.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pellucid_client::api::Limits;
use pellucid_graph::limits::EXPANDED_NODES;
use tokio::sync::mpsc;

use super::Service;
use crate::config::Config;
use crate::core::{Core, in_memory, waiting};
use crate::files::{self, FileError, Files};
use crate::models::{Haste, Registry};
use crate::schedule::handover::Work;
use crate::schedule::{dispatch, finish};
use crate::store::sqlite::{Durability, Sqlite};
use crate::store::{Account, StoreError, Waits};
use crate::time;

/// The account of everyone, where no key is needed.
pub const OPEN_ACCOUNT: &str = "local";
/// How often what is over is deleted, and gauges are set.
const TIDY: Duration = Duration::from_secs(60);
const GAUGES: Duration = Duration::from_secs(1);
/// Erasures of an account that stay in the audit log: who erases all the time does not fill the store with it.
const ERASURES: u32 = 10_000;
/// How often it is looked whether the store can be written, at most, and how long that may take.
const LOOK: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);
/// How long putting back what still runs may take at the end, of the time that there is to drain; and at least.
const FAREWELL: Duration = Duration::from_secs(3);
const LEAST_FAREWELL: Duration = Duration::from_secs(1);
/// How long engines have to end at the end, and how long the store has to be closed.
const CLOSING: Duration = Duration::from_secs(1);
/// How long what has panicked in the background waits until it begins again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long an engine may be in one pass until it is taken to answer no more.
const STUCK: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error("the data folder {path}: {error}")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// Another process uses it.
    #[error("the data folder {0} is in use by another `pellucid serve`")]
    InUse(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files.
    #[error(transparent)]
    Files(#[from] FileError),
    /// A certificate or key.
    #[error("{path}: {reason}")]
    Certificate {
        /// Which file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {error}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        error: std::io::Error,
    },
}

/// The store of a data folder, which is made where it is not there.
///
/// # Errors
/// Where it cannot be opened.
pub async fn open_store(data: &Path, durability: Durability) -> Result<Sqlite, StartError> {
    make_folder(data).map_err(|error| StartError::Folder { path: data.display().to_string(), error })?;
    Ok(Sqlite::open(&data.join("pellucid.sqlite"), durability).await?)
}

/// The store of a data folder, of which nothing is changed.
///
/// # Errors
/// Where it cannot be read.
pub async fn open_store_to_read(data: &Path, durability: Durability) -> Result<Sqlite, StartError> {
    if !data.exists() {
        make_folder(data).map_err(|error| StartError::Folder { path: data.display().to_string(), error })?;
    }
    Ok(Sqlite::open_to_read(&data.join("pellucid.sqlite"), durability).await?)
}

fn make_folder(data: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(data)?;
    // Its owner alone may look into it.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Held as long as the process lives: no other uses the data folder.
pub(crate) struct FolderLock(#[expect(dead_code, reason = "the lock is the open file's")] std::fs::File);

fn lock(data: &Path) -> Result<FolderLock, StartError> {
    let path = data.join("lock");
    let failed = |error| StartError::Folder { path: path.display().to_string(), error };
    let file =
        std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(FolderLock(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::InUse(data.display().to_string())),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

impl Service {
    /// Opens everything, mends what a crash left, and begins to work.
    ///
    /// # Errors
    /// [`StartError`], which says what to do something about.
    pub(crate) async fn start(config: Config) -> Result<(Service, FolderLock), StartError> {
        let data = config.server.data.clone();
        make_folder(&data).map_err(|error| StartError::Folder { path: data.display().to_string(), error })?;
        let held = lock(&data)?;
        let store = Arc::new(open_store(&data, config.store.durability).await?);
        let files = Files::open(&data.join("files"), config.store.durability == Durability::Power)?;
        let (reports, reported) = mpsc::unbounded_channel();
        let registry = Registry::new(&config.models, &config.engine, reports);
        let core = Arc::new(Core::new(config, store, files, registry));
        mend(&core).await?;
        let reported = Arc::new(tokio::sync::Mutex::new(reported));
        let own = core.clone();
        supervise("reports", move || finish::reports(own.clone(), reported.clone()));
        let own = core.clone();
        supervise("overdue", move || dispatch::overdue(own.clone()));
        for entry in core.registry.entries() {
            let (own, of) = (core.clone(), entry.clone());
            supervise("dispatch", move || dispatch::dispatch(own.clone(), of.clone()));
            if entry.config.pinned {
                let (core, entry) = (core.clone(), entry.clone());
                tokio::spawn(async move { core.registry.load(&entry.hold(), &|| Some(Haste::None)).await });
            }
        }
        let own = core.clone();
        supervise("tidy", move || tidy(own.clone()));
        let own = core.clone();
        supervise("gauges", move || gauges(own.clone()));
        core.ring();
        Ok((Service { core }, held))
    }

    /// Takes no new jobs; waits until what runs has ended, or puts it back. Then nobody waits for a job any more: who did is told how it
    /// is.
    pub(crate) async fn stop(&self) {
        let core = &self.core;
        core.drain();
        let patience = Duration::from_secs_f64(core.config.server.drain_seconds);
        // To put back what still runs takes a moment, which is part of the time.
        let moment = FAREWELL.min(patience / 4).max(LEAST_FAREWELL);
        if !idle(core, patience.saturating_sub(moment)).await {
            tracing::warn!(jobs = core.board().running_count(), "jobs that still run are put back");
            core.board().put_back();
            idle(core, moment).await;
        }
        // It is the service that ends, not they that end it: nothing is held against those that still run, or have just begun.
        match tokio::time::timeout(FAREWELL, core.store.put_back(time::now_ms())).await {
            Ok(Ok(0)) => {}
            Ok(Ok(jobs)) => tracing::warn!(jobs, "jobs that do not end are left: they run again"),
            Ok(Err(error)) => tracing::error!(%error, "jobs that do not end cannot be put back"),
            Err(_) => tracing::error!("jobs that do not end cannot be put back: the store does not answer"),
        }
        core.hub.close();
    }

    /// Ends the engines and closes the store, once everybody is answered. What takes long is left: nothing is lost by it.
    pub(crate) async fn close(&self) {
        let core = &self.core;
        if core.board().running_count() == 0 {
            let _ = tokio::time::timeout(CLOSING, core.registry.close()).await;
        }
        let _ = tokio::time::timeout(CLOSING, core.store.close()).await;
    }

    /// Whether the store and the engine work. Looked at once a second at most, however often it is asked.
    pub(crate) async fn readiness(&self) -> (bool, bool) {
        let mut last = self.core.readiness.lock().await;
        let store = match *last {
            Some((at, store)) if at.elapsed() < LOOK => store,
            _ => {
                let both = async {
                    self.core.store.check().await.map_err(|error| error.to_string())?;
                    self.core.files.check().await.map_err(|error| error.to_string())
                };
                let works = match tokio::time::timeout(PATIENCE, both).await {
                    Ok(Ok(())) => true,
                    Ok(Err(error)) => {
                        tracing::error!(error, "not ready: the store cannot be written");
                        false
                    }
                    Err(_) => {
                        tracing::error!("not ready: the store does not answer");
                        false
                    }
                };
                *last = Some((Instant::now(), works));
                works
            }
        };
        let engines = self.core.registry.entries().iter().all(|entry| match entry.house() {
            Some(house) => !house.is_stuck(STUCK),
            None => !entry.config.pinned,
        });
        (store, engines)
    }
}

/// Does something for ever: where it ends by a panic, it begins again.
fn supervise<F>(name: &'static str, work: impl Fn() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        // It is over without a panic only when the runtime ends.
        while tokio::spawn(work()).await.is_err_and(|error| error.is_panic()) {
            tracing::error!(task = name, "what goes on in the background has panicked; it begins again");
            tokio::time::sleep(AGAIN).await;
        }
    });
}

async fn idle(core: &Core, patience: Duration) -> bool {
    let until = tokio::time::Instant::now() + patience;
    loop {
        if core.board().running_count() == 0 {
            return true;
        }
        if tokio::time::Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Makes good what a process left that died: attempts that never ended, files of nobody, jobs that wait.
async fn mend(core: &Core) -> Result<(), StartError> {
    let now = time::now_ms();
    if core.config.server.open {
        let limits = Limits {
            weights_readable: true,
            generation: true,
            training: true,
            edits: true,
            ..Limits::default()
        };
        let account = Account { name: OPEN_ACCOUNT.into(), limits, weight: 1.0 };
        core.store.put_account(&account, None, now).await?;
    }
    let repaired = core.store.repair(now).await?;
    if repaired.suspects + repaired.poisoned + repaired.queued > 0 {
        tracing::info!(
            suspects = repaired.suspects,
            poisoned = repaired.poisoned,
            queued = repaired.queued,
            "jobs were taken over from before"
        );
    }
    let begun = core.files.delete_begun().await?;
    if begun > 0 {
        tracing::info!(files = begun, "what a process had begun to write when it died is deleted");
    }
    let files: BTreeMap<String, u64> = core.files.all().await?.into_iter().collect();
    let names: Vec<String> = files.keys().cloned().collect();
    for orphan in core.store.orphans(&names).await? {
        core.files.delete(&orphan).await?;
    }
    let accounts = core.store.accounts().await?;
    for Waits { job, program_bytes } in core.store.queued().await? {
        let (Some(entry), Some(account)) =
            (core.registry.get(&job.model), accounts.iter().find(|account| account.name == job.account))
        else {
            let message = format!("The model `{}` is not there any more.", job.model);
            let problem = pellucid_client::api::Problem::new(
                pellucid_client::api::ProblemKind::ModelUnavailable,
                message,
            );
            core.refuse(&job.account, &job.id, &problem).await;
            continue;
        };
        let file = files.get(&files::program(&job.id)).copied();
        if let Some(bytes) = file {
            core.program_files.add(&job.id, &job.account, bytes);
        }
        // Of a loop's nodes each is priced as often as it runs; no more are there than a program may have.
        let nodes = job.price.nodes.min(EXPANDED_NODES as u64);
        let program_bytes = in_memory(file.unwrap_or(program_bytes), nodes);
        core.hub.open(&job.id, job.attempts, core.config.admission.event_bytes);
        core.spans.waits(&job.id, entry.id());
        let (model, waiting) = (entry.id().to_owned(), waiting(&job, account, program_bytes));
        core.handover.wait(Work { model, waiting, suspect: job.suspect, program: None, has_place: false });
    }
    Ok(())
}

/// Deletes what is over, again and again.
async fn tidy(core: Arc<Core>) {
    loop {
        let now = time::now_ms();
        let before = |days: f64| now.saturating_sub((days * 86_400_000.0) as u64);
        let audit_days = core.config.retention.audit_days;
        if let Err(error) = core.store.expire_audit(before(audit_days), ERASURES).await {
            tracing::error!(%error, "the audit log cannot be shortened");
        }
        let retention = &core.config.retention;
        match core.store.expire(now, before(retention.job_days), retention.kept_jobs).await {
            Ok(expired) => {
                for file in expired.files {
                    if let Err(error) = core.files.delete(&file).await {
                        tracing::error!(%error, "a file cannot be deleted");
                    }
                }
            }
            Err(error) => tracing::error!(%error, "what is over cannot be forgotten"),
        }
        // Programs of jobs that have ended are of it too.
        core.wipe().await;
        tokio::time::sleep(TIDY).await;
    }
}

async fn gauges(core: Arc<Core>) {
    loop {
        {
            let board = core.board();
            core.metrics.now(board.queued(), board.status().milliseconds / 1000.0, board.running_count());
        }
        core.metrics.prefixes(&core.prefixes);
        for entry in core.registry.entries() {
            let house = entry.house();
            let weights = house.as_ref().and(entry.summary().parameters_bytes).unwrap_or(0);
            core.metrics.memory(entry.id(), weights, house.map_or((0, 0), |house| house.bytes()));
        }
        tokio::time::sleep(GAUGES).await;
    }
}

#[cfg(test)]
mod tests;
