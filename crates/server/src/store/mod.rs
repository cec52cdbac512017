//! What the service remembers: accounts, keys, jobs, attempts, usage, an audit log.
//!
//! [`Store`] is the seam: SQLite stands behind it here ([`sqlite::Sqlite`]), and PostgreSQL can with the same statements. What is
//! promised: a method that returns `Ok` has made its change durable, whole, and visible to every later call.

mod accounts;
mod jobs;
mod retention;
mod rows;
pub mod sqlite;
mod writer;

use async_trait::async_trait;
use pellucid_client::api::{JobQuery, Limits, Price, Priority, Problem, ResultInfo, Saved, UsageDay};

use crate::keys::Scope;

pub use pellucid_client::api::JobState;

/// What the audit log calls an erasure by an account.
pub const ERASE: &str = "erase";

/// Milliseconds since the beginning of 1970, UTC.
pub type Milliseconds = u64;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened at all.
    #[error("the store {path} cannot be opened: {reason}")]
    Open {
        /// Where it lies.
        path: String,
        /// Why.
        reason: String,
    },
    /// A newer version of the program wrote it.
    #[error(
        "the store has version {found}, and this program knows versions up to {known}: it was written by a newer one"
    )]
    Version {
        /// Its version.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// It does not work for now: the disk is full, say.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::Failed(error.to_string())
    }
}

/// What comes of asking the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// An account.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// What it may use.
    pub limits: Limits,
    /// Its share of the service, relative to others'.
    pub weight: f64,
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The part of it that is no secret.
    pub id: String,
    /// Whose it is.
    pub account: String,
    /// SHA-256 of the secret part.
    pub digest: Vec<u8>,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// What its maker called it.
    pub label: String,
    /// When it was made.
    pub created_ms: Milliseconds,
    /// When it was revoked.
    pub revoked_ms: Option<Milliseconds>,
}

/// A job that is to be kept.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub account: String,
    /// The id of its model.
    pub model: String,
    /// What its owner calls it.
    pub label: Option<String>,
    /// Among its owner's jobs.
    pub priority: Priority,
    /// When it came.
    pub submitted_ms: Milliseconds,
    /// When it is too late.
    pub deadline_ms: Option<Milliseconds>,
    /// Its owner's key against doing it twice.
    pub idempotency_key: Option<String>,
    /// SHA-256 of the program and how it is to be run.
    pub fingerprint: Vec<u8>,
    /// What it costs, at most.
    pub price: Price,
    /// Bytes that its account's results may take, with what its unfinished jobs may come to.
    pub stored_bytes: Option<u64>,
    /// The program, where it is kept here and not as a file.
    pub program: Option<Vec<u8>>,
}

/// What became of a job that was to be kept.
#[derive(Debug)]
pub enum Accepted {
    /// It is kept.
    New,
    /// It was kept before, under the same idempotency key.
    Before(Box<StoredJob>),
    /// Another one was, under the same idempotency key.
    Conflict,
    /// Its account's results, with what its unfinished jobs may come to and this one, would take so many bytes.
    Full(u64),
}

/// A job that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waits {
    /// The job.
    pub job: StoredJob,
    /// Bytes of its program, where that is kept with it.
    pub program_bytes: u64,
}

/// A job as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredJob {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub account: String,
    /// The id of its model.
    pub model: String,
    /// What its owner calls it.
    pub label: Option<String>,
    /// Among its owner's jobs.
    pub priority: Priority,
    /// How far it is.
    pub state: JobState,
    /// It runs alone, because the process died while it ran.
    pub suspect: bool,
    /// Its owner wants it to end.
    pub cancel_requested: bool,
    /// How often it has begun.
    pub attempts: u32,
    /// When it came.
    pub submitted_ms: Milliseconds,
    /// When it began, the last time.
    pub started_ms: Option<Milliseconds>,
    /// When it ended.
    pub finished_ms: Option<Milliseconds>,
    /// When it is too late.
    pub deadline_ms: Option<Milliseconds>,
    /// What it costs, at most.
    pub price: Price,
    /// Its result.
    pub result: Option<ResultInfo>,
    /// The file with its result.
    pub result_key: Option<String>,
    /// It had a result, which is deleted.
    pub result_gone: bool,
    /// What its last attempt did.
    pub outcome: Outcome,
    /// Why it failed.
    pub problem: Option<Problem>,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Ending {
    /// With a result.
    Done(StoredResult),
    /// It failed; what the traces before saved may be there.
    Failed(Box<Problem>, Option<StoredResult>),
    /// Its owner ended it.
    Cancelled,
    /// The service is being shut down: it runs again later.
    PutBack,
    /// A pass failed that it was in with others: it runs again, alone.
    Suspected,
}

/// A result that lies ready as a file.
#[derive(Clone, Debug, Default)]
pub struct StoredResult {
    /// The file.
    pub key: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its `ETag`, with its quotation marks.
    pub etag: String,
    /// When it is deleted.
    pub expires_ms: Milliseconds,
}

/// What an attempt did.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// What it saved.
    #[serde(default)]
    pub saved: Vec<Saved>,
    /// What it would have saved, had its generation not stopped.
    #[serde(default)]
    pub absent: Vec<String>,
    /// The engine's time.
    #[serde(default)]
    pub milliseconds: f64,
    /// Passes through the model.
    #[serde(default)]
    pub passes: u64,
    /// Tokens that passed.
    #[serde(default)]
    pub tokens: u64,
}

/// An attempt that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The job.
    pub job: String,
    /// Which attempt.
    pub attempt: u32,
    /// How.
    pub ending: Ending,
    /// What it did.
    pub outcome: Outcome,
    /// When.
    pub at_ms: Milliseconds,
}

/// What start-up found and repaired.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Repaired {
    /// Jobs that were running when the process died, and run again alone.
    pub suspects: u64,
    /// Jobs during which it died twice.
    pub poisoned: u64,
    /// Jobs that wait.
    pub queued: u64,
}

/// Files and rows that are over.
#[derive(Clone, Debug, Default)]
pub struct Expired {
    /// Files to delete.
    pub files: Vec<String>,
    /// Jobs of which nothing is left.
    pub jobs: u64,
}

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// When.
    pub at_ms: Milliseconds,
    /// Who.
    pub account: String,
    /// With which key.
    pub key: String,
    /// What.
    pub action: String,
    /// Of what.
    pub subject: String,
}

/// What the service remembers.
#[async_trait]
pub trait Store: Send + Sync {
    /// Makes an account, or changes one, and notes it in the audit log.
    async fn put_account(
        &self,
        account: &Account,
        noted: Option<AuditEntry>,
        at_ms: Milliseconds,
    ) -> Result<()>;
    /// An account.
    async fn account(&self, name: &str) -> Result<Option<Account>>;
    /// All accounts, by name.
    async fn accounts(&self) -> Result<Vec<Account>>;
    /// Makes an account's key, and the account or its changes with it, and notes it: all or nothing.
    async fn create_key(&self, account: &Account, key: &Key, noted: Option<AuditEntry>) -> Result<()>;
    /// A key that was not revoked, with its account.
    async fn key(&self, id: &str) -> Result<Option<(Key, Account)>>;
    /// All keys, the newest first.
    async fn keys(&self) -> Result<Vec<Key>>;
    /// Revokes a key, and notes it if it was there and valid; whether it was.
    async fn revoke_key(&self, id: &str, noted: Option<AuditEntry>, at_ms: Milliseconds) -> Result<bool>;

    /// Keeps a job, unless its idempotency key was used before, or its result may not fit beside its account's others.
    async fn accept(&self, job: NewJob) -> Result<Accepted>;
    /// Records that jobs begin to run, before they do: of those that may, which attempt it is. Others have been cancelled meanwhile.
    async fn begin(&self, jobs: &[String], at_ms: Milliseconds) -> Result<Vec<(String, u32)>>;
    /// Records an attempt's end, the job's effect and its account's usage, all or nothing, and once: the job as it is then, if it
    /// was this call.
    async fn finish(&self, finished: Finished) -> Result<Option<StoredJob>>;
    /// Notes that a job's owner wants it to end. One that waits has ended then.
    async fn cancel(&self, account: &str, job: &str, at_ms: Milliseconds) -> Result<Option<StoredJob>>;
    /// Fails a job that has not begun: its time is over, say. Whether it was this call.
    async fn refuse(&self, job: &str, problem: &Problem, at_ms: Milliseconds) -> Result<bool>;
    /// Deletes a job with everything of it; gives the files to delete. One that runs counts as used, by its price.
    async fn erase(&self, account: &str, job: &str, at_ms: Milliseconds) -> Result<Option<Vec<String>>>;
    /// A job of an account.
    async fn job(&self, account: &str, job: &str) -> Result<Option<StoredJob>>;
    /// An account's job by its idempotency key, with its fingerprint.
    async fn job_by_idempotency_key(&self, account: &str, key: &str) -> Result<Option<(StoredJob, Vec<u8>)>>;
    /// An account's jobs, the newest first.
    async fn jobs(&self, account: &str, query: &JobQuery, limit: u32) -> Result<Vec<StoredJob>>;
    /// A job's program, where it is kept here.
    async fn program(&self, job: &str) -> Result<Option<Vec<u8>>>;
    /// Every job that waits, the oldest first.
    async fn queued(&self) -> Result<Vec<Waits>>;
    /// Records of every attempt that is under way that it is put back, where the process is about to end in order: how many. A suspect stays one.
    async fn put_back(&self, at_ms: Milliseconds) -> Result<u64>;
    /// Repairs what a process left that died: to be called before anything else, once, when no other process uses the store.
    async fn repair(&self, at_ms: Milliseconds) -> Result<Repaired>;
    /// Forgets results that are over at `now_ms`, jobs that ended before `jobs_before_ms`, and of an account's jobs that have ended
    /// all but the newest so many, with their results.
    async fn expire(
        &self,
        now_ms: Milliseconds,
        jobs_before_ms: Milliseconds,
        kept_jobs: u32,
    ) -> Result<Expired>;
    /// Which of these files belong to no job.
    async fn orphans(&self, files: &[String]) -> Result<Vec<String>>;

    /// What an account used since a day.
    async fn usage(&self, account: &str, since_day: &str) -> Result<Vec<UsageDay>>;
    /// What all accounts used since a day: with their names.
    async fn usage_of_all(&self, since_day: &str) -> Result<Vec<(String, UsageDay)>>;
    /// Milliseconds that an account's jobs of a day were priced at: of those that have ended, and of those that have not and
    /// came since then, when the day began. What ended before that was recorded counts as it was measured.
    async fn metered(&self, account: &str, day: &str, since_ms: Milliseconds) -> Result<f64>;
    /// Bytes of an account's results that lie ready.
    async fn stored_bytes(&self, account: &str) -> Result<u64>;
    /// Adds to the audit log.
    async fn audit(&self, entry: AuditEntry) -> Result<()>;
    /// Forgets entries of the audit log that are older than that, and of an account's erasures all but so many of the newest.
    async fn expire_audit(&self, before_ms: Milliseconds, kept_erasures: u32) -> Result<()>;
    /// The audit log, the newest first.
    async fn audit_log(&self, limit: u32) -> Result<Vec<AuditEntry>>;
    /// What was erased or forgotten before lies in none of the store's files any more: also not where changes are kept beside.
    async fn wipe(&self) -> Result<()>;
    /// Whether it can be written now.
    async fn check(&self) -> Result<()>;
    /// Ends: what was written is written.
    async fn close(&self);
}
