//! `extensions::spanreel::catch_up`: what becomes of pods that were missed, or injected from an older Instrumentation.

use std::time::Duration;

use crate::config::Section;

/// When to look and what to do. Namespaces may say otherwise by annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchUpSettings {
    /// `mode`; default `report`.
    pub mode: CatchUpMode,
    /// `interval`; default 10m. Besides, it is looked at start and when an Instrumentation changes.
    pub interval: Duration,
    /// `pause`; default 30s: between one restart and the next.
    pub pause: Duration,
    /// `crash_loops`; default `report`: workloads that crash-loop only since they are injected.
    pub crash_loops: CrashLoopMode,
}

/// What becomes of pods that should be injected as the Instrumentation is now, and are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUpMode {
    /// Nobody looks.
    Off,
    /// Events, metrics and `doctor` name them.
    #[default]
    Report,
    /// Their Deployments, StatefulSets and DaemonSets are restarted one at a time; others are reported.
    Restart,
}

/// What becomes of workloads that crash-loop only since they are injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrashLoopMode {
    #[default]
    Report,
    /// Restarted without injection.
    Restart,
}

impl Default for CatchUpSettings {
    fn default() -> Self {
        Self {
            mode: CatchUpMode::default(),
            interval: Duration::from_secs(600),
            pause: Duration::from_secs(30),
            crash_loops: CrashLoopMode::default(),
        }
    }
}

/// Every round lists all pods.
const INTERVAL_MIN: Duration = Duration::from_secs(10);

impl CatchUpSettings {
    pub(super) fn decode(section: &mut Section<'_>) -> Self {
        let defaults = Self::default();
        let modes = [("off", CatchUpMode::Off), ("report", CatchUpMode::Report), ("restart", CatchUpMode::Restart)];
        let crash_loops = [("report", CrashLoopMode::Report), ("restart", CrashLoopMode::Restart)];
        let settings = Self {
            mode: section.word("mode", &modes, defaults.mode),
            interval: section.duration("interval", defaults.interval),
            pause: section.duration("pause", defaults.pause),
            crash_loops: section.word("crash_loops", &crash_loops, defaults.crash_loops),
        };
        if settings.interval < INTERVAL_MIN {
            section.error("interval", "must be at least 10s", "every round lists all pods of the cluster");
        }
        settings
    }
}
