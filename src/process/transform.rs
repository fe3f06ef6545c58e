//! The `transform` processor: runs statements over a request.

pub mod settings;
#[cfg(test)]
mod tests;

use self::settings::{Group, TransformSettings};
use super::client::Client;
use super::ottl::settings::{Complaints, Failing, any_holds};
use super::ottl::{Context, Frame};
use super::{Editor, Failed, Processor, Removed};
use crate::otlp::edit::{Attributes, ResourceSpans, ScopeSpans, Traces};

/// One instance per pipeline.
#[derive(Debug)]
pub struct Transform {
    settings: TransformSettings,
    complaints: Complaints,
}

impl Transform {
    pub fn new(settings: &TransformSettings) -> Self {
        Self { settings: settings.clone(), complaints: Complaints::default() }
    }
}

impl Processor for Transform {
    fn editor(&self) -> Option<&dyn Editor> {
        Some(self)
    }
}

impl Editor for Transform {
    fn edit<'a>(&'a self, traces: &mut Traces<'a>, _: &'a Client) -> Result<Removed, Failed> {
        for group in &self.settings.groups {
            let failing = Failing { processor: "transform", mode: group.error_mode, complaints: &self.complaints };
            for resource_spans in traces.resources.iter_mut() {
                run_on_resource(group, &failing, resource_spans)?;
            }
        }
        Ok(Removed::default())
    }
}

fn run_on_resource<'a>(
    group: &'a Group,
    failing: &Failing<'_>,
    resource_spans: &mut ResourceSpans<'a>,
) -> Result<(), Failed> {
    let ResourceSpans { resource, scopes, schema_url: resource_url } = resource_spans;
    let mut frame = Frame {
        resource: (resource, resource_url),
        scope: None,
        span: None,
        event: None,
        cache: Attributes::default(),
    };
    if group.context == Context::Resource {
        return run(group, failing, &mut frame);
    }
    for ScopeSpans { scope, spans, schema_url } in scopes.iter_mut() {
        let mut frame = Frame {
            resource: (&mut *frame.resource.0, &mut *frame.resource.1),
            scope: Some((scope, schema_url)),
            span: None,
            event: None,
            cache: Attributes::default(),
        };
        if group.context == Context::Scope {
            run(group, failing, &mut frame)?;
            continue;
        }
        for span in spans.iter_mut() {
            let mut frame = Frame {
                resource: (&mut *frame.resource.0, &mut *frame.resource.1),
                scope: frame.scope.as_mut().map(|(scope, url)| (&mut **scope, &mut **url)),
                span: Some(span),
                event: None,
                cache: Attributes::default(),
            };
            if group.context == Context::Span {
                run(group, failing, &mut frame)?;
                continue;
            }
            let mut event = 0;
            while frame.span.as_ref().is_some_and(|span| event < span.events().len()) {
                frame.event = Some(event);
                frame.cache = Attributes::default();
                run(group, failing, &mut frame)?;
                event += 1;
            }
        }
    }
    Ok(())
}

/// Runs the statements on one message.
fn run<'a>(group: &'a Group, failing: &Failing<'_>, frame: &mut Frame<'_, 'a>) -> Result<(), Failed> {
    if !group.conditions.is_empty() && !any_holds(&group.conditions, frame.view(), failing)? {
        return Ok(());
    }
    for statement in group.statements.iter() {
        if let Err(failure) = statement.run(frame) {
            failing.happened(statement.text(), &failure)?;
        }
    }
    Ok(())
}
