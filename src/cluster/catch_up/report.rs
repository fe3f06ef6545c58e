//! What the latest round found, for metrics, status and doctor.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::OutOfDate;
use crate::cluster::workloads::Workload;

/// Workloads that the report names; all are counted.
pub(super) const SHOWN_MAX: usize = 1000;

/// What one round found.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// When the round ended; `None`: there was none yet.
    pub at: Option<Timestamp>,
    /// Pods by what is wrong with them.
    pub pods: BTreeMap<OutOfDate, u64>,
    /// Workloads with such pods, at most 1000.
    pub workloads: Vec<Finding>,
    /// Workloads that crash-loop since they are injected, at most 1000.
    pub crash_loops: Vec<CrashLoop>,
    /// Pods that there was no room for.
    pub pods_left_out: u64,
    /// Workloads that could not be read.
    pub unreadable: u64,
}

/// A workload with pods that are out of date.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    #[serde(flatten)]
    pub(in crate::cluster) workload: Workload,
    /// The worst of its pods'.
    pub state: OutOfDate,
    /// Its pods by what is wrong with them.
    pub pods: BTreeMap<OutOfDate, u64>,
    /// One of them.
    pub example: String,
    /// Instrumentations, as `namespace/name`, that its next pod would be injected from.
    pub instrumentations: Vec<String>,
    /// In mode `restart`: why it is not restarted.
    pub waits: Option<String>,
}

/// What says that a workload ran without injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// A pod of it with the same program did.
    Pod,
    /// An earlier revision with the same program asked for none, and was there for a while.
    Revision,
}

/// A workload that crash-loops only since it is injected.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CrashLoop {
    #[serde(flatten)]
    pub(in crate::cluster) workload: Workload,
    /// Of the containers that crash.
    pub languages: Vec<&'static str>,
    /// One of the pods.
    pub example: String,
    pub evidence: Evidence,
}

/// How restarts ended, in the order of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RestartResult {
    Complete,
    Failed,
    /// Restarted without injection.
    InjectionOff,
}

impl RestartResult {
    const ALL: [Self; 3] = [Self::Complete, Self::Failed, Self::InjectionOff];

    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::InjectionOff => "injection_off",
        }
    }
}

/// The latest report. Cheap to clone; clones show the same.
#[derive(Debug, Clone, Default)]
pub struct CatchUp {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    report: RwLock<Arc<Report>>,
    restarts: [AtomicU64; RestartResult::ALL.len()],
}

impl CatchUp {
    /// What the latest round found.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        Arc::clone(&self.shared.report.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds its metrics to a registry. Their names are whole: the registry has no prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    pub(super) fn replace(&self, report: Report) {
        *self.shared.report.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(report);
    }

    /// Says of a workload of the report why it waits.
    pub(super) fn note_wait(&self, workload: &Workload, why: Option<String>) {
        let mut report = self.shared.report.write().unwrap_or_else(PoisonError::into_inner);
        let finding = Arc::make_mut(&mut report).workloads.iter_mut().find(|finding| finding.workload == *workload);
        if let Some(finding) = finding {
            finding.waits = why;
        }
    }

    pub(super) fn count_restart(&self, result: RestartResult) {
        if let Some(counter) = self.shared.restarts.get(result as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Collector for CatchUp {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let report = self.report();
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let mut pods = encoder.encode_descriptor(
            "spanreel_catch_up_pods",
            "Pods that would come out otherwise if they were created now, by what is wrong with them",
            None,
            MetricType::Gauge,
        )?;
        for state in OutOfDate::ALL {
            let count = report.pods.get(&state).copied().unwrap_or_default();
            gauge(count).encode(pods.encode_family(&[("state", state.as_str())])?)?;
        }
        let loops = encoder.encode_descriptor(
            "spanreel_catch_up_crash_loops",
            "Workloads that crash-loop only since they are injected",
            None,
            MetricType::Gauge,
        )?;
        gauge(report.crash_loops.len() as u64).encode(loops)?;
        let left_out = encoder.encode_descriptor(
            "spanreel_catch_up_pods_left_out",
            "Pods that the latest round had no room for",
            None,
            MetricType::Gauge,
        )?;
        gauge(report.pods_left_out).encode(left_out)?;
        let unreadable = encoder.encode_descriptor(
            "spanreel_catch_up_unreadable_workloads",
            "Workloads that the latest round could not read",
            None,
            MetricType::Gauge,
        )?;
        gauge(report.unreadable).encode(unreadable)?;
        let mut restarts = encoder.encode_descriptor(
            "spanreel_catch_up_restarts",
            "Workloads restarted to have their pods injected anew, or without injection, by how it ended",
            None,
            MetricType::Counter,
        )?;
        for (result, counter) in RestartResult::ALL.into_iter().zip(&self.shared.restarts) {
            let counter = ConstCounter::new(counter.load(Ordering::Relaxed));
            counter.encode(restarts.encode_family(&[("result", result.as_str())])?)?;
        }
        Ok(())
    }
}
