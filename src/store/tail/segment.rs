//! A group as search sees it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::group::{Group, Resident};
use super::{Shared, lock};
use crate::store::build::{self, TakesBytes};
use crate::traceql::ast::{Field, Scope};
use crate::traceql::column::{Cell, Codes};
use crate::traceql::segment::{Column, Ids, Parent, Segment, SegmentError, SegmentId, Times, Traces};

pub(super) struct TailSegment {
    shared: Arc<Shared>,
    group: Arc<Group>,
    raw: Arc<RawBatches>,
}

/// Inflated batches of the groups that one query last took span bytes from. They go with the query.
#[derive(Default)]
pub(super) struct RawBatches {
    groups: Mutex<VecDeque<(SegmentId, Arc<[Bytes]>)>>,
}

/// One for each thread that a query is likely to have.
const RAW_GROUPS_MAX: usize = 2;

impl TailSegment {
    pub fn new(shared: Arc<Shared>, group: Arc<Group>, raw: Arc<RawBatches>) -> Self {
        Self { shared, group, raw }
    }

    fn resident(&self) -> Result<Arc<Resident>, SegmentError> {
        let (resident, fresh) = self.group.resident(&self.shared)?;
        if fresh {
            self.shared.trim();
        }
        Ok(resident)
    }

    fn raw(&self, resident: &Resident) -> Result<Arc<[Bytes]>, SegmentError> {
        let id = self.group.id();
        let mut groups = lock(&self.raw.groups);
        if let Some((_, batches)) = groups.iter().find(|(other, _)| *other == id) {
            return Ok(Arc::clone(batches));
        }
        let batches = resident.batches.iter().map(|seq| {
            let batch = self.shared.inflated(*seq).map_err(|error| SegmentError::Read(error.to_string()))?;
            batch.ok_or(SegmentError::Gone)
        });
        let batches: Arc<[Bytes]> = batches.collect::<Result<Vec<_>, _>>()?.into();
        groups.push_front((id, Arc::clone(&batches)));
        groups.truncate(RAW_GROUPS_MAX);
        Ok(batches)
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
            Err(TakesBytes) => {
                let raw = self.raw(&resident)?;
                let span = resident.places.get(row).map_or(&[][..], |place| build::bytes_at(&raw, *place));
                Ok(build::cell(field, span))
            }
        }
    }

    fn span_ids(&self, rows: Range<usize>) -> Result<Vec<Ids>, SegmentError> {
        Ok(self.resident()?.index.ids(rows))
    }

    fn names(&self, scope: Scope) -> Result<Arc<[Arc<str>]>, SegmentError> {
        Ok(self.resident()?.index.names.of(scope))
    }
}
