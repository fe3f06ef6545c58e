//! An ordered list of key and value, as resources, scopes, spans, events, links and nested maps have it.

use super::value::Value;
use super::write::put_message;
use crate::otlp::view::messages;
use crate::otlp::wire::put_bytes;
use std::borrow::Cow;

/// Attributes in the order they came. Of a key that comes twice the first counts, as in the Collector.
#[derive(Debug, Clone, Default)]
pub struct Attributes<'a> {
    entries: Vec<Attribute<'a>>,
    changed: bool,
}

/// One attribute.
#[derive(Debug, Clone)]
pub struct Attribute<'a> {
    key: Cow<'a, str>,
    value: Value<'a>,
    /// The `KeyValue` as it came, while nobody changed it.
    raw: Option<&'a [u8]>,
}

impl<'a> Attribute<'a> {
    fn parse(raw: &'a [u8]) -> Self {
        let key = messages(raw, 1).last().unwrap_or_default();
        let value = messages(raw, 2).last().map_or(Value::Empty, Value::parse);
        Self { key: String::from_utf8_lossy(key), value, raw: Some(raw) }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn value(&self) -> &Value<'a> {
        &self.value
    }

    fn put(&self, out: &mut Vec<u8>, number: u32) {
        if let Some(raw) = self.raw {
            put_bytes(out, number, raw);
            return;
        }
        let expected_len = 4 + self.key.len() + self.value.len_hint();
        put_message(out, number, expected_len, |out| {
            if !self.key.is_empty() {
                put_bytes(out, 1, self.key.as_bytes());
            }
            put_message(out, 2, self.value.len_hint(), |out| self.value.put(out));
        });
    }
}

impl<'a> Attributes<'a> {
    /// The `KeyValue`s under `number` of a message; with 0 there are none.
    pub(super) fn parse(message: &'a [u8], number: u32) -> Self {
        let count = messages(message, number).count();
        let mut entries = Vec::with_capacity(count);
        entries.extend(messages(message, number).map(Attribute::parse));
        Self { entries, changed: false }
    }

    pub(super) fn is_changed(&self) -> bool {
        self.changed
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
        self.entries.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
    }

    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The value, which is taken for changed from now on.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value<'a>> {
        let attribute = self.entries.iter_mut().find(|attribute| attribute.key == key)?;
        self.changed = true;
        attribute.raw = None;
        Some(&mut attribute.value)
    }

    /// Puts in a key that is not there; one that is there stays as it is. Tells whether it was put in.
    pub fn insert(&mut self, key: impl Into<Cow<'a, str>>, value: Value<'a>) -> bool {
        let key = key.into();
        let absent = self.position(&key).is_none();
        if absent {
            self.entries.push(Attribute { key, value, raw: None });
            self.changed = true;
        }
        absent
    }

    /// Changes a key that is there. Tells whether it is.
    pub fn update(&mut self, key: &str, value: Value<'a>) -> bool {
        match self.get_mut(key) {
            Some(known) => {
                *known = value;
                true
            }
            None => false,
        }
    }

    /// Puts in a key, or changes it where it stands.
    pub fn upsert(&mut self, key: impl Into<Cow<'a, str>>, value: Value<'a>) {
        let key = key.into();
        match self.get_mut(&key) {
            Some(known) => *known = value,
            None => {
                self.insert(key, value);
            }
        }
    }

    /// Takes out a key, however often it is there. Tells whether it was.
    pub fn delete(&mut self, key: &str) -> bool {
        self.retain(|candidate, _| candidate != key)
    }

    /// Keeps what `keep` wants. Tells whether something went.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Value<'a>) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|attribute| keep(&attribute.key, &attribute.value));
        let removed = self.entries.len() < before;
        self.changed |= removed;
        removed
    }

    /// Takes out everything.
    pub fn clear(&mut self) {
        self.retain(|_, _| false);
    }

    /// Takes out everything and puts these in.
    pub fn replace(&mut self, entries: Self) {
        *self = Self { entries: entries.entries, changed: true };
    }

    /// Gives every entry the value that `revalue` wants for it, in place.
    pub fn revalue(&mut self, mut revalue: impl FnMut(&str, &Value<'a>) -> Option<Value<'a>>) {
        for attribute in &mut self.entries {
            if let Some(value) = revalue(&attribute.key, &attribute.value) {
                attribute.value = value;
                attribute.raw = None;
                self.changed = true;
            }
        }
    }

    /// Gives every key the name that `rename` wants for it, in place. Names that fall together stay side by side.
    pub fn rename(&mut self, mut rename: impl FnMut(&str) -> Option<Cow<'a, str>>) {
        for attribute in &mut self.entries {
            if let Some(key) = rename(&attribute.key) {
                attribute.key = key;
                attribute.raw = None;
                self.changed = true;
            }
        }
    }
}

impl<'a> FromIterator<(Cow<'a, str>, Value<'a>)> for Attributes<'a> {
    fn from_iter<I: IntoIterator<Item = (Cow<'a, str>, Value<'a>)>>(entries: I) -> Self {
        let entries = entries.into_iter().map(|(key, value)| Attribute { key, value, raw: None }).collect();
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
        let has = |attribute: &Attribute<'_>| other.get(&attribute.key).is_some_and(|value| attribute.value == *value);
        self.len() == other.len() && self.iter().all(has)
    }
}
