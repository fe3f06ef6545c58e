//! What becomes the agent's volume: a claim template or the size limit of an emptyDir.

use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{Refusal, invalid, is_label_value, is_object_name, is_qualified_name, quantity};

const ACCESS_MODES: [&str; 4] = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", EXCLUSIVE_MODE];
/// Goes with no other mode.
const EXCLUSIVE_MODE: &str = "ReadWriteOncePod";

/// Refuses what the API server would; where there is a claim the limit is not used.
pub(in crate::inject) fn check_volume(
    section: &str,
    claim: Option<&PersistentVolumeClaimTemplate>,
    limit: Option<&Quantity>,
) -> Result<(), Refusal> {
    if let Some(claim) = claim {
        let objection = claim.metadata.as_ref().and_then(metadata).or_else(|| claim_objection(&claim.spec));
        if let Some(objection) = objection {
            return Err(invalid(format!("spec.{section}.volumeClaimTemplate {objection}")));
        }
    } else if let Some(limit) = limit
        && quantity::value(limit).is_none_or(|bytes| bytes < 0.0)
    {
        return Err(invalid(format!("spec.{section}.volumeLimitSize \"{}\" is no amount", limit.0)));
    }
    Ok(())
}

/// The claim gets its name from the pod: only labels and annotations may be given.
fn metadata(given: &ObjectMeta) -> Option<String> {
    let allowed =
        ObjectMeta { labels: given.labels.clone(), annotations: given.annotations.clone(), ..ObjectMeta::default() };
    if *given != allowed {
        return Some("may have only labels and annotations in its metadata".to_owned());
    }
    let label = given.labels.iter().flatten().find(|(key, value)| !is_qualified_name(key) || !is_label_value(value));
    let annotation = given.annotations.iter().flatten().find(|(key, _)| !is_qualified_name(&key.to_lowercase()));
    let (key, _) = label.or(annotation)?;
    Some(format!("has a label or annotation \"{key}\" that is not valid"))
}

fn claim_objection(claim: &PersistentVolumeClaimSpec) -> Option<String> {
    let modes = claim.access_modes.as_deref().unwrap_or_default();
    let storage = claim.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage"));
    if modes.is_empty() || storage.and_then(quantity::value).is_none_or(|bytes| bytes <= 0.0) {
        return Some("needs accessModes and resources.requests.storage".to_owned());
    }
    if let Some(mode) = modes.iter().find(|mode| !ACCESS_MODES.contains(&mode.as_str())) {
        return Some(format!("has access mode \"{mode}\"; known are {}", ACCESS_MODES.join(", ")));
    }
    if modes.iter().any(|mode| mode == EXCLUSIVE_MODE) && modes.iter().any(|mode| mode != EXCLUSIVE_MODE) {
        return Some(format!("has {EXCLUSIVE_MODE} together with another access mode"));
    }
    for (key, name) in [
        ("storageClassName", &claim.storage_class_name),
        ("volumeAttributesClassName", &claim.volume_attributes_class_name),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty() && !is_object_name(name)) {
            return Some(format!("has {key} \"{name}\", which is no name of a Kubernetes object"));
        }
    }
    // Of the two that exist a raw block device cannot take files.
    if let Some(mode) = claim.volume_mode.as_deref().filter(|mode| *mode != "Filesystem") {
        return Some(format!("has volumeMode \"{mode}\"; agents need Filesystem"));
    }
    if claim.data_source.is_some() || claim.data_source_ref.is_some() {
        return Some("has a data source; agents need an empty volume".to_owned());
    }
    claim.selector.as_ref().is_some_and(|selector| !is_selector(selector)).then(|| "has no valid selector".to_owned())
}

fn is_selector(selector: &LabelSelector) -> bool {
    let labels = selector.match_labels.iter().flatten();
    labels.into_iter().all(|(key, value)| is_qualified_name(key) && is_label_value(value))
        && selector.match_expressions.iter().flatten().all(|expression| {
            let values = expression.values.as_deref().unwrap_or_default();
            let fits = match expression.operator.as_str() {
                "In" | "NotIn" => !values.is_empty(),
                "Exists" | "DoesNotExist" => values.is_empty(),
                _ => false,
            };
            fits && is_qualified_name(&expression.key) && values.iter().all(|value| is_label_value(value))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(claim: Value) -> Result<(), String> {
        let claim = serde_json::from_value(claim).unwrap();
        check_volume("java", Some(&claim), None).map_err(|refusal| refusal.message)
    }

    /// A good claim with `fields` changed.
    fn with(fields: Value) -> Value {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"spec": spec})
    }

    #[test]
    fn what_the_api_server_refuses_is_refused() {
        for (claim, text) in [
            (with(json!({"accessModes": ["Foo"]})), "access mode \"Foo\""),
            (with(json!({"accessModes": ["ReadWriteOnce", "ReadWriteOncePod"]})), "another access mode"),
            (with(json!({"accessModes": []})), "needs accessModes"),
            (with(json!({"resources": {}})), "needs accessModes"),
            (with(json!({"storageClassName": "A B"})), "storageClassName \"A B\""),
            (with(json!({"volumeMode": "Block"})), "volumeMode"),
            (with(json!({"dataSource": {"kind": "X", "name": "y"}})), "data source"),
            (with(json!({"selector": {"matchLabels": {"a b": "c"}}})), "selector"),
            (json!({"metadata": {"name": "x"}, "spec": with(json!({}))["spec"]}), "only labels and annotations"),
            (json!({"metadata": {"labels": {"a": "b c"}}, "spec": with(json!({}))["spec"]}), "\"a\""),
        ] {
            let message = check(claim.clone()).unwrap_err();
            assert!(message.contains(text), "{claim}: {message}");
        }
    }

    #[test]
    fn what_the_api_server_takes_is_taken() {
        for claim in [
            with(json!({})),
            with(json!({"storageClassName": ""})),
            with(json!({"storageClassName": "fast.example", "volumeMode": "Filesystem"})),
            json!({"metadata": {"labels": {"a/b": "c"}}, "spec": with(json!({}))["spec"]}),
        ] {
            assert_eq!(check(claim), Ok(()));
        }
    }
}
