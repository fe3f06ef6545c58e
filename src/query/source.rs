//! Where traces come from, as this room sees it.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::arrivals::{Arrivals, Look};
use crate::otlp::TraceId;
use crate::store::assemble::{AssembleLimits, Completeness};
use crate::traceql::control::{Control, Stopped};
use crate::traceql::segment::Source;

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

    /// How much has been stored up to now. Quick. Where nothing is ever added, the default will do.
    fn stored(&self) -> Mark {
        Mark::default()
    }

    /// Hands over the requests of batches that arrived, as many of them as are looked at in one go, oldest first. May block on
    /// the disk.
    ///
    /// # Errors
    /// The disk or what lies on it cannot be read, the source keeps no order of arrival, or the query is to end.
    fn arrivals(
        &self,
        _look: &Look,
        _control: &Control,
        _each: &mut dyn FnMut(&[u8]) -> Result<(), Stopped>,
    ) -> Result<Arrivals, SourceError> {
        Err(SourceError::Read("they are not kept in the order of their arrival".to_owned()))
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
    /// The query was to end.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}
