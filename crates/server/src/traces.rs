//! Traces, by OpenTelemetry: what a request and its job go through, from the connection to the written result.
//!
//! Off unless `trace.endpoint` names a collector. A trace has ids, names of models, states and figures: no prompt, no value, no key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::config::Trace;

/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where spans go, as long as it lives.
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// To the collector of the configuration; none: none is named.
    ///
    /// # Errors
    /// Where the address is none.
    pub fn begin(trace: &Trace) -> Result<Option<Exporter>, String> {
        let Some(endpoint) = &trace.endpoint else { return Ok(None) };
        let agent =
            ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Client(agent.into()))
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()
            .map_err(|error| format!("trace.endpoint: {error}"))?;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(trace.sample)));
        let resource = Resource::builder()
            .with_service_name("pellucid")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        Ok(Some(Exporter { provider }))
    }

    /// What makes its spans.
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("pellucid")
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // What could not be delivered by now is lost: nobody is there to be told.
        let _ = self.provider.shutdown();
    }
}

/// Spans go out over the client that models are downloaded with; they are sent from a thread of their own.
#[derive(Debug)]
struct Client(ureq::Agent);

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, body.to_vec());
        let mut answer = self.0.run(request)?;
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            response = response.header(name, value);
        }
        let body = answer.body_mut().read_to_vec()?;
        Ok(response.body(Bytes::from(body))?)
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// Makes a request's span part of its caller's trace, where the header `traceparent` names one.
pub fn continue_from(headers: &HeaderMap, span: &Span) {
    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry::trace::TraceContextExt;
    if !headers.contains_key("traceparent") {
        return;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
    if context.span().span_context().is_valid() {
        // Where nothing is exported there is nothing to set it on.
        let _ = span.set_parent(context);
    }
}

/// The spans of jobs that have not ended: one for the whole, one for what it goes through now.
#[derive(Default)]
pub struct JobSpans {
    jobs: Mutex<HashMap<String, (Span, Span)>>,
}

impl JobSpans {
    fn with<R>(&self, work: impl FnOnce(&mut HashMap<String, (Span, Span)>) -> R) -> R {
        work(&mut self.jobs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A job waits, under the span that is entered now.
    pub fn waits(&self, id: &str, model: &str) {
        self.with(|jobs| {
            let whole = match jobs.remove(id) {
                Some((whole, _)) => whole,
                None => tracing::info_span!("job", job = id, model, state = tracing::field::Empty),
            };
            let stage = tracing::info_span!(parent: &whole, "wait for the engine");
            jobs.insert(id.to_owned(), (whole, stage));
        });
    }

    /// It runs.
    pub fn runs(&self, id: &str, attempt: u32) {
        self.with(|jobs| {
            if let Some((whole, stage)) = jobs.get_mut(id) {
                *stage = tracing::info_span!(parent: &*whole, "run", attempt, passes = tracing::field::Empty,
                    tokens = tracing::field::Empty, engine_milliseconds = tracing::field::Empty);
            }
        });
    }

    /// It has left the engine, and its end is written down.
    pub fn is_recorded(&self, id: &str, passes: u64, tokens: u64, milliseconds: f64) {
        self.with(|jobs| {
            if let Some((whole, stage)) = jobs.get_mut(id) {
                stage
                    .record("passes", passes)
                    .record("tokens", tokens)
                    .record("engine_milliseconds", milliseconds);
                *stage = tracing::info_span!(parent: &*whole, "record the end");
            }
        });
    }

    /// It has ended.
    pub fn ended(&self, id: &str, state: &str) {
        if let Some((whole, stage)) = self.with(|jobs| jobs.remove(id)) {
            drop(stage);
            whole.record("state", state);
        }
    }
}
