//! JSON as Go writes and reads it, for `String`, `Concat` and `ParseJSON`.

use std::borrow::Cow;
use std::fmt::Write;

use base64::Engine;

use super::failure::Failure;
use super::value::Value;
use crate::otlp::edit::{self, Attributes};

/// Values nested deeper are not written: each level is a frame of the stack.
const DEPTH_MAX: u32 = 64;

/// Appends the value as JSON: keys in order, `< > &` escaped, bytes in base64, whole floats without a point.
pub(super) fn write(out: &mut String, value: &Value<'_, '_>) -> Result<(), Failure> {
    match value {
        Value::Nil => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) | Value::Duration(value) => display(out, value),
        Value::Double(value) => double(out, *value)?,
        Value::Text(text) => string(out, text),
        Value::Bytes(bytes) => base64(out, bytes),
        Value::List(list) => array(out, list.items(), 0)?,
        Value::Map(entries) => object(out, entries, 0)?,
        Value::Time(nanoseconds) => {
            let time = jiff::Timestamp::from_nanosecond(i128::from(*nanoseconds));
            let time = time.map_err(|_| Failure::because("the time is out of range"))?;
            display(out, &format_args!("\"{time}\""));
        }
        Value::TraceId(_) | Value::SpanId(_) | Value::Messages(_) => {
            return Err(Failure::because("ids, events and links have no text; take e.g. trace_id.string"));
        }
    }
    Ok(())
}

fn nested(out: &mut String, value: &edit::Value<'_>, depth: u32) -> Result<(), Failure> {
    if depth > DEPTH_MAX {
        return Err(Failure::because("the value is nested too deep"));
    }
    match value {
        edit::Value::List(list) => array(out, list.items(), depth),
        edit::Value::Map(map) => object(out, map.entries(), depth),
        other => write(out, &Value::of(other)),
    }
}

fn array(out: &mut String, items: &[edit::Value<'_>], depth: u32) -> Result<(), Failure> {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        nested(out, item, depth + 1)?;
    }
    out.push(']');
    Ok(())
}

fn object(out: &mut String, entries: &Attributes<'_>, depth: u32) -> Result<(), Failure> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by(|left, right| left.key().cmp(right.key()));
    out.push('{');
    for (index, entry) in sorted.into_iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        string(out, entry.key());
        out.push(':');
        nested(out, entry.value(), depth + 1)?;
    }
    out.push('}');
    Ok(())
}

fn base64(out: &mut String, bytes: &[u8]) {
    out.push('"');
    base64::engine::general_purpose::STANDARD.encode_string(bytes, out);
    out.push('"');
}

fn display(out: &mut String, value: &dyn std::fmt::Display) {
    // Writing into a text cannot fail.
    let _ = write!(out, "{value}");
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                display(out, &format_args!("\\u{:04x}", u32::from(character)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// The shortest digits that read back; an exponent, of two digits at least, only for very large and very small numbers.
fn double(out: &mut String, value: f64) -> Result<(), Failure> {
    let size = value.abs();
    if !size.is_finite() {
        return Err(Failure::because("JSON has no infinity and no NaN"));
    }
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        display(out, &value);
        return Ok(());
    }
    let text = format!("{value:e}");
    if let Some((digits, exponent)) = text.split_once('e') {
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |size| ('-', size));
        display(out, &format_args!("{digits}e{sign}{exponent:0>2}"));
    }
    Ok(())
}

/// Reads a JSON object or array; every number is a float, as in a Collector.
pub(super) fn parse<'v, 'a>(text: &str) -> Result<Value<'v, 'a>, Failure> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| Failure::Other(Cow::Owned(format!("no JSON: {error}"))))?;
    match value {
        serde_json::Value::Object(entries) => Ok(Value::map(read_object(entries))),
        serde_json::Value::Array(items) => Ok(Value::list(items.into_iter().map(read).collect())),
        _ => Err(Failure::because("the JSON is neither an object nor an array")),
    }
}

fn read_object<'a>(entries: serde_json::Map<String, serde_json::Value>) -> Attributes<'a> {
    entries.into_iter().map(|(key, value)| (Cow::Owned(key), read(value))).collect()
}

/// As deep as serde_json reads, which has a bound of its own.
fn read<'a>(value: serde_json::Value) -> edit::Value<'a> {
    match value {
        serde_json::Value::Null => edit::Value::Empty,
        serde_json::Value::Bool(value) => edit::Value::Bool(value),
        serde_json::Value::Number(number) => edit::Value::Double(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => edit::Value::Text(Cow::Owned(text)),
        serde_json::Value::Array(items) => edit::Value::List(items.into_iter().map(read).collect::<Vec<_>>().into()),
        serde_json::Value::Object(entries) => edit::Value::Map(read_object(entries).into()),
    }
}
