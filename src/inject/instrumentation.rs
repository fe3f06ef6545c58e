//! The Instrumentation resource (`opentelemetry.io/v1alpha1`), as far as this version acts on it, with its defaults.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, SecurityContext};
use serde::Deserialize;
use serde_json::Value;

use super::agent_files::AgentSection;
use super::apache::ApacheSection;
use super::go::GoSection;
use super::java::JavaSection;
use super::nginx::NginxSection;

/// An Instrumentation that was read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Instrumentation {
    pub namespace: String,
    pub name: String,
    /// `metadata.generation`; 0 for the built-in one.
    pub generation: i64,
    pub spec: InstrumentationSpec,
}

/// Its `spec` has a shape that this version does not understand; the text says where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedInstrumentation(String);

/// `spec`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstrumentationSpec {
    pub exporter: Exporter,
    pub resource: ResourceSection,
    pub propagators: Vec<String>,
    pub sampler: Sampler,
    pub defaults: Defaults,
    pub env: Vec<EnvVar>,
    pub image_pull_policy: String,
    pub init_container_security_context: Option<SecurityContext>,
    pub java: JavaSection,
    pub nodejs: AgentSection,
    pub python: AgentSection,
    pub dotnet: AgentSection,
    pub go: GoSection,
    pub apache_httpd: ApacheSection,
    pub nginx: NginxSection,
}

/// `spec.exporter`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Exporter {
    pub endpoint: String,
    pub tls: Tls,
}

/// `spec.exporter.tls`. The names of the file keys are snake case in the resource, too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Tls {
    #[serde(rename = "secretName")]
    pub secret_name: String,
    #[serde(rename = "configMapName")]
    pub config_map_name: String,
    pub ca_file: String,
    pub cert_file: String,
    pub key_file: String,
}

/// `spec.resource`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ResourceSection {
    #[serde(rename = "resourceAttributes")]
    pub attributes: BTreeMap<String, String>,
    #[serde(rename = "addK8sUIDAttributes")]
    pub add_k8s_uid_attributes: bool,
}

/// `spec.sampler`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Sampler {
    #[serde(rename = "type")]
    pub kind: String,
    pub argument: String,
}

/// `spec.defaults`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Defaults {
    pub use_labels_for_resource_attributes: bool,
}

impl Instrumentation {
    /// Reads `spec` as the API server stores it. Keys that are not known are left to later versions.
    ///
    /// # Errors
    /// A known key has a value of another type.
    pub fn read(namespace: &str, name: &str, generation: i64, spec: Value) -> Result<Self, MalformedInstrumentation> {
        let spec = match spec {
            Value::Null => InstrumentationSpec::default(),
            spec => InstrumentationSpec::deserialize(without_nulls(spec))
                .map_err(|e| MalformedInstrumentation(e.to_string()))?,
        };
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), generation, spec })
    }

    /// The default for namespaces without any: everything to Spanreel itself.
    #[must_use]
    pub fn built_in(endpoint: &str) -> Self {
        let exporter = Exporter { endpoint: endpoint.to_owned(), ..Exporter::default() };
        let propagators = ["tracecontext", "baggage"].map(str::to_owned).to_vec();
        Self {
            namespace: String::new(),
            name: "built-in".to_owned(),
            generation: 0,
            spec: InstrumentationSpec { exporter, propagators, ..InstrumentationSpec::default() },
        }
    }

    /// `namespace/name`, or `built-in`.
    #[must_use]
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

/// `key: null` means the same as no key, at any depth.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
