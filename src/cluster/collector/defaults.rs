//! What is missing is written into the resource, so that it says what runs.

use serde_json::{Map, Value, json};

use super::{fields, set_if_absent};
use crate::cluster::defaults;

const AUTOSCALER_CPU_TARGET: u8 = 90;
const CONFIG_VERSIONS: u8 = 3;

/// Completes a v1beta1 resource as opentelemetry-operator's webhook does on create and update (reference section 6.2).
/// A second time it changes nothing.
pub(in crate::cluster) fn default_collector(object: &mut Value) {
    let Some(object) = object.as_object_mut() else { return };
    if let Some(metadata) = fields(object, "metadata") {
        fields(metadata, "labels");
    }
    let Some(spec) = fields(object, "spec") else { return };
    for (key, value) in [
        ("mode", "deployment"),
        ("upgradeStrategy", "automatic"),
        ("managementState", "managed"),
        ("ipFamilyPolicy", "SingleStack"),
    ] {
        set_if_empty(spec, key, value);
    }
    set_if_absent(spec, "replicas", json!(1));
    set_if_absent(spec, "configVersions", json!(CONFIG_VERSIONS));
    if let Some(policy) = fields(spec, "networkPolicy") {
        set_if_absent(policy, "enabled", json!(true));
    }
    if let Some(allocator) = present(spec, "targetAllocator")
        && allocator.get("enabled") == Some(&json!(true))
    {
        set_if_absent(allocator, "replicas", json!(1));
    }
    complete_autoscaler(spec);
    complete_ingress(spec);
    if let Some(config) = spec.get_mut("config") {
        defaults::apply(config);
    }
}

/// Only one that scales: it has an upper bound.
fn complete_autoscaler(spec: &mut Map<String, Value>) {
    let replicas = spec.get("replicas").cloned().unwrap_or_default();
    let Some(autoscaler) = present(spec, "autoscaler") else { return };
    let is_set = |autoscaler: &Map<String, Value>, key: &str| autoscaler.get(key).is_some_and(|v| !v.is_null());
    if !is_set(autoscaler, "maxReplicas") {
        return;
    }
    set_if_absent(autoscaler, "minReplicas", replicas);
    if !is_set(autoscaler, "targetCPUUtilization") && !is_set(autoscaler, "targetMemoryUtilization") {
        autoscaler.insert("targetCPUUtilization".to_owned(), json!(AUTOSCALER_CPU_TARGET));
    }
}

fn complete_ingress(spec: &mut Map<String, Value>) {
    let Some(ingress) = present(spec, "ingress") else { return };
    match ingress.get("type").and_then(Value::as_str) {
        Some("route") => {
            if let Some(route) = fields(ingress, "route") {
                set_if_empty(route, "termination", "edge");
            }
        }
        Some("ingress") => set_if_empty(ingress, "ruleType", "path"),
        _ => {}
    }
}

fn present<'a>(spec: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    spec.get_mut(key)?.as_object_mut()
}

fn set_if_empty(parent: &mut Map<String, Value>, key: &str, value: &str) {
    if parent.get(key).is_none_or(|present| present.is_null() || present == "") {
        parent.insert(key.to_owned(), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaulted(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "x"}, "spec": spec});
        default_collector(&mut object);
        let once = object.clone();
        default_collector(&mut object);
        assert_eq!(object, once, "twice is once");
        object["spec"].clone()
    }

    #[test]
    fn nothing_given_becomes_the_operators_defaults() {
        assert_eq!(
            defaulted(json!(null)),
            json!({
                "mode": "deployment", "upgradeStrategy": "automatic", "managementState": "managed", "replicas": 1,
                "configVersions": 3, "ipFamilyPolicy": "SingleStack", "networkPolicy": {"enabled": true},
            })
        );
    }

    #[test]
    fn what_is_given_stays_and_the_configuration_is_completed() {
        let given = json!({
            "mode": "daemonset", "upgradeStrategy": "none", "managementState": "unmanaged", "replicas": 0,
            "configVersions": 1, "ipFamilyPolicy": "PreferDualStack", "networkPolicy": {"enabled": false},
            "targetAllocator": {"enabled": false}, "autoscaler": {"minReplicas": 2}, "ingress": {}, "future": [1],
        });
        assert_eq!(defaulted(given.clone()), given);
        let spec = defaulted(json!({"config": {
            "receivers": {"otlp": {"protocols": {"grpc": null}}},
            "service": {"pipelines": {"traces": {"receivers": ["otlp"]}}},
        }}));
        assert_eq!(spec["config"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"], "0.0.0.0:4317");
    }

    #[test]
    fn parts_that_are_used_are_completed() {
        let spec = defaulted(json!({
            "replicas": 2, "autoscaler": {"maxReplicas": 5}, "targetAllocator": {"enabled": true},
            "ingress": {"type": "route"},
        }));
        assert_eq!(spec["autoscaler"], json!({"maxReplicas": 5, "minReplicas": 2, "targetCPUUtilization": 90}));
        assert_eq!(spec["targetAllocator"], json!({"enabled": true, "replicas": 1}));
        assert_eq!(spec["ingress"], json!({"type": "route", "route": {"termination": "edge"}}));
        let spec = defaulted(json!({
            "autoscaler": {"maxReplicas": 5, "minReplicas": 1, "targetMemoryUtilization": 50},
            "ingress": {"type": "ingress", "ruleType": ""},
        }));
        assert_eq!(spec["autoscaler"], json!({"maxReplicas": 5, "minReplicas": 1, "targetMemoryUtilization": 50}));
        assert_eq!(spec["ingress"], json!({"type": "ingress", "ruleType": "path"}));
    }

    #[test]
    fn other_types_are_left_to_the_schema() {
        for object in [json!(null), json!(5), json!({"metadata": "x", "spec": []})] {
            let mut after = object.clone();
            default_collector(&mut after);
            assert_eq!(after, object);
        }
    }
}
