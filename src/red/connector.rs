//! The connectors `span_metrics` and `service_graph`: the same counters under the Collector's names, reported as OTLP into
//! pipelines of metrics.

pub mod settings;

use super::otlp::{Report, Request, Temporality, requests};
use super::{Engine, Red};
use crate::process::connector::{Connector, Outlet, Task};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// Before a report that the spool did not take is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// So often. Of a cumulative report nothing is lost with it: the next one says it again.
const TRIES_MAX: u32 = 5;
/// How late, at most, a span is given up that waits for the other side of its call.
const TIDY_INTERVAL: Duration = Duration::from_secs(2);

/// A connector at work.
pub struct MetricsConnector {
    red: Red,
    how: How,
}

/// How it reports.
#[derive(Debug, Clone, PartialEq)]
pub struct How {
    pub scope: &'static str,
    pub interval: Duration,
    pub temporality: Temporality,
    pub exemplars_max: usize,
    /// Points are dated so long before they are made.
    pub offset: Duration,
}

impl MetricsConnector {
    pub fn new(engine: Engine, how: How) -> Self {
        Self { red: Red::new(engine), how }
    }

    /// The next report, and the moment it is about, in Unix nanoseconds.
    fn report(&self, start: u64) -> (Vec<Request>, u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = now.saturating_sub(self.how.offset).as_nanos() as u64;
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

    async fn emit(&self, outlet: &dyn Outlet, requests: Vec<Request>) {
        for (request, points) in requests {
            let request = Bytes::from(request);
            let mut tries = 0;
            while let Err(error) = outlet.emit(request.clone(), points).await {
                tries += 1;
                if tries >= TRIES_MAX {
                    tracing::warn!(scope = self.how.scope, points, %error, "metrics from spans could not be stored and are left out");
                    break;
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

impl Connector for MetricsConnector {
    fn consume(&self, request: &Bytes) {
        self.red.observe(request);
    }

    fn run(self: Arc<Self>, outlet: Arc<dyn Outlet>, shutdown: CancellationToken) -> Task<'static, ()> {
        Box::pin(async move {
            let (_, mut start) = self.report(0);
            let mut next = tokio::time::Instant::now() + self.how.interval;
            loop {
                let wait = tokio::time::sleep_until(next.min(tokio::time::Instant::now() + TIDY_INTERVAL));
                let stops = shutdown.run_until_cancelled(wait).await.is_none();
                self.red.tidy();
                if stops || tokio::time::Instant::now() >= next {
                    next += self.how.interval;
                    let (requests, time) = self.report(start);
                    self.emit(&*outlet, requests).await;
                    if self.how.temporality == Temporality::Delta {
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
