//! Sealing against what was appended: every span byte for byte, every column as it was built, whatever is cut short.

mod damage;
mod retention;
mod thinning;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message as _;
use tempfile::TempDir;

use super::*;
use crate::otlp::scan::trace_keys;
use crate::otlp::view::for_each_span;
use crate::otlp::{TraceId, view};
use crate::spool::{Append, Metrics as SpoolMetrics, PipelineId, Settings, TimeRange};
use crate::store::SealedView;
use crate::store::build::InMemory;
use crate::store::build::tests::generate;
use crate::store::runs::{DamagedPlace, Metrics, View};
use crate::traceql::ast::{Attribute, Field, Intrinsic, Scope};
use crate::traceql::segment::{Column, Segment, SegmentId};

fn open_spool(directory: &Path, bytes_max: u64) -> Spool {
    let settings = Settings {
        directory: directory.to_owned(),
        bytes_max,
        age_max: None,
        free_bytes_min: 0,
        sync_interval: Duration::ZERO,
        memory: crate::spool::Memory::default(),
        trace_keys,
    };
    Spool::open(settings, SpoolMetrics::default()).unwrap()
}

/// A data directory in use.
struct Rig {
    runtime: tokio::runtime::Runtime,
    spool: Spool,
    pipeline: PipelineId,
    sealer: Sealer,
}

impl Rig {
    fn open(directory: &TempDir) -> Self {
        Self::with_settings(directory, SealSettings { release_after: Duration::ZERO, ..SealSettings::default() })
    }

    fn with_settings(directory: &TempDir, settings: SealSettings) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let spool = open_spool(directory.path(), u64::MAX);
        let pipeline = runtime.block_on(spool.pipeline("traces")).unwrap();
        let runs =
            Runs::open(spool.database().clone(), Metrics::default(), crate::store::runs::Memory::default()).unwrap();
        let sealer = Sealer::new(spool.clone(), runs, settings, RetentionSettings::default(), Pool::new(64 << 20));
        sealer.begin();
        Self { runtime, spool, pipeline, sealer }
    }

    fn append(&self, request: &[u8]) {
        let mut spans = 0;
        for_each_span(request, |_, _, _| spans += 1);
        let mut keys = Vec::new();
        trace_keys(request, &mut keys);
        let append = Append {
            pipeline: self.pipeline,
            request: request.to_vec().into(),
            spans,
            rejected: 0,
            filtered: 0,
            sampled_out: 0,
            time: TimeRange { min_start: 1, max_end: 2 },
            keys,
        };
        self.runtime.block_on(self.spool.append(append)).unwrap();
    }

    /// 240,000 spans of as many traces. One extent is 16 MiB of frames at most: random ids fill several.
    fn fill_extents(&self) {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 16) | 1
        };
        for batch in 0..40u64 {
            let spans: Vec<Span> = (0..6_000u64)
                .map(|number| {
                    let mut span = span(batch * 6_000 + number + 1, random(), random(), random());
                    span.trace_state = format!("{:x}{:x}{:x}{:x}", random(), random(), random(), random());
                    span
                })
                .collect();
            self.append(&request(spans));
        }
    }

    fn view(&self) -> std::sync::Arc<View> {
        self.sealer.runs.view()
    }

    fn housekeep(&self) {
        // Housekeeping runs once a second; the token ends it right after the first time.
        let shutdown = tokio_util::sync::CancellationToken::new();
        let stop = shutdown.clone();
        self.runtime.block_on(async {
            let spool = self.spool.clone();
            let task = tokio::spawn(async move { spool.housekeep(shutdown).await });
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            stop.cancel();
            task.await.unwrap();
            // What was asked before is done before this.
            self.spool.pipeline("traces").await.unwrap();
        });
    }

    fn close(self) {
        self.runtime.block_on(self.spool.close());
    }
}

/// Distinct spans of a trace, as pairs of resource and span bytes.
fn spans_in<'a>(requests: impl IntoIterator<Item = &'a [u8]>) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
    let mut spans = BTreeSet::new();
    for request in requests {
        for_each_span(request, |resource, _, span| {
            let resource = view::messages(resource, 1).last().unwrap_or_default();
            spans.insert((resource.to_vec(), span.to_vec()));
        });
    }
    spans
}

fn span(trace: u64, id: u64, parent: u64, start: u64) -> Span {
    generate::span(trace, id, parent, start)
}

fn request(spans: Vec<Span>) -> Vec<u8> {
    generate::request("shop", spans).encode_to_vec()
}

fn id(trace: u64) -> TraceId {
    TraceId(u128::from(trace).to_be_bytes())
}

fn fields(segment: &dyn Segment) -> Vec<Field> {
    let intrinsics = [
        Intrinsic::Name,
        Intrinsic::Status,
        Intrinsic::StatusMessage,
        Intrinsic::Kind,
        Intrinsic::EventName,
        Intrinsic::EventTimeSinceStart,
        Intrinsic::LinkTraceId,
        Intrinsic::LinkSpanId,
        Intrinsic::InstrumentationName,
        Intrinsic::InstrumentationVersion,
        Intrinsic::Duration,
    ];
    let mut fields: Vec<Field> = intrinsics.into_iter().map(Field::Intrinsic).collect();
    for scope in Scope::ALL {
        for name in segment.names(scope).unwrap().iter().map(ToString::to_string).chain(["no.such.name".to_owned()]) {
            fields.push(Field::Attribute(Attribute { scope: Some(scope), of_parent: false, name }));
        }
    }
    fields
}

/// The segment on disk answers as the one in memory that it was made from.
fn check_same(disk: &dyn Segment, memory: &dyn Segment) {
    let rows = memory.rows();
    assert_eq!((disk.rows(), disk.times()), (rows, memory.times()));
    assert_eq!(disk.traces().unwrap(), memory.traces().unwrap());
    assert_eq!(disk.starts().unwrap(), memory.starts().unwrap());
    assert_eq!(disk.durations().unwrap(), memory.durations().unwrap());
    assert_eq!(disk.parents().unwrap(), memory.parents().unwrap());
    assert_eq!(disk.span_ids(0..rows).unwrap(), memory.span_ids(0..rows).unwrap());
    assert_eq!(disk.span_ids(rows / 2..rows / 2 + 1).unwrap(), memory.span_ids(rows / 2..rows / 2 + 1).unwrap());
    for scope in Scope::ALL {
        assert_eq!(disk.names(scope).unwrap(), memory.names(scope).unwrap());
    }
    for field in fields(memory) {
        match (disk.column(&field).unwrap(), memory.column(&field).unwrap()) {
            (Column::Absent, Column::Absent) => {}
            (Column::Listed(disk), Column::Listed(memory)) => assert_eq!(format!("{disk:?}"), format!("{memory:?}")),
            (Column::Unlisted { sketches: disk }, Column::Unlisted { sketches: memory }) => assert_eq!(disk, memory),
            (disk, memory) => panic!("{field:?}: {disk:?} for {memory:?}"),
        }
        let (disk_codes, memory_codes) = (disk.codes(&field).unwrap(), memory.codes(&field).unwrap());
        assert!((0..rows).all(|row| disk_codes.get(row) == memory_codes.get(row)), "{field:?}");
        // Columns hold the values of all others. Of many rows some must do.
        if !matches!(memory.column(&field).unwrap(), Column::Unlisted { .. }) {
            continue;
        }
        for row in (0..rows).step_by(rows / 500 + 1) {
            let (disk, memory) = (disk.cell(&field, row).unwrap(), memory.cell(&field, row).unwrap());
            // Not a number is not equal to itself.
            assert_eq!(format!("{disk:?}"), format!("{memory:?}"), "{field:?} of row {row}");
        }
    }
}

fn check_sealed_as_built(requests: &[Vec<u8>]) {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    let mut builder = Builder::new();
    for request in requests {
        rig.append(request);
        builder.push(request.clone().into(), 0);
    }
    let memory = InMemory { id: SegmentId(1, 0), built: builder.finish() };
    rig.sealer.seal_all().unwrap();
    let view = rig.view();
    if memory.rows() == 0 {
        assert_eq!(view.segments().count(), 0);
        rig.close();
        return;
    }
    let segments: Vec<_> = view.segments().collect();
    assert_eq!(segments.len(), 1);
    check_same(&**segments[0], &memory);

    // By id: the first of each span id and kind, byte for byte, with its resource.
    let traces = memory.traces().unwrap();
    for (number, trace) in traces.ids.iter().enumerate() {
        let fragments = view.fragments(*trace, usize::MAX).unwrap().requests;
        let mut expected = BTreeSet::new();
        for row in traces.rows(number) {
            let resource = usize::from(memory.built.index.groups.resources[row]);
            let resource = memory.built.spans.resources[resource].content().to_vec();
            expected.insert((resource, memory.built.spans.bytes(row).to_vec()));
        }
        assert_eq!(spans_in(fragments.iter().map(|request| &**request)), expected);
        let pieces = view.pieces(*trace).unwrap();
        assert_eq!(pieces.iter().map(|piece| piece.trace).collect::<Vec<_>>(), [number]);
        assert!(view.may_hold(*trace));
    }
    assert_eq!(view.fragments(id(u64::MAX), usize::MAX).unwrap().requests.len(), 0);
    assert!(!view.may_hold(id(u64::MAX)));
    rig.close();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn what_is_sealed_is_what_was_built(requests in generate::requests()) {
        let requests: Vec<Vec<u8>> = requests.iter().map(ExportTraceServiceRequest::encode_to_vec).collect();
        // An append without spans makes no batch.
        let requests: Vec<Vec<u8>> = requests.into_iter().filter(|request| !request.is_empty()).collect();
        check_sealed_as_built(&requests);
    }
}

#[test]
fn a_large_segment_is_what_was_built() {
    // More than one slice of rows, more than one page of words, and values that are not listed.
    let requests: Vec<Vec<u8>> = (0..40u64)
        .map(|batch| {
            let spans = (0..500u64).map(|number| {
                let number = batch * 500 + number;
                let (trace, index) = (number % 4_000 + 1, number / 4_000 + 1);
                let mut span = span(
                    trace,
                    index + trace * 10,
                    if index == 1 { 0 } else { index - 1 + trace * 10 },
                    number * 1_000,
                );
                span.end_time_unix_nano = span.start_time_unix_nano + number * 977;
                let text =
                    |value: String| Some(opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(value));
                span.attributes = vec![
                    generate::attribute("http.route", text(format!("/route/{}", number % 700))),
                    generate::attribute("request.id", text(format!("{number:032x}"))),
                ];
                span
            });
            request(spans.collect())
        })
        .collect();
    check_sealed_as_built(&requests);
}

#[test]
fn sealing_cut_short_at_any_step_is_done_again_and_nothing_is_lost_or_doubled() {
    for step in [Step::FilesWritten, Step::TraceIngested, Step::ColumnIngested, Step::Registered] {
        for reopen in [false, true] {
            let directory = TempDir::new().unwrap();
            let mut rig = Rig::open(&directory);
            rig.append(&request((1..50).map(|number| span(number, number, 0, number)).collect()));
            rig.sealer.seal_all().unwrap();
            rig.append(&request((40..90).map(|number| span(number, number + 100, number, number)).collect()));
            rig.sealer.cut_short_after = Some(step);
            assert!(matches!(rig.sealer.seal_all(), Err(SealError::CutShort(at)) if at == step));
            if reopen {
                rig.close();
                rig = Rig::open(&directory);
            }
            rig.sealer.cut_short_after = None;
            rig.sealer.seal_all().unwrap();
            let view = rig.view();
            assert_eq!(view.segments().count(), 2, "{step:?}");
            assert_eq!(view.sealed(), rig.spool.range().end);
            for trace in 1..90 {
                let pieces = view.pieces(id(trace)).unwrap();
                assert_eq!(pieces.len(), if (40..50).contains(&trace) { 2 } else { 1 }, "{step:?}: trace {trace}");
                let fragments = view.fragments(id(trace), usize::MAX).unwrap().requests;
                assert_eq!(spans_in(fragments.iter().map(|request| &**request)).len(), pieces.len());
                for piece in &pieces {
                    let split = view.may_be_split(&*piece.segment, piece.trace);
                    assert_eq!(split, pieces.len() > 1, "{step:?}: trace {trace}");
                }
            }
            let files = rig.spool.database().raw().live_files().unwrap();
            let of_runs = files.iter().filter(|file| [TRACE, COLUMN].contains(&file.column_family_name.as_str()));
            assert!(of_runs.clone().all(|file| file.level > 0), "nothing waits for a compaction");
            assert_eq!(of_runs.count(), 4, "{step:?}: two files for each of two runs");
            rig.close();
        }
    }
}

#[test]
fn runs_are_there_after_reopening_and_the_spool_lets_go_of_what_they_hold() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    let consumer = rig.spool.consumer("otlp", rig.pipeline).unwrap();
    rig.fill_extents();
    let before = rig.spool.snapshot();
    assert!(before.frame_bytes > 16 << 20, "{}", before.frame_bytes);
    rig.sealer.seal_all().unwrap();
    rig.sealer.release();
    rig.housekeep();
    assert_eq!(rig.spool.snapshot().batches, before.batches, "a destination still waits");
    let limits = crate::spool::ReadLimits { raw_bytes_max: usize::MAX, spans_max: u64::MAX, batches_max: usize::MAX };
    let chunk = consumer.read(consumer.position(), limits).unwrap();
    let outcome = crate::spool::Outcome { sent: 240_000, ..Default::default() };
    assert!(consumer.advance(chunk.from, chunk.next, outcome).unwrap());
    rig.housekeep();
    let after = rig.spool.snapshot();
    assert!(after.batches < before.batches);
    assert_eq!((after.consumers[0].queued, after.consumers[0].account.lost.len()), (0, 0), "nothing is lost");
    let check = |rig: &Rig| {
        let view = rig.view();
        assert_eq!(view.segments().map(|segment| segment.rows()).sum::<usize>(), 240_000);
        assert!(view.account().lost.is_empty());
        assert_eq!(view.account().sealed.values().sum::<u64>(), 240_000);
        for trace in [1, 100_000, 240_000] {
            assert_eq!(view.fragments(id(trace), usize::MAX).unwrap().requests.len(), 1);
        }
    };
    check(&rig);
    drop(consumer);
    rig.close();
    let rig = Rig::open(&directory);
    check(&rig);
    rig.close();
}

#[test]
fn a_batch_of_more_spans_than_a_segment_takes_becomes_several() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    rig.append(&request(vec![span(1, 1, 0, 1)]));
    rig.append(&request((1..=70_000).map(|number| span(1 + number % 30_000, number + 1, 0, number)).collect()));
    rig.append(&request(vec![span(1, 99_999, 0, 1)]));
    rig.sealer.seal_all().unwrap();
    let view = rig.view();
    let rows: Vec<usize> = view.segments().map(|segment| segment.rows()).collect();
    assert_eq!(rows.iter().sum::<usize>(), 70_002);
    assert_eq!(view.segments().map(|segment| segment.id()).collect::<Vec<_>>().last(), Some(&SegmentId(3, 0)));
    assert_eq!(view.records().count(), 3);
    let pieces = view.pieces(id(2)).unwrap();
    assert!(pieces.iter().all(|piece| view.may_be_split(&*piece.segment, piece.trace)) || pieces.len() == 1);
    let fragments = view.fragments(id(2), usize::MAX).unwrap().requests;
    assert_eq!(spans_in(fragments.iter().map(|request| &**request)).len(), 3);
    rig.close();
}

#[test]
fn traces_are_known_to_be_split_however_old_the_other_piece_is() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    rig.append(&request(vec![span(7, 1, 0, 1_000), span(8, 1, 0, 1_000)]));
    rig.sealer.seal_all().unwrap();
    // Nothing is remembered: as if many runs lay between.
    rig.close();
    let mut rig = Rig::open(&directory);
    let first = rig.view().segments().next().unwrap().id();
    rig.sealer.runs.forget_recent_traces();
    // Of a trace that is not sealed yet, older runs are asked only if they have spans of its time.
    let times = rig.view().segments().next().unwrap().times();
    let may_hold = |trace: u64, start: u64, end: u64| SealedView::may_hold(&*rig.view(), id(trace), start, end);
    assert!(may_hold(7, times.max_end, u64::MAX) && may_hold(7, 0, times.min_start));
    assert!(
        !may_hold(7, times.max_end + 1, u64::MAX) && !may_hold(7, 0, times.min_start - 1) && !may_hold(9, 0, u64::MAX)
    );
    rig.append(&request(vec![span(7, 2, 1, 1_001), span(9, 1, 0, 1_000)]));
    rig.sealer.seal_all().unwrap();
    let view = rig.view();
    let split = |trace: u64| -> Vec<bool> {
        let pieces = view.pieces(id(trace)).unwrap();
        pieces.iter().map(|piece| view.may_be_split(&*piece.segment, piece.trace)).collect()
    };
    assert_eq!((split(7), split(8), split(9)), (vec![true, true], vec![false], vec![false]));
    assert_eq!(view.pieces(id(7)).unwrap()[0].segment.id(), first);
    drop(view);
    rig.close();
    // Marks are on disk.
    let rig = Rig::open(&directory);
    let view = rig.view();
    let pieces = view.pieces(id(7)).unwrap();
    assert_eq!(pieces.len(), 2);
    assert!(pieces.iter().all(|piece| view.may_be_split(&*piece.segment, piece.trace)));
}

#[test]
fn where_looking_for_split_traces_would_take_too_long_all_count_as_split() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    // Look-ups in two older runs are more than are made for one new run.
    for run in 0..2u64 {
        rig.append(&request((1..=11_000).map(|number| span(run * 20_000 + number, 1, 0, number)).collect()));
        rig.sealer.seal_all().unwrap();
    }
    rig.sealer.runs.forget_recent_traces();
    rig.append(&request((1..=11_000).map(|number| span(20_000 + number, 2, 0, number)).collect()));
    rig.sealer.seal_all().unwrap();
    let view = rig.view();
    for trace in [20_001, 25_000, 31_000] {
        let pieces = view.pieces(id(trace)).unwrap();
        assert_eq!(pieces.len(), 2);
        assert!(pieces.iter().all(|piece| view.may_be_split(&*piece.segment, piece.trace)), "trace {trace}");
    }
    drop(view);
    rig.close();
}

#[test]
fn a_directory_of_an_older_format_is_upgraded_and_seals_what_it_holds() {
    for older in ["1", "2"] {
        let directory = TempDir::new().unwrap();
        let rig = Rig::open(&directory);
        rig.append(&request(vec![span(1, 1, 0, 1)]));
        let meta = rig.spool.database().family(crate::spool::database::META);
        rig.spool.database().raw().put_cf(meta, "format", older).unwrap();
        rig.close();
        let mut rig = Rig::open(&directory);
        let meta = rig.spool.database().family(crate::spool::database::META);
        // Who reads up to 2 would send what lies ahead of a cursor again.
        assert_eq!(rig.spool.database().raw().get_cf(meta, "format").unwrap().unwrap(), b"3");
        rig.sealer.seal_all().unwrap();
        assert!(rig.view().may_hold(id(1)));
        rig.close();
    }
}

#[test]
fn the_sealer_seals_by_size_and_age_and_stops() {
    let directory = TempDir::new().unwrap();
    let settings = SealSettings { spans: 100, ..SealSettings::default() };
    let mut rig = Rig::with_settings(&directory, settings);
    rig.append(&request((1..=60).map(|number| span(number, number, 0, 1)).collect()));
    assert!(!rig.sealer.seal_if_due().unwrap(), "too few, and too young");
    rig.append(&request((1..=60).map(|number| span(number, number + 100, 0, 1)).collect()));
    assert!(rig.sealer.seal_if_due().unwrap());
    assert_eq!(rig.view().sealed(), Seq(2), "what would be too much for one run waits for the next");
    assert!(!rig.sealer.seal_if_due().unwrap());
    rig.sealer.settings.age_max = Duration::ZERO;
    assert!(rig.sealer.seal_if_due().unwrap(), "old enough");
    assert!(!rig.sealer.seal_if_due().unwrap(), "nothing waits");
    rig.append(&request(vec![span(500, 1, 0, 1)]));
    let (settings, retention) = (SealSettings::default(), RetentionSettings::default());
    let memory = Pool::new(64 << 20);
    let sealing = Sealing::start(rig.spool.clone(), rig.sealer.runs.clone(), settings, retention, memory).unwrap();
    sealing.seal_all().ok().unwrap();
    assert!(rig.view().may_hold(id(500)));
    sealing.stop();
    assert!(sealing.seal_all().is_err());
    rig.close();
}

#[test]
fn without_a_store_the_spool_keeps_spans_until_destinations_have_them() {
    let directory = TempDir::new().unwrap();
    let settings = SealSettings { make_runs: false, release_after: Duration::ZERO, ..SealSettings::default() };
    let mut rig = Rig::with_settings(&directory, settings);
    let consumer = rig.spool.consumer("otlp", rig.pipeline).unwrap();
    rig.fill_extents();
    // It notes the end, then lets go of it.
    rig.sealer.round();
    rig.sealer.round();
    rig.housekeep();
    let before = rig.spool.snapshot();
    assert_eq!(rig.spool.range().start, Seq::FIRST, "a destination still waits");
    let limits = crate::spool::ReadLimits { raw_bytes_max: usize::MAX, spans_max: u64::MAX, batches_max: usize::MAX };
    let chunk = consumer.read(consumer.position(), limits).unwrap();
    let outcome = crate::spool::Outcome { sent: 240_000, ..Default::default() };
    assert!(consumer.advance(chunk.from, chunk.next, outcome).unwrap());
    rig.housekeep();
    assert!(rig.spool.snapshot().batches < before.batches);
    assert_eq!(rig.view().segments().count(), 0, "nothing is sealed");
    rig.sealer.seal_all().unwrap();
    assert_eq!(rig.view().segments().count(), 0, "also where somebody asks for it");
    drop(consumer);
    rig.close();
}

#[test]
fn a_snapshot_is_a_whole_data_directory() {
    let directory = TempDir::new().unwrap();
    let copy = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    rig.append(&request(vec![span(1, 1, 0, 1)]));
    rig.sealer.seal_all().unwrap();
    rig.append(&request(vec![span(2, 1, 0, 1)]));
    let target = copy.path().join("copy");
    std::fs::write(directory.path().join("collectors.json"), "{}").unwrap();
    let keeper = crate::store::Keeper {
        spool: rig.spool.clone(),
        runs: rig.sealer.runs.clone(),
        beside: &["collectors.json", "not-there.json"],
    };
    crate::query::Upkeep::snapshot(&keeper, &target).unwrap();
    assert!(crate::query::Upkeep::snapshot(&keeper, &target).is_err(), "nothing is overwritten");
    drop(keeper);
    let mark = std::fs::read(directory.path().join("high-water")).unwrap();
    assert_eq!(std::fs::read(target.join("high-water")).unwrap(), mark, "a damaged copy is recognised, too");
    assert_eq!(std::fs::read(target.join("collectors.json")).unwrap(), b"{}");
    rig.append(&request(vec![span(3, 1, 0, 1)]));
    rig.close();
    let spool = open_spool(&target, u64::MAX);
    let runs = Runs::open(spool.database().clone(), Metrics::default(), crate::store::runs::Memory::default()).unwrap();
    assert!(runs.view().may_hold(id(1)));
    assert_eq!((runs.view().summary().runs, runs.view().summary().spans), (1, 1));
    assert_eq!(spool.range().end, Seq(3));
    assert_eq!(spool.find(id(2).fingerprint()).unwrap(), [Seq(2)]);
}

#[test]
fn a_panic_costs_one_attempt_and_ends_neither_sealing_nor_retention() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    rig.append(&request(vec![span(1, 1, 0, 1)]));
    rig.sealer.seal_all().unwrap();
    rig.append(&request(vec![span(2, 1, 0, 1)]));
    rig.sealer.settings.age_max = Duration::ZERO;
    rig.sealer.retention.settings.age_max = Some(Duration::ZERO);
    rig.sealer.panics_left = 2;
    for attempt in 1..=2u64 {
        rig.sealer.next_attempt = Instant::now();
        rig.sealer.round();
        assert_eq!(rig.sealer.runs.metrics().sealer_panics.get(), attempt);
        assert!(!rig.view().may_hold(id(1)), "retention goes on");
        assert!(rig.sealer.next_attempt > Instant::now(), "the next attempt waits");
    }
    rig.sealer.next_attempt = Instant::now();
    rig.sealer.round();
    assert!(rig.view().may_hold(id(2)));
    assert_eq!((rig.sealer.failures, rig.sealer.runs.metrics().seal_failures.get()), (0, 2));
    rig.close();
}

#[test]
fn sealing_that_is_told_to_stop_leaves_everything_in_the_spool() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    rig.append(&request((1..50).map(|number| span(number, number, 0, number)).collect()));
    rig.sealer.stopping.store(true, Ordering::Relaxed);
    assert!(matches!(rig.sealer.seal_all(), Err(SealError::Stopped(_))));
    assert_eq!(rig.view().records().count(), 0);
    rig.sealer.stopping.store(false, Ordering::Relaxed);
    rig.sealer.seal_all().unwrap();
    assert_eq!(rig.view().account().sealed.values().sum::<u64>(), 49);
    rig.close();
}

#[test]
fn spans_of_kinds_that_nobody_knows_yet_repeat_no_other() {
    let of_kind = |kind| Span { kind, ..span(1, 1, 0, 1) };
    check_sealed_as_built(&[request(vec![of_kind(0), of_kind(7), of_kind(8), of_kind(7), of_kind(-1)])]);
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    rig.append(&request(vec![of_kind(0), of_kind(7), of_kind(8), of_kind(7), of_kind(-1)]));
    rig.sealer.seal_all().unwrap();
    let fragments = rig.view().fragments(id(1), usize::MAX).unwrap().requests;
    assert_eq!(spans_in(fragments.iter().map(|request| &**request)).len(), 4);
    rig.close();
}
