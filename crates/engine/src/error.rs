//! What can go wrong while a program runs.

use std::fmt;

use pellucid_graph::NodeId;
use pellucid_graph::check::CheckedProgram;
use pellucid_graph::fault::{Fault, quote};

use crate::results::Results;

/// Why a program's run failed. Its neighbours in the pass are not affected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// An operation could not take its values: an index out of range, a division by 0. Names the node, and its author's
    /// own line.
    #[error("{0}")]
    Node(Box<Fault>),
    /// The caller cancelled it.
    #[error("the run was cancelled")]
    Cancelled,
    /// It ran out of time.
    #[error("the run took longer than its {seconds} s")]
    DeadlineExceeded {
        /// The time it had.
        seconds: f64,
    },
    /// It needed more memory than it was given: so much where that was found out, and there may be more to come.
    #[error(
        "{needed} bytes were needed at once at this point of the run, and there may be more to come, but it was given {allowed}\n  hint: run fewer prompts or cells at once, or give it more memory (`--memory`, in Python `memory_bytes`)"
    )]
    MemoryExceeded {
        /// Bytes it would hold.
        needed: u64,
        /// Bytes it may hold.
        allowed: u64,
    },
    /// A pass panicked in which it rode with others: one of its programs, or the engine, is at fault. Each can be run again
    /// by itself.
    #[error("a pass of {programs} programs failed, this one among them: {message}")]
    PassFailed {
        /// Programs of the pass.
        programs: usize,
        /// What went wrong.
        message: String,
    },
    /// Something of the engine itself went wrong: please report it.
    #[error("the engine failed: {0}")]
    Internal(String),
}

/// A run that failed: why, in which trace, and what had been saved before that trace began.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Why.
    pub error: EngineError,
    /// The name of the trace that was running; none: it failed before the first.
    pub trace: Option<String>,
    /// What the program had saved and logged: of saved values, those of the traces before.
    pub kept: Results,
}

impl Failure {
    /// The failure of a run that was in `trace`. Each saved name comes with its node; those of nodes that stand before
    /// the trace are kept.
    pub(crate) fn new(
        error: EngineError,
        program: &CheckedProgram,
        trace: Option<NodeId>,
        mut kept: Results,
        saved: &[(String, NodeId)],
    ) -> Box<Failure> {
        for (name, _) in saved.iter().filter(|(_, id)| trace.is_none_or(|trace| *id >= trace)) {
            kept.tensors.remove(name);
        }
        let trace = trace.map(|trace| program.program.node(trace).name.clone());
        Box::new(Failure { error, trace, kept })
    }
}

/// What went wrong, then a line that names the trace and what is kept.
impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        self.error.fmt(formatter)?;
        let Some(trace) = &self.trace else { return Ok(()) };
        write!(formatter, "\n  in trace {}", quote(trace))?;
        let names: Vec<String> = self.kept.tensors.keys().take(SHOWN).map(|name| quote(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        let more = match self.kept.tensors.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        write!(formatter, "; what the traces before it saved is kept: {}{more}", names.join(", "))
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Why a pass ended before its last stage.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// No program of the pass goes on: each has its own failure.
    AllFailed,
    /// A fault of the engine.
    Internal(String),
}

impl Interruption {
    /// A slot is empty that a stage needs: a mistake in a stage list.
    pub fn missing(what: &str) -> Interruption {
        Interruption::Internal(format!("{what} is not there"))
    }
}
