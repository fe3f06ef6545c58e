//! How an RPC ended, in gRPC's codes and headers.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::otlp::percent::grpc_message;
use crate::query::error::QueryError;

/// The codes that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    code: Code,
    message: String,
}

impl Status {
    pub fn new(code: Code, message: String) -> Self {
        Self { code, message }
    }

    pub fn ok() -> Self {
        Self::new(Code::Ok, String::new())
    }

    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert("grpc-status", HeaderValue::from(self.code as u16));
        if !self.message.is_empty()
            && let Ok(message) = HeaderValue::from_str(&grpc_message(&self.message))
        {
            headers.insert("grpc-message", message);
        }
        headers
    }
}

/// As Tempo maps HTTP's codes.
impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        error.report();
        let status = error.status();
        let code = match status {
            StatusCode::BAD_REQUEST => Code::InvalidArgument,
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
            _ if status.as_u16() == 499 => Code::Canceled,
            _ if status.is_server_error() => Code::Internal,
            _ => Code::Unknown,
        };
        Self::new(code, error.to_string())
    }
}

/// Without a message: the status stands among the headers.
impl IntoResponse for Status {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = self.headers();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        if self.code == Code::Unimplemented {
            response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parameters::ParameterError;
    use crate::traceql::control::Stopped;

    #[test]
    fn https_codes_become_grpcs_as_tempo_maps_them() {
        for (error, code) in [
            (QueryError::Parameter(ParameterError::LimitZero), Code::InvalidArgument),
            (QueryError::NotFound, Code::NotFound),
            (QueryError::QueueFull, Code::ResourceExhausted),
            (QueryError::Stopped(Stopped::Cancelled), Code::Canceled),
            (QueryError::Stopped(Stopped::MemoryOver(1)), Code::Unknown),
            (QueryError::Stopped(Stopped::TimeOver(std::time::Duration::ZERO)), Code::Internal),
            (QueryError::Crashed, Code::Internal),
        ] {
            let text = error.to_string();
            assert_eq!(Status::from(error), Status::new(code, text));
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        let headers = Status::new(Code::InvalidArgument, "100 % \n ü".to_owned()).headers();
        assert_eq!(headers["grpc-status"], "3");
        assert_eq!(headers["grpc-message"], "100 %25 %0A %C3%BC");
        assert_eq!(Status::ok().headers().len(), 1);
    }
}
