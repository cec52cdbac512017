//! What can go wrong.

use std::path::PathBuf;

use pellucid_engine::EngineError;
use pellucid_engine::operations::OperationError;
use pellucid_graph::fault::Faults;

use crate::results::Results;

/// What can go wrong. Messages say what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program is wrong, and was not run: everything that is wrong with it, each with the line it was written in.
    #[error("{0}")]
    Faults(Faults),
    /// The run failed: an operation on its values, or a bound. It names the trace, and keeps what the traces before it
    /// saved.
    #[error(transparent)]
    Run(Box<Failure>),
    /// By its price the program needs more memory than there is, and was not run.
    #[error(
        "the program needs up to {} at once beside the model, and {} are there; nothing was run\n  hint: save less of each value, or run it in parts; `pellucid explain` prices it, `pellucid run --memory` allows more",
        gigabytes(*needed), gigabytes(*allowed)
    )]
    TooLarge {
        /// Bytes that it would hold at once.
        needed: u64,
        /// Bytes that it may hold.
        allowed: u64,
    },
    /// The engine failed before anything ran.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model cannot be opened.
    #[error(transparent)]
    Model(#[from] pellucid_models::Error),
    /// A tensor cannot be read or written.
    #[error(transparent)]
    Tensor(#[from] OperationError),
    /// The model came without a tokenizer.
    #[error(
        "`{model}` came without a tokenizer\n  hint: give token ids, or put tokenizer.json beside the weights"
    )]
    NoTokenizer {
        /// The model.
        model: String,
    },
    /// The model came without a chat template.
    #[error("`{model}` came without a chat template\n  hint: give the prompt as plain text")]
    NoChatTemplate {
        /// The model.
        model: String,
    },
    /// A text is not one token.
    #[error(
        "{text:?} is {count} tokens, not one\n  hint: words inside a text are tokens with the space before them, as in {spaced:?}"
    )]
    NotOneToken {
        /// The text.
        text: String,
        /// How many tokens it is.
        count: usize,
        /// The text with a space before it.
        spaced: String,
    },
    /// Nothing is saved under that name.
    #[error("nothing is saved as `{name}`\n  hint: there is {known}")]
    NotSaved {
        /// The name.
        name: String,
        /// What is saved.
        known: String,
    },
    /// A steering vector is not one, or its file is none.
    #[error("{reason}\n  hint: {hint}")]
    Steering {
        /// What is wrong.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The service that holds the model cannot be reached, or refuses, or failed.
    #[error(transparent)]
    Remote(Box<pellucid_client::Error>),
    /// Something that needs the model itself, which a service holds.
    #[error("{what} not in this process: `{model}` is at a service\n  hint: {hint}")]
    NotHere {
        /// The model.
        model: String,
        /// What is not here.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// The model was opened without its weights.
    #[error("`{model}` was opened without its weights, and runs nothing\n  hint: `Model::open` loads them")]
    Outline {
        /// The model.
        model: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
}

/// Bytes for people.
fn gigabytes(bytes: u64) -> String {
    if bytes < 10_000_000 { format!("{bytes} bytes") } else { format!("{:.2} GB", bytes as f64 / 1e9) }
}

/// A run that failed: why, in which trace, and what had been saved before that trace began.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: EngineError,
    /// The name of the trace that was running; none: it failed before the first.
    pub trace: Option<String>,
    /// What the traces before had saved.
    pub kept: Results,
    message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Box<pellucid_engine::Failure>> for Error {
    fn from(failure: Box<pellucid_engine::Failure>) -> Self {
        let message = failure.to_string();
        let pellucid_engine::Failure { error, trace, kept } = *failure;
        Error::Run(Box::new(Failure { error, trace, kept: Results::new(kept), message }))
    }
}

impl From<Faults> for Error {
    fn from(faults: Faults) -> Self {
        Error::Faults(faults)
    }
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
