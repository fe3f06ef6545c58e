//! `spanreel doctor` as a person asks it: the whole program beside a real API server and its controllers, with the rights of
//! `deploy/install.yaml`; the test is kubelet and agent.

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use serde_json::{Value, json};

use crate::installed::{INJECT, Installed, SOON};
use crate::kube_rig::{POD_CONTROLLERS, free_ports, wait_until};
use crate::support::compression::Compression;
use crate::support::otlp::{Client, Protocol};
use crate::support::spanreel::{Options, Spanreel, binary};
use crate::support::traces::{Traces, attribute};

/// The setting.
const SILENT_AFTER: Duration = Duration::from_secs(5);
const INSTRUMENTATIONS: &str = "/apis/opentelemetry.io/v1alpha1/namespaces/shop/instrumentations";

/// What the program printed.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

fn doctor_at(port: u16, arguments: &[&str]) -> Said {
    let mut command = binary();
    command.args(["doctor", "--endpoint", &format!("http://127.0.0.1:{port}")]).args(arguments);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

struct Scene(Installed);

impl Scene {
    async fn set() -> Self {
        let silent_after = format!("injection: {{silent_after: {}s}}", SILENT_AFTER.as_secs());
        Self(Installed::prepare(POD_CONTROLLERS, &[&silent_after]).await)
    }

    fn doctor(&self, arguments: &[&str]) -> Said {
        doctor_at(self.0.spanreel.ports.query, arguments)
    }

    fn report(&self, scope: &[&str]) -> Value {
        let said = self.doctor(&[scope, &["-o", "json"]].concat());
        assert_eq!((said.code, said.stderr.as_str()), (0, ""));
        serde_json::from_str(&said.stdout).unwrap()
    }

    /// Waits until a workload of `shop` stands like this, and returns its entry in the namespace's report.
    async fn stands(&self, name: &str, condition: &str) -> Value {
        let mut last = Value::Null;
        let started = std::time::Instant::now();
        loop {
            let report = self.report(&["shop"]);
            let found =
                report["workloads"].as_array().unwrap().iter().find(|workload| workload["name"] == name).cloned();
            match found {
                Some(workload) if workload["condition"] == condition => return workload,
                found => last = found.unwrap_or(last),
            }
            assert!(started.elapsed() < SOON, "{name} is not {condition}: {last:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A Deployment of one pod, with annotations on its template and on itself.
    async fn deploy(&self, name: &str, annotations: Value, own: Value) {
        let labels = json!({"app": name});
        let containers = json!([{"name": "app", "image": "app"}, {"name": "proxy", "image": "proxy"}]);
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "annotations": own},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": {"containers": containers}},
            },
        });
        self.0.kube.create("/apis/apps/v1/namespaces/shop/deployments", &deployment).await.unwrap();
    }

    /// The pod that the controllers made: name and uid.
    async fn pod_of(&self, name: &str) -> (String, String) {
        let path = format!("/api/v1/namespaces/shop/pods?labelSelector=app%3D{name}");
        wait_until(&format!("a pod of {name}"), SOON, async || {
            let pods = self.0.kube.list(&path).await;
            let meta = &pods.first()?["metadata"];
            Some((meta["name"].as_str()?.to_owned(), meta["uid"].as_str()?.to_owned()))
        })
        .await
    }

    /// What a kubelet writes once the containers run.
    async fn run(&self, pod: &str, address: &str) {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let status = |name: &str| {
            json!({
                "name": name, "ready": true, "started": true, "restartCount": 0, "image": "app", "imageID": "app",
                "state": {"running": {"startedAt": now}},
            })
        };
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "containerStatuses": [status("app"), status("proxy")],
        }});
        self.0.patch(&format!("/api/v1/namespaces/shop/pods/{pod}/status"), &status).await;
    }

    async fn send_span_of(&self, uid: &str) {
        let mut request = Traces { seed: 8, spans_per_trace: 1 }.request("shop", 0..1);
        let resource = request.resource_spans[0].resource.as_mut().unwrap();
        resource.attributes.push(attribute("k8s.pod.uid", Attribute::StringValue(uid.to_owned())));
        let mut client = Client::connect(self.0.spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
        let answer = client.export(&request, Compression::ALL[0]).await.unwrap();
        assert!(answer.is_ok(), "{answer:?}");
    }
}

fn asking(language: &str, value: &str) -> Value {
    json!({format!("{INJECT}{language}"): value})
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_whose_pod_has_no_traces_is_told_why() {
    let mut scene = Scene::set().await;
    // Before anybody is there to inject it.
    scene.deploy("missed", asking("sdk", "true"), json!({})).await;
    scene.pod_of("missed").await;
    scene.0.start().await;
    let main = json!({
        "apiVersion": "opentelemetry.io/v1alpha1", "kind": "Instrumentation", "metadata": {"name": "main"},
        "spec": {"exporter": {"endpoint": "http://spanreel.spanreel:4318"}},
    });
    scene.0.kube.create(INSTRUMENTATIONS, &main).await.unwrap();

    scene.deploy("web", asking("java", "main"), json!({})).await;
    scene.deploy("quiet", asking("nodejs", "main"), json!({})).await;
    let two = json!({format!("{INJECT}java"): "true", format!("{INJECT}python"): "true"});
    scene.deploy("two", two, json!({})).await;
    scene.deploy("lost", asking("java", "nowhere/main"), json!({})).await;
    let mut listed = asking("java", "true");
    listed["instrumentation.opentelemetry.io/container-names"] = "nope".into();
    scene.deploy("listed", listed, json!({})).await;
    scene.deploy("misplaced", json!({}), asking("java", "true")).await;
    scene.deploy("plain", json!({}), json!({})).await;
    scene.deploy("typo", asking("node", "true"), json!({})).await;
    let bare = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "annotations": asking("python", "shop/main")},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    scene.0.kube.create("/api/v1/namespaces/shop/pods", &bare).await.unwrap();
    let mut switched = bare.clone();
    switched["metadata"]["name"] = "switched".into();
    switched["spec"]["containers"][0]["env"] = json!([{"name": "OTEL_SDK_DISABLED", "value": "true"}]);
    scene.0.kube.create("/api/v1/namespaces/shop/pods", &switched).await.unwrap();
    let mut system = bare.clone();
    system["metadata"]["name"] = "system".into();
    scene.0.kube.create("/api/v1/namespaces/kube-system/pods", &system).await.unwrap();

    let (web, web_uid) = scene.pod_of("web").await;
    let (quiet, _) = scene.pod_of("quiet").await;
    scene.stands("web", "injected").await;
    scene.run(&web, "10.9.8.7").await;
    scene.run(&quiet, "10.9.8.8").await;
    scene.run("switched", "10.9.8.9").await;
    // Whoever looks late must find it speaking, too.
    let speaking = wait_until("web to speak", SOON, async || {
        scene.send_span_of(&web_uid).await;
        let report = scene.report(&["shop"]);
        let web = report["workloads"].as_array()?.iter().find(|workload| workload["name"] == "web").cloned();
        web.filter(|web| web["condition"] == "speaking")
    })
    .await;
    let container = &speaking["examples"][0]["containers"][0];
    assert_eq!((container["container"].as_str(), container["language"].as_str()), (Some("app"), Some("java")));
    assert!(container["life"]["last_span"].is_string() && container["remedy"].is_null(), "{container:#}");
    assert!(container["instrumentation"]["created"].is_string(), "{container:#}");
    let image = "ghcr.io/open-telemetry/opentelemetry-operator/autoinstrumentation-java:2.30.0";
    assert_eq!(container["agent_image"], image);
    assert_eq!(speaking["decisions"][0]["agent_image"], image);
    assert_eq!(
        speaking["asked"][0],
        json!({"language": "java", "annotation": format!("{INJECT}java"),
        "value": "main", "where": "pod"})
    );

    let missed = scene.stands("missed", "missed").await;
    assert_eq!(missed["remedy"], "kubectl -n shop rollout restart deployment/missed");
    let silent = scene.stands("quiet", "silent").await;
    assert!(silent["why"].as_str().unwrap().contains("no connection came from 10.9.8.8"), "{silent:#}");
    assert_eq!(silent["remedy"], format!("kubectl -n shop logs {quiet} -c app"));
    let switched = scene.stands("switched", "silent").await;
    assert!(switched["why"].as_str().unwrap().contains("OTEL_SDK_DISABLED=true switches"), "{switched:#}");
    assert!(switched["remedy"].as_str().unwrap().contains("remove variable OTEL_SDK_DISABLED"), "{switched:#}");
    let two = scene.stands("two", "refused").await;
    assert_eq!(two["decisions"][0]["reason"], "container_names_needed");
    let remedy = two["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("instrumentation.opentelemetry.io/java-container-names: \"app\"  # annotation of the pod template of deployment/two"), "{remedy}");
    let lost = scene.stands("lost", "refused").await;
    assert_eq!(lost["decisions"][0]["reason"], "instrumentation_missing");
    assert!(lost["remedy"].as_str().unwrap().starts_with(&format!("{INJECT}java: \"main\"  # ")), "{lost:#}");
    let listed = scene.stands("listed", "refused").await;
    assert_eq!(listed["decisions"][0]["reason"], "container_not_found");
    assert!(listed["remedy"].as_str().unwrap().contains("it has: app, proxy"), "{listed:#}");
    let misplaced = scene.stands("misplaced", "misplaced").await;
    assert!(misplaced["why"].as_str().unwrap().contains("of the Deployment itself"), "{misplaced:#}");
    scene.stands("plain", "not_asked").await;
    let typo = scene.stands("typo", "misspelt").await;
    assert!(typo["why"].as_str().unwrap().contains("did you mean inject-nodejs?"), "{typo:#}");
    scene.stands("bare", "injected").await;

    // What the whole cluster is told leaves out who asks for nothing.
    let everything = scene.report(&[]);
    assert_eq!(everything["webhook_registered"], true);
    let name =
        |name: &str| everything["workloads"].as_array().unwrap().iter().find(|found| found["name"] == name).cloned();
    assert!(name("plain").is_none() && name("web").is_some() && name("typo").is_some(), "{everything:#}");
    assert_eq!(name("system").unwrap()["condition"], "excluded");
    assert!(everything["left_out"]["not_asking"].as_u64().unwrap() >= 1, "{everything:#}");

    // Nothing to do is no trouble, but is told.
    let quiet = scene.stands("web", "quiet").await;
    assert!(quiet["why"].as_str().unwrap().starts_with("it has sent spans before"), "{quiet:#}");

    // A change of the Instrumentation reaches nobody who is there already.
    scene.0.patch(&format!("{INSTRUMENTATIONS}/main"), &json!({"spec": {"propagators": ["b3"]}})).await;
    let stale = scene.stands("web", "stale").await;
    assert_eq!(stale["remedy"], "kubectl -n shop rollout restart deployment/web");
    let used = &stale["examples"][0]["containers"][0]["instrumentation"];
    assert!(used["injected_generation"].as_i64() < used["generation"].as_i64(), "{used:#}");
    scene.stands("bare", "stale").await;

    // Texts, by workload and by pod.
    for scope in ["shop/web", "shop/deployment/web", &format!("shop/{web}")] {
        let said = scene.doctor(&[scope]);
        assert!(said.stdout.starts_with("deployment/web in shop: stale\n"), "{scope}: {}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains("kubectl -n shop rollout restart deployment/web"), "{}", said.stdout);
        assert!(!said.stdout.contains('\x1b'), "nobody looks");
    }
    for scope in [&[][..], &["shop"], &["shop/quiet"], &["shop/two"], &["shop/bare"], &["shop/missed"]] {
        let said = scene.doctor(scope);
        assert_eq!(said.code, 0, "{}", said.stderr);
        println!("--- spanreel doctor {}\n{}", scope.join(" "), said.stdout);
    }

    // What is not there.
    for (scope, expected) in [
        ("shpo", "spanreel: there is no namespace shpo; did you mean shop?\n"),
        ("shop/wbe", "spanreel: no pod and no workload of namespace shop is called wbe; did you mean web?\n"),
        ("shop/pod/web", "spanreel: no pod and no workload of namespace shop is called web; did you mean web?\n"),
        ("shop/../secrets", "spanreel: \"../secrets\" is no name that Kubernetes has\n"),
    ] {
        let said = scene.doctor(&[scope]);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""));
        assert_eq!(said.stderr, expected);
    }

    // Without the right to read workloads their pods still tell something, and it is said.
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/spanreel";
    let mut rules = scene.0.kube.get(role).await.unwrap()["rules"].clone();
    rules.as_array_mut().unwrap().retain(|rule| rule["apiGroups"] != json!(["apps"]));
    scene.0.patch(role, &json!({"rules": rules})).await;
    let report = wait_until("the right to be gone", SOON, async || {
        let report = scene.report(&[&format!("shop/{web}")]);
        report["notes"].to_string().contains("decisions are taken from pods").then_some(report)
    })
    .await;
    let workload = &report["workloads"][0];
    assert_eq!(
        (workload["kind"].as_str(), workload["condition"].as_str()),
        (Some("Deployment"), Some("stale")),
        "{report:#}"
    );

    scene.0.kube.stop_api_server();
    let said = scene.doctor(&["shop"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.starts_with("spanreel: the API server cannot be asked: "), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_a_cluster_there_is_nothing_to_examine() {
    let spanreel = Spanreel::start(&Options::default()).await;
    for arguments in [&[][..], &["shop"], &["-o", "json"]] {
        let said = doctor_at(spanreel.ports.query, arguments);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""));
        assert!(said.stderr.starts_with("spanreel: this spanreel serves no cluster"), "{}", said.stderr);
    }
    let [nobody] = free_ports();
    let said = doctor_at(nobody, &[]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("is it running there?"), "{}", said.stderr);
}
