//! The `resource` processor: actions on the attributes of resources.

pub mod settings;

use self::settings::ResourceSettings;
use super::client::Client;
use super::{Editor, Failed, Processor, Removed, actions};
use crate::otlp::edit::Traces;

/// One instance per pipeline.
#[derive(Debug)]
pub struct Resource {
    settings: ResourceSettings,
}

impl Resource {
    pub fn new(settings: &ResourceSettings) -> Self {
        Self { settings: settings.clone() }
    }
}

impl Processor for Resource {
    fn editor(&self) -> Option<&dyn Editor> {
        Some(self)
    }
}

impl Editor for Resource {
    fn edit<'a>(&'a self, traces: &mut Traces<'a>, client: &'a Client) -> Result<Removed, Failed> {
        for resource_spans in traces.resources.iter_mut() {
            actions::run(&self.settings.actions, resource_spans.resource.attributes_mut(), client);
        }
        Ok(Removed::default())
    }
}
