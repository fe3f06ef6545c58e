//! What can go wrong with a query, and the answer to it.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use thiserror::Error;

use super::admission::WAIT_MAX;
use super::negotiation::TEXT;
use super::parameters::ParameterError;
use super::source::SourceError;
use super::trace_id::TraceIdError;
use super::upstream::Away;
use crate::otlp::wire::WireError;
use crate::traceql::control::Stopped;

/// "Client closed request", as nginx began it: nobody reads it but logs.
const CLIENT_LEFT: u16 = 499;

/// Of the text of a refused query, which quotes what it refuses, bytes.
const REFUSAL_BYTES_MAX: usize = 2048;

/// The beginning of a text that may be as long as a query.
fn excerpt(text: &str) -> String {
    let end = text.floor_char_boundary(REFUSAL_BYTES_MAX);
    let rest = if end < text.len() { "..." } else { "" };
    format!("{}{rest}", &text[..end])
}

/// Answered as one plain line, which Grafana shows as it is, as Tempo's errors are.
#[derive(Debug, Error)]
pub enum QueryError {
    #[error(transparent)]
    TraceId(#[from] TraceIdError),
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The text of the parser or of validation.
    #[error("invalid TraceQL query: {}", excerpt(.0))]
    TraceQl(String),
    /// `q` of a trace by id.
    #[error("invalid TraceQL filter: {}", excerpt(.0))]
    TraceFilter(String),
    /// What came over gRPC cannot be read.
    #[error("{0}")]
    Message(String),
    /// `q` of the tag endpoints asks for more than is done.
    #[error("{0}")]
    Filter(String),
    #[error("please provide a valid tagName: {0}")]
    TagName(String),
    #[error("not a metrics query: {{...}} needs a function such as | rate() behind it")]
    NoMetrics,
    #[error("a metrics query has no traces to show; ask /api/metrics/query_range")]
    NoSearch,
    /// As the answer of a path that nobody serves.
    #[error("404 page not found\n")]
    NoSuchPath,
    /// `/api/traces/{id}` says so with an empty body.
    #[error("trace not found")]
    NotFound,
    #[error("trace exceeds max size (max bytes: {bytes_max})")]
    TraceTooLarge { bytes_max: usize },
    #[error("response larger than the max ({bytes_max} bytes); ask for fewer traces, spans or series, or for gzip")]
    AnswerTooLarge { bytes_max: usize },
    #[error("job queue full")]
    QueueFull,
    #[error("the query waited {} s for its turn; too many others are running", WAIT_MAX.as_secs())]
    Waited,
    #[error("the answer waited {} s for others to be read by their clients", WAIT_MAX.as_secs())]
    AnswersWaiting,
    /// It ended before it was done.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Source(SourceError),
    /// Nothing is here, and who may have it does not answer.
    #[error(transparent)]
    Away(#[from] Away),
    #[error("stored spans are damaged: {0}")]
    Damaged(#[from] WireError),
    #[error("the query failed inside Spanreel; its log says more")]
    Crashed,
}

impl From<SourceError> for QueryError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Stopped(stopped) => Self::Stopped(stopped),
            error => Self::Source(error),
        }
    }
}

impl QueryError {
    /// Whether others held the memory that the query needed.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Stopped(Stopped::MemoryBusy(_)))
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::TraceId(_)
            | Self::Parameter(_)
            | Self::TraceQl(_)
            | Self::TraceFilter(_)
            | Self::Message(_)
            | Self::Filter(_)
            | Self::TagName(_)
            | Self::NoMetrics
            | Self::NoSearch => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::TraceTooLarge { .. } | Self::Stopped(Stopped::MemoryOver(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Away(_) => StatusCode::BAD_GATEWAY,
            Self::AnswerTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::QueueFull => StatusCode::TOO_MANY_REQUESTS,
            Self::Stopped(Stopped::Cancelled) => {
                StatusCode::from_u16(CLIENT_LEFT).unwrap_or(StatusCode::REQUEST_TIMEOUT)
            }
            Self::Waited | Self::Stopped(Stopped::TimeOver(_)) => StatusCode::GATEWAY_TIMEOUT,
            Self::Source(SourceError::Stopping) | Self::AnswersWaiting | Self::Stopped(Stopped::MemoryBusy(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Source(SourceError::Stopped(stopped)) => Self::Stopped(*stopped).status(),
            Self::Source(SourceError::Read(_)) | Self::Damaged(_) | Self::Crashed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Says in the log what somebody has to look into.
    pub(super) fn report(&self) {
        if self.status() == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, "a query failed");
        }
    }
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        let status = self.status();
        self.report();
        if matches!(self, Self::NotFound) {
            return status.into_response();
        }
        (status, [(CONTENT_TYPE, HeaderValue::from_static(TEXT))], self.to_string()).into_response()
    }
}
