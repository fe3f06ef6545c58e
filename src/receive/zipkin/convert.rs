//! Zipkin's formats as OTLP.
//!
//! ```text
//! v2 JSON, v2 protobuf ─▶ span::Span ─▶ ┐
//! v1 JSON, v1 Thrift   ─▶ v1::Span   ─▶ ┴ SpanDraft ─▶ ExportTraceServiceRequest
//! ```
//!
//! Attribute names and rules are those of the Collector's translator. Where that one loses something (resource tags of
//! all but the first span of a service, a whole batch over an annotation with two bars in it) nothing is lost here.

mod json;
mod protobuf;
mod span;
#[cfg(test)]
mod tests;
mod text;
mod v1;
mod v1_json;
mod v1_thrift;

use crate::otlp::draft::{Draft, TooLong, TooManyParts};
use crate::otlp::wire::WireError;
use crate::receive::thrift::ThriftError;
use thiserror::Error;

/// A format in which Zipkin spans come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    JsonV2,
    ProtobufV2,
    JsonV1,
    ThriftV1,
}

/// What of the conversion the configuration decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// Texts that look like numbers or booleans become such.
    pub parse_string_tags: bool,
}

/// Why a body is refused.
#[derive(Debug, Error)]
pub enum ConvertError {
    #[error("not a list of Zipkin spans in JSON: {error}{}", in_span(.span))]
    Json { span: Option<usize>, error: serde_json::Error },
    #[error("not a list of Zipkin spans in protobuf: {message}: {error}")]
    Protobuf { message: &'static str, error: WireError },
    #[error("not a list of Zipkin spans in Thrift: {0}")]
    Thrift(#[from] ThriftError),
    #[error("span {span}: {field}: {problem}")]
    Field { span: usize, field: &'static str, problem: &'static str },
    #[error(transparent)]
    TooManyParts(#[from] TooManyParts),
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// The `ExportTraceServiceRequest` that a body says in other words; it takes at most `bytes_max`. `now` (Unix
/// nanoseconds) is the time of v1 spans that have none. Ids that are all zero are left to the scan to refuse.
///
/// # Errors
/// The body is not of this format, an id is not one, or the result outgrows its limit.
pub fn to_request(
    format: Format,
    body: &[u8],
    rules: Rules,
    now: u64,
    bytes_max: usize,
) -> Result<Vec<u8>, ConvertError> {
    let mut draft = Draft::new(bytes_max);
    match format {
        Format::JsonV2 => json::read(body, |span| span.push(rules, &mut draft))?,
        Format::ProtobufV2 => protobuf::read(body, |span| span.push(rules, &mut draft))?,
        Format::JsonV1 => v1_json::read(body, |span| span.push(rules, now, &mut draft))?,
        Format::ThriftV1 => v1_thrift::read(body, |span| span.push(rules, now, &mut draft))?,
    }
    Ok(draft.into_request())
}

fn in_span(span: &Option<usize>) -> String {
    span.map(|span| format!(", in span {span}")).unwrap_or_default()
}
