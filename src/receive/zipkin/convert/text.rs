//! Values that Zipkin carries as text.

use crate::otlp::draft::{Attributes, Value};

/// The value as the number or boolean that its text looks like (`parse_string_tags`); one that does not fit stays text.
pub fn typed(value: Value<'_>) -> Value<'_> {
    let parsed = std::str::from_utf8(value.text()).ok().and_then(|text| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ if all_digits(digits) => text.parse().ok().map(Value::Int),
            _ => {
                let (whole, fraction) = digits.split_once('.')?;
                let number = all_digits(whole) && all_digits(fraction);
                number.then(|| text.parse().ok().map(Value::Double))?
            }
        }
    });
    parsed.unwrap_or(value)
}

/// `...|dropped`: what is before the last bar, and the number after it.
pub fn last_bar(text: &str) -> Option<(&str, u32)> {
    let (before, dropped) = text.rsplit_once('|')?;
    Some((before, dropped.parse().ok()?))
}

/// The scalars of a JSON object; anything else in it is left out, as a Collector leaves it out. `None`: no object.
pub fn attributes_of_json(json: &str) -> Option<Attributes<'static>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
    let mut attributes = Attributes::default();
    for (key, value) in object {
        let value = match value {
            serde_json::Value::String(text) => Value::Text(text.into_bytes().into()),
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Value::Int(value),
                // JSON does not tell 2.0 from 2.
                (None, Some(value)) if value.fract() == 0.0 && value.abs() < i64::MAX as f64 => {
                    Value::Int(value as i64)
                }
                (None, Some(value)) => Value::Double(value),
                (None, None) => continue,
            },
            _ => continue,
        };
        attributes.put(key.into_bytes(), value);
    }
    Some(attributes)
}
