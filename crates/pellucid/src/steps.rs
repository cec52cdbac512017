//! The part of a graph that runs at each step of a generation.

use std::panic::Location;
use std::sync::Arc;

use crate::builder::{Builder, Scope};
use crate::invoke::Invoke;
use crate::value::Writer;

/// The body of [`Trace::steps`](crate::Trace::steps), while it is written.
#[derive(Clone, Debug)]
pub struct Steps {
    builder: Arc<Builder>,
    scope: Scope,
}

impl Steps {
    pub(crate) fn new(builder: Arc<Builder>, scope: Scope) -> Steps {
        Steps { builder, scope }
    }

    #[track_caller]
    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer { builder: &self.builder, scope: self.scope, location: Location::caller() }
    }

    /// An invoke of the trace at the current step: its hook points are those of this step's tokens, `[prompts, 1, …]`
    /// after step 0.
    pub fn at(&self, invoke: &Invoke) -> Invoke {
        invoke.in_scope(self.builder.clone(), self.scope)
    }
}
