//! `/api/spanreel/tail`: spans in the order of their arrival, for `spanreel tail`. Not part of Tempo's API.
//!
//! | parameter | what |
//! |---|---|
//! | `q` | a TraceQL search; without it every span |
//! | `from` | where to go on: `next` of the answer before. Without it the answer has `next` alone: what is there is history |
//! | `last` | without `from`: the spans of so many of the newest traces, too |
//!
//! `{"spans": [...], "next": "17", "missedBatches": "2", "leftOut": "5"}`: spans as searches show them, by their start. A
//! span is shown when the batch that it came in is looked at, however long ago it began; the query itself sees the whole
//! trace. What cannot be shown is counted: batches that were sealed and dropped before their turn came, and spans beyond
//! what one answer holds.

use std::collections::HashSet;

use axum::extract::State;
use http::HeaderMap;

use super::admission::Lane;
use super::arrivals::{Arrivals, Came, Look, Newcomers, Order};
use super::asked::Asked;
use super::encode::json;
use super::engine;
use super::error::QueryError;
use super::lengths::Question;
use super::negotiation::{Coding, JSON, Payload};
use super::parameters::{ParameterError, Parameters, signed};
use super::router::{QueryState, Scanned};
use super::source::Mark;
use crate::otlp::TraceId;
use crate::traceql::answer::{FoundSpan, SearchAnswer};
use crate::traceql::ast::{Attribute, Field, Intrinsic, Query, Root, Scope, Stage};
use crate::traceql::column::ROWS_MAX;
use crate::traceql::control::Stopped;
use crate::traceql::request::SearchRequest;
use crate::traceql::search::Nobody;
use crate::traceql::segment::Source;

/// Spans in one answer: some 3 MB.
const SPANS_MAX: usize = 10_000;

/// Traces of which `last` shows the spans.
const LAST_MAX: u32 = 1_000;

/// A look ends with the batch that has so many spans together: half of what an answer holds.
const SPANS_WANTED: u64 = 5_000;

/// What is answered.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// By start.
    pub spans: Vec<(TraceId, FoundSpan)>,
    pub next: u64,
    pub missed_batches: u64,
    pub left_out: u64,
}

#[derive(Debug)]
struct TailCall {
    query: Query,
    from: Option<u64>,
    last: u32,
}

pub(super) async fn tail(
    State(state): State<QueryState>,
    headers: HeaderMap,
    Asked(parameters): Asked,
) -> Result<Payload, QueryError> {
    let coding = Coding::of(&headers);
    // What is searched is taken behind it, so it holds all that came until then.
    let until = state.source().stored();
    let answer = move |call: TailCall, scanned: &Scanned<'_>| {
        let mut arrived = call.answered(until, scanned)?;
        loop {
            let mut body = scanned.body(coding);
            json::arrived(&mut body, &arrived);
            match Payload::new(JSON, body) {
                // Asked again, it would not be shorter.
                Err(QueryError::AnswerTooLarge { .. } | QueryError::Stopped(Stopped::MemoryOver(_)))
                    if !arrived.spans.is_empty() =>
                {
                    arrived.leave_out_half();
                }
                answer => return answer,
            }
        }
    };
    state.scan(Lane::Scan(Question::UNKNOWN), move || TailCall::from_url(&parameters), answer).await
}

impl TailCall {
    fn from_url(parameters: &Parameters) -> Result<Self, QueryError> {
        super::call::check_query_lengths(parameters)?;
        let mut query = engine::read(parameters.get("q").unwrap_or("{}"))?;
        let Root::Search(pipeline) = &mut query.root else { return Err(QueryError::NoSearch) };
        pipeline.stages.push(Stage::Select(shown_fields()));
        let from = parameters.get("from").map(signed).transpose();
        let from = from.map_err(|reason| ParameterError::Invalid { name: "from", reason })?;
        let last = parameters.u32("last")?.unwrap_or_default();
        if last > LAST_MAX {
            return Err(ParameterError::LimitTooLarge { limit: last, max: LAST_MAX }.into());
        }
        Ok(Self { query, from: from.map(|from| u64::try_from(from).unwrap_or_default()), last })
    }

    fn answered(&self, until: Mark, scanned: &Scanned<'_>) -> Result<Arrived, QueryError> {
        let Some(from) = self.from else {
            let mut arrived = Arrived { next: until.next, ..Arrived::default() };
            if self.last > 0 {
                let found = self.search(scanned, self.last as usize, scanned.source)?;
                arrived.take(found);
            }
            return Ok(arrived);
        };
        let look = Look { batches: from..until.next, order: Order::InOrder, spans_wanted: SPANS_WANTED };
        let mut came = Came::with_spans();
        let mut take = |request: &[u8]| came.take(request, scanned.control);
        let arrivals = scanned.state.source().arrivals(&look, scanned.control, &mut take);
        let Arrivals { batches, spans, gone } = arrivals?;
        let missed_batches = batches.start.saturating_sub(from) + gone;
        let mut arrived = Arrived { next: batches.end, missed_batches, ..Arrived::default() };
        if came.traces.is_empty() {
            return Ok(arrived);
        }
        let new = Newcomers { all: scanned.source, first: batches.start, came };
        match self.search(scanned, ROWS_MAX, &new) {
            // Should something have been dropped meanwhile, some of the spans may not have been seen.
            Ok(found) => {
                if found.inspected.segments_done < found.inspected.segments {
                    arrived.missed_batches += batches.end - batches.start - gone;
                }
                arrived.take(found);
                Ok(arrived)
            }
            // Asked again, it would not be otherwise: it is counted, and the next look goes on behind it.
            Err(QueryError::Stopped(Stopped::MemoryOver(_) | Stopped::TimeOver(_))) => {
                scanned.control.settle(0)?;
                arrived.left_out = spans;
                Ok(arrived)
            }
            Err(error) => Err(error),
        }
    }

    fn search(&self, scanned: &Scanned<'_>, traces: usize, source: &dyn Source) -> Result<SearchAnswer, QueryError> {
        let request =
            SearchRequest { start: 0, end: u64::MAX, limit: traces, spans_per_spanset: SPANS_MAX, overlapping: None };
        engine::search(&self.query, &request, source, scanned.control, &mut Nobody)
    }
}

/// What a line is made of, besides what the query names.
fn shown_fields() -> Vec<Field> {
    let service = Attribute { scope: Some(Scope::Resource), of_parent: false, name: "service.name".to_owned() };
    vec![Field::Intrinsic(Intrinsic::Status), Field::Attribute(service), Field::Intrinsic(Intrinsic::Name)]
}

impl Arrived {
    /// The later half of the spans is counted alone.
    fn leave_out_half(&mut self) {
        let kept = self.spans.len() / 2;
        self.left_out += (self.spans.len() - kept) as u64;
        self.spans.truncate(kept);
    }

    /// Takes the spans of an answer, the newest traces first, as long as there is room for them.
    fn take(&mut self, found: SearchAnswer) {
        for trace in found.traces {
            // A span may be in several spansets.
            let mut seen = HashSet::new();
            for spanset in trace.spansets {
                self.left_out += u64::from(spanset.matched).saturating_sub(spanset.spans.len() as u64);
                for span in spanset.spans {
                    if !seen.insert((span.id, span.start, span.duration)) {
                        continue;
                    }
                    if self.spans.len() < SPANS_MAX {
                        self.spans.push((trace.id, span));
                    } else {
                        self.left_out += 1;
                    }
                }
            }
        }
        self.spans.sort_by_key(|(trace, span)| (span.start, *trace, span.id));
    }
}
