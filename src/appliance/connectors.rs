//! The connectors that a configuration can name, and how they are wired.
//!
//! `forward` is no running thing: what enters it takes the way of the pipelines behind it, in the same append as the
//! pipeline that it ends, so that the client's answer speaks for all of them.

use super::intake::{PipelineIntake, store_items};
use crate::config::{Declaration, Stability};
use crate::otlp::Signal;
use crate::process::Client;
use crate::process::connector::{Connector, EmitError, Outlet, Task};
use crate::red::connector::settings::ServiceGraphConnectorSettings;
use crate::red::connector::span_metrics::SpanMetricsConnectorSettings;
use crate::red::connector::{ConnectorMetrics, MetricsConnector};
use crate::spool::Spool;
use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The settings of one configured connector.
#[derive(Debug, Clone, PartialEq)]
pub enum ConnectorSettings {
    Forward,
    SpanMetrics(Box<SpanMetricsConnectorSettings>),
    ServiceGraph(Box<ServiceGraphConnectorSettings>),
}

/// The `forward` connector.
pub const FORWARD: Declaration<ConnectorSettings> =
    Declaration::new("forward", Stability::Beta, "Hands on what a pipeline took in to other pipelines.", |_| {
        ConnectorSettings::Forward
    })
    .connecting(&[
        (Signal::Traces, Signal::Traces),
        (Signal::Metrics, Signal::Metrics),
        (Signal::Logs, Signal::Logs),
    ]);

/// The `span_metrics` connector.
pub const SPAN_METRICS: Declaration<ConnectorSettings> = Declaration::new(
    "span_metrics",
    Stability::Alpha,
    "Counts spans and measures their duration, by service and operation.",
    |section| ConnectorSettings::SpanMetrics(Box::new(SpanMetricsConnectorSettings::decode(section))),
)
.with_aliases(&["spanmetrics"])
.connecting(&[(Signal::Traces, Signal::Metrics)]);

/// The `service_graph` connector.
pub const SERVICE_GRAPH: Declaration<ConnectorSettings> =
    Declaration::new("service_graph", Stability::Alpha, "Counts and measures calls between services.", |section| {
        ConnectorSettings::ServiceGraph(Box::new(ServiceGraphConnectorSettings::decode(section)))
    })
    .with_aliases(&["servicegraph"])
    .connecting(&[(Signal::Traces, Signal::Metrics)]);

impl ConnectorSettings {
    /// What runs under this name; `None` for what is wiring alone.
    pub(super) fn build(&self, name: String, metrics: &ConnectorMetrics) -> Option<Arc<dyn Connector>> {
        let (engine, how) = match self {
            Self::Forward => return None,
            Self::SpanMetrics(settings) => settings.build(name),
            Self::ServiceGraph(settings) => settings.build(name),
        };
        Some(Arc::new(MetricsConnector::new(engine, how, metrics)))
    }
}

/// Where a connector's own requests go.
pub(super) struct ConnectorOutlet {
    pub spool: Spool,
    pub pipelines: Vec<PipelineIntake>,
}

impl Outlet for ConnectorOutlet {
    fn emit(&self, request: Bytes, items: u32) -> Task<'_, Result<(), EmitError>> {
        Box::pin(async move {
            let client = Client::of(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            let stored = store_items(&self.spool, &self.pipelines, (Signal::Metrics, &request, items), &client).await;
            stored.map_err(|error| EmitError(error.to_string()))
        })
    }
}
