//! What is asked of a hub over HTTP.

use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::name::is_commit;
use super::{ModelName, Settings, hub_error};
use crate::Error;

/// The longest list of a repository's files that is read, in bytes.
const MAXIMUM_LISTING_BYTES: u64 = 32 << 20;
/// The most redirects of one request.
const MAXIMUM_REDIRECTS: usize = 8;
/// The longest entity tag, which becomes a file's name.
const MAXIMUM_ETAG_BYTES: usize = 128;
/// How long a connection may take to be made, a response to begin, and a body to go on.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The hub could not be asked, or had no time; it may be asked again.
    Unreachable(String),
    /// The hub's answer is no.
    Refused(Error),
}

/// What a revision holds.
#[derive(Debug)]
pub(super) struct Listing {
    /// Its full name.
    pub(super) commit: String,
    /// Paths in the repository.
    pub(super) files: Vec<String>,
}

/// A file, before it is downloaded.
#[derive(Debug)]
pub(super) struct FileInfo {
    pub(super) url: String,
    /// Names its content; safe as a file's name.
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

/// A hub, asked about one model.
#[derive(Debug)]
pub(super) struct Client<'s> {
    agent: Agent,
    settings: &'s Settings,
    name: &'s ModelName,
}

impl<'s> Client<'s> {
    pub(super) fn new(settings: &'s Settings, name: &'s ModelName) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here, so that the token goes to the hub alone.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("pellucid/", env!("CARGO_PKG_VERSION")))
            // Sizes and ranges are those of the files.
            .accept_encoding("identity")
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build();
        Self { agent: config.new_agent(), settings, name }
    }

    pub(super) fn name(&self) -> &ModelName {
        self.name
    }

    /// The commit that the revision stands for, and its files.
    pub(super) fn listing(&self) -> Result<Listing, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            #[serde(default)]
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let revision = self.name.revision().replace('/', "%2F");
        let url =
            format!("{}/api/models/{}/revision/{revision}", self.settings.endpoint, self.name.repository());
        let mut response = self.expect_success(self.request("GET", &url, None)?, "it")?;
        let body = response.body_mut().with_config().limit(MAXIMUM_LISTING_BYTES).read_to_vec();
        let body = body.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let strange = |reason: String| Failure::Refused(hub_error(self.name, reason));
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| strange(format!("{url} does not answer as a hub does: {error}")))?;
        if !is_commit(&answer.sha) {
            return Err(strange(format!("{url} names a commit that is none: {:?}", answer.sha)));
        }
        let files = answer.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Listing { commit: answer.sha, files })
    }

    /// What a file of a commit is.
    pub(super) fn file_info(&self, commit: &str, file: &str) -> Result<FileInfo, Failure> {
        let url = format!("{}/{}/resolve/{commit}/{file}", self.settings.endpoint, self.name.repository());
        let response = self.expect_success(self.request("HEAD", &url, None)?, file)?;
        let first = |names: [&str; 2]| names.into_iter().find_map(|name| header_text(&response, name));
        let etag = first(["x-linked-etag", "etag"]).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if etag.is_empty() || etag.len() > MAXIMUM_ETAG_BYTES || !etag.bytes().all(is_name) {
            let reason = format!("{url} gives no entity tag by which the file can be kept ({etag:?})");
            return Err(Failure::Refused(hub_error(self.name, reason)));
        }
        // Of a redirect, the length is that of the redirect.
        let length = if response.status().is_redirection() { "x-linked-size" } else { "content-length" };
        let size = first(["x-linked-size", length]).and_then(|size| size.parse().ok());
        Ok(FileInfo { url, etag, size })
    }

    /// The content of a file from byte `start` on. The server may begin at 0 nevertheless: the status says so.
    pub(super) fn content(&self, url: &str, start: u64) -> Result<Response<Body>, Failure> {
        let range = (start > 0).then(|| format!("bytes={start}-"));
        self.request("GET", url, range.as_deref())
    }

    /// Sends a request and follows redirects; those of `HEAD` on the same host only, since what the hub itself says of
    /// a file counts.
    fn request(&self, method: &str, url: &str, range: Option<&str>) -> Result<Response<Body>, Failure> {
        let mut url = url.to_owned();
        for _ in 0..MAXIMUM_REDIRECTS {
            let mut request = if method == "HEAD" { self.agent.head(&url) } else { self.agent.get(&url) };
            let at_home = origin(&url) == origin(&self.settings.endpoint);
            if let Some(token) = self.settings.token.as_ref().filter(|_| at_home) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(range) = range {
                request = request.header(header::RANGE, range);
            }
            let response = request.call().map_err(|error| Failure::Unreachable(error.to_string()))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let Some(location) = header_text(&response, "location") else { return Ok(response) };
            let next = if location.starts_with('/') && !location.starts_with("//") {
                format!("{}{location}", origin(&url))
            } else {
                location.to_owned()
            };
            if method == "HEAD" && origin(&next) != origin(&url) {
                return Ok(response);
            }
            url = next;
        }
        Err(Failure::Unreachable(format!("{url} redirects without end")))
    }

    /// The response, unless it is an error; `what` was asked for.
    pub(super) fn expect_success(
        &self,
        response: Response<Body>,
        what: &str,
    ) -> Result<Response<Body>, Failure> {
        let status = response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(response);
        }
        let code = header_text(&response, "x-error-code").unwrap_or_default();
        let page = format!("{}/{}", self.settings.endpoint, self.name.repository());
        let revision = self.name.revision();
        let reason = match (status.as_u16(), code) {
            (_, "GatedRepo") => format!(
                "it may be downloaded by those only who have accepted its terms: accept them at {page}, and set HF_TOKEN to \
                 a token of the account that did"
            ),
            (_, "RevisionNotFound") => format!("it has no revision `{revision}`; see {page}/commits"),
            (404, "EntryNotFound") => format!("its revision `{revision}` has no file `{what}`"),
            (401 | 403, _) if self.settings.token.is_some() => format!(
                "{} answers {status}: there is no such model, or the token in use (HF_TOKEN, or the login's) does not \
                 give access to it",
                self.settings.endpoint
            ),
            (401 | 403, _) => format!(
                "{} answers {status}: there is no such model, or it is private; if it is, set HF_TOKEN",
                self.settings.endpoint
            ),
            (404, _) => format!("{} has no such model; check the name", self.settings.endpoint),
            (408 | 429 | 500.., _) => {
                return Err(Failure::Unreachable(format!("it answers {status}; try again later")));
            }
            _ => format!("{} answers {status} to a request for {what}", self.settings.endpoint),
        };
        Err(Failure::Refused(hub_error(self.name, reason)))
    }
}

pub(super) fn header_text<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// Scheme, host and port: an address up to its path.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn origins_end_where_paths_begin() {
        assert_eq!(origin("https://hub.example/a/b?c"), "https://hub.example");
        assert_eq!(origin("http://127.0.0.1:80"), "http://127.0.0.1:80");
        assert_eq!(origin("https://hub.example?x=https://other/"), "https://hub.example");
        assert_ne!(origin("https://hub.example.evil/a"), origin("https://hub.example/a"));
        assert_ne!(origin("https://hub.example@evil/a"), origin("https://hub.example/a"));
    }
}
