//! The `memory_limiter` processor: refuses requests while the process holds too much memory.
//!
//! The rule of the Collector's `memory_limiter` with one difference: it measures Go's heap, this measures the
//! process's anonymous resident memory, which is what the kernel kills for. There is no garbage to collect, so crossing
//! the soft limit refuses at once, until the next check finds less.

mod memory;
pub mod settings;

use self::settings::MemoryLimiterSettings;
use super::{Processor, Refused};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1024 * 1024;

/// One instance per pipeline, as in the Collector.
#[derive(Debug)]
pub struct MemoryLimiter {
    /// Bytes from which requests are refused.
    soft_limit: u64,
    check_interval: Duration,
    refusing: AtomicBool,
}

impl MemoryLimiter {
    pub fn new(settings: &MemoryLimiterSettings) -> Self {
        Self {
            soft_limit: soft_limit(settings, memory::total),
            check_interval: settings.check_interval,
            refusing: AtomicBool::new(false),
        }
    }

    /// Checks every `check_interval` until `shutdown`.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.check_interval) => {}
            }
            if let Some(held) = memory::held() {
                self.check(held);
            }
        }
    }

    fn check(&self, held: u64) {
        let refuse = held >= self.soft_limit;
        if refuse != self.refusing.swap(refuse, Ordering::Relaxed) {
            let (held_mib, soft_limit_mib) = (held / MIB, self.soft_limit / MIB);
            if refuse {
                tracing::warn!(held_mib, soft_limit_mib, "memory_limiter: above the soft limit, requests are refused");
            } else {
                tracing::info!(held_mib, soft_limit_mib, "memory_limiter: back within limits");
            }
        }
    }
}

impl Processor for MemoryLimiter {
    fn admit(&self) -> Result<(), Refused> {
        if self.refusing.load(Ordering::Relaxed) {
            Err(Refused("data refused due to high memory usage"))
        } else {
            Ok(())
        }
    }
}

/// `limit_mib` wins over the percentage; a spike of zero means a fifth of the limit.
fn soft_limit(settings: &MemoryLimiterSettings, total: impl Fn() -> u64) -> u64 {
    let (limit, spike) = if settings.limit_mib > 0 {
        (u64::from(settings.limit_mib) * MIB, u64::from(settings.spike_limit_mib) * MIB)
    } else {
        let percent = |share: u32| (u128::from(total()) * u128::from(share) / 100) as u64;
        (percent(settings.limit_percentage), percent(settings.spike_limit_percentage))
    };
    limit.saturating_sub(if spike == 0 { limit / 5 } else { spike })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(limit_mib: u32, spike_limit_mib: u32, percent: u32, spike_percent: u32) -> MemoryLimiterSettings {
        MemoryLimiterSettings {
            check_interval: Duration::from_secs(1),
            limit_mib,
            spike_limit_mib,
            limit_percentage: percent,
            spike_limit_percentage: spike_percent,
        }
    }

    #[test]
    fn limits_are_the_collectors() {
        let total = || 1000 * MIB;
        assert_eq!(soft_limit(&settings(0, 0, 80, 25), total), 550 * MIB);
        assert_eq!(soft_limit(&settings(0, 0, 75, 15), total), 600 * MIB);
        assert_eq!(soft_limit(&settings(100, 0, 80, 25), total), 80 * MIB);
        assert_eq!(soft_limit(&settings(100, 30, 0, 0), total), 70 * MIB);
    }

    #[test]
    fn above_the_soft_limit_requests_are_refused_until_memory_falls() {
        let limiter = MemoryLimiter::new(&settings(100, 30, 0, 0));
        assert_eq!(limiter.admit(), Ok(()));
        limiter.check(70 * MIB);
        assert!(limiter.admit().is_err());
        limiter.check(70 * MIB - 1);
        assert_eq!(limiter.admit(), Ok(()));
    }
}
