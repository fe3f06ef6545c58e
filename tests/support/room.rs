//! The cluster room in this process, against a real API server, as the ServiceAccount of `deploy/install.yaml`.
//!
//! Users must have `support/kube.rs` as `kube_rig`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use spanreel::appliance::spanreel::settings::{SilentAfter, SpanreelSettings, WebhookSettings};
use spanreel::cluster::{Applied, Cluster, ClusterSettings, LifeLine, Metrics, PipelineHost, PipelineSource, Refusal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::kube_rig::{KubeCluster, wait_until};

/// For everything that takes a watch or a retry; generous, because other tests compile and run meanwhile.
pub const SOON: Duration = Duration::from_secs(90);
/// So that tests need not wait for what is looked at from time to time.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
pub const SECRET: &str = "/api/v1/namespaces/spanreel/secrets/spanreel-webhook-cert";
pub const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/spanreel";
pub const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/spanreel";

/// Pipelines are of no interest here.
struct NoPipelines;

impl PipelineHost for NoPipelines {
    async fn apply(&self, _source: PipelineSource) -> Result<Applied, Refusal> {
        Ok(Applied::default())
    }

    async fn remarks(&self) -> BTreeMap<String, Vec<String>> {
        BTreeMap::new()
    }

    async fn remove(&self, _owner: &str) {}

    async fn listed(&self, _owners: &BTreeSet<String>) {}
}

/// A running cluster room.
pub struct Room {
    pub cluster: Cluster,
    pub metrics: Metrics,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl Room {
    pub async fn start(kubeconfig: &Path, port: u16) -> Self {
        Self::start_with(kubeconfig, port, |_| {}).await
    }

    pub async fn start_with(kubeconfig: &Path, port: u16, change: impl FnOnce(&mut ClusterSettings)) -> Self {
        let webhook = WebhookSettings {
            endpoint: format!("127.0.0.1:{port}"),
            url: Some(format!("https://127.0.0.1:{port}")),
            namespace: Some("spanreel".to_owned()),
            service: "spanreel".to_owned(),
            pod_address: None,
        };
        let spanreel = SpanreelSettings { webhook, ..SpanreelSettings::default() };
        let mut settings = ClusterSettings::new(&spanreel, Some(kubeconfig.to_owned()), None).unwrap();
        settings.check_interval = CHECK_INTERVAL;
        change(&mut settings);
        let (metrics, shutdown, tracker) = (Metrics::default(), CancellationToken::new(), TaskTracker::new());
        let (host, life) = (Arc::new(NoPipelines), LifeLine::new(SilentAfter::default().0));
        let started = Cluster::start(settings, host, metrics.clone(), life, shutdown.clone(), &tracker);
        Self { cluster: started.await.unwrap(), metrics, shutdown, tracker }
    }

    /// Waits for the registration, and until the API server acts on it.
    pub async fn registered(&self, kube: &KubeCluster) {
        wait_until("the registration", SOON, async || self.cluster.is_registered().then_some(())).await;
        injecting(kube).await;
    }

    /// Pods' reviews answered so far.
    pub fn reviews(&self) -> u64 {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("spanreel_webhook_latency_seconds_count "));
        count.unwrap().parse().unwrap()
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        tokio::time::timeout(Duration::from_secs(15), self.tracker.wait()).await.expect("tasks end at shutdown");
    }
}

/// The installation without its Deployment's process, which is this test's; its kubeconfig.
pub async fn install(kube: &KubeCluster) -> PathBuf {
    let manifests = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/install.yaml")).unwrap();
    kube.apply("spanreel", &manifests).await;
    kube.service_account("spanreel", "spanreel").await
}

pub fn pod(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app:1.0"}]},
    })
}

/// A pod of that namespace as the API server would store it.
pub async fn try_pod(kube: &KubeCluster, namespace: &str, annotations: &Value) -> Value {
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    kube.create(&path, &pod("probe", annotations)).await.unwrap_or_else(|error| panic!("{error}"))
}

pub fn asks() -> Value {
    json!({"instrumentation.opentelemetry.io/inject-sdk": "true"})
}

pub fn is_injected(pod: &Value) -> bool {
    pod["spec"]["containers"][0]["env"].to_string().contains("OTEL_RESOURCE_ATTRIBUTES_NODE_NAME")
}

/// Waits until pods that ask are injected.
pub async fn injecting(kube: &KubeCluster) {
    wait_until("a pod that asks to be injected", SOON, async || {
        is_injected(&try_pod(kube, "default", &asks()).await).then_some(())
    })
    .await;
}

/// The certificates' Secret, decoded.
pub async fn secret(kube: &KubeCluster) -> Option<std::collections::BTreeMap<String, String>> {
    let secret = kube.get(SECRET).await?;
    let decode = |text: &Value| String::from_utf8(STANDARD.decode(text.as_str().unwrap()).unwrap()).unwrap();
    Some(secret["data"].as_object()?.iter().map(|(key, value)| (key.clone(), decode(value))).collect())
}

/// Posts to the webhook as nothing but an API server should, trusting only `ca`.
pub async fn post(port: u16, ca: &str, path: &str, body: Vec<u8>) -> (u16, Value) {
    try_post(port, ca, path, body).await.unwrap()
}

/// `Err`: the connection is not to be trusted.
pub async fn try_post(port: u16, ca: &str, path: &str, body: Vec<u8>) -> std::io::Result<(u16, Value)> {
    let mut roots = rustls::RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(ca.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TokioIo::new(connector.connect("127.0.0.1".try_into().unwrap(), stream).await?);
    let request = http::Request::post(format!("https://127.0.0.1:{port}{path}"));
    let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}
