//! OTLP/HTTP: POST of protobuf or JSON, answered in the same encoding.

use super::admission::NoRoom;
use super::answer::{Accepted, AnswerBody, BodyEncoding, Code, Refusal, plain, status_answer};
use super::body::{HeldBody, decompress, overloaded, read, work};
use super::inflate::{Encoding, SUPPORTED};
use super::other_signals::Signal;
use super::{Receiver, items, traces};
use crate::otlp;
use crate::otlp::items::request_of;
use crate::otlp::json::{JsonLimits, message_from_json};
use crate::process::Client;
use ::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

pub async fn serve(
    receiver: &Receiver,
    client: &Client,
    request: Request<Incoming>,
) -> (Response<AnswerBody>, &'static str) {
    let path = request.uri().path();
    let paths = &receiver.limits.paths;
    let signal = match path {
        _ if path == paths.traces => None,
        _ if path == paths.metrics => Some(Signal::Metrics),
        _ if path == paths.logs => Some(Signal::Logs),
        _ => return (not_found(request.headers()), "unknown_path"),
    };
    if let Some(signal) = signal
        && receiver.items.of(signal).is_none()
        && receiver.other_signals.admit_http(signal).is_err()
    {
        return (not_found(request.headers()), "unimplemented");
    }
    if request.method() != Method::POST {
        let text = "405 method not allowed, supported: [POST]";
        let mut answer = refused(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, text, request.headers());
        answer.headers_mut().insert(header::ALLOW, ::http::HeaderValue::from_static("POST"));
        return (answer, "method");
    }
    let Some(encoding) = body_encoding(request.headers()) else {
        let text = "415 unsupported media type, supported: [application/json, application/x-protobuf]";
        return (plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, text), "content_type");
    };
    match export(receiver, client, signal, encoding, request).await {
        Ok(accepted) => (accepted.to_http(encoding), "ok"),
        Err(refusal) => (refusal.to_http(encoding), refusal.outcome()),
    }
}

fn not_found(headers: &HeaderMap) -> Response<AnswerBody> {
    refused(StatusCode::NOT_FOUND, Code::Unimplemented, "404 page not found", headers)
}

/// A Status in the request's encoding, as the specification asks for; plain text where that is not known.
fn refused(status: StatusCode, code: Code, text: &str, headers: &HeaderMap) -> Response<AnswerBody> {
    match body_encoding(headers) {
        Some(encoding) => status_answer(status, code, text, encoding),
        None => plain(status, text),
    }
}

/// The label `protocol` of a request.
pub fn protocol(headers: &HeaderMap) -> &'static str {
    match body_encoding(headers) {
        Some(BodyEncoding::Protobuf) => "http/protobuf",
        Some(BodyEncoding::Json) => "http/json",
        None => "http/other",
    }
}

async fn export(
    receiver: &Receiver,
    client: &Client,
    signal: Option<Signal>,
    body_encoding: BodyEncoding,
    request: Request<Incoming>,
) -> Result<Accepted, Refusal> {
    let (head, body) = request.into_parts();
    match signal {
        None => receiver.sink.admit()?,
        Some(signal) => receiver.items.of(signal).map_or(Ok(()), |sink| sink.admit())?,
    }
    let content_encoding = content_encoding(&head.headers, receiver.limits.http_encodings.as_deref())?;
    let max = receiver.limits.http_body_bytes_max;
    let mut held = decompress(content_encoding, read(receiver, body, &head.headers, max).await?, max)?;
    let is_wanted = signal.is_none_or(|signal| receiver.items.of(signal).is_some());
    if is_wanted && body_encoding == BodyEncoding::Json {
        let message = request_of(signal.map_or(otlp::Signal::Traces, otlp::Signal::from));
        let limits = JsonLimits::for_body(held.bytes.len());
        let in_all = held.bytes.len().saturating_add(limits.held_bytes_max);
        held.room.raise(in_all).await.map_err(|NoRoom| overloaded())?;
        let (read, room) = work(held, move |body| message_from_json(message, body, &limits)).await;
        let bytes = read.map_err(|error| Refusal::BadData(format!("not an {} in JSON: {error}", message.name)))?.into();
        held = HeldBody { bytes, room };
    }
    let Some(signal) = signal else { return traces::accept(receiver, client, held.bytes.clone()).await };
    receiver.saw_other_signal(client.peer, signal);
    if let Some(accepted) = items::accept(receiver, client, signal, &held.bytes).await? {
        return Ok(accepted);
    }
    match body_encoding {
        BodyEncoding::Protobuf => receiver.other_signals.discard_protobuf(signal, &held.bytes),
        BodyEncoding::Json => receiver.other_signals.discard_json(signal, &held.bytes),
    }
    Ok(Accepted::default())
}

/// `None`: a media type that OTLP does not know. Parameters such as charset are ignored.
pub(super) fn body_encoding(headers: &HeaderMap) -> Option<BodyEncoding> {
    match media_type(headers)?.as_str() {
        "application/x-protobuf" => Some(BodyEncoding::Protobuf),
        "application/json" => Some(BodyEncoding::Json),
        _ => None,
    }
}

/// The media type of the body, in lower case and without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

/// How the body is encoded; `taken` is [`super::listener::Limits::http_encodings`].
pub(super) fn content_encoding(headers: &HeaderMap, taken: Option<&[String]>) -> Result<Encoding, Refusal> {
    let name = headers.get(header::CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap_or("(not text)"));
    let encoding = Encoding::from_name(name);
    let plain_name = if encoding == Some(Encoding::Identity) { "" } else { name.trim() };
    let is_taken = |taken: &[String]| taken.iter().any(|known| known.eq_ignore_ascii_case(plain_name));
    encoding.filter(|_| taken.is_none_or(is_taken)).ok_or_else(|| {
        let supported = taken.map_or_else(|| SUPPORTED.to_owned(), |taken| format!("{taken:?}"));
        Refusal::UnsupportedEncoding(format!("unsupported Content-Encoding {name:?}, supported: {supported}"))
    })
}
