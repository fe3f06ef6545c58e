//! What the spool measures of itself. The ledger's figures are read from a [`super::Snapshot`] at scrape time.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// From a fast NVMe sync to a tired SD card.
const SYNC_SECONDS: [f64; 12] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Clones share the same figures.
#[derive(Debug, Clone)]
pub struct Metrics {
    sync_seconds: Histogram,
    appends: Counter,
    written_bytes: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sync_seconds: Histogram::new(SYNC_SECONDS),
            appends: Counter::default(),
            written_bytes: Counter::default(),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "spanreel_spool_sync",
            "Time of one write with its fsync; one per group of appends",
            Unit::Seconds,
            self.sync_seconds.clone(),
        );
        registry.register("spanreel_spool_appends", "Requests made durable", self.appends.clone());
        registry.register_with_unit(
            "spanreel_spool_written",
            "Bytes of frames and records written to the spool's log",
            Unit::Bytes,
            self.written_bytes.clone(),
        );
    }

    pub(super) fn observe_commit(&self, took: Duration, appends: usize, bytes: usize) {
        self.sync_seconds.observe(took.as_secs_f64());
        self.appends.inc_by(appends as u64);
        self.written_bytes.inc_by(bytes as u64);
    }
}
