//! Choosing the Instrumentation that an annotation's value means.

use std::sync::Arc;

use super::annotations::{Asked, is_true};
use super::catalog::Entry;
use super::outcome::{Reason, Refusal};
use super::{Instrumentation, View};

/// The Instrumentation to use.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) instrumentation: Arc<Instrumentation>,
    /// Set when the user should know how it was chosen.
    pub(super) note: Option<String>,
}

/// opentelemetry-operator's rules for choosing an Instrumentation, and the built-in default where the namespace has none
/// at all.
pub(super) fn choose(asked: &Asked, pod_namespace: &str, view: &View<'_>) -> Result<Choice, Refusal> {
    let language = asked.language;
    if is_true(&asked.value) {
        let mut candidates = view.catalog.in_namespace(pod_namespace);
        return match (candidates.next(), candidates.next()) {
            (None, _) => Ok(Choice {
                instrumentation: Arc::new(view.built_in.clone()),
                note: Some(format!(
                    "namespace {pod_namespace} has no Instrumentation; inject-{language}: \"{}\" uses Spanreel's built-in one, which sends to {}",
                    asked.value, view.built_in.spec.exporter.endpoint
                )),
            }),
            (Some((name, entry)), None) => usable(pod_namespace, name, entry),
            (Some(_), Some(_)) => Err(Refusal::new(
                Reason::InstrumentationAmbiguous,
                format!(
                    "namespace {pod_namespace} has several Instrumentations; name one in inject-{language} instead of \"{}\"",
                    asked.value
                ),
            )),
        };
    }
    let (namespace, name) = named(asked, pod_namespace).unwrap_or((pod_namespace, &asked.value));
    match view.catalog.get(namespace, name) {
        Some(entry) => usable(namespace, name, entry),
        None => Err(Refusal::new(
            Reason::InstrumentationMissing,
            format!("Instrumentation {namespace}/{name}, named in inject-{language}, does not exist"),
        )),
    }
}

/// The (namespace, name) that an annotation's value names; `None` for `true`, which names none.
pub(super) fn named<'a>(asked: &'a Asked, pod_namespace: &'a str) -> Option<(&'a str, &'a str)> {
    (!is_true(&asked.value)).then(|| asked.value.split_once('/').unwrap_or((pod_namespace, &asked.value)))
}

fn usable(namespace: &str, name: &str, entry: &Entry) -> Result<Choice, Refusal> {
    match entry {
        Ok(instrumentation) => Ok(Choice { instrumentation: Arc::clone(instrumentation), note: None }),
        Err(why) => Err(Refusal::new(
            Reason::InstrumentationMalformed,
            format!("Instrumentation {namespace}/{name} cannot be read: {why}"),
        )),
    }
}
