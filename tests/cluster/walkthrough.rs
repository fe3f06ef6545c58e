//! The mission end to end, on real parts: the walk-through's two custom resources, applied unchanged, inject annotated pods whose
//! Java agents send traces that Spanreel keeps, answers for and forwards to `tempo.tempo:4317` once that exists.
//!
//! Real: API server and controllers, the `spanreel` binary with the rights of `deploy/install.yaml`, the Java agent with the
//! environment of the stored pods, and an OpenTelemetry Collector in Tempo's place. Names that a cluster's DNS would know are
//! given to Spanreel by a hosts file mounted over `/etc/hosts` in its own mount namespace, which takes root or user namespaces.
//!
//! The resources say `0.0.0.0:4317` and `4318`, and a collector's own metrics are on 8888 if nothing else is said, so these
//! ports must be free; Tempo's stand-in has 4317 of `[::1]`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::agents::{AgentImage, Container, with_hosts};
use crate::kube_rig::{KubeCluster, POD_CONTROLLERS, free_ports, script_output, wait_until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// Spans come in two batches of the agents' exporters (every 5 s), and may wait for a retry of the destination (30 s at most).
const SPANS_BOUND: Duration = Duration::from_secs(120);
/// As long as another test may hold the fixed ports.
const PORTS_BOUND: Duration = Duration::from_secs(600);
/// What nobody talks to, but EndpointSlices must not hold a loopback address.
const SPANREEL_POD_IP: &str = "192.0.2.10";
const ENDPOINT_HOST: &str = "global-optl.opentelemetry";
const DEPLOYMENTS: [&str; 6] = ["details-v1", "productpage-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3"];

const DOWNSTREAM: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: '[::1]:4317'}}}}
exporters: {debug: {verbosity: detailed, use_internal_logger: false}}
service:
  telemetry: {logs: {level: warn}, metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}
";

#[tokio::test(flavor = "multi_thread")]
async fn annotated_pods_send_traces_through_spanreel_to_tempo() {
    let _ports = FixedPorts::take().await;
    let agent = AgentImage::new("java", script_output(".ci/java-agent"));
    let otelcol = script_output(".ci/otelcol");
    let folder = tempfile::tempdir().expect("a temporary folder");

    let mut cluster = KubeCluster::start_with(POD_CONTROLLERS).await;
    cluster.apply("default", include_str!("../../deploy/install.yaml")).await;
    for namespace in ["opentelemetry", "bookinfo"] {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        cluster.create("/api/v1/namespaces", &object).await.expect("a new namespace");
    }

    let query = start_spanreel(&mut cluster, folder.path()).await;
    apply_custom_resources(&cluster).await;
    assert_services_point_at_spanreel(&cluster).await;

    wait_for_injection(&cluster).await;
    cluster.apply("bookinfo", include_str!("../data/walkthrough/bookinfo.yaml")).await;
    for deployment in DEPLOYMENTS {
        assert_injected(&pod_of(&cluster, deployment).await, deployment);
    }

    let hosts = [(ENDPOINT_HOST, "127.0.0.1")];
    let ratings = pod_of(&cluster, "ratings-v1").await;
    let back = Container::of_pod(&ratings, "ratings", &agent).run("java", "Back.java", &[], &hosts);
    let reviews = pod_of(&cluster, "reviews-v2").await;
    let container = Container::of_pod(&reviews, "reviews", &agent);
    let front = container.run("java", "Front.java", &[back.port.to_string()], &hosts);

    // An id that nobody else has: the pod's own.
    let trace_id = reviews["metadata"]["uid"].as_str().expect("a uid").replace('-', "");
    let traceparent = format!("traceparent: 00-{trace_id}-00f067aa0ba902b7-01\r\n");
    let (status, body) = http_get(front.port, "/reviews", &traceparent).expect("an answer");
    assert_eq!((status, body.as_str()), (200, "5 stars"));

    // Readable before there is any Tempo.
    let services = wait_until("three spans at the query API", SPANS_BOUND, || async {
        let (_, body) = http_get(query, &format!("/api/v2/traces/{trace_id}"), "").ok()?;
        let spans = services_of_spans(&serde_json::from_str(&body).ok()?);
        (spans.len() == 3).then_some(spans)
    })
    .await;
    let both = BTreeSet::from(["ratings-v1".to_owned(), "reviews-v2".to_owned()]);
    assert_eq!(services.into_iter().collect::<BTreeSet<_>>(), both);

    let config = folder.path().join("otelcol.yaml");
    fs::write(&config, DOWNSTREAM).expect("a writable folder");
    let arrived = cluster.spawn(Command::new(otelcol).arg("--config").arg(&config), "otelcol");
    wait_until("the three spans downstream", SPANS_BOUND, || async {
        let printed = fs::read_to_string(&arrived).ok()?;
        let of_trace = |line: &&str| line.contains("Trace ID") && line.contains(&trace_id);
        let complete = both.iter().all(|service| printed.contains(&format!("service.name: Str({service})")));
        (complete && printed.lines().filter(of_trace).count() >= 3).then_some(())
    })
    .await;
}

/// Starts Spanreel as the pod of `deploy/install.yaml` would run, and returns the port of its query API.
///
/// The addresses that differ: how the API server reaches the webhook, and free ports instead of 3200 and 9443.
async fn start_spanreel(cluster: &mut KubeCluster, folder: &Path) -> u16 {
    let kubeconfig = cluster.service_account("spanreel", "spanreel").await;
    let [query, webhook] = free_ports();

    let mut command = with_hosts(&[("tempo.tempo", "::1")], &folder.join("hosts"));
    command.arg(env!("CARGO_BIN_EXE_spanreel"));
    command.arg("run").arg("--data").arg(folder.join("data")).arg("--kubeconfig").arg(kubeconfig);
    for setting in [
        format!("extensions.spanreel.query_endpoint=127.0.0.1:{query}"),
        format!("extensions.spanreel.webhook.endpoint=127.0.0.1:{webhook}"),
        format!("extensions.spanreel.webhook.url=https://127.0.0.1:{webhook}"),
        "extensions.spanreel.webhook.namespace=spanreel".to_owned(),
        format!("extensions.spanreel.webhook.pod_address={SPANREEL_POD_IP}"),
    ] {
        command.args(["--set", &setting]);
    }
    command.env("POD_NAMESPACE", "spanreel").env("POD_IP", SPANREEL_POD_IP);
    command.env_remove("KUBERNETES_SERVICE_HOST").env_remove("RUST_LOG");
    cluster.spawn(&mut command, "spanreel");
    wait_until("Spanreel to be ready", SOON, || async {
        http_get(query, "/ready", "").is_ok_and(|(status, _)| status == 200).then_some(())
    })
    .await;
    query
}

/// Applies the walk-through's two files as they stand, as soon as Spanreel has made their kinds known.
async fn apply_custom_resources(cluster: &KubeCluster) {
    let files =
        [include_str!("../data/walkthrough/collector.yaml"), include_str!("../data/walkthrough/instrumentation.yaml")];
    for yaml in files {
        wait_until("the custom resource to be accepted", SOON, || async {
            cluster.try_apply("opentelemetry", yaml).await.ok()
        })
        .await;
    }
    let path = "/apis/opentelemetry.io/v1beta1/namespaces/opentelemetry/opentelemetrycollectors/global-optl";
    wait_until("the collector's condition Ready", SOON, || async {
        let collector = cluster.get(path).await?;
        let conditions = collector["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    })
    .await;
}

async fn assert_services_point_at_spanreel(cluster: &KubeCluster) {
    for name in ["global-optl-collector", "global-optl-collector-headless", "global-optl"] {
        let path = format!("/api/v1/namespaces/opentelemetry/services/{name}");
        let service = wait_until(&path, SOON, || cluster.get(&path)).await;
        assert!(service["spec"]["selector"].is_null(), "{name}: a selector cannot match in another namespace");
        assert_eq!(ports_of(&service["spec"]["ports"]), [("otlp-grpc", 4317), ("otlp-http", 4318)], "{name}");

        let slices = format!(
            "/apis/discovery.k8s.io/v1/namespaces/opentelemetry/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
        );
        let slice = wait_until(&slices, SOON, || async { cluster.list(&slices).await.pop() }).await;
        assert_eq!(slice["endpoints"][0]["addresses"], json!([SPANREEL_POD_IP]), "{name}");
        assert_eq!(ports_of(&slice["ports"]), [("otlp-grpc", 4317), ("otlp-http", 4318)], "{name}");
    }
    let path = "/api/v1/namespaces/opentelemetry/services/global-optl-collector-monitoring";
    let monitoring = wait_until(path, SOON, || cluster.get(path)).await;
    assert_eq!(ports_of(&monitoring["spec"]["ports"]), [("monitoring", 8888)]);
}

fn ports_of(ports: &Value) -> Vec<(&str, u64)> {
    let mut ports: Vec<(&str, u64)> = ports
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| (port["name"].as_str().unwrap_or_default(), port["port"].as_u64().unwrap_or_default()))
        .collect();
    ports.sort_unstable();
    ports
}

/// The API server learns of a new webhook registration with some delay: asks for a pod, without storing it, until it is injected.
async fn wait_for_injection(cluster: &KubeCluster) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "probe", "annotations": {
            "instrumentation.opentelemetry.io/inject-java": "opentelemetry/global-optl-instrumentation",
        }},
        "spec": {"containers": [{"name": "probe", "image": "example.test/probe:1"}]},
    });
    wait_until("the first injected pod", SOON, || async {
        let stored = cluster.create("/api/v1/namespaces/bookinfo/pods?dryRun=All", &pod).await.ok()?;
        (!stored["spec"]["initContainers"].is_null()).then_some(())
    })
    .await;
}

/// The stored pod of a Deployment of bookinfo.
async fn pod_of(cluster: &KubeCluster, deployment: &str) -> Value {
    let (app, version) = deployment.split_once('-').expect("app-version");
    let pods = format!("/api/v1/namespaces/bookinfo/pods?labelSelector=app%3D{app},version%3D{version}");
    wait_until(&pods, SOON, || async { cluster.list(&pods).await.pop() }).await
}

/// The pod is what the operator would have made of it.
fn assert_injected(pod: &Value, deployment: &str) {
    let (app, _) = deployment.split_once('-').expect("app-version");
    let spec = &pod["spec"];
    let agent = "opentelemetry-auto-instrumentation-java";
    let mount_path = format!("/otel-auto-instrumentation-java-{app}");

    let init = &spec["initContainers"][0];
    assert_eq!(init["name"], agent, "{deployment}");
    let image = "ghcr.io/open-telemetry/opentelemetry-operator/autoinstrumentation-java:2.30.0";
    assert_eq!(init["image"], image, "{deployment}");
    let copy = json!(["cp", "/javaagent.jar", "/otel-auto-instrumentation-java/javaagent.jar"]);
    assert_eq!(init["command"], copy, "{deployment}");
    let mounts = json!([{"name": agent, "mountPath": "/otel-auto-instrumentation-java"}]);
    assert_eq!(init["volumeMounts"], mounts, "{deployment}");
    assert_eq!(spec["volumes"], json!([{"name": agent, "emptyDir": {"sizeLimit": "200Mi"}}]), "{deployment}");

    let container = &spec["containers"][0];
    assert_eq!(container["volumeMounts"], json!([{"name": agent, "mountPath": mount_path}]), "{deployment}");

    let replica_set = pod["metadata"]["ownerReferences"][0]["name"].as_str().expect("an owner");
    let resource_attributes = format!(
        "k8s.container.name={app},k8s.deployment.name={deployment},k8s.namespace.name=bookinfo,\
         k8s.node.name=$(OTEL_RESOURCE_ATTRIBUTES_NODE_NAME),k8s.pod.name=$(OTEL_RESOURCE_ATTRIBUTES_POD_NAME),\
         k8s.replicaset.name={replica_set},service.instance.id=bookinfo.$(OTEL_RESOURCE_ATTRIBUTES_POD_NAME).{app},\
         service.namespace=bookinfo,service.version=1.20.3"
    );
    let agent_option = format!(" -javaagent:{mount_path}/javaagent.jar");
    let mut expected = vec![field("OTEL_NODE_IP", "status.hostIP"), field("OTEL_POD_IP", "status.podIP")];
    if app == "reviews" {
        expected.push(value("LOG_DIR", "/tmp/logs"));
    }
    expected.extend([
        value("JAVA_TOOL_OPTIONS", &agent_option),
        value("OTEL_SERVICE_NAME", deployment),
        value("OTEL_EXPORTER_OTLP_ENDPOINT", "http://global-optl.opentelemetry:4317"),
        field("OTEL_RESOURCE_ATTRIBUTES_POD_NAME", "metadata.name"),
        field("OTEL_RESOURCE_ATTRIBUTES_NODE_NAME", "spec.nodeName"),
        value("OTEL_PROPAGATORS", "tracecontext,baggage,b3"),
        value("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        value("OTEL_TRACES_SAMPLER_ARG", "1"),
        value("OTEL_RESOURCE_ATTRIBUTES", &resource_attributes),
    ]);
    assert_eq!(container["env"], Value::from(expected), "{deployment}");
}

fn value(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}})
}

/// The service name of every span in an answer of `/api/v2/traces/{id}`.
fn services_of_spans(answer: &Value) -> Vec<String> {
    let mut services = Vec::new();
    for resource in answer["trace"]["resourceSpans"].as_array().into_iter().flatten() {
        let mut attributes = resource["resource"]["attributes"].as_array().into_iter().flatten();
        let name = attributes.find(|attribute| attribute["key"] == "service.name");
        let name = name.and_then(|name| name["value"]["stringValue"].as_str()).unwrap_or_default();
        let scopes = resource["scopeSpans"].as_array().into_iter().flatten();
        let spans: usize = scopes.map(|scope| scope["spans"].as_array().map_or(0, Vec::len)).sum();
        services.extend(std::iter::repeat_n(name.to_owned(), spans));
    }
    services
}

/// GET by HTTP/1.0, whose answers are never chunked: status and body.
fn http_get(port: u16, path: &str, headers: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n{headers}\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((status, body.to_owned()))
}

/// Holds the machine-wide lock on the standard ports, the one that `appliance/start.rs` takes too.
struct FixedPorts {
    _lock: File,
}

impl FixedPorts {
    async fn take() -> Self {
        let path = std::env::temp_dir().join("spanreel-standard-ports.lock");
        let lock = File::options().create(true).append(true).open(&path).expect("a lock file");
        wait_until("the lock of ports 4317, 4318 and 8888", PORTS_BOUND, || async { lock.try_lock().ok() }).await;
        for address in ["0.0.0.0:4317", "0.0.0.0:4318", "0.0.0.0:8888", "[::1]:4317"] {
            if let Err(error) = TcpListener::bind(address) {
                panic!("{address} must be free, because the walk-through's files mean that port: {error}");
            }
        }
        Self { _lock: lock }
    }
}
