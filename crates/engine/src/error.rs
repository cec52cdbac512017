//! What can go wrong while a program runs.

use pellucid_graph::fault::Fault;

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
    /// It needed more memory than it was given.
    #[error("the run needs {needed} bytes at once, but it was given {allowed}")]
    MemoryExceeded {
        /// Bytes it would hold.
        needed: u64,
        /// Bytes it may hold.
        allowed: u64,
    },
    /// Something of the engine itself went wrong: please report it.
    #[error("the engine failed: {0}")]
    Internal(String),
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
