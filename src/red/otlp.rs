//! The series as OTLP: `ExportMetricsServiceRequest`s for pipelines of metrics.

use super::exponential::Exponential;
use super::graph::FAILED;
use super::histogram::{Bounds, Exemplar, Histogram};
use super::labels::Labels;
use super::{Engine, Family, Reading};
use crate::otlp::wire::{put_bytes, put_double_field, put_fixed64, put_header, put_uint, put_varint};
use std::collections::BTreeMap;

/// The scope of what `service_graph` reports.
pub const GRAPH_SCOPE: &str = "traces_service_graph";
/// A request is closed when it is as large as this; destinations take 4 MiB.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// What counts are since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Temporality {
    /// The connector's start.
    #[default]
    Cumulative,
    /// The report before.
    Delta,
}

/// What all points of a report say.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    pub scope: &'a str,
    pub temporality: Temporality,
    /// Unix nanoseconds.
    pub start: u64,
    pub time: u64,
    /// Exemplars of one point, at most.
    pub exemplars_max: usize,
}

/// One request and its data points.
pub type Request = (Vec<u8>, u32);

/// Every series of the engine, in requests of bounded size.
pub fn requests(engine: &Engine, report: &Report<'_>) -> Vec<Request> {
    let mut writer = Writer { report, requests: Vec::new(), by_resource: BTreeMap::new(), bytes: 0, points: 0 };
    for (family, about) in engine.families().enumerate() {
        for slot in 0..engine.slots(family) {
            let Some((labels, reading)) = engine.read(family, slot) else { continue };
            writer.put(labels, reading);
            if writer.bytes > REQUEST_BYTES_MAX {
                writer.end_family(about);
                writer.end_request();
            }
        }
        writer.end_family(about);
    }
    writer.end_request();
    writer.requests
}

/// The request that is being written.
struct Writer<'a> {
    report: &'a Report<'a>,
    requests: Vec<Request>,
    by_resource: BTreeMap<u32, OfResource<'a>>,
    bytes: usize,
    points: u32,
}

struct OfResource<'a> {
    /// A Resource message.
    message: &'a [u8],
    metrics: Vec<u8>,
    /// Points of the family that is being written, each as field 1 of its data message.
    data: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn put(&mut self, labels: Labels<'a>, reading: Reading<'_>) {
        let (number, message) = labels.resource;
        let place = self.by_resource.entry(number).or_insert_with(|| {
            self.bytes += message.len();
            OfResource { message, metrics: Vec::new(), data: Vec::new() }
        });
        let before = place.data.len();
        put_point(&mut place.data, labels, reading, self.report);
        self.bytes += place.data.len() - before;
        self.points += 1;
    }

    fn end_family(&mut self, about: &Family) {
        for place in self.by_resource.values_mut().filter(|place| !place.data.is_empty()) {
            put_metric(&mut place.metrics, about, &place.data, self.report.temporality);
            place.data.clear();
        }
    }

    fn end_request(&mut self) {
        let by_resource = std::mem::take(&mut self.by_resource);
        let points = std::mem::take(&mut self.points);
        if points == 0 {
            return;
        }
        let mut request = Vec::with_capacity(self.bytes + self.bytes / 8);
        self.bytes = 0;
        for OfResource { message, metrics, .. } in by_resource.values() {
            put_resource_metrics(&mut request, message, self.report.scope, metrics);
        }
        self.requests.push((request, points));
    }
}

fn put_resource_metrics(request: &mut Vec<u8>, resource: &[u8], scope: &str, metrics: &[u8]) {
    let (mut scope_name, mut scope_metrics, mut resource_metrics) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut scope_name, 1, scope.as_bytes());
    put_bytes(&mut scope_metrics, 1, &scope_name);
    scope_metrics.extend_from_slice(metrics);
    // Without attributes where whose metrics these are stands with every point.
    put_bytes(&mut resource_metrics, 1, resource);
    put_bytes(&mut resource_metrics, 2, &scope_metrics);
    put_bytes(request, 1, &resource_metrics);
}

/// `data`: the points, each as field 1 of its data message.
fn put_metric(out: &mut Vec<u8>, family: &Family, data: &[u8], temporality: Temporality) {
    use super::Kind;
    let temporality = match temporality {
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
    };
    let mut message = data.to_vec();
    if family.kind != Kind::Gauge {
        put_uint(&mut message, 2, temporality);
    }
    let number = match family.kind {
        Kind::Gauge => 5,
        Kind::Counter => {
            // It only rises.
            put_uint(&mut message, 3, 1);
            7
        }
        Kind::Histogram => 9,
        Kind::ExponentialHistogram => 10,
    };
    let mut metric = Vec::with_capacity(message.len() + 128);
    put_bytes(&mut metric, 1, family.name.as_bytes());
    put_bytes(&mut metric, 2, family.help.as_bytes());
    put_bytes(&mut metric, 3, family.unit.as_bytes());
    put_bytes(&mut metric, number, &message);
    put_bytes(out, 2, &metric);
}

fn put_point(out: &mut Vec<u8>, labels: Labels<'_>, reading: Reading<'_>, report: &Report<'_>) {
    let mut point = Vec::new();
    // A series that came later, or again, counts from there.
    let born = labels.born_millis.saturating_mul(1_000_000);
    let is_cumulative = report.temporality == Temporality::Cumulative;
    let start = if is_cumulative { report.start.max(born).min(report.time) } else { report.start };
    put_fixed64(&mut point, 2, start);
    put_fixed64(&mut point, 3, report.time);
    let attributes = match reading {
        Reading::Counter(value) | Reading::Gauge(value) => {
            put_fixed64(&mut point, 6, value);
            7
        }
        Reading::Histogram(histogram, bounds) => {
            put_histogram(&mut point, histogram, bounds, report.exemplars_max);
            9
        }
        Reading::Exponential(histogram) => {
            put_exponential(&mut point, histogram, report.exemplars_max);
            1
        }
    };
    for (name, value) in labels.iter() {
        // The one label that is no attribute's name.
        let name = if labels.is_overflow { "otel.metric.overflow" } else { &*name };
        let is_flag = labels.is_overflow || (name == FAILED && report.scope == GRAPH_SCOPE);
        put_attribute(&mut point, attributes, name, &value, is_flag);
    }
    put_bytes(out, 1, &point);
}

fn put_histogram(point: &mut Vec<u8>, histogram: &Histogram, bounds: &Bounds, exemplars_max: usize) {
    put_fixed64(point, 4, histogram.count());
    put_double_field(point, 5, histogram.sum);
    put_header(point, 6, histogram.counts.len() * 8);
    histogram.counts.iter().for_each(|count| point.extend_from_slice(&count.to_le_bytes()));
    put_header(point, 7, bounds.values.len() * 8);
    bounds.values.iter().for_each(|bound| point.extend_from_slice(&bound.to_le_bytes()));
    for exemplar in histogram.exemplars.iter().take(exemplars_max) {
        put_exemplar(point, 8, exemplar);
    }
}

fn put_exponential(point: &mut Vec<u8>, histogram: &Exponential, exemplars_max: usize) {
    let zigzag = |value: i32| u64::from((value << 1 ^ value >> 31) as u32);
    put_fixed64(point, 4, histogram.count);
    put_double_field(point, 5, histogram.sum);
    // Of zeros alone the scale says nothing.
    let scale = if histogram.zeros == histogram.count { 0 } else { histogram.scale };
    put_uint(point, 6, zigzag(scale));
    put_fixed64(point, 7, histogram.zeros);
    let (mut buckets, mut counts) = (Vec::new(), Vec::with_capacity(histogram.counts.len()));
    histogram.counts.iter().for_each(|count| put_varint(&mut counts, *count));
    put_uint(&mut buckets, 1, zigzag(histogram.offset));
    put_bytes(&mut buckets, 2, &counts);
    put_bytes(point, 8, &buckets);
    for exemplar in histogram.exemplars.iter().take(exemplars_max) {
        put_exemplar(point, 11, exemplar);
    }
    if histogram.count > 0 {
        put_double_field(point, 12, histogram.min);
        put_double_field(point, 13, histogram.max);
    }
}

fn put_exemplar(point: &mut Vec<u8>, number: u32, exemplar: &Exemplar) {
    let mut message = Vec::with_capacity(48);
    put_fixed64(&mut message, 2, exemplar.unix_millis * 1_000_000);
    put_double_field(&mut message, 3, exemplar.value);
    put_bytes(&mut message, 4, &exemplar.span_id);
    put_bytes(&mut message, 5, &exemplar.trace_id);
    put_bytes(point, number, &message);
}

/// A text, or a boolean.
fn put_attribute(point: &mut Vec<u8>, number: u32, name: &str, value: &str, is_flag: bool) {
    let (mut any, mut attribute) = (Vec::new(), Vec::new());
    match is_flag {
        true => put_uint(&mut any, 2, u64::from(value == "true")),
        false => put_bytes(&mut any, 1, value.as_bytes()),
    }
    put_bytes(&mut attribute, 1, name.as_bytes());
    put_bytes(&mut attribute, 2, &any);
    put_bytes(point, number, &attribute);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::red::tests::{at, sent_by, span, tempo};
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::metrics::v1::number_data_point;
    use prost::Message;

    const REPORT: Report<'_> = Report {
        scope: "s",
        temporality: Temporality::Cumulative,
        start: 1_600_000_000_000_000_000,
        time: 1_800_000_000_000_000_000,
        exemplars_max: 5,
    };

    #[test]
    fn a_report_says_what_the_series_say() {
        let mut engine = tempo();
        engine.observe(&sent_by("shop", vec![span(2, 1, 0, 3), span(2, 1, 0, 900)]), at(0));
        let requests = requests(&engine, &REPORT);
        let (bytes, points) = &requests[0];
        let decoded = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!((requests.len(), *points), (1, 7));
        let scope = &decoded.resource_metrics[0].scope_metrics[0];
        assert_eq!(scope.scope.as_ref().unwrap().name, "s");
        let [calls, latency, ..] = &scope.metrics[..] else { panic!("{scope:?}") };
        let Some(Data::Sum(sum)) = &calls.data else { panic!("{calls:?}") };
        assert_eq!(
            (calls.name.as_str(), sum.is_monotonic, sum.aggregation_temporality),
            ("traces_spanmetrics_calls", true, 2)
        );
        let point = &sum.data_points[0];
        // The series began with its first span, not with the counting.
        assert_eq!(point.start_time_unix_nano, at(0).unix_millis * 1_000_000);
        assert_eq!(point.time_unix_nano, REPORT.time);
        assert_eq!(point.value, Some(number_data_point::Value::AsInt(2)));
        let Some(Value::StringValue(service)) = &point.attributes[0].value.as_ref().unwrap().value else { panic!() };
        assert_eq!((point.attributes[0].key.as_str(), service.as_str()), ("service", "shop"));
        let Some(Data::Histogram(histogram)) = &latency.data else { panic!("{latency:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (2, Some(0.903)));
        assert_eq!((point.bucket_counts.len(), point.explicit_bounds.len()), (15, 14));
        assert_eq!((point.bucket_counts[1], point.bucket_counts[9]), (1, 1));
        assert_eq!(point.exemplars[0].trace_id, [1; 16]);
    }

    #[test]
    fn much_is_reported_in_several_requests() {
        let mut engine = tempo();
        let names = |span_number: u64| format!("{span_number}{}", "x".repeat(400));
        let spans = (0..1_999).map(|number| crate::red::tests::named(span(1, 1, 0, 1), &names(number))).collect();
        engine.observe(&sent_by("shop", spans), at(0));
        let requests = requests(&engine, &REPORT);
        assert!(requests.len() > 1);
        assert!(requests.iter().all(|(bytes, _)| bytes.len() < REQUEST_BYTES_MAX + 8 * 1024));
        assert_eq!(requests.iter().map(|(_, points)| *points).sum::<u32>(), 3 * 1_999);
        for (bytes, points) in requests {
            let decoded = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
            let metrics = &decoded.resource_metrics[0].scope_metrics[0].metrics;
            let counted = metrics.iter().map(|metric| match &metric.data {
                Some(Data::Sum(sum)) => sum.data_points.len(),
                Some(Data::Histogram(histogram)) => histogram.data_points.len(),
                other => panic!("{other:?}"),
            });
            assert_eq!(counted.sum::<usize>(), points as usize);
        }
    }
}
