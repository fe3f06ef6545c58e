//! Spans, their events and links.

use super::attributes::Attributes;
use super::lazy::Lazy;
use super::record::{Record, Scalar};
use super::write::put_message;
use super::{Effect, Kept};
use crate::otlp::wire::{Fields, Payload, put_bytes, put_uint};
use std::borrow::Cow;

const TRACE_ID: u32 = 1;
const SPAN_ID: u32 = 2;
const TRACE_STATE: u32 = 3;
const PARENT_SPAN_ID: u32 = 4;
const NAME: u32 = 5;
const KIND: u32 = 6;
const START: u32 = 7;
const END: u32 = 8;
const ATTRIBUTES: u32 = 9;
const DROPPED_ATTRIBUTES: u32 = 10;
const EVENTS: u32 = 11;
const DROPPED_EVENTS: u32 = 12;
const LINKS: u32 = 13;
const DROPPED_LINKS: u32 = 14;
const STATUS: u32 = 15;
const FLAGS: u32 = 16;
/// What a scan looks at.
const DESCRIBED: [u32; 5] = [TRACE_ID, SPAN_ID, PARENT_SPAN_ID, START, END];
const STATUS_MESSAGE: u32 = 2;
const STATUS_CODE: u32 = 3;

/// A span. Ids, texts and numbers read as protobuf has them: absent is empty or zero.
#[derive(Debug)]
pub struct Span<'a> {
    record: Record<'a>,
    events: Lazy<Kept<Event<'a>>>,
    links: Lazy<Kept<Link<'a>>>,
}

/// An event of a span.
#[derive(Debug)]
pub struct Event<'a>(Record<'a>);

/// A link of a span.
#[derive(Debug)]
pub struct Link<'a>(Record<'a>);

impl<'a> Span<'a> {
    pub(super) fn parse(raw: &'a [u8]) -> Self {
        Self { record: Record::new(raw, ATTRIBUTES), events: Lazy::new(), links: Lazy::new() }
    }

    pub(super) fn is_of(&self, payload: &[u8]) -> bool {
        self.record.is_of(payload)
    }

    pub fn trace_id(&self) -> &[u8] {
        self.record.bytes(TRACE_ID)
    }

    pub fn set_trace_id(&mut self, id: [u8; 16]) {
        self.record.set(TRACE_ID, Scalar::Bytes(Cow::Owned(id.to_vec())));
    }

    pub fn span_id(&self) -> &[u8] {
        self.record.bytes(SPAN_ID)
    }

    pub fn set_span_id(&mut self, id: [u8; 8]) {
        self.record.set(SPAN_ID, Scalar::Bytes(Cow::Owned(id.to_vec())));
    }

    /// Empty for a root.
    pub fn parent_span_id(&self) -> &[u8] {
        self.record.bytes(PARENT_SPAN_ID)
    }

    /// `None` makes it a root.
    pub fn set_parent_span_id(&mut self, id: Option<[u8; 8]>) {
        let id = id.map_or_else(Vec::new, |id| id.to_vec());
        self.record.set(PARENT_SPAN_ID, Scalar::Bytes(Cow::Owned(id)));
    }

    /// In W3C form.
    pub fn trace_state(&self) -> Cow<'_, str> {
        self.record.text(TRACE_STATE)
    }

    pub fn set_trace_state(&mut self, state: Cow<'a, str>) {
        self.record.set(TRACE_STATE, Scalar::text(state));
    }

    pub fn name(&self) -> Cow<'_, str> {
        self.record.text(NAME)
    }

    pub fn set_name(&mut self, name: Cow<'a, str>) {
        self.record.set(NAME, Scalar::text(name));
    }

    /// The number of a `SpanKind`; unknown ones are kept.
    pub fn kind(&self) -> i32 {
        self.record.varint(KIND) as i32
    }

    pub fn set_kind(&mut self, kind: i32) {
        // A negative enum takes ten bytes on the wire, as protobuf has it.
        self.record.set(KIND, Scalar::Varint(i64::from(kind) as u64));
    }

    /// Unix nanoseconds.
    pub fn start(&self) -> u64 {
        self.record.fixed64(START)
    }

    pub fn set_start(&mut self, unix_nanos: u64) {
        self.record.set(START, Scalar::Fixed64(unix_nanos));
    }

    /// Unix nanoseconds.
    pub fn end(&self) -> u64 {
        self.record.fixed64(END)
    }

    pub fn set_end(&mut self, unix_nanos: u64) {
        self.record.set(END, Scalar::Fixed64(unix_nanos));
    }

    pub fn flags(&self) -> u32 {
        self.record.fixed32(FLAGS)
    }

    pub fn set_flags(&mut self, flags: u32) {
        self.record.set(FLAGS, Scalar::Fixed32(flags));
    }

    pub fn attributes(&self) -> &Attributes<'a> {
        self.record.attributes()
    }

    pub fn attributes_mut(&mut self) -> &mut Attributes<'a> {
        self.record.attributes_mut()
    }

    /// Cheaper than [`Span::attributes`] where the answer is mostly no.
    pub fn has_attribute(&self, key: &str) -> bool {
        self.record.has_attribute(key)
    }

    pub fn dropped_attributes_count(&self) -> u32 {
        self.record.varint(DROPPED_ATTRIBUTES) as u32
    }

    pub fn set_dropped_attributes_count(&mut self, count: u32) {
        self.record.set(DROPPED_ATTRIBUTES, Scalar::Varint(count.into()));
    }

    pub fn dropped_events_count(&self) -> u32 {
        self.record.varint(DROPPED_EVENTS) as u32
    }

    pub fn set_dropped_events_count(&mut self, count: u32) {
        self.record.set(DROPPED_EVENTS, Scalar::Varint(count.into()));
    }

    pub fn dropped_links_count(&self) -> u32 {
        self.record.varint(DROPPED_LINKS) as u32
    }

    pub fn set_dropped_links_count(&mut self, count: u32) {
        self.record.set(DROPPED_LINKS, Scalar::Varint(count.into()));
    }

    /// The number of a `StatusCode`: 0 unset, 1 ok, 2 error.
    pub fn status_code(&self) -> i32 {
        match self.status_field(STATUS_CODE) {
            Some(Payload::Varint(code)) => code as i32,
            _ => 0,
        }
    }

    pub fn status_message(&self) -> Cow<'_, str> {
        match self.status_field(STATUS_MESSAGE) {
            Some(Payload::Bytes(message)) => String::from_utf8_lossy(message),
            _ => Cow::Borrowed(""),
        }
    }

    pub fn set_status_code(&mut self, code: i32) {
        self.change_status(STATUS_CODE, |out| {
            if code != 0 {
                put_uint(out, STATUS_CODE, i64::from(code) as u64);
            }
        });
    }

    pub fn set_status_message(&mut self, message: &str) {
        self.change_status(STATUS_MESSAGE, |out| {
            if !message.is_empty() {
                put_bytes(out, STATUS_MESSAGE, message.as_bytes());
            }
        });
    }

    fn status_field(&self, number: u32) -> Option<Payload<'_>> {
        let status = self.record.bytes(STATUS);
        Fields::new(status)
            .map_while(Result::ok)
            .filter(|field| field.number == number)
            .last()
            .map(|field| field.payload)
    }

    /// The status with one field replaced.
    fn change_status(&mut self, number: u32, put: impl FnOnce(&mut Vec<u8>)) {
        let mut status = Vec::new();
        for field in Fields::new(self.record.bytes(STATUS)).map_while(Result::ok) {
            if field.number != number {
                status.extend_from_slice(field.raw);
            }
        }
        put(&mut status);
        self.record.set(STATUS, Scalar::Bytes(Cow::Owned(status)));
    }

    pub fn events(&self) -> &Kept<Event<'a>> {
        self.events.get(|| events(self.record.raw()))
    }

    pub fn events_mut(&mut self) -> &mut Kept<Event<'a>> {
        let raw = self.record.raw();
        self.events.get_mut(|| events(raw))
    }

    pub fn links(&self) -> &Kept<Link<'a>> {
        self.links.get(|| links(self.record.raw()))
    }

    pub fn links_mut(&mut self) -> &mut Kept<Link<'a>> {
        let raw = self.record.raw();
        self.links.get_mut(|| links(raw))
    }

    pub(super) fn is_changed(&self) -> bool {
        self.record.is_changed()
            || self.events.known().is_some_and(|it| it.removed || it.iter().any(|event| event.0.is_changed()))
            || self.links.known().is_some_and(|it| it.removed || it.iter().any(|link| link.0.is_changed()))
    }

    pub(super) fn effect(&self) -> Effect {
        let of_events = self.events.known().and_then(|it| it.iter().map(|event| event.0.effect(&[])).max());
        let of_links = self.links.known().and_then(|it| it.iter().map(|link| link.0.effect(&[])).max());
        let known = self.record.effect(&DESCRIBED);
        known.max(of_events.unwrap_or(Effect::Described)).max(of_links.unwrap_or(Effect::Described))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut events = self.events.known().map(|events| events.iter().map(|event| &event.0).peekable());
        let mut links = self.links.known().map(|links| links.iter().map(|link| &link.0).peekable());
        self.record.encode(out, &[EVENTS, LINKS], |out, field| {
            let (number, kept) = match field.number {
                EVENTS => {
                    (EVENTS, events.as_mut().map(|it| field.bytes(EVENTS).map(|raw| it.next_if(|e| e.is_of(raw)))))
                }
                LINKS => (LINKS, links.as_mut().map(|it| field.bytes(LINKS).map(|raw| it.next_if(|l| l.is_of(raw))))),
                _ => return false,
            };
            match kept.flatten() {
                // Nobody looked at them.
                None => false,
                Some(None) => true,
                Some(Some(record)) => {
                    if record.is_changed() {
                        put_message(out, number, record.raw().len(), |out| record.encode_alone(out));
                    }
                    record.is_changed()
                }
            }
        });
    }
}

fn events(span: &[u8]) -> Kept<Event<'_>> {
    Kept::of(span, EVENTS, Event::parse)
}

fn links(span: &[u8]) -> Kept<Link<'_>> {
    Kept::of(span, LINKS, Link::parse)
}

impl<'a> Event<'a> {
    fn parse(raw: &'a [u8]) -> Self {
        Self(Record::new(raw, 3))
    }

    /// Unix nanoseconds.
    pub fn time(&self) -> u64 {
        self.0.fixed64(1)
    }

    pub fn set_time(&mut self, unix_nanos: u64) {
        self.0.set(1, Scalar::Fixed64(unix_nanos));
    }

    pub fn name(&self) -> Cow<'_, str> {
        self.0.text(2)
    }

    pub fn set_name(&mut self, name: Cow<'a, str>) {
        self.0.set(2, Scalar::text(name));
    }

    pub fn attributes(&self) -> &Attributes<'a> {
        self.0.attributes()
    }

    pub fn attributes_mut(&mut self) -> &mut Attributes<'a> {
        self.0.attributes_mut()
    }

    pub fn dropped_attributes_count(&self) -> u32 {
        self.0.varint(4) as u32
    }

    pub fn set_dropped_attributes_count(&mut self, count: u32) {
        self.0.set(4, Scalar::Varint(count.into()));
    }
}

impl<'a> Link<'a> {
    fn parse(raw: &'a [u8]) -> Self {
        Self(Record::new(raw, 4))
    }

    pub fn trace_id(&self) -> &[u8] {
        self.0.bytes(1)
    }

    pub fn span_id(&self) -> &[u8] {
        self.0.bytes(2)
    }

    pub fn trace_state(&self) -> Cow<'_, str> {
        self.0.text(3)
    }

    pub fn attributes(&self) -> &Attributes<'a> {
        self.0.attributes()
    }

    pub fn attributes_mut(&mut self) -> &mut Attributes<'a> {
        self.0.attributes_mut()
    }
}
