//! What is computed for an account outside of the engines: checks, plans, tokens.

use std::sync::Arc;
use std::time::Instant;

use pellucid_client::api::ProblemKind;
use tracing::{Instrument, Span, info_span};

use super::{Caller, Result, Service, blocking_answer};
use crate::account::{Turn, exceeded};
use crate::core::Core;
use crate::models::Entry;
use crate::time;

/// What came of such work.
pub(super) enum Step<T> {
    Done(T),
    /// Its model is not open yet. The work is begun anew once it is: what a body comes to is many times as large as the body, and is
    /// not held while it is waited.
    Opens(Arc<Entry>),
}

/// How such work is done.
pub(super) struct Work {
    /// Of one account's, those that wait and the one that is done, at most.
    pub most: usize,
    /// Whatever it is called in a trace.
    pub span: fn() -> Span,
}

/// What one request has taken so far, in milliseconds: it counts when the request is over, however it ends.
struct Taken {
    core: Arc<Core>,
    account: String,
    before: f64,
    /// While it is at work.
    since: Option<Instant>,
}

impl Taken {
    fn milliseconds(&self) -> f64 {
        self.before + self.since.map_or(0.0, |since| since.elapsed().as_secs_f64() * 1000.0)
    }

    /// It waits until its model is open. What it took does not count yet: it would be refused for it.
    fn paused(mut self) -> Self {
        self.before = self.milliseconds();
        self.since = None;
        self
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.core.meters.spend(&self.account, self.milliseconds(), time::now_ms());
    }
}

/// One that is at work. What it takes counts before the next one has its turn.
struct AtWork {
    taken: Taken,
    _turn: Turn,
}

impl Service {
    /// Computes something for an account, beside the threads that wait: one thing of an account at a time, as many at once as there
    /// are cores. What it takes counts against the account's minute and day, also where it fails. Where nobody waits for it any more it
    /// is not begun, and one that has begun keeps its turn to its end.
    ///
    /// # Errors
    /// 429 where nothing is left of the minute or day, or too many of the account wait already; what the work says.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        caller: &Caller,
        how: Work,
        work: impl Fn(&Service, &Caller) -> Result<Step<T>> + Send + Sync + 'static,
    ) -> Result<T> {
        let (core, account) = (&self.core, &caller.account);
        let work = Arc::new(work);
        self.know_day(&account.name).await?;
        let has_left = || core.meters.has_left(&account.name, &account.limits, time::now_ms());
        let mut before = None;
        loop {
            has_left()?;
            let turn =
                core.turns.turn(&account.name, how.most).instrument(info_span!("wait for a turn")).await;
            let turn = turn.map_err(|there| {
                let (most, used) = (how.most as f64, there as f64 + 1.0);
                let mut problem =
                    exceeded(ProblemKind::TooManyRequests, "texts_at_once", most, used, "requests");
                problem.retry_after_s = Some(1.0);
                Box::new(problem)
            })?;
            // What came before it may have used what was left.
            has_left()?;
            let mut taken = before.take().unwrap_or_else(|| Taken {
                core: core.clone(),
                account: account.name.clone(),
                before: 0.0,
                since: None,
            });
            let (service, asker, work) = (self.clone(), caller.clone(), work.clone());
            let step = tokio::task::spawn_blocking(move || {
                taken.since = Some(Instant::now());
                let at_work = AtWork { taken, _turn: turn };
                Ok(match work(&service, &asker)? {
                    Step::Done(done) => (Step::Done(done), None),
                    opens => (opens, Some(at_work.taken.paused())),
                })
            });
            match blocking_answer(step.instrument((how.span)()).await)? {
                (Step::Done(done), _) => return Ok(done),
                (Step::Opens(entry), taken) => {
                    before = taken;
                    drop(entry.outline().await?);
                }
            }
        }
    }
}
