//! Settings of the `health_check` extension, with the Collector's names and defaults.

use crate::appliance::components::ExtensionSettings;
use crate::config::{Declaration, Secrecy, Section, Shape, Stability, WhenNull};

/// The `health_check` extension.
pub const DECLARATION: Declaration<ExtensionSettings> =
    Declaration::new("health_check", Stability::Beta, "Answers probes by HTTP, as the Collector's does.", |section| {
        ExtensionSettings::HealthCheck(HealthCheckSettings::decode(section))
    });

/// `extensions::health_check`.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheckSettings {
    /// `host:port`; default `localhost:13133`.
    pub endpoint: String,
    /// Default `/`.
    pub path: String,
    /// Sent instead of the default JSON body, if given.
    pub healthy_body: Option<String>,
    pub unhealthy_body: Option<String>,
}

impl HealthCheckSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let endpoint = section.endpoint("endpoint", "localhost:13133");
        let path = section.text("path", "/");
        if !path.starts_with('/') {
            section.error("path", format!("{path:?} must begin with a slash"), format!("write /{path}"));
        }
        let bodies = section.optional("response_body", WhenNull::Absent, |body| {
            (body.optional_text("healthy", Secrecy::Open), body.optional_text("unhealthy", Secrecy::Open))
        });
        let (healthy_body, unhealthy_body) = bodies.unwrap_or_default();
        let works_not = "it does not work in the Collector either; readiness here includes spool and disk";
        section.inert("check_collector_pipeline", Shape::Map, works_not);
        section.unsupported("tls", "probes are answered in plain HTTP", "remove it; keep the port inside the pod");
        for key in ["auth", "cors", "response_headers"] {
            section.unsupported(key, "probes are answered as they are, to everybody", "remove it");
        }
        for key in ["max_request_body_size", "compression_algorithms", "include_metadata"] {
            section.inert(key, Shape::Any, "nothing of a probe is read but its path");
        }
        for key in ["read_timeout", "read_header_timeout", "write_timeout", "idle_timeout"] {
            section.inert(key, Shape::Duration, "slow clients are bounded by the appliance's own timeouts");
        }
        for key in ["use_v2", "http", "grpc", "component_health"] {
            section.unsupported(key, "only the first version of this extension is there", "use endpoint and path");
        }
        Self { endpoint, path, healthy_body, unhealthy_body }
    }
}
