//! Tail sampling from disk: waiting costs no memory, a crash loses no undecided trace, and what is not forwarded is
//! still there to be looked at.

use super::processors::{Capture, attribute, chain, configuration};
use crate::destination::{Answer, Destination};
use crate::support::compression::Compression;
use crate::support::otelcol::Otelcol;
use crate::support::otlp::{Client, Protocol};
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use crate::support::traces::{hex, mix, request_of};
use crate::support::{eventually, http, ports};
use ::http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;
use spanreel::otlp::Signal;
use spanreel::process::tail_sampling::Sampler;
use std::collections::BTreeSet;
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
    let boring = (0..TRACES).filter(|trace| !is_wanted(*trace)).count();
    gone(&spanreel, boring).await;
    check_kept(&spanreel).await;
    // What comes late shares the decision, and goes with the run that it is in; so over a restart that nobody prepared.
    send(&spanreel, &half(false)).await;
    spanreel.kill();
    spanreel.start_again().await;
    let ledger = spanreel.drained(DESTINATION, Duration::from_secs(60)).await;
    ledger.assert_balanced();
    assert_eq!(ledger.pipeline(PIPELINE).stored, 2 * TRACES);
    // Those of wanted traces of which the decision went with the process may be among it.
    gone(&spanreel, boring).await;
    check_kept(&spanreel).await;
    spanreel.ledger().await.assert_balanced();
}

/// Waits until so many spans at least were sampled out, and went.
async fn gone(spanreel: &Spanreel, spans: usize) {
    eventually("what was sampled out is gone", Duration::from_secs(120), async || {
        let reason = [("reason", "sampled_out")];
        spanreel.metrics().await.sum("spanreel_store_dropped_spans_total", &reason) >= Some(spans as f64)
    })
    .await;
}

async fn check_kept(spanreel: &Spanreel) {
    let is_found = async |trace: u64| {
        let path = format!("/api/traces/{}", hex(&id(trace)));
        http::get(spanreel.ports.query, &path, &[]).await.unwrap().status == 200
    };
    for trace in 0..TRACES {
        if is_wanted(trace) {
            assert!(is_found(trace).await, "trace {trace}");
        } else {
            // Its run may be the next one.
            eventually("the trace is gone", Duration::from_secs(60), async || !is_found(trace).await).await;
        }
    }
}

/// Policies that know no rates: what they want does not depend on when they are asked.
const POLICIES: [&str; 15] = [
    "{name: a, type: status_code, status_code: {status_codes: [ERROR]}}, \
     {name: b, type: string_attribute, string_attribute: {key: url.path, values: [/health], invert_match: true}}",
    "{name: a, type: boolean_attribute, boolean_attribute: {key: flag, value: true, invert_match: true}}, \
     {name: b, type: latency, latency: {threshold_ms: 50}}",
    "{name: a, type: boolean_attribute, boolean_attribute: {key: flag, value: false}}",
    "{name: a, type: boolean_attribute, boolean_attribute: {key: tier, value: false}}",
    "{name: a, type: string_attribute, string_attribute: {key: tier, values: ['^(gold)?$$'], enabled_regex_matching: true}}",
    "{name: a, type: string_attribute, string_attribute: {key: n, values: ['^(75)?$$'], enabled_regex_matching: true}}",
    "{name: a, type: latency, latency: {threshold_ms: 20}}",
    "{name: a, type: numeric_attribute, numeric_attribute: {key: n, min_value: 50, max_value: 100}}",
    "{name: a, type: numeric_attribute, numeric_attribute: {key: n, min_value: 0, max_value: 60, invert_match: true}}",
    "{name: a, type: and, and: {and_sub_policy: [{name: b, type: not, not: {not_sub_policy: {name: c, type: status_code, \
     status_code: {status_codes: [ERROR]}}}}, {name: d, type: string_attribute, string_attribute: {key: url.path, \
     values: ['^/i'], enabled_regex_matching: true}}]}}",
    "{name: a, type: always_sample}, {name: b, type: drop, drop: {drop_sub_policy: [{name: c, type: string_attribute, \
     string_attribute: {key: service.name, values: [cart]}}, {name: d, type: not, not: {not_sub_policy: {name: e, \
     type: span_count, span_count: {min_spans: 2}}}}]}}",
    "{name: a, type: probabilistic, probabilistic: {sampling_percentage: 30, hash_salt: s}}",
    "{name: a, type: trace_state, trace_state: {key: k, values: [v, '']}}, {name: b, type: trace_flags}",
    "{name: a, type: span_count, span_count: {min_spans: 2, max_spans: 2}}",
    "{name: a, type: ottl_condition, ottl_condition: {span: ['attributes[\"n\"] == 75'], spanevent: ['name == \"boom\"']}}",
];
/// Keeps two traces in every case, which are sent last: when they have come, everything was decided.
const SENTINEL: &str = "{name: sentinel, type: string_attribute, string_attribute: {key: sentinel, values: ['yes']}}";

/// Of which the bytes of their ids are made.
const SENTINEL_IDS: [u8; 2] = [8, 9];

/// Traces of all sorts, each of up to three spans.
fn mixture() -> ExportTraceServiceRequest {
    let text = |text: &str| Value::StringValue(text.to_owned());
    let numbers = [Value::IntValue(75), Value::DoubleValue(75.0), text("75"), Value::IntValue(-5), Value::IntValue(0)];
    let span = |trace: u64, number: u64| {
        let start = 1_700_000_000_000_000_000;
        let mut attributes = vec![attribute("url.path", text(["/health", "/items", ""][trace as usize % 3]))];
        if let Some(value) = numbers.get(trace as usize % 7) {
            attributes.push(attribute("n", value.clone()));
        }
        match trace % 5 {
            0 => attributes.push(attribute("flag", Value::BoolValue(number == 0))),
            1 => attributes.push(attribute("flag", text("neither"))),
            _ => {}
        }
        Span {
            trace_id: mixed_id(trace),
            span_id: (trace * 10 + number + 1).to_be_bytes().to_vec(),
            start_time_unix_nano: start,
            // The threshold, and a fraction more, among them.
            end_time_unix_nano: start + [20_000_000, 20_400_000, 21_000_000, 60_000_000][trace as usize % 4],
            attributes,
            flags: u32::from(trace.is_multiple_of(11)),
            trace_state: ["", "k=v", "k=w"][trace as usize % 3].to_owned(),
            status: Some(Status { code: (trace % 3) as i32, ..Status::default() }),
            events: match trace % 6 {
                0 => vec![Event { name: "boom".to_owned(), ..Event::default() }],
                _ => Vec::new(),
            },
            ..Span::default()
        }
    };
    let resource_spans = (0..60).map(|trace| {
        let resource = request_of(
            ["shop", "cart"][trace as usize / 2 % 2],
            (0..trace % 3 + 1).map(|it| span(trace, it)).collect(),
        );
        let mut resource_spans = resource.resource_spans.into_iter().next().unwrap();
        let tier = match trace % 5 {
            0 => Some(attribute("tier", text(""))),
            1 => Some(attribute("tier", Value::IntValue(3))),
            2 => Some(attribute("tier", text("gold"))),
            3 => Some(KeyValue { key: "tier".to_owned(), ..KeyValue::default() }),
            _ => None,
        };
        resource_spans.resource.get_or_insert_default().attributes.extend(tier);
        resource_spans
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

fn mixed_id(trace: u64) -> Vec<u8> {
    [mix(trace + 1), mix(trace + 1_000)].iter().flat_map(|part| part.to_be_bytes()).collect()
}

fn traces_of(request: &[u8]) -> BTreeSet<Vec<u8>> {
    let request = ExportTraceServiceRequest::decode(request).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|it| it.scope_spans);
    scopes.flat_map(|it| it.spans).map(|span| span.trace_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_want_what_they_want_in_the_collector() {
    let first_match = |index: usize| if index % 2 == 1 { "sample_on_first_match: true, " } else { "" };
    let settings: Vec<String> = POLICIES
        .iter()
        .enumerate()
        .map(|(index, policies)| {
            format!("{{decision_wait: 1s, {}policies: [{policies}, {SENTINEL}]}}", first_match(index))
        })
        .collect();
    let cases: Vec<(&'static str, &'static str)> =
        settings.into_iter().map(|settings| ("tail_sampling", &*settings.leak())).collect();
    let capture = Capture::start().await;
    let ports: Vec<u16> = cases.iter().map(|_| ports::free()).collect();
    let _otelcol = Otelcol::start(&configuration(Signal::Traces, &cases, &ports, capture.port)).await;
    let send = async |request: &ExportTraceServiceRequest| {
        for port in &ports {
            let mut connection = http::Connection::open(*port).await.unwrap();
            let headers = [("content-type", "application/x-protobuf")];
            let answer = connection.send(Method::POST, "/v1/traces", &headers, request.encode_to_vec().into()).await;
            assert_eq!(answer.unwrap().status, 200);
        }
    };
    send(&mixture()).await;
    // What comes together is decided together, in no order. So the second comes once the first was decided.
    for sentinel in SENTINEL_IDS {
        let span = Span { trace_id: vec![sentinel; 16], span_id: vec![sentinel; 8], ..Span::default() };
        let mut request = request_of("shop", vec![span]);
        let yes = attribute("sentinel", Value::StringValue("yes".to_owned()));
        request.resource_spans[0].scope_spans[0].spans[0].attributes.push(yes);
        send(&request).await;
        eventually("the Collector has decided", Duration::from_secs(60), async || {
            (0..cases.len()).all(|index| traces_of(&capture.so_far(&format!("/{index}"))).contains(&vec![sentinel; 16]))
        })
        .await;
    }
    for (index, (kind, settings)) in cases.iter().enumerate() {
        let chain = chain(Signal::Traces, kind, settings).await;
        let mut sampler = Sampler::new(chain.tail_sampling().unwrap());
        let looked = sampler.questions().look(&mixture().encode_to_vec());
        let kept = looked.iter().filter(|(id, facts)| sampler.decide(*id, facts, 1).is_kept);
        let ours: BTreeSet<Vec<u8>> = kept.map(|(id, _)| id.0.to_vec()).collect();
        let theirs = traces_of(&capture.so_far(&format!("/{index}")));
        let number =
            |ids: &BTreeSet<Vec<u8>>| (0..60).filter(|trace| ids.contains(&mixed_id(*trace))).collect::<Vec<u64>>();
        assert_eq!(number(&ours), number(&theirs), "{settings}");
        assert!((1..60).contains(&number(&theirs).len()), "it tells something: {settings}");
    }
}
