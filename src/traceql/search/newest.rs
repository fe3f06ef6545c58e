//! The newest traces so far.
//!
//! There may be hundreds of thousands of them, so of each only its place is kept; what goes for a whole segment stands once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::otlp::TraceId;
use crate::traceql::reader::{KeptMask, MaskNumber, Reader, Scan};
use crate::traceql::segment::Segment;

/// Up to a number of traces: the latest by start, of equal starts those with the smallest ids.
pub struct Newest {
    limit: usize,
    floor: u64,
    /// The first is the one that goes next.
    found: BTreeMap<(u64, Reverse<TraceId>), Place>,
    segments: Vec<Looked>,
}

#[derive(Clone, Copy)]
struct Place {
    /// Index in [`Newest::segments`].
    segment: u32,
    /// Index in the segment's [`Traces`](crate::traceql::segment::Traces).
    trace: u32,
}

/// A segment, and what was found out about it.
struct Looked {
    segment: Arc<dyn Segment>,
    masks: Vec<(MaskNumber, Arc<KeptMask>)>,
    /// Traces here that are among the newest.
    traces: usize,
}

/// Where a piece of a trace is, and what was found out about the segment.
pub struct Candidate<'a> {
    looked: &'a Looked,
    pub trace: usize,
}

impl Candidate<'_> {
    pub fn segment(&self) -> &Arc<dyn Segment> {
        &self.looked.segment
    }

    /// A reader of the segment that need not find out again which rows the filters take.
    pub fn reader(&self, scan: &Scan<'_>) -> Rc<Reader> {
        let reader = scan.reader(&self.looked.segment);
        reader.remember(self.looked.masks.iter().cloned());
        reader
    }
}

impl Newest {
    /// None that starts before `floor` is wanted.
    pub fn new(limit: usize, floor: u64) -> Self {
        Self { limit, floor, found: BTreeMap::new(), segments: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// What starts before this does not count any more.
    pub fn floor(&self) -> u64 {
        match self.found.first_key_value() {
            Some(((start, _), _)) if self.found.len() >= self.limit => self.floor.max(*start),
            _ => self.floor,
        }
    }

    /// The segment that what is offered next lies in.
    pub fn enter(&mut self, segment: &Arc<dyn Segment>) {
        self.segments.push(Looked { segment: Arc::clone(segment), masks: Vec::new(), traces: 0 });
    }

    /// What was found out about the segment that was entered, if details of its traces are to know it.
    pub fn remember(&mut self, masks: Vec<(MaskNumber, Arc<KeptMask>)>) {
        if let Some(last) = self.segments.last_mut().filter(|last| last.traces > 0) {
            last.masks = masks;
        }
    }

    /// A trace of the segment that was entered.
    pub fn offer(&mut self, start: u64, id: TraceId, trace: usize) {
        let segment = self.segments.len().saturating_sub(1) as u32;
        self.put(start, id, Place { segment, trace: trace as u32 });
    }

    fn put(&mut self, start: u64, id: TraceId, place: Place) {
        if start < self.floor() {
            return;
        }
        let mut is_new = false;
        self.found.entry((start, Reverse(id))).or_insert_with(|| {
            is_new = true;
            place
        });
        if is_new && let Some(looked) = self.segments.get_mut(place.segment as usize) {
            looked.traces += 1;
        }
        if self.found.len() > self.limit
            && let Some((_, gone)) = self.found.pop_first()
            && let Some(looked) = self.segments.get_mut(gone.segment as usize)
        {
            looked.traces -= 1;
            if looked.traces == 0 {
                looked.masks = Vec::new();
            }
        }
    }

    pub fn merge(&mut self, other: Self) {
        let first = self.segments.len() as u32;
        self.segments.extend(other.segments.into_iter().map(|looked| Looked { traces: 0, ..looked }));
        for ((start, Reverse(id)), place) in other.found {
            self.put(start, id, Place { segment: first + place.segment, ..place });
        }
        while self.segments.last().is_some_and(|last| last.traces == 0) {
            self.segments.pop();
        }
    }

    /// From the latest on.
    pub fn latest_first(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.found.values().rev().filter_map(|place| {
            let looked = self.segments.get(place.segment as usize)?;
            Some(Candidate { looked, trace: place.trace as usize })
        })
    }
}
