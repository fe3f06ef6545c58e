//! One trace as everything there is: what a filter takes of it.

use std::sync::Arc;

use bytes::Bytes;

use super::build::{Builder, InMemory, Pushed};
use crate::otlp::TraceId;
use crate::traceql::segment::{Piece, Segment, SegmentError, SegmentId, Source};

/// A trace that lies nowhere else, in as many segments as its spans fill.
pub struct Alone {
    segments: Vec<Arc<InMemory>>,
}

impl Alone {
    /// Of a request with spans of one trace. Takes several times its bytes while it lives.
    #[must_use]
    pub fn new(request: Bytes) -> Self {
        let mut builder = Builder::of_any_width();
        let mut segments = Vec::new();
        let mut from = 0;
        loop {
            let pushed = builder.push(request.clone(), from);
            let id = SegmentId(segments.len() as u64, 0);
            segments.push(Arc::new(InMemory { id, built: builder.finish() }));
            match pushed {
                // A builder that is empty takes some: this ends.
                Pushed::Full { next } if next > from => from = next,
                Pushed::Full { .. } | Pushed::Whole => return Self { segments },
            }
        }
    }
}

impl Source for Alone {
    fn segments(&self, _start: u64, _end: u64) -> Vec<Arc<dyn Segment>> {
        let mut segments = self.segments.clone();
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.times().max_start));
        segments.into_iter().map(|segment| segment as Arc<dyn Segment>).collect()
    }

    fn pieces(&self, _trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        let piece = |segment: &Arc<InMemory>| Piece { segment: Arc::clone(segment) as Arc<dyn Segment>, trace: 0 };
        Ok(self.segments.iter().map(piece).collect())
    }

    fn may_be_split(&self, _segment: &dyn Segment, _trace: usize) -> bool {
        self.segments.len() > 1
    }

    fn whole_since(&self) -> u64 {
        0
    }
}
