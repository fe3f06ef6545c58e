//! The spool as its neighbours see it: what it promises over reopening, budgets and cursors.

mod budget;
mod cursors;
mod damage;

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
