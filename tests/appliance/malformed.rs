//! What no client should send: each kind is refused for good, with an answer that says why; the process stays small
//! and serves the next request; the ledger stays exact.

use crate::support::compression::Compression;
use crate::support::otlp::{Answer, Client, GrpcConnection, Protocol, Raw, Signal, code};
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use crate::support::traces::{self, Traces, attribute};
use bytes::Bytes;
use http::Method;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue};
use prost::Message;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

const MIB: usize = 1024 * 1024;
/// No refused request may make the process larger than this; the largest body sent here is 100 MB, the largest
/// inflated one 1 GiB.
const MEMORY_MAX: u64 = 160 * MIB as u64;
const SOCKET_BOUND: Duration = Duration::from_secs(20);

/// What the whole request was refused with.
#[derive(Debug, Clone, Copy)]
enum Refused {
    BadData,
    TooLarge,
    UnknownEncoding,
}

impl Refused {
    fn assert(self, what: &str, answer: &Answer) {
        let (http, grpc) = match self {
            Self::BadData => (400, code::INVALID_ARGUMENT),
            Self::TooLarge => (413, code::RESOURCE_EXHAUSTED),
            Self::UnknownEncoding => (400, code::UNIMPLEMENTED),
        };
        let at = format!("{what}, {:?}: {answer:?}", answer.protocol);
        match answer.protocol {
            Protocol::Grpc => {
                assert_eq!(answer.http_status, 200, "gRPC errors are trailers: {at}");
                assert_eq!(answer.code, Some(grpc), "{at}");
            }
            protocol => {
                assert_eq!(answer.http_status, http, "{at}");
                let content_type = answer.headers.get("content-type").and_then(|value| value.to_str().ok());
                assert_eq!(
                    content_type,
                    Some(protocol.content_type()),
                    "the Status is in the request's encoding: {at}"
                );
                assert!(answer.code.is_some_and(|code| code != 0), "the body is no google.rpc.Status: {at}");
            }
        }
        assert!(!answer.message.is_empty(), "nobody learns what is wrong: {at}");
        assert!(!answer.is_retryable(), "the same bytes would come again and again: {at}");
    }
}

/// Sends a body that is no good by every protocol that can carry it.
async fn assert_refused(spanreel: &Spanreel, what: &str, body: &[u8], encoding: Option<&str>, refused: Refused) {
    for protocol in Protocol::ALL {
        let mut client = Client::connect(spanreel.ports.of(protocol), protocol).await.unwrap();
        let answer = client.send(raw(protocol, body, encoding)).await;
        refused.assert(what, &answer.unwrap_or_else(|error| panic!("{what}, {protocol:?}: {error:?}")));
    }
}

fn raw<'a>(protocol: Protocol, body: &[u8], encoding: Option<&'a str>) -> Raw<'a> {
    Raw {
        method: Method::POST,
        path: protocol.path(Signal::Traces),
        content_type: Some(protocol.content_type()),
        encoding,
        body: Bytes::copy_from_slice(body),
    }
}

/// After whatever was done to it: alive, small, exact, and taking the next good request.
async fn assert_unharmed(spanreel: &mut Spanreel, seed: u64) {
    let traces = Traces { seed, spans_per_trace: 2 };
    for protocol in Protocol::ALL {
        let mut client = Client::connect(spanreel.ports.of(protocol), protocol).await.unwrap();
        let answer = client.export(&traces.request("unharmed", 0..1), Compression::Identity).await.unwrap();
        assert!(answer.is_ok(), "{protocol:?}: {answer:?}");
    }
    let mut query = spanreel.query().await;
    assert!(query.missing([traces.id(0)], 2).await.unwrap().is_empty());
    spanreel.ledger().await.assert_balanced();
    let peak = spanreel.process().peak_memory();
    assert!(peak < MEMORY_MAX, "it grew to {} MiB", peak / MIB as u64);
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let good = Traces { seed: 10, spans_per_trace: 2 }.request("malformed", 0..4).encode_to_vec();
    let mut overlong = good.clone();
    // The first field says that it is longer than all there is.
    overlong.splice(1..3, [0xff, 0xff, 0xff, 0xff, 0x0f]);
    let cases: [(&str, Vec<u8>); 6] = [
        ("random bytes", (0..4096).map(|at| traces::mix(at) as u8).collect()),
        ("a request cut off in the middle", good[..good.len() / 2].to_vec()),
        ("a length beyond the end", overlong),
        ("a varint without end", vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("the wrong wire type", vec![0x08, 0x01]),
        ("field number zero", vec![0x02, 0x01, 0x00]),
    ];
    for (what, body) in &cases {
        assert_refused(&spanreel, what, body, None, Refused::BadData).await;
    }
    assert_unharmed(&mut spanreel, 11).await;
}

#[tokio::test]
async fn broken_json_is_refused() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let cases = [
        ("an empty body", ""),
        ("a list", "[]"),
        ("a cut off document", r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102"#),
        ("a fraction for an integer", r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":1.5}]}]}]}"#),
        ("an unknown enum name", r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"SPAN_KIND_FRIEND"}]}]}]}"#),
    ];
    for (what, body) in cases {
        let mut client = Client::connect(spanreel.ports.http, Protocol::HttpJson).await.unwrap();
        let answer = client.send(raw(Protocol::HttpJson, body.as_bytes(), None)).await.unwrap();
        Refused::BadData.assert(what, &answer);
    }
    assert_unharmed(&mut spanreel, 12).await;
}

#[tokio::test]
async fn broken_compression_is_refused() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let good = Traces { seed: 13, spans_per_trace: 2 }.request("malformed", 0..50).encode_to_vec();
    for compression in Compression::ALL {
        let Some(name) = compression.name() else { continue };
        let compressed = compression.apply(&good);
        let what = format!("truncated {compression:?}");
        assert_refused(&spanreel, &what, &compressed[..compressed.len() / 2], Some(name), Refused::BadData).await;
        let what = format!("plain bytes that claim to be {compression:?}");
        assert_refused(&spanreel, &what, &[b'x'; 100], Some(name), Refused::BadData).await;
    }
    assert_refused(&spanreel, "an unknown encoding", &good, Some("brotli-9000"), Refused::UnknownEncoding).await;
    assert_unharmed(&mut spanreel, 14).await;
}

#[tokio::test]
async fn decompression_bombs_are_refused_without_the_memory() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let large = vec![0; 64 * MIB];
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Deflate, Compression::SnappyFramed] {
        let what = format!("64 MiB in {compression:?}");
        assert_refused(&spanreel, &what, &compression.apply(&large), compression.name(), Refused::TooLarge).await;
    }
    // 1 GiB of zeros in 33 KB, as a stream that does not say how long it is.
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    for _ in 0..1024 {
        encoder.write_all(&large[..MIB]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert_refused(&spanreel, "1 GiB in zstd", &bomb, Some("zstd"), Refused::TooLarge).await;
    // A snappy block that only claims 4 GiB - 1.
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    assert_refused(&spanreel, "a claim of 4 GiB in snappy", &claim, Some("snappy"), Refused::TooLarge).await;
    // A zstd frame header that demands a window of 1 GiB and holds one byte.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x09, 0x00, 0x00, 0x0a];
    for protocol in Protocol::ALL {
        let mut client = Client::connect(spanreel.ports.of(protocol), protocol).await.unwrap();
        let answer = client.send(raw(protocol, &window, Some("zstd"))).await.unwrap();
        assert!(!answer.is_ok() && !answer.is_retryable(), "{protocol:?}: {answer:?}");
    }
    assert_unharmed(&mut spanreel, 15).await;
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_before_it_is_read() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let head = |kind: &str| {
        format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n{kind}\r\n\r\n")
    };
    // Only the head is sent: the length it announces is reason enough.
    let mut stream = connect(spanreel.ports.http);
    stream.write_all(head("content-length: 100000000").as_bytes()).unwrap();
    assert_first_line(&mut stream, "HTTP/1.1 413");

    // Chunked, it cannot be known beforehand; writing stops when the server has had enough.
    let mut stream = connect(spanreel.ports.http);
    stream.write_all(head("transfer-encoding: chunked").as_bytes()).unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[0; 0x10000], b"\r\n"].concat();
    let sent = (0..100_000_000 / 0x10000).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(sent < 1000, "the server read {sent} chunks of 64 KiB of a body it must refuse");

    // And as one gRPC message.
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    let answer = client.send(raw(Protocol::Grpc, &vec![0; 100_000_000], None)).await.unwrap();
    Refused::TooLarge.assert("100 MB", &answer);
    assert_unharmed(&mut spanreel, 16).await;
}

#[tokio::test]
async fn values_nested_1000_deep_are_refused_and_99_deep_are_not() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let nested = |depth: usize| {
        let mut request = Traces { seed: 17, spans_per_trace: 1 }.request("malformed", 0..1);
        let array = |value| Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(value) }] });
        let value = (0..depth).fold(Value::BoolValue(true), |value, _| array(value));
        request.resource_spans[0].scope_spans[0].spans[0].attributes.push(attribute("deep", value));
        request
    };
    // The JSON of the rig knows no arrays: the value is put in as text.
    let json_base = traces::json(&Traces { seed: 17, spans_per_trace: 1 }.request("malformed", 0..1));
    let json = |depth: usize| {
        let value = (0..depth)
            .fold(r#"{"boolValue":true}"#.to_owned(), |value, _| format!(r#"{{"arrayValue":{{"values":[{value}]}}}}"#));
        json_base.replacen(r#"{"stringValue":"GET"}"#, &value, 1)
    };
    for protocol in Protocol::ALL {
        let body = |depth| match protocol {
            Protocol::HttpJson => json(depth).into_bytes(),
            _ => nested(depth).encode_to_vec(),
        };
        let mut client = Client::connect(spanreel.ports.of(protocol), protocol).await.unwrap();
        let answer = client.send(raw(protocol, &body(1000), None)).await.unwrap();
        Refused::BadData.assert("1,000 levels", &answer);
        let answer = client.send(raw(protocol, &body(99), None)).await.unwrap();
        assert!(answer.is_ok(), "99 levels, {protocol:?}: {answer:?}");
    }
    assert_unharmed(&mut spanreel, 18).await;
}

#[tokio::test]
async fn bad_ids_are_refused_span_by_span() {
    let spanreel = Spanreel::start(&Options::default()).await;
    let traces = Traces { seed: 19, spans_per_trace: 1 };
    let mut query = spanreel.query().await;
    let mut rejected = 0;
    for (round, protocol) in (0..).step_by(10).zip(Protocol::ALL) {
        let mut request = traces.request("ids", round..round + 10);
        let spans = &mut request.resource_spans[0].scope_spans[0].spans;
        spans[1].trace_id = vec![0; 16];
        spans[2].trace_id = vec![1; 15];
        spans[3].span_id = vec![0; 8];
        spans[4].span_id = vec![1; 9];
        spans[5].trace_id = Vec::new();
        spans[6].parent_span_id = vec![1; 3];
        let mut client = Client::connect(spanreel.ports.of(protocol), protocol).await.unwrap();
        let answer = client.export(&request, Compression::Gzip).await.unwrap();
        assert!(answer.is_ok(), "{protocol:?}: {answer:?}");
        assert_eq!(answer.rejected_spans, 6, "{protocol:?}: {answer:?}");
        rejected += 6;
        for (number, expected) in [(0, 1), (7, 1), (8, 1), (9, 1), (3, 0)] {
            let found = query.spans(traces.id(round + number)).await.unwrap();
            assert_eq!(found.len(), expected, "{protocol:?}, span {number}");
        }
    }
    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    let intake = ledger.pipeline(PIPELINE);
    assert_eq!((intake.received, intake.stored, intake.dropped), (30, 30 - rejected, rejected), "{ledger:#?}");
}

#[tokio::test]
async fn http_requests_that_are_no_export_get_the_collectors_answers() {
    let spanreel = Spanreel::start(&Options::default()).await;
    for port in [spanreel.ports.http, spanreel.ports.grpc] {
        let mut client = Client::connect(port, Protocol::HttpProtobuf).await.unwrap();
        let good = raw(Protocol::HttpProtobuf, b"", None);
        let cases = [
            (Raw { method: Method::GET, ..good.clone() }, 405, "405 method not allowed, supported: [POST]"),
            (Raw { method: Method::PUT, ..good.clone() }, 405, "405 method not allowed, supported: [POST]"),
            (
                Raw { content_type: Some("text/plain"), ..good.clone() },
                415,
                "415 unsupported media type, supported: [application/json, application/x-protobuf]",
            ),
            (
                Raw { content_type: None, ..good.clone() },
                415,
                "415 unsupported media type, supported: [application/json, application/x-protobuf]",
            ),
            (Raw { path: "/v1/nothing", ..good.clone() }, 404, "404"),
            (Raw { path: "/", ..good.clone() }, 404, "404"),
        ];
        for (request, status, text) in cases {
            let what = format!("{} {} as {:?}", request.method, request.path, request.content_type);
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.http_status, status, "{what}: {answer:?}");
            assert!(answer.message.contains(text), "{what}: {answer:?}");
        }
        // Parameters of the media type change nothing.
        let answer = client.send(Raw { content_type: Some("application/x-protobuf; charset=utf-8"), ..good }).await;
        assert!(answer.unwrap().is_ok());
    }
}

#[tokio::test]
async fn empty_requests_succeed_and_empty_frames_do_not() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    for (protocol, body) in
        [(Protocol::HttpProtobuf, ""), (Protocol::Grpc, ""), (Protocol::HttpJson, "{}"), (Protocol::HttpJson, "null")]
    {
        let mut client = Client::connect(spanreel.ports.of(protocol), protocol).await.unwrap();
        let answer = client.send(raw(protocol, body.as_bytes(), None)).await.unwrap();
        assert!(answer.is_ok(), "{protocol:?} {body:?}: {answer:?}");
    }

    let mut grpc = GrpcConnection::open(spanreel.ports.grpc).await.unwrap();
    let path = Protocol::Grpc.path(Signal::Traces);
    for (what, frames) in [
        ("no frame", Vec::new()),
        ("half a frame's head", vec![0, 0, 0]),
        ("a frame shorter than it says", vec![0, 0, 0, 0, 9, 1]),
        ("a flag that is neither", vec![7, 0, 0, 0, 0]),
        ("compressed without an encoding", vec![1, 0, 0, 0, 1, 0]),
    ] {
        let answer = grpc.send(Method::POST, path, Some("application/grpc"), None, frames.into()).await.unwrap();
        assert!(answer.code.is_some_and(|code| code != code::OK), "{what}: {answer:?}");
        assert!(!answer.is_retryable(), "{what}: {answer:?}");
    }
    let unknown = "/opentelemetry.proto.collector.trace.v1.TraceService/Import";
    let answer = grpc.send(Method::POST, unknown, Some("application/grpc"), None, vec![0; 5].into()).await.unwrap();
    assert_eq!(answer.code, Some(code::UNIMPLEMENTED), "{answer:?}");
    assert_unharmed(&mut spanreel, 20).await;
}

#[tokio::test]
async fn garbage_on_the_wire_ends_only_its_own_connection() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let noise: Vec<u8> = (0..64 * 1024).map(|at| traces::mix(at ^ 0xbad) as u8).collect();
    let oversized_frame = [PREFACE, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat();
    let headers_of_garbage = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0, 0, 4, 1, 5, 0, 0, 0, 1], &[0xff; 4]].concat();
    let cases: [(&str, Vec<u8>); 6] = [
        ("noise", noise.clone()),
        ("the HTTP/2 preface, then noise", [PREFACE, &noise].concat()),
        ("a frame larger than allowed", oversized_frame),
        ("headers that HPACK cannot read", headers_of_garbage),
        ("a TLS hello", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]),
        ("an HTTP/1.1 head of 1 MiB", [b"GET / HTTP/1.1\r\nx: ".as_slice(), &vec![b'a'; MIB]].concat()),
    ];
    for port in [spanreel.ports.grpc, spanreel.ports.http] {
        for (what, bytes) in &cases {
            let mut stream = connect(port);
            // The server may hang up in the middle.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            match stream.read_to_end(&mut answer) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                Err(error) => panic!("{what}: the connection is still open: {error}"),
            }
        }
        // Connections that begin and say nothing more hold nobody up.
        let stalled: Vec<_> = [b"P".as_slice(), b"PRI * HTTP/2.0\r\n", b"POST /v1/traces HTTP/1.1\r\n", PREFACE]
            .iter()
            .map(|start| {
                let mut stream = connect(port);
                stream.write_all(start).unwrap();
                stream
            })
            .collect();
        assert_unharmed(&mut spanreel, 21 + u64::from(port)).await;
        drop(stalled);
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(SOCKET_BOUND)).unwrap();
    stream.set_write_timeout(Some(SOCKET_BOUND)).unwrap();
    stream
}

fn assert_first_line(stream: &mut TcpStream, expected: &str) {
    let mut start = vec![0; expected.len()];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(String::from_utf8_lossy(&start), expected);
}
