//! The `resource` processor: actions on the attributes of resources.

pub mod settings;

use self::settings::ResourceSettings;
use super::client::Client;
use super::{Processor, ResourceEditor, actions};
use crate::otlp::edit::Attributes;

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
    fn resource_editor(&self) -> Option<&dyn ResourceEditor> {
        Some(self)
    }
}

impl ResourceEditor for Resource {
    fn edit_resource<'a>(&'a self, attributes: &mut Attributes<'a>, client: &'a Client) {
        actions::run(&self.settings.actions, attributes, client);
    }
}
