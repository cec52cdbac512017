//! What is laid over a model without changing it: LoRA adapters in PEFT's layout, sparse autoencoders in SAELens'.
//!
//! Both are a configuration and a file of weights, in a folder or on a hub. Neither is ever unpickled. What they are to a
//! program is the façade's affair: operations between hook points.

mod hook_names;
mod lora;
mod sparse_autoencoder;

use std::path::{Path, PathBuf};

use crate::hub::{self, ModelName, Settings};
use crate::weights::Checkpoint;
use crate::{Error, Result};

pub use hook_names::hook_point_of_transformer_lens;
pub use lora::{LoraAdapter, LoraModule, LoraSettings};
pub use sparse_autoencoder::{FeatureActivation, InputNormalisation, SparseAutoencoder};

/// Numbers with a shape, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// The sizes.
    pub shape: Vec<usize>,
    /// The elements.
    pub numbers: Vec<f32>,
}

impl Array {
    fn read(checkpoint: &Checkpoint, name: &str, shape: &[usize]) -> Result<Self> {
        let tensor = checkpoint.expect(name, shape)?;
        Ok(Self { shape: tensor.shape.clone(), numbers: tensor.to_f32() })
    }
}

/// A folder that holds `files`: `source` itself, or the snapshot of a hub's repository. With `inside`, a folder in it.
fn find_folder(source: &str, inside: Option<&str>, files: &[&str], settings: &Settings) -> Result<PathBuf> {
    let refused = |reason: String| Error::NoSuchModel { given: source.to_owned(), reason };
    if let Some(inside) = inside
        && !inside.split('/').all(is_plain)
    {
        return Err(refused(format!(
            "`{inside}` is not the path of a folder inside it, of letters, digits, `-`, `_` and `.` between `/`"
        )));
    }
    let path = Path::new(source);
    if path.is_dir() {
        let folder = inside.map_or_else(|| path.to_owned(), |inside| path.join(inside));
        return match files.iter().find(|file| !folder.join(file).is_file()) {
            Some(missing) => Err(refused(format!("the folder {} has no `{missing}`", folder.display()))),
            None => Ok(folder),
        };
    }
    if path.exists() {
        return Err(refused(format!("it is a file; name the folder that holds {}", files.join(" and "))));
    }
    if path.is_absolute() || source.starts_with(['.', '~', '/', '\\']) || source.contains('\\') {
        return Err(refused("there is no such folder".to_owned()));
    }
    let name: ModelName = source.parse()?;
    let within = |file: &&str| inside.map_or_else(|| (*file).to_owned(), |inside| format!("{inside}/{file}"));
    let files: Vec<String> = files.iter().map(within).collect();
    let snapshot = hub::fetch_files(&name, &files, settings)?;
    Ok(inside.map_or_else(|| snapshot.folder.clone(), |inside| snapshot.folder.join(inside)))
}

fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && part != "."
        && part != ".."
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
