//! What the spool measures of itself. The ledger's figures are read from a [`super::Snapshot`] at scrape time.

use super::{ConsumerSnapshot, DropReason, LossReason, PipelineAccount, Snapshot};
use crate::otlp::Signal;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// From a fast NVMe sync to a tired SD card.
const SYNC_SECONDS: [f64; 12] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Clones share the same figures.
#[derive(Debug, Clone)]
pub struct Metrics {
    sync_seconds: Histogram,
    appends: Counter,
    written_bytes: Counter,
    unreadable_batches: Counter,
    /// The histogram cannot be read back; these serve `spanreel status`.
    syncs: Arc<Syncs>,
}

#[derive(Debug, Default)]
struct Syncs {
    count: AtomicU64,
    total_micros: AtomicU64,
    max_micros: AtomicU64,
}

/// How long syncs took since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncTimes {
    pub count: u64,
    pub mean_micros: u64,
    pub max_micros: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sync_seconds: Histogram::new(SYNC_SECONDS),
            appends: Counter::default(),
            written_bytes: Counter::default(),
            unreadable_batches: Counter::default(),
            syncs: Arc::default(),
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
        registry.register(
            "spanreel_spool_unreadable_batches",
            "Stored batches that the disk does not give back: destinations and searches go on without them",
            self.unreadable_batches.clone(),
        );
    }

    pub(super) fn count_unreadable(&self) {
        self.unreadable_batches.inc();
    }

    #[cfg(test)]
    pub(crate) fn unreadable_batches(&self) -> u64 {
        self.unreadable_batches.get()
    }

    pub(super) fn observe_commit(&self, took: Duration, appends: usize, bytes: usize) {
        self.sync_seconds.observe(took.as_secs_f64());
        let micros = took.as_micros() as u64;
        self.syncs.count.fetch_add(1, Ordering::Relaxed);
        self.syncs.total_micros.fetch_add(micros, Ordering::Relaxed);
        self.syncs.max_micros.fetch_max(micros, Ordering::Relaxed);
        self.appends.inc_by(appends as u64);
        self.written_bytes.inc_by(bytes as u64);
    }
}

impl Metrics {
    pub fn sync_times(&self) -> SyncTimes {
        let count = self.syncs.count.load(Ordering::Relaxed);
        SyncTimes {
            count,
            mean_micros: self.syncs.total_micros.load(Ordering::Relaxed) / count.max(1),
            max_micros: self.syncs.max_micros.load(Ordering::Relaxed),
        }
    }
}

/// The ledger, the cursors and the sizes at `/metrics`, read from one coherent snapshot per scrape.
pub struct LedgerCollector(pub super::Spool);

impl std::fmt::Debug for LedgerCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LedgerCollector")
    }
}

impl Collector for LedgerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let snapshot = self.0.snapshot();
        encode_counter(
            &mut encoder,
            "spanreel_spans_lost_to_damage",
            "Items that were durable and gone at a start, because the log on disk was damaged",
            &mut std::iter::once((Labels::new(), snapshot.ledger.lost_to_damage)),
        )?;
        for signal in Signal::ALL {
            // Of metrics and logs there is something to say once a pipeline carries them.
            if signal == Signal::Traces || snapshot.ledger.known().any(|(_, account)| account.signal == signal) {
                encode_accounts(&mut encoder, &snapshot, signal)?;
            }
        }
        let mut gauges =
            |name, help, rows: &mut dyn Iterator<Item = (Labels, i64)>| encode_gauge(&mut encoder, name, help, rows);
        let one = |value: u64| std::iter::once((Labels::new(), i64::try_from(value).unwrap_or(i64::MAX)));
        gauges("spanreel_spool_bytes", "Stored bytes (compressed)", &mut one(snapshot.frame_bytes))?;
        gauges("spanreel_spool_raw_bytes", "Stored bytes as OTLP", &mut one(snapshot.raw_bytes))?;
        gauges("spanreel_spool_bytes_max", "Budget for spanreel_spool_bytes", &mut one(snapshot.bytes_max))?;
        gauges("spanreel_spool_batches", "Stored batches", &mut one(snapshot.batches))?;
        gauges(
            "spanreel_spool_oldest_age_seconds",
            "Age of the oldest stored batch",
            &mut one(snapshot.oldest_age().as_secs()),
        )?;
        gauges(
            "spanreel_spool_disk_full",
            "1 while intake is refused for lack of disk space",
            &mut one(u64::from(snapshot.disk_full)),
        )?;
        gauges(
            "spanreel_spool_disk_error",
            "1 while the disk refuses writes",
            &mut one(u64::from(snapshot.disk_error.is_some())),
        )?;
        gauges(
            "spanreel_disk_free_bytes",
            "Free bytes on the data directory's disk",
            &mut snapshot.free_bytes.into_iter().flat_map(one),
        )
    }
}

type Labels = Vec<(&'static str, String)>;

fn encode_counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    mut rows: &mut dyn Iterator<Item = (Labels, u64)>,
) -> Result<(), std::fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    Iterator::try_for_each(&mut rows, |(labels, value)| ConstCounter::new(value).encode(family.encode_family(&labels)?))
}

fn encode_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    mut rows: &mut dyn Iterator<Item = (Labels, i64)>,
) -> Result<(), std::fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    Iterator::try_for_each(&mut rows, |(labels, value)| ConstGauge::new(value).encode(family.encode_family(&labels)?))
}

/// The accounts of the pipelines of one signal: `spanreel_spans_received`, `spanreel_metric_points_received`, ...
fn encode_accounts(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
    signal: Signal,
) -> Result<(), std::fmt::Error> {
    let (word, items) = match signal {
        Signal::Traces => ("spans", "Spans"),
        Signal::Metrics => ("metric_points", "Data points"),
        Signal::Logs => ("log_records", "Log records"),
    };
    let pipelines = || snapshot.ledger.known().filter(move |(_, account)| account.signal == signal);
    let of = |account: &PipelineAccount| vec![("pipeline", account.name.clone())];
    let mut counter = |name: &str, help: &str, rows: &mut dyn Iterator<Item = (Labels, u64)>| {
        encode_counter(encoder, &format!("spanreel_{word}_{name}"), &format!("{items} {help}"), rows)
    };
    counter(
        "received",
        "of requests that were answered for good: stored + sampled out + dropped",
        &mut pipelines().map(|(_, account)| (of(account), account.received)),
    )?;
    counter("stored", "made durable", &mut pipelines().map(|(_, account)| (of(account), account.stored)))?;
    counter(
        "sampled_out",
        "that a sampler left out",
        &mut pipelines().map(|(_, account)| (of(account), account.sampled_out)),
    )?;
    counter(
        "dropped",
        "that were received and not stored, by reason",
        &mut pipelines().flat_map(|(_, account)| {
            DropReason::ALL.iter().map(move |reason| {
                let mut labels = of(account);
                labels.push(("reason", reason.as_str().to_owned()));
                (labels, account.dropped.get(reason).copied().unwrap_or(0))
            })
        }),
    )?;
    counter(
        "reclaimed",
        "that were stored and are no longer on disk, because of a budget",
        &mut pipelines().map(|(id, account)| (of(account), snapshot.reclaimed(id))),
    )?;
    let is_of_signal = |consumer: &&ConsumerSnapshot| {
        snapshot.ledger.account(consumer.account.pipeline).is_some_and(|account| account.signal == signal)
    };
    let consumers = || snapshot.consumers.iter().filter(is_of_signal);
    let to = |consumer: &ConsumerSnapshot| {
        vec![("destination", consumer.account.destination.clone()), ("pipeline", consumer.pipeline.clone())]
    };
    counter(
        "sent",
        "that the destination took",
        &mut consumers().map(|consumer| (to(consumer), consumer.account.sent)),
    )?;
    counter(
        "expired",
        "that the destination will not get, by reason: stored = sent + queued + expired",
        &mut consumers().flat_map(|consumer| {
            LossReason::ALL.iter().map(move |reason| {
                let mut labels = to(consumer);
                labels.push(("reason", reason.as_str().to_owned()));
                (labels, consumer.account.lost.get(reason).copied().unwrap_or(0))
            })
        }),
    )?;
    encode_gauge(
        encoder,
        &format!("spanreel_{word}_queued"),
        &format!("{items} that are stored and that the destination has still to get"),
        &mut consumers().map(|consumer| (to(consumer), consumer.queued as i64)),
    )
}
