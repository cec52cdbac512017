//! Accounts' caches of prefixes: what one account's prompts have in common with earlier ones of its own is not computed again.
//!
//! **Invariant:** a cache is one account's alone. Nothing that is in it is ever used for another's job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pellucid_engine::{PrefixCache, PrefixCounts, PrefixRoom};

/// One account has at most this part of all bytes.
const SHARE: u64 = 8;
/// For who comes, this part of all bytes is made free at least.
const FREE: u64 = 32;
/// Accounts that have a cache at a time, however little they hold.
const ACCOUNTS: usize = 4096;

/// Accounts' caches: where there is no room, who has used its own longest ago makes some.
pub struct Prefixes {
    bytes: u64,
    room: Arc<PrefixRoom>,
    caches: Mutex<Caches>,
}

#[derive(Default)]
struct Caches {
    of: HashMap<String, (Arc<PrefixCache>, u64)>,
    /// Counts uses.
    uses: u64,
}

impl Caches {
    /// Another account than that, the one that has not used its cache for the longest time, has none any more; whether there was one.
    fn close_oldest(&mut self, but: &str) -> bool {
        let others = self.of.iter().filter(|(account, _)| *account != but);
        let oldest = others.min_by_key(|(_, (_, used))| *used).map(|(account, _)| account.clone());
        let closed = oldest.and_then(|account| self.of.remove(&account));
        // A job of that account that still runs with it keeps nothing there any more.
        closed.map(|(cache, _)| cache.evict()).is_some()
    }
}

impl Prefixes {
    /// None yet; all of them together hold so many bytes at most, with what is being collected. 0: nobody has one.
    pub fn new(bytes: u64) -> Prefixes {
        Prefixes { bytes, room: Arc::new(PrefixRoom::new(bytes)), caches: Mutex::default() }
    }

    fn caches(&self) -> MutexGuard<'_, Caches> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An account's cache, for a job of its own that begins; none: nobody has one here.
    pub fn of(&self, account: &str) -> Option<Arc<PrefixCache>> {
        let most = self.bytes / SHARE;
        if most == 0 {
            return None;
        }
        let mut caches = self.caches();
        caches.uses += 1;
        let now = caches.uses;
        if !caches.of.contains_key(account) {
            while caches.of.len() >= ACCOUNTS && caches.close_oldest(account) {}
        }
        let make = || (Arc::new(PrefixCache::within(&self.room, most)), now);
        let (cache, used) = caches.of.entry(account.to_owned()).or_insert_with(make);
        *used = now;
        let cache = cache.clone();
        let wanted = (self.bytes / FREE).max(cache.take_missed()).min(most);
        while self.room.free() < wanted && caches.close_oldest(account) {}
        Some(cache)
    }

    /// An account's cache, if it has one, as it is: for a plan that leaves nothing there.
    pub fn peek(&self, account: &str) -> Option<Arc<PrefixCache>> {
        self.caches().of.get(account).map(|(cache, _)| cache.clone())
    }

    /// Forgets what an account's prompts left.
    pub fn forget(&self, account: &str) {
        if let Some((cache, _)) = self.caches().of.remove(account) {
            cache.close();
        }
    }

    /// Bytes that all of them hold.
    pub fn bytes(&self) -> u64 {
        self.caches().of.values().map(|(cache, _)| cache.usage().bytes).sum()
    }

    /// Bytes that all of them may hold.
    pub fn most_bytes(&self) -> u64 {
        self.bytes
    }

    /// What has come of all of them since the service was started.
    pub fn counts(&self) -> PrefixCounts {
        self.room.counts()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ACCOUNTS, Prefixes};

    #[test]
    fn an_account_has_a_cache_of_its_own_and_keeps_it_beside_many_others() {
        let prefixes = Prefixes::new(8 * 1024);
        let of = |account: &str| prefixes.of(account).unwrap();
        let (ann, ben) = (of("ann"), of("ben"));
        assert!(!Arc::ptr_eq(&ann, &ben));
        assert_eq!(ann.usage().most_bytes, 1024);
        for other in 0..100 {
            of(&format!("other {other}"));
        }
        assert!(Arc::ptr_eq(&ann, &of("ann")) && Arc::ptr_eq(&ben, &of("ben")));
        for other in 0..ACCOUNTS {
            of(&format!("another {other}"));
            of("ann");
        }
        assert!(prefixes.peek("ben").is_none() && Arc::ptr_eq(&ann, &of("ann")));
        assert_eq!(ben.usage().most_bytes, 0, "nothing goes there any more");
        assert_eq!(prefixes.bytes(), 0);
    }

    #[test]
    fn what_is_forgotten_is_gone_and_nobody_has_one_where_there_is_no_room() {
        let prefixes = Prefixes::new(1 << 20);
        let before = prefixes.of("ann").unwrap();
        prefixes.forget("ann");
        assert!(prefixes.peek("ann").is_none());
        assert!(!Arc::ptr_eq(&before, &prefixes.of("ann").unwrap()));
        assert!(Prefixes::new(0).of("ann").is_none());
    }
}
