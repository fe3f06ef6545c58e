//! Reading chunks and pieces, and what happens when they cannot be read.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rocksdb::{DBPinnableSlice, ReadOptions};
use thiserror::Error;

use super::filter::FilterBytes;
use super::record::{RunRecord, encode, run_key};
use super::{Memory, Metrics, RunSegment};
use crate::otlp::TraceId;
use crate::spool::database::{COLUMN, META, TRACE, Verdict};
use crate::spool::{Access, Database};
use crate::store::format::FormatError;
use crate::store::format::chunk::Unpacker;
use crate::store::format::key::RunKey;
use crate::traceql::segment::{Parent, SegmentError, SegmentId};

/// Pieces kept because several values of one trace are asked for, one after the other.
const RECENT_PIECES: usize = 8;

/// Slices of parents kept, 64 KiB each: about one for each thread of the queries that may run.
const RECENT_PARENTS: usize = 6;

/// Pieces of one trace that are read together,
const PIECES_AT_ONCE: usize = 16;
/// as long as those read before together were not larger.
const SMALL_PIECES_BYTES: usize = 256 * 1024;

/// What all segments read with.
pub(super) struct Disk {
    pub database: Database,
    pub unpacker: Unpacker,
    pub metrics: Metrics,
    pub filter_bytes: FilterBytes,
    /// Of copies of pinned traces that can be searched; further ones are found by id alone.
    pub pinned_bytes_max: usize,
    /// Held by who writes a run's record: one that was dropped must not come back as one that is set aside.
    records: Mutex<()>,
    recent: Mutex<VecDeque<(SegmentId, Arc<PieceSpans>)>>,
    /// Slices of the columns of parents, for who reads one piece after the other.
    recent_parents: Mutex<VecDeque<ParentsSlice>>,
}

/// Which segment, which of its slices, and what stands there.
type ParentsSlice = (SegmentId, usize, Arc<[Parent]>);

/// A run as it is served.
#[derive(Debug)]
pub struct Run {
    pub record: RunRecord,
    /// Its blocks cannot be read: search leaves it out.
    set_aside: AtomicBool,
    /// Its file of pieces is not there.
    pieces_lost: AtomicBool,
    /// There is nothing to be taken out of it that was sampled out.
    thinned: AtomicBool,
    /// Another is registered in its place: only who began before reads it. So it is before it is registered itself.
    replaced: AtomicBool,
    /// Retention dropped it.
    gone: AtomicBool,
}

/// The spans of one piece, by row.
#[derive(Debug, Default)]
pub(super) struct PieceSpans {
    pub rows: Range<usize>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Whether what is read now is likely to be read again soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caching {
    Keep,
    /// It would push out what is.
    Pass,
}

/// Why a chunk was not read.
#[derive(Debug, Error)]
pub(super) enum Problem {
    #[error("{0}")]
    Disk(#[from] rocksdb::Error),
    #[error("{0}")]
    Format(#[from] FormatError),
    /// A chunk that every segment has is not there.
    #[error("a part of it is missing")]
    Missing,
}

impl Problem {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Disk(error) => Verdict::of(error),
            Self::Format(_) | Self::Missing => Verdict::Damaged,
        }
    }
}

impl PieceSpans {
    /// Of these rows, none of which was pushed yet.
    pub fn of(rows: Range<usize>) -> Self {
        Self { rows, ..Self::default() }
    }

    pub fn push(&mut self, span: &[u8]) {
        self.bytes.extend_from_slice(span);
        self.ends.push(self.bytes.len());
    }

    pub fn span(&self, row: usize) -> Option<&[u8]> {
        let index = row.checked_sub(self.rows.start)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.bytes.get(start..*self.ends.get(index)?)
    }
}

impl Run {
    pub fn new(record: RunRecord) -> Self {
        let set_aside = AtomicBool::new(record.damaged.is_some());
        let thinned = AtomicBool::new(record.thinned.is_some());
        let [pieces_lost, replaced, gone] = [(); 3].map(|()| AtomicBool::new(false));
        Self { record, set_aside, pieces_lost, thinned, replaced, gone }
    }

    pub fn key(&self) -> RunKey {
        self.record.key()
    }

    pub fn is_served(&self) -> bool {
        !self.is_set_aside() && !self.is_gone()
    }

    pub fn is_set_aside(&self) -> bool {
        self.set_aside.load(Ordering::Relaxed)
    }

    /// Whether a piece that is not found may have been there.
    pub fn are_pieces_lost(&self) -> bool {
        self.pieces_lost.load(Ordering::Relaxed)
    }

    pub fn set_pieces_lost(&self) {
        self.pieces_lost.store(true, Ordering::Relaxed);
    }

    /// Whether what was sampled out is no longer in it.
    pub fn is_thinned(&self) -> bool {
        self.thinned.load(Ordering::Relaxed)
    }

    pub fn set_thinned(&self) {
        self.thinned.store(true, Ordering::Relaxed);
    }

    /// Whether its record is another's now.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    pub fn set_replaced(&self, replaced: bool) {
        self.replaced.store(replaced, Ordering::Release);
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }
}

impl Disk {
    pub fn new(database: Database, metrics: Metrics, memory: Memory) -> Self {
        Self {
            database,
            unpacker: Unpacker::default(),
            metrics,
            filter_bytes: FilterBytes::up_to(memory.filter_bytes),
            pinned_bytes_max: memory.pinned_bytes,
            records: Mutex::default(),
            recent: Mutex::default(),
            recent_parents: Mutex::default(),
        }
    }

    /// What `read` makes of a chunk's payload; `None` if there is no such chunk.
    pub fn chunk<T>(
        &self,
        key: &[u8],
        caching: Caching,
        read: impl FnOnce(&[u8]) -> Result<T, FormatError>,
    ) -> Result<Option<T>, Problem> {
        let mut options = ReadOptions::default();
        options.fill_cache(caching == Caching::Keep);
        let family = self.database.family(COLUMN);
        let Some(chunk) = self.database.raw().get_pinned_cf_opt(family, key, &options)? else { return Ok(None) };
        let payload = self.unpacker.unpack(&chunk)?;
        Ok(Some(read(&payload)?))
    }

    /// Hands over the pieces of a trace in these segments, in their order, until `each` has enough. A filter rules nearly
    /// all segments out. Few pieces are in memory at once, and large ones alone.
    pub fn each_piece<'s>(
        &self,
        segments: impl IntoIterator<Item = &'s Arc<RunSegment>>,
        trace: TraceId,
        mut each: impl FnMut(&Arc<RunSegment>, &[u8]) -> Result<ControlFlow<()>, SegmentError>,
    ) -> Result<(), SegmentError> {
        let fingerprint = trace.fingerprint();
        let may_hold = |segment: &&Arc<RunSegment>| segment.filter().may_hold(fingerprint);
        let segments: Vec<_> = segments.into_iter().filter(may_hold).collect();
        let (mut rest, mut at_once) = (segments.as_slice(), 1);
        while !rest.is_empty() {
            let (asked, behind) = rest.split_at(at_once.min(rest.len()));
            rest = behind;
            let mut bytes = 0;
            for (segment, value) in asked.iter().zip(self.pieces_of(asked, trace)) {
                match value {
                    Ok(Some(value)) => {
                        bytes += value.len();
                        if each(segment, &value)?.is_break() {
                            return Ok(());
                        }
                    }
                    Ok(None) => {}
                    Err(error) => match self.fail(segment.run(), Problem::Disk(error)) {
                        SegmentError::Gone => {}
                        error => return Err(error),
                    },
                }
            }
            at_once = if bytes > SMALL_PIECES_BYTES { 1 } else { (2 * at_once).min(PIECES_AT_ONCE) };
        }
        Ok(())
    }

    fn pieces_of(
        &self,
        segments: &[&Arc<RunSegment>],
        trace: TraceId,
    ) -> Vec<Result<Option<DBPinnableSlice<'_>>, rocksdb::Error>> {
        let (raw, family) = (self.database.raw(), self.database.family(TRACE));
        let keys: Vec<_> = segments.iter().map(|segment| segment.key().trace(trace.0)).collect();
        // Segments are sorted by key, and so are their traces' keys.
        let values = raw.batched_multi_get_cf(family, &keys, true);
        if values.iter().all(Result::is_ok) {
            return values;
        }
        // A file that cannot be read spoils the answers about all others: each is asked alone.
        keys.iter().map(|key| raw.get_pinned_cf(family, key)).collect()
    }

    pub fn piece(&self, segment: &RunSegment, trace: TraceId) -> Result<Option<DBPinnableSlice<'_>>, rocksdb::Error> {
        self.database.raw().get_pinned_cf(self.database.family(TRACE), segment.key().trace(trace.0))
    }

    pub fn recent_piece(&self, segment: SegmentId, row: usize) -> Option<Arc<PieceSpans>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pieces = recent.iter().filter(|(other, piece)| *other == segment && piece.rows.contains(&row));
        pieces.next().map(|(_, piece)| Arc::clone(piece))
    }

    pub fn remember_piece(&self, segment: SegmentId, piece: Arc<PieceSpans>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_front((segment, piece));
        recent.truncate(RECENT_PIECES);
    }

    pub fn recent_parents(&self, segment: SegmentId, slice: usize) -> Option<Arc<[Parent]>> {
        let recent = self.recent_parents.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slices = recent.iter().filter(|(of, number, _)| (*of, *number) == (segment, slice));
        slices.next().map(|(.., parents)| Arc::clone(parents))
    }

    pub fn remember_parents(&self, segment: SegmentId, slice: usize, parents: Arc<[Parent]>) {
        let mut recent = self.recent_parents.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_front((segment, slice, parents));
        recent.truncate(RECENT_PARENTS);
    }

    /// What a reader is told. Damage sets the run aside: for search it is gone, and everything else is served.
    pub fn fail(&self, run: &Run, problem: Problem) -> SegmentError {
        if run.is_gone() {
            return SegmentError::Gone;
        }
        let text = problem.to_string();
        let verdict = problem.verdict();
        if verdict == Verdict::Innocent {
            return SegmentError::Read(text);
        }
        // Its files may go at any time: retention does not wait for who reads what was made anew.
        if run.is_replaced() {
            return SegmentError::Gone;
        }
        self.set_aside(run, &text, verdict);
        SegmentError::Gone
    }

    /// Held while a run's record is written or deleted.
    pub fn lock_records(&self) -> MutexGuard<'_, ()> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is left out of searches from now on, after the next start too if it is damaged for good.
    pub fn set_aside(&self, run: &Run, problem: &str, verdict: Verdict) {
        if run.set_aside.swap(true, Ordering::AcqRel) {
            return;
        }
        self.metrics.damaged_runs.inc();
        tracing::error!(
            run = run.record.first,
            spans = run.record.spans(),
            problem,
            "a sealed run is damaged: searches leave it out, its readable traces are still found by id; check the disk"
        );
        if verdict == Verdict::Damaged && self.database.access() == Access::ReadWrite {
            self.record_damage(run, problem);
        }
    }

    fn record_damage(&self, run: &Run, problem: &str) {
        let record = RunRecord { damaged: Some(problem.to_owned()), ..run.record.clone() };
        let _records = self.lock_records();
        if run.is_gone() || run.is_replaced() {
            return;
        }
        let meta = self.database.family(META);
        if let Err(error) = self.database.raw().put_cf(meta, run_key(run.key()), encode(&record)) {
            tracing::warn!(%error, "that the run is damaged could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_dropped_does_not_come_back_as_a_damaged_one() {
        let directory = tempfile::TempDir::new().unwrap();
        let disk = Disk::new(
            Database::open(directory.path(), u64::MAX, crate::spool::Memory::default()).unwrap(),
            Metrics::default(),
            Memory::default(),
        );
        let record = RunRecord {
            hour: 1,
            first: 1,
            end: 2,
            segments: Vec::new(),
            file_bytes: 0,
            raw_bytes: 0,
            oldest_received: 0,
            newest_received: 0,
            damaged: None,
            thinned: None,
        };
        let run = Run::new(record.clone());
        let recorded = || disk.database.raw().get_cf(disk.database.family(META), run_key(run.key())).unwrap();
        disk.record_damage(&run, "a block");
        assert!(recorded().is_some());
        // Nor does it take the place of the one that was registered for it.
        let replaced = Run::new(record);
        replaced.set_replaced(true);
        disk.record_damage(&replaced, "another block");
        assert!(!String::from_utf8_lossy(&recorded().unwrap()).contains("another"));
        // A reader met the damage before the run was dropped, and comes to record it only now.
        disk.database.raw().delete_cf(disk.database.family(META), run_key(run.key())).unwrap();
        run.set_gone();
        disk.record_damage(&run, "a block");
        assert!(recorded().is_none());
    }
}
