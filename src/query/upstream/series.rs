//! Series as a Tempo answers them: JSON, whatever is accepted.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::decode::Unread;
use crate::traceql::answer::{Exemplar, Inspected, MetricsAnswer, Sample, Series};
use crate::traceql::ast::{FirstStage, Metrics, OverTime, Query, Root};
use crate::traceql::control::Booked;
use crate::traceql::value::Value;

/// Whether a series of this query has a zero where it has nothing: what comes behind a first stage leaves samples out.
pub fn fills_with_zero(query: &Query) -> bool {
    let Root::Metrics(Metrics::Series { first: FirstStage::Over { function, .. }, .. }) = &query.root else {
        return false;
    };
    matches!(function, OverTime::Rate | OverTime::Count | OverTime::Quantile(..) | OverTime::Histogram(_))
}

/// `QueryRangeResponse` and `QueryInstantResponse`, as far as they are alike. Series stand as they came, and are read one
/// by one.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response<'a> {
    #[serde(borrow)]
    series: Vec<&'a RawValue>,
    metrics: WireMetrics,
    status: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSeries<'a> {
    #[serde(borrow)]
    labels: Vec<&'a RawValue>,
    samples: Vec<WireSample>,
    #[serde(borrow)]
    exemplars: Vec<&'a RawValue>,
    /// Of an instant query.
    value: Number,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSample {
    timestamp_ms: Whole,
    value: Number,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireExemplar<'a> {
    #[serde(borrow)]
    labels: Vec<&'a RawValue>,
    value: Number,
    timestamp_ms: Whole,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireMetrics {
    inspected_traces: u64,
    inspected_bytes: Whole,
    inspected_spans: Whole,
    completed_jobs: u64,
    total_jobs: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeyValue {
    key: String,
    value: AnyValue,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AnyValue {
    string_value: Option<String>,
    int_value: Option<Whole>,
    double_value: Option<Number>,
    bool_value: Option<bool>,
    array_value: Option<ArrayValue>,
}

/// Of scalars: labels have no others.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ArrayValue {
    values: Vec<ScalarValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ScalarValue {
    string_value: Option<String>,
    int_value: Option<Whole>,
    double_value: Option<Number>,
    bool_value: Option<bool>,
}

/// 64 bits, which jsonpb writes as a string.
#[derive(Debug, Clone, Copy, Default)]
struct Whole(i64);

/// A double; what is no number of JSON is a string.
#[derive(Debug, Clone, Copy, Default)]
struct Number(f64);

impl Whole {
    fn count(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText).map(|number| match number {
            Read::Whole(whole) => Self(whole),
            Read::Float(_) => Self(0),
            Read::Text(_, whole) => Self(whole),
        })
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText).map(|number| match number {
            Read::Whole(whole) => Self(whole as f64),
            Read::Float(float) | Read::Text(float, _) => Self(float),
        })
    }
}

/// A number as it stands, without a text of it being made.
enum Read {
    Whole(i64),
    Float(f64),
    /// As a double and as a whole number; NaN and 0 where it is none.
    Text(f64, i64),
}

struct NumberOrText;

impl Visitor<'_> for NumberOrText {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a string with one")
    }

    fn visit_i64<E>(self, whole: i64) -> Result<Read, E> {
        Ok(Read::Whole(whole))
    }

    fn visit_u64<E>(self, whole: u64) -> Result<Read, E> {
        Ok(i64::try_from(whole).map_or(Read::Float(whole as f64), Read::Whole))
    }

    fn visit_f64<E>(self, float: f64) -> Result<Read, E> {
        Ok(Read::Float(float))
    }

    fn visit_str<E>(self, text: &str) -> Result<Read, E> {
        Ok(Read::Text(text.parse().unwrap_or(f64::NAN), text.parse().unwrap_or(0)))
    }
}

/// What a byte of JSON takes in memory at most while its series is read: a list of objects of two bytes, which doubles as it
/// grows.
const READ_BYTES_PER_BYTE: usize = 2 * size_of::<&RawValue>() / 3 + 1;

/// Series over time.
///
/// # Errors
/// It is no such answer, or there is no memory for it.
pub fn range(json: &[u8], booked: &mut Booked) -> Result<MetricsAnswer, Unread> {
    answer(json, booked, |series| {
        let samples = series.samples.iter();
        samples.map(|sample| Sample { at_ms: sample.timestamp_ms.0, value: sample.value.0 }).collect()
    })
}

/// One value per series, put at `at_ms`.
///
/// # Errors
/// It is no such answer, or there is no memory for it.
pub fn instant(json: &[u8], at_ms: i64, booked: &mut Booked) -> Result<MetricsAnswer, Unread> {
    answer(json, booked, |series| vec![Sample { at_ms, value: series.value.0 }])
}

fn answer(
    json: &[u8],
    booked: &mut Booked,
    samples: impl Fn(&WireSeries<'_>) -> Vec<Sample>,
) -> Result<MetricsAnswer, Unread> {
    // Where each series stands: there are no more than objects.
    let objects = json.iter().filter(|byte| **byte == b'{').count();
    booked.grow(2 * objects * size_of::<&RawValue>())?;
    let response: Response<'_> = serde_json::from_slice(json)?;
    booked.grow(response.series.len() * size_of::<Series>())?;
    let mut all = Vec::with_capacity(response.series.len());
    for raw in response.series {
        let passing = raw.get().len() * READ_BYTES_PER_BYTE;
        booked.grow(passing)?;
        let wire: WireSeries<'_> = serde_json::from_str(raw.get())?;
        let mut series =
            Series { samples: samples(&wire), labels: labels(&wire.labels, booked)?, exemplars: Vec::new() };
        for raw in &wire.exemplars {
            let exemplar: WireExemplar<'_> = serde_json::from_str(raw.get())?;
            booked.grow(2 * size_of::<Exemplar>())?;
            series.exemplars.push(Exemplar {
                at_ms: exemplar.timestamp_ms.0,
                value: exemplar.value.0,
                labels: labels(&exemplar.labels, booked)?,
            });
        }
        booked.grow(series.samples.capacity() * size_of::<Sample>())?;
        let held = booked.bytes() - passing;
        booked.shrink_to(held);
        all.push(series);
    }
    let metrics = response.metrics;
    Ok(MetricsAnswer {
        series: all,
        inspected: Inspected {
            traces: metrics.inspected_traces,
            spans: metrics.inspected_spans.count(),
            bytes: metrics.inspected_bytes.count(),
            segments: metrics.total_jobs,
            segments_done: metrics.completed_jobs,
        },
        partial: (response.status == "PARTIAL").then_some(response.message),
    })
}

fn labels(labels: &[&RawValue], booked: &mut Booked) -> Result<Vec<(String, Option<Value>)>, Unread> {
    booked.grow(labels.len() * size_of::<(String, Option<Value>)>())?;
    let mut read = Vec::with_capacity(labels.len());
    for label in labels {
        // One label at a time: what it takes while it is read is some of what its series is given.
        let KeyValue { key, value } = serde_json::from_str(label.get())?;
        let value = self::value(value);
        booked.grow(key.len() + value.as_ref().map_or(0, Value::heap_bytes))?;
        read.push((key, value));
    }
    Ok(read)
}

fn value(value: AnyValue) -> Option<Value> {
    if let Some(array) = value.array_value {
        return Some(Value::Array(array.values.into_iter().filter_map(scalar).collect()));
    }
    let AnyValue { string_value, int_value, double_value, bool_value, .. } = value;
    scalar(ScalarValue { string_value, int_value, double_value, bool_value })
}

fn scalar(value: ScalarValue) -> Option<Value> {
    let text = value.string_value.map(|text| Value::String(text.into()));
    let int = || value.int_value.map(|int| Value::Int(int.0));
    let double = || value.double_value.map(|double| Value::Float(double.0));
    text.or_else(int).or_else(double).or_else(|| value.bool_value.map(Value::Bool))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::query::body::Body;
    use crate::query::encode::json;
    use crate::traceql::control::{Control, Stopped};
    use proptest::prelude::*;

    fn control(bytes_max: usize) -> Control {
        Control::new(Duration::from_secs(3600), bytes_max)
    }

    #[test]
    fn what_is_read_is_memory_of_the_query() {
        let many = |element: &str, count: usize| vec![element; count].join(",");
        let small = control(1 << 20);
        for json in [
            format!("{{\"series\":[{}]}}", many("{}", 100_000)),
            format!("{{\"series\":[{{\"samples\":[{}]}}]}}", many("{}", 100_000)),
            format!("{{\"series\":[{{\"labels\":[{}]}}]}}", many("{}", 100_000)),
            format!("{{\"series\":[{{\"exemplars\":[{}]}}]}}", many("{}", 100_000)),
        ] {
            let mut booked = small.nothing_booked();
            assert!(matches!(range(json.as_bytes(), &mut booked), Err(Unread::Stopped(Stopped::MemoryOver(_)))));
        }
        let json = format!("{{\"series\":[{}]}}", many("{\"samples\":[{},{}]}", 1000));
        assert_eq!(range(json.as_bytes(), &mut small.nothing_booked()).unwrap().series.len(), 1000);
    }

    fn sample(at_ms: i64, value: f64) -> Sample {
        Sample { at_ms, value }
    }

    #[test]
    fn what_is_written_here_is_read_back() {
        let array = Value::Array([Value::Int(1), Value::from("x")].into());
        let labels = vec![
            ("resource.service.name".to_owned(), Some(Value::from("shop"))),
            ("p".to_owned(), Some(Value::Float(0.5))),
            ("span.port".to_owned(), Some(Value::Int(-1))),
            ("span.ok".to_owned(), Some(Value::Bool(false))),
            ("span.list".to_owned(), Some(array)),
        ];
        let exemplar =
            Exemplar { labels: vec![("trace:id".to_owned(), Some(Value::from("ab")))], at_ms: 7, value: 0.25 };
        let series =
            Series { labels, samples: vec![sample(1000, 0.0), sample(2000, f64::INFINITY)], exemplars: vec![exemplar] };
        let inspected = Inspected { traces: 1, spans: 2, bytes: 3, segments: 5, segments_done: 4 };
        let answer = MetricsAnswer { series: vec![series], inspected, partial: Some("cut".to_owned()) };
        let written = |write: fn(&mut Body, &MetricsAnswer)| {
            let mut body = Body::unbounded();
            write(&mut body, &answer);
            body.whole()
        };
        let mut booked = control(usize::MAX).nothing_booked();
        assert_eq!(range(&written(json::range), &mut booked).unwrap(), answer);
        let read = instant(&written(json::instant), 1000, &mut booked).unwrap();
        assert_eq!(read.series[0].samples, [sample(1000, 0.0)]);
        assert_eq!(read.series[0].labels, answer.series[0].labels);
    }

    #[test]
    fn a_value_that_is_no_number_is_nan() {
        let json = br#"{"series":[{"samples":[{"timestampMs":"5","value":"NaN"}],"unknown":1}]}"#;
        let samples = &range(json, &mut control(usize::MAX).nothing_booked()).unwrap().series[0].samples;
        assert!(samples[0].at_ms == 5 && samples[0].value.is_nan());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut booked = control(usize::MAX).nothing_booked();
            let _ = (range(&bytes, &mut booked), instant(&bytes, 0, &mut booked));
        }
    }
}
