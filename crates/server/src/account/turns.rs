//! Whose programs are checked, and whose texts tokenised, when: as many at once as there are cores, and of one account only one,
//! so that nobody's many hold up another's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns of those for whom something is to be computed outside of an engine.
pub struct Turns {
    all: Arc<Semaphore>,
    by_account: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Default for Turns {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Turns { all: Arc::new(Semaphore::new(cores)), by_account: Mutex::default() }
    }
}

/// A turn, until it is dropped.
pub struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Waits for an account's turn, where fewer than `most` of the account's wait or have it.
    ///
    /// # Errors
    /// How many do, at once.
    pub async fn turn(&self, account: &str, most: usize) -> Result<Turn, usize> {
        let own = {
            let mut accounts = self.by_account.lock().unwrap_or_else(PoisonError::into_inner);
            // Who waits holds it too: one that nobody but this holds is of no use.
            accounts.retain(|_, own| Arc::strong_count(own) > 1);
            let own = accounts.entry(account.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1)));
            let there = Arc::strong_count(own) - 1;
            if there >= most {
                return Err(there);
            }
            own.clone()
        };
        // Neither is ever closed.
        let own = own.acquire_owned().await.ok();
        Ok(Turn { _own: own, _all: self.all.clone().acquire_owned().await.ok() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const ANY: usize = usize::MAX;

    fn turns() -> Turns {
        Turns { all: Arc::new(Semaphore::new(2)), by_account: Mutex::default() }
    }

    #[tokio::test]
    async fn one_accounts_many_do_not_hold_up_another() {
        let turns = turns();
        let first = turns.turn("flood", ANY).await;
        assert!(tokio::time::timeout(SOON, turns.turn("flood", ANY)).await.is_err());
        let other = tokio::time::timeout(SOON, turns.turn("one", ANY)).await.unwrap();
        drop(first);
        drop(tokio::time::timeout(SOON, turns.turn("flood", ANY)).await.unwrap());
        drop(other);
        drop(turns.turn("third", ANY).await);
        assert!(turns.by_account.lock().unwrap().len() <= 1, "who has gone is forgotten");
    }

    #[tokio::test]
    async fn so_many_of_an_account_wait_and_who_has_gone_counts_no_more() {
        let turns = turns();
        let first = turns.turn("flood", 3).await.unwrap();
        let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(turns.turn("flood", 3))).collect();
        for one in &mut waiting {
            assert!(tokio::time::timeout(SOON, one.as_mut()).await.is_err());
        }
        assert_eq!(turns.turn("flood", 3).await.err(), Some(3));
        assert!(turns.turn("one", 3).await.is_ok());
        waiting.pop();
        let mut last = Box::pin(turns.turn("flood", 3));
        assert!(tokio::time::timeout(SOON, last.as_mut()).await.is_err());
        drop(first);
        assert!(waiting.remove(0).await.is_ok() && last.await.is_ok());
    }
}
