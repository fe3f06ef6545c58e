//! What a resource asks of the host, read from its fields.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use serde_json::Value;

use super::super::{PipelineSource, collector, defaults, ignored};
use super::created;

/// The configuration as the host takes it, and what of the resource has no effect.
pub(super) fn source(owner: &str, object: &DynamicObject) -> (PipelineSource, Vec<String>) {
    let mut notes = Vec::new();
    let config = object.data.pointer("/spec/config").cloned().unwrap_or_default();
    let whole = serde_json::to_value(object).unwrap_or_default();
    let (text, defaults) = match collector::unreadable_config(&whole) {
        // What was no YAML when it was applied goes to the host as it was written: its errors say where.
        Some(unreadable) => (unreadable.to_owned(), String::new()),
        // Defaults apart from what its author wrote, so that error texts point at lines as `kubectl get -o yaml` shows them.
        None => (yaml(&config), defaults::missing(&config).as_ref().map(yaml).unwrap_or_default()),
    };
    let mut env = BTreeMap::new();
    for variable in object.data.pointer("/spec/env").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| variable.get(key).and_then(Value::as_str);
        let Some(name) = text("name") else { continue };
        if variable.get("valueFrom").is_some_and(|from| !from.is_null()) {
            notes
                .push(format!("spec.env {name}: valueFrom is not supported, the variable is not set; give it a value"));
        } else {
            env.insert(name.to_owned(), text("value").unwrap_or_default().to_owned());
        }
    }
    if object.data.pointer("/spec/envFrom").and_then(Value::as_array).is_some_and(|from| !from.is_empty()) {
        notes.push(
            "spec.envFrom is not supported, its variables are not set; name those that the configuration uses under spec.env"
                .to_owned(),
        );
    }
    notes.extend(ignored::notes(object));
    (PipelineSource { owner: owner.to_owned(), config: text, defaults, env, created: created(object) }, notes)
}

/// YAML, because people read the positions in error texts; JSON is YAML as well, should it not work out.
fn yaml(config: &Value) -> String {
    serde_saphyr::to_string(config).unwrap_or_else(|_| format!("{config:#}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn configuration() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop_oneof![
                "\\PC{0,12}",
                "[yYnNoO~0x1e:.#-]{1,4}",
                Just("line\n  two\n".to_owned()),
                Just(" pad ".to_owned())
            ]
            .prop_map(Value::from),
        ];
        scalar.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z/:. 0-9-]{1,8}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The reader here takes more plain words for booleans than the configuration's own does: what it reads back as
        /// text is text everywhere.
        #[test]
        fn any_configuration_survives_as_yaml(config in configuration()) {
            let text = yaml(&config);
            let read: Value = serde_saphyr::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
            prop_assert_eq!(read, config, "{}", text);
        }
    }

    #[test]
    fn a_source_has_the_defaults_and_reads_as_yaml() {
        let object: DynamicObject = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "x"},
            "spec": {
                "config": {
                    "receivers": {"otlp": {"protocols": {"grpc": null}}},
                    "service": {"pipelines": {"traces": {"receivers": ["otlp"]}}},
                },
                "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
                "envFrom": [{"secretRef": {"name": "s"}}],
                "ingress": {"route": {}}, "targetAllocator": {"enabled": true},
            },
        }))
        .unwrap();
        let (source, notes) = source("n/x", &object);
        assert!(!source.config.contains("endpoint: "), "lines are counted as the author sees them: {}", source.config);
        let read: Value = serde_saphyr::from_str(&source.defaults).unwrap();
        assert_eq!(read["receivers"], json!({"otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}}}}));
        assert_eq!(source.env, BTreeMap::from([("A".to_owned(), "1".to_owned())]));
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(
            notes[0].contains("spec.env B") && notes[1].contains("envFrom") && notes[2].contains("targetAllocator")
        );
        assert!(!notes[2].contains("envFrom"));
    }

    #[test]
    fn a_configuration_that_is_no_yaml_reaches_the_host_as_written() {
        let alpha = json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "OpenTelemetryCollector",
            "metadata": {"namespace": "n", "name": "x"}, "spec": {"config": "receivers:\n\totlp: {}\n"},
        });
        let mut beta = collector::convert_collector(alpha, "opentelemetry.io/v1beta1").unwrap();
        collector::default_collector(&mut beta);
        let (source, _) = source("n/x", &serde_json::from_value(beta).unwrap());
        assert_eq!(source.config, "receivers:\n\totlp: {}\n");
    }
}
