//! The data points of an `ExportMetricsServiceRequest`, read in place.

use crate::otlp::plain::{Value, attributes};
use crate::otlp::view::messages;
use crate::otlp::wire::{Fields, Payload};

/// Where points come from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin<'a> {
    /// The Resource message.
    pub resource: &'a [u8],
    pub scope_name: &'a [u8],
    pub scope_version: &'a [u8],
}

/// A metric's own fields.
#[derive(Debug, Clone, Copy)]
pub struct Metric<'a> {
    pub name: &'a [u8],
    pub description: &'a [u8],
    pub unit: &'a [u8],
    pub kind: MetricKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Gauge,
    Sum { is_monotonic: bool, is_delta: bool },
    Histogram { is_delta: bool },
    ExponentialHistogram,
    Summary,
}

/// One data point; fields of other kinds of metrics are empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Point<'a> {
    /// The message, for its attributes (field 7, or 9 of histograms).
    pub message: &'a [u8],
    pub time: u64,
    pub value: f64,
    /// There was nothing to report: the series ended.
    pub has_no_value: bool,
    pub count: u64,
    pub sum: f64,
    pub bucket_counts: Vec<u64>,
    pub bounds: Vec<f64>,
    /// Of a summary: quantile and value.
    pub quantiles: Vec<(f64, f64)>,
    pub exemplar: Option<Exemplar>,
}

/// The last exemplar of a point.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Exemplar {
    pub time: u64,
    pub value: f64,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

/// Calls `look` for each data point.
pub fn for_each_point<'a>(request: &'a [u8], mut look: impl FnMut(&Origin<'a>, &Metric<'a>, Point<'a>)) {
    for resource_metrics in messages(request, 1) {
        let resource = messages(resource_metrics, 1).last().unwrap_or_default();
        for scope_metrics in messages(resource_metrics, 2) {
            let scope = messages(scope_metrics, 1).last().unwrap_or_default();
            let origin = Origin {
                resource,
                scope_name: messages(scope, 1).last().unwrap_or_default(),
                scope_version: messages(scope, 2).last().unwrap_or_default(),
            };
            for metric in messages(scope_metrics, 2) {
                read_metric(metric, |metric, point| look(&origin, metric, point));
            }
        }
    }
}

fn read_metric<'a>(message: &'a [u8], mut look: impl FnMut(&Metric<'a>, Point<'a>)) {
    let mut metric = Metric { name: b"", description: b"", unit: b"", kind: MetricKind::Gauge };
    let mut data = None;
    for field in Fields::new(message).map_while(Result::ok) {
        match (field.number, field.payload) {
            (1, Payload::Bytes(name)) => metric.name = name,
            (2, Payload::Bytes(description)) => metric.description = description,
            (3, Payload::Bytes(unit)) => metric.unit = unit,
            (number @ (5 | 7 | 9 | 10 | 11), Payload::Bytes(bytes)) => data = Some((number, bytes)),
            _ => {}
        }
    }
    let Some((number, data)) = data else { return };
    let (mut is_delta, mut is_monotonic) = (false, false);
    for field in Fields::new(data).map_while(Result::ok) {
        match (field.number, field.payload) {
            (2, Payload::Varint(temporality)) => is_delta = temporality == 1,
            (3, Payload::Varint(monotonic)) => is_monotonic = monotonic != 0,
            _ => {}
        }
    }
    metric.kind = match number {
        5 => MetricKind::Gauge,
        7 => MetricKind::Sum { is_monotonic, is_delta },
        9 => MetricKind::Histogram { is_delta },
        10 => MetricKind::ExponentialHistogram,
        _ => MetricKind::Summary,
    };
    for point in messages(data, 1) {
        let point = match number {
            9 => histogram_point(point),
            10 => Point { message: point, ..Point::default() },
            11 => summary_point(point),
            _ => number_point(point),
        };
        look(&metric, point);
    }
}

fn number_point(message: &[u8]) -> Point<'_> {
    let mut point = Point { message, ..Point::default() };
    for field in Fields::new(message).map_while(Result::ok) {
        match (field.number, field.payload) {
            (3, Payload::Fixed64(time)) => point.time = time,
            (4, Payload::Fixed64(bits)) => point.value = f64::from_bits(bits),
            (6, Payload::Fixed64(int)) => point.value = int as i64 as f64,
            (5, Payload::Bytes(exemplar)) => point.exemplar = Some(read_exemplar(exemplar)),
            (8, Payload::Varint(flags)) => point.has_no_value = flags & 1 == 1,
            _ => {}
        }
    }
    point
}

fn histogram_point(message: &[u8]) -> Point<'_> {
    let mut point = Point { message, ..Point::default() };
    let eights =
        |packed: &[u8]| packed.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect::<Vec<_>>();
    for field in Fields::new(message).map_while(Result::ok) {
        match (field.number, field.payload) {
            (3, Payload::Fixed64(time)) => point.time = time,
            (4, Payload::Fixed64(count)) => point.count = count,
            (5, Payload::Fixed64(bits)) => point.sum = f64::from_bits(bits),
            (6, Payload::Bytes(packed)) => point.bucket_counts.extend(eights(packed)),
            (6, Payload::Fixed64(count)) => point.bucket_counts.push(count),
            (7, Payload::Bytes(packed)) => point.bounds.extend(eights(packed).into_iter().map(f64::from_bits)),
            (7, Payload::Fixed64(bits)) => point.bounds.push(f64::from_bits(bits)),
            (8, Payload::Bytes(exemplar)) => point.exemplar = Some(read_exemplar(exemplar)),
            (10, Payload::Varint(flags)) => point.has_no_value = flags & 1 == 1,
            _ => {}
        }
    }
    point
}

fn summary_point(message: &[u8]) -> Point<'_> {
    let mut point = Point { message, ..Point::default() };
    for field in Fields::new(message).map_while(Result::ok) {
        match (field.number, field.payload) {
            (3, Payload::Fixed64(time)) => point.time = time,
            (4, Payload::Fixed64(count)) => point.count = count,
            (5, Payload::Fixed64(bits)) => point.sum = f64::from_bits(bits),
            (6, Payload::Bytes(pair)) => {
                let (mut quantile, mut value) = (0.0, 0.0);
                for field in Fields::new(pair).map_while(Result::ok) {
                    match (field.number, field.payload) {
                        (1, Payload::Fixed64(bits)) => quantile = f64::from_bits(bits),
                        (2, Payload::Fixed64(bits)) => value = f64::from_bits(bits),
                        _ => {}
                    }
                }
                point.quantiles.push((quantile, value));
            }
            (8, Payload::Varint(flags)) => point.has_no_value = flags & 1 == 1,
            _ => {}
        }
    }
    point
}

fn read_exemplar(message: &[u8]) -> Exemplar {
    let mut exemplar = Exemplar::default();
    for field in Fields::new(message).map_while(Result::ok) {
        match (field.number, field.payload) {
            (2, Payload::Fixed64(time)) => exemplar.time = time,
            (3, Payload::Fixed64(bits)) => exemplar.value = f64::from_bits(bits),
            (6, Payload::Fixed64(int)) => exemplar.value = int as i64 as f64,
            (4, Payload::Bytes(id)) => exemplar.span_id = id.try_into().unwrap_or_default(),
            (5, Payload::Bytes(id)) => exemplar.trace_id = id.try_into().unwrap_or_default(),
            _ => {}
        }
    }
    exemplar
}

/// The attributes of a point.
pub fn point_attributes<'a>(
    kind: MetricKind,
    point: &Point<'a>,
) -> impl Iterator<Item = (&'a [u8], Option<Value<'a>>)> + use<'a> {
    let number = match kind {
        MetricKind::Histogram { .. } => 9,
        MetricKind::ExponentialHistogram => 1,
        _ => 7,
    };
    attributes(point.message, number)
}
