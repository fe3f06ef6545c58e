//! Metrics of runs and of sealing.

use crate::store::retention::DropReason;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// Shared by whoever reads and writes runs.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(crate) runs: Gauge,
    pub(crate) spans: Gauge,
    pub(crate) bytes: Gauge,
    pub(crate) damaged_runs: Gauge,
    pub(crate) sealed_spans: Counter,
    pub(crate) sealed_raw_bytes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) sealing_seconds: Counter<f64, AtomicU64>,
    pub(crate) unsealed_lost_spans: Counter,
    pub(crate) seal_failures: Counter,
    pub(crate) sealer_panics: Counter,
    pub(crate) pinned_unsaved: Counter,
    dropped_spans: Family<ReasonLabels, Counter>,
    dropped_bytes: Family<ReasonLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

impl Metrics {
    pub(crate) fn count_drop(&self, reason: DropReason, spans: u64, bytes: u64) {
        let labels = ReasonLabels { reason: reason.as_str() };
        self.dropped_spans.get_or_create(&labels).inc_by(spans);
        self.dropped_bytes.get_or_create(&labels).inc_by(bytes);
    }

    #[cfg(test)]
    pub(crate) fn dropped_spans(&self, reason: DropReason) -> u64 {
        self.dropped_spans.get_or_create(&ReasonLabels { reason: reason.as_str() }).get()
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register("spanreel_store_runs", "Sealed runs", self.runs.clone());
        registry.register("spanreel_store_spans", "Spans in sealed runs", self.spans.clone());
        registry.register_with_unit("spanreel_store", "Size of sealed runs", Unit::Bytes, self.bytes.clone());
        registry.register(
            "spanreel_store_damaged_runs",
            "Runs that cannot be read and are left out of searches",
            self.damaged_runs.clone(),
        );
        registry.register("spanreel_store_sealed_spans", "Spans moved into runs", self.sealed_spans.clone());
        registry.register_with_unit(
            "spanreel_store_sealed_raw",
            "OTLP moved into runs",
            Unit::Bytes,
            self.sealed_raw_bytes.clone(),
        );
        registry.register_with_unit(
            "spanreel_store_written",
            "Written to disk for runs",
            Unit::Bytes,
            self.written_bytes.clone(),
        );
        registry.register_with_unit(
            "spanreel_store_sealing",
            "Time of the sealing thread, without its pauses",
            Unit::Seconds,
            self.sealing_seconds.clone(),
        );
        registry.register(
            "spanreel_store_unsealed_lost_spans",
            "Spans that the spool dropped, or that could not be read, before they were sealed",
            self.unsealed_lost_spans.clone(),
        );
        registry.register(
            "spanreel_store_dropped_spans",
            "Spans that retention dropped, with their run or out of it",
            self.dropped_spans.clone(),
        );
        registry.register_with_unit(
            "spanreel_store_dropped",
            "Size of what retention dropped",
            Unit::Bytes,
            self.dropped_bytes.clone(),
        );
        registry.register("spanreel_store_seal_failures", "Attempts to seal that failed", self.seal_failures.clone());
        registry.register(
            "spanreel_store_sealer_panics",
            "Attempts to seal or to drop runs that met a defect of Spanreel",
            self.sealer_panics.clone(),
        );
        registry.register(
            "spanreel_store_pinned_unsaved",
            "Pinned traces that may have lost spans, because their run could not be read when it was dropped",
            self.pinned_unsaved.clone(),
        );
    }
}
