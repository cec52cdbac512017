//! A model's weights by name, whatever they are stored in.

use std::collections::BTreeMap;
use std::path::Path;

use super::near::near_names;
use super::tensor::RawTensor;
use super::{gguf, safetensors_files};
use crate::{Error, Result};

/// The nearest names that a message about a missing tensor offers.
const NEAR_NAMES: usize = 3;

/// A tensor of the checkpoint, or why it cannot be read.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// One that can be read.
    Tensor(RawTensor),
    /// One in a form of storage that is not known; an error only for who asks for it.
    Unsupported {
        /// The name of the type it is stored in.
        stored: String,
        shape: Vec<usize>,
    },
}

impl Entry {
    fn shape(&self) -> &[usize] {
        match self {
            Self::Tensor(tensor) => &tensor.shape,
            Self::Unsupported { shape, .. } => shape,
        }
    }
}

/// The named tensors of a model. Opening reads the headers only; numbers are read from the mapped files when they are
/// asked for.
///
/// ```no_run
/// # fn main() -> pellucid_models::Result<()> {
/// let checkpoint = pellucid_models::weights::Checkpoint::open_folder("path/to/gpt2")?;
/// let embedding = checkpoint.expect("wte.weight", &[50257, 768])?;
/// let first_rows = embedding.rows_to_f32(0..2); // [2, 768]
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Checkpoint {
    origin: String,
    entries: BTreeMap<String, Entry>,
}

impl Checkpoint {
    /// Opens a Hugging Face folder: `model.safetensors`, or the files that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// When there are no such files, one is missing, or one is damaged or cut short.
    pub fn open_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let entries = safetensors_files::open_folder(folder)?;
        Ok(Self { origin: folder.display().to_string(), entries })
    }

    /// Opens one safetensors file: an adapter's, an autoencoder's.
    ///
    /// # Errors
    /// When it is not there, or damaged or cut short.
    pub fn open_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Ok(Self { origin: path.display().to_string(), entries: safetensors_files::open_file(path)? })
    }

    /// Opens a GGUF file. Names, shapes and values are Hugging Face's: see [`gguf::GgufModel`], which also gives the
    /// configuration and the tokenizer that the file holds.
    ///
    /// # Errors
    /// When the file is damaged or cut short, or of an architecture whose layout is not known.
    pub fn open_gguf(path: impl AsRef<Path>) -> Result<Self> {
        gguf::GgufModel::open(path)?.checkpoint()
    }

    /// No tensors at all.
    pub(crate) fn empty(origin: String) -> Self {
        Self { origin, entries: BTreeMap::new() }
    }

    pub(super) fn new(origin: String, entries: BTreeMap<String, Entry>) -> Self {
        Self { origin, entries }
    }

    /// Where the weights come from, for messages.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// All tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of the tensor of this name, if there is one.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(Entry::shape)
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] with the nearest names; [`Error::UnsupportedTensorType`].
    pub fn get(&self, name: &str) -> Result<RawTensor> {
        self.find(name, None)
    }

    /// The tensor of this name, which must have this shape.
    ///
    /// # Errors
    /// As [`Checkpoint::get`], and [`Error::ShapeMismatch`] with both shapes.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<RawTensor> {
        let tensor = self.find(name, Some(shape))?;
        if tensor.shape == shape {
            return Ok(tensor);
        }
        Err(Error::ShapeMismatch {
            origin: self.origin.clone(),
            name: name.to_owned(),
            found: tensor.shape,
            expected: shape.to_vec(),
        })
    }

    fn find(&self, name: &str, expected: Option<&[usize]>) -> Result<RawTensor> {
        match self.entries.get(name) {
            Some(Entry::Tensor(tensor)) => Ok(tensor.clone()),
            Some(Entry::Unsupported { stored, .. }) => Err(Error::UnsupportedTensorType {
                origin: self.origin.clone(),
                name: name.to_owned(),
                stored: stored.clone(),
            }),
            None => Err(Error::MissingTensor {
                origin: self.origin.clone(),
                name: name.to_owned(),
                expected: expected.map(<[usize]>::to_vec),
                near: near_names(name, self.names(), NEAR_NAMES)
                    .into_iter()
                    .map(|near| (near.to_owned(), self.shape(near).unwrap_or_default().to_vec()))
                    .collect(),
            }),
        }
    }
}
