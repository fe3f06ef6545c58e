//! Answers as Tempo writes them, in JSON and in protobuf.
//!
//! The JSON is jsonpb's: members in the order of the proto, zero scalars left out, 64-bit numbers as strings. Only members
//! that Tempo had in May 2025 are written: Grafana decodes searches strictly, and one unknown key fails the whole query.

pub(super) mod json;
pub(super) mod protobuf;
mod search;
mod value;

pub(super) use search::Written;

use std::sync::Arc;

use super::call::Origin;
use crate::traceql::answer::{FoundTrace, Inspected, TagsAnswer};

/// What stands for the service of a trace whose root has not come.
pub(super) const NO_ROOT_YET: &str = "<root span not yet received>";

/// The answer of a tag endpoint, before it has a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tags {
    /// Name of the scope, names of tags.
    pub scopes: Vec<(&'static str, Vec<Arc<str>>)>,
    pub inspected_bytes: u64,
}

impl From<TagsAnswer> for Tags {
    fn from(answer: TagsAnswer) -> Self {
        Self { scopes: answer.scopes, inspected_bytes: answer.inspected_bytes }
    }
}

impl Tags {
    /// For the first version: every name once, sorted.
    fn distinct(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.scopes.iter().flat_map(|(_, names)| names).map(|name| &**name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A trace with what is shown of it.
#[derive(Clone, Copy)]
struct Shown<'a> {
    trace: &'a FoundTrace,
    origin: Origin,
}

impl Shown<'_> {
    /// Empty for a root that has no service's name: it is there.
    fn service(&self) -> &str {
        self.trace.root.as_ref().map_or(NO_ROOT_YET, |root| &root.service)
    }

    fn name(&self) -> &str {
        self.trace.root.as_ref().map_or("", |root| &root.name)
    }

    fn duration_ms(&self) -> u32 {
        u32::try_from(self.trace.duration / 1_000_000).unwrap_or(u32::MAX)
    }

    fn spansets(&self) -> &[crate::traceql::answer::FoundSpanset] {
        match self.origin {
            Origin::TraceQl => &self.trace.spansets,
            Origin::Tags => &[],
        }
    }
}

/// `tempopb.SearchMetrics`; a segment counts as a block and as a job.
struct Metrics {
    traces: u32,
    bytes: u64,
    blocks: u32,
    done: u32,
    spans: u64,
}

impl From<&Inspected> for Metrics {
    fn from(inspected: &Inspected) -> Self {
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            traces: narrow(inspected.traces),
            bytes: inspected.bytes,
            blocks: narrow(inspected.segments),
            done: narrow(inspected.segments_done),
            spans: inspected.spans,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
