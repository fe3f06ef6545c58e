//! Search over what was built: [`Index`] answers for its rows, [`InMemory`] is a whole segment.

use std::ops::Range;
use std::sync::Arc;

use super::{Built, Index};
use crate::traceql::ast::{Field, Scope};
use crate::traceql::column::{Cell, Codes, Entry};
use crate::traceql::segment::{Column, Ids, Parent, Segment, SegmentError, SegmentId, Times, Traces};
use crate::traceql::value::Value;

/// A segment whose columns and span bytes are both in memory.
#[derive(Debug, Clone)]
pub struct InMemory {
    pub id: SegmentId,
    pub built: Built,
}

impl Index {
    #[must_use]
    pub fn column(&self, field: &Field) -> Column {
        self.columns.get(field).map_or(Column::Absent, |column| column.values.clone())
    }

    #[must_use]
    pub fn codes(&self, field: &Field) -> Codes {
        match self.columns.get(field) {
            Some(column) => column.codes.codes(&self.groups),
            None => Codes::Rows(Arc::default()),
        }
    }

    /// The value of one row; `Err` if it takes the bytes of the row's span to know it.
    pub fn cell(&self, field: &Field, row: usize) -> Result<Option<Cell>, TakesBytes> {
        let Some(column) = self.columns.get(field) else { return Ok(None) };
        match &column.values {
            Column::Absent => Ok(None),
            Column::Unlisted { sketches } => match sketches.get(row) {
                None | Some(0) => Ok(None),
                Some(_) => Err(TakesBytes),
            },
            Column::Listed(dictionary) => {
                let code = column.codes.get(row, &self.groups);
                Ok(dictionary.get(code).map(|entry| match entry {
                    Entry::String(string) => Cell::One(Value::String(string.into())),
                    Entry::Int(int) => Cell::One(Value::Int(int)),
                    Entry::Other(cell) => cell.clone(),
                }))
            }
        }
    }

    #[must_use]
    pub fn ids(&self, rows: Range<usize>) -> Vec<Ids> {
        self.ids.get(rows.start..rows.end.min(self.ids.len())).unwrap_or_default().to_vec()
    }
}

/// A value is only in the bytes of its span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakesBytes;

impl Segment for InMemory {
    fn id(&self) -> SegmentId {
        self.id
    }

    fn rows(&self) -> usize {
        self.built.index.rows()
    }

    fn times(&self) -> Times {
        self.built.index.times
    }

    fn stored_bytes(&self) -> u64 {
        self.built.spans.batches.iter().map(|batch| batch.len() as u64).sum()
    }

    fn traces(&self) -> Result<Arc<Traces>, SegmentError> {
        Ok(Arc::clone(&self.built.index.traces))
    }

    fn starts(&self) -> Result<Arc<[u64]>, SegmentError> {
        Ok(Arc::clone(&self.built.index.starts))
    }

    fn durations(&self) -> Result<Arc<[u64]>, SegmentError> {
        Ok(Arc::clone(&self.built.index.durations))
    }

    fn parents(&self) -> Result<Arc<[Parent]>, SegmentError> {
        Ok(Arc::clone(&self.built.index.parents))
    }

    fn column(&self, field: &Field) -> Result<Column, SegmentError> {
        Ok(self.built.index.column(field))
    }

    fn codes(&self, field: &Field) -> Result<Codes, SegmentError> {
        Ok(self.built.index.codes(field))
    }

    fn cell(&self, field: &Field, row: usize) -> Result<Option<Cell>, SegmentError> {
        let index = &self.built.index;
        Ok(index.cell(field, row).unwrap_or_else(|TakesBytes| super::cell(field, self.built.spans.bytes(row))))
    }

    fn span_ids(&self, rows: Range<usize>) -> Result<Vec<Ids>, SegmentError> {
        Ok(self.built.index.ids(rows))
    }

    fn names(&self, scope: Scope) -> Result<Arc<[Arc<str>]>, SegmentError> {
        Ok(self.built.index.names.of(scope))
    }
}
