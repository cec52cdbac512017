//! What can go wrong between a model's name and its weights in memory: one type, whose messages say what to do.

use std::path::PathBuf;

/// The result of everything in this crate that reads a model's files.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is said of a tokenizer that cannot do its work.
const TOKENIZER_HINT: &str =
    "fetch the model's tokenizer again from where the model comes from, or give token ids";

/// An error of this crate. Each message names the file, tensor or model it is about, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration that does not make a model.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "create", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A model was named that is neither a folder, nor a GGUF file, nor in the form of a hub's name.
    #[error("no such model: `{given}`: {reason}")]
    NoSuchModel {
        /// What was given.
        given: String,
        /// Why it was not taken, and what would be.
        reason: String,
    },
    /// A folder holds no weights that can be read.
    #[error("{} holds no `model.safetensors` or `model.safetensors.index.json`{hint}", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// What it does hold that explains it, starting with punctuation; may be empty.
        hint: String,
    },
    /// A file is not what its name says, or is damaged.
    #[error("{} is not a valid {format} file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file ends before a tensor that its header promises.
    #[error(
        "{} is cut short: tensor `{name}` {shape:?} should end at byte {needed}, the file ends at byte {available}; \
         download it again",
        path.display()
    )]
    TruncatedTensor {
        /// The file.
        path: PathBuf,
        /// The first tensor that is not wholly there.
        name: String,
        /// Its shape, as the header gives it.
        shape: Vec<usize>,
        /// Where the tensor should end, in bytes from the file's start.
        needed: u64,
        /// The file's length in bytes.
        available: u64,
    },
    /// A tensor that the model needs is not in the checkpoint.
    #[error("{origin} has no tensor `{name}`{}{}", needed_shape(expected), did_you_mean(near))]
    MissingTensor {
        /// The checkpoint.
        origin: String,
        /// The tensor's name.
        name: String,
        /// The shape that the configuration gives it, where known.
        expected: Option<Vec<usize>>,
        /// The nearest names that are there, with their shapes.
        near: Vec<(String, Vec<usize>)>,
    },
    /// A tensor has another shape than the model's configuration gives it.
    #[error(
        "tensor `{name}` in {origin} has shape {found:?}, and the model's configuration needs {expected:?}: \
         the configuration and the weights are not of the same model"
    )]
    ShapeMismatch {
        /// The checkpoint.
        origin: String,
        /// The tensor's name.
        name: String,
        /// Its shape in the checkpoint.
        found: Vec<usize>,
        /// The shape that is needed.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a form that this crate does not read.
    #[error(
        "tensor `{name}` in {origin} is stored as {stored}, which is not supported; \
         use a checkpoint in F32, F16 or BF16, or a GGUF file in Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K"
    )]
    UnsupportedTensorType {
        /// The checkpoint.
        origin: String,
        /// The tensor's name.
        name: String,
        /// The name of the type it is stored in.
        stored: String,
    },
    /// Weights are to stay quantised, and no linear layer's is.
    #[error(
        "{origin} has no quantised weights to be held as they are\n  hint: choose `f32`, or `bf16` for half the memory; \
         `quantised` is for GGUF files in Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K"
    )]
    NotQuantised {
        /// The checkpoint.
        origin: String,
    },
    /// A file is in order, but describes something that this crate does not know.
    #[error("{origin}: {what} is not supported: {hint}")]
    Unsupported {
        /// The file or model.
        origin: String,
        /// What is not known.
        what: String,
        /// What is, or what to do.
        hint: String,
    },
    /// An adapter, or an autoencoder, that is of another model than the one it is put on.
    #[error("{origin} does not fit the model `{model}`: {reason}")]
    Misfit {
        /// What does not fit: its file or name.
        origin: String,
        /// The model.
        model: String,
        /// What is wrong, and what would fit.
        reason: String,
    },
    /// A tokenizer could not be built, or refused a text.
    #[error("the tokenizer of {origin}: {reason}\n  hint: {TOKENIZER_HINT}")]
    Tokenizer {
        /// Where the tokenizer comes from.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// A chat template could not be read, or refused a conversation.
    #[error("the chat template: {reason}")]
    ChatTemplate {
        /// What is wrong.
        reason: String,
    },
    /// A model hub, or its cache on this machine, could not give what was asked of it.
    #[error("{model}: {reason}")]
    Hub {
        /// The model's name, with its revision where one was given.
        model: String,
        /// What happened, and what to do.
        reason: String,
    },
}

impl Error {
    /// For `map_err` on the system's errors.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// A [`Error::Malformed`] with its reason.
    pub(crate) fn malformed(
        path: impl Into<PathBuf>,
        format: &'static str,
        reason: impl std::fmt::Display,
    ) -> Self {
        Self::Malformed { path: path.into(), format, reason: reason.to_string() }
    }
}

fn needed_shape(expected: &Option<Vec<usize>>) -> String {
    expected.as_ref().map_or_else(String::new, |shape| format!(" (the model needs it with shape {shape:?})"))
}

fn did_you_mean(near: &[(String, Vec<usize>)]) -> String {
    if near.is_empty() {
        return String::new();
    }
    let names: Vec<String> = near.iter().map(|(name, shape)| format!("`{name}` {shape:?}")).collect();
    format!("; the nearest names there: {}", names.join(", "))
}
