//! Instrumentations follow the default images when a new version starts: against a real API server, as the ServiceAccount
//! of `deploy/install.yaml`.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use spanreel::appliance::spanreel::settings::{SilentAfter, SpanreelSettings, WebhookSettings};
use spanreel::cluster::{Applied, Cluster, ClusterSettings, LifeLine, Metrics, PipelineHost, PipelineSource, Refusal};
use spanreel::inject::Images;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::kube_rig::{KubeCluster, free_ports, wait_until};

const SOON: Duration = Duration::from_secs(60);
const INSTRUMENTATIONS: &str = "/apis/opentelemetry.io/v1alpha1/namespaces/default/instrumentations";

/// There are no collectors here.
struct NoPipelines;

impl PipelineHost for NoPipelines {
    async fn apply(&self, source: PipelineSource) -> Result<Applied, Refusal> {
        panic!("nobody asked for {}", source.owner);
    }

    async fn remarks(&self) -> BTreeMap<String, Vec<String>> {
        BTreeMap::new()
    }

    async fn remove(&self, _owner: &str) {}

    async fn listed(&self, _owners: &BTreeSet<String>) {}
}

/// Starts the cluster room, waits until `done`, and stops it.
async fn run_until(kube: &KubeCluster, what: &str, done: impl AsyncFn(&[Value]) -> bool) {
    let kubeconfig = kube.service_account("spanreel", "spanreel").await;
    let [port] = free_ports();
    let webhook = WebhookSettings {
        endpoint: format!("127.0.0.1:{port}"),
        url: Some(format!("https://127.0.0.1:{port}")),
        namespace: Some("spanreel".to_owned()),
        ..WebhookSettings::default()
    };
    let spanreel = SpanreelSettings { webhook, ..SpanreelSettings::default() };
    let settings = ClusterSettings::new(&spanreel, Some(kubeconfig), None).unwrap();
    let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
    let life = LifeLine::new(SilentAfter::default().0);
    let started = Cluster::start(settings, Arc::new(NoPipelines), Metrics::default(), life, shutdown.clone(), &tracker);
    started.await.unwrap();
    wait_until(what, SOON, async || done(&kube.list(INSTRUMENTATIONS).await).await.then_some(())).await;
    shutdown.cancel();
    tracker.close();
    tokio::time::timeout(Duration::from_secs(10), tracker.wait()).await.expect("tasks end at shutdown");
}

fn annotation(language: &str) -> String {
    format!("instrumentation.opentelemetry.io/default-auto-instrumentation-{language}-image")
}

fn instrumentation(name: &str, language: &str, former_default: &str, image: &str) -> Value {
    json!({
        "apiVersion": "opentelemetry.io/v1alpha1", "kind": "Instrumentation",
        "metadata": {"name": name, "annotations": {annotation(language): former_default, "mine": "stays"}},
        "spec": {language: {"image": image, "env": [{"name": "A", "value": "1"}]}},
    })
}

fn named<'a>(all: &'a [Value], name: &str) -> &'a Value {
    all.iter().find(|object| object["metadata"]["name"] == name).unwrap()
}

/// All but the status, where workloads are counted meanwhile. The generation would tell of any write to the spec.
fn spec_and_annotations(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({"generation": metadata["generation"], "annotations": metadata["annotations"], "spec": object["spec"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_nobody_chose_follow_the_default_once() {
    let kube = KubeCluster::start().await;
    let manifests = include_str!("../../deploy/install.yaml");
    kube.apply("spanreel", manifests).await;
    for definition in spanreel::cluster::CUSTOM_RESOURCE_DEFINITIONS {
        kube.apply("default", definition).await;
    }
    let repository = "ghcr.io/open-telemetry/opentelemetry-operator/autoinstrumentation";
    let followed = format!("{repository}-python:0.50b0");
    let breaking = format!("{repository}-java:1.33.0");
    wait_until("the definition", SOON, async || {
        kube.create(INSTRUMENTATIONS, &instrumentation("followed", "python", &followed, &followed)).await.ok()
    })
    .await;
    for object in [
        instrumentation("chosen", "python", &followed, "registry.example/python:1"),
        instrumentation("breaking", "java", &breaking, &breaking),
    ] {
        kube.create(INSTRUMENTATIONS, &object).await.unwrap();
    }

    let python = Images::default().python;
    run_until(&kube, "the upgrade", async |all| {
        named(all, "followed")["spec"]["python"]["image"] == json!(python)
            && named(all, "breaking")["status"]["upgradeBlockedVersions"]["java"].is_string()
    })
    .await;
    let all = kube.list(INSTRUMENTATIONS).await;
    let object = named(&all, "followed");
    assert_eq!(object["metadata"]["annotations"], json!({annotation("python"): python, "mine": "stays"}));
    assert_eq!(object["spec"]["python"]["env"], json!([{"name": "A", "value": "1"}]));
    assert!(object["status"]["upgradeBlockedVersions"].is_null(), "nothing is blocked: {object}");
    let object = named(&all, "chosen");
    assert_eq!(object["spec"]["python"]["image"], "registry.example/python:1");
    assert_eq!(object["metadata"]["generation"], 1, "not even touched");
    let object = named(&all, "breaking");
    assert_eq!(object["spec"]["java"]["image"], json!(breaking));
    let message = object["status"]["upgradeBlockedVersions"]["java"].as_str().unwrap();
    assert!(message.contains("2.0.0") && message.contains(&breaking), "{message}");

    // Somebody sets the image themselves; the next start takes the message back and changes nothing else.
    let request = http::Request::patch(format!("{INSTRUMENTATIONS}/breaking"))
        .header("content-type", "application/merge-patch+json")
        .body(json!({"metadata": {"annotations": {annotation("java"): null}}}).to_string().into_bytes())
        .unwrap();
    kube.client().request::<Value>(request).await.unwrap();
    let before = spec_and_annotations(named(&all, "followed"));
    run_until(&kube, "the message to go", async |all| {
        named(all, "breaking")["status"]["upgradeBlockedVersions"]["java"].is_null()
    })
    .await;
    let all = kube.list(INSTRUMENTATIONS).await;
    assert_eq!(spec_and_annotations(named(&all, "followed")), before);
}
