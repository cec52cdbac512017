//! Jobs and their attempts.

use std::collections::HashMap;

use pellucid_client::api::{JobQuery, Problem, ProblemKind};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row, query};

use super::accounts::stores;
use super::rows::{self, JOB_COLUMNS, number, to_json};
use super::sqlite::Sqlite;
use super::{
    Accepted, Ending, Finished, JobState, Milliseconds, NewJob, Outcome, Repaired, Result, StoredJob,
    StoredResult, Waits,
};
use crate::time;

/// Times that the process may die while a job runs.
const DEATHS: i64 = 2;

type Sql<T> = std::result::Result<T, sqlx::Error>;

/// A statement that reads whole jobs. `rest` is this file's own text.
fn select(rest: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!("SELECT {JOB_COLUMNS} FROM jobs {rest}"))
}

/// A statement that changes a job, and reads what it is then. `statement` is this file's own text.
fn changed(statement: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!("{statement} RETURNING {JOB_COLUMNS}"))
}

async fn own_job(connection: &mut SqliteConnection, account: &str, id: &str) -> Sql<Option<StoredJob>> {
    let found = query(select("WHERE id = $1 AND account = $2")).bind(id).bind(account);
    found.fetch_optional(connection).await?.as_ref().map(rows::job).transpose()
}

pub(super) async fn accept(store: &Sqlite, job: NewJob) -> Result<Accepted> {
    store.writer.write_one(move |connection| Box::pin(insert(connection, job))).await
}

/// Bytes of the results of an account, by the name of its parameter, that lie ready, and of those that its unfinished jobs may
/// come to. As a floating-point number a sum does not overflow, however high the prices.
fn promised(account: &'static str) -> String {
    format!(
        "CAST(COALESCE((SELECT bytes FROM stored WHERE account = {account}), 0) AS DOUBLE PRECISION)
            + COALESCE((SELECT SUM(CAST(price_result_bytes AS DOUBLE PRECISION)) FROM jobs
                        WHERE account = {account} AND state IN ('queued', 'running')), 0)"
    )
}

async fn insert(connection: &mut SqliteConnection, job: NewJob) -> Sql<Accepted> {
    // One statement, which is all that a submission waits for here.
    let done = query(AssertSqlSafe(format!(
        "INSERT INTO jobs (id, account, model, label, priority, state, submitted_ms, deadline_ms, idempotency_key,
             fingerprint, flops, peak_bytes, price_result_bytes, tokens, nodes, estimated_ms, program, number)
         SELECT $1, $2, $3, $4, $5, 'queued', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
             (SELECT COALESCE(MAX(number), 0) + 1 FROM jobs WHERE account = $2)
         WHERE $17 IS NULL OR {} + $12 <= $17
         ON CONFLICT (account, idempotency_key) DO NOTHING",
        promised("$2")
    )))
    .bind(&job.id)
    .bind(&job.account)
    .bind(&job.model)
    .bind(&job.label)
    .bind(rows::from_priority(job.priority))
    .bind(number(job.submitted_ms))
    .bind(job.deadline_ms.map(number))
    .bind(&job.idempotency_key)
    .bind(&job.fingerprint)
    .bind(number(job.price.flops))
    .bind(number(job.price.peak_bytes))
    .bind(number(job.price.result_bytes))
    .bind(number(job.price.tokens))
    .bind(number(job.price.nodes))
    .bind(job.price.milliseconds)
    .bind(&job.program)
    .bind(job.stored_bytes.map(number))
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() > 0 {
        return Ok(Accepted::New);
    }
    // One that was taken before is told so, and needs no room.
    if let Some(before) = before(&mut *connection, &job).await? {
        return Ok(before);
    }
    let row = query(AssertSqlSafe(format!("SELECT {}", promised("$1")))).bind(&job.account);
    let used = row.fetch_one(connection).await?.try_get::<f64, _>(0)?.max(0.0) as u64;
    Ok(Accepted::Full(used.saturating_add(job.price.result_bytes)))
}

/// What was kept under a job's idempotency key.
async fn before(connection: &mut SqliteConnection, job: &NewJob) -> Sql<Option<Accepted>> {
    let row = query(AssertSqlSafe(format!(
        "SELECT {JOB_COLUMNS}, fingerprint FROM jobs WHERE account = $1 AND idempotency_key = $2"
    )))
    .bind(&job.account)
    .bind(&job.idempotency_key)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let same = row.try_get::<Vec<u8>, _>("fingerprint")? == job.fingerprint;
    Ok(Some(if same { Accepted::Before(Box::new(rows::job(&row)?)) } else { Accepted::Conflict }))
}

pub(super) async fn begin(
    store: &Sqlite,
    jobs: &[String],
    at_ms: Milliseconds,
) -> Result<Vec<(String, u32)>> {
    let jobs = jobs.to_vec();
    store
        .writer
        .write(move |connection| {
            Box::pin(async move {
                let mut begun = Vec::with_capacity(jobs.len());
                for jobs in jobs.chunks(TOGETHER) {
                    begun.extend(begin_together(connection, jobs, at_ms).await?);
                }
                Ok(begun)
            })
        })
        .await
}

/// Jobs that begin by one statement, at most.
const TOGETHER: usize = 64;

/// Parameters for so many values, of which the first has this number, in as few different texts as there are powers of two: each is
/// prepared once. What is bound beyond the values may be any of them again.
fn parameters(first: usize, values: usize) -> (String, usize) {
    let many = values.next_power_of_two();
    let names: Vec<String> = (first..first + many).map(|number| format!("${number}")).collect();
    (names.join(", "), many)
}

/// Two statements, however many jobs: each statement is a way to another thread and back.
async fn begin_together(
    connection: &mut SqliteConnection,
    jobs: &[String],
    at_ms: Milliseconds,
) -> Sql<Vec<(String, u32)>> {
    let bound = |statement: String, jobs: &[String], many: usize| {
        let statement = query(AssertSqlSafe(statement)).bind(number(at_ms));
        jobs.iter().cycle().take(many).fold(statement, |statement, job| statement.bind(job.clone()))
    };
    let (names, many) = parameters(2, jobs.len());
    let update = format!(
        "UPDATE jobs SET state = 'running', started_ms = $1, attempts = attempts + 1
         WHERE id IN ({names}) AND state = 'queued' AND cancel_requested = 0 RETURNING id, attempts"
    );
    let rows = bound(update, jobs, many).fetch_all(&mut *connection).await?;
    let rows = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<i64, _>(1)? as u32)));
    let attempts = rows.collect::<Sql<HashMap<String, u32>>>()?;
    let begun = |job: &String| Some((job.clone(), *attempts.get(job)?));
    let begun: Vec<(String, u32)> = jobs.iter().filter_map(begun).collect();
    if begun.is_empty() {
        return Ok(begun);
    }
    let began: Vec<String> = begun.iter().map(|(job, _)| job.clone()).collect();
    let (names, many) = parameters(2, began.len());
    let insert = format!(
        "INSERT INTO attempts (job, number, started_ms) SELECT id, attempts, $1 FROM jobs WHERE id IN ({names})"
    );
    bound(insert, &began, many).execute(connection).await?;
    Ok(begun)
}

pub(super) async fn finish(store: &Sqlite, finished: Finished) -> Result<Option<StoredJob>> {
    store.writer.write(move |connection| Box::pin(end(connection, finished))).await
}

async fn end(connection: &mut SqliteConnection, finished: Finished) -> Sql<Option<StoredJob>> {
    let Finished { job, attempt, ending, outcome, at_ms } = finished;
    let name = match &ending {
        Ending::Done(_) => "done",
        Ending::Failed(..) => "failed",
        Ending::Cancelled => "cancelled",
        Ending::PutBack => "put_back",
        Ending::Suspected => "suspected",
    };
    let closed = query(
        "UPDATE attempts SET ended_ms = $1, outcome = $2 WHERE job = $3 AND number = $4 AND ended_ms IS NULL",
    )
    .bind(number(at_ms))
    .bind(name)
    .bind(&job)
    .bind(i64::from(attempt))
    .execute(&mut *connection)
    .await?;
    if closed.rows_affected() == 0 {
        return Ok(None);
    }
    let (state, result, problem) = match ending {
        Ending::PutBack | Ending::Suspected => {
            // One whose owner meanwhile wants it to end does not run again.
            let row = query(changed(
                "UPDATE jobs SET suspect = CASE WHEN $1 = 1 THEN 1 ELSE suspect END,
                     state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'queued' END,
                     program = CASE WHEN cancel_requested = 1 THEN NULL ELSE program END,
                     finished_ms = CASE WHEN cancel_requested = 1 THEN $2 ELSE NULL END
                 WHERE id = $3 AND state = 'running'",
            ))
            .bind(i64::from(matches!(ending, Ending::Suspected)))
            .bind(number(at_ms))
            .bind(&job)
            .fetch_optional(&mut *connection)
            .await?;
            let left = row.as_ref().map(rows::job).transpose()?;
            if let Some(ended) = left.as_ref().filter(|job| job.state.is_final()) {
                count(connection, ended, &outcome, 0, at_ms).await?;
            }
            return Ok(left);
        }
        Ending::Done(result) => (JobState::Succeeded, Some(result), None),
        Ending::Failed(problem, result) => (JobState::Failed, result, Some(problem)),
        Ending::Cancelled => (JobState::Cancelled, None, None),
    };
    let StoredResult { key, bytes, etag, expires_ms } = result.clone().unwrap_or_default();
    let row = query(changed(
        "UPDATE jobs SET state = $1, finished_ms = $2, result_key = $3, result_bytes = $4, result_etag = $5,
             expires_ms = $6, outcome = $7, problem = $8, program = NULL
         WHERE id = $9 AND state = 'running'",
    ))
    .bind(state.name())
    .bind(number(at_ms))
    .bind(result.is_some().then_some(key))
    .bind(result.is_some().then_some(number(bytes)))
    .bind(result.is_some().then_some(etag))
    .bind(result.is_some().then_some(number(expires_ms)))
    .bind(to_json(&outcome)?)
    .bind(problem.as_deref().map(to_json).transpose()?)
    .bind(&job)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let ended = rows::job(&row)?;
    if result.is_some() {
        stores(&mut *connection, &ended.account, number(bytes)).await?;
    }
    count(connection, &ended, &outcome, bytes, at_ms).await?;
    Ok(Some(ended))
}

/// Counts what a job that has ended took.
async fn count(
    connection: &mut SqliteConnection,
    ended: &StoredJob,
    outcome: &Outcome,
    result_bytes: u64,
    at_ms: Milliseconds,
) -> Sql<()> {
    query(
        "INSERT INTO usage (account, day, model, jobs, failed, flops, tokens, result_bytes, milliseconds, priced_ms)
         SELECT $1, $2, $3, 1, $4, jobs.flops, $5, $6, $7, jobs.estimated_ms FROM jobs WHERE jobs.id = $8
         ON CONFLICT (account, day, model) DO UPDATE SET jobs = usage.jobs + 1,
             failed = usage.failed + excluded.failed, flops = usage.flops + excluded.flops,
             tokens = usage.tokens + excluded.tokens, result_bytes = usage.result_bytes + excluded.result_bytes,
             milliseconds = usage.milliseconds + excluded.milliseconds,
             priced_ms = usage.priced_ms + excluded.priced_ms",
    )
    .bind(&ended.account)
    .bind(time::day(at_ms))
    .bind(&ended.model)
    .bind(i64::from(ended.state == JobState::Failed))
    .bind(number(outcome.tokens))
    .bind(number(result_bytes))
    .bind(outcome.milliseconds)
    .bind(&ended.id)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn cancel(
    store: &Sqlite,
    account: &str,
    job: &str,
    at_ms: Milliseconds,
) -> Result<Option<StoredJob>> {
    let (account, job) = (account.to_owned(), job.to_owned());
    store
        .writer
        .write(move |connection| {
            Box::pin(async move {
                query(
                    "UPDATE jobs SET cancel_requested = 1,
                         finished_ms = CASE WHEN state = 'queued' THEN $1 ELSE finished_ms END,
                         program = CASE WHEN state = 'queued' THEN NULL ELSE program END,
                         state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END
                     WHERE id = $2 AND account = $3 AND state IN ('queued', 'running')",
                )
                .bind(number(at_ms))
                .bind(&job)
                .bind(&account)
                .execute(&mut *connection)
                .await?;
                own_job(connection, &account, &job).await
            })
        })
        .await
}

pub(super) async fn refuse(
    store: &Sqlite,
    job: &str,
    problem: &Problem,
    at_ms: Milliseconds,
) -> Result<bool> {
    let (job, problem) = (job.to_owned(), problem.clone());
    store
        .writer
        .write(move |connection| {
            Box::pin(async move {
                let done = query(
                    "UPDATE jobs SET state = 'failed', finished_ms = $1, problem = $2, program = NULL
                     WHERE id = $3 AND state = 'queued'",
                )
                .bind(number(at_ms))
                .bind(to_json(&problem)?)
                .bind(job)
                .execute(connection)
                .await?;
                Ok(done.rows_affected() > 0)
            })
        })
        .await
}

pub(super) async fn job(store: &Sqlite, account: &str, job: &str) -> Result<Option<StoredJob>> {
    let mut connection = store.readers.acquire().await?;
    Ok(own_job(&mut connection, account, job).await?)
}

pub(super) async fn job_by_idempotency_key(
    store: &Sqlite,
    account: &str,
    key: &str,
) -> Result<Option<(StoredJob, Vec<u8>)>> {
    let row = query(AssertSqlSafe(format!(
        "SELECT {JOB_COLUMNS}, fingerprint FROM jobs WHERE account = $1 AND idempotency_key = $2"
    )))
    .bind(account)
    .bind(key)
    .fetch_optional(&store.readers)
    .await?;
    let both = row.map(|row| Ok::<_, sqlx::Error>((rows::job(&row)?, row.try_get("fingerprint")?)));
    Ok(both.transpose()?)
}

pub(super) async fn jobs(store: &Sqlite, account: &str, of: &JobQuery, limit: u32) -> Result<Vec<StoredJob>> {
    // What is not asked for does not stand there: a condition that may be empty goes by no index.
    let state = if of.state.is_some() { "AND state = $3" } else { "" };
    let after = match (&of.after, &of.state) {
        (None, _) => String::new(),
        (Some(_), state) => format!(
            "AND (submitted_ms, id) < (SELECT submitted_ms, id FROM jobs WHERE id = ${} AND account = $1)",
            if state.is_some() { 4 } else { 3 }
        ),
    };
    let statement =
        format!("WHERE account = $1 {state} {after} ORDER BY submitted_ms DESC, id DESC LIMIT $2");
    let mut found = query(select(&statement)).bind(account).bind(i64::from(limit));
    if let Some(state) = of.state {
        found = found.bind(state.name());
    }
    if let Some(after) = &of.after {
        found = found.bind(after);
    }
    let found = found.fetch_all(&store.readers).await?;
    Ok(found.iter().map(rows::job).collect::<Sql<_>>()?)
}

pub(super) async fn program(store: &Sqlite, job: &str) -> Result<Option<Vec<u8>>> {
    let row =
        query("SELECT program FROM jobs WHERE id = $1").bind(job).fetch_optional(&store.readers).await?;
    Ok(row.map(|row| row.try_get::<Option<Vec<u8>>, _>(0)).transpose()?.flatten())
}

pub(super) async fn queued(store: &Sqlite) -> Result<Vec<Waits>> {
    let statement = format!(
        "SELECT {JOB_COLUMNS}, COALESCE(LENGTH(program), 0) AS program_bytes FROM jobs
         WHERE state = 'queued' ORDER BY suspect DESC, submitted_ms, id"
    );
    let found = query(AssertSqlSafe(statement)).fetch_all(&store.readers).await?;
    Ok(found.iter().map(rows::waits).collect::<Sql<_>>()?)
}

pub(super) async fn put_back(store: &Sqlite, at_ms: Milliseconds) -> Result<u64> {
    store.writer.write(move |connection| Box::pin(put_all_back(connection, at_ms))).await
}

async fn put_all_back(connection: &mut SqliteConnection, at_ms: Milliseconds) -> Sql<u64> {
    query("UPDATE attempts SET ended_ms = $1, outcome = 'put_back' WHERE ended_ms IS NULL")
        .bind(number(at_ms))
        .execute(&mut *connection)
        .await?;
    // Who is to be cancelled is, at the next start.
    let back = query("UPDATE jobs SET state = 'queued' WHERE state = 'running' AND cancel_requested = 0");
    Ok(back.execute(connection).await?.rows_affected())
}

pub(super) async fn repair(store: &Sqlite, at_ms: Milliseconds) -> Result<Repaired> {
    store.writer.write(move |connection| Box::pin(mend(connection, at_ms))).await
}

/// Counts a job of which it is not known what it took: by its price.
pub(super) async fn count_by_price(
    connection: &mut SqliteConnection,
    job: &str,
    failed: bool,
    at_ms: Milliseconds,
) -> Sql<()> {
    query(
        "INSERT INTO usage (account, day, model, jobs, failed, flops, tokens, result_bytes, milliseconds, priced_ms)
         SELECT account, $1, model, 1, $2, flops, 0, 0, 0, estimated_ms FROM jobs WHERE id = $3
         ON CONFLICT (account, day, model) DO UPDATE SET jobs = usage.jobs + 1,
             failed = usage.failed + excluded.failed, flops = usage.flops + excluded.flops,
             priced_ms = usage.priced_ms + excluded.priced_ms",
    )
    .bind(time::day(at_ms))
    .bind(i64::from(failed))
    .bind(job)
    .execute(connection)
    .await?;
    Ok(())
}

async fn mend(connection: &mut SqliteConnection, at_ms: Milliseconds) -> Sql<Repaired> {
    let poisoned = Problem::new(
        ProblemKind::Poisoned,
        format!("The service's process ended {DEATHS} times while this job ran, so it is not tried again."),
    );
    query("UPDATE attempts SET ended_ms = $1, outcome = 'died' WHERE ended_ms IS NULL")
        .bind(number(at_ms))
        .execute(&mut *connection)
        .await?;
    let cancelled = query(
        "UPDATE jobs SET state = 'cancelled', finished_ms = $1, program = NULL
         WHERE state = 'running' AND cancel_requested = 1 RETURNING id",
    )
    .bind(number(at_ms))
    .fetch_all(&mut *connection)
    .await?;
    for row in &cancelled {
        let job: String = row.try_get("id")?;
        count_by_price(&mut *connection, &job, false, at_ms).await?;
    }
    let failed = query(
        "UPDATE jobs SET state = 'failed', finished_ms = $1, problem = $2, program = NULL
         WHERE state = 'running'
           AND (SELECT COUNT(*) FROM attempts WHERE attempts.job = jobs.id AND attempts.outcome = 'died') >= $3
         RETURNING id",
    )
    .bind(number(at_ms))
    .bind(to_json(&poisoned)?)
    .bind(DEATHS)
    .fetch_all(&mut *connection)
    .await?;
    for row in &failed {
        let job: String = row.try_get("id")?;
        count_by_price(&mut *connection, &job, true, at_ms).await?;
    }
    let again = query("UPDATE jobs SET state = 'queued', suspect = 1 WHERE state = 'running'")
        .execute(&mut *connection)
        .await?;
    let row = query("SELECT COUNT(*) FROM jobs WHERE state = 'queued'").fetch_one(connection).await?;
    Ok(Repaired {
        suspects: again.rows_affected(),
        poisoned: failed.len() as u64,
        queued: row.try_get::<i64, _>(0)?.max(0) as u64,
    })
}
