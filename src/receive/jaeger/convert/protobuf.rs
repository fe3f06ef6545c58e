//! Jaeger's `api_v2`: `PostSpansRequest { Batch batch = 1 }`, `Batch { repeated Span spans = 1; Process process = 2 }`.

use super::ConvertError;
use super::span::{Log, Process, Reference, Relation, Span};
use crate::otlp::draft::{Attributes, Draft, PartCount, Text, Value};
use crate::otlp::wire::{Field, Fields, Payload};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Puts every span of the request into `draft`.
pub fn read(request: &[u8], draft: &mut Draft) -> Result<(), ConvertError> {
    let mut at = 0;
    for field in fields("PostSpansRequest", request) {
        if let Some(batch) = field?.bytes(1) {
            read_batch(batch, &mut at, draft)?;
        }
    }
    Ok(())
}

fn read_batch(batch: &[u8], at: &mut usize, draft: &mut Draft) -> Result<(), ConvertError> {
    let mut process = Process::default();
    // It may stand behind the spans.
    for field in fields("Batch", batch) {
        if let Some(message) = field?.bytes(2) {
            process = process_of(message)?;
        }
    }
    let resource = draft.resource(&mut process.into_resource())?;
    for field in fields("Batch", batch) {
        let Some(message) = field?.bytes(1).filter(|message| !message.is_empty()) else { continue };
        let (span, own) = span_of(*at, message)?;
        // A process of the span's own goes before the batch's.
        match own {
            None => span.push(resource, draft)?,
            Some(own) => span.push(draft.resource(&mut own.into_resource())?, draft)?,
        }
        *at += 1;
    }
    Ok(())
}

fn process_of(message: &[u8]) -> Result<Process<'_>, ConvertError> {
    let (mut process, mut parts) = (Process::default(), PartCount::default());
    for field in fields("Process", message) {
        match field.map(|field| (field.number, field.payload))? {
            (1, Payload::Bytes(name)) => process.service_name = Text::Borrowed(name),
            (2, Payload::Bytes(message)) => tag_of(message, &mut process.tags, &mut parts)?,
            _ => {}
        }
    }
    Ok(process)
}

fn span_of(at: usize, message: &[u8]) -> Result<(Span<'_>, Option<Process<'_>>), ConvertError> {
    let refused = |field| ConvertError::Field { span: at, field, problem: "has the wrong wire type" };
    let (mut span, mut process, mut parts) = (Span::default(), None, PartCount::default());
    for field in fields("Span", message) {
        match field.map(|field| (field.number, field.payload))? {
            (1, Payload::Bytes(id)) => span.trace_id = trace_id(at, id)?,
            (2, Payload::Bytes(id)) => span.id = span_id(at, id)?,
            (3, Payload::Bytes(name)) => span.operation_name = Text::Borrowed(name),
            (4, Payload::Bytes(reference)) => {
                parts.add(1)?;
                span.references.push(reference_of(at, reference)?);
            }
            (5, Payload::Varint(flags)) => span.flags = flags as u32,
            (6, Payload::Bytes(time)) => span.start = nanos(time)?,
            (7, Payload::Bytes(duration)) => span.duration = nanos(duration)?,
            (8, Payload::Bytes(tag)) => tag_of(tag, &mut span.tags, &mut parts)?,
            (9, Payload::Bytes(log)) => span.logs.push(log_of(log, &mut parts)?),
            (10, Payload::Bytes(own)) => process = Some(process_of(own)?),
            (1..=10, _) => return Err(refused("a field")),
            _ => {}
        }
    }
    Ok((span, process))
}

fn reference_of(at: usize, message: &[u8]) -> Result<Reference, ConvertError> {
    let mut reference = Reference::default();
    for field in fields("SpanRef", message) {
        match field.map(|field| (field.number, field.payload))? {
            (1, Payload::Bytes(id)) => reference.trace_id = trace_id(at, id)?,
            (2, Payload::Bytes(id)) => reference.span_id = span_id(at, id)?,
            (3, Payload::Varint(1)) => reference.relation = Relation::FollowsFrom,
            _ => {}
        }
    }
    Ok(reference)
}

fn log_of<'a>(message: &'a [u8], parts: &mut PartCount) -> Result<Log<'a>, ConvertError> {
    parts.add(1)?;
    let mut log = Log::default();
    for field in fields("Log", message) {
        match field.map(|field| (field.number, field.payload))? {
            (1, Payload::Bytes(time)) => log.time = nanos(time)?,
            (2, Payload::Bytes(tag)) => tag_of(tag, &mut log.fields, parts)?,
            _ => {}
        }
    }
    Ok(log)
}

fn tag_of<'a>(message: &'a [u8], tags: &mut Attributes<'a>, parts: &mut PartCount) -> Result<(), ConvertError> {
    parts.add(1)?;
    let (mut key, mut kind) = (&b""[..], 0);
    let (mut text, mut bool, mut int, mut double, mut bytes) = (&b""[..], false, 0, 0.0, &b""[..]);
    for field in fields("KeyValue", message) {
        match field.map(|field| (field.number, field.payload))? {
            (1, Payload::Bytes(name)) => key = name,
            (2, Payload::Varint(number)) => kind = number,
            (3, Payload::Bytes(value)) => text = value,
            (4, Payload::Varint(value)) => bool = value != 0,
            (5, Payload::Varint(value)) => int = value as i64,
            (6, Payload::Fixed64(bits)) => double = f64::from_bits(bits),
            (7, Payload::Bytes(value)) => bytes = value,
            _ => {}
        }
    }
    let value = match kind {
        0 => Value::Text(text.into()),
        1 => Value::Bool(bool),
        2 => Value::Int(int),
        3 => Value::Double(double),
        4 => Value::Bytes(bytes.into()),
        _ => unknown_type(kind as i64),
    };
    tags.put(key, value);
    Ok(())
}

/// What stands for a value of a type that there is none of, as a Collector says it.
pub fn unknown_type(kind: i64) -> Value<'static> {
    Value::Text(format!("<Unknown Jaeger TagType \"{kind}\">").into_bytes().into())
}

/// A `Timestamp` or `Duration`; before 1970 and below zero is nothing.
fn nanos(message: &[u8]) -> Result<u64, ConvertError> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in fields("Timestamp", message) {
        match field.map(|field| (field.number, field.payload))? {
            (1, Payload::Varint(value)) => seconds = value as i64,
            (2, Payload::Varint(value)) => nanos = value as i64,
            _ => {}
        }
    }
    let (seconds, nanos) = (u64::try_from(seconds).unwrap_or(0), u64::try_from(nanos).unwrap_or(0));
    Ok(seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos))
}

fn trace_id(span: usize, bytes: &[u8]) -> Result<[u8; 16], ConvertError> {
    let refused = ConvertError::Field { span, field: "trace_id", problem: "is neither 8 nor 16 bytes long" };
    match bytes.len() {
        0 => Ok([0; 16]),
        8 | 16 => {
            let mut id = [0; 16];
            id[16 - bytes.len()..].copy_from_slice(bytes);
            Ok(id)
        }
        _ => Err(refused),
    }
}

fn span_id(span: usize, bytes: &[u8]) -> Result<[u8; 8], ConvertError> {
    if bytes.is_empty() {
        return Ok([0; 8]);
    }
    bytes.try_into().map_err(|_| ConvertError::Field { span, field: "span_id", problem: "is not 8 bytes long" })
}

fn fields<'a>(
    message: &'static str,
    bytes: &'a [u8],
) -> impl Iterator<Item = Result<Field<'a>, ConvertError>> + use<'a> {
    Fields::new(bytes).map(move |field| field.map_err(|error| ConvertError::Protobuf { message, error }))
}
