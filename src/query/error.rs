//! What can go wrong with a query, and the answer to it.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use thiserror::Error;

use super::admission::{QUERY_DURATION_MAX, WAIT_MAX};
use super::negotiation::TEXT;
use super::source::SourceError;
use super::trace_id::TraceIdError;
use crate::otlp::wire::WireError;

/// Answered as one plain line, which Grafana shows as it is, as Tempo's errors are.
#[derive(Debug, Error)]
pub enum QueryError {
    #[error(transparent)]
    TraceId(#[from] TraceIdError),
    #[error("http parameter start must be before end. received start={start} end={end}")]
    EmptyRange { start: i64, end: i64 },
    #[error("http parameter {name} must be a time in whole Unix seconds. received {name}={value}")]
    NotSeconds { name: &'static str, value: String },
    /// `/api/traces/{id}` says so with an empty body.
    #[error("trace not found")]
    NotFound,
    #[error("trace exceeds max size (max bytes: {bytes_max})")]
    TraceTooLarge { bytes_max: usize },
    #[error("job queue full")]
    QueueFull,
    #[error("the query waited {} s for its turn; too many others are running", WAIT_MAX.as_secs())]
    Waited,
    #[error("the query took longer than {} s", QUERY_DURATION_MAX.as_secs())]
    TookTooLong,
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("stored spans are damaged: {0}")]
    Damaged(#[from] WireError),
    #[error("the query failed inside Spanreel; its log says more")]
    Crashed,
}

impl QueryError {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TraceId(_) | Self::EmptyRange { .. } | Self::NotSeconds { .. } => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TraceTooLarge { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::QueueFull => StatusCode::TOO_MANY_REQUESTS,
            Self::Waited | Self::TookTooLong => StatusCode::GATEWAY_TIMEOUT,
            Self::Source(SourceError::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Source(SourceError::Read(_)) | Self::Damaged(_) | Self::Crashed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "a query failed");
        }
        if matches!(self, Self::NotFound) {
            return status.into_response();
        }
        (status, [(CONTENT_TYPE, HeaderValue::from_static(TEXT))], self.to_string()).into_response()
    }
}
