//! The same segment by decoding everything: slow and plain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Wire;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use prost::Message as _;

use super::super::column::hex as hex_of;
use super::super::{InMemory, Placed};
use crate::otlp::{SpanId, TraceId};
use crate::traceql::ast::{Attribute, Field, Intrinsic, Scope};
use crate::traceql::column::{Cell, Entry};
use crate::traceql::segment::{Column, Ids, Parent, Segment};
use crate::traceql::value::{Kind, Status, Value};

struct Row {
    trace: TraceId,
    id: SpanId,
    kind: Kind,
    span: Span,
    resource: Resource,
    scope: InstrumentationScope,
}

fn rows(requests: &[ExportTraceServiceRequest]) -> Vec<Row> {
    let mut seen = BTreeSet::new();
    let mut rows = Vec::new();
    for resource_spans in requests.iter().flat_map(|request| &request.resource_spans) {
        for scope_spans in &resource_spans.scope_spans {
            for span in &scope_spans.spans {
                let trace = TraceId::from_wire(&span.trace_id).unwrap();
                let id = SpanId::from_wire(&span.span_id).unwrap();
                let kind = Kind::from_otlp(span.kind as u64);
                if seen.insert((trace, id, kind)) {
                    rows.push(Row {
                        trace,
                        id,
                        kind,
                        span: span.clone(),
                        resource: resource_spans.resource.clone().unwrap_or_default(),
                        scope: scope_spans.scope.clone().unwrap_or_default(),
                    });
                }
            }
        }
    }
    rows.sort_by_key(|row| (row.trace, row.span.start_time_unix_nano, row.id, row.kind));
    rows
}

fn value(value: &Wire) -> Option<Value> {
    Some(match value {
        Wire::StringValue(text) => Value::String(text.as_str().into()),
        Wire::BoolValue(bool) => Value::Bool(*bool),
        Wire::IntValue(int) => Value::Int(*int),
        Wire::DoubleValue(float) => Value::Float(*float),
        Wire::ArrayValue(array) => {
            let values: Vec<Value> =
                array.values.iter().map(|element| value_of_any(element.value.as_ref())).collect::<Option<_>>()?;
            let kinds: BTreeSet<String> =
                values.iter().map(|value| format!("{value:?}").split('(').next().unwrap().to_owned()).collect();
            if kinds.len() != 1 {
                return None;
            }
            Value::Array(values.into())
        }
        _ => return None,
    })
}

fn value_of_any(wire: Option<&Wire>) -> Option<Value> {
    value(wire?)
}

/// What search sees of attributes: of a name that stands twice the first, and nothing of what has no type.
pub fn typed(attributes: &[KeyValue]) -> BTreeMap<String, Value> {
    let names: BTreeSet<&str> = attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    names.into_iter().filter_map(|name| Some((name.to_owned(), find(attributes, name)?))).collect()
}

fn find(attributes: &[KeyValue], name: &str) -> Option<Value> {
    let attribute = attributes.iter().find(|attribute| attribute.key == name)?;
    value_of_any(attribute.value.as_ref()?.value.as_ref())
}

fn many(values: impl Iterator<Item = Value>) -> Option<Cell> {
    let values: Vec<Value> = values.collect();
    (!values.is_empty()).then(|| Cell::Many(values.into()))
}

fn attribute(row: &Row, scope: Scope, name: &str) -> Option<Cell> {
    match scope {
        Scope::Span => find(&row.span.attributes, name).map(Cell::One),
        Scope::Resource => find(&row.resource.attributes, name).map(Cell::One),
        Scope::Instrumentation => find(&row.scope.attributes, name).map(Cell::One),
        Scope::Event => many(row.span.events.iter().filter_map(|event| find(&event.attributes, name))),
        Scope::Link => many(row.span.links.iter().filter_map(|link| find(&link.attributes, name))),
    }
}

fn names(rows: &[Row], scope: Scope) -> BTreeSet<String> {
    let names = |attributes: &[KeyValue]| attributes.iter().map(|attribute| attribute.key.clone()).collect::<Vec<_>>();
    rows.iter()
        .flat_map(|row| match scope {
            Scope::Span => names(&row.span.attributes),
            Scope::Resource => names(&row.resource.attributes),
            Scope::Instrumentation => names(&row.scope.attributes),
            Scope::Event => row.span.events.iter().flat_map(|event| names(&event.attributes)).collect(),
            Scope::Link => row.span.links.iter().flat_map(|link| names(&link.attributes)).collect(),
        })
        .collect()
}

const INTRINSICS: [Intrinsic; 10] = [
    Intrinsic::Name,
    Intrinsic::Status,
    Intrinsic::StatusMessage,
    Intrinsic::Kind,
    Intrinsic::EventName,
    Intrinsic::EventTimeSinceStart,
    Intrinsic::LinkTraceId,
    Intrinsic::LinkSpanId,
    Intrinsic::InstrumentationName,
    Intrinsic::InstrumentationVersion,
];

fn intrinsic(row: &Row, intrinsic: Intrinsic) -> Option<Cell> {
    let text = |text: &str| Some(Cell::One(Value::String(text.into())));
    let id = |id: &[u8]| (!id.is_empty()).then(|| Value::String(hex_of(id).into()));
    let span = &row.span;
    let status = span.status.clone().unwrap_or_default();
    match intrinsic {
        Intrinsic::Name => text(&span.name),
        Intrinsic::Status => Some(Cell::One(Value::Status(Status::from_otlp(status.code as u64)))),
        Intrinsic::StatusMessage => text(&status.message),
        Intrinsic::Kind => Some(Cell::One(Value::Kind(row.kind))),
        Intrinsic::EventName => many(span.events.iter().map(|event| Value::String(event.name.as_str().into()))),
        Intrinsic::EventTimeSinceStart => many(
            span.events
                .iter()
                .map(|event| Value::Duration(event.time_unix_nano as i64 - span.start_time_unix_nano as i64)),
        ),
        Intrinsic::LinkTraceId => many(span.links.iter().filter_map(|link| id(&link.trace_id))),
        Intrinsic::LinkSpanId => many(span.links.iter().filter_map(|link| id(&link.span_id))),
        Intrinsic::InstrumentationName => text(&row.scope.name),
        Intrinsic::InstrumentationVersion => text(&row.scope.version),
        _ => None,
    }
}

fn parent(rows: &[Row], row: &Row) -> Parent {
    let Some(wanted) = SpanId::from_wire(&row.span.parent_span_id) else { return Parent::Root };
    let found: Vec<(usize, Kind)> = (0..)
        .zip(rows)
        .filter(|(_, other)| other.trace == row.trace && other.id == wanted)
        .map(|(number, other)| (number, other.kind))
        .collect();
    let number = match (found.as_slice(), row.kind) {
        ([(only, _)], _) => Some(only),
        ([(client, Kind::Client), _] | [_, (client, Kind::Client)], Kind::Server) => Some(client),
        (_, Kind::Server) => None,
        ([(server, Kind::Server), _] | [_, (server, Kind::Server)], _) => Some(server),
        _ => None,
    };
    number.map_or(Parent::Away, |number| Parent::Row(*number as u32))
}

/// What the segment says of one row's field, by dictionary and code, and by cell: both must agree.
fn cell(segment: &InMemory, field: &Field, row: usize) -> Result<Option<Cell>, TestCaseError> {
    let by_cell = segment.cell(field, row).unwrap();
    if let Column::Listed(dictionary) = segment.column(field).unwrap() {
        let code = segment.codes(field).unwrap().get(row);
        let by_code = dictionary.get(code).map(|entry| match entry {
            Entry::String(string) => Cell::One(Value::String(string.into())),
            Entry::Int(int) => Cell::One(Value::Int(int)),
            Entry::Other(cell) => cell.clone(),
        });
        prop_assert_eq!(&by_cell, &by_code);
    }
    Ok(by_cell)
}

pub fn check(segment: &InMemory, requests: &[ExportTraceServiceRequest]) -> Result<(), TestCaseError> {
    let rows = rows(requests);
    prop_assert_eq!(segment.rows(), rows.len());
    let traces = segment.traces().unwrap();
    let (starts, durations) = (segment.starts().unwrap(), segment.durations().unwrap());
    let (parents, ids) = (segment.parents().unwrap(), segment.span_ids(0..rows.len()).unwrap());
    for (number, row) in rows.iter().enumerate() {
        prop_assert_eq!(traces.ids[traces.of_row(number)], row.trace);
        prop_assert_eq!(starts[number], row.span.start_time_unix_nano);
        prop_assert_eq!(durations[number], row.span.end_time_unix_nano.saturating_sub(starts[number]));
        prop_assert_eq!(parents[number], parent(&rows, row));
        prop_assert_eq!(ids[number], Ids { span: row.id, parent: SpanId::from_wire(&row.span.parent_span_id) });
        prop_assert_eq!(segment.built.spans.bytes(number), row.span.encode_to_vec());
        check_envelopes(segment, number, row)?;
        for which in INTRINSICS {
            let field = Field::Intrinsic(which);
            let expected = intrinsic(row, which);
            prop_assert_eq!(cell(segment, &field, number)?, expected.clone(), "{}", which.as_str());
            if !matches!(which, Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion) {
                prop_assert_eq!(super::super::cell(&field, segment.built.spans.bytes(number)), expected);
            }
        }
    }
    for scope in Scope::ALL {
        let mut expected = names(&rows, scope);
        let found: BTreeSet<String> = segment.names(scope).unwrap().iter().map(|name| name.to_string()).collect();
        // Names of repeated spans may stay; those of rows must be there.
        prop_assert!(found.is_superset(&expected), "{:?} {:?}", found, expected);
        expected.insert("never used".to_owned());
        for name in expected.into_iter().chain(found) {
            let field = Field::Attribute(Attribute { scope: Some(scope), of_parent: false, name: name.clone() });
            let cells: Vec<_> = rows.iter().map(|row| attribute(row, scope, &name)).collect();
            let absent = matches!(segment.column(&field).unwrap(), Column::Absent);
            if matches!(scope, Scope::Resource | Scope::Instrumentation) {
                prop_assert!(!absent || cells.iter().all(Option::is_none), "{} {}", scope.as_str(), &name);
            } else {
                prop_assert_eq!(absent, cells.iter().all(Option::is_none), "{} {}", scope.as_str(), &name);
            }
            for (number, expected) in cells.into_iter().enumerate() {
                prop_assert_eq!(&cell(segment, &field, number)?, &expected, "{} {}", scope.as_str(), &name);
                if !matches!(scope, Scope::Resource | Scope::Instrumentation) {
                    prop_assert_eq!(super::super::cell(&field, segment.built.spans.bytes(number)), expected);
                }
            }
        }
    }
    check_dictionaries(segment)?;
    check_times(segment)
}

fn check_envelopes(segment: &InMemory, number: usize, row: &Row) -> Result<(), TestCaseError> {
    let groups = &segment.built.index.groups;
    let resource = &segment.built.spans.resources[usize::from(groups.resources[number])];
    let scope = &segment.built.spans.scopes[usize::from(groups.scopes[number])];
    prop_assert_eq!(Resource::decode(resource.content()).unwrap(), row.resource.clone());
    prop_assert_eq!(InstrumentationScope::decode(scope.content()).unwrap(), row.scope.clone());
    Ok(())
}

fn check_dictionaries(segment: &InMemory) -> Result<(), TestCaseError> {
    for (field, column) in &segment.built.index.columns {
        let Column::Listed(dictionary) = &column.values else { continue };
        let strings: Vec<&str> = dictionary.strings.iter().collect();
        prop_assert!(strings.is_sorted_by(|a, b| a < b), "{:?}", field);
        prop_assert!(dictionary.ints.is_sorted_by(|a, b| a < b), "{:?}", field);
        // -0 and 0 are different values here, and equal ones to evaluation.
        let others: BTreeSet<String> = dictionary.others.iter().map(|cell| format!("{cell:?}")).collect();
        prop_assert_eq!(others.len(), dictionary.others.len(), "{:?}", field);
        let codes = segment.codes(field).unwrap();
        let used: BTreeSet<u16> = (0..segment.rows()).map(|row| codes.get(row)).filter(|code| *code != 0).collect();
        // A resource or scope of nothing but repeated spans keeps its place.
        if !matches!(column.codes, Placed::Resources(_) | Placed::Scopes(_)) {
            prop_assert_eq!(used.len(), dictionary.len(), "{:?}: every value is some row's", field);
        }
    }
    Ok(())
}

fn check_times(segment: &InMemory) -> Result<(), TestCaseError> {
    let times = segment.times();
    let (starts, durations) = (segment.starts().unwrap(), segment.durations().unwrap());
    if segment.rows() > 0 {
        prop_assert_eq!(Some(times.min_start), starts.iter().min().copied());
        prop_assert_eq!(Some(times.max_start), starts.iter().max().copied());
        prop_assert_eq!(Some(times.min_duration), durations.iter().min().copied());
        prop_assert_eq!(Some(times.max_duration), durations.iter().max().copied());
        let ends = starts.iter().zip(durations.iter()).map(|(start, duration)| start + duration);
        prop_assert_eq!(Some(times.max_end), ends.max());
    }
    Ok(())
}

pub fn same(one: &InMemory, other: &InMemory) -> Result<(), TestCaseError> {
    let columns = |segment: &InMemory| -> BTreeMap<Field, (String, Vec<u16>)> {
        let columns = segment.built.index.columns.iter();
        columns
            .map(|(field, column)| {
                let codes = segment.codes(field).unwrap();
                let values = format!("{:?}", column.values);
                (field.clone(), (values, (0..segment.rows()).map(|row| codes.get(row)).collect()))
            })
            .collect()
    };
    prop_assert_eq!(&one.built.index.traces, &other.built.index.traces);
    prop_assert_eq!(&one.built.index.parents, &other.built.index.parents);
    prop_assert_eq!(&one.built.index.ids, &other.built.index.ids);
    prop_assert_eq!(columns(one), columns(other));
    for scope in Scope::ALL {
        let names: [Arc<[Arc<str>]>; 2] = [one, other].map(|segment| segment.names(scope).unwrap());
        prop_assert_eq!(&names[0], &names[1]);
    }
    Ok(())
}
