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
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const UNKNOWN_SERVICE: &str = "unknown_service";
/// Resources of one request whose service is looked up; agents send one.
const SERVICES_LOOKED_AT_MAX: usize = 64;

/// A signal that is not traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    Metrics,
    Logs,
}

impl From<Signal> for crate::otlp::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Metrics => Self::Metrics,
            Signal::Logs => Self::Logs,
        }
    }
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
        let resources = messages(request, 1).flat_map(|envelope| messages(envelope, 1));
        let services = resources.map(|resource| service_name(resource).unwrap_or(UNKNOWN_SERVICE));
        self.count_request(signal, services.take(SERVICES_LOOKED_AT_MAX).collect());
    }

    pub fn discard_json(&self, signal: Signal, request: &[u8]) {
        let services = serde_json::from_slice::<JsonRequest>(request).map(JsonRequest::services).unwrap_or_default();
        self.count_request(signal, services.iter().map(String::as_str).collect());
    }

    /// One request counts once for each service in it.
    fn count_request(&self, signal: Signal, services: BTreeSet<&str>) {
        if services.is_empty() {
            self.count(signal, UNKNOWN_SERVICE);
        }
        services.into_iter().for_each(|service| self.count(signal, service));
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
    resource_metrics: FirstFew<JsonEnvelope>,
    #[serde(default)]
    resource_logs: FirstFew<JsonEnvelope>,
}

#[derive(Deserialize)]
struct JsonEnvelope {
    #[serde(default)]
    resource: JsonResource,
}

#[derive(Deserialize, Default)]
struct JsonResource {
    #[serde(default)]
    attributes: FirstFew<JsonAttribute>,
}

#[derive(Deserialize)]
struct JsonAttribute {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: JsonValue,
}

/// Only a string is kept; every other value is passed over without being built.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonValue {
    string_value: Option<String>,
}

/// The first elements of an array; the others are read and forgotten, so that `[{},{},...]` costs no memory.
struct FirstFew<T>(Vec<T>);

impl<T> Default for FirstFew<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for FirstFew<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
            type Value = FirstFew<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut few = Vec::new();
                while few.len() < SERVICES_LOOKED_AT_MAX {
                    match array.next_element()? {
                        Some(element) => few.push(element),
                        None => return Ok(FirstFew(few)),
                    }
                }
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstFew(few))
            }
        }
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

impl JsonRequest {
    fn services(self) -> Vec<String> {
        let attributes = |envelope: JsonEnvelope| envelope.resource.attributes.0;
        let name = |attribute: JsonAttribute| {
            (attribute.key == "service.name").then_some(attribute.value.string_value).flatten()
        };
        self.resource_metrics.0.into_iter().chain(self.resource_logs.0).flat_map(attributes).filter_map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(json: &str) -> Vec<String> {
        serde_json::from_str::<JsonRequest>(json).map(JsonRequest::services).unwrap_or_default()
    }

    #[test]
    fn the_service_is_found_whatever_stands_around_it() {
        let json = r#"{"resourceMetrics":[{"scopeMetrics":[1,[2]],"resource":{"attributes":[
            {"key":"a","value":{"arrayValue":{"values":[{}]}}},{"key":"service.name","value":{"stringValue":"shop"}}]}}]}"#;
        assert_eq!(services(json), ["shop"]);
        assert_eq!(services(r#"{"resourceLogs":[{}]}"#), Vec::<String>::new());
    }

    #[test]
    fn long_arrays_are_read_without_being_kept() {
        let many = vec!["{}"; 100_000].join(",");
        let parsed: JsonRequest = serde_json::from_str(&format!(r#"{{"resourceLogs":[{many}]}}"#)).unwrap();
        assert_eq!(parsed.resource_logs.0.len(), SERVICES_LOOKED_AT_MAX);
    }
}
