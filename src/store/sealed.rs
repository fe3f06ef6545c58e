//! What the store asks of sealed runs.

use std::sync::Arc;

use bytes::Bytes;

use crate::otlp::TraceId;
use crate::query::SourceError;
use crate::spool::Seq;
use crate::traceql::mask::Mask;
use crate::traceql::segment::{Piece, Segment, SegmentError};

/// Sealed runs.
pub trait Sealed: Send + Sync + 'static {
    /// The runs as they stand now. Quick.
    fn view(&self) -> Arc<dyn SealedView>;
}

/// Sealed runs as they stood at one moment: what is sealed later is not in it.
pub trait SealedView: Send + Sync {
    /// The first batch that is in no run: from here on the spool has the spans.
    fn sealed_to(&self) -> Seq;

    /// The segments that may hold spans starting within `[start, end]`, in any order. Their ids
    /// ([`crate::traceql::segment::SegmentId`]) begin with a batch below [`SealedView::sealed_to`].
    fn segments(&self, start: u64, end: u64) -> Vec<Arc<dyn Segment>>;

    /// Since when all that was received is in runs or behind [`SealedView::sealed_to`], Unix nanoseconds; `None`: there is no run
    /// yet.
    fn whole_since(&self) -> Option<u64>;

    /// All pieces of a trace in runs, oldest first.
    ///
    /// # Errors
    /// The disk could not be read.
    fn pieces(&self, trace: TraceId) -> Result<Vec<Piece>, SegmentError>;

    /// Whether any run may hold spans of a trace of which a piece lasted from `start` to `end` (Unix nanoseconds): one of the
    /// latest, or an older one with spans of that time. Quick, and not falsely `false` but for traces of which pieces are as far
    /// apart as those are that runs do not find to belong together either.
    fn may_hold(&self, trace: TraceId, start: u64, end: u64) -> bool;

    /// Whether a trace of one of these segments may have pieces in other runs. Quick, and never falsely `false`.
    fn may_be_split(&self, segment: &dyn Segment, trace: usize) -> bool;

    /// The indices of all traces of a segment for which it may.
    fn split_traces(&self, segment: &dyn Segment, traces: usize) -> Mask;

    /// The spans of a trace in runs, oldest first: requests that hold no other spans. It stops at about `bytes_max`, and says
    /// so.
    ///
    /// # Errors
    /// The disk could not be read.
    fn fragments(&self, trace: TraceId, bytes_max: usize) -> Result<Fragments, SourceError>;
}

/// Spans of one trace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragments {
    pub requests: Vec<Bytes>,
    /// There are more spans than were asked for.
    pub is_cut: bool,
    /// How much was read to find them.
    pub inspected_bytes: u64,
}

/// No run was ever sealed.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingSealed;

impl Sealed for NothingSealed {
    fn view(&self) -> Arc<dyn SealedView> {
        Arc::new(Self)
    }
}

impl SealedView for NothingSealed {
    fn sealed_to(&self) -> Seq {
        Seq::FIRST
    }

    fn segments(&self, _start: u64, _end: u64) -> Vec<Arc<dyn Segment>> {
        Vec::new()
    }

    fn whole_since(&self) -> Option<u64> {
        None
    }

    fn pieces(&self, _trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        Ok(Vec::new())
    }

    fn may_hold(&self, _trace: TraceId, _start: u64, _end: u64) -> bool {
        false
    }

    fn may_be_split(&self, _segment: &dyn Segment, _trace: usize) -> bool {
        false
    }

    fn split_traces(&self, _segment: &dyn Segment, traces: usize) -> Mask {
        Mask::none(traces)
    }

    fn fragments(&self, _trace: TraceId, _bytes_max: usize) -> Result<Fragments, SourceError> {
        Ok(Fragments::default())
    }
}
