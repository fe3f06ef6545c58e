//! The value of a field in the bytes of one span, for columns that hold no values.

use super::anyvalue::{AnyValue, key_value};
use super::column::hex;
use crate::otlp::view::messages;
use crate::otlp::wire::{Fields, Payload};
use crate::traceql::ast::{Field, Intrinsic, Scope};
use crate::traceql::column::Cell;
use crate::traceql::value::{Kind, Status, Value};

/// What a span has for a field. Only for what stands in the span itself: nothing of its resource or scope, and nothing
/// that takes other spans to know.
#[must_use]
pub fn cell(field: &Field, span: &[u8]) -> Option<Cell> {
    match field {
        Field::Attribute(attribute) => match attribute.scope? {
            Scope::Span => attribute_of(span, 9, &attribute.name).map(Cell::One),
            Scope::Event => many(messages(span, 11).filter_map(|event| attribute_of(event, 3, &attribute.name))),
            Scope::Link => many(messages(span, 13).filter_map(|link| attribute_of(link, 4, &attribute.name))),
            Scope::Resource | Scope::Instrumentation => None,
        },
        Field::Intrinsic(intrinsic) => intrinsic_of(span, *intrinsic),
    }
}

fn intrinsic_of(span: &[u8], intrinsic: Intrinsic) -> Option<Cell> {
    let text = |message, number| Value::String(String::from_utf8_lossy(last(message, number)).into());
    let id = |message, number| {
        let id = first(message, number);
        (!id.is_empty()).then(|| Value::String(hex(id).into()))
    };
    match intrinsic {
        Intrinsic::Name => Some(Cell::One(text(span, 5))),
        Intrinsic::Kind => Some(Cell::One(Value::Kind(Kind::from_otlp(last_varint(span, 6))))),
        Intrinsic::Status => Some(Cell::One(Value::Status(Status::from_otlp(super::read_status(last(span, 15)).0)))),
        Intrinsic::StatusMessage => Some(Cell::One(text(last(span, 15), 2))),
        Intrinsic::EventName => many(messages(span, 11).map(|event| text(event, 2))),
        Intrinsic::EventTimeSinceStart => {
            let start = last_fixed64(span, 7);
            many(messages(span, 11).map(|event| Value::Duration(last_fixed64(event, 1).wrapping_sub(start) as i64)))
        }
        Intrinsic::LinkTraceId => many(messages(span, 13).filter_map(|link| id(link, 1))),
        Intrinsic::LinkSpanId => many(messages(span, 13).filter_map(|link| id(link, 2))),
        _ => None,
    }
}

/// Of a name that stands twice the first counts.
fn attribute_of(message: &[u8], number: u32, name: &str) -> Option<Value> {
    messages(message, number)
        .map(key_value)
        .find(|(key, _)| *key == name.as_bytes() || String::from_utf8_lossy(key) == name)
        .and_then(|(_, value): (_, AnyValue<'_>)| value.to_value())
}

fn many(values: impl Iterator<Item = Value>) -> Option<Cell> {
    let values: Vec<Value> = values.collect();
    (!values.is_empty()).then(|| Cell::Many(values.into()))
}

fn last(message: &[u8], number: u32) -> &[u8] {
    messages(message, number).last().unwrap_or_default()
}

fn first(message: &[u8], number: u32) -> &[u8] {
    messages(message, number).find(|bytes| !bytes.is_empty()).unwrap_or_default()
}

fn last_varint(message: &[u8], number: u32) -> u64 {
    let fields = Fields::new(message).map_while(Result::ok).filter(|field| field.number == number);
    fields
        .filter_map(|field| if let Payload::Varint(value) = field.payload { Some(value) } else { None })
        .last()
        .unwrap_or(0)
}

fn last_fixed64(message: &[u8], number: u32) -> u64 {
    let fields = Fields::new(message).map_while(Result::ok).filter(|field| field.number == number);
    fields
        .filter_map(|field| if let Payload::Fixed64(value) = field.payload { Some(value) } else { None })
        .last()
        .unwrap_or(0)
}
