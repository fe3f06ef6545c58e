//! Results from here and from upstream as one answer.

use crate::traceql::answer::{FoundTrace, SearchAnswer};

/// The newest `limit` traces of both. Of a trace that both found, what is here is shown, with the outermost times: a part
/// of it may have been dropped here.
pub fn merged(mut here: SearchAnswer, upstream: SearchAnswer, limit: usize) -> SearchAnswer {
    let own = here.traces.len();
    for older in upstream.traces {
        match here.traces.iter_mut().take(own).find(|trace| trace.id == older.id) {
            Some(trace) => widen(trace, older),
            None => here.traces.push(older),
        }
    }
    here.traces.sort_by(|left, right| right.start.cmp(&left.start).then(left.id.cmp(&right.id)));
    here.traces.truncate(limit);
    here.inspected.traces = here.inspected.traces.saturating_add(upstream.inspected.traces);
    here.inspected.spans = here.inspected.spans.saturating_add(upstream.inspected.spans);
    here.inspected.bytes = here.inspected.bytes.saturating_add(upstream.inspected.bytes);
    here.inspected.segments = here.inspected.segments.saturating_add(upstream.inspected.segments);
    here.inspected.segments_done = here.inspected.segments_done.saturating_add(upstream.inspected.segments_done);
    here
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
    use super::*;
    use crate::otlp::TraceId;
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
        let ids: Vec<u8> = merged(here, older, 3).traces.iter().map(|trace| trace.id.0[0]).collect();
        assert_eq!(ids, [1, 3, 2]);
    }

    #[test]
    fn a_trace_that_both_found_has_the_outermost_times_and_a_root() {
        let here = answer(vec![trace(1, 100, 20, 2)]);
        let mut there = trace(1, 80, 30, 5);
        there.root = Some(RootSpan { service: "shop".into(), name: "GET".into() });
        let root = there.root.clone();
        let found = merged(here, answer(vec![there]), 10).traces;
        assert_eq!((found.len(), found[0].start, found[0].duration), (1, 80, 40));
        assert_eq!((found[0].spansets[0].matched, &found[0].root), (5, &root));
    }
}
