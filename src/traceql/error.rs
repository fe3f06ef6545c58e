//! What can be wrong with a query, and what can go wrong while it runs.

use std::fmt;

use thiserror::Error;

use super::control::Stopped;
use super::segment::SegmentError;

/// Why a query has no answer.
#[derive(Debug, Clone, Error)]
pub enum QueryError {
    /// The text is no query.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It is one, but makes no sense or asks for what there is not.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Segment(SegmentError),
}

impl From<SegmentError> for QueryError {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Stopped(stopped) => Self::Stopped(stopped),
            other => Self::Segment(other),
        }
    }
}

/// A text that is no TraceQL. Shown as Tempo shows it, with the place always given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("parse error at line {line}, col {column}: {problem}")]
pub struct ParseError {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A token stands where none of its kind can.
    Unexpected {
        /// The token as written, or a word for its kind.
        found: String,
        /// What could stand there; empty where that would be a long list.
        expected: &'static [&'static str],
    },
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected { found, expected } => {
                write!(f, "syntax error: unexpected {found}")?;
                for (index, token) in expected.iter().enumerate() {
                    f.write_str(if index == 0 { ", expecting " } else { " or " })?;
                    f.write_str(token)?;
                }
                Ok(())
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// A query that can be parsed but not be run. The texts are Tempo's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    #[error("binary operations must operate on the same type: {0}")]
    DifferentTypes(String),
    #[error("illegal operation for the given types: {0}")]
    IllegalBinary(String),
    #[error("illegal operation for the given type: {0}")]
    IllegalUnary(String),
    #[error("span filter field expressions must resolve to a boolean: {0}")]
    FilterNotBoolean(String),
    #[error("grouping field expressions must reference the span: {0}")]
    GroupingWithoutSpan(String),
    #[error("aggregate field expressions must resolve to a number type: {0}")]
    AggregateNotNumber(String),
    #[error("aggregate field expressions must reference the span: {0}")]
    AggregateWithoutSpan(String),
    #[error("invalid regex: {0}")]
    Regex(String),
    #[error("invalid type for =~ or !~: {0}")]
    RegexType(String),
    #[error("{0}=nil is not valid because intrinsics cannot be nil")]
    IntrinsicNil(String),
    #[error("resource.service.name=nil is not valid because resource.service.name cannot be nil")]
    ServiceNameNil,
    #[error("quantile must be between 0 and 1: {0}")]
    Quantile(String),
    #[error("limit must be greater than 0")]
    Limit,
    #[error("`compare()` cannot be used with second stage functions")]
    CompareStaged,
    #[error("compare() top number of values must be an integer between 1 and {0}")]
    CompareTop(i64),
    #[error("compare() timestamps must be positive integer unix nanoseconds")]
    CompareTimes,
    #[error("compare() end timestamp must be greater than start timestamp")]
    CompareOrder,
    #[error("spanset operators are not supported for multiple spansets per trace. consider using coalesce()")]
    SeveralSpansets,
    /// Tempo has no such limit, and falls over instead.
    #[error("a query has at most {max} {what}; join alternatives into one, such as =~ \"a|b\"")]
    TooMany { max: usize, what: &'static str },
    /// The feature, in Tempo's words.
    #[error("{0} not yet supported")]
    Unsupported(String),
}

/// A filter of the tag endpoints has more alternatives than are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("maximum condition groups reached (limit: {0}). Reduce the number of OR conditions in the query")]
pub struct TooManyGroups(pub usize);
