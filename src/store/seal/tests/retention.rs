//! Dropping runs, and what is kept of them.

use super::*;

#[test]
fn the_oldest_runs_go_by_size_and_age_and_pinned_traces_stay() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    for run in 0..4u64 {
        rig.append(&request((1..100).map(|number| span(run * 1_000 + number, number, 0, number)).collect()));
        rig.sealer.seal_all().unwrap();
    }
    let runs = rig.sealer.runs.clone();
    runs.pin(id(5)).unwrap();
    runs.pin(id(1_007)).unwrap();
    assert_eq!(runs.pinned(), [id(5), id(1_007)]);
    let whole = rig.view().fragments(id(5), usize::MAX).unwrap().requests;

    // Half of the bytes may stay.
    let bytes: u64 = rig.view().records().map(|run| run.file_bytes).sum();
    rig.sealer.retention.settings.bytes_max = bytes / 2 + bytes / 8;
    let before = rig.view();
    assert_eq!(rig.sealer.retention.keep(&runs, &rig.spool).unwrap(), 2);
    assert_eq!(rig.view().records().map(|run| run.first).collect::<Vec<_>>(), [3, 4]);
    assert!(
        matches!(before.segments().next(), Some(segment) if segment.id() == SegmentId(3, 0)),
        "what was dropped is no longer searched"
    );
    let gone = before.pieces(id(6)).unwrap();
    assert!(gone.is_empty());
    drop(before);
    let files = rig.spool.database().raw().live_files().unwrap();
    let of_runs = files.iter().filter(|file| [TRACE, COLUMN].contains(&file.column_family_name.as_str()));
    assert_eq!(of_runs.count(), 4);

    let check_pinned = |rig: &Rig| {
        let view = rig.view();
        let fragments = view.fragments(id(5), usize::MAX).unwrap().requests;
        assert_eq!(
            spans_in(fragments.iter().map(|request| &**request)),
            spans_in(whole.iter().map(|request| &**request))
        );
        let pieces = view.pieces(id(1_007)).unwrap();
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].segment.traces().unwrap().ids[pieces[0].trace], id(1_007));
        assert!(
            SealedView::segments(&*view, 0, u64::MAX).iter().any(|segment| segment.rows() == 2),
            "they are searched"
        );
        assert!(view.may_hold(id(5)) && !view.may_hold(id(6)));
        // By receipt: the spans themselves began in 1970.
        assert_eq!(view.whole_since(), view.records().map(|run| run.oldest_received).min());
    };
    check_pinned(&rig);
    drop((runs, gone));
    rig.close();
    let mut rig = Rig::open(&directory);
    check_pinned(&rig);

    // Late spans of a pinned trace are known to be a piece of it.
    rig.append(&request(vec![span(5, 777, 0, 3)]));
    rig.sealer.seal_all().unwrap();
    let view = rig.view();
    let pieces = view.pieces(id(5)).unwrap();
    assert_eq!(pieces.len(), 2);
    assert!(pieces.iter().all(|piece| view.may_be_split(&*piece.segment, piece.trace)));

    rig.sealer.retention.settings.age_max = Some(Duration::ZERO);
    assert_eq!(rig.sealer.retention.keep(&rig.sealer.runs, &rig.spool).unwrap(), 3);
    assert_eq!(rig.view().records().count(), 0);
    assert_eq!(rig.view().fragments(id(5), usize::MAX).unwrap().requests.len(), 2, "also what came late");
    rig.sealer.runs.unpin(id(5)).unwrap();
    assert!(rig.view().fragments(id(5), usize::MAX).unwrap().requests.is_empty());
    assert!(!rig.view().may_hold(id(5)) && rig.view().may_hold(id(1_007)));
    drop((view, pieces));
    rig.close();
}

#[test]
fn what_is_unpinned_while_its_run_is_dropped_leaves_no_copy() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    rig.sealer.retention.settings.age_max = Some(Duration::ZERO);
    for trace in 1..=20u64 {
        rig.append(&request(vec![span(trace, 1, 0, 1)]));
        rig.sealer.seal_all().unwrap();
        let runs = rig.sealer.runs.clone();
        runs.pin(id(trace)).unwrap();
        let unpinning = std::thread::spawn(move || runs.unpin(id(trace)));
        assert_eq!(rig.sealer.retention.keep(&rig.sealer.runs, &rig.spool).unwrap(), 1);
        unpinning.join().unwrap().unwrap();
        assert!(rig.view().fragments(id(trace), usize::MAX).unwrap().requests.is_empty());
        assert!(!rig.view().may_hold(id(trace)));
    }
    rig.close();
}

#[test]
fn only_what_waits_for_a_destination_shares_the_budget_and_the_newest_run_always_stays() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    for run in 0..3u64 {
        rig.append(&request((1..100).map(|number| span(run * 1_000 + number, number, 0, number)).collect()));
        rig.sealer.seal_all().unwrap();
    }
    let bytes: u64 = rig.view().records().map(|run| run.file_bytes).sum();
    let keep = |rig: &mut Rig, bytes_max| {
        rig.sealer.retention.settings.bytes_max = bytes_max;
        rig.sealer.retention.keep(&rig.sealer.runs, &rig.spool).unwrap()
    };
    assert!(rig.spool.frame_bytes() > 0 && rig.spool.waiting_bytes() == 0);
    assert_eq!(keep(&mut rig, bytes), 0, "what is sealed and waits for nobody is not counted twice");
    let consumer = rig.spool.consumer("otlp", rig.pipeline).unwrap();
    assert_eq!(keep(&mut rig, bytes), 0, "it has nothing to get");
    rig.append(&request(vec![span(9_000, 1, 0, 1)]));
    assert!(rig.spool.waiting_bytes() > 0);
    let dropped = keep(&mut rig, bytes);
    assert!((1..3).contains(&dropped), "{dropped}: what it has to get is worth more than the oldest runs");
    assert_eq!(keep(&mut rig, 1), 2 - dropped, "too small for any run");
    assert_eq!(rig.view().records().map(|run| run.first).collect::<Vec<_>>(), [3]);
    drop(consumer);
    rig.close();
}
