//! Room for models in memory: kept for who is loaded, made by giving up who is idle.
//!
//! A model that is in steady use is never idle. So where one has waited for room for longer than an idle one may stay, those that
//! have been in memory longest make way: no new jobs begin on them, and once what runs there has ended they are given up. Their jobs then
//! wait for room in their turn. Of those that wait the first alone asks, and none that has not had as long in memory is asked.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Registry;
use super::entry::{Entry, State, lock};

/// How long loading waits before it looks again whether there is room.
pub(super) const ROOM: Duration = Duration::from_millis(250);

/// For whom a model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Who lets others that are idle stay for `idle_seconds`, as they may be needed again.
    None,
    /// One that all others wait for: whoever is idle has no use for its place meanwhile.
    All,
}

/// For whom a model is loaded now; none: it is not its turn, and it waits.
pub type Turn<'a> = dyn Fn() -> Option<Haste> + Send + Sync + 'a;

/// Who waits for room, by when each came.
#[derive(Default)]
pub(super) struct Line {
    next: u64,
    waiting: BTreeMap<u64, Instant>,
}

/// A place in the line, as long as this lives.
struct Place<'a> {
    line: &'a Mutex<Line>,
    number: u64,
}

impl<'a> Place<'a> {
    fn take(line: &'a Mutex<Line>) -> Place<'a> {
        let mut own = lock(line);
        own.next += 1;
        let number = own.next;
        own.waiting.insert(number, Instant::now());
        Place { line, number }
    }

    /// Whether it is the first, and whether the first has waited longer than that.
    fn look(&self, patience: Duration) -> (bool, bool) {
        let line = lock(self.line);
        let first = line.waiting.first_key_value();
        first.map_or((false, false), |(number, since)| (*number == self.number, since.elapsed() >= patience))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(self.line).waiting.remove(&self.number);
    }
}

/// Models that are asked to make way, as long as this lives.
#[derive(Default)]
struct Asked(Vec<Arc<Entry>>);

impl Asked {
    /// These are asked, and no others.
    fn set(&mut self, entries: Vec<Arc<Entry>>) {
        for entry in &entries {
            if !entry.makes_way.swap(true, Ordering::SeqCst) {
                tracing::info!(
                    model = entry.id(),
                    "the model makes way for another: no new jobs begin on it"
                );
            }
        }
        let before = std::mem::replace(&mut self.0, entries);
        for entry in before.iter().filter(|entry| !self.has(entry)) {
            entry.makes_way.store(false, Ordering::SeqCst);
            entry.bell.notify_one();
        }
    }

    fn has(&self, entry: &Arc<Entry>) -> bool {
        self.0.iter().any(|one| Arc::ptr_eq(one, entry))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.set(Vec::new());
    }
}

/// Room that is kept for a model while it is loaded.
pub(super) struct Room(Arc<Entry>);

impl Room {
    pub fn keep(entry: &Arc<Entry>, bytes: u64) -> Room {
        entry.reserved.store(bytes, Ordering::SeqCst);
        Room(entry.clone())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.reserved.store(0, Ordering::SeqCst);
    }
}

impl Registry {
    /// Gives up models that nobody uses, least recently used first, until there is room for one, which is kept for it as long as
    /// what is given back; waits for them where it must, and asks others to make way where that lasts.
    pub(super) async fn make_room(
        &self,
        entry: &Arc<Entry>,
        needed: u64,
        turn: &Turn<'_>,
    ) -> Result<Room, String> {
        let budget = self.engine.weight_bytes;
        if needed > budget {
            return Err(format!(
                "its weights take {needed} bytes, and all models together may take {budget}"
            ));
        }
        // Who asks others keeps its place until it asks no more.
        let mut place: Option<Place<'_>> = None;
        let mut asked = Asked::default();
        loop {
            if let Some(haste) = turn() {
                let place = place.get_or_insert_with(|| Place::take(&self.line));
                let _one = self.memory.lock().await;
                let (is_first, is_urgent) = place.look(self.patience());
                if haste == Haste::None && is_first && is_urgent {
                    asked.set(self.who_makes_way(needed));
                }
                // What becomes idle is for who has waited long.
                let may_give_up = haste == Haste::All || is_first || !is_urgent;
                while self.bytes(|_| true).saturating_add(needed) > budget {
                    if self.bytes(|other| other.config.pinned).saturating_add(needed) > budget {
                        return Err("pinned models leave no room for it".into());
                    }
                    if !may_give_up {
                        break;
                    }
                    // Nobody is given up in vain.
                    let idle = self.idle(haste, &asked);
                    let free: u64 = idle.iter().map(|entry| entry.bytes()).sum();
                    let least = self.bytes(|_| true).saturating_sub(free).saturating_add(needed);
                    let Some(longest) = idle.first().filter(|_| least <= budget) else { break };
                    self.give_up(longest).await;
                }
                if self.bytes(|_| true).saturating_add(needed) <= budget {
                    return Ok(Room::keep(entry, needed));
                }
            } else {
                // Nobody makes way for one that nothing waits for, and nobody waits behind it.
                asked.set(Vec::new());
                place = None;
            }
            tokio::time::sleep(ROOM).await;
        }
    }

    /// Bytes of the models that are in memory, or for which there is room being kept.
    pub(super) fn bytes(&self, of: impl Fn(&Entry) -> bool) -> u64 {
        self.entries.iter().filter(|entry| of(entry)).map(|entry| entry.bytes()).sum()
    }

    /// How long a model stays that nobody uses, and how long one waits before others that are used make way.
    fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.engine.idle_seconds)
    }

    /// The models that make way for one that has waited long, first who has been in memory longest: as many as make room with those
    /// that are idle, where there are as many.
    fn who_makes_way(&self, needed: u64) -> Vec<Arc<Entry>> {
        let idle: u64 = self.idle(Haste::None, &Asked::default()).iter().map(|entry| entry.bytes()).sum();
        let mut left = self.bytes(|_| true).saturating_sub(idle).saturating_add(needed);
        let in_use = self.entries.iter().filter(|entry| {
            !entry.config.pinned
                && entry.house().is_some()
                && !self.is_idle(entry, self.patience())
                && lock(&entry.loaded).elapsed() >= self.patience()
        });
        let mut in_use: Vec<Arc<Entry>> = in_use.cloned().collect();
        in_use.sort_by_key(|entry| *lock(&entry.loaded));
        let mut asked = Vec::new();
        for entry in in_use {
            if left > self.engine.weight_bytes {
                left = left.saturating_sub(entry.bytes());
                asked.push(entry);
            }
        }
        if left > self.engine.weight_bytes { Vec::new() } else { asked }
    }

    fn is_idle(&self, entry: &Entry, patience: Duration) -> bool {
        let is_unused = entry.house().is_some() && !entry.is_held();
        !entry.config.pinned && is_unused && lock(&entry.last_used).elapsed() >= patience
    }

    /// The models that may be given up, first who was not used for longest. Who makes way for one need not be idle for long, and is not
    /// given up for another.
    fn idle(&self, haste: Haste, asked: &Asked) -> Vec<Arc<Entry>> {
        let unused = self.entries.iter().filter(|entry| match haste {
            Haste::None if entry.makes_way() => asked.has(entry) && self.is_idle(entry, Duration::ZERO),
            Haste::None => self.is_idle(entry, self.patience()),
            Haste::All => self.is_idle(entry, Duration::ZERO),
        });
        let mut idle: Vec<Arc<Entry>> = unused.cloned().collect();
        idle.sort_by_key(|entry| *lock(&entry.last_used));
        idle
    }

    async fn give_up(&self, entry: &Arc<Entry>) {
        let house = {
            let mut state = lock(&entry.state);
            // Whoever came meanwhile holds it.
            if entry.is_held() {
                return;
            }
            match std::mem::replace(&mut *state, State::Cold) {
                State::Hot(house, _) => house,
                other => {
                    *state = other;
                    return;
                }
            }
        };
        tracing::info!(model = entry.id(), "the model is given up");
        let _ = tokio::task::spawn_blocking(move || house.close()).await;
    }
}
