//! `/status` and its parts: for people, in plain text, as Tempo has them.

use std::fmt::Write as _;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use super::call::QUERY_BYTES_MAX;
use super::introspection::{Readiness, TEMPO_VERSION};
use super::negotiation::TEXT;
use super::parameters::{Parameters, quoted};
use super::router::{PATHS, QueryState};

/// In the order in which `/status` shows them.
const PARTS: [&str; 5] = ["version", "services", "endpoints", "runtime_config", "config"];

pub(super) async fn all(State(state): State<QueryState>, Query(parameters): Query<Vec<(String, String)>>) -> Response {
    page(&state, &PARTS, &Parameters::new(parameters))
}

pub(super) async fn one(
    State(state): State<QueryState>,
    Path(part): Path<String>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Response {
    match PARTS.into_iter().find(|known| *known == part) {
        Some(part) => page(&state, &[part], &Parameters::new(parameters)),
        None => match part.as_str() {
            "overrides" => text(StatusCode::OK, overrides(&state)),
            // Nothing is reported to anybody.
            "usage-stats" => text(StatusCode::OK, "usage stats are not enabled\n".to_owned()),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        },
    }
}

/// There is one tenant, whatever it is called.
pub(super) async fn overrides_of(State(state): State<QueryState>, Path(_tenant): Path<String>) -> Response {
    text(StatusCode::OK, overrides(&state))
}

/// What is acknowledged is on disk already.
pub(super) async fn flush() -> StatusCode {
    StatusCode::NO_CONTENT
}

fn page(state: &QueryState, parts: &[&str], parameters: &Parameters) -> Response {
    let mut page = String::new();
    for part in parts {
        let _ = writeln!(page, "GET /status/{part}");
        let written = match *part {
            "version" => version(),
            "services" => services(state),
            "endpoints" => PATHS.join("\n"),
            // There is none to change at run time.
            "runtime_config" => "---\n{}".to_owned(),
            _ => match parameters.get("mode") {
                None | Some("defaults" | "diff") => config(state),
                Some(mode) => {
                    let problem = format!("unknown value for mode query parameter: {}", quoted(mode));
                    return text(StatusCode::INTERNAL_SERVER_ERROR, problem);
                }
            },
        };
        page.push_str(&written);
        page.push_str("\n\n");
    }
    text(StatusCode::OK, page)
}

fn version() -> String {
    format!("spanreel, version {} (speaks as tempo, version {TEMPO_VERSION})", env!("CARGO_PKG_VERSION"))
}

fn services(state: &QueryState) -> String {
    match state.introspection().readiness() {
        Readiness::Ready => "spanreel: Running".to_owned(),
        Readiness::NotReady(why) => format!("spanreel: {why}"),
    }
}

/// Only what queries are limited by; `spanreel print-config` shows the rest.
fn config(state: &QueryState) -> String {
    format!(
        "---\nquery_frontend:\n  max_query_expression_size_bytes: {QUERY_BYTES_MAX}\n  query_end_cutoff: 0s\n{}",
        overrides(state)
    )
}

fn overrides(state: &QueryState) -> String {
    let bytes_max = state.limits().trace_bytes_max;
    format!("overrides:\n  defaults:\n    global:\n      max_bytes_per_trace: {bytes_max}")
}

fn text(status: StatusCode, body: String) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static(TEXT))], body).into_response()
}
