//! Accounts' caches of prefixes: what one account's prompts have in common with earlier ones of its own is not computed again.
//!
//! **Invariant:** a cache is one account's alone. Nothing that is in it is ever used for another's job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pellucid_engine::PrefixCache;

/// Accounts that have a cache at a time: who has used it longest ago makes room.
const ACCOUNTS: usize = 8;

/// Accounts' caches.
pub struct Prefixes {
    /// Bytes of each.
    each: u64,
    caches: Mutex<Caches>,
}

#[derive(Default)]
struct Caches {
    of: HashMap<String, (Arc<PrefixCache>, u64)>,
    /// Counts uses.
    uses: u64,
}

impl Prefixes {
    /// None yet; all of them together hold so many bytes at most. 0: nobody has one.
    pub fn new(bytes: u64) -> Prefixes {
        Prefixes { each: bytes / ACCOUNTS as u64, caches: Mutex::default() }
    }

    fn caches(&self) -> MutexGuard<'_, Caches> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An account's cache, for a job of its own that begins; none: nobody has one here.
    pub fn of(&self, account: &str) -> Option<Arc<PrefixCache>> {
        if self.each == 0 {
            return None;
        }
        let mut caches = self.caches();
        let Caches { of, uses } = &mut *caches;
        *uses += 1;
        if let Some((cache, used)) = of.get_mut(account) {
            *used = *uses;
            return Some(cache.clone());
        }
        while of.len() >= ACCOUNTS {
            let Some(oldest) =
                of.iter().min_by_key(|(_, (_, used))| *used).map(|(account, _)| account.clone())
            else {
                break;
            };
            if let Some((cache, _)) = of.remove(&oldest) {
                // A job of that account that still runs with it keeps nothing there any more.
                cache.close();
            }
        }
        let cache = Arc::new(PrefixCache::new(self.each));
        of.insert(account.to_owned(), (cache.clone(), *uses));
        Some(cache)
    }

    /// An account's cache, if it has one.
    #[cfg(test)]
    fn peek(&self, account: &str) -> Option<Arc<PrefixCache>> {
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
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ACCOUNTS, Prefixes};

    #[test]
    fn an_account_has_a_cache_of_its_own_until_others_need_the_room() {
        let prefixes = Prefixes::new(8 * 1024);
        let of = |account: &str| prefixes.of(account).unwrap();
        let (ann, ben) = (of("ann"), of("ben"));
        assert!(!Arc::ptr_eq(&ann, &ben) && Arc::ptr_eq(&ann, &of("ann")));
        assert_eq!(ann.usage().most_bytes, 1024);
        for other in 0..ACCOUNTS - 1 {
            of(&format!("other {other}"));
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
