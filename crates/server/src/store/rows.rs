//! Rows as the types that they hold.

use pellucid_client::api::{Limits, Price, Priority, ResultInfo};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Account, JobState, Key, StoredJob, Waits};
use crate::keys::Scope;
use crate::time;

type Result<T> = std::result::Result<T, sqlx::Error>;

/// The columns that [`job`] reads.
pub(super) const JOB_COLUMNS: &str = "id, account, model, label, priority, state, suspect, cancel_requested, attempts, \
    submitted_ms, started_ms, finished_ms, deadline_ms, flops, peak_bytes, price_result_bytes, tokens, nodes, estimated_ms, \
    result_key, result_bytes, result_etag, expires_ms, outcome, problem";

/// A number as a column holds it; one that is beyond it is the largest.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

pub(super) fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// The name of a state, as a column holds it.
pub(super) fn state(name: &str) -> Result<JobState> {
    let states =
        [JobState::Queued, JobState::Running, JobState::Succeeded, JobState::Failed, JobState::Cancelled];
    let known = states.into_iter().find(|state| state.name() == name);
    known.ok_or_else(|| sqlx::Error::Decode(format!("`{name}` is no state").into()))
}

/// A priority as a column holds it.
pub(super) fn from_priority(priority: Priority) -> i64 {
    match priority {
        Priority::Low => -1,
        Priority::Normal => 0,
        Priority::High => 1,
    }
}

fn priority(value: i64) -> Priority {
    match value {
        ..0 => Priority::Low,
        0 => Priority::Normal,
        1.. => Priority::High,
    }
}

pub(super) fn job(row: &SqliteRow) -> Result<StoredJob> {
    let optional = |column: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(unsigned));
    let whole = |column: &str| Ok::<_, sqlx::Error>(unsigned(row.try_get::<i64, _>(column)?));
    let state = state(row.try_get("state")?)?;
    let result_key: Option<String> = row.try_get("result_key")?;
    let etag: Option<String> = row.try_get("result_etag")?;
    let result_gone = result_key.is_none() && etag.is_some();
    let result = match (&result_key, etag) {
        (Some(_), Some(etag)) => Some(ResultInfo {
            bytes: whole("result_bytes")?,
            etag,
            expires_at: time::text(optional("expires_ms")?.unwrap_or(0)),
            partial: state == JobState::Failed,
        }),
        _ => None,
    };
    let outcome: Option<String> = row.try_get("outcome")?;
    let problem: Option<String> = row.try_get("problem")?;
    Ok(StoredJob {
        id: row.try_get("id")?,
        account: row.try_get("account")?,
        model: row.try_get("model")?,
        label: row.try_get("label")?,
        priority: priority(row.try_get("priority")?),
        state,
        suspect: row.try_get::<i64, _>("suspect")? != 0,
        cancel_requested: row.try_get::<i64, _>("cancel_requested")? != 0,
        attempts: row.try_get::<i64, _>("attempts")? as u32,
        submitted_ms: whole("submitted_ms")?,
        started_ms: optional("started_ms")?,
        finished_ms: optional("finished_ms")?,
        deadline_ms: optional("deadline_ms")?,
        price: Price {
            milliseconds: row.try_get("estimated_ms")?,
            flops: whole("flops")?,
            tokens: whole("tokens")?,
            nodes: whole("nodes")?,
            peak_bytes: whole("peak_bytes")?,
            kept_bytes: 0,
            recomputed_flops: 0,
            result_bytes: whole("price_result_bytes")?,
        },
        result,
        result_key,
        result_gone,
        outcome: outcome.map(|text| json(&text)).transpose()?.unwrap_or_default(),
        problem: problem.map(|text| json(&text)).transpose()?,
    })
}

pub(super) fn waits(row: &SqliteRow) -> Result<Waits> {
    Ok(Waits { job: job(row)?, program_bytes: unsigned(row.try_get("program_bytes")?) })
}

pub(super) fn account(row: &SqliteRow) -> Result<Account> {
    let limits: Limits = json(row.try_get("limits")?)?;
    Ok(Account { name: row.try_get("name")?, limits, weight: row.try_get("weight")? })
}

pub(super) fn key(row: &SqliteRow) -> Result<Key> {
    let scopes: String = row.try_get("scopes")?;
    Ok(Key {
        id: row.try_get("id")?,
        account: row.try_get("account")?,
        digest: row.try_get("digest")?,
        scopes: scopes.split(' ').filter_map(Scope::named).collect(),
        label: row.try_get("label")?,
        created_ms: unsigned(row.try_get("created_ms")?),
        revoked_ms: row.try_get::<Option<i64>, _>("revoked_ms")?.map(unsigned),
    })
}
