//! `/api/search` and `StreamingQuerier.Search`.

use super::{GivenRange, check_query_length, check_query_lengths, malformed};
use crate::otlp::wire::{Fields, Payload};
use crate::query::engine;
use crate::query::error::QueryError;
use crate::query::logfmt;
use crate::query::parameters::{Nanos, ParameterError, Parameters, ValueError, go_duration, signed};
use crate::query::tag_search::TagSearch;
use crate::traceql::ast::{Query, Root};
use crate::traceql::request::{Overlap, SearchRequest};

const LIMIT_DEFAULT: u32 = 20;
/// Tempo's `max_result_limit`.
const LIMIT_MAX: u32 = 262_144;
/// Each tag is a condition of its own on the whole trace; people give a handful.
const TAGS_MAX: usize = 64;
const SPANS_DEFAULT: u32 = 3;
/// Tempo's `max_spans_per_span_set`.
pub const SPANS_MAX: u32 = 100;

/// So far outside of the window spans are looked at whose traces reach into it, nanoseconds. Of longer traces those are
/// found that have their tags nearer.
const TRACE_LENGTH_MAX: u64 = 3600 * 1_000_000_000;

/// What is taken for a parameter, not for a tag, in the oldest form of search.
const RESERVED: [&str; 9] = ["q", "tags", "minDuration", "maxDuration", "limit", "spss", "start", "end", "since"];

/// A search that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchCall {
    pub query: Query,
    pub request: SearchRequest,
    pub origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    TraceQl,
    /// The answer shows no spans, as Tempo's does not.
    Tags,
}

/// A search as it was given.
#[derive(Debug, Clone, Default)]
struct Given {
    query: Option<String>,
    tags: TagSearch,
    limit: Option<u32>,
    spans: Option<u32>,
    range: GivenRange,
}

impl SearchCall {
    pub fn from_url(parameters: &Parameters, now: Nanos) -> Result<Self, QueryError> {
        check_query_lengths(parameters)?;
        let (start, end) = (parameters.u32("start")?, parameters.u32("end")?);
        let query = parameters.get("q").map(str::to_owned);
        let mut tags = TagSearch::default();
        match parameters.get("tags") {
            Some(_) if query.is_some() => return Err(ParameterError::TagsAndQuery.into()),
            Some(text) => {
                let pairs = logfmt::pairs(text).map_err(ParameterError::Tags)?;
                check_tag_count(pairs.len())?;
                tags.tags = distinct(pairs)?;
            }
            None if query.is_none() && start.is_none_or(|start| start == 0) && end.is_none_or(|end| end == 0) => {
                let others: Vec<_> = parameters.named().filter(|(name, _)| !RESERVED.contains(name)).collect();
                check_tag_count(others.len())?;
                let others = others.into_iter();
                tags.tags = others.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            }
            None => {}
        }
        tags.min_duration_ms = milliseconds(parameters, "minDuration")?.unwrap_or_default();
        if let Some(max) = milliseconds(parameters, "maxDuration")? {
            tags.max_duration_ms = max;
            if tags.min_duration_ms > max {
                return Err(ParameterError::DurationsReversed.into());
            }
        }
        // Go's `Atoi` reads signs; what it reads must then be positive.
        if parameters.get("limit").is_some_and(|text| signed(text).is_ok_and(|limit| limit <= 0)) {
            return Err(ParameterError::LimitZero.into());
        }
        let limit = parameters.u32("limit")?;
        let spans = parameters.u32("spss")?;
        let (start, end) = (start.unwrap_or_default(), end.unwrap_or_default());
        let range = GivenRange::of(parameters);
        if range.since.is_none() && (start, end) != (0, 0) && end <= start {
            return Err(ParameterError::EmptyRange { start: start.into(), end: end.into() }.into());
        }
        Given { query, tags, limit, spans, range }.understood(now)
    }

    /// `tempopb.SearchRequest`.
    pub fn from_message(message: &[u8], now: Nanos) -> Result<Self, QueryError> {
        let (mut given, mut start, mut end) = (Given::default(), 0, 0);
        for field in Fields::new(message) {
            let field = field.map_err(malformed)?;
            match (field.number, field.payload) {
                (1, Payload::Bytes(entry)) => {
                    check_tag_count(given.tags.tags.len() + 1)?;
                    given.tags.tags.push(tag(entry)?);
                }
                (2, Payload::Varint(millis)) => given.tags.min_duration_ms = millis,
                (3, Payload::Varint(millis)) => given.tags.max_duration_ms = millis,
                (4, Payload::Varint(limit)) => given.limit = Some(limit as u32).filter(|limit| *limit != 0),
                (5, Payload::Varint(seconds)) => start = seconds as u32,
                (6, Payload::Varint(seconds)) => end = seconds as u32,
                (8, Payload::Bytes(query)) => {
                    let query = std::str::from_utf8(query).map_err(malformed)?;
                    given.query = Some(query.to_owned()).filter(|query| !query.is_empty());
                }
                (9, Payload::Varint(spans)) => given.spans = Some(spans as u32),
                _ => {}
            }
        }
        if let Some(query) = &given.query {
            check_query_length(query)?;
            if !given.tags.tags.is_empty() {
                return Err(ParameterError::TagsAndQuery.into());
            }
        }
        if given.tags.max_duration_ms > 0 && given.tags.min_duration_ms > given.tags.max_duration_ms {
            return Err(ParameterError::DurationsReversed.into());
        }
        if (start, end) != (0, 0) && end <= start {
            return Err(ParameterError::EmptyRange { start: start.into(), end: end.into() }.into());
        }
        given.range = GivenRange::of_seconds(start, end);
        given.understood(now)
    }
}

impl Given {
    fn understood(self, now: Nanos) -> Result<SearchCall, QueryError> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if limit > LIMIT_MAX {
            return Err(ParameterError::LimitTooLarge { limit, max: LIMIT_MAX }.into());
        }
        let (query, origin) = match &self.query {
            Some(text) => (engine::read(text)?, Origin::TraceQl),
            None => (self.tags.into_query(), Origin::Tags),
        };
        if matches!(query.root, Root::Metrics(_)) {
            return Err(QueryError::NoSearch);
        }
        let window = self.range.window(now)?;
        let spans = self.spans.filter(|spans| *spans != 0).unwrap_or(SPANS_DEFAULT);
        if spans > SPANS_MAX {
            return Err(ParameterError::SpansTooMany { given: spans, max: SPANS_MAX }.into());
        }
        let request = SearchRequest {
            start: window.start,
            end: window.end,
            limit: limit as usize,
            spans_per_spanset: spans as usize,
            overlapping: None,
        };
        let request = match origin {
            Origin::TraceQl => request,
            Origin::Tags => overlapping(request),
        };
        Ok(SearchCall { query, request, origin })
    }
}

/// What a search by tags asks for: traces of which a moment lies in the window, whichever of their spans have the tags.
fn overlapping(request: SearchRequest) -> SearchRequest {
    let SearchRequest { start, end, .. } = request;
    SearchRequest {
        start: start.saturating_sub(TRACE_LENGTH_MAX),
        end: end.saturating_add(TRACE_LENGTH_MAX),
        overlapping: Some(Overlap { start, end }),
        ..request
    }
}

fn check_tag_count(count: usize) -> Result<(), ParameterError> {
    let too_many = || ParameterError::Tags(format!("more than {TAGS_MAX} tags; say it in TraceQL (q)"));
    if count > TAGS_MAX { Err(too_many()) } else { Ok(()) }
}

fn distinct(pairs: Vec<(String, String)>) -> Result<Vec<(String, String)>, ParameterError> {
    let mut tags: Vec<(String, String)> = Vec::with_capacity(pairs.len());
    for (tag, value) in pairs {
        if tags.iter().any(|(earlier, _)| *earlier == tag) {
            return Err(ParameterError::Tags(format!("tag {tag} has been set twice")));
        }
        tags.push((tag, value));
    }
    Ok(tags)
}

fn milliseconds(parameters: &Parameters, name: &'static str) -> Result<Option<u64>, ParameterError> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    let invalid = |reason: ValueError| ParameterError::Invalid { name, reason };
    let duration = go_duration(text).map_err(invalid)?;
    Ok(Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

/// One entry of `map<string, string>`.
fn tag(entry: &[u8]) -> Result<(String, String), QueryError> {
    let (mut key, mut value) = (String::new(), String::new());
    for field in Fields::new(entry) {
        let field = field.map_err(malformed)?;
        let text = |bytes| std::str::from_utf8(bytes).map(str::to_owned).map_err(malformed);
        match (field.number, field.payload) {
            (1, Payload::Bytes(bytes)) => key = text(bytes)?,
            (2, Payload::Bytes(bytes)) => value = text(bytes)?,
            _ => {}
        }
    }
    Ok((key, value))
}
