//! Which containers of a pod a language goes into, and which pods are left alone.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::outcome::{Reason, Refusal};
use super::record::Record;
use super::{Language, Plan, PodRequest, Settings, annotations};

/// Names given by annotations, in their order; empty means the first container.
pub(crate) type ContainerList = Vec<String>;

/// Names in a language's list. Far more than pods have containers; each unknown one is reported.
const LISTED_MAX: usize = 256;

/// Present in every container that was injected, by Spanreel or by the operator.
pub(super) const NODE_NAME_VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME";

/// The operator's sidecar; it has the marker variable without being instrumented.
const SIDECAR_CONTAINER: &str = "otc-container";

const INJECTED_INIT_CONTAINERS: [&str; 6] = [
    "opentelemetry-auto-instrumentation-java",
    "opentelemetry-auto-instrumentation-nodejs",
    "opentelemetry-auto-instrumentation-python",
    "opentelemetry-auto-instrumentation-dotnet",
    "otel-agent-attach-apache",
    "otel-agent-source-container-clone",
];
/// The sidecar of go.
pub(super) const INJECTED_CONTAINER: &str = "opentelemetry-auto-instrumentation";
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// A pod that is done already, or where injection would have no effect.
pub(super) fn reason_to_skip(pod: &Pod) -> Option<Refusal> {
    if already_instrumented(pod) {
        return Some(Refusal::new(Reason::AlreadyInstrumented, "the pod is instrumented already"));
    }
    let mirrored = pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR_ANNOTATION));
    mirrored.then(|| Refusal::new(Reason::MirrorPod, "a static pod's mirror cannot be changed"))
}

/// Said to the author of a pod that is instrumented by somebody else. What Spanreel injected it finds done when the API
/// server asks again, which is nobody's concern.
pub(super) fn foreign_note(pod: &Pod, skip: &Refusal) -> Option<String> {
    (skip.reason == Reason::AlreadyInstrumented && Record::of(pod).is_none()).then(|| {
        "the pod was instrumented before it came here, by its author or another webhook; nothing is added".to_owned()
    })
}

/// opentelemetry-operator's markers of injected pods, so that the operator and Spanreel never both inject. Unlike for the
/// operator the variable counts in init containers too: an `sdk` injection into one of them leaves no other trace.
pub(super) fn already_instrumented(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let init_containers = spec.init_containers.as_deref().unwrap_or_default();
    init_containers.iter().any(|c| INJECTED_INIT_CONTAINERS.contains(&c.name.as_str()))
        || spec.containers.iter().any(|c| c.name == INJECTED_CONTAINER)
        || spec.containers.iter().chain(init_containers).any(is_marked)
}

/// Whether a container has the variable that every injected one has.
pub(super) fn is_marked(container: &Container) -> bool {
    container.name != SIDECAR_CONTAINER && container.env.iter().flatten().any(|var| var.name == NODE_NAME_VARIABLE)
}

/// The common list with the language's own list appended; without multi-instrumentation there is only the common one.
pub(super) fn listed_containers(
    request: &PodRequest<'_>,
    language: Language,
    settings: &Settings,
) -> Result<ContainerList, Refusal> {
    let mut names = Vec::new();
    let own = settings.multi_instrumentation.then(|| annotations::container_names(request, language));
    for list in [annotations::common_container_names(request), own.unwrap_or_default()] {
        if list.is_empty() {
            continue;
        }
        if !list.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == ',') {
            return Err(Refusal::new(
                Reason::ContainerNamesInvalid,
                format!("container list \"{list}\" may hold only letters, digits, \"-\" and \",\""),
            ));
        }
        names.extend(list.split(',').map(str::to_owned));
        if names.len() > LISTED_MAX {
            return Err(Refusal::new(
                Reason::ContainerNamesInvalid,
                format!("the container list of {language} has more than {LISTED_MAX} names"),
            ));
        }
    }
    Ok(names)
}

/// Combinations that leave open which container gets what; opentelemetry-operator's rules for multi-instrumentation.
pub(super) fn check_lists(plans: &[Plan]) -> Result<(), Refusal> {
    for plan in plans {
        let duplicate = plan
            .containers
            .iter()
            .enumerate()
            .filter(|(_, name)| !name.is_empty())
            .find(|(at, name)| plan.containers.iter().take(*at).any(|earlier| earlier == *name));
        if let Some((_, name)) = duplicate {
            return Err(Refusal::new(
                Reason::ContainerNamesDuplicated,
                format!("container {name} is listed twice for {}; list it once", plan.language),
            ));
        }
    }
    let without = plans.iter().filter(|plan| plan.containers.is_empty()).count();
    if without > 0 && without < plans.len() {
        return Err(Refusal::new(
            Reason::ContainerNamesIncomplete,
            "some languages have a container list and some have none; give every language its list",
        ));
    }
    if without > 1 {
        return Err(Refusal::new(
            Reason::ContainerNamesNeeded,
            "several languages are asked for; say by container lists which container gets which",
        ));
    }
    Ok(())
}

/// Containers in order of processing: listed init containers as the pod has them, then regular ones as listed.
pub(super) fn in_processing_order(spec: &PodSpec, listed: &[String]) -> Vec<String> {
    if listed.is_empty() {
        return spec.containers.first().map(|first| first.name.clone()).into_iter().collect();
    }
    let init = spec.init_containers.iter().flatten().filter(|c| listed.contains(&c.name));
    let mut names: Vec<String> = init.map(|c| c.name.clone()).collect();
    for name in listed {
        // Without multi-instrumentation nobody has checked that each is listed once.
        if spec.containers.iter().any(|c| c.name == *name) && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

pub(super) fn unsuitable_init_container(language: Language, name: &str) -> Refusal {
    let message = format!("{language}: {name} is an init container, which this agent does not suit; list another one");
    Refusal::new(Reason::InitContainerUnsuitable, message)
}

/// Finds a container or init container; their names are unique within a pod.
pub(super) fn container<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
}

/// As [`container`], to change it.
pub(super) fn container_mut<'a>(spec: &'a mut PodSpec, name: &str) -> Option<&'a mut Container> {
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).find(|c| c.name == name)
}
