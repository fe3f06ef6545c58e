//! Answers to the letter, and protobuf against prost's own decoding.

use std::collections::HashMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::otlp::{SpanId, TraceId};
use crate::query::body::{Allowance, Body};
use crate::query::negotiation::Format;
use crate::traceql::answer::{
    Exemplar, FoundSpan, FoundSpanset, MetricsAnswer, RootSpan, Sample, SearchAnswer, Series, ServiceStats,
    ValuesAnswer,
};
use crate::traceql::value::{Status, Value};

/// `tempopb` messages as Tempo's clients decode them.
mod tempopb {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    pub struct SearchResponse {
        #[prost(message, repeated, tag = "1")]
        pub traces: Vec<TraceSearchMetadata>,
        #[prost(message, optional, tag = "2")]
        pub metrics: Option<SearchMetrics>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct TraceSearchMetadata {
        #[prost(string, tag = "1")]
        pub trace_id: String,
        #[prost(string, tag = "2")]
        pub root_service_name: String,
        #[prost(string, tag = "3")]
        pub root_trace_name: String,
        #[prost(uint64, tag = "4")]
        pub start_time_unix_nano: u64,
        #[prost(uint32, tag = "5")]
        pub duration_ms: u32,
        #[prost(message, optional, tag = "6")]
        pub span_set: Option<SpanSet>,
        #[prost(message, repeated, tag = "7")]
        pub span_sets: Vec<SpanSet>,
        #[prost(map = "string, message", tag = "8")]
        pub service_stats: HashMap<String, Stats>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Stats {
        #[prost(uint32, tag = "1")]
        pub span_count: u32,
        #[prost(uint32, tag = "2")]
        pub error_count: u32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct SpanSet {
        #[prost(message, repeated, tag = "1")]
        pub spans: Vec<Span>,
        #[prost(uint32, tag = "2")]
        pub matched: u32,
        #[prost(message, repeated, tag = "3")]
        pub attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Span {
        #[prost(string, tag = "1")]
        pub span_id: String,
        #[prost(string, tag = "2")]
        pub name: String,
        #[prost(uint64, tag = "3")]
        pub start_time_unix_nano: u64,
        #[prost(uint64, tag = "4")]
        pub duration_nanos: u64,
        #[prost(message, repeated, tag = "5")]
        pub attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct SearchMetrics {
        #[prost(uint32, tag = "1")]
        pub inspected_traces: u32,
        #[prost(uint64, tag = "2")]
        pub inspected_bytes: u64,
        #[prost(uint32, tag = "3")]
        pub total_blocks: u32,
        #[prost(uint32, tag = "4")]
        pub completed_jobs: u32,
        #[prost(uint32, tag = "5")]
        pub total_jobs: u32,
        #[prost(uint64, tag = "7")]
        pub inspected_spans: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct QueryRangeResponse {
        #[prost(message, repeated, tag = "1")]
        pub series: Vec<TimeSeries>,
        #[prost(message, optional, tag = "2")]
        pub metrics: Option<SearchMetrics>,
        #[prost(int32, tag = "3")]
        pub status: i32,
        #[prost(string, tag = "4")]
        pub message: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<KeyValue>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Point>,
        #[prost(message, repeated, tag = "4")]
        pub exemplars: Vec<Labelled>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Point {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp_ms: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Labelled {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<KeyValue>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp_ms: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct TagsV2 {
        #[prost(message, repeated, tag = "1")]
        pub scopes: Vec<Scope>,
        #[prost(message, optional, tag = "2")]
        pub metrics: Option<MetadataMetrics>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Scope {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, repeated, tag = "2")]
        pub tags: Vec<String>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct MetadataMetrics {
        #[prost(uint64, tag = "1")]
        pub inspected_bytes: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct ValuesV2 {
        #[prost(message, repeated, tag = "1")]
        pub tag_values: Vec<TagValue>,
        #[prost(message, optional, tag = "2")]
        pub metrics: Option<MetadataMetrics>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct TagValue {
        #[prost(string, tag = "1")]
        pub kind: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

fn span(id: u8, attributes: Vec<(String, Value)>) -> FoundSpan {
    FoundSpan {
        id: SpanId([id; 8]),
        name: Some("GET /".into()),
        start: 1_684_778_327_699_392_724,
        duration: 446_979_497,
        attributes,
    }
}

fn found(id: u8, spansets: Vec<FoundSpanset>) -> FoundTrace {
    FoundTrace {
        id: TraceId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, id]),
        root: Some(RootSpan { service: "shop".into(), name: "GET /".into() }),
        start: 1_684_778_327_699_392_724,
        duration: 557_900_000,
        spansets,
        services: [(Arc::from("shop"), ServiceStats { spans: 12, errors: 1 })].into(),
    }
}

pub(in crate::query) fn search_answer() -> SearchAnswer {
    let spanset = FoundSpanset {
        spans: vec![span(
            1,
            vec![("status".to_owned(), Value::Status(Status::Error)), ("retry".to_owned(), Value::Int(0))],
        )],
        matched: 7,
        attributes: vec![("by(resource.service.name)".to_owned(), Some(text("shop"))), ("by(span.x)".to_owned(), None)],
    };
    let mut rootless = found(2, Vec::new());
    rootless.root = None;
    rootless.duration = 10;
    rootless.services.clear();
    SearchAnswer {
        traces: vec![found(1, vec![spanset]), rootless],
        inspected: Inspected { traces: 5, spans: 40, bytes: 5060, segments: 3, segments_done: 2 },
    }
}

/// As the API writes it.
pub fn searched(format: Format, answer: &SearchAnswer, origin: Origin) -> Vec<u8> {
    let mut written = Written::new(Body::unbounded(), format, origin);
    answer.traces.iter().for_each(|trace| written.put(trace));
    written.finish(&answer.inspected).whole()
}

fn searched_json(answer: &SearchAnswer, origin: Origin) -> String {
    String::from_utf8(searched(Format::Json, answer, origin)).unwrap()
}

fn string(write: impl FnOnce(&mut Body)) -> String {
    let mut body = Body::unbounded();
    write(&mut body);
    String::from_utf8(body.whole()).unwrap()
}

#[test]
fn a_search_is_written_as_tempo_writes_it() {
    let spanset = concat!(
        r#"{"spans":[{"spanID":"0101010101010101","name":"GET /","startTimeUnixNano":"1684778327699392724","#,
        r#""durationNanos":"446979497","attributes":[{"key":"status","value":{"stringValue":"error"}},"#,
        r#"{"key":"retry","value":{"intValue":"0"}}]}],"matched":7,"#,
        r#""attributes":[{"key":"by(resource.service.name)","value":{"stringValue":"shop"}},"#,
        r#"{"key":"by(span.x)","value":{"stringValue":"nil"}}]}"#,
    );
    let expected = format!(
        concat!(
            r#"{{"traces":[{{"traceID":"00000000000000000000000000000001","rootServiceName":"shop","#,
            r#""rootTraceName":"GET /","startTimeUnixNano":"1684778327699392724","durationMs":557,"#,
            r#""spanSet":{spanset},"spanSets":[{spanset}],"#,
            r#""serviceStats":{{"shop":{{"spanCount":12,"errorCount":1}}}}}},"#,
            r#"{{"traceID":"00000000000000000000000000000002","rootServiceName":"<root span not yet received>","#,
            r#""startTimeUnixNano":"1684778327699392724"}}],"#,
            r#""metrics":{{"inspectedTraces":5,"inspectedBytes":"5060","totalBlocks":3,"completedJobs":2,"#,
            r#""totalJobs":3,"inspectedSpans":"40"}}}}"#,
        ),
        spanset = spanset
    );
    assert_eq!(searched_json(&search_answer(), Origin::TraceQl), expected);
}

#[test]
fn a_search_by_tags_shows_no_spans() {
    let answer = searched_json(&search_answer(), Origin::Tags);
    assert!(!answer.contains("spanSet"), "{answer}");
    assert!(answer.contains("serviceStats"), "{answer}");
}

#[test]
fn nothing_found_is_an_empty_list_and_empty_metrics() {
    assert_eq!(searched_json(&SearchAnswer::default(), Origin::TraceQl), r#"{"traces":[],"metrics":{}}"#);
    assert_eq!(string(|out| json::tag_names(out, &Tags::default())), r#"{"tagNames":[],"metrics":{}}"#);
    assert_eq!(string(|out| json::tag_names_v2(out, &Tags::default())), r#"{"scopes":[],"metrics":{}}"#);
    assert_eq!(string(|out| json::tag_values(out, &ValuesAnswer::default())), r#"{"tagValues":[],"metrics":{}}"#);
    assert_eq!(string(|out| json::tag_values_v2(out, &ValuesAnswer::default())), r#"{"tagValues":[],"metrics":{}}"#);
    assert_eq!(string(|out| json::range(out, &MetricsAnswer::default())), r#"{"series":[],"metrics":{}}"#);
    assert_eq!(string(|out| json::instant(out, &MetricsAnswer::default())), r#"{"series":[],"metrics":{}}"#);
}

fn tags() -> Tags {
    let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    Tags { scopes: vec![("span", names(&["b", "a \"quoted\""])), ("resource", names(&["b"]))], inspected_bytes: 9 }
}

#[test]
fn tags_are_a_flat_list_in_v1_and_by_scope_in_v2() {
    let v1 = r#"{"tagNames":["a \"quoted\"","b"],"metrics":{"inspectedBytes":"9"}}"#;
    assert_eq!(string(|out| json::tag_names(out, &tags())), v1);
    let v2 = concat!(
        r#"{"scopes":[{"name":"span","tags":["b","a \"quoted\""]},{"name":"resource","tags":["b"]}],"#,
        r#""metrics":{"inspectedBytes":"9"}}"#,
    );
    assert_eq!(string(|out| json::tag_names_v2(out, &tags())), v2);
}

#[test]
fn values_have_types_in_v2() {
    let answer = ValuesAnswer { values: vec![text("x"), Value::Int(5), Value::Status(Status::Ok)], inspected_bytes: 0 };
    assert_eq!(string(|out| json::tag_values(out, &answer)), r#"{"tagValues":["x","5","ok"],"metrics":{}}"#);
    let v2 = concat!(
        r#"{"tagValues":[{"type":"string","value":"x"},{"type":"int","value":"5"},{"type":"keyword","value":"ok"}],"#,
        r#""metrics":{}}"#,
    );
    assert_eq!(string(|out| json::tag_values_v2(out, &answer)), v2);
}

fn metrics_answer() -> MetricsAnswer {
    let labels =
        vec![("resource.service.name".to_owned(), Some(text("shop"))), ("p".to_owned(), Some(Value::Float(0.9)))];
    let sample = |at_ms, value| Sample { at_ms, value };
    let exemplar = Exemplar {
        labels: vec![("trace:id".to_owned(), Some(text("00ab")))],
        at_ms: 1_700_000_000_500,
        value: f64::NAN,
    };
    MetricsAnswer {
        series: vec![
            Series {
                labels,
                samples: vec![sample(1_700_000_000_000, 1.5), sample(1_700_000_060_000, 0.0)],
                exemplars: vec![exemplar],
            },
            Series {
                labels: vec![("x".to_owned(), None)],
                samples: vec![sample(1_700_000_000_000, f64::INFINITY)],
                exemplars: Vec::new(),
            },
        ],
        inspected: Inspected::default(),
        partial: Some("too much".to_owned()),
    }
}

#[test]
fn series_over_time_are_written_as_tempo_writes_them() {
    let expected = concat!(
        r#"{"series":[{"labels":[{"key":"resource.service.name","value":{"stringValue":"shop"}},"#,
        r#"{"key":"p","value":{"doubleValue":0.9}}],"#,
        r#""samples":[{"timestampMs":"1700000000000","value":1.5},{"timestampMs":"1700000060000"}],"#,
        r#""exemplars":[{"labels":[{"key":"trace:id","value":{"stringValue":"00ab"}}],"value":"NaN","#,
        r#""timestampMs":"1700000000500"}]},"#,
        r#"{"labels":[{"key":"x","value":{"stringValue":"nil"}}],"#,
        r#""samples":[{"timestampMs":"1700000000000","value":"Infinity"}]}],"#,
        r#""metrics":{},"status":"PARTIAL","message":"too much"}"#,
    );
    assert_eq!(string(|out| json::range(out, &metrics_answer())), expected);
}

#[test]
fn instant_series_have_one_value() {
    let expected = concat!(
        r#"{"series":[{"labels":[{"key":"resource.service.name","value":{"stringValue":"shop"}},"#,
        r#"{"key":"p","value":{"doubleValue":0.9}}],"value":1.5},"#,
        r#"{"labels":[{"key":"x","value":{"stringValue":"nil"}}],"value":"Infinity"}],"#,
        r#""metrics":{},"status":"PARTIAL","message":"too much"}"#,
    );
    assert_eq!(string(|out| json::instant(out, &metrics_answer())), expected);
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[test]
fn a_search_as_protobuf_is_what_clients_decode() {
    let decoded =
        tempopb::SearchResponse::decode(&searched(Format::Protobuf, &search_answer(), Origin::TraceQl)[..]).unwrap();
    let spanset = tempopb::SpanSet {
        spans: vec![tempopb::Span {
            span_id: "0101010101010101".to_owned(),
            name: "GET /".to_owned(),
            start_time_unix_nano: 1_684_778_327_699_392_724,
            duration_nanos: 446_979_497,
            attributes: vec![
                attribute("status", any_value::Value::StringValue("error".to_owned())),
                attribute("retry", any_value::Value::IntValue(0)),
            ],
        }],
        matched: 7,
        attributes: vec![
            attribute("by(resource.service.name)", any_value::Value::StringValue("shop".to_owned())),
            attribute("by(span.x)", any_value::Value::StringValue("nil".to_owned())),
        ],
    };
    let first = tempopb::TraceSearchMetadata {
        trace_id: "00000000000000000000000000000001".to_owned(),
        root_service_name: "shop".to_owned(),
        root_trace_name: "GET /".to_owned(),
        start_time_unix_nano: 1_684_778_327_699_392_724,
        duration_ms: 557,
        span_set: Some(spanset.clone()),
        span_sets: vec![spanset],
        service_stats: [("shop".to_owned(), tempopb::Stats { span_count: 12, error_count: 1 })].into(),
    };
    assert_eq!(decoded.traces[0], first);
    assert_eq!(decoded.traces[1].root_service_name, "<root span not yet received>");
    let metrics = tempopb::SearchMetrics {
        inspected_traces: 5,
        inspected_bytes: 5060,
        total_blocks: 3,
        completed_jobs: 2,
        total_jobs: 3,
        inspected_spans: 40,
    };
    assert_eq!(decoded.metrics, Some(metrics));
}

#[test]
fn tags_and_values_as_protobuf_are_what_clients_decode() {
    let decoded = tempopb::TagsV2::decode(
        &protobuf::tag_names_v2(&tags(), usize::MAX, Allowance::unbounded()).unwrap().concat()[..],
    )
    .unwrap();
    let scope = |name: &str, tags: &[&str]| tempopb::Scope {
        name: name.to_owned(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
    };
    assert_eq!(decoded.scopes, [scope("span", &["b", "a \"quoted\""]), scope("resource", &["b"])]);
    assert_eq!(decoded.metrics, Some(tempopb::MetadataMetrics { inspected_bytes: 9 }));
    let answer = ValuesAnswer { values: vec![Value::Bool(true)], inspected_bytes: 0 };
    let decoded = tempopb::ValuesV2::decode(
        &protobuf::tag_values_v2(&answer, usize::MAX, Allowance::unbounded()).unwrap().concat()[..],
    )
    .unwrap();
    assert_eq!(decoded.tag_values, [tempopb::TagValue { kind: "bool".to_owned(), value: "true".to_owned() }]);
    assert_eq!(decoded.metrics, Some(tempopb::MetadataMetrics::default()));
}

#[test]
fn series_as_protobuf_are_what_clients_decode() {
    let decoded = tempopb::QueryRangeResponse::decode(
        &protobuf::range(&metrics_answer(), usize::MAX, Allowance::unbounded()).unwrap().concat()[..],
    )
    .unwrap();
    let [first, second] = &decoded.series[..] else { panic!("two series were sent") };
    assert_eq!(first.labels[1], attribute("p", any_value::Value::DoubleValue(0.9)));
    let point = |timestamp_ms, value| tempopb::Point { value, timestamp_ms };
    assert_eq!(first.samples, [point(1_700_000_000_000, 1.5), point(1_700_000_060_000, 0.0)]);
    assert!(first.exemplars[0].value.is_nan());
    assert_eq!(first.exemplars[0].timestamp_ms, 1_700_000_000_500);
    assert_eq!(second.samples, [point(1_700_000_000_000, f64::INFINITY)]);
    assert_eq!((decoded.status, decoded.message.as_str()), (1, "too much"));
}

#[test]
fn a_trace_too_large_for_a_message_shows_fewer_spans_but_keeps_its_count() {
    let attributes = |id: u8| vec![("text".to_owned(), text(&char::from(b'a' + id % 26).to_string().repeat(1000)))];
    let spanset = FoundSpanset {
        spans: (0..100).map(|id| span(id, attributes(id))).collect(),
        matched: 500,
        attributes: Vec::new(),
    };
    let trace = found(1, vec![spanset]);
    let decode = |bytes_max| {
        let message = protobuf::trace(&trace, Origin::TraceQl, bytes_max);
        assert!(message.len() <= bytes_max);
        tempopb::TraceSearchMetadata::decode(&message[..]).unwrap()
    };
    let whole = decode(usize::MAX);
    assert_eq!(whole.span_set.unwrap().spans.len(), 100);
    let single = decode(150_000);
    assert_eq!((single.span_set.as_ref(), single.span_sets[0].spans.len()), (None, 100));
    let cut = decode(60_000);
    assert_eq!((cut.span_sets[0].spans.len(), cut.span_sets[0].matched), (50, 500));
}

proptest! {
    #[test]
    fn parts_joined_are_the_whole_and_each_has_the_tail(sizes in proptest::collection::vec(0usize..200, 0..20), bytes_max in 50usize..400) {
        let values: Vec<Value> = sizes.iter().map(|size| text(&"x".repeat(*size))).collect();
        let answer = ValuesAnswer { values: values.clone(), inspected_bytes: 5 };
        let parts = protobuf::tag_values_v2(&answer, bytes_max, Allowance::unbounded()).unwrap();
        let mut joined = Vec::new();
        for part in &parts {
            let decoded = tempopb::ValuesV2::decode(&part[..]).unwrap();
            prop_assert_eq!(decoded.metrics, Some(tempopb::MetadataMetrics { inspected_bytes: 5 }));
            // Larger only where one element is.
            prop_assert!(part.len() <= bytes_max || decoded.tag_values.len() == 1);
            joined.extend(decoded.tag_values.into_iter().map(|value| value.value));
        }
        let expected: Vec<String> = sizes.iter().map(|size| "x".repeat(*size)).collect();
        prop_assert_eq!(joined, expected);
    }
}
