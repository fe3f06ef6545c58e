//! What `deploy/` brings for Prometheus and Grafana: every metric that a query names is one that the process has, and every
//! query is one that a real Prometheus answers.

use super::metrics_from_spans::keep_visiting;
use crate::destination::{self, Answer, Destination};
use crate::support::compression::Compression;
use crate::support::metrics::Metrics as Scraped;
use crate::support::otlp::{Client, Protocol};
use crate::support::prometheus::{Prometheus, check_rules};
use crate::support::spanreel::{Options, Spanreel};
use crate::support::traces::Traces;
use crate::support::{eventually, http, ports};
use prometheus_client::registry::Registry;
use serde_json::Value;
use spanreel::cluster::LifeLine;
use spanreel::telemetry::Metrics;
use std::collections::BTreeSet;
use std::time::Duration;

fn documents(name: &str) -> Vec<Value> {
    let path = format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).expect("YAML")).collect()
}

/// The rule groups of `deploy/prometheus.yaml`, as a rule file has them.
fn rules() -> Value {
    let rule = documents("prometheus.yaml").into_iter().find(|document| document["kind"] == "PrometheusRule").unwrap();
    rule["spec"].clone()
}

fn config_map(label: &str, key: &str) -> String {
    let is_labelled = |document: &Value| document["metadata"]["labels"][label] == "1";
    let map = documents("grafana.yaml").into_iter().find(is_labelled).unwrap();
    map["data"][key].as_str().unwrap().to_owned()
}

fn dashboard() -> Value {
    serde_json::from_str(&config_map("grafana_dashboard", "spanreel.json")).unwrap()
}

/// Every text under a key `expr` or `query`, wherever it is.
fn queries(value: &Value, keys: &[&str]) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match value {
                Value::String(text) if keys.contains(&key.as_str()) => vec![text.clone()],
                value => queries(value, keys),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| queries(item, keys)).collect(),
        _ => Vec::new(),
    }
}

/// As Grafana sends a query: with the variables in their place.
fn filled_in(query: &str) -> String {
    let range = [("$__rate_interval", "1m"), ("$__range", "1m"), ("$service", ".*")];
    range.iter().fold(query.to_owned(), |query, (variable, value)| query.replace(variable, value))
}

/// The metrics that a query names.
fn metrics_of(query: &str) -> BTreeSet<String> {
    let words = query.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let is_ours = |word: &&str| ["spanreel_", "traces_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    words.filter(is_ours).map(str::to_owned).collect()
}

/// The names of samples that an OpenMetrics page may have, by its families.
fn names(page: &str) -> BTreeSet<String> {
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let samples = families.flat_map(|(family, kind)| {
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => &[""],
        };
        suffixes.iter().map(move |suffix| format!("{family}{suffix}"))
    });
    samples.collect()
}

#[tokio::test]
async fn dashboard_and_rules_ask_for_what_the_process_has() {
    let spanreel = Spanreel::start(&Options::default().with_grpc_destination("otlp/tempo", 9)).await;
    let prometheus = Prometheus::start(&[spanreel.ports.query]).await;
    keep_visiting(&spanreel, &prometheus).await;

    let page = http::get(spanreel.ports.query, "/metrics", &[]).await.unwrap().text();
    let mut known = names(&page);
    // What is there only in a cluster.
    let mut registry = Registry::default();
    LifeLine::new(Duration::from_secs(300)).register(&mut registry);
    known.extend(names(&Metrics::new(registry).text()));

    // A family without a series is not written; the first pod that asks for something makes this one.
    known.insert("spanreel_injections_total".to_owned());

    let dashboard = dashboard();
    let of_panels: Vec<String> =
        queries(&dashboard["panels"], &["expr"]).iter().map(|query| filled_in(query)).collect();
    let of_rules = queries(&rules(), &["expr"]);
    assert!(of_panels.len() > 20 && of_rules.len() > 8, "the queries were found");
    for query in of_panels.iter().chain(&of_rules) {
        let unknown: Vec<String> = metrics_of(query).into_iter().filter(|name| !known.contains(name)).collect();
        assert_eq!(unknown, [""; 0], "{query}");
        assert!(!metrics_of(query).is_empty(), "{query}");
        // Panics if Prometheus does not take it.
        let answer = prometheus.query(query).await;
        let needs_traffic = query.contains("traces_") && of_panels.contains(query);
        assert!(!needs_traffic || !answer.is_empty(), "nothing for {query}");
    }
    let variable = &dashboard["templating"]["list"][1]["query"]["query"];
    let asked = variable.as_str().unwrap();
    assert_eq!(asked, "label_values(traces_spanmetrics_calls_total, service)");
    let firing = "(sum by (service) (rate(traces_spanmetrics_calls_total{status_code=\"STATUS_CODE_ERROR\"}[1m]))) > 0";
    assert_eq!(prometheus.query(firing).await.len(), 1);
}

#[test]
fn promtool_takes_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    // JSON is YAML.
    std::fs::write(&path, rules().to_string()).unwrap();
    check_rules(&path);
}

#[test]
fn dashboard_and_data_source_name_one_another() {
    let source: Value = serde_saphyr::from_str(&config_map("grafana_datasource", "spanreel.yaml")).unwrap();
    let source = &source["datasources"][0];
    assert_eq!((source["type"].as_str(), source["uid"].as_str()), (Some("tempo"), Some("spanreel")));
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "spanreel");
    let graph = dashboard["panels"].as_array().unwrap().iter().find(|panel| panel["type"] == "nodeGraph").unwrap();
    assert_eq!(graph["targets"][0]["datasource"]["uid"], source["uid"]);
    assert_eq!(graph["targets"][0]["queryType"], "serviceMap");
    let mut ids: Vec<u64> =
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    let panels = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), panels, "panels have ids of their own");
}

/// What dashboards made for a Collector ask for.
#[tokio::test]
async fn the_collectors_own_metrics_are_scraped_where_its_telemetry_says() {
    let port = ports::free();
    let destination = Destination::start(destination::Options::default(), |_| Answer::Ok).await;
    let sets =
        ["service.telemetry.metrics.level=normal", &format!("service.telemetry.metrics.address=127.0.0.1:{port}")];
    let mut options = Options::default().with_grpc_destination("otlp/tempo", destination.address.port());
    options.processors.push((
        "tail_sampling".to_owned(),
        "{decision_wait: 100ms, policies: [{name: all, type: always_sample}]}".to_owned(),
    ));
    options.arguments = sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect();
    let spanreel = Spanreel::start(&options).await;
    let traces = Traces { seed: 9, spans_per_trace: 3 };
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    assert!(client.export(&traces.request("shop", 0..4), Compression::Identity).await.unwrap().is_ok());
    spanreel.drained("otlp/tempo", Duration::from_secs(60)).await;

    let prometheus = Prometheus::start(&[port]).await;
    let sum = async |query: &str| prometheus.query(query).await;
    eventually("Prometheus has scraped", Duration::from_secs(60), async || {
        !sum("otelcol_process_uptime_total").await.is_empty()
    })
    .await;
    let metrics = Scraped::scrape(port).await.unwrap();
    for suffix in ["", "_total"] {
        let of = |name: &str, labels: &[(&str, &str)]| metrics.sum(&format!("{name}{suffix}"), labels);
        assert_eq!(of("otelcol_receiver_accepted_spans", &[("receiver", "otlp")]), Some(12.0));
        assert_eq!(of("otelcol_exporter_sent_spans", &[("exporter", "otlp/tempo")]), Some(12.0));
        assert_eq!(of("otelcol_exporter_sent_spans", &[]), Some(12.0), "what samples is no exporter");
    }
    assert_eq!(metrics.sum("otelcol_exporter_queue_size", &[]), Some(0.0));
    let exporters = metrics.0.iter().filter_map(|series| series.labels.get("exporter"));
    assert!(exporters.into_iter().all(|exporter| exporter == "otlp/tempo"));
}
