//! The door: listeners, protocol detection, limits, answers.
//!
//! In: OTLP over gRPC, HTTP with protobuf, HTTP with JSON, in any listed compression, all of them on every port of the
//! `otlp` receiver; Zipkin's and Jaeger's formats on the ports of theirs, converted here.
//! Out: request bytes that passed the structural scan, handed to a [`TraceSink`] or [`items::ItemSink`]; the client's
//! answer is sent only when the sink says that they are durable.
//!
//! ```text
//! listener ─▶ HTTP/1.1 or h2 ─▶ grpc | http ─▶ body (limits) ─▶ inflate (limits) ─▶ traces (scan) ─▶ TraceSink
//!                                 zipkin | jaeger ─────────────▶ foreign (convert) ──▲
//! ```
//!
//! Invariants: no byte is held that was not reserved ([`admission`]); a refusal that may be retried says when; a client's
//! mistake costs it one request, never its connection, and never another client. The room knows neither Kubernetes nor
//! the store.

pub mod accept;
pub mod admission;
pub mod answer;
mod body;
mod foreign;
pub mod framing;
mod grpc;
mod http;
pub mod inflate;
pub mod items;
pub mod jaeger;
pub mod listener;
pub mod metrics;
pub mod other_signals;
pub mod otlp;
pub mod policy;
pub mod settings;
pub mod thrift;
mod tls;
mod traces;
pub mod witness;
pub mod zipkin;

pub use answer::Refusal;
pub use listener::{Door, Endpoint, Limits, ListenError, Listener};
pub use metrics::Metrics;
pub use policy::Policy;
pub use witness::Witness;

use crate::otlp::scan::Scanned;
use crate::process::Client;
use ::bytes::Bytes;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

/// What receivers hand traces to.
pub trait TraceSink: Send + Sync + 'static {
    /// Asked before a body is read: refuses while memory is short.
    fn admit(&self) -> Result<(), Refusal>;

    /// Takes a request; `Ok` means durable. `scanned` describes `request` as it is now, invalid spans taken out.
    fn store(
        &self,
        request: Bytes,
        scanned: Scanned,
        client: Client,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + '_>>;
}

/// What is spoken on a receiver's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Otlp,
    Zipkin(zipkin::Rules),
    Jaeger,
}

/// What the connections of one receiver share. Looked up per request, so that it may be exchanged behind open connections.
pub struct Receiver {
    /// The component id, e.g. `otlp` or `otlp/2`.
    pub name: String,
    pub dialect: Dialect,
    pub sink: Arc<dyn TraceSink>,
    /// Pipelines of metrics and logs; without one, `other_signals` says what becomes of them.
    pub items: items::ItemSinks,
    pub other_signals: other_signals::OtherSignals,
    pub admission: admission::Admission,
    pub limits: Limits,
    pub metrics: Metrics,
    /// Whoever wants to know who comes.
    pub witness: Option<Arc<dyn Witness>>,
}

impl Receiver {
    fn count(&self, from: listener::Origin, protocol: &'static str, outcome: &'static str) {
        self.metrics.count_request(&self.name, from.port, protocol, outcome);
        if let Some(witness) = self.witness.as_ref().filter(|_| outcome != "ok") {
            witness.refused(from.peer, outcome);
        }
    }

    fn saw_other_signal(&self, peer: IpAddr, signal: other_signals::Signal) {
        if let Some(witness) = &self.witness {
            witness.other_signal(peer, signal);
        }
    }
}
