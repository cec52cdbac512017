//! The model that comes with the library: its files are part of the program, and are unpacked where they can be mapped.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

macro_rules! files {
    ($($name:literal),*) => {
        [$(($name, include_bytes!(concat!("../../../models/tiny-gpt2/model/", $name)).as_slice())),*]
    };
}

/// The files of a Hugging Face folder.
static FILES: [(&str, &[u8]); 6] = files![
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json"
];

/// The folder with the bundled model's files, in the user's cache folder; those that are missing or differ are written.
///
/// # Errors
/// [`Error::File`] where the cache folder cannot be written.
pub fn unpack() -> Result<PathBuf> {
    let folder = cache().join("pellucid").join(env!("CARGO_PKG_VERSION")).join("tiny-gpt2");
    fs::create_dir_all(&folder).map_err(|error| failure(&folder, error))?;
    for (name, bytes) in FILES {
        let path = folder.join(name);
        if fs::read(&path).is_ok_and(|present| present == bytes) {
            continue;
        }
        // Written beside and renamed: another process sees the whole file or none.
        let beside = folder.join(format!(".{name}.{}", std::process::id()));
        fs::write(&beside, bytes).map_err(|error| failure(&beside, error))?;
        fs::rename(&beside, &path).map_err(|error| failure(&path, error))?;
    }
    Ok(folder)
}

fn failure(path: &Path, error: std::io::Error) -> Error {
    Error::File { path: path.to_owned(), error }
}

/// The user's folder for what can be made again.
fn cache() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").or_else(|| set("USERPROFILE")).map(|home| home.join(".cache"));
    set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(home).unwrap_or_else(std::env::temp_dir)
}
