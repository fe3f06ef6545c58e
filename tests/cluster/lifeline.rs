//! The life line of pods: the whole program beside a real API server, with the rights of `deploy/install.yaml`; the test is
//! kubelet and agent.

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use serde_json::{Value, json};

use crate::installed::{INJECT, Installed, PODS, SOON};
use crate::kube_rig::wait_until;
use crate::support::compression::Compression;
use crate::support::otlp::{Client, Protocol, Signal};
use crate::support::spanreel::Ports;
use crate::support::traces::{Traces, attribute};

/// The setting: long enough to see what comes before silence on a slow machine.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// The address of a pod that nothing comes from.
const ELSEWHERE: &str = "10.9.8.7";
/// Where the test's own spans come from.
const HERE: &str = "127.0.0.1";

struct Scene(Installed);

impl Scene {
    async fn set() -> Self {
        let silent_after = format!("injection: {{silent_after: {}s}}", SILENT_AFTER.as_secs());
        Self(Installed::prepare(&[], &[&silent_after]).await)
    }

    fn ports(&self) -> Ports {
        self.0.spanreel.ports
    }

    async fn create(&self, name: &str) -> String {
        let stored = self.0.kube.create(PODS, &pod(name)).await.unwrap();
        stored["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// What a kubelet writes once the container runs.
    async fn run(&self, name: &str, address: &str) {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "containerStatuses": [{
                "name": "app", "ready": true, "started": true, "restartCount": 0, "image": "app", "imageID": "app",
                "state": {"running": {"startedAt": now}},
            }],
        }});
        self.0.patch(&format!("{PODS}/{name}/status"), &status).await;
    }

    /// Waits until so many pods of the namespace are in this state.
    async fn pods(&self, state: &str, count: usize) {
        let labels = [("namespace", "shop"), ("state", state)];
        wait_until(&format!("{count} pods {state}"), SOON, async || {
            let metrics = self.0.metrics().await?;
            let found = metrics.sum("spanreel_pods", &labels).unwrap_or(0.0);
            (found as usize == count).then_some(())
        })
        .await;
    }

    async fn silent(&self, heard: &str) -> Option<f64> {
        self.0.metrics().await?.sum("spanreel_silent_pods", &[("heard", heard)])
    }

    fn status(&self) -> String {
        self.0.status(&[])
    }

    /// Sends a span as an agent with these resource attributes would.
    async fn send(&self, protocol: Protocol, attributes: &[(&str, &str)]) {
        let mut request = Traces { seed: 8, spans_per_trace: 1 }.request("shop", 0..1);
        let resource = request.resource_spans[0].resource.as_mut().unwrap();
        let attributes =
            attributes.iter().map(|(key, value)| attribute(key, Attribute::StringValue((*value).to_owned())));
        resource.attributes.extend(attributes);
        let port = if protocol == Protocol::Grpc { self.ports().grpc } else { self.ports().http };
        let mut client = Client::connect(port, protocol).await.unwrap();
        let answer = client.export(&request, Compression::ALL[0]).await.unwrap();
        assert!(answer.is_ok(), "{answer:?}");
    }
}

fn pod(name: &str) -> Value {
    crate::installed::pod(name, json!({format!("{INJECT}sdk"): "true"}))
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_followed_from_asking_to_speaking_to_silence() {
    let mut scene = Scene::set().await;
    // Before anybody is there to inject it.
    scene.create("missed").await;
    scene.0.start().await;
    scene.pods("asked", 1).await;
    let talker = scene.create("talker").await;
    scene.create("mute").await;
    scene.create("here").await;
    scene.pods("injected", 3).await;

    for (name, address) in [("talker", ELSEWHERE), ("mute", "10.9.8.8"), ("here", HERE)] {
        scene.run(name, address).await;
    }
    scene.pods("started", 3).await;
    // Whoever is unknown changes nothing, also where the address is a pod's.
    scene.send(Protocol::HttpJson, &[("k8s.pod.uid", "00000000-0000-0000-0000-000000000000")]).await;
    scene.send(Protocol::Grpc, &[("k8s.pod.uid", &talker)]).await;
    scene.pods("speaking", 1).await;
    scene.send(Protocol::HttpProtobuf, &[]).await;
    scene.send(Protocol::HttpJson, &[("k8s.pod.name", "talker"), ("k8s.namespace.name", "shop")]).await;
    scene.pods("speaking", 2).await;

    scene.pods("silent", 3).await;
    assert_eq!((scene.silent("never").await, scene.silent("before").await), (Some(1.0), Some(2.0)));
    scene.pods("asked", 1).await;
    let status = scene.status();
    assert!(status.contains("4 workloads asked, 0 speaking, 3 silent"), "{status}");
    assert!(status.contains("silent    shop/mute: no connection came from 10.9.8.8"), "{status}");

    // Metrics without spans are a hint of their own.
    scene.run("mute", HERE).await;
    wait_until("a cause that fits", SOON, async || {
        let mut client = Client::connect(scene.ports().http, Protocol::HttpProtobuf).await.unwrap();
        client.export_bytes(Signal::Metrics, b"", Compression::ALL[0]).await.unwrap();
        scene.status().contains("silent    shop/mute: metrics or logs come from 127.0.0.1").then_some(())
    })
    .await;

    // A new process has heard nobody yet, and says nothing of anybody before it has listened.
    scene.0.spanreel.kill();
    scene.0.start().await;
    scene.pods("started", 3).await;
    scene.send(Protocol::Grpc, &[("k8s.pod.uid", &talker)]).await;
    scene.pods("speaking", 1).await;
    scene.pods("silent", 3).await;

    // A namespace that asks later on asks for the pods that it has.
    let mut plain = pod("plain");
    plain["metadata"]["annotations"] = json!({});
    scene.0.kube.create(PODS, &plain).await.unwrap();
    scene.pods("asked", 1).await;
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  annotations:\n    instrumentation.opentelemetry.io/inject-sdk: 'true'\n";
    scene.0.kube.apply("", namespace).await;
    scene.pods("asked", 2).await;
    for name in ["missed", "plain", "talker", "mute", "here"] {
        scene.0.kube.delete(&format!("{PODS}/{name}?gracePeriodSeconds=0")).await;
    }
    wait_until("nobody to be followed", SOON, async || {
        scene.0.metrics().await?.matching("spanreel_pods", &[]).next().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_never_speaks_is_an_event_on_its_workload() {
    let mut scene = Scene::set().await;
    scene.0.start().await;
    scene.create("mute").await;
    scene.run("mute", ELSEWHERE).await;
    let event = scene.0.event("NeverSpoke", "mute").await;
    assert_eq!(event["type"], "Warning");
    assert!(event["note"].as_str().unwrap().contains("no connection came from 10.9.8.7"), "{event}");
}
