//! Sends metrics from spans to a Prometheus, or what speaks its remote-write protocol.
//!
//! What cannot be sent waits in memory, in order and bounded; it is lost with the process. The counters themselves are not:
//! the next report says again what they are.

use super::spanreel::remote_write::RemoteWriteSettings;
use crate::forward::{Posted, Poster};
use crate::red::Red;
use crate::red::remote_write::{Batch, Batches};
use bytes::Bytes;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A server's wish to be left alone counts up to here.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// What is left at a stop has so long.
const LAST_WAIT_MAX: Duration = Duration::from_secs(2);

/// Samples by what became of them, and the queue.
#[derive(Debug, Clone, Default)]
struct Metrics {
    samples: Family<OutcomeLabels, Counter>,
    queued_bytes: Gauge,
    last_success: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Sends until it is told to stop.
pub(super) struct RemoteWrite {
    red: Arc<Red>,
    settings: RemoteWriteSettings,
    poster: Poster,
    metrics: Metrics,
    queue: VecDeque<(Bytes, u64)>,
    queued_bytes: usize,
    /// Of the last report, Unix milliseconds.
    reported_millis: u64,
    pause: Duration,
    is_away: bool,
}

impl RemoteWrite {
    /// # Errors
    /// If the URL, a header, or a file that TLS needs is not usable.
    pub fn new(
        red: Arc<Red>,
        settings: RemoteWriteSettings,
        registry: &mut Registry,
    ) -> Result<Self, crate::forward::BuildError> {
        let metrics = Metrics::default();
        registry.register(
            "spanreel_remote_write_samples",
            "Samples by what became of them: sent, refused by the receiver, or lost because too many waited",
            metrics.samples.clone(),
        );
        registry.register_with_unit(
            "spanreel_remote_write_queued",
            "Compressed bodies that wait",
            Unit::Bytes,
            metrics.queued_bytes.clone(),
        );
        registry.register(
            "spanreel_remote_write_last_success_timestamp_seconds",
            "When the receiver last took a body, Unix time; 0 if never since the start",
            metrics.last_success.clone(),
        );
        let poster = settings.poster()?;
        let queue = VecDeque::new();
        let (queued_bytes, reported_millis, pause, is_away) = (0, 0, RETRY_PAUSE_MIN, false);
        Ok(Self { red, settings, poster, metrics, queue, queued_bytes, reported_millis, pause, is_away })
    }

    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut next_report = Instant::now() + self.settings.interval;
        let mut next_try = Instant::now();
        loop {
            let wake = if self.queue.is_empty() { next_report } else { next_report.min(next_try) };
            if shutdown.run_until_cancelled(sleep_until(wake)).await.is_none() {
                break;
            }
            if Instant::now() >= next_report {
                next_report = Instant::now() + self.settings.interval;
                self.report().await;
            }
            if Instant::now() >= next_try {
                match shutdown.run_until_cancelled(self.send_first()).await {
                    Some(pause) => next_try = Instant::now() + pause,
                    None => break,
                }
            }
        }
        self.report().await;
        let last = async { while !self.queue.is_empty() && self.send_first().await.is_zero() {} };
        let _ = tokio::time::timeout(LAST_WAIT_MAX, last).await;
        let left: u64 = self.queue.iter().map(|(_, samples)| samples).sum();
        if left > 0 {
            tracing::warn!(samples = left, "not all metrics from spans could be sent before the stop");
        }
    }

    /// Puts what the series are now into the queue.
    async fn report(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let batches = Batches::of(Arc::clone(&self.red), self.settings.manner.clone(), now, self.reported_millis);
        self.reported_millis = now;
        for Batch { body, samples } in batches {
            self.queued_bytes += body.len();
            self.queue.push_back((body.into(), samples));
            // The last one stays, however large it is.
            while self.queued_bytes > self.settings.queue_bytes_max && self.queue.len() > 1 {
                self.finish_first("lost");
            }
            // Half a megabyte of labels is some milliseconds of work.
            tokio::task::yield_now().await;
        }
        self.metrics.queued_bytes.set(self.queued_bytes as i64);
    }

    /// Tries the oldest body; how long to wait before the next try.
    async fn send_first(&mut self) -> Duration {
        let Some((body, _)) = self.queue.front() else { return Duration::ZERO };
        match self.poster.post(body.clone()).await {
            Posted::Taken => {
                if std::mem::take(&mut self.is_away) {
                    tracing::info!(endpoint = self.settings.endpoint, "metrics from spans are taken again");
                }
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                self.metrics.last_success.set(now as i64);
                self.pause = RETRY_PAUSE_MIN;
                self.finish_first("sent");
                Duration::ZERO
            }
            Posted::Refused { why } => {
                tracing::warn!(endpoint = self.settings.endpoint, answer = why, "metrics from spans were refused");
                self.finish_first("refused");
                Duration::ZERO
            }
            Posted::Again { after, why } => {
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::warn!(
                        endpoint = self.settings.endpoint,
                        answer = why,
                        "metrics from spans are not taken; they wait in memory: check endpoint, TLS and credentials"
                    );
                }
                let pause = after.map_or(self.pause, |after| after.clamp(RETRY_PAUSE_MIN, RETRY_AFTER_MAX));
                self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
                pause
            }
        }
    }

    fn finish_first(&mut self, outcome: &'static str) {
        if let Some((body, samples)) = self.queue.pop_front() {
            self.queued_bytes -= body.len();
            self.metrics.queued_bytes.set(self.queued_bytes as i64);
            self.metrics.samples.get_or_create(&OutcomeLabels { outcome }).inc_by(samples);
        }
    }
}
