//! How long the spool lasts at the rate of the last hour, and what the process writes to its disk in a day.

use crate::spool::Spool;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(30);
/// An hour of looks: long enough to see through bursts, short enough to see an outage.
const LOOKS_MAX: usize = 120;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What was seen at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    at: Instant,
    spool_bytes: u64,
    written_bytes: Option<u64>,
}

/// Clones share what was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Forecast {
    looks: Arc<Mutex<VecDeque<Look>>>,
    until_full_seconds: Gauge<f64, AtomicU64>,
    written_per_day_bytes: Gauge<f64, AtomicU64>,
}

/// What can be said now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Outlook {
    /// `None`: the spool does not grow.
    pub until_full: Option<Duration>,
    /// `None`: the system does not count what a process writes, or too little time has passed.
    pub written_per_day: Option<u64>,
}

impl Forecast {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "spanreel_spool_until_full_seconds",
            "Until the spool reaches its budget at the last hour's rate; +Inf while it does not grow",
            self.until_full_seconds.clone(),
        );
        registry.register(
            "spanreel_disk_written_per_day_bytes",
            "Bytes that the process had written to disks, extrapolated from the last hour to a day",
            self.written_per_day_bytes.clone(),
        );
        self.until_full_seconds.set(f64::INFINITY);
    }

    /// Looks now and then, until `shutdown`.
    pub async fn watch(self, spool: Spool, shutdown: CancellationToken) {
        loop {
            let snapshot = spool.snapshot();
            let look = Look { at: Instant::now(), spool_bytes: snapshot.frame_bytes, written_bytes: written_bytes() };
            self.look(look);
            let outlook = self.outlook(snapshot.bytes_max);
            self.until_full_seconds.set(outlook.until_full.map_or(f64::INFINITY, |left| left.as_secs_f64()));
            self.written_per_day_bytes.set(outlook.written_per_day.unwrap_or(0) as f64);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    fn look(&self, look: Look) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() == LOOKS_MAX {
            looks.pop_front();
        }
        looks.push_back(look);
    }

    pub fn outlook(&self, bytes_max: u64) -> Outlook {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(first), Some(last)) = (looks.front(), looks.back()) else { return Outlook::default() };
        let took = last.at.duration_since(first.at).as_secs_f64();
        if took <= 0.0 {
            return Outlook::default();
        }
        let per_second = last.spool_bytes.saturating_sub(first.spool_bytes) as f64 / took;
        let left = bytes_max.saturating_sub(last.spool_bytes) as f64;
        let until_full =
            (per_second > 0.0).then(|| Duration::try_from_secs_f64(left / per_second).unwrap_or(Duration::MAX));
        let written = first.written_bytes.zip(last.written_bytes);
        let written_per_day =
            written.map(|(first, last)| (last.saturating_sub(first) as f64 / took * DAY.as_secs_f64()) as u64);
        Outlook { until_full, written_per_day }
    }
}

/// What the kernel sent to disks for this process since it began; `None` without /proc.
fn written_bytes() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_that_grows_has_an_end_and_one_that_does_not_has_none() {
        let forecast = Forecast::default();
        let start = Instant::now();
        assert_eq!(forecast.outlook(1000), Outlook::default());
        let look = |seconds: u64, spool_bytes, written| {
            forecast.look(Look { at: start + Duration::from_secs(seconds), spool_bytes, written_bytes: Some(written) });
        };
        look(0, 400, 0);
        look(10, 500, 1);
        let outlook = forecast.outlook(1000);
        assert_eq!(outlook.until_full, Some(Duration::from_secs(50)));
        assert_eq!(outlook.written_per_day, Some(8640));
        look(20, 300, 1);
        assert_eq!(forecast.outlook(1000).until_full, None);
        for _ in 0..2 * LOOKS_MAX {
            look(30, 300, 1);
        }
        assert_eq!(forecast.looks.lock().unwrap().len(), LOOKS_MAX);
    }

    #[test]
    fn the_kernels_count_is_read() {
        assert!(written_bytes().is_some());
    }
}
