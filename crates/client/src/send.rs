//! One request, tried again while that can help and cannot do anything twice.

use std::fs;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::{HeaderMap, Method, Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use crate::address::Address;
use crate::api::{self, Problem};
use crate::client::Options;
use crate::connections::Connections;
use crate::error::{Error, Result};
use crate::retry::{Backoff, Watch, wait};
use crate::trace;

/// Bytes of an answer in JSON, at most: the specification of a very large model has some megabytes.
const JSON_BYTES: u64 = 256 << 20;
/// Of a service that has never answered, how long it is tried: it may just be starting, or the address may be wrong.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long nothing may come of an answer. Events come with a comment every 15 seconds.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub method: Method,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(&'static str, String)>,
    /// Its type, and the body itself.
    pub body: Option<(&'static str, &'a [u8])>,
    /// How long the service may hold its answer back, because it is asked to.
    pub held: Duration,
    /// How long nothing may come of its answer.
    pub silence: Duration,
}

impl<'a> Request<'a> {
    pub fn new(method: Method, path: impl Into<String>) -> Request<'a> {
        let (query, headers) = (Vec::new(), Vec::new());
        let (held, silence) = (Duration::ZERO, SILENCE);
        Request { method, path: path.into(), query, headers, body: None, held, silence }
    }

    pub fn get(path: impl Into<String>) -> Request<'a> {
        Request::new(Method::GET, path)
    }

    /// The request with the fields of a query.
    pub fn query(mut self, query: &impl serde::Serialize) -> Request<'a> {
        if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(query) {
            self.query.extend(fields.into_iter().map(|(name, value)| match value {
                serde_json::Value::String(text) => (name, text),
                other => (name, other.to_string()),
            }));
        }
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Request<'a> {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(mut self, kind: &'static str, bytes: &'a [u8]) -> Request<'a> {
        self.body = Some((kind, bytes));
        self
    }

    /// The request that asks for an answer only when there is one, or after so many seconds.
    pub fn waiting(mut self, seconds: u64) -> Request<'a> {
        if seconds > 0 {
            self.headers.push(("prefer", format!("wait={seconds}")));
        }
        self.held = Duration::from_secs(seconds);
        self
    }
}

/// What an attempt came to.
pub(crate) enum Fate {
    /// It will be no different next time.
    Final(Error),
    /// It may be different next time.
    Again {
        error: Error,
        /// What the service asks for.
        after: Option<Duration>,
        /// Whether the request may have arrived.
        arrived: bool,
    },
}

/// Where requests go, and by what key.
pub(crate) struct Sender {
    connections: Connections,
    pub address: Address,
    authorization: Option<String>,
    traceparent: Option<String>,
    pub patience: Duration,
    /// Whether the service has ever answered.
    answered: AtomicBool,
}

impl Sender {
    pub fn new(options: &Options) -> Result<Sender> {
        let address: Address = options.address.parse()?;
        let authorization = match options.key.as_deref().map(str::trim).filter(|key| !key.is_empty()) {
            None => None,
            Some(key) if !key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return Err(Error::Key { address: address.to_string() });
            }
            Some(_) if !address.is_private() && !options.plain_http => {
                return Err(Error::PlainHttp { address: address.to_string() });
            }
            Some(key) => Some(format!("Bearer {key}")),
        };
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // A key never follows a redirection, and a program is never sent elsewhere unasked.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .accept_encoding(ureq::config::AutoHeaderValue::None)
            .user_agent(concat!("pellucid/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .proxy(if address.is_loopback() { None } else { Proxy::try_from_env() });
        if let Some(path) = &options.certificates {
            config = config.tls_config(TlsConfig::builder().root_certs(certificates(path)?).build());
        }
        let answered = AtomicBool::new(false);
        Ok(Sender {
            connections: Connections::new(config.build()),
            address,
            authorization,
            traceparent: options.traceparent.clone().filter(|trace| trace::is_trace(trace)),
            patience: options.patience,
            answered,
        })
    }

    /// Sends a request once. An answer is one that is no problem.
    pub fn once(&self, request: &Request<'_>) -> Result<Response<Body>, Fate> {
        let answer = self.exchange(request).map_err(|error| self.lost(error))?;
        self.answered.store(true, Ordering::SeqCst);
        let status = answer.status();
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            let to = answer.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
            return Err(Fate::Final(self.protocol(format!("it points to {to}"))));
        }
        if !status.is_success() && status != StatusCode::NOT_MODIFIED {
            return Err(self.refused(answer));
        }
        match answer.headers().get(api::VERSION_HEADER).and_then(|version| version.to_str().ok()) {
            Some(version) if version.trim() == api::VERSION.to_string() => Ok(answer),
            Some(version) => Err(Fate::Final(self.protocol(format!(
                "it speaks version {version} of the interface, this program version {}",
                api::VERSION
            )))),
            None => {
                Err(Fate::Final(self.protocol(format!("HTTP {status} without `{}`", api::VERSION_HEADER))))
            }
        }
    }

    fn exchange(&self, request: &Request<'_>) -> Result<Response<Body>, ureq::Error> {
        let mut builder = ureq::http::Request::builder()
            .method(request.method.clone())
            .uri(self.url(request))
            .header(api::VERSION_HEADER, api::VERSION.to_string());
        if let Some(authorization) = &self.authorization {
            builder = builder.header("authorization", authorization);
        }
        if let Some(trace) = &self.traceparent {
            builder = builder.header(trace::HEADER, trace);
        }
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let silence = Some(request.silence + request.held);
        let agent = self.connections.agent();
        match request.body {
            Some((kind, bytes)) => {
                let request = builder.header("content-type", kind).body(bytes)?;
                let request = agent.configure_request(request).timeout_per_read(silence).build();
                agent.run(request)
            }
            None => {
                let request = agent.configure_request(builder.body(())?).timeout_per_read(silence).build();
                agent.run(request)
            }
        }
    }

    fn url(&self, request: &Request<'_>) -> String {
        let mut url = self.address.url(&request.path);
        for (place, (name, value)) in request.query.iter().enumerate() {
            url.push(if place == 0 { '?' } else { '&' });
            url.push_str(&format!("{}={}", crate::address::escape(name), crate::address::escape(value)));
        }
        url
    }

    /// Sends a request until it is answered, it cannot be, or patience is at its end; `read` reads the answer, and may
    /// find that the connection was cut in it.
    pub fn send<T>(
        &self,
        request: &Request<'_>,
        watch: &mut Watch<'_>,
        mut read: impl FnMut(Response<Body>) -> Result<T, Fate>,
    ) -> Result<T> {
        let mut backoff = Backoff::new();
        loop {
            if watch.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (error, after) = match self.once(request).and_then(&mut read) {
                Ok(answer) => return Ok(answer),
                Err(Fate::Final(error)) => return Err(error),
                Err(Fate::Again { error, after, arrived }) => {
                    watch.may_have_arrived |= arrived;
                    (error, after)
                }
            };
            let pause = self.pause(&mut backoff, error, after)?;
            (watch.retrying)(&pause.0, pause.1);
            if !wait(pause.1, watch.cancel) {
                return Err(Error::Cancelled);
            }
        }
    }

    /// The pause after an error; or the error, where patience is at its end.
    pub fn pause(
        &self,
        backoff: &mut Backoff,
        error: Error,
        after: Option<Duration>,
    ) -> Result<(Error, Duration)> {
        let answered = self.answered.load(Ordering::SeqCst);
        let patience = if answered { self.patience } else { self.patience.min(FIRST_PATIENCE) };
        match (backoff.pause(patience, after), error) {
            (Some(pause), error) => Ok((error, pause)),
            (None, Error::Unreachable { address, reason, .. }) => {
                Err(Error::Unreachable { address, reason, patience: Some(backoff.elapsed()), job: None })
            }
            (None, error) => Err(error),
        }
    }

    /// Sends a request whose answer is JSON.
    pub fn json<T: DeserializeOwned>(&self, request: &Request<'_>, watch: &mut Watch<'_>) -> Result<T> {
        self.send(request, watch, |answer| self.read_json(answer))
    }

    /// Reads an answer in JSON.
    pub fn read_json<T: DeserializeOwned>(&self, answer: Response<Body>) -> Result<T, Fate> {
        let bytes = self.read(answer)?;
        serde_json::from_slice(&bytes).map_err(|error| Fate::Final(self.protocol(error.to_string())))
    }

    /// Reads an answer whole.
    pub fn read(&self, mut answer: Response<Body>) -> Result<Vec<u8>, Fate> {
        let read = answer.body_mut().with_config().limit(JSON_BYTES).read_to_vec();
        read.map_err(|error| self.lost(error))
    }

    /// What an answer says that is a problem, or some other failure.
    fn refused(&self, mut answer: Response<Body>) -> Fate {
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut bytes = Vec::new();
        // What can be read of it is enough.
        let _ = answer.body_mut().as_reader().take(16 << 20).read_to_end(&mut bytes);
        let problem: Option<Problem> = serde_json::from_slice(&bytes).ok();
        let again = matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504);
        let after = retry_after(&headers, problem.as_ref());
        let error = match problem {
            Some(problem) => Error::Refused { address: self.address.to_string(), problem: Box::new(problem) },
            None => self.protocol(format!("HTTP {status}")),
        };
        // What came from the service itself says that it did not do it; a gateway may not know.
        let arrived = matches!(status.as_u16(), 502 | 504);
        if again { Fate::Again { error, after, arrived } } else { Fate::Final(error) }
    }

    /// What it means that the network failed.
    pub fn lost(&self, error: ureq::Error) -> Fate {
        use io::ErrorKind::*;
        let unreachable = |reason: String| {
            let address = self.address.to_string();
            Error::Unreachable { address, reason, patience: None, job: None }
        };
        let (reason, arrived) = match error {
            ureq::Error::HostNotFound => ("there is no such host".to_owned(), false),
            ureq::Error::ConnectionFailed => ("no connection came about".to_owned(), false),
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                ("no connection came about in time".to_owned(), false)
            }
            ureq::Error::Timeout(_) => ("no answer came in time".to_owned(), true),
            // So are faulty certificates told.
            ureq::Error::Io(error) if error.kind() == InvalidData => {
                return Fate::Final(unreachable(error.to_string()));
            }
            ureq::Error::Io(error) => {
                let arrived =
                    !matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable);
                (error.to_string(), arrived)
            }
            ureq::Error::Protocol(error) => (format!("the connection was cut ({error})"), true),
            error @ (ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_)) => {
                return Fate::Final(unreachable(error.to_string()));
            }
            other => return Fate::Final(self.protocol(other.to_string())),
        };
        Fate::Again { error: unreachable(reason), after: None, arrived }
    }

    /// What it means that an answer broke off.
    pub fn broken_off(&self, reason: impl Into<String>) -> Fate {
        let (address, reason) = (self.address.to_string(), reason.into());
        let error = Error::Unreachable { address, reason, patience: None, job: None };
        Fate::Again { error, after: None, arrived: true }
    }

    pub fn protocol(&self, reason: String) -> Error {
        Error::Protocol { address: self.address.to_string(), reason }
    }
}

fn retry_after(headers: &HeaderMap, problem: Option<&Problem>) -> Option<Duration> {
    let header = headers.get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    let seconds = header.into_iter().chain(problem.and_then(|problem| problem.retry_after_s));
    let longest = seconds
        .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        .fold(None, |longest, seconds| Some(longest.map_or(seconds, |longest: f64| longest.max(seconds))));
    longest.map(|seconds| Duration::from_secs_f64(seconds.min(1e9)))
}

/// The certificates of a PEM file.
fn certificates(path: &std::path::Path) -> Result<RootCerts> {
    let bytes = fs::read(path).map_err(|error| Error::file(path, error))?;
    let mut found = Vec::new();
    for item in ureq::tls::parse_pem(&bytes) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(error) => {
                return Err(Error::Configuration { path: path.to_owned(), reason: error.to_string() });
            }
        }
    }
    if found.is_empty() {
        let reason = "it holds no certificate in PEM form".to_owned();
        return Err(Error::Configuration { path: path.to_owned(), reason });
    }
    Ok(RootCerts::new_with_certs(&found))
}
