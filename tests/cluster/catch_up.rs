//! Catch-up: the whole program beside a real API server with its controllers, with the rights of `deploy/` and no others;
//! the test is the kubelet.

use std::time::Duration;

use serde_json::{Value, json};

use crate::installed::{DEPLOYMENTS, INJECT, Installed, PODS, SOON, is_injected, manifest, pod};
use crate::kube_rig::{POD_CONTROLLERS, wait_until};

struct Scene(Installed);

impl Scene {
    async fn set(catch_up: &str) -> Self {
        let controllers: Vec<&str> = POD_CONTROLLERS.iter().copied().chain(["statefulset-controller"]).collect();
        Self(Installed::prepare(&controllers, &[&format!("catch_up: {catch_up}")]).await)
    }

    async fn start(&mut self) {
        self.0.start().await;
    }

    fn log_says(&self, text: &str) -> bool {
        self.0.spanreel.log().contains(text)
    }

    /// A Deployment whose pods ask for `sdk`, or not.
    async fn deploy(&self, name: &str, replicas: u32, asks: bool) {
        let annotations = if asks { asking() } else { json!({}) };
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}, "annotations": annotations},
                    "spec": {"containers": [{"name": "app", "image": "registry.example/app:1.0"}]},
                },
            },
        });
        self.0.kube.create(DEPLOYMENTS, &object).await.unwrap();
        wait_until("its pods", SOON, async || (self.pods_of(name).await.len() == replicas as usize).then_some(()))
            .await;
    }

    /// A StatefulSet and a DaemonSet with one pod each.
    async fn deploy_sets(&self, stateful: &str, daemon: &str, asks: bool) {
        // A DaemonSet has a pod where there is a node; nobody ever looks after this one.
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}});
        self.0.kube.create("/api/v1/nodes", &node).await.unwrap();
        let annotations = if asks { asking() } else { json!({}) };
        for (kind, name) in [("StatefulSet", stateful), ("DaemonSet", daemon)] {
            let mut object = json!({
                "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
                "spec": {
                    "selector": {"matchLabels": {"app": name}},
                    "template": {
                        "metadata": {"labels": {"app": name}, "annotations": annotations},
                        "spec": {
                            "containers": [{"name": "app", "image": "registry.example/app:1.0"}],
                            "tolerations": [{"operator": "Exists"}],
                        },
                    },
                },
            });
            if kind == "StatefulSet" {
                object["spec"]["serviceName"] = json!(name);
            }
            let collection = format!("/apis/apps/v1/namespaces/shop/{}s", kind.to_lowercase());
            self.0.kube.create(&collection, &object).await.unwrap();
            wait_until("its pod", SOON, async || (self.pods_of(name).await.len() == 1).then_some(())).await;
        }
    }

    async fn pods_of(&self, name: &str) -> Vec<Value> {
        self.0.kube.list(&format!("/api/v1/namespaces/shop/pods?labelSelector=app%3D{name}")).await
    }

    async fn instrumentation(&self, value: &str) {
        let yaml = format!(
            "apiVersion: opentelemetry.io/v1alpha1\nkind: Instrumentation\nmetadata:\n  name: main\nspec:\n  env:\n  - name: A\n    value: '{value}'\n"
        );
        self.0.kube.apply("shop", &yaml).await;
    }

    async fn mode_of_namespace(&self, mode: Value) {
        let annotations = json!({"metadata": {"annotations": {"spanreel.dev/catch-up": mode}}});
        self.0.patch("/api/v1/namespaces/shop", &annotations).await;
    }

    /// What kubelets write: every pod runs and is ready, but injected ones where they are said to crash.
    async fn kubelet(&self, injected_crash: bool) {
        for pod in self.0.kube.list("/api/v1/namespaces/shop/pods").await {
            let crashes = injected_crash && is_injected(&pod);
            let state = if crashes {
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}})
            } else {
                json!({"running": {"startedAt": pod["metadata"]["creationTimestamp"]}})
            };
            if pod["status"]["containerStatuses"][0]["state"] == state {
                continue;
            }
            let status = json!({"status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": if crashes { "False" } else { "True" }}],
                "containerStatuses": [{
                    "name": "app", "ready": !crashes, "started": !crashes, "restartCount": if crashes { 4 } else { 0 },
                    "image": "app", "imageID": "app", "state": state,
                }],
            }});
            let name = pod["metadata"]["name"].as_str().unwrap();
            // It may be gone meanwhile.
            let _ = self.0.try_patch(&format!("{PODS}/{name}/status"), &status).await;
        }
    }

    /// Waits until so many pods are in each state, while pods run.
    async fn found(&self, missed: u32, stale: u32, unwanted: u32) {
        let what = format!("{missed} missed, {stale} stale, {unwanted} unwanted");
        wait_until(&what, SOON, async || {
            self.kubelet(false).await;
            let metrics = self.0.metrics().await?;
            let of = |state| metrics.sum("spanreel_catch_up_pods", &[("state", state)]);
            let wanted = [f64::from(missed), f64::from(stale), f64::from(unwanted)].map(Some);
            ([of("missed"), of("stale"), of("unwanted")] == wanted).then_some(())
        })
        .await;
    }

    async fn restarts(&self, result: &str) -> Option<f64> {
        self.0.metrics().await?.sum("spanreel_catch_up_restarts_total", &[("result", result)])
    }

    /// What the status says of a workload that is out of date.
    fn finding(&self, name: &str) -> Option<Value> {
        let workloads = self.report()?["workloads"].as_array()?.clone();
        workloads.into_iter().find(|finding| finding["name"] == name)
    }

    fn report(&self) -> Option<Value> {
        let status: Value = serde_json::from_str(&self.0.status(&["-o", "json"])).ok()?;
        Some(status["catch_up"].clone())
    }
}

fn asking() -> Value {
    json!({format!("{INJECT}sdk"): "true"})
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_were_missed_or_are_out_of_date_are_found() {
    let mut scene = Scene::set("{interval: 10s}").await;
    scene.start().await;
    scene.instrumentation("1").await;
    wait_until("the Instrumentation to be used", SOON, async || {
        let probe = pod("probe", asking());
        let stored = scene.0.kube.create(&format!("{PODS}?dryRun=All"), &probe).await.ok()?;
        stored["metadata"]["annotations"].to_string().contains("shop/main").then_some(())
    })
    .await;
    scene.deploy("web", 2, true).await;
    assert!(scene.pods_of("web").await.iter().all(is_injected));

    // Nobody is there to inject these.
    scene.0.spanreel.kill();
    scene.deploy("late", 1, true).await;
    let bare = pod("bare", asking());
    scene.0.kube.create(PODS, &bare).await.unwrap();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "batch"},
        "spec": {"template": {
            "metadata": {"annotations": {"instrumentation.opentelemetry.io/inject-sdk": "true"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "app", "image": "registry.example/app:1.0"}]},
        }},
    });
    scene.0.kube.create("/apis/batch/v1/namespaces/shop/jobs", &job).await.unwrap();
    scene.deploy("quiet", 1, false).await;
    scene.start().await;
    scene.found(3, 0, 0).await;
    let event = scene.0.event("InjectionMissed", "late").await;
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("kubectl -n shop rollout restart deployment/late"), "{note}");
    scene.0.event("InjectionMissed", "batch").await;
    assert_eq!(scene.finding("late").unwrap()["state"], "missed");

    // A newer generation.
    scene.instrumentation("2").await;
    scene.found(3, 2, 0).await;
    scene.0.event("InjectionStale", "web").await;
    let path = "/apis/opentelemetry.io/v1alpha1/namespaces/shop/instrumentations/main";
    wait_until("the Instrumentation's status", SOON, async || {
        let status = scene.0.kube.get(path).await?["status"]["workloads"].clone();
        (status == json!({"injected": 1, "stale": 1, "missed": 3})).then_some(())
    })
    .await;

    // The namespace has the last word.
    let annotate = async |annotations: Value| {
        scene.0.patch("/api/v1/namespaces/shop", &json!({"metadata": {"annotations": annotations}})).await;
    };
    annotate(json!({"spanreel.dev/catch-up": "off"})).await;
    scene.found(0, 0, 0).await;
    annotate(json!({"spanreel.dev/catch-up": "sometimes"})).await;
    scene.found(3, 2, 0).await;
    assert!(scene.log_says("is none of off, report, restart"));
    assert_eq!(scene.restarts("complete").await, Some(0.0));

    // Pods of a namespace that asked, and asks no more.
    annotate(asking()).await;
    scene.found(4, 2, 0).await;
    let quiet = scene.pods_of("quiet").await.pop().unwrap();
    let name = quiet["metadata"]["name"].as_str().unwrap();
    scene.0.kube.delete(&format!("/api/v1/namespaces/shop/pods/{name}?gracePeriodSeconds=0")).await;
    scene.found(3, 2, 0).await;
    annotate(json!({"instrumentation.opentelemetry.io/inject-sdk": null})).await;
    scene.found(3, 2, 1).await;
    scene.0.event("InjectionUnwanted", "quiet").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_need_rights_available_pods_and_a_budget() {
    let mut scene = Scene::set("{mode: restart, interval: 10s, pause: 1s}").await;
    scene.deploy("guarded", 1, true).await;
    scene.deploy("free", 2, true).await;
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "keep"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}},
    });
    let budgets = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets";
    scene.0.kube.create(budgets, &budget).await.unwrap();
    scene.start().await;
    scene.found(3, 0, 0).await;
    let waits = async |name: &str, why: &str| {
        wait_until(&format!("{name} to wait: {why}"), SOON, async || {
            scene.kubelet(false).await;
            let finding = scene.finding(name)?;
            finding["waits"].as_str().is_some_and(|waits| waits.contains(why)).then_some(())
        })
        .await;
    };
    waits("free", "deploy/restart.yaml").await;
    assert!(scene.log_says("catch-up restarts nothing"));
    assert!(scene.pods_of("free").await.iter().all(|pod| !is_injected(pod)));

    scene.0.kube.apply("spanreel", &manifest("restart.yaml")).await;
    scene.found(1, 0, 0).await;
    assert!(scene.pods_of("free").await.iter().all(is_injected));
    assert_eq!(scene.restarts("complete").await, Some(1.0));
    scene.0.event("RestartedForInjection", "free").await;
    waits("guarded", "PodDisruptionBudget keep").await;

    let allowed = json!({"status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": 1}});
    scene.0.patch(&format!("{budgets}/keep/status"), &allowed).await;
    scene.found(0, 0, 0).await;
    assert!(scene.pods_of("guarded").await.iter().all(is_injected));
    let template = &scene.0.kube.get(&format!("{DEPLOYMENTS}/guarded")).await.unwrap()["spec"]["template"];
    let annotations = &template["metadata"]["annotations"];
    assert_eq!(annotations["spanreel.dev/restarted-for"], "built-in@0");
    assert!(annotations["kubectl.kubernetes.io/restartedAt"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_and_daemon_sets_are_restarted_too() {
    let mut scene = Scene::set("{mode: restart, interval: 10s, pause: 1s}").await;
    scene.0.kube.apply("spanreel", &manifest("restart.yaml")).await;
    scene.deploy_sets("db", "agent", true).await;
    scene.start().await;
    scene.found(2, 0, 0).await;
    scene.found(0, 0, 0).await;
    for name in ["db", "agent"] {
        let pods = scene.pods_of(name).await;
        assert!(pods.len() == 1 && is_injected(&pods[0]), "{name}: {pods:?}");
        scene.0.event("RestartedForInjection", name).await;
    }
    assert_eq!(scene.restarts("complete").await, Some(2.0));
    assert_eq!(scene.restarts("failed").await, Some(0.0));
}

/// Nobody saw their pods run: catch-up looks elsewhere for as long.
#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_revision_without_injection_is_reported_and_not_acted_upon() {
    /// A revision that was there for less tells nothing.
    const LONG_ENOUGH: Duration = Duration::from_secs(62);
    let mut scene = Scene::set("{crash_loops: restart, interval: 10s}").await;
    scene.0.kube.apply("spanreel", &manifest("restart.yaml")).await;
    scene.mode_of_namespace(json!("off")).await;
    scene.deploy("lone", 1, false).await;
    scene.deploy("newer", 1, false).await;
    scene.deploy_sets("db", "agent", false).await;
    let places = [
        ("lone", format!("{DEPLOYMENTS}/lone")),
        ("newer", format!("{DEPLOYMENTS}/newer")),
        ("db", "/apis/apps/v1/namespaces/shop/statefulsets/db".to_owned()),
        ("agent", "/apis/apps/v1/namespaces/shop/daemonsets/agent".to_owned()),
    ];
    for (_, path) in &places[..2] {
        let recreate = json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}});
        scene.0.patch(path, &recreate).await;
    }
    scene.kubelet(true).await;
    tokio::time::sleep(LONG_ENOUGH).await;
    scene.start().await;
    let ask = json!({"spec": {"template": {"metadata": {"annotations": {"instrumentation.opentelemetry.io/inject-sdk": "true"}}}}});
    for (name, path) in &places {
        let mut change = ask.clone();
        if *name == "newer" {
            // It may crash of itself.
            change["spec"]["template"]["spec"] =
                json!({"containers": [{"name": "app", "image": "registry.example/app:2.0"}]});
        }
        scene.0.patch(path, &change).await;
        wait_until(&format!("only an injected pod of {name}"), SOON, async || {
            scene.kubelet(true).await;
            let pods = scene.pods_of(name).await;
            (pods.len() == 1 && is_injected(&pods[0])).then_some(())
        })
        .await;
    }
    scene.mode_of_namespace(Value::Null).await;
    for name in ["lone", "db", "agent"] {
        let note = scene.0.event("CrashLoopSinceInjection", name).await["note"].as_str().unwrap().to_owned();
        assert!(note.contains("an earlier revision of the") && note.contains("was there for 1m"), "{note}");
        assert!(note.contains("inject-<language>: \"false\""), "{note}");
    }
    let loops = scene.report().unwrap()["crash_loops"].as_array().unwrap().clone();
    let named = |name: &str| loops.iter().find(|it| it["name"] == name);
    assert_eq!(named("db").unwrap()["evidence"], "revision");
    assert_eq!(named("newer"), None, "another image may crash of itself");
    assert_eq!(scene.restarts("injection_off").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_crash_loops_since_it_is_injected_runs_without() {
    let mut scene = Scene::set("{crash_loops: restart, interval: 10s}").await;
    scene.0.kube.apply("spanreel", &manifest("restart.yaml")).await;
    scene.deploy("web", 1, false).await;
    // Of this one no pod is left that runs without injection; that it did was seen.
    scene.deploy("lone", 1, false).await;
    scene
        .0
        .patch(
            &format!("{DEPLOYMENTS}/lone"),
            &json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}}),
        )
        .await;
    // This one gets another image as well, which may crash of itself.
    scene.deploy("newer", 1, false).await;
    scene.kubelet(true).await;
    let seen_from = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(8);
    scene.start().await;
    wait_until("a round that sees them run", SOON, async || {
        scene.kubelet(true).await;
        let at: jiff::Timestamp = scene.report()?["at"].as_str()?.parse().ok()?;
        (at > seen_from).then_some(())
    })
    .await;
    let ask = json!({"spec": {"template": {"metadata": {"annotations": {"instrumentation.opentelemetry.io/inject-sdk": "true"}}}}});
    scene.0.patch(&format!("{DEPLOYMENTS}/web"), &ask).await;
    scene.0.patch(&format!("{DEPLOYMENTS}/lone"), &ask).await;
    let mut newer = ask.clone();
    newer["spec"]["template"]["spec"] = json!({"containers": [{"name": "app", "image": "registry.example/app:2.0"}]});
    scene.0.patch(&format!("{DEPLOYMENTS}/newer"), &newer).await;
    wait_until("the newer pod to crash", SOON, async || {
        scene.kubelet(true).await;
        scene.pods_of("newer").await.iter().any(is_injected).then_some(())
    })
    .await;
    let template = wait_until("injection to be switched off", SOON, async || {
        scene.kubelet(true).await;
        let deployment = scene.0.kube.get(&format!("{DEPLOYMENTS}/web")).await?;
        let template = deployment["spec"]["template"]["metadata"].clone();
        template["annotations"]["spanreel.dev/injection-off"].is_string().then_some(template)
    })
    .await;
    assert_eq!(template["annotations"]["instrumentation.opentelemetry.io/inject-sdk"], "false");
    let event = scene.0.event("CrashLoopSinceInjection", "web").await;
    assert!(event["note"].as_str().unwrap().contains("restarted without injection"), "{event}");
    scene.0.event("CrashLoopSinceInjection", "lone").await;
    for name in ["web", "lone"] {
        wait_until("only pods without injection", SOON, async || {
            scene.kubelet(true).await;
            let pods = scene.pods_of(name).await;
            (pods.len() == 1 && !is_injected(&pods[0])).then_some(())
        })
        .await;
    }
    assert_eq!(scene.restarts("injection_off").await, Some(2.0));
    assert!(scene.pods_of("newer").await.iter().any(is_injected), "nothing blames the injection");
    wait_until("no crash loops", SOON, async || {
        (scene.0.metrics().await?.sum("spanreel_catch_up_crash_loops", &[]) == Some(0.0)).then_some(())
    })
    .await;
}
