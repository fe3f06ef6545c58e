//! Settings of the `prometheus` exporter.

use super::board::Style;
use super::names::label_name;
use crate::config::{Declaration, Secrecy, Section, Shape, Stability};
use crate::forward::settings::ExporterSettings;
use crate::otlp::Signal;
use std::time::Duration;

/// The `prometheus` exporter.
pub const DECLARATION: Declaration<ExporterSettings> = Declaration::new(
    "prometheus",
    Stability::Beta,
    "Shows the latest value of every metric to whoever scrapes /metrics.",
    |section| ExporterSettings::Prometheus(PrometheusSettings::decode(section)),
)
.serving(&[Signal::Metrics]);

/// `exporters::prometheus`.
#[derive(Debug, Clone, PartialEq)]
pub struct PrometheusSettings {
    /// Required: where to listen; the path is `/metrics`.
    pub endpoint: String,
    pub style: Style,
    /// Off: the older text format alone, without exemplars.
    pub open_metrics: bool,
}

impl PrometheusSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let endpoint = match section.has("endpoint") {
            true => section.endpoint("endpoint", "localhost:8889"),
            false => section.required_text("endpoint", "where to listen, e.g. 0.0.0.0:8889"),
        };
        let namespace = section.text("namespace", "");
        let const_labels = section.pairs("const_labels", Secrecy::Open);
        for (name, _) in const_labels.iter().filter(|(name, _)| label_name(name) != *name || name.is_empty()) {
            section.error("const_labels", format!("{name:?} is no name of a label"), "letters, digits and underscores");
        }
        let send_timestamps = section.bool("send_timestamps", false);
        let expiration = section.duration("metric_expiration", Duration::from_secs(5 * 60));
        let open_metrics = section.bool("enable_open_metrics", false);
        let resource_labels = section.section("resource_to_telemetry_conversion", |section| {
            section.only("exclude_service_attributes", &["false"], "all attributes become labels", "remove it");
            section.bool("enabled", false)
        });
        let add_suffixes = section.bool("add_metric_suffixes", true);
        let strategy = section.optional_text("translation_strategy", Secrecy::Open);
        let with_suffixes = match strategy.as_deref() {
            None | Some("") => add_suffixes,
            Some("UnderscoreEscapingWithSuffixes") => true,
            Some("UnderscoreEscapingWithoutSuffixes") => false,
            Some(_) => {
                let reason = "not supported: names keep to letters, digits and underscores";
                let remedy = "UnderscoreEscapingWithSuffixes or UnderscoreEscapingWithoutSuffixes";
                section.error("translation_strategy", reason, remedy);
                true
            }
        };
        section.only("without_scope_info", &["false"], "the scope is a label", "remove it");
        for key in ["tls", "auth", "cors", "middlewares"] {
            section.unsupported(key, "the page is served in the clear, to everybody who reaches the port", "remove it");
        }
        for key in ["read_timeout", "read_header_timeout", "write_timeout", "idle_timeout"] {
            section.inert(key, Shape::Duration, "connections have limits of their own");
        }
        section.inert("keep_alives_enabled", Shape::Bool, "connections are kept alive");
        section.inert("max_request_body_size", Shape::Int, "scrapes have no body");
        let style = Style {
            namespace,
            const_labels,
            send_timestamps,
            expiration_millis: expiration.as_millis() as u64,
            resource_labels,
            with_suffixes,
        };
        Self { endpoint, style, open_metrics }
    }
}
