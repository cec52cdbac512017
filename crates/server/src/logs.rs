//! Structured logs, to standard error: no prompt, no value, no key is ever among them.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Begins to log. Where something logs already, nothing changes.
pub fn begin(log: &Log) {
    let level = log.level.parse().unwrap_or(LevelFilter::INFO);
    // Of what is not ours, only what is wrong.
    let targets = Targets::new().with_target("pellucid_server", level).with_default(LevelFilter::WARN);
    let registry = tracing_subscriber::registry().with(targets);
    let written = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let begun = match log.format {
        LogFormat::Text => {
            registry.with(written.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).try_init()
        }
        LogFormat::Json => registry.with(written.json()).try_init(),
    };
    drop(begun);
}
