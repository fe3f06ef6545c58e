//! Promises that hold for every pod and Instrumentation; single cases are files in `tests/data/inject`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EnvVar, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

fn catalog(spec: Value) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.insert("ns", "i", Instrumentation::read("ns", "i", 1, spec).map(Arc::new));
    catalog
}

fn decide_in(pod: &Pod, catalog: &Catalog) -> Decision {
    let built_in = Instrumentation::built_in("http://spanreel.spanreel:4318");
    let request = PodRequest { pod, namespace: "ns", namespace_annotations: &BTreeMap::new() };
    decide(
        &request,
        &View { settings: &Settings::default(), catalog, built_in: &built_in, owners: &OwnerMap::new(), absent: &[] },
    )
}

#[test]
fn every_reason_and_language_has_its_own_word() {
    let words: std::collections::BTreeSet<&str> = Language::ALL.iter().map(|l| l.as_str()).collect();
    assert_eq!(words.len(), Language::ALL.len());
}

#[test]
fn what_has_no_effect_is_said_and_injected_nevertheless() {
    let pod = pod(json!({
        "metadata": {"annotations": {"instrumentation.opentelemetry.io/inject-java": "i"}},
        "spec": {"containers": [{"name": "a"}]},
    }));
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let decision = decide_in(
        &pod,
        &catalog(json!({
            "sampler": {"type": "traceidratio", "argument": "25%"},
            "java": {"volumeClaimTemplate": claim, "volumeLimitSize": "1Gi"},
        })),
    );
    assert!(decision.pod.is_some());
    let warnings = decision.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("Instrumentation ns/i: spec.java has volumeClaimTemplate and volumeLimitSize"));
    assert!(warnings[1].contains("Instrumentation ns/i: spec.sampler.argument \"25%\" must be a number"));
}

#[test]
fn warnings_are_few_and_short() {
    let refusal = Outcome::refused(Language::Java, None, &Refusal::new(Reason::ContainerNotFound, "é".repeat(4000)));
    let mut decision = Decision { outcomes: vec![refusal], ..Decision::default() };
    decision.notes = (0..100).map(|n| format!("note {n}")).collect();
    let warnings = decision.warnings();
    assert_eq!(warnings.len(), 12);
    assert!(warnings.iter().all(|warning| warning.len() <= 300));
}

fn arbitrary_env() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        "[A-Z]{1,3}",
        Just("JAVA_TOOL_OPTIONS".to_owned()),
        Just("OTEL_RESOURCE_ATTRIBUTES".to_owned()),
        Just("OTEL_SERVICE_NAME".to_owned()),
        "[ -~é]{0,4}",
    ];
    let entry = (name, "[a-z=,$()]{0,8}", 0..4u8).prop_map(|(name, value, kind)| match kind {
        0 => json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        1 => json!({"name": name, "value": value, "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
        _ => json!({"name": name, "value": value}),
    });
    proptest::collection::vec(entry, 0..5).prop_map(Value::Array)
}

/// What a pod's author could have written: no value beside a valueFrom.
fn valid_env() -> impl Strategy<Value = Value> {
    arbitrary_env().prop_map(|env| {
        let keep = |var: &&Value| {
            let name = var["name"].as_str().unwrap();
            (var.get("value").is_none() || var.get("valueFrom").is_none())
                && !name.is_empty()
                && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        Value::Array(env.as_array().unwrap().iter().filter(keep).cloned().collect())
    })
}

fn assert_valid(pod: &Pod) {
    let spec = pod.spec.as_ref().unwrap();
    let mut volumes: Vec<&str> = spec.volumes.iter().flatten().map(|v| v.name.as_str()).collect();
    let all = volumes.len();
    volumes.sort_unstable();
    volumes.dedup();
    assert_eq!(volumes.len(), all, "volume names are unique");
    for name in &volumes {
        assert!(name.len() <= 63 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
    }
    let mut names = Vec::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        assert!(!names.contains(&&container.name), "container names are unique");
        names.push(&container.name);
        let mounts: Vec<&str> = container.volume_mounts.iter().flatten().map(|m| m.mount_path.as_str()).collect();
        for (at, path) in mounts.iter().enumerate() {
            assert!(!mounts[..at].contains(path), "mount paths are unique");
        }
        for mount in container.volume_mounts.iter().flatten() {
            assert!(volumes.contains(&mount.name.as_str()), "{} is a volume", mount.name);
        }
        for var in container.env.iter().flatten() {
            assert!(var.value_from.is_none() || var.value.is_none(), "value or valueFrom, not both: {var:?}");
            assert!(!var.name.is_empty() && var.name.is_ascii() && !var.name.contains(['=', ' ']), "{var:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_valid_pod_stays_valid_keeps_what_it_had_and_is_injected_once(
        own_env in valid_env(),
        init_env in valid_env(),
        java_env in arbitrary_env(),
        common_env in arbitrary_env(),
        tls in ("[a-z.A-Z]{0,70}", "[a-z.]{0,70}"),
        languages in 1..4u8,
        list in prop_oneof![Just(""), Just("app"), Just("setup,app"), Just("nobody"), Just("app,setup,app")],
        attributes in proptest::collection::btree_map("[a-z.]{1,12}|k8s.pod.name|service.name", "[ -~]{0,6}", 0..4),
    ) {
        let mut annotations = serde_json::Map::new();
        if languages & 1 != 0 {
            annotations.insert("instrumentation.opentelemetry.io/inject-java".to_owned(), json!("i"));
        }
        if languages & 2 != 0 {
            annotations.insert("instrumentation.opentelemetry.io/inject-sdk".to_owned(), json!("true"));
        }
        annotations.insert("instrumentation.opentelemetry.io/container-names".to_owned(), json!(list));
        let pod = pod(json!({
            "metadata": {"annotations": annotations},
            "spec": {
                "containers": [{"name": "app", "image": "a:1", "env": own_env}],
                "initContainers": [{"name": "setup", "env": init_env}],
            },
        }));
        let spec = json!({
            "exporter": {"endpoint": "$(LATER)", "tls": {"secretName": tls.0, "configMapName": tls.1, "ca_file": "ca"}},
            "resource": {"resourceAttributes": attributes, "addK8sUIDAttributes": true},
            "env": common_env,
            "java": {"env": java_env},
        });
        let catalog = catalog(spec);
        let decision = decide_in(&pod, &catalog);
        prop_assert!(!decision.outcomes.is_empty());
        if let Some(mutated) = &decision.pod {
            assert_valid(mutated);
            for (before, after) in [
                (&pod.spec.as_ref().unwrap().containers[0], targets::container(mutated.spec.as_ref().unwrap(), "app")),
                (&pod.spec.as_ref().unwrap().init_containers.as_ref().unwrap()[0], targets::container(mutated.spec.as_ref().unwrap(), "setup")),
            ] {
                let kept: Vec<&EnvVar> = after.unwrap().env.iter().flatten().collect();
                for var in before.env.iter().flatten() {
                    let found = kept.iter().any(|k| {
                        let extended = ["JAVA_TOOL_OPTIONS", "OTEL_RESOURCE_ATTRIBUTES"].contains(&var.name.as_str())
                            && k.value.as_deref().unwrap_or("").contains(var.value.as_deref().unwrap_or(""));
                        k.name == var.name && (k.value == var.value && k.value_from == var.value_from || extended)
                    }) || before.env.iter().flatten().filter(|other| other.name == var.name).count() > 1;
                    prop_assert!(found, "{var:?} is gone from {kept:?}");
                }
            }
            let again = decide_in(mutated, &catalog);
            prop_assert_eq!(&again.pod, &None);
            prop_assert!(again.outcomes.iter().all(|o| o.reason == Reason::AlreadyInstrumented));
            let original = serde_json::to_value(&pod).unwrap();
            let patch = patch(&original, &pod, mutated).unwrap();
            let mut patched = original;
            json_patch::patch(&mut patched, &patch).unwrap();
            prop_assert_eq!(patched, serde_json::to_value(mutated).unwrap());
        } else {
            prop_assert!(!decision.warnings().is_empty());
        }
    }
}
