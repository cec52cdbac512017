//! What a model's engine has begun, and whether there is room for more.

use std::collections::HashMap;

use super::queue::{Fit, Waiting};
use crate::config::EngineConfig;

/// Passes for which an engine is given an account's work ahead.
const AHEAD: f64 = 2.0;
/// Jobs of an account that take more than a pass.
const LONG: usize = 4;

/// What a model has begun.
#[derive(Default)]
pub struct Begun {
    jobs: usize,
    bytes: u64,
    /// Those of jobs that take more than a pass.
    long_bytes: u64,
    /// Bytes of results that are still being written.
    leaving: u64,
    of_account: HashMap<String, Own>,
}

/// What it has begun of one account.
#[derive(Default)]
struct Own {
    jobs: usize,
    /// Jobs that take more than a pass.
    long: usize,
    /// What the others cost, in milliseconds.
    short: f64,
    /// Bytes of results that are still being written.
    leaving: u64,
}

impl Begun {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.jobs == 0
    }

    /// Accounts that have jobs here, with how many.
    pub fn accounts(&self) -> impl Iterator<Item = (&str, usize)> {
        self.of_account.iter().map(|(account, own)| (account.as_str(), own.jobs))
    }

    /// Whether one of them takes more than a pass.
    pub fn has_long(&self) -> bool {
        self.of_account.values().any(|own| own.long > 0)
    }

    /// A job begins.
    pub fn add(&mut self, waiting: &Waiting) {
        self.jobs += 1;
        self.bytes += waiting.bytes;
        let own = self.of_account.entry(waiting.account.clone()).or_default();
        own.jobs += 1;
        if waiting.is_long {
            self.long_bytes += waiting.bytes;
            own.long += 1;
        } else {
            own.short += waiting.cost;
        }
    }

    /// One that had begun is over.
    pub fn remove(&mut self, waiting: &Waiting) {
        self.jobs = self.jobs.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(waiting.bytes);
        if waiting.is_long {
            self.long_bytes = self.long_bytes.saturating_sub(waiting.bytes);
        }
        let Some(own) = self.of_account.get_mut(&waiting.account) else { return };
        own.jobs = own.jobs.saturating_sub(1);
        if waiting.is_long {
            own.long = own.long.saturating_sub(1);
        } else {
            own.short -= waiting.cost;
        }
        self.forget(&waiting.account);
    }

    /// An account of which nothing is there needs no place.
    fn forget(&mut self, account: &str) {
        if self.of_account.get(account).is_some_and(|own| own.jobs == 0 && own.leaving == 0) {
            self.of_account.remove(account);
        }
    }

    /// A job has left with a result that takes so many bytes until it is written.
    pub fn leaves(&mut self, account: &str, bytes: u64) {
        if bytes > 0 {
            self.leaving = self.leaving.saturating_add(bytes);
            let own = self.of_account.entry(account.to_owned()).or_default();
            own.leaving = own.leaving.saturating_add(bytes);
        }
    }

    /// Such a result is written.
    pub fn has_left(&mut self, account: &str, bytes: u64) {
        self.leaving = self.leaving.saturating_sub(bytes);
        if let Some(own) = self.of_account.get_mut(account) {
            own.leaving = own.leaving.saturating_sub(bytes);
        }
        self.forget(account);
    }

    /// Whether one more can begin.
    ///
    /// Whose turn it is inside the engine is decided at every pass, by account: what is begun of one account delays no other. It
    /// is bounded for the room that it takes, and so that priorities still mean something among what waits. Short jobs and
    /// long ones are bounded apart: a short one does not wait until its account's own long one has ended. Results that are still
    /// in memory, because they are being written, take of the same room. `elsewhere`: jobs of its account that other models have
    /// begun.
    pub fn fits(&self, waiting: &Waiting, elsewhere: usize, engine: &EngineConfig) -> Fit {
        let own_jobs = self.of_account.get(&waiting.account).map_or(0, |own| own.jobs) + elsewhere;
        if waiting.concurrent.is_some_and(|most| own_jobs as u64 >= most) {
            return Fit::AccountWaits;
        }
        let bytes = self.bytes.saturating_add(self.leaving).saturating_add(waiting.bytes);
        if self.jobs == 0 && self.leaving == 0 {
            return Fit::Goes;
        }
        let alone = !engine.packing && self.jobs > 0;
        if !alone && self.long_bytes > 0 && self.long_bytes.saturating_add(waiting.bytes) > engine.value_bytes
        {
            return Fit::WaitsForLong;
        }
        if alone || self.jobs >= engine.jobs || bytes > engine.value_bytes {
            return Fit::AllWait;
        }
        let Some(own) = self.of_account.get(&waiting.account) else { return Fit::Goes };
        // Who is in already leaves half of the room to those who are not.
        let is_full = self.jobs >= engine.jobs.div_ceil(2) || bytes > engine.value_bytes / 2;
        let has_enough = if waiting.cost > engine.pass_ms() {
            own.long >= LONG
        } else {
            own.short + waiting.cost > AHEAD * engine.pass_ms()
        };
        if is_full || has_enough { Fit::AccountWaits } else { Fit::Goes }
    }
}
