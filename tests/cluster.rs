//! The cluster room against a real API server, as the ServiceAccount of `deploy/install.yaml` and never as admin.
//!
//! Pipelines are only recorded here; `tests/walkthrough.rs` runs the whole program.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use spanreel::appliance::spanreel::settings::WebhookSettings;
use spanreel::cluster::{Applied, Cluster, ClusterSettings, ListenerPort, Metrics, PipelineHost, PipelineSource};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[path = "support/kube.rs"]
mod kube_rig;
use kube_rig::{KubeCluster, free_ports, wait_until};

/// For everything that takes a watch or a retry; generous, because other tests compile and run meanwhile.
const SOON: Duration = Duration::from_secs(60);
/// Nothing ever listens there.
const POD_ADDRESS: &str = "192.0.2.7";
const POD_INJECTED: &str = "opentelemetry-auto-instrumentation-java";

/// Remembers what it was asked for. A configuration with the word `refuse-me` is refused.
#[derive(Default)]
struct RecordingHost {
    calls: Mutex<Vec<String>>,
    sources: Mutex<Vec<PipelineSource>>,
}

impl PipelineHost for RecordingHost {
    async fn apply(&self, source: PipelineSource) -> Result<Applied, Vec<String>> {
        self.calls.lock().unwrap().push(format!("apply {}", source.owner));
        if source.config.contains("refuse-me") {
            return Err(vec!["n/x:3:5: no exporter is called refuse-me".to_owned()]);
        }
        self.sources.lock().unwrap().push(source);
        let port = |name: &str, port, protocol: &str| ListenerPort {
            name: name.to_owned(),
            port,
            app_protocol: Some(protocol.to_owned()),
        };
        let ports = vec![port("otlp-grpc", 4317, "grpc"), port("otlp-http", 4318, "http")];
        Ok(Applied { ports, warnings: vec!["a warning of the host".to_owned()] })
    }

    async fn remove(&self, owner: &str) {
        self.calls.lock().unwrap().push(format!("remove {owner}"));
    }
}

/// The cluster room as the program would run it.
struct Running {
    cluster: Cluster,
    host: Arc<RecordingHost>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl Running {
    async fn start(kubeconfig: &Path, port: u16) -> Self {
        let webhook = WebhookSettings {
            endpoint: format!("127.0.0.1:{port}"),
            url: Some(format!("https://127.0.0.1:{port}")),
            namespace: Some("spanreel".to_owned()),
            service: "spanreel".to_owned(),
            pod_address: Some(POD_ADDRESS.to_owned()),
        };
        let settings = ClusterSettings::new(&webhook, Some(kubeconfig.to_owned()), None).unwrap();
        let (host, shutdown, tracker) = (Arc::<RecordingHost>::default(), CancellationToken::new(), TaskTracker::new());
        let started = Cluster::start(settings, Arc::clone(&host), Metrics::default(), shutdown.clone(), &tracker);
        Self { cluster: started.await.unwrap(), host, shutdown, tracker }
    }

    async fn registered(&self) {
        wait_until("the registration", SOON, async || self.cluster.is_registered().then_some(())).await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tracker.close();
        tokio::time::timeout(Duration::from_secs(10), self.tracker.wait()).await.expect("tasks end at shutdown");
    }
}

/// The installation without its Deployment's process, which is this test's.
async fn install(kube: &KubeCluster) -> PathBuf {
    let manifests = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/install.yaml")).unwrap();
    kube.apply("spanreel", &manifests).await;
    kube.service_account("spanreel", "spanreel").await
}

async fn create_namespace(kube: &KubeCluster, name: &str, annotations: Value) {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": annotations}});
    kube.create("/api/v1/namespaces", &namespace).await.unwrap();
}

fn pod(name: &str, annotations: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app:1.0"}]},
    })
}

async fn create_pod(kube: &KubeCluster, namespace: &str, pod: &Value) -> Value {
    kube.create(&format!("/api/v1/namespaces/{namespace}/pods"), pod).await.unwrap()
}

fn is_injected(pod: &Value) -> bool {
    pod["spec"]["initContainers"][0]["name"] == POD_INJECTED
}

/// Creates a pod and returns the warnings that its author sees.
async fn warnings(kube: &KubeCluster, namespace: &str, pod: &Value) -> Vec<String> {
    let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods"))
        .header("content-type", "application/json")
        .body(kube::client::Body::from(pod.to_string().into_bytes()))
        .unwrap();
    let response = kube.client().send(request).await.unwrap();
    assert!(response.status().is_success(), "{response:?}");
    response.headers().get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

const COLLECTOR: &str = "\
apiVersion: opentelemetry.io/v1beta1
kind: OpenTelemetryCollector
metadata:
  name: optl
spec:
  managementState: managed
  config:
    receivers: {otlp: {protocols: {grpc: {}, http: {}}}}
    exporters: {debug: {}}
    service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
";

const INSTRUMENTATION: &str = "\
apiVersion: opentelemetry.io/v1alpha1
kind: Instrumentation
metadata:
  name: inst
spec:
  exporter:
    endpoint: http://optl.telemetry:4317
  java:
    resources:
      limits: {memory: 1Gi}
";

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_injected_and_collectors_run_across_restarts_and_outages() {
    let mut kube = KubeCluster::start().await;
    let kubeconfig = install(&kube).await;
    let [port] = free_ports();
    let running = Running::start(&kubeconfig, port).await;
    running.registered().await;

    // Definitions are served, with their printer columns.
    create_namespace(&kube, "telemetry", json!({})).await;
    kube.apply("telemetry", INSTRUMENTATION).await;
    kube.apply("telemetry", COLLECTOR).await;

    // A pod right after its Instrumentation: the watch may be behind.
    create_namespace(&kube, "shop", json!({})).await;
    let asks = json!({"instrumentation.opentelemetry.io/inject-java": "telemetry/inst"});
    let stored = create_pod(&kube, "shop", &pod("first", asks.clone())).await;
    assert!(is_injected(&stored), "{stored:#}");
    let init = &stored["spec"]["initContainers"][0];
    assert_eq!(init["resources"]["limits"], json!({"memory": "1Gi"}));
    let env = stored["spec"]["containers"][0]["env"].as_array().unwrap();
    let names: Vec<&str> = env.iter().map(|var| var["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "OTEL_NODE_IP",
            "OTEL_POD_IP",
            "JAVA_TOOL_OPTIONS",
            "OTEL_SERVICE_NAME",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_RESOURCE_ATTRIBUTES_POD_NAME",
            "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME",
            "OTEL_RESOURCE_ATTRIBUTES",
        ]
    );

    // Who asks for nothing gets nothing; a namespace can ask for its pods; kube-system is never asked about.
    let plain = create_pod(&kube, "shop", &pod("plain", json!({}))).await;
    assert!(plain["spec"]["initContainers"].is_null() && plain["spec"]["containers"][0]["env"].is_null());
    create_namespace(&kube, "annotated", asks.clone()).await;
    assert!(is_injected(&create_pod(&kube, "annotated", &pod("by-namespace", json!({}))).await));
    assert!(!is_injected(&create_pod(&kube, "kube-system", &pod("system", asks.clone())).await));

    // Refusals reach the author, and the pod is created.
    let python = json!({"instrumentation.opentelemetry.io/inject-python": "true"});
    let said = warnings(&kube, "shop", &pod("snake", python)).await;
    assert!(said.iter().any(|w| w.contains("inject-python is not supported")), "{said:?}");
    let missing = json!({"instrumentation.opentelemetry.io/inject-java": "gone"});
    let said = warnings(&kube, "shop", &pod("missing", missing)).await;
    assert!(said.iter().any(|w| w.contains("Instrumentation shop/gone")), "{said:?}");
    let built_in = json!({"instrumentation.opentelemetry.io/inject-java": "true"});
    let said = warnings(&kube, "shop", &pod("built-in", built_in)).await;
    assert!(said.iter().any(|w| w.contains("http://spanreel.spanreel:4318")), "{said:?}");

    check_collector(&kube, &running.host).await;

    // A restart serves the same certificate.
    let secret = kube.get("/api/v1/namespaces/spanreel/secrets/spanreel-webhook-cert").await.unwrap();
    running.stop().await;
    let running = Running::start(&kubeconfig, port).await;
    running.registered().await;
    let after = kube.get("/api/v1/namespaces/spanreel/secrets/spanreel-webhook-cert").await.unwrap();
    assert_eq!(after["data"], secret["data"]);
    assert!(is_injected(&create_pod(&kube, "shop", &pod("after-restart", asks.clone())).await));

    // An outage of the API server: afterwards the watches go on.
    kube.stop_api_server();
    tokio::time::sleep(Duration::from_secs(2)).await;
    kube.start_api_server().await;
    kube.apply("shop", &INSTRUMENTATION.replace("name: inst", "name: local")).await;
    let counter = std::sync::atomic::AtomicU32::new(0);
    wait_until("the new Instrumentation to be used by pods that say true", SOON, async || {
        let number = counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let annotations = json!({"instrumentation.opentelemetry.io/inject-java": "true"});
        let stored = create_pod(&kube, "shop", &pod(&format!("after-outage-{number}"), annotations)).await;
        let env = stored["spec"]["containers"][0]["env"].to_string();
        env.contains("http://optl.telemetry:4317").then_some(())
    })
    .await;
    kube.delete("/apis/opentelemetry.io/v1beta1/namespaces/telemetry/opentelemetrycollectors/optl").await;
    wait_until("the pipeline's end", SOON, async || {
        running.host.calls.lock().unwrap().contains(&"remove telemetry/optl".to_owned()).then_some(())
    })
    .await;
    running.stop().await;
}

async fn check_collector(kube: &KubeCluster, host: &RecordingHost) {
    let collectors = "/apis/opentelemetry.io/v1beta1/namespaces/telemetry/opentelemetrycollectors";
    let ready = async |name: &str, status: &str| {
        wait_until(&format!("{name} Ready={status}"), SOON, async || {
            let object = kube.get(&format!("{collectors}/{name}")).await?;
            let conditions = object["status"]["conditions"].as_array()?;
            let condition = conditions.iter().find(|condition| condition["type"] == "Ready")?;
            let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            (current && condition["status"] == status).then(|| condition["message"].as_str().unwrap().to_owned())
        })
        .await
    };
    let message = ready("optl", "True").await;
    assert!(message.contains("otlp-grpc 4317") && message.contains("a warning of the host"), "{message}");
    let source = host.sources.lock().unwrap().first().cloned().unwrap();
    assert_eq!(source.owner, "telemetry/optl");
    assert!(source.config.contains("0.0.0.0:4318"), "{}", source.config);

    for (name, ports) in [
        ("optl-collector", vec![4317, 4318]),
        ("optl-collector-headless", vec![4317, 4318]),
        ("optl-collector-monitoring", vec![8888]),
        ("optl", vec![4317, 4318]),
    ] {
        let service = kube.get(&format!("/api/v1/namespaces/telemetry/services/{name}")).await.unwrap();
        let numbers =
            |list: &Value| list.as_array().unwrap().iter().map(|p| p["port"].as_u64().unwrap()).collect::<Vec<_>>();
        assert_eq!(numbers(&service["spec"]["ports"]), ports, "{name}");
        assert!(service["spec"]["selector"].is_null());
        assert_eq!(service["metadata"]["ownerReferences"][0]["name"], "optl");
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/telemetry/endpointslices/{name}");
        let slice = kube.get(&path).await.unwrap();
        assert_eq!(slice["endpoints"][0]["addresses"], json!([POD_ADDRESS]));
        assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], name);
        assert_eq!(numbers(&slice["ports"]), ports);
    }
    let headless = kube.get("/api/v1/namespaces/telemetry/services/optl-collector-headless").await.unwrap();
    assert_eq!(headless["spec"]["clusterIP"], "None");

    // What cannot run says so; what is somebody else's is left alone.
    kube.apply("telemetry", &COLLECTOR.replace("name: optl", "name: bad").replace("debug", "refuse-me")).await;
    let message = ready("bad", "False").await;
    assert!(message.contains("n/x:3:5: no exporter is called refuse-me"), "{message}");
    kube.apply(
        "telemetry",
        &COLLECTOR.replace("name: optl", "name: side").replace("managed\n", "managed\n  mode: sidecar\n"),
    )
    .await;
    assert!(ready("side", "False").await.contains("sidecar is not supported"));
    let foreign =
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: taken\nspec:\n  ports: [{port: 1}]\n  selector: {a: b}\n";
    kube.apply("telemetry", foreign).await;
    kube.apply("telemetry", &COLLECTOR.replace("name: optl", "name: taken")).await;
    assert!(ready("taken", "True").await.contains("Service taken belongs to somebody else"));
    let taken = kube.get("/api/v1/namespaces/telemetry/services/taken").await.unwrap();
    assert_eq!(taken["spec"]["selector"], json!({"a": "b"}));
    kube.apply("telemetry", &COLLECTOR.replace("name: optl", "name: taken").replace(": managed", ": unmanaged")).await;
    wait_until("the unmanaged collector's end", SOON, async || {
        host.calls.lock().unwrap().contains(&"remove telemetry/taken".to_owned()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let [nobody, port] = free_ports();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{nobody}'}}}}]\n\
         users: [{{name: u, user: {{token: t}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let running = Running::start(&kubeconfig, port).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!running.cluster.is_registered());
    running.stop().await;
}
