//! What of a collector resource has no effect here, in words for its status: there is one process, and it is not the
//! resource's own.

use kube::api::DynamicObject;
use serde_json::{Value, json};

/// Keys of `spec` that are honoured, or that say nothing about what runs.
const HONOURED: [&str; 9] = [
    "config",
    "env",
    // Has a note of its own.
    "envFrom",
    "managementState",
    "mode",
    "ports",
    // Of the operator's own doings.
    "configVersions",
    "upgradeStrategy",
    "networkPolicy",
];

/// A sentence for each part of the resource that is given and ignored.
pub(super) fn notes(object: &DynamicObject) -> Vec<String> {
    let mut notes = Vec::new();
    let spec = object.data.get("spec").and_then(Value::as_object);
    let ignored: Vec<String> = spec
        .into_iter()
        .flatten()
        .filter(|(key, value)| !HONOURED.contains(&key.as_str()) && is_given(key, value))
        .map(|(key, _)| format!("spec.{key}"))
        .collect();
    if !ignored.is_empty() {
        let (has, it) = if ignored.len() == 1 { ("has", "it is") } else { ("have", "they are") };
        notes.push(format!("{} {has} no effect: {it} for a pod that Spanreel does not create", ignored.join(", ")));
    }
    if let Some(telemetry) = object.data.pointer("/spec/config/service/telemetry") {
        notes.extend(telemetry_note(telemetry));
    }
    notes
}

/// Whether it says more than opentelemetry-operator's webhook writes into every resource.
fn is_given(key: &str, value: &Value) -> bool {
    match key {
        "replicas" => *value != json!(1) && !value.is_null(),
        "ipFamilyPolicy" => !is_empty(value) && *value != json!("SingleStack"),
        "targetAllocator" => value.get("enabled") == Some(&json!(true)),
        _ => !is_empty(value),
    }
}

/// One process has one log and one set of metrics, which its own configuration says everything about.
fn telemetry_note(telemetry: &Value) -> Option<String> {
    // The monitoring Service leads from whatever port the first one has to Spanreel's metrics.
    let is_prometheus = |reader: &Value| reader.pointer("/pull/exporter/prometheus/port").is_some();
    let readers = telemetry.pointer("/metrics/readers").and_then(Value::as_array);
    let other_reader = readers.is_some_and(|readers| readers.len() > 1 || !readers.iter().all(is_prometheus));
    let sections = telemetry.as_object().into_iter().flatten();
    let mut ignored: Vec<String> = sections
        .filter(|(key, value)| *key != "metrics" && !is_empty(value))
        .map(|(key, _)| format!("spec.config.service.telemetry.{key}"))
        .collect();
    if other_reader {
        ignored.push("all but the first Prometheus reader in spec.config.service.telemetry.metrics.readers".to_owned());
    }
    (!ignored.is_empty()).then(|| {
        format!("no effect, because Spanreel's own configuration says what it logs and shows: {}", ignored.join(", "))
    })
}

/// The operator's defaults leave empty objects behind.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::Bool(on) => !on,
        Value::String(text) => text.is_empty(),
        Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes_of(spec: Value) -> String {
        let object = json!({"metadata": {"namespace": "n", "name": "x"}, "spec": spec});
        notes(&serde_json::from_value(object).unwrap()).join("\n")
    }

    #[test]
    fn what_is_given_and_ignored_is_named() {
        let text = notes_of(json!({
            "config": {"service": {"telemetry": {
                "logs": {"level": "debug"},
                "metrics": {"readers": [{"pull": {"exporter": {"prometheus": {"port": 1}}}}, {"periodic": {}}]},
            }}},
            "image": "other:1", "replicas": 3, "resources": {"limits": {"cpu": "1"}}, "ingress": {"type": "route"},
            "targetAllocator": {"enabled": true}, "tolerations": [{"operator": "Exists"}], "hostNetwork": true,
        }));
        for name in ["image", "replicas", "resources", "ingress", "targetAllocator", "tolerations", "hostNetwork"] {
            assert!(text.contains(&format!("spec.{name}")), "{name}: {text}");
        }
        assert!(text.contains("spec.config.service.telemetry.logs") && text.contains("first Prometheus"), "{text}");
        assert!(notes_of(json!({"image": "x"})).starts_with("spec.image has no effect: it is"));
        let text =
            notes_of(json!({"config": {"service": {"telemetry": {"metrics": {"readers": [{"periodic": {}}]}}}}}));
        assert!(text.contains("first Prometheus"), "{text}");
    }

    #[test]
    fn what_is_honoured_or_the_operators_default_is_not() {
        let reader = json!({"pull": {"exporter": {"prometheus": {"host": "0.0.0.0", "port": 9999}}}});
        for metrics in [json!(null), json!({"readers": [reader]}), json!({"address": ":9999"})] {
            let text = notes_of(json!({
                "config": {"service": {"telemetry": {"metrics": metrics}}},
                "mode": "daemonset", "managementState": "managed", "env": [{"name": "A", "value": "1"}],
                "ports": [{"name": "p", "port": 1}], "replicas": 1, "upgradeStrategy": "automatic", "configVersions": 3,
                "ipFamilyPolicy": "SingleStack", "networkPolicy": {"enabled": true}, "resources": {}, "image": "",
                "ingress": {"route": {}}, "targetAllocator": {"allocationStrategy": "consistent-hashing"},
                "observability": {"metrics": {}}, "hostNetwork": false,
            }));
            assert_eq!(text, "");
        }
    }
}
