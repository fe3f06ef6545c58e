//! Sealed runs: what was in the spool, whole traces together, for as long as retention keeps it.
//!
//! ```text
//! meta     "run/" run             what a run holds and where it ends (JSON)
//!          "split/" segment       its traces that have spans elsewhere (JSON)
//!          "pin/", "pinned/"       see `pins`
//!          "sealed"               the first batch that is in no run, and the account of all before it (JSON)
//! trace    pieces                 see `format`
//! column   chunks
//! ```
//!
//! A run is written once, as finished table files, and never changed. What is known of all of them is in memory, a few
//! hundred bytes each; a [`View`] is all of it at one moment, with the cursor that says where the tail begins. A run
//! that cannot be read is set aside: search goes on without it, and says so in log and metrics.
//!
//! The room must not know how spans come into runs; that is `seal`.

mod disk;
mod filter;
mod mend;
mod metrics;
mod pins;
mod record;
mod removal;
mod segment;
mod slices;
mod splits;
mod verify;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rocksdb::WriteBatch;
use thiserror::Error;

use super::format::FormatError;
use super::format::key::RunKey;
use super::sealed::{self, Fragments, SealedView};
use crate::otlp::TraceId;
use crate::query::SourceError;
use crate::spool::database::{COLUMN, META, SEALED_KEY, TRACE, synced};
use crate::spool::{Access, Database, PipelineId, SealedAccount, Seq};
use crate::traceql::mask::Mask;
use crate::traceql::segment::{Piece, Segment, SegmentError};

pub use metrics::Metrics;
pub use pins::PinError;
pub use record::{RunRecord, SegmentRecord};
pub use segment::RunSegment;
pub use verify::{Damage, DamagedPlace, Verification, VerifyProgress};

use super::build::InMemory;
use disk::Disk;
use pins::{Held, PINNED_SEGMENT, Pins};
use record::{run_key, split_key};
use splits::Splits;

/// Runs could not be read or written. The text says what the disk said.
#[derive(Debug, Error)]
pub enum RunsError {
    #[error("the disk: {0}")]
    Disk(#[from] rocksdb::Error),
    #[error("{0}")]
    Format(#[from] FormatError),
    #[error(transparent)]
    Read(SegmentError),
    #[error("the record of {what} is damaged: {problem}")]
    Record { what: &'static str, problem: String },
}

/// What runs may hold in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Of filters, which say what traces a run may hold: 9 KiB for 7,000 traces. Older runs are asked on disk.
    pub filter_bytes: usize,
    /// OTLP of pinned traces whose runs were dropped.
    pub pinned_bytes: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self { filter_bytes: 5 * 1024 * 1024, pinned_bytes: 2 * 1024 * 1024 }
    }
}

/// What becomes of pinned traces in a run that is dropped and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsaved {
    /// The run stays for now.
    Keep,
    /// They are lost, and counted.
    GiveUp,
}

/// All runs. Clones share them.
#[derive(Clone)]
pub struct Runs {
    disk: Arc<Disk>,
    view: Arc<ArcSwap<View>>,
    splits: Arc<Splits>,
    pins: Arc<Pins>,
}

/// All runs at one moment.
#[derive(Clone)]
pub struct View {
    sealed: SealedAccount,
    /// By key: oldest first.
    segments: Vec<Arc<RunSegment>>,
    /// What is left of pinned traces whose runs were dropped.
    pinned: Option<Arc<InMemory>>,
    splits: Arc<Splits>,
    disk: Arc<Disk>,
}

/// What a [`View`] holds, for status.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub runs: u64,
    pub spans: u64,
    /// Of table files.
    pub bytes: u64,
    /// Of the OTLP that went into them.
    pub raw_bytes: u64,
    pub damaged_runs: u64,
    /// When the oldest and the newest batch in runs became durable, Unix nanoseconds.
    pub oldest_received: Option<u64>,
    pub newest_received: Option<u64>,
    account: SealedAccount,
}

impl Summary {
    /// Spans of a pipeline that are not waiting to be sealed: in runs, dropped from them, or lost before.
    #[must_use]
    pub fn accounted(&self, pipeline: PipelineId) -> u64 {
        self.account.accounted(pipeline.0)
    }
}

impl Runs {
    /// Reads the registry, and removes files that a crash left behind. Blocking.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn open(database: Database, metrics: Metrics, memory: Memory) -> Result<Self, RunsError> {
        let disk = Arc::new(Disk::new(database, metrics, memory));
        let mut records = record::load_runs(&disk.database)?;
        if disk.database.access() == Access::ReadWrite {
            mend::remove_replaced(&disk.database, &records)?;
            mend::take_back(&disk.database, &mut records)?;
        }
        let runs: Vec<_> = records.into_iter().map(|record| Arc::new(disk::Run::new(record))).collect();
        mend::set_incomplete_aside(&disk, &runs)?;
        let sealed = record::load_sealed(&disk.database)?;
        let splits = Arc::new(Splits::load(&disk.database)?);
        let segments: Vec<_> = runs.into_iter().flat_map(|run| RunSegment::all_of(run, &disk)).collect();
        splits.remember(&segments);
        let pins = Arc::new(Pins::load(&disk.database)?);
        let pinned = pins::searchable(&disk.database, &disk.unpacker, disk.pinned_bytes_max)?;
        let view = View { sealed, segments, pinned, splits: Arc::clone(&splits), disk: Arc::clone(&disk) };
        view.count(&disk.metrics);
        let runs = Self { disk, view: Arc::new(ArcSwap::from_pointee(view)), splits, pins };
        if runs.database().access() == Access::ReadWrite {
            runs.remove_unregistered()?;
        }
        Ok(runs)
    }

    /// All runs as they stand now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub fn database(&self) -> &Database {
        &self.disk.database
    }

    pub fn metrics(&self) -> &Metrics {
        &self.disk.metrics
    }

    /// Table files that belong to no registered run: of a run whose sealing was cut short, or one that was being dropped.
    pub(super) fn remove_unregistered(&self) -> Result<(), RunsError> {
        let view = self.view();
        let key = |segment: &Arc<RunSegment>| segment.run().key();
        let (first, last) = (view.segments.first().map(key), view.segments.last().map(key));
        let raw = self.disk.database.raw();
        for family in [TRACE, COLUMN] {
            let family = self.disk.database.family(family);
            if let Some(first) = first {
                raw.delete_file_in_range_cf(family, [0].as_slice(), first.bytes().as_slice())?;
            }
            let behind = last.map_or_else(|| vec![0], RunKey::last);
            raw.delete_file_in_range_cf(family, behind.as_slice(), BEHIND_ALL.as_slice())?;
        }
        Ok(())
    }

    /// The key of the next run: never before the last one's, whatever the clock says.
    pub(super) fn next_key(&self, first: Seq, unix_hour: u32) -> RunKey {
        let last = self.view().segments.last().map_or(0, |segment| segment.run().key().hour);
        RunKey { hour: unix_hour.max(last), first: first.0 }
    }

    /// Registers a run whose files are ingested, and moves the sealed cursor, in one synced write.
    pub(super) fn register(&self, run: RunRecord, sealed: SealedAccount) -> Result<(), RunsError> {
        let view = self.view();
        let run = Arc::new(disk::Run::new(run));
        let new = RunSegment::all_of(Arc::clone(&run), &self.disk);
        let mut marks = self.splits.find(&view.segments, &new)?;
        if !run.is_served() {
            // What was just written cannot be read back: the spool must keep its own, and it is sealed again.
            self.disk.database.raw().delete_cf(self.disk.database.family(META), run_key(run.key()))?;
            return Err(RunsError::Read(SegmentError::Read("what was just written cannot be read back".to_owned())));
        }
        for segment in &new {
            let also_pinned = view.pinned_traces_of(segment);
            if !also_pinned.is_empty() {
                marks.entry(segment.id()).or_default().extend(also_pinned);
            }
        }
        let mut write = WriteBatch::default();
        let meta = self.disk.database.family(META);
        write.put_cf(meta, run_key(run.key()), record::encode(&run.record));
        write.put_cf(meta, SEALED_KEY, record::encode(&sealed));
        for (segment, traces) in self.splits.merged(&marks) {
            write.put_cf(meta, split_key(segment), record::encode(&traces));
        }
        self.disk.database.raw().write_opt(write, &synced())?;
        self.splits.add(&marks);
        self.show(sealed, view.segments.iter().cloned().chain(new).collect());
        self.trim_filters();
        Ok(())
    }

    /// Moves the sealed cursor over batches that gave no run.
    pub(super) fn pass_over(&self, sealed: SealedAccount) -> Result<(), RunsError> {
        let meta = self.disk.database.family(META);
        self.disk.database.raw().put_cf(meta, SEALED_KEY, record::encode(&sealed))?;
        self.show(sealed, self.view().segments.clone());
        Ok(())
    }

    /// Keeps the spans of a trace when their run is dropped, those to come included.
    ///
    /// # Errors
    /// Too many are pinned, or the disk cannot be written.
    pub fn pin(&self, trace: TraceId) -> Result<(), PinError> {
        self.pins.hold().pin(&self.disk.database, trace)
    }

    /// Its spans go with their runs from now on; what is left of runs that were dropped goes at once.
    ///
    /// # Errors
    /// The disk cannot be written.
    pub fn unpin(&self, trace: TraceId) -> Result<(), RunsError> {
        let mut pins = self.pins.hold();
        pins.unpin(&self.disk.database, trace)?;
        self.show_pinned(&pins)
    }

    #[must_use]
    pub fn pinned(&self) -> Vec<TraceId> {
        self.pins.hold().list()
    }

    /// Makes filters of segments that have none yet, newest first, as long as there is room for them. Reads the ids of their
    /// traces: about 100 KiB a segment.
    /// `between` is asked whether to go on.
    pub(super) fn make_filters(&self, mut between: impl FnMut() -> bool) {
        for segment in self.view().segments.iter().rev() {
            if self.disk.filter_bytes.is_over() || !between() {
                break;
            }
            if !segment.filter().is_set()
                && let Ok(traces) = segment.traces()
            {
                let fingerprints: Vec<u32> = traces.ids.iter().map(|id| id.fingerprint()).collect();
                segment.set_filter(&fingerprints);
            }
        }
        self.trim_filters();
    }

    /// The oldest filters go when there are too many.
    fn trim_filters(&self) {
        for segment in &self.view().segments {
            if !self.disk.filter_bytes.is_over() {
                break;
            }
            segment.clear_filter();
        }
    }

    #[cfg(test)]
    pub(super) fn forget_recent_traces(&self) {
        self.splits.forget_recent();
    }

    /// Only the sealer changes cursor and segments; pinned copies change on other threads, too.
    fn show(&self, sealed: SealedAccount, segments: Vec<Arc<RunSegment>>) {
        self.view.rcu(|view| View { sealed: sealed.clone(), segments: segments.clone(), ..View::clone(view) });
        self.view().count(&self.disk.metrics);
    }

    /// Reads the pinned copies again; nobody changes them meanwhile.
    fn show_pinned(&self, _held: &Held<'_>) -> Result<(), RunsError> {
        let pinned = pins::searchable(&self.disk.database, &self.disk.unpacker, self.disk.pinned_bytes_max)?;
        self.view.rcu(|view| View { pinned: pinned.clone(), ..View::clone(view) });
        Ok(())
    }
}

/// Above all keys of runs: hours have that many only in the year 491,000.
const BEHIND_ALL: [u8; 48] = [0xff; 48];

impl View {
    /// [`SealedView::may_hold`], whenever the trace was.
    #[cfg(test)]
    pub(super) fn may_hold(&self, trace: TraceId) -> bool {
        SealedView::may_hold(self, trace, 0, u64::MAX)
    }

    /// The first batch that is in no run.
    #[must_use]
    pub fn sealed(&self) -> Seq {
        Seq(self.sealed.position)
    }

    pub(super) fn account(&self) -> &SealedAccount {
        &self.sealed
    }

    /// Segments that can be searched, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<RunSegment>> {
        self.segments.iter().filter(|segment| segment.run().is_served())
    }

    /// Records of all runs, those set aside included, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &RunRecord> {
        self.first_segments().map(|segment| &segment.run().record)
    }

    /// Records of the runs that can be searched and were not thinned, oldest first.
    pub(super) fn unthinned(&self) -> impl Iterator<Item = &RunRecord> {
        let runs = self.first_segments().map(|segment| segment.run());
        runs.filter(|run| run.is_served() && !run.is_thinned()).map(|run| &run.record)
    }

    fn first_segments(&self) -> impl DoubleEndedIterator<Item = &Arc<RunSegment>> {
        self.segments.iter().filter(|segment| segment.is_first())
    }

    /// The segments of one run.
    pub(super) fn of(&self, run: RunKey) -> Vec<Arc<RunSegment>> {
        self.segments.iter().filter(|segment| segment.run().key() == run).cloned().collect()
    }

    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary { account: self.sealed.clone(), ..Summary::default() };
        for segment in self.first_segments() {
            let record = &segment.run().record;
            summary.runs += 1;
            summary.spans += record.spans();
            summary.bytes += record.file_bytes;
            summary.raw_bytes += record.raw_bytes;
            summary.damaged_runs += u64::from(segment.run().is_set_aside());
            summary.oldest_received = Some(
                summary.oldest_received.map_or(record.oldest_received, |oldest| oldest.min(record.oldest_received)),
            );
            summary.newest_received = summary.newest_received.max(Some(record.newest_received));
        }
        summary
    }

    /// The numbers of those traces of a segment of which pinned copies are kept.
    fn pinned_traces_of(&self, segment: &RunSegment) -> Vec<u32> {
        let Some(pinned) = &self.pinned else { return Vec::new() };
        let Ok(traces) = segment.traces() else { return Vec::new() };
        let ids = pinned.built.index.traces.ids.iter();
        ids.filter_map(|id| traces.position(*id)).map(|trace| trace as u32).collect()
    }

    fn pinned_as_segment(&self) -> Option<Arc<dyn Segment>> {
        let searchable = self.pinned.as_ref().filter(|pinned| pinned.rows() > 0);
        searchable.map(|pinned| Arc::clone(pinned) as Arc<dyn Segment>)
    }

    fn count(&self, metrics: &Metrics) {
        let mut spans_by_run = BTreeMap::new();
        for segment in &self.segments {
            *spans_by_run.entry(segment.run().key()).or_insert(0) += u64::from(segment.record().rows);
        }
        metrics.runs.set(spans_by_run.len() as i64);
        metrics.spans.set(spans_by_run.values().sum::<u64>() as i64);
        metrics.bytes.set(self.records().map(|run| run.file_bytes as i64).sum());
        metrics.damaged_runs.set(self.first_segments().filter(|segment| segment.run().is_set_aside()).count() as i64);
    }
}

fn piece(segment: &Arc<RunSegment>, trace: usize) -> Piece {
    Piece { segment: Arc::clone(segment) as Arc<dyn Segment>, trace }
}

impl sealed::Sealed for Runs {
    fn view(&self) -> Arc<dyn SealedView> {
        Runs::view(self)
    }
}

impl SealedView for View {
    fn sealed_to(&self) -> Seq {
        self.sealed()
    }

    fn segments(&self, start: u64, end: u64) -> Vec<Arc<dyn Segment>> {
        let overlaps = |segment: &&Arc<RunSegment>| {
            let times = segment.times();
            times.max_start >= start && times.min_start <= end
        };
        let runs = View::segments(self).filter(overlaps).map(|segment| Arc::clone(segment) as Arc<dyn Segment>);
        runs.chain(self.pinned_as_segment()).collect()
    }

    /// By when batches were received, not by the times of spans: late ones and pinned traces are older than what is kept.
    /// What a run that is set aside had is not here.
    fn whole_since(&self) -> Option<u64> {
        let (mut oldest, mut missing_to) = (None, 0);
        for segment in &self.segments {
            let record = &segment.run().record;
            if segment.run().is_served() {
                oldest = Some(oldest.map_or(record.oldest_received, |oldest: u64| oldest.min(record.oldest_received)));
            } else {
                missing_to = missing_to.max(record.newest_received.saturating_add(1));
            }
        }
        oldest.map(|oldest| oldest.max(missing_to))
    }

    /// One look at a filter per segment, and one at a block per segment that has the trace and whose traces nobody knows: to
    /// inflate a block takes longer than all else, and a query asks for many traces of the same few segments.
    fn pieces(&self, trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        let mut found = Vec::new();
        let fingerprint = trace.fingerprint();
        let mut unknown = Vec::new();
        for segment in self.segments().filter(|segment| segment.filter().may_hold(fingerprint)) {
            match segment.known_traces() {
                Some(traces) => found.extend(traces.position(trace).map(|trace| piece(segment, trace))),
                None => unknown.push(segment),
            }
        }
        self.disk.each_piece(unknown, trace, |segment, value| {
            if segment.run().is_served()
                // Damage sets the run aside, and hides no other.
                && let Some(trace) = segment.trace_of_piece(value)?
            {
                found.push(piece(segment, trace));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        found.sort_by_key(|piece| piece.segment.id());
        if let Some(pinned) = &self.pinned
            && let Some(trace) = pinned.built.index.traces.position(trace)
        {
            found.insert(0, Piece { segment: Arc::clone(pinned) as Arc<dyn Segment>, trace });
        }
        Ok(found)
    }

    fn may_hold(&self, trace: TraceId, start: u64, end: u64) -> bool {
        let (recently, older) = self.splits.recently(trace, &self.segments);
        let pinned = self.pinned.as_ref().is_some_and(|pinned| pinned.built.index.traces.position(trace).is_some());
        if recently || pinned {
            return true;
        }
        let of_that_time = |segment: &&Arc<RunSegment>| {
            let times = segment.times();
            times.max_end >= start && times.min_start <= end
        };
        let older = self.segments.get(..older).unwrap_or_default().iter().filter(of_that_time);
        let mut is_found = false;
        let looked = self.disk.each_piece(older, trace, |_, _| {
            is_found = true;
            Ok(ControlFlow::Break(()))
        });
        is_found || looked.is_err()
    }

    fn may_be_split(&self, segment: &dyn Segment, trace: usize) -> bool {
        segment.id() == PINNED_SEGMENT || self.splits.contains(segment.id(), trace)
    }

    fn split_traces(&self, segment: &dyn Segment, traces: usize) -> Mask {
        if segment.id() == PINNED_SEGMENT { Mask::all(traces) } else { self.splits.of(segment.id(), traces) }
    }

    fn fragments(&self, trace: TraceId, bytes_max: usize) -> Result<Fragments, SourceError> {
        let unreadable = |error: SegmentError| SourceError::Read(error.to_string());
        let mut fragments = Fragments::default();
        if self.pinned.is_some() {
            let copies = pins::read_copies(&self.disk.database, &self.disk.unpacker, trace, bytes_max);
            fragments.requests = copies.map_err(|error| SourceError::Read(error.to_string()))?;
        }
        let mut bytes = fragments.requests.iter().map(Bytes::len).sum::<usize>();
        fragments.inspected_bytes = bytes as u64;
        // Also of runs that are set aside: what can be read of them is shown.
        let read = self.disk.each_piece(&self.segments, trace, |segment, value| {
            if bytes > bytes_max {
                return Ok(ControlFlow::Break(()));
            }
            fragments.inspected_bytes += value.len() as u64;
            if let Some(fragment) = segment.fragment(trace, value, bytes_max - bytes)? {
                bytes += fragment.request.len();
                fragments.is_cut |= fragment.is_cut;
                fragments.requests.push(fragment.request.into());
            }
            Ok(if fragments.is_cut { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        read.map_err(unreadable)?;
        Ok(fragments)
    }
}
