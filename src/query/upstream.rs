//! A Tempo behind: where traces are that are no longer here.
//!
//! Spans are forwarded to it, so what is here is there too, and what retention dropped here may still be there. It is
//! asked only for what cannot be here: a trace of which nothing or no root is found, and the part of a search's range
//! that lies before the oldest data, if the limit is not reached with what is here. Tags and metrics are answered from
//! here alone. If it is away, the answer is what is here, and says so where Tempo's API has words for that.

mod decode;
mod merge;
mod tempo;

pub use tempo::{Tempo, UrlError};

use bytes::Bytes;
use thiserror::Error;

pub(super) use merge::merged;

use super::call::SearchCall;
use super::error::QueryError;
use super::{engine, router::QueryState};
use crate::otlp::TraceId;
use crate::otlp::view;
use crate::traceql::answer::SearchAnswer;
use crate::traceql::control::Control;
use crate::traceql::request::SearchRequest;
use crate::traceql::segment::Source;

/// Somebody who keeps traces longer. Called on blocking threads, and blocks until it has answered or given up.
pub trait Upstream: Send + Sync + 'static {
    /// The trace as an `ExportTraceServiceRequest`, empty if there is none.
    ///
    /// # Errors
    /// It does not answer.
    fn trace(&self, id: TraceId) -> Result<Bytes, Away>;

    /// The newest traces that a query finds in a range.
    ///
    /// # Errors
    /// It does not answer, or does not take the query.
    fn search(&self, query: &str, request: &SearchRequest) -> Result<SearchAnswer, Away>;
}

/// Nothing was learnt from it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the Tempo at {address} does not answer ({problem}); older data may be missing")]
pub struct Away {
    pub address: String,
    pub problem: String,
}

/// Searches here and, where that is not enough, upstream.
pub(super) fn search(
    state: &QueryState,
    call: &SearchCall,
    source: &dyn Source,
    control: &Control,
    progress: &mut dyn FnMut(&SearchAnswer),
) -> Result<SearchAnswer, QueryError> {
    let SearchCall { query, request, .. } = call;
    let found = engine::search(query, request, source, control, progress)?;
    let Some(upstream) = state.upstream() else { return Ok(found) };
    let oldest = oldest(source);
    if found.traces.len() >= request.limit || oldest <= request.start {
        return Ok(found);
    }
    let older = SearchRequest { end: request.end.min(oldest), ..*request };
    match upstream.search(&query.to_string(), &older) {
        Ok(older) => Ok(merged(found, older, request.limit)),
        Err(away) => {
            tracing::warn!(%away, "a search is answered from here alone");
            Ok(found)
        }
    }
}

/// Since when everything is here. The latest start in the oldest segment, not the earliest: one span with a wrong clock
/// would otherwise hide all that is upstream.
fn oldest(source: &dyn Source) -> u64 {
    source.segments(0, u64::MAX).iter().map(|segment| segment.times().max_start).min().unwrap_or(u64::MAX)
}

/// Whether a trace has a span without parent. What retention drops first is the oldest, so a trace that is cut off has
/// none.
pub(super) fn has_root(request: &[u8]) -> bool {
    let mut found = false;
    // Span.parent_span_id 4
    view::for_each_span(request, |_, _, span| found |= view::messages(span, 4).all(<[u8]>::is_empty));
    found
}
