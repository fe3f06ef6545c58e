//! What receivers can be configured, and the blocks they share.

use std::path::PathBuf;

/// The settings of one configured receiver.
#[derive(Debug, Clone, PartialEq)]
pub enum ReceiverSettings {
    Otlp(super::otlp::settings::OtlpReceiverSettings),
}

/// TLS of a listener (`configtls.ServerConfig`, the part that is supported).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTlsSettings {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Given: clients must present a certificate signed by it.
    pub client_ca_file: Option<PathBuf>,
}
