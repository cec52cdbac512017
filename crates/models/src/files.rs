//! The files of a model, opened and not yet loaded.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::chat_template::ChatTemplate;
use crate::tokenizer::{SpecialTokens, Tokenizer, read_json};
use crate::weights::Checkpoint;
use crate::weights::gguf::GgufModel;
use crate::{Error, Result};

/// What a model is made of, wherever it was found.
#[derive(Debug)]
pub struct ModelFiles {
    /// The model's name.
    pub name: String,
    /// Where it comes from, for people: a path, or the hub's name and what there is to say of it.
    pub origin: String,
    /// The revision of the weights, if their publisher has one.
    pub revision: Option<String>,
    /// `config.json`.
    pub config: Value,
    /// `generation_config.json`.
    pub generation_config: Option<Value>,
    /// The weights.
    pub checkpoint: Checkpoint,
    /// The tokenizer, if there is one.
    pub tokenizer: Option<Tokenizer>,
    /// The chat template, if there is one.
    pub chat_template: Option<ChatTemplate>,
}

impl ModelFiles {
    /// Opens a folder in Hugging Face's layout, under the folder's name.
    ///
    /// # Errors
    /// Where a file is missing or damaged.
    pub fn open_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let outline = Self::outline_folder(folder)?;
        Ok(Self { checkpoint: Checkpoint::open_folder(folder)?, ..outline })
    }

    /// The same without looking for weights: the checkpoint is empty.
    ///
    /// # Errors
    /// Where another file is missing or damaged.
    pub fn outline_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let config = read_config(folder)?;
        let tokenizer = Tokenizer::from_folder(folder)?;
        let none = SpecialTokens::default();
        let special = tokenizer.as_ref().map_or(&none, Tokenizer::special_tokens);
        Ok(Self {
            name: name_of(folder),
            origin: folder.display().to_string(),
            revision: None,
            config,
            generation_config: read_generation_config(folder)?,
            checkpoint: Checkpoint::empty(folder.display().to_string()),
            chat_template: ChatTemplate::from_folder(folder, special)?,
            tokenizer,
        })
    }

    /// Opens a GGUF file, under the file's name.
    ///
    /// # Errors
    /// Where the file is damaged, or holds what is not known.
    pub fn open_gguf(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = GgufModel::open(path)?;
        let tokenizer = file.tokenizer()?;
        let none = SpecialTokens::default();
        let special = tokenizer.as_ref().map_or(&none, Tokenizer::special_tokens);
        let template = file.chat_template().map(|source| ChatTemplate::new(source, special));
        Ok(Self {
            name: name_of(path),
            origin: path.display().to_string(),
            revision: None,
            config: file.config()?,
            generation_config: file.generation_config(),
            checkpoint: file.checkpoint()?,
            chat_template: template,
            tokenizer,
        })
    }
}

/// The configuration of a folder.
pub(crate) fn read_config(folder: &Path) -> Result<Value> {
    let path = folder.join("config.json");
    read_json(&path)?.ok_or_else(|| Error::NoSuchModel {
        given: folder.display().to_string(),
        reason: "the folder has no `config.json`".to_owned(),
    })
}

/// The generation configuration of a folder, if it has one.
pub(crate) fn read_generation_config(folder: &Path) -> Result<Option<Value>> {
    read_json(&folder.join("generation_config.json"))
}

/// The last part of a path, made absolute where that is needed to have one.
pub(crate) fn name_of(path: &Path) -> String {
    let absolute: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let last = absolute.components().next_back();
    last.map_or_else(|| path.display().to_string(), |last| last.as_os_str().to_string_lossy().into_owned())
}
