use super::*;
use crate::process::testing::{attribute, decoded_settings, errors_of, request, run};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

/// Which of these spans the processor marks, by name.
fn marked(matching: &str) -> Vec<String> {
    let span = |name: &str, kind: i32, value: i64| Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: name.to_owned(),
        kind,
        attributes: vec![attribute("n", value), attribute("t", "text")],
        ..Default::default()
    };
    let scope = |name: &str, version: &str, spans| ScopeSpans {
        scope: Some(opentelemetry_proto::tonic::common::v1::InstrumentationScope {
            name: name.to_owned(),
            version: version.to_owned(),
            ..Default::default()
        }),
        spans,
        ..Default::default()
    };
    let resource = |service: &str, scope_spans| ResourceSpans {
        resource: Some(opentelemetry_proto::tonic::resource::v1::Resource {
            attributes: vec![attribute("service.name", service)],
            ..Default::default()
        }),
        scope_spans,
        ..Default::default()
    };
    let spans = request(vec![
        resource("shop", vec![scope("lib", "1.2", vec![span("a", 2, 1), span("b", 3, 2)])]),
        resource("cart", vec![scope("other", "2.0", vec![span("c", 2, 1)])]),
    ]);
    let text = format!("{matching}\nactions: [{{key: mark, value: true, action: insert}}]");
    let processor = Attributes::new(&decoded_settings(&text, AttributesSettings::decode));
    let marked = |span: &Span| span.attributes.iter().any(|attribute| attribute.key == "mark");
    run(&processor, &spans).into_iter().filter(marked).map(|span| span.name).collect()
}

#[test]
fn all_given_properties_must_match_and_any_entry_of_a_list() {
    assert_eq!(marked(""), ["a", "b", "c"]);
    assert_eq!(marked("include: {match_type: strict, services: [shop]}"), ["a", "b"]);
    assert_eq!(marked("include: {match_type: strict, services: [shop, cart], span_names: [a, c]}"), ["a", "c"]);
    assert_eq!(marked("include: {match_type: strict, span_kinds: [SPAN_KIND_SERVER]}"), ["a", "c"]);
    assert_eq!(marked("include: {match_type: strict, attributes: [{key: n, value: 1}]}"), ["a", "c"]);
    assert_eq!(marked("include: {match_type: strict, attributes: [{key: n, value: \"1\"}]}"), Vec::<String>::new());
    assert_eq!(marked("include: {match_type: strict, attributes: [{key: n}, {key: absent}]}"), Vec::<String>::new());
    assert_eq!(marked("include: {match_type: strict, resources: [{key: service.name, value: cart}]}"), ["c"]);
    assert_eq!(marked("include: {match_type: strict, libraries: [{name: lib, version: \"1.2\"}]}"), ["a", "b"]);
    assert_eq!(marked("include: {match_type: regexp, libraries: [{name: ., version: ^2}]}"), ["c"]);
    assert_eq!(marked("include: {match_type: regexp, services: [^sh], attributes: [{key: n, value: ^2$}]}"), ["b"]);
    assert_eq!(marked("include: {match_type: regexp, span_kinds: [CLIENT]}"), ["b"]);
}

#[test]
fn what_is_excluded_stays_as_it_is() {
    assert_eq!(marked("exclude: {match_type: strict, services: [shop]}"), ["c"]);
    assert_eq!(
        marked(
            "include: {match_type: regexp, span_names: [\"[ab]\"]}\nexclude: {match_type: strict, span_kinds: [SPAN_KIND_CLIENT]}"
        ),
        ["a"]
    );
}

#[test]
fn settings_that_cannot_mean_anything_are_refused() {
    let errors = |matching: &str| {
        let text = format!("include: {matching}\nactions: [{{key: a, action: delete}}]");
        errors_of(&text, |section| drop(AttributesSettings::decode(section)))
    };
    assert_eq!(
        errors("{services: [a]}"),
        ["include::match_type: is missing (strict compares texts, regexp searches in them)"]
    );
    assert!(errors("{match_type: strict}")[0].starts_with("include: says nothing to match"));
    assert!(errors("{match_type: strict, span_kinds: [SERVER]}")[0].contains("\"SERVER\" is no span kind"));
    assert!(errors("{match_type: regexp, services: [\"(\"]}")[0].contains("is no valid pattern"));
    assert!(errors("{match_type: regexp, attributes: [{key: a, value: 1}]}")[0].contains("takes a text"));
    let foreign = |matching: &str, signal| {
        let text = format!("exclude: {matching}\nactions: [{{key: a, action: delete}}]");
        decoded_settings(&text, AttributesSettings::decode).foreign(signal)
    };
    use crate::otlp::Signal;
    let bodies = "{match_type: strict, attributes: [{key: a}], log_bodies: [b]}";
    assert_eq!(foreign(bodies, Signal::Traces).as_deref(), Some("exclude::log_bodies"));
    assert_eq!(foreign(bodies, Signal::Metrics).as_deref(), Some("exclude::attributes"));
    assert_eq!(foreign(bodies, Signal::Logs), None);
    assert_eq!(errors_of("actions:", |s| drop(AttributesSettings::decode(s))).len(), 1);
}

mod items {
    //! Data points and log records.
    use super::*;
    use crate::otlp::Signal;
    use crate::otlp::edit::edit_items;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::metrics::v1::*;
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use prost::Message;
    use std::net::{IpAddr, Ipv4Addr};

    fn edited(signal: Signal, settings: &str, request: &[u8]) -> Option<Vec<u8>> {
        let processor = Attributes::new(&decoded_settings(settings, AttributesSettings::decode));
        let client = Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST));
        edit_items(signal, request, 1_000, |place, item| processor.edit_item(place, item, &client)).unwrap()
    }

    fn record(name: &str, severity: i32, text: &str, body: Any) -> LogRecord {
        LogRecord {
            severity_number: severity,
            severity_text: text.to_owned(),
            body: Some(AnyValue { value: Some(body) }),
            attributes: vec![attribute("name", name)],
            ..Default::default()
        }
    }

    fn logs() -> ExportLogsServiceRequest {
        let map = Any::KvlistValue(opentelemetry_proto::tonic::common::v1::KeyValueList {
            values: vec![attribute("k", "v")],
        });
        let log_records = vec![
            record("a", 9, "INFO", Any::StringValue("hello world".to_owned())),
            record("b", 17, "ERROR", map),
            record("c", 0, "", Any::IntValue(7)),
        ];
        let scope = Some(InstrumentationScope { name: "lib".to_owned(), ..Default::default() });
        let resource = Some(Resource { attributes: vec![attribute("service.name", "shop")], ..Default::default() });
        let scope_logs = vec![ScopeLogs { scope, log_records, ..Default::default() }];
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource, scope_logs, ..Default::default() }] }
    }

    /// Which log records are marked, by name.
    fn marked_logs(matching: &str) -> String {
        let settings = format!("{matching}\nactions: [{{key: mark, value: true, action: insert}}]");
        let request = logs().encode_to_vec();
        let edited = edited(Signal::Logs, &settings, &request).unwrap_or(request);
        let edited = ExportLogsServiceRequest::decode(edited.as_slice()).unwrap();
        let records = edited.resource_logs.into_iter().flat_map(|it| it.scope_logs).flat_map(|it| it.log_records);
        let name = |record: LogRecord| match record.attributes.as_slice() {
            [KeyValue { value: Some(AnyValue { value: Some(Any::StringValue(name)) }), .. }, _] => name.clone(),
            _ => String::new(),
        };
        records.map(name).collect()
    }

    #[test]
    fn log_records_match_by_what_the_collector_looks_at() {
        assert_eq!(marked_logs(""), "abc");
        assert_eq!(marked_logs("include: {match_type: strict, log_severity_texts: [ERROR, WARN]}"), "b");
        assert_eq!(marked_logs("include: {match_type: strict, log_severity_number: {min: 9}}"), "ab");
        assert_eq!(
            marked_logs("exclude: {match_type: strict, log_severity_number: {min: 10, match_undefined: true}}"),
            "a"
        );
        assert_eq!(marked_logs("include: {match_type: regexp, log_bodies: [^hello]}"), "a");
        assert_eq!(marked_logs("include: {match_type: strict, log_bodies: [\"7\", '{\"k\":\"v\"}']}"), "bc");
        assert_eq!(marked_logs("include: {match_type: strict, attributes: [{key: name, value: b}]}"), "b");
        assert_eq!(marked_logs("include: {match_type: strict, resources: [{key: service.name, value: cart}]}"), "");
        assert_eq!(marked_logs("include: {match_type: strict, libraries: [{name: lib}]}"), "abc");
    }

    /// A point of every kind of metric; each metric is named by its kind.
    fn metrics() -> ExportMetricsServiceRequest {
        let attributes = || vec![attribute("host", "one")];
        let number = || NumberDataPoint { attributes: attributes(), time_unix_nano: 5, ..Default::default() };
        let metric = |name: &str, data| Metric { name: name.to_owned(), data: Some(data), ..Default::default() };
        let metrics = vec![
            metric("gauge", Data::Gauge(Gauge { data_points: vec![number(), number()] })),
            metric("sum", Data::Sum(Sum { data_points: vec![number()], is_monotonic: true, ..Default::default() })),
            metric(
                "histogram",
                Data::Histogram(Histogram {
                    data_points: vec![HistogramDataPoint { attributes: attributes(), ..Default::default() }],
                    ..Default::default()
                }),
            ),
            metric(
                "exponential",
                Data::ExponentialHistogram(ExponentialHistogram {
                    data_points: vec![ExponentialHistogramDataPoint { attributes: attributes(), ..Default::default() }],
                    ..Default::default()
                }),
            ),
            metric(
                "summary",
                Data::Summary(Summary {
                    data_points: vec![SummaryDataPoint { attributes: attributes(), ..Default::default() }],
                }),
            ),
        ];
        let scope_metrics = vec![ScopeMetrics { metrics, schema_url: "s".to_owned(), ..Default::default() }];
        let resource_metrics = vec![ResourceMetrics { scope_metrics, ..Default::default() }];
        ExportMetricsServiceRequest { resource_metrics }
    }

    /// The attributes of every point, by metric.
    fn points(request: &ExportMetricsServiceRequest) -> Vec<(&str, Vec<&[KeyValue]>)> {
        let metrics = request.resource_metrics.iter().flat_map(|it| &it.scope_metrics).flat_map(|it| &it.metrics);
        metrics
            .map(|metric| {
                let points = match metric.data.as_ref().unwrap() {
                    Data::Gauge(it) => it.data_points.iter().map(|it| it.attributes.as_slice()).collect(),
                    Data::Sum(it) => it.data_points.iter().map(|it| it.attributes.as_slice()).collect(),
                    Data::Histogram(it) => it.data_points.iter().map(|it| it.attributes.as_slice()).collect(),
                    Data::ExponentialHistogram(it) => {
                        it.data_points.iter().map(|it| it.attributes.as_slice()).collect()
                    }
                    Data::Summary(it) => it.data_points.iter().map(|it| it.attributes.as_slice()).collect(),
                };
                (metric.name.as_str(), points)
            })
            .collect()
    }

    #[test]
    fn points_of_every_kind_are_changed_and_nothing_else_is() {
        let before = metrics();
        let rename = "actions: [{key: node, from_attribute: host, action: insert}, {key: host, action: delete}]";
        let edited = edited(Signal::Metrics, rename, &before.encode_to_vec()).unwrap();
        let mut after = ExportMetricsServiceRequest::decode(edited.as_slice()).unwrap();
        for (metric, points) in points(&after) {
            assert!(points.iter().all(|it| **it == [attribute("node", "one")]), "{metric}: {points:?}");
        }
        // With the old attributes put back it is what it was.
        for metric in
            after.resource_metrics.iter_mut().flat_map(|it| &mut it.scope_metrics).flat_map(|it| &mut it.metrics)
        {
            let attributes = || vec![attribute("host", "one")];
            match metric.data.as_mut().unwrap() {
                Data::Gauge(it) => it.data_points.iter_mut().for_each(|it| it.attributes = attributes()),
                Data::Sum(it) => it.data_points.iter_mut().for_each(|it| it.attributes = attributes()),
                Data::Histogram(it) => it.data_points.iter_mut().for_each(|it| it.attributes = attributes()),
                Data::ExponentialHistogram(it) => it.data_points.iter_mut().for_each(|it| it.attributes = attributes()),
                Data::Summary(it) => it.data_points.iter_mut().for_each(|it| it.attributes = attributes()),
            }
        }
        assert_eq!(after, before);
    }

    #[test]
    fn metrics_match_by_their_names() {
        let mark = |matching: &str| {
            let settings = format!("{matching}\nactions: [{{key: mark, value: 1, action: insert}}]");
            let request = metrics().encode_to_vec();
            let edited = edited(Signal::Metrics, &settings, &request).unwrap_or(request);
            let edited = ExportMetricsServiceRequest::decode(edited.as_slice()).unwrap();
            let marked = points(&edited).into_iter().filter(|(_, points)| points.iter().all(|it| it.len() == 2));
            marked.map(|(metric, _)| metric.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(mark("include: {match_type: strict, metric_names: [sum, summary]}"), ["sum", "summary"]);
        assert_eq!(mark("exclude: {match_type: regexp, metric_names: [^sum, g$, ^h, gauge]}"), ["exponential"]);
    }

    #[test]
    fn what_is_not_changed_comes_out_byte_for_byte_and_what_is_too_large_is_refused() {
        let absent = "actions: [{key: absent, action: delete}]";
        assert_eq!(edited(Signal::Metrics, absent, &metrics().encode_to_vec()), None);
        assert_eq!(edited(Signal::Logs, absent, &logs().encode_to_vec()), None);
        let mut large = logs();
        large.resource_logs[0].scope_logs[0].log_records[0].attributes = vec![KeyValue::default(); 1_001];
        let request = large.encode_to_vec();
        assert!(edit_items(Signal::Logs, &request, 1_000, |_, _| ()).is_err());
        assert_eq!(edit_items(Signal::Logs, &request, 1_001, |_, _| ()), Ok(None));
    }
}
