//! How large requests may be: what a destination's rate limit never lets pass at once is learnt, and tried again later.

use super::pace::FORGOTTEN_AFTER;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Later requests are never made smaller than this because of a rate limit, bytes as protobuf; what did not pass at this
/// size is cut nevertheless.
const SIZE_MIN: usize = 64 * 1024;

/// Deliveries double the size of requests in so much time: from the smallest to the largest in a minute.
const GROW_AFTER: Duration = Duration::from_secs(10);

/// The size that passes, as far as it is known. Bytes are those of requests as protobuf.
#[derive(Debug, Default)]
pub(super) struct Sizes(Mutex<Option<Learnt>>);

#[derive(Debug, Clone, Copy)]
struct Learnt {
    bytes_max: usize,
    refused_at: Instant,
    changed_at: Instant,
    /// Longer each time that growing was wrong.
    grow_after: Duration,
    has_grown: bool,
}

impl Sizes {
    fn lock(&self) -> MutexGuard<'_, Option<Learnt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request was delivered.
    pub(super) fn delivered(&self, raw_bytes: usize, now: Instant) {
        if let Some(learnt) = &mut *self.lock()
            && raw_bytes >= learnt.bytes_max / 2
            && now.saturating_duration_since(learnt.changed_at) >= learnt.grow_after
        {
            learnt.bytes_max = learnt.bytes_max.saturating_mul(2);
            (learnt.changed_at, learnt.has_grown) = (now, true);
        }
    }

    /// A request did not pass, alone and after its waits. How large others may be for a while.
    pub(super) fn refused(&self, raw_bytes: usize, now: Instant) -> usize {
        let mut known = self.lock();
        let before = known.filter(|learnt| learnt.is_known(now));
        let bytes_max = (raw_bytes / 2).max(SIZE_MIN).min(before.map_or(usize::MAX, |before| before.bytes_max));
        let grow_after = before.map_or(GROW_AFTER, |before| match before.has_grown {
            true => (before.grow_after * 2).min(FORGOTTEN_AFTER),
            false => before.grow_after,
        });
        *known = Some(Learnt { bytes_max, refused_at: now, changed_at: now, grow_after, has_grown: false });
        bytes_max
    }

    /// How large a request may be.
    pub(super) fn max(&self, now: Instant) -> usize {
        self.lock().filter(|learnt| learnt.is_known(now)).map_or(usize::MAX, |learnt| learnt.bytes_max)
    }
}

impl Learnt {
    fn is_known(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.refused_at) < FORGOTTEN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn smaller_requests_are_tried_for_a_while() {
        let (sizes, start) = (Sizes::default(), Instant::now());
        assert_eq!(sizes.max(start), usize::MAX);
        assert_eq!(sizes.refused(MIB, start), MIB / 2);
        assert_eq!(sizes.refused(2 * MIB, start), MIB / 2, "that was under way already");
        assert_eq!(sizes.max(start + SECOND), MIB / 2);
        assert_eq!(sizes.refused(100, start), SIZE_MIN);
        assert_eq!(sizes.max(start + FORGOTTEN_AFTER), usize::MAX);
    }

    /// Delivers requests of the size in force, for so long.
    fn deliver(sizes: &Sizes, from: Instant, time: Duration) -> Instant {
        let mut now = from;
        while now < from + time {
            now += SECOND;
            let bytes = sizes.max(now);
            sizes.delivered(bytes, now);
        }
        now
    }

    #[test]
    fn what_is_delivered_makes_requests_large_again_within_a_minute() {
        let (sizes, start) = (Sizes::default(), Instant::now());
        sizes.refused(100, start);
        sizes.delivered(100, start + 30 * SECOND);
        assert_eq!(sizes.max(start + 30 * SECOND), SIZE_MIN, "a small request proves nothing");
        let now = deliver(&sizes, start, 65 * SECOND);
        assert!(sizes.max(now) >= 4 * MIB, "{}", sizes.max(now));
    }

    #[test]
    fn a_size_that_never_passes_is_tried_less_and_less_often() {
        let (sizes, mut now) = (Sizes::default(), Instant::now());
        sizes.refused(MIB, now);
        let mut passed = Vec::new();
        for _ in 0..4 {
            let refused = now;
            while sizes.max(now) <= MIB / 2 {
                now = deliver(&sizes, now, SECOND);
            }
            passed.push((now - refused).as_secs());
            sizes.refused(sizes.max(now), now);
        }
        assert_eq!(passed, [10, 20, 40, 80]);
    }
}
