//! The store as queries see it: sealed runs and the tail as one.
//!
//! A view of both is taken at one moment: runs first, then the spool from where they end. What is sealed in between is
//! still read from the spool; should the spool have dropped it already, the runs are looked at again.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::assemble::{AssembleLimits, Completeness};
use super::sealed::{Sealed, SealedView};
use super::tail::{Tail, TailSettings, TailView, inflate};
use crate::otlp::TraceId;
use crate::otlp::view::retain_spans;
use crate::otlp::wire::Fields;
use crate::query::{Arrivals, FoundTrace, Look, Mark, Order, SourceError, SpanSource, TraceSource};
use crate::spool::{ReadError, Seq, Spool};
use crate::traceql::control::{Control, Stopped};
use crate::traceql::mask::Mask;
use crate::traceql::segment::{Piece, Segment, SegmentError, SegmentId, Source, Traces};

/// Sealing is slow against looking: one look more is enough, and a few are surely.
const LOOKS_MAX: usize = 4;

/// Batches of other signals that may stand before the first with spans.
const LOOKED_AT_MAX: u64 = 64;

/// Segments of the tail that were not read for this long are built anew when they are.
const IDLE_AFTER: Duration = Duration::from_secs(120);

/// What one look at what arrived inflates: as much as a segment of the tail is made of. A batch may have more by itself.
const ARRIVALS_RAW_BYTES_MAX: u64 = 4 << 20;

/// Of how many batches it reads the headers: those of several seconds of small requests, each with a sync of its own.
/// Batches of other signals are among them.
const ARRIVALS_BATCHES_MAX: u64 = 4096;

/// Traces and spans out of what is on disk. Clones share what is kept in memory.
#[derive(Clone)]
pub struct Store {
    spool: Spool,
    sealed: Arc<dyn Sealed>,
    pub(super) tail: Tail,
}

impl Store {
    #[must_use]
    pub fn new(spool: Spool, sealed: Arc<dyn Sealed>, settings: TailSettings) -> Self {
        let tail = Tail::new(spool.clone(), settings);
        Self { spool, sealed, tail }
    }

    /// Makes ready what the first query would wait for, then gives back memory that queries needed and no query needs any more,
    /// until `shutdown`.
    pub async fn housekeep(self, shutdown: CancellationToken) {
        let store = self.clone();
        // What cannot be read says so when a query reads it.
        let _ = tokio::task::spawn_blocking(move || store.searchable().is_ok()).await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(IDLE_AFTER) => self.tail.release_idle(self.look().1.start),
            }
        }
    }

    /// The runs, and the batches that are in none of them.
    fn look(&self) -> (Arc<dyn SealedView>, Range<Seq>) {
        let mut view = self.sealed.view();
        for _ in 1..LOOKS_MAX {
            let batches = self.spool.range();
            if batches.start <= view.sealed_to() {
                break;
            }
            let again = self.sealed.view();
            let same = again.sealed_to() == view.sealed_to();
            view = again;
            if same {
                // The budget dropped batches before they were sealed.
                break;
            }
        }
        let batches = self.spool.range();
        let first = batches.start.max(view.sealed_to());
        (view, first..batches.end.max(first))
    }

    /// Since when everything that was received is here, Unix nanoseconds: behind the last hole. Holes are what runs lack, by
    /// their own account, and what was dropped before it was sealed: then it is whole from the first batch with spans on.
    fn whole_since(&self, runs: &dyn SealedView, batches: &Range<Seq>) -> Result<u64, ReadError> {
        if let Some(since) = runs.whole_since().filter(|_| batches.start <= runs.sealed_to()) {
            return Ok(since);
        }
        let batches = batches.start.0..batches.end.0.min(batches.start.0.saturating_add(LOOKED_AT_MAX));
        for batch in batches {
            if let Some(header) = self.spool.trace_header(Seq(batch))? {
                return Ok(header.received);
            }
        }
        Ok(u64::MAX)
    }

    fn fragments(&self, id: TraceId, limits: &AssembleLimits) -> Result<(FoundTrace, Seq), SourceError> {
        let (runs, batches) = self.look();
        // Repeated spans and envelopes shrink the whole, so some excess is needed to be sure of it.
        let bytes_max = limits.trace_bytes_max.saturating_mul(2);
        let from_runs = runs.fragments(id, bytes_max)?;
        let mut fragment_bytes: usize = from_runs.requests.iter().map(|request| request.len()).sum();
        if from_runs.is_cut {
            let inspected_bytes = from_runs.inspected_bytes;
            let found =
                FoundTrace { fragments: from_runs.requests, completeness: Completeness::Truncated, inspected_bytes };
            return Ok((found, runs.sealed_to()));
        }
        let mut found = FoundTrace {
            fragments: from_runs.requests,
            completeness: Completeness::Complete,
            inspected_bytes: from_runs.inspected_bytes,
        };
        let in_tail = self.spool.find(id.fingerprint())?.into_iter().filter(|seq| *seq >= batches.start);
        for seq in in_tail {
            if fragment_bytes > bytes_max {
                break;
            }
            // `None`: the budget dropped it since the index was asked, or it is damaged.
            let Some(batch) = self.spool.trace_batch(seq)? else { continue };
            let Some(request) = inflate(&batch) else { continue };
            found.inspected_bytes += request.len() as u64;
            let fragment = retain_spans(&request, |span| trace_id(span) == Some(id));
            if !fragment.is_empty() {
                fragment_bytes += fragment.len();
                found.fragments.push(fragment.into());
            }
        }
        if fragment_bytes > bytes_max {
            found.completeness = Completeness::Truncated;
        }
        Ok((found, runs.sealed_to()))
    }
}

impl From<ReadError> for SourceError {
    fn from(error: ReadError) -> Self {
        Self::Read(error.to_string())
    }
}

impl TraceSource for Store {
    fn trace(&self, id: TraceId, limits: &AssembleLimits) -> Result<FoundTrace, SourceError> {
        let mut look = self.fragments(id, limits)?;
        for _ in 1..LOOKS_MAX {
            // Batches that were sealed meanwhile may have been dropped before they were read.
            if self.spool.range().start <= look.1 || self.sealed.view().sealed_to() == look.1 {
                break;
            }
            look = self.fragments(id, limits)?;
        }
        Ok(look.0)
    }
}

fn trace_id(span: &[u8]) -> Option<TraceId> {
    Fields::new(span).map_while(Result::ok).find_map(|field| TraceId::from_wire(field.bytes(1)?))
}

impl SpanSource for Store {
    fn searchable(&self) -> Result<Arc<dyn Source>, SourceError> {
        let (runs, batches) = self.look();
        let (sealed_to, whole_since) = (runs.sealed_to(), self.whole_since(&*runs, &batches)?);
        let tail = self.tail.view(batches)?;
        Ok(Arc::new(Searchable { runs, sealed_to, tail, whole_since, traces: Mutex::default() }))
    }

    fn stored(&self) -> Mark {
        let (Seq(next), spans) = self.spool.end();
        Mark { next, spans }
    }

    fn arrivals(
        &self,
        look: &Look,
        control: &Control,
        each: &mut dyn FnMut(&[u8]) -> Result<(), Stopped>,
    ) -> Result<Arrivals, SourceError> {
        let there = self.spool.range();
        // Numbers only grow: those beyond the end are of another directory, and nothing of this one was missed.
        let [start, end] = [look.batches.start, look.batches.end].map(|seq| seq.clamp(there.start.0, there.end.0));
        let mut batches = match look.order {
            Order::InOrder => start..start,
            Order::NewestFirst => end..end,
        };
        let (mut raw_bytes, mut spans) = (0, 0);
        while batches.start > start || batches.end < end {
            if batches.end - batches.start >= ARRIVALS_BATCHES_MAX || spans >= look.spans_wanted {
                break;
            }
            control.check()?;
            let (next, longer) = match look.order {
                Order::InOrder if batches.end < end => (batches.end, batches.start..batches.end + 1),
                Order::NewestFirst if batches.start > start => (batches.start - 1, batches.start - 1..batches.end),
                _ => break,
            };
            if let Some(header) = self.spool.trace_header(Seq(next))? {
                if raw_bytes > 0 && raw_bytes + u64::from(header.raw_bytes) > ARRIVALS_RAW_BYTES_MAX {
                    break;
                }
                raw_bytes += u64::from(header.raw_bytes);
                spans += u64::from(header.spans);
            }
            batches = longer;
        }
        let mut gone = 0;
        for seq in batches.clone() {
            control.check()?;
            // `None`: of another signal, gone since, or damaged.
            match self.spool.trace_batch(Seq(seq))?.as_ref().and_then(inflate) {
                Some(request) => each(&request)?,
                None => gone += u64::from(seq < self.spool.range().start.0),
            }
        }
        Ok(Arrivals { batches, spans, gone })
    }
}

/// Everything that could be searched at one moment.
struct Searchable {
    runs: Arc<dyn SealedView>,
    sealed_to: Seq,
    tail: TailView,
    whole_since: u64,
    /// The traces of the segments that were asked for last: a query asks for one trace of a segment after the other.
    traces: Mutex<Vec<(SegmentId, Arc<Traces>)>>,
}

/// One for each thread that a query is likely to have.
const TRACES_KEPT: usize = 2;

impl Searchable {
    fn trace_id(&self, segment: &dyn Segment, trace: usize) -> Option<TraceId> {
        let id = segment.id();
        let mut kept = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, traces)) = kept.iter().find(|(other, _)| *other == id) {
            return traces.ids.get(trace).copied();
        }
        let traces = segment.traces().ok()?;
        kept.insert(0, (id, Arc::clone(&traces)));
        kept.truncate(TRACES_KEPT);
        traces.ids.get(trace).copied()
    }

    /// Whether runs may hold spans of a trace of a segment of the tail.
    fn has_more(&self, segment: &dyn Segment, trace: usize, id: TraceId) -> bool {
        let lasted = || {
            let rows = segment.traces().ok()?.rows(trace);
            let (starts, durations) = (segment.starts().ok()?, segment.durations().ok()?);
            let times = starts.get(rows.clone())?.iter().zip(durations.get(rows)?);
            Some(times.fold((u64::MAX, 0), |(from, to), (start, duration)| {
                (from.min(*start), to.max(start.saturating_add(*duration)))
            }))
        };
        let (start, end) = lasted().unwrap_or((0, u64::MAX));
        self.runs.may_hold(id, start, end)
    }
}

impl Source for Searchable {
    fn segments(&self, start: u64, end: u64) -> Vec<Arc<dyn Segment>> {
        let mut segments = self.runs.segments(start, end);
        segments.extend(self.tail.segments(start, end));
        segments.sort_by_key(|segment| std::cmp::Reverse((segment.times().max_start, segment.id())));
        segments
    }

    fn pieces(&self, trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        let mut pieces = self.runs.pieces(trace)?;
        pieces.extend(self.tail.pieces(trace)?);
        Ok(pieces)
    }

    fn may_be_split(&self, segment: &dyn Segment, trace: usize) -> bool {
        if segment.id().0 >= self.sealed_to.0 {
            return self
                .trace_id(segment, trace)
                .is_none_or(|id| self.tail.may_be_split(id) || self.has_more(segment, trace, id));
        }
        let in_tail = || self.trace_id(segment, trace).is_none_or(|id| self.tail.may_hold(id));
        self.runs.may_be_split(segment, trace) || (!self.tail.is_empty() && in_tail())
    }

    /// Of a segment of the tail, runs would be looked into for each of its traces.
    fn split_traces(&self, segment: &dyn Segment) -> Option<Mask> {
        if segment.id().0 >= self.sealed_to.0 {
            return None;
        }
        let traces = segment.traces().ok()?;
        let mut split = self.runs.split_traces(segment, traces.len());
        if !self.tail.is_empty() {
            let in_tail = traces.ids.iter().enumerate().filter(|(_, id)| self.tail.may_hold(**id));
            in_tail.for_each(|(trace, _)| split.set(trace));
        }
        Some(split)
    }

    fn whole_since(&self) -> u64 {
        self.whole_since
    }
}
