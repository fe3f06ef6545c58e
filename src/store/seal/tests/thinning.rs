//! What was sampled out goes after a time of its own; everything else stays, whatever is cut short.

use super::*;
use crate::spool::sampled_out::DECIDER;
use crate::spool::{Consumer, LossReason, Outcome, ReadLimits, SampledOut};
use crate::store::format::key::MADE_ANEW;
use crate::store::runs::RunRecord;

const ALL: ReadLimits = ReadLimits { raw_bytes_max: usize::MAX, spans_max: u64::MAX, batches_max: usize::MAX };

/// Decides about all that its pipeline has behind the cursor, as tail sampling does: traces for which `is_kept` says no
/// are marked.
fn decide(decider: &Consumer, is_kept: impl Fn(TraceId) -> bool) {
    let from = decider.position();
    let chunk = decider.read(from, ALL).unwrap();
    let mut outcome = Outcome::default();
    for batch in &chunk.batches {
        let request = zstd::bulk::decompress(&batch.frame, batch.header.raw_bytes as usize).unwrap();
        let mut spans: std::collections::BTreeMap<TraceId, u64> = std::collections::BTreeMap::new();
        for_each_span(&request, |_, _, span| {
            let id = view::messages(span, 1).last().and_then(TraceId::from_wire).unwrap();
            *spans.entry(id).or_default() += 1;
        });
        let out: Vec<_> = spans.into_iter().filter(|(trace, _)| !is_kept(*trace)).collect();
        let sampled_out: u64 = out.iter().map(|(_, spans)| spans).sum();
        outcome.sent += u64::from(batch.header.spans) - sampled_out;
        outcome.lost.push((LossReason::SampledOut, sampled_out));
        let traces = out.iter().map(|(trace, spans)| (trace.long_fingerprint(), *spans)).collect();
        outcome.marks.push(SampledOut { batch: batch.seq, traces });
    }
    assert!(decider.advance(from, chunk.next, outcome).unwrap());
}

fn decider(rig: &Rig) -> Consumer {
    rig.spool.consumer(DECIDER, rig.pipeline).unwrap()
}

fn open(directory: &TempDir) -> Rig {
    let mut rig = Rig::open(directory);
    rig.sealer.retention.settings.sampled_out_age_max = Some(Duration::ZERO);
    rig
}

/// Thins as long as there is something to do.
fn thin_all(rig: &mut Rig) {
    while rig.sealer.thin_if_due().unwrap() {}
}

fn dropped(rig: &Rig) -> u64 {
    rig.sealer.runs.metrics().dropped_spans(crate::store::retention::DropReason::SampledOut)
}

/// Spans of a trace, by id.
fn spans_of(rig: &Rig, trace: u64) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
    let fragments = rig.view().fragments(id(trace), usize::MAX).unwrap().requests;
    spans_in(fragments.iter().map(|request| &**request))
}

fn marks(rig: &Rig) -> usize {
    let mut marks = 0;
    crate::spool::sampled_out::each(rig.spool.database(), Seq(0)..Seq(u64::MAX), |_, _| marks += 1).unwrap();
    marks
}

fn files(rig: &Rig) -> usize {
    let files = rig.spool.database().raw().live_files().unwrap();
    files.iter().filter(|file| [TRACE, COLUMN].contains(&file.column_family_name.as_str())).count()
}

/// One of ten is kept.
fn is_kept(trace: TraceId) -> bool {
    u128::from_be_bytes(trace.0).is_multiple_of(10)
}

#[test]
fn what_was_sampled_out_goes_and_the_rest_is_as_it_was() {
    let directory = TempDir::new().unwrap();
    let mut rig = open(&directory);
    let decider = decider(&rig);
    let requests: Vec<Vec<u8>> = (0..20u64)
        .map(|batch| request((1..=300).map(|trace| span(trace, batch + 1, batch, batch * 10 + trace)).collect()))
        .collect();
    requests.iter().for_each(|request| rig.append(request));
    rig.sealer.seal_all().unwrap();
    let before: Vec<_> = (1..=300).map(|trace| spans_of(&rig, trace)).collect();
    let whole = rig.view().summary();
    thin_all(&mut rig);
    assert_eq!(rig.view().summary().spans, 6_000, "nothing is decided about");
    decide(&decider, is_kept);
    thin_all(&mut rig);
    let view = rig.view();
    for trace in 1..=300u64 {
        let is_kept = is_kept(id(trace));
        let expected = if is_kept { before[trace as usize - 1].clone() } else { BTreeSet::new() };
        assert_eq!(spans_of(&rig, trace), expected, "trace {trace}");
        assert_eq!((view.pieces(id(trace)).unwrap().len(), view.may_hold(id(trace))), (usize::from(is_kept), is_kept));
    }
    // The columns are those of the spans that are left.
    let mut builder = Builder::new();
    for request in &requests {
        let kept = view::retain_spans(request, |span| {
            view::messages(span, 1).last().and_then(TraceId::from_wire).is_some_and(is_kept)
        });
        builder.push(kept.into(), 0);
    }
    let memory = InMemory { id: SegmentId(1, 0), built: builder.finish() };
    let segments: Vec<_> = view.segments().collect();
    assert_eq!(segments.iter().map(|segment| segment.id()).collect::<Vec<_>>(), [SegmentId(1, MADE_ANEW)]);
    check_same(&**segments[0], &memory);
    // The account: what came into runs is there, or dropped and counted.
    assert_eq!((view.summary().spans, dropped(&rig), marks(&rig)), (600, 5_400, 0));
    assert_eq!(view.account().sealed.values().sum::<u64>(), view.summary().spans + dropped(&rig));
    assert!(view.summary().bytes < whole.bytes && view.summary().raw_bytes == whole.raw_bytes / 10);
    let verified = rig.sealer.runs.verify(&rig.spool, |_| true).unwrap();
    assert_eq!((verified.runs, verified.traces, verified.spans, verified.damages.len()), (1, 30, 600, 0));
    drop((view, decider));
    rig.close();
    let mut rig = open(&directory);
    assert_eq!((rig.view().summary().spans, files(&rig)), (600, 2), "the files before are gone at the next start");
    assert_eq!(spans_of(&rig, 10), before[9]);
    assert!(!rig.sealer.thin_if_due().unwrap(), "once is enough");
    rig.close();
}

#[test]
fn nothing_goes_before_its_time_and_all_that_is_old_goes_as_a_whole() {
    let directory = TempDir::new().unwrap();
    let mut rig = open(&directory);
    let decider = decider(&rig);
    rig.append(&request(vec![span(1, 1, 0, 1), span(2, 1, 0, 1)]));
    rig.sealer.seal_all().unwrap();
    decide(&decider, |_| false);
    rig.sealer.retention.settings.sampled_out_age_max = Some(Duration::from_secs(3_600));
    assert!(!rig.sealer.thin_if_due().unwrap());
    rig.sealer.retention.settings.sampled_out_age_max = Some(Duration::ZERO);
    rig.sealer.runs.pin(id(2)).unwrap();
    assert!(rig.sealer.thin_if_due().unwrap());
    assert_eq!((rig.view().records().count(), files(&rig), marks(&rig), dropped(&rig)), (0, 0, 0, 2));
    assert_eq!((spans_of(&rig, 1).len(), spans_of(&rig, 2).len()), (0, 1), "a pinned trace stays");
    // A run of which everything is kept is looked at once, and stays as it is.
    rig.append(&request(vec![span(3, 1, 0, 1)]));
    rig.sealer.seal_all().unwrap();
    decide(&decider, |_| true);
    assert!(rig.sealer.thin_if_due().unwrap() && !rig.sealer.thin_if_due().unwrap());
    assert_eq!((spans_of(&rig, 3).len(), files(&rig), dropped(&rig)), (1, 2, 2));
    drop(decider);
    rig.close();
}

#[test]
fn pinned_traces_stay_also_where_their_run_is_made_anew() {
    let directory = TempDir::new().unwrap();
    let mut rig = open(&directory);
    let decider = decider(&rig);
    rig.append(&request((1..=20).map(|trace| span(trace, 1, 0, trace)).collect()));
    rig.sealer.seal_all().unwrap();
    rig.sealer.runs.pin(id(3)).unwrap();
    rig.sealer.runs.pin(id(10)).unwrap();
    let before = (spans_of(&rig, 3), spans_of(&rig, 10));
    decide(&decider, is_kept);
    thin_all(&mut rig);
    assert_eq!((spans_of(&rig, 3), spans_of(&rig, 10)), before);
    assert_eq!(rig.view().pieces(id(3)).unwrap().len(), 1, "it is searched");
    assert_eq!(rig.view().pieces(id(10)).unwrap().len(), 1, "nothing is there twice");
    drop(decider);
    rig.close();
}

#[test]
fn late_spans_go_with_their_own_run_and_pieces_know_of_each_other() {
    let directory = TempDir::new().unwrap();
    let mut rig = open(&directory);
    let decider = decider(&rig);
    rig.append(&request((1..=20).map(|trace| span(trace, 1, 0, trace)).collect()));
    rig.sealer.seal_all().unwrap();
    decide(&decider, is_kept);
    rig.append(&request((9..=11).map(|trace| span(trace, 2, 1, trace)).collect()));
    rig.sealer.seal_all().unwrap();
    assert!(rig.sealer.thin_if_due().unwrap());
    assert!(!rig.sealer.thin_if_due().unwrap(), "of the second run nothing is decided");
    assert_eq!((spans_of(&rig, 9).len(), spans_of(&rig, 10).len()), (1, 2), "what came late is there");
    decide(&decider, is_kept);
    assert!(rig.sealer.thin_if_due().unwrap());
    assert_eq!((spans_of(&rig, 9).len(), spans_of(&rig, 10).len(), dropped(&rig)), (0, 2, 18 + 2));
    let view = rig.view();
    let pieces = view.pieces(id(10)).unwrap();
    assert_eq!(pieces.len(), 2);
    assert!(pieces.iter().all(|piece| view.may_be_split(&*piece.segment, piece.trace)));
    let alone = view.pieces(id(20)).unwrap();
    assert!(!view.may_be_split(&*alone[0].segment, alone[0].trace));
    drop((view, pieces, alone, decider));
    // A run that comes later finds them, too.
    rig.append(&request(vec![span(20, 2, 1, 20)]));
    rig.sealer.seal_all().unwrap();
    let view = rig.view();
    assert!(view.pieces(id(20)).unwrap().iter().all(|piece| view.may_be_split(&*piece.segment, piece.trace)));
    drop(view);
    rig.close();
}

#[test]
fn what_another_pipeline_forwards_stays() {
    let directory = TempDir::new().unwrap();
    let mut rig = open(&directory);
    let decider = decider(&rig);
    let sampled = rig.pipeline;
    let whole = rig.runtime.block_on(rig.spool.pipeline("traces/whole")).unwrap();
    // Both get the traces 1 to 9, so the run has each span once; the other gets 11 alone.
    let both = request((1..=10).map(|trace| span(trace, 1, 0, trace)).collect());
    rig.append(&both);
    rig.pipeline = whole;
    rig.append(&request((1..=9).map(|trace| span(trace, 1, 0, trace)).chain([span(11, 1, 0, 11)]).collect()));
    rig.pipeline = sampled;
    rig.append(&request(vec![span(12, 1, 0, 12)]));
    rig.sealer.seal_all().unwrap();
    decide(&decider, |_| false);
    thin_all(&mut rig);
    for (trace, spans) in [(1, 1), (9, 1), (10, 0), (11, 1), (12, 0)] {
        assert_eq!(spans_of(&rig, trace).len(), spans, "trace {trace}");
    }
    assert_eq!(dropped(&rig), 2);
    drop(decider);
    rig.close();
}

#[test]
fn what_was_sent_twice_is_counted_as_it_came() {
    let directory = TempDir::new().unwrap();
    let mut rig = open(&directory);
    let decider = decider(&rig);
    for _ in 0..2 {
        rig.append(&request((1..=20).map(|trace| span(trace, 1, 0, trace)).collect()));
    }
    rig.sealer.seal_all().unwrap();
    decide(&decider, is_kept);
    thin_all(&mut rig);
    assert_eq!((rig.view().summary().spans, dropped(&rig)), (2, 18));
    drop(decider);
    rig.close();
}

#[test]
fn thinning_that_is_cut_short_leaves_the_run_or_is_done_and_nothing_is_lost_or_doubled() {
    for step in [Step::FilesWritten, Step::TraceIngested, Step::ColumnIngested, Step::Registered] {
        for reopen in [false, true] {
            let directory = TempDir::new().unwrap();
            let mut rig = open(&directory);
            let decider = decider(&rig);
            for run in 0..3u64 {
                rig.append(&request((1..=20).map(|trace| span(run * 20 + trace, 1, 0, trace)).collect()));
                rig.sealer.seal_all().unwrap();
            }
            decide(&decider, is_kept);
            drop(decider);
            rig.sealer.cut_short_after = Some(step);
            assert!(matches!(rig.sealer.thin_if_due(), Err(SealError::CutShort(at)) if at == step));
            if reopen {
                rig.close();
                rig = open(&directory);
            }
            rig.sealer.cut_short_after = None;
            let spans = rig.view().summary().spans;
            assert_eq!(spans, if step == Step::Registered { 42 } else { 60 }, "{step:?}: it is one or the other");
            for trace in (10..=60).step_by(10) {
                assert_eq!(spans_of(&rig, trace).len(), 1, "{step:?}: trace {trace}");
            }
            thin_all(&mut rig);
            rig.sealer.settings.release_after = Duration::ZERO;
            rig.sealer.thin();
            let view = rig.view();
            assert_eq!((view.summary().runs, view.summary().spans, files(&rig)), (3, 6, 6), "{step:?}");
            let firsts: Vec<u64> = view.segments().map(|segment| segment.id().0).collect();
            assert_eq!(firsts, [1, 2, 3], "runs stay in their order");
            drop(view);
            // What is sealed meanwhile, and what retention drops, is not in the way.
            rig.append(&request(vec![span(100, 1, 0, 1)]));
            rig.sealer.seal_all().unwrap();
            rig.sealer.retention.settings.age_max = Some(Duration::ZERO);
            assert_eq!(rig.sealer.retention.keep(&rig.sealer.runs, &rig.spool).unwrap(), 4);
            assert_eq!(files(&rig), 0, "{step:?}");
            rig.close();
        }
    }
}

#[test]
fn queries_that_have_begun_read_what_they_began_with() {
    let directory = TempDir::new().unwrap();
    let mut rig = open(&directory);
    let decider = decider(&rig);
    rig.append(&request((1..=20).map(|trace| span(trace, 1, 0, trace)).collect()));
    rig.sealer.seal_all().unwrap();
    // A late span of the last trace is in a run of its own.
    rig.append(&request(vec![span(20, 2, 1, 20)]));
    rig.sealer.seal_all().unwrap();
    let view = rig.view();
    let began: Vec<_> = view.segments().cloned().collect();
    let position = began[0].traces().unwrap().ids.len() - 1;
    assert!((0..=position).any(|trace| view.may_be_split(&*began[0], trace)));
    decide(&decider, is_kept);
    rig.sealer.settings.release_after = Duration::from_secs(3_600);
    assert!(rig.sealer.thin());
    rig.sealer.thin();
    assert_eq!((began[0].traces().unwrap().len(), began[0].starts().unwrap().len()), (20, 20));
    assert!((0..=position).any(|trace| view.may_be_split(&*began[0], trace)), "what was in pieces still is");
    rig.sealer.settings.release_after = Duration::ZERO;
    rig.sealer.thin();
    assert!(matches!(began[0].starts(), Err(crate::traceql::segment::SegmentError::Gone)));
    assert_eq!((rig.view().summary().damaged_runs, rig.view().segments().count()), (0, 2), "nothing is set aside");
    drop((began, decider));
    rig.close();
}

#[test]
fn a_pipeline_that_nobody_decides_about_any_more_is_not_waited_for() {
    let directory = TempDir::new().unwrap();
    let mut rig = open(&directory);
    let (decider, second) = (decider(&rig), rig.runtime.block_on(rig.spool.pipeline("traces/second")).unwrap());
    let undecided = rig.spool.consumer(DECIDER, second).unwrap();
    rig.append(&request((1..=10).map(|trace| span(trace, 1, 0, trace)).collect()));
    let first = std::mem::replace(&mut rig.pipeline, second);
    rig.append(&request(vec![span(30, 1, 0, 1)]));
    rig.pipeline = first;
    rig.sealer.seal_all().unwrap();
    decide(&decider, is_kept);
    assert!(!rig.sealer.thin_if_due().unwrap());
    undecided.retire();
    thin_all(&mut rig);
    let records: Vec<RunRecord> = rig.view().records().cloned().collect();
    assert_eq!((records[0].spans(), records[0].thinned), (2, Some(MADE_ANEW)), "what was not decided about stays");
    drop((decider, undecided));
    rig.close();
}
