//! `tempopb` answers read back.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::otlp::wire::{Field, Fields, Payload, WireError};
use crate::otlp::{SpanId, TraceId};
use crate::query::encode::NO_ROOT_YET;
use crate::query::trace_id::parse_trace_id;
use crate::traceql::answer::{
    FoundSpan, FoundSpanset, FoundTrace, Inspected, RootSpan, SearchAnswer, ServiceStats, TagsAnswer, ValuesAnswer,
};
use crate::traceql::ast::Scope;
use crate::traceql::control::{Booked, Stopped};
use crate::traceql::value::{Kind, Status, Value};

/// Arrays in arrays beyond this are cut off.
const DEPTH_MAX: usize = 8;

/// What a text takes beside its bytes.
const TEXT_BYTES: usize = 2 * size_of::<usize>();

/// An answer that is none, or that there is no memory for.
#[derive(Debug, Error)]
pub enum Unread {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The trace of a `TraceByIDResponse`: mostly a part of it, which is not copied.
pub fn trace(response: &Bytes) -> Result<Bytes, WireError> {
    let (mut only, mut count) = (Bytes::new(), 0);
    for field in Fields::new(response) {
        if let Some(part) = field?.bytes(1) {
            only = response.slice_ref(part);
            count += 1;
        }
    }
    if count <= 1 {
        return Ok(only);
    }
    // Messages that are joined are one.
    let parts = Fields::new(response).filter_map(|field| field.ok()?.bytes(1));
    Ok(parts.collect::<Vec<_>>().concat().into())
}

/// A `SearchResponse`. A trace or span whose id is none is left out. What is read is booked.
pub fn search(response: &[u8], booked: &mut Booked) -> Result<SearchAnswer, Unread> {
    let mut answer = SearchAnswer::default();
    for field in Fields::new(response) {
        match part(field)? {
            (1, Payload::Bytes(message)) => push(&mut answer.traces, found_trace(message, booked)?, booked)?,
            (2, Payload::Bytes(message)) => answer.inspected = inspected(message)?,
            _ => {}
        }
    }
    Ok(answer)
}

/// A `SearchTagsV2Response`. Scopes that are none of an attribute are left out.
pub fn tag_names(response: &[u8], booked: &mut Booked) -> Result<TagsAnswer, Unread> {
    let mut answer = TagsAnswer::default();
    for field in Fields::new(response) {
        match part(field)? {
            (1, Payload::Bytes(message)) => {
                let (mut scope, mut names) = (None, Vec::new());
                for field in Fields::new(message) {
                    match part(field)? {
                        (1, Payload::Bytes(name)) => {
                            scope = Scope::ALL.into_iter().find(|scope| scope.as_str().as_bytes() == name);
                        }
                        (2, Payload::Bytes(name)) => {
                            let name = text(name, booked)?;
                            push(&mut names, Some(name), booked)?;
                        }
                        _ => {}
                    }
                }
                push(&mut answer.scopes, scope.map(|scope| (scope.as_str(), names)), booked)?;
            }
            (2, Payload::Bytes(message)) => answer.inspected_bytes = inspected_bytes(message)?,
            _ => {}
        }
    }
    Ok(answer)
}

/// A `SearchTagValuesV2Response`. What is no value of its type is left out.
pub fn tag_values(response: &[u8], booked: &mut Booked) -> Result<ValuesAnswer, Unread> {
    let mut answer = ValuesAnswer::default();
    for field in Fields::new(response) {
        match part(field)? {
            (1, Payload::Bytes(message)) => {
                let (mut kind, mut value) = (&b""[..], &b""[..]);
                for field in Fields::new(message) {
                    match part(field)? {
                        (1, Payload::Bytes(bytes)) => kind = bytes,
                        (2, Payload::Bytes(bytes)) => value = bytes,
                        _ => {}
                    }
                }
                let value = typed(kind, text(value, booked)?);
                push(&mut answer.values, value, booked)?;
            }
            (2, Payload::Bytes(message)) => answer.inspected_bytes = inspected_bytes(message)?,
            _ => {}
        }
    }
    Ok(answer)
}

/// Adds an element, if there is one, and books it twice: lists double as they grow.
fn push<T>(list: &mut Vec<T>, element: Option<T>, booked: &mut Booked) -> Result<(), Stopped> {
    if let Some(element) = element {
        booked.grow(2 * size_of::<T>())?;
        list.push(element);
    }
    Ok(())
}

/// The value that [`crate::query::encode`] writes as type and text. Durations are not listed, as nobody chooses from them.
fn typed(kind: &[u8], value: Arc<str>) -> Option<Value> {
    match kind {
        b"string" => Some(Value::String(value)),
        b"int" => value.parse().ok().map(Value::Int),
        b"float" => value.parse().ok().map(Value::Float),
        b"bool" => value.parse().ok().map(Value::Bool),
        b"keyword" => {
            let status = Status::ALL.into_iter().find(|status| status.as_str() == &*value).map(Value::Status);
            status.or_else(|| Kind::ALL.into_iter().find(|kind| kind.as_str() == &*value).map(Value::Kind))
        }
        _ => None,
    }
}

/// Of a `MetadataMetrics`.
fn inspected_bytes(message: &[u8]) -> Result<u64, WireError> {
    let mut bytes = 0;
    for field in Fields::new(message) {
        if let (1, Payload::Varint(number)) = part(field)? {
            bytes = number;
        }
    }
    Ok(bytes)
}

fn inspected(message: &[u8]) -> Result<Inspected, WireError> {
    let mut inspected = Inspected::default();
    for field in Fields::new(message) {
        match part(field)? {
            (1, Payload::Varint(traces)) => inspected.traces = traces,
            (2, Payload::Varint(bytes)) => inspected.bytes = bytes,
            (4, Payload::Varint(jobs)) => inspected.segments_done = jobs,
            (5, Payload::Varint(jobs)) => inspected.segments = jobs,
            (7, Payload::Varint(spans)) => inspected.spans = spans,
            _ => {}
        }
    }
    Ok(inspected)
}

fn found_trace(message: &[u8], booked: &mut Booked) -> Result<Option<FoundTrace>, Unread> {
    let (mut id, mut service, mut name) = (None, &b""[..], &b""[..]);
    let (root, services) = (None, Default::default());
    let mut trace = FoundTrace { id: TraceId([0; 16]), root, start: 0, duration: 0, spansets: Vec::new(), services };
    for field in Fields::new(message) {
        match part(field)? {
            // Tempo leaves zeros in front away.
            (1, Payload::Bytes(hex)) => id = parse_trace_id(&String::from_utf8_lossy(hex)).ok(),
            (2, Payload::Bytes(bytes)) => service = bytes,
            (3, Payload::Bytes(bytes)) => name = bytes,
            (4, Payload::Varint(nanos)) => trace.start = nanos,
            (5, Payload::Varint(millis)) => trace.duration = millis.saturating_mul(1_000_000),
            (7, Payload::Bytes(spanset)) => {
                let spanset = found_spanset(spanset, booked)?;
                push(&mut trace.spansets, Some(spanset), booked)?;
            }
            (8, Payload::Bytes(entry)) => {
                let (service, stats) = service_stats(entry, booked)?;
                trace.services.insert(service, stats);
            }
            _ => {}
        }
    }
    if service != NO_ROOT_YET.as_bytes() && !(service.is_empty() && name.is_empty()) {
        trace.root = Some(RootSpan { service: text(service, booked)?, name: text(name, booked)? });
    }
    Ok(id.map(|id| FoundTrace { id, ..trace }))
}

fn service_stats(entry: &[u8], booked: &mut Booked) -> Result<(Arc<str>, ServiceStats), Unread> {
    // A node of a tree that may be half full.
    booked.grow(2 * size_of::<(Arc<str>, ServiceStats)>())?;
    let (mut service, mut stats) = (&b""[..], ServiceStats::default());
    for field in Fields::new(entry) {
        match part(field)? {
            (1, Payload::Bytes(bytes)) => service = bytes,
            (2, Payload::Bytes(message)) => {
                for field in Fields::new(message) {
                    match part(field)? {
                        (1, Payload::Varint(spans)) => stats.spans = spans as u32,
                        (2, Payload::Varint(errors)) => stats.errors = errors as u32,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok((text(service, booked)?, stats))
}

fn found_spanset(message: &[u8], booked: &mut Booked) -> Result<FoundSpanset, Unread> {
    let mut spanset = FoundSpanset { spans: Vec::new(), matched: 0, attributes: Vec::new() };
    for field in Fields::new(message) {
        match part(field)? {
            (1, Payload::Bytes(span)) => push(&mut spanset.spans, found_span(span, booked)?, booked)?,
            (2, Payload::Varint(matched)) => spanset.matched = matched as u32,
            (3, Payload::Bytes(attribute)) => {
                let attribute = key_value(attribute, booked)?;
                push(&mut spanset.attributes, Some(attribute), booked)?;
            }
            _ => {}
        }
    }
    Ok(spanset)
}

fn found_span(message: &[u8], booked: &mut Booked) -> Result<Option<FoundSpan>, Unread> {
    let mut id = None;
    let mut span = FoundSpan { id: SpanId([0; 8]), name: None, start: 0, duration: 0, attributes: Vec::new() };
    for field in Fields::new(message) {
        match part(field)? {
            (1, Payload::Bytes(hex)) => id = u64::from_str_radix(&String::from_utf8_lossy(hex), 16).ok(),
            (2, Payload::Bytes(name)) => span.name = Some(text(name, booked)?),
            (3, Payload::Varint(nanos)) => span.start = nanos,
            (4, Payload::Varint(nanos)) => span.duration = nanos,
            (5, Payload::Bytes(attribute)) => {
                let (key, value) = key_value(attribute, booked)?;
                push(&mut span.attributes, value.map(|value| (key, value)), booked)?;
            }
            _ => {}
        }
    }
    Ok(id.map(|id| FoundSpan { id: SpanId(id.to_be_bytes()), ..span }))
}

fn key_value(message: &[u8], booked: &mut Booked) -> Result<(String, Option<Value>), Unread> {
    let (mut key, mut value) = (String::new(), None);
    for field in Fields::new(message) {
        match part(field)? {
            (1, Payload::Bytes(bytes)) => key = text(bytes, booked)?.to_string(),
            (2, Payload::Bytes(any)) => value = any_value(any, 0, booked)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn any_value(message: &[u8], depth: usize, booked: &mut Booked) -> Result<Option<Value>, Unread> {
    let mut value = None;
    for field in Fields::new(message) {
        match part(field)? {
            (1, Payload::Bytes(bytes)) => value = Some(Value::String(text(bytes, booked)?)),
            (2, Payload::Varint(truth)) => value = Some(Value::Bool(truth != 0)),
            (3, Payload::Varint(number)) => value = Some(Value::Int(number as i64)),
            (4, Payload::Fixed64(bits)) => value = Some(Value::Float(f64::from_bits(bits))),
            (5, Payload::Bytes(array)) if depth < DEPTH_MAX => {
                let mut values = Vec::new();
                for element in Fields::new(array) {
                    if let Some(element) = element?.bytes(1) {
                        let element = any_value(element, depth + 1, booked)?;
                        push(&mut values, element, booked)?;
                    }
                }
                value = Some(Value::Array(values.into()));
            }
            _ => {}
        }
    }
    Ok(value)
}

fn part(field: Result<Field<'_>, WireError>) -> Result<(u32, Payload<'_>), WireError> {
    field.map(|field| (field.number, field.payload))
}

fn text(bytes: &[u8], booked: &mut Booked) -> Result<Arc<str>, Stopped> {
    let text = String::from_utf8_lossy(bytes);
    booked.grow(TEXT_BYTES + text.len())?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::otlp::wire::put_bytes;
    use crate::query::call::Origin;
    use crate::query::encode::tests::{search_answer, searched};
    use crate::query::negotiation::Format;
    use crate::traceql::control::Control;
    use proptest::prelude::*;

    fn control(bytes_max: usize) -> Control {
        Control::new(Duration::from_secs(3600), bytes_max)
    }

    #[test]
    fn what_is_read_is_memory_of_the_query() {
        // Traces that are nothing but an id: a few bytes each on the wire, some hundred when they are read.
        let mut message = Vec::new();
        for _ in 0..10_000 {
            let mut trace = Vec::new();
            put_bytes(&mut trace, 1, b"1");
            put_bytes(&mut message, 1, &trace);
        }
        let control = control(1 << 20);
        let read = search(&message, &mut control.nothing_booked());
        assert!(matches!(read, Err(Unread::Stopped(Stopped::MemoryOver(_)))));
        assert_eq!(search(&message[..500], &mut control.nothing_booked()).unwrap().traces.len(), 100);
    }

    #[test]
    fn a_trace_in_one_part_is_not_copied_and_in_several_is_joined() {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, b"ab");
        let one = Bytes::from(message.clone());
        let whole = trace(&one).unwrap();
        assert_eq!((whole.as_ptr(), &whole[..]), (one[2..].as_ptr(), &b"ab"[..]));
        put_bytes(&mut message, 1, b"cd");
        assert_eq!(&trace(&message.into()).unwrap()[..], b"abcd");
        assert!(trace(&Bytes::new()).unwrap().is_empty());
    }

    #[test]
    fn a_search_is_read_back_as_it_was_written() {
        let mut answer = search_answer();
        let (control, message) = (control(usize::MAX), searched(Format::Protobuf, &answer, Origin::TraceQl));
        let read = search(&message, &mut control.nothing_booked()).unwrap();
        // What the wire does not carry: durations below a millisecond, types that are texts there.
        for trace in &mut answer.traces {
            trace.duration -= trace.duration % 1_000_000;
            for spanset in &mut trace.spansets {
                let text = |value: &Value| match value {
                    Value::Status(status) => Value::String(status.as_str().into()),
                    other => other.clone(),
                };
                spanset.attributes.iter_mut().for_each(|(_, value)| {
                    *value = Some(value.as_ref().map_or(Value::String("nil".into()), text));
                });
                for span in &mut spanset.spans {
                    span.attributes.iter_mut().for_each(|(_, value)| *value = text(value));
                }
            }
        }
        assert_eq!(read.traces, answer.traces);
        assert_eq!(read.inspected, answer.inspected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut booked = control(usize::MAX).nothing_booked();
            let _ = (search(&bytes, &mut booked), tag_names(&bytes, &mut booked), tag_values(&bytes, &mut booked));
            let _ = trace(&bytes.into());
        }
    }
}
