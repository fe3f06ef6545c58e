//! Series as a Tempo answers them: JSON, whatever is accepted.

use serde::Deserialize;

use crate::traceql::answer::{Exemplar, Inspected, MetricsAnswer, Sample, Series};
use crate::traceql::ast::{FirstStage, Metrics, OverTime, Query, Root};
use crate::traceql::value::Value;

/// Whether a series of this query has a zero where it has nothing: what comes behind a first stage leaves samples out.
pub fn fills_with_zero(query: &Query) -> bool {
    let Root::Metrics(Metrics::Series { first: FirstStage::Over { function, .. }, .. }) = &query.root else {
        return false;
    };
    matches!(function, OverTime::Rate | OverTime::Count | OverTime::Quantile(..) | OverTime::Histogram(_))
}

/// `QueryRangeResponse` and `QueryInstantResponse`, as far as they are alike.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    series: Vec<WireSeries>,
    metrics: WireMetrics,
    status: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSeries {
    labels: Vec<KeyValue>,
    samples: Vec<WireSample>,
    exemplars: Vec<WireExemplar>,
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
struct WireExemplar {
    labels: Vec<KeyValue>,
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
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Whole {
    Number(i64),
    Text(String),
}

/// A double; what is no number of JSON is a string.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Number {
    Number(f64),
    Text(String),
}

impl Default for Whole {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Default for Number {
    fn default() -> Self {
        Self::Number(0.0)
    }
}

impl Whole {
    fn get(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.parse().unwrap_or(0),
        }
    }

    fn count(&self) -> u64 {
        u64::try_from(self.get()).unwrap_or(0)
    }
}

impl Number {
    fn get(&self) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.parse().unwrap_or(f64::NAN),
        }
    }
}

/// Series over time.
///
/// # Errors
/// It is no such answer.
pub fn range(json: &[u8]) -> Result<MetricsAnswer, serde_json::Error> {
    answer(json, |series| {
        series
            .samples
            .iter()
            .map(|sample| Sample { at_ms: sample.timestamp_ms.get(), value: sample.value.get() })
            .collect()
    })
}

/// One value per series, put at `at_ms`.
///
/// # Errors
/// It is no such answer.
pub fn instant(json: &[u8], at_ms: i64) -> Result<MetricsAnswer, serde_json::Error> {
    answer(json, |series| vec![Sample { at_ms, value: series.value.get() }])
}

fn answer(json: &[u8], samples: impl Fn(&WireSeries) -> Vec<Sample>) -> Result<MetricsAnswer, serde_json::Error> {
    let response: Response = serde_json::from_slice(json)?;
    let series = response.series.into_iter().map(|series| Series {
        samples: samples(&series),
        labels: labels(series.labels),
        exemplars: series
            .exemplars
            .into_iter()
            .map(|exemplar| Exemplar {
                at_ms: exemplar.timestamp_ms.get(),
                value: exemplar.value.get(),
                labels: labels(exemplar.labels),
            })
            .collect(),
    });
    let metrics = response.metrics;
    Ok(MetricsAnswer {
        series: series.collect(),
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

fn labels(labels: Vec<KeyValue>) -> Vec<(String, Option<Value>)> {
    labels.into_iter().map(|label| (label.key, value(label.value))).collect()
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
    let int = || value.int_value.map(|int| Value::Int(int.get()));
    let double = || value.double_value.map(|double| Value::Float(double.get()));
    text.or_else(int).or_else(double).or_else(|| value.bool_value.map(Value::Bool))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::encode::json;
    use proptest::prelude::*;

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
        assert_eq!(range(&json::range(&answer)).unwrap(), answer);
        let read = instant(&json::instant(&answer), 1000).unwrap();
        assert_eq!(read.series[0].samples, [sample(1000, 0.0)]);
        assert_eq!(read.series[0].labels, answer.series[0].labels);
    }

    #[test]
    fn a_value_that_is_no_number_is_nan() {
        let json = br#"{"series":[{"samples":[{"timestampMs":"5","value":"NaN"}],"unknown":1}]}"#;
        let samples = &range(json).unwrap().series[0].samples;
        assert!(samples[0].at_ms == 5 && samples[0].value.is_nan());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (range(&bytes), instant(&bytes, 0));
        }
    }
}
