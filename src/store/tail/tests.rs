//! The tail and the store on a real spool.

mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Wire;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message as _;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::otlp::{SpanId, scan};
use crate::query::{Look, Order, SourceError, SpanSource as _, TraceSource as _};
use crate::spool::{Append, Header, Metrics, PipelineId, Settings, TimeRange};
use crate::store::assemble::{AssembleLimits, assemble};
use crate::store::build::tests::generate::{attribute, request, requests, span};
use crate::store::{Fragments, Sealed, SealedView, Store};
use crate::traceql::ast::{Attribute, Field, Intrinsic};
use crate::traceql::column::Cell;
use crate::traceql::control::{Control, Stopped};
use crate::traceql::mask::Mask;
use crate::traceql::segment::{Column, Source};
use crate::traceql::value::{Kind, Value};

/// A spool in a directory of its own.
struct Rig {
    runtime: tokio::runtime::Runtime,
    spool: Spool,
    pipeline: PipelineId,
    _directory: TempDir,
}

impl Rig {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let settings = Settings {
            directory: directory.path().to_owned(),
            bytes_max: u64::MAX,
            age_max: None,
            free_bytes_min: 0,
            sync_interval: Duration::ZERO,
            memory: crate::spool::Memory::default(),
            trace_keys: scan::trace_keys,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let spool = Spool::open(settings, Metrics::default()).unwrap();
        let pipeline = runtime.block_on(spool.pipeline("traces")).unwrap();
        Self { runtime, spool, pipeline, _directory: directory }
    }

    /// One batch, if the request has spans at all.
    fn append(&self, request: &ExportTraceServiceRequest) {
        let bytes = request.encode_to_vec();
        let scanned = scan::scan(&bytes).unwrap();
        assert_eq!(scanned.invalid, 0);
        let append = Append {
            pipeline: self.pipeline,
            request: bytes.into(),
            spans: scanned.spans,
            rejected: 0,
            filtered: 0,
            sampled_out: 0,
            time: TimeRange { min_start: scanned.min_start, max_end: scanned.max_end },
            keys: scanned.keys,
        };
        self.runtime.block_on(self.spool.append(append)).unwrap();
    }

    fn store(&self, sealed: &Arc<FakeRuns>, settings: TailSettings) -> Store {
        Store::new(self.spool.clone(), Arc::clone(sealed) as _, settings)
    }

    fn close(self) {
        self.runtime.block_on(self.spool.close());
    }
}

/// Runs that have everything up to a batch, and show nothing.
#[derive(Default)]
struct FakeRuns {
    sealed_to: AtomicU64,
    whole_since: Option<u64>,
}

struct FakeView(Seq, Option<u64>);

impl Sealed for FakeRuns {
    fn view(&self) -> Arc<dyn SealedView> {
        Arc::new(FakeView(Seq(self.sealed_to.load(Ordering::Relaxed)), self.whole_since))
    }
}

impl SealedView for FakeView {
    fn sealed_to(&self) -> Seq {
        self.0
    }

    fn segments(&self, _: u64, _: u64) -> Vec<Arc<dyn Segment>> {
        Vec::new()
    }

    fn whole_since(&self) -> Option<u64> {
        self.1
    }

    fn pieces(&self, _: TraceId) -> Result<Vec<Piece>, SegmentError> {
        Ok(Vec::new())
    }

    fn may_hold(&self, _: TraceId, _: u64, _: u64) -> bool {
        false
    }

    fn may_be_split(&self, _: &dyn Segment, _: usize) -> bool {
        false
    }

    fn split_traces(&self, _: &dyn Segment, traces: usize) -> Mask {
        Mask::none(traces)
    }

    fn fragments(&self, _: TraceId, _: usize) -> Result<Fragments, SourceError> {
        Ok(Fragments::default())
    }
}

/// What tells one span from another.
type Key = (TraceId, SpanId, Kind);

fn keys_of(request: &ExportTraceServiceRequest) -> Vec<Key> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    let key = |span: &Span| {
        let (trace, id) = (TraceId::from_wire(&span.trace_id), SpanId::from_wire(&span.span_id));
        (trace.unwrap(), id.unwrap(), Kind::from_otlp(span.kind as u64))
    };
    scopes.flat_map(|scope| &scope.spans).map(key).collect()
}

fn keys_in(segment: &dyn Segment) -> Vec<Key> {
    let traces = segment.traces().unwrap();
    let ids = segment.span_ids(0..segment.rows()).unwrap();
    let kind = |row| match segment.cell(&Field::Intrinsic(Intrinsic::Kind), row).unwrap() {
        Some(Cell::One(Value::Kind(kind))) => kind,
        other => panic!("{other:?}"),
    };
    (0..segment.rows()).map(|row| (traces.ids[traces.of_row(row)], ids[row].span, kind(row))).collect()
}

/// Spans by trace over all segments; checks what segments promise of one another on the way.
fn all_keys(source: &dyn Source) -> BTreeMap<TraceId, BTreeSet<Key>> {
    let segments = source.segments(0, u64::MAX);
    assert!(segments.is_sorted_by_key(|segment| std::cmp::Reverse(segment.times().max_start)));
    let ids: BTreeSet<_> = segments.iter().map(|segment| segment.id()).collect();
    assert_eq!(ids.len(), segments.len());
    let mut traces: BTreeMap<TraceId, BTreeSet<Key>> = BTreeMap::new();
    let mut homes: BTreeMap<TraceId, Vec<(usize, usize)>> = BTreeMap::new();
    for (number, segment) in segments.iter().enumerate() {
        for (trace, id) in segment.traces().unwrap().ids.iter().enumerate() {
            homes.entry(*id).or_default().push((number, trace));
        }
        for key in keys_in(&**segment) {
            traces.entry(key.0).or_default().insert(key);
        }
    }
    for (id, homes) in homes {
        for (segment, trace) in &homes {
            let may_be_split = source.may_be_split(&*segments[*segment], *trace);
            assert!(may_be_split || homes.len() == 1);
        }
        let mut pieces: Vec<_> =
            source.pieces(id).unwrap().iter().map(|piece| (piece.segment.id(), piece.trace)).collect();
        let mut expected: Vec<_> = homes.iter().map(|(segment, trace)| (segments[*segment].id(), *trace)).collect();
        pieces.sort_unstable();
        expected.sort_unstable();
        assert_eq!(pieces, expected);
    }
    traces
}

fn expected_keys<'a>(batches: impl Iterator<Item = &'a ExportTraceServiceRequest>) -> BTreeMap<TraceId, BTreeSet<Key>> {
    let mut traces: BTreeMap<TraceId, BTreeSet<Key>> = BTreeMap::new();
    for key in batches.flat_map(keys_of) {
        traces.entry(key.0).or_default().insert(key);
    }
    traces
}

/// Everything kept, nothing kept, and nothing known beforehand.
fn settings() -> impl Strategy<Value = TailSettings> {
    prop_oneof![
        Just(TailSettings::default()),
        Just(TailSettings { resident_bytes_max: 0, ..TailSettings::default() }),
        Just(TailSettings { resident_bytes_max: 0, whole_raw_bytes_max: 0 }),
    ]
}

proptest! {
    // Each case opens a database.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_acknowledged_batch_is_seen_at_once_and_a_sealed_one_no_longer(
        settings in settings(),
        steps in proptest::collection::vec((requests(), 0u64..6), 1..5),
    ) {
        let rig = Rig::new();
        let runs = Arc::new(FakeRuns::default());
        let store = rig.store(&runs, settings);
        let mut batches = Vec::new();
        let mut sealed = 0;
        for (requests, newly_sealed) in steps {
            for request in requests {
                rig.append(&request);
                if !request.encode_to_vec().is_empty() {
                    batches.push(request);
                }
            }
            let before = store.searchable().unwrap();
            sealed = (sealed + newly_sealed).min(batches.len() as u64);
            runs.sealed_to.store(sealed + 1, Ordering::Relaxed);
            let source = store.searchable().unwrap();
            prop_assert_eq!(all_keys(&*source), expected_keys(batches.iter().skip(sealed as usize)));
            prop_assert!(all_keys(&*before).len() >= all_keys(&*source).len());
        }
        rig.close();
    }

    #[test]
    fn a_trace_by_id_has_the_spans_of_all_its_pieces(settings in settings(), requests in requests()) {
        let rig = Rig::new();
        let store = rig.store(&Arc::default(), settings);
        requests.iter().for_each(|request| rig.append(request));
        let limits = AssembleLimits { trace_bytes_max: usize::MAX };
        for (trace, keys) in all_keys(&*store.searchable().unwrap()) {
            let found = store.trace(trace, &limits).unwrap();
            let whole = assemble(found.fragments.iter().map(|fragment| &fragment[..]), &limits).unwrap();
            prop_assert_eq!(whole.spans, keys.len());
        }
        rig.close();
    }
}

/// Spans with the numbers `from..from + count` as a batch of about 400 bytes each.
fn batch(from: u64, count: u64) -> ExportTraceServiceRequest {
    let padded = |number: u64| Span { trace_state: "x".repeat(350), ..span(number / 10 + 1, number + 1, 0, number) };
    request("a", (from..from + count).map(padded).collect())
}

#[test]
fn a_segment_outlives_eviction_and_stays_the_same() {
    let rig = Rig::new();
    let store = rig.store(&Arc::default(), TailSettings { resident_bytes_max: 0, ..TailSettings::default() });
    (0..8).for_each(|number| rig.append(&batch(number * 3000, 3000)));
    let source = store.searchable().unwrap();
    let segments = source.segments(0, u64::MAX);
    assert!(segments.len() > 2, "{}", segments.len());
    for _ in 0..2 {
        for segment in &segments {
            let starts = segment.starts().unwrap();
            assert_eq!(starts.len(), segment.rows());
            assert_eq!(starts.iter().max().copied(), Some(segment.times().max_start));
        }
    }
    assert_eq!(segments.iter().map(|segment| segment.rows()).sum::<usize>(), 24_000);
    rig.close();
}

#[test]
fn a_long_backlog_is_built_only_where_it_is_read() {
    let rig = Rig::new();
    let store = rig.store(&Arc::default(), TailSettings { whole_raw_bytes_max: 0, ..TailSettings::default() });
    (0..8).for_each(|number| rig.append(&batch(number * 3000, 3000)));
    let source = store.searchable().unwrap();
    let newest = source.segments(23_500, u64::MAX);
    assert_eq!(newest.len(), 1);
    assert!(source.may_be_split(&*newest[0], 0), "nothing is known of the others");
    assert_eq!(newest[0].times().max_start, 23_999);
    assert_eq!(source.pieces(newest[0].traces().unwrap().ids[1]).unwrap().len(), 1);
    rig.close();
}

#[test]
fn a_request_of_more_spans_than_a_segment_has_rows_is_seen_as_a_whole() {
    let rig = Rig::new();
    let store = rig.store(&Arc::default(), TailSettings::default());
    rig.append(&batch(0, 10));
    let spans = (10..150_010u64).map(|number| span(number / 1000 + 1, number + 1, 0, number)).collect();
    rig.append(&request("a", spans));
    rig.append(&batch(150_010, 10));
    let source = store.searchable().unwrap();
    let segments = source.segments(0, u64::MAX);
    assert_eq!(segments.len(), 5);
    let spans: BTreeSet<_> =
        segments.iter().flat_map(|segment| segment.span_ids(0..segment.rows()).unwrap()).map(|ids| ids.span).collect();
    assert_eq!(spans.len(), 150_020);
    rig.close();
}

#[test]
fn long_values_are_looked_up_in_their_batches() {
    let rig = Rig::new();
    let store = rig.store(&Arc::default(), TailSettings::default());
    let user = |number: u64| format!("a user with the number {number:020}");
    for from in (0..2000u64).step_by(40) {
        let with_user = |number: u64| Span {
            attributes: vec![attribute("user", Some(Wire::StringValue(user(number))))],
            ..span(number % 100 + 1, number + 1, 0, number)
        };
        rig.append(&request("a", (from..from + 40).map(with_user).collect()));
    }
    let source = store.searchable().unwrap();
    let segments = source.segments(0, u64::MAX);
    assert_eq!(segments.len(), 1);
    let scope = Some(crate::traceql::ast::Scope::Span);
    let field = Field::Attribute(Attribute { scope, of_parent: false, name: "user".to_owned() });
    assert!(matches!(segments[0].column(&field).unwrap(), Column::Unlisted { .. }));
    for (row, ids) in segments[0].span_ids(0..2000).unwrap().iter().enumerate() {
        let expected = Value::String(user(u64::from_be_bytes(ids.span.0) - 1).into());
        assert_eq!(segments[0].cell(&field, row).unwrap(), Some(Cell::One(expected)));
    }
    rig.close();
}

#[test]
fn what_no_query_reads_any_more_leaves_memory_and_comes_back_when_one_does() {
    let rig = Rig::new();
    let tail = Tail::new(rig.spool.clone(), TailSettings::default());
    (0..4).for_each(|number| rig.append(&batch(number * 3000, 3000)));
    let resident_bytes = || {
        let groups = lock(&tail.shared.state).plan.groups();
        groups.iter().map(|group| group.resident_bytes()).collect::<Vec<_>>()
    };
    let view = tail.view(rig.spool.range()).unwrap();
    tail.release_idle(Seq::FIRST);
    assert!(resident_bytes().iter().all(|bytes| *bytes > 0), "in use since the last call: {:?}", resident_bytes());
    let newest = view.segments(11_999, u64::MAX).next().unwrap();
    newest.starts().unwrap();
    tail.release_idle(Seq::FIRST);
    let left = resident_bytes();
    let (newest_bytes, others) = left.split_last().unwrap();
    assert!(*newest_bytes > 0 && !others.is_empty() && others.iter().all(|bytes| *bytes == 0), "{left:?}");
    tail.release_idle(rig.spool.range().end);
    assert!(resident_bytes().iter().all(|bytes| *bytes == 0), "{:?}", resident_bytes());
    assert_eq!(newest.starts().unwrap().iter().max(), Some(&11_999));
    rig.close();
}

#[test]
fn what_the_first_query_would_wait_for_is_built_at_the_start() {
    let rig = Rig::new();
    rig.append(&batch(0, 3000));
    let store = rig.store(&Arc::default(), TailSettings::default());
    let shutdown = CancellationToken::new();
    let housekeeping = rig.runtime.spawn(store.clone().housekeep(shutdown.clone()));
    shutdown.cancel();
    rig.runtime.block_on(housekeeping).unwrap();
    let groups = lock(&store.tail.shared.state).plan.groups();
    assert!(!groups.is_empty() && groups.iter().all(|group| group.resident_bytes() > 0));
    drop(store);
    rig.close();
}

#[test]
fn what_was_dropped_between_runs_and_tail_ends_what_is_whole() {
    let rig = Rig::new();
    let whole_since = |sealed_to| {
        let runs = FakeRuns { sealed_to: AtomicU64::new(sealed_to), whole_since: Some(5) };
        rig.store(&Arc::new(runs), TailSettings::default()).searchable().unwrap().whole_since()
    };
    let first = rig.spool.range().start.0;
    assert_eq!((whole_since(first - 1), whole_since(first)), (u64::MAX, 5), "nothing is behind the hole");
    rig.append(&batch(0, 10));
    let received = rig.spool.trace_header(Seq(first)).unwrap().unwrap().received;
    assert_eq!((whole_since(first - 1), whole_since(first)), (received, 5));
    rig.close();
}

#[test]
fn one_look_at_what_arrived_takes_no_more_than_a_segment_and_one_batch_at_least() {
    let rig = Rig::new();
    let store = rig.store(&Arc::default(), TailSettings::default());
    let first = rig.spool.range().start.0;
    let text = "x".repeat(3 << 20);
    for number in 1..=3 {
        rig.append(&request("a", vec![Span { name: text.clone(), ..span(number, number, 0, number) }]));
    }
    rig.append(&batch(0, 2));
    let look = |batches, order, spans_wanted, control: &Control| {
        let mut requests = 0;
        let each = &mut |_: &[u8]| -> Result<(), Stopped> {
            requests += 1;
            Ok(())
        };
        let arrivals = store.arrivals(&Look { batches, order, spans_wanted }, control, each);
        arrivals.map(|arrivals| (arrivals.batches, arrivals.spans, requests))
    };
    let control = Control::new(Duration::from_secs(3_600), 1 << 20);
    let all = first..first + 4;
    assert_eq!(look(all.clone(), Order::InOrder, u64::MAX, &control).unwrap(), (first..first + 1, 1, 1));
    assert_eq!(look(all.clone(), Order::NewestFirst, u64::MAX, &control).unwrap(), (first + 2..first + 4, 3, 2));
    assert_eq!(look(all.clone(), Order::NewestFirst, 2, &control).unwrap(), (first + 3..first + 4, 2, 1));
    // What goes on where the last one ended comes to the end; what is of another directory is nothing.
    assert_eq!(look(first + 2..first + 9, Order::InOrder, u64::MAX, &control).unwrap(), (first + 2..first + 4, 3, 2));
    for order in [Order::InOrder, Order::NewestFirst] {
        assert_eq!(look(first + 90..first + 99, order, u64::MAX, &control).unwrap(), (first + 4..first + 4, 0, 0));
    }
    control.cancel();
    assert!(matches!(look(all, Order::InOrder, u64::MAX, &control), Err(SourceError::Stopped(Stopped::Cancelled))));
    rig.close();
}

#[test]
fn a_damaged_batch_hides_no_other() {
    let rig = Rig::new();
    (0..3).for_each(|number| rig.append(&batch(number * 10, 10)));
    let database = rig.spool.database();
    let family = database.family(crate::spool::database::BATCH);
    let mut value = database.raw().get_cf(family, Seq(2).key()).unwrap().unwrap();
    value[Header::LEN..].fill(0xaa);
    database.raw().put_cf(family, Seq(2).key(), value).unwrap();
    let store = rig.store(&Arc::default(), TailSettings::default());
    let keys = all_keys(&*store.searchable().unwrap());
    assert_eq!(keys, expected_keys([batch(0, 10), batch(20, 10)].iter()));
    rig.close();
}
