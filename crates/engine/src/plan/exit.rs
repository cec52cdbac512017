//! Early exit: an invoke walks as far as the last hook point at which something of it is read or written, and no farther.
//!
//! **Needs:** before a step begins it is known what is asked of the invoke there: getters, setters and skips that are needed
//! (`interleave::touches`, after dead code is gone). One that draws a token walks to the end; it takes no step after the last of which
//! anything is read (`Asked::last_step`).
//!
//! **Keeps:** a value at a hook point depends on the stages before it alone, and of the stages after it nothing is read. Rows that
//! others attend to or are aboard of go on for these when the invoke has left (`sharing`).

use crate::job::Instance;

/// The stage after the last that matters to an invoke with those touches, in the order of their stages.
pub(crate) fn end(touches: &[(usize, Instance)], draws: bool, stages: usize) -> usize {
    match touches.last() {
        _ if draws => stages,
        Some(last) => last.0 + 1,
        None => 0,
    }
}
