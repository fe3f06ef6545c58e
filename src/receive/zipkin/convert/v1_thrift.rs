//! Zipkin v1 as Thrift in the binary encoding: a list of spans (`zipkinCore.thrift`).

use super::ConvertError;
use super::span::Endpoint;
use super::v1::{Annotation, BinaryAnnotation, Span};
use crate::otlp::draft::{Text, TooLong, Value};
use crate::receive::thrift::{Encoding, Kind, Reader, ThriftError};
use base64::Engine as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Reads the spans in turn.
pub fn read<'a>(body: &'a [u8], mut take: impl FnMut(Span<'a>) -> Result<(), TooLong>) -> Result<(), ConvertError> {
    let mut reader = Reader::new(Encoding::Binary, body);
    for _ in 0..reader.list("the list of spans", Kind::Struct)? {
        take(span(&mut reader)?)?;
    }
    Ok(())
}

fn span<'a>(reader: &mut Reader<'a>) -> Result<Span<'a>, ThriftError> {
    reader.begin();
    let mut span = Span::default();
    let (mut high, mut low) = (0, 0);
    reader.structure(|reader, field| {
        match field.id {
            1 | 4 | 5 | 10 | 11 | 12 => {
                reader.expect("a number of Span", field, Kind::I64)?;
                let value = reader.i64()?;
                match field.id {
                    1 => low = value,
                    12 => high = value,
                    4 => span.id = value.to_be_bytes(),
                    5 => span.parent_id = Some(value.to_be_bytes()),
                    10 => span.timestamp = u64::try_from(value).unwrap_or(0),
                    _ => span.duration = u64::try_from(value).unwrap_or(0),
                }
            }
            3 => {
                reader.expect("Span.name", field, Kind::Binary)?;
                span.name = Text::Borrowed(reader.binary()?);
            }
            6 => {
                reader.expect("Span.annotations", field, Kind::List)?;
                for _ in 0..reader.parts("Span.annotations", Kind::Struct)? {
                    span.annotations.push(annotation(reader)?);
                }
            }
            8 => {
                reader.expect("Span.binary_annotations", field, Kind::List)?;
                for _ in 0..reader.parts("Span.binary_annotations", Kind::Struct)? {
                    span.binary_annotations.push(binary_annotation(reader)?);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    span.trace_id = ((high as u64 as u128) << 64 | low as u64 as u128).to_be_bytes();
    Ok(span)
}

fn annotation<'a>(reader: &mut Reader<'a>) -> Result<Annotation<'a>, ThriftError> {
    let mut annotation = Annotation::default();
    reader.structure(|reader, field| {
        match field.id {
            1 => {
                reader.expect("Annotation.timestamp", field, Kind::I64)?;
                annotation.timestamp = u64::try_from(reader.i64()?).unwrap_or(0);
            }
            2 => {
                reader.expect("Annotation.value", field, Kind::Binary)?;
                annotation.value = Text::Borrowed(reader.binary()?);
            }
            3 => {
                reader.expect("Annotation.host", field, Kind::Struct)?;
                annotation.endpoint = endpoint(reader)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(annotation)
}

fn binary_annotation<'a>(reader: &mut Reader<'a>) -> Result<BinaryAnnotation<'a>, ThriftError> {
    let (mut key, mut value, mut kind, mut host) = (&b""[..], &b""[..], 0, Endpoint::default());
    reader.structure(|reader, field| {
        match field.id {
            1 | 2 => {
                reader.expect("a text of BinaryAnnotation", field, Kind::Binary)?;
                let bytes = reader.binary()?;
                if field.id == 1 { key = bytes } else { value = bytes }
            }
            3 => {
                reader.expect("BinaryAnnotation.annotation_type", field, Kind::I32)?;
                kind = reader.i32()?;
            }
            4 => {
                reader.expect("BinaryAnnotation.host", field, Kind::Struct)?;
                host = endpoint(reader)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(BinaryAnnotation { key: Text::Borrowed(key), value: typed(kind, value), endpoint: host })
}

/// A value by its `AnnotationType`; one that is not of its type is said as text, as a Collector says it.
fn typed(kind: i32, value: &[u8]) -> Value<'_> {
    let too_short = || Value::Text(b"<not enough bytes representing the number>".into());
    match kind {
        0 => Value::Bool(value == [1]),
        1 => Value::Text(base64::engine::general_purpose::STANDARD.encode(value).into_bytes().into()),
        2 => value.first_chunk().map_or_else(too_short, |bytes| Value::Int(i16::from_be_bytes(*bytes).into())),
        3 => value.first_chunk().map_or_else(too_short, |bytes| Value::Int(i32::from_be_bytes(*bytes).into())),
        4 => value.first_chunk().map_or_else(too_short, |bytes| Value::Int(i64::from_be_bytes(*bytes))),
        5 => value.first_chunk().map_or_else(too_short, |bytes| Value::Double(f64::from_be_bytes(*bytes))),
        6 => Value::Text(value.into()),
        _ => Value::Text(format!("<unknown zipkin v1 binary annotation type ({kind})>").into_bytes().into()),
    }
}

fn endpoint<'a>(reader: &mut Reader<'a>) -> Result<Endpoint<'a>, ThriftError> {
    let mut endpoint = Endpoint::default();
    reader.structure(|reader, field| {
        match field.id {
            1 => {
                reader.expect("Endpoint.ipv4", field, Kind::I32)?;
                let ip = reader.i32()? as u32;
                if ip != 0 {
                    endpoint.ipv4 = Ipv4Addr::from(ip).to_string().into_bytes().into();
                }
            }
            2 => {
                reader.expect("Endpoint.port", field, Kind::I16)?;
                // The format has no unsigned numbers.
                endpoint.port = reader.i16()? as u16;
            }
            3 => {
                reader.expect("Endpoint.service_name", field, Kind::Binary)?;
                endpoint.service_name = Text::Borrowed(reader.binary()?);
            }
            4 => {
                reader.expect("Endpoint.ipv6", field, Kind::Binary)?;
                if let Ok(ip) = <[u8; 16]>::try_from(reader.binary()?) {
                    endpoint.ipv6 = Ipv6Addr::from(ip).to_string().into_bytes().into();
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(endpoint)
}
