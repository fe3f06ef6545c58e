//! Zipkin's formats become the requests that a Collector makes of them.

use super::*;
use crate::otlp::draft::PARTS_MAX;
use crate::otlp::scan::scan;
use crate::otlp::wire::{put_bytes, put_fixed64, put_uint};
use crate::receive::thrift::write::Node;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use proptest::prelude::*;
use prost::Message;
use serde_json::json;

const NOW: u64 = 1_700_000_000_000_000_000;

fn convert(format: Format, body: &[u8], rules: Rules) -> Result<ExportTraceServiceRequest, ConvertError> {
    to_request(format, body, rules, NOW, 1 << 20).map(|request| ExportTraceServiceRequest::decode(&*request).unwrap())
}

/// The resource, the scope's name and the span of a request that holds one.
fn one(format: Format, body: &[u8], rules: Rules) -> (Vec<(String, String)>, String, Span) {
    let mut request = convert(format, body, rules).unwrap();
    assert_eq!(request.resource_spans.len(), 1);
    let mut resource_spans = request.resource_spans.remove(0);
    let mut scope_spans = resource_spans.scope_spans.remove(0);
    assert_eq!((resource_spans.scope_spans.len(), scope_spans.spans.len()), (0, 1));
    let resource = resource_spans.resource.unwrap();
    (texts(&resource.attributes), scope_spans.scope.unwrap().name, scope_spans.spans.remove(0))
}

/// Attributes as text, sorted.
fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(value)) => format!("int {value}"),
        Some(any_value::Value::DoubleValue(value)) => format!("double {value}"),
        Some(any_value::Value::BoolValue(value)) => format!("bool {value}"),
        other => panic!("unexpected value {other:?}"),
    };
    let mut texts: Vec<_> = attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect();
    texts.sort();
    texts
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What Brave sends for the server's half of a call, with more tags than it would.
fn v2() -> serde_json::Value {
    json!([{
        "traceId": "5982fe77008310cc80f1da5e10147517", "parentId": "90394f6bcffb5d13", "id": "67fae42571535f60",
        "kind": "SERVER", "name": "get /items/{id}", "timestamp": 1_516_781_775_726_000u64, "duration": 26_000,
        "localEndpoint": { "serviceName": "items", "ipv4": "10.0.0.7", "port": 8080 },
        "remoteEndpoint": { "serviceName": "shop", "ipv6": "2001:DB8::1", "port": 51_234 },
        "annotations": [{ "timestamp": 1_516_781_775_727_000u64, "value": "wr" }],
        "tags": { "http.method": "GET", "http.status_code": "500", "error": "true", "host.name": "pod-1",
                  "otel.scope.name": "brave", "retries": "3", "share": "0.5", "cached": "false", "empty": "" },
        "shared": true,
    }])
}

#[test]
fn a_v2_span_has_its_endpoints_tags_and_annotations() {
    let (resource, scope, span) = one(Format::JsonV2, v2().to_string().as_bytes(), Rules::default());
    assert_eq!(resource, pairs(&[("host.name", "pod-1"), ("service.name", "items")]));
    assert_eq!(scope, "brave");
    assert_eq!(span.trace_id[..4], [0x59, 0x82, 0xfe, 0x77]);
    assert_eq!(span.parent_span_id[0], 0x90);
    assert_eq!((span.kind, span.name.as_str()), (SpanKind::Server as i32, "get /items/{id}"));
    assert_eq!(span.start_time_unix_nano, 1_516_781_775_726_000_000);
    assert_eq!(span.end_time_unix_nano, 1_516_781_775_752_000_000);
    let expected = [
        ("cached", "false"),
        ("empty", ""),
        ("http.method", "GET"),
        ("http.status_code", "500"),
        ("net.host.ip", "10.0.0.7"),
        ("net.host.port", "int 8080"),
        ("net.peer.ip", "2001:db8::1"),
        ("net.peer.port", "int 51234"),
        ("peer.service", "shop"),
        ("retries", "3"),
        ("share", "0.5"),
    ];
    assert_eq!(texts(&span.attributes), pairs(&expected));
    assert_eq!((span.events[0].name.as_str(), span.events[0].time_unix_nano), ("wr", 1_516_781_775_727_000_000));
    assert_eq!(span.status.unwrap().code, 2);

    let (_, _, span) = one(Format::JsonV2, v2().to_string().as_bytes(), Rules { parse_string_tags: true });
    let attributes = texts(&span.attributes);
    for (key, value) in [("retries", "int 3"), ("share", "double 0.5"), ("cached", "bool false"), ("empty", "")] {
        assert!(attributes.contains(&(key.to_owned(), value.to_owned())), "{key}: {attributes:?}");
    }
}

#[test]
fn short_ids_stand_for_ids_with_zeros_in_front_and_absent_fields_for_nothing() {
    let body = br#"[null, {"traceId":"1f","id":"a","parentId":"a","name":null,"tags":{"a":null,"n":7,"b":true}}]"#;
    let (resource, _, span) = one(Format::JsonV2, body, Rules::default());
    assert_eq!(resource, []);
    assert_eq!(span.trace_id, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1f]);
    assert_eq!((span.span_id.as_slice(), span.parent_span_id.len()), (&[0, 0, 0, 0, 0, 0, 0, 10][..], 0));
    let expected = [("a", ""), ("b", "true"), ("n", "7"), ("otel.zipkin.absentField.startTime", "bool true")];
    assert_eq!(texts(&span.attributes), pairs(&expected));
    assert_eq!(span.start_time_unix_nano, 0);
}

#[test]
fn what_was_otlp_once_is_otlp_again() {
    let body = json!([{ "traceId": "01", "id": "02", "timestamp": 1, "tags": {
        "otlp.service.name.source": "faas.name", "span.kind": "internal", "w3c.tracestate": "a=b",
        "otel.status_code": "Error", "otel.status_description": "no",
        "otlp.link.0": "000102030405060708090a0b0c0d0e0f|0001020304050607|c=d|{\"k\":\"x|y\"}|4" },
        "localEndpoint": { "serviceName": "f" },
        "annotations": [
            { "timestamp": 2, "value": "sent|{\"bytes\":12,\"ratio\":0.5,\"ok\":true,\"deep\":{}}|3" },
            { "timestamp": 3, "value": "a|b|c" },
        ] }]);
    let (resource, _, span) = one(Format::JsonV2, body.to_string().as_bytes(), Rules::default());
    assert_eq!(resource, pairs(&[("faas.name", "f")]));
    assert_eq!((span.kind, span.trace_state.as_str()), (SpanKind::Internal as i32, "a=b"));
    let status = span.status.unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "no"));
    let link = &span.links[0];
    assert_eq!((link.trace_id[15], link.span_id[7], link.trace_state.as_str()), (15, 7, "c=d"));
    assert_eq!((texts(&link.attributes), link.dropped_attributes_count), (pairs(&[("k", "x|y")]), 4));
    let event = &span.events[0];
    assert_eq!((event.name.as_str(), event.dropped_attributes_count), ("sent", 3));
    assert_eq!(texts(&event.attributes), pairs(&[("bytes", "int 12"), ("ok", "bool true"), ("ratio", "double 0.5")]));
    assert_eq!(span.events[1].name, "a|b|c", "bars alone make no event");
    assert_eq!(span.attributes.len(), 0);
}

#[test]
fn every_span_of_a_service_keeps_its_own_resource_tags() {
    let span = |id: &str, host: &str| json!({ "traceId": "1", "id": id, "localEndpoint": { "serviceName": "shop" }, "tags": { "host.name": host } });
    let body = json!([span("1", "a"), span("2", "b"), span("3", "a")]).to_string();
    let request = convert(Format::JsonV2, body.as_bytes(), Rules::default()).unwrap();
    let hosts: Vec<_> = request
        .resource_spans
        .iter()
        .map(|it| (texts(&it.resource.as_ref().unwrap().attributes)[0].1.clone(), it.scope_spans[0].spans.len()))
        .collect();
    assert_eq!(hosts, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
}

#[test]
fn errors_say_which_span_and_what() {
    let error = |format, body: &str| convert(format, body.as_bytes(), Rules::default()).unwrap_err().to_string();
    assert_eq!(
        error(Format::JsonV2, r#"[{"traceId":"1","id":"1"},{"traceId":"xyz","id":"1"}]"#),
        "span 1: traceId: is not 1 to 32 hexadecimal digits"
    );
    assert_eq!(error(Format::JsonV1, r#"[{"traceId":"1"}]"#), "span 0: id: is missing");
    let text = error(Format::JsonV2, "[{\"traceId\":\"1\",\"id\":\"1\",\n \"timestamp\":\"soon\"}]");
    assert!(text.contains("line 2 column 19") && text.contains("in span 0"), "{text}");
    let text = error(Format::JsonV2, "");
    assert!(text.contains("line 1 column 0"), "{text}");
    assert!(error(Format::JsonV2, "{}").contains("expected a list of spans"));
    assert!(error(Format::JsonV2, "[] []").contains("trailing characters"));
    assert!(error(Format::ProtobufV2, "\u{a}\u{2}\u{a}\u{0}").contains("span 0: trace_id"));
    assert!(error(Format::ThriftV1, "\u{c}\u{7f}aaa").contains("goes beyond the end"));
}

#[test]
fn a_body_that_would_grow_beyond_its_limit_is_refused() {
    let body = format!("[{}]", vec![r#"{"traceId":"1","id":"1"}"#; 1000].join(","));
    let error = to_request(Format::JsonV2, body.as_bytes(), Rules::default(), NOW, 10_000).unwrap_err();
    assert!(matches!(error, ConvertError::TooLong(_)));
}

/// What Finagle or old Brave sent for a client's half of a call.
fn v1() -> serde_json::Value {
    let endpoint = json!({ "serviceName": "front", "ipv4": "10.0.0.1", "port": 80 });
    json!([{
        "traceId": "0000000000000001", "id": "0000000000000002", "parentId": "0000000000000001", "name": "get",
        "annotations": [
            { "timestamp": 1_000_000, "value": "cs", "endpoint": endpoint },
            { "timestamp": 1_000_100, "value": "wire.send" },
            { "timestamp": 1_000_500, "value": "cr", "endpoint": endpoint },
        ],
        "binaryAnnotations": [
            { "key": "http.status_code", "value": "404", "endpoint": endpoint },
            { "key": "lc", "value": "ruby" },
            { "key": "error", "value": "not there" },
            { "key": "sa", "value": true, "endpoint": { "serviceName": "back", "ipv4": "10.0.0.2" } },
        ],
    }])
}

#[test]
fn a_v1_span_is_read_from_its_annotations() {
    let (resource, _, span) = one(Format::JsonV1, v1().to_string().as_bytes(), Rules::default());
    assert_eq!(resource, pairs(&[("ipv4", "10.0.0.1"), ("port", "80"), ("service.name", "front")]));
    assert_eq!(span.kind, SpanKind::Client as i32);
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_000_000_000, 1_000_500_000));
    assert_eq!((span.events.len(), span.events[0].name.as_str()), (1, "wire.send"));
    let expected =
        [("component", "ruby"), ("http.status_code", "404"), ("net.peer.ip", "10.0.0.2"), ("peer.service", "back")];
    assert_eq!(texts(&span.attributes), pairs(&expected));
    let status = span.status.unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "not there"));

    let bare = br#"[{"traceId":"1","id":"2","binaryAnnotations":[{"key":"lc","value":"cron"}]}]"#;
    let (resource, _, span) = one(Format::JsonV1, bare, Rules::default());
    assert_eq!(resource, pairs(&[("service.name", "cron")]));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (NOW, NOW));
}

#[test]
fn v1_in_thrift_is_the_same_span() {
    let text = Node::text;
    let endpoint =
        |name: &str, ip: i32, port: i16| Node::Struct(vec![(1, Node::I32(ip)), (2, Node::I16(port)), (3, text(name))]);
    let front = || endpoint("front", 0x0a00_0001, 80);
    let annotation = |at, value: &str, host: Option<Node>| {
        let mut fields = vec![(1, Node::I64(at)), (2, text(value))];
        fields.extend(host.map(|host| (3, host)));
        Node::Struct(fields)
    };
    let binary = |key: &str, value: Node, kind, host: Option<Node>| {
        let mut fields = vec![(1, text(key)), (2, value), (3, Node::I32(kind))];
        fields.extend(host.map(|host| (4, host)));
        Node::Struct(fields)
    };
    let span = Node::Struct(vec![
        (1, Node::I64(1)),
        (3, text("get")),
        (4, Node::I64(2)),
        (5, Node::I64(1)),
        (
            6,
            Node::List(vec![
                annotation(1_000_000, "cs", Some(front())),
                annotation(1_000_100, "wire.send", None),
                annotation(1_000_500, "cr", Some(front())),
            ]),
        ),
        (
            8,
            Node::List(vec![
                binary("http.status_code", text("404"), 6, Some(front())),
                binary("lc", text("ruby"), 6, None),
                binary("error", text("not there"), 6, None),
                binary("sa", Node::Binary(vec![1]), 0, Some(endpoint("back", 0x0a00_0002, 0))),
            ]),
        ),
    ]);
    let thrift = convert(Format::ThriftV1, &Node::List(vec![span]).binary(), Rules::default()).unwrap();
    let json = convert(Format::JsonV1, v1().to_string().as_bytes(), Rules::default()).unwrap();
    assert_eq!(thrift, json);
}

/// A span of the v2 model, to be written in both encodings.
#[derive(Debug, Clone)]
struct Model {
    trace_id: [u8; 16],
    id: u64,
    parent_id: Option<u64>,
    kind: usize,
    name: String,
    timestamp: u64,
    duration: u64,
    service: String,
    port: u16,
    ip: Option<[u8; 4]>,
    annotations: Vec<(u64, String)>,
    tags: Vec<(String, String)>,
}

const KINDS: [&str; 5] = ["", "CLIENT", "SERVER", "PRODUCER", "CONSUMER"];

fn model() -> impl Strategy<Value = Model> {
    let ids = (any::<[u8; 16]>(), 1..u64::MAX, proptest::option::of(1..u64::MAX));
    let key = prop_oneof!["[a-c]{1,2}", Just("error".to_owned()), Just("host.name".to_owned())];
    let rest = (0..5usize, ".{0,6}", any::<u32>(), any::<u32>(), "[ab]?", any::<u16>(), any::<Option<[u8; 4]>>());
    let lists =
        (proptest::collection::vec((any::<u32>(), ".{0,6}"), 0..4), proptest::collection::vec((key, ".{0,6}"), 0..6));
    (ids, rest, lists).prop_map(|((trace_id, id, parent_id), rest, (annotations, tags))| {
        let (kind, name, timestamp, duration, service, port, ip) = rest;
        let (timestamp, duration) = (timestamp.into(), duration.into());
        let annotations = annotations.into_iter().map(|(at, value)| (at.into(), value)).collect();
        Model { trace_id, id, parent_id, kind, name, timestamp, duration, service, port, ip, annotations, tags }
    })
}

impl Model {
    fn json(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        // Written by hand: keys may come twice.
        let tags: Vec<_> = self.tags.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
        let annotations: Vec<_> =
            self.annotations.iter().map(|(at, value)| json!({ "timestamp": at, "value": value })).collect();
        let mut local = json!({ "serviceName": self.service, "port": self.port });
        if let Some(ip) = self.ip {
            local["ipv4"] = std::net::Ipv4Addr::from(ip).to_string().into();
        }
        let parent = self.parent_id.map(|id| hex(&id.to_be_bytes()));
        format!(
            r#"{{"traceId":"{}","id":"{:x}","parentId":{},"kind":"{}","name":{},"timestamp":{},"duration":{},"localEndpoint":{local},"annotations":{},"tags":{{{}}}}}"#,
            hex(&self.trace_id),
            self.id,
            json!(parent),
            KINDS[self.kind],
            quoted(&self.name),
            self.timestamp,
            self.duration,
            json!(annotations),
            tags.join(",")
        )
    }

    fn protobuf(&self) -> Vec<u8> {
        let mut span = Vec::new();
        put_bytes(&mut span, 1, &self.trace_id);
        if let Some(parent) = self.parent_id {
            put_bytes(&mut span, 2, &parent.to_be_bytes());
        }
        put_bytes(&mut span, 3, &self.id.to_be_bytes());
        put_uint(&mut span, 4, self.kind as u64);
        put_bytes(&mut span, 5, self.name.as_bytes());
        put_fixed64(&mut span, 6, self.timestamp);
        put_uint(&mut span, 7, self.duration);
        let mut local = Vec::new();
        put_bytes(&mut local, 1, self.service.as_bytes());
        if let Some(ip) = self.ip {
            put_bytes(&mut local, 2, &ip);
        }
        put_uint(&mut local, 4, self.port.into());
        put_bytes(&mut span, 8, &local);
        for (at, value) in &self.annotations {
            let mut annotation = Vec::new();
            put_fixed64(&mut annotation, 1, *at);
            put_bytes(&mut annotation, 2, value.as_bytes());
            put_bytes(&mut span, 10, &annotation);
        }
        for (key, value) in &self.tags {
            let mut tag = Vec::new();
            put_bytes(&mut tag, 1, key.as_bytes());
            put_bytes(&mut tag, 2, value.as_bytes());
            put_bytes(&mut span, 11, &tag);
        }
        span
    }
}

proptest! {
    #[test]
    fn json_and_protobuf_of_the_same_spans_become_the_same_request(
        spans in proptest::collection::vec(model(), 0..6),
        parse_string_tags: bool,
    ) {
        let rules = Rules { parse_string_tags };
        let json = format!("[{}]", spans.iter().map(Model::json).collect::<Vec<_>>().join(","));
        let mut protobuf = Vec::new();
        spans.iter().for_each(|span| put_bytes(&mut protobuf, 1, &span.protobuf()));
        let of_json = convert(Format::JsonV2, json.as_bytes(), rules).unwrap();
        prop_assert_eq!(&of_json, &convert(Format::ProtobufV2, &protobuf, rules).unwrap());
        let count: usize =
            of_json.resource_spans.iter().flat_map(|it| &it.scope_spans).map(|scope| scope.spans.len()).sum();
        prop_assert_eq!(count, spans.len());
    }

    #[test]
    fn any_bytes_are_converted_or_refused(bytes: Vec<u8>) {
        for format in [Format::JsonV2, Format::ProtobufV2, Format::JsonV1, Format::ThriftV1] {
            if let Ok(request) = to_request(format, &bytes, Rules::default(), NOW, 1 << 16) {
                prop_assert!(scan(&request).is_ok());
            }
        }
    }
}

#[test]
fn a_span_of_countless_empty_parts_is_refused() {
    let many = |part: &str| vec![part; PARTS_MAX + 1].join(",");
    let tags: Vec<String> = (0..=PARTS_MAX).map(|number| format!("\"{number}\":\"\"")).collect();
    let span = |rest: &str| format!("[{{\"traceId\":\"1\",\"id\":\"1\",{rest}}}]");
    for (format, body) in [
        (Format::JsonV2, span(&format!("\"annotations\":[{}]", many("{}")))),
        (Format::JsonV2, span(&format!("\"tags\":{{{}}}", tags.join(",")))),
        (Format::JsonV1, span(&format!("\"binaryAnnotations\":[{}]", many("{}")))),
    ] {
        let error = to_request(format, body.as_bytes(), Rules::default(), 1, usize::MAX).unwrap_err().to_string();
        assert!(error.contains("65536"), "{error}");
    }
    let (mut one, mut request) = (vec![0x0a, 1, 1, 0x1a, 8, 0, 0, 0, 0, 0, 0, 0, 1], Vec::new());
    one.extend([0x52, 0].repeat(PARTS_MAX + 1));
    put_bytes(&mut request, 1, &one);
    let error = to_request(Format::ProtobufV2, &request, Rules::default(), 1, usize::MAX).unwrap_err().to_string();
    assert!(error.contains("65536"), "{error}");
}
