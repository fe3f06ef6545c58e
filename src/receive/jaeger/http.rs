//! Jaeger's Thrift over HTTP: POST of a batch in the binary encoding to `/api/traces`.

use super::{Format, to_request};
use crate::process::Client;
use crate::receive::answer::{AnswerBody, Refusal, accepted, only_post, plain};
use crate::receive::body::{decompress, read};
use crate::receive::http::{content_encoding, media_type};
use crate::receive::{Receiver, foreign};
use ::http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

/// The label `protocol` of a request, as in a Collector.
pub const PROTOCOL: &str = "collector_http";
const PATH: &str = "/api/traces";
const MEDIA_TYPES: [&str; 2] = ["application/x-thrift", "application/vnd.apache.thrift.binary"];

pub async fn serve(
    receiver: &Receiver,
    client: &Client,
    request: Request<Incoming>,
) -> (Response<AnswerBody>, &'static str) {
    if request.uri().path().trim_end_matches('/') != PATH {
        return (plain(StatusCode::NOT_FOUND, "404 page not found; Jaeger batches go to /api/traces"), "unknown_path");
    }
    if request.method() != Method::POST {
        return (only_post(), "method");
    }
    if !media_type(request.headers()).is_some_and(|media_type| MEDIA_TYPES.contains(&media_type.as_str())) {
        let text = format!("Unsupported content type; supported: {}", MEDIA_TYPES.join(", "));
        return (plain(StatusCode::BAD_REQUEST, &text), "content_type");
    }
    match post(receiver, client, request).await {
        Ok(()) => (accepted(), "ok"),
        Err(refusal) => (refusal.to_plain(), refusal.outcome()),
    }
}

async fn post(receiver: &Receiver, client: &Client, request: Request<Incoming>) -> Result<(), Refusal> {
    let (head, body) = request.into_parts();
    receiver.sink.admit()?;
    let encoding = content_encoding(&head.headers, receiver.limits.http_encodings.as_deref())?;
    let max = receiver.limits.http_body_bytes_max;
    let held = decompress(encoding, read(receiver, body, &head.headers, max).await?, max)?;
    foreign::accept(receiver, client, held, |body, max| to_request(Format::Thrift, body, max)).await?;
    Ok(())
}
