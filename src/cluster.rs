//! The Kubernetes side: watches, webhook server, certificates, Services, status.

use std::collections::BTreeMap;

/// A configuration that a custom resource brings, as the appliance is asked to run it.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineSource {
    /// `namespace/name` of the OpenTelemetryCollector; prefixes its pipelines' names.
    pub owner: String,
    /// The CR's `spec.config` as YAML text.
    pub config: String,
    /// The CR's `spec.env`, for `${env:NAME}`.
    pub env: BTreeMap<String, String>,
}

/// Runs the pipelines that custom resources bring. The appliance implements it; the cluster room calls it.
pub trait PipelineHost: Send + Sync + 'static {
    /// Starts or replaces the pipelines of `source.owner`. `Err`: nothing changed; the lines say what is wrong and where.
    fn apply(&self, source: PipelineSource) -> impl Future<Output = Result<Applied, Vec<String>>> + Send;

    /// Stops the listeners of `owner`; what it spooled goes on being forwarded.
    fn remove(&self, owner: &str) -> impl Future<Output = ()> + Send;
}

/// What [`PipelineHost::apply`] started.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Applied {
    /// Every listener with its Service port name (`otlp-grpc`, `otlp-http`, ...), for Services and EndpointSlices.
    pub ports: Vec<ListenerPort>,
    pub warnings: Vec<String>,
}

/// One listener of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerPort {
    /// Component id and protocol as the operator names Service ports, e.g. `otlp-grpc`.
    pub name: String,
    pub port: u16,
    /// `grpc` or `http`.
    pub app_protocol: Option<String>,
}
