//! The store as one SQLite file: WAL, one writer, several readers.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use pellucid_client::api::{JobQuery, Problem, UsageDay};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};

use super::writer::Writer;
use super::{
    Accepted, Account, AuditEntry, Expired, Finished, Key, Milliseconds, NewJob, Repaired, Result, Store,
    StoreError, StoredJob, Waits, accounts, jobs, retention,
};

/// The version of the schema that this program writes.
const VERSION: i64 = 5;
/// What brings a store from one version to the next.
const STEPS: [&str; VERSION as usize] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
];
/// How long a statement waits for whoever holds the file.
const BUSY: Duration = Duration::from_secs(10);
/// Connections that read.
const READERS: u32 = 4;

/// What a store that says "written" has lived through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// It survives the process's end, whatever way, but a few last changes may be lost when the machine loses power.
    #[default]
    Process,
    /// It survives the machine's loss of power as well: every change waits for the disk.
    Power,
}

/// The store as one SQLite file. A clone is the same store.
#[derive(Clone)]
pub struct Sqlite {
    pub(super) writer: Writer,
    pub(super) readers: SqlitePool,
}

impl Sqlite {
    /// Opens the store in a file; makes it where it is not there.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Version`].
    pub async fn open(path: &Path, durability: Durability) -> Result<Sqlite> {
        let failed = |reason: String| StoreError::Open { path: path.display().to_string(), reason };
        let options = SqliteConnectOptions::from_str("sqlite:")
            .map_err(|error| failed(error.to_string()))?
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match durability {
                Durability::Process => SqliteSynchronous::Normal,
                Durability::Power => SqliteSynchronous::Full,
            })
            .busy_timeout(BUSY)
            // What is erased is overwritten.
            .pragma("secure_delete", "ON")
            .disable_statement_logging();
        migrate(&options).await.map_err(|error| match error {
            StoreError::Failed(reason) => failed(reason),
            other => other,
        })?;
        let writer = Writer::start(&options).await.map_err(|error| failed(error.to_string()))?;
        // A connection to a file does not break off: it need not be asked before each statement.
        let pool = SqlitePoolOptions::new().max_connections(READERS).test_before_acquire(false);
        let readers = pool.connect_with(options).await;
        let store = Sqlite { writer, readers: readers.map_err(|error| failed(error.to_string()))? };
        // One that can be read but not written is found now, not at the first job.
        store.check().await.map_err(|error| match error {
            StoreError::Failed(reason) => failed(reason),
            other => other,
        })?;
        Ok(store)
    }
}

impl Sqlite {
    /// Opens the store in a file to read it: nothing is written, also not beside it where that may not be. One that is not there is made.
    /// One of an older version stays one, because the service of that version may be running: its accounts, keys, usage and audit log
    /// can be read all the same.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Version`].
    pub async fn open_to_read(path: &Path, durability: Durability) -> Result<Sqlite> {
        if !path.exists() {
            return Sqlite::open(path, durability).await;
        }
        let failed = |error: sqlx::Error| StoreError::Open {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        let mut options = SqliteConnectOptions::from_str("sqlite:")
            .map_err(failed)?
            .filename(path)
            .read_only(true)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let mut found = version(&options).await;
        let log = path.with_extension("sqlite-wal");
        if found.is_err() && log.metadata().map_or(0, |log| log.len()) == 0 {
            // Nobody has it open, and what is shared with who has cannot be made: so nobody changes it either.
            options = options.immutable(true);
            found = version(&options).await;
        }
        match found.map_err(failed)? {
            found if found > VERSION => return Err(StoreError::Version { found, known: VERSION }),
            // A file in which nothing has been made yet.
            0 => return Sqlite::open(path, durability).await,
            _ => {}
        }
        let writer = Writer::start(&options).await.map_err(failed)?;
        let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false);
        Ok(Sqlite { writer, readers: pool.connect_with(options).await.map_err(failed)? })
    }
}

/// The version of a store's schema.
async fn version(options: &SqliteConnectOptions) -> std::result::Result<i64, sqlx::Error> {
    let mut connection = options.connect().await?;
    let found = sqlx::query("PRAGMA user_version").fetch_one(&mut connection).await?.try_get(0);
    connection.close().await?;
    found
}

/// Brings the schema up to date.
async fn migrate(options: &SqliteConnectOptions) -> Result<()> {
    let mut connection = options.connect().await?;
    // Its owner alone may read it.
    restrict(options.get_filename());
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let found: i64 = sqlx::query("PRAGMA user_version").fetch_one(&mut *transaction).await?.try_get(0)?;
    if found > VERSION {
        return Err(StoreError::Version { found, known: VERSION });
    }
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute(sqlx::raw_sql(*step)).await?;
    }
    if found < VERSION {
        let now = AssertSqlSafe(format!("PRAGMA user_version = {VERSION}"));
        sqlx::query(now).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}

#[cfg(unix)]
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(%error, "the store's file may be readable by others");
    }
}

#[cfg(not(unix))]
fn restrict(_: &Path) {}

#[async_trait]
impl Store for Sqlite {
    async fn put_account(
        &self,
        account: &Account,
        noted: Option<AuditEntry>,
        at_ms: Milliseconds,
    ) -> Result<()> {
        accounts::put_account(self, account, noted, at_ms).await
    }
    async fn account(&self, name: &str) -> Result<Option<Account>> {
        accounts::account(self, name).await
    }
    async fn accounts(&self) -> Result<Vec<Account>> {
        accounts::accounts(self).await
    }
    async fn create_key(&self, account: &Account, key: &Key, noted: Option<AuditEntry>) -> Result<()> {
        accounts::create_key(self, account, key, noted).await
    }
    async fn key(&self, id: &str) -> Result<Option<(Key, Account)>> {
        accounts::key(self, id).await
    }
    async fn keys(&self) -> Result<Vec<Key>> {
        accounts::keys(self).await
    }
    async fn revoke_key(&self, id: &str, noted: Option<AuditEntry>, at_ms: Milliseconds) -> Result<bool> {
        accounts::revoke_key(self, id, noted, at_ms).await
    }
    async fn accept(&self, job: NewJob) -> Result<Accepted> {
        jobs::accept(self, job).await
    }
    async fn begin(&self, jobs: &[String], at_ms: Milliseconds) -> Result<Vec<(String, u32)>> {
        jobs::begin(self, jobs, at_ms).await
    }
    async fn finish(&self, finished: Finished) -> Result<Option<StoredJob>> {
        jobs::finish(self, finished).await
    }
    async fn cancel(&self, account: &str, job: &str, at_ms: Milliseconds) -> Result<Option<StoredJob>> {
        jobs::cancel(self, account, job, at_ms).await
    }
    async fn refuse(&self, job: &str, problem: &Problem, at_ms: Milliseconds) -> Result<bool> {
        jobs::refuse(self, job, problem, at_ms).await
    }
    async fn erase(&self, account: &str, job: &str, at_ms: Milliseconds) -> Result<Option<Vec<String>>> {
        retention::erase(self, account, job, at_ms).await
    }
    async fn job(&self, account: &str, job: &str) -> Result<Option<StoredJob>> {
        jobs::job(self, account, job).await
    }
    async fn job_by_idempotency_key(&self, account: &str, key: &str) -> Result<Option<(StoredJob, Vec<u8>)>> {
        jobs::job_by_idempotency_key(self, account, key).await
    }
    async fn jobs(&self, account: &str, query: &JobQuery, limit: u32) -> Result<Vec<StoredJob>> {
        jobs::jobs(self, account, query, limit).await
    }
    async fn program(&self, job: &str) -> Result<Option<Vec<u8>>> {
        jobs::program(self, job).await
    }
    async fn queued(&self) -> Result<Vec<Waits>> {
        jobs::queued(self).await
    }
    async fn put_back(&self, at_ms: Milliseconds) -> Result<u64> {
        jobs::put_back(self, at_ms).await
    }
    async fn repair(&self, at_ms: Milliseconds) -> Result<Repaired> {
        jobs::repair(self, at_ms).await
    }
    async fn expire(
        &self,
        now_ms: Milliseconds,
        jobs_before_ms: Milliseconds,
        kept_jobs: u32,
    ) -> Result<Expired> {
        retention::expire(self, now_ms, jobs_before_ms, kept_jobs).await
    }
    async fn orphans(&self, files: &[String]) -> Result<Vec<String>> {
        retention::orphans(self, files).await
    }
    async fn usage(&self, account: &str, since_day: &str) -> Result<Vec<UsageDay>> {
        accounts::usage(self, account, since_day).await
    }
    async fn usage_of_all(&self, since_day: &str) -> Result<Vec<(String, UsageDay)>> {
        accounts::usage_of_all(self, since_day).await
    }
    async fn metered(&self, account: &str, day: &str, since_ms: Milliseconds) -> Result<f64> {
        accounts::metered(self, account, day, since_ms).await
    }
    async fn stored_bytes(&self, account: &str) -> Result<u64> {
        accounts::stored_bytes(self, account).await
    }
    async fn audit(&self, entry: AuditEntry) -> Result<()> {
        accounts::audit(self, entry).await
    }
    async fn expire_audit(&self, before_ms: Milliseconds, kept_erasures: u32) -> Result<()> {
        retention::expire_audit(self, before_ms, kept_erasures).await
    }
    async fn audit_log(&self, limit: u32) -> Result<Vec<AuditEntry>> {
        accounts::audit_log(self, limit).await
    }
    async fn check(&self) -> Result<()> {
        // A transaction that changes nothing would succeed on a full disk too. What is written back is what is there: another version
        // of the program may have brought the store up to date.
        let found = self.writer.write(|connection| {
            Box::pin(async {
                let found = sqlx::query("PRAGMA user_version").fetch_one(&mut *connection).await?;
                let found: i64 = found.try_get(0)?;
                let same = AssertSqlSafe(format!("PRAGMA user_version = {found}"));
                sqlx::query(same).execute(connection).await?;
                Ok(found)
            })
        });
        match found.await? {
            VERSION => Ok(()),
            found => Err(StoreError::Version { found, known: VERSION }),
        }
    }
    async fn wipe(&self) -> Result<()> {
        let wiped = self.writer.after(|connection| {
            Box::pin(async {
                // Whoever writes waits meanwhile: a reader that is in the way is not waited for long.
                sqlx::query("PRAGMA busy_timeout = 250").execute(&mut *connection).await?;
                let wiped = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await;
                let usual = AssertSqlSafe(format!("PRAGMA busy_timeout = {}", BUSY.as_millis()));
                sqlx::query(usual).execute(connection).await?;
                // The answer begins with whether a reader was in the way.
                wiped?.try_get::<i64, _>(0)
            })
        });
        match wiped.await? {
            0 => Ok(()),
            _ => Err(StoreError::Failed("who reads is in the way of wiping what was erased".into())),
        }
    }
    async fn close(&self) {
        self.readers.close().await;
    }
}
