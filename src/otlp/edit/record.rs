//! One message as it came, with what was changed laid over it.

use super::Effect;
use super::attributes::{Attributes, has_key};
use super::lazy::Lazy;
use super::value::text_of;
use super::write::Verbatim;
use crate::otlp::wire::{Field, Payload, SoundFields, put_bytes, put_fixed32, put_fixed64, put_uint};
use std::borrow::Cow;

/// A message with scalar fields and, under one number, attributes.
#[derive(Debug)]
pub(super) struct Record<'a> {
    raw: &'a [u8],
    /// By field number; each takes the place of all fields of that number.
    changes: Vec<(u32, Scalar<'a>)>,
    /// 0: it has none.
    attributes_number: u32,
    attributes: Lazy<Attributes<'a>>,
}

/// The new value of a field. Zero and empty are not written, as proto3 has it.
#[derive(Debug, Clone)]
pub(super) enum Scalar<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Cow<'a, [u8]>),
}

impl<'a> Scalar<'a> {
    pub fn text(text: Cow<'a, str>) -> Self {
        Self::Bytes(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })
    }

    fn put(&self, out: &mut Vec<u8>, number: u32) {
        match self {
            Self::Varint(0) | Self::Fixed64(0) | Self::Fixed32(0) => {}
            Self::Varint(value) => put_uint(out, number, *value),
            Self::Fixed64(value) => put_fixed64(out, number, *value),
            Self::Fixed32(value) => put_fixed32(out, number, *value),
            Self::Bytes(bytes) if bytes.is_empty() => {}
            Self::Bytes(bytes) => put_bytes(out, number, bytes),
        }
    }

    fn payload(&self) -> Payload<'_> {
        match self {
            Self::Varint(value) => Payload::Varint(*value),
            Self::Fixed64(value) => Payload::Fixed64(*value),
            Self::Fixed32(value) => Payload::Fixed32(*value),
            Self::Bytes(bytes) => Payload::Bytes(bytes),
        }
    }
}

impl<'a> Record<'a> {
    pub fn new(raw: &'a [u8], attributes_number: u32) -> Self {
        Self { raw, changes: Vec::new(), attributes_number, attributes: Lazy::new() }
    }

    /// Without attributes.
    pub fn plain(raw: &'a [u8]) -> Self {
        Self::new(raw, 0)
    }

    /// Whether this is the message with exactly these bytes, by their place and not by what they say.
    pub fn is_of(&self, payload: &[u8]) -> bool {
        std::ptr::eq(self.raw, payload)
    }

    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The field as it is now; of several the last counts.
    pub fn get(&self, number: u32) -> Option<Payload<'_>> {
        match self.changes.iter().find(|(changed, _)| *changed == number) {
            Some((_, scalar)) => Some(scalar.payload()),
            None => {
                let mut found = None;
                for field in SoundFields::new(self.raw) {
                    if field.number == number {
                        found = Some(field.payload);
                    }
                }
                found
            }
        }
    }

    pub fn set(&mut self, number: u32, value: Scalar<'a>) {
        match self.changes.iter_mut().find(|(changed, _)| *changed == number) {
            Some((_, known)) => *known = value,
            None => self.changes.push((number, value)),
        }
    }

    pub fn bytes(&self, number: u32) -> &[u8] {
        match self.get(number) {
            Some(Payload::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    /// Bytes that are no UTF-8 read as replacement characters.
    pub fn text(&self, number: u32) -> Cow<'_, str> {
        text_of(self.bytes(number))
    }

    pub fn varint(&self, number: u32) -> u64 {
        match self.get(number) {
            Some(Payload::Varint(value)) => value,
            _ => 0,
        }
    }

    pub fn fixed64(&self, number: u32) -> u64 {
        match self.get(number) {
            Some(Payload::Fixed64(value)) => value,
            _ => 0,
        }
    }

    pub fn fixed32(&self, number: u32) -> u32 {
        match self.get(number) {
            Some(Payload::Fixed32(value)) => value,
            _ => 0,
        }
    }

    pub fn attributes(&self) -> &Attributes<'a> {
        self.attributes.get(|| Attributes::parse(self.raw, self.attributes_number))
    }

    /// As asking the attributes, but without reading them all for that.
    pub fn has_attribute(&self, key: &str) -> bool {
        match self.attributes.known() {
            Some(attributes) => attributes.contains(key),
            None => has_key(self.raw, self.attributes_number, key),
        }
    }

    pub fn attributes_mut(&mut self) -> &mut Attributes<'a> {
        let (raw, number) = (self.raw, self.attributes_number);
        self.attributes.get_mut(|| Attributes::parse(raw, number))
    }

    pub fn is_changed(&self) -> bool {
        !self.changes.is_empty() || self.attributes.known().is_some_and(Attributes::is_changed)
    }

    /// What the changes mean for a scan that looks at the fields `described`.
    pub fn effect(&self, described: &[u32]) -> Effect {
        let is_described = |(number, _): &(u32, Scalar<'_>)| described.contains(number);
        if self.changes.iter().any(is_described) || self.attributes.known().is_some_and(Attributes::has_new_nesting) {
            Effect::Unknown
        } else {
            Effect::Described
        }
    }

    pub fn encode_alone(&self, out: &mut Vec<u8>) {
        self.encode(out, &[], |_, _| false);
    }

    /// Writes the message as it is now. `replaced` is asked about the fields `asked` that are not changed here: it returns
    /// true if it wrote, or left out, something in their place.
    pub fn encode(&self, out: &mut Vec<u8>, asked: &[u32], mut replaced: impl FnMut(&mut Vec<u8>, &Field<'a>) -> bool) {
        let mut attributes = self.attributes.known().filter(|attributes| attributes.is_changed());
        let attributes_number = attributes.map(|_| self.attributes_number);
        let changed_numbers = self.changes.iter().map(|(number, _)| *number);
        let touched = bits(changed_numbers.chain(attributes_number).chain(asked.iter().copied()));
        let mut written = 0u64;
        let mut verbatim = Verbatim::of(self.raw);
        for field in SoundFields::new(self.raw) {
            if bits([field.number]) & touched == 0 {
                verbatim.keep(&field);
                continue;
            }
            verbatim.put(out);
            if let Some((number, scalar)) = self.changes.iter().find(|(number, _)| *number == field.number) {
                if written & bits([*number]) == 0 {
                    scalar.put(out, *number);
                    written |= bits([*number]);
                }
            } else if attributes_number == Some(field.number) {
                if let Some(attributes) = attributes.take() {
                    attributes.put(out, field.number);
                }
            } else if !replaced(out, &field) {
                verbatim.keep(&field);
                continue;
            }
            verbatim.leave_out(&field);
        }
        verbatim.put(out);
        for (number, scalar) in &self.changes {
            if written & bits([*number]) == 0 {
                scalar.put(out, *number);
            }
        }
        if let Some(attributes) = attributes {
            attributes.put(out, self.attributes_number);
        }
    }
}

/// A set of field numbers. Those that can be changed are small; the others are in none.
fn bits(numbers: impl IntoIterator<Item = u32>) -> u64 {
    numbers.into_iter().fold(0, |bits, number| bits | 1u64.checked_shl(number).unwrap_or(0))
}
