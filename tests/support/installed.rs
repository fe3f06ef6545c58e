//! The whole program beside a real API server, as `deploy/install.yaml` installs it: with the rights of its ServiceAccount and
//! no others, and namespace `shop` for what the tests put into the cluster.
//!
//! Users must have `support/kube.rs` as `kube_rig`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::kube_rig::{KubeCluster, free_ports, wait_until};
use crate::support::metrics::Metrics;
use crate::support::spanreel::{Options, Spanreel, binary};

/// For everything that takes a watch, a controller, a rollout or a retry; other tests compile and run meanwhile.
pub const SOON: Duration = Duration::from_secs(120);
pub const INJECT: &str = "instrumentation.opentelemetry.io/inject-";
/// The marker of an injected container.
pub const MARK: &str = "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME";
pub const PODS: &str = "/api/v1/namespaces/shop/pods";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";
pub const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

/// A cluster with Spanreel's installation, and the program to start in it.
pub struct Installed {
    pub kube: KubeCluster,
    pub spanreel: Spanreel,
    kubeconfig: PathBuf,
    /// Where the webhook listens.
    pub webhook: u16,
}

impl Installed {
    /// With these controllers and these lines under `extensions::spanreel`; the program is not started yet.
    pub async fn prepare(controllers: &[&str], settings: &[&str]) -> Self {
        Self::prepare_with(controllers, options(settings)).await
    }

    pub async fn prepare_with(controllers: &[&str], options: Options) -> Self {
        let kube = KubeCluster::start_with(controllers).await;
        kube.apply("spanreel", &manifest("install.yaml")).await;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        kube.create("/api/v1/namespaces", &namespace).await.unwrap();
        let kubeconfig = kube.service_account("spanreel", "spanreel").await;
        let [webhook] = free_ports();
        let spanreel = Spanreel::prepare(&in_cluster(options, webhook, &kubeconfig));
        Self { kube, spanreel, kubeconfig, webhook }
    }

    /// The same, started.
    pub async fn start_with(controllers: &[&str], settings: &[&str]) -> Self {
        let mut installed = Self::prepare(controllers, settings).await;
        installed.start().await;
        installed
    }

    /// Starts the program (again) and waits until pods of `shop` are injected.
    pub async fn start(&mut self) {
        self.spanreel.start_again().await;
        let probe = pod("probe", json!({format!("{INJECT}sdk"): "true"}));
        wait_until("pods to be injected", SOON, async || {
            let stored = self.kube.create(&format!("{PODS}?dryRun=All"), &probe).await.ok()?;
            is_injected(&stored).then_some(())
        })
        .await;
    }

    /// Stops the program in order and starts one with other settings and other data.
    pub async fn restart_with(&mut self, settings: &[&str]) {
        assert!(self.spanreel.stop().success());
        self.spanreel = Spanreel::prepare(&in_cluster(options(settings), self.webhook, &self.kubeconfig));
        self.start().await;
    }

    /// `None`: it does not answer.
    pub async fn metrics(&self) -> Option<Metrics> {
        Metrics::scrape(self.spanreel.ports.query).await.ok()
    }

    /// What `spanreel status` with these arguments prints.
    pub fn status(&self, arguments: &[&str]) -> String {
        let mut command = binary();
        let endpoint = format!("http://127.0.0.1:{}", self.spanreel.ports.query);
        command.args(["status", "--endpoint", &endpoint]).args(arguments);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    /// A JSON merge patch of an object or of its status.
    pub async fn patch(&self, path: &str, patch: &Value) {
        self.try_patch(path, patch).await.unwrap();
    }

    pub async fn try_patch(&self, path: &str, patch: &Value) -> kube::Result<Value> {
        let request = http::Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string().into_bytes())
            .unwrap();
        self.kube.client().request(request).await
    }

    /// An Event of `shop` with this reason on the object of this name.
    pub async fn event(&self, reason: &str, name: &str) -> Value {
        wait_until(&format!("the Event {reason} on {name}"), SOON, async || {
            let events = self.kube.list(EVENTS).await;
            events.into_iter().find(|event| event["reason"] == reason && event["regarding"]["name"] == name)
        })
        .await
    }
}

fn options(settings: &[&str]) -> Options {
    Options { appliance: settings.iter().map(|&line| line.to_owned()).collect(), ..Options::default() }
}

fn in_cluster(mut options: Options, webhook: u16, kubeconfig: &Path) -> Options {
    options.appliance.push(format!(
        "webhook: {{endpoint: '127.0.0.1:{webhook}', url: 'https://127.0.0.1:{webhook}', namespace: spanreel}}"
    ));
    options.arguments.extend(["--kubeconfig".to_owned(), kubeconfig.display().to_string()]);
    options
}

/// A file of `deploy/`.
pub fn manifest(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}

/// A pod of one container `app`.
pub fn pod(name: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app:1.0"}]},
    })
}

/// Whether its first container is.
pub fn is_injected(pod: &Value) -> bool {
    pod["spec"]["containers"][0]["env"].to_string().contains(MARK)
}
