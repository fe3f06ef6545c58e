//! Segments with a memory: what a query has read of one is not read again.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::ops::{Deref, Range};
use std::rc::Rc;
use std::sync::Arc;

use super::ast::{Field, Intrinsic};
use super::column::{Cell, Codes, Dictionary, Entry, ROWS_MAX};
use super::control::{Booked, Control};
use super::datum::Datum;
use super::mask::Mask;
use super::segment::{Column, Ids, Parent, SLICE_ROWS, Segment, SegmentError, Source, Traces};

/// Readers are kept of segments with so many rows together, the latest used: a segment, and the ones before and after it,
/// where nearly all other pieces of its split traces are.
const KEPT_ROWS_MAX: usize = 3 * ROWS_MAX;

/// Slices of a column, at the most.
const SLICES_MAX: usize = ROWS_MAX.div_ceil(SLICE_ROWS);

/// A running query, or one thread of it: where it reads from, and what it has open.
pub struct Scan<'a> {
    source: &'a dyn Source,
    control: &'a Control,
    /// The latest used at the front.
    readers: RefCell<VecDeque<Rc<Reader>>>,
}

/// One segment as one query sees it.
pub struct Reader {
    segment: Arc<dyn Segment>,
    traces: OnceCell<Arc<Traces>>,
    starts: Sliced<u64>,
    durations: Sliced<u64>,
    parents: Sliced<Parent>,
    /// [`Source::split_traces`]
    split: OnceCell<Option<Mask>>,
    /// Few: a query names a handful of fields.
    columns: RefCell<Vec<(Field, Column)>>,
    codes: RefCell<Vec<(Field, Codes)>>,
    /// Those of the rows that were asked for last, and of the rows around them.
    ids: RefCell<(Range<usize>, Rc<[Ids]>)>,
    /// Sets of rows that are needed again.
    masks: RefCell<Vec<(MaskNumber, Arc<KeptMask>)>>,
    /// All of the above but the masks, which may live longer. What segments of the tail share is booked like the rest.
    booked: RefCell<Booked>,
}

/// A column that is read as a whole, or only the slices of it in which rows are asked for one by one.
struct Sliced<T> {
    whole: OnceCell<Arc<[T]>>,
    slices: [OnceCell<Vec<T>>; SLICES_MAX],
}

/// A set of rows, and the memory that it takes of its query.
#[derive(Debug)]
pub struct KeptMask {
    mask: Mask,
    _booked: Booked,
}

impl Deref for KeptMask {
    type Target = Mask;

    fn deref(&self) -> &Mask {
        &self.mask
    }
}

/// Which set of rows: the number of a pipeline in its query, and that of a filter in the pipeline.
pub type MaskNumber = (usize, usize);

/// A column with its codes, ready to be asked for single rows.
pub struct Values {
    field: Field,
    column: Column,
    codes: Option<Codes>,
}

impl<'a> Scan<'a> {
    #[must_use]
    pub fn new(source: &'a dyn Source, control: &'a Control) -> Self {
        Self { source, control, readers: RefCell::default() }
    }

    #[must_use]
    pub fn source(&self) -> &'a dyn Source {
        self.source
    }

    /// # Errors
    /// The query is to end.
    pub fn check(&self) -> Result<(), SegmentError> {
        Ok(self.control.check()?)
    }

    /// The reader of a segment, the same one as before if that is not long ago.
    #[must_use]
    pub fn reader(&self, segment: &Arc<dyn Segment>) -> Rc<Reader> {
        let mut readers = self.readers.borrow_mut();
        let id = segment.id();
        let known = readers.iter().position(|reader| reader.segment.id() == id).and_then(|place| readers.remove(place));
        let reader = known.unwrap_or_else(|| self.passing_reader(segment));
        readers.push_front(reader.clone());
        let rows_max = if self.control.has_plenty() { KEPT_ROWS_MAX } else { 0 };
        let mut rows = 0;
        let kept = readers.iter().take_while(|reader| {
            rows += reader.rows();
            rows <= rows_max
        });
        let kept = kept.count().max(1);
        readers.truncate(kept);
        reader
    }

    /// A reader that is not kept here and remembers nothing yet.
    #[must_use]
    pub fn passing_reader(&self, segment: &Arc<dyn Segment>) -> Rc<Reader> {
        Rc::new(Reader::new(segment.clone(), self.control))
    }

    #[must_use]
    pub fn control(&self) -> &'a Control {
        self.control
    }
}

impl Reader {
    /// What it reads is memory of a query.
    #[must_use]
    pub fn new(segment: Arc<dyn Segment>, control: &Control) -> Self {
        Self {
            segment,
            booked: RefCell::new(control.nothing_booked()),
            traces: OnceCell::new(),
            starts: Sliced::default(),
            durations: Sliced::default(),
            parents: Sliced::default(),
            split: OnceCell::new(),
            columns: RefCell::default(),
            codes: RefCell::default(),
            ids: RefCell::new((0..0, Rc::from([]))),
            masks: RefCell::default(),
        }
    }

    #[must_use]
    pub fn segment(&self) -> &Arc<dyn Segment> {
        &self.segment
    }

    #[must_use]
    pub fn rows(&self) -> usize {
        self.segment.rows()
    }

    /// # Errors
    /// The segment cannot be read.
    pub fn traces(&self) -> Result<&Arc<Traces>, SegmentError> {
        once(&self.traces, || {
            let traces = self.segment.traces()?;
            self.book(traces.bytes())?;
            Ok(traces)
        })
    }

    /// # Errors
    /// The segment cannot be read.
    pub fn starts(&self) -> Result<&Arc<[u64]>, SegmentError> {
        self.starts.whole(self, || self.segment.starts())
    }

    /// # Errors
    /// The segment cannot be read.
    pub fn durations(&self) -> Result<&Arc<[u64]>, SegmentError> {
        self.durations.whole(self, || self.segment.durations())
    }

    /// # Errors
    /// The segment cannot be read.
    pub fn parents(&self) -> Result<&Arc<[Parent]>, SegmentError> {
        self.parents.whole(self, || self.segment.parents())
    }

    /// When the span of one row started, 0 if there is none: for who asks for few of them.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn start(&self, row: usize) -> Result<u64, SegmentError> {
        let slice = |slice| self.segment.starts_slice(slice);
        Ok(self.starts.at(self, row, slice, || self.segment.starts())?.unwrap_or(0))
    }

    /// As [`Reader::start`], how long it lasted.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn duration(&self, row: usize) -> Result<u64, SegmentError> {
        let slice = |slice| self.segment.durations_slice(slice);
        Ok(self.durations.at(self, row, slice, || self.segment.durations())?.unwrap_or(0))
    }

    /// As [`Reader::start`], where its parent is.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn parent(&self, row: usize) -> Result<Option<Parent>, SegmentError> {
        let slice = |slice| self.segment.parents_slice(slice);
        self.parents.at(self, row, slice, || self.segment.parents())
    }

    /// Whether a trace may have pieces in other segments. Quick, and never falsely `false`.
    #[must_use]
    pub fn may_be_split(&self, scan: &Scan<'_>, trace: usize) -> bool {
        match self.split_traces(scan) {
            Some(split) => split.get(trace),
            None => scan.source.may_be_split(&*self.segment, trace),
        }
    }

    /// The traces of which [`Reader::may_be_split`] says so; `None`: they are to be asked for one by one.
    #[must_use]
    pub fn split_traces(&self, scan: &Scan<'_>) -> Option<&Mask> {
        self.split.get_or_init(|| scan.source.split_traces(&*self.segment)).as_ref()
    }

    /// The column of an attribute with a scope or of an intrinsic that has one.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn column(&self, field: &Field) -> Result<Column, SegmentError> {
        if let Some((_, column)) = self.columns.borrow().iter().find(|(known, _)| known == field) {
            return Ok(column.clone());
        }
        let column = self.segment.column(field)?;
        self.book(column.bytes())?;
        self.columns.borrow_mut().push((field.clone(), column.clone()));
        Ok(column)
    }

    /// The codes of a listed column.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn codes(&self, field: &Field) -> Result<Codes, SegmentError> {
        if let Some((_, codes)) = self.codes.borrow().iter().find(|(known, _)| known == field) {
            return Ok(codes.clone());
        }
        let codes = self.segment.codes(field)?;
        self.book(codes.bytes())?;
        self.codes.borrow_mut().push((field.clone(), codes.clone()));
        Ok(codes)
    }

    /// How many columns, and how many codes of columns, are remembered.
    #[must_use]
    pub fn remembered(&self) -> (usize, usize) {
        (self.columns.borrow().len(), self.codes.borrow().len())
    }

    /// Forgets the columns that were read since: whoever reads all of them would hold all of the segment.
    pub fn forget_since(&self, (columns, codes): (usize, usize)) {
        let columns: Vec<_> = self.columns.borrow_mut().drain(columns..).collect();
        let codes: Vec<_> = self.codes.borrow_mut().drain(codes..).collect();
        let freed = columns.iter().map(|(_, column)| column.bytes()).sum::<usize>()
            + codes.iter().map(|(_, codes)| codes.bytes()).sum::<usize>();
        let mut booked = self.booked.borrow_mut();
        let kept = booked.bytes().saturating_sub(freed);
        booked.shrink_to(kept);
    }

    fn book(&self, bytes: usize) -> Result<(), SegmentError> {
        Ok(self.booked.borrow_mut().grow(bytes)?)
    }

    /// The value of one row, for columns that hold none.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn cell(&self, field: &Field, row: usize) -> Result<Option<Cell>, SegmentError> {
        // Where a row's span lies takes the traces to know: as long as they are kept here, they are not read for each row.
        self.traces()?;
        self.segment.cell(field, row)
    }

    /// # Errors
    /// The segment cannot be read.
    pub fn values(&self, field: &Field) -> Result<Values, SegmentError> {
        let column = self.column(field)?;
        let codes = if matches!(column, Column::Listed(_)) { Some(self.codes(field)?) } else { None };
        Ok(Values { field: field.clone(), column, codes })
    }

    /// # Errors
    /// The segment cannot be read.
    pub fn span_ids(&self, rows: Range<usize>) -> Result<Vec<Ids>, SegmentError> {
        // Ids are read slice by slice, too: whoever asks for those of one trace asks for those of the next.
        if rows.len() > SLICE_ROWS {
            return self.segment.span_ids(rows);
        }
        let mut kept = self.ids.borrow_mut();
        if rows.start < kept.0.start || kept.0.end < rows.end {
            let around = rows.start / SLICE_ROWS * SLICE_ROWS..rows.end.next_multiple_of(SLICE_ROWS).min(self.rows());
            let ids = match self.parents.whole.get() {
                Some(parents) => self.segment.span_ids_with(around.clone(), parents)?,
                None => self.segment.span_ids(around.clone())?,
            };
            let mut booked = self.booked.borrow_mut();
            booked.grow(ids.len() * size_of::<Ids>())?;
            let both = booked.bytes();
            booked.shrink_to(both.saturating_sub(kept.1.len() * size_of::<Ids>()));
            *kept = (around, ids.into());
        }
        let first = kept.0.start;
        let ids = rows.start.checked_sub(first).and_then(|start| kept.1.get(start..rows.end - first));
        Ok(ids.unwrap_or_default().to_vec())
    }

    /// A set of rows that is computed once.
    ///
    /// # Errors
    /// Those of `compute`, or there is no memory for it.
    pub fn mask(
        &self,
        scan: &Scan<'_>,
        number: MaskNumber,
        compute: impl FnOnce() -> Result<Mask, SegmentError>,
    ) -> Result<Arc<KeptMask>, SegmentError> {
        if let Some((_, mask)) = self.masks.borrow().iter().find(|(known, _)| *known == number) {
            return Ok(mask.clone());
        }
        let mask = compute()?;
        let booked = scan.control.book(mask.bytes())?;
        let mask = Arc::new(KeptMask { mask, _booked: booked });
        self.masks.borrow_mut().push((number, mask.clone()));
        Ok(mask)
    }

    /// Puts sets of rows back that were computed by another reader of the segment.
    pub fn remember(&self, masks: impl IntoIterator<Item = (MaskNumber, Arc<KeptMask>)>) {
        let mut known = self.masks.borrow_mut();
        for (number, mask) in masks {
            if !known.iter().any(|(other, _)| *other == number) {
                known.push((number, mask));
            }
        }
    }

    /// The sets of rows that were computed so far.
    #[must_use]
    pub fn masks(&self) -> Vec<(MaskNumber, Arc<KeptMask>)> {
        self.masks.borrow().clone()
    }

    /// The rows that start within `[start, end]`; `None` if all do, which bounds of the segment often prove without a
    /// look at it.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn within(&self, start: u64, end: u64) -> Result<Option<Mask>, SegmentError> {
        let times = self.segment.times();
        if start <= times.min_start && times.max_start <= end {
            return Ok(None);
        }
        if start > end || times.max_start < start || end < times.min_start {
            return Ok(Some(Mask::none(self.rows())));
        }
        let width = end - start;
        Ok(Some(Mask::of(self.starts()?, |at| at.wrapping_sub(start) <= width)))
    }
}

impl<T> Default for Sliced<T> {
    fn default() -> Self {
        Self { whole: OnceCell::new(), slices: Default::default() }
    }
}

impl<T: Copy> Sliced<T> {
    fn whole(
        &self,
        reader: &Reader,
        read: impl FnOnce() -> Result<Arc<[T]>, SegmentError>,
    ) -> Result<&Arc<[T]>, SegmentError> {
        once(&self.whole, || {
            reader.book(reader.rows() * size_of::<T>())?;
            read()
        })
    }

    /// Of one row; `read` takes the number of a slice.
    fn at(
        &self,
        reader: &Reader,
        row: usize,
        read: impl FnOnce(usize) -> Result<Option<Vec<T>>, SegmentError>,
        read_whole: impl FnOnce() -> Result<Arc<[T]>, SegmentError>,
    ) -> Result<Option<T>, SegmentError> {
        if let Some(whole) = self.whole.get() {
            return Ok(whole.get(row).copied());
        }
        let (number, place) = (row / SLICE_ROWS, row % SLICE_ROWS);
        let Some(slice) = self.slices.get(number) else { return Ok(None) };
        if let Some(known) = slice.get() {
            return Ok(known.get(place).copied());
        }
        let Some(fresh) = read(number)? else {
            return Ok(self.whole(reader, read_whole)?.get(row).copied());
        };
        reader.book(fresh.len() * size_of::<T>())?;
        Ok(slice.get_or_init(|| fresh).get(place).copied())
    }
}

fn once<T>(cell: &OnceCell<T>, read: impl FnOnce() -> Result<T, SegmentError>) -> Result<&T, SegmentError> {
    if let Some(known) = cell.get() {
        return Ok(known);
    }
    let value = read()?;
    Ok(cell.get_or_init(|| value))
}

impl Values {
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self.column, Column::Absent)
    }

    /// The value of a row.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn get(&self, reader: &Reader, row: usize) -> Result<Option<Datum<'_>>, SegmentError> {
        match (&self.column, &self.codes) {
            (Column::Listed(dictionary), Some(codes)) => Ok(datum(dictionary, codes, row)),
            (Column::Unlisted { sketches }, _) if sketches.get(row).is_some_and(|sketch| *sketch != 0) => {
                Ok(reader.cell(&self.field, row)?.map(cell))
            }
            _ => Ok(None),
        }
    }
}

fn datum<'a>(dictionary: &'a Dictionary, codes: &Codes, row: usize) -> Option<Datum<'a>> {
    Some(match dictionary.get(codes.get(row))? {
        Entry::String(string) => Datum::text(string),
        Entry::Int(int) => Datum::Int(int),
        Entry::Other(other) => cell(other.clone()),
    })
}

fn cell(cell: Cell) -> Datum<'static> {
    match cell {
        Cell::One(value) => Datum::from(value),
        Cell::Many(values) => Datum::Many(values),
    }
}

/// Whether segments have a column for an intrinsic; the others are derived.
#[must_use]
pub fn has_column(intrinsic: Intrinsic) -> bool {
    matches!(
        intrinsic,
        Intrinsic::Name
            | Intrinsic::Status
            | Intrinsic::StatusMessage
            | Intrinsic::Kind
            | Intrinsic::EventName
            | Intrinsic::EventTimeSinceStart
            | Intrinsic::LinkTraceId
            | Intrinsic::LinkSpanId
            | Intrinsic::InstrumentationName
            | Intrinsic::InstrumentationVersion
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::traceql::tests::memory::Memory;
    use crate::traceql::tests::spans::{span, trace};

    #[test]
    fn ids_are_booked_once_however_often_others_are_asked_for() {
        let rows = SLICE_ROWS + 100;
        let spans = (1..=rows as u64).map(|id| span(id).lasting(id, 1));
        let memory = Memory::whole(&[trace(1, spans.collect::<Vec<_>>())]);
        let control = Control::new(Duration::from_secs(3600), usize::MAX);
        let reader = Reader::new(memory.segment(0), &control);
        reader.span_ids(0..1).unwrap();
        let booked = control.used_bytes();
        for _ in 0..3 {
            reader.span_ids(rows - 1..rows).unwrap();
            reader.span_ids(0..1).unwrap();
            assert_eq!(control.used_bytes(), booked);
        }
    }
}
