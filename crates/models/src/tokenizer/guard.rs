//! The tokenizers crate at arm's length: it panics on some files that it reads as tokenizers.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::{Error, Result};

thread_local! {
    /// Whether this thread is in the crate, so that a panic is told as an error and not printed besides.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs work of the tokenizers crate; a panic in it is an error. A tokenizer holds nothing that half-done work leaves wrong: its caches
/// are filled with whole entries.
pub(crate) fn guarded<T>(origin: &str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    quieten();
    let failed = |reason: String| Error::Tokenizer { origin: origin.to_owned(), reason };
    let before = INSIDE.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(before);
    match outcome {
        Ok(outcome) => outcome.map_err(|error| failed(error.to_string())),
        Err(panic) => Err(failed(format!("it fails on its own rules: {}", said(&*panic)))),
    }
}

/// Once for the process: what prints panics passes over those that become errors here.
fn quieten() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !INSIDE.get() {
                print(panic);
            }
        }));
    });
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say how")
}
