//! A configuration as JSON, read as [`load`](super::load) would read it, with nothing expanded and nothing checked.
//!
//! For places that hold the same configuration once as text and once as an object.

use super::diagnostic::Diagnostic;
use super::node::{Kind, Node, Value as Tree};
use super::yaml;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Reads one YAML document; `source` is how error texts call it. Numbers that JSON cannot hold stay as they are written.
///
/// # Errors
/// The text is no YAML, or beyond the bounds of this room; the diagnostic says where.
pub fn to_json(source: &str, text: &str) -> Result<Value, Diagnostic> {
    Ok(json(yaml::parse(&Arc::from(source), text)?))
}

fn json(node: Node) -> Value {
    match node.value {
        Tree::Null => Value::Null,
        Tree::List(items) => items.into_iter().map(json).collect(),
        Tree::Map(entries) => Value::Object(entries.into_iter().map(|e| (e.key, json(e.node))).collect::<Map<_, _>>()),
        Tree::Scalar(scalar) => match scalar.kind {
            Kind::Bool(on) => Value::Bool(on),
            Kind::Int(number) => i64::try_from(number)
                .map(Value::from)
                .or_else(|_| u64::try_from(number).map(Value::from))
                .unwrap_or(Value::String(scalar.text)),
            Kind::Float(number) => {
                serde_json::Number::from_f64(number).map_or(Value::String(scalar.text), Value::Number)
            }
            Kind::Text => Value::String(scalar.text),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_what_the_configuration_takes_them_for() {
        let read =
            to_json("x", "a: yes\nb: true\nc: 0x10\nd: 1.5\ne: .inf\nf: '1'\ng:\nh: [18446744073709551616, -1]\n");
        let expected = json!({
            "a": "yes", "b": true, "c": 16, "d": 1.5, "e": ".inf", "f": "1", "g": null,
            "h": ["18446744073709551616", -1],
        });
        assert_eq!(read.unwrap(), expected);
        assert_eq!(to_json("x", "").unwrap(), Value::Null);
        assert!(to_json("spec.config", "a: 1\na: 2").unwrap_err().to_string().starts_with("spec.config:2:1: "));
    }
}
