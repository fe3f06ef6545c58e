//! A group as search sees it.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use foldhash::HashMap;

use super::group::{Group, Resident};
use super::{Shared, lock};
use crate::spool::Seq;
use crate::store::build::{self, Place, TakesBytes};
use crate::traceql::ast::{Field, Scope};
use crate::traceql::column::{Cell, Codes};
use crate::traceql::segment::{Column, Ids, Parent, Segment, SegmentError, SegmentId, Times, Traces};

pub(super) struct TailSegment {
    shared: Arc<Shared>,
    group: Arc<Group>,
    raw: Arc<RawBatches>,
}

/// Inflated batches that one query took span bytes from. They go with the query.
#[derive(Default)]
pub(super) struct RawBatches {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    batches: HashMap<Seq, Bytes>,
    bytes: usize,
}

/// A query reads a segment's spans in the order of their traces, so it comes back to all batches of a group again and
/// again: enough for two groups, one for each thread that a query is likely to have.
const KEPT_BYTES_MAX: usize = 4 << 20;

impl TailSegment {
    pub fn new(shared: Arc<Shared>, group: Arc<Group>, raw: Arc<RawBatches>) -> Self {
        Self { shared, group, raw }
    }

    fn resident(&self) -> Result<Arc<Resident>, SegmentError> {
        let (resident, fresh) = self.group.resident(&self.shared)?;
        if fresh {
            let groups = lock(&self.shared.state).plan.groups();
            self.shared.trim(&groups);
        }
        Ok(resident)
    }

    /// The inflated batch that a row's span lies in.
    fn raw(&self, seq: Seq) -> Result<Bytes, SegmentError> {
        if let Some(batch) = lock(&self.raw.kept).batches.get(&seq) {
            return Ok(batch.clone());
        }
        let batch = self.shared.inflated(seq).map_err(|error| SegmentError::Read(error.to_string()))?;
        let batch = batch.ok_or(SegmentError::Gone)?;
        let mut kept = lock(&self.raw.kept);
        if kept.bytes + batch.len() > KEPT_BYTES_MAX {
            *kept = Kept::default();
        }
        kept.bytes += batch.len();
        kept.batches.insert(seq, batch.clone());
        Ok(batch)
    }

    fn cell_in_span(&self, resident: &Resident, field: &Field, row: usize) -> Result<Option<Cell>, SegmentError> {
        let Some(place) = resident.places.get(row) else { return Ok(None) };
        let Some(seq) = resident.batches.get(place.batch as usize) else { return Ok(None) };
        let batch = self.raw(*seq)?;
        Ok(build::cell(field, build::bytes_at(&[batch], Place { batch: 0, ..*place })))
    }
}

impl Segment for TailSegment {
    fn id(&self) -> SegmentId {
        self.group.id()
    }

    fn rows(&self) -> usize {
        match self.group.facts() {
            Some(facts) => facts.rows,
            None => self.resident().map_or(0, |resident| resident.index.rows()),
        }
    }

    fn times(&self) -> Times {
        self.group.times()
    }

    fn stored_bytes(&self) -> u64 {
        self.group.extent.raw_bytes
    }

    fn traces(&self) -> Result<Arc<Traces>, SegmentError> {
        Ok(Arc::clone(&self.resident()?.index.traces))
    }

    fn starts(&self) -> Result<Arc<[u64]>, SegmentError> {
        Ok(Arc::clone(&self.resident()?.index.starts))
    }

    fn durations(&self) -> Result<Arc<[u64]>, SegmentError> {
        Ok(Arc::clone(&self.resident()?.index.durations))
    }

    fn parents(&self) -> Result<Arc<[Parent]>, SegmentError> {
        Ok(Arc::clone(&self.resident()?.index.parents))
    }

    fn column(&self, field: &Field) -> Result<Column, SegmentError> {
        Ok(self.resident()?.index.column(field))
    }

    fn codes(&self, field: &Field) -> Result<Codes, SegmentError> {
        Ok(self.resident()?.index.codes(field))
    }

    fn cell(&self, field: &Field, row: usize) -> Result<Option<Cell>, SegmentError> {
        let resident = self.resident()?;
        match resident.index.cell(field, row) {
            Ok(cell) => Ok(cell),
            Err(TakesBytes) => self.cell_in_span(&resident, field, row),
        }
    }

    fn span_ids(&self, rows: Range<usize>) -> Result<Vec<Ids>, SegmentError> {
        Ok(self.resident()?.index.ids(rows))
    }

    fn names(&self, scope: Scope) -> Result<Arc<[Arc<str>]>, SegmentError> {
        Ok(self.resident()?.index.names.of(scope))
    }
}
