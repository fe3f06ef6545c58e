//! What a disk damages: it is said, counted, and costs no more than itself.

use super::*;

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
