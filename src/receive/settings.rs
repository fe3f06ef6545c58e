//! What receivers can be configured, and the blocks they share.

use super::inflate::{Encoding, SUPPORTED};
use super::jaeger::settings::JaegerReceiverSettings;
use super::listener::{ConnectionAge, Endpoint, Limits, Paths, Waits};
use super::otlp::settings::OtlpReceiverSettings;
use super::zipkin::settings::ZipkinReceiverSettings;
use super::{Dialect, zipkin};
use crate::config::duration;
use crate::config::tls::{self, TlsVersions};
use crate::config::{Role, Secrecy, Section, Shape, WhenNull};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A gRPC message carries its length in 32 bits.
const MESSAGE_MIB_MAX: u64 = 4095;
/// What the Collector's `max_request_body_size` is unless told otherwise, bytes.
const BODY_BYTES_MAX: i64 = 20 << 20;
/// What `client_ca_file_reload` means where there is no `reload_interval`.
const CLIENT_CA_RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// Clients are not asked more often whether they are there, as in grpc-go.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(1);
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
    pub policy: PolicySettings,
}

/// What a port asks of requests and adds to answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySettings {
    /// The id of the extension that lets clients in; `None`: everybody.
    pub authenticator: Option<String>,
    pub cors: Option<CorsSettings>,
    pub response_headers: Vec<(String, String)>,
    /// Whether processors may see a request's headers.
    pub include_metadata: bool,
}

/// `cors` of a server of HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsSettings {
    /// With `*` for any part; none: no other origin may send here.
    pub allowed_origins: Vec<String>,
    /// Beside those that browsers may always send; empty: the usual ones.
    pub allowed_headers: Vec<String>,
    pub exposed_headers: Vec<String>,
    /// How long browsers may remember the answer; 0: as long as they like.
    pub max_age_seconds: u32,
}

impl CorsSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = Self {
            allowed_origins: section.list("allowed_origins"),
            allowed_headers: section.list("allowed_headers"),
            exposed_headers: section.list("exposed_headers"),
            max_age_seconds: section.u32("max_age", 0),
        };
        if settings.allowed_origins.is_empty() {
            let remedy = "name origins, or remove the section";
            section.warn("allowed_origins", "without origins nothing is allowed to any", remedy);
        }
        for origin in settings.allowed_origins.iter().filter(|origin| origin.matches('*').count() > 1) {
            section.error("allowed_origins", format!("{origin:?} has more than one *"), "one * stands for any text");
        }
        settings
    }
}

/// A server of HTTP (`confighttp.ServerConfig`, the part that is supported).
#[derive(Debug, Clone, PartialEq)]
pub struct HttpServerSettings {
    /// `host:port`, or the path of a socket.
    pub endpoint: String,
    pub transport: ServerTransport,
    /// Bytes on the wire and after decompression; 0 or less means 20 MiB.
    pub max_request_body_size: i64,
    /// `compression_algorithms`, `""` being none; `None`: all that are supported.
    pub compression_algorithms: Option<Vec<String>>,
    /// `read_header_timeout`: how long the head of a request may take; `None`: the appliance's own bound.
    pub head_max: Option<Duration>,
    pub keepalive: HttpKeepalive,
    pub tls: Option<ServerTlsSettings>,
    pub policy: PolicySettings,
}

/// What a server listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerTransport {
    #[default]
    Tcp,
    /// A socket in the file system.
    Unix,
}

/// `keepalive` of a server of HTTP, in either of the Collector's spellings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpKeepalive {
    /// Whether a connection of HTTP/1.1 serves more than one request.
    pub enabled: bool,
    /// How long a connection of HTTP/1.1 may wait for its next request; `None`: as long as there is room for it.
    pub idle_max: Option<Duration>,
}

/// `keepalive::server_parameters` of a server of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrpcKeepalive {
    /// `max_connection_age` and `max_connection_age_grace`.
    pub age: Option<ConnectionAge>,
    /// `max_connection_idle`: how long a connection may be without a call.
    pub idle_max: Option<Duration>,
    /// `time`: how often a client is asked whether it is there; `None`: as often as the appliance asks by itself.
    pub ping_interval: Option<Duration>,
    /// `timeout`: how long it may take to say so.
    pub ping_wait_max: Option<Duration>,
}

/// A server of gRPC (`configgrpc.ServerConfig`, the part that is supported).
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcServerSettings {
    /// `host:port`, or the path of a socket.
    pub endpoint: String,
    pub transport: ServerTransport,
    /// MiB on the wire and after decompression; 0 means 4, as in grpc-go.
    pub max_recv_msg_size_mib: u64,
    /// Per connection; 0 means the appliance's own bound.
    pub max_concurrent_streams: u32,
    pub keepalive: GrpcKeepalive,
    pub tls: Option<ServerTlsSettings>,
    pub policy: PolicySettings,
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
        let (endpoint, transport) = address(section, endpoint);
        let settings = Self {
            endpoint,
            transport,
            max_request_body_size: section.i64("max_request_body_size", BODY_BYTES_MAX),
            compression_algorithms: compression_algorithms(section),
            head_max: nonzero(section, "read_header_timeout"),
            keepalive: HttpKeepalive::decode(section),
            tls: section.optional("tls", WhenNull::Absent, ServerTlsSettings::decode),
            policy: PolicySettings {
                cors: section.optional("cors", WhenNull::Absent, CorsSettings::decode),
                response_headers: response_headers(section),
                ..PolicySettings::decode(section)
            },
        };
        for key in ["read_timeout", "write_timeout"] {
            section.inert(key, Shape::Duration, "slow clients are bounded by the appliance's own timeouts");
        }
        let head_bound = Waits::default().head_max;
        if settings.head_max.is_some_and(|max| max > head_bound) {
            let reason = format!("no head of a request is waited for longer than {}", duration::format(head_bound));
            section.note("read_header_timeout", reason);
        }
        section.moved("keepalive", &[("idle_timeout", false), ("keep_alives_enabled", true)]);
        section.only("middlewares", &["[]"], "there are no middlewares", "remove it");
        settings
    }

    pub fn port(&self, protocol: &'static str) -> Port {
        let endpoint = Endpoint::serving(&self.endpoint, self.transport, self.tls.clone());
        Port { protocol, endpoint, policy: self.policy.clone() }
    }
}

impl GrpcServerSettings {
    /// Reads the keys of a block.
    pub fn decode(section: &mut Section<'_>, endpoint: &str) -> Self {
        let (endpoint, transport) = address(section, endpoint);
        let settings = Self {
            endpoint,
            transport,
            max_recv_msg_size_mib: section.u64("max_recv_msg_size_mib", 0),
            max_concurrent_streams: section.u32("max_concurrent_streams", 0),
            keepalive: section.section("keepalive", GrpcKeepalive::decode),
            tls: section.optional("tls", WhenNull::Absent, ServerTlsSettings::decode),
            policy: PolicySettings::decode(section),
        };
        if settings.max_recv_msg_size_mib > MESSAGE_MIB_MAX {
            section.error("max_recv_msg_size_mib", format!("must not be above {MESSAGE_MIB_MAX}"), "the unit is MiB");
        }
        for key in ["read_buffer_size", "write_buffer_size"] {
            if section.accept_int(key).is_some_and(|bytes| bytes < 0) {
                section.error(key, "must not be negative", "or remove it");
            } else if section.has(key) && section.is_sound() {
                section.note(key, "accepted, without effect: buffers have the appliance's own size");
            }
        }
        section.only("middlewares", &["[]"], "there are no middlewares", "remove it");
        settings
    }

    pub fn port(&self, protocol: &'static str) -> Port {
        let endpoint = Endpoint::serving(&self.endpoint, self.transport, self.tls.clone());
        Port { protocol, endpoint, policy: self.policy.clone() }
    }
}

impl PolicySettings {
    /// Of one port that two blocks share.
    pub fn with(self, other: &Self) -> Self {
        Self {
            authenticator: self.authenticator.or_else(|| other.authenticator.clone()),
            include_metadata: self.include_metadata || other.include_metadata,
            ..self
        }
    }

    /// What both kinds of server have.
    fn decode(section: &mut Section<'_>) -> Self {
        let authenticator = section.optional("auth", WhenNull::Absent, |auth| {
            auth.inert("request_params", Shape::List, "tokens are read from headers only");
            let id = auth.reference("authenticator", Role::Extension);
            if id.is_none() && auth.is_sound() {
                auth.error("authenticator", "is missing", "name an extension, e.g. basicauth or bearertokenauth");
            }
            id
        });
        Self {
            authenticator: authenticator.flatten(),
            include_metadata: section.bool("include_metadata", false),
            ..Self::default()
        }
    }
}

/// An empty list says nothing, as in the Collector.
fn compression_algorithms(section: &mut Section<'_>) -> Option<Vec<String>> {
    let names = section.list("compression_algorithms");
    if let Some(other) = names.iter().find(|name| Encoding::from_name(name).is_none()) {
        section.note("compression_algorithms", format!("{other:?} is not taken (supported: {SUPPORTED})"));
    }
    (!names.is_empty()).then_some(names)
}

/// `endpoint` and `transport` of a server.
fn address(section: &mut Section<'_>, default: &str) -> (String, ServerTransport) {
    let words = [
        ("tcp", ServerTransport::Tcp),
        ("tcp4", ServerTransport::Tcp),
        ("tcp6", ServerTransport::Tcp),
        ("unix", ServerTransport::Unix),
    ];
    let transport = section.word("transport", &words, ServerTransport::Tcp);
    let endpoint = match transport {
        ServerTransport::Tcp => section.endpoint("endpoint", default),
        ServerTransport::Unix => section.text("endpoint", ""),
    };
    if transport == ServerTransport::Unix && (endpoint.is_empty() || endpoint.starts_with('@')) {
        section.error("endpoint", "is no path of a socket", "e.g. endpoint: /run/spanreel/otlp.sock");
    }
    (endpoint, transport)
}

/// A duration of which zero means that there is no end of it.
fn nonzero(section: &mut Section<'_>, key: &'static str) -> Option<Duration> {
    section.optional_duration(key).filter(|duration| !duration.is_zero())
}

impl Default for HttpKeepalive {
    fn default() -> Self {
        Self { enabled: true, idle_max: None }
    }
}

impl HttpKeepalive {
    /// Reads the section `keepalive`, and the keys that it took the place of.
    fn decode(section: &mut Section<'_>) -> Self {
        let flat = Self {
            enabled: section.optional_bool("keep_alives_enabled").unwrap_or(true),
            idle_max: nonzero(section, "idle_timeout"),
        };
        if !section.has("keepalive") {
            return flat;
        }
        match section.optional("keepalive", WhenNull::On, |keepalive| nonzero(keepalive, "idle_timeout")) {
            Some(idle_max) => Self { idle_max: idle_max.or(flat.idle_max), ..flat },
            None => Self { enabled: false, ..flat },
        }
    }
}

impl GrpcKeepalive {
    fn decode(section: &mut Section<'_>) -> Self {
        let policy = [("min_time", Shape::Duration), ("permit_without_stream", Shape::Bool)];
        section.inert_section("enforcement_policy", &policy, "clients may ask as often as they like");
        section.section("server_parameters", |parameters| {
            let (max, grace) =
                (nonzero(parameters, "max_connection_age"), nonzero(parameters, "max_connection_age_grace"));
            Self {
                age: max.map(|max| ConnectionAge { max, grace }),
                idle_max: nonzero(parameters, "max_connection_idle"),
                ping_interval: nonzero(parameters, "time"),
                ping_wait_max: nonzero(parameters, "timeout"),
            }
        })
    }
}

/// Names and values that every answer carries.
fn response_headers(section: &mut Section<'_>) -> Vec<(String, String)> {
    let headers = section.pairs("response_headers", Secrecy::Secret);
    for (name, value) in &headers {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            section.error("response_headers", format!("{name:?} is no name of a header"), "");
        } else if http::HeaderValue::from_str(value).is_err() {
            section.error("response_headers", format!("the value of {name} cannot be sent in a header"), "");
        }
    }
    headers
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
            http_encodings: http.and_then(|http| http.compression_algorithms.clone()),
            waits: Waits::of(grpc.map(|grpc| grpc.keepalive).unwrap_or_default(), http),
            connection_age: grpc.and_then(|grpc| grpc.keepalive.age),
            streams_max: grpc.map(|grpc| grpc.max_concurrent_streams).filter(|streams| *streams > 0),
            paths: Paths::default(),
        }
    }
}

impl Waits {
    fn of(grpc: GrpcKeepalive, http: Option<&HttpServerSettings>) -> Self {
        let defaults = Self::default();
        let keepalive = http.map(|http| http.keepalive).unwrap_or_default();
        Self {
            head_max: http.and_then(|http| http.head_max).unwrap_or(defaults.head_max).min(defaults.head_max),
            keeps_http: keepalive.enabled,
            http_idle_max: keepalive.idle_max,
            grpc_idle_max: grpc.idle_max,
            ping_interval: grpc.ping_interval.unwrap_or(defaults.ping_interval).max(PING_INTERVAL_MIN),
            ping_wait_max: grpc.ping_wait_max.unwrap_or(defaults.ping_wait_max),
        }
    }
}

/// TLS of a listener (`configtls.ServerConfig`, the part that is supported).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTlsSettings {
    pub certificate: Pem,
    pub key: Pem,
    /// Given: clients must present a certificate signed by it.
    pub client_ca_file: Option<PathBuf>,
    pub versions: TlsVersions,
    /// How old what was read of the files may be when a client comes; `None`: as old as the configuration.
    pub reload_interval: Option<Duration>,
}

/// PEM, in a file or in the configuration itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    File(PathBuf),
    Inline(String),
}

/// A key is no business of logs.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Inline(_) => f.write_str("Inline"),
        }
    }
}

impl ServerTlsSettings {
    /// Reads a `tls` block of a listener.
    pub fn decode(section: &mut Section<'_>) -> Self {
        let certificate = Pem::decode(section, "cert_file", "cert_pem");
        let key = Pem::decode(section, "key_file", "key_pem");
        let client_ca_file = section.file_path("client_ca_file");
        for key in ["ca_file", "ca_pem"] {
            section.inert(key, Shape::Text, "a listener trusts client_ca_file only");
        }
        let versions = TlsVersions::decode(section);
        tls::accept_fixed(section);
        let reload_interval = section.duration("reload_interval", Duration::ZERO);
        let reload_interval = Some(reload_interval).filter(|interval| !interval.is_zero());
        let reload_ca = section.bool("client_ca_file_reload", false).then_some(CLIENT_CA_RELOAD_INTERVAL);
        section.inert("include_system_ca_certs_pool", Shape::Bool, "a listener trusts client_ca_file only");
        for (given, file, inline) in [(&certificate, "cert_file", "cert_pem"), (&key, "key_file", "key_pem")] {
            if given.is_none() && !section.has(file) && !section.has(inline) {
                section.error(
                    file,
                    "a TLS listener needs cert_file and key_file",
                    "PEM files, or their text as cert_pem and key_pem; or remove the tls section",
                );
            }
        }
        let none = || Pem::Inline(String::new());
        Self {
            certificate: certificate.unwrap_or_else(none),
            key: key.unwrap_or_else(none),
            client_ca_file,
            versions,
            reload_interval: reload_interval.or(reload_ca),
        }
    }
}

impl Pem {
    fn decode(section: &mut Section<'_>, file: &'static str, inline: &'static str) -> Option<Self> {
        let path = section.file_path(file);
        let text = section.optional_text(inline, Secrecy::Secret).filter(|text| !text.is_empty());
        if path.is_some() && text.is_some() {
            section.error(inline, format!("{file} and {inline} exclude each other"), "remove one of them");
        }
        path.map(Self::File).or(text.map(Self::Inline))
    }

    /// Its bytes; the error names where they are.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => std::fs::read(path).map_err(|error| format!("{}: {error}", path.display())),
            Self::Inline(text) => Ok(text.clone().into_bytes()),
        }
    }

    /// For errors.
    pub fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Inline(_) => "the PEM in the configuration".to_owned(),
        }
    }
}
