//! Values of attributes in the forms that answers have for them.

use std::borrow::Cow;
use std::time::Duration;

use crate::config::duration;
use crate::otlp::json::{put_double, put_string};
use crate::otlp::wire::{put_bytes, put_double_field, put_uint};
use crate::traceql::value::Value;

/// What stands for a value that is not there.
const NIL: &str = "nil";

/// Arrays in arrays are not made by anything known; deeper ones are cut off.
const DEPTH_MAX: usize = 8;

/// How a value's type and text are shown in lists of values.
pub(super) fn typed_text(value: &Value) -> (&'static str, Cow<'_, str>) {
    match value {
        Value::String(text) => ("string", Cow::Borrowed(text)),
        Value::Int(number) => ("int", Cow::Owned(number.to_string())),
        Value::Float(number) => ("float", Cow::Owned(float_text(*number))),
        Value::Bool(truth) => ("bool", Cow::Borrowed(if *truth { "true" } else { "false" })),
        Value::Duration(nanos) => ("duration", Cow::Owned(duration_text(*nanos))),
        Value::Status(status) => ("keyword", Cow::Borrowed(status.as_str())),
        Value::Kind(kind) => ("keyword", Cow::Borrowed(kind.as_str())),
        Value::Array(values) => {
            let texts: Vec<Cow<'_, str>> = values.iter().map(|value| typed_text(value).1).collect();
            ("string", Cow::Owned(format!("[{}]", texts.join(", "))))
        }
    }
}

/// Appends an `AnyValue` as JSON. Alternatives of a oneof are written even where they are zero.
pub(super) fn put_json(out: &mut Vec<u8>, value: Option<&Value>) {
    json_at(out, value, 0);
}

fn json_at(out: &mut Vec<u8>, value: Option<&Value>, depth: usize) {
    match value {
        Some(Value::Int(number)) => out.extend_from_slice(format!("{{\"intValue\":\"{number}\"}}").as_bytes()),
        Some(Value::Bool(truth)) => out.extend_from_slice(format!("{{\"boolValue\":{truth}}}").as_bytes()),
        Some(Value::Float(number)) => {
            out.extend_from_slice(b"{\"doubleValue\":");
            put_double(out, *number);
            out.push(b'}');
        }
        Some(Value::Array(values)) if depth < DEPTH_MAX => {
            out.extend_from_slice(b"{\"arrayValue\":{\"values\":[");
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                json_at(out, Some(value), depth + 1);
            }
            out.extend_from_slice(b"]}}");
        }
        _ => {
            out.extend_from_slice(b"{\"stringValue\":");
            put_string(out, &value.map_or(Cow::Borrowed(NIL), |value| typed_text(value).1));
            out.push(b'}');
        }
    }
}

/// An `AnyValue` as protobuf.
pub(super) fn protobuf(value: Option<&Value>) -> Vec<u8> {
    protobuf_at(value, 0)
}

fn protobuf_at(value: Option<&Value>, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Some(Value::Bool(truth)) => put_uint(&mut out, 2, u64::from(*truth)),
        Some(Value::Int(number)) => put_uint(&mut out, 3, *number as u64),
        Some(Value::Float(number)) => put_double_field(&mut out, 4, *number),
        Some(Value::Array(values)) if depth < DEPTH_MAX => {
            let mut array = Vec::new();
            for value in values.iter() {
                put_bytes(&mut array, 1, &protobuf_at(Some(value), depth + 1));
            }
            put_bytes(&mut out, 5, &array);
        }
        _ => put_bytes(&mut out, 1, value.map_or(Cow::Borrowed(NIL), |value| typed_text(value).1).as_bytes()),
    }
    out
}

/// As Go's `Duration.String`.
fn duration_text(nanos: i64) -> String {
    let text = duration::format(Duration::from_nanos(nanos.unsigned_abs()));
    if nanos < 0 { format!("-{text}") } else { text }
}

/// The shortest text that reads back, as Go's `%g`, and never one that could be a whole number.
fn float_text(number: f64) -> String {
    // Beyond these Go writes an exponent of two digits at least.
    let plain = number == 0.0 || (1e-4..1e21).contains(&number.abs());
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else if plain {
        format!("{number:?}")
    } else {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or_default();
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traceql::value::{Kind, Status};

    #[test]
    fn values_have_tempos_types_and_texts() {
        for (value, kind, text) in [
            (Value::String("x".into()), "string", "x"),
            (Value::Int(-5), "int", "-5"),
            (Value::Float(0.5), "float", "0.5"),
            (Value::Float(3.0), "float", "3.0"),
            (Value::Float(1e-7), "float", "1e-07"),
            (Value::Float(1.5e300), "float", "1.5e+300"),
            (Value::Bool(true), "bool", "true"),
            (Value::Duration(1_500_000_000), "duration", "1.5s"),
            (Value::Duration(-1), "duration", "-1ns"),
            (Value::Status(Status::Error), "keyword", "error"),
            (Value::Kind(Kind::Server), "keyword", "server"),
            (Value::Array([Value::Int(1), Value::Int(2)].into()), "string", "[1, 2]"),
        ] {
            assert_eq!(typed_text(&value), (kind, text.into()));
        }
    }

    #[test]
    fn alternatives_of_a_oneof_are_written_even_where_they_are_zero() {
        let json = |value: Option<&Value>| {
            let mut out = Vec::new();
            put_json(&mut out, value);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(json(Some(&Value::String("".into()))), r#"{"stringValue":""}"#);
        assert_eq!(json(Some(&Value::Int(0))), r#"{"intValue":"0"}"#);
        assert_eq!(json(Some(&Value::Bool(false))), r#"{"boolValue":false}"#);
        assert_eq!(json(Some(&Value::Float(0.0))), r#"{"doubleValue":0}"#);
        assert_eq!(json(Some(&Value::Float(f64::NAN))), r#"{"doubleValue":"NaN"}"#);
        assert_eq!(json(Some(&Value::Status(Status::Unset))), r#"{"stringValue":"unset"}"#);
        assert_eq!(json(None), r#"{"stringValue":"nil"}"#);
        let array = Value::Array([Value::Bool(true), Value::Bool(false)].into());
        assert_eq!(json(Some(&array)), r#"{"arrayValue":{"values":[{"boolValue":true},{"boolValue":false}]}}"#);
    }
}
