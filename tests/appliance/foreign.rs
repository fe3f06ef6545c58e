//! Spans that come as Zipkin's and Jaeger's libraries send them: stored, accounted for, and the same spans that a real
//! Collector makes of the same bytes.

use crate::destination::{Answer as Told, Destination, Options as DestinationOptions};
use crate::support::compression::Compression;
use crate::support::http::Connection;
use crate::support::otelcol::{Otelcol, built_by};
use crate::support::otlp::{GrpcConnection, code, frame};
use crate::support::ports;
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use crate::thrift::Node;
use bytes::Bytes;
use http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use prost::Message;
use std::time::{Duration, Instant};

const ZIPKIN_V2: &str = include_str!("../data/receivers/zipkin_v2.json");
const ZIPKIN_V1: &str = include_str!("../data/receivers/zipkin_v1.json");
const POST_SPANS: &str = "/jaeger.api_v2.CollectorService/PostSpans";
/// This one release of the Collector writes new names for Zipkin's endpoints; the next writes those from before again.
const NEW_NAMES: [(&str, &str); 3] = [
    ("service.peer.name", "peer.service"),
    ("network.local.address", "net.host.ip"),
    ("network.peer.address", "net.peer.ip"),
];
/// For everything that was sent to arrive at a destination.
const ARRIVAL_BOUND: Duration = Duration::from_secs(60);

/// Where a receiver listens, whoever runs it.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub zipkin: u16,
    pub jaeger_grpc: u16,
    pub jaeger_http: u16,
    pub compact: u16,
    pub binary: u16,
}

impl Ports {
    pub fn free() -> Self {
        let [zipkin, jaeger_grpc, jaeger_http, compact, binary] = std::array::from_fn(|_| ports::free());
        Self { zipkin, jaeger_grpc, jaeger_http, compact, binary }
    }

    pub fn receivers(self) -> Vec<(String, String)> {
        let at = |port: u16| format!("{{endpoint: '127.0.0.1:{port}'}}");
        let jaeger = format!(
            "{{protocols: {{grpc: {}, thrift_http: {}, thrift_compact: {}, thrift_binary: {}}}}}",
            at(self.jaeger_grpc),
            at(self.jaeger_http),
            at(self.compact),
            at(self.binary)
        );
        vec![("zipkin".to_owned(), at(self.zipkin)), ("jaeger".to_owned(), jaeger)]
    }
}

async fn post(port: u16, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> (u16, String) {
    let mut connection = Connection::open(port).await.unwrap();
    let response = connection.send(Method::POST, path, headers, body.into()).await.unwrap();
    (response.status.as_u16(), response.text())
}

/// A batch as the Jaeger clients in Go, Java, Node and Python put it together.
fn jaeger_batch(name: &str) -> Node {
    let text = Node::text;
    let tag =
        |key: &str, kind: i32, value: (i16, Node)| Node::Struct(vec![(1, text(key)), (2, Node::I32(kind)), value]);
    let span = |id: i64, parent: i64, operation: &str, tags: Vec<Node>| {
        vec![
            (1, Node::I64(0x0102_0304_0506_0708)),
            (2, Node::I64(-2)),
            (3, Node::I64(id)),
            (4, Node::I64(parent)),
            (5, text(operation)),
            (7, Node::I32(1)),
            (8, Node::I64(1_516_781_775_726_000)),
            (9, Node::I64(27_000)),
            (10, Node::List(tags)),
        ]
    };
    let mut root = span(
        11,
        0,
        name,
        vec![tag("span.kind", 0, (3, text("server"))), tag("sampler.param", 2, (5, Node::Bool(true)))],
    );
    root.push((
        11,
        Node::List(vec![Node::Struct(vec![
            (1, Node::I64(1_516_781_775_727_000)),
            (2, Node::List(vec![tag("event", 0, (3, text("acquired lock"))), tag("waiters", 3, (6, Node::I64(3)))])),
        ])]),
    ));
    let mut child = span(
        12,
        11,
        &format!("{name} child"),
        vec![
            tag("span.kind", 0, (3, text("client"))),
            tag("error", 2, (5, Node::Bool(true))),
            tag("http.status_code", 3, (6, Node::I64(503))),
            tag("share", 1, (4, Node::Double(0.25))),
            tag("raw", 4, (7, Node::Binary(vec![1, 2, 255]))),
        ],
    );
    child.insert(
        5,
        (
            6,
            Node::List(vec![Node::Struct(vec![
                (1, Node::I32(1)),
                (2, Node::I64(99)),
                (3, Node::I64(0)),
                (4, Node::I64(77)),
            ])]),
        ),
    );
    let process = Node::Struct(vec![
        (1, text("shop")),
        (
            2,
            Node::List(vec![tag("hostname", 0, (3, text("shop-0"))), tag("jaeger.version", 0, (3, text("Go-2.30.0")))]),
        ),
    ]);
    Node::Struct(vec![(1, process), (2, Node::List(vec![Node::Struct(root), Node::Struct(child)]))])
}

/// `PostSpansRequest`, as far as the test fills it.
mod api_v2 {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct PostSpansRequest {
        #[prost(message, optional, tag = "1")]
        pub batch: Option<Batch>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Batch {
        #[prost(message, repeated, tag = "1")]
        pub spans: Vec<Span>,
        #[prost(message, optional, tag = "2")]
        pub process: Option<Process>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Process {
        #[prost(string, tag = "1")]
        pub service_name: String,
        #[prost(message, repeated, tag = "2")]
        pub tags: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub span_id: Vec<u8>,
        #[prost(string, tag = "3")]
        pub operation_name: String,
        #[prost(message, repeated, tag = "4")]
        pub references: Vec<SpanRef>,
        #[prost(uint32, tag = "5")]
        pub flags: u32,
        #[prost(message, optional, tag = "6")]
        pub start_time: Option<Time>,
        #[prost(message, optional, tag = "7")]
        pub duration: Option<Time>,
        #[prost(message, repeated, tag = "8")]
        pub tags: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SpanRef {
        #[prost(bytes = "vec", tag = "1")]
        pub trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub span_id: Vec<u8>,
        #[prost(int32, tag = "3")]
        pub ref_type: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Time {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct KeyValue {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(int32, tag = "2")]
        pub v_type: i32,
        #[prost(string, tag = "3")]
        pub v_str: String,
        #[prost(int64, tag = "5")]
        pub v_int64: i64,
    }
}

fn post_spans() -> api_v2::PostSpansRequest {
    let text = |key: &str, value: &str| api_v2::KeyValue { key: key.into(), v_str: value.into(), ..Default::default() };
    let span = |id: u8, references: Vec<api_v2::SpanRef>, tags: Vec<api_v2::KeyValue>| api_v2::Span {
        trace_id: vec![5; 16],
        span_id: vec![0, 0, 0, 0, 0, 0, 0, id],
        operation_name: format!("posted {id}"),
        references,
        flags: 1,
        start_time: Some(api_v2::Time { seconds: 1_516_781_775, nanos: 726_001_002 }),
        duration: Some(api_v2::Time { seconds: 1, nanos: 3 }),
        tags,
    };
    let parent = api_v2::SpanRef { trace_id: vec![5; 16], span_id: vec![0, 0, 0, 0, 0, 0, 0, 1], ref_type: 0 };
    let followed = api_v2::SpanRef { trace_id: vec![6; 16], span_id: vec![0, 0, 0, 0, 0, 0, 0, 9], ref_type: 1 };
    let status = api_v2::KeyValue { key: "http.status_code".into(), v_type: 2, v_int64: 404, ..Default::default() };
    let spans = vec![
        span(
            1,
            vec![],
            vec![
                text("span.kind", "server"),
                status.clone(),
                text("otel.scope.name", "lib"),
                text("otel.scope.version", "1"),
            ],
        ),
        span(2, vec![parent, followed], vec![text("span.kind", "client"), status, text("w3c.tracestate", "a=b")]),
        span(3, vec![], vec![text("otel.status_code", "OK"), text("otel.status_description", "fine")]),
    ];
    let process = api_v2::Process { service_name: "poster".into(), tags: vec![text("ip", "10.0.0.1")] };
    api_v2::PostSpansRequest { batch: Some(api_v2::Batch { spans, process: Some(process) }) }
}

/// Sends one of everything; how many spans that were.
async fn send_everything(ports: Ports) -> usize {
    let (status, text) = post(ports.zipkin, "/api/v2/spans", &[("content-type", "application/json")], ZIPKIN_V2).await;
    assert_eq!((status, text.as_str()), (202, ""));
    let (status, text) = post(ports.zipkin, "/api/v1/spans", &[("content-type", "application/json")], ZIPKIN_V1).await;
    assert_eq!((status, text.as_str()), (202, ""));
    let gzip = Compression::Gzip.apply(
        format!(
            "[{{\"traceId\":\"77\",\"id\":\"78\",\"timestamp\":{},\"name\":\"zipped\"}}]",
            1_516_781_775_000_000u64
        )
        .as_bytes(),
    );
    let headers = [("content-encoding", "gzip"), ("content-type", "application/json")];
    assert_eq!(post(ports.zipkin, "/any/path", &headers, gzip).await.0, 202);
    let batch = jaeger_batch("by http").binary();
    let (status, text) =
        post(ports.jaeger_http, "/api/traces?format=jaeger.thrift", &[("content-type", "application/x-thrift")], batch)
            .await;
    assert_eq!((status, text.as_str()), (202, ""));
    let mut grpc = GrpcConnection::open(ports.jaeger_grpc).await.unwrap();
    let message = frame(false, &post_spans().encode_to_vec());
    let answer = grpc.send(Method::POST, POST_SPANS, Some("application/grpc"), None, message).await.unwrap();
    assert_eq!(answer.code, Some(0), "{answer:?}");
    packet(ports.compact, &call("by compact packet").compact_call("emitBatch")).await;
    packet(ports.binary, &call("by binary packet").binary_call("emitBatch")).await;
    5 + 2 + 1 + 2 + 3 + 2 * 2
}

/// The arguments of `emitBatch`.
fn call(name: &str) -> Node {
    Node::Struct(vec![(1, jaeger_batch(name))])
}

async fn packet(port: u16, bytes: &[u8]) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    assert_eq!(socket.send_to(bytes, ("127.0.0.1", port)).await.unwrap(), bytes.len());
}

/// Waits until so many requests or packets had this outcome.
async fn counted(spanreel: &Spanreel, labels: &[(&str, &str)], expected: f64) {
    let deadline = Instant::now() + ARRIVAL_BOUND;
    loop {
        let counted = spanreel.metrics().await.sum("spanreel_receiver_requests_total", labels);
        if counted == Some(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{labels:?}: {counted:?}, expected {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every span with its resource and scope, as text that is the same for the same meaning, sorted.
fn spans(requests: &[ExportTraceServiceRequest]) -> Vec<String> {
    let sorted = |attributes: &mut Vec<KeyValue>| attributes.sort_by(|a, b| a.key.cmp(&b.key));
    let mut spans = Vec::new();
    for request in requests {
        for resource_spans in &request.resource_spans {
            let mut resource = resource_spans.resource.clone().unwrap_or_default();
            sorted(&mut resource.attributes);
            for scope_spans in &resource_spans.scope_spans {
                let scope = scope_spans.scope.clone().unwrap_or_default();
                for span in &scope_spans.spans {
                    let mut span = span.clone();
                    for attribute in &mut span.attributes {
                        if let Some((_, before)) = NEW_NAMES.iter().find(|(new, _)| *new == attribute.key) {
                            (*before).clone_into(&mut attribute.key);
                        }
                    }
                    sorted(&mut span.attributes);
                    span.events.iter_mut().for_each(|event| sorted(&mut event.attributes));
                    span.status.get_or_insert_default();
                    spans.push(format!("{span:#?}\n{resource:#?}\n{scope:#?}"));
                }
            }
        }
    }
    spans.sort();
    spans
}

async fn arrived(destination: &Destination, count: usize) -> Vec<String> {
    let deadline = Instant::now() + ARRIVAL_BOUND;
    loop {
        let spans = spans(&destination.requests());
        if spans.len() >= count {
            return spans;
        }
        assert!(Instant::now() < deadline, "{} of {count} spans arrived", spans.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn destination() -> Destination {
    Destination::start(DestinationOptions { keep_requests: true, ..DestinationOptions::default() }, |_| Told::Ok).await
}

/// A Collector with the same receivers that forwards to `destination`.
async fn collector(ports: Ports, destination: u16) -> Otelcol {
    let receivers: String = ports.receivers().iter().map(|(id, settings)| format!("  {id}: {settings}\n")).collect();
    let config = format!(
        "extensions:\n  health_check: {{endpoint: '127.0.0.1:$HEALTH'}}\nreceivers:\n{receivers}exporters:\n  \
         otlp: {{endpoint: '127.0.0.1:{destination}', tls: {{insecure: true}}, sending_queue: {{enabled: false}}}}\nservice:\n  \
         extensions: [health_check]\n  telemetry: {{metrics: {{level: none}}}}\n  \
         pipelines:\n    traces: {{receivers: [zipkin, jaeger], exporters: [otlp]}}\n"
    );
    Otelcol::start(&config).await
}

#[tokio::test]
async fn spans_of_other_formats_are_those_that_a_collector_makes_of_them() {
    let (ours, theirs) = (destination().await, destination().await);
    let (own_ports, their_ports) = (Ports::free(), Ports::free());
    let options = Options { receivers: own_ports.receivers(), ..Options::default() };
    let spanreel = Spanreel::start(&options.with_grpc_destination("otlp", ours.address.port())).await;
    let _collector = collector(their_ports, theirs.address.port()).await;

    let count = send_everything(own_ports).await;
    assert_eq!(send_everything(their_ports).await, count);
    let (ours, theirs) = (arrived(&ours, count).await, arrived(&theirs, count).await);
    assert_eq!(ours.len(), theirs.len());
    for (our, their) in ours.iter().zip(&theirs) {
        assert!(our == their, "ours:\n{our}\ntheirs:\n{their}");
    }

    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    assert_eq!(ledger.pipeline(PIPELINE).received, count as u64);
    for (receiver, protocol, requests) in [
        ("zipkin", "http_v2_json", 2.0),
        ("zipkin", "http_v1_json", 1.0),
        ("jaeger", "collector_http", 1.0),
        ("jaeger", "grpc", 1.0),
        ("jaeger", "udp_thrift_compact", 1.0),
        ("jaeger", "udp_thrift_binary", 1.0),
    ] {
        let labels = [("receiver", receiver), ("protocol", protocol), ("outcome", "ok")];
        counted(&spanreel, &labels, requests).await;
    }
}

#[tokio::test]
async fn what_is_no_zipkin_or_jaeger_is_refused_with_the_place_and_counted() {
    let ports = Ports::free();
    let spanreel = Spanreel::start(&Options { receivers: ports.receivers(), ..Options::default() }).await;
    let json = [("content-type", "application/json")];
    let thrift = [("content-type", "application/x-thrift")];
    let protobuf = [("content-type", "application/x-protobuf")];
    for (port, path, headers, body, status, expected) in [
        (ports.zipkin, "/api/v2/spans", &json[..], &b"[{\"traceId\":\"1\",\"id\":}]"[..], 400, "line 1 column 22"),
        (ports.zipkin, "/api/v2/spans", &json[..], b"[{\"traceId\":\"x\",\"id\":\"1\"}]", 400, "span 0: traceId"),
        (ports.zipkin, "/api/v2/spans", &json[..], b"", 400, "line 1 column 0"),
        (ports.zipkin, "/api/v2/spans", &thrift[..], b"", 400, "/api/v1/spans"),
        (ports.zipkin, "/api/v2/spans", &protobuf[..], b"\x0a\x7f", 400, "protobuf"),
        (ports.zipkin, "/api/v1/spans", &thrift[..], b"\x0c\xff\xff\xff\xff", 400, "Thrift"),
        (ports.jaeger_http, "/api/traces", &thrift[..], b"\x0c", 400, "ends too early"),
        (ports.jaeger_http, "/api/traces", &json[..], b"{}", 400, "Unsupported content type"),
        (ports.jaeger_http, "/v1/traces", &protobuf[..], b"", 404, "/api/traces"),
    ] {
        let (got, text) = post(port, path, headers, body).await;
        assert!((got, text.contains(expected)) == (status, true), "{path} {body:?}: {got} {text}");
    }
    let mut connection = Connection::open(ports.zipkin).await.unwrap();
    let response = connection.send(Method::GET, "/api/v2/spans", &[], Bytes::new()).await.unwrap();
    assert_eq!((response.status.as_u16(), response.header("allow")), (405, "POST"));

    let mut grpc = GrpcConnection::open(ports.jaeger_grpc).await.unwrap();
    for (path, message, expected) in [
        (POST_SPANS, &b"\x0a\x03\x0a\x7f\x00"[..], code::INVALID_ARGUMENT),
        ("/jaeger.api_v2.SamplingManager/GetSamplingStrategy", b"", code::UNIMPLEMENTED),
    ] {
        let answer =
            grpc.send(Method::POST, path, Some("application/grpc"), None, frame(false, message)).await.unwrap();
        assert_eq!(answer.code, Some(expected), "{path}: {answer:?}");
    }

    // A span without an id is refused alone; the rest of its batch is stored, and both are booked.
    let body = "[{\"traceId\":\"1\",\"id\":\"0\",\"timestamp\":1},{\"traceId\":\"1\",\"id\":\"2\",\"timestamp\":1}]";
    assert_eq!(post(ports.zipkin, "/", &json, body).await.0, 202);
    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    let account = ledger.pipeline(PIPELINE);
    assert_eq!((account.received, account.stored, account.dropped), (2, 1, 1));
    let bad = [("receiver", "zipkin"), ("outcome", "bad_data")];
    assert_eq!(spanreel.metrics().await.sum("spanreel_receiver_requests_total", &bad), Some(6.0));
}

/// More nothing than any receiver takes, and claims of more, in every compression that a receiver takes.
#[tokio::test]
async fn bombs_are_refused_by_every_receiver_without_the_memory() {
    const MEMORY_MAX: u64 = 160 << 20;
    let ports = Ports::free();
    let mut spanreel = Spanreel::start(&Options { receivers: ports.receivers(), ..Options::default() }).await;
    let nothing = vec![b' '; 24 << 20];
    let mut bombs: Vec<(&str, Bytes)> =
        [Compression::Gzip, Compression::Zstd, Compression::Deflate, Compression::SnappyFramed, Compression::Lz4]
            .into_iter()
            .map(|compression| (compression.name().unwrap(), compression.apply(&nothing).into()))
            .collect();
    // A snappy block that claims 4 GiB - 1.
    bombs.push(("snappy", Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00])));
    let mut grpc = GrpcConnection::open(ports.jaeger_grpc).await.unwrap();
    for (encoding, bomb) in &bombs {
        for (port, path, media_type) in [
            (ports.zipkin, "/api/v2/spans", "application/json"),
            (ports.zipkin, "/api/v2/spans", "application/x-protobuf"),
            (ports.zipkin, "/api/v1/spans", "application/json"),
            (ports.zipkin, "/api/v1/spans", "application/x-thrift"),
            (ports.jaeger_http, "/api/traces", "application/x-thrift"),
        ] {
            let headers = [("content-encoding", *encoding), ("content-type", media_type)];
            let (status, text) = post(port, path, &headers, bomb.clone()).await;
            assert_eq!(status, 413, "{path} {media_type} {encoding}: {text}");
        }
        let message = frame(true, bomb);
        let answer = grpc.send(Method::POST, POST_SPANS, Some("application/grpc"), Some(encoding), message).await;
        let answer = answer.unwrap();
        assert_eq!(answer.code, Some(code::RESOURCE_EXHAUSTED), "{encoding}: {answer:?}");
        assert!(!answer.is_retryable(), "it would come again: {answer:?}");
    }
    let refused = |receiver| [("receiver", receiver), ("outcome", "too_large")];
    counted(&spanreel, &refused("zipkin"), 4.0 * bombs.len() as f64).await;
    counted(&spanreel, &refused("jaeger"), 2.0 * bombs.len() as f64).await;
    let peak = spanreel.process().peak_memory();
    assert!(peak < MEMORY_MAX, "it grew to {} MiB", peak >> 20);
    assert!(send_everything(ports).await > 0, "good ones are taken");
    spanreel.ledger().await.assert_balanced();
}

#[tokio::test]
async fn packets_that_cannot_be_taken_are_counted_by_their_reason() {
    let ports = Ports::free();
    let short = format!(
        "{{protocols: {{thrift_compact: {{endpoint: '127.0.0.1:{}', max_packet_size: 1000}}}}}}",
        ports.compact
    );
    let options = Options { receivers: vec![("jaeger".to_owned(), short)], ..Options::default() };
    let spanreel = Spanreel::start(&options).await;
    packet(ports.compact, b"").await;
    packet(ports.compact, b"GET / HTTP/1.1").await;
    packet(ports.compact, &call("x").binary_call("emitBatch")).await;
    packet(ports.compact, &call("x").compact_call("emitZipkinBatch")).await;
    packet(ports.compact, &call(&"long".repeat(300)).compact_call("emitBatch")).await;
    packet(ports.compact, &call("x").compact_call("emitBatch")).await;
    let labels = |outcome| [("receiver", "jaeger"), ("protocol", "udp_thrift_compact"), ("outcome", outcome)];
    counted(&spanreel, &labels("bad_data"), 4.0).await;
    counted(&spanreel, &labels("too_large"), 1.0).await;
    counted(&spanreel, &labels("ok"), 1.0).await;
    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    assert_eq!(ledger.pipeline(PIPELINE).stored, 2);
}

/// A packet is all there is: what was taken off the socket before an ordered stop is stored.
#[tokio::test]
async fn packets_are_stored_before_an_ordered_stop_ends() {
    let ports = Ports::free();
    let mut spanreel = Spanreel::start(&Options { receivers: ports.receivers(), ..Options::default() }).await;
    for at in 0..50 {
        packet(ports.compact, &call(&format!("packet {at}")).compact_call("emitBatch")).await;
    }
    let labels = [("protocol", "udp_thrift_compact"), ("outcome", "ok")];
    counted(&spanreel, &labels, 50.0).await;
    assert!(spanreel.stop().success());
    spanreel.start_again().await;
    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    assert_eq!(ledger.pipeline(PIPELINE).stored, 100);
}

/// The exporter that a Node.js application has with its agent.
#[tokio::test]
async fn spans_of_the_zipkin_exporter_of_an_opentelemetry_sdk_are_found_again() {
    let ports = Ports::free();
    let spanreel = Spanreel::start(&Options { receivers: ports.receivers(), ..Options::default() }).await;
    let agent = built_by(".ci/node-agent");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agents/zipkin.js");
    let output = std::process::Command::new("node")
        .arg(script)
        .arg(format!("http://127.0.0.1:{}/api/v2/spans", ports.zipkin))
        .env("NODE_PATH", format!("{agent}/autoinstrumentation/node_modules"))
        .output()
        .expect("node runs");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success() && said.len() == 32, "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let trace = u128::from_str_radix(&said, 16).unwrap().to_be_bytes();
    let mut spans = spanreel.query().await.spans(trace).await.unwrap();
    spans.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    let [(service, parent), (_, child)] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(service, "node-shop");
    assert_eq!((parent.name.as_str(), parent.kind, parent.parent_span_id.len()), ("GET /cart", 2, 0));
    assert_eq!((child.name.as_str(), child.kind, &child.parent_span_id), ("query", 3, &parent.span_id));
    assert_eq!(child.events[0].name, "retry");
    assert_eq!(child.status.as_ref().map(|status| status.code), Some(2));
    let value = |key: &str| child.attributes.iter().find(|attribute| attribute.key == key);
    assert!(value("peer.service").is_some() && value("rows").is_some(), "{:?}", child.attributes);
    assert!(child.end_time_unix_nano >= child.start_time_unix_nano && child.start_time_unix_nano > 0);
    spanreel.ledger().await.assert_balanced();
}
