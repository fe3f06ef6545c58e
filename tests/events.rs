//! Events about refusals, as `kubectl describe` of the workload shows them: real API server, real controllers, the real
//! binary with the rights of `deploy/install.yaml`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use serde_json::{Value, json};

#[path = "support/kube.rs"]
mod kube_rig;
mod support;

use kube_rig::{KubeCluster, POD_CONTROLLERS, free_ports, wait_until};
use support::spanreel::{Options, Spanreel};

/// Other tests compile and run meanwhile.
const SOON: Duration = Duration::from_secs(90);
const INJECT: &str = "instrumentation.opentelemetry.io/inject-";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";

fn manifests() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/install.yaml")).unwrap()
}

/// A pod template that asks for an Instrumentation that does not exist.
fn refused() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}, "annotations": {format!("{INJECT}java"): "nowhere"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    })
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": refused()},
    })
}

async fn start_spanreel(kube: &KubeCluster) -> Spanreel {
    let [webhook] = free_ports();
    let kubeconfig = kube.service_account("spanreel", "spanreel").await;
    let appliance = vec![format!(
        "webhook: {{endpoint: '127.0.0.1:{webhook}', url: 'https://127.0.0.1:{webhook}', namespace: spanreel}}"
    )];
    let arguments = vec!["--kubeconfig".to_owned(), kubeconfig.display().to_string()];
    let spanreel = Spanreel::start(&Options { appliance, arguments, ..Options::default() }).await;
    let probe = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "probe", "annotations": {format!("{INJECT}sdk"): "true"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    wait_until("the API server to ask about pods", SOON, async || {
        let stored = kube.create("/api/v1/namespaces/shop/pods?dryRun=All", &probe).await.ok()?;
        (!stored["spec"]["containers"][0]["env"].is_null()).then_some(())
    })
    .await;
    spanreel
}

/// Creates the Deployment; its uid.
async fn create_deployment(kube: &KubeCluster) -> String {
    let stored = kube.create(DEPLOYMENTS, &deployment()).await.unwrap();
    stored["metadata"]["uid"].as_str().unwrap().to_owned()
}

async fn event_about(kube: &KubeCluster, uid: &str) -> Value {
    wait_until("an Event that names the workload's uid", SOON, async || {
        kube.list(EVENTS).await.into_iter().find(|event| event["regarding"]["uid"] == uid)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_events_on_the_deployment_and_on_its_successor() {
    let kube = KubeCluster::start_with(POD_CONTROLLERS).await;
    kube.apply("spanreel", &manifests()).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    kube.create("/api/v1/namespaces", &namespace).await.unwrap();
    let _spanreel = start_spanreel(&kube).await;

    // Notes are written in their order: were there one about the dry run, it would be there before the others.
    let mut tryout = refused();
    tryout["apiVersion"] = json!("v1");
    tryout["kind"] = json!("Pod");
    tryout["metadata"]["name"] = json!("tryout");
    kube.create("/api/v1/namespaces/shop/pods?dryRun=All", &tryout).await.unwrap();

    let first = create_deployment(&kube).await;
    let event = event_about(&kube, &first).await;
    assert_eq!(event["regarding"]["kind"], "Deployment");
    assert_eq!(event["regarding"]["name"], "web");
    assert_eq!((event["type"].as_str(), event["action"].as_str()), (Some("Warning"), Some("Injection")));
    assert_eq!(event["reason"], "InstrumentationRequestRejected");
    assert_eq!(event["reportingController"], "spanreel.dev/spanreel");
    assert!(event["note"].as_str().unwrap().contains("nowhere"), "{event}");
    let events = kube.list(EVENTS).await;
    assert!(events.iter().all(|event| event["regarding"]["name"] != "tryout"), "a dry run left an Event: {events:?}");
    let about_first = events.iter().filter(|event| event["regarding"]["uid"] == first.as_str());
    let ours = about_first.filter(|event| event["reportingController"] == "spanreel.dev/spanreel").count();
    assert_eq!(ours, 1, "three pods, one reason, one Event");

    kube.delete(&format!("{DEPLOYMENTS}/web")).await;
    wait_until("the Deployment to go", SOON, async || {
        kube.get(&format!("{DEPLOYMENTS}/web")).await.is_none().then_some(())
    })
    .await;
    // For so long the old uid is believed.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let second = create_deployment(&kube).await;
    assert_ne!(first, second);
    let event = event_about(&kube, &second).await;
    assert!(event["note"].as_str().unwrap().contains("nowhere"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_every_run_are_one_event_on_the_cron_job() {
    let controllers: Vec<&str> = POD_CONTROLLERS.iter().copied().chain(["cronjob-controller"]).collect();
    let kube = KubeCluster::start_with(&controllers).await;
    kube.apply("spanreel", &manifests()).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    kube.create("/api/v1/namespaces", &namespace).await.unwrap();
    let _spanreel = start_spanreel(&kube).await;

    let mut template = refused();
    template["spec"]["restartPolicy"] = json!("Never");
    let cron_job = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}},
    });
    let cron_jobs = "/apis/batch/v1/namespaces/shop/cronjobs";
    let uid = kube.create(cron_jobs, &cron_job).await.unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let event = event_about(&kube, &uid).await;
    assert_eq!((&event["regarding"]["kind"], &event["regarding"]["name"]), (&json!("CronJob"), &json!("nightly")));
    // Another run, as by hand (`kubectl create job --from`): it belongs to the CronJob as well.
    let again = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "nightly-again", "ownerReferences": [{
            "apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": uid, "controller": true,
        }]},
        "spec": {"template": template},
    });
    kube.create("/apis/batch/v1/namespaces/shop/jobs", &again).await.unwrap();
    let pods = "/api/v1/namespaces/shop/pods?labelSelector=job-name%3Dnightly-again";
    wait_until("the pod of the other run", SOON, async || kube.list(pods).await.pop()).await;
    // Another refusal: Events are written in their order.
    create_deployment(&kube).await;
    wait_until("the Event after it", SOON, async || {
        kube.list(EVENTS)
            .await
            .into_iter()
            .find(|event| event["regarding"]["kind"] == "Deployment" && event["action"] == "Injection")
    })
    .await;
    let events = kube.list(EVENTS).await;
    let ours = events.iter().filter(|event| event["reportingController"] == "spanreel.dev/spanreel");
    let kinds: Vec<&str> = ours.filter_map(|event| event["regarding"]["kind"].as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "CronJob").count(), 1, "{kinds:?}");
    assert!(!kinds.contains(&"Job"), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_could_not_be_written_is_written_when_it_comes_again() {
    let kube = KubeCluster::start_with(POD_CONTROLLERS).await;
    let without = manifests().replace("resources: [events]", "resources: [nothing]");
    assert_ne!(without, manifests());
    kube.apply("spanreel", &without).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    kube.create("/api/v1/namespaces", &namespace).await.unwrap();
    let spanreel = start_spanreel(&kube).await;

    let uid = create_deployment(&kube).await;
    wait_until("failures to be counted", SOON, async || {
        (spanreel.metrics().await.sum("spanreel_events_total", &[("result", "failed")])? >= 1.0).then_some(())
    })
    .await;
    kube.apply("spanreel", &manifests()).await;
    wait_until("the Event after the right was granted", SOON, async || {
        // Its ReplicaSet makes another, which is refused for the same reason.
        let pods = kube.list("/api/v1/namespaces/shop/pods").await;
        let name = pods.first()?["metadata"]["name"].as_str()?.to_owned();
        kube.delete(&format!("/api/v1/namespaces/shop/pods/{name}")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let events = kube.list(EVENTS).await;
        let written = events.iter().any(|event| {
            event["regarding"]["uid"] == uid.as_str() && event["reportingController"] == "spanreel.dev/spanreel"
        });
        written.then_some(())
    })
    .await;
}
