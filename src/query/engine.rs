//! The one place where this room meets the language: texts become trees, trees are run, errors get this room's form.

use super::error::QueryError;
use super::source::SourceError;
use crate::traceql;
use crate::traceql::answer::{MetricsAnswer, SearchAnswer, TagsAnswer, ValuesAnswer};
use crate::traceql::ast::{Expression, Field, Query, Scope};
use crate::traceql::control::Control;
use crate::traceql::request::{InstantRequest, RangeRequest, SearchRequest, TagsRequest};
use crate::traceql::segment::{SegmentError, Source};
use crate::traceql::value::Value;

/// What a user is told.
impl From<traceql::QueryError> for QueryError {
    fn from(error: traceql::QueryError) -> Self {
        match error {
            traceql::QueryError::Parse(error) => Self::TraceQl(error.to_string()),
            traceql::QueryError::Invalid(error) => Self::TraceQl(error.to_string()),
            traceql::QueryError::Stopped(stopped) => Self::Stopped(stopped),
            traceql::QueryError::Segment(SegmentError::Read(text)) => SourceError::Read(text).into(),
            traceql::QueryError::Segment(SegmentError::Stopped(stopped)) => Self::Stopped(stopped),
            traceql::QueryError::Segment(gone @ SegmentError::Gone) => SourceError::Read(gone.to_string()).into(),
        }
    }
}

fn absent<T>() -> Result<T, QueryError> {
    Err(QueryError::Evaluation("not yet".to_owned()))
}

/// Parses and validates.
pub(super) fn read(text: &str) -> Result<Query, QueryError> {
    Ok(traceql::read(text)?)
}

/// The field that an identifier of the tag endpoints names.
pub(super) fn field(identifier: &str) -> Result<Field, QueryError> {
    traceql::field(identifier).map_err(|error| QueryError::TagName(error.to_string()))
}

/// What `q` of the tag endpoints restricts spans to: its complete conditions; `None` if it has none that count.
pub(super) fn filter(_text: &str) -> Result<Option<Expression>, QueryError> {
    absent()
}

/// The value that `q` of the tag endpoints requires of a field, if it does.
pub(super) fn pinned(_text: &str, _field: &Field) -> Option<Value> {
    None
}

pub(super) fn search(
    _query: &Query,
    _request: &SearchRequest,
    _source: &dyn Source,
    _control: &Control,
    _progress: &mut dyn FnMut(&SearchAnswer),
) -> Result<SearchAnswer, QueryError> {
    absent()
}

pub(super) fn range(
    _query: &Query,
    _request: &RangeRequest,
    _source: &dyn Source,
    _control: &Control,
) -> Result<MetricsAnswer, QueryError> {
    absent()
}

pub(super) fn instant(
    _query: &Query,
    _request: &InstantRequest,
    _source: &dyn Source,
    _control: &Control,
) -> Result<MetricsAnswer, QueryError> {
    absent()
}

pub(super) fn tag_names(
    _source: &dyn Source,
    _scope: Option<Scope>,
    _filter: Option<&Expression>,
    _request: &TagsRequest,
    _control: &Control,
) -> Result<TagsAnswer, QueryError> {
    absent()
}

pub(super) fn tag_values(
    _source: &dyn Source,
    _field: &Field,
    _filter: Option<&Expression>,
    _request: &TagsRequest,
    _control: &Control,
) -> Result<ValuesAnswer, QueryError> {
    absent()
}
