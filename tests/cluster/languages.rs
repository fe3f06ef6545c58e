//! One distributed trace over three services in three languages: Node.js asks Python, Python asks Java.
//!
//! Real: API server and controllers, the `spanreel` binary with the rights of `deploy/install.yaml`, and the agents of the
//! operator's images, each started with the environment of its stored pod (`tests/support/agents.rs` says what differs).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::agents::{AgentImage, Container, Program};
use crate::kube_rig::{KubeCluster, POD_CONTROLLERS, documents, script_output, wait_until};
use crate::support::http;
use crate::support::metrics::Metrics;
use crate::support::ports;
use crate::support::spanreel::{Options, Spanreel};
use serde_json::{Value, json};
use spanreel::inject::{Catalog, Delivery, Instrumentation, OwnerMap, PodRequest, Settings, View, decide};

const SOON: Duration = Duration::from_secs(60);
/// Agents export spans every 5 s, and the machine may be busy.
const EXPORTED: Duration = Duration::from_secs(120);
/// What nobody talks to, but EndpointSlices must not hold a loopback address.
const SPANREEL_POD_IP: &str = "192.0.2.10";
const DEPLOYMENTS: &str = include_str!("../data/languages/deployments.yaml");
const APPS: [&str; 3] = ["edge", "middle", "back"];
/// The programs of two tests and a cluster at once would be too much for a small machine.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
const HOSTS: &[(&str, &str)] = &[("spanreel.spanreel", "127.0.0.1")];

/// What a span of the chain must be: service, kind, `telemetry.sdk.language`.
const CHAIN: [(&str, &str, &str); 5] = [
    ("edge", "SPAN_KIND_SERVER", "nodejs"),
    ("edge", "SPAN_KIND_CLIENT", "nodejs"),
    ("middle", "SPAN_KIND_SERVER", "python"),
    ("middle", "SPAN_KIND_CLIENT", "python"),
    ("back", "SPAN_KIND_SERVER", "java"),
];

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_runs_through_nodejs_python_and_java() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = KubeCluster::start_with(POD_CONTROLLERS).await;
    cluster.apply("default", include_str!("../../deploy/install.yaml")).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    cluster.create("/api/v1/namespaces", &namespace).await.expect("a new namespace");
    let spanreel = InCluster::start(&mut cluster, folder.path()).await;
    apply_instrumentation(&cluster, spanreel.otlp).await;
    cluster.apply("shop", DEPLOYMENTS).await;
    let mut pods = BTreeMap::new();
    for app in APPS {
        pods.insert(app.to_owned(), pod_of(&cluster, app).await);
    }

    let chain = Chain::start(&pods);
    let spans = chain.trace(spanreel.query).await;
    assert_chain(&spans);
    for span in &spans {
        assert_describes(&span.resource, &pods[span.service()]);
    }
    assert_other_signals_are_discarded_quietly(&spanreel, &chain).await;
}

/// No API server here; `tests/support/agents.rs` mounts the images' folders, read-only, where the volumes say.
#[tokio::test(flavor = "multi_thread")]
async fn the_agents_work_from_image_volumes_too() {
    let _turn = TURN.lock().await;
    let spanreel = Spanreel::start(&Options::default()).await;
    let settings = Settings { delivery: Delivery::ImageVolume, image_volumes_served: true, ..Settings::default() };
    let pods: BTreeMap<String, Value> = documents(DEPLOYMENTS)
        .map(|document| {
            let deployment: Value = serde_saphyr::from_str(document).expect("a Deployment");
            let app = deployment["metadata"]["name"].as_str().expect("a name").to_owned();
            let pod = injected(&deployment, &instrumentation(spanreel.ports.http), &settings);
            assert!(pod["spec"]["initContainers"].is_null(), "nothing is copied: {pod:#}");
            (app, pod)
        })
        .collect();
    assert_chain(&Chain::start(&pods).trace(spanreel.ports.query).await);
}

/// The three programs, each in the container of its pod.
struct Chain {
    edge: Program,
    middle: Program,
    back: Program,
    trace_id: String,
}

impl Chain {
    /// `pods` by app, injected.
    fn start(pods: &BTreeMap<String, Value>) -> Self {
        let image = |language, script| AgentImage::new(language, script_output(script));
        let container = |app: &str, image| Container::of_pod(&pods[app], app, &image);

        let back = container("back", image("java", ".ci/java-agent")).run("java", "Back.java", &[], HOSTS);
        let packages = Path::new(&script_output(".ci/python-agent")).join("packages");
        let middle = container("middle", image("python", ".ci/python-agent")).with_files("/srv/packages", &packages);
        let middle = middle.run("python3", "middle.py", &[back.port.to_string()], HOSTS);
        let edge = container("edge", image("nodejs", ".ci/node-agent"));
        let edge = edge.run("node", "edge.js", &[middle.port.to_string()], HOSTS);

        // An id that nobody else has: the pod's own.
        let trace_id = pods["edge"]["metadata"]["uid"].as_str().expect("a uid").replace('-', "");
        Self { edge, middle, back, trace_id }
    }

    /// Sends one request along the chain and returns what the query API at that port knows of it, once it is complete.
    async fn trace(&self, query: u16) -> Vec<Span> {
        let trace_id = &self.trace_id;
        let traceparent = format!("00-{trace_id}-00f067aa0ba902b7-01");
        let answer = http::get(self.edge.port, "/", &[("traceparent", &traceparent)]).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "5 stars"));
        wait_until("the five spans of the trace", EXPORTED, || async {
            let answer = http::get(query, &format!("/api/v2/traces/{trace_id}"), &[]).await.ok()?;
            let spans = Span::all_of(&serde_json::from_slice(&answer.body).ok()?);
            CHAIN.iter().all(|(service, kind, _)| Span::find(&spans, service, kind).is_some()).then_some(spans)
        })
        .await
    }
}

/// The pod of a Deployment as it would be stored, with a uid.
fn injected(deployment: &Value, instrumentation: &str, settings: &Settings) -> Value {
    let template = &deployment["spec"]["template"];
    let name = &deployment["metadata"]["name"];
    let mut metadata = template["metadata"].clone();
    metadata["name"] = name.clone();
    metadata["uid"] = Value::from("3f2c9a54-6c1f-4c7e-9d0b-7a1e5b8d2c46");
    let pod = serde_json::from_value(json!({"metadata": metadata, "spec": template["spec"]})).expect("a pod");

    let instrumentation: Value = serde_saphyr::from_str(instrumentation).expect("an Instrumentation");
    let read = Instrumentation::read("shop", "agents", 1, instrumentation["spec"].clone()).map(Arc::new);
    let mut catalog = Catalog::default();
    catalog.insert("shop", "agents", read);
    let view = View {
        settings,
        catalog: &catalog,
        built_in: &Instrumentation::built_in("http://nobody.example:4318"),
        owners: &OwnerMap::new(),
        absent: &[],
    };
    let request = PodRequest { pod: &pod, namespace: "shop", namespace_annotations: &BTreeMap::new() };
    let decision = decide(&request, &view);
    let stored = decision.pod.as_ref().unwrap_or_else(|| panic!("{name} is not injected: {:?}", decision.outcomes));
    serde_json::to_value(stored).expect("JSON")
}

/// The binary in a cluster, on ports of its own.
struct InCluster {
    otlp: u16,
    query: u16,
    log: PathBuf,
}

impl InCluster {
    /// Starts it as the pod of `deploy/install.yaml` would run.
    async fn start(cluster: &mut KubeCluster, folder: &Path) -> Self {
        let kubeconfig = cluster.service_account("spanreel", "spanreel").await;
        let [otlp, http, query, webhook] = std::array::from_fn(|_| ports::free());
        let mut command = crate::support::spanreel::binary();
        command.arg("run").arg("--data").arg(folder.join("data")).arg("--kubeconfig").arg(kubeconfig);
        for setting in [
            format!("receivers.otlp.protocols.grpc.endpoint=127.0.0.1:{otlp}"),
            format!("receivers.otlp.protocols.http.endpoint=127.0.0.1:{http}"),
            "service.telemetry.metrics.level=none".to_owned(),
            format!("extensions.spanreel.query_endpoint=127.0.0.1:{query}"),
            format!("extensions.spanreel.webhook.endpoint=127.0.0.1:{webhook}"),
            format!("extensions.spanreel.webhook.url=https://127.0.0.1:{webhook}"),
            "extensions.spanreel.webhook.namespace=spanreel".to_owned(),
            format!("extensions.spanreel.webhook.pod_address={SPANREEL_POD_IP}"),
        ] {
            command.args(["--set", &setting]);
        }
        command.env("POD_NAMESPACE", "spanreel").env("POD_IP", SPANREEL_POD_IP);
        let log = cluster.spawn(&mut command, "spanreel");
        wait_until("Spanreel to be ready", SOON, || async {
            http::get(query, "/ready", &[]).await.is_ok_and(|answer| answer.status == 200).then_some(())
        })
        .await;
        Self { otlp, query, log }
    }
}

/// The Instrumentation whose agents send to that port.
fn instrumentation(port: u16) -> String {
    include_str!("../data/languages/instrumentation.yaml").replace("<port>", &port.to_string())
}

/// Applies the Instrumentation as soon as its kind is known, and waits until a pod that asks for it, not stored, is injected.
async fn apply_instrumentation(cluster: &KubeCluster, port: u16) {
    let yaml = instrumentation(port);
    wait_until("the Instrumentation to be accepted", SOON, || async { cluster.try_apply("shop", &yaml).await.ok() })
        .await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "probe", "annotations": {"instrumentation.opentelemetry.io/inject-java": "agents"}},
        "spec": {"containers": [{"name": "probe", "image": "example.test/probe:1"}]},
    });
    wait_until("the first injected pod", SOON, || async {
        let stored = cluster.create("/api/v1/namespaces/shop/pods?dryRun=All", &pod).await.ok()?;
        (!stored["spec"]["initContainers"].is_null()).then_some(())
    })
    .await;
}

/// The stored pod of a Deployment.
async fn pod_of(cluster: &KubeCluster, app: &str) -> Value {
    let pods = format!("/api/v1/namespaces/shop/pods?labelSelector=app%3D{app}");
    wait_until(&pods, SOON, || async { cluster.list(&pods).await.pop() }).await
}

/// A span as the query API shows it.
#[derive(Debug)]
struct Span {
    /// The resource's attributes that are texts.
    resource: BTreeMap<String, String>,
    kind: String,
    id: String,
    parent: String,
}

impl Span {
    fn all_of(answer: &Value) -> Vec<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut spans = Vec::new();
        for resource in answer["trace"]["resourceSpans"].as_array().into_iter().flatten() {
            let attributes = resource["resource"]["attributes"].as_array().into_iter().flatten();
            let attributes: BTreeMap<_, _> =
                attributes.map(|pair| (text(&pair["key"]), text(&pair["value"]["stringValue"]))).collect();
            let scopes = resource["scopeSpans"].as_array().into_iter().flatten();
            for span in scopes.flat_map(|scope| scope["spans"].as_array().into_iter().flatten()) {
                spans.push(Self {
                    resource: attributes.clone(),
                    kind: text(&span["kind"]),
                    id: text(&span["spanId"]),
                    parent: text(&span["parentSpanId"]),
                });
            }
        }
        spans
    }

    fn find<'a>(spans: &'a [Self], service: &str, kind: &str) -> Option<&'a Self> {
        spans.iter().find(|span| span.service() == service && span.kind == kind)
    }

    fn service(&self) -> &str {
        self.resource.get("service.name").map_or("", String::as_str)
    }
}

/// Each span of [`CHAIN`] is there once, and the parent of the next.
fn assert_chain(spans: &[Span]) {
    let is_remote = |span: &&Span| span.kind == "SPAN_KIND_SERVER" || span.kind == "SPAN_KIND_CLIENT";
    assert_eq!(spans.iter().filter(is_remote).count(), CHAIN.len(), "{spans:#?}");
    let chain = CHAIN.map(|(service, kind, _)| Span::find(spans, service, kind).expect("found before"));
    for (span, (service, kind, language)) in chain.iter().zip(CHAIN) {
        assert_eq!(span.resource.get("telemetry.sdk.language").map(String::as_str), Some(language), "{service} {kind}");
    }
    for pair in chain.windows(2) {
        assert_eq!(pair[1].parent, pair[0].id, "the parent of {:#?}", pair[1]);
    }
}

/// The resource says which pod it comes from.
fn assert_describes(resource: &BTreeMap<String, String>, pod: &Value) {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let app = text(&pod["metadata"]["labels"]["app"]);
    let name = text(&pod["metadata"]["name"]);
    for (attribute, expected) in [
        ("service.name", app.clone()),
        ("service.namespace", "shop".to_owned()),
        ("service.version", "1.2".to_owned()),
        ("service.instance.id", format!("shop.{name}.{app}")),
        ("k8s.namespace.name", "shop".to_owned()),
        ("k8s.deployment.name", app.clone()),
        ("k8s.replicaset.name", text(&pod["metadata"]["ownerReferences"][0]["name"])),
        ("k8s.replicaset.uid", text(&pod["metadata"]["ownerReferences"][0]["uid"])),
        ("k8s.pod.name", name),
        ("k8s.pod.uid", text(&pod["metadata"]["uid"])),
        ("k8s.container.name", app),
        ("k8s.node.name", crate::agents::NODE_NAME.to_owned()),
    ] {
        assert_eq!(resource.get(attribute), Some(&expected), "{attribute} in {resource:#?}");
    }
}

/// All three send metrics and Python sends logs unasked: counted, said once, and no agent hears of it.
async fn assert_other_signals_are_discarded_quietly(spanreel: &InCluster, chain: &Chain) {
    let expected = [("metrics", "edge"), ("metrics", "middle"), ("metrics", "back"), ("logs", "middle")];
    wait_until("metrics of all three, and logs", EXPORTED, || async {
        let metrics = Metrics::scrape(spanreel.query).await.ok()?;
        let count = |(signal, service)| {
            metrics.sum("spanreel_discarded_total", &[("signal", signal), ("service", service)]).unwrap_or_default()
        };
        // More than one, so that what an agent says of an answer has been said.
        let repeated = expected.iter().all(|of| count(*of) >= if of.0 == "metrics" { 2.0 } else { 1.0 });
        repeated.then_some(())
    })
    .await;
    for (name, program) in [("edge", &chain.edge), ("middle", &chain.middle), ("back", &chain.back)] {
        let stderr = program.stderr();
        assert!(!stderr.to_lowercase().contains("export"), "{name} complains:\n{stderr}");
    }
    let log = fs::read_to_string(&spanreel.log).expect("the log");
    for signal in ["metrics", "logs"] {
        let said = log.matches(&format!("agents send {signal} too")).count();
        assert_eq!(said, 1, "{signal} in the log:\n{log}");
    }
}
