//! How large a pod may become: attributes from its annotations are written into every container that is injected.

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

use super::outcome::{Reason, Refusal};

/// Keys and values of all annotations together, as the API server counts them.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// etcd takes 1.5 MiB for an object, of which the API server's own notes on it (`managedFields`) need a part.
const POD_BYTES_MAX: usize = 1024 * 1024;
/// `NAME=value` and its end: Linux starts no process with more in one variable.
const VARIABLE_BYTES_MAX: usize = 128 * 1024;

/// Why `mutated` is too large. What `original` had of that size already is its author's affair.
pub(super) fn objection(original: &Pod, mutated: &Pod) -> Option<Refusal> {
    let too_large = |what: String| {
        let message =
            format!("{what} with the injection; shorten the pod's annotations or the Instrumentation's lists");
        Some(Refusal::new(Reason::PodTooLarge, message))
    };
    if annotations_bytes(mutated) > ANNOTATIONS_BYTES_MAX {
        return too_large("the pod's annotations would be larger than 256 KiB".to_owned());
    }
    for container in containers(mutated) {
        let before = containers(original).find(|before| before.name == container.name);
        let was_large = |name: &str| before.into_iter().flat_map(large_variables).any(|var| var.name == name);
        if let Some(variable) = large_variables(container).find(|var| !was_large(&var.name)) {
            return too_large(format!(
                "{} of container {} would be larger than 128 KiB, with which no process starts,",
                variable.name, container.name
            ));
        }
    }
    let (before, after) = (bytes(original), bytes(mutated));
    // A little more is no matter: the pod was near the limit, or beyond it, before.
    if after > POD_BYTES_MAX && after - before.min(after) > POD_BYTES_MAX / 16 {
        return too_large("the pod would be larger than 1 MiB".to_owned());
    }
    None
}

fn annotations_bytes(pod: &Pod) -> usize {
    pod.metadata.annotations.iter().flatten().map(|(key, value)| key.len() + value.len()).sum()
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

fn large_variables(container: &Container) -> impl Iterator<Item = &EnvVar> {
    let is_large = |var: &&EnvVar| var.name.len() + var.value.as_ref().map_or(0, String::len) + 2 > VARIABLE_BYTES_MAX;
    container.env.iter().flatten().filter(is_large)
}

/// As JSON; stored, it takes a little less.
fn bytes(pod: &Pod) -> usize {
    serde_json::to_vec(pod).map_or(0, |text| text.len())
}
