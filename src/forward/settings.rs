//! What exporters can be configured, and the blocks they share.

use crate::config::duration;
use crate::config::tls::{self, TlsVersions};
use crate::config::{Role, Secrecy, Section, Shape, WhenNull};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of one configured exporter.
#[derive(Debug, Clone, PartialEq)]
pub enum ExporterSettings {
    OtlpGrpc(super::otlp_grpc::settings::OtlpGrpcSettings),
    OtlpHttp(super::otlp_http::settings::OtlpHttpSettings),
    Debug(super::debug::settings::DebugSettings),
    File(super::file::settings::FileSettings),
    Prometheus(super::prometheus::settings::PrometheusSettings),
}

/// TLS towards a destination (`configtls.ClientConfig`, the part that is supported).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientTlsSettings {
    /// Plain text, unless a CA is given.
    pub insecure: bool,
    pub insecure_skip_verify: bool,
    pub server_name_override: Option<String>,
    /// `ca_file` or `ca_pem`: whom to trust instead of the system's certificates.
    pub ca: Option<Pem>,
    /// `include_system_ca_certs_pool`: trust the system's certificates besides `ca`.
    pub include_system_roots: bool,
    /// `cert_file` or `cert_pem`; both this and the key or none: the client's own certificate.
    pub certificate: Option<Pem>,
    /// `key_file` or `key_pem`.
    pub key: Option<Pem>,
    pub versions: TlsVersions,
    /// How old what was read of the files may be when a connection is opened; `None`: as old as the configuration.
    pub reload_interval: Option<Duration>,
}

/// Where PEM comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    File(PathBuf),
    /// In the configuration itself.
    Text(String),
}

/// What stands in the text may be a secret.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text"),
        }
    }
}

/// How bodies are compressed on the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not configured: the stored zstd frames as they are; gzip, then none, for a destination that refuses zstd.
    #[default]
    Auto,
    None,
    Gzip,
    /// Blocks over HTTP, frames over gRPC, as in the Collector.
    Snappy,
    Zstd,
    /// The format of zlib, by that name.
    Zlib,
    /// The format of zlib, by the name that HTTP has for it.
    Deflate,
    SnappyFramed,
    Lz4,
}

/// `retry_on_failure`. There is no limit on elapsed time: the spool's budget bounds an outage.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrySettings {
    /// Off: one attempt, then the spans are booked as lost.
    pub enabled: bool,
    /// Default 5 s.
    pub initial_interval: Duration,
    /// 0 to 1, default 0.5.
    pub randomization_factor: f64,
    /// Default 1.5.
    pub multiplier: f64,
    /// Default 30 s.
    pub max_interval: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            randomization_factor: 0.5,
            multiplier: 1.5,
            max_interval: Duration::from_secs(30),
        }
    }
}

/// What is left of `sending_queue` where the spool is the queue: how many requests are under way at once.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSettings {
    /// Default 10, bounded by the appliance's memory budget.
    pub num_consumers: u32,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self { num_consumers: 10 }
    }
}

/// A file or a text, not both.
fn pem(section: &mut Section<'_>, file_key: &'static str, text_key: &'static str) -> Option<Pem> {
    let file = section.file_path(file_key);
    let text = section.optional_text(text_key, Secrecy::Secret).filter(|text| !text.is_empty());
    match (file, text) {
        (Some(_), Some(_)) => {
            section.error(text_key, format!("must not be given together with {file_key}"), "remove one of them");
            None
        }
        (Some(path), None) => Some(Pem::File(path)),
        (None, text) => text.map(Pem::Text),
    }
}

impl ClientTlsSettings {
    /// Reads a `tls` block of a destination; absent means TLS with the system's certificates.
    pub fn decode(section: &mut Section<'_>) -> Self {
        let settings = Self {
            insecure: section.bool("insecure", false),
            insecure_skip_verify: section.bool("insecure_skip_verify", false),
            server_name_override: section
                .optional_text("server_name_override", Secrecy::Open)
                .filter(|name| !name.is_empty()),
            ca: pem(section, "ca_file", "ca_pem"),
            include_system_roots: section.bool("include_system_ca_certs_pool", false),
            certificate: pem(section, "cert_file", "cert_pem"),
            key: pem(section, "key_file", "key_pem"),
            versions: TlsVersions::decode(section),
            reload_interval: Some(section.duration("reload_interval", Duration::ZERO)).filter(|it| !it.is_zero()),
        };
        tls::accept_fixed(section);
        if settings.certificate.is_some() != settings.key.is_some() {
            let missing = if settings.certificate.is_some() { "key_file" } else { "cert_file" };
            section.error(missing, "cert_file and key_file come together", format!("give {missing} too, or none"));
        }
        settings
    }
}

impl RetrySettings {
    /// Reads a `retry_on_failure` block.
    pub fn decode(section: &mut Section<'_>) -> Self {
        let defaults = Self::default();
        let settings = Self {
            enabled: section.bool("enabled", defaults.enabled),
            initial_interval: section.duration("initial_interval", defaults.initial_interval),
            randomization_factor: section.f64("randomization_factor", defaults.randomization_factor),
            multiplier: section.f64("multiplier", defaults.multiplier),
            max_interval: section.duration("max_interval", defaults.max_interval),
        };
        settings.check_end(section);
        if !(0.0..=1.0).contains(&settings.randomization_factor) {
            section.error("randomization_factor", "must be from 0 to 1", "0.5 is the default");
        }
        if !(settings.multiplier.is_finite() && settings.multiplier >= 0.0) {
            section.error("multiplier", "must not be negative", "1.5 is the default");
        }
        settings
    }
}

impl RetrySettings {
    /// `max_elapsed_time`: retries never end by time, but the Collector's checks of it hold.
    fn check_end(&self, section: &mut Section<'_>) {
        let Some(end) = section.accept_duration("max_elapsed_time").filter(|end| !end.is_zero()) else { return };
        for (key, interval) in [("initial_interval", self.initial_interval), ("max_interval", self.max_interval)] {
            if end < interval {
                let reason = format!("must not be less than {key}, which is {}", duration::format(interval));
                section.error("max_elapsed_time", reason, "0 means what Spanreel does: retry without end");
                return;
            }
        }
        section.note(
            "max_elapsed_time",
            "accepted, without effect: retries never end by time; what an outage may cost is \
             extensions::spanreel::spool::max_size_mib and max_age",
        );
    }
}

impl ExporterSettings {
    /// The extension that says who this exporter is.
    pub fn authenticator(&self) -> Option<&str> {
        match self {
            Self::OtlpGrpc(settings) => settings.authenticator.as_deref(),
            Self::OtlpHttp(settings) => settings.authenticator.as_deref(),
            Self::Debug(_) | Self::File(_) | Self::Prometheus(_) => None,
        }
    }
}

/// The Collector's default `queue_size`, requests.
const QUEUE_SIZE: i128 = 1000;

impl QueueSettings {
    /// Reads a `sending_queue` block. Most of it has no meaning where the disk is the queue.
    pub fn decode(section: &mut Section<'_>) -> Self {
        let why = "the spool on disk is the queue of every exporter, bounded by extensions::spanreel::spool";
        let mut settings = Self { num_consumers: section.u32("num_consumers", Self::default().num_consumers) };
        let is_on = section.bool("enabled", true);
        if !is_on {
            section.note("enabled", format!("accepted, without effect: {why}"));
        }
        let queue_size = section.accept_int("queue_size");
        if queue_size.is_some_and(|size| size > 0) {
            section.note("queue_size", format!("accepted, without effect: {why}"));
        }
        let sizer = section.inert_word("sizer", &["requests", "items", "bytes"], why);
        section.inert("block_on_overflow", Shape::Bool, why);
        let waits = section.optional_bool("wait_for_result");
        if section.has("wait_for_result") && section.is_sound() {
            section
                .note("wait_for_result", "accepted, without effect: clients are answered once their spans are on disk");
        }
        if section.reference("storage", Role::Extension).is_some() {
            if waits == Some(true) {
                section.error("wait_for_result", "does not go with storage, as in the Collector", "remove one of them");
            }
            section.note("storage", "the queue is durable with and without it: it is Spanreel's spool");
        }
        let queue_size = queue_size.unwrap_or(QUEUE_SIZE);
        let batch = section.optional("batch", WhenNull::On, |batch| accept_batch(batch, sizer.as_deref(), queue_size));
        if batch.is_some() {
            let reason =
                "accepted, without effect: requests are joined from the spool up to the size destinations take";
            section.note("batch", reason);
        }
        if is_on && queue_size <= 0 {
            section.error("queue_size", "must be greater than zero", "or remove it");
        }
        match settings.num_consumers {
            0 if is_on => section.error("num_consumers", "must be greater than zero", "10 is the default"),
            0 => settings = Self::default(),
            _ => {}
        }
        settings
    }
}

/// `sending_queue::batch`: means nothing here, but is checked as the Collector checks it. `queue_sizer` and `queue_size`
/// are the queue's.
fn accept_batch(section: &mut Section<'_>, queue_sizer: Option<&str>, queue_size: i128) {
    /// The Collector's default, items.
    const MIN_SIZE: i128 = 8192;
    const REMEDY: &str = "the queue's batches mean nothing here: remove the batch section";
    if section.accept_duration("flush_timeout").is_some_and(|timeout| timeout.is_zero()) {
        section.error("flush_timeout", "must be greater than zero", "200ms is the default");
    }
    let is_default = section.is_empty();
    let own_sizer = section.accept_word("sizer", &["items", "bytes"]);
    let sizer = own_sizer.as_deref().or(queue_sizer.filter(|_| !is_default)).unwrap_or("items");
    if sizer == "requests" {
        section.error("sizer", "is the queue's, requests, and batches have none of it", "write sizer: items");
    }
    section.section("partition", |partition| {
        partition.header_names("metadata_keys");
        partition.accept("cache_size", Shape::Int);
        partition.accept("idle_timeout", Shape::Duration);
    });
    let min_size = section.accept_int("min_size").unwrap_or(MIN_SIZE);
    let max_size = section.accept_int("max_size").unwrap_or(0);
    if min_size < 0 {
        section.error("min_size", "must not be negative", "");
    }
    if !section.is_sound() {
        return;
    }
    if max_size != 0 && max_size < min_size {
        section.error("max_size", format!("must be 0 or at least min_size, which is {min_size}"), REMEDY);
    }
    if queue_sizer == Some(sizer) && min_size > queue_size {
        section.error("min_size", format!("must not be above queue_size, which is {queue_size}"), REMEDY);
    }
}

impl Compression {
    /// Reads `compression` of a destination that is spoken to in gRPC; absent is [`Compression::Auto`].
    pub fn of_grpc(section: &mut Section<'_>) -> Self {
        let compression = Self::decode(section);
        if matches!(compression, Self::Zlib | Self::Deflate | Self::SnappyFramed | Self::Lz4) {
            let remedy = "one of: none, gzip, snappy, zstd; or remove it: zstd, gzip where that is refused";
            section.error("compression", "not supported: gRPC has no such compression", remedy);
        }
        compression
    }

    /// Reads `compression` of a destination that is spoken to in HTTP; absent is [`Compression::Auto`].
    pub fn decode(section: &mut Section<'_>) -> Self {
        let words = [
            ("none", Self::None),
            ("", Self::None),
            ("gzip", Self::Gzip),
            ("snappy", Self::Snappy),
            ("zstd", Self::Zstd),
            ("zlib", Self::Zlib),
            ("deflate", Self::Deflate),
            ("x-snappy-framed", Self::SnappyFramed),
            ("lz4", Self::Lz4),
        ];
        section.word("compression", &words, Self::Auto)
    }
}

/// Reads `auth`; null says nothing.
pub(super) fn authenticator(section: &mut Section<'_>) -> Option<String> {
    let named = section.optional("auth", WhenNull::Absent, |auth| {
        if !auth.has("authenticator") {
            auth.error("", "names no authenticator", "e.g. authenticator: basicauth/client");
        }
        auth.reference("authenticator", Role::Extension)
    });
    named.flatten()
}

/// Keys by which exporters of the Collector call extensions, of which there are none here.
pub(super) fn refuse_extensions(section: &mut Section<'_>) {
    section.only("middlewares", &["[]"], "there are no middlewares", "remove it");
}
