//! `tempopb` answers read back.

use std::sync::Arc;

use crate::otlp::wire::{Field, Fields, Payload, WireError};
use crate::otlp::{SpanId, TraceId};
use crate::query::encode::NO_ROOT_YET;
use crate::query::trace_id::parse_trace_id;
use crate::traceql::answer::{
    FoundSpan, FoundSpanset, FoundTrace, Inspected, RootSpan, SearchAnswer, ServiceStats, TagsAnswer, ValuesAnswer,
};
use crate::traceql::ast::Scope;
use crate::traceql::value::{Kind, Status, Value};

/// Arrays in arrays beyond this are cut off.
const DEPTH_MAX: usize = 8;

/// The trace of a `TraceByIDResponse`.
pub fn trace(response: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut trace = Vec::new();
    for field in Fields::new(response) {
        // Messages that are joined are one.
        trace.extend_from_slice(field?.bytes(1).unwrap_or_default());
    }
    Ok(trace)
}

/// A `SearchResponse`. A trace or span whose id is none is left out.
pub fn search(response: &[u8]) -> Result<SearchAnswer, WireError> {
    let mut answer = SearchAnswer::default();
    for field in Fields::new(response) {
        match part(field)? {
            (1, Payload::Bytes(message)) => answer.traces.extend(found_trace(message)?),
            (2, Payload::Bytes(message)) => answer.inspected = inspected(message)?,
            _ => {}
        }
    }
    Ok(answer)
}

/// A `SearchTagsV2Response`. Scopes that are none of an attribute are left out.
pub fn tag_names(response: &[u8]) -> Result<TagsAnswer, WireError> {
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
                        (2, Payload::Bytes(name)) => names.push(text(name)),
                        _ => {}
                    }
                }
                answer.scopes.extend(scope.map(|scope| (scope.as_str(), names)));
            }
            (2, Payload::Bytes(message)) => answer.inspected_bytes = inspected_bytes(message)?,
            _ => {}
        }
    }
    Ok(answer)
}

/// A `SearchTagValuesV2Response`. What is no value of its type is left out.
pub fn tag_values(response: &[u8]) -> Result<ValuesAnswer, WireError> {
    let mut answer = ValuesAnswer::default();
    for field in Fields::new(response) {
        match part(field)? {
            (1, Payload::Bytes(message)) => {
                let (mut kind, mut value) = (text(b""), text(b""));
                for field in Fields::new(message) {
                    match part(field)? {
                        (1, Payload::Bytes(bytes)) => kind = text(bytes),
                        (2, Payload::Bytes(bytes)) => value = text(bytes),
                        _ => {}
                    }
                }
                answer.values.extend(typed(&kind, value));
            }
            (2, Payload::Bytes(message)) => answer.inspected_bytes = inspected_bytes(message)?,
            _ => {}
        }
    }
    Ok(answer)
}

/// The value that [`crate::query::encode`] writes as type and text. Durations are not listed, as nobody chooses from them.
fn typed(kind: &str, value: Arc<str>) -> Option<Value> {
    match kind {
        "string" => Some(Value::String(value)),
        "int" => value.parse().ok().map(Value::Int),
        "float" => value.parse().ok().map(Value::Float),
        "bool" => value.parse().ok().map(Value::Bool),
        "keyword" => {
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

fn found_trace(message: &[u8]) -> Result<Option<FoundTrace>, WireError> {
    let (mut id, mut service, mut name) = (None, text(b""), text(b""));
    let (root, services) = (None, Default::default());
    let mut trace = FoundTrace { id: TraceId([0; 16]), root, start: 0, duration: 0, spansets: Vec::new(), services };
    for field in Fields::new(message) {
        match part(field)? {
            // Tempo leaves zeros in front away.
            (1, Payload::Bytes(hex)) => id = parse_trace_id(&text(hex)).ok(),
            (2, Payload::Bytes(bytes)) => service = text(bytes),
            (3, Payload::Bytes(bytes)) => name = text(bytes),
            (4, Payload::Varint(nanos)) => trace.start = nanos,
            (5, Payload::Varint(millis)) => trace.duration = millis.saturating_mul(1_000_000),
            (7, Payload::Bytes(spanset)) => trace.spansets.push(found_spanset(spanset)?),
            (8, Payload::Bytes(entry)) => {
                let (service, stats) = service_stats(entry)?;
                trace.services.insert(service, stats);
            }
            _ => {}
        }
    }
    if &*service != NO_ROOT_YET && !(service.is_empty() && name.is_empty()) {
        trace.root = Some(RootSpan { service, name });
    }
    Ok(id.map(|id| FoundTrace { id, ..trace }))
}

fn service_stats(entry: &[u8]) -> Result<(Arc<str>, ServiceStats), WireError> {
    let (mut service, mut stats) = (text(b""), ServiceStats::default());
    for field in Fields::new(entry) {
        match part(field)? {
            (1, Payload::Bytes(bytes)) => service = text(bytes),
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
    Ok((service, stats))
}

fn found_spanset(message: &[u8]) -> Result<FoundSpanset, WireError> {
    let mut spanset = FoundSpanset { spans: Vec::new(), matched: 0, attributes: Vec::new() };
    for field in Fields::new(message) {
        match part(field)? {
            (1, Payload::Bytes(span)) => spanset.spans.extend(found_span(span)?),
            (2, Payload::Varint(matched)) => spanset.matched = matched as u32,
            (3, Payload::Bytes(attribute)) => spanset.attributes.push(key_value(attribute)?),
            _ => {}
        }
    }
    Ok(spanset)
}

fn found_span(message: &[u8]) -> Result<Option<FoundSpan>, WireError> {
    let mut id = None;
    let mut span = FoundSpan { id: SpanId([0; 8]), name: None, start: 0, duration: 0, attributes: Vec::new() };
    for field in Fields::new(message) {
        match part(field)? {
            (1, Payload::Bytes(hex)) => id = u64::from_str_radix(&text(hex), 16).ok(),
            (2, Payload::Bytes(name)) => span.name = Some(text(name)),
            (3, Payload::Varint(nanos)) => span.start = nanos,
            (4, Payload::Varint(nanos)) => span.duration = nanos,
            (5, Payload::Bytes(attribute)) => {
                if let (key, Some(value)) = key_value(attribute)? {
                    span.attributes.push((key, value));
                }
            }
            _ => {}
        }
    }
    Ok(id.map(|id| FoundSpan { id: SpanId(id.to_be_bytes()), ..span }))
}

fn key_value(message: &[u8]) -> Result<(String, Option<Value>), WireError> {
    let (mut key, mut value) = (String::new(), None);
    for field in Fields::new(message) {
        match part(field)? {
            (1, Payload::Bytes(bytes)) => key = text(bytes).to_string(),
            (2, Payload::Bytes(any)) => value = any_value(any, 0)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn any_value(message: &[u8], depth: usize) -> Result<Option<Value>, WireError> {
    let mut value = None;
    for field in Fields::new(message) {
        match part(field)? {
            (1, Payload::Bytes(bytes)) => value = Some(Value::String(text(bytes))),
            (2, Payload::Varint(truth)) => value = Some(Value::Bool(truth != 0)),
            (3, Payload::Varint(number)) => value = Some(Value::Int(number as i64)),
            (4, Payload::Fixed64(bits)) => value = Some(Value::Float(f64::from_bits(bits))),
            (5, Payload::Bytes(array)) if depth < DEPTH_MAX => {
                let mut values = Vec::new();
                for element in Fields::new(array) {
                    if let Some(element) = element?.bytes(1) {
                        values.extend(any_value(element, depth + 1)?);
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

fn text(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::call::Origin;
    use crate::query::encode::protobuf;
    use crate::query::encode::tests::search_answer;
    use proptest::prelude::*;

    #[test]
    fn a_search_is_read_back_as_it_was_written() {
        let mut answer = search_answer();
        let read = search(&protobuf::search(&answer, Origin::TraceQl)).unwrap();
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
            let _ = (search(&bytes), trace(&bytes), tag_names(&bytes), tag_values(&bytes));
        }
    }
}
