//! Events about refusals, as `kubectl describe` of the workload shows them: real API server, real controllers, the real
//! binary with the rights of `deploy/install.yaml`.
use std::time::Duration;

use serde_json::{Value, json};

use crate::installed::{DEPLOYMENTS, EVENTS, INJECT, Installed, PODS, SOON, manifest};
use crate::kube_rig::{KubeCluster, POD_CONTROLLERS, wait_until};

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

/// Creates the Deployment; its uid.
async fn create_deployment(kube: &KubeCluster) -> String {
    let stored = kube.create(DEPLOYMENTS, &deployment()).await.unwrap();
    stored["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// Controllers write Events about it as well.
fn is_ours(event: &Value) -> bool {
    event["reportingController"] == "spanreel.dev/spanreel"
}

async fn event_about(kube: &KubeCluster, uid: &str) -> Value {
    wait_until("an Event that names the workload's uid", SOON, async || {
        kube.list(EVENTS).await.into_iter().find(|event| is_ours(event) && event["regarding"]["uid"] == uid)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_events_on_the_deployment_and_on_its_successor() {
    let installed = Installed::start_with(POD_CONTROLLERS, &[]).await;
    let kube = &installed.kube;

    // Notes are written in their order: were there one about the dry run, it would be there before the others.
    let mut tryout = refused();
    tryout["apiVersion"] = json!("v1");
    tryout["kind"] = json!("Pod");
    tryout["metadata"]["name"] = json!("tryout");
    kube.create(&format!("{PODS}?dryRun=All"), &tryout).await.unwrap();

    let first = create_deployment(kube).await;
    let event = event_about(kube, &first).await;
    assert_eq!(event["regarding"]["kind"], "Deployment");
    assert_eq!(event["regarding"]["name"], "web");
    assert_eq!((event["type"].as_str(), event["action"].as_str()), (Some("Warning"), Some("Injection")));
    assert_eq!(event["reason"], "InstrumentationRequestRejected");
    assert!(event["note"].as_str().unwrap().contains("nowhere"), "{event}");
    let events = kube.list(EVENTS).await;
    assert!(events.iter().all(|event| event["regarding"]["name"] != "tryout"), "a dry run left an Event: {events:?}");
    let about_first = events.iter().filter(|event| event["regarding"]["uid"] == first.as_str());
    let ours = about_first.filter(|event| is_ours(event)).count();
    assert_eq!(ours, 1, "three pods, one reason, one Event");

    kube.delete(&format!("{DEPLOYMENTS}/web")).await;
    wait_until("the Deployment to go", SOON, async || {
        kube.get(&format!("{DEPLOYMENTS}/web")).await.is_none().then_some(())
    })
    .await;
    // For so long the old uid is believed.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let second = create_deployment(kube).await;
    assert_ne!(first, second);
    let event = event_about(kube, &second).await;
    assert!(event["note"].as_str().unwrap().contains("nowhere"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_every_run_are_one_event_on_the_cron_job() {
    let controllers: Vec<&str> = POD_CONTROLLERS.iter().copied().chain(["cronjob-controller"]).collect();
    let installed = Installed::start_with(&controllers, &[]).await;
    let kube = &installed.kube;

    let mut template = refused();
    template["spec"]["restartPolicy"] = json!("Never");
    let cron_job = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}},
    });
    let cron_jobs = "/apis/batch/v1/namespaces/shop/cronjobs";
    let uid = kube.create(cron_jobs, &cron_job).await.unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let event = event_about(kube, &uid).await;
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
    create_deployment(kube).await;
    wait_until("the Event after it", SOON, async || {
        kube.list(EVENTS)
            .await
            .into_iter()
            .find(|event| event["regarding"]["kind"] == "Deployment" && event["action"] == "Injection")
    })
    .await;
    let events = kube.list(EVENTS).await;
    let ours = events.iter().filter(|event| is_ours(event));
    let kinds: Vec<&str> = ours.filter_map(|event| event["regarding"]["kind"].as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "CronJob").count(), 1, "{kinds:?}");
    assert!(!kinds.contains(&"Job"), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_could_not_be_written_is_written_when_it_comes_again() {
    let mut installed = Installed::prepare(POD_CONTROLLERS, &[]).await;
    let without = manifest("install.yaml").replace("resources: [events]", "resources: [nothing]");
    assert_ne!(without, manifest("install.yaml"));
    installed.kube.apply("spanreel", &without).await;
    installed.start().await;
    let kube = &installed.kube;

    let uid = create_deployment(kube).await;
    wait_until("failures to be counted", SOON, async || {
        (installed.metrics().await?.sum("spanreel_events_total", &[("result", "failed")])? >= 1.0).then_some(())
    })
    .await;
    kube.apply("spanreel", &manifest("install.yaml")).await;
    wait_until("the Event after the right was granted", SOON, async || {
        // Its ReplicaSet makes another, which is refused for the same reason.
        let pods = kube.list(PODS).await;
        let name = pods.first()?["metadata"]["name"].as_str()?.to_owned();
        kube.delete(&format!("{PODS}/{name}")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let events = kube.list(EVENTS).await;
        let written = events.iter().any(|event| event["regarding"]["uid"] == uid.as_str() && is_ours(event));
        written.then_some(())
    })
    .await;
}
