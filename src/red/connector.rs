//! The connectors `span_metrics` and `service_graph`: the same counters under the Collector's names, reported as OTLP into
//! pipelines of metrics.

pub mod settings;
pub mod span_metrics;

use super::otlp::{Report, Request, Temporality, requests};
use super::{Engine, Red};
use crate::process::connector::{Connector, LAST_REQUESTS_WAIT_MAX, Outlet, Task};
use bytes::Bytes;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// Before a report that the spool did not take is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// So often. What is left then waits for the next report.
const TRIES_MAX: u32 = 5;
/// Requests of differences that wait for the spool to take them: up to about 8 MiB. Cumulative ones do not wait, since the
/// next report says the same again.
const WAITING_MAX: usize = 8;
/// How late, at most, a span is given up that waits for the other side of its call.
const TIDY_INTERVAL: Duration = Duration::from_secs(2);
/// How often a connector that is to end looks whether requests are still under way.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A connector at work.
pub struct MetricsConnector {
    red: Red,
    how: How,
    /// Since when it counts, Unix nanoseconds.
    start: u64,
    metrics: ConnectorMetrics,
    retry_pause: Duration,
    last_requests_wait: Duration,
}

/// How it reports.
#[derive(Debug, Clone, PartialEq)]
pub struct How {
    /// Its id in the configuration.
    pub name: String,
    pub scope: &'static str,
    pub interval: Duration,
    pub temporality: Temporality,
    pub exemplars_max: usize,
    /// Points are dated so long before they are made.
    pub offset: Duration,
}

/// What connectors lost. Cloning gives another handle to the same counters.
#[derive(Debug, Clone, Default)]
pub struct ConnectorMetrics {
    lost_points: Family<ConnectorLabels, Counter>,
    overflowed: Family<OverflowLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectorLabels {
    connector: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OverflowLabels {
    connector: String,
    /// `series`: additions to the overflow series. `resources`: requests whose resource got no series of its own.
    /// `evicted_resources`: those that made room for others.
    of: &'static str,
}

impl ConnectorMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "spanreel_connector_lost_points",
            "Data points of metrics from spans that could not be stored",
            self.lost_points.clone(),
        );
        registry.register(
            "spanreel_connector_overflowed",
            "What a connector had no room for: label sets, resources, and resources that made room for others",
            self.overflowed.clone(),
        );
    }
}

impl MetricsConnector {
    pub fn new(engine: Engine, how: How, metrics: &ConnectorMetrics) -> Self {
        Self {
            red: Red::new(engine),
            how,
            start: unix_nanos(Duration::ZERO),
            metrics: metrics.clone(),
            retry_pause: RETRY_PAUSE,
            last_requests_wait: LAST_REQUESTS_WAIT_MAX,
        }
    }

    /// The next report, and the moment it is about, in Unix nanoseconds.
    fn report(&self, start: u64) -> (Vec<Request>, u64) {
        let time = unix_nanos(self.how.offset);
        let How { scope, temporality, exemplars_max, .. } = self.how;
        let report = Report { scope, temporality, start: start.min(time), time, exemplars_max };
        let requests = self.red.with_engine_mut(|engine| {
            let requests = requests(engine, &report);
            if temporality == Temporality::Delta {
                engine.clear();
            }
            requests
        });
        (requests, time)
    }

    /// Brings the metrics up to what there was no room for; `told` is what they say already.
    fn tell(&self, told: &mut [u64; 3]) {
        let census = self.red.census();
        let now = [
            ("series", census.overflowed_spans + census.overflowed_edges),
            ("resources", census.overflowed_resources),
            ("evicted_resources", census.evicted_resources),
        ];
        for ((of, count), told) in now.into_iter().zip(told) {
            if count > *told {
                let labels = OverflowLabels { connector: self.how.name.clone(), of };
                self.metrics.overflowed.get_or_create(&labels).inc_by(count - std::mem::replace(told, count));
            }
        }
    }

    /// Emits what waits, oldest first, until the spool takes no more.
    async fn emit(&self, outlet: &dyn Outlet, waiting: &mut VecDeque<(Bytes, u32)>) {
        let mut tries = 0;
        while let Some((request, points)) = waiting.front() {
            match outlet.emit(request.clone(), *points).await {
                Ok(()) => drop(waiting.pop_front()),
                Err(error) => {
                    tries += 1;
                    if tries >= TRIES_MAX {
                        tracing::warn!(connector = self.how.name, %error, "metrics from spans could not be stored");
                        return;
                    }
                    tokio::time::sleep(self.retry_pause).await;
                }
            }
        }
    }

    /// What is more than `requests_max` goes, oldest first.
    fn give_up(&self, waiting: &mut VecDeque<(Bytes, u32)>, requests_max: usize) {
        let labels = ConnectorLabels { connector: self.how.name.clone() };
        while waiting.len() > requests_max {
            if let Some((_, points)) = waiting.pop_front() {
                self.metrics.lost_points.get_or_create(&labels).inc_by(points.into());
            }
        }
    }

    /// Waits until no request under way can bring more.
    async fn fed_no_more(self: &Arc<Self>) {
        let alone = async {
            while Arc::strong_count(self) > 1 {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        if tokio::time::timeout(self.last_requests_wait, alone).await.is_err() {
            tracing::warn!(
                connector = self.how.name,
                "requests are still under way while a connector ends; their spans are not counted"
            );
        }
    }
}

/// Now, less `offset`.
fn unix_nanos(offset: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(offset).as_nanos() as u64
}

impl Connector for MetricsConnector {
    fn consume(&self, request: &Bytes) {
        self.red.observe(request);
    }

    fn run(self: Arc<Self>, outlet: Arc<dyn Outlet>, shutdown: CancellationToken) -> Task<'static, ()> {
        Box::pin(async move {
            let mut start = self.start;
            let mut told = [0; 3];
            let mut waiting = VecDeque::new();
            let mut next = tokio::time::Instant::now() + self.how.interval;
            loop {
                let wait = tokio::time::sleep_until(next.min(tokio::time::Instant::now() + TIDY_INTERVAL));
                let stops = shutdown.run_until_cancelled(wait).await.is_none();
                if stops {
                    self.fed_no_more().await;
                }
                self.red.tidy();
                self.tell(&mut told);
                if stops || tokio::time::Instant::now() >= next {
                    next += self.how.interval;
                    let (requests, time) = self.report(start);
                    waiting.extend(requests.into_iter().map(|(request, points)| (Bytes::from(request), points)));
                    self.emit(&*outlet, &mut waiting).await;
                    let is_delta = self.how.temporality == Temporality::Delta;
                    self.give_up(&mut waiting, if is_delta && !stops { WAITING_MAX } else { 0 });
                    if is_delta {
                        start = time;
                    }
                }
                if stops {
                    return;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
