//! The spool as its neighbours see it: what it promises over reopening, budgets and cursors.

use super::*;
use proptest::prelude::*;
use tempfile::TempDir;

fn settings(directory: &std::path::Path) -> Settings {
    Settings {
        directory: directory.to_owned(),
        bytes_max: u64::MAX,
        age_max: None,
        free_bytes_min: 0,
        sync_interval: Duration::ZERO,
        memory: Memory::default(),
        // Test requests are runs of 4-byte keys.
        trace_keys: |raw, keys| {
            keys.extend(raw.chunks_exact(4).map(|key| u32::from_le_bytes([key[0], key[1], key[2], key[3]])))
        },
    }
}

fn open(directory: &TempDir) -> Spool {
    Spool::open(settings(directory.path()), Metrics::default()).unwrap()
}

fn append(pipeline: PipelineId, keys: &[u32], spans: u32) -> Append {
    Append {
        pipeline,
        request: keys.iter().flat_map(|key| key.to_le_bytes()).collect::<Vec<u8>>().into(),
        spans,
        rejected: 0,
        filtered: 0,
        sampled_out: 0,
        time: TimeRange { min_start: 1, max_end: 2 },
        keys: keys.to_vec(),
    }
}

const ALL: ReadLimits = ReadLimits { raw_bytes_max: usize::MAX, spans_max: u64::MAX, batches_max: usize::MAX };

fn inflate(batch: &Batch) -> Vec<u8> {
    zstd::bulk::decompress(&batch.frame, batch.header.raw_bytes as usize).unwrap()
}

fn check_ledger(spool: &Spool) {
    let snapshot = spool.snapshot();
    for account in &snapshot.ledger.pipelines {
        assert!(account.balances(), "{account:?}");
    }
    for consumer in &snapshot.consumers {
        let stored = snapshot.ledger.account(consumer.account.pipeline).unwrap().stored;
        assert_eq!(stored, consumer.account.accounted() + consumer.queued, "{consumer:?}");
        // The cursor's own arithmetic agrees with what the batches say of themselves.
        if let Some(batch) = spool.batch(Seq(consumer.account.position)).unwrap()
            && batch.header.pipeline == consumer.account.pipeline
        {
            assert_eq!(batch.header.spans_before, consumer.account.accounted_in_order());
        }
    }
}

#[tokio::test]
async fn pipelines_of_which_nothing_is_left_are_forgotten_and_their_numbers_given_out_again() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let [kept, behind, empty] = ["a/kept/traces", "a/behind/traces", "a/empty/traces"];
    let all = || [kept, behind, empty].map(str::to_owned).to_vec();
    let (kept_id, behind_id) = (spool.pipeline(kept).await.unwrap(), spool.pipeline(behind).await.unwrap());
    let empty_id = spool.pipeline(empty).await.unwrap();
    spool.append(append(kept_id, &[1], 3)).await.unwrap();
    spool.append(append(behind_id, &[1], 4)).await.unwrap();
    let (of_behind, of_empty) = (spool.consumer("otlp", behind_id).unwrap(), spool.consumer("otlp", empty_id).unwrap());
    assert_eq!(spool.forget(all()).await.unwrap(), 0, "its destination is configured");
    of_behind.retire();
    of_empty.retire();
    assert_eq!(spool.forget(vec!["traces".to_owned()]).await.unwrap(), 0);
    assert_eq!(spool.forget(all()).await.unwrap(), 1, "what is stored keeps its account");
    spool.close().await;
    drop((spool, of_behind, of_empty));

    let spool = open(&directory);
    let names = |spool: &Spool| -> Vec<String> {
        spool.snapshot().ledger.known().map(|(_, account)| account.name.clone()).collect()
    };
    assert_eq!(names(&spool), [kept, behind]);
    let new = spool.pipeline("a/new/traces").await.unwrap();
    assert_eq!(new, empty_id, "its number is free");
    assert_eq!(spool.pipeline(kept).await.unwrap(), kept_id);
    let consumer = spool.consumer("otlp", new).unwrap();
    spool.append(append(new, &[2], 5)).await.unwrap();
    assert_eq!(consumer.backlog().spans, 5);
    check_ledger(&spool);
}

#[tokio::test]
async fn a_forgotten_pipeline_that_extents_still_speak_of_keeps_its_number() {
    let mut ledger = Ledger::default();
    let (id, _) = ledger.register("a/one/traces", Signal::Traces, |_| false).unwrap();
    ledger.account_mut(id).unwrap().stored = 7;
    ledger.forget(id);
    assert_eq!(ledger.stored_spans(), 7, "what the log is checked against stays");
    let (other, _) = ledger.register("a/two/traces", Signal::Traces, |_| false).unwrap();
    assert_ne!(other, id);
    assert_eq!(ledger.register("a/three/traces", Signal::Traces, |_| true), Some((id, true)));
    assert_eq!(ledger.account(id).unwrap().stored, 0);
}

#[tokio::test]
async fn spans_that_processors_took_out_are_booked_durably_even_when_nothing_is_left() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    let nothing_left = Append { request: Bytes::new(), filtered: 2, sampled_out: 3, ..append(traces, &[], 0) };
    spool.append(nothing_left).await.unwrap();
    spool.append(Append { filtered: 1, ..append(traces, &[1], 4) }).await.unwrap();
    spool.close().await;
    drop(spool);

    let spool = open(&directory);
    let account = spool.snapshot().ledger.account(traces).unwrap().clone();
    assert_eq!((account.received, account.stored, account.sampled_out), (10, 4, 3));
    assert_eq!(account.dropped, [(DropReason::Filtered, 3)].into());
    assert_eq!(spool.range(), Seq(1)..Seq(2), "a request of which nothing is left makes no batch");
    check_ledger(&spool);
    spool.close().await;
}

#[tokio::test]
async fn what_was_sent_ahead_of_the_cursor_is_booked_at_once_and_jumped_over_after_a_restart_too() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    let consumer = spool.consumer("otlp", traces).unwrap();
    // Batches 1 to 6, of as many spans.
    for spans in 1..=6 {
        spool.append(append(traces, &[spans], spans)).await.unwrap();
    }
    let sent = |sent| Outcome { sent, ..Outcome::default() };
    assert!(consumer.advance(Seq(1), Seq(2), sent(1)).unwrap());
    assert!(consumer.advance_ahead(Seq(4), Seq(5), sent(4)).unwrap());
    assert!(!consumer.advance_ahead(Seq(4), Seq(5), sent(4)).unwrap(), "it is booked already");
    assert!(!consumer.advance_ahead(Seq(6), Seq(7), sent(6)).unwrap(), "there is one stretch at a time");
    let refused = Outcome { lost: vec![(LossReason::Poison, 5)], ..Outcome::default() };
    assert!(consumer.advance_ahead(Seq(5), Seq(6), refused).unwrap());
    let stands = |consumer: &Consumer| (consumer.position(), consumer.ahead(), consumer.backlog().spans);
    assert_eq!(stands(&consumer), (Seq(2), Some((Seq(4), Seq(6))), 2 + 3 + 6));
    check_ledger(&spool);
    let snapshot = spool.snapshot();
    let depth = spool.depth(&snapshot.consumers[0].account);
    assert!(depth.batches == 3 && (1..snapshot.frame_bytes).contains(&depth.bytes), "{depth:?}");
    spool.close().await;
    drop((spool, consumer));

    let spool = open(&directory);
    let consumer = spool.consumer("otlp", traces).unwrap();
    assert_eq!(stands(&consumer), (Seq(2), Some((Seq(4), Seq(6))), 2 + 3 + 6));
    let newest = consumer.newest(Seq(u64::MAX)).unwrap();
    assert!(newest.end == Seq(7) && newest.received.is_some(), "{newest:?}");
    assert!(consumer.advance(Seq(2), Seq(4), sent(5)).unwrap());
    assert_eq!(stands(&consumer), (Seq(6), None, 6));
    check_ledger(&spool);
    assert!(consumer.advance(Seq(6), Seq(7), sent(6)).unwrap());
    assert_eq!(stands(&consumer), (Seq(7), None, 0));
    check_ledger(&spool);
    spool.close().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    let other = spool.pipeline("traces/other").await.unwrap();
    let consumer = spool.consumer("otlp", traces).unwrap();
    spool.append(append(traces, &[1, 2], 3)).await.unwrap();
    spool.append(append(other, &[2, 3], 4)).await.unwrap();
    spool.append(Append { rejected: 2, ..append(traces, &[4], 1) }).await.unwrap();
    spool.close().await;
    drop((spool, consumer));

    let spool = open(&directory);
    assert_eq!(spool.pipeline("traces").await.unwrap(), traces);
    assert_eq!(spool.find(2).unwrap(), [Seq(1), Seq(2)]);
    assert_eq!(spool.find(9).unwrap(), []);
    let chunk = spool.consumer("otlp", traces).unwrap().read(Seq::FIRST, ALL).unwrap();
    let read: Vec<(Seq, Vec<u8>)> = chunk.batches.iter().map(|batch| (batch.seq, inflate(batch))).collect();
    assert_eq!(read, [(Seq(1), vec![1, 0, 0, 0, 2, 0, 0, 0]), (Seq(3), vec![4, 0, 0, 0])]);
    assert_eq!(chunk.next, Seq(4));
    let account = spool.snapshot().ledger.account(traces).unwrap().clone();
    assert_eq!((account.received, account.stored, account.dropped[&DropReason::InvalidId]), (6, 4, 2));
    check_ledger(&spool);
}

#[tokio::test]
async fn requests_that_wait_together_share_a_batch_and_all_are_answered() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    let appends: Vec<_> = (0..500u32).map(|key| append(traces, &[key, 7777], 1)).collect();
    let results = futures_util::future::join_all(appends.into_iter().map(|append| spool.append(append))).await;
    assert!(results.iter().all(Result::is_ok));
    let snapshot = spool.snapshot();
    assert_eq!(snapshot.ledger.account(traces).unwrap().stored, 500);
    assert!(snapshot.batches < 500, "{}", snapshot.batches);
    assert_eq!(spool.find(7777).unwrap().len() as u64, snapshot.batches);
    check_ledger(&spool);
}

#[tokio::test]
async fn a_cursor_moves_with_its_account_and_survives() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    spool.append(append(traces, &[1], 5)).await.unwrap();
    let late = spool.consumer("late", traces).unwrap();
    assert_eq!(late.position(), Seq(2));
    spool.append(append(traces, &[2], 3)).await.unwrap();
    let outcome = Outcome {
        sent: 1,
        lost: vec![(LossReason::Poison, 2)],
        parked: vec![Parked { seq: Seq(2), spans: 2, answer: "no".to_owned(), frame: Bytes::from_static(b"frame") }],
    };
    assert!(late.advance(Seq(2), Seq(3), outcome.clone()).unwrap());
    assert!(!late.advance(Seq(2), Seq(3), outcome).unwrap(), "booked twice");
    spool.append(append(traces, &[3], 4)).await.unwrap();
    assert_eq!(late.backlog().spans, 4);
    check_ledger(&spool);
    spool.close().await;
    drop((spool, late));

    let spool = open(&directory);
    let late = spool.consumer("late", traces).unwrap();
    assert_eq!((late.position(), late.backlog().spans), (Seq(3), 4));
    check_ledger(&spool);
}

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

#[test]
fn a_directory_in_use_a_file_and_a_newer_format_are_named() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let locked = Spool::open(settings(directory.path()), Metrics::default()).err().unwrap();
    assert!(matches!(locked, OpenError::Locked(_)), "{locked}");
    let family = spool.database().family(database::META);
    spool.database().raw().put_cf(family, "format", "99").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(spool.close());
    drop(spool);
    let newer = Spool::open(settings(directory.path()), Metrics::default()).err().unwrap();
    assert!(matches!(newer, OpenError::NewerFormat { .. }), "{newer}");
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let not_a_directory = Spool::open(settings(&file), Metrics::default()).err().unwrap();
    assert!(matches!(not_a_directory, OpenError::NotWritable { .. }), "{not_a_directory}");
}

#[tokio::test]
async fn a_damaged_log_is_loud_counted_and_gives_no_number_twice() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    let consumer = spool.consumer("otlp", traces).unwrap();
    for key in 0..50u32 {
        spool.append(append(traces, &(key * 1000..key * 1000 + 500).collect::<Vec<_>>(), 2)).await.unwrap();
    }
    let chunk = consumer.read(consumer.position(), ALL).unwrap();
    consumer.advance(chunk.from, chunk.next, Outcome { sent: 100, ..Outcome::default() }).unwrap();
    let end = spool.snapshot().batches + 1;
    spool.close().await;
    drop((spool, consumer));

    // The log's middle is overwritten: what follows is not recovered.
    let logs = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let log = logs
        .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 2..used / 2 + 64].fill(0xff);
    std::fs::write(&log, bytes).unwrap();

    let spool = open(&directory);
    let lost = spool.snapshot().ledger.lost_to_damage;
    assert!(lost > 0 && lost < 100, "{lost}");
    check_ledger(&spool);
    let consumer = spool.consumer("otlp", traces).unwrap();
    spool.append(append(traces, &[424_242], 3)).await.unwrap();
    assert_eq!(spool.find(424_242).unwrap(), [Seq(end)], "numbers go on behind those that were given out");
    let chunk = consumer.read(consumer.position(), ALL).unwrap();
    assert_eq!(chunk.next, Seq(end + 1));
    let sent = chunk.batches.iter().map(|batch| u64::from(batch.header.spans)).sum();
    assert!(consumer.advance(chunk.from, chunk.next, Outcome { sent, ..Outcome::default() }).unwrap());
    check_ledger(&spool);
    assert_eq!(consumer.backlog().spans, 0);
    spool.close().await;
    drop((spool, consumer));
    let spool = open(&directory);
    assert_eq!((spool.find(424_242).unwrap(), spool.snapshot().ledger.lost_to_damage), (vec![Seq(end)], lost));
    check_ledger(&spool);
}

#[tokio::test]
async fn after_a_damaged_log_numbers_go_on_behind_what_was_sealed() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    spool.append(append(traces, &[1], 3)).await.unwrap();
    // As a run's record that lies in a table file, when the log that held the batches is gone.
    let sealed = SealedAccount { position: 40, sealed: [(traces.0, 100)].into(), ..SealedAccount::default() };
    let meta = spool.database().family(database::META);
    let record = serde_json::to_vec(&sealed).unwrap();
    spool.database().raw().put_cf(meta, database::SEALED_KEY, record).unwrap();
    spool.close().await;
    drop(spool);
    std::fs::remove_file(directory.path().join("high-water")).unwrap();

    let spool = open(&directory);
    assert_eq!(spool.range().end, Seq(40), "a smaller number would count as sealed already");
    spool.append(append(traces, &[7], 2)).await.unwrap();
    let batch = spool.batch(Seq(40)).unwrap().unwrap();
    assert_eq!(batch.header.spans_before, 100, "and so would its spans");
    check_ledger(&spool);
}

#[tokio::test]
async fn a_damaged_mark_is_not_believed() {
    for damage in [0usize, 4, 11, 23] {
        let directory = TempDir::new().unwrap();
        let spool = open(&directory);
        let traces = spool.pipeline("traces").await.unwrap();
        spool.append(append(traces, &[1], 3)).await.unwrap();
        spool.close().await;
        let before = spool.range();
        drop(spool);
        let mark = directory.path().join("high-water");
        let mut bytes = std::fs::read(&mark).unwrap();
        bytes[damage] ^= 0x5a;
        std::fs::write(&mark, bytes).unwrap();
        let spool = open(&directory);
        assert_eq!((spool.range(), spool.snapshot().ledger.lost_to_damage), (before, 0), "byte {damage}");
        spool.append(append(traces, &[2], 3)).await.unwrap();
        check_ledger(&spool);
        spool.close().await;
    }
}

/// Every place in the file, as a disk may damage any.
#[tokio::test]
async fn batches_in_a_damaged_block_are_passed_over_at_a_start() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    let mut noise = Noise(1);
    for key in 0..12u32 {
        spool.append(Append { request: noise.request(40_000), ..append(traces, &[key], 3) }).await.unwrap();
    }
    let database = spool.database().raw();
    database.flush_cf(spool.database().family(database::BATCH)).unwrap();
    let files = database.live_files().unwrap();
    let file = files.iter().find(|file| file.column_family_name == database::BATCH).unwrap();
    let file = directory.path().join(file.name.trim_start_matches('/'));
    let range = spool.range();
    spool.close().await;
    drop(spool);
    let whole = std::fs::read(&file).unwrap();
    // In 24ths of the file: a batch takes two. The last two are damaged ones with whole ones in between, and the last of all.
    let damages: [&[usize]; 9] = [&[3], &[6], &[9], &[12], &[15], &[18], &[21], &[7, 13], &[7, 23]];
    for parts in damages {
        let mut bytes = whole.clone();
        for part in parts {
            let at = whole.len() * part / 24;
            bytes[at..at + 16].iter_mut().for_each(|byte| *byte ^= 0x5a);
        }
        std::fs::write(&file, bytes).unwrap();
        let spool = open(&directory);
        assert_eq!(spool.range(), range, "{parts:?}");
        let readable = (range.start.0..range.end.0).filter(|seq| matches!(spool.batch(Seq(*seq)), Ok(Some(_)))).count();
        let least = 11 - parts.len();
        assert!((least..12).contains(&readable), "{parts:?}: {readable} of 12");
        check_ledger(&spool);
        spool.close().await;
    }
}

/// Requests that do not shrink, so that some tens of them fill an extent.
struct Noise(u64);

impl Noise {
    fn request(&mut self, bytes: usize) -> Bytes {
        let word = || {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (self.0 ^ (self.0 >> 29)).to_be_bytes()
        };
        std::iter::repeat_with(word).flatten().take(bytes).collect()
    }

    /// Fills one extent and begins the next.
    async fn fill_extent(&mut self, spool: &Spool, pipeline: PipelineId) {
        for _ in 0..18 {
            let request = self.request(1 << 20);
            spool.append(Append { request, ..append(pipeline, &[], 1) }).await.unwrap();
        }
    }
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

/// What a random history may do.
#[derive(Debug, Clone)]
enum Step {
    Append { pipeline: bool, keys: Vec<u32>, spans: u32, removed: (u32, u32, u32) },
    Deliver { destination: bool },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), proptest::collection::vec(0u32..20, 1..5), 1u32..9, (0u32..3, 0u32..3, 0u32..3))
            .prop_map(|(pipeline, keys, spans, removed)| Step::Append { pipeline, keys, spans, removed }),
        3 => any::<bool>().prop_map(|destination| Step::Deliver { destination }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_history_balances_and_finds_every_trace(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = TempDir::new().unwrap();
            let mut spool = open(&directory);
            let mut model: Vec<Vec<u32>> = Vec::new();
            for step in steps {
                let names = ["traces", "traces/b"];
                match step {
                    Step::Append { pipeline, keys, spans, removed: (rejected, filtered, sampled_out) } => {
                        let id = spool.pipeline(names[usize::from(pipeline)]).await.unwrap();
                        let removed = Append { rejected, filtered, sampled_out, ..append(id, &keys, spans) };
                        spool.append(removed).await.unwrap();
                        model.push(keys);
                    }
                    Step::Deliver { destination } => {
                        let id = spool.pipeline(names[usize::from(destination)]).await.unwrap();
                        let consumer = spool.consumer("d", id).unwrap();
                        let chunk = consumer.read(consumer.position(), ReadLimits { batches_max: 2, ..ALL }).unwrap();
                        let sent = chunk.batches.iter().map(|batch| u64::from(batch.header.spans)).sum();
                        assert!(consumer.advance(chunk.from, chunk.next, Outcome { sent, ..Outcome::default() }).unwrap());
                    }
                    Step::Reopen => {
                        spool.close().await;
                        drop(spool);
                        spool = open(&directory);
                    }
                }
                check_ledger(&spool);
            }
            for key in 0..20 {
                let expected: Vec<Seq> = (1..).zip(&model).filter(|(_, keys)| keys.contains(&key)).map(|(seq, _)| Seq(seq)).collect();
                assert_eq!(spool.find(key).unwrap(), expected);
            }
            spool.close().await;
        });
    }
}
