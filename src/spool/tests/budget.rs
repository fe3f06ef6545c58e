//! Budgets of bytes and of space: what goes, what waits, and that it is booked.

use super::*;

#[tokio::test]
async fn the_byte_budget_drops_the_oldest_and_books_it() {
    let directory = TempDir::new().unwrap();
    let spool =
        Spool::open(Settings { bytes_max: 24 << 20, ..settings(directory.path()) }, Metrics::default()).unwrap();
    let traces = spool.pipeline("traces").await.unwrap();
    let behind = spool.consumer("behind", traces).unwrap();
    // Incompressible, so that 60 MiB of requests are 60 MiB of frames: three extents and a bit.
    let (mut state, mut last_word) = (1u64, 0);
    for number in 0..60u32 {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .take(1 << 20)
        .collect();
        last_word = u32::from_le_bytes([noise[0], noise[1], noise[2], noise[3]]);
        spool.append(Append { request: noise.into(), keys: vec![number], ..append(traces, &[], 10) }).await.unwrap();
    }
    let (commands, wait) = (spool.commands.clone(), Duration::from_millis(20));
    for _ in 0..200 {
        commands.send(Command::Housekeep).await.unwrap();
        tokio::time::sleep(wait).await;
        if spool.snapshot().frame_bytes <= 24 << 20 {
            break;
        }
    }
    let snapshot = spool.snapshot();
    assert!(snapshot.frame_bytes <= 24 << 20, "{}", snapshot.frame_bytes);
    let lost = snapshot.consumers[0].account.lost[&LossReason::Budget];
    assert!(lost > 0 && lost == snapshot.reclaimed[0], "{lost} {:?}", snapshot.reclaimed);
    assert_eq!(spool.find(0).unwrap(), [], "the first batch is gone");
    assert!(!spool.find(59).unwrap().is_empty());
    let chunk = behind.read(behind.position(), ReadLimits { batches_max: 1, ..ALL }).unwrap();
    assert_eq!(chunk.batches[0].header.spans_before, lost);
    check_ledger(&spool);
    spool.close().await;
    drop((spool, behind));
    let spool = open(&directory);
    check_ledger(&spool);
    assert_eq!(spool.snapshot().reclaimed[0], lost);
    assert!(!spool.find(last_word).unwrap().is_empty(), "the newest batch is indexed again");
}

#[tokio::test]
async fn a_disk_without_room_refuses_and_stores_nothing() {
    let directory = TempDir::new().unwrap();
    let spool =
        Spool::open(Settings { free_bytes_min: u64::MAX / 200, ..settings(directory.path()) }, Metrics::default())
            .unwrap();
    let traces = spool.pipeline("traces").await.unwrap();
    assert!(matches!(spool.append(append(traces, &[1], 1)).await, Err(AppendError::DiskFull { .. })));
    assert!(spool.snapshot().disk_full);
    assert_eq!(spool.snapshot().ledger.account(traces).unwrap().received, 0);
}

/// Lets budgets be looked after, and waits until they were.
async fn housekeep(spool: &Spool) {
    spool.commands.send(Command::Housekeep).await.unwrap();
    let traces = spool.pipeline("traces").await.unwrap();
    // Budgets are looked after behind the appends of a round, and names are given out in the next one.
    spool.append(append(traces, &[], 0)).await.unwrap();
    spool.pipeline("traces").await.unwrap();
}

/// Like [`open`], on a disk that is short of space, but not so short that intake is refused.
fn open_short_of_space(directory: &TempDir) -> Spool {
    let stat = rustix::fs::statvfs(directory.path()).unwrap();
    let free_bytes_min = stat.f_bavail * stat.f_frsize / 10 * 9;
    Spool::open(Settings { free_bytes_min, ..settings(directory.path()) }, Metrics::default()).unwrap()
}

#[tokio::test]
async fn a_release_moves_no_cursor_under_a_request_that_is_under_way() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    let other = spool.pipeline("traces/other").await.unwrap();
    let consumer = spool.consumer("otlp", traces).unwrap();
    // An extent of another pipeline, and behind it what the consumer is to get.
    Noise(1).fill_extent(&spool, other).await;
    spool.append(append(traces, &[1], 5)).await.unwrap();
    let chunk = consumer.read(consumer.position(), ALL).unwrap();
    assert_eq!((chunk.from, chunk.batches.len()), (Seq(1), 1));
    spool.release(spool.range().end);
    housekeep(&spool).await;
    assert!(spool.range().start > Seq(1), "the extent is gone");
    assert!(
        consumer.advance(chunk.from, chunk.next, Outcome { sent: 5, ..Outcome::default() }).unwrap(),
        "otherwise it would be sent again"
    );
    check_ledger(&spool);
    assert_eq!(consumer.backlog(), Backlog::default());
    // A cursor that stands before what is kept reads on where that begins, and knows its age.
    spool.append(append(traces, &[1], 2)).await.unwrap();
    assert_eq!(consumer.read(Seq(1), ALL).unwrap().batches.len(), 2);
    assert!(consumer.backlog().oldest_received.is_some());
}

#[tokio::test]
async fn short_of_space_what_was_forwarded_waits_for_the_sealer_unless_sealing_fails() {
    let directory = TempDir::new().unwrap();
    let spool = open_short_of_space(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    let consumer = spool.consumer("otlp", traces).unwrap();
    // Somebody seals, and has sealed nothing yet.
    spool.release(Seq::FIRST);
    Noise(2).fill_extent(&spool, traces).await;
    let chunk = consumer.read(consumer.position(), ALL).unwrap();
    assert!(consumer.advance(chunk.from, chunk.next, Outcome { sent: 18, ..Outcome::default() }).unwrap());
    housekeep(&spool).await;
    assert_eq!(spool.range().start, Seq::FIRST, "it can still be made searchable");
    assert!(spool.is_short_of_space() && spool.oldest_extent_ends_behind(Seq::FIRST), "the sealer is told to hurry");
    spool.set_sealing_fails(true);
    housekeep(&spool).await;
    assert!(spool.range().start > Seq::FIRST, "nobody can seal it, and intake needs the space");
    check_ledger(&spool);
}

#[tokio::test]
async fn short_of_space_nothing_goes_before_destinations_had_time_to_be_configured_again() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    let (first, second) = (spool.consumer("first", traces).unwrap(), spool.consumer("second", traces).unwrap());
    Noise(3).fill_extent(&spool, traces).await;
    let chunk = first.read(first.position(), ALL).unwrap();
    assert!(first.advance(chunk.from, chunk.next, Outcome { sent: 18, ..Outcome::default() }).unwrap());
    spool.close().await;
    drop((spool, first, second));

    let spool = open_short_of_space(&directory);
    housekeep(&spool).await;
    assert_eq!(spool.range().start, Seq::FIRST, "the second has still to get it");
    let second = spool.consumer("second", traces).unwrap();
    housekeep(&spool).await;
    assert_eq!(spool.range().start, Seq::FIRST);
    second.retire();
    housekeep(&spool).await;
    assert!(spool.range().start > Seq::FIRST);
    assert!(spool.shared.consumers().values().any(|known| known.account.lost.contains_key(&LossReason::Budget)));
}

#[tokio::test]
async fn a_cursor_that_nobody_moves_keeps_what_it_has_to_get_until_the_budget_bites() {
    let directory = TempDir::new().unwrap();
    let budget = |directory: &TempDir| {
        Spool::open(Settings { bytes_max: 30 << 20, ..settings(directory.path()) }, Metrics::default()).unwrap()
    };
    let spool = budget(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    let renamed = spool.consumer("otlp/old-name", traces).unwrap();
    let mut noise = Noise(4);
    noise.fill_extent(&spool, traces).await;
    spool.close().await;
    drop((spool, renamed));

    let spool = budget(&directory);
    spool.release(spool.range().end);
    housekeep(&spool).await;
    assert_eq!(spool.range().start, Seq::FIRST, "it may come back under its name");
    assert_eq!(spool.snapshot().consumers[0].queued, 18);
    noise.fill_extent(&spool, traces).await;
    housekeep(&spool).await;
    let lost = spool.snapshot().consumers[0].account.lost[&LossReason::Budget];
    assert!(lost > 0 && spool.range().start > Seq::FIRST, "{lost}");
    assert!(spool.frame_bytes() <= 30 << 20);
    check_ledger(&spool);
}
