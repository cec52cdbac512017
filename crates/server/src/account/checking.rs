//! Whose programs are checked when: as many at once as there are cores, and of one account only one, so that nobody's many
//! hold up another's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns of those whose programs are to be checked.
pub struct Checking {
    all: Arc<Semaphore>,
    by_account: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Default for Checking {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Checking { all: Arc::new(Semaphore::new(cores)), by_account: Mutex::default() }
    }
}

/// A turn, until it is dropped.
pub struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Checking {
    /// Waits for an account's turn.
    pub async fn turn(&self, account: &str) -> Turn {
        let own = {
            let mut accounts = self.by_account.lock().unwrap_or_else(PoisonError::into_inner);
            // Who waits holds it too: one that nobody but this holds is of no use.
            accounts.retain(|_, own| Arc::strong_count(own) > 1);
            accounts.entry(account.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
        };
        // Neither is ever closed.
        let own = own.acquire_owned().await.ok();
        Turn { _own: own, _all: self.all.clone().acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_accounts_many_do_not_hold_up_another() {
        let checking = Checking { all: Arc::new(Semaphore::new(2)), by_account: Mutex::default() };
        let first = checking.turn("flood").await;
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, checking.turn("flood")).await.is_err());
        let other = tokio::time::timeout(soon, checking.turn("one")).await.unwrap();
        drop(first);
        tokio::time::timeout(soon, checking.turn("flood")).await.unwrap();
        drop(other);
        drop(checking.turn("third").await);
        assert!(checking.by_account.lock().unwrap().len() <= 1, "who has gone is forgotten");
    }
}
