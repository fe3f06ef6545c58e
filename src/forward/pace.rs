//! How fast requests follow one another: the configured limit, and one that is learnt from a destination that says it gets
//! too much.
//!
//! A destination with a full token bucket says how long to wait. Going on as before would fill it again at once, so from
//! then on half as much is sent as it was getting; what it takes raises that again, until it is forgotten.
//!
//! Rates count bytes of bodies as sent. Before a body is encoded, what it will have is guessed by the last one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A learnt limit is never lower, bytes a second: a request of the largest size goes within 16 s, also uncompressed.
const LEARNT_MIN: f64 = 256.0 * 1024.0;

/// Deliveries raise a learnt limit e-fold in so much time: 20-fold in a minute.
const RECOVERY: Duration = Duration::from_secs(20);

/// A pause between deliveries counts as so much for the recovery, or as what the limit made of it: who sends little proves
/// little.
const RECOVERY_STEP_MAX: Duration = Duration::from_secs(2);

/// What was learnt is forgotten when the destination had nothing to say for so long.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Over how long, about, the rate of what is delivered is measured.
const WINDOW: Duration = Duration::from_secs(10);

/// A rate is measured over this at least.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// Who waits asks again after so long: the limit may have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Timers wake late: so much of the time that nobody used is made up for.
const LATE_MAX: f64 = 0.02;

/// A wait that is not worth a timer, seconds.
const WAIT_MIN: f64 = 1e-6;

/// Spreads bytes over time: each request takes its time before the next one may go.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second_max: Option<u64>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Bytes that were sent and whose time has not passed, as of a time.
    owed: f64,
    owed_at: Option<Instant>,
    /// What became of each byte of the last body when it was encoded.
    encoded_share: f64,
    learnt: Option<Learnt>,
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

/// What a request's turn was counted as before its body was known.
#[derive(Debug)]
#[must_use]
pub(super) struct Charge {
    body_bytes: usize,
    charged: f64,
}

impl Pace {
    pub(super) fn new(bytes_per_second_max: Option<u64>) -> Self {
        let inner = Inner { owed: 0.0, owed_at: None, encoded_share: 1.0, learnt: None, window: None };
        Self { bytes_per_second_max, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may go whose body takes so many bytes before compression; it is counted as gone. `Err`: when to
    /// ask again.
    pub(super) fn turn(&self, body_bytes: usize, now: Instant) -> Result<Charge, Instant> {
        let mut inner = self.lock();
        inner.learnt = inner.learnt.filter(|learnt| now.saturating_duration_since(learnt.lowered_at) < FORGOTTEN_AFTER);
        let configured = self.bytes_per_second_max.map(|limit| limit.max(1) as f64);
        let learnt = inner.learnt.map(|learnt| learnt.bytes_per_second_max);
        let passed = inner.owed_at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        match configured.into_iter().chain(learnt).reduce(f64::min) {
            None => inner.owed = 0.0,
            Some(limit) => {
                inner.owed = (inner.owed - passed.as_secs_f64() * limit).max(-LATE_MAX * limit);
                let wait = inner.owed / limit;
                if wait > WAIT_MIN {
                    return Err(now + Duration::from_secs_f64(wait.min(LOOK_INTERVAL.as_secs_f64())));
                }
            }
        }
        let charged = body_bytes as f64 * inner.encoded_share;
        inner.owed += charged;
        Ok(Charge { body_bytes, charged })
    }

    /// The body whose turn it was has so many bytes.
    pub(super) fn settle(&self, charge: &Charge, encoded_bytes: usize) {
        let mut inner = self.lock();
        inner.owed += encoded_bytes as f64 - charge.charged;
        inner.encoded_share = encoded_bytes as f64 / charge.body_bytes.max(1) as f64;
    }

    /// A request of so many bytes as sent was delivered.
    pub(super) fn delivered(&self, encoded_bytes: usize, now: Instant) {
        let mut inner = self.lock();
        let bytes = encoded_bytes as f64;
        let window = inner.window.get_or_insert(Window { began: now, bytes: 0.0 });
        let length = now.saturating_duration_since(window.began);
        if length > WINDOW {
            // The same rate, over a shorter time.
            let bytes = window.bytes / length.as_secs_f64() * (WINDOW / 2).as_secs_f64();
            *window = Window { began: now - WINDOW / 2, bytes };
        }
        window.bytes += bytes;
        if let Some(learnt) = &mut inner.learnt {
            let passed = now.saturating_duration_since(learnt.raised_at).as_secs_f64();
            let counted = passed.min(RECOVERY_STEP_MAX.as_secs_f64().max(bytes / learnt.bytes_per_second_max));
            learnt.bytes_per_second_max *= (counted / RECOVERY.as_secs_f64()).exp();
            learnt.raised_at = now;
        }
    }

    /// The destination gets too much, and has said how long to wait. The new limit in bytes a second, if it is lowered:
    /// one that has taken nothing since the last time has other reasons.
    pub(super) fn too_fast(&self, now: Instant) -> Option<u64> {
        let mut inner = self.lock();
        let window = inner.window.take()?;
        let rate = window.bytes / now.saturating_duration_since(window.began).max(WINDOW_MIN).as_secs_f64();
        let before = inner.learnt.map_or(f64::INFINITY, |learnt| learnt.bytes_per_second_max);
        let bytes_per_second_max = (rate.min(before) / 2.0).max(LEARNT_MIN);
        inner.learnt = Some(Learnt { bytes_per_second_max, lowered_at: now, raised_at: now });
        Some(bytes_per_second_max as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    const SECOND: Duration = Duration::from_secs(1);

    /// What a destination takes a request in, without any limit.
    const ANSWER_TIME: Duration = Duration::from_millis(50);

    /// When a request goes that is asked for at `now`.
    fn go(pace: &Pace, body_bytes: usize, encoded_bytes: usize, mut now: Instant) -> Instant {
        let charge = loop {
            match pace.turn(body_bytes, now) {
                Ok(charge) => break charge,
                Err(again) => now = again,
            }
        };
        pace.settle(&charge, encoded_bytes);
        now
    }

    /// Sends requests of 1 MiB as fast as they may go, compressed to so many bytes; how many within `time`, and when it is
    /// over.
    fn drive(pace: &Pace, encoded_bytes: usize, from: Instant, time: Duration) -> (u32, Instant) {
        let (mut now, mut sent) = (from, 0);
        loop {
            let turn = go(pace, MIB, encoded_bytes, now);
            if turn >= from + time {
                return (sent, from + time);
            }
            now = turn + ANSWER_TIME;
            pace.delivered(encoded_bytes, now);
            sent += 1;
        }
    }

    #[test]
    fn the_limit_holds_over_many_requests_and_an_idle_time_is_not_saved_up() {
        let pace = Pace::new(Some(1000));
        let start = Instant::now();
        let ten = (0..10).fold(start, |now, _| go(&pace, 500, 500, now));
        let took = (ten - start).as_secs_f64();
        assert!((4.499..4.501).contains(&took), "{took} s");
        let later = start + Duration::from_secs(100);
        assert_eq!(go(&pace, 500, 500, later), later);
        let next = (go(&pace, 500, 500, later) - later).as_secs_f64();
        assert!(next > 0.4, "{next} s");
        assert_eq!(go(&Pace::new(None), 1 << 30, 1 << 30, later), later);
    }

    #[test]
    fn a_limit_counts_bytes_as_sent() {
        let pace = Pace::new(Some(1000));
        let start = Instant::now();
        let last = (0..10).fold(start, |now, _| go(&pace, 10_000, 500, now));
        let took = (last - start).as_secs_f64();
        assert!((4.499..4.501).contains(&took), "half a second each: {took} s");
    }

    #[test]
    fn a_destination_that_gets_too_much_gets_half_and_then_more_again_however_it_compresses() {
        for encoded_bytes in [MIB, MIB / 5, MIB / 20] {
            let pace = Pace::new(None);
            let (before, now) = drive(&pace, encoded_bytes, Instant::now(), 10 * SECOND);
            assert!(before >= 190, "20 a second: {before}");
            let limit = pace.too_fast(now).unwrap() as f64 / encoded_bytes as f64;
            assert!((8.0..12.0).contains(&limit), "{limit} requests a second");
            let (after, now) = drive(&pace, encoded_bytes, now, 10 * SECOND);
            assert!((80..150).contains(&after), "about half of it: {after}");
            let (later, _) = drive(&pace, encoded_bytes, now, 60 * SECOND);
            assert!(later >= 60 * 15, "it gets what it takes: {later}");
        }
    }

    #[test]
    fn the_lowest_limit_is_left_within_a_minute_also_with_large_requests() {
        const LARGE: usize = 4 * MIB;
        let pace = Pace::new(None);
        let mut now = Instant::now();
        pace.delivered(1000, now);
        assert_eq!(pace.too_fast(now), Some(LEARNT_MIN as u64));
        let end = now + 60 * SECOND;
        let mut last_pause = Duration::ZERO;
        while now < end {
            let turn = go(&pace, LARGE, LARGE, now);
            last_pause = turn - now;
            now = turn + ANSWER_TIME;
            pace.delivered(LARGE, now);
        }
        assert!(last_pause < 3 * SECOND, "16 s at first, {last_pause:?} now");
    }

    #[test]
    fn who_waits_goes_as_soon_as_the_limit_is_forgotten() {
        let pace = Pace::new(None);
        let start = Instant::now();
        pace.delivered(1000, start);
        pace.too_fast(start);
        let forgotten = start + FORGOTTEN_AFTER;
        assert!(pace.turn(1000 * MIB, forgotten - SECOND).is_ok());
        assert!(pace.turn(MIB, forgotten - SECOND).is_err_and(|again| again <= forgotten + LOOK_INTERVAL));
        assert!(pace.turn(MIB, forgotten).is_ok());
    }

    #[test]
    fn a_destination_that_takes_nothing_is_not_slowed_down_further() {
        let pace = Pace::new(None);
        let start = Instant::now();
        assert_eq!(pace.too_fast(start), None, "it is only starting");
        assert_eq!(go(&pace, MIB, MIB, start), start);
        pace.delivered(1000, start);
        assert_eq!(pace.too_fast(start + SECOND), Some(LEARNT_MIN as u64));
        assert_eq!(pace.too_fast(start + 2 * SECOND), None);
    }

    #[test]
    fn the_configured_limit_holds_beside_a_learnt_one() {
        let pace = Pace::new(Some(1000));
        let start = Instant::now();
        pace.delivered(10 * MIB, start);
        pace.too_fast(start + SECOND);
        let second = go(&pace, 500, 500, go(&pace, 500, 500, start));
        let took = (second - start).as_secs_f64();
        assert!((0.499..0.501).contains(&took), "{took} s");
    }
}
