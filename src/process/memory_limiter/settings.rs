//! Settings of the `memory_limiter` processor, with the Collector's names and checks.

use std::time::Duration;

/// `processors::memory_limiter`.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryLimiterSettings {
    /// Must be above zero.
    pub check_interval: Duration,
    /// Wins over the percentage when above zero.
    pub limit_mib: u32,
    pub spike_limit_mib: u32,
    pub limit_percentage: u32,
    pub spike_limit_percentage: u32,
}
