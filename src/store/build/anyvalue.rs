//! `AnyValue` as TraceQL sees it.

use std::sync::Arc;

use crate::otlp::wire::{Fields, Payload};
use crate::traceql::value::Value;

/// A value that was not copied yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum AnyValue<'a> {
    /// Not always UTF-8: senders are not made to keep to it.
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Float(f64),
    /// The bytes of an `ArrayValue`.
    Array(&'a [u8]),
    /// Nothing, or what TraceQL has no type for: bytes, maps.
    Untyped,
}

impl<'a> AnyValue<'a> {
    /// The last alternative on the wire counts, as protobuf has it.
    pub fn read(message: &'a [u8]) -> Self {
        let mut value = Self::Untyped;
        for field in Fields::new(message).map_while(Result::ok) {
            value = match (field.number, field.payload) {
                (1, Payload::Bytes(text)) => Self::Text(text),
                (2, Payload::Varint(bool)) => Self::Bool(bool != 0),
                (3, Payload::Varint(int)) => Self::Int(int as i64),
                (4, Payload::Fixed64(bits)) => Self::Float(f64::from_bits(bits)),
                (5, Payload::Bytes(array)) => Self::Array(array),
                (6..=8, _) => Self::Untyped,
                _ => value,
            };
        }
        value
    }

    /// `None` for what TraceQL has no type for: also arrays that are empty, nested or of several types.
    pub fn to_value(self) -> Option<Value> {
        Some(match self {
            Self::Text(text) => Value::String(String::from_utf8_lossy(text).into()),
            Self::Bool(bool) => Value::Bool(bool),
            Self::Int(int) => Value::Int(int),
            Self::Float(float) => Value::Float(float),
            Self::Array(array) => Value::Array(elements(array)?),
            Self::Untyped => return None,
        })
    }
}

fn elements(array: &[u8]) -> Option<Arc<[Value]>> {
    let mut values: Vec<Value> = Vec::new();
    for field in Fields::new(array).map_while(Result::ok) {
        let Some(element) = field.bytes(1) else { continue };
        let value = match AnyValue::read(element) {
            AnyValue::Array(_) => return None,
            element => element.to_value()?,
        };
        let alike = values.first().is_none_or(|first| std::mem::discriminant(first) == std::mem::discriminant(&value));
        if !alike {
            return None;
        }
        values.push(value);
    }
    (!values.is_empty()).then(|| values.into())
}

/// The key and the value of a `KeyValue`.
pub(crate) fn key_value(message: &[u8]) -> (&[u8], AnyValue<'_>) {
    let (mut key, mut value) = (&[][..], AnyValue::Untyped);
    for field in Fields::new(message).map_while(Result::ok) {
        match (field.number, field.payload) {
            (1, Payload::Bytes(bytes)) => key = bytes,
            (2, Payload::Bytes(bytes)) => value = AnyValue::read(bytes),
            _ => {}
        }
    }
    (key, value)
}

/// The `AnyValue` of a `KeyValue`, as it stands on the wire.
pub(crate) fn value_bytes(key_value: &[u8]) -> &[u8] {
    Fields::new(key_value).map_while(Result::ok).filter_map(|field| field.bytes(2)).last().unwrap_or_default()
}
