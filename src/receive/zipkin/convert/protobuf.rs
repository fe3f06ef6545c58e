//! Zipkin v2 as protobuf: `ListOfSpans { repeated Span spans = 1 }`.

use super::ConvertError;
use super::span::{Endpoint, Span};
use crate::otlp::draft::{PartCount, SpanKind, Text, TooLong, Value};
use crate::otlp::wire::{Field, Fields, Payload};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Reads the spans in turn.
pub fn read<'a>(body: &'a [u8], mut take: impl FnMut(Span<'a>) -> Result<(), TooLong>) -> Result<(), ConvertError> {
    let mut at = 0;
    for field in fields("ListOfSpans", body) {
        if let Some(span) = field?.bytes(1) {
            take(span_of(at, span)?)?;
            at += 1;
        }
    }
    Ok(())
}

fn span_of(at: usize, message: &[u8]) -> Result<Span<'_>, ConvertError> {
    const NAME: &str = "Span";
    let refused = |field, problem| ConvertError::Field { span: at, field, problem };
    let mut span = Span::default();
    let (mut trace_id, mut id, mut parts) = (false, false, PartCount::default());
    for field in fields(NAME, message) {
        let field = field?;
        match (field.number, field.payload) {
            (1, Payload::Bytes(bytes)) => {
                // The format asks for 16 bytes of those who send; shorter ones have their zeros left out.
                let from = 16usize.checked_sub(bytes.len()).filter(|_| !bytes.is_empty());
                let from = from.ok_or(refused("trace_id", "is not 1 to 16 bytes long"))?;
                span.trace_id[from..].copy_from_slice(bytes);
                trace_id = true;
            }
            (2, Payload::Bytes([])) => span.parent_id = None,
            (2, Payload::Bytes(bytes)) => {
                span.parent_id = Some(bytes.try_into().map_err(|_| refused("parent_id", "is not 8 bytes long"))?);
            }
            (3, Payload::Bytes(bytes)) => {
                span.id = bytes.try_into().map_err(|_| refused("id", "is not 8 bytes long"))?;
                id = true;
            }
            (4, Payload::Varint(kind)) => {
                span.kind = match kind {
                    1 => SpanKind::Client,
                    2 => SpanKind::Server,
                    3 => SpanKind::Producer,
                    4 => SpanKind::Consumer,
                    _ => SpanKind::Unspecified,
                }
            }
            (5, Payload::Bytes(name)) => span.name = Text::Borrowed(name),
            (6, Payload::Fixed64(timestamp)) => span.timestamp = timestamp,
            (7, Payload::Varint(duration)) => span.duration = duration,
            (8, Payload::Bytes(endpoint)) => span.local = endpoint_of(at, endpoint)?,
            (9, Payload::Bytes(endpoint)) => span.remote = endpoint_of(at, endpoint)?,
            (10, Payload::Bytes(annotation)) => {
                parts.add(1)?;
                span.annotations.push(annotation_of(annotation)?);
            }
            (11, Payload::Bytes(entry)) => {
                parts.add(1)?;
                let (key, value) = tag(entry)?;
                span.tags.put(key, Value::Text(value));
            }
            (1..=11, _) => return Err(refused("a field", "has the wrong wire type")),
            _ => {}
        }
    }
    match (trace_id, id) {
        (true, true) => Ok(span),
        (false, _) => Err(refused("trace_id", "is missing")),
        (_, false) => Err(refused("id", "is missing")),
    }
}

fn endpoint_of(at: usize, message: &[u8]) -> Result<Endpoint<'_>, ConvertError> {
    let refused = |field, problem| ConvertError::Field { span: at, field, problem };
    let mut endpoint = Endpoint::default();
    for field in fields("Endpoint", message) {
        match field.map(|field| (field.number, field.payload))? {
            (1, Payload::Bytes(name)) => endpoint.service_name = Text::Borrowed(name),
            (2, Payload::Bytes(bytes)) if !bytes.is_empty() => {
                let ip: [u8; 4] = bytes.try_into().map_err(|_| refused("ipv4", "is not 4 bytes long"))?;
                endpoint.ipv4 = Ipv4Addr::from(ip).to_string().into_bytes().into();
            }
            (3, Payload::Bytes(bytes)) if !bytes.is_empty() => {
                let ip: [u8; 16] = bytes.try_into().map_err(|_| refused("ipv6", "is not 16 bytes long"))?;
                endpoint.ipv6 = Ipv6Addr::from(ip).to_string().into_bytes().into();
            }
            (4, Payload::Varint(port)) => {
                endpoint.port = u16::try_from(port).map_err(|_| refused("port", "is above 65535"))?;
            }
            _ => {}
        }
    }
    Ok(endpoint)
}

fn annotation_of(message: &[u8]) -> Result<(u64, Text<'_>), ConvertError> {
    let (mut timestamp, mut value) = (0, Text::default());
    for field in fields("Annotation", message) {
        match field.map(|field| (field.number, field.payload))? {
            (1, Payload::Fixed64(at)) => timestamp = at,
            (2, Payload::Bytes(text)) => value = Text::Borrowed(text),
            _ => {}
        }
    }
    Ok((timestamp, value))
}

fn tag(message: &[u8]) -> Result<(Text<'_>, Text<'_>), ConvertError> {
    let (mut key, mut value) = (Text::default(), Text::default());
    for field in fields("TagsEntry", message) {
        match field.map(|field| (field.number, field.payload))? {
            (1, Payload::Bytes(text)) => key = Text::Borrowed(text),
            (2, Payload::Bytes(text)) => value = Text::Borrowed(text),
            _ => {}
        }
    }
    Ok((key, value))
}

fn fields<'a>(
    message: &'static str,
    bytes: &'a [u8],
) -> impl Iterator<Item = Result<Field<'a>, ConvertError>> + use<'a> {
    Fields::new(bytes).map(move |field| field.map_err(|error| ConvertError::Protobuf { message, error }))
}
