//! Values as text, as Go's pdata writes them (`AsString`).

use crate::otlp::edit::{Attributes, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number};
use std::borrow::Cow;

/// Any value as text: bytes in base64, lists and maps as JSON.
pub fn text<'v>(value: &'v Value<'_>) -> Cow<'v, str> {
    match value {
        Value::Empty => Cow::Borrowed(""),
        Value::Text(text) => Cow::Borrowed(text),
        Value::Bool(bool) => Cow::Borrowed(if *bool { "true" } else { "false" }),
        Value::Int(int) => Cow::Owned(int.to_string()),
        Value::Double(double) => Cow::Owned(double_text(*double)),
        Value::Bytes(bytes) => Cow::Owned(STANDARD.encode(bytes)),
        Value::List(_) | Value::Map(_) => Cow::Owned(json(value).to_string()),
    }
}

/// The shortest digits that read back; with an exponent below 1e-6 and from 1e21 on, as in JavaScript.
fn double_text(double: f64) -> String {
    let size = double.abs();
    if !double.is_finite() {
        let name = if double.is_nan() {
            "NaN"
        } else if double > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        };
        return format!("json: unsupported value: {name}");
    }
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{double:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    format!("{double}")
}

/// Keys are sorted, as Go has it. Nesting is bounded by the scan.
fn json(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Empty => serde_json::Value::Null,
        Value::Bool(bool) => (*bool).into(),
        Value::Int(int) => (*int).into(),
        Value::Double(double) => whole(*double).map_or_else(|| (*double).into(), serde_json::Value::Number),
        Value::List(list) => list.items().iter().map(json).collect(),
        Value::Map(map) => object(map.entries()),
        Value::Text(_) | Value::Bytes(_) => text(value).into_owned().into(),
    }
}

fn object(entries: &Attributes<'_>) -> serde_json::Value {
    let entries = entries.iter().map(|entry| (entry.key().to_owned(), json(entry.value())));
    serde_json::Value::Object(entries.collect::<Map<_, _>>())
}

/// A double without a fraction, which Go writes without a point.
fn whole(double: f64) -> Option<Number> {
    /// Up to here a double holds every whole number.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    (double.fract() == 0.0 && double.abs() <= EXACT_MAX).then(|| Number::from(double as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_go_writes_them() {
        let cases = [
            (Value::Empty, ""),
            (Value::from("a<b"), "a<b"),
            (Value::from(true), "true"),
            (Value::from(-3_i64), "-3"),
            (Value::from(1.0), "1"),
            (Value::from(0.1), "0.1"),
            (Value::from(1e21), "1e+21"),
            (Value::from(1.5e-7), "1.5e-7"),
            (Value::from(123456789.25), "123456789.25"),
            (Value::from(f64::NAN), "json: unsupported value: NaN"),
            (Value::Bytes(b"hi".as_slice().into()), "aGk="),
            (Value::List(vec![Value::from(1.0), Value::Empty, Value::from("<")].into()), "[1,null,\"<\"]"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(&value), expected, "{value:?}");
        }
        let map: Attributes<'_> =
            [("b".into(), Value::from(1_i64)), ("a".into(), Value::from(0.5))].into_iter().collect();
        assert_eq!(text(&Value::Map(map.into())), "{\"a\":0.5,\"b\":1}");
    }
}
