//! Promise 4: no wrong port. Each OTLP port takes every protocol, encoding and compression; metrics and logs too.

use crate::support::compression::Compression;
use crate::support::otlp::{Client, Protocol, Signal, code};
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use crate::support::traces::Traces;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point,
};
use prost::Message;

#[tokio::test]
async fn every_protocol_and_compression_is_taken_on_either_port() {
    let spanreel = Spanreel::start(&Options::default()).await;
    let traces = Traces { seed: 2, spans_per_trace: 3 };
    let mut query = spanreel.query().await;
    let mut sent = 0;
    for port in [spanreel.ports.grpc, spanreel.ports.http] {
        for protocol in Protocol::ALL {
            // One connection for all: what was detected for one request must not stick to the next body.
            let mut client = Client::connect(port, protocol).await.unwrap();
            for compression in Compression::ALL {
                let at = format!("port {port}, {protocol:?}, {compression:?}");
                let answer = client.export(&traces.request("matrix", sent..sent + 1), compression).await;
                let answer = answer.unwrap_or_else(|error| panic!("{at}: {error:?}"));
                assert!(answer.is_ok(), "{at}: {answer:?}");
                assert_eq!(answer.rejected_spans, 0, "{at}: {answer:?}");
                // The instant it is acknowledged it can be read.
                let found = query.spans(traces.id(sent)).await.unwrap();
                assert_eq!(found.len(), 3, "{at}: not readable");
                assert!(found.iter().all(|(service, _)| service == "matrix"), "{at}: {found:?}");
                sent += 1;
            }
        }
    }
    let ledger = spanreel.ledger().await;
    ledger.assert_balanced();
    assert_eq!(ledger.pipeline(PIPELINE).stored, 3 * sent);
}

#[tokio::test]
async fn answers_speak_the_language_of_the_request() {
    let spanreel = Spanreel::start(&Options::default()).await;
    let traces = Traces { seed: 3, spans_per_trace: 1 };
    for port in [spanreel.ports.grpc, spanreel.ports.http] {
        for protocol in Protocol::ALL {
            let mut client = Client::connect(port, protocol).await.unwrap();
            let answer = client.export(&traces.request("language", 0..1), Compression::Identity).await.unwrap();
            let content_type = answer.headers.get("content-type").and_then(|value| value.to_str().ok());
            assert!(
                content_type.is_some_and(|found| found.starts_with(protocol.content_type())),
                "{protocol:?}: {content_type:?}"
            );
            let empty: &[u8] = if protocol == Protocol::HttpJson { b"{}" } else { b"" };
            assert_eq!(answer.body, empty, "{protocol:?}: a full success says nothing more");
        }
    }
}

#[tokio::test]
async fn metrics_and_logs_are_taken_and_counted() {
    let spanreel = Spanreel::start(&Options::default()).await;
    for port in [spanreel.ports.grpc, spanreel.ports.http] {
        for protocol in Protocol::ALL {
            for (signal, body) in other_signals(protocol) {
                let mut client = Client::connect(port, protocol).await.unwrap();
                let answer = client.export_bytes(signal, &body, Compression::Gzip).await.unwrap();
                assert!(answer.is_ok(), "{protocol:?} {signal:?}: {answer:?}");
            }
        }
    }
    let metrics = spanreel.metrics().await;
    for signal in ["metrics", "logs"] {
        let counted = metrics.sum("spanreel_discarded_total", &[("signal", signal)]);
        assert!(counted.is_some_and(|count| count >= 6.0), "{signal}: {counted:?}");
    }
}

#[tokio::test]
async fn metrics_and_logs_are_refused_if_so_configured() {
    let options = Options { appliance: vec!["other_signals: refuse".to_owned()], ..Options::default() };
    let spanreel = Spanreel::start(&options).await;
    for protocol in Protocol::ALL {
        for (signal, body) in other_signals(protocol) {
            let mut client = Client::connect(spanreel.ports.of(protocol), protocol).await.unwrap();
            let answer = client.export_bytes(signal, &body, Compression::Identity).await.unwrap();
            let refused = match protocol {
                Protocol::Grpc => answer.code == Some(code::UNIMPLEMENTED),
                _ => answer.http_status == 404,
            };
            assert!(refused, "{protocol:?} {signal:?}: {answer:?}");
            assert!(!answer.is_retryable(), "{protocol:?} {signal:?}: {answer:?}");
        }
    }
}

/// One data point and one record, as any agent sends them along with its spans.
fn other_signals(protocol: Protocol) -> [(Signal, Vec<u8>); 2] {
    if protocol == Protocol::HttpJson {
        let metrics = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},
            "scopeMetrics":[{"metrics":[{"name":"load","gauge":{"dataPoints":[{"timeUnixNano":"1","asDouble":1}]}}]}]}]}"#;
        let logs = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},
            "scopeLogs":[{"logRecords":[{"timeUnixNano":"1","body":{"stringValue":"hello"}}]}]}]}"#;
        return [(Signal::Metrics, metrics.into()), (Signal::Logs, logs.into())];
    }
    let resource = crate::support::traces::request_of("a", Vec::new()).resource_spans.remove(0).resource;
    let point = NumberDataPoint { value: Some(number_data_point::Value::AsDouble(1.0)), ..NumberDataPoint::default() };
    let metric = Metric {
        name: "load".to_owned(),
        data: Some(Data::Gauge(Gauge { data_points: vec![point] })),
        ..Metric::default()
    };
    let metrics = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: resource.clone(),
            scope_metrics: vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }],
    };
    let logs = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource,
            scope_logs: vec![ScopeLogs { log_records: vec![LogRecord::default()], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    };
    [(Signal::Metrics, metrics.encode_to_vec()), (Signal::Logs, logs.encode_to_vec())]
}
