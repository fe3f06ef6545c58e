//! Spans are moved from the spool into sealed runs while the process is killed again and again: none is lost, none is
//! there twice, by id and in what is counted over all of them.

use crate::support::compression::Compression;
use crate::support::http;
use crate::support::metrics::Metrics;
use crate::support::otlp::{Client, Protocol};
use crate::support::spanreel::{Options, Spanreel};
use crate::support::traces::{Traces, mix};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TRACES: Traces = Traces { seed: 0x7365_616c, spans_per_trace: 10 };
const TRACES_PER_REQUEST: u64 = 200;
const REQUESTS_PER_ROUND: u64 = 18;
const ROUNDS: u64 = 5;
/// After a round the process lives at most so long: a run is begun, or half done, or done.
const LIFE_MS_MAX: u64 = 3_000;
/// A run takes about 60,000 spans, so of 180,000 at most one run's spans are still in the spool.
const RUNS_MIN: f64 = 2.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealing_under_kill_9_loses_no_span_and_doubles_none() {
    let begin = unix_seconds();
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let mut traces = 0;
    for round in 0..ROUNDS {
        let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
        for _ in 0..REQUESTS_PER_ROUND {
            let request = TRACES.request("seal", traces..traces + TRACES_PER_REQUEST);
            let answer = client.export(&request, Compression::Identity).await.unwrap();
            assert!(answer.is_ok(), "{answer:?}");
            traces += TRACES_PER_REQUEST;
        }
        tokio::time::sleep(Duration::from_millis(mix(round) % LIFE_MS_MAX)).await;
        spanreel.kill();
        spanreel.start_again().await;
        check(&spanreel, begin, traces).await;
    }
    crate::support::eventually("the spans are sealed", Duration::from_secs(120), async || {
        let metrics = Metrics::scrape(spanreel.ports.query).await.unwrap();
        metrics.sum("spanreel_store_runs", &[]) >= Some(RUNS_MIN)
    })
    .await;
    check(&spanreel, begin, traces).await;
    assert!(spanreel.stop().success());
    spanreel.start_again().await;
    check(&spanreel, begin, traces).await;
}

/// Every span is counted once, and traces are whole.
async fn check(spanreel: &Spanreel, begin: u64, traces: u64) {
    let end = unix_seconds() + 1;
    let path = format!("/api/metrics/query?q=%7B%7D%7Ccount_over_time()&start={}&end={end}", begin - 60);
    let response = http::get(spanreel.ports.query, &path, &[]).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    let answer: serde_json::Value = serde_json::from_str(&response.text()).unwrap();
    let spans = traces * TRACES.spans_per_trace as u64;
    assert_eq!(answer["series"][0]["value"].as_f64(), Some(spans as f64), "{answer}");
    let mut query = spanreel.query().await;
    for sample in 0..50 {
        let trace = TRACES.id(mix(sample ^ traces) % traces);
        assert_eq!(query.spans(trace).await.unwrap().len(), TRACES.spans_per_trace);
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
