//! Thinning: what tail sampling left out of forwarding is taken out of a run once it was kept for its own time.
//!
//! ```text
//! marks of the run's batches ─┐
//! spans that came, by trace ──┴▶ traces of which no span is forwarded ─▶ the others, read and built anew ─▶ two table files
//!                                                            one synced write: their record in the place of the one before
//! ```
//!
//! A trace is taken out of a run only if all of its spans there are marked: what another pipeline forwards, or what was
//! decided otherwise, stays. A run is looked at once, when its newest span is old enough and everything in it is decided
//! about. Whatever is cut short before the one write leaves the run as it was, and is done again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;

use super::{RETRY_INTERVAL_MAX, RunRecord, RunsError, SealError, Sealer, Step, encode};
use crate::otlp::TraceId;
use crate::spool::{Seq, sampled_out};
use crate::store::build::{Builder, Pushed};
use crate::store::format::key::{MADE_ANEW, RunKey};
use crate::store::retention::DropReason;
use crate::store::runs::{RunSegment, SegmentRecord, Unsaved};
use crate::store::seal::pace::{Hurry, Stopped};
use crate::traceql::segment::{Segment, SegmentError, Traces};

/// The files of a run that was made anew.
pub(super) struct Replaced {
    at: Instant,
    run: RunKey,
    segments: Vec<Arc<RunSegment>>,
}

/// A segment with its traces.
type Listed = (Arc<RunSegment>, Arc<Traces>);
/// Stored marks of traces.
type Marks = HashSet<u64, RandomState>;

impl From<SegmentError> for SealError {
    fn from(error: SegmentError) -> Self {
        Self::Runs(RunsError::Read(error))
    }
}

impl Sealer {
    /// Thins the next run, if it is time; whether there was one. A failure is logged, and tried again later.
    pub(super) fn thin(&mut self) -> bool {
        let removed = self.guard(Self::remove_replaced);
        let thinned = match Instant::now() < self.next_thinning {
            true => Ok(false),
            false => removed.and_then(|()| self.guard(Self::thin_if_due)),
        };
        match thinned {
            Ok(is_thinned) => is_thinned,
            Err(SealError::Stopped(_)) => false,
            Err(error) => {
                self.next_thinning = Instant::now() + RETRY_INTERVAL_MAX;
                if let (Some(run), SealError::Runs(RunsError::Read(_))) = (self.thinning.take(), &error) {
                    self.retention.pass_over_thinning(run);
                }
                tracing::warn!(
                    %error,
                    again_in_seconds = RETRY_INTERVAL_MAX.as_secs(),
                    "what was sampled out could not be taken out of an old run; it stays, and that is tried again"
                );
                false
            }
        }
    }

    /// What no query can still read of runs that were made anew.
    fn remove_replaced(&mut self) -> Result<(), SealError> {
        while let Some(Replaced { at, run, segments }) = self.replaced.first()
            && at.elapsed() >= self.settings.release_after
        {
            self.runs.remove_replaced(*run, segments)?;
            self.replaced.remove(0);
        }
        Ok(())
    }

    pub(super) fn thin_if_due(&mut self) -> Result<bool, SealError> {
        let Some(run) = self.retention.next_to_thin(&self.runs, &self.spool) else { return Ok(false) };
        self.thinning = Some(run);
        let segments = self.runs.view().of(run);
        let Some(before) = segments.first().map(|segment| segment.run().record.clone()) else { return Ok(false) };
        let Some(_loan) = self.borrow(before.raw_bytes) else { return Err(Stopped.into()) };
        let mut listed: Vec<Listed> = Vec::with_capacity(segments.len());
        for segment in &segments {
            listed.push((Arc::clone(segment), segment.traces()?));
        }
        let left_out = self.left_out(&before, &listed)?;
        let stays = |trace: &TraceId| !left_out.contains(&sampled_out::stored_mark(trace.long_fingerprint()));
        let ids = || listed.iter().flat_map(|(_, traces)| &traces.ids);
        if left_out.is_empty() {
            self.runs.keep_whole(run)?;
        } else if ids().any(stays) {
            let (anew, file_bytes) = self.make_anew(run, &listed, stays)?;
            let spans: u64 = anew.iter().map(|segment| u64::from(segment.rows)).sum();
            // What of the OTLP is left is not known to the byte.
            let raw_bytes = u128::from(before.raw_bytes) * u128::from(spans) / u128::from(before.spans().max(1));
            let raw_bytes = u64::try_from(raw_bytes).unwrap_or(before.raw_bytes);
            self.runs.replace(RunRecord {
                segments: anew,
                file_bytes,
                raw_bytes,
                thinned: Some(MADE_ANEW),
                ..before
            })?;
            self.replaced.push(Replaced { at: Instant::now(), run, segments });
            self.step(Step::Registered)?;
        } else {
            self.runs.drop_run(run, DropReason::SampledOut, Unsaved::Keep)?;
        }
        self.thinning = None;
        Ok(true)
    }

    /// The traces of a run of which no span is forwarded.
    fn left_out(&self, run: &RunRecord, listed: &[Listed]) -> Result<Marks, SealError> {
        let mut marked: HashMap<u64, u64, RandomState> = HashMap::default();
        let batches = Seq(run.first)..Seq(run.end);
        sampled_out::each(self.runs.database(), batches, |mark, spans| *marked.entry(mark).or_default() += spans)?;
        if marked.is_empty() {
            return Ok(Marks::default());
        }
        let mut came: HashMap<u64, u64, RandomState> = HashMap::default();
        for (segment, traces) in listed {
            for (trace, spans) in traces.ids.iter().zip(segment.arrived(traces)?) {
                *came.entry(sampled_out::stored_mark(trace.long_fingerprint())).or_default() += spans;
            }
        }
        Ok(came.into_iter().filter(|(mark, spans)| marked.get(mark) == Some(spans)).map(|(mark, _)| mark).collect())
    }

    /// Writes the traces of a run that stay into segments beside those that it has.
    fn make_anew(
        &mut self,
        run: RunKey,
        listed: &[Listed],
        stays: impl Fn(&TraceId) -> bool,
    ) -> Result<(Vec<SegmentRecord>, u64), SealError> {
        self.check_free_space()?;
        self.runs.remove_made_anew(run)?;
        let mut pace = self.pace(Hurry::No);
        self.write_files(|sealer, files| {
            let mut anew = Vec::new();
            for (segment, traces) in listed {
                // What was one segment is one again, whatever the names in it.
                let mut builder = Builder::of_any_width();
                let staying = traces.ids.iter().copied().filter(|trace| stays(trace));
                segment.each_request(staying, |request| {
                    let Some(request) = request else { return Ok(pace.rest()?) };
                    match builder.push(request.into(), 0) {
                        Pushed::Whole => Ok(()),
                        // It has no more rows than the segment that it comes from.
                        Pushed::Full { .. } => Err(SealError::Runs(RunsError::Read(SegmentError::Read(
                            "a segment has more spans than it is said to have".to_owned(),
                        )))),
                    }
                })?;
                if builder.rows() > 0 {
                    let key = run.segment(MADE_ANEW + anew.len() as u16);
                    anew.push(encode::write_segment(builder.finish_lean(), key, files, &mut sealer.packer, &mut pace)?);
                }
            }
            Ok(anew)
        })
    }
}
