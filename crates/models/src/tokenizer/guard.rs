//! The tokenizers crate at arm's length: it panics on some files that it reads as tokenizers.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Error, Result};

/// Runs work of the tokenizers crate; a panic in it is an error. A tokenizer holds nothing that half-done work leaves wrong: its caches
/// are filled with whole entries.
pub(crate) fn guarded<T>(origin: &str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let failed = |reason: String| Error::Tokenizer { origin: origin.to_owned(), reason };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|error| failed(error.to_string())),
        Err(panic) => Err(failed(format!("it fails on its own rules: {}", said(&*panic)))),
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say how")
}
