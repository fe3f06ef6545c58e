//! The query API as it is served, over sockets: clients that take nothing, and URLs as long as Tempo takes them.

use super::*;
use crate::otlp::TraceId;
use crate::otlp::wire::put_bytes;
use crate::query::{
    FoundTrace, Introspection, QueryLimits, QueryState, Readiness, SourceError, SpanSource, TraceSource, router,
};
use crate::store::assemble::{AssembleLimits, Completeness};
use crate::telemetry::Pages;
use crate::traceql::segment::Source;
use crate::traceql::tests::memory::Memory;
use crate::traceql::tests::spans::{span, trace};
use axum::body::Body;
use bytes::Bytes;
use hyper::client::conn::http2;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const ID: &str = "abababababababababababababababab";

/// A generous bound for what is over in a moment when nothing is wrong.
const BOUND: Duration = Duration::from_secs(60);

const READ_WAIT_MAX: Duration = Duration::from_millis(200);

/// One trace whose only span has a name of so many bytes.
struct Here(usize);

impl TraceSource for Here {
    fn trace(&self, _: TraceId, _: &AssembleLimits) -> Result<FoundTrace, SourceError> {
        let (mut span, mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut span, 1, &[0xab; 16]);
        put_bytes(&mut span, 2, &[1; 8]);
        put_bytes(&mut span, 5, &vec![b'n'; self.0]);
        put_bytes(&mut scope, 2, &span);
        put_bytes(&mut resource, 2, &scope);
        put_bytes(&mut request, 1, &resource);
        let fragments = vec![request.into()];
        Ok(FoundTrace { fragments, completeness: Completeness::Complete, inspected_bytes: 0 })
    }
}

impl SpanSource for Here {
    fn searchable(&self) -> Result<Arc<dyn Source>, SourceError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let one = span(1).named(&"n".repeat(self.0)).lasting(now - 1_000_000_000, 5);
        Ok(Arc::new(Memory::whole(&[trace(0xab, [one])])))
    }
}

struct Process;

impl Introspection for Process {
    fn metrics(&self) -> Pages {
        Box::new(std::iter::empty())
    }

    fn readiness(&self) -> Readiness {
        Readiness::Ready
    }

    fn status(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// A port of which the answers have room for one trace.
struct Served {
    address: SocketAddr,
    given_up: Counter,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(name_bytes: usize) -> Served {
    let limits = QueryLimits { answers_bytes_max: name_bytes, read_wait_max: READ_WAIT_MAX, ..QueryLimits::default() };
    let routes = router(QueryState::new(Arc::new(Here(name_bytes)), Arc::new(Process), limits));
    let (given_up, stop) = (Counter::default(), CancellationToken::new());
    let server = bind("127.0.0.1:0").await.unwrap().counting(&given_up);
    let address = server.address();
    tokio::spawn(server.serve(routes, stop.clone()));
    Served { address, given_up, stop }
}

/// The whole answer to a request without body.
async fn answer(address: SocketAddr, target: &str) -> Vec<u8> {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET {target} HTTP/1.1\r\nhost: x\r\naccept: application/protobuf\r\nconnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is cut off is an answer cut off.
    let _ = client.read_to_end(&mut answer).await;
    answer
}

/// Waits until somebody else gets the trace, for which all room there is must have come back.
async fn others_are_answered(served: &Served, name_bytes: usize) {
    let deadline = Instant::now() + BOUND;
    loop {
        let answer = answer(served.address, &format!("/api/traces/{ID}")).await;
        if answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > name_bytes {
            return;
        }
        assert!(Instant::now() < deadline, "the room did not come back");
    }
}

/// Asks with a window of a few bytes for each stream, which nobody ever opens.
async fn stalled(served: &Served, request: Request<Body>) {
    let stream = TcpStream::connect(served.address).await.unwrap();
    let mut client = http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(7);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let _held = sender.send_request(request).await.unwrap();
    // The server ends it, whatever it calls that.
    let _ = tokio::time::timeout(BOUND, connection).await.expect("the connection ends");
    assert!(served.given_up.get() > 0);
}

#[tokio::test]
async fn an_answer_in_a_stream_whose_window_stays_closed_gives_its_room_back() {
    // One that is handed on at once, and one that is not.
    for name_bytes in [3_000, 900_000] {
        let served = serve(name_bytes).await;
        let path = format!("http://x/api/traces/{ID}");
        stalled(&served, Request::get(path).body(Body::empty()).unwrap()).await;
        others_are_answered(&served, name_bytes).await;
    }
}

#[tokio::test]
async fn a_grpc_stream_whose_window_stays_closed_gives_its_room_back() {
    let served = serve(900_000).await;
    let request = Request::post("http://x/tempopb.StreamingQuerier/Search").header("content-type", "application/grpc");
    stalled(&served, request.body(Body::from(Bytes::from_static(&[0; 5]))).unwrap()).await;
    others_are_answered(&served, 900_000).await;
}

#[tokio::test]
async fn a_client_of_http_1_that_stops_reading_gives_its_room_back() {
    // More than the kernel takes for it.
    let name_bytes = 24 << 20;
    let served = serve(name_bytes).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(served.address).await.unwrap();
    client.write_all(format!("GET /api/traces/{ID} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut first = [0];
    client.read_exact(&mut first).await.unwrap();
    others_are_answered(&served, name_bytes).await;
    assert!(served.given_up.get() > 0);
    drop(client);
}

#[tokio::test]
async fn queries_in_urls_may_be_as_long_as_tempo_takes_them() {
    let served = serve(10).await;
    let query = |bytes: usize| format!("%7B%20.a%20=%20%22{}%22%20%7D", "x".repeat(bytes - "{ .a = \"\" }".len()));
    for (target, status, text) in [
        (format!("/api/search?q={}", query(65_536)), 200, "application/protobuf"),
        (format!("/api/search?spss=1&q={}&limit=5", query(131_072)), 200, "application/protobuf"),
        (
            format!("/api/search?q={}", query(131_073)),
            400,
            "TraceQL expression exceeds the configured maximum size of 131072 bytes",
        ),
        (format!("/api/search?q=%7B%7D&x={}&limit=0", "x".repeat(200_000)), 400, "invalid limit"),
        (format!("/{}", "x".repeat(70_000)), 414, "the path of the URL is too long"),
    ] {
        let answer = String::from_utf8(answer(served.address, &target.replace("%22", "%60")).await).unwrap();
        let shown = &answer[..answer.len().min(1000)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text), "{shown}");
    }
}
