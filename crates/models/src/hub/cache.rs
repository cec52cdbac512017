//! The hub's cache on this machine: for each model a folder `models--owner--name`, which holds `blobs/<etag>` (the files),
//! `snapshots/<commit>/<file>` (links to them) and `refs/<revision>` (the commit a name stands for).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::name::is_commit;
use super::{ModelName, Snapshot};
use crate::{Error, Result};

/// A model's part of the cache.
#[derive(Debug)]
pub(super) struct ModelCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl ModelCache {
    pub(super) fn new(cache: &Path, name: &ModelName) -> Self {
        let folder = format!("models--{}", name.repository().replace('/', "--"));
        Self { locks: cache.join(".locks").join(&folder), folder: cache.join(folder) }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The snapshot that a revision stands for as far as is known here, whatever it holds.
    pub(super) fn snapshot(&self, revision: &str) -> Option<Snapshot> {
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            let commit = fs::read_to_string(self.reference(revision)).ok()?.trim().to_owned();
            // A file in the cache is no more to be trusted than a name.
            is_commit(&commit).then_some(commit)?
        };
        let folder = self.snapshot_folder(&commit);
        folder.is_dir().then_some(Snapshot { folder, commit, unreachable: None })
    }

    pub(super) fn snapshot_folder(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// What is locked while a blob is written, by the hub's own library too.
    pub(super) fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    /// Notes which commit a revision stands for.
    pub(super) fn set_reference(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.reference(revision);
        if fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        create_parent(&path)?;
        replace(&path, |new| fs::write(new, commit))
    }

    /// Makes `snapshots/<commit>/<file>` the blob: a link, or a copy where the system has no links.
    pub(super) fn link(&self, commit: &str, file: &str, blob: &Path) -> Result<PathBuf> {
        let path = self.snapshot_folder(commit).join(file);
        create_parent(&path)?;
        #[cfg(unix)]
        {
            let name = blob.file_name().unwrap_or_default();
            // One step up for each folder of the file's path in the repository.
            let above = Path::new(file).components().skip(1).map(|_| "..");
            let target = above.collect::<PathBuf>().join("../../blobs").join(name);
            replace(&path, |new| std::os::unix::fs::symlink(&target, new))?;
        }
        #[cfg(not(unix))]
        replace(&path, |new| fs::copy(blob, new).map(drop))?;
        Ok(path)
    }
}

pub(super) fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::io("create", parent))
}

/// Puts a new file in the place of `path` at once: whoever reads it sees the old or the new, never half of either.
fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}-{}.new", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let new = PathBuf::from(new);
    // What a killed process of the same number may have left.
    let _ = fs::remove_file(&new);
    make(&new).map_err(Error::io("create", &new))?;
    fs::rename(&new, path).map_err(Error::io("create", path))
}
