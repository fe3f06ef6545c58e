//! Settings of the `filter` processor, with the Collector's names and checks.

use crate::config::{Declaration, Item, ListText, Section, Stability, WhenNull};
use crate::process::attributes::matching::Properties;
use crate::process::ottl::settings::{ErrorMode, condition, inferred};
use crate::process::ottl::{CONTEXTS, Condition, Context, Prefixes};
use crate::process::settings::ProcessorSettings;
use std::sync::Arc;

/// The `filter` processor.
pub const DECLARATION: Declaration<ProcessorSettings> = Declaration::new(
    "filter",
    Stability::Alpha,
    "Takes out resources, scopes, spans and span events for which a condition holds.",
    |section| ProcessorSettings::Filter(FilterSettings::decode(section)),
);

/// `processors::filter`.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterSettings {
    /// Each goes over the whole request, in order.
    pub groups: Vec<Group>,
    /// Spans that do not match are taken out. Default: all match.
    pub include: Option<Properties>,
    /// Spans that match are taken out.
    pub exclude: Option<Properties>,
}

/// Conditions by what is taken out when one of them holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub error_mode: ErrorMode,
    /// Conditions are compared by their texts; they know nothing else that could differ within a list.
    pub resource: Arc<[Condition]>,
    pub scope: Arc<[Condition]>,
    pub span: Arc<[Condition]>,
    pub span_event: Arc<[Condition]>,
}

/// Of the Collector's `traces` section; `trace_conditions` is what it recommends.
#[derive(Default)]
struct Conditions {
    resource: Vec<Condition>,
    scope: Vec<Condition>,
    span: Vec<Condition>,
    span_event: Vec<Condition>,
}

impl Conditions {
    fn put(&mut self, context: Context, condition: Option<Condition>) {
        let list = match context {
            Context::Resource => &mut self.resource,
            Context::Scope => &mut self.scope,
            Context::Span => &mut self.span,
            Context::SpanEvent => &mut self.span_event,
        };
        list.extend(condition);
    }

    fn into_group(self, error_mode: ErrorMode) -> Option<Group> {
        let lists = [&self.resource, &self.scope, &self.span, &self.span_event];
        (!lists.iter().all(|list| list.is_empty())).then(|| Group {
            error_mode,
            resource: self.resource.into(),
            scope: self.scope.into(),
            span: self.span.into(),
            span_event: self.span_event.into(),
        })
    }
}

impl FilterSettings {
    pub(super) fn decode(section: &mut Section<'_>) -> Self {
        let error_mode = ErrorMode::decode(section, ErrorMode::Ignore);
        let mut groups = trace_conditions(section, error_mode);
        let by_context = section.section("traces", |section| traces(section, error_mode));
        let (include, exclude) = section.section("spans", |section| {
            (
                section.optional("include", WhenNull::Absent, Properties::decode_for_spans),
                section.optional("exclude", WhenNull::Absent, Properties::decode_for_spans),
            )
        });
        let why = "only spans are filtered; metrics and logs pass as they came";
        for key in ["metrics", "logs", "profiles"] {
            section.only(key, &["{}"], why, "remove it");
        }
        for key in ["metric_conditions", "log_conditions", "profile_conditions"] {
            section.only(key, &["[]"], why, "remove it");
        }
        let one_of = "trace_conditions can say everything that the others say";
        if by_context.is_some() && !groups.is_empty() {
            section.error("traces", "cannot be used together with trace_conditions", one_of);
        }
        if by_context.is_some() && (include.is_some() || exclude.is_some()) {
            section.error("spans", "cannot be used together with traces", one_of);
        }
        // Where there are trace_conditions, a Collector never looks at these.
        if !groups.is_empty() && (include.is_some() || exclude.is_some()) {
            section.error("spans", "has no effect beside trace_conditions", one_of);
        }
        groups.extend(by_context);
        if section.is_sound() && groups.is_empty() && include.is_none() && exclude.is_none() {
            section.warn("", "says nothing to filter", "trace_conditions lists what is to go");
        }
        Self { groups, include, exclude }
    }
}

/// Conditions alone, each with the context that its paths name; or groups.
fn trace_conditions(section: &mut Section<'_>, error_mode: ErrorMode) -> Vec<Group> {
    let mut alone = Conditions::default();
    let (mut texts, mut maps) = (false, false);
    let mut groups: Vec<Option<Group>> = section.items("trace_conditions", |section, item| match item {
        Item::Text(text) => {
            if maps {
                section.error_in(&text, "stands beside groups", "put it into a group too");
            }
            texts = true;
            by_paths(section, &mut alone, &text);
            None
        }
        Item::Section(inner) => {
            if texts {
                inner.error("", "stands beside conditions without a group", "put all of them into groups");
            }
            maps = true;
            Some(group(inner, error_mode))
        }
    });
    groups.push(alone.into_group(error_mode));
    groups.into_iter().flatten().collect()
}

fn group(section: &mut Section<'_>, error_mode: ErrorMode) -> Option<Group> {
    let context = decode_context(section);
    let texts = section.texts("conditions");
    let error_mode = ErrorMode::decode(section, error_mode);
    if !section.is_sound() {
        // Without the context that was meant the conditions would be read wrongly.
        return None;
    }
    let mut conditions = Conditions::default();
    for text in &texts {
        match context {
            Some(context) => conditions.put(context, condition(section, text, context, Prefixes::Optional)),
            None => by_paths(section, &mut conditions, text),
        }
    }
    if texts.is_empty() && section.is_sound() {
        section.warn("", "a group without conditions", "remove it");
    }
    conditions.into_group(error_mode)
}

fn by_paths(section: &Section<'_>, conditions: &mut Conditions, text: &ListText) {
    if let Some(context) = inferred(section, &[], std::slice::from_ref(text)) {
        conditions.put(context, condition(section, text, context, Prefixes::Required));
    }
}

/// The context of a group, if it names one.
pub(in crate::process) fn decode_context(section: &mut Section<'_>) -> Option<Context> {
    let contexts = CONTEXTS.map(|context| (context.word(), Some(context)));
    section.word_any_case("context", &contexts, None)
}

fn traces(section: &mut Section<'_>, error_mode: ErrorMode) -> Option<Group> {
    let mut conditions = Conditions::default();
    for context in [Context::Resource, Context::Span, Context::SpanEvent] {
        for text in section.texts(context.word()) {
            conditions.put(context, condition(section, &text, context, Prefixes::Optional));
        }
    }
    conditions.into_group(error_mode)
}
