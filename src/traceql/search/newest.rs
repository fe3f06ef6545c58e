//! The newest traces so far.

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
    found: BTreeMap<(u64, Reverse<TraceId>), Candidate>,
}

/// Where a piece of a trace is, and what was found out about the segment.
pub struct Candidate {
    pub segment: Arc<dyn Segment>,
    pub trace: usize,
    pub masks: Vec<(MaskNumber, Arc<KeptMask>)>,
}

impl Candidate {
    /// A reader of the segment that need not find out again which rows the filters take.
    pub fn reader(&self, scan: &Scan<'_>) -> Rc<Reader> {
        let reader = scan.reader(&self.segment);
        reader.remember(self.masks.iter().cloned());
        reader
    }
}

impl Newest {
    /// None that starts before `floor` is wanted.
    pub fn new(limit: usize, floor: u64) -> Self {
        Self { limit, floor, found: BTreeMap::new() }
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

    pub fn offer(&mut self, start: u64, id: TraceId, candidate: impl FnOnce() -> Candidate) {
        if start < self.floor() {
            return;
        }
        self.found.entry((start, Reverse(id))).or_insert_with(candidate);
        if self.found.len() > self.limit {
            self.found.pop_first();
        }
    }

    pub fn merge(&mut self, other: Self) {
        for ((start, Reverse(id)), candidate) in other.found {
            self.offer(start, id, || candidate);
        }
    }

    pub fn by_segment(&self) -> Vec<&Candidate> {
        let mut candidates: Vec<&Candidate> = self.found.values().collect();
        candidates.sort_by_key(|candidate| (candidate.segment.id(), candidate.trace));
        candidates
    }
}
