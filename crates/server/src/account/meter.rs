//! What accounts use over time: requests and priced milliseconds in a minute, priced milliseconds in a day.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use pellucid_client::api::{Limits, Problem, ProblemKind};

use super::exceeded;
use crate::time;

/// Milliseconds of a minute.
const MINUTE: u64 = 60_000;
/// The part of a minute's allowance up to which it counts as untouched.
const UNTOUCHED: f64 = 0.05;

/// What accounts use. Times are the caller's, so that they can be tested.
#[derive(Default)]
pub struct Meters {
    accounts: Mutex<HashMap<String, Meter>>,
}

#[derive(Default)]
struct Meter {
    /// Requests that may be made now; refilled with time.
    requests: Option<(f64, u64)>,
    /// When, and how many milliseconds.
    minute: VecDeque<(u64, f64)>,
    day: String,
    of_day: f64,
    /// Whether what was used that day before the service started is part of it.
    is_whole: bool,
}

impl Meter {
    fn used_in_minute(&mut self, now: u64) -> f64 {
        // Where the clock was set back, what lies ahead was spent just now: it is over a minute from here, not when the clock
        // comes there again.
        self.minute.iter_mut().for_each(|(at, _)| *at = (*at).min(now));
        while self.minute.front().is_some_and(|&(at, _)| at + MINUTE <= now) {
            self.minute.pop_front();
        }
        // A sum of nothing is -0.0, which nobody wants to read.
        self.minute.iter().fold(0.0, |sum, &(_, milliseconds)| sum + milliseconds)
    }

    fn used_in_day(&mut self, now: u64) -> f64 {
        let today = time::day(now);
        if self.day != today {
            // A day that begins while it is counted is counted whole.
            self.is_whole &= self.day < today;
            self.day = today;
            self.of_day = 0.0;
        }
        self.of_day
    }
}

impl Meters {
    fn with<R>(&self, account: &str, work: impl FnOnce(&mut Meter) -> R) -> R {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        work(accounts.entry(account.to_owned()).or_default())
    }

    /// Whether the account's use of today is known: after a start it is the store's to tell.
    pub fn knows_day(&self, account: &str, now: u64) -> bool {
        self.with(account, |meter| {
            meter.used_in_day(now);
            meter.is_whole
        })
    }

    /// What the account had used today when the service started.
    pub fn tell_day(&self, account: &str, now: u64, milliseconds: f64) {
        self.with(account, |meter| {
            meter.used_in_day(now);
            // What was spent since, before anybody asked, comes on top.
            meter.of_day += if meter.is_whole { 0.0 } else { milliseconds };
            meter.is_whole = true;
        });
    }

    /// Counts a request.
    ///
    /// # Errors
    /// 429, where there are too many.
    pub fn request(&self, account: &str, limits: &Limits, now: u64) -> Result<(), Box<Problem>> {
        let Some(allowed) = limits.requests_per_minute else { return Ok(()) };
        let allowed = allowed as f64;
        self.with(account, |meter| {
            let (left, since) = meter.requests.unwrap_or((allowed, now));
            let left = (left + allowed * now.saturating_sub(since) as f64 / MINUTE as f64).min(allowed);
            if left < 1.0 {
                meter.requests = Some((left, now));
                let mut problem = exceeded(
                    ProblemKind::TooManyRequests,
                    "requests_per_minute",
                    allowed,
                    allowed + 1.0,
                    "requests",
                );
                problem.retry_after_s =
                    Some(if allowed > 0.0 { (1.0 - left) * 60.0 / allowed } else { 3600.0 });
                return Err(Box::new(problem));
            }
            meter.requests = Some((left - 1.0, now));
            Ok(())
        })
    }

    /// Counts a job of so many priced milliseconds. One job alone may exceed the minute's, so that it can run at all.
    ///
    /// # Errors
    /// 429, where it is too much for now.
    pub fn job(
        &self,
        account: &str,
        limits: &Limits,
        milliseconds: f64,
        now: u64,
    ) -> Result<(), Box<Problem>> {
        self.with(account, |meter| {
            let minute = meter.used_in_minute(now);
            if let Some(allowed) = limits.milliseconds_per_minute
                && minute > allowed * UNTOUCHED
                && minute + milliseconds > allowed
            {
                let mut problem = exceeded(
                    ProblemKind::TooManyRequests,
                    "milliseconds_per_minute",
                    allowed,
                    minute + milliseconds,
                    "ms",
                );
                // When enough of the minute's use is over.
                let mut left = minute;
                let over = meter.minute.iter().find(|&&(_, used)| {
                    left -= used;
                    left <= 0.0 || left + milliseconds <= allowed
                });
                let at = over.map_or(now, |&(at, _)| at);
                problem.retry_after_s = Some((at + MINUTE).saturating_sub(now) as f64 / 1000.0);
                return Err(Box::new(problem));
            }
            let day = meter.used_in_day(now);
            if let Some(allowed) = limits.milliseconds_per_day
                && day + milliseconds > allowed
            {
                let mut problem = exceeded(
                    ProblemKind::TooManyRequests,
                    "milliseconds_per_day",
                    allowed,
                    day + milliseconds,
                    "ms",
                );
                let day_ms = 24 * 60 * MINUTE;
                problem.retry_after_s = Some((day_ms - now % day_ms) as f64 / 1000.0);
                return Err(Box::new(problem));
            }
            meter.minute.push_back((now, milliseconds));
            meter.of_day += milliseconds;
            Ok(())
        })
    }

    /// Counts milliseconds that are spent already, whatever the limits say.
    pub fn spend(&self, account: &str, milliseconds: f64, now: u64) {
        self.with(account, |meter| {
            meter.used_in_minute(now);
            meter.used_in_day(now);
            // Of a minute of small ones not each is kept by itself.
            match meter.minute.back_mut() {
                Some((at, spent)) if *at / 1000 == now / 1000 => *spent += milliseconds,
                _ => meter.minute.push_back((now, milliseconds)),
            }
            meter.of_day += milliseconds;
        });
    }

    /// Whether anything is left of the account's minute and day.
    ///
    /// # Errors
    /// 429, where nothing is.
    pub fn has_left(&self, account: &str, limits: &Limits, now: u64) -> Result<(), Box<Problem>> {
        let (minute, day) = self.used(account, now);
        let day_ms = 24 * 60 * MINUTE;
        let all = [
            ("milliseconds_per_minute", limits.milliseconds_per_minute, minute, 1.0),
            (
                "milliseconds_per_day",
                limits.milliseconds_per_day,
                day,
                (day_ms - now % day_ms) as f64 / 1000.0,
            ),
        ];
        for (name, allowed, used, retry) in all {
            if let Some(allowed) = allowed.filter(|&allowed| used > 0.0 && used >= allowed) {
                let mut problem = exceeded(ProblemKind::TooManyRequests, name, allowed, used, "ms");
                problem.retry_after_s = Some(retry);
                return Err(Box::new(problem));
            }
        }
        Ok(())
    }

    /// Takes back what was counted of a job that was not kept after all.
    pub fn forget(&self, account: &str, milliseconds: f64) {
        self.with(account, |meter| {
            if let Some((at, counted)) =
                meter.minute.iter_mut().rev().find(|(_, counted)| *counted >= milliseconds)
            {
                *counted -= milliseconds;
                // What was counted before midnight is not of this day.
                if time::day(*at) == meter.day {
                    meter.of_day = (meter.of_day - milliseconds).max(0.0);
                }
            }
        });
    }

    /// Priced milliseconds in the last minute and today.
    pub fn used(&self, account: &str, now: u64) -> (f64, f64) {
        self.with(account, |meter| (meter.used_in_minute(now), meter.used_in_day(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;

    #[test]
    fn requests_are_counted_and_come_back_with_time() {
        let meters = Meters::default();
        let limits = Limits { requests_per_minute: Some(3), ..Limits::default() };
        for _ in 0..3 {
            meters.request("a", &limits, START).unwrap();
        }
        let problem = meters.request("a", &limits, START).unwrap_err();
        assert_eq!(problem.status, 429);
        assert_eq!(problem.limit.as_ref().unwrap().name, "requests_per_minute");
        assert_eq!(problem.retry_after_s, Some(20.0));
        meters.request("b", &limits, START).unwrap();
        meters.request("a", &limits, START + 19_999).unwrap_err();
        meters.request("a", &limits, START + 20_001).unwrap();
        // A clock that is set back neither gives nor takes.
        meters.request("a", &limits, START - 1_000_000).unwrap_err();
    }

    #[test]
    fn nothing_is_nothing() {
        let (minute, day) = Meters::default().used("a", START);
        assert_eq!((minute.to_bits(), day.to_bits()), (0, 0));
    }

    #[test]
    fn what_is_spent_counts_whatever_the_limits_say() {
        let meters = Meters::default();
        let limits = Limits { milliseconds_per_minute: Some(10.0), ..Limits::default() };
        meters.has_left("a", &limits, START).unwrap();
        (0..3).for_each(|_| meters.spend("a", 4.0, START));
        assert_eq!(meters.used("a", START), (12.0, 12.0));
        assert_eq!(meters.has_left("a", &limits, START).unwrap_err().status, 429);
        meters.job("a", &limits, 1.0, START).unwrap_err();
        meters.has_left("a", &limits, START + MINUTE).unwrap();
    }

    #[test]
    fn what_is_taken_back_after_midnight_is_not_taken_from_the_new_day() {
        let meters = Meters::default();
        let limits = Limits::default();
        let midnight = time::day_begins(START) + 24 * 60 * MINUTE;
        meters.job("a", &limits, 8.0, midnight - 1).unwrap();
        meters.job("a", &limits, 3.0, midnight).unwrap();
        meters.forget("a", 8.0);
        assert_eq!(meters.used("a", midnight), (3.0, 3.0));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let meters = Meters::default();
        let limits = Limits { milliseconds_per_minute: Some(10.0), ..Limits::default() };
        let day = 24 * 60 * MINUTE;
        meters.job("a", &limits, 8.0, START + day).unwrap();
        let problem = meters.job("a", &limits, 8.0, START).unwrap_err();
        assert_eq!(problem.retry_after_s, Some(60.0));
        meters.job("a", &limits, 8.0, START + MINUTE).unwrap();
        // Nor does it give anything: the minute's use is still the minute's.
        meters.job("a", &limits, 8.0, START + MINUTE / 2).unwrap_err();
    }

    #[test]
    fn milliseconds_are_counted_by_minute_and_day() {
        let meters = Meters::default();
        let limits = Limits {
            milliseconds_per_minute: Some(100.0),
            milliseconds_per_day: Some(350.0),
            ..Limits::default()
        };
        let name = |problem: Box<Problem>| problem.limit.unwrap().name;
        // One job may exceed the minute's, but not with others.
        meters.job("a", &limits, 150.0, START).unwrap();
        let problem = meters.job("a", &limits, 10.0, START + 1_000).unwrap_err();
        assert_eq!(problem.retry_after_s, Some(59.0));
        assert_eq!(name(problem), "milliseconds_per_minute");
        meters.job("a", &limits, 60.0, START + MINUTE).unwrap();
        meters.job("a", &limits, 40.0, START + MINUTE).unwrap();
        meters.forget("a", 40.0);
        meters.job("a", &limits, 40.0, START + MINUTE).unwrap();
        assert_eq!(meters.used("a", START + MINUTE), (100.0, 250.0));
        let problem = meters.job("a", &limits, 101.0, START + 3 * MINUTE).unwrap_err();
        assert_eq!(name(problem), "milliseconds_per_day");
        meters.job("a", &limits, 101.0, START + 24 * 60 * MINUTE).unwrap();
        // What was used before a start counts.
        meters.tell_day("b", START, 300.0);
        assert!(meters.knows_day("b", START) && !meters.knows_day("c", START));
        meters.job("b", &limits, 51.0, START).unwrap_err();
        // Also where a result was written before anybody asked; once, and not on the next day.
        meters.spend("d", 1.0, START);
        assert!(!meters.knows_day("d", START));
        (0..2).for_each(|_| meters.tell_day("d", START, 300.0));
        assert_eq!(meters.used("d", START).1, 301.0);
        let tomorrow = START + 24 * 60 * MINUTE;
        assert!(meters.knows_day("d", tomorrow) && meters.used("d", tomorrow).1 == 0.0);
        // A day that was over is the store's to tell.
        assert!(!meters.knows_day("d", START));
    }
}
