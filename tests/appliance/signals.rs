//! Metrics and logs are as durable and as well accounted for as traces, and connectors join pipelines.

use crate::support::eventually;
use crate::support::http as client;
use crate::support::otelcol::Otelcol;
use crate::support::spanreel::{Options, Spanreel};
use bytes::Bytes;
use http::Method;
use std::time::Duration;

const ARRIVAL_BOUND: Duration = Duration::from_secs(60);

/// Two data points of one sum, three bounds of one histogram with one point.
const METRICS: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
    "scopeMetrics":[{"scope":{"name":"meter"},"metrics":[
    {"name":"orders","unit":"1","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[
        {"timeUnixNano":"1700000000000000000","asInt":"7"},{"timeUnixNano":"1700000000000000000","asDouble":0.5}]}},
    {"name":"latency","unit":"s","histogram":{"aggregationTemporality":2,"dataPoints":[
        {"timeUnixNano":"1700000000000000000","count":"3","sum":1.5,"bucketCounts":["1","2","0"],"explicitBounds":[0.1,1]}]}}]}]}]}"#;

const LOGS: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[
    {"timeUnixNano":"1700000000000000000","severityNumber":9,"severityText":"INFO","body":{"stringValue":"hello"}},
    {"timeUnixNano":"1700000000000000000","body":{"kvlistValue":{"values":[{"key":"a","value":{"intValue":"1"}}]}}}]}]}]}"#;

const SPAN: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
    {"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","name":"once"}]}]}]}"#;

/// A Collector that takes every signal.
const EVERY_SIGNAL: &str = "
extensions: { health_check: { endpoint: '127.0.0.1:$HEALTH' } }
receivers: { otlp: { protocols: { grpc: { endpoint: '127.0.0.1:$GRPC' }, http: { endpoint: '127.0.0.1:$HTTP' } } } }
exporters: { debug: }
service:
  extensions: [health_check]
  telemetry:
    metrics: { readers: [{ pull: { exporter: { prometheus: { host: 127.0.0.1, port: $METRICS } } } }] }
  pipelines:
    traces: { receivers: [otlp], exporters: [debug] }
    metrics: { receivers: [otlp], exporters: [debug] }
    logs: { receivers: [otlp], exporters: [debug] }
";

/// A Spanreel with `rest` behind its receiver; nothing is started.
fn prepare(rest: &str) -> Spanreel {
    let spanreel = Spanreel::prepare(&Options::default());
    let ports = spanreel.ports;
    let text = format!(
        "receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: '127.0.0.1:{}' }}, http: {{ endpoint: '127.0.0.1:{}' }} }} }} }}\n\
         extensions: {{ spanreel: {{ query_endpoint: '127.0.0.1:{}', spool: {{ min_free_mib: 8 }} }} }}\n{rest}",
        ports.grpc, ports.http, ports.query
    );
    std::fs::write(spanreel.config(), text).unwrap();
    spanreel
}

async fn post(spanreel: &Spanreel, path: &str, body: &'static str) -> client::Response {
    let headers = [("content-type", "application/json")];
    let mut connection = client::Connection::open(spanreel.ports.http).await.unwrap();
    connection.send(Method::POST, path, &headers, Bytes::from_static(body.as_bytes())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_metrics_and_logs_survive_kill_and_outage_and_reach_a_real_collector() {
    let mut otelcol = Otelcol::prepare(EVERY_SIGNAL);
    let mut spanreel = prepare(&format!(
        "processors: {{ memory_limiter: {{ check_interval: 1s, limit_mib: 512 }}, batch: }}\n\
         exporters:\n  otlp: {{ endpoint: '127.0.0.1:{}', tls: {{ insecure: true }}, retry_on_failure: {{ initial_interval: 200ms, max_interval: 1s }} }}\n  \
         otlphttp: {{ endpoint: 'http://127.0.0.1:{}', encoding: json, retry_on_failure: {{ initial_interval: 200ms, max_interval: 1s }} }}\n  debug:\n\
         service:\n  telemetry: {{ metrics: {{ level: none }} }}\n  pipelines:\n    \
         metrics: {{ receivers: [otlp], processors: [memory_limiter, batch], exporters: [otlp, debug] }}\n    \
         logs/app: {{ receivers: [otlp], processors: [batch], exporters: [otlphttp] }}\n",
        otelcol.grpc, otelcol.http
    ));
    spanreel.start_again().await;
    for _ in 0..10 {
        assert_eq!(post(&spanreel, "/v1/metrics", METRICS).await.status, 200);
        assert_eq!(post(&spanreel, "/v1/logs", LOGS).await.status, 200);
    }
    // No pipeline takes traces here, and what is no metrics request is refused before it is stored.
    assert_eq!(post(&spanreel, "/v1/traces", SPAN).await.status, 404);
    assert_eq!(post(&spanreel, "/v1/metrics", r#"{"resourceMetrics":[{"resource":3}]}"#).await.status, 400);

    spanreel.kill();
    spanreel.start_again().await;
    otelcol.start_again().await;
    eventually("every data point and log record is with the collector, once", ARRIVAL_BOUND, async || {
        let accepted = otelcol.metrics().await;
        let sum = |name: &str| accepted.sum(name, &[]).unwrap_or(0.0) as u64;
        sum("otelcol_receiver_accepted_metric_points") == 30 && sum("otelcol_receiver_accepted_log_records") == 20
    })
    .await;
    // What was sent is booked a moment after the answer.
    eventually("all of it is booked as sent", ARRIVAL_BOUND, async || {
        let own = spanreel.metrics().await;
        let sum = |name: &str, destination: &str| own.sum(name, &[("destination", destination)]).unwrap_or(0.0) as u64;
        sum("spanreel_metric_points_sent_total", "otlp") == 30
            && sum("spanreel_log_records_sent_total", "otlphttp") == 20
    })
    .await;
    let own = spanreel.metrics().await;
    assert_eq!(own.sum("spanreel_metric_points_stored_total", &[]), Some(30.0));
    assert_eq!(own.sum("spanreel_spans_stored_total", &[]), None, "no pipeline carries traces");
    // None of it is taken for spans.
    let found = client::get(spanreel.ports.query, "/api/search?q=%7B%7D", &[]).await.unwrap();
    assert!(found.text().contains(r#""traces":[]"#), "{}", found.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_connector_hands_on_what_is_durable_to_every_pipeline_behind_it() {
    let otelcol = Otelcol::start(EVERY_SIGNAL).await;
    let mut spanreel = prepare(&format!(
        "exporters: {{ otlp: {{ endpoint: '127.0.0.1:{}', tls: {{ insecure: true }} }}, debug: }}\n\
         connectors: {{ forward: }}\n\
         service:\n  telemetry: {{ metrics: {{ level: none }} }}\n  pipelines:\n    \
         traces/in: {{ receivers: [otlp], exporters: [forward] }}\n    \
         traces/tempo: {{ receivers: [forward], exporters: [otlp] }}\n    \
         traces/print: {{ receivers: [forward], exporters: [debug] }}\n",
        otelcol.grpc
    ));
    spanreel.start_again().await;
    assert_eq!(post(&spanreel, "/v1/traces", SPAN).await.status, 200);
    let ledger = spanreel.ledger().await;
    for pipeline in ["traces/in", "traces/tempo", "traces/print"] {
        assert_eq!(ledger.pipeline(pipeline).stored, 1, "{pipeline}");
    }
    eventually("the span is forwarded", ARRIVAL_BOUND, async || otelcol.accepted_spans().await == 1).await;
    // In three pipelines, and one span all the same.
    let path = "/api/traces/0102030405060708090a0b0c0d0e0f10";
    let trace = client::get(spanreel.ports.query, path, &[]).await.unwrap();
    assert_eq!(trace.text().matches("\"once\"").count(), 1, "{}", trace.text());
}
