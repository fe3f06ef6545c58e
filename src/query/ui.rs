//! What the web UI asks about the process beyond `/api/spanreel`: docs/ui-api.md describes the answers.

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};

use super::introspection::{Scope, no_diagnosis};
use super::router::QueryState;

pub(super) async fn health(State(state): State<QueryState>) -> Response {
    Json(state.introspection().health().await).into_response()
}

pub(super) async fn configuration(State(state): State<QueryState>) -> Response {
    Json(state.introspection().configuration()).into_response()
}

pub(super) async fn cluster(State(state): State<QueryState>, Query(scope): Query<Scope>) -> Response {
    match state.introspection().cluster(scope.given().namespace).await {
        Ok(report) => Json(report).into_response(),
        Err(no) => no_diagnosis(no),
    }
}
