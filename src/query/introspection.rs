//! What the process says about itself on the query port: health, readiness, build, metrics, status, diagnosis.

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use super::negotiation::{Coding, JSON, TEXT, stream};
use super::router::QueryState;
use crate::telemetry::Pages;

/// What the registry and the series beside it are written in.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Grafana up to 12 decides by this version what to ask for; all of it is answered.
pub(super) const TEMPO_VERSION: &str = "2.9.0";

/// Knowledge about the running process. The appliance implements it. Called on the async threads: it must not block.
pub trait Introspection: Send + Sync + 'static {
    /// The OpenMetrics text of `/metrics`, piece by piece.
    fn metrics(&self) -> Pages;

    fn readiness(&self) -> Readiness;

    /// What `spanreel status` prints.
    fn status(&self) -> serde_json::Value;

    /// What `spanreel doctor` prints. Who knows of no cluster has nothing to examine.
    fn diagnosis(&self, _scope: Scope) -> BoxFuture<'_, Result<serde_json::Value, NoDiagnosis>> {
        Box::pin(std::future::ready(Err(NoDiagnosis::no_cluster())))
    }

    /// The status, and what else says how the process is: accounts, certificates, the latest warnings.
    fn health(&self) -> BoxFuture<'_, serde_json::Value> {
        Box::pin(std::future::ready(self.status()))
    }

    /// The configuration in force, with its defaults and where each value was written.
    fn configuration(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Workloads, custom resources and what catch-up would do, of a namespace or of all.
    fn cluster(&self, _namespace: Option<String>) -> BoxFuture<'_, Result<serde_json::Value, NoDiagnosis>> {
        Box::pin(std::future::ready(Err(NoDiagnosis::no_cluster())))
    }
}

/// What is to be examined: everything, a namespace, or what has a name in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Scope {
    pub namespace: Option<String>,
    pub name: Option<String>,
}

impl Scope {
    /// An empty parameter is none, as Tempo has it.
    pub(super) fn given(self) -> Self {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self { namespace: given(self.namespace), name: given(self.name) }
    }
}

/// Why there is no diagnosis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoDiagnosis {
    pub kind: NoDiagnosisKind,
    /// For people, with the remedy.
    pub message: String,
}

/// What kind of why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDiagnosisKind {
    /// This process serves no cluster.
    NoCluster,
    /// There is no such namespace, pod or workload.
    Unknown,
    /// Nobody can tell at the moment.
    Unavailable,
}

impl NoDiagnosis {
    #[must_use]
    pub fn no_cluster() -> Self {
        let message = "this spanreel serves no cluster, so there are no pods to examine; ask the one in the cluster, for \
                       example after kubectl -n spanreel port-forward service/spanreel 3200";
        Self { kind: NoDiagnosisKind::NoCluster, message: message.to_owned() }
    }
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
    stream(OPENMETRICS, state.introspection().metrics(), Coding::of(&headers))
}

pub(super) async fn status(State(state): State<QueryState>) -> Response {
    Json(state.introspection().status()).into_response()
}

pub(super) async fn doctor(State(state): State<QueryState>, Query(scope): Query<Scope>) -> Response {
    match state.introspection().diagnosis(scope.given()).await {
        Ok(report) => Json(report).into_response(),
        Err(no) => no_diagnosis(no),
    }
}

pub(super) fn no_diagnosis(NoDiagnosis { kind, message }: NoDiagnosis) -> Response {
    let (status, code) = match kind {
        NoDiagnosisKind::NoCluster => (StatusCode::NOT_FOUND, "no_cluster"),
        NoDiagnosisKind::Unknown => (StatusCode::NOT_FOUND, "unknown"),
        NoDiagnosisKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    (status, Json(serde_json::json!({"error": {"code": code, "message": message}}))).into_response()
}

pub(super) async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}
