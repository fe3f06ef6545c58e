//! Settings of the `zipkin` receiver, with the Collector's names and defaults (contrib v0.162).

use crate::config::{Declaration, Section, Stability, WhenNull};
use crate::receive::settings::{HttpServerSettings, ReceiverSettings};

/// The `zipkin` receiver.
pub const DECLARATION: Declaration<ReceiverSettings> = Declaration::new(
    "zipkin",
    Stability::Beta,
    "Zipkin spans over HTTP: v2 as JSON or protobuf, v1 as JSON or Thrift.",
    |section| ReceiverSettings::Zipkin(ZipkinReceiverSettings::decode(section)),
);

const ENDPOINT: &str = "localhost:9411";

/// `receivers::zipkin`.
#[derive(Debug, Clone, PartialEq)]
pub struct ZipkinReceiverSettings {
    /// Default endpoint `localhost:9411`.
    pub http: HttpServerSettings,
    /// Tags that look like numbers or booleans become such.
    pub parse_string_tags: bool,
}

impl ZipkinReceiverSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        // The newer form has the server under protocols::http.
        let newer = section.optional("protocols", WhenNull::Absent, |protocols| {
            protocols.optional("http", WhenNull::On, |http| HttpServerSettings::decode(http, ENDPOINT))
        });
        let http = newer.flatten().unwrap_or_else(|| HttpServerSettings::decode(section, ENDPOINT));
        Self { http, parse_string_tags: section.bool("parse_string_tags", false) }
    }
}
