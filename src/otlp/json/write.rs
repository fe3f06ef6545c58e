//! Protobuf to JSON, in either dialect, driven by the schema.
//!
//! Members come in the schema's order wherever they stand on the wire: the message is walked once for what is there,
//! then once per present field, which allocates nothing. Fields that the schema does not know have no JSON form and
//! are left out.

use std::borrow::Cow;
use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{MESSAGE_DEPTH_MAX, Output};
use crate::otlp::schema::{Field, Kind, Message, Presence};
use crate::otlp::wire::{Fields, Payload, WireError, WireProblem};

/// Where OTLP's JSON and Tempo's differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// As a Collector writes it: hex ids, enums as numbers, `resource`, `scope` and `status` always there.
    Otlp,
    /// gogo/jsonpb: base64 ids, enums by name, messages only where they are.
    Tempo,
}

/// Appends `bytes`, a `message`, as a JSON object.
pub(super) fn write<O: Output>(
    out: &mut O,
    dialect: Dialect,
    message: &'static Message,
    bytes: &[u8],
) -> Result<(), WireError> {
    Writer { out, dialect }.message(message, bytes, 0)
}

struct Writer<'o, O> {
    out: &'o mut O,
    dialect: Dialect,
}

impl<O: Output> Writer<'_, O> {
    fn message(&mut self, message: &'static Message, bytes: &[u8], depth: usize) -> Result<(), WireError> {
        if depth > MESSAGE_DEPTH_MAX {
            return Err(WireError { offset: 0, problem: WireProblem::Nesting });
        }
        let present = Present::of(message, bytes)?;
        let mut first = true;
        self.out.bytes().push(b'{');
        for (index, field) in message.fields.iter().enumerate() {
            if !present.has(index, field) {
                if field.presence == Presence::Always && self.dialect == Dialect::Otlp {
                    self.name(field, &mut first);
                    self.out.bytes().extend_from_slice(b"{}");
                }
                continue;
            }
            match (field.presence, field.kind) {
                (Presence::Repeated, _) => {
                    self.name(field, &mut first);
                    self.array(field, bytes, depth)?;
                }
                (_, Kind::Message(inner)) => {
                    self.name(field, &mut first);
                    self.message(inner, &merged(field, bytes)?, depth + 1)?;
                }
                _ => {
                    // Of several, the last counts.
                    let mut last = None;
                    for payload in payloads(field, bytes) {
                        last = Some(payload?);
                    }
                    let is_explicit = matches!(field.presence, Presence::OneOf | Presence::Optional);
                    if let Some(payload) = last.filter(|payload| is_explicit || !zero(payload)) {
                        self.name(field, &mut first);
                        self.scalar(field.kind, payload);
                    }
                }
            }
        }
        self.out.bytes().push(b'}');
        Ok(())
    }

    fn array(&mut self, field: &'static Field, bytes: &[u8], depth: usize) -> Result<(), WireError> {
        self.out.bytes().push(b'[');
        let mut first = true;
        for payload in payloads(field, bytes) {
            let payload = payload?;
            if let (true, Payload::Bytes(numbers)) = (field.is_packed(), payload) {
                for number in packed(field.kind, numbers) {
                    self.comma(&mut first);
                    self.scalar(field.kind, number?);
                }
                continue;
            }
            self.comma(&mut first);
            match (field.kind, payload) {
                (Kind::Message(inner), Payload::Bytes(bytes)) => self.message(inner, bytes, depth + 1)?,
                (kind, payload) => self.scalar(kind, payload),
            }
            if !self.out.goes_on() {
                return Ok(());
            }
        }
        self.out.bytes().push(b']');
        Ok(())
    }

    fn comma(&mut self, first: &mut bool) {
        if !std::mem::take(first) {
            self.out.bytes().push(b',');
        }
    }

    fn name(&mut self, field: &Field, first: &mut bool) {
        self.comma(first);
        self.out.bytes().push(b'"');
        self.out.bytes().extend_from_slice(field.json.as_bytes());
        self.out.bytes().extend_from_slice(b"\":");
    }

    fn scalar(&mut self, kind: Kind, payload: Payload<'_>) {
        match (kind, payload) {
            (Kind::String, Payload::Bytes(bytes)) => {
                super::put_string(self.out.bytes(), &String::from_utf8_lossy(bytes))
            }
            (Kind::Id(_), Payload::Bytes(bytes)) if self.dialect == Dialect::Otlp => {
                self.text(|out| bytes.iter().for_each(|byte| push(out, format_args!("{byte:02x}"))));
            }
            (Kind::Bytes | Kind::Id(_), Payload::Bytes(bytes)) => {
                self.text(|out| out.extend_from_slice(BASE64.encode(bytes).as_bytes()));
            }
            (Kind::Bool, Payload::Varint(value)) => push(self.out.bytes(), format_args!("{}", value != 0)),
            (Kind::Int32, Payload::Varint(value)) => push(self.out.bytes(), format_args!("{}", value as i32)),
            (Kind::Uint32, Payload::Varint(value)) => push(self.out.bytes(), format_args!("{}", value as u32)),
            (Kind::Sint32, Payload::Varint(value)) => {
                let value = value as u32;
                push(self.out.bytes(), format_args!("{}", (value >> 1) as i32 ^ -((value & 1) as i32)));
            }
            (Kind::Uint64, Payload::Varint(value)) => push(self.out.bytes(), format_args!("\"{value}\"")),
            (Kind::Sfixed64, Payload::Fixed64(value)) => push(self.out.bytes(), format_args!("\"{}\"", value as i64)),
            (Kind::Int64, Payload::Varint(value)) => push(self.out.bytes(), format_args!("\"{}\"", value as i64)),
            (Kind::Fixed64, Payload::Fixed64(value)) => push(self.out.bytes(), format_args!("\"{value}\"")),
            (Kind::Fixed32, Payload::Fixed32(value)) => push(self.out.bytes(), format_args!("{value}")),
            (Kind::Double, Payload::Fixed64(bits)) => double(self.out.bytes(), f64::from_bits(bits)),
            (Kind::Enum(names), Payload::Varint(value)) => {
                let number = value as i32;
                match names.name(number).filter(|_| self.dialect == Dialect::Tempo) {
                    Some(name) => self.text(|out| out.extend_from_slice(name.as_bytes())),
                    None => push(self.out.bytes(), format_args!("{number}")),
                }
            }
            // Not reached: `payloads` yields only payloads of the kind's wire type.
            _ => self.out.bytes().extend_from_slice(b"null"),
        }
    }

    fn text(&mut self, contents: impl FnOnce(&mut Vec<u8>)) {
        self.out.bytes().push(b'"');
        contents(self.out.bytes());
        self.out.bytes().push(b'"');
    }
}

/// Appends a number as Go's `encoding/json` writes it: plain digits from 1e-6 up to 1e21, else an exponent with its sign;
/// what JSON has no number for as a string.
pub(super) fn double(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else if magnitude == 0.0 || (1e-6..1e21).contains(&magnitude) {
        push(out, format_args!("{value}"));
    } else {
        let text = format!("{value:e}");
        let sign = if magnitude >= 1.0 { "e+" } else { "e" };
        out.extend_from_slice(text.replacen('e', sign, 1).as_bytes());
    }
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
}

/// Which fields of a message are on the wire.
struct Present {
    /// Bit per field, by its index in the schema.
    mask: u32,
    /// Of the alternatives, the one that counts.
    one_of: Option<usize>,
}

impl Present {
    fn of(message: &'static Message, bytes: &[u8]) -> Result<Self, WireError> {
        let mut present = Self { mask: 0, one_of: None };
        for wire_field in Fields::new(bytes) {
            let wire_field = wire_field?;
            let known = message.fields.iter().position(|field| field.number == wire_field.number);
            let Some((index, field)) = known.and_then(|index| Some((index, message.fields.get(index)?))) else {
                continue;
            };
            if fits(field, &wire_field.payload) {
                present.mask |= 1 << index;
                if field.presence == Presence::OneOf {
                    present.one_of = Some(index);
                }
            }
        }
        Ok(present)
    }

    fn has(&self, index: usize, field: &Field) -> bool {
        match field.presence {
            Presence::OneOf => self.one_of == Some(index),
            _ => self.mask >> index & 1 == 1,
        }
    }
}

/// Whether a payload has the wire type of `field`; others are treated like unknown fields.
fn fits(field: &Field, payload: &Payload<'_>) -> bool {
    let is_packed = field.is_packed() && matches!(payload, Payload::Bytes(_));
    is_packed
        || matches!(
            (field.kind, payload),
            (Kind::String | Kind::Bytes | Kind::Id(_) | Kind::Message(_), Payload::Bytes(_))
                | (
                    Kind::Bool | Kind::Int32 | Kind::Sint32 | Kind::Uint32 | Kind::Int64 | Kind::Uint64 | Kind::Enum(_),
                    Payload::Varint(_)
                )
                | (Kind::Fixed32, Payload::Fixed32(_))
                | (Kind::Fixed64 | Kind::Sfixed64 | Kind::Double, Payload::Fixed64(_))
        )
}

fn payloads<'a>(field: &'static Field, bytes: &'a [u8]) -> impl Iterator<Item = Result<Payload<'a>, WireError>> {
    Fields::new(bytes).filter_map(move |wire_field| match wire_field {
        Ok(found) if found.number == field.number && fits(field, &found.payload) => Some(Ok(found.payload)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

/// The numbers of a packed field.
fn packed(kind: Kind, bytes: &[u8]) -> impl Iterator<Item = Result<Payload<'_>, WireError>> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(position..).filter(|rest| !rest.is_empty())?;
        let broken = |problem| WireError { offset: position, problem };
        let (payload, len) = match kind {
            Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => match rest.first_chunk() {
                Some(number) => (Ok(Payload::Fixed64(u64::from_le_bytes(*number))), 8),
                None => (Err(broken(WireProblem::Truncated)), rest.len()),
            },
            Kind::Fixed32 => match rest.first_chunk() {
                Some(number) => (Ok(Payload::Fixed32(u32::from_le_bytes(*number))), 4),
                None => (Err(broken(WireProblem::Truncated)), rest.len()),
            },
            _ => match varint(rest) {
                Some((value, len)) => (Ok(Payload::Varint(value)), len),
                None => (Err(broken(WireProblem::Varint)), rest.len()),
            },
        };
        position += len;
        Some(payload)
    })
}

/// A varint and its length; `None` if it is cut off or longer than 64 bits.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return (index < 9 || byte <= 1).then_some((value, index + 1));
        }
    }
    None
}

/// A singular message's bytes. If it stands there several times, protobuf merges them, which is to join their bytes.
fn merged<'a>(field: &'static Field, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, WireError> {
    let mut whole = Cow::Borrowed(&[][..]);
    for (index, payload) in payloads(field, bytes).enumerate() {
        if let Payload::Bytes(part) = payload? {
            if index == 0 {
                whole = Cow::Borrowed(part);
            } else {
                whole.to_mut().extend_from_slice(part);
            }
        }
    }
    Ok(whole)
}

fn zero(payload: &Payload<'_>) -> bool {
    match payload {
        Payload::Varint(value) | Payload::Fixed64(value) => *value == 0,
        Payload::Fixed32(value) => *value == 0,
        Payload::Bytes(bytes) => bytes.is_empty(),
    }
}
