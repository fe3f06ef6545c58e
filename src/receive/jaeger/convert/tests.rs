//! Jaeger's formats become the requests that a Collector makes of them.

use super::*;
use crate::otlp::draft::PARTS_MAX;
use crate::otlp::scan::scan;
use crate::otlp::wire::{put_bytes, put_double_field, put_uint};
use crate::receive::thrift::write::Node;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use proptest::prelude::*;
use prost::Message;

fn convert(format: Format, body: &[u8]) -> Result<ExportTraceServiceRequest, ConvertError> {
    to_request(format, body, 1 << 20).map(|request| ExportTraceServiceRequest::decode(&*request).unwrap())
}

/// Attributes as text, sorted.
fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    };
    let mut texts: Vec<_> = attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect();
    texts.sort();
    texts
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[derive(Debug, Clone, PartialEq)]
enum Tag {
    Text(String),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
}

/// A span of Jaeger's model, to be written in every encoding.
#[derive(Debug, Clone)]
struct Model {
    trace_id: u128,
    id: u64,
    name: String,
    /// Relation (0: child of, 1: follows from), whether in the same trace, and span.
    references: Vec<(u8, bool, u64)>,
    flags: u32,
    start: u64,
    duration: u64,
    tags: Vec<(String, Tag)>,
    logs: Vec<(u64, Vec<(String, Tag)>)>,
}

/// Service name, tags, and the spans.
type Batch = (String, Vec<(String, Tag)>, Vec<Model>);

fn tags() -> impl Strategy<Value = Vec<(String, Tag)>> {
    let key = prop_oneof![
        "[a-c]{1,2}",
        prop_oneof![
            Just("error"),
            Just("span.kind"),
            Just("otel.status_code"),
            Just("http.status_code"),
            Just("otel.scope.name"),
            Just("hostname"),
            Just("event"),
        ]
        .prop_map(str::to_owned),
    ];
    let value = prop_oneof![
        prop_oneof![Just("client".to_owned()), Just("ERROR".to_owned()), ".{0,6}".boxed()].prop_map(Tag::Text),
        any::<bool>().prop_map(Tag::Bool),
        prop_oneof![any::<i64>(), 90..600i64].prop_map(Tag::Int),
        (-1e9..1e9f64).prop_map(Tag::Double),
        any::<Vec<u8>>().prop_map(Tag::Bytes),
    ];
    proptest::collection::vec((key, value), 0..6)
}

fn batch() -> impl Strategy<Value = Batch> {
    let references = proptest::collection::vec((0..2u8, any::<bool>(), 1..4u64), 0..3);
    let logs = proptest::collection::vec((0..1u64 << 50, tags()), 0..3);
    let span = (any::<u128>(), any::<u64>(), ".{0,6}", references, 0..4u32, 0..1u64 << 50, 0..1u64 << 40, tags(), logs);
    let span = span.prop_map(|(trace_id, id, name, references, flags, start, duration, tags, logs)| Model {
        trace_id,
        id,
        name,
        references,
        flags,
        start,
        duration,
        tags,
        logs,
    });
    ("[ab]?", tags(), proptest::collection::vec(span, 0..5))
}

impl Tag {
    fn thrift(&self, key: &str) -> Node {
        let (kind, value) = match self {
            Self::Text(text) => (0, (3, Node::text(text))),
            Self::Double(value) => (1, (4, Node::Double(*value))),
            Self::Bool(value) => (2, (5, Node::Bool(*value))),
            Self::Int(value) => (3, (6, Node::I64(*value))),
            Self::Bytes(bytes) => (4, (7, Node::Binary(bytes.clone()))),
        };
        Node::Struct(vec![(1, Node::text(key)), (2, Node::I32(kind)), value])
    }

    fn protobuf(&self, key: &str) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, key.as_bytes());
        match self {
            Self::Text(text) => put_bytes(&mut out, 3, text.as_bytes()),
            Self::Bool(value) => {
                put_uint(&mut out, 2, 1);
                put_uint(&mut out, 4, u64::from(*value));
            }
            Self::Int(value) => {
                put_uint(&mut out, 2, 2);
                put_uint(&mut out, 5, *value as u64);
            }
            Self::Double(value) => {
                put_uint(&mut out, 2, 3);
                put_double_field(&mut out, 6, *value);
            }
            Self::Bytes(bytes) => {
                put_uint(&mut out, 2, 4);
                put_bytes(&mut out, 7, bytes);
            }
        }
        out
    }
}

fn list(id: i16, elements: Vec<Node>) -> Option<(i16, Node)> {
    (!elements.is_empty()).then_some((id, Node::List(elements)))
}

fn thrift_tags(id: i16, tags: &[(String, Tag)]) -> Option<(i16, Node)> {
    list(id, tags.iter().map(|(key, tag)| tag.thrift(key)).collect())
}

fn id_fields(low: i16, high: i16, id: u128) -> [(i16, Node); 2] {
    [(low, Node::I64(id as u64 as i64)), (high, Node::I64((id >> 64) as u64 as i64))]
}

fn thrift((service, tags, spans): &Batch) -> Node {
    let span = |span: &Model| {
        let mut fields = id_fields(1, 2, span.trace_id).to_vec();
        fields.extend([(3, Node::I64(span.id as i64)), (4, Node::I64(0)), (5, Node::text(&span.name))]);
        let reference = |(relation, inside, id): &(u8, bool, u64)| {
            let mut fields = vec![(1, Node::I32((*relation).into()))];
            fields.extend(id_fields(2, 3, if *inside { span.trace_id } else { 7 }));
            fields.push((4, Node::I64(*id as i64)));
            Node::Struct(fields)
        };
        fields.extend(list(6, span.references.iter().map(reference).collect()));
        fields.push((7, Node::I32(span.flags as i32)));
        fields.extend([(8, Node::I64(span.start as i64)), (9, Node::I64(span.duration as i64))]);
        fields.extend(thrift_tags(10, &span.tags));
        let log = |(at, log_fields): &(u64, Vec<(String, Tag)>)| {
            let mut fields = vec![(1, Node::I64(*at as i64))];
            fields.extend(thrift_tags(2, log_fields));
            Node::Struct(fields)
        };
        fields.extend(list(11, span.logs.iter().map(log).collect()));
        Node::Struct(fields)
    };
    let mut process = vec![(1, Node::text(service))];
    process.extend(thrift_tags(2, tags));
    let mut fields = vec![(1, Node::Struct(process))];
    fields.extend(list(2, spans.iter().map(span).collect()));
    Node::Struct(fields)
}

fn protobuf((service, tags, spans): &Batch) -> Vec<u8> {
    fn message(parts: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        parts(&mut out);
        out
    }
    let time = |micros: u64| {
        message(|out| {
            put_uint(out, 1, micros / 1_000_000);
            put_uint(out, 2, micros % 1_000_000 * 1_000);
        })
    };
    let put_tags = |out: &mut Vec<u8>, number, tags: &[(String, Tag)]| {
        tags.iter().for_each(|(key, tag)| put_bytes(out, number, &tag.protobuf(key)));
    };
    let span = |span: &Model| {
        message(|out| {
            put_bytes(out, 1, &span.trace_id.to_be_bytes());
            put_bytes(out, 2, &span.id.to_be_bytes());
            put_bytes(out, 3, span.name.as_bytes());
            for (relation, inside, id) in &span.references {
                let trace_id = if *inside { span.trace_id } else { 7 };
                let reference = message(|out| {
                    put_bytes(out, 1, &trace_id.to_be_bytes());
                    put_bytes(out, 2, &id.to_be_bytes());
                    put_uint(out, 3, (*relation).into());
                });
                put_bytes(out, 4, &reference);
            }
            put_uint(out, 5, span.flags.into());
            put_bytes(out, 6, &time(span.start));
            put_bytes(out, 7, &time(span.duration));
            put_tags(out, 8, &span.tags);
            for (at, fields) in &span.logs {
                let log = message(|out| {
                    put_bytes(out, 1, &time(*at));
                    put_tags(out, 2, fields);
                });
                put_bytes(out, 9, &log);
            }
        })
    };
    let batch = message(|out| {
        spans.iter().for_each(|it| put_bytes(out, 1, &span(it)));
        let process = message(|out| {
            put_bytes(out, 1, service.as_bytes());
            put_tags(out, 2, tags);
        });
        put_bytes(out, 2, &process);
    });
    message(|out| put_bytes(out, 1, &batch))
}

proptest! {
    #[test]
    fn every_encoding_of_a_batch_becomes_the_same_request(batch in batch()) {
        let of_protobuf = convert(Format::Protobuf, &protobuf(&batch)).unwrap();
        let thrift = thrift(&batch);
        prop_assert_eq!(&of_protobuf, &convert(Format::Thrift, &thrift.binary()).unwrap());
        let call = Node::Struct(vec![(1, thrift)]);
        let of_compact = convert(Format::AgentCall(Encoding::Compact), &call.compact_call("emitBatch")).unwrap();
        prop_assert_eq!(&of_protobuf, &of_compact);
        let of_binary = convert(Format::AgentCall(Encoding::Binary), &call.binary_call("emitBatch")).unwrap();
        prop_assert_eq!(&of_protobuf, &of_binary);
        let count: usize =
            of_protobuf.resource_spans.iter().flat_map(|it| &it.scope_spans).map(|scope| scope.spans.len()).sum();
        prop_assert_eq!(count, batch.2.len());
    }

    #[test]
    fn any_bytes_are_converted_or_refused(bytes: Vec<u8>) {
        for format in [
            Format::Protobuf,
            Format::Thrift,
            Format::AgentCall(Encoding::Binary),
            Format::AgentCall(Encoding::Compact),
        ] {
            if let Ok(request) = to_request(format, &bytes, 1 << 16) {
                prop_assert!(scan(&request).is_ok());
            }
        }
    }
}

fn model(tags: &[(&str, Tag)]) -> Model {
    let tags = tags.iter().map(|(key, tag)| ((*key).to_owned(), tag.clone())).collect();
    let (references, logs) = (Vec::new(), Vec::new());
    let (name, start, duration) = ("get".to_owned(), 1_000, 500);
    Model { trace_id: 0x0102, id: 3, name, references, flags: 1, start, duration, tags, logs }
}

fn text(text: &str) -> Tag {
    Tag::Text(text.to_owned())
}

fn one(batch: Batch) -> (Vec<(String, String)>, Span) {
    let mut request = convert(Format::Protobuf, &protobuf(&batch)).unwrap();
    let mut resource_spans = request.resource_spans.remove(0);
    (texts(&resource_spans.resource.unwrap().attributes), resource_spans.scope_spans.remove(0).spans.remove(0))
}

#[test]
fn a_span_has_its_process_kind_logs_and_flags() {
    let mut span = model(&[("span.kind", text("server")), ("w3c.tracestate", text("a=b")), ("n", Tag::Int(5))]);
    span.logs.push((1_200, vec![("event".to_owned(), text("retry")), ("after".to_owned(), text("1s"))]));
    let process_tags = vec![("hostname".to_owned(), text("h")), ("jaeger.version".to_owned(), text("Go-2.30"))];
    let (resource, span) = one(("shop".to_owned(), process_tags, vec![span]));
    let expected = [("host.name", "h"), ("opencensus.exporterversion", "Jaeger-Go-2.30"), ("service.name", "shop")];
    assert_eq!(resource, pairs(&expected));
    assert_eq!((span.kind, span.trace_state.as_str(), span.flags), (SpanKind::Server as i32, "a=b", 1));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_000_000, 1_500_000));
    assert_eq!((span.attributes.len(), span.attributes[0].key.as_str()), (1, "n"));
    let event = &span.events[0];
    assert_eq!((event.name.as_str(), event.time_unix_nano), ("retry", 1_200_000));
    assert_eq!(texts(&event.attributes), pairs(&[("after", "1s")]));
}

#[test]
fn the_status_comes_from_the_error_tag_then_the_status_code_then_http() {
    for (tags, expected) in [
        (vec![], (0, "")),
        (vec![("error", Tag::Bool(true))], (2, "")),
        (vec![("error", Tag::Bool(true)), ("http.status_message", text("gone"))], (2, "gone")),
        (vec![("error", Tag::Bool(true)), ("otel.status_code", text("OK"))], (2, "")),
        (vec![("otel.status_code", text("ok")), ("otel.status_description", text("d"))], (1, "d")),
        (vec![("error", Tag::Bool(false)), ("otel.status_code", text("ERROR"))], (2, "")),
        (vec![("http.status_code", Tag::Int(500)), ("http.status_message", text("m"))], (2, "m")),
        (vec![("http.status_code", text("404")), ("span.kind", text("client"))], (2, "")),
        (vec![("http.status_code", Tag::Int(404)), ("span.kind", text("server"))], (0, "")),
        (vec![("http.status_code", Tag::Int(200))], (0, "")),
        (vec![("error", text("true"))], (0, "")),
    ] {
        let (_, span) = one((String::new(), Vec::new(), vec![model(&tags)]));
        let status = span.status.unwrap_or_default();
        assert_eq!((status.code, status.message.as_str()), expected, "{tags:?}");
    }
}

#[test]
fn references_are_the_parent_or_links() {
    let mut span = model(&[]);
    span.references = vec![(1, true, 1), (0, false, 2), (0, true, 3)];
    let (_, converted) = one((String::new(), Vec::new(), vec![span.clone()]));
    assert_eq!(converted.parent_span_id, 3u64.to_be_bytes());
    let links: Vec<_> =
        converted.links.iter().map(|link| (link.span_id[7], texts(&link.attributes)[0].1.clone())).collect();
    assert_eq!(links, [(1, "follows_from".to_owned()), (2, "child_of".to_owned())]);
    span.references = vec![(1, true, 1)];
    let (_, converted) = one((String::new(), Vec::new(), vec![span]));
    assert_eq!(converted.parent_span_id, 1u64.to_be_bytes(), "what it follows is all the parent that it has");
    assert_eq!(converted.links.len(), 1);
}

#[test]
fn a_process_of_the_spans_own_goes_before_the_batchs() {
    let mut span = Vec::new();
    put_bytes(&mut span, 1, &[1; 16]);
    put_bytes(&mut span, 2, &[2; 8]);
    let mut process = Vec::new();
    put_bytes(&mut process, 1, b"own");
    put_bytes(&mut span, 10, &process);
    let mut batch = Vec::new();
    put_bytes(&mut batch, 1, &span);
    put_bytes(&mut batch, 2, &{
        let mut process = Vec::new();
        put_bytes(&mut process, 1, b"batch");
        process
    });
    let mut request = Vec::new();
    put_bytes(&mut request, 1, &batch);
    let request = convert(Format::Protobuf, &request).unwrap();
    assert_eq!(texts(&request.resource_spans[0].resource.as_ref().unwrap().attributes)[0].1, "own");
}

#[test]
fn errors_say_what_is_wrong() {
    let error = |format, body: &[u8]| convert(format, body).unwrap_err().to_string();
    assert_eq!(error(Format::Thrift, &[12, 0]), "not a Jaeger batch in Thrift: the message ends too early at byte 1");
    let text = error(Format::Thrift, &Node::Struct(vec![(1, Node::I32(1))]).binary());
    assert!(text.contains("Batch.process has type I32, expected Struct"), "{text}");
    let call = Node::Struct(vec![]).compact_call("emitZipkinBatch");
    assert!(error(Format::AgentCall(Encoding::Compact), &call).contains("emitZipkinBatch"));
    let call = Node::Struct(vec![]).binary_call("emitBatch");
    assert!(error(Format::AgentCall(Encoding::Compact), &call).contains("protocol version"));
    let mut span = Vec::new();
    put_bytes(&mut span, 2, &[1; 7]);
    let mut batch = Vec::new();
    put_bytes(&mut batch, 1, &span);
    let mut request = Vec::new();
    put_bytes(&mut request, 1, &batch);
    assert_eq!(error(Format::Protobuf, &request), "span 0: span_id: is not 8 bytes long");
}

#[test]
fn a_span_or_process_of_countless_empty_parts_is_refused() {
    // PostSpansRequest { batch { spans { logs {} .. } } } and { process { tags {} .. } }
    let nested = |number: u32, inner: &[u8]| {
        let (mut batch, mut request) = (Vec::new(), Vec::new());
        put_bytes(&mut batch, number, inner);
        put_bytes(&mut request, 1, &batch);
        request
    };
    let refused = |format, body: &[u8]| super::to_request(format, body, usize::MAX).unwrap_err();
    let logs = refused(Format::Protobuf, &nested(1, &[0x4a, 0].repeat(PARTS_MAX + 1)));
    assert!(matches!(logs, ConvertError::TooManyParts(_)), "{logs}");
    let tags = refused(Format::Protobuf, &nested(2, &[0x12, 0].repeat(PARTS_MAX + 1)));
    assert!(matches!(tags, ConvertError::TooManyParts(_)), "{tags}");

    // Batch { 1: process {}, 2: spans [ { 11: logs [ {} .. ] } ] }
    let count = u32::try_from(PARTS_MAX + 1).unwrap().to_be_bytes();
    let mut body = vec![12, 0, 1, 0, 15, 0, 2, 12, 0, 0, 0, 1, 15, 0, 11, 12];
    body.extend(count);
    body.extend(vec![0; PARTS_MAX + 1]);
    body.extend([0, 0]);
    let logs = refused(Format::Thrift, &body).to_string();
    assert!(logs.contains("65536"), "{logs}");
}

#[test]
fn a_process_of_thousands_of_tags_is_written_once_for_all_its_spans() {
    const TAGS: usize = 5_000;
    let (mut process, mut batch, mut request) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..TAGS {
        let mut tag = Vec::new();
        put_bytes(&mut tag, 1, format!("key{at}").as_bytes());
        put_bytes(&mut process, 2, &tag);
    }
    for id in 1..=3 {
        let mut span = Vec::new();
        put_bytes(&mut span, 1, &[1; 16]);
        put_bytes(&mut span, 2, &[id; 8]);
        put_bytes(&mut batch, 1, &span);
    }
    put_bytes(&mut batch, 2, &process);
    put_bytes(&mut request, 1, &batch);
    let converted = convert(Format::Protobuf, &request).unwrap();
    assert_eq!(converted.resource_spans.len(), 1);
    let resource_spans = &converted.resource_spans[0];
    assert_eq!(resource_spans.resource.as_ref().unwrap().attributes.len(), TAGS);
    assert_eq!(resource_spans.scope_spans[0].spans.len(), 3);
}
