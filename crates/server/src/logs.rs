//! Structured logs, to standard error, and traces: no prompt, no value, no key is ever among them.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};
use crate::traces::Exporter;

/// Begins to log, and to trace where there is an exporter. Where something logs already, nothing changes.
pub(crate) fn begin(log: &Log, exporter: Option<&Exporter>) {
    let level = log.level.parse().unwrap_or(LevelFilter::INFO);
    // Of what is not ours, only what is wrong.
    let targets =
        |level| Targets::new().with_target("pellucid_server", level).with_default(LevelFilter::WARN);
    let written = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let written = match log.format {
        LogFormat::Text => written.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => written.json().boxed(),
    };
    let traced = exporter.map(|exporter| {
        let layer = tracing_opentelemetry::layer().with_tracer(exporter.tracer());
        layer.with_location(false).with_threads(false).with_filter(targets(LevelFilter::INFO))
    });
    let registry = tracing_subscriber::registry().with(written.with_filter(targets(level))).with(traced);
    drop(registry.try_init());
}
