//! What columns know of some rows, slice by slice.

use std::collections::BTreeMap;
use std::ops::Range;

use super::disk::{Caching, Problem};
use super::segment::RunSegment;
use crate::otlp::{SpanId, TraceId};
use crate::store::format::Known;
use crate::store::format::columns::{self, SliceIds, rows_of, slices_of};
use crate::store::format::key::Kind;
use crate::traceql::segment::{Ids, Parent};

/// Slices of one segment that were read.
pub(super) struct Slices<'s> {
    segment: &'s RunSegment,
    ids: BTreeMap<usize, IdsSlice>,
    times: BTreeMap<usize, TimesSlice>,
}

struct IdsSlice {
    first_row: usize,
    ids: SliceIds,
    parents: Vec<Parent>,
}

struct TimesSlice {
    first_row: usize,
    starts: Vec<u64>,
    durations: Vec<u64>,
}

impl<'s> Slices<'s> {
    pub fn new(segment: &'s RunSegment) -> Self {
        Self { segment, ids: BTreeMap::new(), times: BTreeMap::new() }
    }

    /// As [`Slices::read_parents`], where the parents of all rows of the segment are known.
    pub fn read_with(&mut self, rows: Range<usize>, parents: &[Parent]) -> Result<(), Problem> {
        for slice in slices_of(rows.clone()) {
            let of_slice = rows_of(slice, self.segment.record().rows as usize);
            let parents = parents.get(of_slice.clone()).ok_or(Problem::Missing)?.to_vec();
            let ids = self.ids_of(slice)?;
            self.ids.insert(slice, IdsSlice { first_row: of_slice.start, ids, parents });
        }
        self.read_parents(rows)
    }

    pub fn read_ids(&mut self, rows: Range<usize>) -> Result<(), Problem> {
        for slice in slices_of(rows.clone()) {
            if !self.ids.contains_key(&slice) {
                let read = self.ids_slice(slice)?;
                self.ids.insert(slice, read);
            }
        }
        Ok(())
    }

    /// Also the rows that are parents of these.
    pub fn read_parents(&mut self, rows: Range<usize>) -> Result<(), Problem> {
        self.read_ids(rows.clone())?;
        let elsewhere: Vec<usize> =
            slices_of(rows.clone()).flat_map(|slice| self.parents_elsewhere(slice, &rows)).collect();
        elsewhere.into_iter().try_for_each(|row| self.read_ids(row..row + 1))
    }

    /// The parents of those rows of a slice that are in another one.
    fn parents_elsewhere<'a>(&'a self, slice: usize, rows: &Range<usize>) -> impl Iterator<Item = usize> + use<'a> {
        let of_slice = rows_of(slice, rows.end);
        let rows = of_slice.start.max(rows.start)..of_slice.end;
        let parents = self.ids.get(&slice).map(|ids| (ids.first_row, ids.parents.as_slice()));
        let parents = parents.and_then(|(first, parents)| parents.get(rows.start - first..rows.end - first));
        parents.unwrap_or_default().iter().filter_map(move |parent| match parent {
            Parent::Row(parent) => Some(*parent as usize).filter(|row| row / columns::SLICE_ROWS != slice),
            Parent::Root | Parent::Away => None,
        })
    }

    pub fn read_times(&mut self, rows: Range<usize>) -> Result<(), Problem> {
        for slice in slices_of(rows) {
            if !self.times.contains_key(&slice) {
                let read = self.times_slice(slice)?;
                self.times.insert(slice, read);
            }
        }
        Ok(())
    }

    fn ids_slice(&self, slice: usize) -> Result<IdsSlice, Problem> {
        let rows_max = self.segment.record().rows as usize;
        let rows = rows_of(slice, rows_max);
        let ids = self.ids_of(slice)?;
        let mut parents = Vec::with_capacity(rows.len());
        self.segment.chunk(Kind::Parents, slice as u16, Caching::Keep, |bytes| {
            columns::read_parents(bytes, rows.clone(), rows_max, &mut parents)
        })?;
        Ok(IdsSlice { first_row: rows.start, ids, parents })
    }

    fn ids_of(&self, slice: usize) -> Result<SliceIds, Problem> {
        let rows = rows_of(slice, self.segment.record().rows as usize).len();
        self.segment.chunk(Kind::Ids, slice as u16, Caching::Keep, |bytes| columns::read_ids(bytes, rows))
    }

    fn times_slice(&self, slice: usize) -> Result<TimesSlice, Problem> {
        let rows = rows_of(slice, self.segment.record().rows as usize);
        let mut starts = vec![0; rows.len()];
        let mut durations = vec![0; rows.len()];
        self.segment
            .chunk(Kind::Starts, slice as u16, Caching::Keep, |bytes| columns::read_starts(bytes, &mut starts))?;
        self.segment.chunk(Kind::Durations, slice as u16, Caching::Keep, |bytes| {
            columns::read_durations(bytes, &mut durations)
        })?;
        Ok(TimesSlice { first_row: rows.start, starts, durations })
    }

    fn parent(&self, row: usize) -> Option<Parent> {
        let slice = self.ids.get(&(row / columns::SLICE_ROWS))?;
        slice.parents.get(row - slice.first_row).copied()
    }

    fn span_id(&self, row: usize) -> Option<SpanId> {
        let slice = self.ids.get(&(row / columns::SLICE_ROWS))?;
        slice.ids.spans.get(row - slice.first_row).copied()
    }

    /// Of a row that was read with its parent.
    pub fn ids(&self, row: usize) -> Option<Ids> {
        let slice = self.ids.get(&(row / columns::SLICE_ROWS))?;
        let near = match self.parent(row)? {
            Parent::Row(parent) => Some(self.span_id(parent as usize)?),
            Parent::Root | Parent::Away => None,
        };
        Some(Ids { span: self.span_id(row)?, parent: slice.ids.parent(row - slice.first_row, near) })
    }

    /// Appends the ids of rows that were read with their parents; `None` if one was not.
    pub fn put_ids(&self, rows: Range<usize>, out: &mut Vec<Ids>) -> Option<()> {
        for number in slices_of(rows.clone()) {
            let slice = self.ids.get(&number)?;
            let of_slice = rows_of(number, rows.end);
            let of_slice = of_slice.start.max(rows.start)..of_slice.end;
            let mut others = slice.ids.others(of_slice.start - slice.first_row).peekable();
            for row in of_slice {
                let index = row - slice.first_row;
                let near = match slice.parents.get(index)? {
                    Parent::Row(parent) => {
                        let parent = *parent as usize;
                        let here = parent.checked_sub(slice.first_row).and_then(|index| slice.ids.spans.get(index));
                        Some(here.copied().or_else(|| self.span_id(parent))?)
                    }
                    Parent::Root | Parent::Away => None,
                };
                let parent = others.next_if(|(other, _)| *other == index).map_or(near, |(_, parent)| parent);
                out.push(Ids { span: *slice.ids.spans.get(index)?, parent });
            }
        }
        Some(())
    }

    /// Of a row that was read with parent and times.
    pub fn known(&self, trace: TraceId, row: usize) -> Option<Known> {
        let ids = self.ids(row)?;
        let times = self.times.get(&(row / columns::SLICE_ROWS))?;
        let start = *times.starts.get(row - times.first_row)?;
        let duration = *times.durations.get(row - times.first_row)?;
        Some(Known {
            trace: trace.0,
            span: ids.span.0,
            parent: ids.parent.map(|id| id.0),
            start,
            end: start.wrapping_add(duration),
        })
    }
}
