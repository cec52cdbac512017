//! Ctrl-C: a run that can be cancelled is cancelled; anything else ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Failure, INTERRUPTED};

/// A flag that Ctrl-C sets. From the second time on, the process ends at once.
pub(crate) fn cancellation() -> Result<Arc<AtomicBool>, Failure> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = cancel.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })
    .map_err(|error| Failure::Message(format!("Ctrl-C cannot be listened for: {error}")))?;
    Ok(cancel)
}
