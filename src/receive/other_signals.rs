//! Metrics and logs that no pipeline asked for.
//!
//! Every agent sends them along by default. Refusing them fills the pods' logs with errors, so by default they are taken
//! and thrown away: counted by signal and service, and said once in the log. A setting refuses them as a Collector
//! without such a pipeline would.

use super::answer::Refusal;
use super::metrics::Metrics;
use crate::appliance::spanreel::settings::OtherSignals as Policy;
use crate::otlp::view::messages;
use crate::otlp::wire::Fields;
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const UNKNOWN_SERVICE: &str = "unknown_service";

/// A signal that is not traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    Metrics,
    Logs,
}

impl Signal {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// Takes or refuses them, and counts.
#[derive(Clone)]
pub struct OtherSignals {
    policy: Policy,
    metrics: Metrics,
    said: Arc<[AtomicBool; 2]>,
}

impl OtherSignals {
    pub fn new(policy: Policy, metrics: Metrics) -> Self {
        Self { policy, metrics, said: Arc::default() }
    }

    pub fn admit_grpc(&self, signal: Signal) -> Result<(), Refusal> {
        let service = match signal {
            Signal::Metrics => "opentelemetry.proto.collector.metrics.v1.MetricsService",
            Signal::Logs => "opentelemetry.proto.collector.logs.v1.LogsService",
        };
        self.admit(|| format!("unknown service {service}"))
    }

    pub fn admit_http(&self, signal: Signal) -> Result<(), Refusal> {
        self.admit(|| format!("no pipeline takes {}", signal.as_str()))
    }

    fn admit(&self, message: impl FnOnce() -> String) -> Result<(), Refusal> {
        match self.policy {
            Policy::Discard => Ok(()),
            Policy::Refuse => Err(Refusal::Unimplemented(message())),
        }
    }

    /// Counts a request by the services in it. Resources lie at the same field numbers in every signal.
    pub fn discard_protobuf(&self, signal: Signal, request: &[u8]) {
        let mut any = false;
        for resource in messages(request, 1).flat_map(|envelope| messages(envelope, 1)) {
            any = true;
            self.count(signal, service_name(resource).unwrap_or(UNKNOWN_SERVICE));
        }
        if !any {
            self.count(signal, UNKNOWN_SERVICE);
        }
    }

    pub fn discard_json(&self, signal: Signal, request: &[u8]) {
        let services = serde_json::from_slice::<JsonRequest>(request).map(JsonRequest::services).unwrap_or_default();
        services.iter().for_each(|service| self.count(signal, service));
        if services.is_empty() {
            self.count(signal, UNKNOWN_SERVICE);
        }
    }

    fn count(&self, signal: Signal, service: &str) {
        self.metrics.count_discarded(signal.as_str(), service);
        if !self.said[signal as usize].swap(true, Ordering::Relaxed) {
            tracing::info!(
                signal = signal.as_str(),
                service,
                "agents send {} too; they are answered OK and discarded (said once; counted in spanreel_discarded_total). \
                 Switch them off in the agents with OTEL_{}_EXPORTER=none, or refuse them with extensions::spanreel::other_signals: refuse",
                signal.as_str(),
                signal.as_str().to_uppercase(),
            );
        }
    }
}

/// The string value of `service.name` in a Resource.
fn service_name(resource: &[u8]) -> Option<&str> {
    messages(resource, 1).find_map(|attribute| {
        let (mut key, mut value) = (None, None);
        for field in Fields::new(attribute).map_while(Result::ok) {
            key = field.bytes(1).or(key);
            value = field.bytes(2).or(value);
        }
        let name = messages(value?, 1).next()?;
        (key? == b"service.name").then_some(())?;
        std::str::from_utf8(name).ok()
    })
}

/// Just enough of OTLP/JSON to find the service.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonRequest {
    #[serde(default)]
    resource_metrics: Vec<JsonEnvelope>,
    #[serde(default)]
    resource_logs: Vec<JsonEnvelope>,
}

#[derive(Deserialize)]
struct JsonEnvelope {
    #[serde(default)]
    resource: JsonResource,
}

#[derive(Deserialize, Default)]
struct JsonResource {
    #[serde(default)]
    attributes: Vec<JsonAttribute>,
}

#[derive(Deserialize)]
struct JsonAttribute {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: serde_json::Value,
}

impl JsonRequest {
    fn services(self) -> Vec<String> {
        let attributes = |envelope: JsonEnvelope| envelope.resource.attributes;
        let name = |attribute: JsonAttribute| {
            let value = attribute.value.get("stringValue")?.as_str()?.to_owned();
            (attribute.key == "service.name").then_some(value)
        };
        self.resource_metrics.into_iter().chain(self.resource_logs).flat_map(attributes).filter_map(name).collect()
    }
}
