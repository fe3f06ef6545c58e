//! `q` of `/api/v2/traces/{id}`: the spans of a trace that one filter takes, and, if they are asked for, those above and
//! below them.
//!
//! | parameter | means |
//! |---|---|
//! | `q` | one filter, `{ ... }`, over spans alone: what only the whole trace tells is refused |
//! | `match_depth` | generations below what matched: 0 (default) none, -1 all |
//! | `keep_hierarchy` | whether those above are kept |
//! | `ancestor_depth` | generations above, with `keep_hierarchy`: -1 (default) all |

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::call::check_query_lengths;
use super::engine;
use super::error::QueryError;
use super::parameters::{ParameterError, Parameters, ValueError, boolean, integer};
use crate::otlp::SpanId;
use crate::otlp::view::{for_each_span, retain_spans};
use crate::otlp::wire::Fields;
use crate::store::alone::Alone;
use crate::traceql::ast::{Field, Intrinsic, Query, Root, Spanset, Stage};
use crate::traceql::control::Control;
use crate::traceql::request::SearchRequest;
use crate::traceql::search::Nobody;
use crate::traceql::{check, parse};

/// What a filtered answer says, in Tempo's words.
pub(super) const FILTERED: &str = "Trace filtered, only a subset of spans matching the filter is returned";

/// A trace with its columns, against its bytes.
const SEARCHED_COPIES: usize = 4;

/// A filter that was understood.
#[derive(Debug)]
pub(super) struct TraceFilter {
    query: Query,
    /// Generations of parents that are kept.
    above: usize,
    /// Generations of children that are kept.
    below: usize,
}

impl TraceFilter {
    /// `None` if none is asked for; then the others mean nothing, whatever they are.
    pub fn from_url(parameters: &Parameters) -> Result<Option<Self>, QueryError> {
        check_query_lengths(parameters)?;
        let Some(text) = parameters.get("q").map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
        let keeps_above = match parameters.get("keep_hierarchy") {
            Some(text) => boolean(text).map_err(|reason| ParameterError::Value { name: "keep_hierarchy", reason })?,
            None => false,
        };
        let below = generations(parameters, "match_depth")?.unwrap_or(0);
        let above = if keeps_above { generations(parameters, "ancestor_depth")?.unwrap_or(usize::MAX) } else { 0 };
        Ok(Some(Self { query: read(text)?, above, below }))
    }

    /// What is left of a trace.
    pub fn applied(&self, request: Vec<u8>, control: &Control) -> Result<Vec<u8>, QueryError> {
        let _booked = control.book(request.len().saturating_mul(SEARCHED_COPIES))?;
        let request = Bytes::from(request);
        let mut kept = self.matched(request.clone(), control)?;
        let (mut parents, mut children) = (HashMap::new(), HashMap::new());
        if self.above > 0 || self.below > 0 {
            for_each_span(&request, |_, _, span| {
                if let (Some(id), Some(parent)) = ids(span) {
                    if self.above > 0 {
                        parents.entry(id).or_insert_with(Vec::new).push(parent);
                    }
                    if self.below > 0 {
                        children.entry(parent).or_insert_with(Vec::new).push(id);
                    }
                }
            });
        }
        let (above, below) = (reached(&parents, &kept, self.above), reached(&children, &kept, self.below));
        kept.extend(above.into_iter().chain(below));
        Ok(retain_spans(&request, |span| ids(span).0.is_some_and(|id| kept.contains(&id))))
    }

    fn matched(&self, request: Bytes, control: &Control) -> Result<HashSet<SpanId>, QueryError> {
        let all = SearchRequest { start: 0, end: u64::MAX, limit: 1, spans_per_spanset: usize::MAX, overlapping: None };
        let found = engine::search(&self.query, &all, &Alone::new(request), control, &mut Nobody)?;
        let spansets = found.traces.into_iter().flat_map(|trace| trace.spansets);
        Ok(spansets.flat_map(|spanset| spanset.spans).map(|span| span.id).collect())
    }
}

/// The id of a span, and that of its parent.
fn ids(span: &[u8]) -> (Option<SpanId>, Option<SpanId>) {
    let (mut id, mut parent) = (None, None);
    // Span.span_id 2, parent_span_id 4
    for field in Fields::new(span).map_while(Result::ok) {
        if let Some(bytes) = field.bytes(2) {
            id = SpanId::from_wire(bytes);
        } else if let Some(bytes) = field.bytes(4) {
            parent = SpanId::from_wire(bytes);
        }
    }
    (id, parent)
}

/// What leads away from spans in so many steps, generation by generation.
fn reached(links: &HashMap<SpanId, Vec<SpanId>>, from: &HashSet<SpanId>, generations: usize) -> HashSet<SpanId> {
    let mut reached = HashSet::new();
    let mut generation: Vec<SpanId> = from.iter().copied().collect();
    for _ in 0..generations {
        let next = generation.iter().filter_map(|id| links.get(id)).flatten();
        generation = next.copied().filter(|id| reached.insert(*id)).collect();
        if generation.is_empty() {
            break;
        }
    }
    reached
}

fn generations(parameters: &Parameters, name: &'static str) -> Result<Option<usize>, ParameterError> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    let wrong = |reason| ParameterError::Value { name, reason };
    match integer(text).map_err(wrong)? {
        -1 => Ok(Some(usize::MAX)),
        number => usize::try_from(number).map(Some).map_err(|_| wrong(ValueError::BelowMinusOne)),
    }
}

fn read(text: &str) -> Result<Query, QueryError> {
    let unread = |error: &dyn std::fmt::Display| {
        QueryError::TraceFilter(format!("failed to parse TraceQL spanset filter: {error}"))
    };
    let query = parse(text).map_err(|error| unread(&error))?;
    check(&query).map_err(|error| unread(&error))?;
    let several = |what| QueryError::TraceFilter(format!("only a single TraceQL filter is supported: got {what}"));
    let Root::Search(pipeline) = &query.root else { return Err(several("a metrics query")) };
    let filter = match pipeline.stages.as_slice() {
        [Stage::Spanset(Spanset::Spans(filter))] => filter,
        [Stage::Spanset(_) | Stage::Filter { .. }] => return Err(several("a structural or aggregate query")),
        _ => return Err(several("a multi-stage pipeline")),
    };
    for field in filter.iter().flat_map(|filter| filter.fields()) {
        if let Field::Intrinsic(intrinsic) = field
            && is_of_the_trace(*intrinsic)
        {
            let text = format!("intrinsic is not supported by this filter: {:?}", intrinsic.as_str());
            return Err(QueryError::TraceFilter(text));
        }
    }
    Ok(query)
}

/// Whether a span does not tell it by itself.
fn is_of_the_trace(intrinsic: Intrinsic) -> bool {
    matches!(
        intrinsic,
        Intrinsic::ChildCount
            | Intrinsic::TraceDuration
            | Intrinsic::RootName
            | Intrinsic::RootServiceName
            | Intrinsic::TraceId
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent
            | Intrinsic::Parent
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::otlp::wire::{put_bytes, put_uint};

    /// 1 ─┬▶ 2 ─▶ 3 ─▶ 4
    ///    └▶ 5          kinds are the ids
    fn trace() -> Vec<u8> {
        let (mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
        for (id, parent) in [(1u64, 0u64), (2, 1), (3, 2), (4, 3), (5, 1)] {
            let mut span = Vec::new();
            put_bytes(&mut span, 1, &[7; 16]);
            put_bytes(&mut span, 2, &id.to_be_bytes());
            if parent != 0 {
                put_bytes(&mut span, 4, &parent.to_be_bytes());
            }
            put_bytes(&mut span, 5, format!("n{id}").as_bytes());
            put_uint(&mut span, 6, id);
            put_bytes(&mut scope, 2, &span);
        }
        put_bytes(&mut resource, 2, &scope);
        put_bytes(&mut request, 1, &resource);
        request
    }

    fn filter(parameters: &[(&str, &str)]) -> Result<Option<TraceFilter>, String> {
        let owned = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        TraceFilter::from_url(&Parameters::new(owned)).map_err(|error| error.to_string())
    }

    fn left(parameters: &[(&str, &str)]) -> Vec<u64> {
        let control = Control::new(Duration::from_secs(3600), 1 << 20);
        let left = filter(parameters).unwrap().unwrap().applied(trace(), &control).unwrap();
        let mut found = Vec::new();
        for_each_span(&left, |_, _, span| found.push(u64::from_be_bytes(ids(span).0.unwrap().0)));
        found
    }

    #[test]
    fn what_matches_is_left_with_the_generations_that_are_asked_for() {
        let q = ("q", "{ name = \"n3\" }");
        assert_eq!(left(&[q]), [3]);
        assert_eq!(left(&[q, ("ancestor_depth", "1")]), [3], "without keep_hierarchy it means nothing");
        assert_eq!(left(&[q, ("keep_hierarchy", "true")]), [1, 2, 3]);
        assert_eq!(left(&[q, ("keep_hierarchy", "1"), ("ancestor_depth", "1")]), [2, 3]);
        assert_eq!(left(&[q, ("match_depth", "1")]), [3, 4]);
        assert_eq!(left(&[("q", "{ span:id = \"1\" }"), ("match_depth", "1")]), [1, 2, 5]);
        assert_eq!(left(&[("q", "{ span:id = \"1\" }"), ("match_depth", "-1")]), [1, 2, 3, 4, 5]);
        assert_eq!(left(&[("q", " {} ")]), [1, 2, 3, 4, 5]);
        assert_eq!(left(&[("q", "{ name = \"none\" }"), ("match_depth", "-1"), ("keep_hierarchy", "t")]), [0; 0]);
    }

    #[test]
    fn without_a_filter_the_rest_means_nothing() {
        assert!(filter(&[("q", " "), ("match_depth", "x"), ("keep_hierarchy", "y")]).unwrap().is_none());
    }

    #[test]
    fn what_is_no_filter_over_spans_is_refused_in_tempos_words() {
        let q = ("q", "{ }");
        for (parameters, text) in [
            (
                vec![("q", "{ a }")],
                "invalid TraceQL filter: failed to parse TraceQL spanset filter: parse error at line 1, col 3",
            ),
            (vec![("q", "{ 1 = `a` }")], "invalid TraceQL filter: failed to parse TraceQL spanset filter: binary"),
            (
                vec![("q", "{} >> {}")],
                "invalid TraceQL filter: only a single TraceQL filter is supported: got a structural",
            ),
            (
                vec![("q", "{} | by(name)")],
                "invalid TraceQL filter: only a single TraceQL filter is supported: got a multi",
            ),
            (
                vec![("q", "{} | rate()")],
                "invalid TraceQL filter: only a single TraceQL filter is supported: got a metrics",
            ),
            (
                vec![("q", "{ rootName = `a` }")],
                "invalid TraceQL filter: intrinsic is not supported by this filter: \"rootName\"",
            ),
            (
                vec![q, ("match_depth", "x")],
                "invalid value for match_depth: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            (vec![q, ("match_depth", "-2")], "invalid value for match_depth: must be >= -1"),
            (
                vec![q, ("keep_hierarchy", "yes")],
                "invalid value for keep_hierarchy: strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
            (
                vec![q, ("keep_hierarchy", "true"), ("ancestor_depth", "-5")],
                "invalid value for ancestor_depth: must be >= -1",
            ),
        ] {
            let refused = filter(&parameters).unwrap_err();
            assert!(refused.starts_with(text), "{parameters:?}: {refused}");
        }
    }
}
