//! What exporters can be configured, and the blocks they share.

use std::path::PathBuf;
use std::time::Duration;

/// The settings of one configured exporter.
#[derive(Debug, Clone, PartialEq)]
pub enum ExporterSettings {
    OtlpGrpc(super::otlp_grpc::settings::OtlpGrpcSettings),
    OtlpHttp(super::otlp_http::settings::OtlpHttpSettings),
    Debug(super::debug::settings::DebugSettings),
}

/// TLS towards a destination (`configtls.ClientConfig`, the part that is supported).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientTlsSettings {
    /// Plain text, unless a CA is given.
    pub insecure: bool,
    pub insecure_skip_verify: bool,
    pub server_name_override: Option<String>,
    pub ca_file: Option<PathBuf>,
    /// Both or none: the client's own certificate.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// How bodies are compressed on the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not configured: the stored zstd frames as they are; gzip, then none, for a destination that refuses zstd.
    #[default]
    Auto,
    None,
    Gzip,
    Snappy,
    Zstd,
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
