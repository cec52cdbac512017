//! What may end a simple run before its end, and who hears what it logs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pellucid_kernels::pool::{self, Stopped};

use crate::error::EngineError;
use crate::job::{OnLog, RunOptions};
use crate::operations::OperationError;
use crate::results::LogEntry;

/// The bounds of a simple run that are looked at between nodes and between stages.
#[derive(Default)]
pub(super) struct Watch {
    cancel: Arc<AtomicBool>,
    /// When it began, and the seconds that it has.
    time: Option<(Instant, f64)>,
    on_log: Option<OnLog>,
}

impl Watch {
    pub fn new(options: &RunOptions) -> Watch {
        Watch {
            cancel: options.cancel.clone().unwrap_or_default(),
            time: options.seconds.map(|seconds| (Instant::now(), seconds)),
            on_log: options.on_log.clone(),
        }
    }

    /// Why the run ends here, if it does. What is over stays over.
    pub fn over(&self) -> Option<EngineError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Some(EngineError::Cancelled);
        }
        let (began, seconds) = self.time?;
        let late = began.elapsed().as_secs_f64() > seconds;
        late.then_some(EngineError::DeadlineExceeded { seconds })
    }

    /// Runs one node: cancellation ends it in the middle.
    pub fn stoppable<T>(
        &self,
        body: impl FnOnce() -> Result<T, OperationError>,
    ) -> Result<T, OperationError> {
        pool::stoppable(&self.cancel, body)
            .unwrap_or_else(|Stopped| Err(OperationError::new("it was stopped")))
    }

    pub fn log(&self, entry: &LogEntry) {
        if let Some(on_log) = &self.on_log {
            on_log(entry);
        }
    }
}
