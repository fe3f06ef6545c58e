//! Pods that exist: what they ask for and what was done to them, as their own text says.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::targets::{already_instrumented, is_marked};
use super::{Language, PodRequest, Record, annotations};

/// A container that carries instrumentation.
#[derive(Debug, Clone, PartialEq)]
pub struct InjectedContainer<'a> {
    pub container: &'a Container,
    /// Empty where somebody else injected, who leaves no record of it.
    pub languages: Vec<Language>,
}

/// Languages that the pod or its namespace asks for, injected or not.
#[must_use]
pub fn asked_languages(request: &PodRequest<'_>) -> Vec<Language> {
    annotations::asked(request).into_iter().map(|asked| asked.language).collect()
}

/// The containers that were injected, by Spanreel or by opentelemetry-operator; init containers among them.
#[must_use]
pub fn injected_containers(pod: &Pod) -> Vec<InjectedContainer<'_>> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let record = Record::of(pod);
    let languages = |name: &str| -> Vec<Language> {
        let injected = record.iter().flat_map(Record::injected);
        let here = injected.filter(|(container, _)| *container == name);
        here.filter_map(|(_, language)| Language::ALL.into_iter().find(|known| known.as_str() == language)).collect()
    };
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let injected: Vec<InjectedContainer<'_>> = all
        .map(|container| InjectedContainer { container, languages: languages(&container.name) })
        .filter(|injected| !injected.languages.is_empty() || is_marked(injected.container))
        .collect();
    if injected.is_empty() && already_instrumented(pod) {
        // The operator's agents for web servers mark no container; by default it is the first.
        return spec
            .containers
            .first()
            .map(|container| InjectedContainer { container, languages: Vec::new() })
            .into_iter()
            .collect();
    }
    injected
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_record_and_the_operators_marker_both_count() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"annotations": {"spanreel.dev/injection":
                r#"{"instrumentations":{"n/i":1},"containers":{"a":{"java":"injected"},"b":{"java":"name_taken"}}}"#}},
            "spec": {
                "containers": [{"name": "a"}, {"name": "b"}, {"name": "otc-container", "env": [
                    {"name": "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME"}]}],
                "initContainers": [{"name": "c", "env": [{"name": "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME"}]}],
            },
        }))
        .unwrap();
        let found = injected_containers(&pod);
        let found: Vec<_> = found.iter().map(|it| (it.container.name.as_str(), it.languages.as_slice())).collect();
        assert_eq!(found, [("a", &[Language::Java][..]), ("c", &[])]);
    }
}
