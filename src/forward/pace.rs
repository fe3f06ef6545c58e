//! How fast requests follow one another: the configured limit, and one that is learnt from a destination that says it gets
//! too much.
//!
//! A destination with a full token bucket says how long to wait. Going on as before would fill it again at once, so from
//! then on half as much is sent as it was getting; what it takes raises that again, until it is forgotten.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A learnt limit is never lower, bytes a second: a request of the largest size goes within half a minute.
const LEARNT_MIN: f64 = 64.0 * 1024.0;

/// Requests are never made smaller than this because of a rate limit, bytes as protobuf.
const BURST_MIN: usize = 4 * 1024;

/// Deliveries raise a learnt limit e-fold in so much time.
const RECOVERY: Duration = Duration::from_secs(30);

/// A pause between deliveries counts as so much for the recovery, at most: who sends little proves little.
const RECOVERY_STEP_MAX: Duration = Duration::from_secs(2);

/// What was learnt is forgotten when the destination had nothing to say for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Over how long, about, the rate of what is delivered is measured.
const WINDOW: Duration = Duration::from_secs(10);

/// A rate is measured over this at least.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// Spreads bytes over time: each request takes its time before the next one may go.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second_max: Option<u64>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    free_at: Option<Instant>,
    learnt: Option<Learnt>,
    /// What passes at once, bytes as protobuf, and when that was learnt.
    burst: Option<(usize, Instant)>,
    window: Option<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Learnt {
    bytes_per_second_max: f64,
    lowered_at: Instant,
    raised_at: Instant,
}

/// What was delivered lately.
#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    bytes: f64,
}

impl Pace {
    pub(super) fn new(bytes_per_second_max: Option<u64>) -> Self {
        Self { bytes_per_second_max, inner: Mutex::default() }
    }

    /// When a request of so many bytes may go; it is counted as gone.
    pub(super) fn turn(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.learnt = inner.learnt.filter(|learnt| now.duration_since(learnt.lowered_at) < FORGOTTEN_AFTER);
        let configured = self.bytes_per_second_max.map(|limit| limit.max(1) as f64);
        let learnt = inner.learnt.map(|learnt| learnt.bytes_per_second_max);
        let limit = configured.into_iter().chain(learnt).reduce(f64::min)?;
        let turn = inner.free_at.unwrap_or(now).max(now);
        inner.free_at = Some(turn + Duration::from_secs_f64(bytes as f64 / limit));
        Some(turn)
    }

    /// A request of so many bytes was delivered.
    pub(super) fn delivered(&self, bytes: usize, now: Instant) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let window = inner.window.get_or_insert(Window { began: now, bytes: 0.0 });
        let length = now.duration_since(window.began);
        if length > WINDOW {
            // The same rate, over a shorter time.
            let bytes = window.bytes / length.as_secs_f64() * (WINDOW / 2).as_secs_f64();
            *window = Window { began: now - WINDOW / 2, bytes };
        }
        window.bytes += bytes as f64;
        if let Some(learnt) = &mut inner.learnt {
            let passed = now.saturating_duration_since(learnt.raised_at).min(RECOVERY_STEP_MAX);
            learnt.bytes_per_second_max *= (passed.as_secs_f64() / RECOVERY.as_secs_f64()).exp();
            learnt.raised_at = now;
        }
    }

    /// The destination gets too much, and has said how long to wait. The new limit in bytes a second, if it is lowered:
    /// one that has taken nothing since the last time has other reasons.
    pub(super) fn too_fast(&self, now: Instant) -> Option<u64> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let window = inner.window.take()?;
        let rate = window.bytes / now.duration_since(window.began).max(WINDOW_MIN).as_secs_f64();
        let before = inner.learnt.map_or(f64::INFINITY, |learnt| learnt.bytes_per_second_max);
        let bytes_per_second_max = (rate.min(before) / 2.0).max(LEARNT_MIN);
        inner.learnt = Some(Learnt { bytes_per_second_max, lowered_at: now, raised_at: now });
        Some(bytes_per_second_max as u64)
    }
}

impl Pace {
    /// A request of `raw_bytes` never passes, however long it is waited. How large others may be for a while.
    pub(super) fn too_much_at_once(&self, raw_bytes: usize, now: Instant) -> usize {
        let bytes_max = (raw_bytes / 2).max(BURST_MIN);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.burst = Some((bytes_max, now));
        bytes_max
    }

    /// How large a request may be, bytes as protobuf.
    pub(super) fn burst_max(&self, now: Instant) -> usize {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let burst = inner.burst.filter(|(_, learnt_at)| now.duration_since(*learnt_at) < FORGOTTEN_AFTER);
        burst.map_or(usize::MAX, |(bytes_max, _)| bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;
    const SECOND: Duration = Duration::from_secs(1);

    /// Sends requests of 1 MiB as fast as they may go; how many within `time`, and when it is over.
    fn drive(pace: &Pace, from: Instant, time: Duration) -> (u32, Instant) {
        let (mut now, mut sent) = (from, 0);
        loop {
            let turn = pace.turn(MIB, now).unwrap_or(now).max(now);
            if turn >= from + time {
                return (sent, from + time);
            }
            // What it takes without any limit.
            now = turn + Duration::from_millis(50);
            pace.delivered(MIB, now);
            sent += 1;
        }
    }

    #[test]
    fn the_limit_holds_over_many_requests_and_an_idle_time_is_not_saved_up() {
        let pace = Pace::new(Some(1000));
        let start = Instant::now();
        let turns: Vec<Duration> = (0..4).map(|_| pace.turn(500, start).unwrap() - start).collect();
        assert_eq!(turns, [0, 500, 1000, 1500].map(Duration::from_millis));
        let later = start + Duration::from_secs(100);
        assert_eq!(pace.turn(500, later), Some(later));
        assert_eq!(Pace::new(None).turn(1 << 30, later), None);
    }

    #[test]
    fn a_destination_that_gets_too_much_gets_half_and_then_more_again() {
        let pace = Pace::new(None);
        let (before, now) = drive(&pace, Instant::now(), 10 * SECOND);
        assert!(before >= 190, "20 a second: {before}");
        let limit = pace.too_fast(now).unwrap() as f64 / MIB as f64;
        assert!((8.0..12.0).contains(&limit), "{limit} MiB/s");
        let (after, now) = drive(&pace, now, 10 * SECOND);
        assert!((80..150).contains(&after), "about half of it: {after}");
        let (later, _) = drive(&pace, now, 60 * SECOND);
        assert!(later >= 60 * 15, "it gets what it takes: {later}");
    }

    #[test]
    fn a_destination_that_takes_nothing_is_not_slowed_down_further() {
        let pace = Pace::new(None);
        let start = Instant::now();
        assert_eq!(pace.too_fast(start), None, "it is only starting");
        assert_eq!(pace.turn(MIB, start), None);
        pace.delivered(1000, start);
        assert_eq!(pace.too_fast(start + SECOND), Some(LEARNT_MIN as u64));
        assert_eq!(pace.too_fast(start + 2 * SECOND), None);
        assert!(pace.turn(MIB, start + 3 * SECOND).is_some());
        assert_eq!(pace.turn(MIB, start + 2 * FORGOTTEN_AFTER), None, "long ago");
    }

    #[test]
    fn smaller_requests_are_tried_for_a_while() {
        let (pace, start) = (Pace::new(None), Instant::now());
        assert_eq!(pace.burst_max(start), usize::MAX);
        assert_eq!(pace.too_much_at_once(MIB, start), MIB / 2);
        assert_eq!(pace.burst_max(start + SECOND), MIB / 2);
        assert_eq!(pace.too_much_at_once(100, start), BURST_MIN);
        assert_eq!(pace.burst_max(start + FORGOTTEN_AFTER), usize::MAX);
    }

    #[test]
    fn the_configured_limit_holds_beside_a_learnt_one() {
        let pace = Pace::new(Some(1000));
        let start = Instant::now();
        pace.delivered(10 * MIB, start);
        pace.too_fast(start + SECOND);
        let turns: Vec<Duration> = (0..2).map(|_| pace.turn(500, start).unwrap() - start).collect();
        assert_eq!(turns, [0, 500].map(Duration::from_millis));
    }
}
