//! The clock, and how times are written.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Days, SecondsFormat, Utc};

/// Milliseconds by which this process's clock goes otherwise than the machine's.
static MOVED: AtomicI64 = AtomicI64::new(0);

/// Milliseconds since the beginning of 1970, UTC.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(MOVED.load(Ordering::Relaxed))
}

/// Moves this process's clock by so many milliseconds, as somebody may move the machine's: for tests.
#[doc(hidden)]
pub fn move_clock(milliseconds: i64) {
    MOVED.fetch_add(milliseconds, Ordering::Relaxed);
}

fn date(ms: u64) -> DateTime<Utc> {
    i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// A time as in RFC 3339, with milliseconds: `2026-01-31T12:00:00.000Z`.
pub fn text(ms: u64) -> String {
    date(ms).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The day of a time: `2026-01-31`.
pub fn day(ms: u64) -> String {
    date(ms).format("%Y-%m-%d").to_string()
}

/// When the day of a time began.
pub fn day_begins(ms: u64) -> u64 {
    ms - ms % (24 * 60 * 60 * 1000)
}

/// The day so many days before that of a time.
pub fn day_before(ms: u64, days: u32) -> String {
    let earlier = date(ms).checked_sub_days(Days::new(u64::from(days)));
    earlier.unwrap_or(DateTime::<Utc>::MIN_UTC).format("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_rfc_3339() {
        assert_eq!(text(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(day(1_700_000_000_123), "2023-11-14");
        assert_eq!(day_before(1_700_000_000_123, 14), "2023-10-31");
        // A clock that is wrong by ages does no harm.
        assert!(!text(u64::MAX).is_empty());
        assert!(!day_before(0, u32::MAX).is_empty());
    }
}
