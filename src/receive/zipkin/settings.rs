//! Settings of the `zipkin` receiver, with the Collector's names and defaults (contrib v0.162).

use crate::config::{Declaration, Section, Stability};
use crate::receive::settings::{HttpServerSettings, ReceiverSettings};

/// The `zipkin` receiver.
pub const DECLARATION: Declaration<ReceiverSettings> = Declaration::new(
    "zipkin",
    Stability::Beta,
    "Zipkin spans over HTTP: v2 as JSON or protobuf, v1 as JSON or Thrift.",
    |section| ReceiverSettings::Zipkin(ZipkinReceiverSettings::decode(section)),
);

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
        Self {
            http: HttpServerSettings::decode(section, "localhost:9411"),
            parse_string_tags: section.bool("parse_string_tags", false),
        }
    }
}
