//! Settings of the `attributes` processor, with the Collector's names and checks.

use super::matching::Properties;
use crate::config::{Declaration, Section, Stability, WhenNull};
use crate::process::actions::settings::{Action, actions};
use crate::process::settings::ProcessorSettings;

/// The `attributes` processor.
pub const DECLARATION: Declaration<ProcessorSettings> = Declaration::new(
    "attributes",
    Stability::Beta,
    "Changes the attributes of spans, of all or of those that match.",
    |section| ProcessorSettings::Attributes(AttributesSettings::decode(section)),
);

/// `processors::attributes`.
#[derive(Debug, Clone, PartialEq)]
pub struct AttributesSettings {
    /// Spans that do not match stay as they are. Default: all match.
    pub include: Option<Properties>,
    /// Spans that match stay as they are.
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
}
