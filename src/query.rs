//! Tempo's HTTP API, as Grafana speaks it.
//!
//! In: requests from the listener on 3200. Out: traces in Tempo's JSON and protobuf, error texts to the letter, because
//! Grafana shows them to people.
//!
//! ```text
//! request ─▶ ids and parameters ─▶ admission ─▶ blocking thread: source ─▶ assemble ─▶ encode, gzip ─▶ answer
//! ```
//!
//! Invariants: a bounded number of queries runs and waits at a time, each bounded in time and bytes; span bytes are
//! passed on as they came; any method reaches a query and unknown parameters are tolerated, as with Tempo. The room
//! must not know where traces lie: it asks a [`TraceSource`].

mod admission;
mod error;
mod introspection;
mod negotiation;
mod router;
mod source;
mod trace_by_id;
mod trace_id;

pub use error::QueryError;
pub use introspection::{Introspection, NoDiagnosis, NoDiagnosisKind, Readiness, Scope};
pub use router::{QueryLimits, QueryState, router};
pub use source::{FoundTrace, SourceError, SpanSource, TraceSource};
pub use trace_id::{TraceIdError, parse_trace_id};
