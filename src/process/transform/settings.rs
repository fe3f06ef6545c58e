//! Settings of the `transform` processor, with the Collector's names and checks.

use crate::config::{Declaration, Item, ListText, Section, Stability};
use crate::process::filter::settings::decode_context;
use crate::process::ottl::settings::{ErrorMode, condition, inferred, statement};
use crate::process::ottl::{Condition, Context, Prefixes, Statement};
use crate::process::settings::ProcessorSettings;
use std::sync::Arc;

/// The `transform` processor.
pub const DECLARATION: Declaration<ProcessorSettings> = Declaration::new(
    "transform",
    Stability::Beta,
    "Changes resources, scopes, spans and span events by statements.",
    |section| ProcessorSettings::Transform(TransformSettings::decode(section)),
);

/// `processors::transform`.
#[derive(Debug, Clone, PartialEq)]
pub struct TransformSettings {
    /// Each goes over the whole request, in order.
    pub groups: Vec<Group>,
}

/// Statements about messages of one context.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub context: Context,
    pub error_mode: ErrorMode,
    /// One of them must hold for the statements to run; with none, they always do.
    pub conditions: Arc<[Condition]>,
    pub statements: Arc<[Statement]>,
}

impl TransformSettings {
    pub(super) fn decode(section: &mut Section<'_>) -> Self {
        let error_mode = ErrorMode::decode(section, ErrorMode::Ignore);
        let groups = trace_statements(section, error_mode);
        let why = "only spans are transformed; metrics and logs pass as they came";
        for key in ["metric_statements", "log_statements", "profile_statements"] {
            section.only(key, &["[]"], why, "remove it");
        }
        section.only("flatten_data", &["false"], "there are no logs to flatten", "remove it");
        if section.is_sound() && groups.is_empty() {
            section.warn("", "says nothing to transform", "trace_statements lists what is to be done");
        }
        Self { groups }
    }
}

/// Groups, and behind them statements alone, which are one group together.
fn trace_statements(section: &mut Section<'_>, error_mode: ErrorMode) -> Vec<Group> {
    let mut alone: Vec<ListText> = Vec::new();
    let mut groups: Vec<Group> = section
        .items("trace_statements", |_, item| match item {
            Item::Text(text) => {
                alone.push(text);
                None
            }
            Item::Section(inner) => {
                if !alone.is_empty() {
                    inner.error("", "stands behind statements without a group", "put all of them into groups");
                }
                Some(group(inner, error_mode))
            }
        })
        .into_iter()
        .flatten()
        .collect();
    groups.extend(compiled(section, None, &[], &alone, error_mode));
    groups
}

fn group(section: &mut Section<'_>, error_mode: ErrorMode) -> Option<Group> {
    let context = decode_context(section);
    let conditions = section.texts("conditions");
    let statements = section.texts("statements");
    let error_mode = ErrorMode::decode(section, error_mode);
    section.only("shared_cache", &["false"], "a cache is a message's own, within its group", "remove it");
    if statements.is_empty() && section.is_sound() {
        section.warn("", "a group without statements", "remove it");
    }
    // Without the context that was meant the statements would be read wrongly.
    section.is_sound().then(|| compiled(section, context, &conditions, &statements, error_mode))?
}

/// The group, if there is something to do; without a context it is the one that the paths name.
fn compiled(
    section: &Section<'_>,
    context: Option<Context>,
    conditions: &[ListText],
    statements: &[ListText],
    error_mode: ErrorMode,
) -> Option<Group> {
    let (context, prefixes) = match context {
        Some(context) => (context, Prefixes::Optional),
        None => (inferred(section, statements, conditions)?, Prefixes::Required),
    };
    let conditions: Vec<_> = conditions.iter().filter_map(|it| condition(section, it, context, prefixes)).collect();
    let statements: Vec<_> = statements.iter().filter_map(|it| statement(section, it, context, prefixes)).collect();
    let something = !statements.is_empty();
    something.then(|| Group { context, error_mode, conditions: conditions.into(), statements: statements.into() })
}
