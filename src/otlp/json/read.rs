//! OTLP/JSON to protobuf, driven by the schema, in one pass over the text.
//!
//! A protobuf message is preceded by its length, which is known only when its object ends. So one byte is left for it,
//! which is enough for most; longer lengths are noted aside ([`Draft`]) and woven in at the end, in place: linear in the
//! input however deep messages nest. Open objects are a list, not the call stack; the list is also the error's field path.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::pull::Pull;
use super::{JsonError, JsonLimits, JsonProblem};
use crate::otlp::schema::{self, Field, Kind, Message, Presence};
use crate::otlp::wire;

type Result<T> = std::result::Result<T, JsonProblem>;

/// The id of a span whose id text was not hex: one byte, a length that no id has, so that the scan refuses the span.
const UNREADABLE_ID: &[u8] = &[0];

/// How much of a wrong enum name an error repeats.
const NAME_SHOWN_CHARS_MAX: usize = 40;

/// How many steps of a field path an error shows; deeper ones are nested values that repeat themselves.
const PATH_STEPS_MAX: usize = 16;

pub(super) fn convert(
    message: &'static Message,
    text: &[u8],
    limits: &JsonLimits,
) -> std::result::Result<Vec<u8>, JsonError> {
    let mut reader = Reader { pull: Pull::new(text), draft: Draft::new(text.len(), limits), open: Vec::new(), limits };
    if u32::try_from(text.len()).is_err() {
        return Err(JsonError::new(JsonProblem::TooLong, text, 0, String::new()));
    }
    match reader.document(message) {
        Ok(()) => Ok(reader.draft.weave()),
        Err(problem) => Err(JsonError::new(problem, text, reader.pull.position(), reader.path())),
    }
}

/// An object that has been opened and not yet closed.
struct OpenMessage {
    message: &'static Message,
    /// The place its length goes; the outermost message has none.
    length: Option<OpenLength>,
    any_value_depth: usize,
    first_key: bool,
    field: Option<&'static Field>,
    /// Inside the array of a repeated field: how many elements were begun.
    elements: Option<usize>,
    /// That array is one field with all elements in it.
    packed: Option<OpenLength>,
}

struct Reader<'a, 'l> {
    pull: Pull<'a>,
    draft: Draft,
    open: Vec<OpenMessage>,
    limits: &'l JsonLimits,
}

impl Reader<'_, '_> {
    /// The outermost object, or `null` for an empty request. What follows it is not looked at.
    fn document(&mut self, message: &'static Message) -> Result<()> {
        if self.pull.null()? {
            return Ok(());
        }
        self.pull.expect(b'{', "an object")?;
        self.push(message, None)?;
        while let Some(current) = self.open.last_mut() {
            if let (Some(field), Some(elements)) = (current.field, &mut current.elements) {
                let mut first = *elements == 0;
                if self.pull.element(&mut first)? {
                    *elements += 1;
                    self.value(field)?;
                    continue;
                }
                current.elements = None;
                if let Some(packed) = current.packed.take() {
                    self.draft.in_packed = false;
                    self.draft.close(packed)?;
                }
                continue;
            }
            current.field = None;
            let Some(key) = self.pull.key(&mut current.first_key)? else {
                if let Some(OpenMessage { length: Some(length), .. }) = self.open.pop() {
                    self.draft.close(length)?;
                }
                continue;
            };
            let Some(field) = current.message.by_name(&key) else {
                self.pull.skip()?;
                continue;
            };
            current.field = Some(field);
            if field.presence != Presence::Repeated {
                self.value(field)?;
            } else if !self.pull.null()? {
                self.pull.expect(b'[', "an array")?;
                current.elements = Some(0);
                if field.is_packed() {
                    current.packed = Some(self.draft.open(field.number)?);
                    self.draft.in_packed = true;
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, message: &'static Message, length: Option<OpenLength>) -> Result<()> {
        let outer_depth = self.open.last().map_or(0, |outer| outer.any_value_depth);
        let any_value_depth = outer_depth + usize::from(std::ptr::eq(message, &schema::ANY_VALUE));
        if any_value_depth > self.limits.any_value_depth_max {
            return Err(JsonProblem::TooDeep(self.limits.any_value_depth_max));
        }
        let opened = OpenMessage {
            message,
            length,
            any_value_depth,
            first_key: true,
            field: None,
            elements: None,
            packed: None,
        };
        self.open.push(opened);
        Ok(())
    }

    /// One value of `field`: a scalar is written, a message is opened.
    fn value(&mut self, field: &'static Field) -> Result<()> {
        let null = self.pull.null()?;
        // A singular null is the same as no member; in an array it is an empty element.
        if null && field.presence != Presence::Repeated {
            return Ok(());
        }
        match field.kind {
            Kind::Message(message) => {
                if !null {
                    self.pull.expect(b'{', "an object")?;
                }
                let length = self.draft.open(field.number)?;
                if null {
                    return self.draft.close(length);
                }
                self.push(message, Some(length))
            }
            Kind::String => {
                let text = if null { Cow::Borrowed(&[][..]) } else { self.pull.string()? };
                self.draft.bytes(field, &text)
            }
            Kind::Bytes => {
                let text = self.pull.string()?;
                let bytes = BASE64.decode(text).map_err(|_| JsonProblem::Base64)?;
                self.draft.bytes(field, &bytes)
            }
            Kind::Id(_) => {
                let text = self.pull.string()?;
                self.draft.bytes(field, hex(&text).as_deref().unwrap_or(UNREADABLE_ID))
            }
            _ => self.number(field),
        }
    }

    fn number(&mut self, field: &'static Field) -> Result<()> {
        match field.kind {
            Kind::Bool => {
                let value = self.pull.boolean()?;
                self.draft.varint(field, u64::from(value))
            }
            Kind::Int32 => {
                let value = self.integer(i64::from(i32::MIN), i128::from(i32::MAX))?;
                self.draft.varint(field, value as u64)
            }
            Kind::Sint32 => {
                let value = self.integer(i64::from(i32::MIN), i128::from(i32::MAX))? as i32;
                self.draft.varint(field, u64::from(((value << 1) ^ (value >> 31)) as u32))
            }
            Kind::Uint32 => {
                let value = self.integer(0, i128::from(u32::MAX))?;
                self.draft.varint(field, value as u64)
            }
            Kind::Uint64 => {
                let value = self.integer(0, i128::from(u64::MAX))?;
                self.draft.varint(field, value as u64)
            }
            Kind::Sfixed64 => {
                let value = self.integer(i64::MIN, i128::from(i64::MAX))?;
                self.draft.fixed64(field, value as u64)
            }
            Kind::Int64 => {
                let value = self.integer(i64::MIN, i128::from(i64::MAX))?;
                self.draft.varint(field, value as u64)
            }
            Kind::Enum(names) => {
                let value = if self.pull.peek()? == b'"' {
                    let name = self.pull.string()?;
                    i64::from(names.number(&name).ok_or_else(|| JsonProblem::EnumName(shown(&name)))?)
                } else {
                    self.integer(i64::from(i32::MIN), i128::from(i32::MAX))? as i64
                };
                self.draft.varint(field, value as u64)
            }
            Kind::Fixed32 => {
                let value = self.integer(0, i128::from(u32::MAX))?;
                self.draft.fixed32(field, value as u32)
            }
            Kind::Fixed64 => {
                let value = self.integer(0, i128::from(u64::MAX))?;
                self.draft.fixed64(field, value as u64)
            }
            Kind::Double => {
                let value = self.double()?;
                self.draft.fixed64(field, value.to_bits())
            }
            Kind::String | Kind::Bytes | Kind::Id(_) | Kind::Message(_) => Ok(()),
        }
    }

    /// A whole number, or a string that holds one.
    fn integer(&mut self, min: i64, max: i128) -> Result<i128> {
        let text = self.number_text()?;
        let value: i128 = text.parse().map_err(|_| JsonProblem::Integer)?;
        if value < i128::from(min) || value > max {
            return Err(JsonProblem::Range);
        }
        Ok(value)
    }

    /// A number, or a string that holds one or `NaN`, `Infinity`, `-Infinity`.
    fn double(&mut self) -> Result<f64> {
        let text = self.number_text()?;
        let value: f64 = text.parse().map_err(|_| JsonProblem::Expected("a number"))?;
        if value.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
            return Err(JsonProblem::Range);
        }
        Ok(value)
    }

    fn number_text(&mut self) -> Result<Cow<'_, str>> {
        if self.pull.peek()? != b'"' {
            return self.pull.number().map(Cow::Borrowed);
        }
        let text = self.pull.string()?;
        match text {
            Cow::Borrowed(text) => std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| JsonProblem::Integer),
            Cow::Owned(text) => String::from_utf8(text).map(Cow::Owned).map_err(|_| JsonProblem::Integer),
        }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for (step, open) in self.open.iter().enumerate() {
            let Some(field) = open.field else { break };
            if step == PATH_STEPS_MAX {
                path.push_str("...");
                break;
            }
            if step > 0 {
                path.push('.');
            }
            path.push_str(field.json);
            if let Some(elements) = open.elements {
                path.push_str(&format!("[{}]", elements.saturating_sub(1)));
            }
        }
        path
    }
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(NAME_SHOWN_CHARS_MAX).collect()
}

/// Where a message began in the draft.
struct OpenLength {
    /// Of the byte that is left for its length.
    position: usize,
    /// [`Draft::missing`] at that time.
    missing: usize,
}

/// A length that does not fit the byte left for it.
struct LongLength {
    /// Of that byte; below 4 GiB, like the text that is being converted.
    position: u32,
    value: u32,
}

/// Protobuf with one byte for each length, and the lengths that need more.
///
/// Most messages are shorter than 128 bytes, and a longer one takes 128 bytes or an object inside it that does: so a
/// document cannot make what is noted aside outgrow it by much, as it could if each `{}` were noted.
struct Draft {
    content: Vec<u8>,
    /// In the order in which messages ended.
    long: Vec<LongLength>,
    /// How many bytes the long lengths will take beyond the one that is left for each.
    missing: usize,
    /// Inside an array of numbers, which stand without tags.
    in_packed: bool,
    held_bytes_max: usize,
}

impl Draft {
    fn new(text_len: usize, limits: &JsonLimits) -> Self {
        // Protobuf is nearly always shorter than its JSON, so this never grows; pages it does not need stay untouched.
        let content = Vec::with_capacity(text_len.min(limits.held_bytes_max));
        Self { content, long: Vec::new(), missing: 0, in_packed: false, held_bytes_max: limits.held_bytes_max }
    }

    fn open(&mut self, number: u32) -> Result<OpenLength> {
        self.room_for(0)?;
        wire::put_varint(&mut self.content, u64::from(number) << 3 | 2);
        let open = OpenLength { position: self.content.len(), missing: self.missing };
        self.content.push(0);
        Ok(open)
    }

    fn close(&mut self, open: OpenLength) -> Result<()> {
        let len = self.content.len() - (open.position + 1) + self.missing - open.missing;
        if len < 0x80 {
            if let Some(byte) = self.content.get_mut(open.position) {
                *byte = len as u8;
            }
            return Ok(());
        }
        let (Ok(position), Ok(value)) = (u32::try_from(open.position), u32::try_from(len)) else {
            return Err(JsonProblem::TooLong);
        };
        // A full list doubles.
        let growth = if self.long.len() == self.long.capacity() { self.long.capacity() } else { 0 };
        self.room_for(growth * size_of::<LongLength>())?;
        self.long.push(LongLength { position, value });
        self.missing += wire::varint_len(len as u64) - 1;
        Ok(())
    }

    fn bytes(&mut self, field: &Field, bytes: &[u8]) -> Result<()> {
        self.room_for(bytes.len())?;
        if written(field, bytes.is_empty()) {
            wire::put_bytes(&mut self.content, field.number, bytes);
        }
        Ok(())
    }

    fn varint(&mut self, field: &Field, value: u64) -> Result<()> {
        self.room_for(0)?;
        if self.in_packed {
            wire::put_varint(&mut self.content, value);
        } else if written(field, value == 0) {
            wire::put_uint(&mut self.content, field.number, value);
        }
        Ok(())
    }

    fn fixed32(&mut self, field: &Field, value: u32) -> Result<()> {
        self.room_for(0)?;
        if self.in_packed {
            self.content.extend_from_slice(&value.to_le_bytes());
        } else if written(field, value == 0) {
            wire::put_fixed32(&mut self.content, field.number, value);
        }
        Ok(())
    }

    fn fixed64(&mut self, field: &Field, value: u64) -> Result<()> {
        self.room_for(0)?;
        if self.in_packed {
            self.content.extend_from_slice(&value.to_le_bytes());
        } else if written(field, value == 0) {
            wire::put_fixed64(&mut self.content, field.number, value);
        }
        Ok(())
    }

    /// Asked before anything is written. A tag, a number or a length that follows is a few bytes that are not counted
    /// here but the next time.
    fn room_for(&self, bytes: usize) -> Result<()> {
        let noted = self.long.capacity() * size_of::<LongLength>() + self.missing;
        if self.content.len() + noted + bytes > self.held_bytes_max {
            return Err(JsonProblem::TooMuchHeld(self.held_bytes_max));
        }
        Ok(())
    }

    /// Moves the content apart from its end, so that each long length finds its place.
    fn weave(mut self) -> Vec<u8> {
        self.long.sort_unstable_by_key(|length| length.position);
        let mut unmoved = self.content.len();
        let mut moved = unmoved + self.missing;
        self.content.reserve_exact(self.missing);
        self.content.resize(moved, 0);
        for LongLength { position, value } in self.long.into_iter().rev() {
            let after = position as usize + 1;
            moved -= unmoved - after;
            self.content.copy_within(after..unmoved, moved);
            moved -= wire::varint_len(u64::from(value));
            let mut rest = value;
            for byte in self.content.iter_mut().skip(moved).take(wire::varint_len(u64::from(value))) {
                let more = if rest < 0x80 { 0 } else { 0x80 };
                *byte = (rest & 0x7f) as u8 | more;
                rest >>= 7;
            }
            unmoved = position as usize;
        }
        self.content
    }
}

fn written(field: &Field, zero: bool) -> bool {
    !zero || field.presence != Presence::Implicit
}
