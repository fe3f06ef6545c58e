//! Requests of few traces, spans and values, so that everything meets everything.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Wire;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;

pub fn attribute(key: &str, value: Option<Wire>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..KeyValue::default() }
}

pub fn span(trace: u64, id: u64, parent: u64, start: u64) -> Span {
    Span {
        trace_id: u128::from(trace).to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        start_time_unix_nano: start,
        end_time_unix_nano: start + 1,
        name: format!("span {id}"),
        ..Span::default()
    }
}

pub fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![attribute("service.name", Some(Wire::StringValue(service.to_owned())))],
        ..Resource::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans { scope: None, spans, schema_url: String::new() }],
            schema_url: "schema".to_owned(),
        }],
    }
}

fn scalar() -> impl Strategy<Value = Wire> {
    prop_oneof![
        prop::sample::select(vec!["", "a", "b", "ab", "abcdefgh", "abcdefghi", "ä"])
            .prop_map(|text| Wire::StringValue(text.to_owned())),
        prop::sample::select(vec![-1i64, 0, 1, 2, i64::MAX, i64::MIN]).prop_map(Wire::IntValue),
        prop::sample::select(vec![0.0, -0.0, 1.0, 0.5, f64::INFINITY]).prop_map(Wire::DoubleValue),
        any::<bool>().prop_map(Wire::BoolValue),
    ]
}

fn value() -> impl Strategy<Value = Option<Wire>> {
    let wrap = |value| AnyValue { value: Some(value) };
    let array =
        move |values: Vec<Wire>| Wire::ArrayValue(ArrayValue { values: values.into_iter().map(wrap).collect() });
    let ints = proptest::collection::vec((0i64..3).prop_map(Wire::IntValue), 0..3);
    prop_oneof![
        8 => scalar().prop_map(Some),
        1 => proptest::collection::vec(scalar(), 0..3).prop_map(move |values| Some(array(values))),
        1 => ints.prop_map(move |values| Some(array(values))),
        1 => Just(Some(Wire::KvlistValue(KeyValueList { values: vec![attribute("a", None)] }))),
        1 => Just(Some(Wire::BytesValue(vec![1, 2]))),
        1 => Just(None),
    ]
}

/// Some of them with a name that stands twice.
pub fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let name = prop::sample::select(vec!["", "a", "b", "http.status", "ö"]);
    proptest::collection::vec((name, value()).prop_map(|(name, value)| attribute(name, value)), 0..5)
}

fn event() -> impl Strategy<Value = Event> {
    (0u64..4, prop::sample::select(vec!["", "exception", "log"]), attributes()).prop_map(|(time, name, attributes)| {
        Event { time_unix_nano: time, name: name.to_owned(), attributes, ..Event::default() }
    })
}

fn link() -> impl Strategy<Value = Link> {
    (0u128..3, 0u64..3, attributes()).prop_map(|(trace, span, attributes)| Link {
        trace_id: if trace == 0 { Vec::new() } else { trace.to_be_bytes().to_vec() },
        span_id: if span == 0 { Vec::new() } else { span.to_be_bytes().to_vec() },
        attributes,
        ..Link::default()
    })
}

pub fn any_span() -> impl Strategy<Value = Span> {
    let status = (0..3, prop::sample::select(vec!["", "broken"]))
        .prop_map(|(code, message)| Status { code, message: message.to_owned() });
    (
        (1u64..5, 1u64..8, 0u64..8, 0i32..6),
        (0u64..4, 0u64..8),
        attributes(),
        prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(event(), 1..4)],
        prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(link(), 1..3)],
        proptest::option::of(status),
    )
        .prop_map(|((trace, id, parent, kind), (start, end), attributes, events, links, status)| Span {
            kind,
            end_time_unix_nano: end,
            attributes,
            events,
            links,
            status,
            ..span(trace, id, parent, start)
        })
}

fn resource_spans() -> impl Strategy<Value = ResourceSpans> {
    let scope = (prop::sample::select(vec!["", "http"]), prop::sample::select(vec!["", "1", "2"]), attributes())
        .prop_map(|(name, version, attributes)| InstrumentationScope {
            name: name.to_owned(),
            version: version.to_owned(),
            attributes,
            ..InstrumentationScope::default()
        });
    let scope_spans = (proptest::option::of(scope), proptest::collection::vec(any_span(), 0..4))
        .prop_map(|(scope, spans)| ScopeSpans { scope, spans, schema_url: String::new() });
    let resource = attributes().prop_map(|attributes| Resource { attributes, ..Resource::default() });
    (proptest::option::of(resource), proptest::collection::vec(scope_spans, 0..3))
        .prop_map(|(resource, scope_spans)| ResourceSpans { resource, scope_spans, schema_url: String::new() })
}

pub fn requests() -> impl Strategy<Value = Vec<ExportTraceServiceRequest>> {
    let request = proptest::collection::vec(resource_spans(), 0..3)
        .prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans });
    proptest::collection::vec(request, 0..5)
}
