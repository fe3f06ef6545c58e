//! Conversions between types, as the Collector's "like" getters make them.

use std::borrow::Cow;

use super::failure::Failure;
use super::json;
use super::value::{Types, Value};

/// A text as it is, bytes in hexadecimal, everything else as JSON. None for nil.
pub(super) fn text<'v>(value: Value<'v, '_>) -> Result<Option<Cow<'v, str>>, Failure> {
    Ok(Some(match value {
        Value::Nil => return Ok(None),
        Value::Text(text) => text,
        Value::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        Value::Int(value) => Cow::Owned(value.to_string()),
        Value::Bytes(bytes) => Cow::Owned(hex(&bytes)),
        other => {
            let mut out = String::new();
            json::write(&mut out, &other)?;
            Cow::Owned(out)
        }
    }))
}

/// A whole number; floats lose their fraction, and what does not fit becomes the nearest that does. None for nil.
pub(super) fn int(value: &Value<'_, '_>) -> Result<Option<i64>, Failure> {
    Ok(Some(match value {
        Value::Nil => return Ok(None),
        Value::Int(value) => *value,
        Value::Double(value) => *value as i64,
        Value::Bool(value) => i64::from(*value),
        Value::Text(text) => text.parse().map_err(|_| Failure::because("the text is no whole number"))?,
        other => return Err(Failure::of_type(SCALAR, other)),
    }))
}

pub(super) fn double(value: &Value<'_, '_>) -> Result<Option<f64>, Failure> {
    Ok(Some(match value {
        Value::Nil => return Ok(None),
        Value::Int(value) => *value as f64,
        Value::Double(value) => *value,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Text(text) => {
            let number: f64 = text.parse().map_err(|_| Failure::because("the text is no number"))?;
            // What overflows is an error; an infinity that was written as one is not.
            if number.is_infinite() && text.contains(|digit: char| digit.is_ascii_digit()) {
                return Err(Failure::because("the number is out of range"));
            }
            number
        }
        other => return Err(Failure::of_type(SCALAR, other)),
    }))
}

pub(super) fn bool(value: &Value<'_, '_>) -> Result<Option<bool>, Failure> {
    Ok(Some(match value {
        Value::Nil => return Ok(None),
        Value::Bool(value) => *value,
        Value::Int(value) => *value != 0,
        Value::Double(value) => *value != 0.0,
        Value::Text(text) => match text.as_ref() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            _ => return Err(Failure::because("the text is no boolean")),
        },
        other => return Err(Failure::of_type(SCALAR, other)),
    }))
}

/// Numbers are eight bytes, big-endian; a boolean is one. None for nil.
pub(super) fn bytes<'v>(value: Value<'v, '_>) -> Result<Option<Cow<'v, [u8]>>, Failure> {
    Ok(Some(match value {
        Value::Nil => return Ok(None),
        Value::Bytes(bytes) => bytes,
        Value::Text(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        Value::Text(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        Value::Int(value) => Cow::Owned(value.to_be_bytes().to_vec()),
        Value::Double(value) => Cow::Owned(value.to_be_bytes().to_vec()),
        Value::Bool(value) => Cow::Owned(vec![u8::from(value)]),
        other => return Err(Failure::of_type(SCALAR.or(Types::BYTES), &other)),
    }))
}

/// What the conversions to numbers and booleans take.
pub(super) const SCALAR: Types = Types::TEXT.or(Types::NUMBER).or(Types::BOOL).or(Types::NIL);

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}
