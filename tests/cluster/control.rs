//! The cluster room against a real API server, as the ServiceAccount of `deploy/install.yaml` and never as admin.
//!
//! Pipelines are only recorded here; `walkthrough` runs the whole program.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use spanreel::appliance::spanreel::settings::{SilentAfter, SpanreelSettings, WebhookSettings};
use spanreel::cluster::{
    Applied, Cluster, ClusterSettings, LifeLine, ListenerPort, Metrics, PipelineHost, PipelineSource, Refusal,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::kube_rig::{KubeCluster, free_ports, wait_until};

/// For everything that takes a watch or a retry; generous, because other tests compile and run meanwhile.
const SOON: Duration = Duration::from_secs(60);
const COLLECTORS: &str = "/apis/opentelemetry.io/v1beta1/namespaces/telemetry/opentelemetrycollectors";
/// Nothing ever listens there.
const POD_ADDRESS: &str = "192.0.2.7";
const POD_INJECTED: &str = "opentelemetry-auto-instrumentation-java";

/// Remembers what it was asked for. A configuration with the word `refuse-me` is refused.
#[derive(Default)]
struct RecordingHost {
    calls: Mutex<Vec<String>>,
    sources: Mutex<Vec<PipelineSource>>,
    remarks: Mutex<BTreeMap<String, Vec<String>>>,
}

fn applied() -> Applied {
    let port = |name: &str, port, protocol: &str| ListenerPort {
        name: name.to_owned(),
        port,
        udp: false,
        app_protocol: Some(protocol.to_owned()),
    };
    let ports = vec![port("otlp-grpc", 4317, "grpc"), port("otlp-http", 4318, "http")];
    let extensions = vec![port("health-check", 13133, "http")];
    Applied { ports, extensions, warnings: vec!["a warning of the host".to_owned()], ..Applied::default() }
}

impl PipelineHost for RecordingHost {
    async fn apply(&self, source: PipelineSource) -> Result<Applied, Refusal> {
        self.calls.lock().unwrap().push(format!("apply {}", source.owner));
        if source.config.contains("refuse-me") {
            let running = self.sources.lock().unwrap().iter().any(|earlier| earlier.owner == source.owner);
            let reasons = vec!["n/x:3:5: no exporter is called refuse-me".to_owned()];
            return Err(Refusal { reasons, running: running.then(applied) });
        }
        self.sources.lock().unwrap().push(source);
        Ok(applied())
    }

    async fn remarks(&self) -> BTreeMap<String, Vec<String>> {
        self.remarks.lock().unwrap().clone()
    }

    async fn remove(&self, owner: &str) {
        self.calls.lock().unwrap().push(format!("remove {owner}"));
    }

    async fn listed(&self, owners: &BTreeSet<String>) {
        self.calls.lock().unwrap().push(format!("listed {owners:?}"));
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
        Self::start_with(kubeconfig, port, |_| {}).await
    }

    async fn start_with(kubeconfig: &Path, port: u16, change: impl FnOnce(&mut ClusterSettings)) -> Self {
        let webhook = WebhookSettings {
            endpoint: format!("127.0.0.1:{port}"),
            url: Some(format!("https://127.0.0.1:{port}")),
            namespace: Some("spanreel".to_owned()),
            service: "spanreel".to_owned(),
            pod_address: Some(POD_ADDRESS.to_owned()),
        };
        let spanreel = SpanreelSettings { webhook, ..SpanreelSettings::default() };
        let mut settings = ClusterSettings::new(&spanreel, Some(kubeconfig.to_owned()), None).unwrap();
        change(&mut settings);
        let (host, shutdown, tracker) = (Arc::<RecordingHost>::default(), CancellationToken::new(), TaskTracker::new());
        let life = LifeLine::new(SilentAfter::default().0);
        let started = Cluster::start(settings, Arc::clone(&host), Metrics::default(), life, shutdown.clone(), &tracker);
        Self { cluster: started.await.unwrap(), host, shutdown, tracker }
    }

    /// Waits for the registration, and until the API server acts on it.
    async fn registered(&self, kube: &KubeCluster) {
        wait_until("the registration", SOON, async || self.cluster.is_registered().then_some(())).await;
        let probe = pod("probe", json!({"instrumentation.opentelemetry.io/inject-sdk": "true"}));
        wait_until("the API server to ask the webhook", SOON, async || {
            let stored = kube.create("/api/v1/namespaces/default/pods?dryRun=All", &probe).await.ok()?;
            (!stored["spec"]["containers"][0]["env"].is_null()).then_some(())
        })
        .await;
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
    running.registered(&kube).await;

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
    wait_until("the API server to hear of the namespace that asks", SOON, async || {
        let path = "/api/v1/namespaces/annotated/pods?dryRun=All";
        is_injected(&kube.create(path, &pod("by-namespace", json!({}))).await.unwrap()).then_some(())
    })
    .await;
    assert!(!is_injected(&create_pod(&kube, "kube-system", &pod("system", asks.clone())).await));

    // Refusals reach the author, and the pod is created.
    let python = json!({
        "instrumentation.opentelemetry.io/inject-python": "true",
        "instrumentation.opentelemetry.io/otel-python-platform": "uclibc",
    });
    let said = warnings(&kube, "shop", &pod("snake", python)).await;
    assert!(said.iter().any(|w| w.contains("it must be glibc or musl")), "{said:?}");
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
    running.registered(&kube).await;
    let after = kube.get("/api/v1/namespaces/spanreel/secrets/spanreel-webhook-cert").await.unwrap();
    assert_eq!(after["data"], secret["data"]);
    assert!(is_injected(&create_pod(&kube, "shop", &pod("after-restart", asks.clone())).await));

    // An outage of the API server: afterwards the watches go on, although the server has forgotten the version that they
    // were at.
    let instrumentations = "/apis/opentelemetry.io/v1alpha1/instrumentations";
    let version = kube.get(instrumentations).await.unwrap()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    kube.stop_api_server();
    tokio::time::sleep(Duration::from_secs(2)).await;
    kube.start_api_server().await;
    let watch = format!("{instrumentations}?watch=true&timeoutSeconds=1&resourceVersion={version}");
    let request = http::Request::get(watch).body(Vec::new()).unwrap();
    let answer = match kube.client().request_text(request).await {
        Ok(events) => events,
        Err(error) => format!("{error:?}"),
    };
    assert!(answer.contains("410"), "a watch from before goes on: {answer}");
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

/// The message of a collector's Ready condition, once it has this status, the current generation, and these words.
async fn says(kube: &KubeCluster, name: &str, status: &str, words: &str) -> String {
    wait_until(&format!("{name} Ready={status} {words}"), SOON, async || {
        let object = kube.get(&format!("{COLLECTORS}/{name}")).await?;
        let conditions = object["status"]["conditions"].as_array()?;
        let condition = conditions.iter().find(|condition| condition["type"] == "Ready")?;
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let message = condition["message"].as_str()?;
        (current && condition["status"] == status && message.contains(words)).then(|| message.to_owned())
    })
    .await
}

/// Waits until all Services of a collector lead to Spanreel, or nowhere.
async fn services_lead(kube: &KubeCluster, name: &str, somewhere: bool) {
    let expected = if somewhere { json!([POD_ADDRESS]) } else { Value::Null };
    for suffix in ["-collector", "-collector-headless", "-collector-monitoring", "-collector-extension", ""] {
        wait_until(&format!("Service {name}{suffix} leads somewhere={somewhere}"), SOON, async || {
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/telemetry/endpointslices/{name}{suffix}");
            (kube.get(&path).await?["endpoints"][0]["addresses"] == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_collector_has_a_status_that_holds_and_services_that_lead_where_it_runs() {
    let kube = KubeCluster::start().await;
    let kubeconfig = install(&kube).await;
    let [port] = free_ports();
    let running = Running::start_with(&kubeconfig, port, |settings| settings.collectors_max = 2).await;
    running.registered(&kube).await;
    create_namespace(&kube, "telemetry", json!({})).await;
    let named = |name: &str| COLLECTOR.replace("name: optl", &format!("name: {name}"));
    kube.apply("telemetry", COLLECTOR).await;
    says(&kube, "optl", "True", "listens on otlp-grpc 4317").await;
    services_lead(&kube, "optl", true).await;

    // An edit that is refused: what ran goes on, and is found.
    kube.apply("telemetry", &COLLECTOR.replace("debug", "refuse-me")).await;
    let message = says(&kube, "optl", "False", "its previous configuration goes on").await;
    assert!(message.contains("otlp-http 4318") && message.contains("n/x:3:5"), "{message}");
    services_lead(&kube, "optl", true).await;
    kube.apply("telemetry", COLLECTOR).await;
    says(&kube, "optl", "True", "").await;

    // What holds for a while only is said for a while only.
    let remark = BTreeMap::from([("telemetry/optl".to_owned(), vec!["7 spans wait for nobody".to_owned()])]);
    *running.host.remarks.lock().unwrap() = remark;
    says(&kube, "optl", "True", "7 spans wait for nobody").await;
    running.host.remarks.lock().unwrap().clear();
    wait_until("the remark to go", SOON, async || {
        (!says(&kube, "optl", "True", "").await.contains("7 spans")).then_some(())
    })
    .await;

    // Creation times are whole seconds; the oldest are run.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    kube.apply("telemetry", &named("second")).await;
    says(&kube, "second", "True", "").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    kube.apply("telemetry", &named("a-third")).await;
    says(&kube, "a-third", "False", "runs the 2 oldest OpenTelemetryCollectors").await;

    // One that is left to itself keeps its Services, which lead nowhere; its place is another's.
    kube.apply("telemetry", &named("second").replace(": managed", ": unmanaged")).await;
    services_lead(&kube, "second", false).await;
    says(&kube, "a-third", "True", "").await;
    services_lead(&kube, "a-third", true).await;
    kube.apply("telemetry", &named("second")).await;
    says(&kube, "a-third", "False", "runs the 2 oldest").await;
    services_lead(&kube, "a-third", false).await;
    services_lead(&kube, "second", true).await;

    // After a restart the same ones run, whatever the order of the list.
    running.stop().await;
    kube.apply("telemetry", &named("second").replace("debug", "refuse-me")).await;
    let running = Running::start_with(&kubeconfig, port, |settings| settings.collectors_max = 2).await;
    says(&kube, "second", "False", "nothing of it runs").await;
    services_lead(&kube, "second", false).await;
    let calls = running.host.calls.lock().unwrap().clone();
    assert!(calls.contains(&"listed {\"telemetry/optl\", \"telemetry/second\"}".to_owned()), "{calls:?}");
    kube.delete(&format!("{COLLECTORS}/second")).await;
    says(&kube, "a-third", "True", "").await;
    running.stop().await;
}

async fn check_collector(kube: &KubeCluster, host: &RecordingHost) {
    let ready = async |name: &str, status: &str| says(kube, name, status, "").await;
    let message = ready("optl", "True").await;
    assert!(message.contains("otlp-grpc 4317") && message.contains("a warning of the host"), "{message}");
    let source = host.sources.lock().unwrap().first().cloned().unwrap();
    assert_eq!(source.owner, "telemetry/optl");
    // Written in by the webhook, or, had it not been asked, in memory.
    assert!(source.defaults.contains("0.0.0.0:4318") || source.config.contains("0.0.0.0:4318"), "{source:?}");

    for (name, ports) in [
        ("optl-collector", vec![4317, 4318]),
        ("optl-collector-headless", vec![4317, 4318]),
        ("optl-collector-monitoring", vec![8888]),
        ("optl-collector-extension", vec![13133]),
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

    // Scrapers find the metrics at the port that the resource names.
    let reader = "{pull: {exporter: {prometheus: {host: 0.0.0.0, port: 9999}}}}";
    let changed =
        COLLECTOR.replace("service: {", &format!("service: {{telemetry: {{metrics: {{readers: [{reader}]}}}}, "));
    assert_ne!(changed, COLLECTOR);
    kube.apply("telemetry", &changed).await;
    wait_until("the monitoring Service to lead from 9999 to 8888", SOON, async || {
        let service = kube.get("/api/v1/namespaces/telemetry/services/optl-collector-monitoring").await?;
        let slice = "/apis/discovery.k8s.io/v1/namespaces/telemetry/endpointslices/optl-collector-monitoring";
        let leads = service["spec"]["ports"][0]["port"] == 9999 && kube.get(slice).await?["ports"][0]["port"] == 8888;
        leads.then_some(())
    })
    .await;

    // More ports appear and go again.
    kube.apply("telemetry", &COLLECTOR.replace("spec:\n", "spec:\n  ports: [{name: extra, port: 7}]\n")).await;
    let slice_path = "/apis/discovery.k8s.io/v1/namespaces/telemetry/endpointslices/optl";
    let slice_has = async |ports: &[u64]| {
        wait_until(&format!("ports {ports:?}"), SOON, async || {
            let numbers: Vec<u64> =
                kube.get(slice_path).await?["ports"].as_array()?.iter().filter_map(|p| p["port"].as_u64()).collect();
            (numbers == ports).then_some(())
        })
        .await;
    };
    slice_has(&[7, 4317, 4318]).await;
    kube.apply("telemetry", COLLECTOR).await;
    slice_has(&[4317, 4318]).await;

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

/// Instrumentations whose content makes the operator's pods invalid, and pods of odd shapes: all are created.
#[tokio::test(flavor = "multi_thread")]
async fn no_pod_is_ever_refused_because_of_us() {
    let kube = KubeCluster::start().await;
    let kubeconfig = install(&kube).await;
    let [port, second_port] = free_ports();
    // Two that start at once agree on one certificate authority.
    let (running, second) = tokio::join!(Running::start(&kubeconfig, port), Running::start(&kubeconfig, second_port));
    running.registered(&kube).await;
    second.registered(&kube).await;
    create_namespace(&kube, "odd", json!({"pod-security.kubernetes.io/enforce": "restricted"})).await;

    let instrumentations = [
        json!({"exporter": {"tls": {"secretName": "a.dotted.secret", "configMapName": format!("{}x", "long-".repeat(14))}}}),
        json!({"exporter": {"tls": {"secretName": "Not A Name"}}}),
        json!({"env": [{"name": "1DIGIT", "value": "x"}, {"name": "a b=c"}, {"name": ""}]}),
        json!({"env": [{"name": "BOTH", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
        json!({"env": [{"name": "NONE", "valueFrom": {}}, {"name": "BAD", "valueFrom": {"fieldRef": {"fieldPath": "no.such"}}}]}),
        json!({"java": {"resources": {"limits": {"memory": "1Mi"}, "requests": {"memory": "2Mi"}}}}),
        json!({"java": {"resources": {"requests": {"memory": "4Gi", "cpu": 4}}}}),
        json!({"java": {"resources": {"limits": {"cpu": "1m"}}, "volumeLimitSize": "-1"}}),
        json!({"java": {"volumeClaimTemplate": {"spec": {}}}}),
        json!({"java": {"extensions": [{"image": "", "dir": "/x"}]}}),
        json!({"imagePullPolicy": "Sometimes"}),
        json!({"initContainerSecurityContext": {"privileged": true, "allowPrivilegeEscalation": false}}),
        json!({"resource": {"addK8sUIDAttributes": true, "resourceAttributes": {"": "x", "k8s.pod.name": "é=,"}}}),
        json!({}),
    ];
    let restricted = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let shapes = [
        json!({}),
        json!({"env": [{"name": "JAVA_TOOL_OPTIONS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
        json!({"env": [{"name": "OTEL_RESOURCE_ATTRIBUTES", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
        json!({"env": [{"name": "OTEL_RESOURCE_ATTRIBUTES", "value": ""}, {"name": "X", "value": "y".repeat(1_000_000)}]}),
        json!({"volumeMounts": [{"name": "mine", "mountPath": "/otel-auto-instrumentation-java-app"}]}),
        json!({"volumeMounts": [{"name": "opentelemetry-auto-instrumentation-java", "mountPath": "/x"}]}),
    ];
    let mut created = 0;
    let mut injected = 0;
    for (i, spec) in instrumentations.iter().enumerate() {
        let object = json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "Instrumentation",
            "metadata": {"name": format!("i{i}")}, "spec": spec,
        });
        kube.create("/apis/opentelemetry.io/v1alpha1/namespaces/odd/instrumentations", &object).await.unwrap();
        for (s, shape) in shapes.iter().enumerate() {
            for language in ["java", "sdk"] {
                let key = format!("instrumentation.opentelemetry.io/inject-{language}");
                let mut pod = pod(&format!("p{i}-{s}-{language}"), json!({key: format!("i{i}")}));
                let container = pod["spec"]["containers"][0].as_object_mut().unwrap();
                container.extend(shape.as_object().unwrap().clone());
                container.insert("securityContext".to_owned(), restricted.clone());
                let names: Vec<&str> = ["mine", "opentelemetry-auto-instrumentation-java"]
                    .into_iter()
                    .filter(|n| shape.to_string().contains(n))
                    .collect();
                pod["spec"]["volumes"] = names.iter().map(|name| json!({"name": name, "emptyDir": {}})).collect();
                let stored = create_pod(&kube, "odd", &pod).await;
                created += 1;
                let env = stored["spec"]["containers"][0]["env"].to_string();
                injected += usize::from(env.contains("OTEL_RESOURCE_ATTRIBUTES_NODE_NAME"));
            }
        }
    }
    assert_eq!(created, instrumentations.len() * shapes.len() * 2);
    assert!(injected > created / 3, "{injected} of {created}: what is refused is the exception");

    large_and_nonsensical(&kube).await;
    baseline(&kube).await;
    wire(&kube, port).await;
    second.stop().await;
    running.stop().await;
}

/// Pods that are as large as the API server stores, and annotations that mean nothing.
async fn large_and_nonsensical(kube: &KubeCluster) {
    create_namespace(kube, "large", json!({})).await;
    let key = |name: &str| format!("instrumentation.opentelemetry.io/{name}");
    for (number, bytes) in [900_000, 1_000_000, 1_048_576, 1_300_000].into_iter().enumerate() {
        let mut large = pod(
            &format!("large-{number}"),
            json!({key("inject-java"): "true", key("inject-sdk"): "true",
            key("java-container-names"): "app", key("sdk-container-names"): "app"}),
        );
        // A list of many, so that what injection copies is not one long text.
        large["spec"]["containers"][0]["env"] =
            (0..bytes / 1000).map(|number| json!({"name": format!("V{number}"), "value": "v".repeat(970)})).collect();
        let stored = create_pod(kube, "large", &large).await;
        assert!(stored["spec"]["containers"][0]["env"].as_array().unwrap().len() >= bytes / 1000);
    }
    let mut full = pod("annotated", json!({key("inject-java"): "true"}));
    for number in 0..25 {
        full["metadata"]["annotations"][format!("resource.opentelemetry.io/a{number}")] = json!("x".repeat(10_000));
    }
    create_pod(kube, "large", &full).await;

    let long = "x".repeat(20_000);
    let words =
        ["", " ", "TRUE ", "/", "a/", "/a", "a/b/c", "../../secrets", "true,false", "\u{0}", "\n", "日本", "{}", &long];
    let languages = ["java", "nodejs", "python", "dotnet", "go", "apache-httpd", "nginx", "sdk", "cobol", ""];
    for (number, word) in words.iter().enumerate() {
        for (other, language) in languages.iter().enumerate() {
            let annotations = json!({
                key(&format!("inject-{language}x")): word, key(&format!("inject-{language}y")): "true",
                key("inject-java"): "true", key("container-names"): word, key("java-container-names"): word,
                key("otel-python-platform"): word, key("otel-dotnet-auto-runtime"): word, key("otel-go-auto-target-exe"): word,
                "sidecar.opentelemetry.io/inject": word, "resource.opentelemetry.io/service.name": word,
            });
            let mut asking = pod(&format!("nonsense-{number}-{other}"), annotations);
            if !language.is_empty() {
                asking["metadata"]["annotations"][key(&format!("inject-{language}"))] = json!(word);
            }
            create_pod(kube, "large", &asking).await;
        }
    }
}

/// In a namespace that enforces Pod Security `baseline` an Instrumentation's context must not cost the pod its life.
async fn baseline(kube: &KubeCluster) {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "plain", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}},
    });
    kube.create("/api/v1/namespaces", &namespace).await.unwrap();
    let object = json!({
        "apiVersion": "opentelemetry.io/v1alpha1", "kind": "Instrumentation", "metadata": {"name": "strong"},
        "spec": {"initContainerSecurityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN"]}}},
    });
    kube.create("/apis/opentelemetry.io/v1alpha1/namespaces/plain/instrumentations", &object).await.unwrap();
    let asks = json!({"instrumentation.opentelemetry.io/inject-java": "strong"});
    let stored = create_pod(kube, "plain", &pod("weak", asks)).await;
    assert!(is_injected(&stored), "{stored:#}");
    assert!(stored["spec"]["initContainers"][0]["securityContext"]["privileged"].is_null(), "{stored:#}");
    let go = json!({"instrumentation.opentelemetry.io/inject-go": "strong"});
    create_pod(kube, "plain", &pod("go", go)).await;
}

/// Speaks to the webhook directly, as nothing but an API server should.
async fn wire(kube: &KubeCluster, port: u16) {
    let secret = kube.get("/api/v1/namespaces/spanreel/secrets/spanreel-webhook-cert").await.unwrap();
    let pem = base64::engine::general_purpose::STANDARD.decode(secret["data"]["ca.crt"].as_str().unwrap()).unwrap();
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "namespace": "odd", "operation": "CREATE", "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": pod("x", json!({"instrumentation.opentelemetry.io/inject-sdk": "i13"})),
        },
    });
    let mut unknown = review.clone();
    unknown["apiVersion"] = json!("admission.k8s.io/v9");
    let mut no_pod = review.clone();
    no_pod["request"]["object"] = json!({"spec": 7});
    for http2 in [false, true] {
        let send = async |path: &str, body: Vec<u8>| post(port, &pem, http2, path, body).await;
        let (status, answer) = send("/mutate-v1-pod", review.to_string().into_bytes()).await;
        assert_eq!((status, &answer["response"]["uid"]), (200, &json!("u-1")));
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        for body in [&unknown, &no_pod] {
            let (status, answer) = send("/mutate-v1-pod", body.to_string().into_bytes()).await;
            assert_eq!((status, &answer["response"]["allowed"]), (200, &json!(true)), "{answer}");
            assert!(answer["response"]["warnings"][0].as_str().unwrap().contains("created unchanged"));
        }
        assert_eq!(send("/mutate-v1-pod", b"{\"garbage".to_vec()).await.0, 400);
        assert_eq!(send("/mutate-v1-pod", Vec::new()).await.0, 400);
        assert_eq!(send("/elsewhere", review.to_string().into_bytes()).await.0, 404);
        assert_eq!(send("/mutate-v1-pod", vec![b' '; 7 << 20]).await.0, 413);
        // Unharmed.
        assert_eq!(send("/mutate-v1-pod", review.to_string().into_bytes()).await.0, 200);
    }
}

async fn post(port: u16, ca: &[u8], http2: bool, path: &str, body: Vec<u8>) -> (u16, Value) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TokioIo::new(connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap());
    let request = http::Request::post(format!("https://127.0.0.1:{port}{path}"));
    let request = request.header("host", "127.0.0.1").body(Full::new(bytes::Bytes::from(body))).unwrap();
    let response = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
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
