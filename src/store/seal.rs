//! The sealer: one thread that turns what waits in the spool into runs.
//!
//! ```text
//! spool from the sealed cursor ─▶ inflate ─▶ build ─▶ two table files ─▶ ingest ─▶ one synced write: record, cursor
//!                                                                                          └▶ the spool may drop it
//! ```
//!
//! Invariants: a batch is in the tail until the write that registers its run, and in the run from then on. Whatever is cut
//! short before that write is done again from the same batch: files that belong to no registered run are removed first. The
//! sealer gives way to intake and queries ([`pace`]), and when it fails (a full disk) the spool keeps everything.

mod encode;
mod handle;
mod intake;
mod pace;
#[cfg(test)]
mod tests;
mod thin;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rocksdb::{IngestExternalFileOptions, SstFileWriter};
use thiserror::Error;

use super::build::{Builder, Pushed};
use super::format::chunk::Packer;
use super::format::key::{RunKey, SegmentKey};
use super::retention::{Retention, RetentionSettings};
use super::runs::{RunRecord, Runs, RunsError, SegmentRecord};
use crate::otlp::Signal;
use crate::spool::database::{COLUMN, TRACE, table_options};
use crate::spool::{Batch, ReadError, SealedAccount, Seq, Spool, unix_nanos};
use crate::traceql::control::{Loan, Pool};
use encode::Files;
use handle::Command;
pub use handle::Sealing;
use intake::Intake;
use pace::{Hurry, Pace, Stopped};

/// When sealing begins, and how much goes into a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealSettings {
    /// Otherwise nothing is sealed: the spool keeps spans until destinations have them, and no longer.
    pub make_runs: bool,
    /// A run holds about so many spans, at the most: what one segment holds, less a batch.
    pub spans: u64,
    /// Or so many bytes of OTLP, which are in memory while a run is made, and [`MAKING_FACTOR`] times as much with its columns.
    pub raw_bytes: u64,
    /// A run has room for so many bytes of OTLP at the least, whatever queries hold: it is waited for.
    pub raw_bytes_min: u64,
    /// A run that is worth its files is made when its oldest span has waited so long,
    pub age: Duration,
    /// and holds so many bytes;
    pub age_raw_bytes: u64,
    /// a smaller one after so long.
    pub age_max: Duration,
    /// The spool keeps what is sealed so long, for queries that began before.
    pub release_after: Duration,
}

impl Default for SealSettings {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            make_runs: true,
            spans: 60_000,
            raw_bytes: 20 * MIB,
            raw_bytes_min: 6 * MIB,
            age: Duration::from_secs(60),
            age_raw_bytes: 8 * MIB,
            age_max: Duration::from_secs(15 * 60),
            release_after: Duration::from_secs(60),
        }
    }
}

/// How often the sealer looks whether something is to be done.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After a failure, mostly a full disk; twice as long after each one more,
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// up to this.
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(5 * 60);
/// Runs that wait before the sealer stops to pause.
const HURRY_RUNS: u64 = 3;
/// A run takes less than this share of its OTLP.
const RATIO_MIN: u64 = 4;
/// Memory for a run is waited for so long before new queries get less because of it: the spool has room.
const MEMORY_PATIENCE: Duration = Duration::from_secs(20);
/// Making a run takes so many times its OTLP: that, and its columns.
pub const MAKING_FACTOR: u64 = 2;

/// A run could not be made. The spool keeps its spans.
#[derive(Debug, Error)]
pub enum SealError {
    #[error(transparent)]
    Spool(#[from] ReadError),
    #[error(transparent)]
    Runs(#[from] RunsError),
    #[error("the disk: {0}")]
    Disk(#[from] rocksdb::Error),
    #[error("a file for a new run: {0}")]
    File(#[from] std::io::Error),
    #[error("the disk has {free_mib} MiB free, and a new run needs more")]
    DiskFull { free_mib: u64 },
    #[error(
        "the sealer met a defect of Spanreel; please report it with the panic's text, which is in the log before this line"
    )]
    Panicked,
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A test asked for it.
    #[cfg(test)]
    #[error("cut short after {0:?}")]
    CutShort(Step),
}

/// What sealing does one after the other; tests cut it short behind each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    FilesWritten,
    TraceIngested,
    ColumnIngested,
    Registered,
}

/// What waits behind the sealed cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Waiting {
    /// The first batch that was not counted.
    next: u64,
    spans: u64,
    raw_bytes: u64,
    /// When the oldest became durable, Unix nanoseconds.
    oldest: Option<u64>,
    /// Since when there are batches without spans: of other signals, or damaged. The cursor must pass them some time.
    passing_since: Option<Instant>,
}

/// Makes runs, one call after the other.
struct Sealer {
    spool: Spool,
    runs: Runs,
    settings: SealSettings,
    /// What queries and runs in the making hold.
    memory: Arc<Pool>,
    retention: Retention,
    builder: Builder,
    packer: Packer,
    waiting: Waiting,
    /// Cursors that the spool does not know yet, with when they were reached.
    unreleased: Vec<(Instant, Seq)>,
    stopping: Arc<AtomicBool>,
    /// Attempts that failed, one after the other.
    failures: u32,
    /// Not before.
    next_attempt: Instant,
    /// The same for thinning runs.
    next_thinning: Instant,
    /// What thinned runs were made of: queries that began before may read it.
    replaced: Vec<thin::Replaced>,
    /// The run that is thinned.
    thinning: Option<RunKey>,
    #[cfg(test)]
    cut_short_after: Option<Step>,
    #[cfg(test)]
    panics_left: u32,
}

impl Sealer {
    fn new(spool: Spool, runs: Runs, settings: SealSettings, retention: RetentionSettings, memory: Arc<Pool>) -> Self {
        Self {
            memory,
            retention: Retention::new(retention),
            spool,
            runs,
            settings,
            builder: Builder::new(),
            packer: Packer::default(),
            waiting: Waiting::default(),
            unreleased: Vec::new(),
            stopping: Arc::default(),
            failures: 0,
            next_attempt: Instant::now(),
            next_thinning: Instant::now(),
            replaced: Vec::new(),
            thinning: None,
            #[cfg(test)]
            cut_short_after: None,
            #[cfg(test)]
            panics_left: 0,
        }
    }

    fn run(&mut self, commands: &mpsc::Receiver<Command>) {
        let made = self.guard(|sealer| {
            sealer.make_filters();
            Ok(())
        });
        if let Err(error) = made {
            tracing::warn!(%error, "filters of old runs could not all be made; looking up a trace takes longer");
        }
        let mut wait = LOOK_INTERVAL;
        loop {
            match commands.recv_timeout(wait) {
                Ok(Command::SealAll(reply)) => {
                    let _ = reply.send(self.guard(Self::seal_all));
                }
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            wait = self.round();
        }
    }

    /// What is to be done now; returns how long nothing will be. Nothing that fails here keeps the rest from being done.
    fn round(&mut self) -> Duration {
        self.release();
        let kept = self.guard(|sealer| Ok(sealer.retention.keep(&sealer.runs, &sealer.spool)?));
        if let Err(error) = kept {
            tracing::warn!(%error, "old runs could not be dropped; it is tried again");
        }
        let is_thinned = self.thin();
        if !self.settings.make_runs {
            self.pass_over();
            return LOOK_INTERVAL;
        }
        if Instant::now() < self.next_attempt {
            return LOOK_INTERVAL;
        }
        match self.guard(Self::seal_if_due) {
            Ok(is_sealed) => {
                self.failures = 0;
                self.spool.set_sealing_fails(false);
                // There may be more.
                if is_sealed || is_thinned { Duration::ZERO } else { LOOK_INTERVAL }
            }
            Err(SealError::Stopped(_)) => LOOK_INTERVAL,
            Err(error) => {
                self.runs.metrics().seal_failures.inc();
                self.spool.set_sealing_fails(true);
                let wait = RETRY_INTERVAL.saturating_mul(1 << self.failures.min(16)).min(RETRY_INTERVAL_MAX);
                self.failures = self.failures.saturating_add(1);
                self.next_attempt = Instant::now() + wait;
                tracing::warn!(
                    %error,
                    again_in_seconds = wait.as_secs(),
                    "spans could not be sealed; they stay in the spool, and it is tried again"
                );
                LOOK_INTERVAL
            }
        }
    }

    /// A panic costs the step that it happens in, not the thread: the sealer begins anew with what is on disk.
    fn guard<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, SealError>) -> Result<T, SealError> {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| step(self)));
        caught.unwrap_or_else(|_| {
            self.runs.metrics().sealer_panics.inc();
            self.builder = Builder::new();
            self.packer = Packer::default();
            self.waiting = Waiting::default();
            Err(SealError::Panicked)
        })
    }

    fn make_filters(&self) {
        let mut pace = self.pace(Hurry::No);
        self.runs.make_filters(|| pace.rest().is_ok());
    }

    fn pace(&self, hurry: Hurry) -> Pace {
        Pace::new(hurry, Arc::clone(&self.stopping))
    }

    /// What an earlier process sealed may go.
    fn begin(&self) {
        let view = self.runs.view();
        if view.sealed() > Seq(0) {
            self.spool.release(view.sealed());
        } else {
            self.spool.release(self.spool.range().start);
        }
    }

    /// Tells the spool what no query can still need from it.
    fn release(&mut self) {
        let due = self.unreleased.iter().take_while(|(at, _)| at.elapsed() >= self.settings.release_after).count();
        if let Some((_, seq)) = self.unreleased.drain(..due).next_back() {
            self.spool.release(seq);
        }
    }

    /// Whether a run was made.
    fn seal_if_due(&mut self) -> Result<bool, SealError> {
        let from = self.position();
        self.look(from)?;
        let Waiting { spans, raw_bytes, oldest, .. } = self.waiting;
        let age = oldest.map_or(Duration::ZERO, |oldest| Duration::from_nanos(unix_nanos().saturating_sub(oldest)));
        let due = spans >= self.settings.spans
            || raw_bytes >= self.settings.raw_bytes
            || (age >= self.settings.age && raw_bytes >= self.settings.age_raw_bytes)
            || (age >= self.settings.age_max && spans > 0)
            || (spans == 0 && self.waiting.passing_since.is_some_and(|since| since.elapsed() >= self.settings.age))
            || (self.spool.is_short_of_space() && self.spool.oldest_extent_ends_behind(from));
        if !due {
            return Ok(false);
        }
        let hurry = spans >= self.settings.spans.saturating_mul(HURRY_RUNS);
        self.seal_next(if hurry { Hurry::Yes } else { Hurry::No })
    }

    /// Nothing that came waits for a run.
    fn pass_over(&mut self) {
        let end = self.spool.range().end;
        if self.unreleased.last().is_none_or(|(_, last)| *last < end) {
            self.unreleased.push((Instant::now(), end));
        }
    }

    fn seal_all(&mut self) -> Result<(), SealError> {
        if !self.settings.make_runs {
            return Ok(());
        }
        let end = self.spool.range().end;
        while self.position() < end {
            self.look(self.position())?;
            self.seal_next(Hurry::Yes)?;
        }
        Ok(())
    }

    /// Where to go on: what the spool dropped is passed over.
    fn position(&self) -> Seq {
        self.runs.view().sealed().max(self.spool.range().start)
    }

    /// Counts what came since the last look.
    fn look(&mut self, from: Seq) -> Result<(), SealError> {
        let end = self.spool.range().end;
        if self.waiting.next < from.0 {
            self.waiting = Waiting { next: from.0, ..Waiting::default() };
        }
        // More than this changes nothing, and reading all headers of a long backlog would take its time at each run.
        let enough = self.settings.spans.saturating_mul(HURRY_RUNS);
        while self.waiting.next < end.0 && self.waiting.spans < enough {
            let header = self.spool.trace_header(Seq(self.waiting.next))?;
            if header.is_none() {
                self.waiting.passing_since.get_or_insert_with(Instant::now);
            }
            if let Some(header) = header {
                self.waiting.spans += u64::from(header.spans);
                self.waiting.raw_bytes += u64::from(header.raw_bytes);
                self.waiting.oldest.get_or_insert(header.received);
            }
            self.waiting.next += 1;
        }
        Ok(())
    }

    /// Makes a run of what waits, as much as fits. `false`: nothing waits.
    fn seal_next(&mut self, hurry: Hurry) -> Result<bool, SealError> {
        let (from, end) = (self.position(), self.spool.range().end);
        if from >= end {
            return Ok(false);
        }
        self.check_free_space()?;
        // A failure may have left half a run, in files or in the builder.
        self.runs.remove_unregistered()?;
        if self.builder.rows() > 0 {
            self.builder = Builder::new();
        }
        let Some(mut loan) = self.borrow(self.waiting.raw_bytes) else { return Err(Stopped.into()) };
        let raw_bytes_max = (loan.bytes() as u64 / MAKING_FACTOR).min(self.settings.raw_bytes);
        let mut pace = self.pace(hurry);
        let mut intake = Intake::new(self.sealed_so_far());
        let hour = unix_nanos() / NANOS_PER_HOUR;
        let key = self.runs.next_key(from, u32::try_from(hour).unwrap_or(u32::MAX));
        let mut next = from;
        let (segments, file_bytes) = self.write_files(|sealer, files| {
            // A segment takes 65,535 rows; a batch that needed as many segments would be petabytes.
            let mut segments: Vec<SegmentRecord> = Vec::new();
            while next < end {
                pace.rest()?;
                let Some((batch, request)) = sealer.read(next, &mut intake)? else {
                    next = next.next();
                    continue;
                };
                let full = sealer.builder.rows() > 0
                    && (intake.spans + u64::from(batch.header.spans) > sealer.settings.spans
                        || intake.raw_bytes + request.len() as u64 > raw_bytes_max);
                if full {
                    break;
                }
                let mut pushed = sealer.builder.push(request.clone(), 0);
                if pushed == (Pushed::Full { next: 0 }) {
                    break;
                }
                intake.take(&batch);
                next = next.next();
                // Only a batch that is larger than a segment is cut, and it has a run of its own.
                while let Pushed::Full { next: span } = pushed {
                    segments.push(sealer.write_segment(key.segment(segments.len() as u16), files, &mut pace)?);
                    pushed = sealer.builder.push(request.clone(), span);
                    if matches!(pushed, Pushed::Full { next } if next == span) {
                        break;
                    }
                }
                if !segments.is_empty() {
                    break;
                }
            }
            // What tells new values from known ones goes first: more than a third.
            loan.shrink_to(loan.bytes() * 2 / 3);
            if sealer.builder.rows() > 0 {
                segments.push(sealer.write_segment(key.segment(segments.len() as u16), files, &mut pace)?);
            }
            Ok(segments)
        })?;
        intake.sealed.position = next.0;
        if segments.iter().all(|segment| segment.rows == 0) {
            let lost = intake.lost;
            self.runs.pass_over(intake.sealed)?;
            self.count_lost(lost);
            self.unreleased.push((Instant::now(), next));
            self.waiting = Waiting::default();
            return Ok(true);
        }
        let run = RunRecord {
            hour: key.hour,
            first: key.first,
            end: next.0,
            segments,
            file_bytes,
            raw_bytes: intake.raw_bytes,
            oldest_received: intake.oldest_received,
            newest_received: intake.newest_received,
            damaged: None,
            thinned: None,
        };
        let spans = run.spans();
        self.runs.register(run, intake.sealed)?;
        self.unreleased.push((Instant::now(), next));
        // What is left is counted again.
        self.waiting = Waiting::default();
        let metrics = self.runs.metrics();
        metrics.sealed_spans.inc_by(spans);
        metrics.sealed_raw_bytes.inc_by(intake.raw_bytes);
        metrics.written_bytes.inc_by(file_bytes);
        metrics.sealing_seconds.inc_by(pace.worked().as_secs_f64());
        self.count_lost(intake.lost);
        self.step(Step::Registered)?;
        Ok(true)
    }

    fn count_lost(&self, spans: u64) {
        if spans > 0 {
            self.runs.metrics().unsealed_lost_spans.inc_by(spans);
            tracing::warn!(
                spans,
                "spans left the spool before they were sealed, or could not be read; searches do not find them"
            );
        }
    }

    /// Memory to make a run of so many bytes of OTLP, or of fewer. `None`: the sealer was told to stop while it waited.
    fn borrow(&self, raw_bytes: u64) -> Option<Loan> {
        let bytes = |raw_bytes: u64| usize::try_from(raw_bytes.saturating_mul(MAKING_FACTOR)).unwrap_or(usize::MAX);
        let (least, most) = (self.settings.raw_bytes_min, self.settings.raw_bytes.max(self.settings.raw_bytes_min));
        let wanted = bytes(raw_bytes.clamp(least, most));
        self.memory.lend(bytes(least), wanted, MEMORY_PATIENCE, || !self.stopping.load(Ordering::Relaxed))
    }

    /// Half of the space that intake leaves free is for runs: what is sealed takes less than it did in the spool, so a
    /// full disk is no reason to stop sealing, but an overfull one is.
    fn check_free_space(&self) -> Result<(), SealError> {
        let needed = self.settings.raw_bytes / RATIO_MIN;
        let free = self.runs.database().free_bytes().unwrap_or(u64::MAX);
        if free < self.retention.settings.free_bytes_min / 2 + needed {
            return Err(SealError::DiskFull { free_mib: free >> 20 });
        }
        Ok(())
    }

    /// Has `write` fill the two files of a run, and takes them into the database. Returns the segments, and the bytes of the
    /// files; where there are no rows there are none.
    fn write_files(
        &mut self,
        write: impl FnOnce(&mut Self, &mut Files<'_, '_>) -> Result<Vec<SegmentRecord>, SealError>,
    ) -> Result<(Vec<SegmentRecord>, u64), SealError> {
        let folder = self.folder()?;
        let (trace_path, column_path) = (folder.join("trace.sst"), folder.join("column.sst"));
        let (trace_options, column_options) = (table_options(TRACE), table_options(COLUMN));
        let mut trace = SstFileWriter::create(&trace_options);
        let mut column = SstFileWriter::create(&column_options);
        trace.open(&trace_path)?;
        column.open(&column_path)?;
        let segments = write(self, &mut Files { trace: &mut trace, column: &mut column })?;
        if segments.iter().all(|segment| segment.rows == 0) {
            return Ok((segments, 0));
        }
        trace.finish()?;
        column.finish()?;
        let file_bytes = trace.file_size() + column.file_size();
        drop((trace, column));
        self.step(Step::FilesWritten)?;
        self.ingest(TRACE, trace_path)?;
        self.step(Step::TraceIngested)?;
        self.ingest(COLUMN, column_path)?;
        self.step(Step::ColumnIngested)?;
        Ok((segments, file_bytes))
    }

    fn write_segment(
        &mut self,
        key: SegmentKey,
        files: &mut Files<'_, '_>,
        pace: &mut Pace,
    ) -> Result<SegmentRecord, SealError> {
        let built = self.builder.finish_lean();
        encode::write_segment(built, key, files, &mut self.packer, pace)
    }

    fn sealed_so_far(&self) -> SealedAccount {
        let view = self.runs.view();
        let mut sealed = view.account().clone();
        if sealed.position == 0 {
            // The first run of this directory: what the spool dropped before nobody lost.
            let snapshot = self.spool.snapshot();
            let traces = snapshot.ledger.known().filter(|(_, account)| account.signal == Signal::Traces);
            let reclaimed = traces.map(|(id, _)| (id.0, snapshot.reclaimed(id)));
            sealed.before = reclaimed.filter(|(_, spans)| *spans > 0).collect();
        }
        sealed
    }

    /// A batch with its bytes; `None`, and its spans are booked, if it cannot be read.
    fn read(&self, seq: Seq, intake: &mut Intake) -> Result<Option<(Batch, Bytes)>, SealError> {
        let Some(batch) = self.spool.trace_batch(seq)? else { return Ok(None) };
        match zstd::bulk::decompress(&batch.frame, batch.header.raw_bytes as usize) {
            Ok(request) => Ok(Some((batch, request.into()))),
            Err(error) => {
                tracing::error!(batch = seq.0, %error, "a stored batch cannot be inflated; its spans are not sealed");
                // The next batch finds that they are missing.
                intake.lost += intake.sealed.book_gap(&batch.header);
                Ok(None)
            }
        }
    }

    /// Where files are made: on the disk they are ingested into.
    fn folder(&self) -> std::io::Result<PathBuf> {
        let folder = self.runs.database().directory().join("sealing");
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn ingest(&self, family: &str, path: PathBuf) -> Result<(), rocksdb::Error> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let database = self.runs.database();
        database.raw().ingest_external_file_cf_opts(database.family(family), &options, vec![path])
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests cut it short here"))]
    fn step(&mut self, _step: Step) -> Result<(), SealError> {
        #[cfg(test)]
        if self.panics_left > 0 {
            self.panics_left -= 1;
            panic!("a test asked for it");
        }
        #[cfg(test)]
        if self.cut_short_after == Some(_step) {
            return Err(SealError::CutShort(_step));
        }
        Ok(())
    }
}

const NANOS_PER_HOUR: u64 = 3_600 * 1_000_000_000;
