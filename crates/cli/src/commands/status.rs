//! `pellucid status`.

use std::io::Write;

use pellucid::client::api::{Account, ModelEntry, ModelState, ServiceState, ServiceStatus};
use serde::Serialize;

use crate::arguments::Status;
use crate::failure::Failure;
use crate::{remote, text};

#[derive(Serialize)]
struct Both {
    service: ServiceStatus,
    account: Account,
}

/// Shows how a service is, and what one's account may use there.
pub(crate) fn status(status: &Status, out: &mut dyn Write) -> Result<(), Failure> {
    let client = remote::client(&status.remote)?;
    let both = Both { service: client.status()?, account: client.account()? };
    if status.json {
        return super::write_json(&both, out);
    }
    let ServiceStatus { version, state, uptime_s, queue, running, models, .. } = &both.service;
    let state = match state {
        ServiceState::Serving => "serving",
        ServiceState::Draining => "being shut down, takes no new jobs",
    };
    writeln!(out, "{}: Pellucid {version}, {state}, up {}", client.address(), text::duration(*uptime_s))?;
    writeln!(
        out,
        "{} waiting of {} accounts, about {}; {running} running\n",
        queue.jobs,
        queue.accounts,
        text::duration(queue.milliseconds / 1000.0)
    )?;
    let titles = ["model", "state", "family", "layers", "hidden", "weights"].map(str::to_owned);
    let rows: Vec<[String; 6]> = models.iter().map(row).collect();
    text::write_table(&titles, &rows, out)?;
    writeln!(out)?;
    account(&both.account, out)
}

fn row(model: &ModelEntry) -> [String; 6] {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), text::grouped);
    let state = match (model.state, model.progress) {
        (ModelState::Loading, Some(part)) => format!("loading, {:.0} %", 100.0 * part),
        (state, _) => state.to_string(),
    };
    [
        if model.default { format!("{} (default)", model.id) } else { model.id.clone() },
        state,
        model.family.clone().unwrap_or_else(|| "-".to_owned()),
        number(model.layers),
        number(model.hidden),
        model.parameters_bytes.map_or_else(|| "-".to_owned(), text::bytes),
    ]
}

fn account(account: &Account, out: &mut dyn Write) -> Result<(), Failure> {
    let key = account.key.as_ref().map_or(String::new(), |key| format!(", key {key}"));
    writeln!(out, "account {}{key}: {}", account.account, account.scopes.join(", "))?;
    let (limits, used) = (&account.limits, &account.used);
    let of = |limit: Option<String>| limit.map_or(String::new(), |limit| format!(" of {limit}"));
    let count = |limit: Option<u64>| of(limit.map(text::grouped));
    let time = |limit: Option<f64>| of(limit.map(|milliseconds| text::duration(milliseconds / 1000.0)));
    writeln!(
        out,
        "  jobs: {}{} running, {}{} waiting",
        used.running_jobs,
        count(limits.concurrent_jobs),
        used.queued_jobs,
        count(limits.queued_jobs)
    )?;
    writeln!(
        out,
        "  engine time: {}{} in this minute, {}{} in this day",
        text::duration(used.milliseconds_minute / 1000.0),
        time(limits.milliseconds_per_minute),
        text::duration(used.milliseconds_day / 1000.0),
        time(limits.milliseconds_per_day)
    )?;
    writeln!(
        out,
        "  results: {}{}",
        text::bytes(used.stored_bytes),
        of(limits.stored_bytes.map(text::bytes))
    )?;
    let may = [
        (limits.generation, "generate"),
        (limits.training, "go back and train"),
        (limits.edits, "edit"),
        (limits.weights_readable, "read weights"),
    ];
    let not: Vec<&str> = may.iter().filter(|(may, _)| !may).map(|(_, what)| *what).collect();
    if !not.is_empty() {
        writeln!(out, "  may not: {}", not.join(", "))?;
    }
    Ok(())
}
