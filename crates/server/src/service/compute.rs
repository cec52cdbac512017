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

/// One that is at work: what it took counts when it is over, however it ends.
struct AtWork {
    core: Arc<Core>,
    account: String,
    started: Instant,
    _turn: Turn,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let milliseconds = self.started.elapsed().as_secs_f64() * 1000.0;
        self.core.meters.spend(&self.account, milliseconds, time::now_ms());
    }
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
        let mut begun = false;
        loop {
            // What it took itself before its model was open does not refuse it.
            let has_left = || match begun {
                true => Ok(()),
                false => core.meters.has_left(&account.name, &account.limits, time::now_ms()),
            };
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
            begun = true;
            let (service, asker, work) = (self.clone(), caller.clone(), work.clone());
            let step = tokio::task::spawn_blocking(move || {
                let _at_work = AtWork {
                    core: service.core.clone(),
                    account: asker.account.name.clone(),
                    started: Instant::now(),
                    _turn: turn,
                };
                work(&service, &asker)
            });
            match blocking_answer(step.instrument((how.span)()).await)? {
                Step::Done(done) => return Ok(done),
                Step::Opens(entry) => drop(entry.outline().await?),
            }
        }
    }
}
