//! TraceQL metrics: spans folded into series of numbers over time.
//!
//! ```text
//! pipeline ─▶ rows of a segment ─▶ series and interval of each row ─▶ cells (one per series and interval)
//!             (Matcher, Selected)  (Grouping by codes, Intervals)      │ merged over segments and threads
//!                                                                      ▼
//!                                  answer ◀─ topk, filters, math ◀─ lines (a number per interval, labels, exemplars)
//! ```
//!
//! Invariants: a segment is read a column at a time, and only the columns that the query names; there is no work per row
//! but look-ups in tables; the answer does not depend on the order of segments or the number of threads, but for the last
//! bits of sums; cells are booked with [`Control::reserve`] before they exist.
//!
//! Where this differs from Tempo: numbers are exact (sampling hints are accepted and ignored), and minima, maxima, averages
//! and sums of every duration are in seconds, where Tempo has nanoseconds for `traceDuration`.

mod cells;
mod compare;
mod exemplars;
mod fold;
mod grouping;
mod histogram;
mod intervals;
mod lines;
mod rows;
mod stages;
mod table;

#[cfg(test)]
mod tests;

pub use lines::order as order_of_labels;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::intervals::{Intervals, NANOS_PER_SECOND};
use self::lines::Line;
use self::rows::{Matcher, Selected};
use super::answer::{Inspected, MetricsAnswer, Sample};
use super::ast::{Arithmetic, Field, FirstStage, Metrics, Pipeline, Query, Root, SecondStage};
use super::control::{Booked, Control, Stopped};
use super::error::{Invalid, QueryError};
use super::reader::Scan;
use super::request::{InstantRequest, RangeRequest};
use super::segment::{Segment, SegmentError, Source};
use super::value::Value;

/// Threads that fold one query.
const WORKERS_MAX: usize = 2;

/// Spans below which a second thread costs more than it saves.
const SPANS_PER_WORKER_MIN: usize = 32_768;

/// Segments between looks at the clock for [`PROGRESS_INTERVAL`].
const SEGMENTS_PER_WAVE: usize = 16;

/// How often unfinished answers are shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Values that `compare()` answers for each attribute and side, unless the query says.
const COMPARE_TOP_DEFAULT: usize = 10;

/// Series over time. `progress` is shown the answer so far now and then, if it takes long.
///
/// # Errors
/// The query is no metrics query or not valid, or it ended early.
pub fn range(
    query: &Query,
    request: &RangeRequest,
    source: &dyn Source,
    control: &Control,
    progress: &mut dyn FnMut(&MetricsAnswer),
) -> Result<MetricsAnswer, QueryError> {
    let exemplars = match query.hint("exemplars") {
        Some(Value::Bool(false)) => 0,
        Some(Value::Int(wanted)) => request.exemplars.min(usize::try_from(*wanted).unwrap_or(0)),
        _ => request.exemplars,
    };
    run(query, Intervals::of_range(request), exemplars, request.series_max, source, control, progress)
}

/// One number for each series, over all of the time range.
///
/// # Errors
/// The query is no metrics query or not valid, or it ended early.
pub fn instant(
    query: &Query,
    request: &InstantRequest,
    source: &dyn Source,
    control: &Control,
    progress: &mut dyn FnMut(&MetricsAnswer),
) -> Result<MetricsAnswer, QueryError> {
    run(query, Intervals::of_instant(request), 0, request.series_max, source, control, progress)
}

fn run(
    query: &Query,
    intervals: Intervals,
    exemplars: usize,
    series_max: usize,
    source: &dyn Source,
    control: &Control,
    progress: &mut dyn FnMut(&MetricsAnswer),
) -> Result<MetricsAnswer, QueryError> {
    let Root::Metrics(metrics) = &query.root else {
        return Err(Invalid::Unsupported("metrics of a query without a metrics function".into()).into());
    };
    let mut parts: Vec<Part<'_>> = Vec::new();
    for (pipeline, first) in metrics.series() {
        let part = Part { pipeline, first };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let exemplars = if exemplars == 0 { 0 } else { (exemplars / parts.len().max(1)).max(1) };
    let leaves = parts.iter().enumerate().map(|(number, part)| Leaf::new(part, number, &intervals, exemplars));
    let leaves: Vec<Leaf<'_>> = leaves.collect::<Result<_, _>>()?;

    let segments = source.segments(intervals.from, intervals.to);
    let pass = Pass { leaves: &leaves, intervals: &intervals, source, control };
    let inspected = |answer: MetricsAnswer| {
        let inspected = Inspected { segments: segments.len() as u64, ..answer.inspected };
        MetricsAnswer { inspected, ..answer }
    };
    let mut state = pass.all(&segments, &mut |state| {
        let (numbers, samples) = state.answer_bytes(metrics, &intervals);
        control.reserve(numbers + samples)?;
        let lines = state.folds.iter().map(Folded::lines).collect();
        progress(&inspected(state.answer(lines, metrics, &parts, &intervals, series_max)));
        control.release(numbers + samples);
        Ok(())
    })?;
    // What was folded goes before the answer is made of it.
    let (numbers, samples) = state.answer_bytes(metrics, &intervals);
    control.reserve(numbers)?;
    let lines = state.take_lines(control);
    control.reserve(samples)?;
    Ok(inspected(state.answer(lines, metrics, &parts, &intervals, series_max)))
}

/// One `pipeline | function` of a query. Equal ones are folded once.
#[derive(PartialEq)]
struct Part<'q> {
    pipeline: &'q Pipeline,
    first: &'q FirstStage,
}

/// A part, made ready.
struct Leaf<'q> {
    matcher: Box<dyn Matcher + 'q>,
    function: Function<'q>,
}

enum Function<'q> {
    Over(fold::Plan<'q>),
    Compare { plan: compare::Plan, selection: Box<dyn Matcher + 'q> },
}

enum Folded<'q> {
    Over(fold::Fold<'q>),
    Compare(compare::Comparison<'q>),
}

impl Folded<'_> {
    fn lines(&self) -> Vec<Line> {
        match self {
            Self::Over(fold) => fold.lines(),
            Self::Compare(comparison) => comparison.lines(),
        }
    }

    fn line_count(&self) -> usize {
        match self {
            Self::Over(fold) => fold.line_count(),
            Self::Compare(comparison) => comparison.line_count(),
        }
    }

    fn booked_bytes(&self) -> usize {
        match self {
            Self::Over(fold) => fold.booked_bytes(),
            Self::Compare(comparison) => comparison.booked_bytes(),
        }
    }
}

/// What one thread has of all segments that it looked at.
struct State<'q> {
    folds: Vec<Folded<'q>>,
    inspected: Inspected,
    unreadable: u64,
    selected: Selected,
    scratch: fold::Scratch,
    compare_scratch: compare::Scratch,
    /// For these three.
    booked: Booked,
}

struct Pass<'s> {
    leaves: &'s [Leaf<'s>],
    intervals: &'s Intervals,
    source: &'s dyn Source,
    control: &'s Control,
}

impl<'s> Pass<'s> {
    fn all(
        &self,
        segments: &[Arc<dyn Segment>],
        progress: &mut dyn FnMut(&State<'s>) -> Result<(), Stopped>,
    ) -> Result<State<'s>, QueryError> {
        let spans: usize = segments.iter().map(|segment| segment.rows()).sum();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers = WORKERS_MAX.min(cores).min(segments.len()).min(spans / SPANS_PER_WORKER_MIN).max(1);
        let mut first = State::new(self)?;
        let mut others = (1..workers).map(|_| State::new(self)).collect::<Result<Vec<_>, _>>()?;
        let mut shown = Instant::now();
        let waves = segments.chunks(SEGMENTS_PER_WAVE);
        let last = waves.len().saturating_sub(1);
        for (index, wave) in waves.enumerate() {
            let left = &AtomicUsize::new(wave.len());
            thread::scope(|scope| {
                let others = others.iter_mut().filter_map(|state| {
                    // Without a second thread the first does everything. They begin at both ends: what a thread reads
                    // of neighbours, for traces in pieces, it needs for its next segment anyhow.
                    thread::Builder::new()
                        .name("metrics".into())
                        .spawn_scoped(scope, || self.work(state, &mut wave.iter().rev(), left))
                        .ok()
                });
                let others: Vec<_> = others.collect();
                let mut result = self.work(&mut first, &mut wave.iter(), left);
                for other in others {
                    result = result.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                }
                result
            })?;
            if index < last && shown.elapsed() >= PROGRESS_INTERVAL {
                for other in &mut others {
                    first.merge(std::mem::replace(other, State::new(self)?), self.control)?;
                }
                progress(&first)?;
                shown = Instant::now();
            }
        }
        for other in others {
            first.merge(other, self.control)?;
        }
        Ok(first)
    }

    /// Folds segments, in this order, until none is left that no thread has taken.
    fn work<'w>(
        &self,
        state: &mut State<'s>,
        segments: &mut dyn Iterator<Item = &'w Arc<dyn Segment>>,
        left: &AtomicUsize,
    ) -> Result<(), QueryError> {
        let scan = Scan::new(self.source, self.control);
        let take = |left: usize| left.checked_sub(1);
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
            && let Some(segment) = segments.next()
        {
            let added = self.control.check().map_err(QueryError::from).and_then(|()| self.add(&scan, state, segment));
            match added {
                Ok(()) => state.inspected.segments_done += 1,
                // Retention was quicker: there is nothing to count.
                Err(QueryError::Segment(SegmentError::Gone)) => state.inspected.segments_done += 1,
                Err(QueryError::Segment(SegmentError::Read(_))) => state.unreadable += 1,
                Err(error) => {
                    // The others need not go on.
                    left.store(0, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn add(&self, scan: &Scan<'_>, state: &mut State<'s>, segment: &Arc<dyn Segment>) -> Result<(), QueryError> {
        let State { folds, selected, scratch, compare_scratch, inspected, booked, .. } = state;
        let reader = scan.reader(segment);
        for (leaf, folded) in self.leaves.iter().zip(folds) {
            let matching = leaf.matcher.matching(scan, &reader)?;
            selected.select(&reader, &matching, self.intervals)?;
            match (folded, &leaf.function) {
                (Folded::Over(fold), _) => fold.add((scan, &reader), selected, scratch, self.control)?,
                (Folded::Compare(comparison), Function::Compare { selection, .. }) if !selected.rows.is_empty() => {
                    let selection = selection.matching(scan, &reader)?;
                    comparison.add((scan, &reader), selected, &selection, compare_scratch, self.control)?;
                }
                (Folded::Compare(_), _) => {}
            }
        }
        let held = selected.bytes() + scratch.bytes() + compare_scratch.bytes();
        booked.grow(held.saturating_sub(booked.bytes())).map_err(QueryError::from)?;
        inspected.spans += segment.rows() as u64;
        inspected.bytes += segment.stored_bytes();
        Ok(())
    }
}

impl<'q> Leaf<'q> {
    fn new(part: &Part<'q>, number: usize, intervals: &Intervals, exemplars: usize) -> Result<Self, QueryError> {
        let matcher = rows::matcher(part.pipeline, number, intervals)?;
        let shown = part.pipeline.condition_fields().into_iter().chain(part.first.fields()).cloned();
        let shown: Vec<Field> = shown.collect::<BTreeSet<_>>().into_iter().collect();
        let function = match part.first {
            FirstStage::Over { function, by } => {
                Function::Over(fold::Plan { function, by, shown, intervals: *intervals, exemplars })
            }
            FirstStage::Compare { selection, top, window } => Function::Compare {
                plan: compare::Plan {
                    top: top.map_or(COMPARE_TOP_DEFAULT, |top| usize::try_from(top).unwrap_or(COMPARE_TOP_DEFAULT)),
                    window: window.map(|(after, until)| (after.max(0) as u64, until.max(0) as u64)),
                    shown,
                    intervals: *intervals,
                    exemplars,
                },
                selection: rows::selection(selection, intervals)?,
            },
        };
        Ok(Self { matcher, function })
    }
}

impl<'q> State<'q> {
    fn new(pass: &Pass<'q>) -> Result<Self, Stopped> {
        let folds = pass.leaves.iter().map(|leaf| {
            Ok(match &leaf.function {
                Function::Over(plan) => Folded::Over(fold::Fold::new(plan, pass.control)?),
                Function::Compare { plan, .. } => Folded::Compare(compare::Comparison::new(plan)),
            })
        });
        Ok(Self {
            folds: folds.collect::<Result<_, Stopped>>()?,
            inspected: Inspected::default(),
            unreadable: 0,
            selected: Selected::default(),
            scratch: fold::Scratch::default(),
            compare_scratch: compare::Scratch::default(),
            booked: pass.control.nothing_booked(),
        })
    }

    fn merge(&mut self, other: Self, control: &Control) -> Result<(), Stopped> {
        for (fold, other) in self.folds.iter_mut().zip(other.folds) {
            match (fold, other) {
                (Folded::Over(fold), Folded::Over(other)) => fold.merge(other, control)?,
                (Folded::Compare(comparison), Folded::Compare(other)) => comparison.merge(other, control)?,
                _ => {}
            }
        }
        self.inspected.spans += other.inspected.spans;
        self.inspected.bytes += other.inspected.bytes;
        self.inspected.segments_done += other.inspected.segments_done;
        self.unreadable += other.unreadable;
        Ok(())
    }

    /// The numbers of all that was folded, which is gone then.
    fn take_lines(&mut self, control: &Control) -> Vec<Vec<Line>> {
        let folds = std::mem::take(&mut self.folds).into_iter();
        let lines = folds.map(|fold| {
            let lines = fold.lines();
            let freed = fold.booked_bytes();
            drop(fold);
            control.release(freed);
            lines
        });
        lines.collect()
    }

    /// What an answer takes while it is made, beside the cells: the numbers of its parts, and what is made of them.
    fn answer_bytes(&self, metrics: &Metrics, intervals: &Intervals) -> (usize, usize) {
        let lines = self.folds.iter().map(Folded::line_count).sum::<usize>();
        let numbers = lines.saturating_mul(intervals.count());
        let parts = numbers.saturating_mul(size_of::<f64>()).saturating_add(lines.saturating_mul(LINE_BYTES));
        let samples = numbers.saturating_mul(size_of::<Sample>());
        let made = match is_one_part(metrics) {
            // Lines become samples one after the other.
            true => samples,
            // Parts are copied where an expression uses them.
            false => samples.saturating_add(parts).saturating_mul(self.folds.len().max(1)),
        };
        (parts, made)
    }

    fn answer(
        &self,
        mut of_parts: Vec<Vec<Line>>,
        metrics: &Metrics,
        parts: &[Part<'_>],
        intervals: &Intervals,
        series_max: usize,
    ) -> MetricsAnswer {
        let mut uses = vec![0; parts.len()];
        for (pipeline, first) in metrics.series() {
            if let Some(uses) = part_of(parts, pipeline, first).and_then(|index| uses.get_mut(index)) {
                *uses += 1;
            }
        }
        let mut take = |index: usize| {
            let (Some(lines), Some(uses)) = (of_parts.get_mut(index), uses.get_mut(index)) else { return Vec::new() };
            *uses -= 1;
            if *uses == 0 { std::mem::take(lines) } else { lines.clone() }
        };
        let mut lines = match evaluate(metrics, parts, &mut take) {
            Operand::Lines(lines) => lines,
            Operand::Constant(_) => Vec::new(),
        };
        lines.sort_by(Line::order);
        let mut series: Vec<_> = lines.into_iter().filter_map(|line| line.into_series(intervals)).collect();
        let mut remarks = Vec::new();
        if series_max > 0 && series.len() > series_max {
            series.truncate(series_max);
            remarks.push(too_many_series(series_max));
        }
        if self.unreadable > 0 {
            remarks.push(format!("{} parts of the stored spans cannot be read and are left out.", self.unreadable));
        }
        let partial = (!remarks.is_empty()).then(|| remarks.join(" "));
        MetricsAnswer { series, inspected: self.inspected, partial }
    }
}

/// What to say where series were left out, as Tempo does.
#[must_use]
pub fn too_many_series(series_max: usize) -> String {
    format!(
        "Response exceeds maximum series limit of {series_max}, a partial response is returned. Warning: the accuracy of \
         each individual value is not guaranteed."
    )
}

/// A line besides its numbers: labels with their texts, exemplars, allocations.
const LINE_BYTES: usize = 512;

enum Operand {
    Lines(Vec<Line>),
    Constant(f64),
}

/// Whether nothing is joined.
fn is_one_part(metrics: &Metrics) -> bool {
    match metrics {
        Metrics::Series { .. } | Metrics::Constant(_) => true,
        Metrics::Staged { of, .. } => is_one_part(of),
        Metrics::Binary { .. } => false,
    }
}

/// Which of the parts it is.
fn part_of(parts: &[Part<'_>], pipeline: &Pipeline, first: &FirstStage) -> Option<usize> {
    parts.iter().position(|part| *part == Part { pipeline, first })
}

/// `take` gives the lines of a part.
fn evaluate(metrics: &Metrics, parts: &[Part<'_>], take: &mut dyn FnMut(usize) -> Vec<Line>) -> Operand {
    match metrics {
        Metrics::Constant(value) => Operand::Constant(number(value)),
        Metrics::Series { pipeline, first } => {
            Operand::Lines(part_of(parts, pipeline, first).map(take).unwrap_or_default())
        }
        Metrics::Staged { of, stages } => match evaluate(of, parts, take) {
            Operand::Lines(lines) => Operand::Lines(stages.iter().fold(lines, stage)),
            constant => constant,
        },
        Metrics::Binary { op, left, right } => {
            let op: Arithmetic = *op;
            match (evaluate(left, parts, take), evaluate(right, parts, take)) {
                (Operand::Lines(left), Operand::Lines(right)) => Operand::Lines(stages::join(op, &left, &right)),
                (Operand::Lines(lines), Operand::Constant(constant)) => {
                    Operand::Lines(stages::scale(lines, |number| stages::apply(op, number, constant)))
                }
                (Operand::Constant(constant), Operand::Lines(lines)) => {
                    Operand::Lines(stages::scale(lines, |number| stages::apply(op, constant, number)))
                }
                (Operand::Constant(left), Operand::Constant(right)) => {
                    Operand::Constant(stages::apply(op, left, right))
                }
            }
        }
    }
}

fn stage(lines: Vec<Line>, stage: &SecondStage) -> Vec<Line> {
    match stage {
        SecondStage::TopK(limit) => stages::best(lines, usize::try_from(*limit).unwrap_or(0), true),
        SecondStage::BottomK(limit) => stages::best(lines, usize::try_from(*limit).unwrap_or(0), false),
        SecondStage::Filter(op, value) => stages::filter(lines, *op, number(value)),
    }
}

/// Durations in seconds.
fn number(value: &Value) -> f64 {
    match value {
        Value::Int(int) => *int as f64,
        Value::Float(float) => *float,
        Value::Duration(nanos) => *nanos as f64 / NANOS_PER_SECOND,
        _ => f64::NAN,
    }
}
