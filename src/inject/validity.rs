//! What an Instrumentation may contain and the API server would refuse in a pod.
//!
//! The operator patches such pods and they are denied. A pod must never become un-creatable by us: such content is
//! refused, with a sentence, or left out where the rest makes sense without it.

mod resources;
mod security_context;
mod volume;

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

pub(super) use resources::{Requests, completed, resources};
pub(super) use security_context::check as check_security_context;
pub(super) use volume::check_volume;

use super::instrumentation::{InstrumentationSpec, Sampler};
use super::outcome::{Reason, Refusal};
use super::quantity;

/// Checks what concerns every language; `pod` is where it is going to be.
pub(super) fn check(spec: &InstrumentationSpec, pod: Option<&PodSpec>) -> Result<(), Refusal> {
    if !["", "Always", "Never", "IfNotPresent"].contains(&spec.image_pull_policy.as_str()) {
        return Err(invalid(format!(
            "spec.imagePullPolicy \"{}\" must be Always, Never or IfNotPresent",
            spec.image_pull_policy
        )));
    }
    if let Some(context) = &spec.init_container_security_context {
        check_security_context("spec.initContainerSecurityContext", context, pod)?;
    }
    let tls = &spec.exporter.tls;
    for (key, name) in [("secretName", &tls.secret_name), ("configMapName", &tls.config_map_name)] {
        if !name.is_empty() && !is_object_name(name) {
            return Err(invalid(format!("spec.exporter.tls.{key} \"{name}\" is no name of a Kubernetes object")));
        }
    }
    Ok(())
}

/// A sampler that SDKs will not follow as it is written. No pod fails for it, so its author is only told.
pub(super) fn doubtful_sampler(sampler: &Sampler) -> Option<String> {
    const RATIO_SAMPLERS: [&str; 2] = ["traceidratio", "parentbased_traceidratio"];
    let (kind, argument) = (&sampler.kind, &sampler.argument);
    if !RATIO_SAMPLERS.contains(&kind.as_str()) || argument.is_empty() {
        return None;
    }
    let is_ratio = argument.parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio));
    (!is_ratio).then(|| {
        format!("spec.sampler.argument \"{argument}\" must be a number from 0 to 1 for {kind}; SDKs ignore it as it is")
    })
}

/// An image that is given; blanks at an end make a pod invalid, and what else is wrong with it shows when it is pulled.
pub(super) fn check_image(field: &str, image: &str) -> Result<(), Refusal> {
    if image.trim() == image {
        return Ok(());
    }
    Err(invalid(format!("{field} \"{image}\" has blanks at an end")))
}

/// The entries of an `env` list that a pod may have.
pub(super) fn usable_variables(env: &[EnvVar]) -> Vec<EnvVar> {
    env.iter().filter(|var| objection(var).is_none()).cloned().collect()
}

/// For each entry of an `env` list that is left out, why.
pub(super) fn dropped_variables(env: &[EnvVar]) -> Vec<String> {
    let dropped = |var: &EnvVar| Some(format!("entry \"{}\" is left out: {}", var.name, objection(var)?));
    env.iter().filter_map(dropped).collect()
}

fn objection(variable: &EnvVar) -> Option<&'static str> {
    // The strict rule: older API servers know no other.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if variable.name.is_empty()
        || variable.name.starts_with(|c: char| c.is_ascii_digit())
        || !variable.name.chars().all(allowed)
        || variable.name == "."
        || variable.name.starts_with("..")
    {
        return Some("its name is no name of a variable");
    }
    let source = variable.value_from.as_ref()?;
    if variable.value.as_deref().is_some_and(|value| !value.is_empty()) {
        return Some("it has both value and valueFrom");
    }
    (!is_valid_source(source)).then_some("its valueFrom names no one source that a pod may have")
}

fn is_valid_source(source: &EnvVarSource) -> bool {
    let sources = [
        source.field_ref.is_some(),
        source.resource_field_ref.is_some(),
        source.config_map_key_ref.is_some(),
        source.secret_key_ref.is_some(),
    ];
    sources.iter().filter(|given| **given).count() == 1
        && source.field_ref.as_ref().is_none_or(|field| {
            field.api_version.as_deref().is_none_or(|version| version == "v1") && is_field(&field.field_path)
        })
        && source.resource_field_ref.as_ref().is_none_or(|field| {
            is_resource(&field.resource)
                && field.divisor.as_ref().is_none_or(|divisor| is_divisor(&field.resource, divisor))
        })
        && source.config_map_key_ref.as_ref().is_none_or(|key| is_config_key(&key.key) && is_object_name(&key.name))
        && source.secret_key_ref.as_ref().is_none_or(|key| is_config_key(&key.key) && is_object_name(&key.name))
}

/// Fields of a pod that variables may hold.
fn is_field(path: &str) -> bool {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let key_in = |list: &str| path.strip_prefix(list)?.strip_prefix("['")?.strip_suffix("']");
    FIELDS.contains(&path)
        || key_in("metadata.labels").is_some_and(is_qualified_name)
        || key_in("metadata.annotations").is_some_and(|key| is_qualified_name(&key.to_ascii_lowercase()))
}

/// Units in which the API server lets a resource be given; 0 is none.
fn is_divisor(resource: &str, divisor: &Quantity) -> bool {
    const OF_CPU: [f64; 2] = [1e-3, 1.0];
    const OF_BYTES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let value = quantity::value(divisor);
    value == Some(0.0)
        || match resource.ends_with(".cpu") {
            true => value.is_some_and(|value| OF_CPU.contains(&value)),
            false => OF_BYTES.contains(&divisor.0.as_str()),
        }
}

/// A key of a Secret or ConfigMap.
fn is_config_key(key: &str) -> bool {
    const BYTES_MAX: usize = 253;
    !key.is_empty()
        && key.len() <= BYTES_MAX
        && key != "."
        && !key.starts_with("..")
        && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_resource(name: &str) -> bool {
    let name = name.strip_prefix("limits.").or_else(|| name.strip_prefix("requests."));
    name.is_some_and(|name| ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-"))
}

/// A DNS subdomain, as names of Secrets and ConfigMaps are.
fn is_object_name(name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 253;
    let label = |label: &str| {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        label.starts_with(edge) && label.ends_with(edge) && label.chars().all(|c| edge(c) || c == '-')
    };
    name.len() <= NAME_BYTES_MAX && name.split('.').all(label)
}

/// `name` or `domain/name`: keys of labels and annotations, names of resources.
fn is_qualified_name(text: &str) -> bool {
    let (domain, name) = text.split_once('/').map_or((None, text), |(domain, name)| (Some(domain), name));
    domain.is_none_or(is_object_name) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(text: &str) -> bool {
    const BYTES_MAX: usize = 63;
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.is_empty()
        || (text.len() <= BYTES_MAX
            && text.starts_with(edge)
            && text.ends_with(edge)
            && text.chars().all(|c| edge(c) || "-_.".contains(c)))
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::InstrumentationInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_no_blanks_at_their_ends() {
        assert!(check_image("spec.java.image", "registry.example:5000/agent:9").is_ok());
        for image in [" agent:1", "agent:1\n", " ", "\u{a0}agent"] {
            let refusal = check_image("spec.java.image", image).unwrap_err();
            assert_eq!(refusal.reason, Reason::InstrumentationInvalid, "{image:?}");
        }
    }

    #[test]
    fn ratios_are_numbers_from_0_to_1() {
        for (kind, argument, doubtful) in [
            ("traceidratio", "0.25", false),
            ("parentbased_traceidratio", "1", false),
            ("traceidratio", "", false),
            ("always_on", "25%", false),
            ("traceidratio", "25%", true),
            ("parentbased_traceidratio", "25", true),
            ("traceidratio", "-0.1", true),
            ("traceidratio", "NaN", true),
        ] {
            let sampler = Sampler { kind: kind.to_owned(), argument: argument.to_owned() };
            assert_eq!(doubtful_sampler(&sampler).is_some(), doubtful, "{kind} {argument}");
        }
    }

    #[test]
    fn variables_that_the_api_server_refuses_are_left_out() {
        let objection = |source: serde_json::Value| {
            let variable = serde_json::json!({"name": "A", "valueFrom": source});
            objection(&serde_json::from_value(variable).unwrap())
        };
        let field = |path: &str| serde_json::json!({"fieldRef": {"fieldPath": path}});
        let resource =
            |name: &str, divisor: &str| serde_json::json!({"resourceFieldRef": {"resource": name, "divisor": divisor}});
        let key = |kind: &str, key: &str| serde_json::json!({kind: {"name": "s", "key": key}});
        for source in [
            field("metadata.labels['a.b/C']"),
            field("metadata.annotations['A.b/C']"),
            resource("limits.cpu", "1m"),
            resource("limits.memory", "1Ki"),
            resource("limits.memory", "0"),
            resource("requests.hugepages-2Mi", "1Mi"),
            key("secretKeyRef", "a_B.c-1"),
        ] {
            assert_eq!(objection(source.clone()), None, "{source}");
        }
        for source in [
            field("metadata.labels['a b']"),
            field("metadata.labels['A.b/C']"),
            field("metadata.annotations['/c']"),
            resource("limits.cpu", "7"),
            resource("limits.cpu", "1Ki"),
            resource("requests.memory", "1m"),
            resource("limits.memory", "1024"),
            key("secretKeyRef", "a b"),
            key("configMapKeyRef", "a/b"),
            key("configMapKeyRef", "..a"),
            key("configMapKeyRef", "."),
        ] {
            assert!(objection(source.clone()).is_some(), "{source}");
        }
    }

    #[test]
    fn qualified_names() {
        for (text, expected) in [
            ("a", true),
            ("A_b.c-1", true),
            ("a.b/C", true),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("a/b/c", false),
            ("A/b", false),
            ("-a", false),
        ] {
            assert_eq!(is_qualified_name(text), expected, "{text}");
        }
    }
}
