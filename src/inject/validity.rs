//! What an Instrumentation may contain and the API server would refuse in a pod.
//!
//! The operator patches such pods and they are denied. A pod must never become un-creatable by us: such content is
//! refused, with a sentence, or left out where the rest makes sense without it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EnvVar, EnvVarSource, PersistentVolumeClaimTemplate, ResourceRequirements, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::instrumentation::InstrumentationSpec;
use super::outcome::{Reason, Refusal};
use super::quantity;

/// Limits of every language where the Instrumentation sets none (`reference/operator.md` 2.2).
const LIMITS_DEFAULT: [(&str, &str); 2] = [("cpu", "500m"), ("memory", "256Mi")];

/// Requests of a language where the Instrumentation sets none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requests {
    pub(super) cpu: &'static str,
    pub(super) memory: &'static str,
}

/// Checks what concerns every language.
pub(super) fn check(spec: &InstrumentationSpec) -> Result<(), Refusal> {
    if !["", "Always", "Never", "IfNotPresent"].contains(&spec.image_pull_policy.as_str()) {
        return Err(invalid(format!(
            "spec.imagePullPolicy \"{}\" must be Always, Never or IfNotPresent",
            spec.image_pull_policy
        )));
    }
    if let Some(context) = &spec.init_container_security_context {
        check_security_context(context)?;
    }
    let tls = &spec.exporter.tls;
    for (key, name) in [("secretName", &tls.secret_name), ("configMapName", &tls.config_map_name)] {
        if !name.is_empty() && !is_object_name(name) {
            return Err(invalid(format!("spec.exporter.tls.{key} \"{name}\" is no name of a Kubernetes object")));
        }
    }
    Ok(())
}

fn check_security_context(context: &SecurityContext) -> Result<(), Refusal> {
    let no_escalation = context.allow_privilege_escalation == Some(false);
    let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
    let admin = added.into_iter().any(|capability| capability == "CAP_SYS_ADMIN");
    if no_escalation && (context.privileged == Some(true) || admin) {
        return Err(invalid(
            "spec.initContainerSecurityContext sets allowPrivilegeEscalation: false together with privileged: true or CAP_SYS_ADMIN",
        ));
    }
    if context.run_as_user.is_some_and(|id| id < 0) || context.run_as_group.is_some_and(|id| id < 0) {
        return Err(invalid("spec.initContainerSecurityContext has a negative user or group"));
    }
    Ok(())
}

/// The language's resources with defaults where a map is missing. A default gives way to what the user set: requests
/// never exceed limits, which the API server would refuse.
pub(super) fn resources(
    language: &str,
    given: &ResourceRequirements,
    requests_default: &Requests,
) -> Result<ResourceRequirements, Refusal> {
    for (map, quantities) in [("limits", &given.limits), ("requests", &given.requests)] {
        for (name, quantity) in quantities.iter().flatten() {
            if quantity::value(quantity).is_none_or(|value| value < 0.0) {
                let text = &quantity.0;
                return Err(invalid(format!("spec.{language}.resources.{map}.{name} \"{text}\" is no amount")));
            }
        }
    }
    let default_requests = || {
        let defaults = [("cpu", requests_default.cpu), ("memory", requests_default.memory)];
        let limits = given.limits.as_ref();
        amounts(&defaults, |name, default| limits.and_then(|l| l.get(name)).filter(|limit| less(limit, default)))
    };
    let default_limits = || {
        let requests = given.requests.as_ref();
        amounts(&LIMITS_DEFAULT, |name, default| requests.and_then(|r| r.get(name)).filter(|r| less(default, r)))
    };
    let requests = given.requests.clone().unwrap_or_else(default_requests);
    let limits = given.limits.clone().unwrap_or_else(default_limits);
    for (name, request) in &requests {
        if let Some(limit) = limits.get(name)
            && less(limit, request)
        {
            return Err(invalid(format!(
                "spec.{language}.resources requests more {name} ({}) than its limit ({})",
                request.0, limit.0
            )));
        }
    }
    // Claims name a pod's resource claims, which an Instrumentation cannot know.
    Ok(ResourceRequirements { claims: None, limits: Some(limits), requests: Some(requests) })
}

fn amounts<'a>(
    defaults: &[(&str, &str)],
    instead: impl Fn(&str, &Quantity) -> Option<&'a Quantity>,
) -> BTreeMap<String, Quantity> {
    defaults
        .iter()
        .map(|(name, default)| {
            let default = Quantity((*default).to_owned());
            let amount = instead(name, &default).cloned().unwrap_or(default);
            ((*name).to_owned(), amount)
        })
        .collect()
}

fn less(a: &Quantity, b: &Quantity) -> bool {
    matches!((quantity::value(a), quantity::value(b)), (Some(a), Some(b)) if a < b)
}

/// Checks what becomes the agent's volume.
pub(super) fn check_volume(
    language: &str,
    claim: Option<&PersistentVolumeClaimTemplate>,
    limit: Option<&Quantity>,
) -> Result<(), Refusal> {
    if let Some(claim) = claim {
        let modes = claim.spec.access_modes.as_deref().unwrap_or_default();
        let storage = claim.spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage"));
        if modes.is_empty() || storage.and_then(quantity::value).is_none_or(|bytes| bytes <= 0.0) {
            return Err(invalid(format!(
                "spec.{language}.volumeClaimTemplate needs accessModes and resources.requests.storage"
            )));
        }
    } else if let Some(limit) = limit
        && quantity::value(limit).is_none_or(|bytes| bytes < 0.0)
    {
        return Err(invalid(format!("spec.{language}.volumeLimitSize \"{}\" is no amount", limit.0)));
    }
    Ok(())
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
    (!is_valid_source(source)).then_some("its valueFrom names no one source")
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
        && source.resource_field_ref.as_ref().is_none_or(|field| is_resource(&field.resource))
        && source.config_map_key_ref.as_ref().is_none_or(|key| !key.key.is_empty() && is_object_name(&key.name))
        && source.secret_key_ref.as_ref().is_none_or(|key| !key.key.is_empty() && is_object_name(&key.name))
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
    let keyed = ["metadata.labels['", "metadata.annotations['"].iter().any(|prefix| {
        path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("']")).is_some_and(|key| !key.is_empty())
    });
    FIELDS.contains(&path) || keyed
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

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::InstrumentationInvalid, message)
}
