//! Room for models in memory: kept for who is loaded, made by giving up who is idle.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

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
    /// what is given back; waits for them where it must.
    pub(super) async fn make_room(
        &self,
        entry: &Arc<Entry>,
        needed: u64,
        haste: Haste,
    ) -> Result<Room, String> {
        let budget = self.engine.weight_bytes;
        if needed > budget {
            return Err(format!(
                "its weights take {needed} bytes, and all models together may take {budget}"
            ));
        }
        loop {
            {
                let _one = self.memory.lock().await;
                while self.bytes(|_| true).saturating_add(needed) > budget {
                    if self.bytes(|other| other.config.pinned).saturating_add(needed) > budget {
                        return Err("pinned models leave no room for it".into());
                    }
                    // Nobody is given up in vain.
                    let idle = self.idle(haste);
                    let free: u64 = idle.iter().map(|entry| entry.bytes()).sum();
                    let least = self.bytes(|_| true).saturating_sub(free).saturating_add(needed);
                    let Some(longest) = idle.first().filter(|_| least <= budget) else { break };
                    self.give_up(longest).await;
                }
                if self.bytes(|_| true).saturating_add(needed) <= budget {
                    return Ok(Room::keep(entry, needed));
                }
            }
            tokio::time::sleep(ROOM).await;
        }
    }

    /// Bytes of the models that are in memory, or for which there is room being kept.
    pub(super) fn bytes(&self, of: impl Fn(&Entry) -> bool) -> u64 {
        self.entries.iter().filter(|entry| of(entry)).map(|entry| entry.bytes()).sum()
    }

    /// The models that may be given up, first who was not used for longest.
    fn idle(&self, haste: Haste) -> Vec<Arc<Entry>> {
        let seconds = match haste {
            Haste::None => Duration::from_secs_f64(self.engine.idle_seconds),
            Haste::All => Duration::ZERO,
        };
        let unused = self.entries.iter().filter(|entry| {
            !entry.config.pinned
                && entry.house().is_some()
                && !entry.is_held()
                && lock(&entry.last_used).elapsed() >= seconds
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
