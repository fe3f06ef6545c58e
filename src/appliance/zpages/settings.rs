//! Settings of the `zpages` extension, with the Collector's names and defaults.

use crate::appliance::components::ExtensionSettings;
use crate::config::{Declaration, Section, Stability, WhenNull};

/// The `zpages` extension.
pub const DECLARATION: Declaration<ExtensionSettings> = Declaration::new(
    "zpages",
    Stability::Alpha,
    "Pages for people about what runs: /debug/servicez, pipelinez, extensionz.",
    |section| ExtensionSettings::ZPages(ZPagesSettings::decode(section)),
);

/// `extensions::zpages`.
#[derive(Debug, Clone, PartialEq)]
pub struct ZPagesSettings {
    /// `host:port`; default `localhost:55679`.
    pub endpoint: String,
}

impl ZPagesSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = Self { endpoint: section.endpoint("endpoint", "localhost:55679") };
        let enabled = section.optional("expvar", WhenNull::Absent, |expvar| expvar.bool("enabled", false));
        if enabled == Some(true) {
            section.error(
                "expvar",
                "not supported: there are no Go variables here",
                "remove it; /metrics has what there is",
            );
        }
        section.unsupported("tls", "the pages are answered in plain HTTP", "remove it; keep the port inside the pod");
        section.unsupported("auth", "the pages are answered to everybody who reaches the port", "keep it on localhost");
        settings
    }
}
