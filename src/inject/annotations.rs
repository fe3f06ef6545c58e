//! Annotations: which languages are asked for, on the pod or its namespace.

use std::collections::BTreeMap;

use super::wishes::Place;
use super::{Language, PodRequest};

const PREFIX: &str = "instrumentation.opentelemetry.io/";
const SIDECAR_KEY: &str = "sidecar.opentelemetry.io/inject";

/// A language that is asked for, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) language: Language,
    /// `true` in any letter case, `<name>` or `<namespace>/<name>`; never empty, never `false`.
    pub(super) value: String,
}

/// Every language whose annotation takes effect and is not `false`, in order of processing.
pub(super) fn asked(request: &PodRequest<'_>) -> Vec<Asked> {
    Language::ALL
        .into_iter()
        .filter_map(|language| {
            let value = effective(request, &format!("{PREFIX}inject-{language}"));
            (!value.is_empty() && !is_false(value)).then(|| Asked { language, value: value.to_owned() })
        })
        .collect()
}

/// The container list common to all languages; empty if none is given.
pub(super) fn common_container_names<'a>(request: &PodRequest<'a>) -> &'a str {
    effective(request, &format!("{PREFIX}container-names"))
}

/// A language's own container list; empty if none is given.
pub(super) fn container_names<'a>(request: &PodRequest<'a>, language: Language) -> &'a str {
    effective(request, &format!("{PREFIX}{}", language.container_names_key()))
}

/// A value that counts on the pod only; empty if none is given.
pub(super) fn of_pod<'a>(request: &PodRequest<'a>, key: &str) -> &'a str {
    value_of(request.pod.metadata.annotations.as_ref(), &option_key(key))
}

/// Whether the pod has such an annotation, if only an empty one.
pub(super) fn has_of_pod(request: &PodRequest<'_>, key: &str) -> bool {
    request.pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(&option_key(key)))
}

/// A language's further wish, such as `otel-python-platform`; empty if none is given.
pub(super) fn option<'a>(request: &PodRequest<'a>, key: &str) -> &'a str {
    effective(request, &option_key(key))
}

/// As users write it.
pub(super) fn option_key(key: &str) -> String {
    format!("{PREFIX}{key}")
}

/// A sidecar that is asked for is not silently missing: what to tell who asked.
#[must_use]
pub fn sidecar_note(request: &PodRequest<'_>) -> Option<String> {
    let value = effective(request, SIDECAR_KEY);
    (!value.is_empty() && !is_false(value)).then(|| {
        format!(
            "{SIDECAR_KEY} is not supported: Spanreel injects no sidecar. Send to the Service of the \
             OpenTelemetryCollector in mode deployment, e.g. http://<name>-collector.<namespace>:4318, instead of localhost"
        )
    })
}

pub(super) fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

pub(super) fn is_false(value: &str) -> bool {
    value.eq_ignore_ascii_case("false")
}

fn effective<'a>(request: &PodRequest<'a>, key: &str) -> &'a str {
    effective_from(request, key).0
}

/// The value that counts by opentelemetry-operator's rules for pod versus namespace, and whose it is. Nothing is trimmed.
pub(super) fn effective_from<'a>(request: &PodRequest<'a>, key: &str) -> (&'a str, Place) {
    let pod = value_of(request.pod.metadata.annotations.as_ref(), key);
    let namespace = value_of(Some(request.namespace_annotations), key);
    if namespace.is_empty() {
        (pod, Place::Pod)
    } else if pod.is_empty() {
        (namespace, Place::Namespace)
    } else if !is_true(pod) || is_false(namespace) {
        (pod, Place::Pod)
    } else {
        (namespace, Place::Namespace)
    }
}

fn value_of<'a>(annotations: Option<&'a BTreeMap<String, String>>, key: &str) -> &'a str {
    annotations.and_then(|all| all.get(key)).map_or("", String::as_str)
}
