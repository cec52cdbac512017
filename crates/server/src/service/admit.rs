//! A program checked, priced and allowed: everything that is known before anything is kept or run.

use std::sync::Arc;

use bytes::Bytes;
use pellucid_client::api::{Price, Problem, ProblemKind};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;
use pellucid_graph::fault::Faults;
use tracing::info_span;

use super::compute::{Step, Work};
use super::{Caller, Result, Service};
use crate::account::{exceeded, policy};
use crate::models::{Entry, Outline};

/// A program that may be run.
pub(super) struct Admitted {
    pub entry: Arc<Entry>,
    pub outline: Arc<Outline>,
    pub program: Arc<CheckedProgram>,
    pub price: Price,
    /// Bytes that it may hold at once.
    pub memory_bytes: u64,
}

fn faulty(faults: Faults) -> Box<Problem> {
    Box::new(Problem::of_faults(&faults))
}

impl Service {
    /// The model that was asked for, if the caller may use it.
    pub(crate) fn entry(&self, caller: &Caller, model: Option<&str>) -> Result<&Arc<Entry>> {
        self.core.registry.find(model, |id| policy::allows_model(&caller.account.limits, id))
    }

    /// Checks and prices a program, and whether the caller may run it; `then` computes what is wanted of it, in the same turn.
    pub(super) async fn check<T: Send + 'static>(
        &self,
        caller: &Caller,
        model: Option<&str>,
        body: Bytes,
        then: impl Fn(Admitted) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let model = model.map(str::to_owned);
        // However many wait: their bodies have their bounded room.
        let how = Work { most: usize::MAX, span: || info_span!("check") };
        let check = move |service: &Service, caller: &Caller| {
            Ok(match service.checked(caller, model.as_deref(), &body)? {
                Step::Done(admitted) => Step::Done(then(admitted)?),
                Step::Opens(entry) => Step::Opens(entry),
            })
        };
        self.compute(caller, how, check).await
    }

    fn checked(&self, caller: &Caller, model: Option<&str>, body: &Bytes) -> Result<Step<Admitted>> {
        let program = Program::from_bytes(body).map_err(faulty)?;
        let entry = self.entry(caller, model.or(program.model.as_deref()))?.clone();
        let Some(outline) = entry.opened() else { return Ok(Step::Opens(entry)) };
        let program = Arc::new(outline.engine.check(program).map_err(faulty)?);
        let most = self.core.config.engine.value_bytes;
        // Where it may not hold what its ways back read, this is computed again.
        let memory = caller.account.limits.peak_bytes.map_or(most, |own| own.min(most));
        let price = program.price.within(memory);
        let price = Price::new(&price, entry.milliseconds(&price));
        policy::allows(&caller.account.limits, entry.config.strict, &program, &price)?;
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
        Ok(Step::Done(Admitted { entry, outline, program, price, memory_bytes: memory }))
    }
}
