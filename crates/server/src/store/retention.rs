//! What is deleted: by its owner, when its time is over, and what belongs to nobody.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Row, query};

use super::accounts::stores;
use super::jobs::count_by_price;
use super::rows::{self, number};
use super::sqlite::Sqlite;
use super::{ERASE, Expired, Milliseconds, Result};

pub(super) async fn erase(
    store: &Sqlite,
    account: &str,
    job: &str,
    at_ms: Milliseconds,
) -> Result<Option<Vec<String>>> {
    let (account, job) = (account.to_owned(), job.to_owned());
    store
        .writer
        .write(move |connection| {
            Box::pin(async move {
                let runs = query("SELECT id FROM jobs WHERE id = $1 AND account = $2 AND state = 'running'");
                if runs.bind(&job).bind(&account).fetch_optional(&mut *connection).await?.is_some() {
                    // Its end will find nothing to write to.
                    count_by_price(&mut *connection, &job, false, at_ms).await?;
                }
                let row = query(
                    "DELETE FROM jobs WHERE id = $1 AND account = $2 RETURNING result_key, result_bytes",
                )
                .bind(&job)
                .bind(&account)
                .fetch_optional(&mut *connection)
                .await?;
                let Some(row) = row else { return Ok(None) };
                query("DELETE FROM attempts WHERE job = $1").bind(&job).execute(&mut *connection).await?;
                let result: Option<String> = row.try_get(0)?;
                if result.is_some() {
                    let bytes: Option<i64> = row.try_get(1)?;
                    stores(connection, &account, -bytes.unwrap_or(0)).await?;
                }
                Ok(Some(result.into_iter().chain([crate::files::program(&job)]).collect()))
            })
        })
        .await
}

pub(super) async fn expire(
    store: &Sqlite,
    now_ms: Milliseconds,
    jobs_before_ms: Milliseconds,
    kept_jobs: u32,
) -> Result<Expired> {
    store
        .writer
        .write(move |connection| {
            Box::pin(async move {
                let mut expired = Expired::default();
                let over = query(
                    "SELECT result_key, account, result_bytes FROM jobs
                     WHERE expires_ms <= $1 AND result_key IS NOT NULL",
                )
                .bind(number(now_ms))
                .fetch_all(&mut *connection)
                .await?;
                let mut freed: BTreeMap<String, i64> = BTreeMap::new();
                for row in over {
                    expired.files.push(row.try_get(0)?);
                    let bytes: Option<i64> = row.try_get(2)?;
                    *freed.entry(row.try_get(1)?).or_default() += bytes.unwrap_or(0);
                }
                for (account, bytes) in freed {
                    stores(&mut *connection, &account, -bytes).await?;
                }
                query(
                    "UPDATE jobs SET result_key = NULL, expires_ms = NULL, outcome = NULL
                     WHERE expires_ms <= $1 AND result_key IS NOT NULL",
                )
                .bind(number(now_ms))
                .execute(&mut *connection)
                .await?;
                query("DELETE FROM attempts WHERE job IN (SELECT id FROM jobs WHERE finished_ms <= $1 AND result_key IS NULL)")
                    .bind(number(jobs_before_ms))
                    .execute(&mut *connection)
                    .await?;
                let gone = query("DELETE FROM jobs WHERE finished_ms <= $1 AND result_key IS NULL")
                    .bind(number(jobs_before_ms))
                    .execute(&mut *connection)
                    .await?;
                expired.jobs = gone.rows_affected();
                too_many(connection, kept_jobs, &mut expired).await?;
                Ok(expired)
            })
        })
        .await
}

/// Accounts do not fill the store with what they once did: of an account's jobs that have ended the oldest go that are too many, as they
/// came; by a clock that was set back the newest would go first.
async fn too_many(
    connection: &mut SqliteConnection,
    kept: u32,
    expired: &mut Expired,
) -> std::result::Result<(), sqlx::Error> {
    let accounts =
        query("SELECT account FROM jobs GROUP BY account HAVING COUNT(*) > $1").bind(i64::from(kept));
    for row in accounts.fetch_all(&mut *connection).await? {
        let account: String = row.try_get(0)?;
        let gone = query(
            "DELETE FROM jobs WHERE account = $1 AND state NOT IN ('queued', 'running')
                 AND id NOT IN (
                     SELECT id FROM jobs WHERE account = $1 AND state NOT IN ('queued', 'running')
                     ORDER BY number DESC, submitted_ms DESC, id DESC LIMIT $2)
             RETURNING id, result_key, result_bytes",
        )
        .bind(&account)
        .bind(i64::from(kept))
        .fetch_all(&mut *connection)
        .await?;
        let mut freed = 0;
        for row in gone {
            let job: String = row.try_get(0)?;
            query("DELETE FROM attempts WHERE job = $1").bind(job).execute(&mut *connection).await?;
            if let Some(file) = row.try_get(1)? {
                expired.files.push(file);
                freed += row.try_get::<Option<i64>, _>(2)?.unwrap_or(0);
            }
            expired.jobs += 1;
        }
        if freed != 0 {
            stores(&mut *connection, &account, -freed).await?;
        }
    }
    Ok(())
}

pub(super) async fn expire_audit(store: &Sqlite, before_ms: Milliseconds, kept_erasures: u32) -> Result<()> {
    let kept = i64::from(kept_erasures);
    // Looked for beside the one that writes: it takes the longer the longer the log is.
    let many = query("SELECT account FROM audit WHERE action = $1 GROUP BY account HAVING COUNT(*) > $2");
    let many = many.bind(ERASE).bind(kept).fetch_all(&store.readers).await?;
    store
        .writer
        .write(move |connection| {
            Box::pin(async move {
                let gone = query("DELETE FROM audit WHERE at_ms < $1").bind(number(before_ms));
                gone.execute(&mut *connection).await?;
                for row in many {
                    let account: String = row.try_get(0)?;
                    query(
                        "DELETE FROM audit WHERE action = $1 AND account = $2 AND (at_ms, subject) <= (
                             SELECT at_ms, subject FROM audit WHERE action = $1 AND account = $2
                             ORDER BY at_ms DESC, subject DESC LIMIT 1 OFFSET $3)",
                    )
                    .bind(ERASE)
                    .bind(account)
                    .bind(kept)
                    .execute(&mut *connection)
                    .await?;
                }
                Ok(())
            })
        })
        .await
}

pub(super) async fn orphans(store: &Sqlite, files: &[String]) -> Result<Vec<String>> {
    let mut orphans = Vec::new();
    for file in files {
        let Some(job) = crate::files::job_of(file) else { continue };
        let row = query("SELECT result_key, state FROM jobs WHERE id = $1").bind(job);
        let owned = match row.fetch_optional(&store.readers).await? {
            Some(row) if *file == crate::files::program(job) => {
                !rows::state(row.try_get("state")?)?.is_final()
            }
            Some(row) => row.try_get::<Option<String>, _>("result_key")?.as_ref() == Some(file),
            None => false,
        };
        if !owned {
            orphans.push(file.clone());
        }
    }
    Ok(orphans)
}
