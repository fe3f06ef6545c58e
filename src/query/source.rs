//! Where traces come from, as this room sees it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::otlp::TraceId;
use crate::store::assemble::{AssembleLimits, Completeness};
use crate::traceql::segment::{Fingerprints, Segment, Source};

/// Finds traces by id. The store implements it.
pub trait TraceSource: Send + Sync + 'static {
    /// Everything that was acknowledged of a trace; no fragments if there is no such trace. May block on the disk: it is
    /// called on a thread made for that. It may stop reading, and say so, once it holds more than the limits allow.
    ///
    /// # Errors
    /// The disk or what lies on it cannot be read.
    fn trace(&self, id: TraceId, limits: &AssembleLimits) -> Result<FoundTrace, SourceError>;
}

/// Spans that can be searched. The store implements it.
pub trait SpanSource: TraceSource {
    /// Everything acknowledged up to now. May block on the disk.
    ///
    /// # Errors
    /// The disk or what lies on it cannot be read.
    fn searchable(&self) -> Result<Arc<dyn Source>, SourceError>;

    /// What arrived in the batches numbered `from` and on: as many of them as are looked at in one go. Without `from`
    /// nothing but which batches there are. May block on the disk.
    ///
    /// # Errors
    /// The disk or what lies on it cannot be read, or the source keeps no order of arrival.
    fn arrivals(&self, _from: Option<u64>) -> Result<Arrivals, SourceError> {
        Err(SourceError::Read("they are not kept in the order of their arrival".to_owned()))
    }

    /// How much has been stored up to now. Quick. Where nothing is ever added, the default will do.
    fn stored(&self) -> Mark {
        Mark::default()
    }

    /// Which traces got spans between two moments. May block on the disk.
    ///
    /// # Errors
    /// The disk cannot be read.
    fn arrived(&self, from: Mark, _until: Mark) -> Result<Arrived, SourceError> {
        Ok(Arrived { first: from.next, ..Arrived::default() })
    }
}

/// A moment in the life of a [`SpanSource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The number of the batch that is stored next; [`crate::traceql::segment::SegmentId`]s count in the same.
    pub next: u64,
    /// Spans stored before it, ever.
    pub spans: u64,
}

/// Spans as they came.
#[derive(Clone, Default)]
pub struct Arrivals {
    /// The batches that are looked at; the next look begins at the end.
    pub batches: Range<u64>,
    /// Batches that went before they were looked at.
    pub missed: u64,
    /// What is in the batches, and nothing else. Their ids are no other segment's.
    pub segments: Vec<Arc<dyn Segment>>,
}

/// What came between two moments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arrived {
    /// The first batch that was looked at.
    pub first: u64,
    pub traces: Fingerprints,
    /// Spans that were stored meanwhile and not looked at: too many came.
    pub skipped_spans: u64,
}

/// What a [`TraceSource`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTrace {
    /// `ExportTraceServiceRequest`s that hold spans of this trace and no others, in the order they were received.
    pub fragments: Vec<Bytes>,
    pub completeness: Completeness,
    /// How much was read to find them, before decompression or after, as the store counts it.
    pub inspected_bytes: u64,
}

/// A trace could not be looked for.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The text says what the disk said.
    #[error("stored traces cannot be read: {0}")]
    Read(String),
    #[error("Spanreel is stopping")]
    Stopping,
}
