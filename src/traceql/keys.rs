//! Values as keys of maps, and their order.

use std::cmp::Ordering;

use super::value::Value;

/// Appends what tells a value (`None`: nil) from every other of any type. Several values in a row stay distinct.
pub fn write_key(value: Option<&Value>, key: &mut Vec<u8>) {
    let Some(value) = value else {
        key.push(0);
        return;
    };
    if let Value::String(string) = value {
        return write_text_key(string, key);
    }
    key.push(1 + rank(value));
    match value {
        Value::Int(number) | Value::Duration(number) => key.extend_from_slice(&number.to_le_bytes()),
        Value::Float(float) => key.extend_from_slice(&float.to_bits().to_le_bytes()),
        Value::Bool(bool) => key.push(u8::from(*bool)),
        Value::Status(status) => key.push(*status as u8),
        Value::Kind(kind) => key.push(*kind as u8),
        Value::String(_) => {}
        Value::Array(values) => {
            key.extend_from_slice(&(values.len() as u32).to_le_bytes());
            values.iter().for_each(|value| write_key(Some(value), key));
        }
    }
}

/// [`write_key`] of a string.
pub fn write_text_key(text: &str, key: &mut Vec<u8>) {
    key.push(1 + STRING_RANK);
    key.extend_from_slice(&(text.len() as u32).to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}

/// A total order: by type, then by value; nil first.
#[must_use]
pub fn compare(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    match (left, right) {
        (Some(left), Some(right)) => compare_values(left, right),
        (left, right) => left.is_some().cmp(&right.is_some()),
    }
}

fn compare_values(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Int(left), Value::Int(right)) | (Value::Duration(left), Value::Duration(right)) => left.cmp(right),
        (Value::Float(left), Value::Float(right)) => left.total_cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Status(left), Value::Status(right)) => left.cmp(right),
        (Value::Kind(left), Value::Kind(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => left
            .iter()
            .zip(right.iter())
            .map(|(left, right)| compare_values(left, right))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| left.len().cmp(&right.len())),
        (left, right) => rank(left).cmp(&rank(right)),
    }
}

const STRING_RANK: u8 = 2;

fn rank(value: &Value) -> u8 {
    match value {
        Value::Int(_) => 0,
        Value::Float(_) => 1,
        Value::String(_) => STRING_RANK,
        Value::Bool(_) => 3,
        Value::Array(_) => 4,
        Value::Duration(_) => 5,
        Value::Status(_) => 6,
        Value::Kind(_) => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traceql::value::{Kind, Status};

    fn key(values: &[Option<Value>]) -> Vec<u8> {
        let mut key = Vec::new();
        values.iter().for_each(|value| write_key(value.as_ref(), &mut key));
        key
    }

    fn some_of_each() -> Vec<Option<Value>> {
        let array = |values: &[i64]| Value::Array(values.iter().map(|value| Value::Int(*value)).collect());
        let values = [
            Value::Int(-1),
            Value::Int(1),
            Value::Float(-1.0),
            Value::Float(1.0),
            Value::String("".into()),
            Value::String("1".into()),
            Value::Bool(false),
            Value::Bool(true),
            array(&[]),
            array(&[1]),
            array(&[1, 2]),
            array(&[2]),
            Value::Duration(1),
            Value::Status(Status::Error),
            Value::Status(Status::Unset),
            Value::Kind(Kind::Client),
        ];
        [None].into_iter().chain(values.map(Some)).collect()
    }

    #[test]
    fn values_of_all_types_have_keys_of_their_own() {
        let values = some_of_each();
        for (left_index, left) in values.iter().enumerate() {
            for (right_index, right) in values.iter().enumerate() {
                let equal = key(std::slice::from_ref(left)) == key(std::slice::from_ref(right));
                assert_eq!(equal, left_index == right_index, "{left:?} and {right:?}");
            }
        }
    }

    #[test]
    fn pairs_of_values_do_not_run_into_each_other() {
        let text = |text: &str| Some(Value::String(text.into()));
        assert_ne!(key(&[text("ab"), text("c")]), key(&[text("a"), text("bc")]));
        assert_ne!(key(&[None, text("")]), key(&[text(""), None]));
    }

    #[test]
    fn the_order_is_by_type_then_value_and_nil_is_first() {
        let values = some_of_each();
        for (left_index, left) in values.iter().enumerate() {
            for (right_index, right) in values.iter().enumerate() {
                let order = compare(left.as_ref(), right.as_ref());
                assert_eq!(order, left_index.cmp(&right_index), "{left:?} and {right:?}");
            }
        }
    }
}
