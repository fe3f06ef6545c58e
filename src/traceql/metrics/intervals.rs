//! Time cut into the intervals that samples stand for.

use crate::traceql::request::{InstantRequest, RangeRequest};

/// Intervals of one length, open on the left and closed on the right. Unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intervals {
    /// The first nanosecond of the first interval.
    pub from: u64,
    /// The last nanosecond of the first interval, and the time of its sample.
    first_end: u64,
    /// The last nanosecond of the last interval.
    pub to: u64,
    /// Nanoseconds, not 0.
    step: u64,
    per_step: f64,
    count: usize,
}

impl Intervals {
    #[must_use]
    pub fn of_range(request: &RangeRequest) -> Self {
        let step = request.step.max(1);
        let further = (request.end.saturating_sub(request.start) / step).min(INTERVALS_MAX - 1);
        Self {
            from: request.start.checked_sub(step).map_or(0, |before| before + 1),
            first_end: request.start,
            to: request.start + further * step,
            step,
            per_step: 1.0 / step as f64,
            count: further as usize + 1,
        }
    }

    #[must_use]
    pub fn of_instant(request: &InstantRequest) -> Self {
        let step = request.end.saturating_sub(request.start).max(1);
        Self {
            from: request.start.saturating_add(1),
            first_end: request.end,
            to: request.end,
            step,
            per_step: 1.0 / step as f64,
            count: 1,
        }
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// How long each is, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.step as f64 / NANOS_PER_SECOND
    }

    #[must_use]
    pub fn contains(&self, time: u64) -> bool {
        (self.from..=self.to).contains(&time)
    }

    /// The interval of a time that is in one of them.
    #[must_use]
    pub fn of(&self, time: u64) -> u32 {
        if time <= self.first_end {
            return 0;
        }
        let offset = time - self.first_end - 1;
        // A product instead of a division, which takes several times as long; it can be off by one.
        // Signed on the way: processors have an instruction for that.
        let mut steps = (offset.cast_signed() as f64 * self.per_step) as i64 as u64;
        if steps * self.step > offset {
            steps -= 1;
        } else if offset - steps * self.step >= self.step {
            steps += 1;
        }
        steps as u32 + 1
    }

    /// The time of an interval's sample in Unix milliseconds.
    #[must_use]
    pub fn sample_ms(&self, interval: usize) -> i64 {
        ((self.first_end + interval as u64 * self.step) / NANOS_PER_MILLISECOND) as i64
    }
}

/// Intervals are numbered by 32 bits. That many do not fit into the memory of a query anyway.
const INTERVALS_MAX: u64 = 1 << 31;

pub const NANOS_PER_SECOND: f64 = 1e9;
pub const NANOS_PER_MILLISECOND: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64, step: u64) -> Intervals {
        Intervals::of_range(&RangeRequest { start, end, step, exemplars: 0, series_max: 0 })
    }

    #[test]
    fn an_interval_begins_after_its_predecessor_and_holds_its_own_end() {
        let intervals = range(100, 300, 100);
        assert_eq!(intervals.count(), 3);
        assert!(!intervals.contains(0) && intervals.contains(1) && intervals.contains(300) && !intervals.contains(301));
        let of: Vec<u32> = [1, 100, 101, 200, 201, 300].map(|time| intervals.of(time)).into();
        assert_eq!(of, [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn samples_carry_the_end_of_their_interval() {
        let intervals = range(2_000_000_000, 4_000_000_000, 1_000_000_000);
        assert_eq!([0, 1, 2].map(|interval| intervals.sample_ms(interval)), [2000, 3000, 4000]);
    }

    #[test]
    fn the_first_interval_may_reach_back_to_the_beginning_of_time() {
        let intervals = range(0, 20, 10);
        assert!(intervals.contains(0));
        assert_eq!([0, 1, 10, 11, 20].map(|time| intervals.of(time)), [0, 1, 1, 2, 2]);
    }

    #[test]
    fn an_instant_is_one_interval_over_the_whole() {
        let intervals = Intervals::of_instant(&InstantRequest { start: 5, end: 15, series_max: 0 });
        assert!(!intervals.contains(5) && intervals.contains(6) && intervals.contains(15) && !intervals.contains(16));
        assert_eq!((intervals.count(), intervals.of(6), intervals.of(15)), (1, 0, 0));
    }

    proptest! {
        #[test]
        fn the_product_finds_the_same_interval_as_a_division(
            step in 1_u64..1 << 52, first in 0_u64..1 << 20, count in 1_u64..20_000, fraction in 0.0_f64..1.0
        ) {
            let step = step.min((u64::MAX >> 1) / (first + count));
            let intervals = range(first * step, (first + count) * step, step);
            let time = intervals.from + ((intervals.to - intervals.from) as f64 * fraction) as u64;
            let time = time.min(intervals.to);
            let expected = (time + step - 1).saturating_sub(first * step) / step;
            prop_assert_eq!(u64::from(intervals.of(time)), expected);
        }
    }
}
