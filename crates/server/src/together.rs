//! What is done for many at once, and not too often.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Something that is done once for all who had asked for it when it began.
pub struct Together {
    /// When it last began, and whether it was done. Held while it is done, or waited for.
    last: Mutex<Option<(Instant, bool)>>,
    /// From one beginning to the next, at least.
    pause: Duration,
}

impl Together {
    /// Something that begins again only after so long.
    pub fn new(pause: Duration) -> Together {
        Together { last: Mutex::default(), pause }
    }

    /// Waits until it was done after this was called, by whoever asked; or for why it could not be. What fails, or is given up by who did
    /// it, is done again by the next.
    pub async fn once<E>(&self, work: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        match *last {
            Some((began, true)) if began > asked => return Ok(()),
            Some((began, _)) => tokio::time::sleep_until(began + self.pause).await,
            None => {}
        }
        let began = Instant::now();
        *last = Some((began, false));
        work.await?;
        *last = Some((began, true));
        Ok(())
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
                Ok::<_, ()>(())
            })
        };
        join_all((0..20).map(|_| ask())).await;
        // The first begins at once: what the others ask for may have come too late for it.
        assert_eq!(done.load(Ordering::Relaxed), 2);
        ask().await.unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn it_begins_again_only_after_a_pause() {
        let (together, begun) = (Together::new(Duration::from_millis(20)), Instant::now());
        for _ in 0..3 {
            together.once(async { Ok::<_, ()>(()) }).await.unwrap();
        }
        assert!(begun.elapsed() >= Duration::from_millis(40));
    }

    #[tokio::test]
    async fn what_fails_or_is_given_up_is_done_again() {
        let (together, done) = (Together::new(Duration::ZERO), AtomicUsize::new(0));
        let mut given_up = Box::pin(together.once(async {
            tokio::task::yield_now().await;
            Ok::<_, ()>(())
        }));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        let ask = |fails: bool| {
            let done = &done;
            together.once(async move {
                done.fetch_add(1, Ordering::Relaxed);
                if fails { Err(()) } else { Ok(()) }
            })
        };
        let mut waits = Box::pin(ask(true));
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(given_up);
        assert_eq!(waits.await, Err(()));
        assert_eq!((ask(false).await, done.load(Ordering::Relaxed)), (Ok(()), 2));
    }
}
