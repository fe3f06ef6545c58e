//! Which path leads where.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any;

use super::admission::{Admission, Answer, Lane, Metrics, SCAN_ANSWER_BYTES_MAX};
use super::body::{Allowance, Body};
use super::error::QueryError;
use super::introspection::{self, Introspection};
use super::live::{self, LivePlaces};
use super::negotiation::Coding;
use super::source::SpanSource;
use super::upstream::Upstream;
use super::{search, series, status_pages, streaming, tags, tail, trace_by_id, ui};
use crate::traceql::control::{Control, Pool};
use crate::traceql::segment::Source;
use tokio_util::sync::CancellationToken;

/// What a query may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// Bytes of a trace as protobuf.
    pub trace_bytes_max: usize,
    /// What all queries that run may hold together, bytes. One that needs more than others leave waits a little.
    pub scratch_bytes_max: usize,
    /// Answers that are written but not yet read by their clients, together, bytes.
    pub answers_bytes_max: usize,
    /// After this a query is told to end.
    pub query_duration_max: Duration,
    /// A client that takes nothing of its answer for so long has gone, or never wanted it.
    pub read_wait_max: Duration,
}

impl Default for QueryLimits {
    fn default() -> Self {
        // The largest trace that Tempo takes is 5 MB by default; people who raise it stay below this.
        const MIB: usize = 1024 * 1024;
        Self {
            trace_bytes_max: 50_000_000,
            scratch_bytes_max: 96 * MIB,
            answers_bytes_max: 64 * MIB,
            query_duration_max: Duration::from_secs(60),
            read_wait_max: Duration::from_secs(30),
        }
    }
}

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct QueryState {
    source: Arc<dyn SpanSource>,
    introspection: Arc<dyn Introspection>,
    limits: QueryLimits,
    admission: Arc<Admission>,
    upstream: Option<Arc<dyn Upstream>>,
    live: LivePlaces,
    /// Cancelled when the process stops: what would not end by itself ends then.
    stopping: CancellationToken,
}

impl QueryState {
    pub fn new(source: Arc<dyn SpanSource>, introspection: Arc<dyn Introspection>, limits: QueryLimits) -> Self {
        Self {
            source,
            introspection,
            limits,
            admission: Arc::new(Admission::new(&limits)),
            upstream: None,
            live: LivePlaces::default(),
            stopping: CancellationToken::new(),
        }
    }

    /// With somebody who says when the process stops.
    #[must_use]
    pub fn until(self, stopping: CancellationToken) -> Self {
        Self { stopping, ..self }
    }

    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    pub(super) fn live(&self) -> &LivePlaces {
        &self.live
    }

    /// Counting what becomes of queries where others can read it, with memory that others borrow from. To be called before
    /// the state is used.
    #[must_use]
    pub fn sharing(self, metrics: Metrics, memory: Arc<Pool>) -> Self {
        Self { admission: Arc::new(Admission::sharing(&self.limits, metrics, memory)), ..self }
    }

    /// With somebody to ask for what is no longer here.
    #[must_use]
    pub fn with_upstream(self, upstream: Arc<dyn Upstream>) -> Self {
        Self { upstream: Some(upstream), ..self }
    }

    pub(super) fn upstream(&self) -> Option<&Arc<dyn Upstream>> {
        self.upstream.as_ref()
    }

    pub(super) fn source(&self) -> &Arc<dyn SpanSource> {
        &self.source
    }

    /// Reads a question and answers it over everything that can be searched, both on a blocking thread when its turn
    /// comes: to parse a query and to compile its regular expressions is work, too.
    pub(super) async fn scan<C, T: Answer>(
        &self,
        lane: Lane,
        read: impl FnOnce() -> Result<C, QueryError> + Send + 'static,
        answer: impl FnOnce(C, &Scanned<'_>) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let state = self.clone();
        let run = move |control: &Control| {
            let call = read()?;
            answer(call, &Scanned { state: &state, source: &*state.source.searchable()?, control })
        };
        self.admission.run(lane, run).await
    }

    pub(super) fn introspection(&self) -> &dyn Introspection {
        &*self.introspection
    }

    pub(super) fn limits(&self) -> QueryLimits {
        self.limits
    }

    pub(super) fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }
}

/// What a question is answered from.
#[derive(Clone, Copy)]
pub(super) struct Scanned<'a> {
    pub state: &'a QueryState,
    pub source: &'a dyn Source,
    pub control: &'a Control,
}

impl Scanned<'_> {
    /// How large the answer may be.
    pub fn allowance(&self) -> Allowance {
        Allowance::new(self.control, SCAN_ANSWER_BYTES_MAX)
    }

    /// For the answer.
    pub fn body(&self, coding: Coding) -> Body {
        Body::new(coding, self.allowance())
    }
}

impl fmt::Debug for QueryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryState").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Every path with what answers it, for the routes and for the page that lists them.
macro_rules! routes {
    ($($path:literal => $handler:path,)*) => {
        /// The paths that are answered, as the router writes them.
        pub(super) const PATHS: &[&str] = &[$($path),*];

        fn http_routes() -> Router<QueryState> {
            // As with Tempo, any method reaches them.
            Router::new()$(.route($path, any($handler)))*
        }
    };
}

routes! {
    "/api/echo" => introspection::echo,
    "/api/metrics/query" => series::instant,
    "/api/metrics/query_range" => series::range,
    "/api/search" => search::search,
    "/api/search/tag/{*rest}" => tags::values_v1,
    "/api/search/tags" => tags::names_v1,
    "/api/spanreel/doctor" => introspection::doctor,
    "/api/spanreel/status" => introspection::status,
    "/api/spanreel/tail" => tail::tail,
    "/api/status/buildinfo" => introspection::build_info,
    "/api/traces/{id}" => trace_by_id::v1,
    "/api/v2/search/tag/{*rest}" => tags::values_v2,
    "/api/v2/search/tags" => tags::names_v2,
    "/api/v2/traces/{id}" => trace_by_id::v2,
    "/flush" => status_pages::flush,
    "/healthz" => introspection::healthz,
    "/metrics" => introspection::metrics,
    "/ready" => introspection::ready,
    "/status" => status_pages::all,
    "/status/overrides/{tenant}" => status_pages::overrides_of,
    "/status/{part}" => status_pages::one,
    "/ui/api/cluster" => ui::cluster,
    "/ui/api/config" => ui::configuration,
    "/ui/api/health" => ui::health,
    "/ui/api/live" => live::live,
}

/// The query port: everything over HTTP, and the streaming RPCs for those who come with HTTP/2.
pub fn router(state: QueryState) -> Router {
    http_routes().merge(streaming::routes()).fallback(streaming::not_found).with_state(state)
}

/// The RPCs alone, for a port that speaks nothing else.
pub fn grpc_router(state: QueryState) -> Router {
    streaming::routes().fallback(streaming::not_found).with_state(state)
}
