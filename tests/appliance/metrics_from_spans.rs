//! Metrics from spans, as a real Prometheus sees them and as Grafana's Tempo data source asks for them.

use crate::support::compression::Compression;
use crate::support::eventually;
use crate::support::otlp::{Client, Protocol, Signal};
use crate::support::prometheus::{Prometheus, Sample};
use crate::support::spanreel::{Options, Spanreel};
use crate::support::traces::{attribute, hex, mix, request_of};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::SpanKind};
use prost::Message;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Two scrapes with something between them, on a loaded machine.
const SEEN_BOUND: Duration = Duration::from_secs(60);

/// A visit: a browser calls `frontend`, that calls `checkout`, that asks a database and sends a message to `mailer`. The
/// call of `checkout` fails in every second visit.
struct Visit(u64);

impl Visit {
    fn trace_id(&self) -> Vec<u8> {
        [mix(self.0), mix(self.0 + 1)].iter().flat_map(|part| part.to_be_bytes()).collect()
    }

    fn span(&self, kind: SpanKind, id: u64, parent: u64, name: &str, millis: u64) -> Span {
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let of = |id: u64| if id == 0 { Vec::new() } else { mix(self.0 * 100 + id).to_be_bytes().to_vec() };
        Span {
            trace_id: self.trace_id(),
            span_id: of(id),
            parent_span_id: of(parent),
            name: name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + millis * 1_000_000,
            ..Span::default()
        }
    }

    fn requests(&self) -> [ExportTraceServiceRequest; 3] {
        let mut checkout = self.span(SpanKind::Server, 3, 2, "POST /checkout", 40);
        if self.0.is_multiple_of(2) {
            checkout.status = Some(Status { code: 2, ..Status::default() });
        }
        let mut database = self.span(SpanKind::Client, 4, 3, "SELECT orders", 10);
        database.attributes = vec![attribute("db.name", Value::StringValue("orders".to_owned()))];
        [
            request_of(
                "frontend",
                vec![
                    self.span(SpanKind::Server, 1, 0, "GET /cart", 100),
                    self.span(SpanKind::Client, 2, 1, "POST", 50),
                ],
            ),
            request_of("checkout", vec![checkout, database, self.span(SpanKind::Producer, 5, 3, "mail publish", 1)]),
            request_of("mailer", vec![self.span(SpanKind::Consumer, 6, 5, "mail receive", 5)]),
        ]
    }

    const SPANS: usize = 6;
}

async fn visit(spanreel: &Spanreel, visits: std::ops::Range<u64>) {
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    for number in visits {
        for request in Visit(number).requests() {
            let answer =
                client.export_bytes(Signal::Traces, &request.encode_to_vec(), Compression::Identity).await.unwrap();
            assert!(answer.is_ok(), "{answer:?}");
        }
    }
}

/// Visits go on until Prometheus has seen the counters rise.
pub async fn keep_visiting(spanreel: &Spanreel, prometheus: &Prometheus) -> u64 {
    let mut visited = 0;
    let query = "rate(traces_service_graph_request_failed_total{client=\"frontend\"}[1m]) > 0";
    let deadline = std::time::Instant::now() + SEEN_BOUND;
    while prometheus.query(query).await.is_empty() {
        assert!(std::time::Instant::now() < deadline, "{query}: nothing; {:?}", prometheus.scrape_errors().await);
        visit(spanreel, visited..visited + 10).await;
        visited += 10;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    visited
}

#[tokio::test]
async fn grafanas_service_graph_and_table_are_answered_by_a_real_prometheus() {
    let spanreel = Spanreel::start(&Options::default()).await;
    let prometheus = Prometheus::start(&[spanreel.ports.query]).await;
    let visited = keep_visiting(&spanreel, &prometheus).await;
    assert_eq!(prometheus.scrape_errors().await, [""; 0]);

    // The service graph: one query per metric, and which edges are of which kind.
    for metric in [
        "traces_service_graph_request_total",
        "traces_service_graph_request_server_seconds_sum",
        "traces_service_graph_request_failed_total",
        "traces_service_graph_request_server_seconds_bucket",
    ] {
        let edges = prometheus.query(&format!("sum by (client, server) (rate({metric}[1m]))")).await;
        let mut pairs: Vec<String> =
            edges.iter().map(|edge| format!("{} {}", edge.label("client"), edge.label("server"))).collect();
        pairs.sort_unstable();
        assert_eq!(pairs, ["checkout mailer", "checkout orders", "frontend checkout", "user frontend"], "{metric}");
        let called = edges.iter().find(|edge| edge.label("server") == "checkout").unwrap();
        assert!(called.value > 0.0, "{metric}");
    }
    let with_namespaces = "sum by (client, server, client_service_namespace, server_service_namespace) \
                           (rate(traces_service_graph_request_total[1m]))";
    assert_eq!(prometheus.query(with_namespaces).await.len(), 4);
    let kinds = "group by (client, connection_type, server) (traces_service_graph_request_total)";
    let mut kinds: Vec<String> =
        prometheus.query(kinds).await.iter().map(|edge| edge.label("connection_type").to_owned()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["", "database", "messaging_system", "virtual_node"]);

    // The table: rate, error rate and duration by operation.
    let rate = "topk(5, sum(rate(traces_spanmetrics_calls_total{span_kind=\"SPAN_KIND_SERVER\"}[1m])) by (span_name))";
    let mut operations: Vec<String> =
        prometheus.query(rate).await.iter().map(|row| row.label("span_name").to_owned()).collect();
    operations.sort_unstable();
    assert_eq!(operations, ["GET /cart", "POST /checkout"]);
    let errors = "topk(5, sum(rate(traces_spanmetrics_calls_total{status_code=\"STATUS_CODE_ERROR\",\
                  span_name=~\"GET /cart|POST /checkout\"}[1m])) by (span_name))";
    let errors = prometheus.query(errors).await;
    assert_eq!(errors.iter().map(|row| row.label("span_name")).collect::<Vec<_>>(), ["POST /checkout"]);
    let duration = "histogram_quantile(.9, sum(rate(traces_spanmetrics_latency_bucket{span_name=~\"GET /cart\"}[1m])) \
                    by (le))";
    let duration = prometheus.query(duration).await;
    assert!((0.064..=0.128).contains(&duration[0].value), "100 ms lie in the bucket up to 128 ms: {duration:?}");

    // Nothing is counted twice or left out.
    let spans = (visited * Visit::SPANS as u64) as f64;
    let all = |samples: &[Sample]| samples.first().is_some_and(|sample| sample.value == spans);
    prometheus.until("sum(traces_spanmetrics_calls_total)", SEEN_BOUND, all).await;
    prometheus.until("sum(traces_spanmetrics_latency_count)", SEEN_BOUND, all).await;
    prometheus.until("sum(spanreel_spans_stored_total)", SEEN_BOUND, all).await;
    let bytes = prometheus.query("sum(traces_spanmetrics_size_total)").await;
    let requests = (0..visited).flat_map(|number| Visit(number).requests());
    let spans =
        requests.flat_map(|request| request.resource_spans).flat_map(|it| it.scope_spans).flat_map(|it| it.spans);
    assert_eq!(bytes[0].value, spans.map(|span| span.encoded_len()).sum::<usize>() as f64);

    // From a bucket to one of its traces.
    let exemplars = prometheus.exemplars("traces_spanmetrics_latency_bucket{span_name=\"GET /cart\"}").await;
    let known: Vec<String> = (0..visited).map(|number| hex(&Visit(number).trace_id())).collect();
    assert!(!exemplars.is_empty());
    for exemplar in exemplars {
        assert!(known.iter().any(|id| *id == exemplar["traceID"].as_str().unwrap()), "{exemplar}");
    }
}

#[tokio::test]
async fn a_crash_starts_the_counters_anew_and_replays_nothing_into_them() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    visit(&spanreel, 0..5).await;
    assert_eq!(spanreel.metrics().await.sum("traces_spanmetrics_calls_total", &[]), Some(5.0 * Visit::SPANS as f64));
    spanreel.kill();
    spanreel.start_again().await;
    assert_eq!(spanreel.metrics().await.sum("traces_spanmetrics_calls_total", &[]), None);
    visit(&spanreel, 5..7).await;
    let metrics = spanreel.metrics().await;
    assert_eq!(metrics.sum("traces_spanmetrics_calls_total", &[]), Some(2.0 * Visit::SPANS as f64));
    assert_eq!(metrics.sum("spanreel_spans_stored_total", &[]), Some(7.0 * Visit::SPANS as f64));
}

#[tokio::test]
async fn metrics_from_spans_can_be_bounded_and_turned_off() {
    let with =
        |settings: &str| Options { appliance: vec![format!("metrics_from_spans: {settings}")], ..Options::default() };
    let spanreel = Spanreel::start(&with("{max_series: 2, service_graphs: {enabled: false}}")).await;
    visit(&spanreel, 0..1).await;
    let metrics = spanreel.metrics().await;
    let overflow = [("otel_metric_overflow", "true")];
    assert_eq!(metrics.sum("traces_spanmetrics_calls_total", &overflow), Some(4.0));
    assert_eq!(metrics.sum("spanreel_red_overflowed_total", &[("of", "span_metrics")]), Some(4.0));
    assert_eq!(metrics.sum("traces_service_graph_request_total", &[]), None);

    let spanreel = Spanreel::start(&with("{enabled: false}")).await;
    visit(&spanreel, 0..1).await;
    assert!(spanreel.metrics().await.0.iter().all(|series| !series.name.starts_with("traces_")));
}

/// A configuration beside the one that [`Spanreel`] has.
fn overlay(folder: &tempfile::TempDir, text: &str) -> Vec<String> {
    let path = folder.path().join("more.yaml");
    std::fs::write(&path, text).unwrap();
    vec!["--config".to_owned(), path.display().to_string()]
}

/// One data point of a counter.
fn counter(name: &str, value: i64) -> Vec<u8> {
    let point = NumberDataPoint {
        value: Some(number_data_point::Value::AsInt(value)),
        time_unix_nano: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
        ..NumberDataPoint::default()
    };
    let sum = Sum { data_points: vec![point], aggregation_temporality: 2, is_monotonic: true };
    let metric =
        Metric { name: name.to_owned(), unit: "By".to_owned(), data: Some(Data::Sum(sum)), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource = request_of("shop", Vec::new()).resource_spans.remove(0).resource;
    let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

#[tokio::test]
async fn connectors_report_into_pipelines_that_prometheus_scrapes() {
    let folder = tempfile::tempdir().unwrap();
    let port = crate::support::ports::free();
    let text = format!(
        "connectors:
  span_metrics: {{metrics_flush_interval: 1s, exemplars: {{enabled: true}}, dimensions: [{{name: tier, default: none}}]}}
  servicegraph: {{metrics_flush_interval: 1s}}
exporters:
  prometheus: {{endpoint: '127.0.0.1:{port}', enable_open_metrics: true, const_labels: {{region: eu}}}}
service:
  pipelines:
    traces: {{exporters: [span_metrics, servicegraph]}}
    metrics: {{receivers: [otlp], exporters: [prometheus]}}
    metrics/spans: {{receivers: [span_metrics, servicegraph], exporters: [prometheus]}}
"
    );
    let options = Options { arguments: overlay(&folder, &text), ..Options::default() };
    let mut spanreel = Spanreel::start(&options).await;
    let prometheus = Prometheus::start(&[port]).await;
    visit(&spanreel, 0..10).await;
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    let request = counter("cache.read", 4_096);
    assert!(client.export_bytes(Signal::Metrics, &request, Compression::Identity).await.unwrap().is_ok());

    let one = |value: f64| move |samples: &[Sample]| samples.first().is_some_and(|sample| sample.value == value);
    let spans = 10.0 * Visit::SPANS as f64;
    let calls = "sum(traces_span_metrics_calls_total{region=\"eu\",tier=\"none\"})";
    prometheus.until(calls, SEEN_BOUND, one(spans)).await;
    prometheus.until("sum(traces_span_metrics_duration_milliseconds_count)", SEEN_BOUND, one(spans)).await;
    let labels = "count by (service_name, span_kind, status_code, otel_scope_name) \
                  (traces_span_metrics_calls_total{span_name=\"POST /checkout\",status_code=\"STATUS_CODE_ERROR\"})";
    let labels = prometheus.query(labels).await;
    assert_eq!(labels[0].label("service_name"), "checkout");
    assert_eq!(labels[0].label("span_kind"), "SPAN_KIND_SERVER");
    assert_eq!(labels[0].label("otel_scope_name"), "spanmetricsconnector");
    let failed = "traces_service_graph_request_failed_total{client=\"frontend\",server=\"checkout\",failed=\"true\"}";
    prometheus.until(failed, SEEN_BOUND, one(5.0)).await;
    let database = "traces_service_graph_request_server_seconds_count{server=\"orders\",connection_type=\"database\"}";
    prometheus.until(database, SEEN_BOUND, one(10.0)).await;
    // A scrape has a job of its own; the one in the page moves aside.
    prometheus.until("cache_read_bytes_total{exported_job=\"shop\"}", SEEN_BOUND, one(4_096.0)).await;
    assert_eq!(prometheus.scrape_errors().await, [""; 0]);
    let exemplars = prometheus.exemplars("traces_span_metrics_duration_milliseconds_bucket").await;
    let known: Vec<String> = (0..10).map(|number| hex(&Visit(number).trace_id())).collect();
    assert!(!exemplars.is_empty());
    for exemplar in exemplars {
        assert!(known.iter().any(|id| *id == exemplar["trace_id"].as_str().unwrap()), "{exemplar}");
    }
    assert!(spanreel.stop().success());
}

#[tokio::test]
async fn remote_write_waits_for_a_receiver_that_is_away_and_loses_nothing() {
    let port = crate::support::ports::free();
    let settings = format!(
        "metrics_from_spans: {{remote_write: {{endpoint: 'http://127.0.0.1:{port}/api/v1/write', interval: 1s, \
         external_labels: {{cluster: a}}}}}}"
    );
    let mut spanreel = Spanreel::start(&Options { appliance: vec![settings], ..Options::default() }).await;
    visit(&spanreel, 0..4).await;
    let queued =
        async || spanreel.metrics().await.sum("spanreel_remote_write_queued_bytes", &[]).is_some_and(|it| it > 0.0);
    eventually("reports wait", SEEN_BOUND, queued).await;

    let prometheus = Prometheus::start_on(port, &[]).await;
    let spans = 4.0 * Visit::SPANS as f64;
    let all = |samples: &[Sample]| samples.first().is_some_and(|sample| sample.value == spans);
    prometheus.until("sum(traces_spanmetrics_calls_total{cluster=\"a\"})", SEEN_BOUND, all).await;
    prometheus.until("sum(traces_spanmetrics_latency_bucket{le=\"+Inf\"})", SEEN_BOUND, all).await;
    let graph = "sum by (client, server) (traces_service_graph_request_total)";
    prometheus.until(graph, SEEN_BOUND, |edges| edges.len() == 4).await;
    assert!(!prometheus.exemplars("traces_spanmetrics_latency_bucket").await.is_empty());
    let metrics = spanreel.metrics().await;
    assert!(metrics.sum("spanreel_remote_write_samples_total", &[("outcome", "sent")]).unwrap() > 0.0);
    for outcome in ["lost", "refused"] {
        assert_eq!(metrics.sum("spanreel_remote_write_samples_total", &[("outcome", outcome)]), None);
    }
    // The last report goes out with the stop.
    visit(&spanreel, 4..5).await;
    assert!(spanreel.stop().success());
    let all = |samples: &[Sample]| samples.first().is_some_and(|sample| sample.value == 5.0 * Visit::SPANS as f64);
    prometheus.until("sum(traces_spanmetrics_calls_total)", SEEN_BOUND, all).await;
}
