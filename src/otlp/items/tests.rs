use super::*;
use crate::otlp::json::{JsonLimits, message_from_json, message_to_json};
use crate::otlp::split;
use crate::otlp::wire::{put_bytes, put_uint};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    exponential_histogram_data_point::Buckets, metric::Data, number_data_point, summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let value = prop_oneof![
        any::<String>().prop_map(any_value::Value::StringValue),
        any::<i64>().prop_map(any_value::Value::IntValue),
        any::<bool>().prop_map(any_value::Value::BoolValue),
    ];
    let entry = (any::<String>(), option::of(value.prop_map(|value| AnyValue { value: Some(value) })));
    vec(entry.prop_map(|(key, value)| KeyValue { key, value, ..KeyValue::default() }), 0..3)
}

fn double() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("NaN is not equal to itself", |value| !value.is_nan())
}

fn exemplar() -> impl Strategy<Value = Exemplar> {
    let value =
        prop_oneof![double().prop_map(exemplar::Value::AsDouble), any::<i64>().prop_map(exemplar::Value::AsInt),];
    (attributes(), any::<u64>(), option::of(value), prop_oneof![vec(any::<u8>(), 16), Just(Vec::new())]).prop_map(
        |(filtered_attributes, time_unix_nano, value, trace_id)| Exemplar {
            filtered_attributes,
            time_unix_nano,
            span_id: if trace_id.is_empty() { Vec::new() } else { vec![7; 8] },
            trace_id,
            value,
        },
    )
}

fn number() -> impl Strategy<Value = NumberDataPoint> {
    let value = prop_oneof![
        double().prop_map(number_data_point::Value::AsDouble),
        any::<i64>().prop_map(number_data_point::Value::AsInt),
    ];
    (attributes(), any::<[u64; 2]>(), option::of(value), vec(exemplar(), 0..2), any::<u32>()).prop_map(
        |(attributes, times, value, exemplars, flags)| NumberDataPoint {
            attributes,
            start_time_unix_nano: times[0],
            time_unix_nano: times[1],
            exemplars,
            flags,
            value,
        },
    )
}

fn histogram() -> impl Strategy<Value = HistogramDataPoint> {
    let summary = (option::of(double()), option::of(double()), option::of(double()));
    (attributes(), any::<[u64; 3]>(), summary, vec(any::<u64>(), 0..5), vec(double(), 0..5), any::<u32>()).prop_map(
        |(attributes, numbers, (sum, min, max), bucket_counts, explicit_bounds, flags)| HistogramDataPoint {
            attributes,
            start_time_unix_nano: numbers[0],
            time_unix_nano: numbers[1],
            count: numbers[2],
            sum,
            bucket_counts,
            explicit_bounds,
            exemplars: Vec::new(),
            flags,
            min,
            max,
        },
    )
}

fn buckets() -> impl Strategy<Value = Buckets> {
    (any::<i32>(), vec(any::<u64>(), 0..5)).prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts })
}

fn exponential() -> impl Strategy<Value = ExponentialHistogramDataPoint> {
    let sides = (option::of(buckets()), option::of(buckets()));
    (attributes(), any::<[u64; 4]>(), any::<i32>(), sides, option::of(double()), double()).prop_map(
        |(attributes, numbers, scale, (positive, negative), sum, zero_threshold)| ExponentialHistogramDataPoint {
            attributes,
            start_time_unix_nano: numbers[0],
            time_unix_nano: numbers[1],
            count: numbers[2],
            zero_count: numbers[3],
            scale,
            positive,
            negative,
            sum,
            zero_threshold,
            ..ExponentialHistogramDataPoint::default()
        },
    )
}

fn summary() -> impl Strategy<Value = SummaryDataPoint> {
    let quantile = (double(), double()).prop_map(|(quantile, value)| ValueAtQuantile { quantile, value });
    (attributes(), any::<[u64; 3]>(), double(), vec(quantile, 0..3)).prop_map(
        |(attributes, numbers, sum, quantile_values)| SummaryDataPoint {
            attributes,
            start_time_unix_nano: numbers[0],
            time_unix_nano: numbers[1],
            count: numbers[2],
            sum,
            quantile_values,
            flags: 0,
        },
    )
}

fn metric() -> impl Strategy<Value = Metric> {
    let temporality = || 0i32..3;
    let data = prop_oneof![
        vec(number(), 0..3).prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (vec(number(), 0..3), temporality(), any::<bool>()).prop_map(
            |(data_points, aggregation_temporality, is_monotonic)| {
                Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
            }
        ),
        (vec(histogram(), 0..3), temporality()).prop_map(|(data_points, aggregation_temporality)| {
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        }),
        (vec(exponential(), 0..3), temporality()).prop_map(|(data_points, aggregation_temporality)| {
            Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
        }),
        vec(summary(), 0..3).prop_map(|data_points| Data::Summary(Summary { data_points })),
    ];
    (any::<[String; 3]>(), option::of(data), attributes())
        .prop_map(|([name, description, unit], data, metadata)| Metric { name, description, unit, metadata, data })
}

fn metrics_request() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let scope = vec(metric(), 0..3).prop_map(|metrics| ScopeMetrics {
        scope: Some(Default::default()),
        metrics,
        schema_url: String::new(),
    });
    let resource = (attributes(), vec(scope, 0..3)).prop_map(|(attributes, scope_metrics)| ResourceMetrics {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_metrics,
        schema_url: "url".to_owned(),
    });
    vec(resource, 0..3).prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

fn logs_request() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let record = (any::<[u64; 2]>(), 0i32..25, any::<[String; 3]>(), attributes(), any::<[u32; 2]>()).prop_map(
        |(times, severity_number, [severity_text, body, event_name], attributes, numbers)| LogRecord {
            time_unix_nano: times[0],
            observed_time_unix_nano: times[1],
            severity_number,
            severity_text,
            body: Some(AnyValue { value: Some(any_value::Value::StringValue(body)) }),
            attributes,
            dropped_attributes_count: numbers[0],
            flags: numbers[1],
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            event_name,
        },
    );
    let scope = vec(record, 0..4).prop_map(|log_records| ScopeLogs {
        scope: Some(Default::default()),
        log_records,
        schema_url: String::new(),
    });
    let resource = vec(scope, 0..3).prop_map(|scope_logs| ResourceLogs {
        resource: Some(Resource::default()),
        scope_logs,
        schema_url: String::new(),
    });
    vec(resource, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

fn points(request: &ExportMetricsServiceRequest) -> Vec<Vec<u8>> {
    fn bytes<M: prost::Message>(points: &[M]) -> Vec<Vec<u8>> {
        points.iter().map(prost::Message::encode_to_vec).collect()
    }
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let of_metric = |metric: &Metric| match &metric.data {
        None => Vec::new(),
        Some(Data::Gauge(data)) => bytes(&data.data_points),
        Some(Data::Sum(data)) => bytes(&data.data_points),
        Some(Data::Histogram(data)) => bytes(&data.data_points),
        Some(Data::ExponentialHistogram(data)) => bytes(&data.data_points),
        Some(Data::Summary(data)) => bytes(&data.data_points),
    };
    scopes.flat_map(|scope| &scope.metrics).flat_map(of_metric).collect()
}

fn through_json(signal: Signal, request: &[u8]) -> Vec<u8> {
    let json = message_to_json(request_of(signal), request).unwrap();
    message_from_json(request_of(signal), &json, &JsonLimits::for_body(json.len())).unwrap()
}

proptest! {
    #[test]
    fn metrics_come_back_from_json_as_they_went(request in metrics_request()) {
        let back = through_json(Signal::Metrics, &request.encode_to_vec());
        prop_assert_eq!(ExportMetricsServiceRequest::decode(back.as_slice()).unwrap(), request);
    }

    #[test]
    fn logs_come_back_from_json_as_they_went(request in logs_request()) {
        let back = through_json(Signal::Logs, &request.encode_to_vec());
        prop_assert_eq!(ExportLogsServiceRequest::decode(back.as_slice()).unwrap(), request);
    }

    #[test]
    fn data_points_are_counted_and_cut_without_losing_one(request in metrics_request(), at in 0usize..20) {
        let whole = points(&request);
        let bytes = request.encode_to_vec();
        prop_assert_eq!(count(Signal::Metrics, &bytes).unwrap() as usize, whole.len());
        let (left, right) = split::split(Signal::Metrics, &bytes, at).unwrap();
        let side = |bytes: &[u8]| points(&ExportMetricsServiceRequest::decode(bytes).unwrap());
        let (left, right) = (side(&left), side(&right));
        prop_assert_eq!(left.len(), at.min(whole.len()));
        prop_assert_eq!([left, right].concat(), whole);
    }

    #[test]
    fn log_records_are_counted_and_cut_without_losing_one(request in logs_request(), at in 0usize..20) {
        let records = |bytes: &[u8]| -> Vec<LogRecord> {
            let request = ExportLogsServiceRequest::decode(bytes).unwrap();
            let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
            scopes.flat_map(|scope| scope.log_records).collect()
        };
        let bytes = request.encode_to_vec();
        let whole = records(&bytes);
        prop_assert_eq!(count(Signal::Logs, &bytes).unwrap() as usize, whole.len());
        let (left, right) = split::split(Signal::Logs, &bytes, at).unwrap();
        let (left, right) = (records(&left), records(&right));
        prop_assert_eq!(left.len(), at.min(whole.len()));
        prop_assert_eq!([left, right].concat(), whole);
    }

    #[test]
    fn any_bytes_are_counted_or_refused_without_panic(bytes: Vec<u8>) {
        for signal in Signal::ALL {
            let _ = (count(signal, &bytes), message_to_json(request_of(signal), &bytes));
        }
    }
}

/// A request of one log record with these bytes.
fn log_record(record: &[u8]) -> Vec<u8> {
    let (mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut scope, 2, record);
    put_bytes(&mut resource, 2, &scope);
    put_bytes(&mut request, 1, &resource);
    request
}

#[test]
fn what_a_destination_would_refuse_is_refused_at_the_door() {
    let mut short_id = Vec::new();
    put_bytes(&mut short_id, 9, &[1; 15]);
    let error = ScanError::IdLength { message: "LogRecord", field: 9 };
    assert_eq!(count(Signal::Logs, &log_record(&short_id)), Err(error));

    let mut number_in_place_of_text = Vec::new();
    put_uint(&mut number_in_place_of_text, 3, 1);
    let error = ScanError::WireType { message: "LogRecord", field: 3 };
    assert_eq!(count(Signal::Logs, &log_record(&number_in_place_of_text)), Err(error));

    let mut value = Vec::new();
    for _ in 0..=NESTING_MAX {
        let (mut array, mut outer) = (Vec::new(), Vec::new());
        put_bytes(&mut array, 1, &value);
        put_bytes(&mut outer, 5, &array);
        value = outer;
    }
    let mut deep = Vec::new();
    put_bytes(&mut deep, 5, &value);
    assert_eq!(count(Signal::Logs, &log_record(&deep)), Err(ScanError::TooDeep));
}

#[test]
fn numbers_that_stand_one_by_one_are_read_as_well_as_packed_ones() {
    let mut point = Vec::new();
    crate::otlp::wire::put_fixed64(&mut point, 6, 3);
    put_bytes(&mut point, 6, &4u64.to_le_bytes());
    let json = message_to_json(&metrics::HISTOGRAM_DATA_POINT, &point).unwrap();
    assert_eq!(String::from_utf8(json).unwrap(), r#"{"bucketCounts":["3","4"]}"#);
}
