//! How many there are of something, by whose they are: requests of an account that wait for what happens to jobs, each of which holds a
//! connection meanwhile; and connections of an account from one address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

type Counts = Arc<Mutex<HashMap<String, usize>>>;

/// Who waits, by account.
#[derive(Default)]
pub struct Watchers {
    counts: Counts,
}

/// One that waits, until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    counts: Counts,
    account: String,
}

impl Watchers {
    /// One more of an account, where fewer than `most` wait.
    ///
    /// # Errors
    /// How many do.
    pub fn come(&self, account: &str, most: usize) -> Result<Watcher, usize> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let there = counts.get(account).copied().unwrap_or(0);
        if there >= most {
            return Err(there);
        }
        counts.insert(account.to_owned(), there + 1);
        Ok(Watcher { counts: self.counts.clone(), account: account.to_owned() })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_an_account_wait_and_who_has_gone_counts_no_more() {
        let watchers = Watchers::default();
        let mut ann: Vec<Watcher> = (0..2).map(|_| watchers.come("ann", 2).unwrap()).collect();
        assert_eq!(watchers.come("ann", 2).unwrap_err(), 2);
        let bob = watchers.come("bob", 2).unwrap();
        ann.pop();
        ann.push(watchers.come("ann", 2).unwrap());
        assert_eq!(watchers.come("ann", 2).unwrap_err(), 2);
        drop((ann, bob));
        assert!(watchers.counts.lock().unwrap().is_empty(), "who has gone is forgotten");
    }
}
