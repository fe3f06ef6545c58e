//! The `health_check` extension: the Collector's probe, in its own words.

pub mod settings;

use super::introspection::ReadinessFlag;
use crate::query::Readiness;
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{StatusCode, header};
use jiff::Timestamp;
use settings::HealthCheckSettings;
use std::time::Instant;

pub(super) fn router(settings: HealthCheckSettings, readiness: ReadinessFlag) -> Router {
    let (up_since, started) = (Timestamp::now(), Instant::now());
    let path = settings.path.clone();
    let answer = move || {
        let response = probe(&settings, &readiness, up_since, started);
        async move { response }
    };
    Router::new().route(&path, any(answer))
}

fn probe(settings: &HealthCheckSettings, readiness: &ReadinessFlag, up_since: Timestamp, started: Instant) -> Response {
    let (status, configured, body) = match readiness.get() {
        Readiness::Ready => (
            StatusCode::OK,
            &settings.healthy_body,
            serde_json::json!({
                "status": "Server available",
                "upSince": up_since.to_string(),
                "uptime": format!("{:?}", started.elapsed()),
            }),
        ),
        Readiness::NotReady(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            &settings.unhealthy_body,
            serde_json::json!({ "status": "Server not available", "upSince": "0001-01-01T00:00:00Z", "uptime": "" }),
        ),
    };
    match configured {
        Some(text) => (status, text.clone()).into_response(),
        None => (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response(),
    }
}
