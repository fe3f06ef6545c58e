//! How long to wait after the n-th failure in a row.

use super::settings::RetrySettings;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The shortest wait: settings of zero must not turn an outage into a busy loop.
const DELAY_MIN: Duration = Duration::from_millis(10);

/// Exponential backoff with jitter, as the Collector's `retry_on_failure`, without its limit on elapsed time.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    settings: RetrySettings,
    /// The next delay before jitter; `None` after a success.
    interval: Option<Duration>,
}

impl Backoff {
    pub(super) fn new(settings: RetrySettings) -> Self {
        Self { settings, interval: None }
    }

    /// A request went through: the next failure is a first one.
    pub(super) fn reset(&mut self) {
        self.interval = None;
    }

    /// The wait before the next attempt. A destination's hint raises it and is not capped by `max_interval`.
    pub(super) fn next_delay(&mut self, hint: Option<Duration>) -> Duration {
        self.next_delay_with(hint, random_unit())
    }

    fn next_delay_with(&mut self, hint: Option<Duration>, unit: f64) -> Duration {
        let interval = self.interval.unwrap_or(self.settings.initial_interval).min(self.settings.max_interval);
        let grown = scaled(interval, self.settings.multiplier.max(1.0));
        self.interval = Some(grown.min(self.settings.max_interval));
        let factor = self.settings.randomization_factor.clamp(0.0, 1.0);
        let delay = scaled(interval, 1.0 - factor + 2.0 * factor * unit);
        delay.max(hint.unwrap_or_default()).max(DELAY_MIN)
    }
}

fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// A number in [0, 1), different at every call and in every process. Jitter needs no better randomness than the
/// standard library's hash keys.
fn random_unit() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    // 53 bits are what the mantissa holds.
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_maximum_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(RetrySettings::default());
        let delays: Vec<f64> = (0..7).map(|_| backoff.next_delay_with(None, 0.5).as_secs_f64()).collect();
        assert_eq!(delays, [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0, 30.0]);
        backoff.reset();
        assert_eq!(backoff.next_delay_with(None, 0.0), Duration::from_millis(2500));
        assert_eq!(backoff.next_delay_with(None, 1.0), Duration::from_millis(11250));
    }

    #[test]
    fn a_hint_raises_the_delay_and_never_lowers_it() {
        let mut backoff = Backoff::new(RetrySettings::default());
        assert_eq!(backoff.next_delay_with(Some(Duration::from_secs(300)), 0.5), Duration::from_secs(300));
        assert_eq!(backoff.next_delay_with(Some(Duration::from_secs(1)), 0.5), Duration::from_millis(7500));
    }

    #[test]
    fn settings_of_zero_do_not_spin() {
        let zero =
            RetrySettings { initial_interval: Duration::ZERO, max_interval: Duration::ZERO, ..Default::default() };
        assert_eq!(Backoff::new(zero).next_delay(None), DELAY_MIN);
    }

    #[test]
    fn jitter_stays_in_range_and_varies() {
        let units: Vec<f64> = (0..100).map(|_| random_unit()).collect();
        assert!(units.iter().all(|unit| (0.0..1.0).contains(unit)));
        assert!(units.iter().any(|unit| *unit < 0.5) && units.iter().any(|unit| *unit >= 0.5));
    }
}
