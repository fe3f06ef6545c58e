//! Settings of the `otlp_grpc` exporter, with the Collector's names and defaults.

use crate::forward::settings::{ClientTlsSettings, Compression, QueueSettings, RetrySettings};
use std::time::Duration;

/// `exporters::otlp_grpc` (alias `otlp`).
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpGrpcSettings {
    /// `host:port`, `http://host:port`, `https://host:port` (forces TLS) or `dns:///host:port`.
    pub endpoint: String,
    pub tls: ClientTlsSettings,
    /// Default [`Compression::Auto`].
    pub compression: Compression,
    /// Sent with every request, in the order of the file.
    pub headers: Vec<(String, String)>,
    /// Overrides `:authority`.
    pub authority: Option<String>,
    /// Per attempt; default 5 s in the Collector, 30 s here (a slow destination that is cut off stores half).
    pub timeout: Duration,
    pub retry: RetrySettings,
    pub queue: QueueSettings,
}
