//! What is done for many at once, and not too often.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Something that is done once for all who had asked for it when it began.
pub struct Together {
    /// When it last began. Held while it is done, or waited for.
    began: Mutex<Option<Instant>>,
    /// From one beginning to the next, at least.
    pause: Duration,
}

impl Together {
    /// Something that begins again only after so long.
    pub fn new(pause: Duration) -> Together {
        Together { began: Mutex::default(), pause }
    }

    /// Waits until it was done after this was called; none: by another who asked.
    pub async fn once<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let asked = Instant::now();
        let mut began = self.began.lock().await;
        match *began {
            Some(began) if began > asked => return None,
            Some(began) => tokio::time::sleep_until(began + self.pause).await,
            None => {}
        }
        *began = Some(Instant::now());
        Some(work.await)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn who_asks_while_it_is_done_shares_the_next_time_of_it() {
        let (together, done) = (Together::new(Duration::ZERO), AtomicUsize::new(0));
        let ask = || {
            together.once(async {
                tokio::task::yield_now().await;
                done.fetch_add(1, Ordering::Relaxed);
            })
        };
        join_all((0..20).map(|_| ask())).await;
        // The first begins at once: what the others ask for may have come too late for it.
        assert_eq!(done.load(Ordering::Relaxed), 2);
        ask().await;
        assert_eq!(done.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn it_begins_again_only_after_a_pause() {
        let (together, begun) = (Together::new(Duration::from_millis(20)), Instant::now());
        for _ in 0..3 {
            together.once(async {}).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(40));
    }
}
