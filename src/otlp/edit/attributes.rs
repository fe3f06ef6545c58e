//! An ordered list of key and value, as resources, scopes, spans, events, links and nested maps have it.

use super::lazy::Lazy;
use super::value::{Value, text_of};
use super::write::put_message;
use crate::otlp::view::messages;
use crate::otlp::wire::{SoundFields, put_bytes};
use std::borrow::Cow;

/// Attributes in the order they came. Of a key that comes twice the first counts, as in the Collector.
#[derive(Debug, Clone, Default)]
pub struct Attributes<'a> {
    entries: Vec<Attribute<'a>>,
    changed: bool,
}

/// One attribute. Its value is read when somebody asks for it.
#[derive(Debug, Clone)]
pub struct Attribute<'a> {
    key: Cow<'a, str>,
    value: Lazy<Value<'a>>,
    /// The `KeyValue` as it came, while nobody changed it.
    raw: Option<&'a [u8]>,
}

impl<'a> Attribute<'a> {
    fn parse(raw: &'a [u8]) -> Self {
        Self { key: text_of(key_of(raw)), value: Lazy::new(), raw: Some(raw) }
    }

    fn new(key: Cow<'a, str>, value: Value<'a>) -> Self {
        Self { key, value: Lazy::made(value), raw: None }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn value(&self) -> &Value<'a> {
        self.value.get(|| value_of(self.raw))
    }

    /// The value, which is taken for changed from now on.
    fn value_mut(&mut self) -> &mut Value<'a> {
        let raw = self.raw.take();
        self.value.get_mut(|| value_of(raw))
    }

    fn set(&mut self, value: Value<'a>) {
        self.value = Lazy::made(value);
        self.raw = None;
    }

    fn put(&self, out: &mut Vec<u8>, number: u32) {
        if let Some(raw) = self.raw {
            put_bytes(out, number, raw);
            return;
        }
        let value = self.value();
        let expected_len = 4 + self.key.len() + value.len_hint();
        put_message(out, number, expected_len, |out| {
            if !self.key.is_empty() {
                put_bytes(out, 1, self.key.as_bytes());
            }
            put_message(out, 2, value.len_hint(), |out| value.put(out));
        });
    }
}

/// Key first, then value, nothing else: how everybody writes a `KeyValue`. Both of less than 128 bytes.
fn short_parts(key_value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[0x0a, len @ ..0x80], rest) = key_value.split_first_chunk::<2>()? else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(len))?;
    let (&[0x12, len @ ..0x80], value) = rest.split_first_chunk::<2>()? else { return None };
    (value.len() == usize::from(len)).then_some((key, value))
}

/// The key of a `KeyValue` as it stands on the wire.
fn key_of(key_value: &[u8]) -> &[u8] {
    match short_parts(key_value) {
        Some((key, _)) => key,
        None => messages(key_value, 1).last().unwrap_or_default(),
    }
}

/// Whether a message has this key among its fields `number`, found without reading the others.
pub(super) fn has_key(message: &[u8], number: u32, key: &str) -> bool {
    messages(message, number).any(|key_value| key_of(key_value) == key.as_bytes())
}

fn value_of(key_value: Option<&[u8]>) -> Value<'_> {
    if let Some((_, value)) = key_value.and_then(short_parts) {
        return Value::parse(value);
    }
    key_value.and_then(|raw| messages(raw, 2).last()).map_or(Value::Empty, Value::parse)
}

impl<'a> Attributes<'a> {
    /// The `KeyValue`s under `number` of a message; with 0 there are none.
    pub(super) fn parse(message: &'a [u8], number: u32) -> Self {
        /// About what an attribute takes on the wire: so the list grows once at the most, and stays in proportion.
        const WIRE_BYTES: usize = 32;
        const RESERVED_MAX: usize = 16;
        let mut entries = Vec::new();
        let mut left = message.len();
        for field in SoundFields::new(message) {
            if let Some(raw) = field.bytes(number) {
                if entries.is_empty() {
                    entries.reserve_exact((1 + left / WIRE_BYTES).min(RESERVED_MAX));
                }
                entries.push(Attribute::parse(raw));
            }
            left -= field.raw.len();
        }
        Self { entries, changed: false }
    }

    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Whether something was put in that nests, and so may nest too deep.
    pub(super) fn has_new_nesting(&self) -> bool {
        let nests = |attribute: &Attribute<'_>| {
            attribute.raw.is_none() && matches!(attribute.value(), Value::List(_) | Value::Map(_))
        };
        self.changed && self.entries.iter().any(nests)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>, number: u32) {
        self.entries.iter().for_each(|attribute| attribute.put(out, number));
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Attribute<'a>> {
        self.entries.iter()
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|attribute| attribute.key == key)
    }

    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.entries.iter().find(|attribute| attribute.key == key).map(Attribute::value)
    }

    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The value, which is taken for changed from now on.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value<'a>> {
        let attribute = self.entries.iter_mut().find(|attribute| attribute.key == key)?;
        self.changed = true;
        Some(attribute.value_mut())
    }

    /// Puts in a key that is not there; one that is there stays as it is. Tells whether it was put in.
    pub fn insert(&mut self, key: impl Into<Cow<'a, str>>, value: Value<'a>) -> bool {
        let key = key.into();
        let absent = self.position(&key).is_none();
        if absent {
            self.entries.push(Attribute::new(key, value));
            self.changed = true;
        }
        absent
    }

    /// Changes a key that is there. Tells whether it is.
    pub fn update(&mut self, key: &str, value: Value<'a>) -> bool {
        let known = self.entries.iter_mut().find(|attribute| attribute.key == key);
        let is_there = known.is_some();
        if let Some(attribute) = known {
            attribute.set(value);
            self.changed = true;
        }
        is_there
    }

    /// Puts in a key, or changes it where it stands.
    pub fn upsert(&mut self, key: impl Into<Cow<'a, str>>, value: Value<'a>) {
        let key = key.into();
        self.changed = true;
        match self.entries.iter_mut().find(|attribute| attribute.key == key) {
            Some(attribute) => attribute.set(value),
            None => self.entries.push(Attribute::new(key, value)),
        }
    }

    /// Takes out a key, however often it is there. Tells whether it was.
    pub fn delete(&mut self, key: &str) -> bool {
        self.retain(|candidate| candidate != key)
    }

    /// Keeps the keys that `keep` wants. Tells whether something went.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|attribute| keep(&attribute.key));
        let removed = self.entries.len() < before;
        self.changed |= removed;
        removed
    }

    /// Takes out everything.
    pub fn clear(&mut self) {
        self.retain(|_| false);
    }

    /// Takes out everything and puts these in.
    pub fn replace(&mut self, entries: Self) {
        *self = Self { entries: entries.entries, changed: true };
    }

    /// Gives every entry the value that `revalue` wants for it, in place.
    pub fn revalue(&mut self, mut revalue: impl FnMut(&str, &Value<'a>) -> Option<Value<'a>>) {
        for attribute in &mut self.entries {
            if let Some(value) = revalue(&attribute.key, attribute.value()) {
                attribute.set(value);
                self.changed = true;
            }
        }
    }

    /// Gives every key the name that `rename` wants for it, in place. Names that fall together stay side by side.
    pub fn rename(&mut self, mut rename: impl FnMut(&str) -> Option<Cow<'a, str>>) {
        for attribute in &mut self.entries {
            if let Some(key) = rename(&attribute.key) {
                // With its key it loses the bytes that its value is read from.
                attribute.value_mut();
                attribute.key = key;
                self.changed = true;
            }
        }
    }
}

impl<'a> FromIterator<(Cow<'a, str>, Value<'a>)> for Attributes<'a> {
    fn from_iter<I: IntoIterator<Item = (Cow<'a, str>, Value<'a>)>>(entries: I) -> Self {
        let entries = entries.into_iter().map(|(key, value)| Attribute::new(key, value)).collect();
        Self { entries, changed: true }
    }
}

impl<'s, 'a> IntoIterator for &'s Attributes<'a> {
    type Item = &'s Attribute<'a>;
    type IntoIter = std::slice::Iter<'s, Attribute<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Maps are equal when they say the same of every key, in any order.
impl<'b> PartialEq<Attributes<'b>> for Attributes<'_> {
    fn eq(&self, other: &Attributes<'b>) -> bool {
        let has = |attribute: &Attribute<'_>| other.get(&attribute.key).is_some_and(|value| attribute.value() == value);
        self.len() == other.len() && self.iter().all(has)
    }
}
