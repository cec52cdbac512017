//! `pellucid usage`.

use std::io::Write;

use pellucid_server::admin;
use serde_json::json;

use super::arguments::Usage;
use super::{finished, read};
use crate::commands::write_json;
use crate::failure::Failure;
use crate::text;

/// What accounts used, day by day.
pub(crate) fn usage(usage: &Usage, out: &mut dyn Write) -> Result<(), Failure> {
    let days = admin::usage(&finished(read(&usage.configuration)?)?, usage.days)?;
    if usage.json {
        let rows: Vec<_> =
            days.iter().map(|(account, day)| json!({ "account": account, "used": day })).collect();
        return write_json(&rows, out);
    }
    writeln!(
        out,
        "{:<11} {:<20} {:<24} {:>9} {:>8} {:>12} {:>12} {:>14}",
        "day", "account", "model", "jobs", "failed", "seconds", "tokens", "result bytes"
    )?;
    for (account, day) in days {
        writeln!(
            out,
            "{:<11} {account:<20} {:<24} {:>9} {:>8} {:>12.3} {:>12} {:>14}",
            day.day,
            day.model,
            text::grouped(day.jobs),
            text::grouped(day.failed),
            day.milliseconds / 1000.0,
            text::grouped(day.tokens),
            text::grouped(day.result_bytes)
        )?;
    }
    Ok(())
}
