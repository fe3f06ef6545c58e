//! Histograms: with fixed buckets and the traces that stand for them, or with buckets that adapt.

use super::Reading;
use super::exponential::Exponential;
use crate::telemetry::text::canonical;
use std::sync::Arc;

/// More buckets than this help nobody and cost every series.
pub const BOUNDS_MAX: usize = 64;

/// The upper bounds of buckets, ascending, without the last one, which has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    pub values: Arc<[f64]>,
    /// As they stand in `le`.
    pub texts: Arc<[String]>,
}

impl Bounds {
    pub fn new(values: &[f64]) -> Self {
        Self { values: values.into(), texts: values.iter().map(|bound| canonical(*bound)).collect() }
    }

    /// `count` bounds, each twice the one before.
    pub fn doubling(first: f64, count: i32) -> Self {
        Self::new(&(0..count).map(|power| first * 2f64.powi(power)).collect::<Vec<_>>())
    }
}

/// A trace that fell into a bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    pub bucket: u8,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub value: f64,
    pub unix_millis: u64,
}

/// How often values fell into which bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// One per bound, and one beyond the last.
    pub counts: Box<[u64]>,
    pub sum: f64,
    /// The latest of each bucket that has any.
    pub exemplars: Vec<Exemplar>,
}

/// What is kept of an observation beside its value.
#[derive(Debug, Clone, Copy)]
pub struct Witness {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub unix_millis: u64,
}

/// How values are grouped.
#[derive(Debug, Clone, PartialEq)]
pub enum Scheme {
    Explicit(Bounds),
    /// So many buckets at most.
    Exponential {
        buckets_max: u32,
    },
}

/// A histogram of either kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Distribution {
    Explicit(Histogram),
    Exponential(Box<Exponential>),
}

impl Distribution {
    pub fn new(scheme: &Scheme) -> Self {
        match scheme {
            Scheme::Explicit(bounds) => Self::Explicit(Histogram::new(bounds)),
            Scheme::Exponential { buckets_max } => Self::Exponential(Box::new(Exponential::new(*buckets_max))),
        }
    }

    /// Counts a value so many times. `scheme` is the one that it was made with.
    #[inline]
    pub fn observe(&mut self, scheme: &Scheme, value: f64, times: u64, witness: Option<Witness>) {
        match (self, scheme) {
            (Self::Explicit(histogram), Scheme::Explicit(bounds)) => histogram.observe(bounds, value, times, witness),
            (Self::Exponential(histogram), _) => histogram.observe(value, times, witness),
            (Self::Explicit(_), Scheme::Exponential { .. }) => debug_assert!(false, "another scheme"),
        }
    }

    pub fn read<'a>(&'a self, scheme: &'a Scheme) -> Option<Reading<'a>> {
        Some(match (self, scheme) {
            (Self::Explicit(histogram), Scheme::Explicit(bounds)) => Reading::Histogram(histogram, bounds),
            (Self::Exponential(histogram), _) => Reading::Exponential(histogram),
            (Self::Explicit(_), Scheme::Exponential { .. }) => return None,
        })
    }

    pub fn count(&self) -> u64 {
        match self {
            Self::Explicit(histogram) => histogram.count(),
            Self::Exponential(histogram) => histogram.count,
        }
    }
}

impl Histogram {
    pub fn new(bounds: &Bounds) -> Self {
        Self { counts: vec![0; bounds.values.len() + 1].into(), sum: 0.0, exemplars: Vec::new() }
    }

    #[inline]
    pub fn observe(&mut self, bounds: &Bounds, value: f64, times: u64, witness: Option<Witness>) {
        let bucket = bounds.values.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(times);
        }
        self.sum += value * times as f64;
        if let Some(Witness { trace_id, span_id, unix_millis }) = witness {
            let bucket = bucket as u8;
            let exemplar = Exemplar { bucket, trace_id, span_id, value, unix_millis };
            match self.exemplars.iter_mut().find(|exemplar| exemplar.bucket == bucket) {
                Some(place) => *place = exemplar,
                // Once per bucket of a series; at most one more than there are bounds.
                None => self.exemplars.push(exemplar),
            }
        }
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0_u64, |total, count| total.saturating_add(*count))
    }

    /// The counts of each bucket with those below it; the last is that of all.
    pub fn cumulative(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().scan(0_u64, |total, count| {
            *total = total.saturating_add(*count);
            Some(*total)
        })
    }

    pub fn exemplar_of(&self, bucket: usize) -> Option<&Exemplar> {
        self.exemplars.iter().find(|exemplar| usize::from(exemplar.bucket) == bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let bounds = Bounds::new(&[1.0, 2.0]);
        let mut histogram = Histogram::new(&bounds);
        [1.0, 1.5, 2.0, 2.5].iter().for_each(|value| histogram.observe(&bounds, *value, 1, None));
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [1, 3, 4]);
    }

    #[test]
    fn tempos_bounds_are_written_as_tempo_writes_them() {
        let latency = Bounds::doubling(0.002, 14);
        assert_eq!(latency.texts.first().unwrap(), "0.002");
        assert_eq!(latency.texts.last().unwrap(), "16.384");
        assert_eq!(*Bounds::doubling(0.1, 8).texts, ["0.1", "0.2", "0.4", "0.8", "1.6", "3.2", "6.4", "12.8"]);
        assert_eq!(canonical(2.0), "2.0");
    }

    proptest! {
        #[test]
        fn every_value_is_counted_where_it_belongs(values in proptest::collection::vec(0.0..20.0, 0..50)) {
            let bounds = Bounds::doubling(0.002, 14);
            let mut histogram = Histogram::new(&bounds);
            for (number, value) in values.iter().enumerate() {
                let witness = Witness { trace_id: [1; 16], span_id: [1; 8], unix_millis: number as u64 };
                histogram.observe(&bounds, *value, 1, Some(witness));
            }
            let expected: Vec<u64> = bounds.values.iter().map(|bound| values.iter().filter(|it| **it <= *bound).count() as u64)
                .chain([values.len() as u64]).collect();
            prop_assert_eq!(histogram.cumulative().collect::<Vec<_>>(), expected);
            prop_assert!((histogram.sum - values.iter().sum::<f64>()).abs() < 1e-9);
            prop_assert_eq!(histogram.exemplars.len(), histogram.counts.iter().filter(|count| **count > 0).count());
        }
    }
}
