//! What panics while one program's own work is done ends that program alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::member::Member;
use crate::error::EngineError;
use crate::operations::OperationError;

impl Member<'_> {
    /// Does a program's own work. If it panics the program fails, naming the node that was worked on, and nothing else of
    /// it is used any more but what it had saved. None: it panicked.
    pub(super) fn guarded<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> Option<R> {
        // What a panic leaves half done belongs to the program that it ends, but for buffers whose contents do not matter.
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(done) => Some(done),
            Err(payload) => {
                self.fail_by_panic(&said(payload.as_ref()));
                None
            }
        }
    }

    /// Does what a program does in the middle of a pass: it comes out of its own time.
    pub(super) fn timed<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> Option<R> {
        let (begun, known) = (Instant::now(), self.job.own());
        let done = self.guarded(work);
        let nodes = self.job.own().saturating_sub(known);
        self.job.spend(begun.elapsed().saturating_sub(nodes));
        done
    }

    /// The program ends, because its own work panicked.
    pub(super) fn fail_by_panic(&mut self, message: &str) {
        let told = match self.job.at_node {
            Some(id) => {
                let error = OperationError::new(format!("the engine panicked here: {message}"));
                error.at(self.job.program.program.node(id)).to_string()
            }
            None => format!("it panicked: {message}"),
        };
        self.job.failed.get_or_insert(EngineError::Internal(told));
    }
}

/// What a panic said.
pub(super) fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}
