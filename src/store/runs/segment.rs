//! A segment on disk, as search sees it.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use foldhash::HashMap;

use super::disk::{Caching, Disk, PieceSpans, Problem, Run};
use super::filter::{Filter, FilterSlot};
use super::record::SegmentRecord;
use super::slices::Slices;
use crate::otlp::TraceId;
use crate::otlp::wire::put_bytes;
use crate::store::build;
use crate::store::envelope::Envelope;
use crate::store::format::columns::{self, rows_of, slices_of};
use crate::store::format::key::{Kind, SegmentKey, scope_code};
use crate::store::format::piece::{Group, Piece};
use crate::store::format::words::{Page, WordId, Words};
use crate::store::format::{FormatError, Known, codes, dictionary, envelopes, placed};
use crate::traceql::ast::{Field, Scope};
use crate::traceql::column::{Cell, Codes, GroupsOfRows};
use crate::traceql::segment::{Column, Ids, Parent, Segment, SegmentError, SegmentId, Times, Traces};
use crate::traceql::wanted::Wanted;

/// Spans that are read to be built anew: more would be held twice for longer, fewer would repeat their resources more often.
const REQUEST_BYTES: usize = 1 << 20;

/// Up to [`crate::traceql::column::ROWS_MAX`] rows of a run.
pub struct RunSegment {
    run: Arc<Run>,
    number: u16,
    record: SegmentRecord,
    key: SegmentKey,
    disk: Arc<Disk>,
    filter: FilterSlot,
    /// As long as a query holds them.
    traces: Mutex<Weak<Traces>>,
    resource_of_row: Groups,
    scope_of_row: Groups,
}

/// Spans of one piece.
pub(super) struct Fragment {
    /// An `ExportTraceServiceRequest`.
    pub request: Vec<u8>,
    /// The piece has more.
    pub is_cut: bool,
}

/// The resource or the scope of every row, as long as a query holds it: all columns of resources share it.
type Groups = Mutex<Weak<Box<[u16]>>>;

impl RunSegment {
    pub(super) fn all_of(run: Arc<Run>, disk: &Arc<Disk>) -> Vec<Arc<Self>> {
        let records = run.record.segments.clone();
        let segment = |(number, record)| {
            Arc::new(Self {
                number,
                record,
                key: run.key().segment(number),
                run: Arc::clone(&run),
                disk: Arc::clone(disk),
                filter: FilterSlot::default(),
                traces: Mutex::default(),
                resource_of_row: Mutex::default(),
                scope_of_row: Mutex::default(),
            })
        };
        (run.record.first_segment()..).zip(records).map(segment).collect()
    }

    pub(in crate::store) fn run(&self) -> &Run {
        &self.run
    }

    pub fn record(&self) -> &SegmentRecord {
        &self.record
    }

    /// Whether it is the first of its run.
    pub(super) fn is_first(&self) -> bool {
        self.number == self.run.record.first_segment()
    }

    pub(super) fn key(&self) -> &SegmentKey {
        &self.key
    }

    pub(super) fn filter(&self) -> &FilterSlot {
        &self.filter
    }

    /// Makes the filter out of the fingerprints of the traces.
    pub(super) fn set_filter(&self, fingerprints: &[u32]) {
        self.filter.set(Filter::of(fingerprints), &self.disk.filter_bytes);
    }

    /// The filter goes, for filters of newer segments.
    pub(super) fn clear_filter(&self) {
        self.filter.clear(&self.disk.filter_bytes);
    }

    fn fail(&self, problem: impl Into<Problem>) -> SegmentError {
        self.disk.fail(&self.run, problem.into())
    }

    /// A chunk that every segment has.
    pub(super) fn chunk<T>(
        &self,
        kind: Kind,
        number: u16,
        caching: Caching,
        read: impl FnOnce(&[u8]) -> Result<T, FormatError>,
    ) -> Result<T, Problem> {
        self.disk.chunk(&self.key.chunk(kind, number), caching, read)?.ok_or(Problem::Missing)
    }

    /// A chunk of a field; `None` if the field has none.
    fn field_chunk<T>(
        &self,
        kind: Kind,
        field: &Field,
        caching: Caching,
        read: impl FnOnce(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Option<T>, SegmentError> {
        let Some(key) = self.key.field(kind, field) else { return Ok(None) };
        self.disk.chunk(&key, caching, read).map_err(|problem| self.fail(problem))
    }

    /// A column of numbers, slice by slice.
    fn numbers(
        &self,
        kind: Kind,
        read: impl Fn(&[u8], &mut [u64]) -> Result<(), FormatError>,
    ) -> Result<Arc<[u64]>, SegmentError> {
        let rows = self.rows();
        let mut numbers: Arc<[u64]> = std::iter::repeat_n(0, rows).collect();
        // Nobody else has it yet.
        let slots = Arc::get_mut(&mut numbers).unwrap_or_default();
        for slice in slices_of(0..rows) {
            let Some(slots) = slots.get_mut(rows_of(slice, rows)) else { break };
            self.chunk(kind, slice as u16, Caching::Pass, |bytes| read(bytes, slots))
                .map_err(|problem| self.fail(problem))?;
        }
        Ok(numbers)
    }

    fn numbers_slice(
        &self,
        kind: Kind,
        slice: usize,
        read: impl Fn(&[u8], &mut [u64]) -> Result<(), FormatError>,
    ) -> Result<Option<Vec<u64>>, SegmentError> {
        let mut numbers = vec![0; rows_of(slice, self.rows()).len()];
        self.chunk(kind, slice as u16, Caching::Pass, |bytes| read(bytes, &mut numbers))
            .map_err(|problem| self.fail(problem))?;
        Ok(Some(numbers))
    }

    /// Appends the parents of a slice.
    fn read_parents(&self, slice: usize, parents: &mut Vec<Parent>) -> Result<(), SegmentError> {
        let rows_max = self.rows();
        self.chunk(Kind::Parents, slice as u16, Caching::Pass, |bytes| {
            columns::read_parents(bytes, rows_of(slice, rows_max), rows_max, parents)
        })
        .map_err(|problem| self.fail(problem))
    }

    fn groups(&self, kind: Kind, kept: &Groups) -> Result<GroupsOfRows, SegmentError> {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(groups) = kept.upgrade() {
            return Ok(groups);
        }
        let groups = self
            .chunk(kind, 0, Caching::Pass, |bytes| codes::decode(bytes, self.rows()))
            .map_err(|problem| self.fail(problem))?;
        let groups = Arc::new(Box::from(&groups[..]));
        *kept = Arc::downgrade(&groups);
        Ok(groups)
    }

    /// The traces, if somebody has them just now.
    pub(super) fn known_traces(&self) -> Option<Arc<Traces>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// The number of the trace whose piece it is; `None`, and the run is set aside, if it is damaged.
    pub(super) fn trace_of_piece(&self, value: &[u8]) -> Result<Option<usize>, SegmentError> {
        match Piece::decode(value) {
            Ok(piece) => Ok(Some(piece.trace as usize)),
            Err(error) => self.unless_gone(self.fail(error)),
        }
    }

    /// The number of a trace, if its spans are here. One look at a filter, mostly.
    pub(super) fn position_of(&self, trace: TraceId) -> Result<Option<usize>, SegmentError> {
        if !self.filter.may_hold(trace.fingerprint()) {
            return Ok(None);
        }
        match self.disk.piece(self, trace) {
            Ok(Some(value)) => self.trace_of_piece(&value),
            Ok(None) => Ok(None),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn with_groups(&self, placed: Option<placed::Codes>) -> Result<Codes, SegmentError> {
        Ok(match placed {
            None => Codes::Rows(Arc::default()),
            Some(placed::Codes::Rows(codes)) => Codes::Rows(codes),
            Some(placed::Codes::Resources(codes)) => {
                Codes::Groups { groups: self.groups(Kind::ResourceOfRow, &self.resource_of_row)?, codes }
            }
            Some(placed::Codes::Scopes(codes)) => {
                Codes::Groups { groups: self.groups(Kind::ScopeOfRow, &self.scope_of_row)?, codes }
            }
        })
    }

    fn unless_gone<T>(&self, error: SegmentError) -> Result<Option<T>, SegmentError> {
        if matches!(error, SegmentError::Gone) { Ok(None) } else { Err(error) }
    }

    /// The spans of a piece as a request of about `bytes_max` at the most; `None` if they cannot be read.
    pub(super) fn fragment(
        &self,
        trace: TraceId,
        value: &[u8],
        bytes_max: usize,
    ) -> Result<Option<Fragment>, SegmentError> {
        match self.read_fragment(trace, value, bytes_max) {
            Ok(fragment) => Ok(Some(fragment)),
            Err(problem) => self.unless_gone(self.fail(problem)),
        }
    }

    /// The spans of a trace, to be kept when the run goes; `None` if it has none.
    ///
    /// # Errors
    /// [`SegmentError::Gone`]: they can never be read.
    pub(super) fn copy_of(&self, trace: TraceId) -> Result<Option<Vec<u8>>, SegmentError> {
        if !self.filter.may_hold(trace.fingerprint()) {
            return Ok(None);
        }
        let Some(value) = self.disk.piece(self, trace).map_err(|error| self.fail(error))? else {
            let is_lost =
                self.run.are_pieces_lost() && self.traces().map_or(true, |traces| traces.position(trace).is_some());
            return if is_lost { Err(SegmentError::Gone) } else { Ok(None) };
        };
        let copy = self.read_fragment(trace, &value, usize::MAX).map_err(|problem| self.fail(problem))?;
        Ok(Some(copy.request))
    }

    fn read_fragment(&self, trace: TraceId, value: &[u8], bytes_max: usize) -> Result<Fragment, Problem> {
        self.reader().fragment(trace, value, bytes_max)
    }

    /// For several pieces.
    pub(super) fn reader(&self) -> PieceReader<'_> {
        PieceReader { segment: self, slices: Slices::new(self), words: PagedWords::new(self) }
    }

    /// The spans of some traces to `each`, in requests of about [`REQUEST_BYTES`], and `None` whenever a trace was read, so that
    /// others may have their turn.
    ///
    /// # Errors
    /// They cannot be read; [`SegmentError::Gone`]: the run is set aside for it. Or what `each` met.
    pub(in crate::store) fn each_request<E: From<SegmentError>>(
        &self,
        traces: impl Iterator<Item = TraceId>,
        mut each: impl FnMut(Option<Vec<u8>>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader = self.reader();
        let mut gathered = Gathered::default();
        for trace in traces {
            let value = self.disk.piece(self, trace).map_err(|error| self.fail(error))?;
            let value = value.ok_or_else(|| self.fail(Problem::Missing))?;
            let read = reader.read(trace, &value, |_, group, span| gathered.push(group, span));
            read.map_err(|problem| self.fail(problem))?;
            if gathered.bytes >= REQUEST_BYTES {
                let gathered = std::mem::take(&mut gathered);
                each(Some(self.request(gathered).map_err(|problem| self.fail(problem))?))?;
            }
            each(None)?;
        }
        if gathered.bytes > 0 {
            each(Some(self.request(gathered).map_err(|problem| self.fail(problem))?))?;
        }
        Ok(())
    }

    /// How many spans came of each trace, those that repeated another's id included.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub(in crate::store) fn arrived(&self, traces: &Traces) -> Result<Vec<u64>, SegmentError> {
        let read = |bytes: &[u8]| -> Result<Vec<u32>, FormatError> {
            let (repeats, rest) = bytes.as_chunks::<4>();
            let repeats: Vec<u32> = repeats.iter().map(|repeats| u32::from_le_bytes(*repeats)).collect();
            let fits = rest.is_empty() && repeats.len() <= traces.len();
            fits.then_some(repeats).ok_or(FormatError::Damaged("repeats"))
        };
        let repeats = self.disk.chunk(&self.key.chunk(Kind::Repeats, 0), Caching::Pass, read);
        let repeats = repeats.map_err(|problem| self.fail(problem))?.unwrap_or_default();
        let of = |trace: usize| repeats.get(trace).copied().map_or(0, u64::from) + traces.rows(trace).len() as u64;
        Ok((0..traces.len()).map(of).collect())
    }
}

/// Reads pieces of one segment, one after the other, and keeps what they have in common.
pub(super) struct PieceReader<'s> {
    segment: &'s RunSegment,
    slices: Slices<'s>,
    words: PagedWords<'s>,
}

impl PieceReader<'_> {
    /// The spans of a piece as a request of about `bytes_max` at the most.
    fn fragment(&mut self, trace: TraceId, value: &[u8], bytes_max: usize) -> Result<Fragment, Problem> {
        let (mut gathered, mut is_cut) = (Gathered::default(), false);
        self.read(trace, value, |_, group, span| {
            is_cut |= gathered.bytes > bytes_max;
            if !is_cut {
                gathered.push(group, span);
            }
        })?;
        Ok(Fragment { request: self.segment.request(gathered)?, is_cut })
    }

    /// Hands each span of a piece to `each`, with its row.
    pub(super) fn read(
        &mut self,
        trace: TraceId,
        value: &[u8],
        mut each: impl FnMut(usize, Group, &[u8]),
    ) -> Result<(), Problem> {
        let piece = Piece::decode(value)?;
        let rows = piece.rows();
        let Self { slices, words, .. } = self;
        slices.read_parents(rows.clone())?;
        slices.read_times(rows.clone())?;
        piece.spans(
            &*words,
            |index| slices.known(trace, rows.start + index),
            |index, span| {
                if let Some(group) = piece.groups.get(index) {
                    each(rows.start + index, *group, span);
                }
            },
        )
    }
}

/// Spans by resource and scope, in the order in which these were met.
#[derive(Default)]
struct Gathered {
    lists: Vec<(Group, Vec<u8>)>,
    index: HashMap<Group, usize>,
    /// Of spans.
    bytes: usize,
}

impl Gathered {
    fn push(&mut self, group: Group, span: &[u8]) {
        let Self { lists, index, bytes } = self;
        *bytes += span.len();
        let list = *index.entry(group).or_insert_with(|| {
            lists.push((group, Vec::new()));
            lists.len() - 1
        });
        if let Some((_, list)) = lists.get_mut(list) {
            put_bytes(list, 2, span);
        }
    }
}

impl RunSegment {
    fn request(&self, gathered: Gathered) -> Result<Vec<u8>, Problem> {
        let mut request = Vec::new();
        let (mut message, mut inner) = (Vec::new(), Vec::new());
        for (group, list) in gathered.lists {
            let resource = self.envelope(Kind::Resources, group.resource)?;
            let scope = self.envelope(Kind::Scopes, group.scope)?;
            inner.clear();
            scope.write(&mut inner, |out| out.extend_from_slice(&list));
            message.clear();
            resource.write(&mut message, |out| put_bytes(out, 2, &inner));
            put_bytes(&mut request, 1, &message);
        }
        Ok(request)
    }

    fn envelope(&self, kind: Kind, number: u16) -> Result<Envelope, Problem> {
        self.chunk(kind, envelopes::page_of(number), Caching::Keep, |bytes| {
            envelopes::decode(&Page::decode(bytes)?, number)
        })
    }

    /// The spans of a piece, without ids and times: none of the values that columns do not hold depends on them, and to read
    /// them takes longer than all else.
    fn read_cells(&self, value: &[u8], spans: &mut PieceSpans) -> Result<(), Problem> {
        let piece = Piece::decode(value)?;
        let mut parents = Vec::with_capacity(piece.rows().len());
        for slice in slices_of(piece.rows()) {
            let of_slice = rows_of(slice, self.rows());
            let rows = of_slice.start.max(piece.rows().start)..of_slice.end.min(piece.rows().end);
            let known = self.recent_parents(slice)?;
            let known = known.get(rows.start - of_slice.start..rows.end.saturating_sub(of_slice.start));
            parents.extend_from_slice(known.ok_or(Problem::Missing)?);
        }
        // Whether a span has a parent says where its bytes begin.
        let known = |index: usize| {
            let parent = (*parents.get(index)? != Parent::Root).then_some([0; 8]);
            Some(Known { trace: [0; 16], span: [0; 8], parent, start: 0, end: 0 })
        };
        piece.spans(&PagedWords::new(self), known, |_, span| spans.push(span))
    }

    fn recent_parents(&self, slice: usize) -> Result<Arc<[Parent]>, Problem> {
        if let Some(parents) = self.disk.recent_parents(self.id(), slice) {
            return Ok(parents);
        }
        let (rows_max, mut parents) = (self.rows(), Vec::new());
        self.chunk(Kind::Parents, slice as u16, Caching::Keep, |bytes| {
            columns::read_parents(bytes, rows_of(slice, rows_max), rows_max, &mut parents)
        })?;
        let parents: Arc<[Parent]> = parents.into();
        self.disk.remember_parents(self.id(), slice, Arc::clone(&parents));
        Ok(parents)
    }

    /// The piece that a row belongs to.
    fn piece_of_row(&self, row: usize) -> Result<Option<Arc<PieceSpans>>, SegmentError> {
        if let Some(piece) = self.disk.recent_piece(self.id(), row) {
            return Ok(Some(piece));
        }
        let traces = self.traces()?;
        let number = traces.of_row(row);
        let Some(trace) = traces.ids.get(number).copied() else { return Ok(None) };
        let value = self.disk.piece(self, trace).map_err(|error| self.fail(error))?;
        let value = value.ok_or_else(|| self.fail(Problem::Missing))?;
        let mut spans = PieceSpans::of(traces.rows(number));
        self.read_cells(&value, &mut spans).map_err(|problem| self.fail(problem))?;
        let spans = Arc::new(spans);
        self.disk.remember_piece(self.id(), Arc::clone(&spans));
        Ok(Some(spans))
    }
}

impl Segment for RunSegment {
    fn id(&self) -> SegmentId {
        SegmentId(self.run.record.first, self.number)
    }

    fn rows(&self) -> usize {
        self.record.rows as usize
    }

    fn times(&self) -> Times {
        self.record.times()
    }

    fn stored_bytes(&self) -> u64 {
        // Of a run with several segments each is taken to have its share of the files.
        let spans = self.run.record.spans().max(1);
        self.run.record.file_bytes.saturating_mul(u64::from(self.record.rows)) / spans
    }

    fn traces(&self) -> Result<Arc<Traces>, SegmentError> {
        let mut kept = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(traces) = kept.upgrade() {
            return Ok(traces);
        }
        let read = |bytes: &[u8]| columns::read_traces(bytes, self.rows());
        let traces = self.chunk(Kind::Traces, 0, Caching::Pass, read).map_err(|problem| self.fail(problem))?;
        let traces = Arc::new(traces);
        *kept = Arc::downgrade(&traces);
        Ok(traces)
    }

    fn starts(&self) -> Result<Arc<[u64]>, SegmentError> {
        self.numbers(Kind::Starts, columns::read_starts)
    }

    fn durations(&self) -> Result<Arc<[u64]>, SegmentError> {
        self.numbers(Kind::Durations, columns::read_durations)
    }

    fn parents(&self) -> Result<Arc<[Parent]>, SegmentError> {
        let mut parents = Vec::with_capacity(self.rows());
        slices_of(0..self.rows()).try_for_each(|slice| self.read_parents(slice, &mut parents))?;
        Ok(parents.into())
    }

    fn starts_slice(&self, slice: usize) -> Result<Option<Vec<u64>>, SegmentError> {
        self.numbers_slice(Kind::Starts, slice, columns::read_starts)
    }

    fn durations_slice(&self, slice: usize) -> Result<Option<Vec<u64>>, SegmentError> {
        self.numbers_slice(Kind::Durations, slice, columns::read_durations)
    }

    fn parents_slice(&self, slice: usize) -> Result<Option<Vec<Parent>>, SegmentError> {
        let mut parents = Vec::with_capacity(rows_of(slice, self.rows()).len());
        self.read_parents(slice, &mut parents)?;
        Ok(Some(parents))
    }

    fn column(&self, field: &Field) -> Result<Column, SegmentError> {
        let listed = self.field_chunk(Kind::Dictionary, field, Caching::Keep, dictionary::decode)?;
        if let Some(dictionary) = listed {
            return Ok(Column::Listed(Arc::new(dictionary)));
        }
        let read = |bytes: &[u8]| codes::decode(bytes, self.rows());
        let sketches = self.field_chunk(Kind::Sketches, field, Caching::Pass, read)?;
        Ok(sketches.map_or(Column::Absent, |sketches| Column::Unlisted { sketches }))
    }

    fn codes(&self, field: &Field) -> Result<Codes, SegmentError> {
        let read = |bytes: &[u8]| placed::decode(bytes, self.rows());
        self.with_groups(self.field_chunk(Kind::Codes, field, Caching::Pass, read)?)
    }

    fn codes_at(&self, field: &Field, wanted: &mut Wanted<'_>) -> Result<Codes, SegmentError> {
        let read = |bytes: &[u8]| placed::decode_some(bytes, self.rows(), wanted);
        self.with_groups(self.field_chunk(Kind::Codes, field, Caching::Pass, read)?)
    }

    fn cell(&self, field: &Field, row: usize) -> Result<Option<Cell>, SegmentError> {
        // Who asks knows by the column that it holds no values: to read that here would be to read all of it for each row.
        let piece = self.piece_of_row(row)?;
        Ok(piece.as_ref().and_then(|piece| piece.span(row)).and_then(|span| build::cell(field, span)))
    }

    fn span_ids(&self, rows: Range<usize>) -> Result<Vec<Ids>, SegmentError> {
        let rows = rows.start.min(self.rows())..rows.end.min(self.rows());
        let mut slices = Slices::new(self);
        slices.read_parents(rows.clone()).map_err(|problem| self.fail(problem))?;
        let mut ids = Vec::with_capacity(rows.len());
        slices.put_ids(rows, &mut ids).ok_or_else(|| self.fail(Problem::Missing))?;
        Ok(ids)
    }

    fn span_ids_with(&self, rows: Range<usize>, parents: &[Parent]) -> Result<Vec<Ids>, SegmentError> {
        let rows = rows.start.min(self.rows())..rows.end.min(self.rows());
        let mut slices = Slices::new(self);
        slices.read_with(rows.clone(), parents).map_err(|problem| self.fail(problem))?;
        let mut ids = Vec::with_capacity(rows.len());
        slices.put_ids(rows, &mut ids).ok_or_else(|| self.fail(Problem::Missing))?;
        Ok(ids)
    }

    fn names(&self, scope: Scope) -> Result<Arc<[Arc<str>]>, SegmentError> {
        let names = self.chunk(Kind::Names, u16::from(scope_code(scope)), Caching::Keep, dictionary::decode_names);
        Ok(names.map_err(|problem| self.fail(problem))?.into())
    }
}

/// Words of a segment, read page by page as they are needed.
struct PagedWords<'s> {
    segment: &'s RunSegment,
    pages: Vec<OnceCell<Page>>,
}

impl<'s> PagedWords<'s> {
    fn new(segment: &'s RunSegment) -> Self {
        Self { segment, pages: vec![OnceCell::new(); usize::from(segment.record.word_pages)] }
    }
}

impl Words for PagedWords<'_> {
    type Error = Problem;

    fn word(&self, id: WordId) -> Result<&[u8], Problem> {
        let unknown = FormatError::Damaged("word number");
        let number = Page::of(id);
        let slot = self.pages.get(usize::from(number)).ok_or(unknown)?;
        let page = match slot.get() {
            Some(page) => page,
            None => {
                let page = self.segment.chunk(Kind::Words, number, Caching::Keep, Page::decode)?;
                slot.get_or_init(|| page)
            }
        };
        Ok(page.word(id).ok_or(unknown)?)
    }
}

impl Drop for RunSegment {
    fn drop(&mut self) {
        self.clear_filter();
    }
}
