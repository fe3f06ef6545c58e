//! What is looked at of a span: read in place, in one walk over its fields and, where asked for, one over its attributes.

use crate::otlp::plain::plain_value;
pub use crate::otlp::plain::{Value, attributes};
use crate::otlp::wire::{Fields, Payload};

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
    pub trace_state: &'a [u8],
    /// The encoded span.
    pub message: &'a [u8],
}

impl<'a> Facts<'a> {
    pub fn read(span: &'a [u8]) -> Self {
        let mut facts = Self { message: span, ..Self::default() };
        for field in Fields::new(span).map_while(Result::ok) {
            match (field.number, field.payload) {
                (1, Payload::Bytes(id)) => facts.trace_id = id,
                (2, Payload::Bytes(id)) => facts.span_id = id,
                (3, Payload::Bytes(state)) => facts.trace_state = state,
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

    /// The duration; an end before the start counts as zero.
    pub fn nanos(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    pub fn seconds(&self) -> f64 {
        self.nanos() as f64 / 1e9
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
