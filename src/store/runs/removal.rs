//! What leaves the runs: a run as a whole, or what was sampled out of one, which is made anew without it.
//!
//! Both are one write: the record of the run, what is kept of pinned traces, marks and marks of splits. Files go behind it;
//! what a crash leaves of them is removed by the next start or attempt.

use std::sync::Arc;

use rocksdb::WriteBatch;

use super::pins::{self, Held};
use super::record::{self, RunRecord, run_key, split_key};
use super::{RunSegment, Runs, RunsError, Unsaved, disk, splits};
use crate::otlp::TraceId;
use crate::spool::database::{COLUMN, META, TRACE, synced};
use crate::spool::{Seq, sampled_out};
use crate::store::format::key::{MADE_ANEW, RunKey};
use crate::store::retention::DropReason;
use crate::traceql::segment::{Segment, SegmentError};

/// Of pinned traces.
#[derive(Debug, Default)]
struct Copies {
    made: u64,
    given_up: u64,
}

impl Runs {
    /// Drops a run: pinned traces are copied, then it leaves the registry, then its files go. `false`: there is none.
    /// The hour that it was in is not kept together: what is dropped is as little as can be.
    ///
    /// # Errors
    /// [`RunsError::Read`]: pinned traces in it cannot be read now; they are given up by [`Unsaved::GiveUp`] alone. Others: the
    /// disk cannot be written.
    pub(in crate::store) fn drop_run(
        &self,
        key: RunKey,
        reason: DropReason,
        unsaved: Unsaved,
    ) -> Result<bool, RunsError> {
        let view = self.view();
        let (dropped, kept): (Vec<_>, Vec<_>) =
            view.segments.iter().cloned().partition(|segment| segment.run().key() == key);
        let Some(run) = dropped.first().map(|segment| segment.run().record.clone()) else { return Ok(false) };
        let database = &self.disk.database;
        let meta = database.family(META);
        let mut write = WriteBatch::default();
        let pins = self.pins.hold();
        let copies = self.copy_pinned(&pins, &dropped, |_| true, unsaved, &mut write)?;
        write.delete_cf(meta, run_key(key));
        for segment in &dropped {
            write.delete_cf(meta, split_key(segment.id()));
        }
        sampled_out::forget(database, Seq(run.end), &mut write)?;
        {
            let _records = self.disk.lock_records();
            // Synced: files that are gone must not be registered after a power cut.
            database.raw().write_opt(write, &synced())?;
            dropped.iter().for_each(|segment| segment.run().set_gone());
        }
        if copies.made > 0 {
            self.show_pinned(&pins)?;
        }
        drop(pins);
        dropped.iter().for_each(|segment| self.splits.forget(segment.id()));
        self.show(view.sealed.clone(), kept);
        self.remove_files((key.bytes().to_vec(), key.last()))?;
        database.remove_set_aside(&key.bytes());
        self.disk.metrics.count_drop(reason, run.spans(), run.file_bytes);
        self.tell_given_up(key, copies.given_up);
        tracing::debug!(run = key.first, spans = run.spans(), reason = reason.as_str(), "a run was dropped");
        Ok(true)
    }

    /// Registers a run, whose files are ingested, in the place of the one it was made of; pinned traces that are not in it are
    /// copied. Queries that have begun go on reading the one before, until [`Self::remove_replaced`].
    ///
    /// # Errors
    /// What was written, or pinned traces in the run before, cannot be read; or the disk cannot be written. The run stays as
    /// it was.
    pub(in crate::store) fn replace(&self, record: RunRecord) -> Result<(), RunsError> {
        let view = self.view();
        let key = record.key();
        let old = view.of(key);
        let Some(before) = old.first().map(|segment| segment.run().record.clone()) else { return Ok(()) };
        let run = Arc::new(disk::Run::new(record));
        // Should it not be readable, that is not to be recorded in the place of the one that is.
        run.set_replaced(true);
        let new = RunSegment::all_of(Arc::clone(&run), &self.disk);
        let database = &self.disk.database;
        let meta = database.family(META);
        let mut write = WriteBatch::default();
        let (mut recent, mut marks, mut kept) = (Vec::new(), splits::Marks::new(), Vec::new());
        for segment in &new {
            recent.push(splits::Recent::read(segment).map_err(RunsError::Read)?);
            let split = self.splits.inherited(&old, segment).map_err(RunsError::Read)?;
            if !split.is_empty() {
                marks.insert(segment.id(), split);
            }
            kept.push(segment.traces().map_err(RunsError::Read)?);
        }
        let pins = self.pins.hold();
        let is_left_out = |trace: TraceId| kept.iter().all(|traces| traces.position(trace).is_none());
        let copies = self.copy_pinned(&pins, &old, is_left_out, Unsaved::Keep, &mut write)?;
        write.put_cf(meta, run_key(key), record::encode(&run.record));
        old.iter().for_each(|segment| write.delete_cf(meta, split_key(segment.id())));
        for (segment, traces) in &marks {
            write.put_cf(meta, split_key(*segment), record::encode(traces));
        }
        sampled_out::forget(database, Seq(run.record.end), &mut write)?;
        {
            let _records = self.disk.lock_records();
            // Synced: the files before must not be registered when they are gone.
            database.raw().write_opt(write, &synced())?;
            run.set_replaced(false);
            old.iter().for_each(|segment| segment.run().set_replaced(true));
        }
        if copies.made > 0
            && let Err(error) = self.show_pinned(&pins)
        {
            tracing::warn!(%error, "pinned traces of a run are found by id alone until the next start");
        }
        drop(pins);
        self.splits.replace(&old, recent);
        self.splits.add(&marks);
        let at = view.segments.iter().position(|segment| segment.run().key() == key).unwrap_or_default();
        let mut segments = view.segments.clone();
        segments.splice(at..at + old.len(), new);
        self.show(view.sealed.clone(), segments);
        self.trim_filters();
        let metrics = &self.disk.metrics;
        metrics.written_bytes.inc_by(run.record.file_bytes);
        let spans = before.spans().saturating_sub(run.record.spans());
        let bytes = before.file_bytes.saturating_sub(run.record.file_bytes);
        metrics.count_drop(DropReason::SampledOut, spans, bytes);
        self.tell_given_up(key, copies.given_up);
        tracing::debug!(run = key.first, spans, "what was sampled out of a run was dropped");
        Ok(())
    }

    /// Remembers of a run that there is nothing to be taken out of it.
    pub(in crate::store) fn keep_whole(&self, key: RunKey) -> Result<(), RunsError> {
        let view = self.view();
        let Some(segment) = view.of(key).into_iter().next() else { return Ok(()) };
        let run = segment.run();
        let record = RunRecord { thinned: Some(0), ..run.record.clone() };
        let mut write = WriteBatch::default();
        write.put_cf(self.disk.database.family(META), run_key(key), record::encode(&record));
        sampled_out::forget(&self.disk.database, Seq(record.end), &mut write)?;
        let _records = self.disk.lock_records();
        // Not synced: it would only be looked at again.
        self.disk.database.raw().write(write)?;
        run.set_thinned();
        Ok(())
    }

    /// The files of a run before [`Self::replace`] go; `segments` are its segments then.
    pub(in crate::store) fn remove_replaced(&self, key: RunKey, segments: &[Arc<RunSegment>]) -> Result<(), RunsError> {
        for segment in segments {
            segment.run().set_gone();
            self.splits.forget(segment.id());
        }
        self.remove_files(key.from_segment(0))
    }

    /// What an attempt to make a run anew left.
    pub(in crate::store) fn remove_made_anew(&self, key: RunKey) -> Result<(), RunsError> {
        self.remove_files(key.from_segment(MADE_ANEW))
    }

    /// Files all of whose keys lie between two, both included.
    fn remove_files(&self, (first, last): (Vec<u8>, Vec<u8>)) -> Result<(), RunsError> {
        let database = &self.disk.database;
        for family in [TRACE, COLUMN] {
            database.raw().delete_file_in_range_cf(database.family(family), &first, &last)?;
        }
        Ok(())
    }

    /// Copies what these segments have of pinned traces that are asked for.
    fn copy_pinned(
        &self,
        pins: &Held<'_>,
        segments: &[Arc<RunSegment>],
        is_wanted: impl Fn(TraceId) -> bool,
        unsaved: Unsaved,
        write: &mut WriteBatch,
    ) -> Result<Copies, RunsError> {
        let mut copies = Copies::default();
        for trace in pins.list().into_iter().filter(|trace| is_wanted(*trace)) {
            let mut request = Vec::new();
            for segment in segments {
                match segment.copy_of(trace) {
                    Ok(copy) => request.extend_from_slice(&copy.unwrap_or_default()),
                    Err(error) if unsaved == Unsaved::Keep && !matches!(error, SegmentError::Gone) => {
                        return Err(RunsError::Read(error));
                    }
                    Err(_) => copies.given_up += 1,
                }
            }
            if let Some(first) = segments.first().filter(|_| !request.is_empty()) {
                pins::put_copy(write, &self.disk.database, trace, first.run().key(), &request);
                copies.made += 1;
            }
        }
        Ok(copies)
    }

    fn tell_given_up(&self, key: RunKey, traces: u64) {
        if traces > 0 {
            self.disk.metrics.pinned_unsaved.inc_by(traces);
            tracing::error!(
                run = key.first,
                traces,
                "a run that cannot be read was dropped; what it had of pinned traces could not be kept"
            );
        }
    }
}
