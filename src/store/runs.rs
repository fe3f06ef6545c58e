//! Sealed runs: what was in the spool, whole traces together, for as long as retention keeps it.
//!
//! ```text
//! meta     "run/" run             what a run holds and where it ends (JSON)
//!          "split/" segment       its traces that have spans elsewhere (JSON)
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
mod metrics;
mod record;
mod segment;
mod slices;
mod splits;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rocksdb::WriteBatch;
use thiserror::Error;

use super::format::FormatError;
use super::format::key::RunKey;
use super::sealed::{self, Fragments, SealedView};
use crate::otlp::TraceId;
use crate::query::SourceError;
use crate::spool::database::{COLUMN, META, TRACE, synced};
use crate::spool::{Database, Seq};
use crate::traceql::segment::{Piece, Segment, SegmentError};

pub use metrics::Metrics;
pub use record::{RunRecord, Sealed, SegmentRecord};
pub use segment::RunSegment;

use disk::Disk;
use record::{SEALED_KEY, run_key, split_key};
use splits::Splits;

/// Runs could not be read or written. The text says what the disk said.
#[derive(Debug, Error)]
pub enum RunsError {
    #[error("the disk: {0}")]
    Disk(#[from] rocksdb::Error),
    #[error("{0}")]
    Format(#[from] FormatError),
    #[error("the record of {what} is damaged: {problem}")]
    Record { what: &'static str, problem: String },
}

/// All runs. Clones share them.
#[derive(Clone)]
pub struct Runs {
    disk: Arc<Disk>,
    view: Arc<ArcSwap<View>>,
    splits: Arc<Splits>,
}

/// All runs at one moment.
pub struct View {
    sealed: Sealed,
    /// By key: oldest first.
    segments: Vec<Arc<RunSegment>>,
    splits: Arc<Splits>,
    disk: Arc<Disk>,
}

impl Runs {
    /// Reads the registry, and removes files that a crash left behind. Blocking.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn open(database: Database, metrics: Metrics) -> Result<Self, RunsError> {
        let disk = Arc::new(Disk::new(database, metrics));
        let runs = record::load_runs(&disk.database)?;
        let sealed = record::load_sealed(&disk.database)?;
        let splits = Arc::new(Splits::load(&disk.database)?);
        let segments: Vec<_> = runs.into_iter().flat_map(|run| RunSegment::all_of(run, &disk)).collect();
        splits.remember(&segments);
        let view = View { sealed, segments, splits: Arc::clone(&splits), disk: Arc::clone(&disk) };
        view.count(&disk.metrics);
        let runs = Self { disk, view: Arc::new(ArcSwap::from_pointee(view)), splits };
        runs.remove_unregistered()?;
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
        let keys = view.segments.iter().map(|segment| segment.run().key());
        let (first, last) = (keys.clone().next(), keys.last());
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
    pub(super) fn register(&self, run: RunRecord, sealed: Sealed) -> Result<(), RunsError> {
        let view = self.view();
        let run = Arc::new(disk::Run::new(run));
        let new = RunSegment::all_of(Arc::clone(&run), &self.disk);
        let marks = self.splits.find(&view.segments, &new)?;
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
        Ok(())
    }

    /// Moves the sealed cursor over batches that gave no run.
    pub(super) fn pass_over(&self, sealed: Sealed) -> Result<(), RunsError> {
        let meta = self.disk.database.family(META);
        self.disk.database.raw().put_cf(meta, SEALED_KEY, record::encode(&sealed))?;
        self.show(sealed, self.view().segments.clone());
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn forget_recent_traces(&self) {
        self.splits.forget_recent();
    }

    fn show(&self, sealed: Sealed, segments: Vec<Arc<RunSegment>>) {
        let view = View { sealed, segments, splits: Arc::clone(&self.splits), disk: Arc::clone(&self.disk) };
        view.count(&self.disk.metrics);
        self.view.store(Arc::new(view));
    }
}

/// Above all keys of runs: hours have that many only in the year 491,000.
const BEHIND_ALL: [u8; 48] = [0xff; 48];

impl View {
    /// The first batch that is in no run.
    #[must_use]
    pub fn sealed(&self) -> Seq {
        Seq(self.sealed.position)
    }

    pub(super) fn account(&self) -> &Sealed {
        &self.sealed
    }

    /// Segments that can be searched, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<RunSegment>> {
        self.segments.iter().filter(|segment| segment.run().is_served())
    }

    /// Records of all runs, those set aside included, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &RunRecord> {
        self.segments.iter().filter(|segment| segment.id().1 == 0).map(|segment| &segment.run().record)
    }

    fn count(&self, metrics: &Metrics) {
        let mut spans_by_run = BTreeMap::new();
        for segment in &self.segments {
            *spans_by_run.entry(segment.run().key()).or_insert(0) += u64::from(segment.record().rows);
        }
        metrics.runs.set(spans_by_run.len() as i64);
        metrics.spans.set(spans_by_run.values().sum::<u64>() as i64);
        metrics.bytes.set(self.records().map(|run| run.file_bytes as i64).sum());
        metrics.damaged_runs.set(self.records().filter(|run| run.damaged.is_some()).count() as i64);
    }
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
        View::segments(self).filter(overlaps).map(|segment| Arc::clone(segment) as Arc<dyn Segment>).collect()
    }

    /// One look at a filter per segment, and one at a block per segment that has the trace.
    fn pieces(&self, trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        let mut found = Vec::new();
        for (segment, value) in self.disk.pieces(&self.segments, trace)? {
            if !segment.run().is_served() {
                continue;
            }
            // Damage sets the run aside, and hides no other.
            if let Some(trace) = segment.trace_of_piece(&value)? {
                found.push(Piece { segment, trace });
            }
        }
        Ok(found)
    }

    fn may_hold(&self, trace: TraceId) -> bool {
        let (recently, older) = self.splits.recently(trace, &self.segments);
        recently
            || self
                .disk
                .pieces(self.segments.get(..older).unwrap_or_default(), trace)
                .map_or(true, |pieces| !pieces.is_empty())
    }

    fn may_be_split(&self, segment: &dyn Segment, trace: usize) -> bool {
        self.splits.contains(segment.id(), trace)
    }

    fn fragments(&self, trace: TraceId, bytes_max: usize) -> Result<Fragments, SourceError> {
        let unreadable = |error: SegmentError| SourceError::Read(error.to_string());
        let mut fragments = Fragments::default();
        let mut bytes = 0;
        // Also of runs that are set aside: what can be read of them is shown.
        for (segment, value) in self.disk.pieces(&self.segments, trace).map_err(unreadable)? {
            if bytes > bytes_max {
                break;
            }
            if let Some(request) = segment.fragment(trace, &value).map_err(unreadable)? {
                bytes += request.len();
                fragments.inspected_bytes += value.len() as u64;
                fragments.requests.push(request);
            }
        }
        Ok(fragments)
    }
}
