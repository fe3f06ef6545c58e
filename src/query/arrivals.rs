//! What came lately, for those who follow: `spanreel tail` and the live view.
//!
//! ```text
//! batches between two marks, as many as are read in one go ─▶ their traces, their spans ─▶ a search for these, where they lie
//! ```
//!
//! The search is one over everything, in which nothing else is found: so that a trace is known as a whole whenever its
//! pieces came, and what was sealed meanwhile is found as well.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::otlp::view::for_each_span;
use crate::otlp::wire::Fields;
use crate::otlp::{SpanId, TraceId};
use crate::traceql::control::{Control, Stopped};
use crate::traceql::mask::Mask;
use crate::traceql::segment::{Fingerprints, Piece, Segment, SegmentError, Source};

/// What is booked for a span that came.
const SPAN_BYTES: usize = 64;
/// What is booked for a trace of which spans came.
const TRACE_BYTES: usize = 16;

/// Which arrivals are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// By number.
    pub batches: Range<u64>,
    pub order: Order,
    /// One look ends with the batch that has this many spans together.
    pub spans_wanted: u64,
}

/// What a look ends with that does not get to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The oldest batches are looked at; the next look goes on behind them.
    InOrder,
    /// The newest are; those before are left out.
    NewestFirst,
}

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arrivals {
    /// A part of what was asked for; all of it that is still there, if that is not too much.
    pub batches: Range<u64>,
    /// Spans in them.
    pub spans: u64,
    /// Batches among them that went before they were read.
    pub gone: u64,
}

/// The traces that got spans, and these spans where somebody wants to know.
#[derive(Default)]
pub(super) struct Came {
    pub traces: Fingerprints,
    pub spans: Option<HashSet<(TraceId, SpanId)>>,
}

impl Came {
    /// Also remembers which spans.
    pub fn with_spans() -> Self {
        Self { traces: Fingerprints::default(), spans: Some(HashSet::new()) }
    }

    /// Takes up what a batch holds.
    pub fn take(&mut self, request: &[u8], control: &Control) -> Result<(), Stopped> {
        let (traces_before, spans_before) = (self.traces.len(), self.spans());
        for_each_span(request, |_, _, span| {
            let (mut trace, mut id) = (None, None);
            for field in Fields::new(span).map_while(Result::ok) {
                trace = trace.or_else(|| TraceId::from_wire(field.bytes(1)?));
                id = id.or_else(|| SpanId::from_wire(field.bytes(2)?));
                if trace.is_some() && id.is_some() {
                    break;
                }
            }
            let Some(trace) = trace else { return };
            self.traces.insert(trace.fingerprint());
            if let (Some(spans), Some(id)) = (&mut self.spans, id) {
                spans.insert((trace, id));
            }
        });
        let new = (self.traces.len() - traces_before, self.spans() - spans_before);
        control.reserve(new.0 * TRACE_BYTES + new.1 * SPAN_BYTES)
    }

    fn spans(&self) -> usize {
        self.spans.as_ref().map_or(0, HashSet::len)
    }
}

/// Everything, of which only the traces that got spans lately are found, where those lie.
pub(super) struct Newcomers<'a> {
    pub all: &'a dyn Source,
    /// The first batch of what is new.
    pub first: u64,
    pub came: Came,
}

impl Source for Newcomers<'_> {
    fn segments(&self, start: u64, end: u64) -> Vec<Arc<dyn Segment>> {
        let mut segments = self.all.segments(start, end);
        // A segment holds the batches from its number up to that of the next.
        let holds_first = segments.iter().map(|segment| segment.id().0).filter(|number| *number <= self.first).max();
        segments.retain(|segment| segment.id().0 > self.first || Some(segment.id().0) == holds_first);
        segments
    }

    fn pieces(&self, trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        self.all.pieces(trace)
    }

    fn may_be_split(&self, segment: &dyn Segment, trace: usize) -> bool {
        self.all.may_be_split(segment, trace)
    }

    fn split_traces(&self, segment: &dyn Segment) -> Option<Mask> {
        self.all.split_traces(segment)
    }

    fn whole_since(&self) -> u64 {
        self.all.whole_since()
    }

    fn is_part(&self) -> bool {
        true
    }

    fn only(&self) -> Option<&Fingerprints> {
        Some(&self.came.traces)
    }

    fn shows(&self, trace: TraceId, span: SpanId) -> bool {
        self.came.spans.as_ref().is_none_or(|spans| spans.contains(&(trace, span)))
    }
}
