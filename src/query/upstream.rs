//! A Tempo behind: where spans are that are no longer here.
//!
//! Spans are forwarded to it, so what is here is there too, and what retention dropped here may still be there. It is
//! asked only for what cannot be here:
//!
//! ```text
//! trace        of which nothing or no root is found, or that began before the oldest data
//! search       the part of the range before the oldest data, if the limit is not reached with what is here
//! series       the intervals before the oldest data; samples are joined by the labels of their series
//! instant      all of it, if the range begins before the oldest data: most values cannot be put together from two
//! tags         the part of the range before the oldest data; names and values of both
//! ```
//!
//! Since when everything is here the source says ([`Source::whole_since`](crate::traceql::segment::Source::whole_since)), by one
//! rule for all of them: behind what retention dropped, what damage took, and what was dropped before it was sealed.
//!
//! If it is away the answer is what is here, and says so: where Tempo's message has a status (traces, series) with
//! `PARTIAL` and a text, everywhere else with the text in a header, since Grafana refuses messages with unknown members.

mod decode;
mod federate;
mod merge;
mod series;
mod tempo;

pub use tempo::{Tempo, UrlError};

use bytes::Bytes;
use thiserror::Error;

pub(super) use federate::{Federated, instant, range, search, tag_names, tag_values};

use crate::otlp::TraceId;
use crate::otlp::view;
use crate::otlp::wire::{Fields, Payload};
use crate::traceql::answer::{MetricsAnswer, SearchAnswer, TagsAnswer, ValuesAnswer};
use crate::traceql::ast::{Expression, Field, Scope};
use crate::traceql::control::{Control, Stopped};
use crate::traceql::request::{InstantRequest, RangeRequest, SearchRequest, TagsRequest};

/// Somebody who keeps traces longer. Called on blocking threads; blocks until it has answered, given up, or the query is
/// to end.
pub trait Upstream: Send + Sync + 'static {
    /// The trace as an `ExportTraceServiceRequest`, empty if there is none. What this and the others answer is booked with the
    /// query.
    ///
    /// # Errors
    /// It does not answer, or nobody waits for it any more.
    fn trace(&self, id: TraceId, control: &Control) -> Result<Bytes, Unanswered>;

    /// The newest traces that a query finds in a range.
    ///
    /// # Errors
    /// It does not answer or does not take the query, or nobody waits for it any more.
    fn search(&self, query: &str, request: &SearchRequest, control: &Control) -> Result<SearchAnswer, Unanswered>;

    /// Series over time. Samples outside of the range may be among them.
    ///
    /// # Errors
    /// As with [`Upstream::search`].
    fn range(&self, query: &str, request: &RangeRequest, control: &Control) -> Result<MetricsAnswer, Unanswered>;

    /// One value per series.
    ///
    /// # Errors
    /// As with [`Upstream::search`].
    fn instant(&self, query: &str, request: &InstantRequest, control: &Control) -> Result<MetricsAnswer, Unanswered>;

    /// Names of attributes; `None`: of all scopes.
    ///
    /// # Errors
    /// As with [`Upstream::search`].
    fn tag_names(
        &self,
        scope: Option<Scope>,
        filter: Option<&Expression>,
        request: &TagsRequest,
        control: &Control,
    ) -> Result<TagsAnswer, Unanswered>;

    /// Values of an attribute.
    ///
    /// # Errors
    /// As with [`Upstream::search`].
    fn tag_values(
        &self,
        field: &Field,
        filter: Option<&Expression>,
        request: &TagsRequest,
        control: &Control,
    ) -> Result<ValuesAnswer, Unanswered>;
}

/// Nothing was learnt from it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the Tempo at {address} does not answer ({problem}); older data may be missing")]
pub struct Away {
    pub address: String,
    pub problem: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unanswered {
    #[error(transparent)]
    Away(#[from] Away),
    /// The query is to end.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// When the first span of a trace began, Unix nanoseconds; `None`: the trace has no span without parent.
pub(super) fn whole_start(request: &[u8]) -> Option<u64> {
    let (mut has_root, mut first) = (false, u64::MAX);
    view::for_each_span(request, |_, _, span| {
        // Span.parent_span_id 4, start_time_unix_nano 7
        let (mut parent, mut start) = (&[][..], 0);
        for field in Fields::new(span).map_while(Result::ok) {
            match (field.number, field.payload) {
                (4, Payload::Bytes(id)) => parent = id,
                (7, Payload::Fixed64(nanos)) => start = nanos,
                _ => {}
            }
        }
        has_root |= parent.is_empty();
        first = first.min(start);
    });
    has_root.then_some(first)
}
