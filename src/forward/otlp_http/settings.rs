//! Settings of the `otlp_http` exporter, with the Collector's names and defaults.

use crate::forward::settings::{ClientTlsSettings, Compression, QueueSettings, RetrySettings};
use std::time::Duration;

/// Body encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    #[default]
    Proto,
    Json,
}

/// `exporters::otlp_http` (alias `otlphttp`).
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpHttpSettings {
    /// The full URL for traces: `traces_endpoint` as given, or `endpoint` + `/v1/traces`.
    pub traces_url: String,
    pub tls: ClientTlsSettings,
    pub compression: Compression,
    pub encoding: Encoding,
    pub headers: Vec<(String, String)>,
    /// Per attempt; default 30 s.
    pub timeout: Duration,
    pub retry: RetrySettings,
    pub queue: QueueSettings,
}
