//! Pods of all shapes through the webhook of the real binary, as a real API server sends and judges them.
//!
//! The binary has the rights of `deploy/install.yaml` and no others, but for the one that the file names as optional:
//! reading Secrets and ConfigMaps, without which a missing TLS file is not noticed. Creations are dry runs: they pass
//! admission, defaulting and validation like any other, and store nothing.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use crate::installed::{INJECT, Installed, MARK};
use crate::kube_rig::wait_until;
use crate::scripts::name_scripts;

/// Other tests compile and run meanwhile.
const SOON: Duration = Duration::from_secs(90);
const LANGUAGES: [&str; 8] = ["java", "nodejs", "python", "dotnet", "go", "apache-httpd", "nginx", "sdk"];

/// Every language, so that one process serves every pod of a test.
const ALL_LANGUAGES: &str = "injection: {languages: {go: true, nginx: true}}";

const OPTIONAL_RIGHTS: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: spanreel-tls-files
rules:
- {apiGroups: [''], resources: [secrets, configmaps], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: spanreel-tls-files
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: spanreel-tls-files}
subjects:
- {kind: ServiceAccount, name: spanreel, namespace: spanreel}
";

/// An API server that asks the binary about pods.
struct Rig(Installed);

impl Rig {
    /// `settings` are lines under `extensions::spanreel`.
    async fn start(settings: &[&str]) -> Self {
        let mut installed = Installed::prepare(&[], settings).await;
        installed.kube.apply("spanreel", OPTIONAL_RIGHTS).await;
        installed.start().await;
        Self(installed)
    }

    /// The same API server with a process that has other settings.
    async fn restart(&mut self, settings: &[&str]) {
        self.0.restart_with(settings).await;
    }

    async fn create_namespace(&self, name: &str, annotations: &BTreeMap<String, String>) {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": annotations}});
        self.0.kube.create("/api/v1/namespaces", &object).await.unwrap();
    }

    /// The pod as it would be stored; `Err`: the API server's objection.
    async fn try_pod(&self, namespace: &str, pod: &Value) -> Result<Value, String> {
        self.0.kube.create(&format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"), pod).await
    }
}

/// The files of `tests/data/inject`, each in a namespace of its own, through admission: what the API server would store
/// has everything that the file expects, in its order, and nothing in the lists that the file does not have.
#[tokio::test(flavor = "multi_thread")]
async fn every_hand_written_pod_comes_back_from_the_api_server_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/inject");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    // One process per distinct settings.
    let mut by_settings: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        // The files say `shop`; namespaces of tests are distinct.
        let text = std::fs::read_to_string(file).unwrap().replace("shop", &format!("shop{number}"));
        let case: Value = serde_saphyr::from_str(&text).unwrap();
        let settings = match case["settings"].clone() {
            Value::Null => String::new(),
            Value::Object(mut settings) => {
                // Found out, not set: this API server has them.
                let served = settings.remove("image_volumes_served").unwrap_or_default() == true;
                if !served && settings.get("delivery").is_some_and(|delivery| delivery != "init") {
                    continue;
                }
                format!("injection: {}", Value::Object(settings))
            }
            other => panic!("{}: settings are no map: {other}", file.display()),
        };
        by_settings.entry(settings).or_default().push((format!("shop{number}"), text));
    }
    let mut rig: Option<Rig> = None;
    let (mut checked, mut failures) = (0, Vec::new());
    for (settings, cases) in by_settings {
        let lines: Vec<&str> = Some(settings.as_str()).filter(|line| !line.is_empty()).into_iter().collect();
        match &mut rig {
            None => rig = Some(Rig::start(&lines).await),
            Some(rig) => rig.restart(&lines).await,
        }
        let rig = rig.as_ref().unwrap();
        for (namespace, text) in cases {
            match check_case(rig, &namespace, &text).await {
                Ok(true) => checked += 1,
                Ok(false) => {}
                Err(why) => failures.push(why),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(checked * 10 >= files.len() * 8, "only {checked} of {} files could be checked", files.len());
}

/// `Ok(false)`: the API server takes no such Instrumentation or pod, whoever sends it.
async fn check_case(rig: &Rig, namespace: &str, text: &str) -> Result<bool, String> {
    let case: Value = serde_saphyr::from_str(text).unwrap();
    let about = case["about"].as_str().unwrap_or_default();
    let annotations: BTreeMap<String, String> =
        serde_json::from_value(case["namespaceAnnotations"].clone()).unwrap_or_default();
    rig.create_namespace(namespace, &annotations).await;
    if annotations.iter().any(|(key, value)| key.starts_with(INJECT) && value != "false") {
        wait_for_namespace(rig, namespace).await;
    }
    for instrumentation in case["instrumentations"].as_array().into_iter().flatten() {
        let home = instrumentation["namespace"].as_str().unwrap();
        let _ = rig.0.kube.create("/api/v1/namespaces", &json!({"metadata": {"name": home}})).await;
        let object = json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "Instrumentation",
            "metadata": {"name": instrumentation["name"]}, "spec": instrumentation["spec"],
        });
        let path = format!("/apis/opentelemetry.io/v1alpha1/namespaces/{home}/instrumentations");
        if rig.0.kube.create(&path, &object).await.is_err() {
            return Ok(false);
        }
        wait_for_instrumentation(rig, home, instrumentation["name"].as_str().unwrap()).await;
        create_tls_objects(rig, namespace, &case, &instrumentation["spec"]["exporter"]["tls"]).await;
    }
    // An owner counts only if it is the one that the pod names, and the API server gives it a uid of its own.
    let mut text = text.to_owned();
    for (written, real) in create_owners(rig, namespace, &case).await {
        text = text.replace(&written, &real);
    }
    let case: Value = serde_saphyr::from_str(&text).unwrap();

    let mut pod = case["pod"].clone();
    make_creatable(&mut pod);
    let mut plain = pod.clone();
    plain["metadata"].as_object_mut().unwrap().remove("annotations");
    if let Err(why) = rig.try_pod("default", &without_owners(&plain)).await {
        return Err(format!("{about}: the API server takes no such pod: {why}"));
    }
    let mut stored = rig.try_pod(namespace, &pod).await.map_err(|why| format!("{about}: {why}"))?;
    name_scripts(&mut stored);
    let mut expected = if case["expected"].is_null() { pod.clone() } else { case["expected"].clone() };
    make_creatable(&mut expected);
    if case["expected"].is_null() && stored["spec"].to_string().contains("opentelemetry-auto-instrumentation-") {
        let in_author_pod = pod["spec"].to_string().contains("opentelemetry-auto-instrumentation-");
        if !in_author_pod {
            return Err(format!("{about}: injected, where nothing is expected"));
        }
    }
    match difference("", &expected, &stored) {
        None => Ok(true),
        Some(at) => Err(format!("{about} ({namespace}): {at}")),
    }
}

/// Registration and index follow the watch of namespaces: a pod that asks for nothing itself is sent until it is seen to
/// be asked about, or until a second pod created after a bounded wait shows that there is nothing to see.
async fn wait_for_namespace(rig: &Rig, namespace: &str) {
    let probe = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
        "spec": {"containers": [{"name": "probe-of-the-namespace", "image": "app"}]},
    });
    let before = asked(rig).await;
    wait_until("the webhook to be asked about the namespace", SOON, async || {
        rig.try_pod(namespace, &probe).await.ok()?;
        (asked(rig).await > before).then_some(())
    })
    .await;
}

/// Admission requests that were decided so far.
async fn asked(rig: &Rig) -> u64 {
    let metrics = rig.0.spanreel.metrics().await;
    metrics.sum("spanreel_webhook_latency_seconds_count", &[]).unwrap_or_default() as u64
}

/// A `true` in its namespace counts Instrumentations, so it matters that the watch has seen this one.
async fn wait_for_instrumentation(rig: &Rig, namespace: &str, name: &str) {
    let endpoint = |stored: &Value| stored["spec"]["containers"][0]["env"].to_string().contains(MARK);
    let probe = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "probe", "annotations": {format!("{INJECT}sdk"): format!("{namespace}/{name}")}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    // Naming it works at once by a look-up; what is waited for is bounded by the watch, a fraction of a second.
    let stored = rig.try_pod("default", &probe).await;
    if stored.as_ref().is_ok_and(endpoint) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn create_tls_objects(rig: &Rig, namespace: &str, case: &Value, tls: &Value) {
    let absent: Vec<&str> = case["absentSecrets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (kind, plural, key) in [("Secret", "secrets", "secretName"), ("ConfigMap", "configmaps", "configMapName")] {
        let Some(name) = tls[key].as_str().filter(|name| !absent.contains(name)) else { continue };
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        // Names that no object can have stay absent.
        let _ = rig.0.kube.create(&format!("/api/v1/namespaces/{namespace}/{plural}"), &object).await;
    }
}

/// Creates the ReplicaSets and Jobs that the file knows, with the owners that it gives them. Returns the uids by which
/// the file's pod names them, each with the one that they got.
async fn create_owners(rig: &Rig, namespace: &str, case: &Value) -> Vec<(String, String)> {
    let mut uids = Vec::new();
    let labels = json!({"app": "owned"});
    let template = json!({
        "metadata": {"labels": labels},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "app", "image": "app"}]},
    });
    for owner in case["owners"].as_array().into_iter().flatten() {
        let name = owner["name"].as_str().unwrap();
        let references = case["pod"]["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let is_job = references.iter().any(|reference| reference["name"] == name && reference["kind"] == "Job");
        let metadata = json!({"name": name, "ownerReferences": owner["ownerReferences"]});
        let (path, object) = if is_job {
            let spec = json!({"template": template, "suspend": true});
            ("batch/v1", json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}))
        } else {
            let mut template = template.clone();
            template["spec"].as_object_mut().unwrap().remove("restartPolicy");
            let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template});
            ("apps/v1", json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec}))
        };
        let plural = if is_job { "jobs" } else { "replicasets" };
        let made = rig.0.kube.create(&format!("/apis/{path}/namespaces/{namespace}/{plural}"), &object).await.unwrap();
        let reference = references.iter().find(|reference| reference["name"] == name);
        if let Some(written) = reference.and_then(|reference| reference["uid"].as_str()) {
            uids.push((written.to_owned(), made["metadata"]["uid"].as_str().unwrap().to_owned()));
        }
    }
    uids
}

/// What files leave out because it does not matter to injection, and the API server insists on. No image without a tag
/// has a version.
fn make_creatable(pod: &mut Value) {
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    let metadata = pod["metadata"].as_object_mut().unwrap();
    if !metadata.contains_key("name") && !metadata.contains_key("generateName") {
        metadata.insert("generateName".to_owned(), json!("case-"));
    }
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let fields = container.as_object_mut().unwrap();
            fields.entry("image").or_insert_with(|| json!("app"));
        }
    }
    if pod["spec"]["initContainers"].is_null() {
        pod["spec"].as_object_mut().unwrap().remove("initContainers");
    }
}

fn without_owners(pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    pod["metadata"]["namespace"] = Value::Null;
    pod
}

/// Where `stored` lacks something of `expected`. The API server adds fields to objects, and nothing to lists; it writes
/// quantities its own way.
fn difference(at: &str, expected: &Value, stored: &Value) -> Option<String> {
    match (expected, stored) {
        (Value::Object(expected), Value::Object(stored)) => expected.iter().find_map(|(key, value)| {
            let at = format!("{at}.{key}");
            // Given with the namespace, and taken from empty values.
            if at.ends_with(".namespace") || is_empty(value) {
                return None;
            }
            difference(&at, value, stored.get(key).unwrap_or(&Value::Null))
        }),
        (Value::Array(expected), Value::Array(stored)) => {
            if expected.len() != stored.len() {
                return Some(format!("{at} has {} entries, expected {}: {stored:?}", stored.len(), expected.len()));
            }
            expected.iter().zip(stored).enumerate().find_map(|(n, (e, s))| difference(&format!("{at}[{n}]"), e, s))
        }
        _ if expected == stored || same_quantity(at, expected, stored) => None,
        _ => Some(format!("{at} is {stored}, expected {expected}")),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// `4` and `"4"` are one amount, `1024Mi` and `1Gi` another one.
fn same_quantity(at: &str, a: &Value, b: &Value) -> bool {
    let amount = |value: &Value| -> Option<f64> {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let number = text.trim_end_matches(char::is_alphabetic);
        let scale = match &text[number.len()..] {
            "" => 1.0,
            "m" => 0.001,
            "Ki" => 1024.0,
            "Mi" => 1024.0 * 1024.0,
            "Gi" => 1024.0 * 1024.0 * 1024.0,
            _ => return None,
        };
        number.parse::<f64>().ok().map(|number| number * scale)
    };
    let is_quantity = ["cpu", "memory", "storage", "sizeLimit"].iter().any(|key| at.ends_with(key));
    is_quantity && amount(a).is_some() && amount(a) == amount(b)
}

/// Pods of all shapes times Instrumentations of all shapes: what the API server takes without us it takes with us, what
/// the author wrote is there afterwards, references resolve, and a second admission changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_valid_pods_stay_valid_and_are_injected_once() {
    const INSTRUMENTATIONS: usize = 24;
    const PODS: usize = 480;
    let rig = Rig::start(&[ALL_LANGUAGES]).await;
    rig.create_namespace("many", &BTreeMap::new()).await;
    let mut runner = TestRunner::deterministic();
    let mut names = Vec::new();
    let mut tries = 0;
    while names.len() < INSTRUMENTATIONS {
        tries += 1;
        assert!(tries < INSTRUMENTATIONS * 20, "the API server takes hardly any generated Instrumentation");
        let spec = instrumentation().new_tree(&mut runner).unwrap().current();
        let name = format!("i{}", names.len());
        let object = json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "Instrumentation",
            "metadata": {"name": name}, "spec": spec,
        });
        let path = "/apis/opentelemetry.io/v1alpha1/namespaces/many/instrumentations";
        if rig.0.kube.create(path, &object).await.is_ok() {
            names.push(name);
        }
    }
    let (mut sent, mut injected) = (0, BTreeMap::<&str, usize>::new());
    while sent < PODS {
        tries += 1;
        assert!(tries < PODS * 4, "the API server takes hardly any generated pod");
        let shape = pod_shape().new_tree(&mut runner).unwrap().current();
        let plain = shape.pod(None, &names);
        if rig.try_pod("many", &plain).await.is_err() {
            continue;
        }
        sent += 1;
        let asking = shape.pod(Some(sent), &names);
        let stored = rig.try_pod("many", &asking).await;
        let stored = stored.unwrap_or_else(|why| panic!("un-creatable by us: {why}\n{asking:#}"));
        check_kept(&asking, &stored);
        check_references(&asking, &stored);
        if stored["spec"].to_string().contains(MARK) {
            for language in &shape.languages {
                *injected.entry(language).or_default() += 1;
            }
            let mut again = stored.clone();
            let metadata = again["metadata"].as_object_mut().unwrap();
            metadata.retain(|key, _| ["name", "annotations", "labels", "generateName"].contains(&key.as_str()));
            again.as_object_mut().unwrap().remove("status");
            let second = rig.try_pod("many", &again).await.unwrap();
            assert_eq!(second["spec"], stored["spec"], "injected twice");
        }
    }
    for language in LANGUAGES {
        let count = injected.get(language).copied().unwrap_or_default();
        assert!(count >= 10, "{language} was injected into {count} of {sent} pods only: {injected:?}");
    }
}

#[derive(Debug, Clone)]
struct Shape {
    languages: Vec<&'static str>,
    metadata: Value,
    spec: Value,
    lists: Vec<String>,
    platform: Option<&'static str>,
    runtime: Option<&'static str>,
    go_target: bool,
}

impl Shape {
    /// `asks`: a number that chooses the Instrumentation; without it the pod asks for nothing.
    fn pod(&self, asks: Option<usize>, names: &[String]) -> Value {
        let mut metadata = self.metadata.clone();
        if let Some(number) = asks {
            let mut annotations = Map::new();
            let several = self.languages.len() > 1;
            for (at, language) in self.languages.iter().enumerate() {
                annotations.insert(format!("{INJECT}{language}"), json!(names[(number + at) % names.len()]));
                let list = self.lists.get(at).cloned().unwrap_or_default();
                let key = if *language == "nginx" { "inject-nginx" } else { language };
                if several || !list.is_empty() {
                    let list = if list.is_empty() { "app".to_owned() } else { list };
                    annotations.insert(format!("instrumentation.opentelemetry.io/{key}-container-names"), json!(list));
                }
            }
            let texts = [("otel-python-platform", self.platform), ("otel-dotnet-auto-runtime", self.runtime)];
            for (key, value) in texts.into_iter().filter_map(|(key, value)| Some((key, value?))) {
                annotations.insert(format!("instrumentation.opentelemetry.io/{key}"), json!(value));
            }
            if self.go_target {
                annotations
                    .insert("instrumentation.opentelemetry.io/otel-go-auto-target-exe".to_owned(), json!("/app"));
            }
            metadata["annotations"] = Value::Object(annotations);
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self.spec})
    }
}

fn variables() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        "[A-Z]{1,3}",
        prop::sample::select(vec![
            "JAVA_TOOL_OPTIONS",
            "NODE_OPTIONS",
            "PYTHONPATH",
            "DOTNET_STARTUP_HOOKS",
            "DOTNET_SHARED_STORE",
            "OTEL_DOTNET_AUTO_HOME",
            "LD_LIBRARY_PATH",
            "OTEL_RESOURCE_ATTRIBUTES",
            "OTEL_SERVICE_NAME",
            "OTEL_POD_IP",
            "OTEL_TRACES_SAMPLER",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ])
        .prop_map(str::to_owned),
    ];
    let entry = (name, "[a-z=,:/]{0,8}|\\$\\([A-C]\\)", 0..5u8).prop_map(|(name, value, kind)| match kind {
        0 => json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        1 => json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}),
        _ => json!({"name": name, "value": value}),
    });
    proptest::collection::vec(entry, 0..5).prop_map(Value::Array)
}

fn container(name: &'static str) -> impl Strategy<Value = Value> {
    let security = prop_oneof![
        Just(Value::Null),
        Just(json!({"runAsUser": 1000})),
        Just(json!({"privileged": true})),
        Just(json!({
            "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 7,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        })),
    ];
    let mounts = prop_oneof![
        4 => Just(json!([])),
        1 => Just(json!([{"name": "data", "mountPath": "/data"}])),
        1 => Just(json!([{"name": "data", "mountPath": "/otel-auto-instrumentation-java-app"}])),
        1 => Just(json!([{"name": "data", "mountPath": "/usr/local/apache2/conf"}])),
        1 => Just(json!([{"name": "data", "mountPath": "/otel-auto-instrumentation-nodejs/"}])),
    ];
    let resources = prop_oneof![Just(Value::Null), Just(json!({"limits": {"cpu": "100m", "memory": "64Mi"}}))];
    let image = prop_oneof![Just("app"), Just("registry.example:5000/team/app:1.2.3"), Just("app@sha256:zz")];
    (variables(), security, mounts, resources, image).prop_map(move |(env, security, mounts, resources, image)| {
        let mut container = json!({"name": name, "image": image, "env": env, "volumeMounts": mounts});
        for (key, value) in [("securityContext", security), ("resources", resources)] {
            if !value.is_null() {
                container[key] = value;
            }
        }
        container
    })
}

fn pod_shape() -> impl Strategy<Value = Shape> {
    let languages = prop_oneof![
        3 => prop::sample::select(LANGUAGES.to_vec()).prop_map(|language| vec![language]),
        1 => prop::sample::subsequence(LANGUAGES.to_vec(), 2..4),
    ];
    let containers = (container("app"), proptest::option::of(container("side")));
    let init = (proptest::option::of(container("setup")), any::<bool>());
    let volumes = prop_oneof![
        3 => Just(json!([])),
        1 => Just(json!([{"name": "otel-apache-agent", "emptyDir": {}}])),
        1 => Just(json!([{"name": "opentelemetry-auto-instrumentation-python", "configMap": {"name": "c"}}])),
    ];
    let list = prop_oneof![
        3 => Just(String::new()), 2 => Just("app".to_owned()), 1 => Just("side".to_owned()),
        1 => Just("setup,app".to_owned()), 1 => Just("setup".to_owned()), 1 => Just("gone,app".to_owned()),
    ];
    let extras = (
        proptest::option::of(prop::sample::select(vec!["glibc", "musl", "beos"])),
        proptest::option::of(prop::sample::select(vec!["linux-x64", "linux-musl-x64", "beos"])),
        prop::bool::weighted(0.8),
        prop_oneof![3 => Just(Value::Null), 2 => Just(json!(true)), 1 => Just(json!(false))],
        prop_oneof![Just(Value::Null), Just(json!({"fsGroup": 1, "runAsNonRoot": true}))],
        any::<bool>(),
    );
    (languages, containers, init, volumes, proptest::collection::vec(list, 4), extras).prop_map(
        |(languages, (app, side), (setup, native), volumes, lists, extras)| {
            let (platform, runtime, go_target, share, security, generated) = extras;
            let mut all_volumes = vec![json!({"name": "data", "emptyDir": {}})];
            all_volumes.extend(volumes.as_array().unwrap().clone());
            let mut spec = json!({"containers": [app], "volumes": all_volumes});
            if let Some(side) = side {
                spec["containers"].as_array_mut().unwrap().push(side);
            }
            if let Some(mut setup) = setup {
                if native {
                    setup["restartPolicy"] = json!("Always");
                }
                spec["initContainers"] = json!([setup]);
            }
            for (key, value) in [("shareProcessNamespace", share), ("securityContext", security)] {
                if !value.is_null() {
                    spec[key] = value;
                }
            }
            let metadata = if generated { json!({"generateName": "many-"}) } else { json!({"name": "one"}) };
            Shape { languages, metadata, spec, lists, platform, runtime, go_target }
        },
    )
}

/// Whatever an author of an Instrumentation could write; the schema sorts out part of it.
fn instrumentation() -> impl Strategy<Value = Value> {
    let section = (
        proptest::option::of(prop_oneof![6 => Just("registry.example/agent:1"), 2 => Just(""), 1 => Just(" blank ")]),
        variables(),
        proptest::option::of(prop_oneof![Just("64Mi"), Just("0"), Just("1Gi")]),
        proptest::option::of(prop_oneof![
            4 => Just(json!({"limits": {"memory": "32Mi"}})),
            1 => Just(json!({"requests": {"cpu": "2", "memory": "4Gi"}})),
            4 => Just(json!({"limits": {"cpu": "1m"}, "requests": {"cpu": "1m"}})),
        ]),
        proptest::option::of(Just(json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }}))),
    );
    let exporter = proptest::option::of(prop_oneof![
        Just(json!({"endpoint": "http://$(OTEL_NODE_IP):4318"})),
        Just(json!({"endpoint": "$(LATER)", "tls": {"secretName": "a.b", "ca_file": "ca.crt", "key_file": "/k"}})),
        Just(json!({"tls": {"configMapName": "c", "ca_file": "ca.crt"}})),
    ]);
    let security = proptest::option::of(prop_oneof![
        4 => Just(json!({"runAsUser": 5})),
        1 => Just(json!({"privileged": true, "allowPrivilegeEscalation": false})),
    ]);
    let common = (
        exporter,
        variables(),
        security,
        proptest::option::of(prop_oneof![Just("Always"), Just("IfNotPresent")]),
        any::<bool>(),
        proptest::collection::btree_map("[a-z.]{1,8}|k8s.pod.name|service.name|k8s.node.name", "[ -~]{0,5}", 0..3),
    );
    (common, proptest::collection::vec(section, 7)).prop_map(|(common, sections)| {
        let (exporter, env, security, pull, uids, attributes) = common;
        let mut spec = json!({
            "env": env,
            "resource": {"addK8sUIDAttributes": uids, "resourceAttributes": attributes},
            "propagators": ["tracecontext", "b3"],
            "sampler": {"type": "parentbased_traceidratio", "argument": "0.5"},
        });
        for (key, value) in [("exporter", exporter), ("initContainerSecurityContext", security)] {
            if let Some(value) = value {
                spec[key] = value;
            }
        }
        if let Some(pull) = pull {
            spec["imagePullPolicy"] = json!(pull);
        }
        let names = ["java", "nodejs", "python", "dotnet", "go", "apacheHttpd", "nginx"];
        for (name, (image, env, limit, resources, claim)) in names.into_iter().zip(sections) {
            let mut section = json!({"env": env});
            if let Some(image) = image {
                section["image"] = json!(image);
            }
            if let Some(limit) = limit {
                section["volumeLimitSize"] = json!(limit);
            } else if let Some(claim) = claim {
                section["volumeClaimTemplate"] = claim;
            }
            if let Some(resources) = resources {
                section[if name == "java" { "resources" } else { "resourceRequirements" }] = resources;
            }
            spec[name] = section;
        }
        spec
    })
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers"].into_iter().flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
}

fn named<'a>(pod: &'a Value, name: &Value) -> &'a Value {
    containers(pod).find(|container| container["name"] == *name).unwrap_or(&Value::Null)
}

/// Variables that an agent extends; the author's value is within the new one.
const EXTENDED: [&str; 9] = [
    "JAVA_TOOL_OPTIONS",
    "NODE_OPTIONS",
    "PYTHONPATH",
    "DOTNET_STARTUP_HOOKS",
    "DOTNET_ADDITIONAL_DEPS",
    "DOTNET_SHARED_STORE",
    "LD_LIBRARY_PATH",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_DOTNET_AUTO_HOME",
];

/// Everything that the author wrote about containers, variables and volumes is in the stored pod.
fn check_kept(asking: &Value, stored: &Value) {
    for container in containers(asking) {
        let after = named(stored, &container["name"]);
        let env: Vec<&Value> = after["env"].as_array().into_iter().flatten().collect();
        let own: Vec<&Value> = container["env"].as_array().into_iter().flatten().collect();
        for variable in &own {
            let name = variable["name"].as_str().unwrap();
            // Of a name that stands twice the last one counts, as for the kubelet.
            if own.iter().filter(|other| other["name"] == name).count() > 1 {
                continue;
            }
            let kept = env.iter().any(|var| {
                let value = |var: &Value| var["value"].as_str().unwrap_or_default().to_owned();
                let extended = EXTENDED.contains(&name) && value(var).contains(&value(variable));
                let same_source = variable["valueFrom"].is_null() == var["valueFrom"].is_null();
                var["name"] == name && same_source && (value(var) == value(variable) || extended)
            });
            assert!(kept, "{variable} is gone from {env:?}");
        }
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let path = mount["mountPath"].as_str().unwrap();
            let present = after["volumeMounts"].as_array().into_iter().flatten().any(|m| m["mountPath"] == path);
            assert!(present, "the mount at {path} is gone from {after:#}");
        }
    }
    let names = |pod: &Value| -> BTreeSet<String> {
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        volumes.map(|volume| volume["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(names(asking).is_subset(&names(stored)));
}

/// In what we added, `$(NAME)` stands behind the variable that it names, if there is one at all.
fn check_references(asking: &Value, stored: &Value) {
    for container in containers(stored) {
        let own: BTreeSet<&str> = named(asking, &container["name"])["env"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|variable| variable["name"].as_str())
            .collect();
        let env: Vec<&Value> = container["env"].as_array().into_iter().flatten().collect();
        for (at, variable) in env.iter().enumerate() {
            let name = variable["name"].as_str().unwrap();
            if !name.starts_with("OTEL_") || own.contains(name) {
                continue;
            }
            for reference in variable["value"].as_str().unwrap_or_default().split("$(").skip(1) {
                let Some((reference, _)) = reference.split_once(')') else { continue };
                let later = env.iter().skip(at + 1).any(|var| var["name"] == reference);
                let earlier = env.iter().take(at).any(|var| var["name"] == reference);
                assert!(earlier || !later, "{name} refers to {reference}, which comes later: {env:?}");
            }
        }
    }
}
