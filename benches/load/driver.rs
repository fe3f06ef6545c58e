//! Sends the load and keeps account of what was acknowledged.

use crate::payload::{GRPC_HEAD_BYTES, SERVICES, SPANS_PER_REQUEST, Template};
use crate::support::http::Connection;
use crate::support::otlp::{GrpcConnection, Protocol, Signal};
use bytes::Bytes;
use http::Method;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Groups for which acknowledgements can be noted: 10 billion spans, one byte a group.
const GROUPS_MAX: usize = 20_000_000;
/// After a refusal, before the same request is sent again.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// Latencies kept per client; 16 bytes each.
const LATENCIES_MAX: usize = 1_000_000;

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub protocol: Protocol,
    pub duration: Duration,
    /// Spans per second over all clients; `None`: as fast as they are taken.
    pub rate: Option<u64>,
    pub connections: usize,
    /// Requests under way on each connection (HTTP/1.1: as many connections instead).
    pub in_flight: usize,
    /// The load ends once so many spans were sent.
    pub spans_max: Option<u64>,
    pub seed: u64,
}

/// What the clients know afterwards.
pub struct Sent {
    pub elapsed: Duration,
    pub spans: u64,
    pub raw_bytes: u64,
    /// Answers that told a client to try again.
    pub refused: u64,
    /// Time from sending to the acknowledgement, sorted.
    pub latencies: Vec<Duration>,
    /// One bit per service for each group of traces.
    pub acknowledged: Vec<u8>,
}

impl Sent {
    pub fn latency(&self, quantile: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * quantile) as usize).copied().unwrap_or_default()
    }
}

struct Shared {
    plan: Plan,
    start: Instant,
    templates: Vec<Template>,
    next: AtomicU64,
    refused: AtomicU64,
    acknowledged: Vec<AtomicU8>,
}

enum Wire {
    Grpc(GrpcConnection),
    Http(Connection),
}

/// Runs the plan against a port. Every request that was begun is finished, refused ones are repeated.
pub async fn drive(port: u16, plan: Plan) -> Sent {
    let templates: Vec<Template> = (0..SERVICES.len()).map(|service| Template::new(service, plan.seed)).collect();
    let mut wires = Vec::new();
    for _ in 0..plan.connections {
        match plan.protocol {
            Protocol::Grpc => {
                let connection = GrpcConnection::open(port).await.expect("the subject takes connections");
                wires.extend((0..plan.in_flight).map(|_| Wire::Grpc(connection.clone())));
            }
            Protocol::HttpProtobuf | Protocol::HttpJson => {
                for _ in 0..plan.in_flight {
                    wires.push(Wire::Http(Connection::open(port).await.expect("the subject takes connections")));
                }
            }
        }
    }
    let shared = Arc::new(Shared {
        plan,
        start: Instant::now(),
        templates,
        next: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        acknowledged: (0..GROUPS_MAX).map(|_| AtomicU8::new(0)).collect(),
    });
    let clients: Vec<_> = wires.into_iter().map(|wire| tokio::spawn(client(wire, shared.clone()))).collect();
    let mut latencies = Vec::new();
    let mut raw_bytes = 0;
    for client in clients {
        let (of_client, bytes) = client.await.expect("a client does not panic");
        latencies.extend(of_client);
        raw_bytes += bytes;
    }
    let elapsed = shared.start.elapsed();
    latencies.sort_unstable();
    let groups = (shared.next.load(Ordering::Relaxed) as usize).div_ceil(SERVICES.len());
    let acknowledged: Vec<u8> =
        shared.acknowledged[..groups].iter().map(|services| services.load(Ordering::Relaxed)).collect();
    let requests = acknowledged.iter().map(|services| u64::from(services.count_ones())).sum::<u64>();
    Sent {
        elapsed,
        spans: requests * SPANS_PER_REQUEST as u64,
        raw_bytes,
        refused: shared.refused.load(Ordering::Relaxed),
        latencies,
        acknowledged,
    }
}

async fn client(mut wire: Wire, shared: Arc<Shared>) -> (Vec<Duration>, u64) {
    let mut latencies = Vec::new();
    let mut raw_bytes = 0;
    while shared.start.elapsed() < shared.plan.duration {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let (group, service) = (number / SERVICES.len() as u64, (number % SERVICES.len() as u64) as usize);
        let is_enough = shared.plan.spans_max.is_some_and(|max| number * SPANS_PER_REQUEST as u64 >= max);
        if group as usize >= GROUPS_MAX || is_enough {
            break;
        }
        if let Some(rate) = shared.plan.rate {
            let due = Duration::from_secs_f64((number * SPANS_PER_REQUEST as u64) as f64 / rate as f64);
            if due >= shared.plan.duration {
                break;
            }
            tokio::time::sleep_until((shared.start + due).into()).await;
        }
        let template = &shared.templates[service];
        let request = Bytes::from(template.request(group));
        let sent = Instant::now();
        while !send(&mut wire, shared.plan.protocol, request.clone()).await {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
        if latencies.len() < LATENCIES_MAX {
            latencies.push(sent.elapsed());
        }
        raw_bytes += template.message_bytes() as u64;
        shared.acknowledged[group as usize].fetch_or(1 << service, Ordering::Relaxed);
    }
    (latencies, raw_bytes)
}

/// Whether the request was acknowledged; otherwise the client is to try again.
async fn send(wire: &mut Wire, protocol: Protocol, request: Bytes) -> bool {
    let path = protocol.path(Signal::Traces);
    match wire {
        Wire::Grpc(connection) => {
            let answer = connection.send(Method::POST, path, Some(protocol.content_type()), None, request).await;
            let answer = answer.expect("the connection holds");
            assert!(answer.is_ok() || answer.is_retryable(), "the load is refused for good: {answer:?}");
            answer.is_ok()
        }
        Wire::Http(connection) => {
            let headers = [("content-type", protocol.content_type())];
            let answer = connection.send(Method::POST, path, &headers, request.slice(GRPC_HEAD_BYTES..)).await;
            let answer = answer.expect("the connection holds");
            assert!(matches!(answer.status.as_u16(), 200 | 429 | 503), "the load is refused for good: {answer:?}");
            answer.status == 200
        }
    }
}
