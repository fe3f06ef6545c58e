//! What the query port tells about the process: readiness, metrics, status, diagnosis.

use super::Shared;
use super::forecast::Forecast;
use super::health::{self, DeadLetterCounts};
use super::host::{Host, View};
use super::spanreel::catch_up::CatchUpMode;
use super::spanreel::settings::SpanreelSettings;

use crate::cluster::{Cluster, Doctor, DoctorError, LifeLine, Resources};
use crate::otlp::Signal;
use crate::query::{Introspection, NoDiagnosis, NoDiagnosisKind, Readiness, Scope};
use crate::spool::{Snapshot, Spool};
use crate::store::runs::Runs;
use crate::telemetry::{self, Metrics};
use crate::{cluster, receive};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Starting, ready or stopping; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadinessFlag(Arc<AtomicU8>);

const READY: u8 = 1;
const STOPPING: u8 = 2;

impl ReadinessFlag {
    pub fn set_ready(&self) {
        self.0.store(READY, Ordering::Release);
    }

    pub fn set_stopping(&self) {
        self.0.store(STOPPING, Ordering::Release);
    }

    pub fn get(&self) -> Readiness {
        match self.0.load(Ordering::Acquire) {
            READY => Readiness::Ready,
            STOPPING => Readiness::NotReady("Application is stopping".to_owned()),
            _ => Readiness::NotReady("Some services are not Running:\nStarting: 1".to_owned()),
        }
    }
}

/// Answers for the whole process.
pub(super) struct Process {
    spool: Spool,
    runs: Runs,
    receive: receive::Metrics,
    cluster: cluster::Metrics,
    life: Option<Arc<LifeLine>>,
    cluster_side: OnceLock<ClusterSide>,
    metrics: Metrics,
    readiness: ReadinessFlag,
    host: Arc<Host>,
    forecast: Forecast,
    settings: SpanreelSettings,
    dead_letters: Arc<DeadLetterCounts>,
    started: Instant,
}

/// What the cluster side knows, once it has started.
struct ClusterSide {
    doctor: Arc<Doctor>,
    resources: Resources,
}

impl Process {
    pub fn new(
        shared: &Shared,
        runs: Runs,
        cluster: cluster::Metrics,
        metrics: Metrics,
        host: Arc<Host>,
        life: Option<Arc<LifeLine>>,
        (forecast, settings): (Forecast, SpanreelSettings),
    ) -> Self {
        Self {
            spool: shared.spool.clone(),
            runs,
            receive: shared.receive_metrics.clone(),
            cluster,
            life,
            cluster_side: OnceLock::new(),
            metrics,
            readiness: shared.readiness.clone(),
            host,
            forecast,
            settings,
            dead_letters: Arc::default(),
            started: Instant::now(),
        }
    }

    /// The cluster side has started.
    pub fn set_cluster(&self, cluster: &Cluster) {
        let side = ClusterSide { doctor: Arc::clone(cluster.doctor()), resources: cluster.resources().clone() };
        let _ = self.cluster_side.set(side);
    }

    fn cluster_side(&self) -> Result<&ClusterSide, NoDiagnosis> {
        if self.life.is_none() {
            return Err(NoDiagnosis::no_cluster());
        }
        let starting = "Spanreel is still starting; try again".to_owned();
        self.cluster_side.get().ok_or(NoDiagnosis { kind: NoDiagnosisKind::Unavailable, message: starting })
    }
}

impl Process {
    /// The figures of `/metrics` in the shape that `spanreel status` prints; times are Unix seconds, sizes bytes.
    fn status_of(&self, snapshot: &Snapshot, view: &View) -> Value {
        let outlook = self.forecast.outlook(snapshot.bytes_max);
        let listeners: Vec<Value> = view
            .listeners
            .iter()
            .map(|(owner, listening)| {
                json!({
                    "receiver": listening.receiver,
                    "owner": owner,
                    "protocol": if listening.protocol.is_empty() { "http" } else { listening.protocol },
                    "address": listening.address.to_string(),
                })
            })
            .collect();
        let pipelines: Vec<Value> = snapshot
            .ledger
            .known()
            .map(|(id, account)| {
                let reclaimed = snapshot.reclaimed(id);
                let dropped: serde_json::Map<String, Value> =
                    account.dropped.iter().map(|(reason, spans)| (reason.as_str().to_owned(), json!(spans))).collect();
                json!({
                    "pipeline": account.name,
                    "signal": account.signal,
                    "received": account.received,
                    "stored": account.stored,
                    "sampled_out": account.sampled_out,
                    "dropped": dropped,
                    "reclaimed": reclaimed,
                })
            })
            .collect();
        let destinations: Vec<Value> = snapshot
            .consumers
            .iter()
            .map(|consumer| {
                let running = view.destinations.iter().find(|running| {
                    running.exporter == consumer.account.destination && running.pipeline == consumer.pipeline
                });
                let expired: serde_json::Map<String, Value> = consumer
                    .account
                    .lost
                    .iter()
                    .map(|(reason, spans)| (reason.as_str().to_owned(), json!(spans)))
                    .collect();
                let status = running.map(|running| running.destination.status());
                json!({
                    "destination": consumer.account.destination,
                    "pipeline": consumer.pipeline,
                    "configured": consumer.active,
                    "sent": consumer.account.sent,
                    "queued": consumer.queued,
                    "expired": expired,
                    "state": status.as_ref().map(|status| status.state.to_string()),
                    "last_error": status.as_ref().and_then(|status| status.last_error.as_ref()).map(|error| json!({
                        "at": unix_seconds(error.at), "text": error.text,
                    })),
                    "last_success": status.as_ref().and_then(|status| status.last_success).map(unix_seconds),
                })
            })
            .collect();
        let discarded: Vec<Value> = self
            .receive
            .discarded()
            .into_iter()
            .map(|(labels, requests)| json!({ "signal": labels.signal, "service": labels.service, "requests": requests }))
            .collect();
        let injections: Vec<Value> = self
            .cluster
            .decisions()
            .into_iter()
            .map(|(labels, count)| {
                json!({ "language": labels.language, "result": labels.result, "reason": labels.reason, "count": count })
            })
            .collect();
        let syncs = self.spool.sync_times();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "resident_bytes": telemetry::process::resident_bytes(),
            "listeners": listeners,
            "pipelines": pipelines,
            "destinations": destinations,
            "discarded": discarded,
            "spool": {
                "directory": self.spool.database().directory().display().to_string(),
                "bytes": snapshot.frame_bytes,
                "bytes_max": snapshot.bytes_max,
                "raw_bytes": snapshot.raw_bytes,
                "batches": snapshot.batches,
                "oldest_age_seconds": snapshot.oldest_age().as_secs(),
                "full_in_seconds": outlook.until_full.map(|left| left.as_secs()),
                "written_per_day_bytes": outlook.written_per_day,
                "disk_free_bytes": snapshot.free_bytes,
                "disk_full": snapshot.disk_full,
                "disk_error": snapshot.disk_error,
                "lost_to_damage": snapshot.ledger.lost_to_damage,
                "syncs": syncs.count,
                "sync_mean_micros": syncs.mean_micros,
                "sync_max_micros": syncs.max_micros,
            },
            "store": self.store_status(snapshot),
            "injections": injections,
            "life": self.life.as_ref().map(|life| life.summary()),
            "catch_up": self.life.as_ref().map(|_| (*self.cluster.catch_up().report()).clone()),
        })
    }

    fn store_status(&self, snapshot: &Snapshot) -> Value {
        let store = self.runs.view().summary();
        let of_traces = snapshot.ledger.known().filter(|(_, account)| account.signal == Signal::Traces);
        let waiting: u64 = of_traces.map(|(id, account)| account.stored.saturating_sub(store.accounted(id))).sum();
        json!({
            "runs": store.runs,
            "spans": store.spans,
            "bytes": store.bytes,
            "raw_bytes": store.raw_bytes,
            "damaged_runs": store.damaged_runs,
            "oldest_received": store.oldest_received.map(|nanos| nanos / NANOS_PER_SECOND),
            "sealed_until": store.newest_received.map(|nanos| nanos / NANOS_PER_SECOND),
            "waiting_spans": waiting,
            "pinned_traces": self.runs.pinned().len(),
            "bytes_max": self.settings.store.max_size_mib.saturating_mul(BYTES_PER_MIB),
            "max_age_seconds": Some(self.settings.store.max_age.as_secs()).filter(|seconds| *seconds > 0),
        })
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const BYTES_PER_MIB: u64 = 1024 * 1024;

impl Introspection for Process {
    fn metrics(&self) -> telemetry::Pages {
        self.metrics.pages()
    }

    fn readiness(&self) -> Readiness {
        self.readiness.get()
    }

    fn status(&self) -> Value {
        self.status_of(&self.spool.snapshot(), &self.host.view())
    }

    fn diagnosis(&self, scope: Scope) -> BoxFuture<'_, Result<Value, NoDiagnosis>> {
        let no = |kind, message: String| NoDiagnosis { kind, message };
        Box::pin(async move {
            let doctor = &self.cluster_side()?.doctor;
            let examined = doctor.examine(scope.namespace.as_deref(), scope.name.as_deref()).await;
            examined.map_err(|error| match error {
                DoctorError::Unknown(message) => no(NoDiagnosisKind::Unknown, message),
                DoctorError::Unavailable(message) => no(NoDiagnosisKind::Unavailable, message),
            })
        })
    }

    fn health(&self) -> BoxFuture<'_, Value> {
        let (snapshot, view) = (self.spool.snapshot(), self.host.view());
        let mut status = self.status_of(&snapshot, &view);
        let (spool, dead_letters) = (self.spool.clone(), Arc::clone(&self.dead_letters));
        let webhook_expires = self.life.as_ref().and_then(|_| self.cluster.certificate_expires());
        let completed = tokio::task::spawn_blocking(move || {
            health::complete(&mut status, &spool, &snapshot, &view, (webhook_expires, &dead_letters));
            status
        });
        // It only fails if it panics, which the log tells.
        Box::pin(async move { completed.await.unwrap_or_default() })
    }

    fn configuration(&self) -> Value {
        self.host.configuration().to_json()
    }

    fn cluster(&self, namespace: Option<String>) -> BoxFuture<'_, Result<Value, NoDiagnosis>> {
        Box::pin(async move {
            let side = self.cluster_side()?;
            let scope = Scope { namespace: namespace.clone(), name: None };
            // What is known without the API server is shown in any case.
            let (examination, problem) = match self.diagnosis(scope).await {
                Ok(report) => (Some(report), None),
                Err(NoDiagnosis { kind: NoDiagnosisKind::Unavailable, message }) => (None, Some(message)),
                Err(no) => return Err(no),
            };
            let mut report = side.resources.report(namespace.as_deref());
            let mut catch_up = json!(*self.cluster.catch_up().report());
            catch_up["mode"] = json!(word(self.settings.catch_up.mode));
            report["examination"] = json!(examination);
            report["examination_problem"] = json!(problem);
            report["catch_up"] = catch_up;
            Ok(report)
        })
    }
}

/// How a mode is called in the configuration.
fn word(mode: CatchUpMode) -> &'static str {
    match mode {
        CatchUpMode::Off => "off",
        CatchUpMode::Report => "report",
        CatchUpMode::Restart => "restart",
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
