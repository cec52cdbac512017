//! A program checked, priced and allowed: everything that is known before anything is kept or run.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pellucid_client::api::{Price, Problem, ProblemKind};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;
use pellucid_graph::fault::Faults;
use tracing::{Instrument, info_span};

use super::{Caller, Result, Service, blocking_answer};
use crate::account::{exceeded, policy};
use crate::models::{Entry, Outline};
use crate::time;

/// A program that may be run.
pub(super) struct Admitted {
    pub entry: Arc<Entry>,
    pub outline: Arc<Outline>,
    pub program: Arc<CheckedProgram>,
    pub price: Price,
}

/// A program that was read.
enum Read {
    Checked(Arc<Entry>, Arc<CheckedProgram>, Arc<Outline>),
    /// Its model is not open yet.
    Waits(Arc<Entry>, Program),
}

fn faulty(faults: Faults) -> Box<Problem> {
    Box::new(Problem::of_faults(&faults))
}

impl Service {
    /// The model that was asked for, if the caller may use it.
    pub(crate) fn entry(&self, caller: &Caller, model: Option<&str>) -> Result<&Arc<Entry>> {
        self.core.registry.find(model, |id| policy::allows_model(&caller.account.limits, id))
    }

    /// Checks and prices a program, and whether the caller may run it.
    pub(super) async fn check(&self, caller: &Caller, model: Option<&str>, body: Bytes) -> Result<Admitted> {
        self.know_day(&caller.account.name).await?;
        self.core.meters.has_left(&caller.account.name, &caller.account.limits, time::now_ms())?;
        let turn = self.core.checking.turn(&caller.account.name);
        let turn = turn.instrument(info_span!("wait for a turn to check")).await;
        let started = Instant::now();
        let checked = self.checked(caller, model, body).instrument(info_span!("check")).await;
        drop(turn);
        // A program that is refused has cost something too.
        let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
        self.core.meters.spend(&caller.account.name, milliseconds, time::now_ms());
        checked
    }

    async fn checked(&self, caller: &Caller, model: Option<&str>, body: Bytes) -> Result<Admitted> {
        let (service, asker, model) = (self.clone(), caller.clone(), model.map(str::to_owned));
        let read = tokio::task::spawn_blocking(move || {
            let program = Program::from_bytes(&body).map_err(faulty)?;
            let entry = service.entry(&asker, model.as_deref().or(program.model.as_deref()))?.clone();
            match entry.opened() {
                Some(outline) => {
                    let program = outline.engine.check(program).map_err(faulty)?;
                    Ok(Read::Checked(entry, Arc::new(program), outline))
                }
                None => Ok(Read::Waits(entry, program)),
            }
        });
        let (entry, program, outline) = match blocking_answer(read.await)? {
            Read::Checked(entry, program, outline) => (entry, program, outline),
            Read::Waits(entry, program) => {
                let outline = entry.outline().await?;
                let checker = outline.clone();
                let checked =
                    tokio::task::spawn_blocking(move || checker.engine.check(program).map_err(faulty));
                (entry, Arc::new(blocking_answer(checked.await)?), outline)
            }
        };
        let price = Price::new(&program.price, entry.milliseconds(&program.price));
        policy::allows(&caller.account.limits, entry.config.strict, &program, &price)?;
        let most = self.core.config.engine.value_bytes;
        if price.peak_bytes > most {
            let used = price.peak_bytes as f64;
            return Err(Box::new(exceeded(
                ProblemKind::TooLarge,
                "engine.value_bytes",
                most as f64,
                used,
                "bytes",
            )));
        }
        Ok(Admitted { entry, outline, program, price })
    }
}
