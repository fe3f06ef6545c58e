//! What the API server is told to ask, and what it is answered: a real one, whose rights are those of `deploy/install.yaml`.
use serde_json::{Value, json};

use crate::kube_rig::{KubeCluster, free_ports, wait_until};
use crate::room::{MUTATING, Room, SOON, VALIDATING, asks, injecting, install, is_injected, post, secret, try_pod};

const INSTRUMENTATIONS: &str = "/apis/opentelemetry.io/v1alpha1/namespaces/default/instrumentations";
const OLD_COLLECTORS: &str = "/apis/opentelemetry.io/v1alpha1/namespaces/default/opentelemetrycollectors";
const COLLECTORS: &str = "/apis/opentelemetry.io/v1beta1/namespaces/default/opentelemetrycollectors";
const NAMESPACES: &str = "/api/v1/namespaces";

fn webhook_names(configuration: &Value) -> Vec<&str> {
    let webhooks = configuration["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    webhooks.iter().map(|webhook| webhook["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_ask_for_nothing_never_reach_the_webhook() {
    let kube = KubeCluster::start().await;
    let kubeconfig = install(&kube).await;
    let [port] = free_ports();
    let room = Room::start(&kubeconfig, port).await;
    room.registered(&kube).await;

    let mutating = kube.get(MUTATING).await.unwrap();
    for webhook in mutating["webhooks"].as_array().unwrap() {
        assert_eq!((&webhook["failurePolicy"], &webhook["timeoutSeconds"]), (&json!("Ignore"), &json!(3)));
    }
    assert_eq!(mutating["webhooks"][0]["reinvocationPolicy"], "IfNeeded");

    // The pod's own annotations.
    let asked = async |namespace: &str, annotations: Value| {
        let before = room.reviews();
        let stored = try_pod(&kube, namespace, &annotations).await;
        (room.reviews() - before, is_injected(&stored))
    };
    for nothing in
        [Value::Null, json!({}), json!({"a": "b", "instrumentation.opentelemetry.io/container-names": "app"})]
    {
        assert_eq!(asked("default", nothing).await, (0, false));
    }
    assert_eq!(asked("default", asks()).await, (1, true));
    let refused = json!({"instrumentation.opentelemetry.io/inject-sdk": "false"});
    assert_eq!(asked("default", refused.clone()).await, (1, false));
    assert_eq!(asked("default", json!({"sidecar.opentelemetry.io/inject": "true"})).await, (1, false));
    for excluded in ["kube-system", "spanreel"] {
        let before = room.reviews();
        let path = format!("/api/v1/namespaces/{excluded}/pods?dryRun=All");
        // Pod Security may refuse it in our own; nobody asks us either way.
        let _ = kube.create(&path, &crate::room::pod("probe", &asks())).await;
        assert_eq!(room.reviews(), before, "{excluded}");
    }

    // The namespace's, which come and go.
    let namespace = |annotations: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "annotations": annotations}});
    kube.create(NAMESPACES, &namespace(json!({}))).await.unwrap();
    assert_eq!(asked("shop", json!({})).await, (0, false));
    let annotate = async |value: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  annotations: {{instrumentation.opentelemetry.io/inject-sdk: {value:?}}}\n"
        );
        kube.apply("", &text).await;
    };
    annotate("true").await;
    wait_until("pods of a namespace that asks to be injected", SOON, async || {
        is_injected(&try_pod(&kube, "shop", &json!({})).await).then_some(())
    })
    .await;
    assert_eq!(asked("shop", asks()).await, (1, true), "asked about once, not twice");
    assert_eq!(asked("shop", refused).await, (1, false));
    assert_eq!(asked("default", json!({})).await.0, 0);
    annotate("false").await;
    wait_until("pods of a namespace that asks no more to pass by", SOON, async || {
        (asked("shop", json!({})).await == (0, false)).then_some(())
    })
    .await;
    assert_eq!(asked("shop", asks()).await, (1, true));

    // What somebody deletes or changes comes back.
    for path in [MUTATING, VALIDATING] {
        kube.delete(path).await;
        wait_until(&format!("{path} to come back"), SOON, async || kube.get(path).await).await;
    }
    injecting(&kube).await;
    let foreign = "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\nmetadata:\n  name: spanreel\n\
                   webhooks: [{name: pods.webhook.spanreel.dev, clientConfig: {url: 'https://127.0.0.1:1/x'}, sideEffects: None, admissionReviewVersions: [v1]}]\n";
    kube.apply("", foreign).await;
    injecting(&kube).await;
    room.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_are_completed_checked_and_converted() {
    let kube = KubeCluster::start().await;
    let kubeconfig = install(&kube).await;
    let [port] = free_ports();
    let room = Room::start(&kubeconfig, port).await;
    room.registered(&kube).await;

    instrumentations(&kube).await;
    collectors(&kube).await;
    wire(&kube, port).await;

    // Beside the operator its resources are left to it.
    let operators = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "another-operator"},
        "webhooks": [{
            "name": "mpod.kb.io", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
            "clientConfig": {"service": {"namespace": "default", "name": "operator", "path": "/mutate-v1-pod"}},
        }],
    });
    let configurations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    kube.create(configurations, &operators).await.unwrap();
    wait_until("the operator to be left its resources", SOON, async || {
        let (mutating, validating) = (kube.get(MUTATING).await?, kube.get(VALIDATING).await?);
        (webhook_names(&mutating) == ["pods.webhook.spanreel.dev"] && webhook_names(&validating).is_empty())
            .then_some(())
    })
    .await;
    kube.delete(&format!("{configurations}/another-operator")).await;
    wait_until("custom resources to be checked again", SOON, async || {
        (webhook_names(&kube.get(VALIDATING).await?).len() == 2).then_some(())
    })
    .await;

    // Without us custom resources can be applied all the same, and what was stored is still read.
    room.stop().await;
    let bad = json!({
        "apiVersion": "opentelemetry.io/v1alpha1", "kind": "Instrumentation", "metadata": {"name": "unchecked"},
        "spec": {"sampler": {"type": "traceidratio", "argument": "7"}},
    });
    kube.create(INSTRUMENTATIONS, &bad).await.unwrap();
    assert!(kube.list(COLLECTORS).await.len() >= 2);
}

/// Clients of the old version list without pages: the API server asks about all at once, here some 14 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_hundreds_of_collectors_is_converted_at_once() {
    const COLLECTORS_LISTED: usize = 500;
    let kube = KubeCluster::start().await;
    let kubeconfig = install(&kube).await;
    let [port] = free_ports();
    let room = Room::start(&kubeconfig, port).await;
    room.registered(&kube).await;
    wait_until("v1alpha1 collectors to be served", SOON, async || kube.get(OLD_COLLECTORS).await).await;
    let padding = "x".repeat(24 * 1024);
    let collector = |number: usize| {
        json!({
            "apiVersion": "opentelemetry.io/v1beta1", "kind": "OpenTelemetryCollector",
            "metadata": {"name": format!("c{number}")},
            "spec": {"managementState": "unmanaged", "config": {
                "receivers": {"otlp": {"protocols": {"grpc": {}}}},
                "exporters": {"debug": {}},
                "processors": {"padding": padding},
                "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}}},
            }},
        })
    };
    for number in 0..COLLECTORS_LISTED {
        kube.create(COLLECTORS, &collector(number)).await.unwrap();
    }
    let listed = kube.list(OLD_COLLECTORS).await;
    assert_eq!(listed.len(), COLLECTORS_LISTED);
    let is_whole = |collector: &Value| {
        let text = collector["spec"]["config"].as_str().unwrap();
        text.contains("processors:") && text.len() > padding.len()
    };
    assert!(listed.iter().all(is_whole));
    room.stop().await;
}

async fn instrumentations(kube: &KubeCluster) {
    let object = |name: &str, spec: Value| {
        json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "Instrumentation", "metadata": {"name": name}, "spec": spec,
        })
    };
    // The API server may not have heard of every registration yet; then it is stored as it is.
    let attempts = std::sync::atomic::AtomicU32::new(0);
    let stored = wait_until("an Instrumentation with defaults", SOON, async || {
        let attempt = attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let own =
            object(&format!("own-{attempt}"), json!({"java": {"image": "mine"}, "sampler": {"type": "always_on"}}));
        let stored = kube.create(INSTRUMENTATIONS, &own).await.unwrap();
        stored["spec"]["python"]["image"].is_string().then_some(stored)
    })
    .await;
    assert_eq!(stored["spec"]["java"]["image"], "mine");
    assert_eq!(stored["spec"]["apacheHttpd"]["configPath"], "/usr/local/apache2/conf");
    let annotation = "instrumentation.opentelemetry.io/default-auto-instrumentation-java-image";
    assert!(stored["metadata"]["annotations"][annotation].as_str().unwrap().contains("autoinstrumentation-java"));

    let ratio = object("ratio", json!({"sampler": {"type": "traceidratio", "argument": "7"}}));
    let refused = wait_until("a bad ratio to be refused", SOON, async || {
        kube.create(&format!("{INSTRUMENTATIONS}?dryRun=All"), &ratio).await.err()
    })
    .await;
    assert!(refused.contains("denied the request") && refused.contains('7'), "{refused}");

    let request = http::Request::post(format!("{INSTRUMENTATIONS}?dryRun=All"))
        .header("content-type", "application/json")
        .body(kube::client::Body::from(object("warned", json!({})).to_string().into_bytes()))
        .unwrap();
    let response = kube.client().send(request).await.unwrap();
    let warnings: Vec<_> = response.headers().get_all("warning").iter().collect();
    assert!(warnings.iter().any(|w| w.to_str().unwrap().contains("spanreel: ")), "{warnings:?}");
}

async fn collectors(kube: &KubeCluster) {
    let old = |name: &str, config: &str| {
        json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "OpenTelemetryCollector", "metadata": {"name": name},
            "spec": {"config": config},
        })
    };
    let text = "receivers:\n  otlp:\n    protocols: {grpc: }\nexporters: {debug: }\nservice:\n  pipelines:\n    traces: {receivers: [otlp], exporters: [debug]}\n";
    wait_until("v1alpha1 collectors to be served", SOON, async || {
        kube.create(OLD_COLLECTORS, &old("old", text)).await.ok()
    })
    .await;
    let stored = kube.get(&format!("{COLLECTORS}/old")).await.unwrap();
    assert_eq!(stored["spec"]["config"]["service"]["pipelines"]["traces"]["receivers"], json!(["otlp"]), "{stored:#}");
    assert_eq!(stored["spec"]["mode"], "deployment", "defaults hold for the old version as well");
    let new = json!({
        "apiVersion": "opentelemetry.io/v1beta1", "kind": "OpenTelemetryCollector", "metadata": {"name": "new"},
        "spec": {"config": {"receivers": {"otlp": {}}, "exporters": {"debug": {}}, "service": {"pipelines": {}}}},
    });
    kube.create(COLLECTORS, &new).await.unwrap();
    // Several in one review.
    let listed = kube.list(OLD_COLLECTORS).await;
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|collector| collector["spec"]["config"].is_string()), "{listed:#?}");
    // What is no YAML is stored, and can be read again.
    kube.create(OLD_COLLECTORS, &old("broken", "receivers:\n\totlp: {}\n")).await.unwrap();
    let broken = kube.get(&format!("{OLD_COLLECTORS}/broken")).await.unwrap();
    assert_eq!(broken["spec"]["config"], "receivers:\n\totlp: {}\n");

    let mut moved = kube.get(&format!("{COLLECTORS}/new")).await.unwrap();
    moved["spec"]["mode"] = json!("sidecar");
    let yaml = json!({
        "apiVersion": moved["apiVersion"], "kind": moved["kind"], "metadata": {"name": "new"}, "spec": moved["spec"],
    });
    let text = format!(
        "apiVersion: opentelemetry.io/v1beta1\nkind: OpenTelemetryCollector\nmetadata:\n  name: new\nspec: {}\n",
        yaml["spec"]
    );
    let refused = kube.try_apply("default", &text).await.unwrap_err();
    assert!(refused.contains("mode"), "{refused}");
}

/// Speaks to the webhook directly.
async fn wire(kube: &KubeCluster, port: u16) {
    let ca = secret(kube).await.unwrap()["ca.crt"].clone();
    let send = async |path: &str, body: Vec<u8>| post(port, &ca, path, body).await;
    let resource = |plural: &str, object: Value| {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "namespace": "default", "operation": "CREATE", "object": object,
                "resource": {"group": "opentelemetry.io", "version": "v1", "resource": plural},
            },
        })
    };
    for (plural, version) in [("instrumentation", "v1alpha1"), ("opentelemetrycollector", "v1beta1")] {
        for verb in ["mutate", "validate"] {
            let path = format!("/{verb}-opentelemetry-io-{version}-{plural}");
            for object in [json!({"spec": {}}), Value::Null, json!("x"), json!({"metadata": 7, "spec": [1]})] {
                let (status, answer) =
                    send(&path, resource(&format!("{plural}s"), object).to_string().into_bytes()).await;
                assert_eq!((status, &answer["response"]["uid"]), (200, &json!("u")), "{path}");
                assert!(verb == "validate" || answer["response"]["allowed"] == true);
            }
            let mut unknown = resource(&format!("{plural}s"), json!({}));
            unknown["apiVersion"] = json!("admission.k8s.io/v9");
            for body in [unknown, resource("pods", json!({}))] {
                let (status, answer) = send(&path, body.to_string().into_bytes()).await;
                assert_eq!((status, &answer["response"]["allowed"]), (200, &json!(true)), "{path}");
                assert!(answer["response"]["warnings"][0].is_string(), "{answer}");
            }
            assert_eq!(send(&path, b"{\"garbage".to_vec()).await.0, 400);
            assert_eq!(send(&path, vec![b' '; 7 << 20]).await.0, 413);
        }
    }
    let conversion = |version: &str| {
        let object = json!({"apiVersion": "opentelemetry.io/v1beta1", "kind": "OpenTelemetryCollector", "metadata": {"name": "x"}});
        let request = json!({"uid": "u", "desiredAPIVersion": version, "objects": [object]});
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request})
            .to_string()
            .into_bytes()
    };
    let (_, answer) = send("/convert", conversion("opentelemetry.io/v1alpha1")).await;
    assert_eq!(answer["response"]["result"]["status"], "Success");
    let (_, answer) = send("/convert", conversion("opentelemetry.io/v7")).await;
    assert_eq!(answer["response"]["result"]["status"], "Failure");
    assert!(answer["response"]["result"]["message"].as_str().unwrap().contains("v7"));
    assert_eq!(send("/convert", b"{\"garbage".to_vec()).await.0, 400);
    assert_eq!(send("/mutate", conversion("x")).await.0, 404);
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "namespace": "default", "operation": "CREATE", "object": crate::room::pod("x", &asks()),
            "resource": {"group": "", "version": "v1", "resource": "pods"},
        },
    });
    let (_, answer) = send("/mutate-v1-pod", review.to_string().into_bytes()).await;
    assert_eq!(answer["response"]["patchType"], "JSONPatch", "unharmed");
}
