//! The four tag endpoints and their RPCs.

use super::{GivenRange, check_query_length, check_query_lengths, malformed};
use crate::otlp::wire::{Fields, Payload};
use crate::query::engine;
use crate::query::error::QueryError;
use crate::query::parameters::{Nanos, ParameterError, Parameters, quoted};
use crate::query::tag_search::field_of_tag;
use crate::traceql::ast::{Expression, Field, Scope};
use crate::traceql::request::TagsRequest;
use crate::traceql::value::Value;

/// Names or values together, Tempo's `max_bytes_per_tag_values_query`; what is beyond is left out without a word.
const BYTES_MAX: usize = 1_000_000;

/// `/api/search/tags` and `/api/v2/search/tags`.
#[derive(Debug, Clone, PartialEq)]
pub struct TagsCall {
    pub scope: TagScope,
    pub filter: Option<Expression>,
    pub request: TagsRequest,
}

/// Whose names are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagScope {
    /// Not said; everything.
    All,
    Attributes(Scope),
    Intrinsic,
    /// Traces have no attributes.
    Trace,
}

/// Which of the two endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagNames {
    /// Any attribute name of spans and resources; no TraceQL.
    Plain,
    /// A TraceQL identifier.
    TraceQl,
}

/// `/api/search/tag/{tag}/values` and `/api/v2/search/tag/{identifier}/values`.
#[derive(Debug, Clone, PartialEq)]
pub enum ValuesCall {
    /// What needs no data: names that stand for something else, and what `q` requires anyway.
    Known(Vec<Value>),
    Stored {
        field: Field,
        filter: Option<Expression>,
        request: TagsRequest,
    },
}

/// As given.
#[derive(Debug, Clone, Default)]
struct Given {
    /// A scope, or the name of a tag.
    name: String,
    query: Option<String>,
    range: GivenRange,
    count_max: u32,
}

impl TagsCall {
    pub fn from_url(parameters: &Parameters, now: Nanos) -> Result<Self, QueryError> {
        check_query_lengths(parameters)?;
        Given {
            name: parameters.get("scope").unwrap_or_default().to_owned(),
            query: parameters.get("q").map(str::to_owned),
            range: GivenRange::of(parameters),
            // A bad limit is none, here.
            count_max: parameters.u32("limit").unwrap_or_default().unwrap_or_default(),
        }
        .names(now)
    }

    /// `tempopb.SearchTagsRequest`.
    pub fn from_message(message: &[u8], now: Nanos) -> Result<Self, QueryError> {
        Given::from_message(message, [1, 2, 3, 4, 5])?.names(now)
    }
}

impl ValuesCall {
    pub fn from_url(tag: &str, names: TagNames, parameters: &Parameters, now: Nanos) -> Result<Self, QueryError> {
        check_query_lengths(parameters)?;
        Given {
            name: tag.to_owned(),
            query: parameters.get("q").map(str::to_owned),
            range: GivenRange::of(parameters),
            // A bad limit is none, as above.
            count_max: parameters.u32("limit").unwrap_or_default().unwrap_or_default(),
        }
        .values(names, now)
    }

    /// `tempopb.SearchTagValuesRequest`.
    pub fn from_message(message: &[u8], names: TagNames, now: Nanos) -> Result<Self, QueryError> {
        Given::from_message(message, [1, 2, 4, 5, 6])?.values(names, now)
    }
}

impl Given {
    /// The two messages differ in the numbers of their fields: name, query, start, end, limit.
    fn from_message(message: &[u8], numbers: [u32; 5]) -> Result<Self, QueryError> {
        let (mut given, mut start, mut end) = (Self::default(), 0, 0);
        let text = |bytes| std::str::from_utf8(bytes).map(str::to_owned).map_err(malformed);
        for field in Fields::new(message) {
            let field = field.map_err(malformed)?;
            match (numbers.iter().position(|number| *number == field.number), field.payload) {
                (Some(0), Payload::Bytes(bytes)) => given.name = text(bytes)?,
                (Some(1), Payload::Bytes(bytes)) => {
                    given.query = Some(text(bytes)?).filter(|query| !query.is_empty());
                }
                (Some(2), Payload::Varint(seconds)) => start = seconds as u32,
                (Some(3), Payload::Varint(seconds)) => end = seconds as u32,
                (Some(4), Payload::Varint(limit)) => given.count_max = limit as u32,
                _ => {}
            }
        }
        if let Some(query) = &given.query {
            check_query_length(query)?;
        }
        given.range = GivenRange::of_seconds(start, end);
        Ok(given)
    }

    fn filter(&self) -> Result<Option<Expression>, QueryError> {
        self.query.as_deref().map_or(Ok(None), engine::filter)
    }

    fn request(&self, now: Nanos) -> Result<TagsRequest, ParameterError> {
        let window = self.range.window(now)?;
        Ok(TagsRequest {
            start: window.start,
            end: window.end,
            count_max: self.count_max as usize,
            bytes_max: BYTES_MAX,
        })
    }

    fn names(self, now: Nanos) -> Result<TagsCall, QueryError> {
        let filter = self.filter()?;
        let request = self.request(now)?;
        let scope = match self.name.as_str() {
            "" | "none" => TagScope::All,
            "intrinsic" => TagScope::Intrinsic,
            "trace" => TagScope::Trace,
            name => match Scope::ALL.into_iter().find(|scope| scope.as_str() == name) {
                Some(scope) => TagScope::Attributes(scope),
                None => return Err(ParameterError::Scope(quoted(name)).into()),
            },
        };
        Ok(TagsCall { scope, filter, request })
    }

    fn values(self, names: TagNames, now: Nanos) -> Result<ValuesCall, QueryError> {
        if self.name.is_empty() {
            return Err(ParameterError::NoTagName.into());
        }
        if names == TagNames::Plain {
            let known: &[&str] = match self.name.as_str() {
                "error" => &["true"],
                "status.code" => &["unset", "ok", "error"],
                _ => &[],
            };
            let request = self.request(now)?;
            return Ok(match known {
                [] => ValuesCall::Stored { field: field_of_tag(&self.name), filter: None, request },
                known => ValuesCall::Known(known.iter().map(|value| Value::String((*value).into())).collect()),
            });
        }
        let filter = self.filter()?;
        let request = self.request(now)?;
        let field = engine::field(&self.name)?;
        if matches!(&field, Field::Attribute(attribute) if attribute.of_parent) {
            return Err(QueryError::TagName(format!("{field} not yet supported")));
        }
        match filter.as_ref().and_then(|filter| engine::pinned(filter, &field)) {
            Some(values) => Ok(ValuesCall::Known(values)),
            None => Ok(ValuesCall::Stored { field, filter, request }),
        }
    }
}
