//! Clients that leave take their queries with them, over sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::traceql::segment::{Piece, Segment, SegmentError};
use crate::traceql::tests::spans::{span, trace};

/// Each a segment of its own, and each slow to look at: all of them take many seconds.
const TRACES: u64 = 3000;
const SLOWNESS: Duration = Duration::from_millis(5);

/// A generous bound for what is over in milliseconds when nothing is wrong.
const BOUND: Duration = Duration::from_secs(30);

/// Counts how often it was asked.
struct Slow {
    memory: Memory,
    asked: Arc<AtomicUsize>,
}

impl Source for Slow {
    fn segments(&self, start: u64, end: u64) -> Vec<Arc<dyn Segment>> {
        self.memory.segments(start, end)
    }

    fn pieces(&self, trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(SLOWNESS);
        self.memory.pieces(trace)
    }

    fn may_be_split(&self, _: &dyn Segment, _: usize) -> bool {
        true
    }

    fn whole_since(&self) -> u64 {
        Source::whole_since(&self.memory)
    }
}

struct Here(Memory, Arc<AtomicUsize>);

impl TraceSource for Here {
    fn trace(&self, _: TraceId, _: &AssembleLimits) -> Result<FoundTrace, SourceError> {
        Err(SourceError::Stopping)
    }
}

impl SpanSource for Here {
    fn searchable(&self) -> Result<Arc<dyn Source>, SourceError> {
        Ok(Arc::new(Slow { memory: self.0.clone(), asked: Arc::clone(&self.1) }))
    }
}

/// Serves as the appliance does; the address and how often the source was asked.
async fn serve() -> (SocketAddr, Arc<AtomicUsize>) {
    let now = call::now() as u64;
    let traces = (1..=TRACES).map(|id| vec![trace(u128::from(id), [span(id).lasting(now - id * 1_000_000, 5)])]);
    let asked = Arc::new(AtomicUsize::new(0));
    let here = Here(Memory::parts(traces.collect()), Arc::clone(&asked));
    let router = router(QueryState::new(Arc::new(here), Arc::new(Process), QueryLimits::default()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, asked)
}

/// Waits until the query is under way.
async fn begun(asked: &AtomicUsize) {
    let deadline = std::time::Instant::now() + BOUND;
    while asked.load(Ordering::SeqCst) < 3 {
        assert!(std::time::Instant::now() < deadline, "the query has not begun");
        tokio::time::sleep(SLOWNESS).await;
    }
}

/// Waits until the source is asked no more, long before it was asked about everything.
async fn ended_early(asked: &AtomicUsize) {
    let deadline = std::time::Instant::now() + BOUND;
    loop {
        let before = asked.load(Ordering::SeqCst);
        tokio::time::sleep(SLOWNESS * 100).await;
        if asked.load(Ordering::SeqCst) == before {
            assert!(before < TRACES as usize, "it went on to its end");
            return;
        }
        assert!(std::time::Instant::now() < deadline, "the query goes on");
    }
}

fn path() -> String {
    let (start, end) = last_hour();
    uri("/api/search", &[("q", "{}"), ("limit", "5000"), ("start", &start), ("end", &end)])
}

#[tokio::test]
async fn over_http_1() {
    let (address, asked) = serve().await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", path()).as_bytes()).await.unwrap();
    begun(&asked).await;
    drop(client);
    ended_early(&asked).await;
}

#[tokio::test]
async fn over_http_2_as_a_search_and_as_a_stream() {
    let (address, asked) = serve().await;
    for stream in [false, true] {
        asked.store(0, Ordering::SeqCst);
        let socket = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(Method::POST).header("content-type", "application/grpc");
        let request = match stream {
            false => request.uri(format!("http://x{}", path())).body(Body::empty()),
            true => {
                let mut message = Vec::new();
                crate::otlp::wire::put_uint(&mut message, 4, 5000);
                let mut frame = vec![0, 0, 0, 0, message.len() as u8];
                frame.extend_from_slice(&message);
                request.uri("http://x/tempopb.StreamingQuerier/Search").body(Body::from(frame))
            }
        };
        let answer = sender.send_request(request.unwrap());
        let answer = tokio::spawn(answer);
        begun(&asked).await;
        // The stream alone is reset; the connection stays.
        answer.abort();
        if let Ok(Ok(response)) = answer.await {
            drop(response);
        }
        ended_early(&asked).await;
    }
}
