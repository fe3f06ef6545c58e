//! Settings of the `otlp` receiver, with the Collector's names and defaults (OTLP receiver v0.159; both protocols are
//! optional there, at least one is required).

use crate::config::{Declaration, Section, Shape, Stability, WhenNull};
use crate::otlp::Signal;
use crate::receive::listener::{Limits, Paths};
use crate::receive::settings::{ReceiverSettings, ServerTlsSettings};

/// The `otlp` receiver.
pub const DECLARATION: Declaration<ReceiverSettings> = Declaration::new(
    "otlp",
    Stability::Beta,
    "OTLP over gRPC and HTTP, protobuf and JSON; each port takes all of them.",
    |section| ReceiverSettings::Otlp(OtlpReceiverSettings::decode(section)),
)
.serving(&Signal::ALL);

/// A gRPC message carries its length in 32 bits.
const MESSAGE_MIB_MAX: u64 = 4095;
/// What the Collector's `max_request_body_size` is unless told otherwise, bytes.
const BODY_BYTES_MAX: i64 = 20 << 20;

/// `receivers::otlp`.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpReceiverSettings {
    pub grpc: Option<GrpcSettings>,
    pub http: Option<HttpSettings>,
}

/// `protocols::grpc`.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcSettings {
    /// `host:port`; default `localhost:4317`.
    pub endpoint: String,
    /// MiB on the wire and after decompression; 0 means 4, as in grpc-go.
    pub max_recv_msg_size_mib: u64,
    /// Per connection; 0 means the appliance's own bound.
    pub max_concurrent_streams: u32,
    pub tls: Option<ServerTlsSettings>,
}

/// `protocols::http`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSettings {
    /// `host:port`; default `localhost:4318`.
    pub endpoint: String,
    /// Default `/v1/traces`; a missing leading slash is added.
    pub traces_url_path: String,
    pub metrics_url_path: String,
    pub logs_url_path: String,
    /// Bytes on the wire and after decompression; 0 or less means 20 MiB.
    pub max_request_body_size: i64,
    pub tls: Option<ServerTlsSettings>,
}

impl OtlpReceiverSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = section.section("protocols", |protocols| Self {
            grpc: protocols.optional("grpc", WhenNull::On, GrpcSettings::decode),
            http: protocols.optional("http", WhenNull::On, HttpSettings::decode),
        });
        if settings.grpc.is_none() && settings.http.is_none() {
            let remedy = "write protocols: {grpc: , http: }, with a colon after each";
            section.error("protocols", "must specify at least one protocol when using the OTLP receiver", remedy);
        }
        settings
    }
}

impl GrpcSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = Self {
            endpoint: section.endpoint("endpoint", "localhost:4317"),
            max_recv_msg_size_mib: section.u64("max_recv_msg_size_mib", 0),
            max_concurrent_streams: section.u32("max_concurrent_streams", 0),
            tls: section.optional("tls", WhenNull::Absent, ServerTlsSettings::decode),
        };
        if settings.max_recv_msg_size_mib > MESSAGE_MIB_MAX {
            section.error("max_recv_msg_size_mib", format!("must not be above {MESSAGE_MIB_MAX}"), "the unit is MiB");
        }
        section.only("transport", &["tcp", "tcp4", "tcp6"], "only TCP is listened on", "remove it and give host:port");
        section.inert("read_buffer_size", Shape::Int, "buffers have the appliance's own size");
        section.inert("write_buffer_size", Shape::Int, "buffers have the appliance's own size");
        section.inert("keepalive", Shape::Map, "idle connections cost next to nothing and are kept");
        common(section);
        settings
    }
}

impl HttpSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = Self {
            endpoint: section.endpoint("endpoint", "localhost:4318"),
            traces_url_path: url_path(section, "traces_url_path", "/v1/traces"),
            metrics_url_path: url_path(section, "metrics_url_path", "/v1/metrics"),
            logs_url_path: url_path(section, "logs_url_path", "/v1/logs"),
            max_request_body_size: section.i64("max_request_body_size", BODY_BYTES_MAX),
            tls: section.optional("tls", WhenNull::Absent, ServerTlsSettings::decode),
        };
        section.only("transport", &["tcp", "tcp4", "tcp6"], "only TCP is listened on", "remove it and give host:port");
        section.unsupported(
            "cors",
            "browsers cannot send here across origins yet",
            "put a proxy in front that answers CORS, and remove it",
        );
        section.inert("compression_algorithms", Shape::List, "every supported compression is always accepted");
        for key in ["read_timeout", "read_header_timeout", "write_timeout", "idle_timeout"] {
            section.inert(key, Shape::Duration, "slow clients are bounded by the appliance's own timeouts");
        }
        section.inert("keep_alives_enabled", Shape::Bool, "connections are kept while clients keep them");
        section.inert("keepalive", Shape::Map, "connections are kept while clients keep them");
        section.unsupported("response_headers", "answers carry no extra headers", "remove it, or add them in a proxy");
        common(section);
        settings
    }
}

/// What both protocols of the Collector have beside the above.
fn common(section: &mut Section<'_>) {
    section.unsupported(
        "auth",
        "clients are not authenticated by headers yet",
        "use tls::client_ca_file, or a NetworkPolicy, and remove it",
    );
    section.inert_but("include_metadata", Shape::Bool, &["false"], "no supported processor reads client metadata");
    section.only("middlewares", &["[]"], "there are no middlewares", "remove it");
}

/// A path with its leading slash.
fn url_path(section: &mut Section<'_>, key: &'static str, default: &str) -> String {
    let path = section.text(key, default);
    if path.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#')) || path.is_empty() {
        section.error(key, format!("{path:?} is no URL path"), format!("e.g. {default}"));
    }
    if path.starts_with('/') { path } else { format!("/{path}") }
}

/// What grpc-go accepts where nothing is configured.
const GRPC_MESSAGE_MIB: u64 = 4;
/// What the Collector accepts over HTTP where nothing is configured.
const HTTP_BODY_BYTES: usize = 20 * 1024 * 1024;

impl OtlpReceiverSettings {
    /// Sizes and paths for every port of the receiver: both protocols are spoken on each, so one that is not configured
    /// has its defaults.
    pub fn limits(&self) -> Limits {
        let mib = self.grpc.as_ref().map_or(0, |grpc| grpc.max_recv_msg_size_mib);
        let mib = if mib == 0 { GRPC_MESSAGE_MIB } else { mib };
        let body_bytes = self.http.as_ref().and_then(|http| usize::try_from(http.max_request_body_size).ok());
        let path = |of: fn(&HttpSettings) -> &String, default: &str| {
            self.http.as_ref().map_or_else(|| default.to_owned(), |http| of(http).clone())
        };
        Limits {
            grpc_message_bytes_max: usize::try_from(mib.saturating_mul(1024 * 1024)).unwrap_or(usize::MAX),
            http_body_bytes_max: body_bytes.filter(|bytes| *bytes > 0).unwrap_or(HTTP_BODY_BYTES),
            streams_max: self.grpc.as_ref().map(|grpc| grpc.max_concurrent_streams).filter(|streams| *streams > 0),
            paths: Paths {
                traces: path(|http| &http.traces_url_path, "/v1/traces"),
                metrics: path(|http| &http.metrics_url_path, "/v1/metrics"),
                logs: path(|http| &http.logs_url_path, "/v1/logs"),
            },
        }
    }
}
