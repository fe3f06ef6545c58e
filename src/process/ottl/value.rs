//! What expressions give: OTTL's types, and how they compare.
//!
//! A value borrows texts, lists and maps from the request or from the configuration (`'v`) for as long as nobody changes
//! them, so that reading allocates nothing. What is put into a request must live as long as it does (`'a`).

use std::borrow::Cow;
use std::cmp::Ordering;

use super::ast::Comparison;
use super::failure::Failure;
use crate::otlp::edit::{self, Attributes, List};
use crate::otlp::{SpanId, TraceId};

#[derive(Debug, Clone)]
pub enum Value<'v, 'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'v, str>),
    Bytes(Cow<'v, [u8]>),
    List(Cow<'v, List<'a>>),
    Map(Cow<'v, Attributes<'a>>),
    /// Nanoseconds since 1970.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
    TraceId(TraceId),
    SpanId(SpanId),
    /// The events or links of a span: how many there are is all that can be asked.
    Messages(usize),
}

/// A set of types, for checks while a statement is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types(u16);

impl Types {
    pub const NIL: Self = Self(1);
    pub const BOOL: Self = Self(1 << 1);
    pub const INT: Self = Self(1 << 2);
    pub const DOUBLE: Self = Self(1 << 3);
    pub const TEXT: Self = Self(1 << 4);
    pub const BYTES: Self = Self(1 << 5);
    pub const LIST: Self = Self(1 << 6);
    pub const MAP: Self = Self(1 << 7);
    pub const TIME: Self = Self(1 << 8);
    pub const DURATION: Self = Self(1 << 9);
    pub const TRACE_ID: Self = Self(1 << 10);
    pub const SPAN_ID: Self = Self(1 << 11);
    pub const MESSAGES: Self = Self(1 << 12);
    pub const NONE: Self = Self(0);
    pub const ANY: Self = Self((1 << 13) - 1);
    pub const NUMBER: Self = Self::INT.or(Self::DOUBLE);
    /// What an attribute holds.
    pub const ATTRIBUTE: Self = Self((1 << 8) - 1);

    const NAMES: [&'static str; 13] = [
        "nothing",
        "a boolean",
        "a whole number",
        "a float",
        "a text",
        "bytes",
        "a list",
        "a map",
        "a time",
        "a duration",
        "a trace id",
        "a span id",
        "events or links",
    ];

    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// `a text or bytes`
    pub fn words(self) -> String {
        let names: Vec<&str> =
            Self::NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name).collect();
        match names.as_slice() {
            [] => "nothing".to_owned(),
            [one] => (*one).to_owned(),
            [first @ .., last] => format!("{} or {last}", first.join(", ")),
        }
    }
}

impl<'v, 'a> Value<'v, 'a> {
    /// An attribute, or an entry of a list or map.
    pub fn of(value: &'v edit::Value<'a>) -> Self {
        match value {
            edit::Value::Empty => Self::Nil,
            edit::Value::Bool(value) => Self::Bool(*value),
            edit::Value::Int(value) => Self::Int(*value),
            edit::Value::Double(value) => Self::Double(*value),
            edit::Value::Text(text) => Self::Text(Cow::Borrowed(text)),
            edit::Value::Bytes(bytes) => Self::Bytes(Cow::Borrowed(bytes)),
            edit::Value::List(list) => Self::List(Cow::Borrowed(list)),
            edit::Value::Map(map) => Self::Map(Cow::Borrowed(map.entries())),
        }
    }

    pub fn text(text: impl Into<Cow<'v, str>>) -> Self {
        Self::Text(text.into())
    }

    pub fn list(items: Vec<edit::Value<'a>>) -> Self {
        Self::List(Cow::Owned(List::from(items)))
    }

    pub fn map(entries: Attributes<'a>) -> Self {
        Self::Map(Cow::Owned(entries))
    }

    /// The same, borrowing from nothing but the request as it came.
    pub fn detached(self) -> Value<'a, 'a> {
        match self {
            Self::Nil => Value::Nil,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Double(value) => Value::Double(value),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Self::List(list) => Value::List(Cow::Owned(list.into_owned())),
            Self::Map(map) => Value::Map(Cow::Owned(map.into_owned())),
            Self::Time(value) => Value::Time(value),
            Self::Duration(value) => Value::Duration(value),
            Self::TraceId(id) => Value::TraceId(id),
            Self::SpanId(id) => Value::SpanId(id),
            Self::Messages(count) => Value::Messages(count),
        }
    }

    /// Its one type.
    pub fn types(&self) -> Types {
        match self {
            Self::Nil => Types::NIL,
            Self::Bool(_) => Types::BOOL,
            Self::Int(_) => Types::INT,
            Self::Double(_) => Types::DOUBLE,
            Self::Text(_) => Types::TEXT,
            Self::Bytes(_) => Types::BYTES,
            Self::List(_) => Types::LIST,
            Self::Map(_) => Types::MAP,
            Self::Time(_) => Types::TIME,
            Self::Duration(_) => Types::DURATION,
            Self::TraceId(_) => Types::TRACE_ID,
            Self::SpanId(_) => Types::SPAN_ID,
            Self::Messages(_) => Types::MESSAGES,
        }
    }

    /// Nil, or bytes of which there are none: a Collector cannot tell the two apart.
    fn is_nil(&self) -> bool {
        match self {
            Self::Nil => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            _ => false,
        }
    }
}

impl<'a> Value<'a, 'a> {
    /// As an attribute holds it. Times, durations and ids cannot be held.
    pub fn into_attribute(self) -> Result<edit::Value<'a>, Failure> {
        Ok(match self {
            Self::Nil => edit::Value::Empty,
            Self::Bool(value) => edit::Value::Bool(value),
            Self::Int(value) => edit::Value::Int(value),
            Self::Double(value) => edit::Value::Double(value),
            Self::Text(text) => edit::Value::Text(text),
            Self::Bytes(bytes) => edit::Value::Bytes(bytes),
            Self::List(list) => edit::Value::List(list.into_owned()),
            Self::Map(map) => edit::Value::Map(map.into_owned().into()),
            other => return Err(Failure::Unsettable { wanted: "an attribute", found: other.types() }),
        })
    }
}

/// An attribute that borrows from nothing but the request as it came, which costs nothing while it was not changed.
pub fn attribute<'a>(value: &edit::Value<'a>) -> Value<'a, 'a> {
    match value.clone() {
        edit::Value::Empty => Value::Nil,
        edit::Value::Bool(value) => Value::Bool(value),
        edit::Value::Int(value) => Value::Int(value),
        edit::Value::Double(value) => Value::Double(value),
        edit::Value::Text(text) => Value::Text(text),
        edit::Value::Bytes(bytes) => Value::Bytes(bytes),
        edit::Value::List(list) => Value::List(Cow::Owned(list)),
        edit::Value::Map(map) => Value::map(map.entries().clone()),
    }
}

/// Whether the comparison holds. Values of different types are not equal and have no order, but numbers compare as floats.
/// Within lists and maps even those are told apart, and the order of a map is not looked at.
pub fn compare(left: &Value<'_, '_>, comparison: Comparison, right: &Value<'_, '_>) -> bool {
    if left.is_nil() && right.is_nil() {
        return holds(comparison, Some(Ordering::Equal));
    }
    let equality = |equal: bool| match comparison {
        Comparison::Equal => equal,
        Comparison::NotEqual => !equal,
        _ => false,
    };
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => holds(comparison, Some(left.cmp(right))),
        (Value::Int(left), Value::Int(right))
        | (Value::Time(left), Value::Time(right))
        | (Value::Duration(left), Value::Duration(right)) => holds(comparison, Some(left.cmp(right))),
        (Value::Int(left), Value::Double(right)) => holds(comparison, (*left as f64).partial_cmp(right)),
        (Value::Double(left), Value::Int(right)) => holds(comparison, left.partial_cmp(&(*right as f64))),
        (Value::Double(left), Value::Double(right)) => holds(comparison, left.partial_cmp(right)),
        (Value::Text(left), Value::Text(right)) => holds(comparison, Some(left.as_bytes().cmp(right.as_bytes()))),
        (Value::Bytes(left), Value::Bytes(right)) => holds(comparison, Some(left.cmp(right))),
        (Value::TraceId(left), Value::TraceId(right)) => equality(left == right),
        (Value::SpanId(left), Value::SpanId(right)) => equality(left == right),
        (Value::List(left), Value::List(right)) => equality(left.items() == right.items()),
        (Value::Map(left), Value::Map(right)) => equality(left.as_ref() == right.as_ref()),
        _ => comparison == Comparison::NotEqual,
    }
}

fn holds(comparison: Comparison, order: Option<Ordering>) -> bool {
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}
