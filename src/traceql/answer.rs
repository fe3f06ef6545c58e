//! What a query answers with, before anybody writes JSON or protobuf of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::value::Value;
use crate::otlp::{SpanId, TraceId};

/// The answer of a search, newest trace first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchAnswer {
    pub traces: Vec<FoundTrace>,
    pub inspected: Inspected,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inspected {
    pub traces: u64,
    pub spans: u64,
    pub bytes: u64,
    /// Segments in the range, and those that were done.
    pub segments: u64,
    pub segments_done: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FoundTrace {
    pub id: TraceId,
    /// Of the span without parent; `None` while it has not come.
    pub root: Option<RootSpan>,
    /// The earliest start, Unix nanoseconds.
    pub start: u64,
    /// From the earliest start to the latest end, nanoseconds.
    pub duration: u64,
    pub spansets: Vec<FoundSpanset>,
    /// By service name.
    pub services: BTreeMap<Arc<str>, ServiceStats>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootSpan {
    /// Empty where the resource has no `service.name`.
    pub service: Arc<str>,
    pub name: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceStats {
    pub spans: u32,
    pub errors: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FoundSpanset {
    /// The first of those that matched, by start time, then id.
    pub spans: Vec<FoundSpan>,
    /// How many matched.
    pub matched: u32,
    /// What `by()` and scalar filters put on the spanset, such as `count()`; a value of `None` is nil.
    pub attributes: Vec<(String, Option<Value>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FoundSpan {
    pub id: SpanId,
    /// Only if the query mentions the name.
    pub name: Option<Arc<str>>,
    pub start: u64,
    pub duration: u64,
    /// What conditions and `select()` named, without scope, and without what has a place of its own.
    pub attributes: Vec<(String, Value)>,
}

/// The answer of a metrics query.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetricsAnswer {
    pub series: Vec<Series>,
    pub inspected: Inspected,
    /// A limit cut the answer short: what to tell the user.
    pub partial: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// In the order of the query; a value of `None` is nil.
    pub labels: Vec<(String, Option<Value>)>,
    /// By time.
    pub samples: Vec<Sample>,
    pub exemplars: Vec<Exemplar>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Unix milliseconds.
    pub at_ms: i64,
    pub value: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    pub labels: Vec<(String, Option<Value>)>,
    pub at_ms: i64,
    pub value: f64,
}

/// Names of attributes and intrinsics, by scope.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagsAnswer {
    /// `span`, `resource`, ...; names sorted.
    pub scopes: Vec<(&'static str, Vec<Arc<str>>)>,
    pub inspected_bytes: u64,
}

/// Values of one attribute, sorted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ValuesAnswer {
    pub values: Vec<Value>,
    pub inspected_bytes: u64,
}
