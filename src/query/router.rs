//! Which path leads where.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::routing::any;

use super::admission::Admission;
use super::introspection::{self, Introspection};
use super::source::TraceSource;
use super::trace_by_id;

/// What a query may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// Bytes of a trace as protobuf. Answering holds about twice that at its peak, four times in JSON, for each of the
    /// few queries that run at once: so this is also what bounds their memory.
    pub trace_bytes_max: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        // The largest trace that Tempo takes is 5 MB by default; people who raise it stay below this.
        Self { trace_bytes_max: 50_000_000 }
    }
}

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct QueryState {
    source: Arc<dyn TraceSource>,
    introspection: Arc<dyn Introspection>,
    limits: QueryLimits,
    admission: Arc<Admission>,
}

impl QueryState {
    pub fn new(source: Arc<dyn TraceSource>, introspection: Arc<dyn Introspection>, limits: QueryLimits) -> Self {
        Self { source, introspection, limits, admission: Arc::new(Admission::new()) }
    }

    pub(super) fn source(&self) -> &Arc<dyn TraceSource> {
        &self.source
    }

    pub(super) fn introspection(&self) -> &dyn Introspection {
        &*self.introspection
    }

    pub(super) fn limits(&self) -> QueryLimits {
        self.limits
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }
}

impl fmt::Debug for QueryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryState").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The query port's routes. As with Tempo, any method reaches them.
pub fn router(state: QueryState) -> Router {
    Router::new()
        .route("/api/traces/{id}", any(trace_by_id::v1))
        .route("/api/v2/traces/{id}", any(trace_by_id::v2))
        .route("/api/echo", any(introspection::echo))
        .route("/api/status/buildinfo", any(introspection::build_info))
        .route("/api/spanreel/status", any(introspection::status))
        .route("/api/spanreel/doctor", any(introspection::doctor))
        .route("/ready", any(introspection::ready))
        .route("/healthz", any(introspection::healthz))
        .route("/metrics", any(introspection::metrics))
        .fallback(introspection::not_found)
        .with_state(state)
}
