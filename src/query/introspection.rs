//! What the process says about itself on the query port: health, readiness, build, metrics, status.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::negotiation::{Coding, JSON, Payload, TEXT};
use super::router::QueryState;

/// What `prometheus-client` writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Grafana up to 12 decides by this version what to ask for; all of it is answered.
const TEMPO_VERSION: &str = "2.9.0";

/// Knowledge about the running process. The appliance implements it. Called on the async threads: it must not block.
pub trait Introspection: Send + Sync + 'static {
    /// The text of `/metrics` as `prometheus_client::encoding::text` writes it.
    fn metrics(&self) -> String;

    fn readiness(&self) -> Readiness;

    /// What `spanreel status` prints.
    fn status(&self) -> serde_json::Value;
}

/// The answer of `/ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// Why not, in one line, such as `Application is stopping`.
    NotReady(String),
}

fn text(status: StatusCode, body: impl Into<String>) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static(TEXT))], body.into()).into_response()
}

pub(super) async fn echo() -> Response {
    text(StatusCode::OK, "echo\n")
}

/// Alive: the listener answers. Whether it should get traffic is [`ready`]'s to say.
pub(super) async fn healthz() -> Response {
    text(StatusCode::OK, "ok\n")
}

pub(super) async fn ready(State(state): State<QueryState>) -> Response {
    match state.introspection().readiness() {
        Readiness::Ready => text(StatusCode::OK, "ready\n"),
        Readiness::NotReady(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

pub(super) async fn build_info() -> Response {
    let info = serde_json::json!({
        "version": TEMPO_VERSION,
        "revision": concat!("spanreel-", env!("CARGO_PKG_VERSION")),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    });
    ([(CONTENT_TYPE, HeaderValue::from_static(JSON))], format!("{info}\n")).into_response()
}

pub(super) async fn metrics(State(state): State<QueryState>, headers: HeaderMap) -> Response {
    let body = state.introspection().metrics().into_bytes();
    Payload::new(OPENMETRICS, body, Coding::of(&headers)).into_response()
}

pub(super) async fn status(State(state): State<QueryState>) -> Response {
    Json(state.introspection().status()).into_response()
}

pub(super) async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}
