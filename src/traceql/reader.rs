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
use super::segment::{Column, Ids, Parent, Segment, SegmentError, Source, Traces};

/// Readers are kept of segments with so many rows together, the latest used: a segment, and the ones before and after it,
/// where nearly all other pieces of its split traces are.
const KEPT_ROWS_MAX: usize = 3 * ROWS_MAX;

/// Ids are read of so many rows together, since they lie together on disk: whoever asks for those of one trace asks for
/// those of the next.
const IDS_ROWS: usize = 8192;

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
    starts: OnceCell<Arc<[u64]>>,
    durations: OnceCell<Arc<[u64]>>,
    parents: OnceCell<Arc<[Parent]>>,
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
            starts: OnceCell::new(),
            durations: OnceCell::new(),
            parents: OnceCell::new(),
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
        once(&self.starts, || {
            self.book(self.rows() * size_of::<u64>())?;
            self.segment.starts()
        })
    }

    /// # Errors
    /// The segment cannot be read.
    pub fn durations(&self) -> Result<&Arc<[u64]>, SegmentError> {
        once(&self.durations, || {
            self.book(self.rows() * size_of::<u64>())?;
            self.segment.durations()
        })
    }

    /// # Errors
    /// The segment cannot be read.
    pub fn parents(&self) -> Result<&Arc<[Parent]>, SegmentError> {
        once(&self.parents, || {
            self.book(self.rows() * size_of::<Parent>())?;
            self.segment.parents()
        })
    }

    /// Whether a trace may have pieces in other segments. Quick, and never falsely `false`.
    #[must_use]
    pub fn may_be_split(&self, scan: &Scan<'_>, trace: usize) -> bool {
        match self.split.get_or_init(|| scan.source.split_traces(&*self.segment)) {
            Some(split) => split.get(trace),
            None => scan.source.may_be_split(&*self.segment, trace),
        }
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
        if rows.len() > IDS_ROWS {
            return self.segment.span_ids(rows);
        }
        let mut kept = self.ids.borrow_mut();
        if rows.start < kept.0.start || kept.0.end < rows.end {
            let around = rows.start / IDS_ROWS * IDS_ROWS..rows.end.next_multiple_of(IDS_ROWS).min(self.rows());
            let ids = match self.parents.get() {
                Some(parents) => self.segment.span_ids_with(around.clone(), parents)?,
                None => self.segment.span_ids(around.clone())?,
            };
            let more = (ids.len() * size_of::<Ids>()).saturating_sub(kept.1.len() * size_of::<Ids>());
            self.book(more)?;
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
                Ok(reader.segment.cell(&self.field, row)?.map(cell))
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
