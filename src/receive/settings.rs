//! What receivers can be configured, and the blocks they share.

use crate::config::{Section, Shape};
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
