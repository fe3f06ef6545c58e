//! What `resource` and `attributes` do to attributes: the Collector's attribute actions, in the order of the configuration.

pub mod settings;
#[cfg(test)]
mod tests;

use self::settings::{Action, ContextValue, Conversion, Put, Source};
use super::client::{Client, ClientMetadata};
use super::text::text;
use crate::config::Plain;
use crate::otlp::edit::{Attributes, Value};
use ring::digest::{SHA256, digest};
use std::borrow::Cow;

/// Runs the actions, one after the other.
pub fn run<'a>(actions: &'a [Action], attributes: &mut Attributes<'a>, client: &'a Client) {
    for action in actions {
        match action {
            Action::Put { how, key, source } => put(*how, key, source, attributes, client),
            Action::Delete { key, pattern } => {
                let matches = |candidate: &str| {
                    candidate == key || pattern.as_ref().is_some_and(|pattern| pattern.is_match(candidate))
                };
                attributes.retain(|candidate| !matches(candidate));
            }
            Action::Hash { key, pattern } => {
                if let Some(value) = attributes.get_mut(key) {
                    *value = hashed(value);
                }
                if let Some(pattern) = pattern {
                    let keys: Vec<String> = attributes.iter().map(|attribute| attribute.key().to_owned()).collect();
                    for key in keys.iter().filter(|key| pattern.is_match(key)) {
                        if let Some(value) = attributes.get_mut(key) {
                            *value = hashed(value);
                        }
                    }
                }
            }
            Action::Extract { key, pattern } => {
                let Some(Value::Text(from)) = attributes.get(key) else { continue };
                let from = from.clone();
                let Some(found) = pattern.regex().captures(&from) else { continue };
                for (index, name) in pattern.regex().capture_names().enumerate() {
                    let Some(name) = name else { continue };
                    // A group that took no part reads as empty.
                    let text = found.get(index).map_or("", |group| group.as_str());
                    attributes.upsert(name, Value::Text(Cow::Owned(text.to_owned())));
                }
            }
            Action::Convert { key, to } => {
                if let Some(converted) = attributes.get(key).and_then(|value| converted(value, *to)) {
                    attributes.update(key, converted);
                }
            }
        }
    }
}

fn put<'a>(how: Put, key: &'a str, source: &'a Source, attributes: &mut Attributes<'a>, client: &'a Client) {
    // Whether the key is there decides before the value is made.
    let present = attributes.contains(key);
    if (how == Put::Insert && present) || (how == Put::Update && !present) {
        return;
    }
    if let Some(value) = value_of(source, attributes, client) {
        attributes.upsert(key, value);
    }
}

fn value_of<'a>(source: &'a Source, attributes: &Attributes<'a>, client: &'a Client) -> Option<Value<'a>> {
    if let Some(value) = &source.value {
        return Some(constant(value));
    }
    let from_context = source.from_context.as_ref().and_then(|from| context(from, client));
    from_context
        .or_else(|| attributes.get(source.from_attribute.as_deref()?).cloned())
        .or_else(|| source.default_value.as_ref().map(constant))
}

/// A value of the configuration, borrowed from it.
pub fn constant(value: &Plain) -> Value<'_> {
    match value {
        Plain::Null => Value::Empty,
        Plain::Bool(value) => Value::Bool(*value),
        Plain::Int(value) => Value::Int(*value),
        Plain::Float(value) => Value::Double(*value),
        Plain::Text(text) => Value::Text(Cow::Borrowed(text)),
        Plain::List(items) => Value::List(items.iter().map(constant).collect::<Vec<_>>().into()),
        Plain::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| (Cow::Borrowed(key.as_str()), constant(value)));
            Value::Map(entries.collect::<Attributes<'_>>().into())
        }
    }
}

fn context<'a>(from: &'a ContextValue, client: &'a Client) -> Option<Value<'a>> {
    match from {
        ContextValue::Address => Some(Value::from(client.peer.to_canonical().to_string())),
        ContextValue::Metadata(name) => joined(&client.metadata, name),
        ContextValue::Auth(name) => joined(&client.auth, name),
    }
}

/// Several values of one name are joined by semicolons.
fn joined<'a>(metadata: &'a ClientMetadata, name: &'a str) -> Option<Value<'a>> {
    let mut values = metadata.get(name);
    let first = values.next()?;
    let rest: Vec<&str> = values.collect();
    Some(Value::Text(match rest.as_slice() {
        [] => Cow::Borrowed(first),
        rest => Cow::Owned(std::iter::once(first).chain(rest.iter().copied()).collect::<Vec<_>>().join(";")),
    }))
}

/// SHA-256 in hexadecimal; numbers are hashed as eight bytes, little end first. Of what is no scalar nothing is left.
fn hashed<'b>(value: &Value<'_>) -> Value<'b> {
    let sum = match value {
        Value::Text(text) => digest(&SHA256, text.as_bytes()),
        Value::Bool(value) => digest(&SHA256, &[u8::from(*value)]),
        Value::Int(value) => digest(&SHA256, &value.to_le_bytes()),
        Value::Double(value) => digest(&SHA256, &value.to_le_bytes()),
        Value::Empty | Value::Bytes(_) | Value::List(_) | Value::Map(_) => return Value::Text(Cow::Borrowed("")),
    };
    Value::from(hex(sum.as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]));
    text
}

/// `None`: it has that type already, or cannot have it.
fn converted<'b>(value: &Value<'_>, to: Conversion) -> Option<Value<'b>> {
    Some(match (to, value) {
        (Conversion::Text, Value::Text(_)) | (Conversion::Int, Value::Int(_)) => return None,
        (Conversion::Text, value) => Value::from(text(value).into_owned()),
        (Conversion::Int, Value::Double(value)) => Value::Int(*value as i64),
        (Conversion::Int, Value::Bool(value)) => Value::Int((*value).into()),
        (Conversion::Int, Value::Text(text)) => Value::Int(text.parse().ok()?),
        (Conversion::Double, Value::Int(value)) => Value::Double(*value as f64),
        (Conversion::Double, Value::Bool(value)) => Value::Double(if *value { 1.0 } else { 0.0 }),
        (Conversion::Double, Value::Text(text)) => {
            let number: f64 = text.parse().ok()?;
            // What overflows is left as it was, as in Go; an infinity that was written as one is one.
            let overflows = number.is_infinite() && text.contains(|digit: char| digit.is_ascii_digit());
            Value::Double((!overflows).then_some(number)?)
        }
        (Conversion::Int | Conversion::Double, _) => return None,
    })
}
