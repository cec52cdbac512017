//! What can go wrong.

use std::path::PathBuf;

use pellucid_engine::EngineError;
use pellucid_engine::operations::OperationError;
use pellucid_graph::fault::Faults;

/// What can go wrong. Messages say what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program is wrong, and was not run: everything that is wrong with it, each with the line it was written in.
    #[error("{0}")]
    Faults(Faults),
    /// The run failed: an operation on its values, or a bound.
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

impl From<Faults> for Error {
    fn from(faults: Faults) -> Self {
        Error::Faults(faults)
    }
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
