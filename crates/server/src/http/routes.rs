//! The one table of routes: the router is made from it, and so is the OpenAPI document.

use axum::Router;
use axum::routing;
use pellucid_client::api::{
    Account, DecodeRequest, DecodeResponse, EncodeRequest, EncodeResponse, EventQuery, ExplainQuery,
    Explanation, Job, JobList, JobQuery, ModelList, Removal, ServiceStatus, Submission, UsageQuery,
    UsageReport,
};
use pellucid_graph::ModelSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{Shared, events, jobs, others, pages, result};

/// A route, as the document describes it.
pub(super) struct Route {
    /// In small letters.
    pub method: &'static str,
    /// Its path, with what varies in braces.
    pub path: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// What a key must be allowed: `submit`, `admin`, `any`; `none`: no key is needed.
    pub scope: &'static str,
    /// Its query.
    pub query: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// What its body is.
    pub takes: Content,
    /// What its usual answers are.
    pub gives: &'static [(u16, Content)],
    /// Headers that mean something to it.
    pub headers: &'static [(&'static str, &'static str)],
}

impl Route {
    /// Whether it takes a job.
    pub fn takes_job(&self) -> bool {
        matches!((self.method, self.path), ("post", "/v1/jobs"))
    }
}

/// What a body is.
#[derive(Clone, Copy)]
pub(super) enum Content {
    Nothing,
    /// A program, as JSON or safetensors.
    Program,
    /// Saved values, as safetensors.
    Result,
    /// A job; or its result, where that is wanted and there.
    JobOrResult,
    Events,
    Html,
    Text,
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// Any JSON.
    AnyJson,
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const WAIT: (&str, &str) =
    ("Prefer", "`wait=N`: answer when the job has ended, or after N seconds, at most 60.");
/// What every route of the interface looks at.
pub(super) const VERSION: (&str, &str) =
    ("Pellucid-Version", "The version of the wire that the client speaks: 1.");
const KEY: (&str, &str) =
    ("Idempotency-Key", "Makes a retried submission one job: 1 to 255 visible ASCII characters.");
const ACCEPT: (&str, &str) = (
    "Accept",
    "`application/vnd.safetensors`: with `Prefer`, the result itself, if the job is done by then.",
);
const RANGE: (&str, &str) = ("Range", "One range of bytes.");
const IF_RANGE: (&str, &str) =
    ("If-Range", "The `ETag` of which a part is wanted: of another result all of it is sent.");
const NONE_MATCH: (&str, &str) = ("If-None-Match", "The `ETag` that is there already.");
const LAST_EVENT: (&str, &str) = ("Last-Event-ID", "Only what happened after the event of this id.");

macro_rules! routes {
    ($($method:ident $path:literal $handler:path, $scope:literal, $query:expr, $takes:expr => [$($status:literal $gives:expr),*], [$($header:expr),*], $summary:literal;)*) => {
        /// The router with all routes.
        pub(super) fn add_all(router: Router<Shared>) -> Router<Shared> {
            router$(.route($path, routing::$method($handler)))*
        }

        /// All routes.
        pub(super) const ROUTES: &[Route] = &[$(Route {
            method: stringify!($method),
            path: $path,
            summary: $summary,
            scope: $scope,
            query: $query,
            takes: $takes,
            gives: &[$(($status, $gives)),*],
            headers: &[$($header),*],
        }),*];
    };
}

/// Whether a route of the interface is asked for without a query. Pages and checks of health are asked for by others' programs, which
/// may put anything there.
pub(super) fn takes_no_query(method: &str, path: &str) -> bool {
    let method = if method == "HEAD" { "GET" } else { method };
    let route = ROUTES.iter().find(|route| route.path == path && route.method.eq_ignore_ascii_case(method));
    path.starts_with("/v1/") && route.is_some_and(|route| route.query.is_none())
}

/// Whether a route computes its answer and changes nothing: it is of no use to anybody once its client has gone. Whatever changes
/// something goes on to its end, so that nothing is half done.
pub(super) fn only_computes(method: &str, path: &str) -> bool {
    method == "POST" && matches!(path, "/v1/explain" | "/v1/encode" | "/v1/decode")
}

use Content::{AnyJson, Events, Html, JobOrResult, Json, Nothing, Program, Result, Text};

routes! {
    post "/v1/jobs" jobs::submit, "submit", Some(of::<Submission>), Program => [202 Json(of::<Job>), 200 JobOrResult], [WAIT, KEY, ACCEPT],
        "Submits a program. The body is the program itself.";
    get "/v1/jobs" jobs::list, "submit", Some(of::<JobQuery>), Nothing => [200 Json(of::<JobList>)], [],
        "One's own jobs, the newest first.";
    get "/v1/jobs/{id}" jobs::get, "submit", None, Nothing => [200 Json(of::<Job>)], [WAIT],
        "A job.";
    delete "/v1/jobs/{id}" jobs::remove, "submit", Some(of::<Removal>), Nothing => [200 Json(of::<Job>), 202 Json(of::<Job>), 204 Nothing], [],
        "Cancels a job, also while it runs; or erases it with everything of it.";
    get "/v1/jobs/{id}/events" events::get, "submit", Some(of::<EventQuery>), Nothing => [200 Events], [LAST_EVENT],
        "What happens to a job, as it happens.";
    get "/v1/jobs/{id}/result" result::get, "submit", None, Nothing => [200 Result, 206 Result, 304 Nothing], [RANGE, IF_RANGE, NONE_MATCH],
        "A job's saved values.";
    post "/v1/explain" others::explain, "submit", Some(of::<ExplainQuery>), Program => [200 Json(of::<Explanation>)], [],
        "What a program would compute where, and at what price. Nothing runs.";
    post "/v1/encode" others::encode, "submit", None, Json(of::<EncodeRequest>) => [200 Json(of::<EncodeResponse>)], [],
        "Texts as token ids.";
    post "/v1/decode" others::decode, "submit", None, Json(of::<DecodeRequest>) => [200 Json(of::<DecodeResponse>)], [],
        "The texts of token ids.";
    get "/v1/models" others::models, "submit", None, Nothing => [200 Json(of::<ModelList>)], [],
        "The models that one may use.";
    get "/v1/models/{*id}" others::model, "submit", None, Nothing => [200 Json(of::<ModelSpec>), 304 Nothing], [NONE_MATCH],
        "What a model publishes of itself: modules, hook points, parameters.";
    get "/v1/account" others::account, "any", None, Nothing => [200 Json(of::<Account>)], [],
        "One's own account: what it may use, and has used.";
    get "/v1/usage" others::usage, "any", Some(of::<UsageQuery>), Nothing => [200 Json(of::<UsageReport>)], [],
        "What one's own account has used, day by day.";
    get "/v1/status" others::status, "any", None, Nothing => [200 Json(of::<ServiceStatus>)], [],
        "How the service is.";
    get "/metrics" others::metrics, "admin", None, Nothing => [200 Text], [],
        "What is measured, for Prometheus.";
    get "/healthz" others::healthz, "none", None, Nothing => [200 AnyJson], [],
        "Whether the process lives.";
    get "/readyz" others::readyz, "none", None, Nothing => [200 AnyJson, 503 AnyJson], [],
        "Whether jobs can be taken.";
    get "/" pages::status, "none", None, Nothing => [200 Html], [],
        "The status page.";
    get "/docs" pages::docs, "none", None, Nothing => [200 Html], [],
        "These routes, to be tried.";
    get "/openapi.json" pages::openapi, "none", None, Nothing => [200 AnyJson], [],
        "This document.";
    get "/v1/program.schema.json" pages::program_schema, "none", None, Nothing => [200 AnyJson], [],
        "The JSON Schema of programs.";
}
