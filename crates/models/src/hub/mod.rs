//! Models by their name on a hub, through the hub's own cache on this machine, so that what another program downloaded is
//! found, and what is downloaded here is found by others.
//!
//! The environment variables are the hub's own: `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`; see
//! [`Settings`]. Only the files that are needed are downloaded; an interrupted download goes on where it ended.

mod cache;
mod client;
mod download;
mod name;
mod settings;

use std::path::{Path, PathBuf};

pub use self::name::ModelName;
pub use self::settings::Settings;

use self::cache::ModelCache;
use self::client::{Client, Failure, Listing};
use crate::weights::near::near_names;
use crate::weights::safetensors_files::{INDEX_FILE, SINGLE_FILE, read_index};
use crate::{Error, Result};

/// The file without which there is no model.
const CONFIG_FILE: &str = "config.json";
/// What is downloaded besides weights, where it is there. Weights come last: a snapshot that has them has all.
const SMALL_FILES: &[&str] = &[
    CONFIG_FILE,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// How much of a model is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Its `config.json`, from which its specification follows.
    Configuration,
    /// All that is needed to run it.
    Everything,
}

/// A model's files on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder that holds them, in the hub's cache.
    pub folder: PathBuf,
    /// The revision they are of: a commit's full name.
    pub commit: String,
    /// Why they come from the cache although the hub was to be asked: what the network said. What the name stands for
    /// on the hub may be newer.
    pub unreachable: Option<String>,
}

/// Finds a model in the cache, or downloads what is missing.
///
/// # Errors
/// [`Error::Hub`], which says what to do: when the model, its revision or its weights do not exist, when they need a
/// login or a licence accepted, when offline and not in the cache, or when the network fails.
pub fn fetch(name: &ModelName, wanted: Wanted, settings: &Settings) -> Result<Snapshot> {
    let cache = ModelCache::new(&settings.cache, name);
    let cached = cache.snapshot(name.revision()).filter(|snapshot| is_complete(&snapshot.folder, wanted));
    // A commit never changes, so nothing needs to be asked about one that is here, tokenizer included: another program
    // may have fetched the weights alone.
    let settled = name.is_commit() && cached.as_ref().is_some_and(|snapshot| has_tokenizer(&snapshot.folder));
    if settings.offline || settled {
        return cached.ok_or_else(|| not_in_cache(name, &cache, settings));
    }
    ask(name, settings, &cache, cached, |client, listing| {
        download(name, wanted, settings, &cache, client, listing)
    })
}

/// Finds files of a repository by their paths in it, in the cache or on the hub: an adapter's, an autoencoder's.
///
/// # Errors
/// As [`fetch`]; and when the repository lacks one of the files.
pub fn fetch_files(name: &ModelName, files: &[String], settings: &Settings) -> Result<Snapshot> {
    let cache = ModelCache::new(&settings.cache, name);
    let whole = |snapshot: &Snapshot| files.iter().all(|file| snapshot.folder.join(file).is_file());
    let cached = cache.snapshot(name.revision()).filter(whole);
    if settings.offline || (name.is_commit() && cached.is_some()) {
        return cached.ok_or_else(|| not_in_cache(name, &cache, settings));
    }
    ask(name, settings, &cache, cached, |client, listing| {
        for file in files {
            if !listing.files.contains(file) {
                let near = near_names(file, listing.files.iter().map(String::as_str), 3).join(", ");
                let near = if near.is_empty() { near } else { format!("; it has {near}") };
                return Err(hub_error(name, format!("its repository has no {file}{near}")));
            }
        }
        for file in files {
            download::file(client, &cache, &listing.commit, file, settings)?;
        }
        cache.set_reference(name.revision(), &listing.commit)
    })
}

/// Asks the hub what a revision holds and has `get` fetch of it; what is cached serves where the hub cannot be reached.
fn ask(
    name: &ModelName,
    settings: &Settings,
    cache: &ModelCache,
    cached: Option<Snapshot>,
    get: impl FnOnce(&Client<'_>, &Listing) -> Result<()>,
) -> Result<Snapshot> {
    let client = Client::new(settings, name);
    match client.listing() {
        Ok(listing) => {
            get(&client, &listing)?;
            let folder = cache.snapshot_folder(&listing.commit);
            Ok(Snapshot { folder, commit: listing.commit, unreachable: None })
        }
        Err(Failure::Unreachable(reason)) => match cached {
            Some(snapshot) => Ok(Snapshot { unreachable: Some(reason), ..snapshot }),
            None => Err(hub_error(
                name,
                format!(
                    "{} cannot be reached ({reason}), and it is not in the cache {}",
                    settings.endpoint,
                    cache.folder().display()
                ),
            )),
        },
        Err(Failure::Refused(error)) => Err(error),
    }
}

fn hub_error(name: &ModelName, reason: impl Into<String>) -> Error {
    Error::Hub { model: name.to_string(), reason: reason.into() }
}

fn not_in_cache(name: &ModelName, cache: &ModelCache, settings: &Settings) -> Error {
    let partly = match cache.snapshot(name.revision()) {
        Some(_) => "is only partly in",
        None => "is not in",
    };
    let hint = if settings.offline { "; unset HF_HUB_OFFLINE to download it" } else { "" };
    hub_error(name, format!("it {partly} the cache {}{hint}", cache.folder().display()))
}

fn is_complete(folder: &Path, wanted: Wanted) -> bool {
    if !folder.join(CONFIG_FILE).is_file() {
        return false;
    }
    match wanted {
        Wanted::Configuration => true,
        Wanted::Everything if folder.join(SINGLE_FILE).is_file() => true,
        Wanted::Everything => read_index(&folder.join(INDEX_FILE))
            .is_ok_and(|shards| shards.keys().all(|shard| folder.join(shard).is_file())),
    }
}

fn has_tokenizer(folder: &Path) -> bool {
    ["tokenizer.json", "vocab.json"].iter().any(|file| folder.join(file).is_file())
}

fn download(
    name: &ModelName,
    wanted: Wanted,
    settings: &Settings,
    cache: &ModelCache,
    client: &Client<'_>,
    listing: &Listing,
) -> Result<()> {
    let has = |file: &str| listing.files.iter().any(|other| other == file);
    if !has(CONFIG_FILE) {
        return Err(hub_error(
            name,
            format!("its repository has no {CONFIG_FILE}{}", what_there_is(listing)),
        ));
    }
    let fetch = |file: &str| download::file(client, cache, &listing.commit, file, settings);
    let small: &[&str] = match wanted {
        Wanted::Configuration => &[CONFIG_FILE],
        Wanted::Everything => SMALL_FILES,
    };
    for file in small.iter().filter(|file| has(file)) {
        fetch(file)?;
    }
    if wanted == Wanted::Everything {
        if has(SINGLE_FILE) {
            fetch(SINGLE_FILE)?;
        } else if has(INDEX_FILE) {
            let index = fetch(INDEX_FILE)?;
            for shard in read_index(&index)?.keys() {
                fetch(shard)?;
            }
        } else {
            let there = what_there_is(listing);
            return Err(hub_error(name, format!("its repository has no weights in safetensors{there}")));
        }
    }
    cache.set_reference(name.revision(), &listing.commit)
}

/// What a repository has instead of what was looked for.
fn what_there_is(listing: &Listing) -> String {
    let with = |ending: &str| listing.files.iter().find(|file| file.ends_with(ending));
    if let Some(file) = with(".gguf") {
        return format!("; it has GGUF files: download one, such as {file}, and name the file");
    }
    if let Some(file) = with(".bin").or_else(|| with(".pt")) {
        return format!("; it has pickled ones ({file}), which are never read");
    }
    String::new()
}
