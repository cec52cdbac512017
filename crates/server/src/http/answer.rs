//! What is answered: JSON, and problems as RFC 9457 has them.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pellucid_client::api::{self, Problem, ProblemKind};
use serde::Serialize;

/// A request is not done, and why.
#[derive(Debug)]
pub(super) struct Refusal(Box<Problem>);

impl Refusal {
    pub fn of(kind: ProblemKind, detail: impl Into<String>) -> Refusal {
        Refusal(Box::new(Problem::new(kind, detail)))
    }

    /// One that may be asked for again after so many seconds.
    pub fn later(kind: ProblemKind, detail: impl Into<String>, seconds: f64) -> Refusal {
        let mut problem = Problem::new(kind, detail);
        problem.retry_after_s = Some(seconds);
        Refusal(Box::new(problem))
    }
}

impl From<Box<Problem>> for Refusal {
    fn from(problem: Box<Problem>) -> Self {
        Refusal(problem)
    }
}

/// The problem travels beside the response, and is written where the request's id is known.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = status(self.0.status).into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A problem as a response.
pub(super) fn problem(mut problem: Problem, request: Option<&str>) -> Response {
    problem.instance = request.map(|id| format!("urn:pellucid:request:{id}"));
    let mut response = json(status(problem.status), &problem);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(api::PROBLEM_JSON));
    if let Some(seconds) = problem.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.clamp(1.0, 86_400.0).ceil() as u64));
    }
    if problem.kind == ProblemKind::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// What is JSON already.
pub(super) fn json_of(status: StatusCode, bytes: Bytes) -> Response {
    let mut response = (status, Body::from(bytes)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(api::JSON));
    response
}

/// A small value as JSON; large ones take their room ([`super::answering`]).
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_of(status, bytes.into()),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
