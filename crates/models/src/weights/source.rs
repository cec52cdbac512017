//! A model's files, from however it was named.

use std::path::{Path, PathBuf};

use pellucid_graph::ModelSpec;
use serde_json::Value;

use super::gguf::GgufModel;
use super::near::near_names;
use crate::files::{name_of, read_config, read_generation_config};
use crate::hub::{self, ModelName, Settings, Snapshot, Wanted};
use crate::spec::blueprint;
use crate::{Error, ModelFiles, Result};

/// Where a model's files are to come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A hub, or its cache.
    Hub(ModelName),
}

impl Source {
    /// What `text` names: a folder that is there (one that holds a GGUF file and no `config.json` is that file), a file that ends in `.gguf`, or else `owner/name[@revision]` on the hub.
    /// Nothing is opened. What looks like a path is never looked for on a hub.
    ///
    /// # Errors
    /// [`Error::NoSuchModel`], which says what the text was taken for.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = |reason: String| Err(Error::NoSuchModel { given: text.to_owned(), reason });
        let path = Path::new(text);
        let is_gguf = is_gguf(path);
        if path.is_dir() {
            return Ok(only_gguf(path).map_or_else(|| Self::Folder(path.to_owned()), Self::Gguf));
        }
        if path.is_file() {
            return match (is_gguf, path.parent()) {
                (true, _) => Ok(Self::Gguf(path.to_owned())),
                (false, Some(folder)) if folder.join("config.json").is_file() => {
                    refused(format!("name the folder it lies in, {}", shown(folder)))
                }
                _ => refused("it is a file, but not a GGUF file".to_owned()),
            };
        }
        let like_a_path = is_gguf
            || path.is_absolute()
            || text.starts_with(['.', '~', '/', '\\'])
            || text.ends_with(['/', '\\'])
            || text.contains('\\');
        if like_a_path {
            let kind = if is_gguf { "file" } else { "file or folder" };
            return refused(format!("there is no such {kind}{}", beside(path)));
        }
        text.parse().map(Self::Hub)
    }

    /// [`Source::parse`], then [`Source::open`], with the environment's [`Settings`] for a hub.
    ///
    /// # Errors
    /// As both.
    pub fn resolve(text: &str) -> Result<ModelFiles> {
        Self::parse(text)?.open(&Settings::from_environment())
    }

    /// Opens the model; one on a hub is downloaded first, as far as it is not in the cache.
    ///
    /// # Errors
    /// When files are missing, damaged or of a kind that is not known; [`Error::Hub`].
    pub fn open(&self, settings: &Settings) -> Result<ModelFiles> {
        match self {
            Self::Folder(folder) => ModelFiles::open_folder(folder),
            Self::Gguf(path) => ModelFiles::open_gguf(path),
            Self::Hub(name) => {
                let Snapshot { folder, commit, unreachable } =
                    hub::fetch(name, Wanted::Everything, settings)?;
                let cached = match unreachable {
                    Some(reason) => format!(", as it is in the cache: the hub cannot be reached ({reason})"),
                    None => String::new(),
                };
                let files = ModelFiles::open_folder(&folder)?;
                Ok(ModelFiles {
                    name: name.repository().to_owned(),
                    origin: format!("{name}{cached}"),
                    revision: Some(commit),
                    ..files
                })
            }
        }
    }

    /// [`Source::open`] without the weights of a folder, which need not be there. Of a model on a hub all is downloaded.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn outline(&self, settings: &Settings) -> Result<ModelFiles> {
        match self {
            Self::Folder(folder) => ModelFiles::outline_folder(folder),
            other => other.open(settings),
        }
    }

    /// What the model publishes of itself, from its configuration alone: of a folder nothing else need be there, of a model on a
    /// hub nothing else is downloaded.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn spec(&self, settings: &Settings) -> Result<ModelSpec> {
        let blueprint = match self {
            Self::Folder(folder) => {
                let generation = read_generation_config(folder)?;
                blueprint(&name_of(folder), &read_config(folder)?, generation.as_ref())
            }
            Self::Gguf(path) => {
                let files = ModelFiles::open_gguf(path)?;
                blueprint(&files.name, &files.config, files.generation_config.as_ref())
            }
            Self::Hub(name) => blueprint(name.repository(), &self.config(settings)?, None),
        };
        Ok(blueprint?.spec)
    }

    /// The model's configuration alone, as `config.json` has it. Of a model on a hub, nothing else is downloaded.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn config(&self, settings: &Settings) -> Result<Value> {
        match self {
            Self::Folder(folder) => read_config(folder),
            Self::Gguf(path) => GgufModel::open(path)?.config(),
            Self::Hub(name) => read_config(&hub::fetch(name, Wanted::Configuration, settings)?.folder),
        }
    }
}

/// The one GGUF file of a folder that is not a Hugging Face folder.
fn only_gguf(folder: &Path) -> Option<PathBuf> {
    if folder.join("config.json").exists() {
        return None;
    }
    let paths = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut files = paths.filter(|path| is_gguf(path));
    files.next().filter(|_| files.next().is_none())
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}

fn shown(path: &Path) -> String {
    // The folder of a file named alone.
    if path.as_os_str().is_empty() { "`.`".to_owned() } else { path.display().to_string() }
}

/// What lies beside a path that is not there and has nearly its name.
fn beside(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return format!("; nor is there the folder {}", folder.display());
    };
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match near_names(&name, names.iter().map(String::as_str), 1).first() {
        Some(near) => format!("; did you mean {}?", folder.join(near).display()),
        None => String::new(),
    }
}
