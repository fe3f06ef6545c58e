//! OpenTelemetryCollector resources on a real API server become pipelines of a real appliance, with the rights of
//! `deploy/install.yaml`: several at once, in each other's way, unmanaged for a while, deleted with spans that wait.

use crate::destination::Destination;
use crate::kube_rig::{KubeCluster, wait_until};
use crate::support::compression::Compression;
use crate::support::ledger::Ledger;
use crate::support::metrics::Metrics;
use crate::support::otlp::{Client, Protocol};
use crate::support::ports;
use crate::support::traces::request_of;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use spanreel::appliance::{Appliance, ClusterAccess, Options};
use spanreel::config::{self, Files, Input, Source};
use std::path::Path;
use std::time::Duration;

/// For everything that takes a watch or a retry; generous, because other tests compile and run meanwhile.
const SOON: Duration = Duration::from_secs(60);
const COLLECTORS: &str = "/apis/opentelemetry.io/v1beta1/namespaces/telemetry/opentelemetrycollectors";

struct Rig {
    kube: KubeCluster,
    data: tempfile::TempDir,
    kubeconfig: std::path::PathBuf,
    query: u16,
    webhook: u16,
}

impl Rig {
    async fn start() -> Self {
        let kube = KubeCluster::start().await;
        let manifests = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/install.yaml")).unwrap();
        kube.apply("spanreel", &manifests).await;
        let kubeconfig = kube.service_account("spanreel", "spanreel").await;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "telemetry"}});
        kube.create("/api/v1/namespaces", &namespace).await.unwrap();
        let data = tempfile::tempdir().unwrap();
        Self { kube, data, kubeconfig, query: ports::free(), webhook: ports::free() }
    }

    async fn appliance(&self) -> Appliance {
        let Self { query, webhook, .. } = self;
        let text = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:0'}}}}}}}}\n\
             extensions:\n  spanreel:\n    query_endpoint: '127.0.0.1:{query}'\n    webhook: {{endpoint: '127.0.0.1:{webhook}', \
             url: 'https://127.0.0.1:{webhook}', namespace: spanreel, pod_address: 192.0.2.7}}\n\
             service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{traces: {{receivers: [otlp]}}}}}}\n"
        );
        let sources = [Source::Text { name: "base".to_owned(), text }];
        let input = Input { sources: &sources, sets: &[], env: &|_| None, files: Files::Refused };
        let loaded = config::load(&input).map_err(|errors| errors.lines()).unwrap();
        let options = Options {
            config: loaded.config,
            built_in: true,
            data_directory: Some(self.data.path().to_owned()),
            cluster: Some(ClusterAccess::Kubeconfig(Path::new(&self.kubeconfig).to_owned())),
            text_banner: false,
        };
        Appliance::start(options).await.unwrap()
    }

    /// Applied as soon as the kind is known.
    async fn apply(&self, collector: &Value) {
        let (name, spec) = (collector["metadata"]["name"].as_str().unwrap(), &collector["spec"]);
        let text = format!(
            "apiVersion: opentelemetry.io/v1beta1\nkind: OpenTelemetryCollector\nmetadata:\n  name: {name}\nspec: {spec}\n"
        );
        wait_until("the collector to be accepted", SOON, async || self.kube.try_apply("telemetry", &text).await.ok())
            .await;
    }

    /// The message of the Ready condition, once it has this status and the resource's current generation.
    async fn ready(&self, name: &str, status: &str) -> String {
        wait_until(&format!("{name} Ready={status}"), SOON, async || {
            let object = self.kube.get(&format!("{COLLECTORS}/{name}")).await?;
            let conditions = object["status"]["conditions"].as_array()?;
            let condition = conditions.iter().find(|condition| condition["type"] == "Ready")?;
            let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            let text = format!("{}: {}", condition["reason"].as_str()?, condition["message"].as_str()?);
            (current && condition["status"] == status).then_some(text)
        })
        .await
    }

    async fn open(&self, port: u16, open: bool) {
        wait_until(&format!("port {port} open={open}"), SOON, async || {
            (Client::connect(port, Protocol::HttpProtobuf).await.is_ok() == open).then_some(())
        })
        .await;
    }

    async fn ledger(&self) -> Ledger {
        Ledger::of(&Metrics::scrape(self.query).await.unwrap())
    }
}

fn collector(name: &str, port: u16, destination: u16) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"managementState": "managed", "config": {
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}}}},
            "exporters": {"otlp": {
                "endpoint": format!("127.0.0.1:{destination}"), "tls": {"insecure": true},
                "retry_on_failure": {"initial_interval": "100ms", "max_interval": "1s"},
            }},
            "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp"]}}},
        }},
    })
}

async fn send(port: u16, name: &str) {
    let span = Span {
        trace_id: [7; 16].to_vec(),
        span_id: [7; 8].to_vec(),
        name: name.to_owned(),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_000_000_001,
        ..Span::default()
    };
    let mut client = Client::connect(port, Protocol::HttpProtobuf).await.unwrap();
    let answer = client.export(&request_of("shop", vec![span]), Compression::Identity).await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_resources_share_one_process_and_none_is_in_doubt() {
    let rig = Rig::start().await;
    let [shared, own, tempo] = [ports::free(), ports::free(), ports::free()];
    let appliance = rig.appliance().await;

    // Two want one port; the older one has it, although its name comes last.
    rig.apply(&collector("z-first", shared, tempo)).await;
    rig.ready("z-first", "True").await;
    // Creation times are whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    rig.apply(&collector("a-second", shared, tempo)).await;
    rig.apply(&collector("m-third", own, tempo)).await;
    rig.ready("m-third", "True").await;
    let refusal = rig.ready("a-second", "False").await;
    let names = ["ConfigurationRefused", "telemetry/z-first", "older", &format!("127.0.0.1:{shared}")];
    assert!(names.iter().all(|name| refusal.contains(name)), "{refusal}");

    // After a restart too, whatever the order of the list.
    appliance.stop().await;
    let appliance = rig.appliance().await;
    rig.open(shared, true).await;
    rig.open(own, true).await;
    send(shared, "to the first").await;
    assert_eq!(rig.ledger().await.pipeline("telemetry/z-first/traces").stored, 1);
    assert_eq!(rig.ledger().await.pipeline("telemetry/a-second/traces").stored, 0);
    assert!(rig.ready("a-second", "False").await.contains("telemetry/z-first"));

    // It goes, the other one comes, what it left is still sent.
    rig.kube.delete(&format!("{COLLECTORS}/z-first")).await;
    rig.ready("a-second", "True").await;
    send(shared, "to the second").await;
    assert_eq!(rig.ledger().await.pipeline("telemetry/a-second/traces").stored, 1);

    // Unmanaged, and back.
    let mut unmanaged = collector("m-third", own, tempo);
    unmanaged["spec"]["managementState"] = json!("unmanaged");
    rig.apply(&unmanaged).await;
    rig.open(own, false).await;
    rig.apply(&collector("m-third", own, tempo)).await;
    rig.open(own, true).await;
    rig.ready("m-third", "True").await;

    // What cannot run says where: lines are those of spec.config as the API server prints it.
    let mut odd = collector("odd", ports::free(), tempo);
    odd["spec"]["config"]["exporters"] = json!({"otlp": {"endpoint": "x:1", "no_such_key": 1}});
    odd["spec"]["env"] = json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
    rig.apply(&odd).await;
    let refusal = rig.ready("odd", "False").await;
    assert!(refusal.contains("telemetry/odd:4:5: exporters::otlp::no_such_key"), "{refusal}");
    odd["spec"]["config"]["exporters"] = json!({"otlp": {"endpoint": "127.0.0.1:1", "tls": {"insecure": true}}});
    rig.apply(&odd).await;
    let message = rig.ready("odd", "True").await;
    assert!(
        message.starts_with("Running") && message.contains("spec.env TOKEN: valueFrom is not supported"),
        "{message}"
    );
    odd["spec"]["mode"] = json!("sidecar");
    rig.kube.delete(&format!("{COLLECTORS}/odd")).await;
    odd["metadata"]["name"] = json!("side");
    rig.apply(&odd).await;
    let message = rig.ready("side", "False").await;
    assert!(
        message.contains("SidecarNotSupported") && message.contains("http://side-collector.telemetry"),
        "{message}"
    );

    // Nothing of it is left: neither is its account.
    wait_until("the account of odd to go", SOON, async || {
        (!rig.ledger().await.pipelines.contains_key("telemetry/odd/traces")).then_some(())
    })
    .await;

    // Deleted while the process is away: what waits is sent once it is known that nobody will come for it.
    send(shared, "left behind").await;
    appliance.stop().await;
    rig.kube.delete(&format!("{COLLECTORS}/a-second")).await;
    let address = Some(std::net::SocketAddr::from(([127, 0, 0, 1], tempo)));
    let options = crate::destination::Options { address, ..crate::destination::Options::default() };
    let destination = Destination::start(options, |_| crate::destination::Answer::Ok).await;
    let appliance = rig.appliance().await;
    wait_until("all spans at the destination", SOON, async || (destination.taken().len() == 3).then_some(())).await;
    assert_eq!(destination.taken(), ["left behind", "to the first", "to the second"]);
    wait_until("the account to say so", SOON, async || {
        (rig.ledger().await.destinations.values().all(|delivery| delivery.queued == 0)).then_some(())
    })
    .await;
    rig.ledger().await.assert_balanced();
    rig.open(shared, false).await;
    appliance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_is_made_anew_gets_its_services_back() {
    const SERVICES: &str = "/api/v1/namespaces/telemetry/services";
    let rig = Rig::start().await;
    let appliance = rig.appliance().await;
    let again = collector("again", ports::free(), 1);
    rig.apply(&again).await;
    rig.ready("again", "True").await;
    rig.kube.delete(&format!("{COLLECTORS}/again")).await;
    rig.apply(&again).await;
    let message = rig.ready("again", "True").await;
    assert!(message.contains("Service again-collector is still that of a deleted resource"), "{message}");

    // What the garbage collector does; here none runs.
    for service in ["again-collector", "again-collector-headless", "again-collector-monitoring", "again"] {
        rig.kube.delete(&format!("{SERVICES}/{service}")).await;
    }
    let uid = rig.kube.get(&format!("{COLLECTORS}/again")).await.unwrap()["metadata"]["uid"].clone();
    wait_until("the new Services", SOON, async || {
        let service = rig.kube.get(&format!("{SERVICES}/again-collector")).await?;
        (service["metadata"]["ownerReferences"][0]["uid"] == uid).then_some(())
    })
    .await;
    wait_until("the status to say no more of it", SOON, async || {
        let message = rig.ready("again", "True").await;
        (!message.contains("deleted resource")).then_some(())
    })
    .await;
    appliance.stop().await;
}
