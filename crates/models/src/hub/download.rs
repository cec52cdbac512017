//! One file from a hub into its cache.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ureq::http::StatusCode;

use super::cache::{ModelCache, create_parent};
use super::client::{Client, Failure, FileInfo, header_text};
use super::{Settings, hub_error};
use crate::{Error, Progress, ProgressListener, Result};

/// How often in a row a download may break off without a byte gained, before it is given up.
const MAXIMUM_FRUITLESS_ATTEMPTS: u32 = 3;
/// How long to wait after the first break; after each further one as much longer.
const PAUSE: Duration = Duration::from_millis(300);
/// Bytes read at a time.
const CHUNK: usize = 1 << 16;
/// Files below this many bytes get no progress bar.
const BAR_FROM: u64 = 4 << 20;

/// Gives `file` of `commit` in the cache, downloaded if need be.
pub(super) fn file(
    client: &Client<'_>,
    cache: &ModelCache,
    commit: &str,
    file: &str,
    settings: &Settings,
) -> Result<PathBuf> {
    let path = cache.snapshot_folder(commit).join(file);
    // A link whose blob is gone does not count as there.
    if path.is_file() {
        return Ok(path);
    }
    let info = client.file_info(commit, file).map_err(|failure| error_of(client, file, failure))?;
    let blob = cache.blob(&info.etag);
    create_parent(&blob)?;
    let lock = cache.lock(&info.etag);
    create_parent(&lock)?;
    let lock_file = File::create(&lock).map_err(Error::io("create", &lock))?;
    // Whoever else downloads the same is waited for, and leaves nothing to do. Let go when the file is closed.
    lock_file.lock().map_err(Error::io("lock", &lock))?;
    if !blob.is_file() {
        let incomplete = with_ending(&blob, ".incomplete");
        let shown = Shown {
            bar: bar(file, &info, settings),
            listener: settings.listener.as_ref(),
            file,
            of: info.size,
        };
        download(client, file, &info, &incomplete, &shown)?;
        shown.bar.finish_and_clear();
        fs::rename(&incomplete, &blob).map_err(Error::io("create", &blob))?;
    }
    cache.link(commit, file, &blob)
}

fn error_of(client: &Client<'_>, file: &str, failure: Failure) -> Error {
    match failure {
        Failure::Refused(error) => error,
        Failure::Unreachable(reason) => hub_error(
            client.name(),
            format!("the download of {file} broke off ({reason}); the same command goes on where it ended"),
        ),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    PathBuf::from(path)
}

/// Who sees how far a download is.
struct Shown<'a> {
    bar: ProgressBar,
    listener: Option<&'a ProgressListener>,
    file: &'a str,
    of: Option<u64>,
}

impl Shown<'_> {
    fn set(&self, position: u64) {
        self.bar.set_position(position);
        if let Some(listener) = self.listener {
            listener(Progress { what: self.file, done: position, total: self.of });
        }
    }
}

/// A bar on the standard error stream, which shows on terminals only.
fn bar(file: &str, info: &FileInfo, settings: &Settings) -> ProgressBar {
    match info.size {
        Some(size) if settings.progress && size >= BAR_FROM => {
            let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.with_message(file.to_owned())
        }
        _ => ProgressBar::hidden(),
    }
}

/// Downloads to `path`, on from what it already holds.
fn download(client: &Client<'_>, file: &str, info: &FileInfo, path: &Path, shown: &Shown<'_>) -> Result<()> {
    let on_disk = |action| Error::io(action, path);
    let mut to = OpenOptions::new()
        .create(true)
        .append(false)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(on_disk("create"))?;
    let mut fruitless = 0;
    loop {
        let mut held = to.seek(SeekFrom::End(0)).map_err(on_disk("read"))?;
        if info.size.is_some_and(|size| held > size) {
            // Of another content, or more than was promised: not to be gone on from.
            to.set_len(0).map_err(on_disk("write"))?;
            held = to.seek(SeekFrom::Start(0)).map_err(on_disk("write"))?;
        }
        shown.set(held);
        if info.size == Some(held) {
            return to.sync_all().map_err(on_disk("write"));
        }
        let reason = match attempt(client, file, info, &mut to, held, shown) {
            Ok(Outcome::Complete) => return to.sync_all().map_err(on_disk("write")),
            Ok(Outcome::BrokenOff(reason)) | Err(Stop::Try(reason)) => reason,
            Err(Stop::Disk(error)) => return Err(on_disk("write")(error)),
            Err(Stop::Refused(error)) => return Err(error),
        };
        let gained = to.metadata().is_ok_and(|metadata| metadata.len() > held);
        fruitless = if gained { 0 } else { fruitless + 1 };
        if fruitless == MAXIMUM_FRUITLESS_ATTEMPTS {
            return Err(error_of(client, file, Failure::Unreachable(reason)));
        }
        std::thread::sleep(PAUSE * fruitless.max(1));
    }
}

enum Outcome {
    Complete,
    /// The connection ended before the file did.
    BrokenOff(String),
}

enum Stop {
    /// Nothing came, which may be otherwise the next time.
    Try(String),
    Disk(io::Error),
    Refused(Error),
}

/// One request, and what comes of it written to `to`, which is at its end, byte `held`.
fn attempt(
    client: &Client<'_>,
    file: &str,
    info: &FileInfo,
    to: &mut File,
    held: u64,
    shown: &Shown<'_>,
) -> Result<Outcome, Stop> {
    let stop = |failure| match failure {
        Failure::Unreachable(reason) => Stop::Try(reason),
        Failure::Refused(error) => Stop::Refused(error),
    };
    let start_over = |to: &mut File| {
        to.set_len(0).map_err(Stop::Disk)?;
        to.seek(SeekFrom::Start(0)).map_err(Stop::Disk)
    };
    let response = client.content(&info.url, held).map_err(stop)?;
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        start_over(to)?;
        return Err(Stop::Try("the server has less than is here already".to_owned()));
    }
    let response = client.expect_success(response, file).map_err(stop)?;
    let mut position = held;
    let goes_on = format!("bytes {held}-");
    let range = header_text(&response, "content-range").unwrap_or_default();
    if held > 0 && !(response.status() == StatusCode::PARTIAL_CONTENT && range.starts_with(&goes_on)) {
        // The server does not do ranges, and sends the whole.
        if response.status() == StatusCode::PARTIAL_CONTENT {
            start_over(to)?;
            return Err(Stop::Try(format!("the server sent another part than was asked for ({range})")));
        }
        position = start_over(to)?;
        shown.set(0);
    }
    let mut body = response.into_body().into_reader();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = match body.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Outcome::BrokenOff(error.to_string())),
        };
        position += count as u64;
        if info.size.is_some_and(|size| position > size) {
            start_over(to)?;
            return Err(Stop::Try("the server sends more than it promised".to_owned()));
        }
        to.write_all(&chunk[..count]).map_err(Stop::Disk)?;
        shown.set(position);
    }
    match info.size {
        Some(size) if position < size => Ok(Outcome::BrokenOff(format!("{position} of {size} bytes came"))),
        _ => Ok(Outcome::Complete),
    }
}
