//! Reading chunks and pieces, and what happens when they cannot be read.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rocksdb::{DBPinnableSlice, ErrorKind, ReadOptions};
use thiserror::Error;

use super::filter::FilterBytes;
use super::record::{RunRecord, encode, run_key};
use super::{Memory, Metrics, RunSegment};
use crate::otlp::TraceId;
use crate::spool::Database;
use crate::spool::database::{COLUMN, META, TRACE};
use crate::store::format::FormatError;
use crate::store::format::chunk::Unpacker;
use crate::store::format::key::RunKey;
use crate::traceql::segment::{SegmentError, SegmentId};

/// Pieces kept because several values of one trace are asked for, one after the other.
const RECENT_PIECES: usize = 8;

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
}

/// A run as it is served.
#[derive(Debug)]
pub struct Run {
    pub record: RunRecord,
    /// Its blocks cannot be read: search leaves it out.
    set_aside: AtomicBool,
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

/// What a problem says of the run that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It will be the same the next time.
    Damaged,
    /// The device cannot read it. Another start, on a device that was mended, may.
    Unreadable,
    /// Nothing: files or memory were short, say.
    Innocent,
}

impl Problem {
    fn verdict(&self) -> Verdict {
        let Self::Disk(error) = self else { return Verdict::Damaged };
        // RocksDB has no codes for what the system said, only its words.
        let says = |words: &str| error.as_ref().contains(words);
        match error.kind() {
            ErrorKind::Corruption => Verdict::Damaged,
            // A table file that is not there, or shorter than it was.
            ErrorKind::IOError if says("No such file") || says("truncated") => Verdict::Damaged,
            ErrorKind::IOError if says("Input/output error") => Verdict::Unreadable,
            _ => Verdict::Innocent,
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
        Self { set_aside: AtomicBool::new(record.damaged.is_some()), gone: AtomicBool::new(false), record }
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

    /// The pieces of a trace in these segments, in their order. A filter rules nearly all others out.
    pub fn pieces(
        &self,
        segments: &[Arc<RunSegment>],
        trace: TraceId,
    ) -> Result<Vec<(Arc<RunSegment>, DBPinnableSlice<'_>)>, SegmentError> {
        let fingerprint = trace.fingerprint();
        let segments: Vec<_> = segments.iter().filter(|segment| segment.filter().may_hold(fingerprint)).collect();
        let keys: Vec<_> = segments.iter().map(|segment| segment.key().trace(trace.0)).collect();
        // Segments are sorted by key, and so are their traces' keys.
        let mut values = self.database.raw().batched_multi_get_cf(self.database.family(TRACE), &keys, true);
        if values.iter().any(Result::is_err) {
            // A file that cannot be read spoils the answers about all others: each is asked alone.
            values =
                keys.iter().map(|key| self.database.raw().get_pinned_cf(self.database.family(TRACE), key)).collect();
        }
        let mut found = Vec::new();
        for (segment, value) in segments.into_iter().zip(values) {
            match value {
                Ok(Some(value)) => found.push((Arc::clone(segment), value)),
                Ok(None) => {}
                Err(error) => match self.fail(segment.run(), Problem::Disk(error)) {
                    SegmentError::Gone => {}
                    error => return Err(error),
                },
            }
        }
        Ok(found)
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
        self.set_aside(run, &text, verdict);
        SegmentError::Gone
    }

    /// Held while a run's record is written or deleted.
    pub fn lock_records(&self) -> MutexGuard<'_, ()> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_aside(&self, run: &Run, problem: &str, verdict: Verdict) {
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
        if verdict == Verdict::Damaged {
            self.record_damage(run, problem);
        }
    }

    fn record_damage(&self, run: &Run, problem: &str) {
        let record = RunRecord { damaged: Some(problem.to_owned()), ..run.record.clone() };
        let _records = self.lock_records();
        if run.is_gone() {
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
        };
        let run = Run::new(record);
        let recorded = || disk.database.raw().get_cf(disk.database.family(META), run_key(run.key())).unwrap();
        disk.record_damage(&run, "a block");
        assert!(recorded().is_some());
        // A reader met the damage before the run was dropped, and comes to record it only now.
        disk.database.raw().delete_cf(disk.database.family(META), run_key(run.key())).unwrap();
        run.set_gone();
        disk.record_damage(&run, "a block");
        assert!(recorded().is_none());
    }
}
