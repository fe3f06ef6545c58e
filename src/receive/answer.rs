//! Answers: what a client is told, in the words of its own protocol.
//!
//! One [`Refusal`] becomes a gRPC status or an HTTP status with a `google.rpc.Status` body; what may be retried carries
//! RetryInfo and Retry-After, what may not carries neither (OTLP specification, "Failures" and "Throttling").

use crate::otlp::percent::grpc_message;
use crate::otlp::wire::{put_bytes, put_uint};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use thiserror::Error;

/// gRPC status codes that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Will never fit: 413, RESOURCE_EXHAUSTED without RetryInfo.
    #[error("{0}")]
    TooLarge(String),
    /// Will never be understood: 400, INVALID_ARGUMENT.
    #[error("{0}")]
    BadData(String),
    /// A content encoding that is not supported: 400, UNIMPLEMENTED.
    #[error("{0}")]
    UnsupportedEncoding(String),
    /// No such service or signal: 404, UNIMPLEMENTED.
    #[error("{0}")]
    Unimplemented(String),
    /// Not let in: 401, UNAUTHENTICATED; `challenge` says what is asked for.
    #[error("{message}")]
    Unauthenticated { message: String, challenge: &'static str },
    /// Come back: 503, UNAVAILABLE, with the time to wait.
    #[error("{message}")]
    Unavailable { message: String, retry_after: Duration },
}

/// A request that was taken, perhaps not every span of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    pub rejected_spans: u32,
    /// Empty when all was taken.
    pub message: String,
}

/// The encoding that request and answer share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEncoding {
    Protobuf,
    Json,
}

impl Refusal {
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge(_) => Code::ResourceExhausted,
            Self::BadData(_) => Code::InvalidArgument,
            Self::UnsupportedEncoding(_) | Self::Unimplemented(_) => Code::Unimplemented,
            Self::Unauthenticated { .. } => Code::Unauthenticated,
            Self::Unavailable { .. } => Code::Unavailable,
        }
    }

    fn http_status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BadData(_) | Self::UnsupportedEncoding(_) => StatusCode::BAD_REQUEST,
            Self::Unimplemented(_) => StatusCode::NOT_FOUND,
            Self::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// The label `outcome` of the receiver's metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::BadData(_) => "bad_data",
            Self::UnsupportedEncoding(_) => "unsupported_encoding",
            Self::Unimplemented(_) => "unimplemented",
            Self::Unauthenticated { .. } => "unauthenticated",
            Self::Unavailable { .. } => "unavailable",
        }
    }

    /// `google.rpc.Status` in protobuf.
    fn status_protobuf(&self) -> Vec<u8> {
        let mut out = status_protobuf(self.code(), &self.to_string());
        if let Some(delay) = self.retry_after() {
            let mut duration = Vec::new();
            put_uint(&mut duration, 1, delay.as_secs());
            put_uint(&mut duration, 2, u64::from(delay.subsec_nanos()));
            let mut retry_info = Vec::new();
            put_bytes(&mut retry_info, 1, &duration);
            let mut any = Vec::new();
            put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
            put_bytes(&mut any, 2, &retry_info);
            put_bytes(&mut out, 3, &any);
        }
        out
    }

    fn status_json(&self) -> Vec<u8> {
        let mut status = serde_json::json!({ "code": self.code() as i32, "message": self.to_string() });
        if let Some(delay) = self.retry_after() {
            status["details"] = serde_json::json!([{
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{}s", delay.as_secs_f64()),
            }]);
        }
        status.to_string().into_bytes()
    }

    pub fn to_http(&self, encoding: BodyEncoding) -> Response<AnswerBody> {
        let body = match encoding {
            BodyEncoding::Protobuf => self.status_protobuf(),
            BodyEncoding::Json => self.status_json(),
        };
        let mut response = http_answer(self.http_status(), encoding, body);
        self.advise(&mut response);
        response
    }

    /// In plain text, for formats that have no form of their own for it.
    pub fn to_plain(&self) -> Response<AnswerBody> {
        let mut response = plain(self.http_status(), &self.to_string());
        self.advise(&mut response);
        response
    }

    /// What the client should do, in headers.
    fn advise(&self, response: &mut Response<AnswerBody>) {
        if let Self::Unauthenticated { challenge, .. } = self {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(delay) = self.retry_after() {
            // Whole seconds, rounded up: never earlier than meant.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
    }

    /// A trailers-only gRPC response.
    pub fn to_grpc(&self) -> Response<AnswerBody> {
        let mut response = Response::new(AnswerBody::empty());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(self.code() as u16));
        if let Ok(message) = HeaderValue::from_str(&grpc_message(&self.to_string())) {
            headers.insert("grpc-message", message);
        }
        if self.retry_after().is_some()
            && let Ok(details) = HeaderValue::from_str(&base64_unpadded(&self.status_protobuf()))
        {
            headers.insert("grpc-status-details-bin", details);
        }
        if matches!(self, Self::UnsupportedEncoding(_)) {
            headers.insert("grpc-accept-encoding", HeaderValue::from_static(super::inflate::SUPPORTED));
        }
        response
    }
}

impl Accepted {
    /// `Export*ServiceResponse`: empty, or with partial_success. The field numbers are the same for every signal.
    fn protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.rejected_spans > 0 {
            let mut partial = Vec::new();
            put_uint(&mut partial, 1, u64::from(self.rejected_spans));
            put_bytes(&mut partial, 2, self.message.as_bytes());
            put_bytes(&mut out, 1, &partial);
        }
        out
    }

    pub fn to_http(&self, encoding: BodyEncoding) -> Response<AnswerBody> {
        let body = match encoding {
            BodyEncoding::Protobuf => self.protobuf(),
            BodyEncoding::Json if self.rejected_spans > 0 => serde_json::json!({
                "partialSuccess": { "rejectedSpans": self.rejected_spans.to_string(), "errorMessage": self.message }
            })
            .to_string()
            .into_bytes(),
            BodyEncoding::Json => b"{}".to_vec(),
        };
        http_answer(StatusCode::OK, encoding, body)
    }

    pub fn to_grpc(&self) -> Response<AnswerBody> {
        let message = self.protobuf();
        let mut frame = Vec::with_capacity(5 + message.len());
        frame.push(0);
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(&message);
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let mut response = Response::new(AnswerBody { data: Some(frame.into()), trailers: Some(trailers) });
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

fn http_answer(status: StatusCode, encoding: BodyEncoding, body: Vec<u8>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::from(body));
    *response.status_mut() = status;
    let content_type = match encoding {
        BodyEncoding::Protobuf => "application/x-protobuf",
        BodyEncoding::Json => "application/json",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer that only says no: a `google.rpc.Status` without details.
pub fn status_answer(status: StatusCode, code: Code, text: &str, encoding: BodyEncoding) -> Response<AnswerBody> {
    let body = match encoding {
        BodyEncoding::Protobuf => status_protobuf(code, text),
        BodyEncoding::Json => serde_json::json!({ "code": code as i32, "message": text }).to_string().into_bytes(),
    };
    http_answer(status, encoding, body)
}

fn status_protobuf(code: Code, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_uint(&mut out, 1, code as u64);
    put_bytes(&mut out, 2, text.as_bytes());
    out
}

/// A plain text answer, for requests whose encoding is not known.
pub fn plain(status: StatusCode, text: &str) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::from(text.as_bytes().to_vec()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// 202 without a body: taken.
pub fn accepted() -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// For requests that are no POST, where nothing else is served.
pub fn only_post() -> Response<AnswerBody> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed, supported: [POST]");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// At most one piece of data, then perhaps trailers.
#[derive(Debug)]
pub struct AnswerBody {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl AnswerBody {
    pub fn empty() -> Self {
        Self { data: None, trailers: None }
    }
}

impl From<Vec<u8>> for AnswerBody {
    fn from(body: Vec<u8>) -> Self {
        Self { data: (!body.is_empty()).then(|| body.into()), trailers: None }
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(http_body::Frame::data(data))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(http_body::Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

fn base64_unpadded(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_retried_says_when() {
        let later = Refusal::Unavailable { message: "später".to_owned(), retry_after: Duration::from_millis(1500) };
        let http = later.to_http(BodyEncoding::Json);
        assert_eq!((http.status().as_u16(), &http.headers()["retry-after"]), (503, &HeaderValue::from(2)));
        let grpc = later.to_grpc();
        assert_eq!(grpc.headers()["grpc-message"], "sp%C3%A4ter");
        assert!(grpc.headers().contains_key("grpc-status-details-bin"));
        for refusal in [Refusal::TooLarge(String::new()), Refusal::BadData(String::new())] {
            assert!(!refusal.to_http(BodyEncoding::Protobuf).headers().contains_key("retry-after"));
            assert!(!refusal.to_grpc().headers().contains_key("grpc-status-details-bin"));
        }
    }
}
