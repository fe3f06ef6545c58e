//! Settings of the `memory_limiter` processor, with the Collector's names and checks.

use crate::config::{Declaration, Section, Shape, Stability};
use crate::otlp::Signal;
use crate::process::settings::ProcessorSettings;
use std::time::Duration;

/// The `memory_limiter` processor.
pub const DECLARATION: Declaration<ProcessorSettings> = Declaration::new(
    "memory_limiter",
    Stability::Beta,
    "Refuses data, retryably, while too much memory is in use.",
    |section| ProcessorSettings::MemoryLimiter(MemoryLimiterSettings::decode(section)),
)
.serving(&Signal::ALL);

const NO_COLLECTOR: &str = "Spanreel has no garbage collector";

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

impl MemoryLimiterSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = Self {
            check_interval: section.duration("check_interval", Duration::ZERO),
            limit_mib: section.u32("limit_mib", 0),
            spike_limit_mib: section.u32("spike_limit_mib", 0),
            limit_percentage: section.u32("limit_percentage", 0),
            spike_limit_percentage: section.u32("spike_limit_percentage", 0),
        };
        accept_collections(section);
        section.inert("garbage_collector", Shape::Map, NO_COLLECTOR);
        settings.check(section);
        settings
    }

    /// The Collector's checks.
    fn check(&self, section: &Section<'_>) {
        if !section.is_sound() {
            return;
        }
        if self.check_interval.is_zero() {
            section.error(
                "check_interval",
                "must be greater than zero",
                "1s is what the Collector's authors recommend",
            );
        }
        if self.limit_mib == 0 && self.limit_percentage == 0 {
            section.error("", "limit_mib or limit_percentage must be greater than zero", "e.g. limit_percentage: 80");
        }
        for (key, percentage) in
            [("limit_percentage", self.limit_percentage), ("spike_limit_percentage", self.spike_limit_percentage)]
        {
            if percentage > 100 {
                section.error(key, format!("must not be above 100, is {percentage}"), "");
            }
        }
        if self.limit_mib > 0 && self.spike_limit_mib >= self.limit_mib {
            section.error("spike_limit_mib", "must be smaller than limit_mib", "a fifth of the limit is usual");
        }
        if self.limit_percentage > 0 && self.spike_limit_percentage >= self.limit_percentage {
            let remedy = "a fifth of the limit is usual";
            section.error("spike_limit_percentage", "must be smaller than limit_percentage", remedy);
        }
    }
}

/// Intervals between garbage collections: they mean nothing here, and are checked as the Collector checks them.
fn accept_collections(section: &mut Section<'_>) {
    const MIN_SOFT: &str = "min_gc_interval_when_soft_limited";
    const MIN_HARD: &str = "min_gc_interval_when_hard_limited";
    const MAX_SOFT: &str = "max_gc_interval_when_soft_limited";
    const MAX_HARD: &str = "max_gc_interval_when_hard_limited";
    let mut read = |key: &'static str, default_s: u64| {
        let written = section.accept_duration(key);
        if written.is_some() {
            section.note(key, format!("accepted, without effect: {NO_COLLECTOR}"));
        }
        written.unwrap_or(Duration::from_secs(default_s))
    };
    let (min_soft, min_hard) = (read(MIN_SOFT, 10), read(MIN_HARD, 0));
    let (max_soft, max_hard) = (read(MAX_SOFT, 30), read(MAX_HARD, 30));
    // A maximum of 0 is none.
    for (key, is_wrong, other) in [
        (MIN_SOFT, min_soft < min_hard, MIN_HARD),
        (MAX_SOFT, !max_soft.is_zero() && max_soft < min_soft, MIN_SOFT),
        (MAX_HARD, !max_hard.is_zero() && max_hard < min_hard, MIN_HARD),
        (MAX_SOFT, !max_soft.is_zero() && max_soft < max_hard, MAX_HARD),
    ] {
        if is_wrong && section.is_sound() {
            section.error(key, format!("must not be less than {other}"), "remove both: they mean nothing here");
        }
    }
}
