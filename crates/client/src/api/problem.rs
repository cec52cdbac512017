//! What goes wrong.

use std::borrow::Cow;
use std::fmt;

use pellucid_graph::{SourceLocation, fault};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What went wrong: a problem document as in RFC 9457, with all that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// What kind of problem.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// What kind, for people.
    pub title: String,
    /// The HTTP status; of a job's error, what it would be.
    pub status: u16,
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The request that it happened to: `urn:pellucid:request:` and its id, which stands in the server's logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Everything that is wrong with the program, or the node at which its run failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// The limit that was exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<ExceededLimit>,
    /// Seconds until it is worth trying again, where it ever is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<f64>,
    /// The names nearest to one that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<String>,
    /// The versions that the server speaks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supported: Vec<u32>,
    /// Of a run that failed: the name of the trace that it was in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The job that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

impl Problem {
    /// A problem of a kind, with that kind's title and status.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Problem {
        Problem {
            title: kind.title().to_owned(),
            status: kind.status(),
            kind,
            detail: Some(detail.into()),
            instance: None,
            hint: None,
            faults: Vec::new(),
            limit: None,
            retry_after_s: None,
            nearest: Vec::new(),
            supported: Vec::new(),
            trace: None,
            job: None,
        }
    }

    /// The problem of a program that is wrong.
    pub fn of_faults(faults: &fault::Faults) -> Problem {
        let mut problem = Problem::new(ProblemKind::InvalidProgram, "The program was not run.");
        problem.faults = faults.0.iter().map(Fault::from).collect();
        problem
    }
}

/// In words, for a person: the faults one by one; else what happened, the limit, and what to do.
impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.faults.is_empty() {
            let faults = self.faults.iter().cloned().map(fault::Fault::from).collect();
            return fault::Faults(faults).fmt(formatter);
        }
        // A server's words may hold a stranger's: they are escaped as those of faults are.
        let mut told = fault::Fault::new(match &self.detail {
            Some(detail) => detail.clone(),
            None => self.title.clone(),
        });
        if let Some(ExceededLimit { name, allowed, used, unit }) = &self.limit {
            told.message.push_str(&format!("\n  limit: {name} is {allowed} {unit}; this would be {used}"));
        }
        let nearest: Vec<String> = self.nearest.iter().map(|name| fault::quote(name)).collect();
        told.hint = match (&self.hint, nearest.is_empty()) {
            (Some(hint), _) => Some(hint.clone()),
            (None, false) => Some(format!("did you mean {}?", nearest.join(" or "))),
            (None, true) => None,
        };
        told.fmt(formatter)
    }
}

/// Makes the enumeration of kinds with their names, statuses and titles from one table.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $status:literal $title:literal,)*) => {
        /// The kinds of problems. In JSON each is a URI: `urn:pellucid:problem:` and its name.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemKind {
            $($(#[$doc])* $kind,)*
            /// A kind that is not known here: its whole URI.
            Other(String),
        }

        impl ProblemKind {
            /// Every kind that is known.
            pub const ALL: &[ProblemKind] = &[$(ProblemKind::$kind),*];

            /// Its name; of a kind that is not known, its URI.
            pub fn name(&self) -> &str {
                match self {
                    $(ProblemKind::$kind => $name,)*
                    ProblemKind::Other(uri) => uri,
                }
            }

            /// Its HTTP status.
            pub fn status(&self) -> u16 {
                match self {
                    $(ProblemKind::$kind => $status,)*
                    ProblemKind::Other(_) => 500,
                }
            }

            /// What kind it is, for people.
            pub fn title(&self) -> &'static str {
                match self {
                    $(ProblemKind::$kind => $title,)*
                    ProblemKind::Other(_) => "Something went wrong",
                }
            }

            fn from_uri(uri: &str) -> ProblemKind {
                match uri.strip_prefix(URI) {
                    $(Some($name) => ProblemKind::$kind,)*
                    _ => ProblemKind::Other(uri.to_owned()),
                }
            }
        }
    };
}

/// What the URI of every kind begins with.
const URI: &str = "urn:pellucid:problem:";

kinds! {
    /// The request itself is wrong: a header, the query, a path.
    BadRequest "bad-request" 400 "The request is wrong",
    /// The client speaks a version that the server does not.
    UnsupportedVersion "unsupported-version" 400 "No version in common",
    /// There is no key, or it is not known.
    Unauthorized "unauthorized" 401 "A key is needed",
    /// The key or the account may not do that.
    Forbidden "forbidden" 403 "Not allowed",
    /// There is no such model, or one may not use it.
    UnknownModel "unknown-model" 404 "No such model",
    /// There is no such thing, or it is somebody else's.
    NotFound "not-found" 404 "Not found",
    /// There is such a path, but not for this method.
    MethodNotAllowed "method-not-allowed" 405 "Not with this method",
    /// The client took too long to send its request.
    Timeout "timeout" 408 "The request took too long",
    /// The job has not ended yet, so it has no result.
    NotFinished "not-finished" 409 "The job has not ended",
    /// The job has ended without saving anything.
    NoResult "no-result" 409 "There is no result",
    /// It was there, and has been deleted.
    Gone "gone" 410 "Deleted",
    /// It is more than a request, a job or a result may be.
    TooLarge "too-large" 413 "Too large",
    /// The body is of a type that is not read here.
    UnsupportedMediaType "unsupported-media-type" 415 "Not a type that is read here",
    /// The range is not one of the result's.
    RangeNotSatisfiable "range-not-satisfiable" 416 "No such range",
    /// The program is wrong, and was not run.
    InvalidProgram "invalid-program" 422 "The program is wrong",
    /// The idempotency key was used before, for another program.
    IdempotencyConflict "idempotency-conflict" 422 "The idempotency key was used for another program",
    /// The account has used what it may use for now: later there will be more.
    TooManyRequests "too-many-requests" 429 "Too much for now",
    /// The request's head is too long.
    HeaderTooLarge "header-too-large" 431 "The header is too large",
    /// Something of the service itself went wrong.
    Internal "internal" 500 "The service failed",
    /// The service is being shut down.
    Draining "draining" 503 "The service is being shut down",
    /// The queue is full.
    QueueFull "queue-full" 503 "The queue is full",
    /// The service cannot write down what it would have to.
    StoreUnavailable "store-unavailable" 503 "The store does not work for now",
    /// The model cannot be loaded now.
    ModelUnavailable "model-unavailable" 503 "The model is not available",
    /// Of a job: an operation failed on its values.
    RunFailed "run-failed" 422 "The run failed",
    /// Of a job: its time was over.
    DeadlineExceeded "deadline-exceeded" 408 "The time was over",
    /// Of a job: it needed more memory than it was given.
    MemoryExceeded "memory-exceeded" 413 "More memory than it was given",
    /// Of a job: the service died while it ran, more than once, so that it is not tried again.
    Poisoned "poisoned" 422 "The service died on this job",
    /// Of a job: its result is larger than it may be.
    ResultTooLarge "result-too-large" 413 "The result is too large",
}

impl Serialize for ProblemKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ProblemKind::Other(uri) => serializer.serialize_str(uri),
            known => serializer.collect_str(&format_args!("{URI}{}", known.name())),
        }
    }
}

impl<'de> Deserialize<'de> for ProblemKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(ProblemKind::from_uri(&Cow::<'de, str>::deserialize(deserializer)?))
    }
}

impl JsonSchema for ProblemKind {
    fn schema_name() -> Cow<'static, str> {
        "ProblemKind".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let uris: Vec<String> = ProblemKind::ALL.iter().map(|kind| format!("{URI}{}", kind.name())).collect();
        json_schema!({
            "description": "What kind of problem.",
            "type": "string",
            "format": "uri",
            "examples": uris,
        })
    }
}

/// A limit that was exceeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExceededLimit {
    /// Its name, as in the account's limits, or one of the service's own.
    pub name: String,
    /// What is allowed.
    pub allowed: f64,
    /// What it would be, with what was asked for.
    pub used: f64,
    /// What both are counted in: `bytes`, `ms`, `jobs`, `requests`.
    pub unit: String,
}

/// One thing that is wrong with a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// The name of the node at fault; none: the program as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Where in the program's text, as a JSON pointer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Where the node's author wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A line of a node's author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The line's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl From<&fault::Fault> for Fault {
    fn from(fault: &fault::Fault) -> Fault {
        let fault::Fault { node, place, source, message, hint } = fault.clone();
        let source = source.map(|SourceLocation { file, line, text }| Source { file, line, text });
        Fault { node, place, source, message, hint }
    }
}

impl From<Fault> for fault::Fault {
    fn from(fault: Fault) -> fault::Fault {
        let Fault { node, place, source, message, hint } = fault;
        let source = source.map(|Source { file, line, text }| SourceLocation { file, line, text });
        fault::Fault { node, place, source, message, hint }
    }
}
