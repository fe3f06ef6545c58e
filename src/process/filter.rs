//! The `filter` processor: takes out what a condition holds for.

pub mod settings;
#[cfg(test)]
mod tests;

use self::settings::{FilterSettings, Group};
use super::client::Client;
use super::ottl::View;
use super::ottl::settings::{Complaints, Failing, any_holds};
use super::{Editor, Failed, Processor, Removed};
use crate::otlp::edit::{ResourceSpans, ScopeSpans, Span, Traces};

/// One instance per pipeline.
#[derive(Debug)]
pub struct Filter {
    settings: FilterSettings,
    complaints: Complaints,
}

impl Filter {
    pub fn new(settings: &FilterSettings) -> Self {
        Self { settings: settings.clone(), complaints: Complaints::default() }
    }

    /// Takes out spans that are not included, or excluded.
    fn retain_matching(&self, traces: &mut Traces<'_>) {
        let FilterSettings { include, exclude, .. } = &self.settings;
        traces.retain_spans(|resource, scope, span| {
            let matches = |properties: &super::attributes::matching::Properties| {
                properties.matches_resource(resource)
                    && properties.matches_scope(scope)
                    && properties.matches_span(span)
            };
            include.as_ref().is_none_or(matches) && !exclude.as_ref().is_some_and(matches)
        });
    }
}

impl Processor for Filter {
    fn editor(&self) -> Option<&dyn Editor> {
        Some(self)
    }
}

impl Editor for Filter {
    fn edit<'a>(&'a self, traces: &mut Traces<'a>, _: &'a Client) -> Result<Removed, Failed> {
        let before = traces.span_count();
        for group in &self.settings.groups {
            let failing = Failing { processor: "filter", mode: group.error_mode, complaints: &self.complaints };
            let mut pass = Pass { group, failing, failed: None };
            traces.resources.retain_mut(|resource_spans| pass.keeps_resource(resource_spans));
            if let Some(failed) = pass.failed {
                return Err(failed);
            }
        }
        if self.settings.include.is_some() || self.settings.exclude.is_some() {
            self.retain_matching(traces);
        }
        Ok(Removed::filtered(before - traces.span_count()))
    }
}

/// One group going over one request. After a failure it keeps everything: the request is refused anyway.
struct Pass<'s> {
    group: &'s Group,
    failing: Failing<'s>,
    failed: Option<Failed>,
}

impl Pass<'_> {
    fn goes(&mut self, conditions: &[super::ottl::Condition], view: View<'_, '_>) -> bool {
        if self.failed.is_some() {
            return false;
        }
        any_holds(conditions, view, &self.failing).unwrap_or_else(|failed| {
            self.failed = Some(failed);
            false
        })
    }

    fn keeps_resource(&mut self, resource_spans: &mut ResourceSpans<'_>) -> bool {
        let group = self.group;
        let ResourceSpans { resource, scopes, schema_url } = resource_spans;
        let view = View { resource: (resource, schema_url), scope: None, span: None, event: None, cache: None };
        if self.goes(&group.resource, view) {
            return false;
        }
        if group.scope.is_empty() && group.span.is_empty() && group.span_event.is_empty() {
            return true;
        }
        scopes.retain_mut(|scope_spans| self.keeps_scope(view, scope_spans));
        !scopes.is_empty()
    }

    fn keeps_scope<'a>(&mut self, view: View<'_, 'a>, scope_spans: &mut ScopeSpans<'a>) -> bool {
        let group = self.group;
        let ScopeSpans { scope, spans, schema_url } = scope_spans;
        let view = View { scope: Some((scope, schema_url)), ..view };
        if self.goes(&group.scope, view) {
            return false;
        }
        if group.span.is_empty() && group.span_event.is_empty() {
            return true;
        }
        spans.retain_mut(|span| {
            let keep = !self.goes(&group.span, View { span: Some(span), ..view });
            if keep && !group.span_event.is_empty() {
                self.filter_events(view, span);
            }
            keep
        });
        !spans.is_empty()
    }

    fn filter_events<'a>(&mut self, view: View<'_, 'a>, span: &mut Span<'a>) {
        let group = self.group;
        let mut goes = Vec::new();
        for event in 0..span.events().len() {
            goes.push(self.goes(&group.span_event, View { span: Some(span), event: Some(event), ..view }));
        }
        if goes.contains(&true) {
            let mut goes = goes.into_iter();
            span.events_mut().retain(|_| !goes.next().unwrap_or(false));
        }
    }
}
