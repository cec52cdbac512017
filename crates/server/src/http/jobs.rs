//! Jobs: submitted, listed, looked at, cancelled.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pellucid_client::api::{self, Job, JobQuery, JobState, ProblemKind, Removal, Submission};

use super::answer::{Refusal, json};
use super::{Id, Reply, Shared, body, caller, query, result};
use crate::account::Watcher;
use crate::keys::Scope;
use crate::service::{Caller, SubmitOptions};

pub(super) async fn submit(State(shared): State<Shared>, request: Request) -> Reply {
    let (parts, body) = request.into_parts();
    let caller = caller(&shared, &parts.headers, Some(Scope::Submit)).await?;
    let options = SubmitOptions {
        query: query::<Submission>(&parts.uri)?,
        idempotency_key: text(&parts.headers, api::IDEMPOTENCY_HEADER)?.map(str::to_owned),
    };
    let wait = wait(&parts.headers)?;
    let _watches = watch(&shared, &caller, wait)?;
    let received = shared.receiving.receive(&caller, &parts.headers, body, body::PROGRAM).await?;
    let submitted = shared.service.submit(&caller, options, received.bytes.clone()).await?;
    drop(received);
    let (mut job, mut bytes) = (submitted.job, None);
    if let (Some(wait), false) = (wait, job.state.is_final()) {
        let ended = match &submitted.channel {
            Some(channel) => channel.ended(wait).await,
            None => None,
        };
        job = match ended {
            Some(ended) => {
                bytes = submitted.channel.and_then(|channel| channel.take_result());
                ended.as_ref().clone()
            }
            // It is taken, whatever fails from here on: who is told of a failure instead submits it again.
            None => shared.service.job(&caller, &job.id, None).await.unwrap_or(job),
        };
    }
    let mut response = ended(&shared, &caller, &job, bytes, &parts.headers, wait.is_some()).await;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/jobs/{}", job.id)) {
        headers.insert(header::LOCATION, location);
    }
    if let Ok(id) = HeaderValue::from_str(&job.id) {
        headers.insert(api::JOB_HEADER, id);
    }
    if submitted.replayed {
        headers.insert(api::REPLAYED_HEADER, HeaderValue::from_static("true"));
    }
    applied(&mut response, wait);
    Ok(response)
}

/// A job that was waited for: its result, where that is wanted and there; else what is known of it. `bytes`: its result, where it
/// need not be read. Where it cannot be read the job is all that is answered.
async fn ended(
    shared: &Shared,
    caller: &Caller,
    job: &Job,
    bytes: Option<Bytes>,
    headers: &HeaderMap,
    waited: bool,
) -> Response {
    if !job.state.is_final() || !waited {
        return known(shared, caller, StatusCode::ACCEPTED, job);
    }
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let wants_result = accept
        .flat_map(|value| value.split(','))
        .any(|one| one.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(api::SAFETENSORS));
    if wants_result && job.state == JobState::Succeeded {
        if let (Some(bytes), Some(info)) = (bytes, &job.result) {
            return result::at_hand(bytes, info);
        }
        let whole = result::whole(shared, caller, &job.id).await;
        return whole.unwrap_or_else(|_| known(shared, caller, StatusCode::ACCEPTED, job));
    }
    known(shared, caller, StatusCode::OK, job)
}

/// A job; without what it saved, where that is much and there is no room for it.
fn known(shared: &Shared, caller: &Caller, status: StatusCode, job: &Job) -> Response {
    let whole = shared.answering.json(caller, status, job);
    whole.unwrap_or_else(|_| json(status, &Job { saved: Vec::new(), absent: Vec::new(), ..job.clone() }))
}

pub(super) async fn list(State(shared): State<Shared>, headers: HeaderMap, uri: Uri) -> Reply {
    let caller = caller(&shared, &headers, Some(Scope::Submit)).await?;
    let jobs = shared.service.jobs(&caller, &query::<JobQuery>(&uri)?).await?;
    shared.answering.json(&caller, StatusCode::OK, &jobs)
}

pub(super) async fn get(State(shared): State<Shared>, Id(id): Id, headers: HeaderMap) -> Reply {
    let caller = caller(&shared, &headers, Some(Scope::Submit)).await?;
    let wait = wait(&headers)?;
    let _watches = watch(&shared, &caller, wait)?;
    let job = shared.service.job(&caller, &id, wait).await?;
    let mut response = shared.answering.json(&caller, StatusCode::OK, &job)?;
    applied(&mut response, wait);
    Ok(response)
}

pub(super) async fn remove(State(shared): State<Shared>, Id(id): Id, headers: HeaderMap, uri: Uri) -> Reply {
    let caller = caller(&shared, &headers, Some(Scope::Submit)).await?;
    if query::<Removal>(&uri)?.erase {
        shared.service.erase(&caller, &id).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let job = shared.service.cancel(&caller, &id).await?;
    let status = if job.state.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(known(&shared, &caller, status, &job))
}

/// A header's value as text.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refusal> {
    let value = headers.get(name).map(HeaderValue::to_str).transpose();
    value.map_err(|_| {
        Refusal::of(ProblemKind::BadRequest, format!("The header `{name}` is not visible ASCII."))
    })
}

/// How long the answer may be waited for: `Prefer: wait=N`.
fn wait(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    for value in headers.get_all("prefer") {
        for preference in value.to_str().unwrap_or_default().split([',', ';']) {
            let Some((name, seconds)) = preference.split_once('=') else { continue };
            if name.trim().eq_ignore_ascii_case("wait") {
                let seconds: u64 = seconds.trim().trim_matches('"').parse().map_err(|_| {
                    Refusal::of(ProblemKind::BadRequest, "`Prefer: wait=N`: N is a whole number of seconds.")
                })?;
                return Ok(Some(Duration::from_secs(seconds.min(api::MAXIMUM_WAIT_SECONDS))));
            }
        }
    }
    Ok(None)
}

/// Counts a request that waits.
fn watch(shared: &Shared, caller: &Caller, wait: Option<Duration>) -> Result<Option<Watcher>, Refusal> {
    match wait {
        Some(wait) if !wait.is_zero() => Ok(shared.service.watch(caller)?),
        _ => Ok(None),
    }
}

fn applied(response: &mut Response, wait: Option<Duration>) {
    if let Some(wait) = wait
        && let Ok(value) = HeaderValue::from_str(&format!("wait={}", wait.as_secs()))
    {
        response.headers_mut().insert("preference-applied", value);
    }
}
