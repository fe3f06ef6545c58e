//! The decider and its feeds on a real spool.

use super::decider::{Decider, Next};
use super::*;
use crate::forward::body;
use crate::forward::engine::Source;
use crate::otlp::scan::{scan, trace_keys};
use crate::otlp::view::for_each_span;
use crate::otlp::wire::{Fields, put_bytes, put_fixed64, put_uint};
use crate::process::tail_sampling::settings::{PolicySettings, Rule};
use crate::spool::{Append, Outcome, ReadLimits, Settings, TimeRange, sampled_out};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const WAIT: Duration = Duration::from_secs(3600);
const LATER: u64 = 2 * 3600 * 1_000_000_000;
const ALL: ReadLimits = ReadLimits { raw_bytes_max: usize::MAX, spans_max: u64::MAX, batches_max: usize::MAX };

/// Failed spans are wanted.
fn settings() -> TailSamplingSettings {
    TailSamplingSettings {
        decision_wait: WAIT,
        num_traces: 1000,
        sample_on_first_match: false,
        policies: vec![PolicySettings { name: "errors".to_owned(), rule: Rule::StatusCode { codes: vec![2] } }],
    }
}

fn open(directory: &Path) -> Spool {
    let settings = Settings {
        directory: directory.to_owned(),
        bytes_max: u64::MAX,
        age_max: None,
        free_bytes_min: 0,
        sync_interval: Duration::ZERO,
        memory: crate::spool::Memory::default(),
        trace_keys,
    };
    Spool::open(settings, crate::spool::Metrics::default()).unwrap()
}

/// A span: its trace, its own number, whether it failed.
type Made = (u8, u8, bool);

fn request(spans: &[Made]) -> Vec<u8> {
    let (mut scope_spans, mut resource_spans, mut request) = (Vec::new(), Vec::new(), Vec::new());
    for (trace, number, has_failed) in spans {
        let (mut span, mut status) = (Vec::new(), Vec::new());
        put_bytes(&mut span, 1, &[*trace; 16]);
        put_bytes(&mut span, 2, &[*number; 8]);
        put_fixed64(&mut span, 7, 1);
        put_fixed64(&mut span, 8, 2);
        put_uint(&mut status, 3, if *has_failed { 2 } else { 0 });
        put_bytes(&mut span, 15, &status);
        put_bytes(&mut scope_spans, 2, &span);
    }
    put_bytes(&mut resource_spans, 2, &scope_spans);
    put_bytes(&mut request, 1, &resource_spans);
    request
}

async fn append(spool: &Spool, pipeline: crate::spool::PipelineId, spans: &[Made]) {
    let request = request(spans);
    let scanned = scan(&request).unwrap();
    let append = Append {
        pipeline,
        request: request.into(),
        spans: scanned.spans,
        rejected: 0,
        filtered: 0,
        sampled_out: 0,
        time: TimeRange { min_start: scanned.min_start, max_end: scanned.max_end },
        keys: scanned.keys,
    };
    spool.append(append).await.unwrap();
}

/// Trace and number of every span in a chunk.
fn spans_of(chunk: &crate::spool::Chunk) -> Vec<(u8, u8)> {
    let mut found = Vec::new();
    for batch in &chunk.batches {
        let raw = body::inflate(&batch.frame, batch.header.raw_bytes as usize).unwrap();
        let before = found.len();
        for_each_span(&raw, |_, _, span| {
            let id = |number| Fields::new(span).flatten().find_map(|field| field.bytes(number)).unwrap()[0];
            found.push((id(1), id(2)));
        });
        assert_eq!(found.len() - before, batch.header.spans as usize);
    }
    found
}

/// Everything that a destination gets from here on; each read is booked.
fn drain(feed: &Feed) -> Vec<(u8, u8)> {
    let mut found = Vec::new();
    loop {
        let from = feed.position();
        let chunk = feed.read(from, ALL).unwrap();
        if chunk.next <= from {
            return found;
        }
        let spans = spans_of(&chunk);
        let outcome = Outcome { sent: spans.len() as u64, ..Outcome::default() };
        assert!(feed.advance(from, chunk.next, outcome).unwrap());
        found.extend(spans);
    }
}

/// Which spans are of traces that failed.
fn wanted(spans: &[Made]) -> BTreeSet<(u8, u8)> {
    let failed: BTreeSet<u8> = spans.iter().filter(|(_, _, failed)| *failed).map(|(trace, _, _)| *trace).collect();
    spans.iter().filter(|(trace, _, _)| failed.contains(trace)).map(|(trace, number, _)| (*trace, *number)).collect()
}

struct Bench {
    spool: Spool,
    sampling: Sampling,
    decider: Decider,
    feed: Feed,
}

impl Bench {
    async fn open(directory: &Path) -> Self {
        let spool = open(directory);
        let pipeline = spool.pipeline("traces").await.unwrap();
        let decider = spool.consumer("tail_sampling", pipeline).unwrap();
        let sampling = Sampling::new("traces", &settings(), &spool, decider, &SamplingMetrics::default());
        let decider = Decider::open(&sampling).unwrap();
        let feed = sampling.feed(spool.consumer("tempo", pipeline).unwrap());
        Self { spool, sampling, decider, feed }
    }

    /// Lets the decider work on `batches` batches at once until it has nothing to do.
    fn decide(&mut self, now: u64, batches: usize, steps: usize) {
        self.decider.limits = ReadLimits { batches_max: batches, ..ALL };
        for _ in 0..steps {
            self.decider.step(now).unwrap();
        }
        self.sampling.decided.send_replace(self.sampling.consumer.position());
    }

    /// The second equation, for the decider and for the destination.
    fn check(&self) {
        let snapshot = self.spool.snapshot();
        for consumer in &snapshot.consumers {
            let stored = snapshot.ledger.account(consumer.account.pipeline).unwrap().stored;
            assert_eq!(stored, consumer.account.accounted() + consumer.queued, "{consumer:?}");
        }
    }
}

fn now() -> u64 {
    crate::spool::unix_nanos()
}

#[tokio::test]
async fn nothing_passes_before_the_wait_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(directory.path()).await;
    let pipeline = bench.spool.pipeline("traces").await.unwrap();
    append(&bench.spool, pipeline, &[(1, 1, true), (2, 1, false)]).await;
    bench.decide(now() + LATER / 4, 10, 3);
    assert_eq!(drain(&bench.feed), []);
    // What comes long after the first span, and before the decision, counts.
    append(&bench.spool, pipeline, &[(2, 2, true), (3, 1, false)]).await;
    bench.decide(now() + LATER, 1, 1);
    assert_eq!(drain(&bench.feed), [(1, 1), (2, 1)]);
    bench.decide(now() + LATER, 1, 1);
    assert_eq!(drain(&bench.feed), [(2, 2)]);
    // Later spans share the decision on their trace.
    append(&bench.spool, pipeline, &[(1, 9, false), (3, 9, true)]).await;
    bench.decide(now() + LATER, 1, 1);
    assert_eq!(drain(&bench.feed), [(1, 9)]);
    bench.check();
    let snapshot = bench.spool.snapshot();
    let tempo = snapshot.consumers.iter().find(|consumer| consumer.account.destination == "tempo").unwrap();
    assert_eq!(tempo.account.lost, BTreeMap::from([(crate::spool::LossReason::SampledOut, 2)]));
}

#[tokio::test]
async fn what_could_not_be_booked_is_not_remembered_either() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(directory.path()).await;
    let pipeline = bench.spool.pipeline("traces").await.unwrap();
    // The first batch alone makes the trace one that is wanted.
    append(&bench.spool, pipeline, &[(1, 1, true)]).await;
    append(&bench.spool, pipeline, &[(1, 2, false)]).await;
    append(&bench.spool, pipeline, &[(1, 3, false)]).await;
    bench.decider.limits = ReadLimits { batches_max: 1, ..ALL };
    let judged = bench.decider.judge(now() + LATER).unwrap().unwrap();
    // The budget takes it away before the decision is written.
    let lost = || Outcome { lost: vec![(crate::spool::LossReason::Budget, 1)], ..Outcome::default() };
    let from = bench.feed.position();
    assert!(bench.sampling.consumer.advance(from, from.next(), lost()).unwrap());
    assert!(bench.feed.advance(from, from.next(), lost()).unwrap());
    assert_eq!(bench.decider.settle(&judged).unwrap(), Next::Now);
    bench.decide(now() + LATER, 1, 1);
    bench.check();
    bench.spool.close().await;
    drop(bench);
    // The process ends between the two that are left: what was decided about the one holds for the other.
    let mut bench = Bench::open(directory.path()).await;
    bench.decide(now() + LATER, 1, 2);
    assert_eq!(drain(&bench.feed), [], "half a trace passed");
    bench.check();
}

#[tokio::test]
async fn a_batch_of_kept_traces_goes_out_as_it_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(directory.path()).await;
    let pipeline = bench.spool.pipeline("traces").await.unwrap();
    append(&bench.spool, pipeline, &[(1, 1, true), (2, 1, true)]).await;
    let stored = bench.spool.batch(bench.feed.position()).unwrap().unwrap();
    bench.decide(now() + LATER, 10, 1);
    let read = bench.feed.read(bench.feed.position(), ALL).unwrap();
    assert_eq!(read.batches[0].frame, stored.frame);
}

#[tokio::test]
async fn a_pipeline_that_samples_no_more_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(directory.path()).await;
    let pipeline = bench.spool.pipeline("traces").await.unwrap();
    append(&bench.spool, pipeline, &[(1, 1, false), (2, 1, true)]).await;
    append(&bench.spool, pipeline, &[(2, 2, false)]).await;
    bench.decide(now() + LATER, 1, 1);
    assert!(!bench.sampling.consumer.notes(b"", &[u8::MAX]).unwrap().is_empty());
    bench.sampling.consumer.remove().unwrap();
    assert!(bench.sampling.consumer.notes(b"", &[u8::MAX]).unwrap().is_empty());
    assert!(bench.spool.snapshot().consumers.iter().all(|consumer| consumer.account.destination != "tail_sampling"));
}

#[tokio::test]
async fn what_is_sampled_out_is_marked_for_a_store_that_wants_to_know() {
    for is_marking in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut bench = Bench::open(directory.path()).await;
        let pipeline = bench.spool.pipeline("traces").await.unwrap();
        if is_marking {
            bench.decider = Decider::open(&bench.sampling.clone().marking()).unwrap();
        }
        append(&bench.spool, pipeline, &[(1, 1, true), (2, 1, false), (2, 2, false), (3, 1, false)]).await;
        append(&bench.spool, pipeline, &[(1, 2, false), (3, 2, false)]).await;
        bench.decide(now() + LATER, 1, 1);
        let marks = |bench: &Bench| {
            let mut marks = BTreeMap::new();
            let all = crate::spool::Seq(0)..crate::spool::Seq(u64::MAX);
            let add = |mark, spans| *marks.entry(mark).or_insert(0) += spans;
            sampled_out::each(bench.spool.database(), all, add).unwrap();
            marks
        };
        let mark = |trace: u8| sampled_out::stored_mark(crate::otlp::TraceId([trace; 16]).long_fingerprint());
        let expected = |all: &[(u8, u64)]| -> BTreeMap<u64, u64> {
            all.iter().filter(|_| is_marking).map(|(trace, spans)| (mark(*trace), *spans)).collect()
        };
        assert_eq!(marks(&bench), expected(&[(2, 2), (3, 1)]), "of the first batch, with its verdict");
        bench.decide(now() + LATER, 1, 1);
        assert_eq!(marks(&bench), expected(&[(2, 2), (3, 2)]));
        bench.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever lies where, and wherever the process dies in between: what passes is every span of the traces that are
    /// wanted, once, and nothing else.
    #[test]
    fn what_passes_is_the_wanted_traces_whole(
        batches in proptest::collection::vec(proptest::collection::vec((0u8..6, any::<bool>()), 1..6), 1..14),
        at_once in 1usize..4,
        dies_after in 0usize..8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let mut made: Vec<Made> = Vec::new();
            let mut found = Vec::new();
            let mut bench = Bench::open(directory.path()).await;
            let pipeline = bench.spool.pipeline("traces").await.unwrap();
            let other = bench.spool.pipeline("traces/other").await.unwrap();
            for spans in &batches {
                // One in three fails; numbers tell spans apart.
                let spans: Vec<Made> = spans
                    .iter()
                    .enumerate()
                    .map(|(index, (trace, failed))| (trace + 1, (made.len() + index + 1) as u8, *failed && index == 0))
                    .collect();
                append(&bench.spool, pipeline, &spans).await;
                append(&bench.spool, other, &[(1, 200, true)]).await;
                made.extend(spans);
            }
            bench.decide(now() + LATER, at_once, dies_after);
            found.extend(drain(&bench.feed));
            bench.check();
            bench.spool.close().await;
            drop(bench);

            let mut bench = Bench::open(directory.path()).await;
            bench.decide(now() + LATER, at_once, 20);
            found.extend(drain(&bench.feed));
            bench.check();
            bench.spool.close().await;
            let unique: BTreeSet<(u8, u8)> = found.iter().copied().collect();
            assert_eq!(unique.len(), found.len(), "a span passed twice");
            assert_eq!(unique, wanted(&made));
        });
    }
}
