//! What whoever runs the service does beside it: keys, accounts, usage; and running it to its end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use pellucid_client::api::{Limits, UsageDay};
use serde_json::Value;

use crate::config::{Config, ModelConfig, limit_faults};
use crate::keys::{NewKey, NoRandomness, Scope};
use crate::service::{OPEN_ACCOUNT, StartError, open_store, open_store_to_read};
use crate::store::{Account, AuditEntry, Key, Store, StoreError};
use crate::traces::Exporter;
use crate::{logs, time};

/// Threads for what makes a thread wait: files, checks, results, models that are opened and closed. All of it ends by itself, and what
/// is more waits. Each thread has a stack and a part of the heap for as long as it is used, and under load all are, in turn.
const BLOCKING_THREADS: usize = 32;

/// Why it is not done.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The data folder or the store cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random bytes.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The system gives no threads.
    #[error("the system gives no threads: {0}")]
    Threads(io::Error),
    /// What was asked for cannot be.
    #[error("{0}")]
    Wrong(String),
}

/// A key that is to be made.
#[derive(Clone, Debug, Default)]
pub struct KeyRequest {
    /// Whose it is; the account is made where it is not there.
    pub account: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// What it is called.
    pub label: String,
    /// The account's share; none: as it is, 1 where it is new.
    pub weight: Option<f64>,
    /// The account's limits that are other than they were: `name=value`, `name=none`.
    pub limits: Vec<String>,
}

/// Serves until Ctrl-C or SIGTERM, then drains. `ready` is told the address, and whether it is TLS.
///
/// # Errors
/// Why it does not start.
pub fn run(config: Config, ready: impl FnOnce(SocketAddr, bool)) -> Result<(), AdminError> {
    let exporter = Exporter::begin(&config.trace).map_err(AdminError::Wrong)?;
    logs::begin(&config.log, exporter.as_ref());
    logs::tell_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(AdminError::Threads)?;
    let served = runtime.block_on(async {
        let _kept = survive_file_limits();
        crate::http::serve(config, ready, stopped()).await
    });
    // Work that does not end by itself must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    drop(exporter);
    Ok(served?)
}

/// Where the system bounds the size of files (`LimitFSIZE=`), what goes beyond is a write that fails, not the process's end.
#[cfg(target_os = "linux")]
fn survive_file_limits() -> Option<tokio::signal::unix::Signal> {
    const SIGXFSZ: i32 = 25;
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(SIGXFSZ)).ok()
}

#[cfg(not(target_os = "linux"))]
fn survive_file_limits() {}

async fn stopped() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = interrupt.await;
}

fn block<T>(work: impl Future<Output = Result<T, AdminError>>) -> Result<T, AdminError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(AdminError::Threads)?.block_on(work)
}

/// Makes a key: its text, which is shown this once.
///
/// # Errors
/// Where the store cannot be written, or a limit is none.
pub fn create_key(config: &Config, request: &KeyRequest) -> Result<String, AdminError> {
    if !crate::config::is_account_name(&request.account) {
        let message = "an account's name is 1 to 64 letters, digits, `-`, `_`, `.` and `@`";
        return Err(AdminError::Wrong(message.into()));
    }
    block(async {
        let store = open_store(&config.server.data, config.store.durability).await?;
        let now = time::now_ms();
        let known = store.account(&request.account).await?;
        if request.account == OPEN_ACCOUNT
            && !store.keys().await?.iter().any(|key| key.account == OPEN_ACCOUNT)
        {
            let message = format!(
                "`{OPEN_ACCOUNT}` is whoever uses a service without keys, who may do all; take another name"
            );
            return Err(AdminError::Wrong(message));
        }
        let new = Account { name: request.account.clone(), limits: config.limits.0.clone(), weight: 1.0 };
        let account = known.unwrap_or(new);
        let account = changed_account(account, request.weight, &request.limits, &config.models)?;
        let made = NewKey::make()?;
        let key = Key {
            id: made.id.clone(),
            account: account.name.clone(),
            digest: made.digest,
            scopes: request.scopes.clone(),
            label: request.label.clone(),
            created_ms: now,
            revoked_ms: None,
        };
        store.create_key(&account, &key, noted(&account.name, "create key", &made.id)).await?;
        store.close().await;
        Ok(made.text)
    })
}

/// Changes an account's limits and its share: they hold from its next request on. What they are then.
///
/// # Errors
/// Where there is no such account, a limit is none, or the store cannot be written.
pub fn change_account(
    config: &Config,
    name: &str,
    weight: Option<f64>,
    limits: &[String],
) -> Result<Account, AdminError> {
    block(async {
        let store = open_store(&config.server.data, config.store.durability).await?;
        let Some(known) = store.account(name).await? else {
            let accounts = store.accounts().await?;
            let hint =
                pellucid_graph::suggest::did_you_mean(name, accounts.iter().map(|one| one.name.as_str()));
            let hint = hint.unwrap_or_else(|| "`pellucid keys create` makes one with its first key".into());
            return Err(AdminError::Wrong(format!("there is no account `{name}`; {hint}")));
        };
        let account = changed_account(known.clone(), weight, limits, &config.models)?;
        if account != known {
            let noted = noted(&account.name, "change limits", &limits.join(" "));
            store.put_account(&account, noted, time::now_ms()).await?;
        }
        store.close().await;
        Ok(account)
    })
}

fn changed_account(
    account: Account,
    weight: Option<f64>,
    limits: &[String],
    models: &[ModelConfig],
) -> Result<Account, AdminError> {
    let weight = weight.unwrap_or(account.weight);
    if !(weight > 0.0 && weight.is_finite()) {
        return Err(AdminError::Wrong("a weight is above 0".into()));
    }
    let limits = changed(&account.limits, limits, models)?;
    Ok(Account { limits, weight, ..account })
}

fn noted(account: &str, action: &str, subject: &str) -> Option<AuditEntry> {
    Some(AuditEntry {
        at_ms: time::now_ms(),
        account: account.to_owned(),
        key: "operator".to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
    })
}

/// Limits with some of them changed: `name=value`, `name=none`.
fn changed(limits: &Limits, changes: &[String], models: &[ModelConfig]) -> Result<Limits, AdminError> {
    let wrong = |message: String| AdminError::Wrong(message);
    let names = crate::config::limit_names();
    let mut value = serde_json::to_value(limits).map_err(|error| wrong(error.to_string()))?;
    for change in changes {
        let (name, text) =
            change.split_once('=').ok_or_else(|| wrong(format!("`{change}` is not `limit=value`")))?;
        if !names.iter().any(|known| known == name) {
            let hint = pellucid_graph::suggest::did_you_mean(name, names.iter().map(String::as_str));
            return Err(wrong(format!(
                "there is no limit `{name}`; {}",
                hint.unwrap_or_else(|| names.join(", "))
            )));
        }
        value[name] = match text {
            "none" => Value::Null,
            // Without a name nothing may be used.
            _ if name == "models" => text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect(),
            text => {
                serde_json::from_str(text).map_err(|_| wrong(format!("`{text}` is no value of `{name}`")))?
            }
        };
    }
    let limits = serde_json::from_value(value).map_err(|error| wrong(format!("the limits: {error}")))?;
    // Of what is as it was nobody asked.
    let asked = |name: &str| changes.iter().any(|change| change.split('=').next() == Some(name));
    let mut faults = limit_faults(&limits, models).into_iter();
    match faults.find(|(name, _)| asked(name)) {
        Some((_, message)) => Err(wrong(message)),
        None => Ok(limits),
    }
}

/// All accounts, by their names.
///
/// # Errors
/// Where the store cannot be read.
pub fn list_accounts(config: &Config) -> Result<Vec<Account>, AdminError> {
    block(async {
        let store = open_store_to_read(&config.server.data, config.store.durability).await?;
        Ok(store.accounts().await?)
    })
}

/// All keys, without their secrets, the newest first.
///
/// # Errors
/// Where the store cannot be read.
pub fn list_keys(config: &Config) -> Result<Vec<Key>, AdminError> {
    block(async {
        let store = open_store_to_read(&config.server.data, config.store.durability).await?;
        Ok(store.keys().await?)
    })
}

/// Revokes a key by its id, or by all of it; whether it was there and valid.
///
/// # Errors
/// Where the store cannot be written.
pub fn revoke_key(config: &Config, key: &str) -> Result<bool, AdminError> {
    let id = crate::keys::parts(key).map_or(key, |(id, _)| id);
    block(async {
        let store = open_store(&config.server.data, config.store.durability).await?;
        let revoked = store.revoke_key(id, noted("", "revoke key", id), time::now_ms()).await?;
        store.close().await;
        Ok(revoked)
    })
}

/// What accounts used in so many days back from today, the newest first.
///
/// # Errors
/// Where the store cannot be read.
pub fn usage(config: &Config, days: u32) -> Result<Vec<(String, UsageDay)>, AdminError> {
    block(async {
        let store = open_store_to_read(&config.server.data, config.store.durability).await?;
        let since = time::day_before(time::now_ms(), days.saturating_sub(1));
        Ok(store.usage_of_all(&since).await?)
    })
}

/// The audit log, the newest first.
///
/// # Errors
/// Where the store cannot be read.
pub fn audit_log(config: &Config, limit: u32) -> Result<Vec<AuditEntry>, AdminError> {
    block(async {
        let store = open_store_to_read(&config.server.data, config.store.durability).await?;
        Ok(store.audit_log(limit).await?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_changed_by_name() {
        let models = toml::from_str::<Config>("[[model]]\nid = 'a/b'\n[[model]]\nid = 'c'").unwrap().models;
        let change = |text: &str| changed(&Limits::default(), &[text.to_owned()], &models);
        assert_eq!(change("requests_per_minute=5").unwrap().requests_per_minute, Some(5));
        assert!(change("weights_readable=true").unwrap().weights_readable);
        assert_eq!(change("models=a/b, c").unwrap().models.unwrap(), ["a/b", "c"]);
        let limits = Limits { peak_bytes: Some(1), ..Limits::default() };
        assert_eq!(changed(&limits, &["peak_bytes=none".into()], &models).unwrap().peak_bytes, None);
        for (wrong, message) in [
            ("peak", "limit=value"),
            ("peak_byte=1", "did you mean `peak_bytes`?"),
            ("peak_bytes=much", "no value"),
            ("peak_bytes=-1", "the limits"),
            ("milliseconds_per_day=-5.0", "limits.milliseconds_per_day"),
            ("concurrent_jobs=0", "limits.concurrent_jobs"),
            ("models=a/b,nope", "`nope`"),
        ] {
            let told = change(wrong).unwrap_err().to_string();
            assert!(told.contains(message), "{told}");
        }
    }
}
