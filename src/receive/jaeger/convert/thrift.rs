//! Jaeger's `Batch` in Thrift (`jaeger.thrift`), and the call of an agent that carries one (`agent.thrift`).

use super::ConvertError;
use super::protobuf::unknown_type;
use super::span::{Log, Process, Reference, Relation, Span};
use crate::otlp::draft::{Attributes, Draft, ResourceAt, Text, Value};
use crate::receive::thrift::{Encoding, Field, Kind, Reader, ThriftError};

/// The numbers of `TagType`.
const STRING: i32 = 0;
const DOUBLE: i32 = 1;
const BOOL: i32 = 2;
const LONG: i32 = 3;
const BINARY: i32 = 4;

/// Puts every span of a batch (binary encoding) into `draft`.
pub fn read_batch(body: &[u8], draft: &mut Draft) -> Result<(), ConvertError> {
    batch(&mut Reader::new(Encoding::Binary, body), draft)
}

/// Puts every span of a call of `emitBatch` into `draft`.
pub fn read_call(encoding: Encoding, packet: &[u8], draft: &mut Draft) -> Result<(), ConvertError> {
    let mut reader = Reader::new(encoding, packet);
    let method = reader.call()?.method;
    if method != b"emitBatch" {
        return Err(ConvertError::Method(String::from_utf8_lossy(method).into_owned()));
    }
    reader.structure_or(|reader, field| {
        if field.id != 1 {
            return Ok(false);
        }
        reader.expect("emitBatch.batch", field, Kind::Struct)?;
        batch(reader, draft)?;
        Ok(true)
    })
}

fn batch(reader: &mut Reader<'_>, draft: &mut Draft) -> Result<(), ConvertError> {
    let (mut resource, mut early) = (None, None);
    reader.structure_or(|reader, field| {
        match (field.id, &mut resource) {
            (1, resource) => {
                reader.expect("Batch.process", field, Kind::Struct)?;
                *resource = Some(draft.resource(&mut process(reader)?.into_resource())?);
            }
            (2, Some(resource)) => push_spans(reader, field, *resource, draft)?,
            // The process stands in front in every client that there is, but need not.
            (2, None) => {
                early = Some((reader.clone(), field));
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok::<_, ConvertError>(true)
    })?;
    match early {
        Some((mut reader, field)) => {
            let resource = match resource {
                Some(resource) => resource,
                None => draft.resource(&mut Attributes::default())?,
            };
            push_spans(&mut reader, field, resource, draft)
        }
        None => Ok(()),
    }
}

fn push_spans(
    reader: &mut Reader<'_>,
    field: Field,
    resource: ResourceAt,
    draft: &mut Draft,
) -> Result<(), ConvertError> {
    reader.expect("Batch.spans", field, Kind::List)?;
    for _ in 0..reader.list("Batch.spans", Kind::Struct)? {
        span(reader)?.push(resource, draft)?;
    }
    Ok(())
}

fn process<'a>(reader: &mut Reader<'a>) -> Result<Process<'a>, ThriftError> {
    reader.begin();
    let mut process = Process::default();
    reader.structure(|reader, field| {
        match field.id {
            1 => process.service_name = text(reader, "Process.serviceName", field)?,
            2 => process.tags = tags(reader, "Process.tags", field)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(process)
}

fn span<'a>(reader: &mut Reader<'a>) -> Result<Span<'a>, ThriftError> {
    reader.begin();
    let mut span = Span::default();
    let (mut low, mut high) = (0, 0);
    reader.structure(|reader, field| {
        match field.id {
            1 => low = long(reader, "Span.traceIdLow", field)?,
            2 => high = long(reader, "Span.traceIdHigh", field)?,
            3 => span.id = long(reader, "Span.spanId", field)?.to_be_bytes(),
            4 => span.parent_id = Some(long(reader, "Span.parentSpanId", field)?.to_be_bytes()),
            5 => span.operation_name = text(reader, "Span.operationName", field)?,
            6 => {
                reader.expect("Span.references", field, Kind::List)?;
                for _ in 0..reader.parts("Span.references", Kind::Struct)? {
                    span.references.push(reference(reader)?);
                }
            }
            7 => {
                reader.expect("Span.flags", field, Kind::I32)?;
                span.flags = reader.i32()? as u32;
            }
            8 => span.start = micros(long(reader, "Span.startTime", field)?),
            9 => span.duration = micros(long(reader, "Span.duration", field)?),
            10 => span.tags = tags(reader, "Span.tags", field)?,
            11 => {
                reader.expect("Span.logs", field, Kind::List)?;
                for _ in 0..reader.parts("Span.logs", Kind::Struct)? {
                    span.logs.push(log(reader)?);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    span.trace_id = id_of(high, low);
    Ok(span)
}

fn reference(reader: &mut Reader<'_>) -> Result<Reference, ThriftError> {
    let mut reference = Reference::default();
    let (mut low, mut high) = (0, 0);
    reader.structure(|reader, field| {
        match field.id {
            1 => {
                reader.expect("SpanRef.refType", field, Kind::I32)?;
                reference.relation = if reader.i32()? == 1 { Relation::FollowsFrom } else { Relation::ChildOf };
            }
            2 => low = long(reader, "SpanRef.traceIdLow", field)?,
            3 => high = long(reader, "SpanRef.traceIdHigh", field)?,
            4 => reference.span_id = long(reader, "SpanRef.spanId", field)?.to_be_bytes(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    reference.trace_id = id_of(high, low);
    Ok(reference)
}

fn log<'a>(reader: &mut Reader<'a>) -> Result<Log<'a>, ThriftError> {
    let mut log = Log::default();
    reader.structure(|reader, field| {
        match field.id {
            1 => log.time = micros(long(reader, "Log.timestamp", field)?),
            2 => log.fields = tags(reader, "Log.fields", field)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(log)
}

fn tags<'a>(reader: &mut Reader<'a>, what: &'static str, field: Field) -> Result<Attributes<'a>, ThriftError> {
    reader.expect(what, field, Kind::List)?;
    let mut tags = Attributes::default();
    for _ in 0..reader.parts(what, Kind::Struct)? {
        let (key, value) = tag(reader)?;
        tags.put(key, value);
    }
    Ok(tags)
}

fn tag<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Value<'a>), ThriftError> {
    let (mut key, mut kind) = (&b""[..], STRING);
    let (mut string, mut double, mut bool, mut int, mut bytes) = (&b""[..], 0.0, false, 0, &b""[..]);
    reader.structure(|reader, field| {
        match field.id {
            1 | 3 | 7 => {
                reader.expect("a text of Tag", field, Kind::Binary)?;
                let read = reader.binary()?;
                match field.id {
                    1 => key = read,
                    3 => string = read,
                    _ => bytes = read,
                }
            }
            2 => {
                reader.expect("Tag.vType", field, Kind::I32)?;
                kind = reader.i32()?;
            }
            4 => {
                reader.expect("Tag.vDouble", field, Kind::Double)?;
                double = reader.double()?;
            }
            5 => {
                reader.expect("Tag.vBool", field, Kind::Bool)?;
                bool = reader.bool()?;
            }
            6 => int = long(reader, "Tag.vLong", field)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let value = match kind {
        STRING => Value::Text(string.into()),
        DOUBLE => Value::Double(double),
        BOOL => Value::Bool(bool),
        LONG => Value::Int(int),
        BINARY => Value::Bytes(bytes.into()),
        other => unknown_type(other.into()),
    };
    Ok((key, value))
}

fn text<'a>(reader: &mut Reader<'a>, what: &'static str, field: Field) -> Result<Text<'a>, ThriftError> {
    reader.expect(what, field, Kind::Binary)?;
    reader.binary().map(Text::Borrowed)
}

fn long(reader: &mut Reader<'_>, what: &'static str, field: Field) -> Result<i64, ThriftError> {
    reader.expect(what, field, Kind::I64)?;
    reader.i64()
}

fn id_of(high: i64, low: i64) -> [u8; 16] {
    (u128::from(high as u64) << 64 | u128::from(low as u64)).to_be_bytes()
}

/// Microseconds as nanoseconds; before 1970 and below zero is nothing.
fn micros(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or(0).saturating_mul(1_000)
}
