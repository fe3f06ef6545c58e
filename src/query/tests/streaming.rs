//! The RPCs: whole calls over the router, frames and trailers as they go over the wire.

use std::time::Duration;

use super::shop::shop;
use super::*;
use crate::otlp::wire::{Fields, put_bytes, put_uint};

/// The messages of an answer and its trailers; a status among the headers counts as trailers.
struct Stream {
    messages: Vec<Bytes>,
    trailers: HeaderMap,
}

impl Stream {
    fn code(&self) -> &str {
        self.trailers["grpc-status"].to_str().unwrap()
    }

    fn message(&self) -> &str {
        self.trailers.get("grpc-message").map_or("", |message| message.to_str().unwrap())
    }

    /// The elements of field 1 of all messages.
    fn elements(&self) -> Vec<&[u8]> {
        let fields = self.messages.iter().flat_map(|message| Fields::new(message));
        fields.filter_map(|field| field.unwrap().bytes(1)).collect()
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

async fn send(api: &Api, path: &str, body: Vec<u8>) -> Stream {
    send_with(api, path, body, &[("x-scope-orgid", "a|b"), ("authorization", "Basic eA==")]).await
}

async fn send_with(api: &Api, path: &str, body: Vec<u8>, metadata: &[(&str, &str)]) -> Stream {
    let request = Request::builder().method(Method::POST).version(http::Version::HTTP_2).uri(path);
    let request = metadata.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.header("content-type", "application/grpc").body(Body::from(body)).unwrap();
    let response = api.call(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let headers = response.headers().clone();
    let collected = response.into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or(headers);
    let mut bytes = collected.to_bytes();
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let len = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        assert_eq!(bytes[0], 0);
        let _ = bytes.split_to(5);
        messages.push(bytes.split_to(len));
    }
    Stream { messages, trailers }
}

async fn query(api: &Api, method: &str, message: &[u8]) -> Stream {
    send(api, &format!("/tempopb.StreamingQuerier/{method}"), framed(message)).await
}

/// Code and text of an RPC that is refused.
pub async fn refusal(api: &Api, method: &str, message: &[u8]) -> (String, String) {
    let answer = query(api, method, message).await;
    (answer.code().to_owned(), answer.message().to_owned())
}

fn search_request(query: &str, limit: u64) -> Vec<u8> {
    let now = (call::now() / 1_000_000_000) as u64;
    let mut message = Vec::new();
    put_uint(&mut message, 4, limit);
    put_uint(&mut message, 5, now - 900);
    put_uint(&mut message, 6, now);
    put_bytes(&mut message, 8, query.as_bytes());
    put_uint(&mut message, 9, 3);
    message
}

fn metrics_request(query: &str) -> Vec<u8> {
    let now = call::now() as u64;
    let mut message = Vec::new();
    put_bytes(&mut message, 1, query.as_bytes());
    put_uint(&mut message, 2, now - 3600 * 1_000_000_000);
    put_uint(&mut message, 3, now);
    message
}

#[tokio::test]
async fn save_and_test_with_streaming_on() {
    let answer = query(&shop(), "Search", &search_request("", 1)).await;
    assert_eq!((answer.code(), answer.elements().len()), ("0", 1));
}

#[tokio::test]
async fn a_search_streams_its_traces_and_metrics() {
    let answer = query(&shop(), "Search", &search_request("{}", 20)).await;
    assert_eq!((answer.code(), answer.message()), ("0", ""));
    let ids: Vec<String> = answer
        .elements()
        .into_iter()
        .map(|trace| {
            String::from_utf8(Fields::new(trace).find_map(|field| field.unwrap().bytes(1)).unwrap().to_vec()).unwrap()
        })
        .collect();
    assert_eq!(ids, [shop::ID_OF_WORK, shop::ID_OF_PAYMENT, shop::ID_OF_CART]);
    for message in &answer.messages {
        assert!(Fields::new(message).any(|field| field.unwrap().bytes(2).is_some()));
    }
}

#[tokio::test]
async fn tags_and_values_stream() {
    let api = shop();
    let mut names = Vec::new();
    put_bytes(&mut names, 1, b"resource");
    assert_eq!(query(&api, "SearchTagsV2", &names).await.elements().len(), 1);
    assert_eq!(query(&api, "SearchTags", &names).await.elements(), [&b"k8s.namespace.name"[..], b"service.name"]);
    let mut values = Vec::new();
    put_bytes(&mut values, 1, b"resource.service.name");
    assert_eq!(query(&api, "SearchTagValuesV2", &values).await.elements().len(), 4);
    let mut values = Vec::new();
    put_bytes(&mut values, 1, b"service.name");
    assert_eq!(
        query(&api, "SearchTagValues", &values).await.elements(),
        [&b"cart"[..], b"frontend", b"payment", b"worker"]
    );
}

#[tokio::test]
async fn metrics_stream() {
    let api = shop();
    for method in ["MetricsQueryRange", "MetricsQueryInstant"] {
        let answer = query(&api, method, &metrics_request("{} | rate() by (resource.service.name)")).await;
        assert_eq!((answer.code(), answer.elements().len()), ("0", 4), "{method}");
    }
}

#[tokio::test]
async fn what_is_refused_over_http_is_an_invalid_argument() {
    let api = shop();
    let bad = query(&api, "Search", &search_request("{ .a = }", 20)).await;
    assert_eq!(bad.code(), "3");
    assert!(bad.message().starts_with("invalid TraceQL query: parse error at line 1, col "), "{}", bad.message());
    assert!(bad.messages.is_empty());
    let mut half = Vec::new();
    put_uint(&mut half, 6, 5);
    for (method, message) in [
        ("Search", search_request("{}", 300_000)),
        ("Search", half),
        ("MetricsQueryRange", metrics_request("{}")),
        ("MetricsQueryInstant", metrics_request("")),
        ("SearchTagValuesV2", Vec::new()),
    ] {
        assert_eq!(query(&api, method, &message).await.code(), "3", "{method}");
    }
}

#[tokio::test]
async fn truncated_and_malformed_frames_are_refused() {
    let api = shop();
    let path = "/tempopb.StreamingQuerier/Search";
    let whole = framed(&search_request("{}", 20));
    for len in [0, 1, 4, 5, whole.len() - 1] {
        assert_eq!(send(&api, path, whole[..len].to_vec()).await.code(), "3", "{len}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert_eq!(send(&api, path, longer).await.code(), "3");
    let mut compressed = whole.clone();
    compressed[0] = 1;
    assert_eq!(send(&api, path, compressed).await.code(), "12");
    assert_eq!(send(&api, path, vec![0, 0xff, 0xff, 0xff, 0xff]).await.code(), "8");
    // A message that ends in the middle of a field.
    assert_eq!(send(&api, path, framed(&[0x42, 0x05, b'{'])).await.code(), "3");
    assert_eq!(send(&api, path, framed(&[0x42, 0x01, 0xff])).await.code(), "3");
}

#[tokio::test]
async fn a_message_may_be_compressed_with_gzip() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &search_request("{}", 20)).unwrap();
    let mut frame = framed(&encoder.finish().unwrap());
    frame[0] = 1;
    let path = "/tempopb.StreamingQuerier/Search";
    let answer = send_with(&shop(), path, frame.clone(), &[("grpc-encoding", "gzip")]).await;
    assert_eq!((answer.code(), answer.elements().len()), ("0", 3));
    let refused = send_with(&shop(), path, frame, &[("grpc-encoding", "snappy")]).await;
    assert_eq!((refused.code(), &refused.trailers["grpc-accept-encoding"]), ("12", &"identity,gzip".parse().unwrap()));
}

#[tokio::test]
async fn a_query_ends_when_its_client_no_longer_waits() {
    let path = "/tempopb.StreamingQuerier/Search";
    let send = |timeout: &'static str| async move {
        send_with(&shop(), path, framed(&search_request("{}", 20)), &[("grpc-timeout", timeout)]).await
    };
    assert_eq!(send("0n").await.code(), "4");
    for answered in ["1H", "soon"] {
        assert_eq!(send(answered).await.code(), "0", "{answered}");
    }
}

#[tokio::test]
async fn a_range_may_be_asked_for_as_one_interval() {
    let mut message = metrics_request("{} | count_over_time()");
    put_uint(&mut message, 18, 1);
    let answer = query(&shop(), "MetricsQueryRange", &message).await;
    let series = answer.elements()[0];
    let samples = Fields::new(series).filter(|field| field.as_ref().unwrap().bytes(2).is_some());
    assert_eq!((answer.code(), samples.count()), ("0", 1));
}

#[tokio::test]
async fn unknown_methods_and_services_are_unimplemented() {
    let api = shop();
    for path in ["/tempopb.StreamingQuerier/Nope", "/tempopb.Nope/Search", "/grpc.health.v1.Health/Watch"] {
        assert_eq!(send(&api, path, framed(&[])).await.code(), "12", "{path}");
    }
}

#[tokio::test]
async fn health_is_checked() {
    let api = shop();
    let serving = send(&api, "/grpc.health.v1.Health/Check", framed(&[])).await;
    assert_eq!((serving.code(), &serving.messages[0][..]), ("0", &[8, 1][..]));
    let mut unknown = Vec::new();
    put_bytes(&mut unknown, 1, b"nope");
    assert_eq!(send(&api, "/grpc.health.v1.Health/Check", framed(&unknown)).await.code(), "5");
}

#[tokio::test]
async fn other_protocols_on_these_paths_are_told_what_they_take() {
    let api = shop();
    let path = "/tempopb.StreamingQuerier/Search";
    assert_eq!(api.get(path, &[]).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let over_http_1 = api.request(Method::POST, path, &[("content-type", "application/grpc")]).await;
    assert_eq!(over_http_1.status, StatusCode::HTTP_VERSION_NOT_SUPPORTED);
}

#[tokio::test]
async fn a_large_answer_comes_in_messages_of_at_most_a_mebibyte() {
    let start = shop::newest();
    let long = "x".repeat(4000);
    let traces: Vec<_> = (1..=600u32)
        .map(|id| {
            let span = crate::traceql::tests::spans::span(u64::from(id)).lasting(start - u64::from(id), 1);
            crate::traceql::tests::spans::trace(
                u128::from(id),
                [span.attribute("text", format!("{id}{long}").as_str())],
            )
        })
        .collect();
    let api = Api::over(Memory::whole(&traces));
    let answer = query(&api, "Search", &search_request("{span.text != nil}", 1000)).await;
    assert_eq!((answer.code(), answer.elements().len()), ("0", 600));
    assert!(answer.messages.len() >= 4, "{}", answer.messages.len());
    assert!(answer.messages.iter().all(|message| message.len() <= 1024 * 1024));
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_others() {
    let api = shop();
    for _ in 0..50 {
        let request = Request::builder()
            .method(Method::POST)
            .version(http::Version::HTTP_2)
            .uri("/tempopb.StreamingQuerier/Search")
            .header("content-type", "application/grpc")
            .body(Body::from(framed(&search_request("{}", 20))))
            .unwrap();
        drop(api.call(request).await);
    }
    let answer = tokio::time::timeout(Duration::from_secs(30), query(&api, "Search", &search_request("{}", 20))).await;
    assert_eq!(answer.unwrap().elements().len(), 3);
}
