//! Promises that hold for every pod and Instrumentation; single cases are files in `tests/data/inject`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
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
    decide_with(pod, catalog, &Settings::default())
}

fn decide_with(pod: &Pod, catalog: &Catalog, settings: &Settings) -> Decision {
    let built_in = Instrumentation::built_in("http://spanreel.spanreel:4318");
    let request = PodRequest { pod, namespace: "ns", namespace_annotations: &BTreeMap::new() };
    decide(&request, &View { settings, catalog, built_in: &built_in, owners: &OwnerMap::new(), absent: &[] })
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

#[test]
fn go_is_refused_where_pod_security_would_refuse_the_pod() {
    let asking = pod(json!({
        "metadata": {"annotations": {
            "instrumentation.opentelemetry.io/inject-go": "i",
            "instrumentation.opentelemetry.io/otel-go-auto-target-exe": "/app",
        }},
        "spec": {"containers": [{"name": "a"}]},
    }));
    let mut settings = Settings::default();
    settings.languages.push(Language::Go);
    let (catalog, built_in) = (catalog(json!({})), Instrumentation::built_in("http://x:4318"));
    let view =
        View { settings: &settings, catalog: &catalog, built_in: &built_in, owners: &OwnerMap::new(), absent: &[] };
    for (level, injected) in [("privileged", true), ("baseline", false), ("restricted", false)] {
        let namespace = BTreeMap::from([(POD_SECURITY_LABEL.to_owned(), level.to_owned())]);
        let decision = decide(&PodRequest { pod: &asking, namespace: "ns", namespace_annotations: &namespace }, &view);
        assert_eq!(decision.pod.is_some(), injected, "{level}: {decision:?}");
        assert!(injected || decision.outcomes[0].reason == Reason::PodSecurityEnforced, "{decision:?}");
    }
}

#[test]
fn what_annotations_quote_and_list_is_bounded() {
    let listed = |list: String| {
        decide_in(
            &pod(json!({
                "metadata": {"annotations": {
                    "instrumentation.opentelemetry.io/inject-sdk": "i",
                    "instrumentation.opentelemetry.io/container-names": list,
                }},
                "spec": {"containers": [{"name": "a"}]},
            })),
            &catalog(json!({})),
        )
    };
    let many = listed((0..50_000).map(|n| format!("{n},")).collect());
    assert_eq!(many.outcomes.len(), 1);
    assert_eq!(many.outcomes[0].reason, Reason::ContainerNamesInvalid);
    let long = listed("!".repeat(200_000));
    assert!(long.outcomes[0].message.len() <= 1024);
}

#[test]
fn a_pod_whose_annotations_are_full_is_refused() {
    let key = "instrumentation.opentelemetry.io/inject-sdk";
    let asks = |filling: usize| {
        pod(json!({
            "metadata": {"annotations": {key: "i", "full": "x".repeat(filling)}},
            "spec": {"containers": [{"name": "a"}]},
        }))
    };
    // The API server takes 256 KiB of keys and values together.
    let full = 256 * 1024 - key.len() - "i".len() - "full".len();
    let decision = decide_in(&asks(full), &catalog(json!({})));
    assert_eq!(decision.pod, None);
    assert_eq!(decision.outcomes[0].reason, Reason::PodTooLarge);
    assert_eq!(decision.outcomes.len(), 1);
    assert!(decide_in(&asks(full - 1024), &catalog(json!({}))).pod.is_some());
}

#[test]
fn a_pod_that_would_grow_too_large_is_refused() {
    let containers = |count: usize| -> Vec<Value> { (0..count).map(|n| json!({"name": format!("c{n}")})).collect() };
    let grows = |count: usize, each: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("c{n}")).collect();
        pod(json!({
            "metadata": {"annotations": {
                "instrumentation.opentelemetry.io/inject-sdk": "i",
                "instrumentation.opentelemetry.io/container-names": names.join(","),
                "resource.opentelemetry.io/large": "x".repeat(each),
            }},
            "spec": {"containers": containers(count)},
        }))
    };
    let decision = decide_in(&grows(20, 100_000), &catalog(json!({})));
    assert_eq!(decision.pod, None, "2 MB of attributes fit into no object");
    assert!(decision.outcomes.iter().all(|outcome| outcome.reason == Reason::PodTooLarge));
    assert!(decide_in(&grows(2, 100_000), &catalog(json!({}))).pod.is_some());
    // A process cannot be started with more in one variable.
    let decision = decide_in(&grows(1, 140_000), &catalog(json!({})));
    assert_eq!(decision.pod, None);
    assert_eq!(decision.outcomes[0].reason, Reason::PodTooLarge);
}

/// Variables whose value grows by injection, and only grows.
const EXTENDED: [&str; 8] = [
    "JAVA_TOOL_OPTIONS",
    "NODE_OPTIONS",
    "PYTHONPATH",
    "DOTNET_STARTUP_HOOKS",
    "DOTNET_ADDITIONAL_DEPS",
    "DOTNET_SHARED_STORE",
    "LD_LIBRARY_PATH",
    "OTEL_RESOURCE_ATTRIBUTES",
];

fn arbitrary_env() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        "[A-Z]{1,3}",
        proptest::sample::select(&EXTENDED[..]).prop_map(str::to_owned),
        Just("OTEL_SERVICE_NAME".to_owned()),
        Just("OTEL_RESOURCE_ATTRIBUTES_POD_NAME".to_owned()),
        Just("OTEL_DOTNET_AUTO_HOME".to_owned()),
        Just("OTEL_GO_AUTO_TARGET_EXE".to_owned()),
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
            let literal = var.value.as_deref().is_some_and(|value| !value.is_empty());
            assert!(var.value_from.is_none() || !literal, "value or valueFrom, not both: {var:?}");
            assert!(!var.name.is_empty() && var.name.is_ascii() && !var.name.contains(['=', ' ']), "{var:?}");
        }
    }
}

/// Every language, every way to bring agents in, and both dialects.
fn arbitrary_settings() -> impl Strategy<Value = Settings> {
    (0..3u8, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(delivery, served, strict, multi)| Settings {
        delivery: match delivery {
            0 => Delivery::InitContainer,
            1 => Delivery::ImageVolume,
            _ => Delivery::Auto,
        },
        image_volumes_served: served,
        strict_operator_compat: strict,
        multi_instrumentation: multi,
        languages: Language::ALL.to_vec(),
        ..Settings::default()
    })
}

/// Where a web server's author may have mounted something.
const MOUNTS: [&str; 9] = [
    "/data",
    "/etc/nginx",
    "/etc/nginx/nginx.conf",
    "/etc/nginx/conf.d",
    "/etc/nginx/conf.d/opentelemetry_agent.conf",
    "/etc/nginx-more",
    "/usr/local/apache2/conf",
    "/usr/local/apache2/conf/extra",
    "/usr/local/apache2/conf/httpd.conf",
];

/// Variables that refer to one another, but never in a circle.
fn referring_env() -> impl Strategy<Value = Value> {
    let entry = (0..5, 1..5).prop_map(
        |(from, by)| json!({"name": format!("V{from}"), "value": format!("x$(V{})$(OTEL_POD_IP)", from + by)}),
    );
    proptest::collection::vec(entry, 0..5).prop_map(Value::Array)
}

fn joined((mut first, second): (Value, Value)) -> Value {
    first.as_array_mut().unwrap().extend(second.as_array().unwrap().iter().cloned());
    first
}

/// Nothing that was added refers to what comes later, so that the kubelet resolves it. What the pod's author wrote, `own`,
/// stays where it is.
fn assert_references_resolve(pod: &Pod, own: &[&str]) {
    let spec = pod.spec.as_ref().unwrap();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let env = container.env.as_deref().unwrap_or_default();
        for (at, var) in env.iter().enumerate().filter(|(_, var)| !own.contains(&var.name.as_str())) {
            for name in env.iter().skip(at + 1).map(|later| later.name.as_str()) {
                let refers = var.value.as_deref().is_some_and(|value| value.contains(&format!("$({name})")));
                let known = name == var.name || env.iter().take(at).any(|earlier| earlier.name == name);
                assert!(!refers || known, "{} refers to the later {name} in {}", var.name, container.name);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_valid_pod_stays_valid_keeps_what_it_had_and_is_injected_once(
        own_env in valid_env(),
        init_env in valid_env(),
        language_env in (arbitrary_env(), referring_env()).prop_map(joined),
        common_env in (arbitrary_env(), referring_env()).prop_map(joined),
        tls in prop_oneof![
            Just((String::new(), String::new())),
            ("[a-z]{0,60}", "[a-z.]{0,70}"),
            ("[a-z.A-Z]{0,70}", "[a-z.]{0,70}"),
        ],
        languages in 1..=255u8,
        list in prop_oneof![Just("app"), Just("setup,app"), Just("nobody"), Just("app,setup,app"), Just("")],
        platform in prop_oneof![Just(""), Just("musl"), Just("linux-musl-x64"), Just("other")],
        executable in prop_oneof![Just(""), Just("/app")],
        mounts in proptest::collection::btree_set(proptest::sample::select(&MOUNTS[..]), 0..4),
        directives in arbitrary_env(),
        attributes in proptest::collection::btree_map("[a-z.]{1,12}|k8s.pod.name|service.name", "[ -~]{0,6}", 0..4),
        restricted in any::<bool>(),
        context in prop_oneof![Just(json!(null)), Just(json!({"privileged": true, "runAsUser": 0})), Just(json!({"runAsUser": 9}))],
        settings in arbitrary_settings(),
    ) {
        let mut annotations = serde_json::Map::new();
        let mut annotate = |key: &str, value: &str| {
            annotations.insert(format!("instrumentation.opentelemetry.io/{key}"), json!(value));
        };
        for (at, language) in Language::ALL.iter().enumerate() {
            if languages & (1 << at) != 0 {
                annotate(&format!("inject-{language}"), "i");
            }
        }
        annotate("container-names", list);
        annotate("otel-python-platform", platform);
        annotate("otel-dotnet-auto-runtime", platform);
        annotate("otel-go-auto-target-exe", executable);
        let own_context = if restricted {
            json!({
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
            })
        } else {
            json!(null)
        };
        let mounts: Vec<Value> = mounts.iter().map(|path| json!({"name": "own", "mountPath": path})).collect();
        let pod = pod(json!({
            "metadata": {"annotations": annotations},
            "spec": {
                "containers": [{
                    "name": "app", "image": "a:1", "env": own_env, "securityContext": own_context, "volumeMounts": mounts,
                }],
                "volumes": [{"name": "own", "emptyDir": {}}],
                "initContainers": [{"name": "setup", "env": init_env, "securityContext": own_context}],
            },
        }));
        let section = json!({"env": language_env});
        let spec = json!({
            "exporter": {"endpoint": "$(V4)", "tls": {"secretName": tls.0, "configMapName": tls.1, "ca_file": "ca"}},
            "resource": {"resourceAttributes": attributes, "addK8sUIDAttributes": true},
            "env": common_env,
            "initContainerSecurityContext": context,
            "java": section, "nodejs": section, "python": section, "dotnet": section, "go": section,
            "apacheHttpd": {"env": language_env, "attrs": directives},
            "nginx": {"env": language_env, "attrs": directives},
        });
        let catalog = catalog(spec);
        let decision = decide_with(&pod, &catalog, &settings);
        prop_assert!(!decision.outcomes.is_empty());
        let Some(mutated) = &decision.pod else {
            prop_assert!(!decision.warnings().is_empty());
            return Ok(());
        };
        assert_valid(mutated);
        // The sidecar of go never passes; that is said.
        let sidecar = targets::container(mutated.spec.as_ref().unwrap(), targets::INJECTED_CONTAINER).is_some();
        prop_assert!(pod_security::is_restricted(mutated) || !restricted || sidecar);
        let (before, after) = (pod.spec.as_ref().unwrap(), mutated.spec.as_ref().unwrap());
        for name in ["app", "setup"] {
            let before = targets::container(before, name).unwrap().env.as_deref().unwrap_or_default();
            let kept = targets::container(after, name).unwrap().env.as_deref().unwrap_or_default();
            for var in before {
                let found = kept.iter().any(|k| {
                    let extended = EXTENDED.contains(&var.name.as_str())
                        && k.value.as_deref().unwrap_or("").contains(var.value.as_deref().unwrap_or(""));
                    k.name == var.name && (k.value == var.value && k.value_from == var.value_from || extended)
                }) || before.iter().filter(|other| other.name == var.name).count() > 1;
                prop_assert!(found, "{var:?} is gone from {kept:?}");
            }
        }
        if !settings.strict_operator_compat {
            let own = own_env.as_array().unwrap().iter().chain(init_env.as_array().unwrap());
            let own: Vec<&str> = own.filter_map(|var| var["name"].as_str()).collect();
            assert_references_resolve(mutated, &own);
        }
        // What was refused as a whole changes nothing, so that the files that strict compatibility brings stay alone.
        if decision.outcomes.iter().any(|o| o.verdict == Verdict::Injected) {
            let again = decide_with(mutated, &catalog, &settings);
            prop_assert_eq!(&again.pod, &None);
            prop_assert!(again.outcomes.iter().all(|o| o.reason == Reason::AlreadyInstrumented));
        }
        let original = serde_json::to_value(&pod).unwrap();
        let patch = patch(&original, &pod, mutated).unwrap();
        let mut patched = original;
        json_patch::patch(&mut patched, &patch).unwrap();
        prop_assert_eq!(patched, serde_json::to_value(mutated).unwrap());
    }
}
