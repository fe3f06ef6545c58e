//! The connectors `span_metrics` and `service_graph` beside a real Collector's: the same requests to both, the same points from both.

use crate::support::compression::Compression;
use crate::support::otelcol::Otelcol;
use crate::support::otlp::{Client, Protocol, Signal};
use crate::support::spanreel::{Options, Spanreel};
use crate::support::traces::{attribute, mix, request_of};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::Event, span::SpanKind};
use prost::Message;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

const SEEN_BOUND: Duration = Duration::from_secs(60);

/// By the name of the connector. `collector.instance.id` is different in each process by design.
const CONNECTORS: [(&str, &str); 6] = [
    ("plain", ""),
    (
        "dimensions",
        "dimensions: [{name: tier, default: none}], calls_dimensions: [{name: peer}], \
         include_instrumentation_scope: [spanreel.tests], enable_metrics_sampling_method: true, \
         histogram: {unit: s, explicit: {buckets: [2ms, 5ms, 1s]}, dimensions: [{name: route}]}, \
         events: {enabled: true, dimensions: [{name: exception.type}, {name: host}]}, \
         resource_metrics_key_attributes: [service.name]",
    ),
    ("exponential", "histogram: {exponential: {max_size: 10}}, exclude_dimensions: [collector.instance.id, span.name]"),
    (
        "globs",
        "dimensions: [{glob: 't*'}, {name: peer}], calls_dimensions: [{glob: 'rout[a-f]'}], \
         histogram: {dimensions: [{glob: '{host,absent}'}]}, \
         events: {enabled: true, dimensions: [{glob: 'exception.*'}, {glob: 'h**'}, {glob: exception}]}",
    ),
    // Which label sets overflow depends on their order, which is the requests'.
    ("limit", "aggregation_cardinality_limit: 3, histogram: {disable: true}"),
    ("calls", "histogram: {disable: true}, aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA"),
];

/// In front of the service graph: a span that ends before it begins lasts 584 years in the Collector's.
const FORWARDS: &str = "filter: {error_mode: ignore, traces: {span: ['end_time_unix_nano < start_time_unix_nano']}}";

fn connectors() -> String {
    let mut text = "connectors:\n".to_owned();
    for (name, settings) in CONNECTORS {
        let excluded =
            if settings.contains("exclude_dimensions") { "" } else { "exclude_dimensions: [collector.instance.id]," };
        text += &format!(
            "  span_metrics/{name}: {{namespace: {name}, metrics_flush_interval: 1s, {excluded} {settings}}}\n"
        );
    }
    // Of a root server span the Collector waits for a caller.
    text + "  service_graph: {metrics_flush_interval: 1s, store: {ttl: 1s}, store_expiration_loop: 200ms, dimensions: [tier, host], \
            virtual_node_extra_label: true}\n"
}

fn ids() -> String {
    CONNECTORS.map(|(name, _)| format!("span_metrics/{name}")).join(", ")
}

fn span(number: u64) -> Span {
    let start = 1_700_000_000_000_000_000 + number * 1_000;
    let text = |key: &str, value: &str| attribute(key, Any::StringValue(value.to_owned()));
    let event = |kind: &str, attributes| Event { name: kind.to_owned(), attributes, ..Event::default() };
    let mut attributes = vec![text("peer", ["a", "b"][number as usize % 2]), attribute("n", Any::IntValue(1))];
    if number.is_multiple_of(3) {
        attributes.push(text("tier", "gold"));
        attributes.push(text("route", ["/a", "/b"][number as usize % 2]));
    }
    Span {
        trace_id: [mix(number), mix(number + 1)].iter().flat_map(|part| part.to_be_bytes()).collect(),
        span_id: mix(number).to_be_bytes().to_vec(),
        name: format!("op{}", number % 2),
        kind: [SpanKind::Server, SpanKind::Client, SpanKind::Internal][number as usize % 3].into(),
        start_time_unix_nano: start,
        // Bounds of buckets and powers of two among them, no time at all, and an end before the start.
        end_time_unix_nano: match number % 8 {
            0 => start + 2_000_000,
            1 => start,
            2 => start - 1,
            3 => start + 1_000_000,
            4 => start + 5_000_000_000,
            _ => start + mix(number) % 3_000_000_000,
        },
        attributes,
        events: match number % 4 {
            0 => vec![event("exception", vec![text("exception.type", "Timeout")]), event("other", Vec::new())],
            1 => vec![event("exception", vec![text("exception.type", "Refused"), text("host", "of the event")])],
            _ => Vec::new(),
        },
        // One stands for two: nothing is left to chance.
        trace_state: if number.is_multiple_of(5) { "ot=th:8".to_owned() } else { String::new() },
        status: Some(Status { code: number as i32 % 3, ..Status::default() }),
        ..Span::default()
    }
}

fn requests() -> Vec<ExportTraceServiceRequest> {
    let text = |key: &str, value: &str| attribute(key, Any::StringValue(value.to_owned()));
    let mut requests: Vec<_> = (0..20)
        .map(|request| {
            let spans = (request * 10..request * 10 + 10).map(span).collect();
            request_of(["shop", "cart"][request as usize % 2], spans)
        })
        .collect();
    // Of the same service on another host; of no service at all.
    requests[4].resource_spans[0].resource.as_mut().unwrap().attributes.push(text("host", "h2"));
    requests[8].resource_spans[0].resource.as_mut().unwrap().attributes.clear();
    requests.extend(calls());
    requests
}

/// Calls between services: both sides, in either order; a message; a database; someone who sends no spans.
fn calls() -> Vec<ExportTraceServiceRequest> {
    let text = |key: &str, value: &str| attribute(key, Any::StringValue(value.to_owned()));
    let side = |number: u64, kind: SpanKind, caller: u64, attributes| {
        let id = number + if matches!(kind, SpanKind::Server | SpanKind::Consumer) { 1_000 } else { 0 };
        Span {
            trace_id: [mix(number + 500), 7].iter().flat_map(|part: &u64| part.to_be_bytes()).collect(),
            span_id: mix(id).to_be_bytes().to_vec(),
            parent_span_id: mix(caller).to_be_bytes().to_vec(),
            kind: kind.into(),
            attributes,
            events: Vec::new(),
            trace_state: String::new(),
            ..span(id)
        }
    };
    let mut calls = Vec::new();
    for number in 500..520 {
        let (ours, theirs) = match number % 2 {
            0 => (SpanKind::Client, SpanKind::Server),
            _ => (SpanKind::Producer, SpanKind::Consumer),
        };
        let mut pair = [
            request_of("shop", vec![side(number, ours, 1, vec![text("tier", "gold")])]),
            request_of("cart", vec![side(number, theirs, number, vec![text("host", "h1")])]),
        ];
        pair.rotate_left(number as usize / 2 % 2);
        calls.extend(pair);
    }
    let client = |number, attributes| request_of("cart", vec![side(number, SpanKind::Client, 1, attributes)]);
    calls.push(client(600, vec![text("db.name", "orders"), text("db.system", "mysql")]));
    calls.push(client(601, vec![text("db.system", "redis")]));
    calls.push(client(602, vec![text("peer.service", "bank")]));
    calls.push(client(603, Vec::new()));
    let root = Span { parent_span_id: Vec::new(), ..side(604, SpanKind::Server, 1, vec![text("peer.service", "cdn")]) };
    calls.push(request_of("web", vec![root]));
    calls
}

/// Points by metric, resource and attributes, with what they say; times and exemplars are each process's own.
type Points = BTreeMap<String, BTreeSet<String>>;

/// Without what says nothing: fields that are zero or empty may be written or not.
fn normal(value: Value) -> Value {
    let says_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0"),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) => false,
    };
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (key, normal(value)));
            Value::Object(fields.filter(|(_, value)| !says_nothing(value)).collect())
        }
        // Sums of many, in whatever order.
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap();
            Value::from((number * 1e6).round() / 1e6)
        }
        other => other,
    }
}

fn points(path: &Path) -> Points {
    let mut latest: BTreeMap<String, (String, Value)> = BTreeMap::new();
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    // Labels that come from attributes are texts here, and one that is empty is left out: to Prometheus that is the same.
    let as_text = |mut attribute: Value| {
        if let Some(truth) = attribute["value"]["boolValue"].as_bool().filter(|_| attribute["key"] != "failed") {
            attribute["value"] = serde_json::json!({"stringValue": truth.to_string()});
        }
        (attribute["value"]["stringValue"] != "").then(|| attribute.to_string())
    };
    let sorted = |attributes: Vec<Value>| {
        let texts: BTreeSet<String> = attributes.into_iter().filter_map(as_text).collect();
        texts.into_iter().collect::<Vec<_>>().join(" ")
    };
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        let Ok(request) = serde_json::from_str::<Value>(line) else { continue };
        for resource_metrics in list(&request, "resourceMetrics") {
            let resource = sorted(list(&resource_metrics["resource"], "attributes"));
            for metric in list(&resource_metrics, "scopeMetrics").iter().flat_map(|scope| list(scope, "metrics")) {
                let name = metric["name"].as_str().unwrap().to_owned();
                let unit = metric["unit"].as_str().unwrap_or_default().to_owned();
                for kind in ["sum", "histogram", "exponentialHistogram"] {
                    for mut point in list(&metric[kind], "dataPoints") {
                        let attributes = sorted(list(&point, "attributes"));
                        let fields = point.as_object_mut().unwrap();
                        for own in ["attributes", "startTimeUnixNano", "timeUnixNano", "exemplars", "flags"] {
                            fields.remove(own);
                        }
                        let is_delta = metric[kind]["aggregationTemporality"] == 1;
                        let key = format!("{name} {unit} {kind} of {resource} | {attributes}");
                        let number = |value: &Value| value["asInt"].as_str().and_then(|it| it.parse::<i64>().ok());
                        let sum = latest.get(&key).and_then(|(_, before)| Some(number(before)? + number(&point)?));
                        if let Some(sum) = sum.filter(|_| is_delta) {
                            point["asInt"] = Value::String(sum.to_string());
                        }
                        latest.insert(key, (name.clone(), point));
                    }
                }
            }
        }
    }
    let mut points = Points::new();
    for (key, (name, point)) in latest {
        points.entry(name).or_default().insert(format!("{key} = {}", normal(point)));
    }
    points
}

#[tokio::test]
async fn what_a_collector_counts_is_counted_here() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours.jsonl"), folder.path().join("theirs.jsonl"));
    let more = folder.path().join("more.yaml");
    let text = format!(
        "{}exporters:
  file/ours: {{path: '{}'}}
  file/theirs: {{path: '{}'}}
processors: {{{FORWARDS}}}
service:
  pipelines:
    traces: {{exporters: [{ids}]}}
    traces/graph: {{receivers: [otlp], processors: [filter], exporters: [service_graph]}}
    metrics/ours: {{receivers: [{ids}, service_graph], exporters: [file/ours]}}
    metrics/theirs: {{receivers: [otlp], exporters: [file/theirs]}}
",
        connectors(),
        ours.display(),
        theirs.display(),
        ids = ids(),
    );
    std::fs::write(&more, text).unwrap();
    let arguments = vec!["--config".to_owned(), more.display().to_string()];
    let spanreel = Spanreel::start(&Options { arguments, ..Options::default() }).await;
    let config = format!(
        "extensions: {{health_check: {{endpoint: '127.0.0.1:$HEALTH'}}}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:$GRPC'}}, http: {{endpoint: '127.0.0.1:$HTTP'}}}}}}}}
processors: {{{FORWARDS}}}
{}exporters: {{otlp: {{endpoint: '127.0.0.1:{}', tls: {{insecure: true}}, sending_queue: {{num_consumers: 1}}}}}}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [{ids}]}}
    traces/graph: {{receivers: [otlp], processors: [filter], exporters: [service_graph]}}
    metrics: {{receivers: [{ids}, service_graph], exporters: [otlp]}}
",
        connectors(),
        spanreel.ports.grpc,
        ids = ids(),
    );
    let otelcol = Otelcol::start(&config).await;
    for port in [spanreel.ports.grpc, otelcol.grpc] {
        let mut client = Client::connect(port, Protocol::Grpc).await.unwrap();
        for request in requests() {
            let sent = client.export_bytes(Signal::Traces, &request.encode_to_vec(), Compression::Identity).await;
            assert!(sent.unwrap().is_ok());
        }
    }
    let same = || !points(&ours).is_empty() && points(&ours) == points(&theirs);
    let deadline = std::time::Instant::now() + SEEN_BOUND;
    while !same() && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (ours, theirs) = (points(&ours), points(&theirs));
    let names: Vec<&String> = theirs.keys().collect();
    let expected = [
        "calls.calls",
        "dimensions.calls",
        "dimensions.duration",
        "dimensions.events",
        "exponential.calls",
        "exponential.duration",
        "globs.calls",
        "globs.duration",
        "globs.events",
        "limit.calls",
        "plain.calls",
        "plain.duration",
        "traces_service_graph_request_client",
        "traces_service_graph_request_failed_total",
        "traces_service_graph_request_server",
        "traces_service_graph_request_total",
    ];
    assert_eq!(names, expected, "the Collector says too little");
    for name in expected {
        let (ours, theirs) = (ours.get(name).cloned().unwrap_or_default(), &theirs[name]);
        let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
            one.difference(other).take(3).cloned().collect::<Vec<_>>().join("\n")
        };
        assert_eq!(ours, *theirs, "{name}\nonly here:\n{}\nonly there:\n{}", only(&ours, theirs), only(theirs, &ours));
    }
}
