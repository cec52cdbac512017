//! The types of the service's HTTP interface: what stands in its bodies, queries and events. Server and client share them, and
//! the OpenAPI document is made from them.
//!
//! | route | takes | gives |
//! | --- | --- | --- |
//! | `POST /v1/jobs` | a program, [`Submission`] as query | 202 and a [`Job`]; with `Prefer: wait=N`, 200 and the job or its result if it has ended by then |
//! | `GET /v1/jobs` | [`JobQuery`] | a [`JobList`] of one's own jobs, the newest first |
//! | `GET /v1/jobs/{id}` | | a [`Job`] |
//! | `GET /v1/jobs/{id}/events` | [`EventQuery`] | server-sent events: each an [`Event`] |
//! | `GET /v1/jobs/{id}/result` | | a safetensors file, with ranges |
//! | `DELETE /v1/jobs/{id}` | [`Removal`] | the [`Job`], cancelled or about to be; 204 if it is erased |
//! | `POST /v1/explain` | a program, [`ExplainQuery`] | an [`Explanation`] |
//! | `POST /v1/encode`, `POST /v1/decode` | [`EncodeRequest`], [`DecodeRequest`] | [`EncodeResponse`], [`DecodeResponse`] |
//! | `GET /v1/models` | | a [`ModelList`] |
//! | `GET /v1/models/{id}` | | a [`ModelSpec`](pellucid_graph::ModelSpec), with an `ETag` |
//! | `GET /v1/account` | | an [`Account`] |
//! | `GET /v1/usage` | [`UsageQuery`] | a [`UsageReport`] |
//! | `GET /v1/status` | | a [`ServiceStatus`] |
//!
//! What goes wrong is a [`Problem`], as `application/problem+json` (RFC 9457). Times are texts as in RFC 3339, in UTC, with
//! milliseconds. A field that is not known is refused in what a client sends; in what a server sends it is passed over, so
//! that a server may say more than its clients know.

mod account;
mod event;
mod job;
mod model;
mod problem;

pub use account::{
    Account, AccountUse, HistoryEntry, Limits, QueueStatus, ServiceState, ServiceStatus, UsageDay,
    UsageQuery, UsageReport,
};
pub use event::{Event, EventQuery, Gap, Log, Started, Token};
pub use job::{
    Job, JobList, JobQuery, JobState, Number, Price, Priority, QueuePlace, Removal, ResultInfo, RunProgress,
    Saved, Submission,
};
pub use model::{
    DecodeRequest, DecodeResponse, EncodeRequest, EncodeResponse, ExplainQuery, Explanation, ModelEntry,
    ModelList, ModelState,
};
pub use problem::{ExceededLimit, Fault, Problem, ProblemKind, Source};

/// The version of the interface and of the wire that both sides speak.
pub const VERSION: u32 = 1;
/// The header that names the version.
pub const VERSION_HEADER: &str = "pellucid-version";
/// The header that makes a retried submission one job: 1 to 255 visible ASCII characters, the client's own choice.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// The header of an answer to a submission that was known already: `true`.
pub const REPLAYED_HEADER: &str = "idempotency-replayed";
/// The header that names the job where the answer is its result.
pub const JOB_HEADER: &str = "pellucid-job";
/// The header that names a request: in the server's logs it has the same name.
pub const REQUEST_HEADER: &str = "x-request-id";
/// The most seconds of `Prefer: wait=N`.
pub const MAXIMUM_WAIT_SECONDS: u64 = 60;
/// The most texts, or lists of token ids, of one request to encode or decode.
pub const MAXIMUM_TEXTS: usize = 1_024;
/// The most bytes of text, or token ids, of one such request together: a long chapter of a book, or a short novel.
pub const MAXIMUM_TEXT_SIZE: usize = 256 << 10;
/// What every key begins with.
pub const KEY_PREFIX: &str = "pellucid_";
/// The media type of a program where it is JSON, and of answers.
pub const JSON: &str = "application/json";
/// The media type of a program with constants, and of results.
pub const SAFETENSORS: &str = "application/vnd.safetensors";
/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The media type of events.
pub const EVENT_STREAM: &str = "text/event-stream";
