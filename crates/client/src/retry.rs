//! When to try again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::Error;

/// The pause before the first attempt after a failure; each later one is twice as long.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause that is not asked for by the service.
const LONGEST: Duration = Duration::from_secs(5);
/// How often a pause looks whether it is cancelled.
const GLANCE: Duration = Duration::from_millis(20);

/// Who waits for a request, and how long.
pub(crate) struct Watch<'a> {
    /// Set from elsewhere, to give up.
    pub cancel: Option<&'a AtomicBool>,
    /// Told of each failure that is not the last, with the pause that follows.
    pub retrying: &'a mut dyn FnMut(&Error, Duration),
    /// Whether some attempt may have arrived although no answer came back.
    pub may_have_arrived: bool,
}

impl<'a> Watch<'a> {
    pub fn new(cancel: Option<&'a AtomicBool>, retrying: &'a mut dyn FnMut(&Error, Duration)) -> Watch<'a> {
        Watch { cancel, retrying, may_have_arrived: false }
    }

    pub fn is_cancelled(&self) -> bool {
        is_cancelled(self.cancel)
    }
}

pub(crate) fn is_cancelled(cancel: Option<&AtomicBool>) -> bool {
    cancel.is_some_and(|cancel| cancel.load(Ordering::SeqCst))
}

/// Pauses that grow, until patience is at its end.
#[derive(Debug)]
pub(crate) struct Backoff {
    begun: Instant,
    attempts: u32,
}

impl Backoff {
    pub fn new() -> Backoff {
        Backoff { begun: Instant::now(), attempts: 0 }
    }

    /// How long it has gone on.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The next pause; none: it would end after patience does. `asked` is what the service asks for.
    pub fn pause(&mut self, patience: Duration, asked: Option<Duration>) -> Option<Duration> {
        let full = FIRST.saturating_mul(1 << self.attempts.min(10)).min(LONGEST);
        self.attempts += 1;
        // Many clients that lost the same service do not come back at the same moment.
        let spread = full.mul_f64(0.5 + 0.5 * random_part());
        let pause = asked.map_or(spread, |asked| asked.max(spread));
        (self.elapsed() + pause <= patience).then_some(pause)
    }
}

/// Waits, and looks meanwhile whether it is cancelled: false where it was.
pub(crate) fn wait(pause: Duration, cancel: Option<&AtomicBool>) -> bool {
    let until = Instant::now() + pause;
    loop {
        if is_cancelled(cancel) {
            return false;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(GLANCE));
    }
}

/// From 0 to 1; 1 where the system has no random numbers.
fn random_part() -> f64 {
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_end_with_patience() {
        let mut backoff = Backoff::new();
        let hour = Duration::from_secs(3600);
        let pauses: Vec<Duration> = (0..12).filter_map(|_| backoff.pause(hour, None)).collect();
        assert_eq!(pauses.len(), 12);
        assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST, "{pauses:?}");
        assert!(pauses[11] >= LONGEST / 2 && pauses[11] <= LONGEST, "{pauses:?}");
        assert_eq!(
            backoff.pause(hour, Some(hour / 2)),
            Some(hour / 2),
            "what the service asks for is honoured"
        );
        assert_eq!(backoff.pause(hour / 4, Some(hour / 2)), None, "but not beyond patience");
    }

    #[test]
    fn a_pause_ends_when_it_is_cancelled() {
        let cancel = AtomicBool::new(false);
        assert!(wait(Duration::from_millis(1), Some(&cancel)));
        cancel.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        assert!(!wait(Duration::from_secs(60), Some(&cancel)));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
