//! Histograms whose buckets grow with their bounds: base two, at the finest scale at which the values fit.
//!
//! ```text
//! bucket i at scale s: values above 2^(i / 2^s), up to 2^((i + 1) / 2^s)
//! ```
//! A scale less joins two buckets into one, so that a histogram never has more than it may, whatever values come. Buckets and
//! scales are those of OpenTelemetry's data model; values at bounds fall as in the Collector.

use super::histogram::{Exemplar, Witness};
use std::f64::consts::LOG2_E;

/// Where every histogram begins: finer ones tell apart what clocks do not.
const SCALE_MAX: i32 = 20;
/// Exemplars of one series.
const EXEMPLARS_MAX: usize = 16;

/// How often values fell where.
#[derive(Debug, Clone, PartialEq)]
pub struct Exponential {
    pub scale: i32,
    /// The index of the first of `counts`.
    pub offset: i32,
    /// One per bucket, without gaps.
    pub counts: Vec<u64>,
    /// Values of zero; there are none below.
    pub zeros: u64,
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    /// The latest, in no order.
    pub exemplars: Vec<Exemplar>,
    /// Where the next one goes.
    next_exemplar: usize,
    buckets_max: u32,
}

impl Exponential {
    pub fn new(buckets_max: u32) -> Self {
        Self {
            scale: SCALE_MAX,
            offset: 0,
            counts: Vec::new(),
            zeros: 0,
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: 0.0,
            exemplars: Vec::new(),
            next_exemplar: 0,
            buckets_max: buckets_max.max(2),
        }
    }

    /// Counts a value so many times.
    pub fn observe(&mut self, value: f64, times: u64, witness: Option<Witness>) {
        self.count = self.count.saturating_add(times);
        self.sum += value * times as f64;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if value.is_normal() && value > 0.0 {
            let place = self.place(value);
            if let Some(count) = self.counts.get_mut(place) {
                *count = count.saturating_add(times);
            }
        } else {
            self.zeros = self.zeros.saturating_add(times);
        }
        if let Some(Witness { trace_id, span_id, unix_millis }) = witness {
            let exemplar = Exemplar { bucket: 0, trace_id, span_id, value, unix_millis };
            match self.exemplars.get_mut(self.next_exemplar) {
                Some(oldest) => *oldest = exemplar,
                None => self.exemplars.push(exemplar),
            }
            self.next_exemplar = (self.next_exemplar + 1) % EXEMPLARS_MAX;
        }
    }

    /// Where in `counts` the value belongs, for which room is made.
    fn place(&mut self, value: f64) -> usize {
        let mut index = index_of(value, self.scale);
        let Some(behind) = i32::try_from(self.counts.len()).ok().filter(|len| *len > 0) else {
            self.offset = index;
            self.counts.push(0);
            return 0;
        };
        let (mut low, mut high) = (self.offset.min(index), (self.offset + behind - 1).max(index));
        let mut steps = 0;
        while high.abs_diff(low) >= self.buckets_max {
            (low, high) = (low >> 1, high >> 1);
            steps += 1;
        }
        if steps > 0 {
            self.coarsen(steps);
            index >>= steps;
        }
        if index < self.offset {
            let missing = self.offset.abs_diff(index) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.offset = index;
        }
        let place = index.abs_diff(self.offset) as usize;
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        place
    }

    /// Joins `2^steps` buckets into one.
    fn coarsen(&mut self, steps: i32) {
        let offset = self.offset >> steps;
        let mut counts = Vec::new();
        for (index, count) in (self.offset..).zip(&self.counts) {
            let place = (index >> steps).abs_diff(offset) as usize;
            if place >= counts.len() {
                counts.resize(place + 1, 0);
            }
            if let Some(joined) = counts.get_mut(place) {
                *joined = count.saturating_add(*joined);
            }
        }
        (self.scale, self.offset, self.counts) = (self.scale - steps, offset, counts);
    }
}

/// The bucket of a positive, normal value.
fn index_of(value: f64, scale: i32) -> i32 {
    const MANTISSA_BITS: u32 = 52;
    const BIAS: i32 = 1023;
    let bits = value.to_bits();
    let exponent = ((bits >> MANTISSA_BITS) & 0x7ff) as i32 - BIAS;
    // A power of two is the upper bound of its bucket, exactly; logarithms do not say so at every scale.
    let is_power = bits & ((1 << MANTISSA_BITS) - 1) == 0;
    match (scale > 0, is_power) {
        (true, true) => (exponent << scale) - 1,
        (true, false) => (value.ln() * (LOG2_E * f64::from(1u32 << scale))).floor() as i32,
        (false, _) => (exponent - i32::from(is_power)) >> -scale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `2^(index / 2^scale)`.
    fn bound(index: i32, scale: i32) -> f64 {
        (f64::from(index) / 2f64.powi(scale)).exp2()
    }

    #[test]
    fn a_power_of_two_is_an_upper_bound_at_every_scale() {
        for scale in -4..=SCALE_MAX {
            for power in -20..20 {
                let index = index_of(2f64.powi(power), scale);
                let upper = (i64::from(index) + 1) as f64 / 2f64.powi(scale);
                assert!(
                    upper >= f64::from(power) && upper - f64::from(power) < 2f64.powi(-scale),
                    "{power} at {scale}"
                );
            }
        }
    }

    #[test]
    fn zero_and_what_is_no_number_of_size_is_counted_apart() {
        let mut histogram = Exponential::new(160);
        [0.0, -0.0, f64::MIN_POSITIVE / 2.0].iter().for_each(|value| histogram.observe(*value, 1, None));
        assert_eq!((histogram.zeros, histogram.count, histogram.counts.len()), (3, 3, 0));
    }

    #[test]
    fn what_counts_for_more_than_can_be_counted_stays_at_the_most() {
        let mut histogram = Exponential::new(2);
        [1.0, 1e9, 1.0, 1e-3].iter().for_each(|value| histogram.observe(*value, u64::MAX / 2, None));
        assert_eq!(histogram.count, u64::MAX);
        assert!(histogram.counts.contains(&u64::MAX), "{histogram:?}");
    }

    proptest! {
        #[test]
        fn every_value_is_counted_where_it_belongs(
            values in proptest::collection::vec(1e-6..1e9f64, 1..60),
            buckets_max in 2u32..40,
        ) {
            let mut histogram = Exponential::new(buckets_max);
            values.iter().for_each(|value| histogram.observe(*value, 2, None));
            prop_assert!(histogram.counts.len() <= buckets_max as usize);
            prop_assert_eq!(histogram.counts.iter().sum::<u64>(), 2 * values.len() as u64);
            for (index, count) in (histogram.offset..).zip(&histogram.counts) {
                // Next to a bound, arithmetic decides.
                let (low, high) = (bound(index, histogram.scale), bound(index + 1, histogram.scale));
                let near = |value: &f64, bound: f64| (value / bound - 1.0).abs() < 1e-9;
                let sure = values.iter().filter(|it| **it > low && **it <= high && !near(it, low) && !near(it, high));
                let maybe = values.iter().filter(|it| near(it, low) || near(it, high)).count();
                let sure = sure.count();
                prop_assert!((2 * sure..=2 * (sure + maybe)).contains(&(*count as usize)), "{index}: {count}");
            }
            // One scale more would not do, unless it is the finest.
            let all = values.iter().map(|value| index_of(*value, (histogram.scale + 1).min(SCALE_MAX)));
            let (low, high) = (all.clone().min().unwrap(), all.max().unwrap());
            prop_assert!(histogram.scale == SCALE_MAX || high.abs_diff(low) >= buckets_max);
        }
    }
}
