//! Where the service is and which key it takes, as a person has set it up.
//!
//! In the order of growing precedence: the configuration file, the environment, what a program gives itself. The file is
//! `pellucid/config.toml` in the user's configuration folder (`~/.config`, or `XDG_CONFIG_HOME`), or what `PELLUCID_CONFIG` names
//! (a service's own configuration is another file, which `PELLUCID_SERVE_CONFIG` names):
//!
//! ```toml
//! # The service that `pellucid jobs`, `cancel` and `status` speak to.
//! remote = "https://models.example.org"
//! # Seconds for which what fails is tried again.
//! patience_seconds = 60
//!
//! [remotes."https://models.example.org"]
//! key = "pellucid_…"
//! # A PEM file of certificates that are trusted for it instead of the public ones.
//! certificates = "/etc/ssl/lab.pem"
//! # Whether the key may go there unencrypted.
//! plain_http = false
//! ```
//!
//! | variable | is |
//! | --- | --- |
//! | `PELLUCID_REMOTE` | the service's address |
//! | `PELLUCID_API_KEY` | the key, for whichever service |
//! | `PELLUCID_PLAIN_HTTP` | `1`: the key may go to another machine unencrypted |
//! | `TRACEPARENT` | the trace that requests belong to, as the program that started this one names it |

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml_edit::{DocumentMut, Item, Table, value};

use crate::address::Address;
use crate::client::Options;
use crate::error::{Error, Result};
use crate::trace;

/// What stands in the configuration file.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    remote: Option<String>,
    patience_seconds: Option<f64>,
    #[serde(default)]
    remotes: BTreeMap<String, Remote>,
}

/// What stands there of one service.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remote {
    key: Option<String>,
    certificates: Option<PathBuf>,
    plain_http: Option<bool>,
}

/// The configuration file's path; none where the user has no home.
pub fn path() -> Option<PathBuf> {
    if let Some(path) = variable("PELLUCID_CONFIG") {
        return Some(PathBuf::from(path));
    }
    let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let home = || variable("HOME").or_else(|| variable("USERPROFILE")).map(PathBuf::from);
    let folder = folder.or_else(|| Some(home()?.join(".config")))?;
    Some(folder.join("pellucid").join("config.toml"))
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn text_variable(name: &str) -> Option<String> {
    variable(name).and_then(|value| value.into_string().ok())
}

fn read(path: Option<&Path>) -> Result<File> {
    let Some(path) = path else { return Ok(File::default()) };
    match fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(File::default()),
        Err(error) => Err(Error::file(path, error)),
    }
}

fn parse(path: &Path, text: &str) -> Result<File> {
    toml_edit::de::from_str(text).map_err(|error| unreadable(path, &error.to_string()))
}

/// What is wrong with the file, without the line itself, which may hold a key.
fn unreadable(path: &Path, error: &str) -> Error {
    let kept = error.lines().filter(|line| !line.contains('|')).map(str::trim);
    let reason: Vec<&str> = kept.filter(|line| !line.is_empty()).collect();
    Error::Configuration { path: path.to_owned(), reason: reason.join(": ") }
}

/// The address that is set up; none: there is none.
///
/// # Errors
/// [`Error::Configuration`], [`Error::File`]: the file is there and cannot be read.
pub fn remote() -> Result<Option<String>> {
    match text_variable("PELLUCID_REMOTE") {
        Some(address) => Ok(Some(address)),
        None => Ok(read(path().as_deref())?.remote),
    }
}

/// The options for a service, with what is set up for it.
///
/// # Errors
/// [`Error::Configuration`], [`Error::File`]: the file is there and cannot be read; [`Error::Address`].
pub fn options(address: &str) -> Result<Options> {
    let file = read(path().as_deref())?;
    let address: Address = address.parse()?;
    let mut options = Options::new(address.as_str());
    if let Some(seconds) = file.patience_seconds.filter(|seconds| (0.0..1e9).contains(seconds)) {
        options.patience = Duration::from_secs_f64(seconds);
    }
    let is_it = |name: &str| name.parse::<Address>().is_ok_and(|named| named == address);
    if let Some((_, remote)) = file.remotes.into_iter().find(|(name, _)| is_it(name)) {
        options.key = remote.key;
        options.certificates = remote.certificates;
        options.plain_http = remote.plain_http.unwrap_or(false);
    }
    if let Some(key) = text_variable("PELLUCID_API_KEY") {
        options.key = Some(key);
    }
    if text_variable("PELLUCID_PLAIN_HTTP").is_some_and(|value| matches!(value.trim(), "1" | "true" | "yes"))
    {
        options.plain_http = true;
    }
    options.traceparent = text_variable(trace::VARIABLE);
    Ok(options)
}

/// Writes a key down for a service, and makes that service the one that is spoken to where none is named. Only the user
/// can read the file then; whatever else stands in it stays as it is. Gives the file's path.
///
/// # Errors
/// [`Error::Configuration`], [`Error::File`]: the file cannot be read or written.
pub fn log_in(address: &Address, key: &str) -> Result<PathBuf> {
    let path = path().ok_or_else(no_home)?;
    change(&path, |document| {
        document["remote"] = value(address.as_str());
        let remotes = document["remotes"].or_insert(Item::Table(Table::new()));
        if let Some(remotes) = remotes.as_table_mut() {
            remotes.set_implicit(true);
        }
        remotes[address.as_str()].or_insert(Item::Table(Table::new()))["key"] = value(key);
    })?;
    Ok(path)
}

/// Forgets the key for a service. Gives the file's path, and whether there was one.
///
/// # Errors
/// Those of [`log_in`].
pub fn log_out(address: &Address) -> Result<(PathBuf, bool)> {
    let path = path().ok_or_else(no_home)?;
    let mut found = false;
    if path.exists() {
        change(&path, |document| {
            let Some(remotes) = document.get_mut("remotes").and_then(Item::as_table_like_mut) else { return };
            for (name, remote) in remotes.iter_mut() {
                if name.get().parse::<Address>().is_ok_and(|named| named == *address)
                    && let Some(remote) = remote.as_table_like_mut()
                {
                    found |= remote.remove("key").is_some();
                }
            }
        })?;
    }
    Ok((path, found))
}

fn no_home() -> Error {
    let error = io::Error::new(io::ErrorKind::NotFound, "there is no home folder: set PELLUCID_CONFIG");
    Error::file("pellucid/config.toml", error)
}

/// Changes the file as a whole or not at all.
fn change(path: &Path, change: impl FnOnce(&mut DocumentMut)) -> Result<()> {
    let file = |error| Error::file(path, error);
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(file(error)),
    };
    // What is not understood is not written over.
    parse(path, &text)?;
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| unreadable(path, &error.to_string()))?;
    change(&mut document);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_private(folder).map_err(file)?;
    // A temporary file is its owner's alone, from the beginning.
    let mut beside = tempfile::NamedTempFile::new_in(folder).map_err(file)?;
    beside.write_all(document.to_string().as_bytes()).map_err(file)?;
    beside.as_file().sync_all().map_err(file)?;
    beside.persist(path).map_err(|error| file(error.error))?;
    Ok(())
}

/// Makes a folder, where it is not there, that only its owner can look into.
fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("config.toml");
        if !text.is_empty() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        }
        (folder, path)
    }

    #[test]
    fn what_a_person_wrote_stays() {
        let (_folder, path) =
            scratch("# mine\npatience_seconds = 5 # short\n\n[remotes.\"https://a\"]\nplain_http = true\n");
        change(&path, |document| document["remote"] = value("https://b")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("# mine\npatience_seconds = 5 # short\n"), "{text}");
        assert_eq!(read(Some(&path)).unwrap().remote.as_deref(), Some("https://b"));
        assert_eq!(read(Some(&path)).unwrap().remotes["https://a"].plain_http, Some(true));
    }

    #[test]
    #[cfg(unix)]
    fn only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        for before in ["", "remote = \"https://a\"\n"] {
            let (_folder, path) = scratch(before);
            if !before.is_empty() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            }
            change(&path, |_| {}).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            if before.is_empty() {
                let folder = fs::metadata(path.parent().unwrap()).unwrap();
                assert_eq!(folder.permissions().mode() & 0o777, 0o700);
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_said_without_the_key_and_not_written_over() {
        let text = "[remotes.\"https://a\"]\nkei = \"pellucid_secret\"\n";
        let (_folder, path) = scratch(text);
        for error in [read(Some(&path)).err().unwrap(), change(&path, |_| {}).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("unknown field `kei`") && error.contains("line 2"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert!(read(Some(&path.with_file_name("none.toml"))).unwrap().remote.is_none());
    }
}
