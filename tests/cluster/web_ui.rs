//! What the web UI's page of the cluster is made of.

use serde_json::{Value, json};

use crate::installed::{Installed, SOON};
use crate::kube_rig::wait_until;
use crate::support::{http, ports};

const GROUP: &str = "/apis/opentelemetry.io";

async fn page(installed: &Installed, query: &str) -> Option<Value> {
    let answer = http::get(installed.spanreel.ports.query, &format!("/ui/api/cluster{query}"), &[]).await.ok()?;
    (answer.status == 200).then(|| serde_json::from_slice(&answer.body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_show_how_they_stand_and_the_line_that_leads_to_mending_them() {
    let installed = Installed::start_with(&[], &[]).await;
    let port = ports::free();
    let collector = |name: &str, exporters: Value| {
        json!({
            "apiVersion": "opentelemetry.io/v1beta1", "kind": "OpenTelemetryCollector", "metadata": {"name": name},
            "spec": {"config": {
                "receivers": {"otlp": {"protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}}}},
                "exporters": exporters,
                "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}}},
            }},
        })
    };
    let collectors = format!("{GROUP}/v1beta1/namespaces/shop/opentelemetrycollectors");
    installed.kube.create(&collectors, &collector("good", json!({"debug": {}}))).await.unwrap();
    installed.kube.create(&collectors, &collector("bad", json!({"debug": {"verbosity": "loud"}}))).await.unwrap();
    let instrumentation = json!({
        "apiVersion": "opentelemetry.io/v1alpha1", "kind": "Instrumentation", "metadata": {"name": "agents"},
        "spec": {"exporter": {"endpoint": "http://spanreel.spanreel:4318"}},
    });
    installed
        .kube
        .create(&format!("{GROUP}/v1alpha1/namespaces/shop/instrumentations"), &instrumentation)
        .await
        .unwrap();

    // Each of them becomes what it is in its own time.
    let shown = wait_until("all three to be shown as they stand", SOON, async || {
        let shown = page(&installed, "?namespace=shop").await?;
        let (collectors, instrumentations) = (shown["collectors"].as_array()?, shown["instrumentations"].as_array()?);
        let ([bad, good], [agents]) = (collectors.as_slice(), instrumentations.as_slice()) else { return None };
        let settled = bad["reason"] == "ConfigurationRefused"
            && good["ready"] == true
            && good["ports"][0]["port"] == port
            && agents["ok"] == true
            && shown["catch_up"]["mode"] == "report"
            && shown["examination"]["workloads"].is_array();
        settled.then_some(shown)
    })
    .await;
    let (bad, good) = (&shown["collectors"][0], &shown["collectors"][1]);
    assert_eq!((&bad["name"], &bad["ready"], &bad["running"]), (&json!("bad"), &json!(false), &json!(false)));
    assert_eq!(bad["fix"], "kubectl -n shop edit opentelemetrycollector bad");
    assert!(bad["message"].as_str().unwrap().contains("exporters::debug::verbosity"), "{bad}");
    assert_eq!((&good["name"], &good["fix"]), (&json!("good"), &Value::Null));
    assert_eq!(shown["instrumentations"][0]["name"], "agents");
    assert_eq!(shown["left_out"]["collectors"], 0);

    let elsewhere =
        wait_until("an answer about another namespace", SOON, async || page(&installed, "?namespace=spanreel").await)
            .await;
    assert_eq!((&elsewhere["collectors"], &elsewhere["instrumentations"]), (&json!([]), &json!([])));
    // What is gone is not shown any more.
    installed.kube.delete(&format!("{collectors}/bad")).await;
    wait_until("the deleted one to go", SOON, async || {
        let shown = page(&installed, "").await?;
        (shown["collectors"].as_array()?.len() == 1).then_some(())
    })
    .await;
}
