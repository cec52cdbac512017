//! What the process holds, as the system tells it, and what of it are caches that may be there.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Counts;
use crate::load::service::{Person, Service};
use crate::shell::Outcome;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(5);

/// What the process held at a moment.
pub(super) struct Sample {
    pub seconds: f64,
    /// Bytes.
    pub resident: u64,
    /// Bytes of it that are caches of prefixes, as the service tells.
    pub caches: u64,
    pub threads: u64,
    pub files: u64,
    /// Good programs that were done by then.
    pub done: u64,
}

/// Looks again and again, until the time is over; earlier where somebody has given up, or the process is gone.
pub(super) fn watch(
    service: &Service,
    started: Instant,
    time: Duration,
    given_up: impl Fn() -> bool,
    counts: &Counts,
) -> Outcome<Vec<Sample>> {
    let (process, operator) = (service.process(), service.operator());
    let mut samples = Vec::new();
    while started.elapsed() < time && !given_up() {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))
            .map_err(|error| format!("the service is gone: {error}"))?;
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next())
                .and_then(|word| word.parse().ok())
                .unwrap_or(0)
        };
        samples.push(Sample {
            seconds: started.elapsed().as_secs_f64(),
            resident: number("VmRSS:") * 1024,
            caches: caches(&operator)?,
            threads: number("Threads:"),
            files: std::fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64,
            done: counts.done.load(Ordering::Relaxed),
        });
        let next = started + PERIOD * samples.len() as u32;
        std::thread::sleep(next.saturating_duration_since(Instant::now()).min(PERIOD));
    }
    Ok(samples)
}

fn caches(operator: &Person) -> Outcome<u64> {
    let metrics = operator.text("/metrics")?;
    let line = metrics.lines().find_map(|line| line.strip_prefix("pellucid_prefix_cache_bytes "));
    Ok(line.ok_or("it does not tell what its caches hold")?.trim().parse::<f64>()? as u64)
}
