//! `k8s_attributes` and `resource_detection`: the whole program beside a real API server, with the rights of
//! `deploy/install.yaml`; the test is kubelet and agent.

use crate::installed::{Installed, PODS, SOON};
use crate::kube_rig::wait_until;
use crate::support::compression::Compression;
use crate::support::http;
use crate::support::otelcol::{Otelcol, PRINT_EVERYTHING};
use crate::support::otlp::{Client, Protocol};
use crate::support::spanreel::Options;
use crate::support::traces::{Traces, attribute, hex};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

const TRACES: Traces = Traces { seed: 31, spans_per_trace: 1 };

struct Scene(Installed);

impl Scene {
    async fn set(settings: &str) -> Self {
        let processors = vec![("k8s_attributes".to_owned(), settings.to_owned())];
        let mut installed = Installed::prepare_with(&[], Options { processors, ..Options::default() }).await;
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "z1"}},
        });
        installed.kube.create("/api/v1/nodes", &node).await.unwrap();
        installed.patch("/api/v1/namespaces/shop", &json!({"metadata": {"labels": {"tier": "gold"}}})).await;
        installed.start().await;
        Self(installed)
    }

    /// A pod of a ReplicaSet that runs; its uid.
    async fn run_pod(&self, name: &str, address: &str) -> String {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "labels": {"team": "blue", "pod-template-hash": "6c45f8d6f6"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6c45f8d6f6",
                    "uid": "11111111-2222-3333-4444-555555555555",
                }],
            },
            "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "registry.example/app:1.0"}]},
        });
        let stored = self.0.kube.create(PODS, &pod).await.unwrap();
        let container = json!({
            "name": "app", "image": "registry.example/app:1.0", "imageID": "registry.example/app@sha256:aa", "ready": true,
            "restartCount": 2, "containerID": format!("containerd://{name}-app"),
        });
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "containerStatuses": [container],
        }});
        self.0.patch(&format!("{PODS}/{name}/status"), &status).await;
        stored["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// Sends trace `index` with these resource attributes and reads it back as JSON.
    async fn stored(&self, index: u64, attributes: &[(&str, &str)]) -> String {
        let ports = self.0.spanreel.ports;
        send(ports.grpc, index, attributes).await;
        let path = format!("/api/traces/{}", hex(&TRACES.id(index)));
        http::get(ports.query, &path, &[("accept", "application/json")]).await.unwrap().text()
    }

    /// Sends until what is stored says this; watches take their time.
    async fn wait_for(&self, first: u64, attributes: &[(&str, &str)], expected: &[(&str, &str)]) {
        let next = AtomicU64::new(first + 1);
        wait_until(&format!("{expected:?}"), SOON, || async {
            let stored = self.stored(next.fetch_add(1, Ordering::Relaxed), attributes).await;
            let says = |(key, value): &(&str, &str)| {
                stored.contains(&format!("{{\"key\":\"{key}\",\"value\":{{\"stringValue\":\"{value}\"}}}}"))
            };
            expected.iter().all(says).then_some(())
        })
        .await;
    }
}

/// Sends trace `index` with these resource attributes.
async fn send(port: u16, index: u64, attributes: &[(&str, &str)]) {
    let mut request = TRACES.request("shop", index..index + 1);
    let resource = request.resource_spans[0].resource.as_mut().unwrap();
    let text = |(key, value): &(&str, &str)| attribute(key, Attribute::StringValue((*value).to_owned()));
    resource.attributes.extend(attributes.iter().map(text));
    let mut client = Client::connect(port, Protocol::Grpc).await.unwrap();
    let answer = client.export(&request, Compression::ALL[0]).await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
}

/// The attributes of the resource of a trace as it was read back, where they are texts.
fn texts_of(stored: &str) -> BTreeMap<String, String> {
    let trace: Value = serde_json::from_str(stored).unwrap();
    let resource = trace.pointer("/batches/0/resource").or_else(|| trace.pointer("/resourceSpans/0/resource")).unwrap();
    let attributes = resource["attributes"].as_array().unwrap().iter();
    let text = |it: &Value| Some((it["key"].as_str()?.to_owned(), it["value"]["stringValue"].as_str()?.to_owned()));
    attributes.filter_map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_get_what_the_cluster_knows_of_their_pod() {
    let settings = "{pod_association: [{sources: [{from: resource_attribute, name: k8s.pod.uid}]}, \
         {sources: [{from: resource_attribute, name: k8s.namespace.name}, {from: resource_attribute, name: k8s.pod.name}]}, \
         {sources: [{from: connection}]}], \
         extract: {metadata: [k8s.pod.name, k8s.pod.uid, k8s.pod.start_time, k8s.pod.ip, k8s.pod.hostname, k8s.namespace.name, \
         k8s.deployment.name, k8s.replicaset.name, k8s.replicaset.uid, k8s.node.name, k8s.node.uid, k8s.cluster.uid, \
         container.image.name, container.image.tag, container.id, k8s.container.name, service.namespace, service.version, \
         service.instance.id], otel_annotations: true, \
         labels: [{tag_name: team, key: team}, {key_regex: 'pod-(.*)', tag_name: $$1}, {key: team}, \
         {tag_name: tier, key: tier, from: namespace}, {tag_name: zone, key: topology.kubernetes.io/zone, from: node}]}}";
    let scene = Scene::set(settings).await;
    let uid = scene.run_pod("web-1", "10.9.8.7").await;
    scene.run_pod("web-2", "127.0.0.1").await;
    let system = scene.0.kube.get("/api/v1/namespaces/kube-system").await.unwrap();
    let cluster_uid = system["metadata"]["uid"].as_str().unwrap().to_owned();
    let common = [
        ("k8s.namespace.name", "shop"),
        ("k8s.deployment.name", "web"),
        ("k8s.node.name", "node-1"),
        ("container.image.tag", "1.0"),
        ("team", "blue"),
        ("tier", "gold"),
        ("zone", "z1"),
        ("k8s.cluster.uid", cluster_uid.as_str()),
    ];
    let named = |name: &'static str| [&[("k8s.pod.name", name)][..], &common].concat();
    scene.wait_for(0, &[("k8s.pod.uid", &uid)], &named("web-1")).await;
    // The test's own connection comes from the second pod's address.
    scene.wait_for(1000, &[], &named("web-2")).await;
    // What a span says of itself stays.
    let stored = scene.stored(2000, &[("k8s.pod.uid", &uid), ("k8s.node.name", "mine")]).await;
    assert!(stored.contains("\"mine\"") && !stored.contains("\"node-1\""), "{stored}");

    // A Collector in the same cluster says the same of the same pods.
    let settings = settings.replacen('{', "{auth_type: kubeConfig, wait_for_metadata: true, ", 1);
    let config = PRINT_EVERYTHING
        .replace("\nexporters:", &format!("\nprocessors: {{k8s_attributes: {settings}}}\nexporters:"))
        .replace("exporters: [debug]", "processors: [k8s_attributes]\n      exporters: [debug]");
    let mut otelcol = Otelcol::prepare(&config);
    otelcol.environment.push(("KUBECONFIG", scene.0.kube.admin_kubeconfig().display().to_string()));
    otelcol.start_again().await;
    let pod = [("k8s.namespace.name", "shop"), ("k8s.pod.name", "web-1")];
    let container = [("k8s.pod.uid", uid.as_str()), ("k8s.container.name", "app")];
    let said = [("k8s.pod.uid", uid.as_str()), ("k8s.node.name", "mine")];
    for (number, attributes) in [&container[..1], &container, &pod, &said, &[]].into_iter().enumerate() {
        let index = 3000 + number as u64;
        let ours = texts_of(&scene.stored(index, attributes).await);
        send(otelcol.grpc, index, attributes).await;
        let id = hex(&TRACES.id(index));
        wait_until("the Collector has printed it", SOON, || async {
            otelcol.printed_traces().contains_key(&id).then_some(())
        })
        .await;
        let mut theirs = otelcol.printed_resource();
        // It says also what is empty: the host name of a pod that has none.
        theirs.retain(|_, value| !value.is_empty());
        assert_eq!(ours, theirs, "{attributes:?}");
        assert!(ours.contains_key("k8s.pod.start_time") || attributes.is_empty(), "{ours:?}");
    }
}
