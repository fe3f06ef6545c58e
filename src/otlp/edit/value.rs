//! Attribute values: every kind that `AnyValue` has.

use super::attributes::{Attribute, Attributes};
use super::lazy::Lazy;
use super::write::put_message;
use crate::otlp::view::messages;
use crate::otlp::wire::{Payload, SoundFields, put_bytes, put_double_field, put_uint};
use std::borrow::Cow;

/// A value. Doubles compare as numbers do: NaN is not equal to itself.
#[derive(Debug, Clone, Default)]
pub enum Value<'a> {
    #[default]
    Empty,
    Text(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Cow<'a, [u8]>),
    List(List<'a>),
    Map(Map<'a>),
}

/// A list of values, read when somebody looks into it. Boxed: such values are rare, and others stay small.
#[derive(Debug, Clone)]
pub struct List<'a>(Box<Nested<'a, Vec<Value<'a>>>>);

/// A map of values, read when somebody looks into it.
#[derive(Debug, Clone)]
pub struct Map<'a>(Box<Nested<'a, Attributes<'a>>>);

#[derive(Debug, Clone)]
struct Nested<'a, T> {
    /// The message as it came, while nobody changed it.
    raw: Option<&'a [u8]>,
    parsed: Lazy<T>,
}

impl<'a, T> Nested<'a, T> {
    fn raw(raw: &'a [u8]) -> Box<Self> {
        Box::new(Self { raw: Some(raw), parsed: Lazy::new() })
    }

    fn parsed(value: T) -> Box<Self> {
        Box::new(Self { raw: None, parsed: Lazy::made(value) })
    }

    fn get(&self, parse: impl FnOnce(&'a [u8]) -> T) -> &T {
        self.parsed.get(|| parse(self.raw.unwrap_or_default()))
    }

    fn get_mut(&mut self, parse: impl FnOnce(&'a [u8]) -> T) -> &mut T {
        let raw = self.raw.take().unwrap_or_default();
        self.parsed.get_mut(|| parse(raw))
    }
}

/// The text, with replacement characters where it is no UTF-8. Sound texts, short ones above all,
/// are told faster than by `from_utf8_lossy` alone.
pub(super) fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

fn values(list: &[u8]) -> Vec<Value<'_>> {
    messages(list, 1).map(Value::parse).collect()
}

fn entries(map: &[u8]) -> Attributes<'_> {
    Attributes::parse(map, 1)
}

impl<'a> List<'a> {
    pub fn items(&self) -> &[Value<'a>] {
        self.0.get(values)
    }

    pub fn items_mut(&mut self) -> &mut Vec<Value<'a>> {
        self.0.get_mut(values)
    }
}

impl<'a> From<Vec<Value<'a>>> for List<'a> {
    fn from(items: Vec<Value<'a>>) -> Self {
        Self(Nested::parsed(items))
    }
}

impl<'a> Map<'a> {
    pub fn entries(&self) -> &Attributes<'a> {
        self.0.get(entries)
    }

    pub fn entries_mut(&mut self) -> &mut Attributes<'a> {
        self.0.get_mut(entries)
    }
}

impl<'a> From<Attributes<'a>> for Map<'a> {
    fn from(entries: Attributes<'a>) -> Self {
        Self(Nested::parsed(entries))
    }
}

// Written out, because what is compared need not live equally long.
impl<'b> PartialEq<Value<'b>> for Value<'_> {
    fn eq(&self, other: &Value<'b>) -> bool {
        match (self, other) {
            (Self::Empty, Value::Empty) => true,
            (Self::Text(this), Value::Text(other)) => this == other,
            (Self::Bool(this), Value::Bool(other)) => this == other,
            (Self::Int(this), Value::Int(other)) => this == other,
            (Self::Double(this), Value::Double(other)) => this == other,
            (Self::Bytes(this), Value::Bytes(other)) => this == other,
            (Self::List(this), Value::List(other)) => this.items() == other.items(),
            (Self::Map(this), Value::Map(other)) => this.entries() == other.entries(),
            _ => false,
        }
    }
}

impl<'a> Value<'a> {
    /// An `AnyValue`: of several alternatives the last on the wire counts.
    pub(super) fn parse(raw: &'a [u8]) -> Self {
        let mut value = Self::Empty;
        for field in SoundFields::new(raw) {
            value = match (field.number, field.payload) {
                (1, Payload::Bytes(text)) => Self::Text(text_of(text)),
                (2, Payload::Varint(bool)) => Self::Bool(bool != 0),
                (3, Payload::Varint(int)) => Self::Int(int as i64),
                (4, Payload::Fixed64(bits)) => Self::Double(f64::from_bits(bits)),
                (5, Payload::Bytes(list)) => Self::List(List(Nested::raw(list))),
                (6, Payload::Bytes(map)) => Self::Map(Map(Nested::raw(map))),
                (7, Payload::Bytes(bytes)) => Self::Bytes(Cow::Borrowed(bytes)),
                _ => continue,
            };
        }
        value
    }

    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A copy that borrows nothing.
    pub fn detached<'b>(&self) -> Value<'b> {
        match self {
            Self::Empty => Value::Empty,
            Self::Text(text) => Value::Text(Cow::Owned(text.to_string())),
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Double(value) => Value::Double(*value),
            Self::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.to_vec())),
            Self::List(list) => Value::List(list.items().iter().map(Value::detached).collect::<Vec<_>>().into()),
            Self::Map(map) => {
                let entry = |entry: &Attribute<'_>| (Cow::Owned(entry.key().to_owned()), entry.value().detached());
                Value::Map(map.entries().iter().map(entry).collect::<Attributes<'b>>().into())
            }
        }
    }

    /// The content of an `AnyValue`.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => {}
            Self::Text(text) => put_bytes(out, 1, text.as_bytes()),
            Self::Bool(bool) => put_uint(out, 2, u64::from(*bool)),
            Self::Int(int) => put_uint(out, 3, *int as u64),
            Self::Double(double) => put_double_field(out, 4, *double),
            Self::List(List(nested)) => match nested.raw {
                Some(raw) => put_bytes(out, 5, raw),
                None => put_message(out, 5, self.len_hint(), |out| {
                    for item in nested.get(values) {
                        put_message(out, 1, item.len_hint(), |out| item.put(out));
                    }
                }),
            },
            Self::Map(Map(nested)) => match nested.raw {
                Some(raw) => put_bytes(out, 6, raw),
                None => put_message(out, 6, self.len_hint(), |out| nested.get(entries).put(out, 1)),
            },
            Self::Bytes(bytes) => put_bytes(out, 7, bytes),
        }
    }

    /// About how long [`Value::put`] writes; nested values that were changed are guessed.
    pub(super) fn len_hint(&self) -> usize {
        /// A changed list or map: their lengths are found when they are written.
        const NESTED_BYTES: usize = 64;
        match self {
            Self::Empty => 0,
            Self::Text(text) => 2 + text.len(),
            Self::Bool(_) => 2,
            Self::Int(_) => 4,
            Self::Double(_) => 9,
            Self::Bytes(bytes) => 2 + bytes.len(),
            Self::List(List(nested)) => nested.raw.map_or(NESTED_BYTES, |raw| 2 + raw.len()),
            Self::Map(Map(nested)) => nested.raw.map_or(NESTED_BYTES, |raw| 2 + raw.len()),
        }
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value<'_> {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Cow::Borrowed(value))
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Text(Cow::Owned(value))
    }
}
