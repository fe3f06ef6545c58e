//! Processors beside the Collector's: the same spans through the same configuration come out the same.
//!
//! A real Collector runs one pipeline per case and sends what comes out to a server of the test; Spanreel's side is the
//! chain that a pipeline runs, built from the same text.

use crate::support::compression::Compression;
use crate::support::otelcol::Otelcol;
use crate::support::otlp::Protocol;
use crate::support::spanreel::{Options, PIPELINE, STOP_BOUND, Spanreel};
use crate::support::traces::Traces;
use crate::support::{self, http, ports};
use ::http::Method;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use spanreel::appliance::components::Components;
use spanreel::config::{self, Config, Files, Input, Source};
use spanreel::otlp::Signal;
use spanreel::otlp::scan::scan;
use spanreel::process::{Chain, Client, Surroundings};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The header that `from_context` reads.
const TENANT: (&str, &str) = ("x-tenant", "blue");

/// A processor's type and its settings, as the flow of a YAML map.
pub type Case = (&'static str, &'static str);

/// Sends `requests` through every case on both sides and compares what comes out.
pub async fn compare(cases: &[Case], requests: &[ExportTraceServiceRequest]) {
    compare_signal(Signal::Traces, cases, requests, |case, ours: ExportTraceServiceRequest, theirs| {
        assert_eq!(spans_of(&ours), spans_of(&theirs), "spans of {case}");
        assert_eq!(normal(ours), normal(theirs), "{case}");
    })
    .await;
}

/// The same for requests of any signal.
async fn compare_signal<T: Message + Default>(
    signal: Signal,
    cases: &[Case],
    requests: &[T],
    assert_same: impl Fn(&str, T, T),
) {
    let capture = Capture::start().await;
    let receiver_ports: Vec<u16> = cases.iter().map(|_| ports::free()).collect();
    let text = configuration(signal, cases, &receiver_ports, capture.port);
    let _otelcol = Otelcol::start(&text).await;
    for (index, (kind, settings)) in cases.iter().enumerate() {
        let chain = chain(signal, kind, settings).await;
        for (number, request) in requests.iter().enumerate() {
            let theirs = {
                let headers = [("content-type", "application/x-protobuf"), TENANT];
                let mut connection = http::Connection::open(receiver_ports[index]).await.unwrap();
                let (path, body) = (format!("/v1/{}", signal.as_str()), request.encode_to_vec().into());
                let answer = connection.send(Method::POST, &path, &headers, body).await.unwrap();
                assert_eq!(answer.status, 200, "{kind} {settings}");
                capture.take(&format!("/{index}"))
            };
            let ours = through(signal, &chain, request.encode_to_vec().into()).await;
            let decoded = |bytes: Bytes| T::decode(bytes).unwrap();
            assert_same(&format!("{kind} {settings}, request {number}"), decoded(ours), decoded(theirs));
        }
    }
}

pub fn configuration(signal: Signal, cases: &[Case], receiver_ports: &[u16], capture_port: u16) -> String {
    let signal = signal.as_str();
    let (mut receivers, mut processors, mut exporters, mut pipelines) = <(String, String, String, String)>::default();
    for (index, ((kind, settings), port)) in cases.iter().zip(receiver_ports).enumerate() {
        let http = format!("{{endpoint: \"127.0.0.1:{port}\", include_metadata: true}}");
        let _ = writeln!(receivers, "  otlp/{index}: {{protocols: {{http: {http}}}}}");
        let _ = writeln!(processors, "  {kind}/{index}: {settings}");
        // Without a queue the answer comes once the span has been sent on.
        let _ = writeln!(
            exporters,
            "  otlphttp/{index}: {{{signal}_endpoint: \"http://127.0.0.1:{capture_port}/{index}\", compression: none, \
             sending_queue: {{enabled: false}}, retry_on_failure: {{enabled: false}}}}"
        );
        let _ = writeln!(
            pipelines,
            "    {signal}/{index}: {{receivers: [otlp/{index}], processors: [{kind}/{index}], exporters: [otlphttp/{index}]}}"
        );
    }
    format!(
        "receivers:\n{receivers}processors:\n{processors}exporters:\n{exporters}\
         extensions: {{health_check: {{endpoint: \"127.0.0.1:$HEALTH\"}}}}\n\
         service:\n  extensions: [health_check]\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n{pipelines}"
    )
}

/// The chain of a pipeline with this one processor.
pub async fn chain(signal: Signal, kind: &str, settings: &str) -> Chain {
    let signal = signal.as_str();
    let text = format!(
        "receivers: {{otlp: {{protocols: {{http: }}}}}}\nprocessors:\n  {kind}: {settings}\nexporters: {{debug: }}\n\
         service: {{pipelines: {{{signal}: {{receivers: [otlp], processors: [{kind}], exporters: [debug]}}}}}}\n"
    );
    let sources = [Source::Text { name: "case".to_owned(), text }];
    let input = Input { sources: &sources, sets: &[], env: &|_| None, files: Files::Refused };
    let loaded = config::load(&input).map_err(|errors| errors.lines()).unwrap();
    let config: Config<Components> = loaded.config;
    let settings: Vec<_> = config.processors.values().map(|component| &component.settings).collect();
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    Chain::build(&settings, &Surroundings::default(), &tasks, &shutdown).await.unwrap()
}

async fn through(signal: Signal, chain: &Chain, request: Bytes) -> Bytes {
    let client = Client { metadata: [TENANT].into_iter().collect(), ..Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST)) };
    match signal {
        Signal::Traces => {
            let scanned = scan(&request).unwrap();
            chain.process(request, scanned, &client).await.unwrap().request
        }
        Signal::Metrics | Signal::Logs => chain.process_items(signal, request, &client).await.unwrap(),
    }
}

fn spans_of(request: &ExportTraceServiceRequest) -> Vec<(String, Vec<u8>)> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).map(|span| (span.name.clone(), span.trace_id.clone())).collect()
}

/// Attributes in the order of their keys, and nothing absent that means the same as empty: neither says anything.
fn normal(mut request: ExportTraceServiceRequest) -> ExportTraceServiceRequest {
    for resource in &mut request.resource_spans {
        sort(&mut resource.resource.get_or_insert_default().attributes);
        for scope in &mut resource.scope_spans {
            sort(&mut scope.scope.get_or_insert_default().attributes);
            for span in &mut scope.spans {
                span.status.get_or_insert_default();
                sort(&mut span.attributes);
                span.events.iter_mut().for_each(|event| sort(&mut event.attributes));
                span.links.iter_mut().for_each(|link| sort(&mut link.attributes));
            }
        }
    }
    request
}

/// By key, at any depth.
fn sort(attributes: &mut [KeyValue]) {
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    attributes.iter_mut().flat_map(|attribute| &mut attribute.value).for_each(sort_within);
}

fn sort_within(value: &mut AnyValue) {
    match &mut value.value {
        Some(Value::KvlistValue(map)) => sort(&mut map.values),
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(sort_within),
        _ => {}
    }
}

/// An OTLP/HTTP destination that keeps the bodies of each path, end to end: which is one request.
pub struct Capture {
    pub port: u16,
    bodies: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Capture {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let bodies: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
        let kept = Arc::clone(&bodies);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let kept = Arc::clone(&kept);
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await?.to_bytes();
                        kept.lock().unwrap().entry(path).or_default().extend_from_slice(&body);
                        Ok::<_, hyper::Error>(hyper::Response::new(Full::new(Bytes::new())))
                    }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { port, bodies, server }
    }

    /// What came since the last call; a request of which nothing was left does not come.
    fn take(&self, path: &str) -> Bytes {
        self.bodies.lock().unwrap().remove(path).unwrap_or_default().into()
    }

    /// What came so far.
    pub fn so_far(&self, path: &str) -> Vec<u8> {
        self.bodies.lock().unwrap().get(path).cloned().unwrap_or_default()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

/// Spans of two services with attributes of every type.
pub fn shop() -> ExportTraceServiceRequest {
    let list = Value::ArrayValue(ArrayValue {
        values: vec![AnyValue { value: Some(text("a<b")) }, AnyValue { value: Some(Value::DoubleValue(2.0)) }],
    });
    let map = Value::KvlistValue(KeyValueList { values: vec![attribute("k", Value::IntValue(1))] });
    let span = |number: u8, name: &str, kind: i32| Span {
        trace_id: vec![number; 16],
        span_id: vec![number; 8],
        parent_span_id: if number > 1 { vec![1; 8] } else { Vec::new() },
        name: name.to_owned(),
        kind,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_000_000_000 + u64::from(number) * 1_000_000,
        attributes: vec![
            attribute("http.method", text("GET")),
            attribute("http.url", text("http://shop.example/items/7?q=1")),
            attribute("http.status_code", Value::IntValue(200 + i64::from(number))),
            attribute("number.text", text("12")),
            attribute("ratio", Value::DoubleValue(0.25)),
            attribute("whole", Value::DoubleValue(3.0)),
            attribute("flag", Value::BoolValue(number.is_multiple_of(2))),
            attribute("bytes", Value::BytesValue(vec![1, 2, 255])),
            attribute("list", list.clone()),
            attribute("map", map.clone()),
            attribute("user.email", text("someone@example.org")),
        ],
        dropped_attributes_count: 1,
        events: vec![Event {
            name: "exception".to_owned(),
            time_unix_nano: 5,
            attributes: vec![attribute("exception.type", text("Boom"))],
            ..Default::default()
        }],
        links: vec![Link { trace_id: vec![9; 16], span_id: vec![9; 8], ..Default::default() }],
        status: Some(Status { code: i32::from(number % 3), message: String::new() }),
        ..Default::default()
    };
    let scope = |name: &str, version: &str, spans| ScopeSpans {
        scope: Some(InstrumentationScope { name: name.to_owned(), version: version.to_owned(), ..Default::default() }),
        spans,
        schema_url: "https://opentelemetry.io/schemas/1.26.0".to_owned(),
    };
    let resource = |service: &str, scope_spans| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![
                attribute("service.name", text(service)),
                attribute("host.name", text("node-1")),
                attribute("process.pid", Value::IntValue(42)),
            ],
            ..Default::default()
        }),
        scope_spans,
        ..Default::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![
            resource(
                "shop",
                vec![
                    scope("http", "1.0", vec![span(1, "GET /items/{id}", 2), span(2, "GET /healthz", 2)]),
                    scope("db", "0.9", vec![span(3, "SELECT items", 3)]),
                ],
            ),
            resource("cart", vec![scope("http", "2.0", vec![span(4, "POST /cart", 2), span(5, "work", 1)])]),
            ResourceSpans {
                scope_spans: vec![ScopeSpans { spans: vec![span(6, "nobody's", 5)], ..Default::default() }],
                ..Default::default()
            },
        ],
    }
}

/// Spans of many traces, some of which were sampled before.
fn traces(states: &[&str]) -> ExportTraceServiceRequest {
    // Spread as random ids are.
    let id = |number: u128| number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes().to_vec();
    let priorities = [None, Some(Value::IntValue(1)), Some(text("0")), Some(Value::DoubleValue(-1.0))];
    let span = |number: u128| Span {
        trace_id: id(number),
        span_id: vec![1; 8],
        name: format!("s{number}"),
        trace_state: states[number as usize % states.len()].to_owned(),
        attributes: match &priorities[if number.is_multiple_of(10) { (number / 10 % 4) as usize } else { 0 }] {
            Some(priority) => vec![attribute("sampling.priority", priority.clone())],
            None => Vec::new(),
        },
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (1..=600).map(span).collect(), ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
}

/// Spans that a sampler or nobody takes out, and what is left of them, over a kill.
#[tokio::test(flavor = "multi_thread")]
async fn sampled_spans_are_booked_and_the_account_survives_kill_9() {
    let options = Options {
        processors: vec![
            ("probabilistic_sampler".to_owned(), "{sampling_percentage: 30, hash_seed: 7}".to_owned()),
            (
                "attributes".to_owned(),
                "{actions: [{key: mark, from_context: metadata.x-tenant, default_value: none, action: insert}]}"
                    .to_owned(),
            ),
            ("resource".to_owned(), "{attributes: [{key: env, value: test, action: upsert}]}".to_owned()),
        ],
        ..Options::default()
    };
    let mut spanreel = Spanreel::start(&options).await;
    let all = Traces { seed: 12, spans_per_trace: 3 };
    let mut client = support::otlp::Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    // One trace a request: many of them leave nothing behind.
    for index in 0..60 {
        let answer = client.export(&all.request("shop", index..index + 1), Compression::ALL[0]).await.unwrap();
        assert!(answer.is_ok(), "{answer:?}");
    }
    spanreel.kill();
    spanreel.start_again().await;
    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    let account = ledger.pipeline(PIPELINE);
    assert_eq!((account.received, account.dropped), (180, 0));
    assert!(account.sampled_out > 60 && account.stored > 15 && account.sampled_out % 3 == 0, "{account:?}");

    let mut found = 0;
    for index in 0..60 {
        let spans = spanreel.query().await.spans(all.id(index)).await.unwrap();
        assert!(spans.is_empty() || spans.len() == 3, "a trace stays whole");
        found += spans.len() as u64;
        for (_, span) in spans {
            assert!(span.attributes.iter().any(|attribute| attribute.key == "mark"), "{span:?}");
            assert!(span.trace_state.starts_with("ot=rv:"), "{span:?}");
        }
    }
    assert_eq!(found, account.stored);
}

/// A pipeline whose processor cannot run here does not start, and the reason stands on one line.
#[tokio::test(flavor = "multi_thread")]
async fn a_processor_that_lacks_its_surroundings_stops_the_start_with_its_reason() {
    let options = Options {
        processors: vec![("k8sattributes".to_owned(), "{}".to_owned())],
        arguments: vec!["--no-cluster".to_owned()],
        ..Options::default()
    };
    let mut spanreel = Spanreel::prepare(&options);
    let status = spanreel.spawn().wait(STOP_BOUND);
    assert_eq!(status.code(), Some(1));
    let log = spanreel.log();
    let reason = "service::pipelines::traces: k8s_attributes: there is no access to a cluster";
    assert!(log.contains(reason), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn resource_and_attributes_do_what_the_collectors_do() {
    let cases: &[Case] = &[
        (
            "resource",
            "{attributes: [{key: deployment.environment, value: prod, action: upsert}, {key: host.name, action: delete}]}",
        ),
        (
            "resource",
            "{attributes: [{key: service.name, value: x, action: insert}, {key: process.pid, action: convert, converted_type: string}]}",
        ),
        (
            "resource",
            "{attributes: [{key: copy, from_attribute: process.pid, action: insert}, {pattern: ^host, action: delete}]}",
        ),
        (
            "resource",
            "{attributes: [{key: tenant, from_context: metadata.x-tenant, action: insert}, {key: peer, from_context: client.address, action: upsert}]}",
        ),
        (
            "resource",
            "{attributes: [{key: absent, from_attribute: nothing, default_value: [1, two, {three: 3.5}], action: upsert}]}",
        ),
        (
            "attributes",
            "{actions: [{key: user.email, action: hash}, {key: http.status_code, action: hash}, {key: flag, action: hash}, {key: ratio, action: hash}, {key: list, action: hash}, {key: bytes, action: hash}]}",
        ),
        ("attributes", "{actions: [{pattern: \"^http\\\\.\", action: hash}]}"),
        (
            "attributes",
            "{actions: [{key: http.url, pattern: \"^(?P<scheme>[a-z]+)://(?P<host>[^/]+)(?P<port>:\\\\d+)?/(?P<path>.*)$\", action: extract}]}",
        ),
        (
            "attributes",
            "{actions: [{key: http.status_code, action: convert, converted_type: string}, {key: number.text, action: convert, converted_type: int}, {key: ratio, action: convert, converted_type: int}, {key: flag, action: convert, converted_type: double}, {key: user.email, action: convert, converted_type: double}]}",
        ),
        (
            "attributes",
            "{actions: [{key: list, action: convert, converted_type: string}, {key: map, action: convert, converted_type: string}, {key: bytes, action: convert, converted_type: string}, {key: whole, action: convert, converted_type: string}, {key: flag, action: convert, converted_type: string}]}",
        ),
        (
            "attributes",
            "{actions: [{key: http.method, value: POST, action: update}, {key: absent, value: 1, action: update}, {key: new, value: true, action: INSERT}]}",
        ),
        (
            "attributes",
            "{include: {match_type: strict, services: [shop], span_kinds: [SPAN_KIND_SERVER]}, actions: [{key: mark, value: 1.5, action: insert}]}",
        ),
        (
            "attributes",
            "{include: {match_type: regexp, span_names: [\"/items/\", ^work$], attributes: [{key: http.status_code, value: ^20}]}, exclude: {match_type: strict, resources: [{key: service.name, value: cart}]}, actions: [{key: mark, value: x, action: upsert}]}",
        ),
        (
            "attributes",
            "{exclude: {match_type: strict, libraries: [{name: http, version: \"1.0\"}]}, actions: [{key: mark, value: x, action: upsert}]}",
        ),
        (
            "attributes",
            "{include: {match_type: regexp, services: [nil]}, actions: [{key: mark, value: x, action: upsert}]}",
        ),
        (
            "attributes",
            "{include: {match_type: strict, attributes: [{key: flag, value: true}, {key: ratio, value: 0.25}, {key: list}]}, actions: [{key: mark, value: x, action: upsert}]}",
        ),
    ];
    compare(cases, &[shop()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probabilistic_sampler_keeps_the_spans_that_the_collectors_keeps() {
    let cases: &[Case] = &[
        ("probabilistic_sampler", "{sampling_percentage: 15.3}"),
        ("probabilistic_sampler", "{sampling_percentage: 50, hash_seed: 22, mode: hash_seed, fail_closed: false}"),
        ("probabilistic_sampler", "{sampling_percentage: 0.004}"),
        ("probabilistic_sampler", "{sampling_percentage: 0, fail_closed: false}"),
        ("probabilistic_sampler", "{sampling_percentage: 100}"),
        ("probabilistic_sampler", "{sampling_percentage: 33, mode: equalizing}"),
        (
            "probabilistic_sampler",
            "{sampling_percentage: 33.333, mode: equalizing, sampling_precision: 6, fail_closed: false}",
        ),
        ("probabilistic_sampler", "{sampling_percentage: 40, mode: proportional}"),
        (
            "probabilistic_sampler",
            "{sampling_percentage: 99.5, mode: proportional, sampling_precision: 1, fail_closed: false}",
        ),
        ("probabilistic_sampler", "{sampling_percentage: 150, mode: proportional}"),
    ];
    let states = [
        "",
        "vendor=1",
        "ot=th:8",
        "ot=rv:9f1234567890ab",
        "ot=th:c;rv:00000000000001",
        "not a state",
        "a=1, ot=th:0;x:y , b@c=2",
    ];
    compare(cases, &[traces(&[""]), traces(&states)]).await;
}

/// Log records of every severity and kind of body.
fn logs() -> ExportLogsServiceRequest {
    let map = Value::KvlistValue(KeyValueList { values: vec![attribute("k", Value::DoubleValue(1.5))] });
    let record = |severity_number: i32, severity: &str, body: Option<Value>| LogRecord {
        time_unix_nano: 5,
        severity_number,
        severity_text: severity.to_owned(),
        body: body.map(|value| AnyValue { value: Some(value) }),
        attributes: vec![attribute("enduser.id", text("me")), attribute("n", Value::IntValue(severity_number.into()))],
        ..Default::default()
    };
    let log_records = vec![
        record(0, "", None),
        record(9, "INFO", Some(text("user logged in"))),
        record(13, "WARN", Some(Value::BoolValue(true))),
        record(17, "ERROR", Some(map)),
        record(21, "FATAL", Some(Value::BytesValue(vec![1, 2]))),
    ];
    let scope = Some(InstrumentationScope { name: "lib".to_owned(), version: "1".to_owned(), ..Default::default() });
    let resource = |service: &str| ResourceLogs {
        resource: Some(Resource { attributes: vec![attribute("service.name", text(service))], ..Default::default() }),
        scope_logs: vec![ScopeLogs { scope: scope.clone(), log_records: log_records.clone(), ..Default::default() }],
        ..Default::default()
    };
    ExportLogsServiceRequest { resource_logs: vec![resource("shop"), resource("cart")] }
}

/// A metric of each kind.
fn metrics() -> ExportMetricsServiceRequest {
    let attributes = || vec![attribute("host", text("one")), attribute("n", Value::IntValue(7))];
    let number = || NumberDataPoint { attributes: attributes(), time_unix_nano: 5, ..Default::default() };
    let metric = |name: &str, data| Metric { name: name.to_owned(), data: Some(data), ..Default::default() };
    let histogram = HistogramDataPoint { attributes: attributes(), ..Default::default() };
    let exponential = ExponentialHistogramDataPoint {
        attributes: attributes(),
        positive: Some(Default::default()),
        negative: Some(Default::default()),
        ..Default::default()
    };
    let summary = SummaryDataPoint { attributes: attributes(), ..Default::default() };
    let metrics = vec![
        metric("go_gauge", Data::Gauge(Gauge { data_points: vec![number(), number()] })),
        metric("go_sum", Data::Sum(Sum { data_points: vec![number()], is_monotonic: true, ..Default::default() })),
        metric("latency", Data::Histogram(Histogram { data_points: vec![histogram], ..Default::default() })),
        metric(
            "latency_exponential",
            Data::ExponentialHistogram(ExponentialHistogram { data_points: vec![exponential], ..Default::default() }),
        ),
        metric("latency_summary", Data::Summary(Summary { data_points: vec![summary] })),
    ];
    let scope_metrics = vec![ScopeMetrics { scope: Some(Default::default()), metrics, ..Default::default() }];
    let resource = Some(Resource { attributes: vec![attribute("service.name", text("shop"))], ..Default::default() });
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_logs_and_metrics_are_what_the_collector_makes_of_them() {
    const MARK: &str = "actions: [{key: mark, value: x, action: upsert}]";
    const CHANGE: &str = "actions: [{key: enduser.id, action: hash}, {key: n, action: convert, converted_type: string}, \
                          {key: node, from_attribute: host, action: insert}, {key: host, action: delete}, \
                          {key: tenant, from_context: metadata.x-tenant, action: insert}]";
    fn settings(matching: &[&str]) -> Vec<String> {
        let marked = matching.iter().map(|matching| format!("{{{matching}, {MARK}}}"));
        marked.chain([format!("{{{CHANGE}}}")]).collect()
    }
    fn cases(settings: &'static [String]) -> Vec<Case> {
        settings.iter().map(|settings| ("attributes", settings.as_str())).collect()
    }
    let of_logs: &[String] = settings(&[
        "include: {match_type: strict, log_severity_texts: [ERROR, INFO]}",
        "include: {match_type: strict, log_severity_number: {min: 13}}",
        "exclude: {match_type: strict, log_severity_number: {min: 17, match_undefined: true}}",
        "include: {match_type: regexp, log_bodies: [logged, ^true$, AQI]}",
        "include: {match_type: strict, log_bodies: ['{\"k\":1.5}', '']}",
        "include: {match_type: strict, attributes: [{key: n, value: 9}], resources: [{key: service.name, value: cart}]}",
        "include: {match_type: strict, libraries: [{name: lib, version: '1'}]}, \
         exclude: {match_type: regexp, log_severity_texts: [^.A]}",
    ])
    .leak();
    let sorted = |mut request: ExportLogsServiceRequest| {
        let scopes = request.resource_logs.iter_mut().flat_map(|it| &mut it.scope_logs);
        scopes.flat_map(|it| &mut it.log_records).for_each(|record| {
            record.body.get_or_insert_default();
            sort(&mut record.attributes);
        });
        request
    };
    compare_signal(Signal::Logs, &cases(of_logs), &[logs()], |case, ours, theirs| {
        assert_eq!(sorted(ours), sorted(theirs), "{case}");
    })
    .await;
    let of_metrics: &[String] = settings(&[
        "include: {match_type: strict, metric_names: [go_sum, latency]}",
        "include: {match_type: regexp, metric_names: [^latency]}, exclude: {match_type: regexp, metric_names: [_summary$]}",
    ])
    .leak();
    let sorted = |mut request: ExportMetricsServiceRequest| {
        let scopes = request.resource_metrics.iter_mut().flat_map(|it| &mut it.scope_metrics);
        for metric in scopes.flat_map(|it| &mut it.metrics) {
            match metric.data.as_mut().unwrap() {
                Data::Gauge(it) => it.data_points.iter_mut().for_each(|it| sort(&mut it.attributes)),
                Data::Sum(it) => it.data_points.iter_mut().for_each(|it| sort(&mut it.attributes)),
                Data::Histogram(it) => it.data_points.iter_mut().for_each(|it| sort(&mut it.attributes)),
                Data::ExponentialHistogram(it) => it.data_points.iter_mut().for_each(|it| sort(&mut it.attributes)),
                Data::Summary(it) => it.data_points.iter_mut().for_each(|it| sort(&mut it.attributes)),
            }
        }
        request
    };
    compare_signal(Signal::Metrics, &cases(of_metrics), &[metrics()], |case, ours, theirs| {
        assert_eq!(sorted(ours), sorted(theirs), "{case}");
    })
    .await;
}
