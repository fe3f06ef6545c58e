//! Resources of init containers: defaults, and what the API server takes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Refusal, invalid, is_qualified_name, quantity};

/// Limits of every language where the Instrumentation sets none; opentelemetry-operator's.
const LIMITS_DEFAULT: [(&str, &str); 2] = [("cpu", "500m"), ("memory", "256Mi")];

/// Resources of a container that have no domain; the rest must be `domain/name` or `hugepages-<size>`.
const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE_PAGES_PREFIX: &str = "hugepages-";
/// A name with this domain is Kubernetes' own, with which requests may stay below limits.
const NATIVE_DOMAIN: &str = "kubernetes.io/";

/// Requests of a language where the Instrumentation sets none.
#[derive(Debug, Clone, Copy)]
pub(in crate::inject) struct Requests {
    pub(in crate::inject) cpu: &'static str,
    pub(in crate::inject) memory: &'static str,
}

/// Requests and limits with defaults where a map is missing. A default gives way to what the user set: requests never
/// exceed limits, which the API server would refuse.
pub(in crate::inject) fn completed(
    given: &ResourceRequirements,
    requests_default: &Requests,
) -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
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
    (requests, limits)
}

/// The resources at `field` of the Instrumentation, [`completed`].
pub(in crate::inject) fn resources(
    field: &str,
    given: &ResourceRequirements,
    requests_default: &Requests,
) -> Result<ResourceRequirements, Refusal> {
    for (map, quantities) in [("limits", &given.limits), ("requests", &given.requests)] {
        for (name, quantity) in quantities.iter().flatten() {
            if let Some(objection) = objection(name, quantity) {
                return Err(invalid(format!("{field}.{map}: {objection}")));
            }
        }
    }
    let (requests, limits) = completed(given, requests_default);
    for (name, request) in &requests {
        let limit = limits.get(name);
        if let Some(limit) = limit
            && less(limit, request)
        {
            return Err(invalid(format!("{field} requests more {name} ({}) than its limit ({})", request.0, limit.0)));
        }
        if !may_overcommit(name) && limit.is_none_or(|limit| less(request, limit)) {
            return Err(invalid(format!("{field} requests {name}, whose limit must be the same")));
        }
    }
    let all = || requests.keys().chain(limits.keys());
    if all().any(|name| name.starts_with(HUGE_PAGES_PREFIX)) && !all().any(|name| name == "cpu" || name == "memory") {
        return Err(invalid(format!("{field} has huge pages, which need cpu or memory beside them")));
    }
    // Claims name a pod's resource claims, which an Instrumentation cannot know.
    Ok(ResourceRequirements { claims: None, limits: Some(limits), requests: Some(requests) })
}

/// What the API server would say about one entry.
fn objection(name: &str, quantity: &Quantity) -> Option<String> {
    let text = &quantity.0;
    let extended = name.contains('/') && !name.contains(NATIVE_DOMAIN);
    let known = STANDARD.contains(&name) || name.starts_with(HUGE_PAGES_PREFIX) || name.contains('/');
    // The quota of an extended resource is named after it and must be a name as well.
    let quota_is_name = !extended || (!name.starts_with("requests.") && is_qualified_name(&format!("requests.{name}")));
    if !known || !is_qualified_name(name) || !quota_is_name {
        return Some(format!("\"{name}\" is no name of a resource"));
    }
    let Some(value) = quantity::value(quantity).filter(|value| *value >= 0.0) else {
        return Some(format!("{name} \"{text}\" is no amount"));
    };
    if extended && value.fract() != 0.0 {
        return Some(format!("{name} \"{text}\" must be a whole number"));
    }
    if let Some(size) = name.strip_prefix(HUGE_PAGES_PREFIX) {
        let page = quantity::value(&Quantity(size.to_owned())).filter(|page| *page > 0.0);
        if page.is_none_or(|page| value % page != 0.0) {
            return Some(format!("{name} \"{text}\" must be a multiple of the page size"));
        }
    }
    None
}

fn may_overcommit(name: &str) -> bool {
    !name.starts_with(HUGE_PAGES_PREFIX) && (!name.contains('/') || name.contains(NATIVE_DOMAIN))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn outcome(given: Value) -> Result<ResourceRequirements, String> {
        let given: ResourceRequirements = serde_json::from_value(given).unwrap();
        resources("spec.java.resources", &given, &Requests { cpu: "50m", memory: "64Mi" })
            .map_err(|refusal| refusal.message)
    }

    #[test]
    fn what_the_api_server_refuses_is_refused() {
        for (given, text) in [
            (json!({"limits": {"weird name": "1"}}), "no name of a resource"),
            (json!({"limits": {"gpu": "1"}}), "no name of a resource"),
            (json!({"limits": {"a/b/c": "1"}}), "no name of a resource"),
            (json!({"limits": {"requests.a.b/c": "1"}}), "no name of a resource"),
            (json!({"limits": {"nvidia.com/gpu": "500m"}}), "whole number"),
            (json!({"limits": {"cpu": "-1"}}), "no amount"),
            (json!({"limits": {"cpu": "1e999"}}), "no amount"),
            (json!({"requests": {"nvidia.com/gpu": "1"}}), "limit must be the same"),
            (json!({"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "2"}}), "limit must be the same"),
            (json!({"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}}), "multiple of the page size"),
            (json!({"limits": {"hugepages-big": "2Mi", "cpu": "1"}}), "multiple of the page size"),
            (
                json!({"limits": {"hugepages-2Mi": "4Mi", "cpu": "1"}, "requests": {"hugepages-2Mi": "2Mi"}}),
                "limit must be the same",
            ),
            (json!({"limits": {"hugepages-2Mi": "4Mi"}, "requests": {"hugepages-2Mi": "4Mi"}}), "need cpu or memory"),
        ] {
            let message = outcome(given.clone()).unwrap_err();
            assert!(message.contains(text), "{given}: {message}");
        }
    }

    #[test]
    fn what_the_api_server_takes_is_taken() {
        for given in [
            json!({}),
            json!({"limits": {"cpu": 1, "memory": "1.5Gi", "ephemeral-storage": "1G"}}),
            json!({"limits": {"nvidia.com/gpu": "1"}}),
            json!({"limits": {"nvidia.com/gpu": 2}, "requests": {"nvidia.com/gpu": "2"}}),
            json!({"limits": {"hugepages-2Mi": "4Mi"}}),
            json!({"requests": {"example.kubernetes.io/thing": "1500m"}}),
        ] {
            assert!(outcome(given.clone()).is_ok(), "{given}");
        }
    }
}
