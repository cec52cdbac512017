//! `pellucid keys`.

use std::io::Write;

use pellucid_server::admin::{self, KeyRequest};
use pellucid_server::keys::Scope;
use pellucid_server::store::{Account, AuditEntry};
use pellucid_server::time;
use serde_json::json;

use super::arguments::{CreateKey, KeyScope, KeysCommand};
use super::{finished, read};
use crate::commands::write_json;
use crate::failure::Failure;

/// Makes, lists or revokes keys.
pub(crate) fn keys(command: &KeysCommand, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        KeysCommand::Create(create) => make(create, out),
        KeysCommand::List { configuration, json } => {
            list(&admin::list_keys(&finished(read(configuration)?)?)?, *json, out)
        }
        KeysCommand::Log { limit, configuration, json } => {
            log(&admin::audit_log(&finished(read(configuration)?)?, *limit)?, *json, out)
        }
        KeysCommand::Limit { account, limit, weight, configuration } => {
            let config = finished(read(configuration)?)?;
            let shown = |account: &Account| json!({ "account": account.name, "weight": account.weight, "limits": account.limits });
            match account {
                Some(name) => write_json(&shown(&admin::change_account(&config, name, *weight, limit)?), out),
                None => {
                    let accounts = admin::list_accounts(&config)?;
                    write_json(&accounts.iter().map(shown).collect::<Vec<_>>(), out)
                }
            }
        }
        KeysCommand::Revoke { key, configuration } => {
            if admin::revoke_key(&finished(read(configuration)?)?, key)? {
                return Ok(writeln!(out, "revoked")?);
            }
            Err(Failure::Message("there is no such key, or it is revoked; see `pellucid keys list`".into()))
        }
    }
}

fn make(create: &CreateKey, out: &mut dyn Write) -> Result<(), Failure> {
    let scope = |scope: &KeyScope| match scope {
        KeyScope::Submit => Scope::Submit,
        KeyScope::Admin => Scope::Admin,
    };
    let request = KeyRequest {
        account: create.account.clone(),
        scopes: create.scope.iter().map(scope).collect(),
        label: create.label.clone(),
        weight: create.weight,
        limits: create.limit.clone(),
    };
    let config = finished(read(&create.configuration)?)?;
    let key = admin::create_key(&config, &request)?;
    let folder = config.server.data.display();
    eprintln!("the key of `{}`, for the service that keeps {folder}; it is shown this once:", create.account);
    Ok(writeln!(out, "{key}")?)
}

fn log(entries: &[AuditEntry], as_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    if as_json {
        let row = |entry: &AuditEntry| {
            json!({ "at": time::text(entry.at_ms), "account": entry.account, "key": entry.key,
                "action": entry.action, "subject": entry.subject })
        };
        return write_json(&entries.iter().map(row).collect::<Vec<_>>(), out);
    }
    writeln!(out, "{:<26} {:<24} {:<10} {:<12} of", "at", "account", "key", "action")?;
    for AuditEntry { at_ms, account, key, action, subject } in entries {
        writeln!(out, "{:<26} {account:<24} {key:<10} {action:<12} {subject}", time::text(*at_ms))?;
    }
    Ok(())
}

fn list(keys: &[pellucid_server::store::Key], as_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let names = |key: &pellucid_server::store::Key| {
        key.scopes.iter().map(|scope| scope.name().to_owned()).collect::<Vec<_>>()
    };
    if as_json {
        let rows: Vec<_> = keys
            .iter()
            .map(|key| {
                json!({
                    "id": key.id, "account": key.account, "scopes": names(key), "label": key.label,
                    "created_at": time::text(key.created_ms), "revoked_at": key.revoked_ms.map(time::text),
                })
            })
            .collect();
        return write_json(&rows, out);
    }
    writeln!(out, "{:<10} {:<24} {:<14} {:<26} label", "id", "account", "scopes", "created")?;
    for key in keys {
        let revoked = key.revoked_ms.map_or_else(String::new, |at| format!("  (revoked {})", time::text(at)));
        let (scopes, created) = (names(key).join(","), time::text(key.created_ms));
        writeln!(
            out,
            "{:<10} {:<24} {scopes:<14} {created:<26} {}{revoked}",
            key.id, key.account, key.label
        )?;
    }
    Ok(())
}
