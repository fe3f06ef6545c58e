//! Requests that cost the client next to nothing: encoded once per service, then stamped in place with fresh ids,
//! times and one attribute per span, so that every trace is unique and no compressor sees the same bytes twice.
//!
//! ```text
//! group g = traces 20g .. 20g+20     request (g, service) = five spans of each of these traces in that service
//! ```

use crate::support::traces::{Traces, attribute, mix, request_of};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::SpanKind};
use prost::Message;
use std::time::{SystemTime, UNIX_EPOCH};

pub const SERVICES: [&str; 5] = ["frontend", "checkout", "payment", "inventory", "shipping"];
pub const TRACES_PER_GROUP: u64 = 20;
pub const SPANS_PER_TRACE_AND_SERVICE: usize = 5;
pub const SPANS_PER_REQUEST: usize = TRACES_PER_GROUP as usize * SPANS_PER_TRACE_AND_SERVICE;

/// The head of a gRPC message: flag and length.
pub const GRPC_HEAD_BYTES: usize = 5;
const SPAN_NANOS: u64 = 3_000_000;

/// The requests of one service.
pub struct Template {
    service: u64,
    traces: Traces,
    /// With the gRPC head in front.
    bytes: Vec<u8>,
    spans: Vec<Places>,
}

/// Where in the bytes of a request one span keeps what is stamped.
struct Places {
    trace_id: usize,
    span_id: usize,
    parent_id: usize,
    start: usize,
    end: usize,
    user: usize,
}

impl Template {
    pub fn new(service: usize, seed: u64) -> Self {
        let spans = (0..SPANS_PER_REQUEST as u64).map(|number| placeholder(service, number)).collect();
        let message = request_of(SERVICES[service], spans).encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(message.len()).expect("a small request").to_be_bytes());
        bytes.extend(&message);
        let find = |mark: &[u8]| {
            let mut places = bytes.windows(mark.len()).enumerate().filter(|(_, window)| *window == mark);
            let (at, _) = places.next().expect("the placeholder is in the request");
            assert!(places.next().is_none(), "a placeholder must be unique");
            at
        };
        let spans = (0..SPANS_PER_REQUEST as u64)
            .map(|number| Places {
                trace_id: find(&mark::<16>(b"TRACEID", number)),
                span_id: find(&mark::<8>(b"SPN", number)),
                parent_id: find(&mark::<8>(b"PAR", number)),
                start: find(&mark::<8>(b"STA", number)),
                end: find(&mark::<8>(b"END", number)),
                user: find(user(number).as_bytes()),
            })
            .collect();
        Self { service: service as u64, traces: Traces { seed, spans_per_trace: 0 }, bytes, spans }
    }

    /// Bytes of one request without the gRPC head.
    pub fn message_bytes(&self) -> usize {
        self.bytes.len() - GRPC_HEAD_BYTES
    }

    /// This service's request of a group of traces, with the gRPC head in front.
    pub fn request(&self, group: u64) -> Vec<u8> {
        let mut out = self.bytes.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_nanos() as u64;
        for (number, places) in self.spans.iter().enumerate() {
            let (trace, position) = (number / SPANS_PER_TRACE_AND_SERVICE, number % SPANS_PER_TRACE_AND_SERVICE);
            let id = trace_id(self.traces, group, trace as u64);
            let low = mix(u64::from_be_bytes([id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]]));
            // Spans of a trace are numbered over its services; each one's parent is the one before.
            let span = self.service * SPANS_PER_TRACE_AND_SERVICE as u64 + position as u64;
            let random = mix(low ^ span);
            put(&mut out, places.trace_id, &id);
            put(&mut out, places.span_id, &low.wrapping_add(span + 1).to_be_bytes());
            put(&mut out, places.parent_id, &low.wrapping_add(span).to_be_bytes());
            let start = now - SPAN_NANOS + random % 1_000_000;
            put(&mut out, places.start, &start.to_le_bytes());
            put(&mut out, places.end, &(start + random % SPAN_NANOS).to_le_bytes());
            for (at, byte) in out[places.user..places.user + USER_LEN].iter_mut().enumerate() {
                *byte = b"0123456789abcdef"[(random >> (at * 4)) as usize & 15];
            }
        }
        out
    }
}

pub fn trace_id(traces: Traces, group: u64, trace: u64) -> [u8; 16] {
    traces.id(group * TRACES_PER_GROUP + trace)
}

/// The traces of one group, to ask for them.
pub fn trace_ids(seed: u64, group: u64) -> impl Iterator<Item = [u8; 16]> {
    let traces = Traces { seed, spans_per_trace: 0 };
    (0..TRACES_PER_GROUP).map(move |trace| trace_id(traces, group, trace))
}

/// Pseudo-random but repeatable, for choosing samples.
pub fn spread(value: u64) -> u64 {
    mix(value)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// What a server span of an instrumented web service carries, about 400 bytes of it.
fn placeholder(service: usize, number: u64) -> Span {
    const ROUTES: [&str; 5] = ["/cart", "/cart/{id}/checkout", "/payment/{id}", "/stock/{sku}", "/parcel/{id}/label"];
    let text = |key: &str, value: &str| attribute(key, Value::StringValue(value.to_owned()));
    let route = ROUTES[(service + number as usize) % ROUTES.len()];
    Span {
        trace_id: mark::<16>(b"TRACEID", number).to_vec(),
        span_id: mark::<8>(b"SPN", number).to_vec(),
        parent_span_id: mark::<8>(b"PAR", number).to_vec(),
        name: format!("GET {route}"),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: u64::from_le_bytes(mark::<8>(b"STA", number)),
        end_time_unix_nano: u64::from_le_bytes(mark::<8>(b"END", number)),
        attributes: vec![
            text("http.request.method", "GET"),
            text("http.route", route),
            attribute("http.response.status_code", Value::IntValue(if number % 50 == 7 { 503 } else { 200 })),
            text("url.scheme", "http"),
            text("server.address", SERVICES[service]),
            attribute("server.port", Value::IntValue(8080)),
            text("network.protocol.version", "1.1"),
            text("user_agent.original", "Go-http-client/1.1"),
            text("enduser.id", &user(number)),
            attribute("thread.id", Value::IntValue(number as i64)),
        ],
        status: Some(Status::default()),
        ..Span::default()
    }
}

const USER_LEN: usize = 16;

fn user(number: u64) -> String {
    format!("user-placehold{number:02}").chars().take(USER_LEN).collect()
}

/// `N` bytes that occur nowhere else.
fn mark<const N: usize>(name: &[u8], number: u64) -> [u8; N] {
    let mut mark = [b'#'; N];
    mark[..name.len()].copy_from_slice(name);
    mark[N - 2..].copy_from_slice(&(number as u16 | 0x8000).to_be_bytes());
    mark
}
