//! Jaeger's formats as OTLP.
//!
//! ```text
//! gRPC api_v2 (protobuf)        ─▶ ┐
//! HTTP, Thrift binary           ─▶ ┼ span::Span ─▶ SpanDraft ─▶ ExportTraceServiceRequest
//! UDP, Thrift compact or binary ─▶ ┘
//! ```
//!
//! Rules and attribute names are those of the Collector's translator; one set of rules serves both encodings, where that
//! one reads scope and trace state from protobuf only.

mod protobuf;
mod span;
#[cfg(test)]
mod tests;
mod thrift;

use crate::otlp::draft::{Draft, TooLong, TooManyParts};
use crate::otlp::wire::WireError;
use crate::receive::thrift::{Encoding, ThriftError};
use thiserror::Error;

/// A format in which Jaeger batches come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `PostSpansRequest` of `jaeger.api_v2`.
    Protobuf,
    /// `Batch` of `jaeger.thrift` in the binary encoding.
    Thrift,
    /// A call of `Agent.emitBatch`.
    AgentCall(Encoding),
}

/// Why a body is refused.
#[derive(Debug, Error)]
pub enum ConvertError {
    #[error("not a Jaeger batch in protobuf: {message}: {error}")]
    Protobuf { message: &'static str, error: WireError },
    #[error("not a Jaeger batch in Thrift: {0}")]
    Thrift(#[from] ThriftError),
    #[error("span {span}: {field}: {problem}")]
    Field { span: usize, field: &'static str, problem: &'static str },
    #[error("method {0:?} is not served, only emitBatch: Zipkin spans go to the zipkin receiver")]
    Method(String),
    #[error(transparent)]
    TooManyParts(#[from] TooManyParts),
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// The `ExportTraceServiceRequest` that a body says in other words; it takes at most `bytes_max`. Ids that are all zero
/// are left to the scan to refuse.
///
/// # Errors
/// The body is not of this format, an id is not one, or the result outgrows its limit.
pub fn to_request(format: Format, body: &[u8], bytes_max: usize) -> Result<Vec<u8>, ConvertError> {
    let mut draft = Draft::new(bytes_max);
    match format {
        Format::Protobuf => protobuf::read(body, &mut draft)?,
        Format::Thrift => thrift::read_batch(body, &mut draft)?,
        Format::AgentCall(encoding) => thrift::read_call(encoding, body, &mut draft)?,
    }
    Ok(draft.into_request())
}
