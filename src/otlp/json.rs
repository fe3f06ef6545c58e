//! OTLP requests as JSON, in and out, and traces in Tempo's JSON.
//!
//! ```text
//! OTLP/JSON text ─▶ json_to_protobuf ─▶ ExportTraceServiceRequest bytes ─▶ protobuf_to_otlp_json   (forwarding)
//!                                                                      └─▶ protobuf_to_tempo_json  (queries)
//! ```
//!
//! No tree of objects is built in either direction; memory is the input's size times a small constant. What a Collector
//! tolerates in JSON is tolerated here: snake_case keys, enum names, numbers as strings,
//! unknown keys, trailing garbage, `null` for a missing value. One departure, on purpose: a Collector refuses a whole
//! body for one bad id; here an id that is hex of the wrong length is passed on as it is, and one that is not hex becomes
//! a single zero byte, so that the scan refuses the one span and keeps the rest.

mod pull;
mod read;
#[cfg(test)]
mod tests;
mod write;

use thiserror::Error;

use super::schema;
use super::wire::WireError;

/// How deep `AnyValue`s may nest by default: what the scan will accept.
pub const ANY_VALUE_DEPTH_MAX: usize = super::scan::NESTING_MAX;

/// How deep messages may nest when they are written as JSON: an event's attribute of [`ANY_VALUE_DEPTH_MAX`] levels, each
/// at most three messages (AnyValue, KeyValueList, KeyValue), and a little room.
const MESSAGE_DEPTH_MAX: usize = 3 * ANY_VALUE_DEPTH_MAX + 20;

/// What [`JsonLimits::for_body`] lets a conversion hold besides twice the body.
const HELD_BYTES_MIN: usize = 64 * 1024;

/// What a JSON body may contain. Its size is limited by whoever read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    pub any_value_depth_max: usize,
    /// Bytes that a conversion may hold besides the body: what to reserve before it starts.
    pub held_bytes_max: usize,
}

impl JsonLimits {
    /// The limits for a body of this length. Twice the body is the protobuf, which is nearly always shorter than its
    /// JSON, and as much again for the string in hand and long messages' lengths.
    pub fn for_body(body_len: usize) -> Self {
        let held_bytes_max = body_len.saturating_mul(2).saturating_add(HELD_BYTES_MIN);
        Self { any_value_depth_max: ANY_VALUE_DEPTH_MAX, held_bytes_max }
    }
}

/// Where and why a body is not an OTLP request in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem} at line {line}, column {column}{}", in_path(.path))]
pub struct JsonError {
    pub problem: JsonProblem,
    /// Bytes from the start of the body to where the problem was met.
    pub offset: usize,
    /// From 1.
    pub line: usize,
    /// In bytes, from 1.
    pub column: usize,
    /// Such as `resourceSpans[0].scopeSpans[2].spans[1].kind`; empty outside the first member.
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonProblem {
    #[error("the document ends too early")]
    End,
    #[error("expected {0}")]
    Expected(&'static str),
    #[error("a control character must be escaped")]
    ControlCharacter,
    #[error("invalid escape sequence")]
    Escape,
    #[error("expected a whole number, or one in a string")]
    Integer,
    #[error("the number is out of range")]
    Range,
    #[error("unknown enum value {0:?}")]
    EnumName(String),
    #[error("expected standard base64 with padding")]
    Base64,
    #[error("values are nested more than {0} deep")]
    TooDeep(usize),
    #[error("the document is longer than 4 GiB")]
    TooLong,
    #[error("as protobuf the document takes more than the {0} bytes that are held for it")]
    TooMuchHeld(usize),
}

impl JsonError {
    fn new(problem: JsonProblem, text: &[u8], offset: usize, path: String) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Self { problem, offset, line, column, path }
    }
}

fn in_path(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(", in {path}") }
}

/// An `ExportTraceServiceRequest` in OTLP/JSON as protobuf bytes. Ids of wrong length or alphabet are not errors here
/// (see above); the result must be scanned before it is believed.
///
/// # Errors
/// The text is not JSON, a value has the wrong type or range, values nest too deep, or the result outgrows its limit.
pub fn json_to_protobuf(body: &[u8], limits: &JsonLimits) -> Result<Vec<u8>, JsonError> {
    read::convert(&schema::EXPORT_TRACE_SERVICE_REQUEST, body, limits)
}

/// Any message of the schema in JSON as protobuf bytes, e.g. an `ExportTraceServiceResponse`.
///
/// # Errors
/// As [`json_to_protobuf`].
pub fn message_from_json(
    message: &'static schema::Message,
    body: &[u8],
    limits: &JsonLimits,
) -> Result<Vec<u8>, JsonError> {
    read::convert(message, body, limits)
}

/// An `ExportTraceServiceRequest` as the OTLP/JSON that a Collector would write.
///
/// # Errors
/// The bytes are not protobuf, or messages nest deeper than intake allows.
pub fn protobuf_to_otlp_json(request: &[u8]) -> Result<Vec<u8>, WireError> {
    message_to_json(&schema::EXPORT_TRACE_SERVICE_REQUEST, request)
}

/// Any message of the schema as OTLP/JSON, e.g. a `google.rpc.Status`.
///
/// # Errors
/// As [`protobuf_to_otlp_json`].
pub fn message_to_json(message: &'static schema::Message, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    // JSON is about twice as long as protobuf for spans.
    let mut out = Vec::with_capacity(bytes.len() * 2 + 2);
    write::write(&mut out, write::Dialect::Otlp, message, bytes)?;
    Ok(out)
}

/// Where JSON is written to.
pub trait Output {
    fn bytes(&mut self) -> &mut Vec<u8>;

    /// Asked between the elements of lists: whether to go on. If not, what was written is of no use.
    fn goes_on(&mut self) -> bool {
        true
    }
}

impl Output for Vec<u8> {
    fn bytes(&mut self) -> &mut Vec<u8> {
        self
    }
}

/// What Tempo calls the list of resource spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopKey {
    /// `/api/traces/{id}`.
    Batches,
    /// `/api/v2/traces/{id}`.
    ResourceSpans,
}

/// Appends a trace (the bytes of an `ExportTraceServiceRequest`) as an object in Tempo's JSON.
///
/// # Errors
/// As [`protobuf_to_otlp_json`]; what was appended until then must be thrown away.
pub fn protobuf_to_tempo_json(out: &mut impl Output, trace: &[u8], top: TopKey) -> Result<(), WireError> {
    let message = match top {
        TopKey::Batches => &schema::TEMPO_BATCHES,
        TopKey::ResourceSpans => &schema::EXPORT_TRACE_SERVICE_REQUEST,
    };
    write::write(out, write::Dialect::Tempo, message, trace)
}

/// Appends a number as JSON, in the digits that Go writes; NaN and the infinities as strings, as protobuf has them.
pub fn put_double(out: &mut Vec<u8>, value: f64) {
    write::double(out, value);
}

/// Appends `text` as a JSON string.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                let low = HEX.get(usize::from(byte & 15)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
