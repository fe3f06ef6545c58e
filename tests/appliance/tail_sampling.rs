//! Tail sampling from disk: waiting costs no memory, a crash loses no undecided trace, and what is not forwarded is
//! still there to be looked at.

use crate::destination::{Answer, Destination};
use crate::support::compression::Compression;
use crate::support::otlp::{Client, Protocol};
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use crate::support::traces::{hex, request_of};
use crate::support::{eventually, http};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TRACES: u64 = 60;
const DESTINATION: &str = "otlp/tempo";
const SAMPLER: &str = "{decision_wait: 15s, policies: [\
    {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}, \
    {name: slow, type: latency, latency: {threshold_ms: 5000}}]}";

/// One half of every trace: of every third one a span in the second half failed.
fn half(second: bool) -> Vec<Span> {
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let span = |trace: u64| Span {
        trace_id: id(trace),
        span_id: (trace * 2 + u64::from(second) + 1).to_be_bytes().to_vec(),
        name: name(trace, second),
        start_time_unix_nano: now,
        end_time_unix_nano: now + 1_000,
        status: Some(Status { code: if second && is_wanted(trace) { 2 } else { 0 }, ..Status::default() }),
        ..Span::default()
    };
    (0..TRACES).map(span).collect()
}

fn id(trace: u64) -> Vec<u8> {
    [(trace + 1).to_be_bytes(), [9; 8]].concat()
}

fn name(trace: u64, second: bool) -> String {
    format!("{trace:03}/{}", if second { "second" } else { "first" })
}

fn is_wanted(trace: u64) -> bool {
    trace.is_multiple_of(3)
}

async fn send(spanreel: &Spanreel, spans: &[Span]) {
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    for spans in spans.chunks(7) {
        let request = request_of("shop", spans.to_vec());
        let answer = client.export(&request, Compression::Gzip).await.unwrap();
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undecided_traces_survive_kill_9_and_wanted_ones_go_out_whole() {
    let destination = Destination::start(crate::destination::Options::default(), |_| Answer::Ok).await;
    let mut options = Options::default().with_grpc_destination(DESTINATION, destination.address.port());
    options.processors.push(("tail_sampling".to_owned(), SAMPLER.to_owned()));
    options.processors.push(("batch".to_owned(), "{timeout: 10ms}".to_owned()));
    let mut spanreel = Spanreel::start(&options).await;
    send(&spanreel, &half(false)).await;
    spanreel.kill();
    spanreel.start_again().await;
    assert_eq!(destination.taken(), [""; 0], "nothing is forwarded undecided");
    send(&spanreel, &half(true)).await;
    spanreel.kill();
    spanreel.start_again().await;

    let wanted: Vec<String> = (0..TRACES)
        .filter(|trace| is_wanted(*trace))
        .flat_map(|trace| [name(trace, false), name(trace, true)])
        .collect();
    eventually("the wanted traces arrived", Duration::from_secs(30), async || {
        destination.taken().len() >= wanted.len()
    })
    .await;
    let ledger = spanreel.drained(DESTINATION, Duration::from_secs(30)).await;
    assert_eq!(destination.taken(), wanted);
    ledger.assert_balanced();
    let delivery = ledger.destination(DESTINATION);
    assert_eq!((delivery.sent, delivery.expired), (wanted.len() as u64, 2 * TRACES - wanted.len() as u64));
    assert_eq!(ledger.pipeline(PIPELINE).stored, 2 * TRACES);

    let metrics = spanreel.metrics().await;
    let decided = |decision| metrics.sum("spanreel_tail_sampling_traces_total", &[("decision", decision)]);
    assert_eq!(decided("sampled").unwrap_or(0.0) + decided("not_sampled").unwrap_or(0.0), TRACES as f64);
    let reason = [("destination", DESTINATION), ("reason", "sampled_out")];
    assert_eq!(metrics.sum("spanreel_spans_expired_total", &reason), Some((2 * TRACES) as f64 - wanted.len() as f64));

    // What was not wanted is found here all the same.
    for trace in [0, 1, 2] {
        let path = format!("/api/traces/{}", hex(&id(trace)));
        let response = http::get(spanreel.ports.query, &path, &[]).await.unwrap();
        assert_eq!(response.status, 200, "trace {trace}");
    }
    // And so it stays when the process has nothing left to decide.
    assert!(spanreel.stop().success());
    spanreel.start_again().await;
    spanreel.ledger().await.assert_balanced();
    assert_eq!(destination.taken(), wanted);
}

/// Runs are made of what is older than a quarter of the spool's age; the rest of it is for a slow machine.
const BRIEFLY: [&str; 2] = ["spool: {max_age: 30s}", "store: {keep_sampled_out: 4s}"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sampled_out_goes_after_a_time_of_its_own_and_what_was_forwarded_stays() {
    let destination = Destination::start(crate::destination::Options::default(), |_| Answer::Ok).await;
    let mut options = Options::default().with_grpc_destination(DESTINATION, destination.address.port());
    options.processors.push(("tail_sampling".to_owned(), SAMPLER.replace("15s", "1s")));
    options.appliance.extend(BRIEFLY.map(str::to_owned));
    let mut spanreel = Spanreel::start(&options).await;
    send(&spanreel, &half(true)).await;
    let boring = (0..TRACES).filter(|trace| !is_wanted(*trace)).count() as u64;
    gone(&spanreel, boring).await;
    check_kept(&spanreel).await;
    // What comes late shares the decision, and goes with the run that it is in; so over a restart that nobody prepared.
    send(&spanreel, &half(false)).await;
    spanreel.kill();
    spanreel.start_again().await;
    let ledger = spanreel.drained(DESTINATION, Duration::from_secs(60)).await;
    ledger.assert_balanced();
    assert_eq!(ledger.pipeline(PIPELINE).stored, 2 * TRACES);
    eventually("what came late is gone, too", Duration::from_secs(60), async || {
        let metrics = spanreel.metrics().await;
        // Late spans of which the decision was forgotten with the process are decided about by themselves: none is wanted.
        let stored = metrics.sum("spanreel_store_spans", &[]).unwrap_or_default();
        let tail = metrics.sum("spanreel_spool_batches", &[]).unwrap_or_default();
        (stored - (TRACES - boring) as f64).abs() < 0.5 && tail.abs() < 0.5
    })
    .await;
    check_kept(&spanreel).await;
    spanreel.ledger().await.assert_balanced();
}

async fn gone(spanreel: &Spanreel, spans: u64) {
    eventually("what was sampled out is gone", Duration::from_secs(60), async || {
        let reason = [("reason", "sampled_out")];
        spanreel.metrics().await.sum("spanreel_store_dropped_spans_total", &reason) == Some(spans as f64)
    })
    .await;
}

async fn check_kept(spanreel: &Spanreel) {
    for trace in 0..TRACES {
        let path = format!("/api/traces/{}", hex(&id(trace)));
        let response = http::get(spanreel.ports.query, &path, &[]).await.unwrap();
        assert_eq!(response.status, if is_wanted(trace) { 200 } else { 404 }, "trace {trace}");
    }
}
