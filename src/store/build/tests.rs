//! What was built, against what decoding the same bytes gives.

pub(in crate::store) mod generate;
pub(in crate::store) mod model;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Wire;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::traceql::ast::{Attribute, Field, Scope};
use crate::traceql::column::Cell;
use crate::traceql::segment::{Column, SKETCH_ANY, Segment, SegmentId, sketch};
use crate::traceql::value::Value;
use generate::{attribute, request, requests, span};

fn build(batches: &[Vec<u8>]) -> InMemory {
    let mut builder = Builder::new();
    for batch in batches {
        assert_eq!(builder.push(Bytes::from(batch.clone()), 0), Pushed::Whole);
    }
    InMemory { id: SegmentId(1, 0), built: builder.finish() }
}

fn encode(requests: &[ExportTraceServiceRequest]) -> Vec<Vec<u8>> {
    requests.iter().map(|request| request.encode_to_vec()).collect()
}

fn span_field(name: &str) -> Field {
    Field::Attribute(Attribute { scope: Some(Scope::Span), of_parent: false, name: name.to_owned() })
}

proptest! {
    #[test]
    fn every_field_of_every_span_is_what_decoding_gives(requests in requests()) {
        let segment = build(&encode(&requests));
        model::check(&segment, &requests)?;
    }

    #[test]
    fn how_spans_are_cut_into_batches_changes_nothing(requests in requests()) {
        let joined = build(&[encode(&requests).concat()]);
        let apart = build(&encode(&requests));
        model::check(&joined, &requests)?;
        model::same(&joined, &apart)?;
    }

    #[test]
    fn a_builder_that_was_used_before_builds_the_same(first in requests(), second in requests()) {
        let mut builder = Builder::new();
        for batch in encode(&first) {
            builder.push(batch.into(), 0);
        }
        builder.finish();
        for batch in encode(&second) {
            builder.push(batch.into(), 0);
        }
        let again = InMemory { id: SegmentId(1, 0), built: builder.finish() };
        model::check(&again, &second)?;
    }

    #[test]
    fn any_bytes_are_taken_without_panic(noise: Vec<u8>, requests in requests(), at: prop::sample::Index) {
        let mut bytes = encode(&requests).concat();
        let at = at.index(bytes.len() + 1);
        bytes.splice(at..at, noise);
        let segment = build(&[bytes]);
        let traces = segment.traces().unwrap();
        prop_assert_eq!(traces.first_rows.last().copied(), Some(segment.rows() as u32));
    }
}

#[test]
fn nothing_makes_an_empty_segment() {
    let segment = build(&[]);
    assert_eq!(segment.rows(), 0);
    assert!(segment.traces().unwrap().is_empty());
}

#[test]
fn long_strings_that_do_not_repeat_are_sketched_and_found_in_their_spans() {
    let user = |number: u64| format!("a user with the number {number:020}");
    let spans = (0..2000u64).map(|number| Span {
        attributes: vec![
            attribute("user", Some(Wire::StringValue(user(number)))),
            attribute("kind of user", Some(Wire::StringValue(format!("kind {}", number % 7)))),
        ],
        ..span(number % 100 + 1, number + 1, 0, number)
    });
    let segment = build(&[request("a", spans.collect()).encode_to_vec()]);
    let Column::Unlisted { sketches } = segment.column(&span_field("user")).unwrap() else { panic!("listed") };
    assert!(matches!(segment.column(&span_field("kind of user")).unwrap(), Column::Listed(_)));
    let ids = segment.span_ids(0..2000).unwrap();
    for (row, ids) in ids.iter().enumerate() {
        let expected = user(u64::from_be_bytes(ids.span.0) - 1);
        assert_eq!(sketches[row], sketch(&expected));
        assert_eq!(segment.cell(&span_field("user"), row).unwrap(), Some(Cell::One(Value::String(expected.into()))));
    }
}

#[test]
fn events_with_long_texts_are_sketched_where_there_is_one_and_looked_at_where_there_are_more() {
    let trace = |number: u64| format!("at frame {number:040}");
    let event = |number: u64| Event {
        attributes: vec![attribute("exception.stacktrace", Some(Wire::StringValue(trace(number))))],
        ..Event::default()
    };
    let spans = (0..1000u64).map(|number| Span {
        events: if number % 2 == 0 { vec![event(number)] } else { vec![event(number), event(number + 10_000)] },
        ..span(1, number + 1, 0, number)
    });
    let segment = build(&[request("a", spans.collect()).encode_to_vec()]);
    let field = Field::Attribute(Attribute {
        scope: Some(Scope::Event),
        of_parent: false,
        name: "exception.stacktrace".to_owned(),
    });
    let Column::Unlisted { sketches } = segment.column(&field).unwrap() else { panic!("listed") };
    for row in 0..1000 {
        let number = row as u64;
        let (sketched, values) = match number % 2 {
            0 => (sketch(&trace(number)), vec![trace(number)]),
            _ => (SKETCH_ANY, vec![trace(number), trace(number + 10_000)]),
        };
        assert_eq!(sketches[row], sketched);
        let values: Vec<Value> = values.into_iter().map(|value| Value::String(value.into())).collect();
        assert_eq!(segment.cell(&field, row).unwrap(), Some(Cell::Many(values.into())));
    }
}

#[test]
fn a_batch_that_does_not_fit_goes_to_the_next_segment_and_one_that_never_fits_is_cut() {
    let batch = |from: u64, spans: u64| -> Bytes {
        request("a", (from..from + spans).map(|id| span(id / 5 + 1, id + 1, 0, id)).collect()).encode_to_vec().into()
    };
    let rows_max = ROWS_MAX as u64;
    let mut builder = Builder::new();
    assert_eq!(builder.push(batch(0, 40_000), 0), Pushed::Whole);
    assert_eq!(builder.push(batch(40_000, 40_000), 0), Pushed::Full { next: 0 });
    assert_eq!(builder.finish().index.rows(), 40_000);

    let large = batch(0, rows_max + 100);
    assert_eq!(builder.push(large.clone(), 0), Pushed::Full { next: ROWS_MAX });
    assert_eq!(builder.finish().index.rows(), ROWS_MAX);
    assert_eq!(builder.push(large, ROWS_MAX), Pushed::Whole);
    assert_eq!(builder.push(batch(rows_max + 100, 10), 0), Pushed::Whole);
    let rest = builder.finish();
    assert_eq!(rest.index.rows(), 110);
    assert_eq!(rest.spans.batches.len(), 2);
}

#[test]
fn data_in_names_closes_the_segment() {
    let wild = |from: usize| -> Bytes {
        let attributes =
            (from..from + NAMES_WANTED).map(|name| attribute(&format!("name {name}"), Some(Wire::BoolValue(true))));
        request("a", vec![Span { attributes: attributes.collect(), ..span(1, from as u64 + 1, 0, 0) }])
            .encode_to_vec()
            .into()
    };
    let mut builder = Builder::new();
    assert_eq!(builder.push(wild(0), 0), Pushed::Whole);
    assert_eq!(builder.push(wild(NAMES_WANTED), 0), Pushed::Full { next: 0 });
    assert_eq!(builder.finish().index.names.of(Scope::Span).len(), NAMES_WANTED);
}

#[test]
fn of_two_spans_with_the_parents_id_a_server_is_the_child_of_the_client_and_the_rest_of_the_server() {
    let kind = |span: Span, kind| Span { kind, ..span };
    let segment = build(&[request(
        "a",
        vec![
            kind(span(1, 1, 0, 1), 1),
            kind(span(1, 2, 1, 10), 3),
            kind(span(1, 2, 2, 11), 2),
            kind(span(1, 9, 2, 12), 1),
            kind(span(1, 8, 7, 13), 1),
        ],
    )
    .encode_to_vec()]);
    use crate::traceql::segment::Parent::{Away, Root, Row};
    assert_eq!(segment.parents().unwrap().as_ref(), [Root, Row(0), Row(1), Row(2), Away]);
}
