//! Against the rules of Tempo's metrics-generator, on requests that are built span by span.

use super::exposition::Pages;
use super::*;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;
const MILLIS: u64 = 1_000_000;

pub(super) fn at(uptime_millis: u64) -> Now {
    Now { uptime_millis, unix_millis: 1_700_000_000_123 + uptime_millis }
}

fn attributes(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let text = |text: &str| Some(AnyValue { value: Some(Any::StringValue(text.to_owned())) });
    pairs
        .iter()
        .map(|(key, value)| KeyValue { key: (*key).to_owned(), value: text(value), ..Default::default() })
        .collect()
}

/// A span of trace 1 that took so many milliseconds.
pub(super) fn span(kind: i32, id: u8, parent: u8, millis: u64) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { Vec::new() } else { vec![parent; 8] },
        name: format!("op{id}"),
        kind,
        start_time_unix_nano: 1_000 * MILLIS,
        end_time_unix_nano: (1_000 + millis) * MILLIS,
        ..Span::default()
    }
}

pub(super) fn named(span: Span, name: &str) -> Span {
    Span { name: name.to_owned(), ..span }
}

fn failed(mut span: Span) -> Span {
    span.status = Some(Status { code: 2, ..Status::default() });
    span
}

fn with(mut span: Span, pairs: &[(&str, &str)]) -> Span {
    span.attributes = attributes(pairs);
    span
}

pub(super) fn of(resource: &[(&str, &str)], spans: Vec<Span>) -> Vec<u8> {
    let resource = Resource { attributes: attributes(resource), ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

pub(super) fn sent_by(service: &str, spans: Vec<Span>) -> Vec<u8> {
    of(&[("service.name", service)], spans)
}

pub(super) fn tempo() -> Engine {
    RedSettings::default().engine().unwrap()
}

/// Every series of counters and the counts of histograms, `name{label=value,...}`.
fn figures(engine: &Engine) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    for (family, about) in engine.families().enumerate() {
        for (labels, reading) in (0..engine.slots(family)).filter_map(|slot| engine.read(family, slot)) {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let series = format!("{}{{{}}}", about.name, labels.join(","));
            let value = match reading {
                Reading::Counter(value) | Reading::Gauge(value) => value as f64,
                Reading::Histogram(histogram, _) => {
                    figures.insert(format!("{series} sum"), histogram.sum);
                    histogram.count() as f64
                }
                Reading::Exponential(histogram) => histogram.count as f64,
            };
            assert_eq!(figures.insert(series, value), None, "a series is there once");
        }
    }
    figures
}

/// The edges of the graph as `client -> server connection_type: requests/failed server_sum client_sum`.
fn edges(engine: &Engine) -> Vec<String> {
    let figures = figures(engine);
    let requests = "traces_service_graph_request{";
    let of_requests = figures.iter().filter_map(|(series, value)| Some((series.strip_prefix(requests)?, value)));
    let edge = |(labels, requests): (&str, &f64)| {
        let figure = |name: &str| figures[&format!("traces_service_graph_request_{name}{{{labels}")];
        let failed = figure("failed");
        let seconds = |side: &str| figures[&format!("traces_service_graph_request_{side}_seconds{{{labels} sum")];
        format!("{} {requests}/{failed} {} {}", labels.trim_end_matches('}'), seconds("server"), seconds("client"))
    };
    of_requests.map(edge).collect()
}

fn graph_of(requests: &[Vec<u8>]) -> Vec<String> {
    let mut engine = tempo();
    requests.iter().for_each(|request| engine.observe(request, at(0)));
    engine.tidy(at(20_000));
    edges(&engine)
}

#[test]
fn spans_are_counted_under_tempos_names() {
    let mut engine = tempo();
    let spans = vec![span(SERVER, 1, 0, 3), span(SERVER, 1, 0, 5), failed(span(CLIENT, 2, 1, 2))];
    let bytes: usize = spans.iter().map(Message::encoded_len).take(2).sum();
    engine.observe(&sent_by("shop", spans), at(0));
    let figures = figures(&engine);
    let ok = "service=shop,span_name=op1,span_kind=SPAN_KIND_SERVER,status_code=STATUS_CODE_UNSET";
    let bad = "service=shop,span_name=op2,span_kind=SPAN_KIND_CLIENT,status_code=STATUS_CODE_ERROR";
    assert_eq!(figures[&format!("traces_spanmetrics_calls{{{ok}}}")], 2.0);
    assert_eq!(figures[&format!("traces_spanmetrics_calls{{{bad}}}")], 1.0);
    assert_eq!(figures[&format!("traces_spanmetrics_size{{{ok}}}")], bytes as f64);
    assert_eq!(figures[&format!("traces_spanmetrics_latency{{{ok}}}")], 2.0);
    assert_eq!(figures[&format!("traces_spanmetrics_latency{{{ok}}} sum")], 0.008);
}

#[test]
fn a_negative_duration_counts_as_zero_and_empty_labels_are_left_out() {
    let mut engine = tempo();
    let backwards = Span { end_time_unix_nano: 1, name: String::new(), ..span(1, 1, 0, 0) };
    engine.observe(&of(&[], vec![backwards]), at(0));
    let figures = figures(&engine);
    assert_eq!(
        figures["traces_spanmetrics_latency{span_kind=SPAN_KIND_INTERNAL,status_code=STATUS_CODE_UNSET} sum"],
        0.0
    );
}

#[test]
fn both_sides_of_a_call_make_an_edge_in_any_order() {
    let client = || sent_by("web", vec![span(CLIENT, 2, 1, 100)]);
    let server = || sent_by("shop", vec![failed(span(SERVER, 3, 2, 80))]);
    let expected = ["client=web,server=shop 1/1 0.08 0.1"];
    assert_eq!(graph_of(&[client(), server()]), expected);
    assert_eq!(graph_of(&[server(), client()]), expected);
}

#[test]
fn messages_make_edges_of_their_own_kind() {
    let requests = [sent_by("web", vec![span(PRODUCER, 2, 1, 10)]), sent_by("mail", vec![span(CONSUMER, 3, 2, 20)])];
    assert_eq!(graph_of(&requests), ["client=web,server=mail,connection_type=messaging_system 1/0 0.02 0.01"]);
}

#[test]
fn a_database_needs_no_other_side_and_is_named_as_tempo_names_it() {
    for (pairs, name) in [
        (&[("db.name", "orders")][..], "orders"),
        (&[("db.namespace", "ns"), ("db.name", "orders")], "ns"),
        (&[("db.system.name", "redis")], "redis"),
        (&[("db.system", "postgresql"), ("peer.service", "pg")], "pg"),
        (&[("db.system", "postgresql"), ("server.address", "10.1.1.1"), ("db.name", "x")], "10.1.1.1"),
        (&[("db.system", "x"), ("network.peer.address", "::1"), ("network.peer.port", "99")], "::1:99"),
        (&[("db.system", "x"), ("network.peer.address", "::1")], "::1"),
    ] {
        let mut engine = tempo();
        engine.observe(&sent_by("shop", vec![with(span(CLIENT, 2, 1, 30), pairs)]), at(0));
        assert_eq!(edges(&engine), [format!("client=shop,server={name},connection_type=database 1/0 0.03 0.03")]);
    }
}

#[test]
fn who_sends_no_spans_is_a_virtual_node() {
    let root = sent_by("web", vec![span(SERVER, 1, 0, 40)]);
    assert_eq!(graph_of(&[root]), ["client=user,server=web,connection_type=virtual_node 1/0 0.04 0"]);
    let root = sent_by("web", vec![with(span(SERVER, 1, 0, 40), &[("peer.service", "cdn")])]);
    assert_eq!(graph_of(&[root]), ["client=cdn,server=web,connection_type=virtual_node 1/0 0.04 0"]);
    let outward = sent_by("web", vec![with(span(CLIENT, 2, 1, 50), &[("peer.service", "pay")])]);
    assert_eq!(graph_of(&[outward]), ["client=web,server=pay,connection_type=virtual_node 1/0 0 0.05"]);
}

#[test]
fn lone_spans_that_say_nothing_make_no_edge() {
    assert!(graph_of(&[sent_by("web", vec![span(SERVER, 3, 2, 1)])]).is_empty());
    assert!(graph_of(&[sent_by("web", vec![span(CLIENT, 3, 2, 1)])]).is_empty());
    assert!(graph_of(&[sent_by("web", vec![span(1, 1, 0, 1)])]).is_empty());
    assert!(graph_of(&[of(&[], vec![span(SERVER, 1, 0, 1)])]).is_empty());
}

#[test]
fn a_span_waits_ten_seconds_and_no_longer() {
    let (client, server) = (sent_by("web", vec![span(CLIENT, 2, 1, 1)]), sent_by("shop", vec![span(SERVER, 3, 2, 1)]));
    for (later, paired) in [(9_999, true), (10_000, false)] {
        let mut engine = tempo();
        engine.observe(&client, at(0));
        engine.tidy(at(later));
        engine.observe(&server, at(later));
        assert_eq!(edges(&engine).len(), usize::from(paired));
        assert_eq!(engine.census().expired_edges, u64::from(!paired));
    }
}

#[test]
fn no_more_spans_wait_than_may_and_the_rest_is_counted() {
    let service_graphs = settings::ServiceGraphSettings { waiting_max: 2, ..Default::default() };
    let settings = RedSettings { service_graphs: Some(service_graphs), ..RedSettings::default() };
    let mut engine = settings.engine().unwrap();
    engine.observe(&sent_by("web", (1..=5).map(|id| span(CLIENT, id, 9, 1)).collect()), at(0));
    let census = engine.census();
    assert_eq!((census.waiting_edges, census.unpaired_spans, census.edges), (2, 3, 5));
}

#[test]
fn dimensions_come_from_resource_or_span_with_the_side_in_front() {
    let service_graphs = settings::ServiceGraphSettings {
        dimensions: vec!["service.namespace".to_owned(), "tier".to_owned()],
        client_server_prefix: true,
        virtual_node_label: true,
        ..Default::default()
    };
    let settings = RedSettings { service_graphs: Some(service_graphs), ..RedSettings::default() };
    let mut engine = settings.engine().unwrap();
    let client = with(span(CLIENT, 2, 1, 0), &[("tier", "front")]);
    engine.observe(&of(&[("service.name", "web"), ("service.namespace", "a")], vec![client]), at(0));
    engine.observe(&of(&[("service.name", "shop"), ("service.namespace", "b")], vec![span(SERVER, 3, 2, 0)]), at(0));
    engine.observe(&sent_by("web", vec![span(SERVER, 1, 0, 0)]), at(0));
    let paired =
        "client=web,server=shop,client_service.namespace=a,server_service.namespace=b,client_tier=front 1/0 0 0";
    assert_eq!(
        edges(&engine),
        [
            "client=user,server=web,connection_type=virtual_node,virtual_node=client 1/0 0 0",
            &paired.replace("service.namespace", "service_namespace"),
        ]
    );
}

#[test]
fn messages_under_way_are_measured_if_asked_for() {
    let service_graphs = settings::ServiceGraphSettings { messaging_latency: true, ..Default::default() };
    let settings = RedSettings { service_graphs: Some(service_graphs), ..RedSettings::default() };
    let mut engine = settings.engine().unwrap();
    let mut received = span(CONSUMER, 3, 2, 0);
    received.start_time_unix_nano += 700 * MILLIS;
    engine.observe(&sent_by("web", vec![span(PRODUCER, 2, 1, 100)]), at(0));
    engine.observe(&sent_by("mail", vec![received]), at(0));
    let series = "traces_service_graph_request_messaging_system_seconds{client=web,server=mail,\
                  connection_type=messaging_system}";
    assert_eq!(figures(&engine)[&format!("{series} sum")], 0.6);
}

#[test]
fn edges_are_said_to_be_there_if_asked_for() {
    let service_graphs = settings::ServiceGraphSettings { connection_info: true, ..Default::default() };
    let settings = RedSettings { service_graphs: Some(service_graphs), ..RedSettings::default() };
    let mut engine = settings.engine().unwrap();
    for _ in 0..2 {
        engine.observe(&sent_by("web", vec![span(SERVER, 1, 0, 0)]), at(0));
    }
    let series = "traces_service_graph_connection_info{client=user,server=web,connection_type=virtual_node}";
    assert_eq!(figures(&engine)[series], 1.0);
}

/// Counted by resource, of which there may be so many; a resource that was silent for 100 ms may go.
fn by_resource(resources_max: usize) -> Engine {
    let mut keys = Keys::default();
    let calls = Family { name: "calls".into(), unit: "1", kind: Kind::Counter, help: "" };
    let globs = glob::Globs::compile(&["tier*".to_owned(), "host".to_owned()]).unwrap();
    let dimensions = vec![("service".to_owned(), spans::Dimension::Service)];
    let families = vec![(calls, spans::Figure::Calls)];
    let plan = spans::Plan {
        groups: vec![spans::Group { subject: spans::Subject::Spans, dimensions, globs, families }],
        target_info: None,
        precedence: spans::Precedence::Span,
        scheme: histogram::Scheme::Explicit(histogram::Bounds::new(&[])),
        unit_nanos: 1e9,
        exemplars: false,
        series_max: 10,
        by_resource: Some(spans::ByResource {
            key_attributes: Vec::new(),
            resources_max,
            series_max: None,
            idle_millis: 100,
        }),
        needs_service: true,
        extrapolates: false,
        scopes: Vec::new(),
    };
    let spans = SpanMetrics::new(plan, &mut keys);
    Engine::new(keys, Some(spans), None, 0)
}

#[test]
fn a_resource_that_makes_room_takes_its_series_along() {
    let mut engine = by_resource(1);
    let observe =
        |engine: &mut Engine, service, now| engine.observe(&sent_by(service, vec![span(SERVER, 1, 0, 1)]), at(now));
    observe(&mut engine, "old", 0);
    observe(&mut engine, "nameless", 99);
    assert_eq!(figures(&engine).len(), 2, "there is no room for it, but what counts it is there");
    observe(&mut engine, "new", 100);
    observe(&mut engine, "new", 101);
    let series = figures(&engine);
    assert_eq!((series.get("calls{service=old}"), series["calls{service=new}"]), (None, 2.0));
    let census = engine.census();
    assert_eq!((census.evicted_resources, census.overflowed_resources, census.span_series), (1, 1, 2));
}

#[test]
fn what_globs_match_are_labels_of_the_series_in_any_order() {
    let mut engine = by_resource(9);
    let spans = vec![
        with(span(SERVER, 1, 0, 1), &[("tier.a", "1"), ("tier", "gold"), ("other", "x")]),
        with(span(SERVER, 2, 0, 1), &[("tier", "gold"), ("host", "of the span")]),
        with(span(SERVER, 3, 0, 1), &[("host", "of the span"), ("tier", "gold")]),
        span(SERVER, 4, 0, 1),
    ];
    engine.observe(&of(&[("service.name", "shop"), ("host", "node")], spans), at(0));
    let expected = [
        ("calls{service=shop,host=node,tier=gold}", 1.0),
        ("calls{service=shop,host=node}", 1.0),
        ("calls{service=shop,host=of the span,tier=gold}", 2.0),
    ];
    assert_eq!(figures(&engine), expected.map(|(series, value)| (series.to_owned(), value)).into());
}

#[test]
fn targets_are_told_apart_by_job_and_instance() {
    let span_metrics = settings::SpanMetricsSettings {
        target_info: true,
        dimensions: vec!["http.method".to_owned(), "service".to_owned()],
        ..Default::default()
    };
    let settings = RedSettings { span_metrics: Some(span_metrics), service_graphs: None, ..RedSettings::default() };
    let mut engine = settings.engine().unwrap();
    let resource = [
        ("service.name", "shop"),
        ("service.namespace", "eu"),
        ("service.instance.id", "i1"),
        ("host.name", "node \"7\""),
        ("job", "cron"),
    ];
    engine
        .observe(&of(&resource, vec![with(span(SERVER, 1, 0, 1), &[("http.method", "GET"), ("service", "x")])]), at(0));
    let figures = figures(&engine);
    let labels = "service=shop,span_name=op1,span_kind=SPAN_KIND_SERVER,status_code=STATUS_CODE_UNSET,http_method=GET,\
                  __service=x,job=eu/shop,instance=i1";
    assert_eq!(figures[&format!("traces_spanmetrics_calls{{{labels}}}")], 1.0);
    assert_eq!(figures["traces_target_info{__job=cron,host_name=node \"7\",job=eu/shop,instance=i1}"], 1.0);
}

/// Prometheus drops a page as a whole that has a label twice.
#[test]
fn attributes_that_become_one_label_of_a_target_are_one() {
    let span_metrics = settings::SpanMetricsSettings { target_info: true, ..Default::default() };
    let settings = RedSettings { span_metrics: Some(span_metrics), service_graphs: None, ..RedSettings::default() };
    let mut engine = settings.engine().unwrap();
    let resource =
        [("service.name", "shop"), ("x.y", "1"), ("a", "0"), ("x_y", "2"), ("__name__", "other"), ("__x", "hidden")];
    engine.observe(&of(&resource, vec![span(SERVER, 1, 0, 1)]), at(0));
    let figures = figures(&engine);
    assert_eq!(figures.get("traces_target_info{a=0,x_y=1;2,job=shop}"), Some(&1.0), "{figures:?}");
}

#[test]
fn series_go_after_fifteen_minutes_without_a_span() {
    let mut engine = tempo();
    engine.observe(&sent_by("old", vec![span(SERVER, 1, 0, 1)]), at(0));
    engine.observe(&sent_by("new", vec![span(SERVER, 1, 0, 1)]), at(1_000));
    engine.tidy(at(15 * 60 * 1_000 + 500));
    assert!(figures(&engine).keys().all(|series| series.contains("new")), "{:?}", figures(&engine));
    assert_eq!((engine.census().span_series, engine.census().edge_series), (1, 1));
}

#[test]
fn too_many_label_sets_are_counted_together() {
    let mut engine = RedSettings { series_max: 3, ..RedSettings::default() }.engine().unwrap();
    engine.observe(&sent_by("web", (1..=9).map(|id| span(1, id, 0, 1)).collect()), at(0));
    assert_eq!(figures(&engine)["traces_spanmetrics_calls{otel_metric_overflow=true}"], 6.0);
    assert_eq!(engine.census().overflowed_spans, 6);
}

#[test]
fn a_page_reads_as_openmetrics() {
    let mut engine = tempo();
    let mut odd = span(SERVER, 1, 0, 3);
    odd.name = "say \"hi\"\\\n".to_owned();
    engine.observe(&sent_by("web", vec![odd]), at(0));
    let text: String = Pages::of(Arc::new(Red::new(engine))).collect();
    let labels =
        r#"service="web",span_name="say \"hi\"\\\n",span_kind="SPAN_KIND_SERVER",status_code="STATUS_CODE_UNSET""#;
    let trace = "01".repeat(16);
    for line in [
        "# TYPE traces_spanmetrics_calls counter",
        &format!("traces_spanmetrics_calls_total{{{labels}}} 1"),
        "# TYPE traces_spanmetrics_latency histogram",
        &format!("traces_spanmetrics_latency_bucket{{{labels},le=\"0.002\"}} 0"),
        &format!(
            "traces_spanmetrics_latency_bucket{{{labels},le=\"0.004\"}} 1 # {{traceID=\"{trace}\"}} 0.003 1700000000.123"
        ),
        &format!("traces_spanmetrics_latency_bucket{{{labels},le=\"+Inf\"}} 1"),
        &format!("traces_spanmetrics_latency_sum{{{labels}}} 0.003"),
        &format!("traces_spanmetrics_latency_count{{{labels}}} 1"),
        "traces_service_graph_request_failed_total{client=\"user\",server=\"web\",connection_type=\"virtual_node\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

fn any_span() -> impl Strategy<Value = Span> {
    (0..6i32, 0..4u8, 0..4u8, 0..3u8, 0..40u64, 0..3i32).prop_map(|(kind, id, parent, trace, millis, code)| Span {
        trace_id: vec![trace + 1; 16],
        status: Some(Status { code, ..Status::default() }),
        ..span(kind, id + 1, parent, millis)
    })
}

proptest! {
    /// Whatever comes in which pieces: every span is counted once, and every call makes at most one edge.
    #[test]
    fn figures_do_not_depend_on_how_spans_are_put_together(
        spans in proptest::collection::vec((any_span(), 0..3usize), 0..40),
        piece in 1..10usize,
    ) {
        const SERVICES: [&str; 3] = ["web", "shop", "mail"];
        let (mut whole, mut pieces) = (tempo(), tempo());
        for chunk in spans.chunks(piece) {
            chunk.iter().for_each(|(span, service)| pieces.observe(&sent_by(SERVICES[*service], vec![span.clone()]), at(0)));
        }
        let resources = spans.iter().flat_map(|(span, service)| sent_by(SERVICES[*service], vec![span.clone()]));
        // Requests put end to end are one request.
        whole.observe(&resources.collect::<Vec<u8>>(), at(0));
        prop_assert_eq!(figures(&whole), figures(&pieces));
        let calls = |(series, _): &(&String, &f64)| series.starts_with("traces_spanmetrics_calls");
        let total: f64 = figures(&whole).iter().filter(calls).map(|(_, value)| *value).sum();
        prop_assert_eq!(total as usize, spans.len());
    }

    #[test]
    fn any_bytes_are_observed_without_panic(bytes: Vec<u8>) {
        let mut engine = tempo();
        engine.observe(&bytes, at(0));
        engine.tidy(at(Duration::from_secs(20).as_millis() as u64));
        prop_assert!(engine.census().span_series <= bytes.len());
    }
}
