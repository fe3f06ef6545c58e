//! Settings of the `otlp` receiver, with the Collector's names and defaults (OTLP receiver v0.159; both protocols are
//! optional there, at least one is required).

use crate::config::{Declaration, Section, Shape, Stability, WhenNull};
use crate::otlp::Signal;
use crate::receive::listener::{Limits, Paths};
use crate::receive::settings::{GrpcServerSettings, HttpServerSettings, Port, ReceiverSettings};

/// The `otlp` receiver.
pub const DECLARATION: Declaration<ReceiverSettings> = Declaration::new(
    "otlp",
    Stability::Beta,
    "OTLP over gRPC and HTTP, protobuf and JSON; each port takes all of them.",
    |section| ReceiverSettings::Otlp(OtlpReceiverSettings::decode(section)),
)
.serving(&Signal::ALL);

/// `receivers::otlp`.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpReceiverSettings {
    pub grpc: Option<GrpcServerSettings>,
    pub http: Option<HttpSettings>,
}

/// `protocols::http`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSettings {
    pub server: HttpServerSettings,
    /// Default `/v1/traces`; a missing leading slash is added.
    pub traces_url_path: String,
    pub metrics_url_path: String,
    pub logs_url_path: String,
}

impl OtlpReceiverSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = section.section("protocols", |protocols| Self {
            grpc: protocols.optional("grpc", WhenNull::On, |grpc| GrpcServerSettings::decode(grpc, "localhost:4317")),
            http: protocols.optional("http", WhenNull::On, HttpSettings::decode),
        });
        if let (Some(grpc), Some(http)) = (&settings.grpc, &settings.http)
            && is_one_port(&grpc.port("grpc"), &http.server.port("http"))
        {
            if let (Some(one), Some(other)) = (&grpc.policy.authenticator, &http.server.policy.authenticator)
                && one != other
            {
                let remedy = "name the same one in both blocks, or give them ports of their own";
                section.error("protocols", "grpc and http share a port and have different authenticators", remedy);
            }
            if grpc.tls != http.server.tls {
                let remedy = "write the same tls section in both blocks, or give them ports of their own";
                section.error("protocols", "grpc and http share a port and have different tls", remedy);
            }
        }
        if settings.grpc.is_none() && settings.http.is_none() {
            let remedy = "write protocols: {grpc: , http: }, with a colon after each";
            section.error("protocols", "must specify at least one protocol when using the OTLP receiver", remedy);
        }
        settings
    }
}

impl HttpSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        section.inert("profiles_url_path", Shape::Text, "profiles are not taken");
        Self {
            server: HttpServerSettings::decode(section, "localhost:4318"),
            traces_url_path: url_path(section, "traces_url_path", "/v1/traces"),
            metrics_url_path: url_path(section, "metrics_url_path", "/v1/metrics"),
            logs_url_path: url_path(section, "logs_url_path", "/v1/logs"),
        }
    }
}

/// Whether two blocks mean the same port; `:0` is another one each time.
fn is_one_port(one: &Port, other: &Port) -> bool {
    one.endpoint.address == other.endpoint.address && !one.endpoint.address.ends_with(":0")
}

/// A path with its leading slash.
fn url_path(section: &mut Section<'_>, key: &'static str, default: &str) -> String {
    let path = section.text(key, default);
    if path.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#')) || path.is_empty() {
        section.error(key, format!("{path:?} is no URL path"), format!("e.g. {default}"));
    }
    if path.starts_with('/') { path } else { format!("/{path}") }
}

impl OtlpReceiverSettings {
    /// Sizes and paths for every port of the receiver: both protocols are spoken on each, so one that is not configured
    /// has its defaults.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::of(self.grpc.as_ref(), self.http.as_ref().map(|http| &http.server));
        if let Some(http) = &self.http {
            limits.paths = Paths {
                traces: http.traces_url_path.clone(),
                metrics: http.metrics_url_path.clone(),
                logs: http.logs_url_path.clone(),
            };
        }
        limits
    }

    /// Where both protocols name the same address, it is one port: each speaks both anyway.
    pub fn ports(&self) -> Vec<Port> {
        let mut ports: Vec<Port> = self.grpc.iter().map(|grpc| grpc.port("grpc")).collect();
        if let Some(http) = &self.http {
            let port = http.server.port("http");
            match ports.iter_mut().find(|other| is_one_port(other, &port)) {
                // What either block asks for is asked of everybody who comes there.
                Some(shared) => shared.policy = port.policy.with(&shared.policy),
                None => ports.push(port),
            }
        }
        ports
    }
}
