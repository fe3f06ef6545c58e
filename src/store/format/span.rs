//! One span taken apart: its shape (the tags of its fields, in order), and what each field carries.
//!
//! ```text
//! body     shape word   per field, in the order of the shape:
//!            trace id, span id, start, end      nothing: columns have them
//!            parent id                          nothing, or 8 bytes where columns say that there is none
//!            varint                             varint
//!            64 bits, 32 bits                   as they are
//!            event                              a body of its own; its time against the span's start, zigzag
//!            other bytes                        reference to a word, or the bytes, see `words`
//! verbatim 0, length, bytes      where the above would not give the same bytes: fields twice, numbers written longer than
//!                                need be, an id of another length, an end before the start
//! ```
//!
//! Unknown fields and any order of fields are part of the shape.

use super::words::{Census, Lexicon, Words, read as read_word};
use super::{FormatError, Reader, put_sized, unzigzag, zigzag};
use crate::otlp::wire::{Field, Fields, Payload, put_varint, varint_len};

/// What columns know of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub trace: [u8; 16],
    pub span: [u8; 8],
    /// `None` also where the span has one of zeros.
    pub parent: Option<[u8; 8]>,
    pub start: u64,
    pub end: u64,
}

const TRACE_ID: u64 = 1 << 3 | BYTES;
const SPAN_ID: u64 = 2 << 3 | BYTES;
const PARENT_ID: u64 = 4 << 3 | BYTES;
const START: u64 = 7 << 3 | FIXED64;
const END: u64 = 8 << 3 | FIXED64;
const EVENT: u64 = 11 << 3 | BYTES;
/// `Span.Event.time_unix_nano`
const EVENT_TIME: u64 = 1 << 3 | FIXED64;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// The word number that says: not taken apart.
const VERBATIM: u64 = 0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Span,
    Event,
}

/// A message taken apart; buffers are kept for the next one.
#[derive(Default)]
struct Parts<'a> {
    shape: Vec<u8>,
    list: Vec<Part<'a>>,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Against the span's start.
    Time(u64),
    Id([u8; 8]),
    Word(&'a [u8]),
    Event(&'a [u8]),
}

impl<'a> Parts<'a> {
    /// Whether the message can be put together again from its parts.
    fn take(&mut self, message: &'a [u8], level: Level, known: &Known) -> bool {
        self.shape.clear();
        self.list.clear();
        // Which of the fields that may stand once were there.
        let mut seen = 0u32;
        for field in Fields::new(message) {
            let Ok(field) = field else { return false };
            let Some(tag) = canonical_tag(&field) else { return false };
            let part = match (level, tag, field.payload) {
                (Level::Span, TRACE_ID | SPAN_ID | PARENT_ID | START | END, payload) => {
                    let mark = 1 << field.number;
                    if seen & mark != 0 {
                        return false;
                    }
                    seen |= mark;
                    match known_part(tag, payload, known) {
                        Some(part) => part,
                        None => return false,
                    }
                }
                (Level::Span, EVENT, Payload::Bytes(event)) => Some(Part::Event(event)),
                (Level::Event, EVENT_TIME, Payload::Fixed64(time)) => Some(Part::Time(time)),
                (_, _, Payload::Varint(value)) => Some(Part::Varint(value)),
                (_, _, Payload::Fixed64(value)) => Some(Part::Fixed64(value)),
                (_, _, Payload::Fixed32(value)) => Some(Part::Fixed32(value)),
                (_, _, Payload::Bytes(bytes)) => Some(Part::Word(bytes)),
            };
            put_varint(&mut self.shape, tag);
            self.list.extend(part);
        }
        // An empty shape would be the empty word, which means verbatim.
        !self.shape.is_empty()
    }
}

/// The tag, if tag, length and number are written as short as can be.
fn canonical_tag(field: &Field<'_>) -> Option<u64> {
    let (wire_type, len) = match field.payload {
        Payload::Varint(value) => (VARINT, varint_len(value)),
        Payload::Fixed64(_) => (FIXED64, 8),
        Payload::Bytes(bytes) => (BYTES, varint_len(bytes.len() as u64) + bytes.len()),
        Payload::Fixed32(_) => (FIXED32, 4),
    };
    let tag = u64::from(field.number) << 3 | wire_type;
    (field.raw.len() == varint_len(tag) + len).then_some(tag)
}

/// What must be kept of a field that columns have: mostly nothing. `None`: they have something else.
#[expect(clippy::option_option, reason = "the two mean different things, and the caller takes both apart at once")]
fn known_part(tag: u64, payload: Payload<'_>, known: &Known) -> Option<Option<Part<'static>>> {
    let same = match (tag, payload) {
        (TRACE_ID, Payload::Bytes(id)) => id == known.trace,
        (SPAN_ID, Payload::Bytes(id)) => id == known.span,
        (START, Payload::Fixed64(time)) => time == known.start,
        (END, Payload::Fixed64(time)) => time == known.end,
        (PARENT_ID, Payload::Bytes(id)) => {
            let id: [u8; 8] = id.try_into().ok()?;
            match known.parent {
                Some(parent) => parent == id,
                None => return Some(Some(Part::Id(id))),
            }
        }
        _ => false,
    };
    same.then_some(None)
}

/// Counts the words of all spans of a run, then writes the spans with the words that were chosen. Both passes must be
/// given the same spans in the same order.
#[derive(Default)]
pub struct Counter<'a> {
    census: Census<'a>,
    /// Provisional numbers of the words, in the order of the second pass.
    numbers: Vec<u32>,
    parts: Parts<'a>,
    event_parts: Parts<'a>,
}

impl<'a> Counter<'a> {
    /// `trace`: the number of its trace in the run.
    pub fn count(&mut self, span: &'a [u8], trace: u32, known: &Known) {
        if !self.parts.take(span, Level::Span, known) {
            return;
        }
        self.numbers.push(self.census.count_owned(&self.parts.shape, trace));
        for part in &self.parts.list {
            match *part {
                Part::Word(word) => self.numbers.push(self.census.count(word, trace)),
                Part::Event(event) => {
                    if !self.event_parts.take(event, Level::Event, known) {
                        continue;
                    }
                    self.numbers.push(self.census.count_owned(&self.event_parts.shape, trace));
                    for part in &self.event_parts.list {
                        if let Part::Word(word) = *part {
                            self.numbers.push(self.census.count(word, trace));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    pub fn finish(self) -> Writer<'a> {
        Writer {
            lexicon: self.census.finish(),
            numbers: self.numbers.into_iter(),
            parts: self.parts,
            event_parts: self.event_parts,
        }
    }
}

/// The second pass.
pub struct Writer<'a> {
    lexicon: Lexicon,
    numbers: std::vec::IntoIter<u32>,
    parts: Parts<'a>,
    event_parts: Parts<'a>,
}

impl<'a> Writer<'a> {
    pub fn pages(&self) -> &[Vec<u8>] {
        &self.lexicon.pages
    }

    pub fn put(&mut self, out: &mut Vec<u8>, span: &'a [u8], known: &Known) {
        if !self.parts.take(span, Level::Span, known) {
            put_verbatim(out, span);
            return;
        }
        let mut parts = std::mem::take(&mut self.parts);
        let start = out.len();
        let in_parts = self.put_shape(out);
        for part in &parts.list {
            match *part {
                Part::Word(word) => self.put_word(out, word),
                Part::Event(event) => self.put_event(out, event, known),
                part => put_plain(out, part, known),
            }
        }
        if !in_parts {
            // The numbers are used up all the same.
            out.truncate(start);
            put_verbatim(out, span);
        }
        parts.list.clear();
        self.parts = parts;
    }

    /// Whether the shape is a word; if not, what follows is of no use.
    fn put_shape(&mut self, out: &mut Vec<u8>) -> bool {
        let shape = self.numbers.next().and_then(|number| self.lexicon.whole(number));
        put_varint(out, shape.map_or(VERBATIM, u64::from));
        shape.is_some()
    }

    fn put_word(&mut self, out: &mut Vec<u8>, word: &[u8]) {
        let number = self.numbers.next().unwrap_or(u32::MAX);
        self.lexicon.put(out, number, word);
    }

    fn put_event(&mut self, out: &mut Vec<u8>, event: &'a [u8], known: &Known) {
        if !self.event_parts.take(event, Level::Event, known) {
            put_verbatim(out, event);
            return;
        }
        let parts = std::mem::take(&mut self.event_parts);
        let start = out.len();
        let in_parts = self.put_shape(out);
        for part in &parts.list {
            match *part {
                Part::Word(word) => self.put_word(out, word),
                part => put_plain(out, part, known),
            }
        }
        if !in_parts {
            out.truncate(start);
            put_verbatim(out, event);
        }
        self.event_parts = parts;
    }
}

fn put_verbatim(out: &mut Vec<u8>, message: &[u8]) {
    put_varint(out, VERBATIM);
    put_sized(out, message);
}

fn put_plain(out: &mut Vec<u8>, part: Part<'_>, known: &Known) {
    match part {
        Part::Varint(value) => put_varint(out, value),
        Part::Fixed64(value) => out.extend_from_slice(&value.to_le_bytes()),
        Part::Fixed32(value) => out.extend_from_slice(&value.to_le_bytes()),
        Part::Time(time) => put_varint(out, zigzag(time.wrapping_sub(known.start) as i64)),
        Part::Id(id) => out.extend_from_slice(&id),
        // Written by those who know words.
        Part::Word(_) | Part::Event(_) => {}
    }
}

/// Appends the span whose body is at the front of the reader.
///
/// # Errors
/// It cannot be put together, or would be longer than `bytes_max`.
pub(super) fn read<W: Words>(
    reader: &mut Reader<'_>,
    words: &W,
    known: &Known,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), W::Error> {
    read_message(reader, words, known, Level::Span, bytes_max, out)
}

fn read_message<W: Words>(
    reader: &mut Reader<'_>,
    words: &W,
    known: &Known,
    level: Level,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), W::Error> {
    let damaged = FormatError::Damaged("span");
    let end_max = out.len().saturating_add(bytes_max);
    let shape = reader.varint().ok_or(damaged)?;
    if shape == VERBATIM {
        out.extend_from_slice(reader.bytes().filter(|bytes| bytes.len() <= bytes_max).ok_or(damaged)?);
        return Ok(());
    }
    let mut tags = Reader::new(words.word(u32::try_from(shape).map_err(|_| damaged)?)?);
    while !tags.is_empty() {
        let tag = tags.varint().ok_or(damaged)?;
        put_varint(out, tag);
        match (level, tag) {
            (Level::Span, TRACE_ID) => put_sized(out, &known.trace),
            (Level::Span, SPAN_ID) => put_sized(out, &known.span),
            (Level::Span, PARENT_ID) => {
                let id = match known.parent {
                    Some(id) => id,
                    None => reader.array().ok_or(damaged)?,
                };
                put_sized(out, &id);
            }
            (Level::Span, START) => out.extend_from_slice(&known.start.to_le_bytes()),
            (Level::Span, END) => out.extend_from_slice(&known.end.to_le_bytes()),
            (Level::Span, EVENT) => {
                let mut event = Vec::new();
                read_message(reader, words, known, Level::Event, end_max.saturating_sub(out.len()), &mut event)?;
                put_sized(out, &event);
            }
            (Level::Event, EVENT_TIME) => {
                let after = reader.varint().ok_or(damaged)?;
                let time = known.start.wrapping_add(unzigzag(after) as u64);
                out.extend_from_slice(&time.to_le_bytes());
            }
            _ => match tag & 7 {
                VARINT => put_varint(out, reader.varint().ok_or(damaged)?),
                FIXED64 => out.extend_from_slice(reader.take(8).ok_or(damaged)?),
                FIXED32 => out.extend_from_slice(reader.take(4).ok_or(damaged)?),
                BYTES => read_word(reader, words, out, |out, head, tail| {
                    put_varint(out, (head.len() + tail.len()) as u64);
                    out.extend_from_slice(head);
                    out.extend_from_slice(tail);
                })?,
                _ => return Err(damaged.into()),
            },
        }
        if out.len() > end_max {
            return Err(damaged.into());
        }
    }
    Ok(())
}
