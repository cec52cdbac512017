//! Everything that is not a job: plans, models, tokens, accounts, and how the service is.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use pellucid_client::api::{self, Account, ExplainQuery, UsageQuery};
use serde_json::json as object;

use super::answer::{Refusal, json};
use super::body::Received;
use super::{Id, Reply, Shared, body, caller, query, result};
use crate::keys::Scope;
use crate::service::Caller;

pub(super) async fn explain(State(shared): State<Shared>, request: Request) -> Reply {
    let (parts, body) = request.into_parts();
    let caller = caller(&shared, &parts.headers, Some(Scope::Submit)).await?;
    let asked = query::<ExplainQuery>(&parts.uri)?;
    let received = shared.receiving.receive(&caller, &parts.headers, body, body::PROGRAM).await?;
    let plan = shared.service.explain(&caller, asked.model.as_deref(), received.bytes.clone()).await?;
    shared.answering.json(&caller, StatusCode::OK, &plan)
}

pub(super) async fn encode(State(shared): State<Shared>, request: Request) -> Reply {
    let (caller, received) = read(&shared, request).await?;
    let encoded = shared.service.encode(&caller, received.bytes.clone()).await?;
    shared.answering.json(&caller, StatusCode::OK, &encoded)
}

pub(super) async fn decode(State(shared): State<Shared>, request: Request) -> Reply {
    let (caller, received) = read(&shared, request).await?;
    let decoded = shared.service.decode(&caller, received.bytes.clone()).await?;
    shared.answering.json(&caller, StatusCode::OK, &decoded)
}

/// A small body of JSON, which keeps its room until it is answered.
async fn read(shared: &Shared, request: Request) -> Result<(Caller, Received), Refusal> {
    let (parts, body) = request.into_parts();
    let caller = caller(shared, &parts.headers, Some(Scope::Submit)).await?;
    let received = shared.receiving.receive(&caller, &parts.headers, body, body::TEXTS).await?;
    Ok((caller, received))
}

pub(super) async fn models(State(shared): State<Shared>, headers: HeaderMap) -> Reply {
    let caller = caller(&shared, &headers, Some(Scope::Submit)).await?;
    Ok(json(StatusCode::OK, &shared.service.models(&caller)))
}

pub(super) async fn model(State(shared): State<Shared>, Id(id): Id, headers: HeaderMap) -> Reply {
    let caller = caller(&shared, &headers, Some(Scope::Submit)).await?;
    let outline = shared.service.entry(&caller, Some(&id))?.clone().outline().await?;
    let same = headers.get(header::IF_NONE_MATCH).is_some_and(|given| result::matches(given, &outline.etag));
    let mut response = if same {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Body::from(outline.spec.clone()).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(api::JSON));
        response
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Ok(etag) = HeaderValue::from_str(&outline.etag) {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}

pub(super) async fn account(State(shared): State<Shared>, headers: HeaderMap) -> Reply {
    let caller = caller(&shared, &headers, None).await?;
    let used = shared.service.used(&caller).await?;
    let scopes = caller.scopes.iter().map(|scope| scope.name().to_owned()).collect();
    let Caller { account, key, .. } = caller;
    Ok(json(StatusCode::OK, &Account { account: account.name, key, scopes, limits: account.limits, used }))
}

pub(super) async fn usage(State(shared): State<Shared>, headers: HeaderMap, uri: Uri) -> Reply {
    let caller = caller(&shared, &headers, None).await?;
    let days = query::<UsageQuery>(&uri)?.days;
    Ok(json(StatusCode::OK, &shared.service.usage(&caller, days).await?))
}

pub(super) async fn status(State(shared): State<Shared>, headers: HeaderMap) -> Reply {
    let caller = caller(&shared, &headers, None).await?;
    Ok(json(StatusCode::OK, &shared.service.status(&caller)))
}

pub(super) async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Reply {
    caller(&shared, &headers, Some(Scope::Admin)).await?;
    let core = &shared.service.core;
    core.metrics.prefixes(&core.prefixes);
    let mut response = core.metrics.text().into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// Whether the process lives.
pub(super) async fn healthz(State(_): State<Shared>) -> Response {
    json(StatusCode::OK, &object!({ "status": "ok" }))
}

/// Whether jobs can be taken: the store writes, and pinned models are in memory.
pub(super) async fn readyz(State(shared): State<Shared>) -> Response {
    let (store, engine) = shared.service.readiness().await;
    let draining = shared.service.core.is_draining();
    let word = |works: bool| if works { "ok" } else { "failing" };
    let ready = store && engine && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks = object!({ "store": word(store), "engine": word(engine) });
    let state = if draining && store && engine { "draining" } else { word(ready) };
    json(status, &object!({ "status": state, "checks": checks }))
}
