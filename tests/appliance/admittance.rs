//! Who may send: passwords, tokens, pages of other origins; and connections that do nothing.

use super::foreign::Ports;
use crate::support::compression::Compression;
use crate::support::eventually;
use crate::support::http::Connection;
use crate::support::otlp::{Client, GrpcConnection, Protocol, frame};
use crate::support::ports;
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use crate::support::traces::Traces;
use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt;
use http::Method;
use http_body_util::BodyExt;
use prost::Message;
use spanreel::receive::listener::CONNECTIONS_MAX;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const UNAUTHENTICATED: u32 = 16;

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

fn line(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

async fn http(
    port: u16,
    method: Method,
    headers: &[(&str, &str)],
    body: &'static str,
) -> crate::support::http::Response {
    Connection::open(port)
        .await
        .unwrap()
        .send(method, "/v1/traces", headers, Bytes::from_static(body.as_bytes()))
        .await
        .unwrap()
}

#[tokio::test]
async fn only_who_is_known_may_send_whatever_the_protocol() {
    let zipkin = ports::free();
    let extensions = [
        // ann's password is 123456, bob's is myPassword (bcrypt).
        (
            "basicauth",
            "{htpasswd: {inline: \"ann:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\\nbob:$$2y$$05$$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\"}}",
        ),
        ("bearertokenauth", "{tokens: [first, second]}"),
    ];
    let options = Options {
        extensions: extensions.map(|(id, settings)| (id.to_owned(), settings.to_owned())).to_vec(),
        http: line("auth: {authenticator: basicauth}"),
        grpc: line("auth: {authenticator: bearertokenauth}"),
        receivers: vec![(
            "zipkin".to_owned(),
            format!("{{endpoint: '127.0.0.1:{zipkin}', auth: {{authenticator: basicauth}}}}"),
        )],
        ..Options::default()
    };
    let spanreel = Spanreel::start(&options).await;
    let json = ("content-type", "application/json");

    for (authorization, expected) in [
        (None, 401),
        (Some(basic("ann", "12345")), 401),
        (Some(basic("eve", "123456")), 401),
        (Some("Bearer first".to_owned()), 401),
        (Some(basic("ann", "123456")), 200),
        (Some(basic("bob", "myPassword")), 200),
        (Some(basic("bob", "myPassword")), 200),
    ] {
        let mut headers = vec![json];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        let answer = http(spanreel.ports.http, Method::POST, &headers, "{}").await;
        assert_eq!(answer.status.as_u16(), expected, "{authorization:?}: {}", answer.text());
        if expected == 401 {
            assert!(answer.header("www-authenticate").starts_with("Basic"), "{:?}", answer.headers);
            let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(status["code"], UNAUTHENTICATED);
        }
        let mut connection = Connection::open(zipkin).await.unwrap();
        let answer = connection.send(Method::POST, "/api/v2/spans", &headers, Bytes::from_static(b"[]")).await.unwrap();
        assert_eq!(answer.status.as_u16(), if expected == 200 { 202 } else { 401 });
    }

    let request = Traces { seed: 5, spans_per_trace: 2 }.request("known", 0..1).encode_to_vec();
    for (authorization, expected) in
        [("", UNAUTHENTICATED), ("Bearer third", UNAUTHENTICATED), ("Bearer second", 0), ("Bearer first", 0)]
    {
        let mut connection = GrpcConnection::open(spanreel.ports.grpc).await.unwrap();
        if !authorization.is_empty() {
            connection.metadata.push(("authorization", authorization.to_owned()));
        }
        let message = frame(false, &request);
        let answer = connection.send(Method::POST, EXPORT, Some("application/grpc"), None, message).await.unwrap();
        assert_eq!(answer.code, Some(expected), "{authorization}: {answer:?}");
    }
    // What the port of a block asks for holds for every protocol that is spoken there.
    let headers = [json, ("authorization", "Bearer first")];
    assert_eq!(http(spanreel.ports.grpc, Method::POST, &headers, "{}").await.status.as_u16(), 200);
    assert_eq!(http(spanreel.ports.grpc, Method::POST, &[json], "{}").await.status.as_u16(), 401);

    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    assert_eq!(ledger.pipeline(PIPELINE).received, 4);
    let refused = [("outcome", "unauthenticated")];
    assert_eq!(spanreel.metrics().await.sum("spanreel_receiver_requests_total", &refused), Some(4.0 + 4.0 + 2.0 + 1.0));
}

#[tokio::test]
async fn pages_of_other_origins_may_send_where_cors_says_so() {
    let cors = "cors: {allowed_origins: ['https://*.example.com'], allowed_headers: [X-Own, Content-Type], exposed_headers: [X-Served-By], max_age: 60}";
    let http_lines = vec![cors.to_owned(), "response_headers: {X-Served-By: spanreel}".to_owned()];
    let spanreel = Spanreel::start(&Options { http: http_lines, ..Options::default() }).await;
    let port = spanreel.ports.http;
    let ask = |origin: &'static str, headers: &'static str| async move {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", headers),
        ];
        http(port, Method::OPTIONS, &headers, "").await
    };
    let answer = ask("https://shop.example.com", "content-type,x-own").await;
    assert_eq!(answer.status.as_u16(), 204);
    assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example.com");
    assert_eq!(answer.header("access-control-allow-methods"), "POST");
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert_eq!(answer.header("access-control-max-age"), "60");
    for (origin, headers) in [("https://evil.org", "x-own"), ("https://shop.example.com", "x-other")] {
        let answer = ask(origin, headers).await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin} {headers}");
    }
    let json = ("content-type", "application/json");
    let answer = http(port, Method::POST, &[json, ("origin", "https://shop.example.com")], "{}").await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example.com");
    assert_eq!(answer.header("access-control-expose-headers"), "X-Served-By");
    assert_eq!(answer.header("x-served-by"), "spanreel");
    let answer = http(port, Method::POST, &[json, ("origin", "https://evil.org")], "{}").await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (200, ""));
}

/// Three of four connections say nothing, the fourth stops in the middle of a request.
#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_and_keep_nobody_out() {
    /// More than a port has places for.
    const IDLE: usize = CONNECTIONS_MAX + 100;
    /// Of the process, for all of them: 28 KiB each without optimisation.
    const MEMORY_MAX: u64 = 400 * 1024 * 1024;
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let mut idle = Vec::with_capacity(IDLE);
    for at in 0..IDLE {
        let mut stream = TcpStream::connect(("127.0.0.1", spanreel.ports.http)).await.unwrap();
        if at % 4 == 0 {
            stream.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: app").await.unwrap();
        }
        idle.push(stream);
    }
    let traces = Traces { seed: 77, spans_per_trace: 2 };
    for protocol in Protocol::ALL {
        let mut client = Client::connect(spanreel.ports.http, protocol).await.unwrap();
        let answer = client.export(&traces.request("served", 0..1), Compression::Identity).await.unwrap();
        assert!(answer.is_ok(), "{protocol:?}: {answer:?}");
    }
    // For those that came, or because opening them took longer than silence is borne.
    eventually("silent connections are closed, and counted", Duration::from_secs(120), async || {
        spanreel.metrics().await.sum("spanreel_receiver_connections_dismissed_total", &[]) >= Some(100.0)
    })
    .await;
    let peak = spanreel.process().peak_memory();
    assert!(peak < MEMORY_MAX, "it grew to {} MiB", peak >> 20);
    spanreel.ledger().await.assert_balanced();
    assert!(spanreel.stop().success(), "they do not hold up the end either");
}

/// A client that closes its sending half is still answered; one that goes away in the middle leaves nothing behind.
#[tokio::test]
async fn half_closed_connections_are_answered_and_broken_ones_are_forgotten() {
    let ports = Ports::free();
    let spanreel = Spanreel::start(&Options { receivers: ports.receivers(), ..Options::default() }).await;
    for (port, path, media_type, body, expected) in [
        (spanreel.ports.http, "/v1/traces", "application/json", "{}", "HTTP/1.1 200"),
        (ports.zipkin, "/api/v2/spans", "application/json", "[]", "HTTP/1.1 202"),
        (ports.jaeger_http, "/api/traces", "application/x-thrift", "xx", "HTTP/1.1 400"),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {media_type}\r\ncontent-length: 2\r\n\r\n");
        let request = head + body;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(expected.as_bytes()), "{path}: {}", String::from_utf8_lossy(&answer));

        for cut in [10, 60, request.len() - 1] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(&request.as_bytes()[..cut]).await.unwrap();
            drop(stream);
        }
    }
    eventually("every connection that broke is forgotten", Duration::from_secs(30), async || {
        spanreel.metrics().await.sum("spanreel_receiver_connections", &[]) == Some(0.0)
    })
    .await;
    spanreel.ledger().await.assert_balanced();
}

/// Sends a body of HTTP/1.1 byte by byte; the answer.
async fn drip(port: u16, head: String) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reads, mut writes) = stream.split();
    let drip = async {
        while writes.write_all(b" ").await.is_ok() {
            tokio::time::sleep(DRIP_INTERVAL).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = [0; 512];
    tokio::select! {
        read = reads.read(&mut answer) => String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned(),
        () = drip => unreachable!("it never ends"),
    }
}

/// Sends messages byte by byte, so many at once on one connection of HTTP/2; the status of each call.
async fn drip_calls(port: u16, path: &'static str, count: usize) -> Vec<String> {
    let mut sender = http2(port).await.0;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..count {
        let begin = futures_util::stream::iter([Ok(hyper::body::Frame::data(Bytes::from_static(&[0, 0, 1, 0, 0])))]);
        let drip = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(DRIP_INTERVAL).await;
            Some((Ok(hyper::body::Frame::data(Bytes::from_static(&[0]))), ()))
        });
        let body = http_body_util::StreamBody::new(begin.chain(drip));
        let call = http::Request::post(format!("http://x{path}")).header("content-type", "application/grpc");
        let answer = sender.send_request(call.body(BodyExt::boxed(body)).unwrap());
        calls.spawn(async move {
            let answer = answer.await.unwrap();
            let status = answer.headers().get("grpc-status").and_then(|status| status.to_str().ok());
            status.unwrap_or_default().to_owned()
        });
    }
    calls.join_all().await
}

const DRIP_INTERVAL: Duration = Duration::from_millis(500);

type Http2Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;
type Http2Sender = hyper::client::conn::http2::SendRequest<Http2Body>;

/// A connection of HTTP/2, and the task that ends with it.
async fn http2(port: u16) -> (Http2Sender, tokio::task::JoinHandle<Result<(), hyper::Error>>) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (executor, io) = (hyper_util::rt::TokioExecutor::new(), hyper_util::rt::TokioIo::new(stream));
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    (sender, tokio::spawn(connection))
}

/// Bodies that come byte by byte, more of them than there may be bytes in flight if each held a full body's.
#[tokio::test]
async fn slow_clients_are_refused_after_a_while_and_hold_nobody_up() {
    /// Of each kind.
    const SLOW: usize = 60;
    let ports = Ports::free();
    let spanreel = Spanreel::start(&Options { receivers: ports.receivers(), ..Options::default() }).await;
    let (mut slow, mut calls) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    let posts = [
        (spanreel.ports.http, "/v1/traces", "application/json"),
        (ports.zipkin, "/api/v2/spans", "application/json"),
        (ports.jaeger_http, "/api/traces", "application/x-thrift"),
    ];
    for (port, path, media_type) in posts {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {media_type}\r\ncontent-length: 100000\r\n\r\n");
        for _ in 0..SLOW {
            slow.spawn(drip(port, head.clone()));
        }
    }
    let services = [(spanreel.ports.grpc, EXPORT), (ports.jaeger_grpc, "/jaeger.api_v2.CollectorService/PostSpans")];
    for (port, path) in services {
        calls.spawn(drip_calls(port, path, SLOW));
    }
    let traces = Traces { seed: 78, spans_per_trace: 2 };
    for protocol in Protocol::ALL {
        let mut client = Client::connect(spanreel.ports.of(protocol), protocol).await.unwrap();
        let answer = client.export(&traces.request("served", 0..1), Compression::Identity).await.unwrap();
        assert!(answer.is_ok(), "{protocol:?}: {answer:?}");
    }
    let answers = tokio::time::timeout(Duration::from_secs(120), slow.join_all()).await.expect("each is refused");
    assert_eq!(answers.len(), posts.len() * SLOW);
    for answer in &answers {
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let statuses = tokio::time::timeout(Duration::from_secs(120), calls.join_all()).await.expect("each is refused");
    let statuses = statuses.concat();
    assert_eq!(statuses.len(), services.len() * SLOW);
    assert!(statuses.iter().all(|status| !matches!(status.as_str(), "" | "0")), "{statuses:?}");
    let refused = [("outcome", "bad_data")];
    let expected = (answers.len() + statuses.len()) as f64;
    assert_eq!(spanreel.metrics().await.sum("spanreel_receiver_requests_total", &refused), Some(expected));
    spanreel.ledger().await.assert_balanced();
}

/// Streams of one HTTP/2 connection that are begun and never ended, or ended before they said anything.
#[tokio::test]
async fn half_closed_streams_cost_their_connection_alone() {
    let spanreel = Spanreel::start(&Options::default()).await;
    let (mut sender, driver) = http2(spanreel.ports.grpc).await;
    let request = |body: Http2Body| {
        let uri = format!("http://x{EXPORT}");
        http::Request::post(uri).header("content-type", "application/grpc").body(body).unwrap()
    };
    // The message never comes.
    for _ in 0..3 {
        sender.ready().await.unwrap();
        let answer = sender.send_request(request(http_body_util::Empty::new().boxed())).await.unwrap();
        let status = answer.headers().get("grpc-status").cloned();
        assert!(status.is_some_and(|status| status != "0"), "{:?}", answer.headers());
    }
    // The end never comes: as many as the connection may have, and more.
    let mut open = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let first = futures_util::stream::iter([Ok(hyper::body::Frame::data(Bytes::from_static(&[0, 0])))]);
        let body = http_body_util::StreamBody::new(first.chain(futures_util::stream::pending()));
        let answer = sender.send_request(request(BodyExt::boxed(body)));
        open.spawn(answer);
    }
    let traces = Traces { seed: 79, spans_per_trace: 2 };
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    let answer = client.export(&traces.request("served", 0..1), Compression::Identity).await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
    drop(client);
    // So many given up at once end the connection (that is a known attack), and nothing of them stays.
    open.shutdown().await;
    drop(sender);
    driver.abort();
    eventually("every connection is forgotten", Duration::from_secs(60), async || {
        spanreel.metrics().await.sum("spanreel_receiver_connections", &[]) == Some(0.0)
    })
    .await;
    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    assert_eq!(ledger.pipeline(PIPELINE).received, 2);
}

#[tokio::test]
async fn only_the_compressions_that_are_listed_are_taken() {
    let listed = line("compression_algorithms: ['', gzip]");
    let spanreel = Spanreel::start(&Options { http: listed, ..Options::default() }).await;
    for (compression, expected) in
        [(Compression::Identity, 200), (Compression::Gzip, 200), (Compression::Zstd, 400), (Compression::Deflate, 400)]
    {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(compression.name().map(|name| ("content-encoding", name)));
        let mut connection = Connection::open(spanreel.ports.http).await.unwrap();
        let body = Bytes::from(compression.apply(b"{}"));
        let answer = connection.send(Method::POST, "/v1/traces", &headers, body).await.unwrap();
        assert_eq!(answer.status.as_u16(), expected, "{compression:?}: {}", answer.text());
    }
}

/// Clients that would stay for ever are told to go at the age that is configured, and spread over replicas anew.
#[tokio::test]
async fn connections_end_at_their_age() {
    /// Silent connections are borne for longer.
    const BOUND: Duration = Duration::from_secs(40);
    let age = line("keepalive: {server_parameters: {max_connection_age: 500ms, max_connection_age_grace: 500ms}}");
    let spanreel = Spanreel::start(&Options { grpc: age, ..Options::default() }).await;
    let mut stream = TcpStream::connect(("127.0.0.1", spanreel.ports.grpc)).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut said = Vec::new();
    let _ = tokio::time::timeout(BOUND, stream.read_to_end(&mut said)).await.expect("it ends");
    assert!(said.get(3) == Some(&4), "the server's settings come first: {said:?}");
}

/// Load balancers give up connections that nobody uses; a server that does so first is not met in the middle of it.
#[tokio::test]
async fn connections_without_requests_end_where_that_is_bounded() {
    /// Silent connections are borne for longer.
    const BOUND: Duration = Duration::from_secs(40);
    let grpc = line("keepalive: {server_parameters: {max_connection_idle: 500ms}}");
    let http = line("keepalive: {idle_timeout: 500ms}");
    let spanreel = Spanreel::start(&Options { grpc, http, ..Options::default() }).await;
    let (sender, driver) = http2(spanreel.ports.grpc).await;
    tokio::time::timeout(BOUND, driver).await.expect("it ends").unwrap().unwrap();
    drop(sender);
    let mut stream = TcpStream::connect(("127.0.0.1", spanreel.ports.http)).await.unwrap();
    let request =
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(BOUND, stream.read_to_end(&mut answer)).await.expect("it ends").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
