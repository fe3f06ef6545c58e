//! What a destination's answer means for the spans of a request: pure functions, one table per protocol.
//!
//! The tables implement the OTLP specification's client duties and what Tempo and the Collector really say, which
//! differs where RESOURCE_EXHAUSTED and OUT_OF_RANGE are concerned: only the text tells a full token bucket from a
//! message that will never fit. When in doubt the answer is one that keeps the spans: waiting costs disk, a wrong
//! verdict costs data.

use crate::otlp::wire::{Fields, Payload};
use std::time::{Duration, SystemTime};

/// The longest wait that a destination can ask for. A mistaken `Retry-After` of days must not stop forwarding for days.
pub const RETRY_HINT_MAX: Duration = Duration::from_secs(600);

/// How much of a destination's words is kept, in bytes: for a log line, `status`, and a parked request.
pub const TEXT_BYTES_MAX: usize = 512;

/// What to do with the spans of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Taken, except `rejected_spans` of them (`partial_success`), which must not be sent again.
    Delivered { rejected_spans: u64, message: String },
    /// Not now: the same request again, not before the hint.
    Retry { after: Option<Duration>, why: String },
    /// Too much in too short a time: as [`Answer::Retry`], and less of it.
    Limited { after: Option<Duration>, why: String },
    /// Will never fit as it is: split.
    TooLarge { why: String },
    /// Something in the content is refused: bisect, and park the culprit.
    Refused { why: String },
    /// The body's compression is not understood; the content was not looked at.
    CompressionRefused { why: String },
    /// Someone has to change a configuration: hold, be loud, try again slowly.
    Misconfigured { why: String },
    /// The destination failed over this request: a few tries, then as [`Answer::Refused`].
    Internal { why: String },
}

/// gRPC status codes by their numbers on the wire.
pub mod code {
    pub const OK: u32 = 0;
    pub const CANCELLED: u32 = 1;
    pub const UNKNOWN: u32 = 2;
    pub const INVALID_ARGUMENT: u32 = 3;
    pub const DEADLINE_EXCEEDED: u32 = 4;
    pub const PERMISSION_DENIED: u32 = 7;
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    pub const ABORTED: u32 = 10;
    pub const OUT_OF_RANGE: u32 = 11;
    pub const UNIMPLEMENTED: u32 = 12;
    pub const INTERNAL: u32 = 13;
    pub const UNAVAILABLE: u32 = 14;
    pub const DATA_LOSS: u32 = 15;
    pub const UNAUTHENTICATED: u32 = 16;
}

/// The name of a gRPC status code; what is not one is `UNKNOWN`, as the gRPC specification demands.
pub fn code_name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(code as usize).copied().unwrap_or("UNKNOWN")
}

/// The end of a gRPC call.
#[derive(Debug, Clone, Copy)]
pub struct GrpcAnswer<'a> {
    pub code: u32,
    /// `grpc-message`, percent-decoded.
    pub message: &'a str,
    /// `grpc-status-details-bin`, base64-decoded: a `google.rpc.Status`, or nothing.
    pub details: &'a [u8],
    /// The response message; empty if there was none.
    pub response: &'a [u8],
}

/// The end of an HTTP exchange.
#[derive(Debug, Clone, Copy)]
pub struct HttpAnswer<'a> {
    pub status: u16,
    pub content_type: &'a str,
    pub retry_after: Option<&'a str>,
    /// Where a redirect points.
    pub location: Option<&'a str>,
    pub body: &'a [u8],
}

/// What the end of a gRPC call means.
pub fn classify_grpc(answer: GrpcAnswer<'_>) -> Answer {
    if answer.code == code::OK {
        return delivered(partial_success(answer.response));
    }
    let why = bounded(&format!("{}: {}", code_name(answer.code), answer.message));
    let text = answer.message.to_ascii_lowercase();
    let may_be_about_compression = matches!(answer.code, code::UNIMPLEMENTED | code::INTERNAL | code::INVALID_ARGUMENT);
    if may_be_about_compression && names_grpc_compression(&text) {
        return Answer::CompressionRefused { why };
    }
    match answer.code {
        code::RESOURCE_EXHAUSTED | code::OUT_OF_RANGE if says_too_large(&text) => Answer::TooLarge { why },
        code::RESOURCE_EXHAUSTED => Answer::Limited { after: retry_delay(answer.details), why },
        code::CANCELLED
        | code::DEADLINE_EXCEEDED
        | code::ABORTED
        | code::OUT_OF_RANGE
        | code::UNAVAILABLE
        | code::DATA_LOSS => Answer::Retry { after: retry_delay(answer.details), why },
        code::INVALID_ARGUMENT => Answer::Refused { why },
        code::UNAUTHENTICATED | code::PERMISSION_DENIED | code::UNIMPLEMENTED => Answer::Misconfigured { why },
        _ => Answer::Internal { why },
    }
}

/// What an HTTP response means. `now` turns a `Retry-After` date into a duration.
pub fn classify_http(answer: HttpAnswer<'_>, now: SystemTime) -> Answer {
    let is_json = answer.content_type.starts_with("application/json");
    let is_protobuf = answer.content_type.starts_with("application/x-protobuf");
    if (200..300).contains(&answer.status) {
        // What a proxy's login page answers, or a web UI: they take everything and keep nothing.
        if answer.content_type.starts_with("text/html") && !answer.body.is_empty() {
            let why = format!("HTTP {} with a web page: is this the OTLP/HTTP endpoint?", answer.status);
            return Answer::Misconfigured { why };
        }
        return delivered(if is_json { partial_success_json(answer.body) } else { partial_success(answer.body) });
    }
    let (message, body_delay) = if is_json {
        status_json(answer.body)
    } else if is_protobuf {
        (status_message(answer.body), retry_delay(answer.body))
    } else {
        (String::from_utf8_lossy(answer.body).trim().to_owned(), None)
    };
    let why = bounded(&match answer.location {
        Some(location) if (300..400).contains(&answer.status) => {
            format!("HTTP {}: redirected to {location}; configure that address", answer.status)
        }
        _ => format!("HTTP {}: {message}", answer.status),
    });
    let text = message.to_ascii_lowercase();
    let after = answer.retry_after.and_then(|value| retry_after(value, now)).or(body_delay);
    match answer.status {
        400 | 415 if names_content_encoding(&text) => Answer::CompressionRefused { why },
        400 | 429 if says_too_large(&text) => Answer::TooLarge { why },
        413 => Answer::TooLarge { why },
        // A 415 without a word about the media type is what proxies say to an encoding they do not know.
        415 if !text.contains("media type") && !text.contains("content-type") && !text.contains("content type") => {
            Answer::CompressionRefused { why }
        }
        400 | 422 => Answer::Refused { why },
        429 => Answer::Limited { after, why },
        408 | 425 | 502 | 503 | 504 => Answer::Retry { after, why },
        501 | 505 => Answer::Misconfigured { why },
        500.. => Answer::Internal { why },
        // Redirects and every other 4xx: credentials, path, method. Nothing that the spans could be blamed for.
        _ => Answer::Misconfigured { why },
    }
}

/// The gRPC code that an HTTP status stands for when something that does not speak gRPC answered (gRPC specification).
pub fn code_of_http_status(status: u16) -> u32 {
    match status {
        400 => code::INTERNAL,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        429 | 502 | 503 | 504 => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    }
}

/// The first [`TEXT_BYTES_MAX`] bytes of a foreign text, on one line.
pub fn bounded(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    for character in text.trim().chars() {
        if out.len() + character.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        out.push(if character.is_control() { ' ' } else { character });
    }
    out
}

fn delivered((rejected_spans, message): (u64, String)) -> Answer {
    Answer::Delivered { rejected_spans, message: bounded(&message) }
}

/// Every text by which Tempo, the Collector, and gRPC of Go, Java, Rust (tonic, OUT_OF_RANGE) say that a request will
/// never fit. Lower case.
fn says_too_large(text: &str) -> bool {
    const WORDS: [&str; 5] = [
        "larger than max",
        "exceeds ingestion limit",
        "body too large",
        "message length too large",
        "message exceeds maximum size",
    ];
    WORDS.iter().any(|words| text.contains(words))
}

/// grpc-go, grpc-java, tonic and gRPC core, each in its own words.
fn names_grpc_compression(text: &str) -> bool {
    ["decompressor", "grpc-encoding", "compressed with", "compression algorithm", "unsupported compression"]
        .iter()
        .any(|words| text.contains(words))
}

fn names_content_encoding(text: &str) -> bool {
    ["content-encoding", "content encoding", "unsupported encoding", "unsupported compression", "decompress"]
        .iter()
        .any(|words| text.contains(words))
}

fn text_of(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

/// `ExportTraceServiceResponse.partial_success`: how many spans were rejected, and why. An unreadable response counts
/// as none: the status said that the spans were taken.
fn partial_success(response: &[u8]) -> (u64, String) {
    let mut found = (0, String::new());
    for partial in Fields::new(response).map_while(Result::ok).filter_map(|field| field.bytes(1)) {
        for field in Fields::new(partial).map_while(Result::ok) {
            match (field.number, field.payload) {
                // A negative int64 is nonsense and counts as none.
                (1, Payload::Varint(rejected)) => found.0 = u64::try_from(rejected as i64).unwrap_or(0),
                (2, Payload::Bytes(message)) => found.1 = text_of(message),
                _ => {}
            }
        }
    }
    found
}

fn partial_success_json(body: &[u8]) -> (u64, String) {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else { return (0, String::new()) };
    let partial = &body["partialSuccess"];
    let rejected = &partial["rejectedSpans"];
    let rejected = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0);
    (rejected, partial["errorMessage"].as_str().unwrap_or_default().to_owned())
}

/// `google.rpc.Status.message`.
fn status_message(status: &[u8]) -> String {
    Fields::new(status).map_while(Result::ok).filter_map(|field| field.bytes(2)).last().map(text_of).unwrap_or_default()
}

/// The `google.rpc.RetryInfo` among the details of a `google.rpc.Status`.
fn retry_delay(status: &[u8]) -> Option<Duration> {
    let fields_of = |message| Fields::new(message).map_while(Result::ok);
    let info = fields_of(status).filter_map(|field| field.bytes(3)).find_map(|any| {
        let is_retry_info = fields_of(any)
            .filter_map(|field| field.bytes(1))
            .any(|type_url| type_url.ends_with(b"/google.rpc.RetryInfo"));
        is_retry_info.then(|| fields_of(any).find_map(|field| field.bytes(2)).unwrap_or_default())
    })?;
    let delay = fields_of(info).find_map(|field| field.bytes(1)).unwrap_or_default();
    let (mut seconds, mut nanos) = (0, 0);
    for field in fields_of(delay) {
        match (field.number, field.payload) {
            (1, Payload::Varint(value)) => seconds = u64::try_from(value as i64).unwrap_or(0),
            (2, Payload::Varint(value)) => nanos = u32::try_from(value).unwrap_or(0).min(999_999_999),
            _ => {}
        }
    }
    Some(Duration::new(seconds, nanos).min(RETRY_HINT_MAX))
}

/// Message and retry delay of a `google.rpc.Status` in JSON.
fn status_json(body: &[u8]) -> (String, Option<Duration>) {
    let Ok(status) = serde_json::from_slice::<serde_json::Value>(body) else {
        return (String::from_utf8_lossy(body).into_owned(), None);
    };
    let delay = status["details"].as_array().into_iter().flatten().find_map(|detail| {
        let seconds = detail["retryDelay"].as_str()?.strip_suffix('s')?.parse::<f64>().ok()?;
        Some(Duration::try_from_secs_f64(seconds).ok()?.min(RETRY_HINT_MAX))
    });
    (status["message"].as_str().map_or_else(|| status.to_string(), str::to_owned), delay)
}

/// `Retry-After`: seconds, or an HTTP date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let delay = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = SystemTime::from(jiff::fmt::rfc2822::parse(value).ok()?.timestamp());
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(delay.min(RETRY_HINT_MAX))
}

#[cfg(test)]
mod tests;
