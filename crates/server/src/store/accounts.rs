//! Accounts, keys, usage and the audit log.

use pellucid_client::api::UsageDay;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Row, query};

use super::rows::{self, number};
use super::sqlite::Sqlite;
use super::{Account, AuditEntry, Key, Milliseconds, Result};

type Sql<T> = std::result::Result<T, sqlx::Error>;

pub(super) async fn put_account(
    store: &Sqlite,
    account: &Account,
    noted: Option<AuditEntry>,
    at_ms: Milliseconds,
) -> Result<()> {
    let account = account.clone();
    store
        .writer
        .write(move |connection| {
            Box::pin(async move {
                upsert_account(&mut *connection, &account, at_ms).await?;
                note(connection, noted).await
            })
        })
        .await
}

async fn upsert_account(
    connection: &mut SqliteConnection,
    account: &Account,
    at_ms: Milliseconds,
) -> Sql<()> {
    query(
        "INSERT INTO accounts (name, limits, weight, created_ms) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE SET limits = excluded.limits, weight = excluded.weight",
    )
    .bind(&account.name)
    .bind(rows::to_json(&account.limits)?)
    .bind(account.weight)
    .bind(number(at_ms))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn account(store: &Sqlite, name: &str) -> Result<Option<Account>> {
    let row = query("SELECT name, limits, weight FROM accounts WHERE name = $1").bind(name);
    let row = row.fetch_optional(&store.readers).await?;
    Ok(row.as_ref().map(rows::account).transpose()?)
}

pub(super) async fn accounts(store: &Sqlite) -> Result<Vec<Account>> {
    let found =
        query("SELECT name, limits, weight FROM accounts ORDER BY name").fetch_all(&store.readers).await?;
    Ok(found.iter().map(rows::account).collect::<std::result::Result<_, _>>()?)
}

pub(super) async fn create_key(
    store: &Sqlite,
    account: &Account,
    key: &Key,
    noted: Option<AuditEntry>,
) -> Result<()> {
    let (account, key) = (account.clone(), key.clone());
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.name()).collect();
    let scopes = scopes.join(" ");
    store
        .writer
        .write(move |connection| {
            Box::pin(async move {
                upsert_account(&mut *connection, &account, key.created_ms).await?;
                query(
                    "INSERT INTO keys (id, account, digest, scopes, label, created_ms) VALUES ($1, $2, $3, $4, $5, $6)",
                )
                .bind(key.id)
                .bind(key.account)
                .bind(key.digest)
                .bind(scopes)
                .bind(key.label)
                .bind(number(key.created_ms))
                .execute(&mut *connection)
                .await?;
                note(connection, noted).await
            })
        })
        .await
}

pub(super) async fn key(store: &Sqlite, id: &str) -> Result<Option<(Key, Account)>> {
    let row = query(
        "SELECT keys.id, keys.account, keys.digest, keys.scopes, keys.label, keys.created_ms, keys.revoked_ms,
                accounts.name, accounts.limits, accounts.weight
         FROM keys JOIN accounts ON accounts.name = keys.account WHERE keys.id = $1 AND keys.revoked_ms IS NULL",
    )
    .bind(id)
    .fetch_optional(&store.readers)
    .await?;
    Ok(row.map(|row| Ok::<_, sqlx::Error>((rows::key(&row)?, rows::account(&row)?))).transpose()?)
}

pub(super) async fn keys(store: &Sqlite) -> Result<Vec<Key>> {
    let found = query(
        "SELECT id, account, digest, scopes, label, created_ms, revoked_ms FROM keys ORDER BY created_ms DESC, id",
    )
    .fetch_all(&store.readers)
    .await?;
    Ok(found.iter().map(rows::key).collect::<std::result::Result<_, _>>()?)
}

pub(super) async fn revoke_key(
    store: &Sqlite,
    id: &str,
    noted: Option<AuditEntry>,
    at_ms: Milliseconds,
) -> Result<bool> {
    let id = id.to_owned();
    store
        .writer
        .write(move |connection| {
            Box::pin(async move {
                let done = query("UPDATE keys SET revoked_ms = $1 WHERE id = $2 AND revoked_ms IS NULL")
                    .bind(number(at_ms))
                    .bind(id)
                    .execute(&mut *connection)
                    .await?;
                let revoked = done.rows_affected() > 0;
                note(connection, noted.filter(|_| revoked)).await?;
                Ok(revoked)
            })
        })
        .await
}

fn usage_day(row: &sqlx::sqlite::SqliteRow) -> std::result::Result<UsageDay, sqlx::Error> {
    let whole = |column: &str| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(column)?.max(0) as u64);
    Ok(UsageDay {
        day: row.try_get("day")?,
        model: row.try_get("model")?,
        jobs: whole("jobs")?,
        failed: whole("failed")?,
        milliseconds: row.try_get("milliseconds")?,
        tokens: whole("tokens")?,
        result_bytes: whole("result_bytes")?,
    })
}

pub(super) async fn usage(store: &Sqlite, account: &str, since_day: &str) -> Result<Vec<UsageDay>> {
    let found = query(
        "SELECT day, model, jobs, failed, milliseconds, tokens, result_bytes FROM usage
         WHERE account = $1 AND day >= $2 ORDER BY day DESC, model",
    )
    .bind(account)
    .bind(since_day)
    .fetch_all(&store.readers)
    .await?;
    Ok(found.iter().map(usage_day).collect::<std::result::Result<_, _>>()?)
}

pub(super) async fn usage_of_all(store: &Sqlite, since_day: &str) -> Result<Vec<(String, UsageDay)>> {
    let found = query(
        "SELECT account, day, model, jobs, failed, milliseconds, tokens, result_bytes FROM usage
         WHERE day >= $1 ORDER BY day DESC, account, model",
    )
    .bind(since_day)
    .fetch_all(&store.readers)
    .await?;
    let both = found.iter().map(|row| Ok::<_, sqlx::Error>((row.try_get("account")?, usage_day(row)?)));
    Ok(both.collect::<std::result::Result<_, _>>()?)
}

pub(super) async fn metered(store: &Sqlite, account: &str, day: &str, since_ms: Milliseconds) -> Result<f64> {
    let row = query(
        "SELECT CAST(COALESCE((SELECT SUM(CASE WHEN priced_ms > milliseconds THEN priced_ms ELSE milliseconds END)
                               FROM usage WHERE account = $1 AND day = $2), 0) AS DOUBLE PRECISION)
              + COALESCE((SELECT SUM(estimated_ms) FROM jobs
                          WHERE account = $1 AND state IN ('queued', 'running') AND submitted_ms >= $3), 0)",
    )
    .bind(account)
    .bind(day)
    .bind(number(since_ms))
    .fetch_one(&store.readers)
    .await?;
    Ok(row.try_get::<f64, _>(0)?)
}

pub(super) async fn stored_bytes(store: &Sqlite, account: &str) -> Result<u64> {
    let row = query("SELECT bytes FROM stored WHERE account = $1").bind(account);
    let row = row.fetch_optional(&store.readers).await?;
    let bytes = row.map(|row| row.try_get::<i64, _>(0)).transpose()?;
    Ok(bytes.unwrap_or(0).max(0) as u64)
}

/// A change of what an account's results take, within the change that makes it so.
pub(super) async fn stores(
    connection: &mut SqliteConnection,
    account: &str,
    bytes: i64,
) -> std::result::Result<(), sqlx::Error> {
    query(
        "INSERT INTO stored (account, bytes) VALUES ($1, $2)
         ON CONFLICT (account) DO UPDATE SET bytes = stored.bytes + excluded.bytes",
    )
    .bind(account)
    .bind(bytes)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn audit(store: &Sqlite, entry: AuditEntry) -> Result<()> {
    store.writer.write_one(move |connection| Box::pin(note(connection, Some(entry)))).await
}

/// Adds to the audit log, within the change that it is about.
async fn note(connection: &mut SqliteConnection, entry: Option<AuditEntry>) -> Sql<()> {
    let Some(entry) = entry else { return Ok(()) };
    query("INSERT INTO audit (at_ms, account, key, action, subject) VALUES ($1, $2, $3, $4, $5)")
        .bind(number(entry.at_ms))
        .bind(entry.account)
        .bind(entry.key)
        .bind(entry.action)
        .bind(entry.subject)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn audit_log(store: &Sqlite, limit: u32) -> Result<Vec<AuditEntry>> {
    let found = query("SELECT at_ms, account, key, action, subject FROM audit ORDER BY at_ms DESC LIMIT $1")
        .bind(i64::from(limit))
        .fetch_all(&store.readers)
        .await?;
    let entry = |row: &sqlx::sqlite::SqliteRow| {
        Ok::<_, sqlx::Error>(AuditEntry {
            at_ms: row.try_get::<i64, _>("at_ms")?.max(0) as u64,
            account: row.try_get("account")?,
            key: row.try_get("key")?,
            action: row.try_get("action")?,
            subject: row.try_get("subject")?,
        })
    };
    Ok(found.iter().map(entry).collect::<std::result::Result<_, _>>()?)
}
