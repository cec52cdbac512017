//! What the targets share.

use std::time::{Duration, Instant};

/// An input on which the processor works longer, sanitizers included, is a finding.
const SLOWEST: Duration = Duration::from_secs(5);

/// Runs a target's work on one input, and panics if the processor took longer than [`SLOWEST`] for it. The processor's time, so
/// that a finding does not depend on what else the machine does; what never ends is libFuzzer's own timeout to see.
pub fn timed(work: impl FnOnce()) {
    let before = processor_time();
    let started = Instant::now();
    work();
    let took = match (before, processor_time()) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => started.elapsed(),
    };
    assert!(took <= SLOWEST, "one input took {took:?}");
}

/// How long this thread has run; none where the system does not say.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}
