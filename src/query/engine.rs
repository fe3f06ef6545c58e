//! The one place where this room meets the language: texts become trees, trees are run, errors get this room's form.

use super::error::QueryError;
use super::source::SourceError;
use crate::traceql::answer::{Inspected, MetricsAnswer, SearchAnswer, TagsAnswer, ValuesAnswer};
use crate::traceql::ast::{Expression, Field, Query, Scope};
use crate::traceql::control::Control;
use crate::traceql::request::{InstantRequest, RangeRequest, SearchRequest, TagsRequest};
use crate::traceql::search::Listener;
use crate::traceql::segment::{SegmentError, Source};
use crate::traceql::value::Value;
use crate::traceql::{self, metrics, tags};

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

/// Parses and validates.
pub(super) fn read(text: &str) -> Result<Query, QueryError> {
    Ok(traceql::read(text)?)
}

/// The field that an identifier of the tag endpoints names.
pub(super) fn field(identifier: &str) -> Result<Field, QueryError> {
    traceql::field(identifier).map_err(|error| QueryError::TagName(error.to_string()))
}

/// What `q` of the tag endpoints restricts spans to: its complete conditions; `None` if it has none that count.
pub(super) fn filter(text: &str) -> Result<Option<Expression>, QueryError> {
    traceql::lenient(text).map_err(|error| QueryError::Filter(error.to_string()))
}

/// The values that a filter leaves a field, if it names them.
pub(super) fn pinned(filter: &Expression, field: &Field) -> Option<Vec<Value>> {
    Some(traceql::pinned(filter, field)?.into_iter().cloned().collect())
}

pub(super) fn search(
    query: &Query,
    request: &SearchRequest,
    source: &dyn Source,
    control: &Control,
    listener: &mut dyn Listener,
) -> Result<SearchAnswer, QueryError> {
    Ok(traceql::search::run(query, request, source, control, listener)?)
}

/// The traces go to the listener, the newest first.
pub(super) fn search_each(
    query: &Query,
    request: &SearchRequest,
    source: &dyn Source,
    control: &Control,
    listener: &mut dyn Listener,
) -> Result<Inspected, QueryError> {
    Ok(traceql::search::each(query, request, source, control, listener)?)
}

/// The whole answer at once: what a part of the data says of a quantile or of the largest series would be taken back.
pub(super) fn range(
    query: &Query,
    request: &RangeRequest,
    source: &dyn Source,
    control: &Control,
) -> Result<MetricsAnswer, QueryError> {
    control.again(|| Ok(metrics::range(query, request, source, control, &mut |_| {})?), QueryError::is_busy)
}

pub(super) fn instant(
    query: &Query,
    request: &InstantRequest,
    source: &dyn Source,
    control: &Control,
) -> Result<MetricsAnswer, QueryError> {
    control.again(|| Ok(metrics::instant(query, request, source, control, &mut |_| {})?), QueryError::is_busy)
}

pub(super) fn tag_names(
    source: &dyn Source,
    scope: Option<Scope>,
    filter: Option<&Expression>,
    request: &TagsRequest,
    control: &Control,
) -> Result<TagsAnswer, QueryError> {
    Ok(tags::names(source, scope, filter, request, control)?)
}

pub(super) fn tag_values(
    source: &dyn Source,
    field: &Field,
    filter: Option<&Expression>,
    request: &TagsRequest,
    control: &Control,
) -> Result<ValuesAnswer, QueryError> {
    Ok(tags::values(source, field, filter, request, control)?)
}
