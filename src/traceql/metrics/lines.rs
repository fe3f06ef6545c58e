//! Series while they are computed with.

use std::cmp::Ordering;

use super::intervals::{Intervals, NANOS_PER_MILLISECOND};
use crate::traceql::answer::{Exemplar, Sample, Series};
use crate::traceql::keys;
use crate::traceql::value::Value;

pub type Labels = Vec<(String, Option<Value>)>;

/// The label that stands for the function where there is nothing to tell series apart.
pub const NAME_LABEL: &str = "__name__";

/// A series with a number for each interval; NaN where there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub labels: Labels,
    pub numbers: Vec<f64>,
    pub exemplars: Vec<Mark>,
}

/// An exemplar.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub labels: Labels,
    /// Unix nanoseconds.
    pub start: u64,
    /// NaN: that of the series at this time.
    pub value: f64,
}

/// The order in which series are answered: fewer labels first, then by labels.
#[must_use]
pub fn order(labels: &[(String, Option<Value>)], others: &[(String, Option<Value>)]) -> Ordering {
    let by_labels = || {
        let orders = labels.iter().zip(others).map(|((name, value), (other_name, other_value))| {
            name.cmp(other_name).then_with(|| keys::compare(value.as_ref(), other_value.as_ref()))
        });
        orders.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    };
    labels.len().cmp(&others.len()).then_with(by_labels)
}

impl Line {
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        order(&self.labels, &other.labels)
    }

    /// `None` for a series without any sample.
    #[must_use]
    pub fn into_series(self, intervals: &Intervals) -> Option<Series> {
        let present = || self.numbers.iter().enumerate().filter(|(_, number)| !number.is_nan());
        // Not collected: it would grow to twice of what is there.
        let mut samples = Vec::with_capacity(present().count());
        samples
            .extend(present().map(|(interval, value)| Sample { at_ms: intervals.sample_ms(interval), value: *value }));
        if samples.is_empty() {
            return None;
        }
        let exemplar = |mark: Mark| {
            let number = *self.numbers.get(intervals.of(mark.start) as usize)?;
            (!number.is_nan()).then(|| Exemplar {
                labels: mark.labels,
                at_ms: (mark.start / NANOS_PER_MILLISECOND) as i64,
                value: if mark.value.is_nan() { number } else { mark.value },
            })
        };
        let exemplars = self.exemplars.into_iter().filter_map(exemplar).collect();
        Some(Series { labels: self.labels, samples, exemplars })
    }
}
