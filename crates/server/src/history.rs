//! What was done lately, by the minute, for people to look at.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pellucid_client::api::HistoryEntry;

use crate::time;

/// Milliseconds of one entry.
const WHILE: u64 = 60_000;
/// Entries that are kept: an hour.
const ENTRIES: usize = 60;

/// What was done lately.
#[derive(Default)]
pub struct History {
    entries: Mutex<VecDeque<(u64, HistoryEntry)>>,
}

impl History {
    fn with(&self, work: impl FnOnce(&mut HistoryEntry)) {
        let mut entries = self.entries();
        let start = time::now_ms() / WHILE * WHILE;
        if entries.back().is_none_or(|(at, _)| *at != start) {
            let at = time::text(start);
            let entry = HistoryEntry { at, jobs: 0, rows: 0, tokens: 0, passes: 0, milliseconds: 0.0 };
            entries.push_back((start, entry));
        }
        while entries.len() > ENTRIES {
            entries.pop_front();
        }
        if let Some((_, entry)) = entries.back_mut() {
            work(entry);
        }
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<(u64, HistoryEntry)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job has ended.
    pub fn ended(&self) {
        self.with(|entry| entry.jobs += 1);
    }

    /// A pass has.
    pub fn passed(&self, rows: u64, tokens: u64, milliseconds: f64) {
        self.with(|entry| {
            entry.tokens += tokens;
            entry.passes += 1;
            entry.rows += rows;
            entry.milliseconds += milliseconds;
        });
    }

    /// The last hour, the oldest first.
    pub fn all(&self) -> Vec<HistoryEntry> {
        self.entries().iter().map(|(_, entry)| entry.clone()).collect()
    }
}
