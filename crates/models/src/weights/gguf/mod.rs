//! GGUF files: one file that holds a model's weights, configuration, tokenizer and chat template, all given back here
//! in the form that a Hugging Face folder has them.

mod config;
mod layout;
mod reader;
mod tokenizer;

use std::path::Path;

use serde_json::{Value, json};

use self::config::Metadata;
use self::layout::{ARCHITECTURES, Heads, Layout};
use self::reader::GgufFile;
use super::checkpoint::Checkpoint;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// The tensors that may be one.
const EMBEDDING: &str = "token_embd.weight";
const UNEMBEDDING: &str = "output.weight";

/// An opened GGUF file: its header is read and checked, its tensors are not.
#[derive(Debug)]
pub struct GgufModel {
    file: GgufFile,
    architecture: String,
    layout: &'static Layout,
}

impl GgufModel {
    /// Opens the file at `path`, version 2 or 3.
    ///
    /// # Errors
    /// When the file is damaged or cut short, one of several, or of an architecture that is not known.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = GgufFile::open(path)?;
        if file.count("split.count").is_some_and(|count| count > 1) {
            return Err(Error::Unsupported {
                origin: path.display().to_string(),
                what: "a GGUF file in several parts".to_owned(),
                hint: "join them with `llama-gguf-split --merge`".to_owned(),
            });
        }
        let architecture = file.text("general.architecture").unwrap_or_default().to_owned();
        let layout = Layout::of(&architecture).ok_or_else(|| {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
            Error::Unsupported {
                origin: path.display().to_string(),
                what: format!("GGUF architecture `{architecture}`"),
                hint: format!("known are {}", known.join(", ")),
            }
        })?;
        Ok(Self { file, architecture, layout })
    }

    /// The model's configuration, as its `config.json` would have it.
    ///
    /// # Errors
    /// When the metadata lacks what the architecture needs, or asks for what is not known.
    pub fn config(&self) -> Result<Value> {
        config::config(&self.metadata(), self.unembedding_is_embedding())
    }

    /// The tokens that end a generation, as a `generation_config.json` has them; `None` where the file names none.
    #[must_use]
    pub fn generation_config(&self) -> Option<Value> {
        let id = |name: &str| self.file.count(&format!("tokenizer.ggml.{name}_token_id"));
        let mut ends: Vec<usize> = ["eos", "eot", "eom"].into_iter().filter_map(id).collect();
        ends.sort_unstable();
        ends.dedup();
        if ends.is_empty() {
            return None;
        }
        Some(json!({ "bos_token_id": id("bos"), "eos_token_id": ends, "pad_token_id": id("padding") }))
    }

    /// The weights, under Hugging Face's names and in its layout.
    ///
    /// # Errors
    /// When a tensor is not one that the architecture has, or does not fit its heads.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let metadata = self.metadata();
        let heads = Heads { query: metadata.query_heads()?, key: metadata.key_heads()? };
        let leave_out: &[&str] = if self.unembedding_is_embedding() { &[UNEMBEDDING] } else { &[] };
        let entries = self.layout.entries(&self.file, heads, leave_out)?;
        Ok(Checkpoint::new(self.file.file.path.display().to_string(), entries))
    }

    /// The file's own tokenizer; `None` where it has none.
    ///
    /// # Errors
    /// When it is of a kind that is not known, or does not hold together.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        tokenizer::tokenizer(&self.file)
    }

    /// The Jinja text of the file's chat template.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.file.text("tokenizer.chat_template")
    }

    fn metadata(&self) -> Metadata<'_> {
        Metadata { file: &self.file, architecture: &self.architecture }
    }

    /// Whether the unembedding is left out, or stored as a second copy of the embedding, as some converters do.
    fn unembedding_is_embedding(&self) -> bool {
        let tensors = &self.file.tensors;
        let (Some(output), Some(embedding)) = (tensors.get(UNEMBEDDING), tensors.get(EMBEDDING)) else {
            return !tensors.contains_key(UNEMBEDDING);
        };
        let bytes = |range: &std::ops::Range<usize>| &self.file.file.map[range.clone()];
        output.stored == embedding.stored
            && output.shape == embedding.shape
            && !output.range.is_empty()
            && bytes(&output.range) == bytes(&embedding.range)
    }
}
