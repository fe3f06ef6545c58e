//! How much there is to build when everything in a request is touched.

use crate::otlp::view::messages;
use crate::otlp::wire::{Fields, Payload};

/// Spans, events, links, attributes and nested values in a request, at any depth. Each takes some hundred bytes of memory
/// while it is edited, and two bytes on the wire at least: whoever edits bounds this number first.
pub fn objects(request: &[u8]) -> usize {
    let mut count = 0;
    for resource_spans in messages(request, 1) {
        for field in Fields::new(resource_spans).map_while(Result::ok) {
            match (field.number, field.payload) {
                (1, Payload::Bytes(resource)) => count += key_values(resource, 1),
                (2, Payload::Bytes(scope_spans)) => count += of_scope(scope_spans),
                _ => {}
            }
        }
    }
    count
}

/// Attributes (fields `attributes`) of a record, and the values nested in them and in its field `value`. Not counted where
/// the record is too short for more than `objects_max`.
pub(super) fn record_objects(record: &[u8], attributes: u32, value: u32, objects_max: usize) -> usize {
    /// The smallest object, an empty attribute: tag and length.
    const WIRE_BYTES_MIN: usize = 2;
    if record.len() / WIRE_BYTES_MIN <= objects_max {
        return 0;
    }
    key_values(record, attributes) + messages(record, value).map(inside).sum::<usize>()
}

fn of_scope(scope_spans: &[u8]) -> usize {
    let mut count = 1;
    for field in Fields::new(scope_spans).map_while(Result::ok) {
        match (field.number, field.payload) {
            (1, Payload::Bytes(scope)) => count += key_values(scope, 3),
            (2, Payload::Bytes(span)) => count += of_span(span),
            _ => {}
        }
    }
    count
}

fn of_span(span: &[u8]) -> usize {
    let mut count = 1;
    for field in Fields::new(span).map_while(Result::ok) {
        match (field.number, field.payload) {
            (9, Payload::Bytes(key_value)) => count += 1 + nested(key_value),
            (11, Payload::Bytes(event)) => count += 1 + key_values(event, 3),
            (13, Payload::Bytes(link)) => count += 1 + key_values(link, 4),
            _ => {}
        }
    }
    count
}

fn key_values(message: &[u8], number: u32) -> usize {
    messages(message, number).map(|key_value| 1 + nested(key_value)).sum()
}

/// Values inside the value of a `KeyValue`.
fn nested(key_value: &[u8]) -> usize {
    messages(key_value, 2).map(inside).sum()
}

fn inside(any_value: &[u8]) -> usize {
    let mut count = 0;
    for field in Fields::new(any_value).map_while(Result::ok) {
        match (field.number, field.payload) {
            (5, Payload::Bytes(list)) => count += messages(list, 1).map(|value| 1 + inside(value)).sum::<usize>(),
            (6, Payload::Bytes(map)) => count += key_values(map, 1),
            _ => {}
        }
    }
    count
}
