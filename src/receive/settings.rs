//! What receivers can be configured, and the blocks they share.

use super::jaeger::settings::JaegerReceiverSettings;
use super::listener::{Endpoint, Limits, Paths};
use super::otlp::settings::OtlpReceiverSettings;
use super::zipkin::settings::ZipkinReceiverSettings;
use super::{Dialect, zipkin};
use crate::config::{Section, Shape, WhenNull};
use std::path::PathBuf;

/// A gRPC message carries its length in 32 bits.
const MESSAGE_MIB_MAX: u64 = 4095;
/// What the Collector's `max_request_body_size` is unless told otherwise, bytes.
const BODY_BYTES_MAX: i64 = 20 << 20;
/// What grpc-go accepts where nothing is configured.
const GRPC_MESSAGE_MIB: u64 = 4;

/// The settings of one configured receiver.
#[derive(Debug, Clone, PartialEq)]
pub enum ReceiverSettings {
    Otlp(OtlpReceiverSettings),
    Zipkin(ZipkinReceiverSettings),
    Jaeger(JaegerReceiverSettings),
}

/// A port that a receiver's configuration asks for.
#[derive(Debug, Clone)]
pub struct Port {
    /// As configured, for status and Services; empty where the receiver has but one.
    pub protocol: &'static str,
    pub endpoint: Endpoint,
}

/// A server of HTTP (`confighttp.ServerConfig`, the part that is supported).
#[derive(Debug, Clone, PartialEq)]
pub struct HttpServerSettings {
    /// `host:port`.
    pub endpoint: String,
    /// Bytes on the wire and after decompression; 0 or less means 20 MiB.
    pub max_request_body_size: i64,
    pub tls: Option<ServerTlsSettings>,
}

/// A server of gRPC (`configgrpc.ServerConfig`, the part that is supported).
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcServerSettings {
    /// `host:port`.
    pub endpoint: String,
    /// MiB on the wire and after decompression; 0 means 4, as in grpc-go.
    pub max_recv_msg_size_mib: u64,
    /// Per connection; 0 means the appliance's own bound.
    pub max_concurrent_streams: u32,
    pub tls: Option<ServerTlsSettings>,
}

impl ReceiverSettings {
    /// What it listens on.
    pub fn ports(&self) -> Vec<Port> {
        match self {
            Self::Otlp(settings) => settings.ports(),
            Self::Zipkin(settings) => vec![settings.http.port("")],
            Self::Jaeger(settings) => settings.ports(),
        }
    }

    /// Sizes and paths for every port of the receiver.
    pub fn limits(&self) -> Limits {
        match self {
            Self::Otlp(settings) => settings.limits(),
            Self::Zipkin(settings) => Limits::of(None, Some(&settings.http)),
            Self::Jaeger(settings) => Limits::of(settings.grpc.as_ref(), settings.thrift_http.as_ref()),
        }
    }

    /// What is spoken on its ports.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Otlp(_) => Dialect::Otlp,
            Self::Zipkin(settings) => Dialect::Zipkin(zipkin::Rules { parse_string_tags: settings.parse_string_tags }),
            Self::Jaeger(_) => Dialect::Jaeger,
        }
    }
}

impl HttpServerSettings {
    /// Reads the keys of a block, which may have others.
    pub fn decode(section: &mut Section<'_>, endpoint: &str) -> Self {
        let settings = Self {
            endpoint: section.endpoint("endpoint", endpoint),
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

    pub fn port(&self, protocol: &'static str) -> Port {
        Port { protocol, endpoint: Endpoint::tcp(&self.endpoint, self.tls.clone()) }
    }
}

impl GrpcServerSettings {
    /// Reads the keys of a block.
    pub fn decode(section: &mut Section<'_>, endpoint: &str) -> Self {
        let settings = Self {
            endpoint: section.endpoint("endpoint", endpoint),
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

    pub fn port(&self, protocol: &'static str) -> Port {
        Port { protocol, endpoint: Endpoint::tcp(&self.endpoint, self.tls.clone()) }
    }
}

/// What both kinds of server have beside the above.
fn common(section: &mut Section<'_>) {
    section.unsupported(
        "auth",
        "clients are not authenticated by headers yet",
        "use tls::client_ca_file, or a NetworkPolicy, and remove it",
    );
    section.inert_but("include_metadata", Shape::Bool, &["false"], "no supported processor reads client metadata");
    section.only("middlewares", &["[]"], "there are no middlewares", "remove it");
}

impl Limits {
    /// The sizes of these blocks. Both protocols are spoken on each port, so one that is not configured has its defaults.
    pub fn of(grpc: Option<&GrpcServerSettings>, http: Option<&HttpServerSettings>) -> Self {
        let mib = grpc.map_or(0, |grpc| grpc.max_recv_msg_size_mib);
        let mib = if mib == 0 { GRPC_MESSAGE_MIB } else { mib };
        let body_bytes = http.and_then(|http| usize::try_from(http.max_request_body_size).ok());
        Self {
            grpc_message_bytes_max: usize::try_from(mib.saturating_mul(1024 * 1024)).unwrap_or(usize::MAX),
            http_body_bytes_max: body_bytes.filter(|bytes| *bytes > 0).unwrap_or(BODY_BYTES_MAX as usize),
            streams_max: grpc.map(|grpc| grpc.max_concurrent_streams).filter(|streams| *streams > 0),
            paths: Paths::default(),
        }
    }
}

/// TLS of a listener (`configtls.ServerConfig`, the part that is supported).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTlsSettings {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Given: clients must present a certificate signed by it.
    pub client_ca_file: Option<PathBuf>,
}

impl ServerTlsSettings {
    /// Reads a `tls` block of a listener.
    pub fn decode(section: &mut Section<'_>) -> Self {
        let cert_file = section.file_path("cert_file");
        let key_file = section.file_path("key_file");
        let client_ca_file = section.file_path("client_ca_file");
        for (key, file) in [("cert_pem", "cert_file"), ("key_pem", "key_file"), ("ca_pem", "client_ca_file")] {
            section.unsupported(key, "certificates are read from files", &format!("use {file}"));
        }
        section.inert("ca_file", Shape::Text, "a listener trusts client_ca_file only");
        section.only("min_version", &["", "1.2"], "TLS 1.2 and 1.3 are served", "remove it");
        section.only("max_version", &["", "1.3"], "TLS 1.2 and 1.3 are served", "remove it");
        section.inert("cipher_suites", Shape::List, "the suites are fixed, all of them with forward secrecy");
        section.only("include_insecure_cipher_suites", &["false"], "insecure suites do not exist here", "remove it");
        section.inert("curve_preferences", Shape::List, "the key exchange groups are fixed");
        section.inert("reload_interval", Shape::Duration, "certificates are read when the configuration is loaded");
        section.inert("client_ca_file_reload", Shape::Bool, "certificates are read when the configuration is loaded");
        section.inert("include_system_ca_certs_pool", Shape::Bool, "a listener trusts client_ca_file only");
        section.unsupported("tpm", "keys are read from files", "use key_file");
        for (key, file, inline) in [("cert_file", &cert_file, "cert_pem"), ("key_file", &key_file, "key_pem")] {
            if file.is_none() && !section.has(inline) {
                section.error(
                    key,
                    "a TLS listener needs cert_file and key_file",
                    "PEM files; or remove the tls section",
                );
            }
        }
        Self { cert_file: cert_file.unwrap_or_default(), key_file: key_file.unwrap_or_default(), client_ca_file }
    }
}
