use super::*;
use crate::otlp::wire::{put_bytes, put_uint};
use proptest::prelude::*;

/// The class of an answer, for tables.
#[derive(Debug, PartialEq)]
enum Class {
    Delivered,
    Retry(Option<u64>),
    Limited(Option<u64>),
    TooLarge,
    Refused,
    Compression,
    Misconfigured,
    Internal,
}
use Class::*;

fn class(answer: &Answer) -> Class {
    match answer {
        Answer::Delivered { .. } => Delivered,
        Answer::Retry { after, .. } => Retry(after.map(|after| after.as_secs())),
        Answer::Limited { after, .. } => Limited(after.map(|after| after.as_secs())),
        Answer::TooLarge { .. } => TooLarge,
        Answer::Refused { .. } => Refused,
        Answer::CompressionRefused { .. } => Compression,
        Answer::Misconfigured { .. } => Misconfigured,
        Answer::Internal { .. } => Internal,
    }
}

/// A `google.rpc.Status` with one RetryInfo.
fn status_with_retry_info(seconds: u64) -> Vec<u8> {
    let (mut delay, mut info, mut any, mut status) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    put_uint(&mut delay, 1, seconds);
    put_uint(&mut delay, 2, 500_000_000);
    put_bytes(&mut info, 1, &delay);
    put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
    put_bytes(&mut any, 2, &info);
    put_uint(&mut status, 1, 8);
    put_bytes(&mut status, 2, b"slow down");
    put_bytes(&mut status, 3, b"\x0a\x05other");
    put_bytes(&mut status, 3, &any);
    status
}

#[test]
fn grpc_answers() {
    let hint = status_with_retry_info(5);
    let rate = "RATE_LIMITED: ingestion rate limit (local: 1 bytes/s, global: 0 bytes/s) exceeded while adding 9 bytes for user single-tenant";
    let batch = "RATE_LIMITED: batch size (9 bytes) exceeds ingestion limit (local: 1 bytes, global: 0 bytes)";
    let table: &[(u32, &str, &[u8], Class)] = &[
        (0, "", b"", Delivered),
        (8, rate, &hint, Limited(Some(5))),
        (8, rate, b"", Limited(None)),
        (8, batch, b"", TooLarge),
        (8, batch, &hint, TooLarge),
        (8, "grpc: received message after decompression larger than max (5000000 vs. 4194304)", b"", TooLarge),
        (8, "grpc: received message larger than max (5000000 vs. 4194304)", b"", TooLarge),
        (8, "gRPC message exceeds maximum size 4194304: 5000000", b"", TooLarge),
        (8, "gRPC message exceeds maximum size 4194304: 5000000", &hint, TooLarge),
        (
            11,
            "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes",
            b"",
            TooLarge,
        ),
        // A hint of a code is not one of the text.
        (14, "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes", b"", Retry(None)),
        (3, "trace ids must be 128 bit, received 64 bits", b"", Refused),
        (14, "no live-stores available", b"", Retry(None)),
        (14, "starting", &hint, Retry(Some(5))),
        (1, "context canceled", b"", Retry(None)),
        (4, "context deadline exceeded", b"", Retry(None)),
        (10, "", b"", Retry(None)),
        (11, "", b"", Retry(None)),
        (15, "", b"", Retry(None)),
        (16, "no org id", b"", Misconfigured),
        (7, "", b"", Misconfigured),
        (12, "unknown service opentelemetry.proto.collector.trace.v1.TraceService", b"", Misconfigured),
        (12, "grpc: Decompressor is not installed for grpc-encoding \"zstd\"", b"", Compression),
        (12, "Content is compressed with `zstd` which isn't supported", b"", Compression),
        (12, "Can't find decompressor for zstd", b"", Compression),
        (13, "Permanent error: something", b"", Internal),
        (2, "", b"", Internal),
        (9, "TRACE_TOO_LARGE: max size of trace", b"", Internal),
        (5, "", b"", Internal),
        (99, "what", b"", Internal),
    ];
    for (code, message, details, expected) in table {
        let answer = classify_grpc(GrpcAnswer { code: *code, message, details, response: b"" });
        assert_eq!(class(&answer), *expected, "{code} {message}");
    }
}

#[test]
fn http_answers() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
    let table: &[(u16, &str, Option<&str>, &str, Class)] = &[
        (200, "", None, "", Delivered),
        (202, "text/html", None, "", Delivered),
        // A login page, or a web UI: nothing that takes spans.
        (200, "text/html; charset=utf-8", None, "<html>", Misconfigured),
        (429, "", Some("7"), "", Limited(Some(7))),
        (429, "", Some("Sun, 06 Nov 1994 08:50:37 GMT"), "", Limited(Some(60))),
        (503, "", Some("Sun, 06 Nov 1994 08:00:00 GMT"), "", Retry(Some(0))),
        (503, "", Some("99999999"), "", Retry(Some(600))),
        (503, "", Some("soon"), "", Retry(None)),
        (502, "", None, "bad gateway", Retry(None)),
        (504, "", None, "", Retry(None)),
        (408, "", None, "", Retry(None)),
        (
            429,
            "application/json",
            None,
            r#"{"code":8,"message":"x","details":[{"retryDelay":"2.5s"}]}"#,
            Limited(Some(2)),
        ),
        (
            429,
            "application/json",
            None,
            r#"{"message":"RATE_LIMITED: batch size (9 bytes) exceeds ingestion limit"}"#,
            TooLarge,
        ),
        (413, "", None, "", TooLarge),
        (400, "", None, "http: request body too large", TooLarge),
        (400, "application/json", None, r#"{"code":3,"message":"span ids must be 64 bit"}"#, Refused),
        (422, "", None, "", Refused),
        (400, "", None, "unsupported Content-Encoding: zstd", Compression),
        (415, "", None, "unsupported content encoding", Compression),
        (415, "", None, "", Compression),
        (
            415,
            "text/plain",
            None,
            "415 unsupported media type, supported: [application/json, application/x-protobuf]",
            Misconfigured,
        ),
        (401, "", None, "", Misconfigured),
        (403, "", None, "", Misconfigured),
        (404, "", None, "404 page not found", Misconfigured),
        (405, "", None, "", Misconfigured),
        (301, "", None, "", Misconfigured),
        (501, "", None, "", Misconfigured),
        (500, "", None, "oops", Internal),
        (599, "", None, "", Internal),
    ];
    for (status, content_type, retry_after, body, expected) in table {
        let answer = classify_http(
            HttpAnswer {
                status: *status,
                content_type,
                retry_after: *retry_after,
                location: None,
                body: body.as_bytes(),
            },
            now,
        );
        assert_eq!(class(&answer), *expected, "{status} {body}");
    }
}

#[test]
fn a_protobuf_status_body_is_read() {
    let body = status_with_retry_info(3);
    let answer = classify_http(
        HttpAnswer {
            status: 503,
            content_type: "application/x-protobuf",
            retry_after: None,
            location: None,
            body: &body,
        },
        SystemTime::UNIX_EPOCH,
    );
    assert_eq!(
        answer,
        Answer::Retry { after: Some(Duration::from_millis(3500)), why: "HTTP 503: slow down".to_owned() }
    );
}

#[test]
fn partial_success_is_read_in_both_encodings() {
    let (mut partial, mut response) = (Vec::new(), Vec::new());
    put_uint(&mut partial, 1, 7);
    put_bytes(&mut partial, 2, b"too old");
    put_bytes(&mut response, 1, &partial);
    let expected = Answer::Delivered { rejected_spans: 7, message: "too old".to_owned() };
    assert_eq!(classify_grpc(GrpcAnswer { code: 0, message: "", details: b"", response: &response }), expected);
    for body in [
        r#"{"partialSuccess":{"rejectedSpans":"7","errorMessage":"too old"}}"#,
        r#"{"partialSuccess":{"rejectedSpans":7,"errorMessage":"too old"}}"#,
    ] {
        let answer = HttpAnswer {
            status: 200,
            content_type: "application/json",
            retry_after: None,
            location: None,
            body: body.as_bytes(),
        };
        assert_eq!(classify_http(answer, SystemTime::UNIX_EPOCH), expected);
    }
}

proptest! {
    #[test]
    fn any_answer_has_a_class(code: u32, message: String, details: Vec<u8>, response: Vec<u8>, status in 100u16..999, json: bool) {
        classify_grpc(GrpcAnswer { code, message: &message, details: &details, response: &response });
        let content_type = if json { "application/json" } else { "application/x-protobuf" };
        let answer = HttpAnswer { status, content_type, retry_after: Some(&message), location: Some(&message), body: &response };
        classify_http(answer, SystemTime::UNIX_EPOCH);
        prop_assert!(bounded(&message).len() <= TEXT_BYTES_MAX);
    }
}
