//! Results as files: whole, by ranges, taken up again.

use std::ops::Range;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pellucid_client::api::{self, JobState, Problem, ProblemKind, ResultInfo};

use super::answer::Refusal;
use super::{Id, Reply, Shared, caller};
use crate::keys::Scope;
use crate::service::Caller;
use crate::store::StoredJob;

pub(super) async fn get(State(shared): State<Shared>, Id(id): Id, headers: HeaderMap) -> Reply {
    let caller = caller(&shared, &headers, Some(Scope::Submit)).await?;
    let job = shared.service.stored_job(&caller, &id).await?;
    let (key, info) = of(&job)?;
    if headers.get(header::IF_NONE_MATCH).is_some_and(|given| matches(given, &info.etag)) {
        return Ok(described(StatusCode::NOT_MODIFIED.into_response(), &info));
    }
    // A range of another result than the one that was begun is of no use: then all of it is sent.
    let same = headers.get(header::IF_RANGE).is_none_or(|given| given.as_bytes() == info.etag.as_bytes());
    let range = headers.get(header::RANGE).filter(|_| same).and_then(|value| value.to_str().ok());
    match range.map(|text| parse(text, info.bytes)) {
        None | Some(Asked::All) => send(&shared, &key, &info, 0..info.bytes, StatusCode::OK).await,
        Some(Asked::Part(range)) => send(&shared, &key, &info, range, StatusCode::PARTIAL_CONTENT).await,
        Some(Asked::Nothing) => {
            let mut response = Refusal::of(
                ProblemKind::RangeNotSatisfiable,
                format!("The result has {} bytes.", info.bytes),
            )
            .into_response();
            if let Ok(value) = HeaderValue::from_str(&format!("bytes */{}", info.bytes)) {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            Ok(response)
        }
    }
}

/// All of a job's result.
pub(super) async fn whole(shared: &Shared, caller: &Caller, id: &str) -> Reply {
    let job = shared.service.stored_job(caller, id).await?;
    let (key, info) = of(&job)?;
    send(shared, &key, &info, 0..info.bytes, StatusCode::OK).await
}

/// A result whose bytes need not be read.
pub(super) fn at_hand(bytes: Bytes, info: &ResultInfo) -> Response {
    described((StatusCode::OK, Body::from(bytes)).into_response(), info)
}

/// A job's file, or why there is none.
fn of(job: &StoredJob) -> Result<(String, ResultInfo), Refusal> {
    if let (Some(key), Some(info)) = (&job.result_key, &job.result) {
        return Ok((key.clone(), info.clone()));
    }
    let mut problem = match job.state {
        JobState::Queued | JobState::Running => {
            let mut problem =
                Problem::new(ProblemKind::NotFinished, "The job has not ended yet, so it has no result.");
            problem.retry_after_s = Some(1.0);
            problem
        }
        _ if job.result_gone => {
            Problem::new(ProblemKind::Gone, "The result's time was over, and it is deleted.")
        }
        JobState::Failed => {
            let why = job.problem.as_ref().and_then(|problem| problem.detail.clone()).unwrap_or_default();
            Problem::new(ProblemKind::NoResult, format!("The job failed without saving anything: {why}"))
        }
        _ => Problem::new(ProblemKind::NoResult, "The job has ended without saving anything."),
    };
    problem.job = Some(job.id.clone());
    Err(Refusal::from(Box::new(problem)))
}

async fn send(shared: &Shared, key: &str, info: &ResultInfo, range: Range<u64>, status: StatusCode) -> Reply {
    let length = range.end - range.start;
    let stream = shared.service.core.files.stream(key, range.clone()).await.map_err(|error| {
        tracing::error!(%error, "a result cannot be read");
        Refusal::of(ProblemKind::StoreUnavailable, "The result cannot be read now.")
    })?;
    let stream = stream.ok_or_else(|| Refusal::of(ProblemKind::Gone, "The result is deleted."))?;
    let mut response = described((status, Body::from_stream(stream)).into_response(), info);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) =
            HeaderValue::from_str(&format!("bytes {}-{}/{}", range.start, range.end - 1, info.bytes))
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

fn described(mut response: Response, info: &ResultInfo) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(api::SAFETENSORS));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if let Ok(etag) = HeaderValue::from_str(&info.etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// Whether one of the tags of `If-None-Match` is that of the result.
pub(super) fn matches(given: &HeaderValue, etag: &str) -> bool {
    let Ok(given) = given.to_str() else { return false };
    given.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == "*" || one == etag)
}

/// What a range asks for.
#[derive(Debug, PartialEq)]
enum Asked {
    /// Everything: it asks for nothing that is understood, or for several parts.
    All,
    Part(Range<u64>),
    /// Nothing that there is.
    Nothing,
}

fn parse(text: &str, size: u64) -> Asked {
    let Some((from, to)) = text.trim().strip_prefix("bytes=").and_then(|rest| rest.split_once('-')) else {
        return Asked::All;
    };
    let number = |text: &str| {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (from.trim(), to.trim()) {
        (from, "") => match number(from) {
            Some(from) if from < size => Asked::Part(from..size),
            Some(_) => Asked::Nothing,
            None => Asked::All,
        },
        ("", last) => match number(last) {
            Some(0) => Asked::Nothing,
            Some(last) if size > 0 => Asked::Part(size.saturating_sub(last)..size),
            Some(_) => Asked::Nothing,
            None => Asked::All,
        },
        (from, to) => match (number(from), number(to)) {
            (Some(from), Some(to)) if from > to => Asked::All,
            (Some(from), Some(to)) if from < size => Asked::Part(from..to.saturating_add(1).min(size)),
            (Some(_), Some(_)) => Asked::Nothing,
            _ => Asked::All,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        assert_eq!(parse("bytes=0-3", 10), Asked::Part(0..4));
        assert_eq!(parse("bytes=4-", 10), Asked::Part(4..10));
        assert_eq!(parse("bytes=-3", 10), Asked::Part(7..10));
        assert_eq!(parse("bytes=-30", 10), Asked::Part(0..10));
        assert_eq!(parse("bytes=8-99", 10), Asked::Part(8..10));
        assert_eq!(parse("bytes=10-", 10), Asked::Nothing);
        assert_eq!(parse("bytes=99999999999999999999999-", 10), Asked::Nothing);
        assert_eq!(parse("bytes=-0", 10), Asked::Nothing);
        for all in ["bytes=3-2", "bytes=a-b", "bytes=0-1,4-5", "lines=1-2", "bytes", "bytes=", "bytes=+1-2"] {
            assert_eq!(parse(all, 10), Asked::All, "{all}");
        }
    }
}
