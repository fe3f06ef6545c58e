use super::*;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data as Kinds;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric as OtlpMetric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message;

const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

fn style() -> Style {
    Style {
        namespace: String::new(),
        const_labels: Vec::new(),
        send_timestamps: false,
        expiration_millis: 300_000,
        resource_labels: false,
        with_suffixes: true,
    }
}

fn attributes_of(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let text = |text: &str| Some(AnyValue { value: Some(Any::StringValue(text.to_owned())) });
    pairs
        .iter()
        .map(|(key, value)| KeyValue { key: (*key).to_owned(), value: text(value), ..Default::default() })
        .collect()
}

fn number(value: i64, at_millis: u64, labels: &[(&str, &str)]) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes_of(labels),
        time_unix_nano: at_millis * 1_000_000,
        value: Some(Number::AsInt(value)),
        ..Default::default()
    }
}

fn sum(temporality: i32, is_monotonic: bool, data_points: Vec<NumberDataPoint>) -> Kinds {
    Kinds::Sum(Sum { data_points, aggregation_temporality: temporality, is_monotonic })
}

fn request(resource: &[(&str, &str)], metrics: Vec<(&str, &str, Kinds)>) -> Vec<u8> {
    let metric = |(name, unit, data): (&str, &str, Kinds)| OtlpMetric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: "What it is".to_owned(),
        data: Some(data),
        ..Default::default()
    };
    let scope = InstrumentationScope { name: "lib".to_owned(), version: "1.0".to_owned(), ..Default::default() };
    let scope_metrics = vec![ScopeMetrics {
        scope: Some(scope),
        metrics: metrics.into_iter().map(metric).collect(),
        ..Default::default()
    }];
    let resource = Some(Resource { attributes: attributes_of(resource), ..Default::default() });
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }],
    }
    .encode_to_vec()
}

fn page(board: &Board, format: Format) -> Vec<String> {
    let (mut lines, mut place) = (Vec::new(), Place::default());
    while let Some((text, next)) = board.text_from(&place, format) {
        lines.extend(text.lines().map(str::to_owned));
        place = next;
    }
    lines
}

fn shown(style: Style, request: &[u8], format: Format) -> Vec<String> {
    let mut board = Board::new(style, Budget::default());
    board.take(request, 0);
    page(&board, format)
}

#[test]
fn counters_and_gauges_are_shown_with_their_labels() {
    let resource =
        [("service.name", "shop"), ("service.namespace", "eu"), ("service.instance.id", "i"), ("host.name", "h")];
    let metrics = vec![
        (
            "http.requests",
            "{request}",
            sum(CUMULATIVE, true, vec![number(7, 5, &[("http.method", "GET"), ("q", "a\"b")])]),
        ),
        ("queue", "1", Kinds::Gauge(Gauge { data_points: vec![number(3, 5, &[])] })),
        ("pool", "By", sum(CUMULATIVE, false, vec![number(-1, 5, &[])])),
    ];
    let origin = r#"instance="i",job="eu/shop",otel_scope_name="lib",otel_scope_version="1.0""#;
    let expected = [
        "# HELP http_requests_total What it is".to_owned(),
        "# TYPE http_requests_total counter".to_owned(),
        format!(r#"http_requests_total{{http_method="GET",{origin},q="a\"b"}} 7"#),
        "# HELP pool_bytes What it is".to_owned(),
        "# TYPE pool_bytes gauge".to_owned(),
        format!("pool_bytes{{{origin}}} -1"),
        "# HELP queue_ratio What it is".to_owned(),
        "# TYPE queue_ratio gauge".to_owned(),
        format!("queue_ratio{{{origin}}} 3"),
        "# HELP target_info Target metadata".to_owned(),
        "# TYPE target_info gauge".to_owned(),
        r#"target_info{host_name="h",instance="i",job="eu/shop"} 1"#.to_owned(),
    ];
    assert_eq!(shown(style(), &request(&resource, metrics), Format::Text), expected);
}

#[test]
fn the_settings_shape_names_labels_and_times() {
    let style = Style {
        namespace: "my ns".to_owned(),
        const_labels: vec![("region".to_owned(), "eu".to_owned())],
        send_timestamps: true,
        resource_labels: true,
        with_suffixes: false,
        ..style()
    };
    let metrics = vec![("http.requests", "s", sum(CUMULATIVE, true, vec![number(7, 1_500, &[])]))];
    let lines = shown(style, &request(&[("host.name", "h")], metrics), Format::Text);
    let series =
        r#"my_ns_http_requests{host_name="h",otel_scope_name="lib",otel_scope_version="1.0",region="eu"} 7 1500"#;
    assert_eq!(lines[2], series);
}

#[test]
fn histograms_are_shown_with_exemplars_in_openmetrics_alone() {
    let exemplar = opentelemetry_proto::tonic::metrics::v1::Exemplar {
        time_unix_nano: 1_500_000_000,
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        value: Some(exemplar::Value::AsDouble(0.7)),
        ..Default::default()
    };
    let point = HistogramDataPoint {
        count: 3,
        sum: Some(2.25),
        bucket_counts: vec![1, 1, 1],
        explicit_bounds: vec![0.5, 1.0],
        exemplars: vec![exemplar],
        ..Default::default()
    };
    let histogram = Kinds::Histogram(Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE });
    let bytes = request(&[], vec![("latency", "s", histogram)]);
    let labels = r#"otel_scope_name="lib",otel_scope_version="1.0""#;
    let (trace, span) = ("01".repeat(16), "02".repeat(8));
    assert_eq!(
        shown(style(), &bytes, Format::OpenMetrics)[2..],
        [
            format!(r#"latency_seconds_bucket{{{labels},le="0.5"}} 1"#),
            format!(
                r#"latency_seconds_bucket{{{labels},le="1.0"}} 2 # {{trace_id="{trace}",span_id="{span}"}} 0.7 1.500"#
            ),
            format!(r#"latency_seconds_bucket{{{labels},le="+Inf"}} 3"#),
            format!("latency_seconds_sum{{{labels}}} 2.25"),
            format!("latency_seconds_count{{{labels}}} 3"),
        ]
    );
    assert_eq!(shown(style(), &bytes, Format::Text)[3], format!(r#"latency_seconds_bucket{{{labels},le="1"}} 2"#));
}

#[test]
fn openmetrics_names_counters_without_their_ending() {
    let bytes = request(&[], vec![("calls", "1", sum(CUMULATIVE, true, vec![number(7, 5, &[])]))]);
    let lines = shown(style(), &bytes, Format::OpenMetrics);
    assert_eq!(lines[1], "# TYPE calls counter");
    assert_eq!(lines[2], r#"calls_total{otel_scope_name="lib",otel_scope_version="1.0"} 7.0"#);
    let lines = shown(Style { with_suffixes: false, ..style() }, &bytes, Format::OpenMetrics);
    assert_eq!(lines[1], "# TYPE calls unknown");
}

#[test]
fn differences_are_added_up_and_older_points_change_nothing() {
    let calls = |temporality, value, at| {
        request(&[], vec![("calls", "", sum(temporality, true, vec![number(value, at, &[])]))])
    };
    let mut board = Board::new(style(), Budget::default());
    [calls(DELTA, 3, 1), calls(DELTA, 4, 2)].iter().for_each(|request| board.take(request, 0));
    assert!(page(&board, Format::Text)[2].ends_with(" 7"));
    let mut board = Board::new(style(), Budget::default());
    [calls(CUMULATIVE, 9, 5), calls(CUMULATIVE, 4, 2)].iter().for_each(|request| board.take(request, 0));
    assert!(page(&board, Format::Text)[2].ends_with(" 9"));
}

#[test]
fn summaries_are_shown_by_quantile() {
    let point = SummaryDataPoint {
        count: 4,
        sum: 10.0,
        quantile_values: vec![ValueAtQuantile { quantile: 0.5, value: 2.5 }],
        ..Default::default()
    };
    let bytes = request(&[], vec![("s", "", Kinds::Summary(Summary { data_points: vec![point] }))]);
    let lines = shown(style(), &bytes, Format::Text);
    assert_eq!(lines[2], r#"s{otel_scope_name="lib",otel_scope_version="1.0",quantile="0.5"} 2.5"#);
    assert!(lines[4].starts_with("s_count") && lines[4].ends_with(" 4"));
}

#[test]
fn what_cannot_be_shown_is_counted_by_reason() {
    let exponential = ExponentialHistogram {
        data_points: vec![ExponentialHistogramDataPoint::default()],
        aggregation_temporality: 2,
    };
    let bytes = request(
        &[],
        vec![
            ("e", "", Kinds::ExponentialHistogram(exponential)),
            ("d", "", sum(DELTA, false, vec![number(1, 1, &[])])),
            ("x.total", "", sum(CUMULATIVE, true, vec![number(1, 1, &[])])),
            ("x_total", "", Kinds::Gauge(Gauge { data_points: vec![number(1, 1, &[])] })),
            (
                "long",
                "",
                Kinds::Gauge(Gauge { data_points: vec![number(1, 1, &[("k", &"v".repeat(LABELS_BYTES_MAX))])] }),
            ),
        ],
    );
    let mut board = Board::new(style(), Budget::default());
    board.take(&bytes, 0);
    assert_eq!(board.left_out().values().copied().collect::<Vec<_>>(), [1, 1, 1, 1]);
    assert_eq!(board.series(), 1);
}

fn gauges(count: usize) -> Vec<u8> {
    let value = |index: usize| format!("{index:05}");
    let points = (0..count).map(|index| number(index as i64, 1, &[("k", &value(index))])).collect();
    request(&[], vec![("a", "", Kinds::Gauge(Gauge { data_points: points }))])
}

#[test]
fn what_memory_does_not_suffice_for_is_left_out_and_counted() {
    let memory = crate::forward::Memory { shown_bytes: 20_000, ..crate::forward::Memory::default() };
    let mut board = Board::new(style(), Budget::new(memory));
    board.take(&gauges(1_000), 0);
    let shown = board.series();
    assert!((10..200).contains(&shown), "{shown}");
    assert_eq!(board.left_out().get(&LeftOut::Memory), Some(&(1_000 - shown as u64)));
    // What goes makes room for as much.
    board.expire(300_001);
    assert_eq!(board.series(), 0);
    board.take(&gauges(shown), 300_001);
    assert_eq!(board.series(), shown);
}

#[test]
fn a_large_family_is_written_in_parts_and_each_series_once() {
    let mut board = Board::new(style(), Budget::default());
    board.take(&gauges(1_000), 0);
    let (text, _) = board.text_from(&Place::default(), Format::Text).unwrap();
    assert_eq!(text.lines().count(), 2 + SERIES_PER_PART);
    let lines = page(&board, Format::Text);
    assert_eq!(lines.len(), 2 + 1_000);
    for (index, line) in lines[2..].iter().enumerate() {
        assert!(line.contains(&format!("k=\"{index:05}\"")) && line.ends_with(&format!(" {index}")), "{line}");
    }
}

#[test]
fn series_go_when_nothing_comes_or_their_end_is_told() {
    let mut board = Board::new(style(), Budget::default());
    board.take(&request(&[], vec![("a", "", Kinds::Gauge(Gauge { data_points: vec![number(1, 1, &[])] }))]), 0);
    board.take(&request(&[], vec![("b", "", Kinds::Gauge(Gauge { data_points: vec![number(1, 1, &[])] }))]), 10);
    board.expire(300_005);
    assert_eq!(board.series(), 1);
    assert!(page(&board, Format::Text)[0].starts_with("# HELP b "));
    let end = NumberDataPoint { flags: 1, ..number(0, 2, &[]) };
    board.take(&request(&[], vec![("b", "", Kinds::Gauge(Gauge { data_points: vec![end] }))]), 20);
    assert_eq!(board.series(), 0);
}

proptest! {
    #[test]
    fn any_bytes_are_taken_without_panic(bytes: Vec<u8>) {
        let mut board = Board::new(style(), Budget::default());
        board.take(&bytes, 0);
        prop_assert!(board.series() <= bytes.len());
    }

    #[test]
    fn damaged_requests_are_taken_without_panic(noise: Vec<u8>, at: prop::sample::Index) {
        let mut bytes = request(&[("service.name", "s")], vec![("a", "s", sum(DELTA, true, vec![number(1, 1, &[("k", "v")])]))]);
        let at = at.index(bytes.len());
        bytes.splice(at..at, noise);
        let mut board = Board::new(style(), Budget::default());
        board.take(&bytes, 0);
        let _ = page(&board, Format::OpenMetrics);
    }
}

/// One line of these would cost Prometheus the whole page.
#[test]
fn points_that_prometheus_would_refuse_are_left_out_alone() {
    let gauge = |labels: &[(&str, &str)]| Kinds::Gauge(Gauge { data_points: vec![number(1, 5, labels)] });
    let histogram = |labels: &[(&str, &str)]| {
        let point = HistogramDataPoint { attributes: attributes_of(labels), count: 1, ..Default::default() };
        Kinds::Histogram(Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE })
    };
    let summary = |labels: &[(&str, &str)]| {
        let point = SummaryDataPoint { attributes: attributes_of(labels), count: 1, ..Default::default() };
        Kinds::Summary(Summary { data_points: vec![point] })
    };
    let bad = vec![
        ("", "", gauge(&[])),
        ("a", "", gauge(&[("", "x")])),
        ("b", "", gauge(&[("__name__", "x")])),
        ("c", "", histogram(&[("le", "x")])),
        ("d", "", summary(&[("quantile", "x")])),
    ];
    let good = vec![("e", "", gauge(&[("le", "x"), ("quantile", "y")])), ("f", "", histogram(&[("quantile", "x")]))];
    let resource = [("service.name", "shop"), ("", "x"), ("__name__", "y"), ("host.name", "h")];
    let mut board = Board::new(style(), Budget::default());
    board.take(&request(&resource, bad), 0);
    assert_eq!(board.left_out(), &BTreeMap::from([(LeftOut::Invalid, 5)]));
    board.take(&request(&resource, good), 0);
    assert_eq!(board.left_out().values().sum::<u64>(), 5);
    let lines = page(&board, Format::OpenMetrics).join("\n");
    assert!(lines.contains(r#"target_info{host_name="h",job="shop"} 1"#), "{lines}");
    assert!(lines.contains("\ne{") && lines.contains("\nf_bucket{"), "{lines}");
    assert!(!lines.contains("__name__") && !lines.contains("{=") && !lines.contains(",="), "{lines}");
}
