//! Pages for people: each one file with everything in it, the same for everybody. What they show they ask for with the
//! reader's own key.

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use data_encoding::BASE64;
use pellucid_client::api;
use sha2::{Digest, Sha256};

use super::Shared;
use super::openapi::document;

static STATUS: LazyLock<Page> = LazyLock::new(|| Page::new(STATUS_TEMPLATE));
/// The same where keys are needed: it asks for one before it asks for anything else.
static STATUS_KEYED: LazyLock<Page> =
    LazyLock::new(|| Page::new(&STATUS_TEMPLATE.replacen("data-keys=\"none\"", "data-keys=\"needed\"", 1)));
static DOCS: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("pages/docs.html")));
/// Made once: whoever asks for it needs no key.
static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| serde_json::to_vec(&document()).unwrap_or_default().into());
/// The same that `docs/program.schema.json` is made from.
static PROGRAM_SCHEMA: LazyLock<Bytes> =
    LazyLock::new(|| pellucid_graph::wire::pretty(&pellucid_graph::wire::schema()).into());
const STATUS_TEMPLATE: &str = include_str!("pages/status.html");
/// What both pages share.
const STYLE: &str = include_str!("pages/style.css");

struct Page {
    html: String,
    /// Only its own script and style run, and it talks to its own service alone.
    policy: HeaderValue,
}

impl Page {
    fn new(template: &str) -> Page {
        let html = template.replace("/* style */", STYLE);
        let part = |from: &str, to: &str| {
            let inside = html.split_once(from).and_then(|(_, rest)| rest.split_once(to));
            let text = inside.map_or("", |(text, _)| text);
            format!("'sha256-{}'", BASE64.encode(&Sha256::digest(text)))
        };
        let policy = format!(
            "default-src 'none'; connect-src 'self'; img-src data:; script-src {}; style-src {}; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            part("<script>", "</script>"),
            part("<style>", "</style>")
        );
        // A digest is ASCII.
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Page { html, policy }
    }

    fn answer(&self) -> Response {
        let mut response = Html(self.html.clone()).into_response();
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        response
    }
}

pub(super) async fn status(State(shared): State<Shared>) -> Response {
    if shared.service.core.config.server.open { STATUS.answer() } else { STATUS_KEYED.answer() }
}

pub(super) async fn docs() -> Response {
    DOCS.answer()
}

pub(super) async fn openapi() -> Response {
    let mut response = Body::from(DOCUMENT.clone()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(api::JSON));
    response
}

pub(super) async fn program_schema() -> Response {
    let mut response = Body::from(PROGRAM_SCHEMA.clone()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(api::JSON));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_everything_in_them() {
        assert!(
            STATUS_KEYED.html.contains("data-keys=\"needed\"") && STATUS.html.contains("data-keys=\"none\"")
        );
        for page in [&*STATUS, &*STATUS_KEYED, &*DOCS] {
            assert_eq!(page.html.matches("<script>").count(), 1);
            assert_eq!(page.html.matches("<style>").count(), 1);
            for elsewhere in ["http://", "https://", "src=", "@import", "url(", "onclick", "style="] {
                assert!(!page.html.contains(elsewhere), "{elsewhere}");
            }
        }
    }
}
