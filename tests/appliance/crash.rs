//! Promise 1 and 2: OK means on disk, and everything is accounted for - under `kill -9`, many times over.
//!
//! What this cannot show is a power cut: the kernel's page cache survives the process. That the log is synced before
//! the answer is the spool's own test.

use crate::support::compression::Compression;
use crate::support::otelcol::{self, Otelcol};
use crate::support::otlp::{Client, Protocol};
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use crate::support::traces::{Traces, hex, mix};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ROUNDS: u64 = 12;
const TRACES: Traces = Traces { seed: 0x6372_6173, spans_per_trace: 3 };
const TRACES_PER_REQUEST: u64 = 2;
/// Between two requests of a client: the point is many different moments of death, not volume.
const PAUSE: Duration = Duration::from_millis(2);
/// The process lives this long under load, at least and at most.
const LIFE_MS: Range<u64> = 20..700;
/// And this long, every other round, while it is still recovering from the kill before.
const RECOVERY_LIFE_MS_MAX: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_span_is_lost_by_kill_9() {
    let here = Otelcol::start(otelcol::PRINT_EVERYTHING).await;
    let mut away = Otelcol::prepare(otelcol::PRINT_EVERYTHING);
    let options =
        Options::default().with_grpc_destination("otlp/here", here.grpc).with_grpc_destination("otlp/away", away.grpc);
    let mut spanreel = Spanreel::prepare(&options);
    let next = Arc::new(AtomicU64::new(0));
    let mut all_acknowledged = Vec::new();

    for round in 0..ROUNDS {
        if round % 2 == 1 {
            spanreel.spawn();
            tokio::time::sleep(Duration::from_millis(mix(round) % RECOVERY_LIFE_MS_MAX)).await;
            spanreel.kill();
        }
        spanreel.start_again().await;
        check(&spanreel, &all_acknowledged).await;

        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let clients: Vec<_> = [spanreel.ports.grpc, spanreel.ports.http]
            .into_iter()
            .flat_map(|port| Protocol::ALL.map(|protocol| (port, protocol)))
            .map(|(port, protocol)| tokio::spawn(load(port, protocol, next.clone(), acknowledged.clone())))
            .collect();
        let life = LIFE_MS.start + mix(round ^ 0xdead) % (LIFE_MS.end - LIFE_MS.start);
        tokio::time::sleep(Duration::from_millis(life)).await;
        spanreel.kill();
        for client in clients {
            client.await.unwrap();
        }
        let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap());
        println!("round {round}: {} requests acknowledged in {life} ms", acknowledged.len());

        // The newest are the ones in danger: all of them are looked up at once, the older ones at the end.
        spanreel.start_again().await;
        assert_present(&spanreel, &acknowledged).await;
        spanreel.kill();
        all_acknowledged.extend(acknowledged);
    }

    spanreel.start_again().await;
    assert!(all_acknowledged.len() > 100, "this was no load: {} requests", all_acknowledged.len());
    assert_present(&spanreel, &all_acknowledged).await;

    // A destination that was away all the time gets everything; so has the one that was there all the time.
    away.start_again().await;
    for (id, otelcol) in [("otlp/away", &away), ("otlp/here", &here)] {
        let ledger = spanreel.drained(id, Duration::from_secs(60)).await;
        ledger.assert_balanced();
        assert_eq!(ledger.destination(id).sent, ledger.pipeline(PIPELINE).stored, "{id}: {ledger:#?}");
        crate::support::eventually(
            "the destination printed every acknowledged trace",
            Duration::from_secs(30),
            async || {
                let printed = otelcol.printed_traces();
                ids(&all_acknowledged)
                    .all(|id| printed.get(&hex(&id)).is_some_and(|spans| *spans >= TRACES.spans_per_trace))
            },
        )
        .await;
    }
}

/// Sends until the server is gone, noting what it acknowledged.
async fn load(port: u16, protocol: Protocol, next: Arc<AtomicU64>, acknowledged: Arc<Mutex<Vec<Range<u64>>>>) {
    let Ok(mut client) = Client::connect(port, protocol).await else { return };
    loop {
        let first = next.fetch_add(TRACES_PER_REQUEST, Ordering::Relaxed);
        let indices = first..first + TRACES_PER_REQUEST;
        match client.export(&TRACES.request("crash", indices.clone()), Compression::Identity).await {
            Ok(answer) if answer.is_ok() => acknowledged.lock().unwrap().push(indices),
            Ok(answer) => assert!(answer.is_retryable(), "a good request is refused for good: {answer:?}"),
            Err(_) => return,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The ledger after a restart: balanced, and not a span short.
async fn check(spanreel: &Spanreel, acknowledged: &[Range<u64>]) {
    let ledger = spanreel.ledger().await;
    if acknowledged.is_empty() && ledger.pipelines.is_empty() {
        return;
    }
    ledger.assert_balanced();
    let spans = ids(acknowledged).count() as u64 * TRACES.spans_per_trace as u64;
    assert!(ledger.pipeline(PIPELINE).stored >= spans, "{spans} spans were acknowledged: {ledger:#?}");
}

async fn assert_present(spanreel: &Spanreel, acknowledged: &[Range<u64>]) {
    check(spanreel, acknowledged).await;
    let mut query = spanreel.query().await;
    let missing = query.missing(ids(acknowledged), TRACES.spans_per_trace).await.unwrap();
    assert!(missing.is_empty(), "{} acknowledged traces are gone, e.g. {}", missing.len(), hex(&missing[0]));
}

fn ids(requests: &[Range<u64>]) -> impl Iterator<Item = [u8; 16]> {
    requests.iter().cloned().flatten().map(|index| TRACES.id(index))
}
