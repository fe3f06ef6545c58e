//! Settings of the `attributes` processor, with the Collector's names and checks.

use super::matching::Properties;
use crate::config::{Declaration, Section, Stability, WhenNull};
use crate::otlp::Signal;
use crate::process::actions::settings::{Action, actions};
use crate::process::settings::ProcessorSettings;

/// The `attributes` processor.
pub const DECLARATION: Declaration<ProcessorSettings> = Declaration::new(
    "attributes",
    Stability::Beta,
    "Changes the attributes of spans, data points and log records, of all or of those that match.",
    |section| ProcessorSettings::Attributes(AttributesSettings::decode(section)),
)
.serving(&Signal::ALL);

/// `processors::attributes`.
#[derive(Debug, Clone, PartialEq)]
pub struct AttributesSettings {
    /// What does not match stays as it is. Default: all match.
    pub include: Option<Properties>,
    /// What matches stays as it is.
    pub exclude: Option<Properties>,
    /// In order; at least one.
    pub actions: Vec<Action>,
}

impl AttributesSettings {
    pub(super) fn decode(section: &mut Section<'_>) -> Self {
        Self {
            include: section.optional("include", WhenNull::Absent, Properties::decode),
            exclude: section.optional("exclude", WhenNull::Absent, Properties::decode),
            actions: actions(section, "actions"),
        }
    }

    /// A property that says nothing about the items of `signal`, with its path: one processor may serve several signals,
    /// but not with it.
    pub fn foreign(&self, signal: Signal) -> Option<String> {
        let of = |section: &str, properties: &Option<Properties>| {
            Some(format!("{section}::{}", properties.as_ref()?.foreign(signal)?))
        };
        of("include", &self.include).or_else(|| of("exclude", &self.exclude))
    }
}
