//! A real API server for `k8s_attributes`: with one pod, whose address is the client's.

use crate::kube_rig::{KubeCluster, free_ports};
use crate::support::spanreel::Options;
use serde_json::json;
use std::path::PathBuf;

const PODS: &str = "/api/v1/namespaces/shop/pods";

pub struct Cluster {
    kubeconfig: PathBuf,
    webhook: u16,
    _kube: KubeCluster,
}

impl Cluster {
    pub async fn start() -> Self {
        let kube = KubeCluster::start().await;
        let install = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/install.yaml");
        kube.apply("spanreel", &std::fs::read_to_string(install).expect("deploy/install.yaml")).await;
        let create = async |collection: &str, object: serde_json::Value| {
            kube.create(collection, &object).await.expect("the API server takes it");
        };
        let named = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        create("/api/v1/namespaces", named("Namespace", "shop")).await;
        create("/api/v1/nodes", named("Node", "node-1")).await;
        let mut pod = named("Pod", "web-1");
        pod["spec"] = json!({"nodeName": "node-1", "containers": [{"name": "app", "image": "registry.example/app:1"}]});
        create(PODS, pod).await;
        let address = json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
        let patch = http::Request::patch(format!("{PODS}/web-1/status"))
            .header("content-type", "application/merge-patch+json")
            .body(address.to_string().into_bytes())
            .expect("a valid request");
        kube.client().request::<serde_json::Value>(patch).await.expect("the pod gets its address");
        let kubeconfig = kube.service_account("spanreel", "spanreel").await;
        let [webhook] = free_ports();
        Self { kubeconfig, webhook, _kube: kube }
    }

    /// What a Collector finds the API server by.
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig.display().to_string()
    }

    /// Spanreel is to run in it.
    pub fn join(&self, options: &mut Options) {
        let webhook = self.webhook;
        options.appliance.push(format!(
            "webhook: {{endpoint: '127.0.0.1:{webhook}', url: 'https://127.0.0.1:{webhook}', namespace: spanreel}}"
        ));
        options.arguments.extend(["--kubeconfig".to_owned(), self.kubeconfig()]);
    }
}
