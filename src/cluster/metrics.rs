//! What the cluster room counts.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::catch_up::CatchUp;
use crate::inject::Decision;

/// Upper bounds in seconds: the goal is 2 ms, the API server gives up after 3 s.
const LATENCY_BUCKETS: [f64; 10] = [0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 3.0];

/// Counters of the webhook, and what catch-up found. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    injections: Family<InjectionLabels, Counter>,
    /// The label sets in `injections`, which cannot be listed; languages, results and reasons are few.
    seen: Arc<Mutex<BTreeSet<InjectionLabels>>>,
    latency: Histogram,
    refusals: Family<RefusalLabels, Counter>,
    catch_up: CatchUp,
    events: Family<EventLabels, Counter>,
    /// Of the certificate that is served.
    pub(super) certificate_expiry: Gauge,
}

/// What became of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum EventResult {
    Written,
    /// Too many at once.
    Dropped,
    /// The API server did not take it.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    result: &'static str,
}

/// Why the webhook decided nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    cause: &'static str,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub struct InjectionLabels {
    pub language: &'static str,
    pub result: &'static str,
    pub reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            injections: Family::default(),
            seen: Arc::default(),
            latency: Histogram::new(LATENCY_BUCKETS),
            refusals: Family::default(),
            catch_up: CatchUp::default(),
            events: Family::default(),
            certificate_expiry: Gauge::default(),
        }
    }
}

impl Metrics {
    /// When the webhook's certificate ends, Unix seconds; `None`: none is served yet.
    #[must_use]
    pub fn certificate_expires(&self) -> Option<i64> {
        Some(self.certificate_expiry.get()).filter(|expires| *expires > 0)
    }

    /// Adds them to a registry. Their names are whole: the registry has no prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "spanreel_injections",
            "Languages asked for by created pods, one per language and container",
            self.injections.clone(),
        );
        registry.register_with_unit(
            "spanreel_webhook_latency",
            "Time from an admission request's last byte to its answer",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register(
            "spanreel_webhook_refusals",
            "Admission requests and connections turned away; their pods are created unchanged",
            self.refusals.clone(),
        );
        registry.register(
            "spanreel_events",
            "Kubernetes Events: written, dropped because there were too many at once, or failed to be written",
            self.events.clone(),
        );
        registry.register(
            "spanreel_webhook_certificate_expiry_timestamp_seconds",
            "When the webhook's certificate expires, Unix time; 0 while there is none",
            self.certificate_expiry.clone(),
        );
        self.catch_up.register(registry);
    }

    /// Pods that would come out otherwise if they were created now.
    #[must_use]
    pub fn catch_up(&self) -> &CatchUp {
        &self.catch_up
    }

    pub(super) fn record(&self, decision: &Decision) {
        for outcome in &decision.outcomes {
            let labels = InjectionLabels {
                language: outcome.language.as_str(),
                result: outcome.verdict.as_str(),
                reason: outcome.reason.as_str(),
            };
            self.injections.get_or_create(&labels).inc();
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(labels);
        }
    }

    /// Every decision so far with its count, for `spanreel status`.
    #[must_use]
    pub fn decisions(&self) -> Vec<(InjectionLabels, u64)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count = |labels: InjectionLabels| {
            let count = self.injections.get_or_create(&labels).get();
            (labels, count)
        };
        seen.into_iter().map(count).collect()
    }

    pub(super) fn record_refusal(&self, cause: &'static str) {
        self.refusals.get_or_create(&RefusalLabels { cause }).inc();
    }

    pub(super) fn record_event(&self, result: EventResult) {
        let result = match result {
            EventResult::Written => "written",
            EventResult::Dropped => "dropped",
            EventResult::Failed => "failed",
        };
        self.events.get_or_create(&EventLabels { result }).inc();
    }

    pub(super) fn record_latency(&self, taken: std::time::Duration) {
        self.latency.observe(taken.as_secs_f64());
    }
}
