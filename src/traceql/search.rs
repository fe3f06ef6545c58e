//! Search: the newest traces in which a pipeline yields spansets.
//!
//! ```text
//! segments, latest first ─▶ newest N traces by start ─▶ when no segment left can hold a newer one ─▶ their details,
//!      └ two threads, in rounds that grow ┘                                                          handed on in portions
//! ```
//!
//! Invariants: the answer is exact and the same every time: the N newest by start, of equal starts those with the smallest
//! ids. Details, and pieces in other segments, are read for traces of the answer only. What cannot be read is left out, and
//! [`super::answer::Inspected::segments_done`] does not count it.

mod found;
mod newest;

use std::collections::HashSet;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::answer::{FoundTrace, Inspected, SearchAnswer};
use super::ast::{Query, Root};
use super::column::ROWS_MAX;
use super::control::{Control, Stopped};
use super::error::{Invalid, QueryError};
use super::mask::Mask;
use super::reader::{KeptMask, Reader, Scan};
use super::request::{Overlap, SearchRequest};
use super::segment::{Segment, SegmentError, Source};
use super::trace::evaluate::StartedWithin;
use super::trace::plan::Plan;
use super::trace::view::View;
use super::value::Value;
use crate::otlp::TraceId;
use found::Details;
use newest::{Candidate, Newest};

/// Whoever waits hears of what was found so far at most this often: details of traces cost more than finding them.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// More threads than that would take the processor from those who send spans.
const THREADS_MAX: usize = 2;

/// A second thread is begun only if what is to be looked at next will take longer, by the segments before: to begin one takes
/// about 50 microseconds.
const ALONE_UP_TO: Duration = Duration::from_micros(200);

/// Segments that are looked at between two looks at whether that is enough.
const ROUND_SEGMENTS_MAX: usize = 8;

/// What the memory of a query is charged for a trace that is remembered as seen, for one that is among the newest, and
/// for one in the answer besides its spans and attributes: by size of the structures, rounded up.
const SEEN_BYTES: usize = 48;
const CANDIDATE_BYTES: usize = 64;
const FOUND_TRACE_BYTES: usize = 512;
const FOUND_SPAN_BYTES: usize = 128;

/// Traces whose details are read, and held, at once.
const DETAILED_AT_ONCE: usize = 256;

/// What the segments of a round may have found together before what is too old of it is left out: where many traces are
/// wanted, fewer segments are looked at in one go.
const ROUND_CANDIDATES_MAX: usize = 128 * 1024;

/// Sets of rows are kept for the details of traces if at most so many traces are wanted: each takes 8 KiB per segment.
const TRACES_WITH_MASKS_MAX: usize = 1024;

/// Whoever waits for a search to end.
pub trait Listener {
    /// Whether it wants to hear now what was found so far. To know that costs, so it is asked before.
    fn listens(&self) -> bool {
        false
    }

    fn hear(&mut self, _so_far: &SearchAnswer) {}

    /// Takes the traces of the answer, the newest first, with how much was looked at for all of them; `Break`: no more are
    /// of use.
    fn take(&mut self, _trace: FoundTrace, _inspected: &Inspected) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Waits for the end alone.
pub struct Nobody;

impl Listener for Nobody {}

/// Holds the whole answer, which is memory of its query.
struct Collector<'a> {
    listener: &'a mut dyn Listener,
    control: &'a Control,
    traces: Vec<FoundTrace>,
    stopped: Result<(), Stopped>,
}

impl Listener for Collector<'_> {
    fn listens(&self) -> bool {
        self.listener.listens()
    }

    fn hear(&mut self, so_far: &SearchAnswer) {
        self.listener.hear(so_far);
    }

    fn take(&mut self, trace: FoundTrace, _: &Inspected) -> ControlFlow<()> {
        self.stopped = self.control.reserve(size_of_found(&trace));
        match self.stopped {
            Ok(()) => {
                self.traces.push(trace);
                ControlFlow::Continue(())
            }
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// Runs a search and collects its answer. `listener` is told, now and then, what was found so far, and takes nothing.
///
/// # Errors
/// The query is no search, cannot be evaluated, or is to end early.
pub fn run(
    query: &Query,
    request: &SearchRequest,
    source: &dyn Source,
    control: &Control,
    listener: &mut dyn Listener,
) -> Result<SearchAnswer, QueryError> {
    let mut collector = Collector { listener, control, traces: Vec::new(), stopped: Ok(()) };
    let inspected = each(query, request, source, control, &mut collector)?;
    collector.stopped?;
    Ok(SearchAnswer { traces: collector.traces, inspected })
}

/// Runs a search of which no more is held than a portion of its answer at a time, and the places of the rest. `listener` is told,
/// now and then, what was found so far, and takes the traces at the end.
///
/// # Errors
/// The query is no search, cannot be evaluated, or is to end early.
pub fn each(
    query: &Query,
    request: &SearchRequest,
    source: &dyn Source,
    control: &Control,
    listener: &mut dyn Listener,
) -> Result<Inspected, QueryError> {
    let pace = Pace {
        threads: thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX),
        alone_up_to: ALONE_UP_TO,
        progress_interval: PROGRESS_INTERVAL,
    };
    Search::new(query, request, source, control)?.run(pace, listener)
}

/// How a search goes about its work, which makes no difference to its answer.
struct Pace {
    threads: usize,
    /// One thread does it alone if, by the segments before, it will take no longer.
    alone_up_to: Duration,
    progress_interval: Duration,
}

struct Search<'a> {
    plan: Plan,
    details: Details,
    within: StartedWithin,
    overlapping: Option<Overlap>,
    limit: usize,
    source: &'a dyn Source,
    control: &'a Control,
}

/// What one segment adds.
struct Finds {
    newest: Newest,
    traces: u64,
}

impl<'a> Search<'a> {
    fn new(
        query: &Query,
        request: &SearchRequest,
        source: &'a dyn Source,
        control: &'a Control,
    ) -> Result<Self, QueryError> {
        let Root::Search(pipeline) = &query.root else {
            return Err(Invalid::Unsupported("metrics queries in searches are".into()).into());
        };
        let plan = Plan::compile(pipeline, 0)?;
        let details = Details::new(&plan, request.spans_per_spanset)?;
        let within = StartedWithin { start: request.start, end: request.end };
        Ok(Self { plan, details, within, overlapping: request.overlapping, limit: request.limit, source, control })
    }

    fn run(&self, pace: Pace, listener: &mut dyn Listener) -> Result<Inspected, QueryError> {
        let segments = self.source.segments(self.within.start, self.within.end);
        let mut inspected = Inspected { segments: segments.len() as u64, ..Inspected::default() };
        let mut newest = Newest::new(self.limit, 0);
        let scan = Scan::new(self.source, self.control);
        let mut told = Instant::now();
        let mut left = &segments[..];
        let mut round_segments = 1;
        let round_segments_max = (ROUND_CANDIDATES_MAX / self.limit.clamp(1, ROWS_MAX)).clamp(1, ROUND_SEGMENTS_MAX);
        let mut segment_time = Duration::ZERO;
        while let Some(first) = left.first() {
            self.control.check()?;
            if self.limit == 0 || first.times().max_start < newest.floor() {
                break;
            }
            let (round, rest) = left.split_at(round_segments.min(left.len()));
            left = rest;
            round_segments = (round_segments * 2).min(round_segments_max);
            let threads = if segment_time * round.len() as u32 <= pace.alone_up_to { 1 } else { pace.threads };
            let began = Instant::now();
            let finds = self.round(&scan, round, newest.floor(), threads);
            segment_time = began.elapsed() / round.len() as u32;
            for (segment, finds) in round.iter().zip(finds) {
                match finds {
                    Ok(finds) => {
                        inspected.segments_done += 1;
                        inspected.traces += finds.traces;
                        inspected.spans += segment.rows() as u64;
                        inspected.bytes += segment.stored_bytes();
                        let both = newest.len() + finds.newest.len();
                        newest.merge(finds.newest);
                        self.control.release((both - newest.len()) * CANDIDATE_BYTES);
                    }
                    Err(QueryError::Segment(SegmentError::Gone | SegmentError::Read(_))) => {}
                    Err(error) => return Err(error),
                }
            }
            if !left.is_empty() && told.elapsed() >= pace.progress_interval && listener.listens() {
                let so_far = self.answer(&scan, &newest, inspected)?;
                listener.hear(&so_far);
                self.control.release(so_far.traces.iter().map(size_of_found).sum());
                told = Instant::now();
            }
        }
        self.hand_on(&scan, &newest, &mut |found| listener.take(found, &inspected))?;
        Ok(inspected)
    }

    /// Looks at some segments. Each is looked at in the same way whoever does it, so that answers do not depend on it.
    fn round(
        &self,
        scan: &Scan<'_>,
        segments: &[Arc<dyn Segment>],
        floor: u64,
        threads: usize,
    ) -> Vec<Result<Finds, QueryError>> {
        let taken = AtomicUsize::new(0);
        // From both ends: what a thread reads of neighbours, for traces in pieces, it needs for its next segment anyhow.
        let share = |scan: &Scan<'_>, indices: &mut dyn Iterator<Item = usize>| {
            let mut finds = Vec::new();
            let mut seen = HashSet::new();
            let left = || taken.fetch_add(1, Ordering::Relaxed) < segments.len();
            while left()
                && let Some(index) = indices.next()
                && let Some(segment) = segments.get(index)
            {
                finds.push((index, self.finds(scan, segment, floor, &mut seen)));
            }
            self.control.release(seen.len() * SEEN_BYTES);
            finds
        };
        let mut finds = if segments.len() == 1 || threads < 2 {
            share(scan, &mut (0..segments.len()))
        } else {
            thread::scope(|scope| {
                let other = || share(&Scan::new(self.source, self.control), &mut (0..segments.len()).rev());
                let helper = thread::Builder::new().name("search".into()).spawn_scoped(scope, other);
                let mut finds = share(scan, &mut (0..segments.len()));
                // Without a second thread the first has done everything.
                if let Ok(helper) = helper {
                    finds.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                }
                finds
            })
        };
        finds.sort_by_key(|(index, _)| *index);
        finds.into_iter().map(|(_, finds)| finds).collect()
    }

    /// The newest traces that have a piece in a segment, of those that start at `floor` or later.
    fn finds(
        &self,
        scan: &Scan<'_>,
        segment: &Arc<dyn Segment>,
        floor: u64,
        seen: &mut HashSet<TraceId>,
    ) -> Result<Finds, QueryError> {
        let mut finds = Finds { newest: Newest::new(self.limit, floor), traces: 0 };
        finds.newest.enter(segment);
        let reader = scan.reader(segment);
        // What drives a trace may lie in segments that are not looked at. A single filter decides by each span alone.
        let is_part = self.source.is_part() && self.plan.single_filter().is_none();
        let driven = if is_part { Mask::all(reader.rows()) } else { self.driven(scan, &reader)? };
        if driven.is_empty() {
            return Ok(finds);
        }
        let traces = reader.traces()?;
        let driven = |trace: &usize| driven.any(traces.rows(*trace));
        let mut driven: Vec<usize> = (0..traces.len()).filter(driven).collect();
        if let Some(only) = self.source.only() {
            driven.retain(|trace| traces.ids.get(*trace).is_some_and(|id| only.contains(&id.fingerprint())));
        }
        // Of a trace in pieces, too: it starts no later than any of them.
        let start_of = |trace: usize| reader.start(traces.rows(trace).start);
        if floor > 0 {
            let mut new_enough = Vec::with_capacity(driven.len());
            for trace in driven {
                if start_of(trace)? >= floor {
                    new_enough.push(trace);
                }
            }
            driven = new_enough;
        }
        if let Some(overlap) = self.overlapping {
            let (starts, durations) = (reader.starts()?, reader.durations()?);
            let meets = |row: usize| {
                let start = starts.get(row).copied().unwrap_or(0);
                overlap.meets(start, start.saturating_add(durations.get(row).copied().unwrap_or(0)))
            };
            // Of traces in pieces all of them are looked at later.
            driven.retain(|trace| reader.may_be_split(scan, *trace) || traces.rows(*trace).any(&meets));
        }
        finds.traces = driven.len() as u64;
        if driven.is_empty() {
            return Ok(finds);
        }
        let masks = self.plan.masks(scan, &reader, self.within)?;
        let swept = self.swept(scan, &reader, &masks, &driven)?;
        let may_be_split = |trace: usize| reader.may_be_split(scan, trace);
        let newest = &mut finds.newest;
        // Those that yield nothing by their spans here: with spans elsewhere they may.
        let mut open = Vec::new();
        for trace in driven {
            // Start times are not read as long as they say nothing.
            if newest.floor() > 0 && start_of(trace)? < newest.floor() {
                continue;
            }
            if swept.as_ref().is_some_and(|swept| !swept.any(traces.rows(trace))) {
                open.push(trace);
            } else if may_be_split(trace) {
                self.offer_once(scan, &reader, trace, seen, newest)?;
            } else if !self.plan.yields_one() {
                self.offer(scan, &reader, trace, newest)?;
            } else if let Some(id) = traces.ids.get(trace) {
                newest.offer(start_of(trace)?, *id, trace);
            }
        }
        for trace in open {
            if may_be_split(trace)
                && (newest.floor() == 0 || start_of(trace)? >= newest.floor())
                && (is_part || self.plan.may_yield(&reader, &masks, traces.rows(trace))?)
            {
                self.offer_once(scan, &reader, trace, seen, newest)?;
            }
        }
        if self.limit <= TRACES_WITH_MASKS_MAX && self.control.has_plenty() {
            newest.remember(reader.masks());
        }
        self.control.reserve(newest.len() * CANDIDATE_BYTES)?;
        Ok(finds)
    }

    /// The rows of a segment whose traces are worth a look.
    fn driven(&self, scan: &Scan<'_>, reader: &Rc<Reader>) -> Result<Mask, SegmentError> {
        let mut driven = self.plan.driven(scan, reader, self.within)?;
        // Most traces that have both sides of a relation do not have it: their parents tell, without a look at each trace. Of a
        // trace with spans elsewhere they tell whether those can make a difference.
        if let Some(upward) = self.plan.upward()
            && !driven.is_empty()
        {
            let above = self.plan.filtered(scan, reader, upward.above, self.within)?;
            let mut related = upward.related_here(reader.parents()?, &driven, &above);
            let traces = reader.traces()?;
            let split = reader.split_traces(scan);
            for trace in (0..traces.len()).filter(|trace| split.is_none_or(|split| split.get(*trace))) {
                let rows = traces.rows(trace);
                if driven.any(rows.clone())
                    && !related.any(rows.clone())
                    && upward.may_relate(reader, (&driven, &above), rows.clone())?
                {
                    related.set_range(rows);
                }
            }
            driven.and(&related);
        }
        Ok(driven)
    }

    /// What the spans of these traces in a segment yield by themselves; `None` if every trace yields something.
    fn swept(
        &self,
        scan: &Scan<'_>,
        reader: &Rc<Reader>,
        masks: &[Arc<KeptMask>],
        driven: &[usize],
    ) -> Result<Option<Mask>, QueryError> {
        if self.plan.single_filter().is_some() {
            return Ok(None);
        }
        let traces = reader.traces()?;
        let mut input = Mask::none(reader.rows());
        for rows in driven.iter().map(|trace| traces.rows(*trace)) {
            if self.plan.wanted().within(masks, &rows) {
                input.set_range(rows);
            }
        }
        if let Some(within) = reader.within(self.within.start, self.within.end)? {
            input.and(&within);
        }
        if !input.is_empty() {
            input = self.plan.swept(scan, reader, masks, input)?;
        }
        Ok(Some(input))
    }

    /// Offers a trace that may have pieces elsewhere, unless that was done at another of them.
    fn offer_once(
        &self,
        scan: &Scan<'_>,
        reader: &Rc<Reader>,
        trace: usize,
        seen: &mut HashSet<TraceId>,
        newest: &mut Newest,
    ) -> Result<(), QueryError> {
        if let Some(id) = reader.traces()?.ids.get(trace)
            && seen.insert(*id)
        {
            self.control.reserve(SEEN_BYTES)?;
            self.offer(scan, reader, trace, newest)?;
        }
        Ok(())
    }

    /// Offers a trace if it yields something, with all its pieces.
    fn offer(&self, scan: &Scan<'_>, reader: &Rc<Reader>, trace: usize, newest: &mut Newest) -> Result<(), QueryError> {
        self.control.check()?;
        let view = View::open(scan, reader, trace)?;
        if let Some(overlap) = self.overlapping
            && !overlap.meets(view.start(), view.start().saturating_add(view.duration()?))
        {
            return Ok(());
        }
        if view.start() >= newest.floor()
            && (self.plan.single_filter().is_some() || !self.plan.spansets(scan, &view, self.within)?.is_empty())
        {
            newest.offer(view.start(), view.id(), trace);
        }
        Ok(())
    }

    fn answer(&self, scan: &Scan<'_>, newest: &Newest, inspected: Inspected) -> Result<SearchAnswer, QueryError> {
        let mut collector =
            Collector { listener: &mut Nobody, control: self.control, traces: Vec::new(), stopped: Ok(()) };
        self.hand_on(scan, newest, &mut |found| collector.take(found, &inspected))?;
        collector.stopped?;
        Ok(SearchAnswer { traces: collector.traces, inspected })
    }

    /// The details of traces, the newest first, portion by portion.
    fn hand_on(
        &self,
        scan: &Scan<'_>,
        newest: &Newest,
        take: &mut dyn FnMut(FoundTrace) -> ControlFlow<()>,
    ) -> Result<(), QueryError> {
        let mut candidates = newest.latest_first();
        loop {
            let mut portion: Vec<Candidate<'_>> = candidates.by_ref().take(DETAILED_AT_ONCE).collect();
            if portion.is_empty() {
                return Ok(());
            }
            // By segment, so that each is read once.
            portion.sort_by_key(|candidate| (candidate.segment().id(), candidate.trace));
            let mut booked = self.control.nothing_booked();
            let mut traces = Vec::with_capacity(portion.len());
            for candidate in &portion {
                self.control.check()?;
                match self.details.found(&self.plan, scan, candidate, self.within) {
                    Ok(Some(found)) => {
                        booked.grow(size_of_found(&found))?;
                        traces.push(found);
                    }
                    Ok(None) => {}
                    Err(QueryError::Segment(SegmentError::Gone | SegmentError::Read(_))) => {}
                    Err(error) => return Err(error),
                }
            }
            traces.sort_by(|one, other| (other.start, one.id).cmp(&(one.start, other.id)));
            for found in traces {
                if take(found).is_break() {
                    return Ok(());
                }
            }
        }
    }
}

fn size_of_found(trace: &FoundTrace) -> usize {
    let spans = trace.spansets.iter().flat_map(|spanset| &spanset.spans);
    let texts = |attributes: &[(String, Value)]| attributes.iter().map(|(_, value)| value.heap_bytes()).sum::<usize>();
    let spans: usize =
        spans.map(|span| FOUND_SPAN_BYTES * (1 + span.attributes.len()) + TEXT_COPIES * texts(&span.attributes)).sum();
    FOUND_TRACE_BYTES + FOUND_SPAN_BYTES * (trace.spansets.len() + trace.services.len()) + spans
}

/// An answer holds a text, and what is written of it twice: answers show the first spanset at two places.
const TEXT_COPIES: usize = 3;

#[cfg(test)]
mod tests;
