//! What is looked at of a span: read in place, in one walk over its fields and, where asked for, one over its attributes.

use crate::otlp::wire::{Fields, Payload};
use std::io::Write as _;

/// `SpanKind` of OTLP.
pub mod kind {
    pub const SERVER: u64 = 2;
    pub const CLIENT: u64 = 3;
    pub const PRODUCER: u64 = 4;
    pub const CONSUMER: u64 = 5;
}

/// `STATUS_CODE_ERROR`.
pub const STATUS_ERROR: u64 = 2;

/// A span's own fields. Ids are as long as the scan allows: 16, 8, and 8 or none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    pub trace_id: &'a [u8],
    pub span_id: &'a [u8],
    pub parent_id: &'a [u8],
    pub name: &'a [u8],
    pub kind: u64,
    /// Unix nanoseconds.
    pub start: u64,
    pub end: u64,
    pub status_code: u64,
    pub status_message: &'a [u8],
    /// Of the encoded span.
    pub bytes: usize,
}

impl<'a> Facts<'a> {
    pub fn read(span: &'a [u8]) -> Self {
        let mut facts = Self { bytes: span.len(), ..Self::default() };
        for field in Fields::new(span).map_while(Result::ok) {
            match (field.number, field.payload) {
                (1, Payload::Bytes(id)) => facts.trace_id = id,
                (2, Payload::Bytes(id)) => facts.span_id = id,
                (4, Payload::Bytes(id)) => facts.parent_id = id,
                (5, Payload::Bytes(name)) => facts.name = name,
                (6, Payload::Varint(kind)) => facts.kind = kind,
                (7, Payload::Fixed64(nanos)) => facts.start = nanos,
                (8, Payload::Fixed64(nanos)) => facts.end = nanos,
                (15, Payload::Bytes(status)) => facts.read_status(status),
                _ => {}
            }
        }
        facts
    }

    fn read_status(&mut self, status: &'a [u8]) {
        for field in Fields::new(status).map_while(Result::ok) {
            match (field.number, field.payload) {
                (2, Payload::Bytes(message)) => self.status_message = message,
                (3, Payload::Varint(code)) => self.status_code = code,
                _ => {}
            }
        }
    }

    /// Seconds; an end before the start counts as zero.
    pub fn seconds(&self) -> f64 {
        self.end.saturating_sub(self.start) as f64 / 1e9
    }

    pub fn is_error(&self) -> bool {
        self.status_code == STATUS_ERROR
    }

    /// No parent: an empty id, or one of zeros.
    pub fn is_root(&self) -> bool {
        self.parent_id.iter().all(|byte| *byte == 0)
    }

    pub fn trace(&self) -> [u8; 16] {
        self.trace_id.try_into().unwrap_or_default()
    }

    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            1 => "SPAN_KIND_INTERNAL",
            kind::SERVER => "SPAN_KIND_SERVER",
            kind::CLIENT => "SPAN_KIND_CLIENT",
            kind::PRODUCER => "SPAN_KIND_PRODUCER",
            kind::CONSUMER => "SPAN_KIND_CONSUMER",
            _ => "SPAN_KIND_UNSPECIFIED",
        }
    }

    pub fn status_name(&self) -> &'static str {
        match self.status_code {
            1 => "STATUS_CODE_OK",
            STATUS_ERROR => "STATUS_CODE_ERROR",
            _ => "STATUS_CODE_UNSET",
        }
    }
}

/// The resource that spans stand under.
#[derive(Debug, Clone, Copy)]
pub struct Resource<'a> {
    /// The ResourceSpans message.
    pub message: &'a [u8],
    /// Its attributes by the index of [`Keys`].
    pub found: &'a [Option<Value<'a>>],
}

/// An attribute's value, where it is a plain one. Arrays, maps and bytes are no label's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Text(&'a [u8]),
    Int(i64),
    Bool(bool),
    Double(f64),
}

impl Value<'_> {
    /// As text.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => out.extend_from_slice(text),
            // Writing into memory does not fail.
            Self::Int(int) => drop(write!(out, "{int}")),
            Self::Bool(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
            Self::Double(double) => drop(write!(out, "{double}")),
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }
}

/// The attribute keys that somebody looks for, found together in one walk.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    names: Vec<Box<[u8]>>,
    /// Bit n: some key is n bytes long (63 and longer share the last bit), so that most attributes are passed over unread.
    lengths: u64,
}

impl Keys {
    /// The index of `name` in what [`Self::find`] finds.
    pub fn index_of(&mut self, name: &str) -> usize {
        self.lengths |= 1 << name.len().min(63);
        let known = self.names.iter().position(|known| **known == *name.as_bytes());
        known.unwrap_or_else(|| {
            self.names.push(name.as_bytes().into());
            self.names.len() - 1
        })
    }

    pub fn nothing_found<'a>(&self) -> Vec<Option<Value<'a>>> {
        vec![None; self.names.len()]
    }

    /// Looks through the attributes of `message` (its field `number`). Of several of a name the first counts.
    pub fn find<'a>(&self, message: &'a [u8], number: u32, found: &mut [Option<Value<'a>>]) {
        for field in Fields::new(message).map_while(Result::ok) {
            let Some(attribute) = field.bytes(number) else { continue };
            let (mut key, mut value): (&[u8], _) = (&[], None);
            for field in Fields::new(attribute).map_while(Result::ok) {
                match (field.number, field.payload) {
                    (1, Payload::Bytes(bytes)) => key = bytes,
                    (2, Payload::Bytes(bytes)) => value = Some(bytes),
                    _ => {}
                }
            }
            if self.lengths >> key.len().min(63) & 1 == 0 {
                continue;
            }
            let Some(index) = self.names.iter().position(|name| **name == *key) else { continue };
            if let Some(place @ None) = found.get_mut(index) {
                *place = value.and_then(plain_value);
            }
        }
    }
}

/// The name and value of every attribute of a message, in order.
pub fn attributes(message: &[u8], number: u32) -> impl Iterator<Item = (&[u8], Option<Value<'_>>)> {
    Fields::new(message).map_while(Result::ok).filter_map(move |field| {
        let (mut key, mut value): (&[u8], _) = (&[], None);
        for field in Fields::new(field.bytes(number)?).map_while(Result::ok) {
            match (field.number, field.payload) {
                (1, Payload::Bytes(bytes)) => key = bytes,
                (2, Payload::Bytes(bytes)) => value = Some(bytes),
                _ => {}
            }
        }
        Some((key, value.and_then(plain_value)))
    })
}

/// The value of an AnyValue message; of a oneof the last field counts.
fn plain_value(message: &[u8]) -> Option<Value<'_>> {
    let mut value = None;
    for field in Fields::new(message).map_while(Result::ok) {
        value = match (field.number, field.payload) {
            (1, Payload::Bytes(text)) => Some(Value::Text(text)),
            (2, Payload::Varint(truth)) => Some(Value::Bool(truth != 0)),
            (3, Payload::Varint(int)) => Some(Value::Int(int as i64)),
            (4, Payload::Fixed64(bits)) => Some(Value::Double(f64::from_bits(bits))),
            (5..=7, _) => None,
            _ => value,
        };
    }
    value
}
