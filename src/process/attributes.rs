//! The `attributes` processor: actions on the attributes of spans, data points and log records, of all or of those that
//! match.

pub mod matching;
pub mod settings;
#[cfg(test)]
mod tests;

use self::settings::AttributesSettings;
use super::client::Client;
use super::{Editor, Failed, ItemEditor, Processor, Removed, actions};
use crate::otlp::edit::{Item, Place, ResourceSpans, ScopeSpans, Traces};

/// One instance per pipeline.
#[derive(Debug)]
pub struct Attributes {
    settings: AttributesSettings,
}

impl Attributes {
    pub fn new(settings: &AttributesSettings) -> Self {
        Self { settings: settings.clone() }
    }
}

impl Processor for Attributes {
    fn editor(&self) -> Option<&dyn Editor> {
        Some(self)
    }

    fn item_editor(&self) -> Option<&dyn ItemEditor> {
        Some(self)
    }
}

impl ItemEditor for Attributes {
    fn edit_item<'a>(&'a self, place: &Place<'_, 'a>, item: &mut Item<'a>, client: &'a Client) {
        let AttributesSettings { include, exclude, actions } = &self.settings;
        let is_wanted = include.as_ref().is_none_or(|it| it.matches_item(place, item))
            && !exclude.as_ref().is_some_and(|it| it.matches_item(place, item));
        if is_wanted {
            actions::run(actions, item.attributes_mut(), client);
        }
    }
}

impl Editor for Attributes {
    fn edit<'a>(&'a self, traces: &mut Traces<'a>, client: &'a Client) -> Result<Removed, Failed> {
        let AttributesSettings { include, exclude, actions } = &self.settings;
        for ResourceSpans { resource, scopes, .. } in traces.resources.iter_mut() {
            // What the resource and the scope say is decided once for all their spans.
            let included = include.as_ref().map(|it| it.matches_resource(resource));
            let excluded = exclude.as_ref().map(|it| it.matches_resource(resource));
            for ScopeSpans { scope, spans, .. } in scopes.iter_mut() {
                let included = include.as_ref().map(|it| included == Some(true) && it.matches_scope(scope));
                let excluded = exclude.as_ref().map(|it| excluded == Some(true) && it.matches_scope(scope));
                if included == Some(false) {
                    continue;
                }
                for span in spans.iter_mut() {
                    let wanted = include.as_ref().is_none_or(|it| it.matches_span(span))
                        && !exclude.as_ref().is_some_and(|it| excluded == Some(true) && it.matches_span(span));
                    if wanted {
                        actions::run(actions, span.attributes_mut(), client);
                    }
                }
            }
        }
        Ok(Removed::default())
    }
}
