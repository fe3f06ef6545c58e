//! Settings of the `resource` processor, with the Collector's names and checks.

use crate::config::{Declaration, Section, Stability};
use crate::otlp::Signal;
use crate::process::actions::settings::{Action, actions};
use crate::process::settings::ProcessorSettings;

/// The `resource` processor.
pub const DECLARATION: Declaration<ProcessorSettings> =
    Declaration::new("resource", Stability::Beta, "Changes the attributes of resources.", |section| {
        ProcessorSettings::Resource(ResourceSettings::decode(section))
    })
    .serving(&Signal::ALL);

/// `processors::resource`.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceSettings {
    /// `attributes`, in order; at least one.
    pub actions: Vec<Action>,
}

impl ResourceSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        Self { actions: actions(section, "attributes") }
    }
}
