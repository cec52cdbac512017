//! HTTP: routes, bodies and headers over the `Service`.

mod answer;
mod answering;
mod body;
mod connection;
mod events;
mod jobs;
mod openapi;
mod others;
mod pages;
mod result;
mod routes;
mod seat;
mod tls;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use pellucid_client::api::{self, Problem, ProblemKind};
use tracing::Instrument;

use crate::keys::Scope;
use crate::service::{Caller, Service};

pub use connection::serve;
pub use openapi::document;
pub(crate) use tls::acceptor;

use answer::Refusal;
use answering::Answering;
use seat::{SEAT, Seat};

/// What every route gives.
type Reply = Result<Response, Refusal>;

/// What routes share.
#[derive(Clone)]
struct Shared {
    service: Service,
    receiving: body::Receiving,
    answering: Answering,
}

/// All routes.
pub(crate) fn router(service: Service) -> Router {
    let receiving = body::Receiving::new(&service.core.config);
    let shared = Shared { service, receiving, answering: Answering::new() };
    routes::add_all(Router::new())
        .fallback(|| async { Refusal::of(ProblemKind::NotFound, "There is no such path; see /docs.") })
        .method_not_allowed_fallback(|| async {
            Refusal::of(
                ProblemKind::MethodNotAllowed,
                "There is such a path, but not for this method; see /docs.",
            )
        })
        .layer(middleware::from_fn_with_state(shared.clone(), around))
        .with_state(shared)
}

/// Around every request: its id, the version of the wire, who may ask from where, what is logged and counted.
async fn around(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    // Without random bytes nothing else works either.
    let id = crate::keys::job_id().unwrap_or_default().replace("job_", "");
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let strange = request.uri().query().is_some_and(|query| !query.is_empty())
        && routes::takes_no_query(method.as_str(), &route);
    let computes = routes::only_computes(method.as_str(), &route);
    // The path is not logged: it may hold anything.
    let span = tracing::info_span!("request", id, %method, route, status = tracing::field::Empty);
    crate::traces::continue_from(request.headers(), &span);
    let answered = async {
        match before(&shared, request.headers(), strange).await {
            Err(refusal) => refusal.into_response(),
            Ok(()) => {
                // A panic in a route ends this request and nothing else.
                let seat = request.extensions().get::<Arc<Seat>>().cloned();
                let route = tokio::spawn(SEAT.scope(seat, next.run(request)).in_current_span());
                let _ends = computes.then(|| Ends(route.abort_handle()));
                match route.await {
                    Ok(response) => response,
                    Err(error) if error.is_panic() => {
                        tracing::error!("a route panicked");
                        Refusal::of(ProblemKind::Internal, "Something failed in the service.").into_response()
                    }
                    Err(_) => Refusal::of(ProblemKind::Internal, "The request was ended.").into_response(),
                }
            }
        }
    };
    let mut response = answered.instrument(span.clone()).await;
    if let Some(problem) = response.extensions_mut().remove::<Box<Problem>>() {
        let core = &shared.service.core;
        core.metrics.problem(&problem.kind);
        if problem.kind == ProblemKind::StoreUnavailable {
            // What was known of the store a moment ago is not true any more.
            *core.readiness.lock().await = None;
        }
        let range = response.headers_mut().remove(header::CONTENT_RANGE);
        let has_no_seat = problem.limit.as_ref().is_some_and(|limit| limit.name == seat::LIMIT);
        response = answer::problem(*problem, Some(&id));
        if has_no_seat {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        // How much there is, where a range lies beyond it.
        if let Some(range) = range {
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
    }
    let (status, seconds) = (response.status().as_u16(), started.elapsed().as_secs_f64());
    span.record("status", status);
    span.in_scope(|| tracing::debug!(status, seconds, "answered"));
    shared.service.core.metrics.request(&route, status, seconds);
    let headers = response.headers_mut();
    headers.insert(api::VERSION_HEADER, HeaderValue::from(api::VERSION));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(api::REQUEST_HEADER, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A route that ends when whoever asked has gone: what was still to be computed is not.
struct Ends(tokio::task::AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is looked at before any route. `strange`: there is a query, though the route has none.
async fn before(shared: &Shared, headers: &HeaderMap, strange: bool) -> Result<(), Refusal> {
    for name in [
        header::AUTHORIZATION.as_str(),
        header::CONTENT_TYPE.as_str(),
        header::HOST.as_str(),
        api::IDEMPOTENCY_HEADER,
        api::VERSION_HEADER,
    ] {
        if headers.get_all(name).iter().count() > 1 {
            return Err(Refusal::of(ProblemKind::BadRequest, format!("The header `{name}` is there twice.")));
        }
    }
    // Without keys the port is all that protects: a page of somebody else's in a browser here must not reach it by a
    // name of its own that leads to this machine.
    if shared.service.core.config.server.open && !headers.get(header::HOST).is_none_or(is_loopback) {
        return Err(Refusal::of(
            ProblemKind::Forbidden,
            "Without keys it answers to `localhost` and loopback addresses only.",
        ));
    }
    // What is not understood is not passed over, also where there is nothing to be understood.
    if strange {
        caller(shared, headers, None).await?;
        return Err(Refusal::of(ProblemKind::BadRequest, "The query: this path has no parameters."));
    }
    let Some(version) = headers.get(api::VERSION_HEADER) else { return Ok(()) };
    if version.to_str().ok().and_then(|text| text.trim().parse::<u32>().ok()) == Some(api::VERSION) {
        return Ok(());
    }
    let mut problem = Problem::new(
        ProblemKind::UnsupportedVersion,
        format!("This service speaks version {} of the wire.", api::VERSION),
    );
    problem.supported = vec![api::VERSION];
    Err(Refusal::from(Box::new(problem)))
}

fn is_loopback(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Who asks, if its key may do that.
async fn caller(shared: &Shared, headers: &HeaderMap, scope: Option<Scope>) -> Result<Caller, Refusal> {
    let authorization = match headers.get(header::AUTHORIZATION) {
        Some(value) => match value.to_str() {
            Ok(text) => Some(text),
            Err(_) => {
                return Err(Refusal::of(ProblemKind::Unauthorized, "This is no key that is valid here."));
            }
        },
        None => None,
    };
    let caller = shared.service.caller(authorization).await?;
    seat::take(&shared.service.core, &caller.account.name)?;
    if let Some(scope) = scope {
        caller.may(scope)?;
    }
    Ok(caller)
}

/// What varies in a path: a job's or a model's id.
struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let read = Path::<String>::from_request_parts(parts, state).await;
        let read = read.map_err(|error| {
            Refusal::of(ProblemKind::BadRequest, format!("The path: {}", error.body_text()))
        });
        Ok(Id(read?.0))
    }
}

/// The query as a type: a parameter that is not known is refused.
fn query<T: serde::de::DeserializeOwned>(request: &axum::http::Uri) -> Result<T, Refusal> {
    let read = axum::extract::Query::<T>::try_from_uri(request);
    let read = read.map_err(|error| {
        let text = error.body_text();
        let reason = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        Refusal::of(ProblemKind::BadRequest, format!("The query: {reason}"))
    })?;
    Ok(read.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_loopback() {
        let is = |host: &'static str| is_loopback(&HeaderValue::from_static(host));
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8460", "127.1.2.3", "[::1]", "[::1]:8460"] {
            assert!(is(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:80",
            "127.0.0.1.evil.example",
            "10.0.0.1:80",
            "",
            "[::2]",
            "::",
        ] {
            assert!(!is(host), "{host}");
        }
    }
}
