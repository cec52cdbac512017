//! A result's bytes, over cut connections.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Body, BodyReader};

use crate::api::{ResultInfo, SAFETENSORS};
use crate::client::job_path;
use crate::error::{Error, Result};
use crate::files::replace;
use crate::retry::{Backoff, is_cancelled, wait};
use crate::send::{Fate, Request, Sender};

/// A job's result, fetched as it is read. Where the connection is cut it goes on from there, and it ends without an error
/// only when every byte was there: none is missing, none came of another result. Errors of reading hold an [`Error`].
pub struct Download {
    sender: Arc<Sender>,
    job: String,
    etag: String,
    length: u64,
    at: u64,
    body: Option<BodyReader<'static>>,
    backoff: Option<Backoff>,
    cancel: Option<Arc<AtomicBool>>,
}

impl fmt::Debug for Download {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Download { job, length, at, .. } = self;
        write!(formatter, "Download {{ {job}, {at} of {length} bytes }}")
    }
}

impl Download {
    pub(crate) fn new(sender: Arc<Sender>, job: &str, result: &ResultInfo) -> Download {
        Download {
            sender,
            job: job.to_owned(),
            etag: result.etag.clone(),
            length: result.bytes,
            at: 0,
            body: None,
            backoff: None,
            cancel: None,
        }
    }

    /// The download that an answer to a submission begins with; none where it says too little of itself.
    pub(crate) fn begun(sender: Arc<Sender>, job: &str, answer: Response<Body>) -> Option<Download> {
        let etag = text(answer.headers(), "etag")?.to_owned();
        let bytes = text(answer.headers(), "content-length")?.parse().ok()?;
        let result = ResultInfo { bytes, etag, expires_at: String::new(), partial: false };
        let body = Some(answer.into_body().into_reader());
        Some(Download { body, ..Download::new(sender, job, &result) })
    }

    /// The download, which ends with [`Error::Cancelled`] once this is set.
    #[must_use]
    pub fn cancelled_by(mut self, cancel: Option<Arc<AtomicBool>>) -> Download {
        self.cancel = cancel;
        self
    }

    /// The job.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// Its bytes in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its bytes that have been read.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Writes what is still to come to a file, as it comes: see [`crate::replace`]. The file is there only when all of it is.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written; those of reading.
    pub fn save(self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        // What goes wrong in reading says so itself.
        replace(path, self).map_err(|error| error.downcast().unwrap_or_else(|error| Error::file(path, error)))
    }

    /// Opens a connection at the place where the last one was cut.
    fn open(&self) -> Result<BodyReader<'static>, Fate> {
        let mut request =
            Request::get(format!("{}/result", job_path(&self.job))).header("accept", SAFETENSORS);
        if self.at > 0 {
            request = request.header("range", format!("bytes={}-", self.at)).header("if-range", &self.etag);
        }
        let answer = self.sender.once(&request)?;
        let changed = || Fate::Final(Error::Changed { job: self.job.clone() });
        if text(answer.headers(), "etag").is_some_and(|etag| etag != self.etag) {
            return Err(changed());
        }
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let expected = format!("bytes {}-{}/{}", self.at, self.length.saturating_sub(1), self.length);
            if text(answer.headers(), "content-range") != Some(&expected) {
                return Err(changed());
            }
            return Ok(answer.into_body().into_reader());
        }
        if text(answer.headers(), "content-length").is_some_and(|length| length != self.length.to_string()) {
            return Err(changed());
        }
        // One that knows no ranges begins anew: what is here already is passed over.
        let mut body = answer.into_body().into_reader();
        match io::copy(&mut (&mut body).take(self.at), &mut io::sink()) {
            Ok(passed) if passed == self.at => Ok(body),
            Ok(_) => Err(self.sender.broken_off("the result broke off")),
            Err(error) => Err(self.lost(error)),
        }
    }

    fn lost(&self, error: io::Error) -> Fate {
        self.sender.lost(ureq::Error::from(error))
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let left = self.length - self.at;
            if left == 0 {
                return Ok(0);
            }
            if is_cancelled(self.cancel.as_deref()) {
                return Err(io::Error::other(Error::Cancelled));
            }
            let outcome = match &mut self.body {
                None => self.open().map(|body| self.body = Some(body)).map(|()| None),
                Some(body) => {
                    let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    match body.read(&mut buffer[..most]) {
                        Ok(0) => Err(self.sender.broken_off("the result broke off")),
                        Ok(read) => Ok(Some(read)),
                        Err(error) => Err(self.lost(error)),
                    }
                }
            };
            match outcome {
                Ok(Some(read)) => {
                    self.at += read as u64;
                    self.backoff = None;
                    if self.at == self.length
                        && let Some(mut body) = self.body.take()
                    {
                        // Only one that has been read to its end gives its connection back, for the next request.
                        let _ = body.read(&mut [0]);
                    }
                    return Ok(read);
                }
                Ok(None) => {}
                Err(Fate::Final(error)) => return Err(io::Error::other(error)),
                Err(Fate::Again { error, after, .. }) => {
                    self.body = None;
                    let backoff = self.backoff.get_or_insert_with(Backoff::new);
                    let (_, pause) = self.sender.pause(backoff, error, after).map_err(io::Error::other)?;
                    if !wait(pause, self.cancel.as_deref()) {
                        return Err(io::Error::other(Error::Cancelled));
                    }
                }
            }
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
