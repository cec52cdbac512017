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

/// What a panic said, where it may be told: what is put together as it happens may hold what a program holds.
fn said(payload: &(dyn std::any::Any + Send)) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("what it said is not told: it may hold a prompt")
}

/// From here on a panic is logged by its place, and by words of this program's own alone.
pub(crate) fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let (thread, said) = (thread.name().unwrap_or_default(), said(panic.payload()));
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(thread, place, said, "panicked");
    }));
}

#[cfg(test)]
mod tests {
    use super::said;

    #[test]
    fn of_a_panic_only_constant_words_are_told() {
        let prompt = String::from("a very private prompt \u{e9}");
        let cut = std::panic::catch_unwind(|| prompt[..prompt.len() - 1].len()).unwrap_err();
        let message = cut.downcast_ref::<String>().unwrap();
        assert!(message.contains("private"), "this is what must not be told: {message}");
        assert!(!said(&*cut).contains("private"));
        let constant = std::panic::catch_unwind(|| panic!("a constant")).unwrap_err();
        assert_eq!(said(&*constant), "a constant");
    }
}
