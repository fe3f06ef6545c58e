//! From bytes to columns: what a segment is made of, out of batches as the spool has them.
//!
//! ```text
//! batches (OTLP requests) ─▶ push: walk, give every distinct attribute a number ─▶ finish: sort rows, sort dictionaries
//!
//! Built    Index  traces, times, parents, ids, columns       all that search asks for
//!          Spans  where each row's bytes lie, its resource    all that a sealed run copies
//! ```
//!
//! Used for the unsealed tail and for sealing alike. An attribute whose bytes were met before costs a look-up of its hash
//! and a push of its number; values are decoded, and dictionaries sorted, once per distinct value. Memory is bounded by
//! what comes in: up to [`ROWS_MAX`] rows, 6 bytes for each attribute of each span, and the distinct values by place.
//!
//! Invariants: rows are sorted by trace id, start, span id and kind; no span id and kind stands twice in a trace, the first
//! to arrive counts; the same batches give the same segment.

mod anyvalue;
mod attributes;
mod cell;
mod column;
mod index;
mod intern;
mod order;
mod segment;
#[cfg(test)]
pub(super) mod tests;

use bytes::Bytes;
use foldhash::{HashMap, HashMapExt};

use super::envelope::Envelope;
use crate::otlp::wire::{Fields, Payload};
use crate::otlp::{SpanId, TraceId, view};
use crate::traceql::column::{Code, ROWS_MAX};
use crate::traceql::value::Status;
use attributes::Attributes;
use column::{OpenColumn, RawValue, Shape};
use intern::Interner;
use order::RowKey;

pub use cell::cell;
pub use column::{FieldColumn, Groups, Placed};
pub use index::{Index, Names};
pub use intern::Place;
pub use segment::{InMemory, TakesBytes};

/// A segment is full when one of its scopes has so many names of attributes: senders that put data into names must not
/// make columns without end.
const NAMES_WANTED: usize = 4096;

/// A whole segment.
#[derive(Debug, Clone)]
pub struct Built {
    pub index: Index,
    pub spans: Spans,
}

/// The bytes behind the rows.
#[derive(Debug, Clone, Default)]
pub struct Spans {
    /// As pushed; [`Place::batch`] is an index in it.
    pub batches: Vec<Bytes>,
    /// The bytes of each row's span, verbatim.
    pub places: Vec<Place>,
    /// Distinct `ResourceSpans` without their lists; rows name them by [`Groups::resources`].
    pub resources: Vec<Envelope>,
    /// Distinct `ScopeSpans` without their lists; rows name them by [`Groups::scopes`].
    pub scopes: Vec<Envelope>,
}

impl Spans {
    /// The bytes of a row's span, empty if there is no such row.
    #[must_use]
    pub fn bytes(&self, row: usize) -> &[u8] {
        self.places.get(row).map_or(&[], |place| bytes_at(&self.batches, *place))
    }
}

/// What lies at a place, empty if there is nothing.
#[must_use]
pub fn bytes_at(batches: &[Bytes], place: Place) -> &[u8] {
    intern::Bytes::at(batches, place)
}

/// How much of a batch a builder took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// All that was left of it.
    Whole,
    /// The segment is full: [`Builder::finish`], and push the batch again, from this span on.
    Full { next: usize },
}

/// Makes one segment after another, and keeps its memory in between.
#[derive(Debug)]
pub struct Builder {
    names_wanted: usize,
    batches: Vec<Bytes>,
    rows: Vec<Row>,
    traces: Vec<TraceId>,
    trace_numbers: HashMap<TraceId, u32>,
    resources: Envelopes,
    scopes: Envelopes,
    strings: Texts,
    span_attributes: Attributes,
    event_attributes: Attributes,
    link_attributes: Attributes,
    events: Events,
    links: Links,
    /// Places of the events and links of one span.
    nested: Vec<(u32, Place)>,
}

/// A span as it came.
#[derive(Debug, Clone, Copy)]
struct Row {
    key: RowKey,
    duration: u64,
    status: Status,
    resource: Code,
    scope: Code,
    place: Place,
}

impl AsRef<RowKey> for Row {
    fn as_ref(&self) -> &RowKey {
        &self.key
    }
}

/// Distinct resources or scopes.
#[derive(Debug, Default)]
struct Envelopes {
    known: HashMap<Envelope, Code>,
    list: Vec<Envelope>,
    /// The one that was met last, and its index once a span needs it.
    current: Envelope,
    index: Option<Code>,
}

/// Columns of strings that every span has one of.
#[derive(Debug, Default)]
struct Texts {
    names: TextColumn,
    messages: TextColumn,
}

#[derive(Debug, Default)]
struct TextColumn {
    seen: Interner,
    column: OpenColumn,
}

#[derive(Debug, Default)]
struct Events {
    names: TextColumn,
    times: OpenColumn,
    times_seen: HashMap<i64, u32>,
    /// Events so far.
    count: u32,
}

#[derive(Debug, Default)]
struct Links {
    trace_ids: TextColumn,
    span_ids: TextColumn,
    /// Links so far.
    count: u32,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            names_wanted: NAMES_WANTED,
            batches: Vec::new(),
            rows: Vec::new(),
            traces: Vec::new(),
            trace_numbers: HashMap::new(),
            resources: Envelopes::default(),
            scopes: Envelopes::default(),
            strings: Texts::default(),
            span_attributes: Attributes::new(Shape::One),
            event_attributes: Attributes::new(Shape::Many),
            link_attributes: Attributes::new(Shape::Many),
            events: Events::default(),
            links: Links::default(),
            nested: Vec::new(),
        }
    }
}

impl Builder {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that takes what fits by rows, however many names come with it: for whoever bounds a segment's bytes.
    #[must_use]
    pub fn of_any_width() -> Self {
        Self { names_wanted: usize::MAX, ..Self::default() }
    }

    /// Rows so far, repeated spans included.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Adds the spans of an inflated batch from the span number `from` on. A batch that fits a segment of its own is
    /// not cut; where a larger one is cut, and how much was pushed before, is for the caller to keep.
    pub fn push(&mut self, batch: Bytes, from: usize) -> Pushed {
        let mut count = 0usize;
        view::for_each_span(&batch, |_, _, _| count += 1);
        let left = count.saturating_sub(from);
        let room = ROWS_MAX - self.rows.len();
        if !self.rows.is_empty() && (left > room || self.names() >= self.names_wanted) {
            return Pushed::Full { next: from };
        }
        self.batches.push(batch.clone());
        let number = self.batches.len() as u32 - 1;
        let end = from + left.min(room);
        self.walk(&batch, number, from..end);
        if end < count { Pushed::Full { next: end } } else { Pushed::Whole }
    }

    fn names(&self) -> usize {
        self.span_attributes.names().max(self.event_attributes.names()).max(self.link_attributes.names())
    }

    fn walk(&mut self, batch: &[u8], number: u32, spans: std::ops::Range<usize>) {
        let mut span_number = 0;
        for resource_spans in view::messages(batch, 1) {
            self.resources.enter(resource_spans);
            for scope_spans in view::messages(resource_spans, 2) {
                self.scopes.enter(scope_spans);
                for span in view::messages(scope_spans, 2) {
                    if spans.contains(&span_number) {
                        let offset = offset_in(batch, span) as u32;
                        self.span(span, Place { batch: number, offset, len: span.len() as u32 });
                    }
                    span_number += 1;
                }
            }
        }
    }

    fn span(&mut self, span: &[u8], place: Place) {
        // ROWS_MAX rows at most: see `push`.
        let row = self.rows.len() as u16;
        let carrier = u32::from(row) + 1;
        let batches = self.batches.as_slice();
        let within = |part: &[u8]| Place {
            offset: place.offset + offset_in(span, part) as u32,
            len: part.len() as u32,
            ..place
        };

        let (mut trace, mut id, mut parent) = (None, None, None);
        let (mut name, mut message, mut kind, mut status) = (&[][..], &[][..], 0, 0);
        let (mut start, mut end) = (0u64, 0u64);
        self.nested.clear();
        for field in Fields::new(span).map_while(Result::ok) {
            match (field.number, field.payload) {
                (9, Payload::Bytes(bytes)) => self.span_attributes.add(row, carrier, bytes, batches, within(bytes)),
                (1, Payload::Bytes(bytes)) => trace = TraceId::from_wire(bytes),
                (2, Payload::Bytes(bytes)) => id = SpanId::from_wire(bytes),
                (4, Payload::Bytes(bytes)) => parent = SpanId::from_wire(bytes),
                (5, Payload::Bytes(bytes)) => name = bytes,
                (6, Payload::Varint(number)) => kind = number,
                (7, Payload::Fixed64(nanos)) => start = nanos,
                (8, Payload::Fixed64(nanos)) => end = nanos,
                (11 | 13, Payload::Bytes(bytes)) => self.nested.push((field.number, within(bytes))),
                (15, Payload::Bytes(bytes)) => (status, message) = read_status(bytes),
                _ => {}
            }
        }
        self.strings.names.add(row, carrier, name, batches, within(name));
        self.strings.messages.add(row, carrier, message, batches, within(message));
        for (number, nested) in &self.nested {
            let bytes = intern::Bytes::at(batches, *nested);
            if *number == 11 {
                self.events.add(row, start, bytes, *nested, batches, &mut self.event_attributes);
            } else {
                self.links.add(row, bytes, *nested, batches, &mut self.link_attributes);
            }
        }

        let trace = trace.zip(id).map(|(trace, _)| match self.rows.last().and_then(|last| last.key.trace) {
            // Spans of a trace mostly stand together.
            Some(last) if self.traces.get(last as usize) == Some(&trace) => last,
            _ => *self.trace_numbers.entry(trace).or_insert_with(|| {
                self.traces.push(trace);
                self.traces.len() as u32 - 1
            }),
        });
        let span = id.unwrap_or(SpanId([0; 8]));
        self.rows.push(Row {
            key: RowKey { trace, start, span, parent, kind },
            duration: end.saturating_sub(start),
            status: Status::from_otlp(status),
            resource: self.resources.index(),
            scope: self.scopes.index(),
            place,
        });
    }

    /// Frees what tells new values from known ones. Nothing may be pushed before [`Self::finish`].
    fn release_known(&mut self) {
        self.trace_numbers = HashMap::new();
        self.events.times_seen = HashMap::new();
        for text in self.texts() {
            text.seen.release();
        }
        for attributes in self.attributes() {
            attributes.release_known();
        }
    }

    /// Frees the memory that is kept for the next segment.
    fn release(&mut self) {
        (self.rows, self.traces) = (Vec::new(), Vec::new());
        for text in self.texts() {
            text.column = OpenColumn::default();
        }
        self.events.times = OpenColumn::default();
        for attributes in self.attributes() {
            attributes.release_spare();
        }
    }

    fn attributes(&mut self) -> [&mut Attributes; 3] {
        [&mut self.span_attributes, &mut self.event_attributes, &mut self.link_attributes]
    }

    fn texts(&mut self) -> [&mut TextColumn; 5] {
        [
            &mut self.strings.names,
            &mut self.strings.messages,
            &mut self.events.names,
            &mut self.links.trace_ids,
            &mut self.links.span_ids,
        ]
    }

    /// Forgets what was pushed since the last segment.
    pub fn clear(&mut self) {
        self.batches.clear();
        self.rows.clear();
        self.traces.clear();
        self.trace_numbers.clear();
        self.resources = Envelopes::default();
        self.scopes = Envelopes::default();
        for text in self.texts() {
            text.seen.clear();
            text.column.clear();
        }
        self.events.times.clear();
        self.events.times_seen.clear();
        (self.events.count, self.links.count) = (0, 0);
        for attributes in self.attributes() {
            attributes.clear();
        }
    }
}

fn read_status(message: &[u8]) -> (u64, &[u8]) {
    let (mut code, mut text) = (0, &[][..]);
    for field in Fields::new(message).map_while(Result::ok) {
        match (field.number, field.payload) {
            (2, Payload::Bytes(bytes)) => text = bytes,
            (3, Payload::Varint(number)) => code = number,
            _ => {}
        }
    }
    (code, text)
}

/// Where `part`, a slice of `whole`, begins in it; 0 for the empty slice from elsewhere.
fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    if part.is_empty() { 0 } else { (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize) }
}

impl Envelopes {
    /// A message of which no span was read yet.
    fn enter(&mut self, message: &[u8]) {
        // The bytes passed the scan; of others as much as can be read counts.
        let _ = self.current.read_into(message);
        self.index = None;
    }

    /// The index of the message that was entered last.
    #[inline]
    fn index(&mut self) -> Code {
        match self.index {
            Some(index) => index,
            None => {
                let index = self.learn();
                self.index = Some(index);
                index
            }
        }
    }

    fn learn(&mut self) -> Code {
        if let Some(index) = self.known.get(&self.current) {
            return *index;
        }
        // No more than rows, since only spans ask for an index.
        let index = self.list.len() as Code;
        self.list.push(self.current.clone());
        self.known.insert(self.current.clone(), index);
        index
    }
}

impl TextColumn {
    #[inline]
    fn add(&mut self, row: u16, carrier: u32, text: &[u8], batches: &[Bytes], place: Place) {
        self.add_as(RawValue::Text, row, carrier, text, batches, place);
    }

    #[inline]
    fn add_as(
        &mut self,
        make: impl FnOnce(Place) -> RawValue,
        row: u16,
        carrier: u32,
        text: &[u8],
        batches: &[Bytes],
        place: Place,
    ) {
        let (number, new) = self.seen.intern(text, batches, || place);
        if new {
            self.column.learn(make(place));
        }
        self.column.add(row, carrier, number);
    }
}

impl Events {
    fn add(
        &mut self,
        row: u16,
        span_start: u64,
        event: &[u8],
        place: Place,
        batches: &[Bytes],
        attributes: &mut Attributes,
    ) {
        self.count += 1;
        let within = |part: &[u8]| Place {
            offset: place.offset + offset_in(event, part) as u32,
            len: part.len() as u32,
            ..place
        };
        let (mut name, mut time) = (&[][..], 0);
        for field in Fields::new(event).map_while(Result::ok) {
            match (field.number, field.payload) {
                (1, Payload::Fixed64(nanos)) => time = nanos,
                (2, Payload::Bytes(bytes)) => name = bytes,
                (3, Payload::Bytes(bytes)) => attributes.add(row, self.count, bytes, batches, within(bytes)),
                _ => {}
            }
        }
        self.names.add(row, self.count, name, batches, within(name));
        // An event may be before its span.
        let since_start = time.wrapping_sub(span_start) as i64;
        let number =
            *self.times_seen.entry(since_start).or_insert_with(|| self.times.learn(RawValue::Duration(since_start)));
        self.times.add(row, self.count, number);
    }
}

impl Links {
    fn add(&mut self, row: u16, link: &[u8], place: Place, batches: &[Bytes], attributes: &mut Attributes) {
        self.count += 1;
        let within = |part: &[u8]| Place {
            offset: place.offset + offset_in(link, part) as u32,
            len: part.len() as u32,
            ..place
        };
        for field in Fields::new(link).map_while(Result::ok) {
            match (field.number, field.payload) {
                (1, Payload::Bytes(id)) if !id.is_empty() => {
                    self.trace_ids.add_as(RawValue::Hex, row, self.count, id, batches, within(id));
                }
                (2, Payload::Bytes(id)) if !id.is_empty() => {
                    self.span_ids.add_as(RawValue::Hex, row, self.count, id, batches, within(id));
                }
                (4, Payload::Bytes(bytes)) => attributes.add(row, self.count, bytes, batches, within(bytes)),
                _ => {}
            }
        }
    }
}
