//! Promise 2 under everything at once: crashes, restarts, outages, sampling of both kinds, filters, bad ids, poison,
//! partial success and budgets that are too small. Both equations hold after each start, and in the end.

use super::delivery::good_server;
use crate::destination::{Answer, Destination, Options as DestinationOptions, Received};
use crate::support::compression::Compression;
use crate::support::eventually;
use crate::support::otlp::{Client, Protocol};
use crate::support::spanreel::{Options, PIPELINE, Spanreel, binary};
use crate::support::traces::{Traces, attribute, noise};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const TRACES: Traces = Traces { seed: 0x6163_636f, spans_per_trace: 1 };
const ROUNDS: u64 = 4;
const REQUESTS_PER_CLIENT: u64 = 9;
const SPANS_PER_REQUEST: u64 = 90;
/// Of each span: some rounds of an outage are more than the spool may hold.
const NOISE_BYTES: usize = 20 * 1024;
/// Each round is cut off when so many of its requests were acknowledged.
const ACKNOWLEDGED: u64 = 20;
const BOUND: Duration = Duration::from_secs(90);

const FILTER: &str = "{error_mode: ignore, traces: {span: ['name == \"healthz\"']}}";
const HEAD: &str = "{sampling_percentage: 85}";
const TAIL: &str = "{decision_wait: 1s, policies: [\
    {name: kept, type: string_attribute, string_attribute: {key: keep, values: [\"yes\"]}}]}";

/// A span without an id, one of a health check, one too old for a destination, and the first request of a client has one
/// that it can do nothing with.
fn request(client: u64, number: u64) -> ExportTraceServiceRequest {
    let first = (client * REQUESTS_PER_CLIENT + number) * SPANS_PER_REQUEST;
    let mut request = TRACES.request("shop", first..first + SPANS_PER_REQUEST);
    let spans = request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
    for (at, span) in spans.flat_map(|scope| &mut scope.spans).enumerate() {
        let name = match at {
            0 => "healthz",
            2 => "too old",
            4 if number == 0 => "poison",
            _ => "work",
        };
        name.clone_into(&mut span.name);
        if at == 1 {
            span.span_id = vec![0; 8];
        }
        let keep = if at % 3 == 0 && name == "work" { "no" } else { "yes" };
        span.attributes.push(attribute("keep", Value::StringValue(keep.to_owned())));
        let noise = noise(first + at as u64, NOISE_BYTES);
        span.attributes.push(attribute("noise", Value::StringValue(noise)));
    }
    request
}

/// Refuses requests for a span, and takes others in part.
fn picky(received: &Received) -> Answer {
    let has = |name: &str| received.span_names.iter().any(|span| span == name);
    match (has("poison"), has("too old")) {
        (true, _) => Answer::Grpc { code: 3, message: "what is this", retry_after: None },
        (false, true) => Answer::Partial(1, "too old"),
        (false, false) => Answer::Ok,
    }
}

/// Sends until it is through or the server is gone.
async fn load(port: u16, protocol: Protocol, client: u64, acknowledged: Arc<[AtomicU64; 2]>) {
    let Ok(mut connection) = Client::connect(port, protocol).await else { return };
    let [requests, spans] = &*acknowledged;
    for number in 0..REQUESTS_PER_CLIENT {
        match connection.export(&request(client, number), Compression::Gzip).await {
            Ok(answer) if answer.is_ok() => {
                spans.fetch_add(SPANS_PER_REQUEST, Ordering::Relaxed);
                requests.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => assert!(answer.is_retryable(), "a good request is refused for good: {answer:?}"),
            Err(_) => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_exact_after_any_mix_of_misfortunes() {
    let steady = Destination::start(DestinationOptions::default(), |_| Answer::Ok).await;
    let strange = Destination::start(DestinationOptions::default(), picky).await;
    let mut away = Some(Destination::start(DestinationOptions::default(), |_| Answer::Ok).await);
    let address = away.as_ref().unwrap().address;
    let mut options = Options {
        appliance: vec![
            "spool: {max_size_mib: 16, min_free_mib: 8}".to_owned(),
            "store: {max_size_mib: 16}".to_owned(),
        ],
        ..Options::default()
    };
    for (id, port) in [("otlp/steady", steady.address), ("otlp/picky", strange.address), ("otlp/away", address)] {
        options = options.with_grpc_destination(id, port.port());
    }
    for (id, settings) in
        [("filter", FILTER), ("probabilistic_sampler", HEAD), ("tail_sampling", TAIL), ("batch", "{timeout: 10ms}")]
    {
        options.processors.push((id.to_owned(), settings.to_owned()));
    }
    let mut spanreel = Spanreel::prepare(&options);
    let acknowledged: Arc<[AtomicU64; 2]> = Arc::default();
    for round in 0..ROUNDS {
        // Two rounds of outage after one without.
        match (round % 3 == 0, away.take()) {
            (true, None) => away = Some(good_server(address).await),
            (true, here) => away = here,
            (false, _) => {}
        }
        spanreel.start_again().await;
        let ledger = spanreel.ledger().await;
        if round > 0 {
            ledger.assert_balanced();
        }
        let before = acknowledged[0].load(Ordering::Relaxed);
        let clients: Vec<_> = (0..)
            .zip(Protocol::ALL)
            .map(|(at, protocol)| {
                let client = round * Protocol::ALL.len() as u64 + at;
                tokio::spawn(load(spanreel.ports.of(protocol), protocol, client, acknowledged.clone()))
            })
            .collect();
        eventually("most requests are acknowledged", BOUND, async || {
            acknowledged[0].load(Ordering::Relaxed) >= before + ACKNOWLEDGED
                || clients.iter().all(|it| it.is_finished())
        })
        .await;
        spanreel.ledger().await.assert_balanced();
        match round % 2 {
            0 => spanreel.kill(),
            _ => assert!(spanreel.stop().success()),
        }
        for client in clients {
            client.await.unwrap();
        }
    }

    spanreel.start_again().await;
    spanreel.ledger().await.assert_balanced();
    let _back = match away {
        Some(here) => here,
        None => good_server(address).await,
    };
    for id in ["otlp/steady", "otlp/picky", "otlp/away"] {
        spanreel.drained(id, BOUND).await.assert_balanced();
    }
    let metrics = spanreel.metrics().await;
    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    assert!(ledger.pipeline(PIPELINE).received >= acknowledged[1].load(Ordering::Relaxed), "{ledger:#?}");
    // Each misfortune had its share.
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels).unwrap_or(0.0) as u64;
    assert!(ledger.pipeline(PIPELINE).sampled_out > 0);
    for reason in ["invalid_id", "filtered"] {
        assert!(sum("spanreel_spans_dropped_total", &[("reason", reason)]) > 0, "{reason}");
    }
    for (destination, reason) in [
        ("otlp/steady", "sampled_out"),
        ("otlp/picky", "poison"),
        ("otlp/picky", "rejected_by_destination"),
        ("otlp/away", "budget"),
    ] {
        let labels = [("destination", destination), ("reason", reason)];
        assert!(sum("spanreel_spans_expired_total", &labels) > 0, "{labels:?}: {ledger:#?}");
    }
    // What was booked as sent arrived, at least once each.
    assert!(steady.taken().len() as u64 >= ledger.destination("otlp/steady").sent);
    shows_the_spool(&spanreel, &metrics);
}

/// What an operator asks of the spool is in `/metrics` and in `spanreel status`.
fn shows_the_spool(spanreel: &Spanreel, metrics: &crate::support::metrics::Metrics) {
    for name in [
        "spanreel_spool_bytes",
        "spanreel_spool_oldest_age_seconds",
        "spanreel_spool_until_full_seconds",
        "spanreel_disk_written_per_day_bytes",
    ] {
        assert!(metrics.sum(name, &[]).is_some(), "{name}");
    }
    let endpoint = format!("http://127.0.0.1:{}", spanreel.ports.query);
    let status = |arguments: &[&str]| {
        let output = binary().arg("status").args(arguments).args(["--endpoint", &endpoint]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = status(&[]);
    for words in ["spool ", "oldest ", "otlp/away", "sampled out"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let figures: serde_json::Value = serde_json::from_str(&status(&["-o", "json"])).unwrap();
    for key in ["bytes", "bytes_max", "oldest_age_seconds", "full_in_seconds", "written_per_day_bytes"] {
        assert!(figures["spool"].get(key).is_some(), "{key}: {figures:#}");
    }
}
