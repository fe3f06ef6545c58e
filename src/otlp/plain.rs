//! Attributes whose values are plain: what labels are made of.

use super::wire::{Fields, Payload};
use std::io::Write as _;

/// An attribute's value, where it is a plain one. Arrays, maps and bytes are no label's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Text(&'a [u8]),
    Int(i64),
    Bool(bool),
    Double(f64),
}

impl Value<'_> {
    /// As text.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => out.extend_from_slice(text),
            // Writing into memory does not fail.
            Self::Int(int) => drop(write!(out, "{int}")),
            Self::Bool(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
            Self::Double(double) => drop(write!(out, "{double}")),
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }
}

/// The name and value of every attribute of a message, in order.
pub fn attributes(message: &[u8], number: u32) -> impl Iterator<Item = (&[u8], Option<Value<'_>>)> {
    Fields::new(message).map_while(Result::ok).filter_map(move |field| {
        let (mut key, mut value): (&[u8], _) = (&[], None);
        for field in Fields::new(field.bytes(number)?).map_while(Result::ok) {
            match (field.number, field.payload) {
                (1, Payload::Bytes(bytes)) => key = bytes,
                (2, Payload::Bytes(bytes)) => value = Some(bytes),
                _ => {}
            }
        }
        Some((key, value.and_then(plain_value)))
    })
}

/// The value of an AnyValue message; of a oneof the last field counts.
pub fn plain_value(message: &[u8]) -> Option<Value<'_>> {
    let mut value = None;
    for field in Fields::new(message).map_while(Result::ok) {
        value = match (field.number, field.payload) {
            (1, Payload::Bytes(text)) => Some(Value::Text(text)),
            (2, Payload::Varint(truth)) => Some(Value::Bool(truth != 0)),
            (3, Payload::Varint(int)) => Some(Value::Int(int as i64)),
            (4, Payload::Fixed64(bits)) => Some(Value::Double(f64::from_bits(bits))),
            (5..=7, _) => None,
            _ => value,
        };
    }
    value
}
