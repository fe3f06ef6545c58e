//! Results from here and from upstream as one answer.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::series::fills_with_zero;
use crate::otlp::TraceId;
use crate::traceql::answer::{
    FoundTrace, Inspected, MetricsAnswer, Sample, SearchAnswer, Series, TagsAnswer, ValuesAnswer,
};
use crate::traceql::ast::Query;
use crate::traceql::control::{Control, Stopped};
use crate::traceql::keys;
use crate::traceql::metrics::{order_of_labels, too_many_series};
use crate::traceql::request::{RangeRequest, TagsRequest};
use crate::traceql::value::Value;

const NANOS_PER_MS: u64 = 1_000_000;

/// The newest `limit` traces of both. Of a trace that both found, what is here is shown, with the outermost times: a part
/// of it may have been dropped here.
pub fn traces(mut here: SearchAnswer, upstream: SearchAnswer, limit: usize) -> SearchAnswer {
    let known = here.traces.iter().enumerate();
    let mut places: HashMap<TraceId, usize, RandomState> = known.map(|(place, trace)| (trace.id, place)).collect();
    for older in upstream.traces {
        let place = *places.entry(older.id).or_insert(here.traces.len());
        match here.traces.get_mut(place) {
            Some(trace) => widen(trace, older),
            None => here.traces.push(older),
        }
    }
    here.traces.sort_by(|left, right| right.start.cmp(&left.start).then(left.id.cmp(&right.id)));
    here.traces.truncate(limit);
    add(&mut here.inspected, upstream.inspected);
    here
}

fn add(here: &mut Inspected, upstream: Inspected) {
    here.traces = here.traces.saturating_add(upstream.traces);
    here.spans = here.spans.saturating_add(upstream.spans);
    here.bytes = here.bytes.saturating_add(upstream.bytes);
    here.segments = here.segments.saturating_add(upstream.segments);
    here.segments_done = here.segments_done.saturating_add(upstream.segments_done);
}

/// Leaves the samples and exemplars of the intervals that were asked for: a Tempo adds one in front.
pub fn keep_within(answer: &mut MetricsAnswer, request: &RangeRequest) {
    let within = |at_ms: i64| {
        u64::try_from(at_ms).is_ok_and(|at| (request.start / NANOS_PER_MS..=request.end / NANOS_PER_MS).contains(&at))
    };
    for series in &mut answer.series {
        series.samples.retain(|sample| within(sample.at_ms));
        series.exemplars.retain(|exemplar| exemplar.at_ms <= (request.end / NANOS_PER_MS) as i64);
    }
    answer.series.retain(|series| !series.samples.is_empty());
}

/// Series whose samples before those of `here` come from upstream. A series that only one side has is filled up with
/// zeros where its function counts. What is added counts as memory of the query.
///
/// # Errors
/// It needs too much.
pub fn series(
    query: &Query,
    own: MetricsAnswer,
    older: MetricsAnswer,
    request: &RangeRequest,
    here: Option<&RangeRequest>,
    control: &Control,
) -> Result<MetricsAnswer, Stopped> {
    let mut inspected = own.inspected;
    add(&mut inspected, older.inspected);
    let first_here = here.map_or(u64::MAX, |here| here.start);
    // Booked before they are made: many series over many intervals are far more than what came.
    let more = |samples: usize| control.reserve(samples.saturating_mul(size_of::<Sample>()));
    let zeros = |from: u64, to: u64| {
        let times = (from..=to).step_by(usize::try_from(request.step).unwrap_or(usize::MAX));
        times.map(|at| Sample { at_ms: (at / NANOS_PER_MS) as i64, value: 0.0 })
    };
    let fills = fills_with_zero(query);
    let mut index: HashMap<Vec<u8>, usize, RandomState> = HashMap::default();
    let mut all: Vec<Series> = Vec::with_capacity(older.series.len().max(own.series.len()));
    for series in older.series {
        index.insert(key(&series), all.len());
        all.push(series);
    }
    let from_upstream = all.len();
    let mut continued = vec![false; from_upstream];
    for series in own.series {
        match index.get(&key(&series)) {
            Some(place) => {
                if let (Some(before), Some(continued)) = (all.get_mut(*place), continued.get_mut(*place)) {
                    more(series.samples.len())?;
                    before.samples.reserve_exact(series.samples.len());
                    before.samples.extend(series.samples);
                    before.exemplars.extend(series.exemplars);
                    *continued = true;
                }
            }
            None if fills => {
                let before = zeros(request.start, first_here.saturating_sub(request.step).min(request.end));
                let count = before.clone().count() + series.samples.len();
                more(count)?;
                let mut samples = Vec::with_capacity(count);
                samples.extend(before.chain(series.samples));
                all.push(Series { samples, ..series });
            }
            None => all.push(series),
        }
    }
    if fills && here.is_some() {
        for (series, _) in all.iter_mut().zip(&continued).filter(|(_, continued)| !**continued) {
            let count = zeros(first_here, request.end).count();
            more(count)?;
            series.samples.reserve_exact(count);
            series.samples.extend(zeros(first_here, request.end));
        }
    }
    limit_exemplars(&mut all, request.exemplars);
    all.sort_by(|left, right| order_of_labels(&left.labels, &right.labels));
    let mut partial = own.partial.or(older.partial);
    // Each side has as many at most, and they need not be the same.
    if request.series_max > 0 && all.len() > request.series_max {
        all.truncate(request.series_max);
        partial.get_or_insert_with(|| too_many_series(request.series_max));
    }
    Ok(MetricsAnswer { series: all, inspected, partial })
}

/// Both sides gave as many as were asked for.
fn limit_exemplars(series: &mut [Series], max: usize) {
    let mut count: usize = series.iter().map(|series| series.exemplars.len()).sum();
    while count > max {
        // Of each series every second one: they are spread over time.
        for exemplars in series.iter_mut().map(|series| &mut series.exemplars) {
            let mut kept = false;
            exemplars.retain(|_| {
                kept = !kept;
                kept
            });
        }
        let left = series.iter().map(|series| series.exemplars.len()).sum();
        if left == count {
            // One in each: those of the last series go.
            for exemplars in series.iter_mut().map(|series| &mut series.exemplars).skip(max) {
                exemplars.clear();
            }
            return;
        }
        count = left;
    }
}

/// Equal for series with the same labels.
fn key(series: &Series) -> Vec<u8> {
    let mut key = Vec::new();
    for (label, value) in &series.labels {
        key.extend_from_slice(label.as_bytes());
        key.push(0);
        // Upstream's texts of values that have no type on the wire.
        let text = match value {
            Some(Value::Status(status)) => Some(Value::String(status.as_str().into())),
            Some(Value::Kind(kind)) => Some(Value::String(kind.as_str().into())),
            Some(other) => Some(other.clone()),
            None => Some(Value::String("nil".into())),
        };
        keys::write_key(text.as_ref(), &mut key);
    }
    key
}

/// Names of both sides, within the limits of the request.
pub fn names(mut here: TagsAnswer, upstream: TagsAnswer, request: &TagsRequest) -> TagsAnswer {
    for (scope, names) in upstream.scopes {
        match here.scopes.iter_mut().find(|(own, _)| *own == scope) {
            Some((_, own)) => own.extend(names),
            None => here.scopes.push((scope, names)),
        }
    }
    let mut bytes = 0;
    for (_, names) in &mut here.scopes {
        names.sort_unstable();
        names.dedup();
        limit(names, request, &mut bytes, |name| name.len());
    }
    here.inspected_bytes = here.inspected_bytes.saturating_add(upstream.inspected_bytes);
    here
}

/// Values of both sides, within the limits of the request.
pub fn values(mut here: ValuesAnswer, upstream: ValuesAnswer, request: &TagsRequest) -> ValuesAnswer {
    here.values.extend(upstream.values);
    here.values.sort_by(|left, right| keys::compare(Some(left), Some(right)));
    here.values.dedup();
    limit(&mut here.values, request, &mut 0, |value| match value {
        Value::String(text) => text.len(),
        _ => size_of::<Value>(),
    });
    here.inspected_bytes = here.inspected_bytes.saturating_add(upstream.inspected_bytes);
    here
}

fn limit<T>(items: &mut Vec<T>, request: &TagsRequest, bytes: &mut usize, size: impl Fn(&T) -> usize) {
    if request.count_max > 0 {
        items.truncate(request.count_max);
    }
    let kept = items.iter().take_while(|item| {
        *bytes = bytes.saturating_add(size(item));
        *bytes <= request.bytes_max
    });
    let kept = kept.count();
    items.truncate(kept);
}

fn widen(trace: &mut FoundTrace, other: FoundTrace) {
    let end = trace.start.saturating_add(trace.duration).max(other.start.saturating_add(other.duration));
    trace.start = trace.start.min(other.start);
    trace.duration = end - trace.start;
    trace.root = trace.root.take().or(other.root);
    for (service, stats) in other.services {
        let here = trace.services.entry(service).or_default();
        here.spans = here.spans.max(stats.spans);
        here.errors = here.errors.max(stats.errors);
    }
    for (here, there) in trace.spansets.iter_mut().zip(&other.spansets) {
        here.matched = here.matched.max(there.matched);
    }
    if trace.spansets.is_empty() {
        trace.spansets = other.spansets;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::traceql::answer::{FoundSpanset, RootSpan};

    fn trace(id: u8, start: u64, duration: u64, matched: u32) -> FoundTrace {
        let spanset = FoundSpanset { spans: Vec::new(), matched, attributes: Vec::new() };
        let (root, services) = (None, Default::default());
        FoundTrace { id: TraceId([id; 16]), root, start, duration, spansets: vec![spanset], services }
    }

    fn answer(traces: Vec<FoundTrace>) -> SearchAnswer {
        SearchAnswer { traces, ..SearchAnswer::default() }
    }

    #[test]
    fn the_newest_of_both_are_kept() {
        let here = answer(vec![trace(1, 100, 1, 1), trace(2, 90, 1, 1)]);
        let older = answer(vec![trace(3, 95, 1, 1), trace(4, 50, 1, 1)]);
        let ids: Vec<u8> = traces(here, older, 3).traces.iter().map(|trace| trace.id.0[0]).collect();
        assert_eq!(ids, [1, 3, 2]);
    }

    #[test]
    fn a_trace_that_both_found_has_the_outermost_times_and_a_root() {
        let here = answer(vec![trace(1, 100, 20, 2)]);
        let mut there = trace(1, 80, 30, 5);
        there.root = Some(RootSpan { service: "shop".into(), name: "GET".into() });
        let root = there.root.clone();
        let found = traces(here, answer(vec![there]), 10).traces;
        assert_eq!((found.len(), found[0].start, found[0].duration), (1, 80, 40));
        assert_eq!((found[0].spansets[0].matched, &found[0].root), (5, &root));
    }

    #[test]
    fn zeros_that_are_filled_in_are_memory_of_the_query() {
        const MINUTE: u64 = 60_000_000_000;
        let query = crate::traceql::read("{} | rate() by (span.a)").unwrap();
        let request = RangeRequest { start: MINUTE, end: 10_000 * MINUTE, step: MINUTE, exemplars: 0, series_max: 0 };
        let here = RangeRequest { start: 9_000 * MINUTE, ..request };
        let series = |count: i64, at_ms: i64| MetricsAnswer {
            series: (0..count)
                .map(|number| Series {
                    labels: vec![("a".to_owned(), Some(Value::Int(number + at_ms)))],
                    samples: vec![Sample { at_ms, value: 1.0 }],
                    exemplars: Vec::new(),
                })
                .collect(),
            ..MetricsAnswer::default()
        };
        let merged = |count, bytes_max, series_max| {
            let control = Control::new(Duration::from_secs(60), bytes_max);
            let request = RangeRequest { series_max, ..request };
            let (own, older) = (series(count, 600_000_000), series(count, 60_000));
            let merged = super::series(&query, own, older, &request, Some(&here), &control);
            merged.map(|answer| (answer, control.used_bytes()))
        };
        // 1,000 series of 10,000 samples would be 160 MB out of a few kilobytes.
        assert_eq!(merged(500, 1 << 20, 0).unwrap_err(), Stopped::MemoryOver(1 << 20));
        let (answer, used) = merged(2, 1 << 20, 0).unwrap();
        let samples: usize = answer.series.iter().map(|series| series.samples.capacity()).sum();
        assert_eq!(answer.series.len(), 4);
        assert!(samples > 20_000 && samples * size_of::<Sample>() <= used + 4 * size_of::<Sample>());
        let (answer, _) = merged(2, 1 << 20, 3).unwrap();
        assert!(answer.series.len() == 3 && answer.partial.is_some());
    }

    #[test]
    fn a_trace_that_upstream_names_twice_is_shown_once() {
        let found = traces(answer(Vec::new()), answer(vec![trace(1, 10, 5, 1), trace(1, 12, 9, 1)]), 10).traces;
        assert_eq!((found.len(), found[0].start, found[0].duration), (1, 10, 11));
    }
}
