//! Traces together: traces of a session that do not depend on one another run in the same passes.
//!
//! **Needs:** the traces follow one another; each goes once forward (no generation, nothing that goes back, no weights set), all on
//! one model; and none reads a value that comes from another of them, by whatever way: nodes between traces, conditions, what
//! loops carry. The checker has found these (`graph::check::CheckedTrace`), as many as make one wave. What their values may
//! come to fits into what is left of the program's memory; where it does not, fewer run together.
//!
//! **Keeps:** an invoke's rows depend on its tokens and its edits, whichever trace it is of, so it may stand in a pass beside
//! those of other traces, and share rows with them, as the invokes of one trace do. Were one to wait for another after all, it
//! would be parked as invokes are. What is saved, logged and what fails is told in turn, as if they ran one after another (`job::turns`).

use pellucid_graph::check::CheckedProgram;

use super::Rewrites;

/// How many traces run together from that place on, where a program holds so many bytes and may hold so many; 0: there are none
/// left.
pub(crate) fn together(
    program: &CheckedProgram,
    first: usize,
    held: u64,
    allowed: Option<u64>,
    rewrites: Rewrites,
) -> usize {
    let mut bytes = held;
    let traces = program.traces.iter().skip(first).enumerate();
    let fitting = traces.take_while(|(number, trace)| {
        bytes = bytes.saturating_add(trace.bytes);
        *number == 0 || (rewrites.traces && trace.joins && allowed.is_none_or(|allowed| bytes <= allowed))
    });
    fitting.count()
}
