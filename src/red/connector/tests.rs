//! What connectors say to the pipelines behind them.

use super::*;
use crate::process::connector::EmitError;
use crate::red::tests::{sent_by, span, tempo};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use prost::Message;
use std::sync::Mutex;

/// Takes requests, unless it is told to refuse them.
#[derive(Default)]
struct Spool {
    taken: Mutex<Vec<Bytes>>,
    refusals_left: Mutex<u32>,
}

impl Outlet for Spool {
    fn emit(&self, request: Bytes, _: u32) -> Task<'_, Result<(), EmitError>> {
        let mut refusals_left = self.refusals_left.lock().unwrap();
        let is_refused = *refusals_left > 0;
        *refusals_left -= u32::from(is_refused);
        if !is_refused {
            self.taken.lock().unwrap().push(request);
        }
        Box::pin(std::future::ready(if is_refused { Err(EmitError("full".to_owned())) } else { Ok(()) }))
    }
}

impl Spool {
    /// The sum over all points of `traces_spanmetrics_calls`.
    fn calls(&self) -> i64 {
        let mut calls = 0;
        for request in self.taken.lock().unwrap().iter() {
            let request = ExportMetricsServiceRequest::decode(request.clone()).unwrap();
            let metrics = request.resource_metrics.iter().flat_map(|it| &it.scope_metrics).flat_map(|it| &it.metrics);
            for metric in metrics.filter(|metric| metric.name == "traces_spanmetrics_calls") {
                let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
                for point in &sum.data_points {
                    let Some(Value::AsInt(value)) = point.value else { panic!("{point:?}") };
                    calls += value;
                }
            }
        }
        calls
    }
}

const SHORT: Duration = Duration::from_millis(2);

fn connector(metrics: &ConnectorMetrics) -> Arc<MetricsConnector> {
    let how = How {
        name: "span_metrics".to_owned(),
        scope: "spanmetricsconnector",
        interval: 10 * SHORT,
        temporality: Temporality::Delta,
        exemplars_max: 0,
        offset: Duration::ZERO,
    };
    Arc::new(MetricsConnector { retry_pause: SHORT, ..MetricsConnector::new(tempo(), how, metrics) })
}

fn request() -> Bytes {
    sent_by("shop", vec![span(2, 1, 0, 3)]).into()
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(SHORT).await;
    }
}

#[tokio::test]
async fn differences_count_what_came_before_the_start_and_while_it_ends() {
    let (connector, spool) = (connector(&ConnectorMetrics::default()), Arc::new(Spool::default()));
    let shutdown = CancellationToken::new();
    // Ports are handed over before connectors begin, and requests that have begun end after they were told to stop.
    connector.consume(&request());
    let held = Arc::clone(&connector);
    let running = tokio::spawn(connector.run(Arc::clone(&spool) as _, shutdown.clone()));
    until(|| spool.calls() == 1).await;
    shutdown.cancel();
    tokio::time::sleep(50 * SHORT).await;
    held.consume(&request());
    drop(held);
    running.await.unwrap();
    assert_eq!(spool.calls(), 2);
}

#[tokio::test]
async fn a_connector_that_is_to_end_does_not_wait_for_ever() {
    let (connector, spool) = (connector(&ConnectorMetrics::default()), Arc::new(Spool::default()));
    let Ok(connector) = Arc::try_unwrap(connector) else { panic!("nobody else has it") };
    let connector = Arc::new(MetricsConnector { last_requests_wait: SHORT, ..connector });
    connector.consume(&request());
    let _held = Arc::clone(&connector);
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    connector.run(Arc::clone(&spool) as _, shutdown).await;
    assert_eq!(spool.calls(), 1);
}

#[tokio::test]
async fn differences_that_were_not_stored_are_said_again_and_counted_when_they_are_given_up() {
    let metrics = ConnectorMetrics::default();
    let (connector, spool, shutdown) = (connector(&metrics), Arc::new(Spool::default()), CancellationToken::new());
    let lost = || metrics.lost_points.get_or_create(&ConnectorLabels { connector: "span_metrics".to_owned() }).get();
    *spool.refusals_left.lock().unwrap() = 2 * TRIES_MAX;
    connector.consume(&request());
    let held = Arc::clone(&connector);
    let running = tokio::spawn(connector.run(Arc::clone(&spool) as _, shutdown.clone()));
    until(|| spool.calls() == 1).await;
    assert_eq!(lost(), 0);
    // The disk stays full until the end.
    *spool.refusals_left.lock().unwrap() = u32::MAX;
    held.consume(&request());
    drop(held);
    shutdown.cancel();
    running.await.unwrap();
    // Calls, latency and size of one series, and four figures of a call from outside.
    assert_eq!((spool.calls(), lost()), (1, 7));
}
