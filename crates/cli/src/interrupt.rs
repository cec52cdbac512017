//! Ctrl-C: a run is cancelled between two modules; before a run begins, the process ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Failure, INTERRUPTED};

/// What Ctrl-C does from now on.
pub(crate) struct Interrupt {
    running: Arc<AtomicBool>,
    cancel: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens for Ctrl-C.
    pub(crate) fn listen() -> Result<Interrupt, Failure> {
        let interrupt = Interrupt { running: Arc::default(), cancel: Arc::default() };
        let (running, cancel) = (interrupt.running.clone(), interrupt.cancel.clone());
        ctrlc::set_handler(move || {
            // The second time, the run had its chance.
            if !running.load(Ordering::SeqCst) || cancel.swap(true, Ordering::SeqCst) {
                eprintln!("interrupted");
                std::process::exit(i32::from(INTERRUPTED));
            }
        })
        .map_err(|error| Failure::Message(format!("Ctrl-C cannot be listened for: {error}")))?;
        Ok(interrupt)
    }

    /// The flag of a run that begins now: Ctrl-C sets it.
    pub(crate) fn run(&self) -> Arc<AtomicBool> {
        self.running.store(true, Ordering::SeqCst);
        self.cancel.clone()
    }
}
