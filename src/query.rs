//! Tempo's query API, as Grafana speaks it: HTTP, and gRPC for answers that stream.
//!
//! In: requests from the listener on 3200. Out: traces, searches, tags and series in Tempo's JSON and protobuf, error
//! texts to the letter, because Grafana shows them to people.
//!
//! ```text
//! URL parameters ─┐                                                    ┌▶ JSON or protobuf, gzip
//!                 ├▶ admission ─▶ blocking thread: call, engine, upstream ─┤
//! gRPC message ───┘  (lane, Control)                                   └▶ messages of at most 1 MiB
//! ```
//!
//! Invariants: a bounded number of queries runs and waits at a time, each bounded in time and bytes, and a client that
//! leaves takes its query with it; span bytes are passed on as they came; any method reaches a query and unknown
//! parameters are tolerated, as with Tempo. There is one tenant: `X-Scope-OrgID`, also several names joined by `|`, is
//! accepted and means nothing. The room must not know where traces lie: it asks a [`SpanSource`].

mod access;
mod admission;
mod arrivals;
mod asked;
mod body;
mod call;
mod dead_letters;
mod encode;
mod engine;
mod error;
mod introspection;
mod lengths;
mod live;
mod logfmt;
mod negotiation;
mod paced;
mod parameters;
mod router;
mod search;
mod series;
mod source;
mod status_pages;
mod streaming;
mod tag_search;
mod tags;
mod tail;
mod trace_by_id;
mod trace_filter;
mod trace_id;
mod ui;
mod upkeep;
mod upstream;

pub use access::{Access, AccessMetrics, AccessRules, NoRandomness, Role, TrustedProxy, guard, session_routes};
pub use admission::Metrics as QueryMetrics;
pub use arrivals::{Arrivals, Look, Order};
pub use asked::LONG_QUERY;
pub use dead_letters::{DeadLetters, NoLetter, routes as dead_letter_routes};
pub use error::QueryError;
pub use introspection::{Introspection, NoDiagnosis, NoDiagnosisKind, Readiness, Scope};
pub use paced::Hangup;
pub use parameters::{ParameterError, ValueError};
pub use router::{QueryLimits, QueryState, grpc_router, router};
pub use source::{FoundTrace, Mark, SourceError, SpanSource, TraceSource};
pub use trace_id::{TraceIdError, parse_trace_id};
pub use upkeep::{Peer, Upkeep, UpkeepError, routes as upkeep_routes};
pub use upstream::{Away, Tempo, Unanswered, Upstream, UrlError};

#[cfg(test)]
mod tests;
