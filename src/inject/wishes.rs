//! What annotations wish for, as a person is told: which key, which value, and whose it is.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::annotations::{self, Asked, is_false};
use super::{Instrumentation, Language, PodRequest, View, selection};

const REQUEST_PREFIX: &str = "inject-";
/// Names of init container (or sidecar, for go) and of image volume that bring an agent.
const AGENT_PREFIX: &str = "opentelemetry-auto-instrumentation";
const WEB_SERVER_AGENT: &str = "otel-agent-attach";

/// Whose annotation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Pod,
    Namespace,
}

/// One language that an annotation speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub language: Language,
    /// The annotation's whole key.
    pub annotation: String,
    /// `true`, `false`, `<name>` or `<namespace>/<name>`; never empty.
    pub value: String,
    pub place: Place,
}

impl Wish {
    /// It says `false`.
    #[must_use]
    pub fn is_off(&self) -> bool {
        is_false(&self.value)
    }
}

/// Every language whose annotation has a value that counts, `false` among them.
#[must_use]
pub fn wishes(request: &PodRequest<'_>) -> Vec<Wish> {
    let of = |language: Language| {
        let annotation = annotations::option_key(&format!("{REQUEST_PREFIX}{language}"));
        let (value, place) = annotations::effective_from(request, &annotation);
        (!value.is_empty()).then(|| Wish { language, annotation, value: value.to_owned(), place })
    };
    Language::ALL.into_iter().filter_map(of).collect()
}

/// The container lists that count for a language: whole key and value, the common one first; empty where there is none.
#[must_use]
pub fn container_lists<'a>(request: &PodRequest<'a>, language: Language) -> [(String, &'a str); 2] {
    let common = (annotations::option_key("container-names"), annotations::common_container_names(request));
    let own = annotations::option_key(&language.container_names_key());
    [common, (own, annotations::container_names(request, language))]
}

/// Annotations that look like requests and name no language: nobody would ever hear of them.
#[must_use]
pub fn unknown_requests(request: &PodRequest<'_>) -> Vec<String> {
    let prefix = annotations::option_key(REQUEST_PREFIX);
    let known = |key: &str| {
        key.strip_prefix(&prefix).is_none_or(|name| {
            Language::ALL.iter().any(|language| language.as_str() == name) || name == "nginx-container-names"
        })
    };
    let all = request.pod.metadata.annotations.iter().flatten().chain(request.namespace_annotations);
    let mut unknown: Vec<String> = all.map(|(key, _)| key).filter(|key| !known(key)).cloned().collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

/// The Instrumentation that a wish leads to; `None`: it is off, or leads to none that can be used.
#[must_use]
pub fn chosen(wish: &Wish, namespace: &str, view: &View<'_>) -> Option<Arc<Instrumentation>> {
    if wish.is_off() {
        return None;
    }
    let asked = Asked { language: wish.language, value: wish.value.clone() };
    selection::choose(&asked, namespace, view).ok().map(|choice| choice.instrumentation)
}

/// The image that brings a language's agent into an injected pod.
#[must_use]
pub fn agent_image(pod: &Pod, language: Language) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    let name = match language {
        Language::Sdk => return None,
        Language::Go => AGENT_PREFIX.to_owned(),
        Language::ApacheHttpd => format!("{WEB_SERVER_AGENT}-apache"),
        Language::Nginx => format!("{WEB_SERVER_AGENT}-nginx"),
        other => format!("{AGENT_PREFIX}-{other}"),
    };
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let copied = || containers.clone().find(|container| container.name == name)?.image.as_deref();
    let mounted =
        || spec.volumes.iter().flatten().find(|volume| volume.name == name)?.image.as_ref()?.reference.as_deref();
    copied().or_else(mounted)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    const JAVA: &str = "instrumentation.opentelemetry.io/inject-java";
    const PYTHON: &str = "instrumentation.opentelemetry.io/inject-python";

    fn pod(annotations: &[(&str, &str)]) -> Pod {
        let annotations: BTreeMap<&str, &str> = annotations.iter().copied().collect();
        serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap()
    }

    #[test]
    fn a_wish_says_whose_it_is() {
        let pod = pod(&[(JAVA, "true"), (PYTHON, "False")]);
        let namespace = BTreeMap::from([(JAVA.to_owned(), "other/java".to_owned())]);
        let request = PodRequest { pod: &pod, namespace: "n", namespace_annotations: &namespace };
        let found = wishes(&request);
        let found: Vec<_> =
            found.iter().map(|wish| (wish.language, wish.value.as_str(), wish.place, wish.is_off())).collect();
        let expected =
            [(Language::Java, "other/java", Place::Namespace, false), (Language::Python, "False", Place::Pod, true)];
        assert_eq!(found, expected);
    }

    #[test]
    fn requests_that_name_no_language_are_found() {
        let wrong = "instrumentation.opentelemetry.io/inject-node";
        let pod = pod(&[
            (JAVA, "true"),
            (wrong, "true"),
            ("instrumentation.opentelemetry.io/inject-nginx-container-names", "a"),
        ]);
        let none = BTreeMap::new();
        let request = PodRequest { pod: &pod, namespace: "n", namespace_annotations: &none };
        assert_eq!(unknown_requests(&request), [wrong]);
    }

    #[test]
    fn the_agents_image_is_found_however_it_came() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "app"}],
            "initContainers": [{"name": "opentelemetry-auto-instrumentation-java", "image": "java:1"}],
            "volumes": [{"name": "opentelemetry-auto-instrumentation-nodejs", "image": {"reference": "node:2"}}],
        }}))
        .unwrap();
        let images = [Language::Java, Language::NodeJs, Language::Python, Language::Sdk].map(|l| agent_image(&pod, l));
        assert_eq!(images, [Some("java:1"), Some("node:2"), None, None]);
    }
}
