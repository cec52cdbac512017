//! Results and large programs as files, behind `object_store`: a folder here, a bucket elsewhere.
//!
//! `results/{job}/{attempt}` and `programs/{job}`: names are made here alone, of ids that were checked.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload};

use crate::keys::is_job_id;

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the file store failed: {0}")]
pub struct FileError(String);

impl From<object_store::Error> for FileError {
    fn from(error: object_store::Error) -> Self {
        FileError(error.to_string())
    }
}

/// What comes of asking for files.
pub type Result<T> = std::result::Result<T, FileError>;

/// The file by which it is known whether files can be written.
const PROBE: &str = "probe";

/// Results and large programs. A clone is the same.
#[derive(Clone)]
pub struct Files {
    store: Arc<dyn ObjectStore>,
    folder: Arc<FilePath>,
}

impl Files {
    /// Those of a folder, which is made where it is not there.
    ///
    /// # Errors
    /// Where the folder can be neither found nor made.
    pub fn open(folder: &FilePath, sync: bool) -> Result<Files> {
        let failed = |error: std::io::Error| FileError(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        // Its owner alone may read it.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let store = LocalFileSystem::new_with_prefix(folder)?.with_automatic_cleanup(true).with_fsync(sync);
        Ok(Files { store: Arc::new(store), folder: folder.into() })
    }

    /// Writes a file, whole or not at all.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.store
            .put(&Path::parse(key).map_err(object_store::Error::from)?, PutPayload::from(bytes))
            .await?;
        Ok(())
    }

    /// Whether a file can be written now: one is, and deleted.
    pub async fn check(&self) -> Result<()> {
        self.put(PROBE, Bytes::from_static(&[1; 4096])).await?;
        self.delete(PROBE).await
    }

    /// A file, read into memory; `None`: there is none of that name.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        match self.store.get(&Path::parse(key).map_err(object_store::Error::from)?).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes of a file as they are read; `None`: there is none of that name.
    pub async fn stream(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<BoxStream<'static, object_store::Result<Bytes>>>> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.store.get_opts(&Path::parse(key).map_err(object_store::Error::from)?, options).await {
            Ok(found) => Ok(Some(found.into_stream())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a file, if it is there.
    pub async fn delete(&self, key: &str) -> Result<()> {
        match self.store.delete(&Path::parse(key).map_err(object_store::Error::from)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes what a process that was killed had begun to write: beside a file that is to be, as `…#1`. The store itself passes
    /// over these, in lists and in deletions. Only while nobody writes. Gives how many there were.
    ///
    /// # Errors
    /// Where the folder cannot be read, or one of them not deleted.
    pub async fn delete_begun(&self) -> Result<usize> {
        let folder = self.folder.clone();
        let deleted = tokio::task::spawn_blocking(move || delete_begun(&folder)).await;
        let deleted = deleted.map_err(|error| FileError(error.to_string()))?;
        deleted.map_err(|error| FileError(format!("{}: {error}", self.folder.display())))
    }

    /// The names of all files, with their bytes.
    pub async fn all(&self) -> Result<Vec<(String, u64)>> {
        let found = self.store.list(None).map_ok(|meta| (meta.location.to_string(), meta.size));
        Ok(found.try_collect().await?)
    }
}

/// The files of programs that are too large to be kept with their jobs: each is there until its job has ended.
#[derive(Default)]
pub struct ProgramFiles {
    /// By job: whose, and its bytes.
    by_job: Mutex<HashMap<String, (String, u64)>>,
}

impl ProgramFiles {
    fn by_job(&self) -> MutexGuard<'_, HashMap<String, (String, u64)>> {
        self.by_job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One is there, or about to be.
    pub fn add(&self, job: &str, account: &str, bytes: u64) {
        self.by_job().insert(job.to_owned(), (account.to_owned(), bytes));
    }

    /// One is of no use any more; whether there was one.
    pub fn remove(&self, job: &str) -> bool {
        self.by_job().remove(job).is_some()
    }

    /// Bytes of those of an account.
    pub fn bytes(&self, account: &str) -> u64 {
        self.by_job().values().filter(|(owner, _)| owner == account).map(|(_, bytes)| bytes).sum()
    }
}

fn delete_begun(folder: &FilePath) -> io::Result<usize> {
    let mut deleted = 0;
    let is_attempt = |name: &str| name.parse::<u32>().is_ok();
    deleted += delete_begun_in(folder, |name| name == PROBE)?;
    deleted += delete_begun_in(&folder.join("programs"), is_job_id)?;
    for (name, path) in entries(&folder.join("results"))? {
        if is_job_id(&name) {
            deleted += delete_begun_in(&path, is_attempt)?;
            // One in which nothing is left, which only an empty folder lets happen.
            let _ = std::fs::remove_dir(&path);
        }
    }
    Ok(deleted)
}

/// Deletes what was begun in one folder of files whose names are ours.
fn delete_begun_in(folder: &FilePath, is_ours: impl Fn(&str) -> bool) -> io::Result<usize> {
    let mut deleted = 0;
    for (name, path) in entries(folder)? {
        let begun = name.rsplit_once('#').is_some_and(|(file, number)| {
            is_ours(file) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        if begun && std::fs::symlink_metadata(&path)?.is_file() {
            std::fs::remove_file(&path)?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// What is in a folder, by name; nothing, where it is none. Names that are no text are not ours.
fn entries(folder: &FilePath) -> io::Result<Vec<(String, PathBuf)>> {
    let found = match std::fs::read_dir(folder) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for entry in found {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            all.push((name, entry.path()));
        }
    }
    Ok(all)
}

/// The file of a job's result, by the attempt that made it: what an earlier one left half done is never taken for it.
pub fn result(job: &str, attempt: u32) -> String {
    format!("results/{job}/{attempt}")
}

/// The file of a job's program.
pub fn program(job: &str) -> String {
    format!("programs/{job}")
}

/// The job that a file belongs to.
pub fn job_of(file: &str) -> Option<&str> {
    file.split('/').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_written_read_by_ranges_and_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path(), false).unwrap();
        let key = result("job_a", 1);
        files.put(&key, Bytes::from_static(b"0123456789")).await.unwrap();
        assert_eq!(files.get(&key).await.unwrap().unwrap(), "0123456789");
        let part = files.stream(&key, 3..6).await.unwrap().unwrap();
        let part: Vec<Bytes> = part.try_collect().await.unwrap();
        assert_eq!(part.concat(), b"345");
        assert_eq!(files.all().await.unwrap(), [(key.clone(), 10)]);
        files.delete(&key).await.unwrap();
        files.delete(&key).await.unwrap();
        assert_eq!(files.get(&key).await.unwrap(), None);
        assert!(files.stream(&key, 0..1).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_was_begun_is_deleted_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path(), false).unwrap();
        let (done, other) = (crate::keys::job_id().unwrap(), crate::keys::job_id().unwrap());
        let write = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        let begun = [
            format!("results/{done}/2#1"),
            format!("results/{done}/2#17"),
            format!("results/{other}/1#1"),
            format!("programs/{other}#1"),
            "probe#1".to_owned(),
        ];
        let stays = [
            format!("results/{done}/1"),
            format!("results/{done}/1#"),
            format!("results/{done}/1#1a"),
            format!("results/{done}/notes#1"),
            format!("programs/{done}"),
            "programs/notes#1".to_owned(),
            "results/notes/1#1".to_owned(),
            format!("elsewhere/{done}/1#1"),
        ];
        begun.iter().chain(&stays).for_each(|name| write(name));
        assert_eq!(files.delete_begun().await.unwrap(), begun.len());
        let is_there = |name: &String| folder.path().join(name).exists();
        assert!(!begun.iter().any(is_there) && stays.iter().all(is_there));
        assert!(!folder.path().join(format!("results/{other}")).exists(), "nor an empty folder");
        assert_eq!(files.delete_begun().await.unwrap(), 0);
    }

    #[tokio::test]
    async fn nothing_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "x").unwrap();
        let files = Files::open(&folder.path().join("inside"), false).unwrap();
        for key in ["../secret", "results/../../secret", "/etc/passwd", "..%2fsecret"] {
            assert!(!matches!(files.get(key).await, Ok(Some(_))), "{key}");
        }
    }
}
