//! `deploy/install.yaml` on a real API server, and the control plane of the tests itself.

use std::time::Duration;

use crate::kube_rig::{KubeCluster, POD_CONTROLLERS, client_of, wait_until};
use serde_json::Value;

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: sleeper
spec:
  replicas: 1
  selector: {matchLabels: {app: sleeper}}
  template:
    metadata: {labels: {app: sleeper}}
    spec:
      containers:
      - {name: sleeper, image: "example.test/sleeper:1"}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_a_stored_pod_and_outlives_the_api_server() {
    let mut cluster = KubeCluster::start_with(POD_CONTROLLERS).await;
    cluster.apply("default", DEPLOYMENT).await;
    let pods = "/api/v1/namespaces/default/pods?labelSelector=app%3Dsleeper";
    let pod = wait_until("the pod", Duration::from_secs(60), || async { cluster.list(pods).await.pop() }).await;
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "ReplicaSet");

    // The controller must have seen its pod, or it makes another one after the restart.
    let deployment = "/apis/apps/v1/namespaces/default/deployments/sleeper";
    wait_until("the Deployment's status", Duration::from_secs(60), || async {
        (cluster.get(deployment).await?["status"]["replicas"] == 1).then_some(())
    })
    .await;

    cluster.stop_api_server();
    assert!(cluster.client().apiserver_version().await.is_err(), "a stopped API server answers nobody");
    cluster.start_api_server().await;
    // Controllers may add or replace pods meanwhile; what was stored must be there by name, the same object.
    let uid = &pod["metadata"]["uid"];
    let listed = cluster.list(pods).await;
    assert!(listed.iter().any(|stored| &stored["metadata"]["uid"] == uid), "{uid} is not among {listed:?}");
}

/// The objects without what an apply that changes nothing may touch.
fn without_bookkeeping(mut objects: Vec<Value>) -> Vec<Value> {
    for object in &mut objects {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
        }
    }
    objects
}

#[tokio::test(flavor = "multi_thread")]
async fn the_installation_applies_twice_and_its_service_account_may_do_what_it_needs_and_no_more() {
    let cluster = KubeCluster::start().await;
    let install = include_str!("../../deploy/install.yaml");
    let first = without_bookkeeping(cluster.apply("default", install).await);
    let second = without_bookkeeping(cluster.apply("default", install).await);
    assert_eq!(first, second);

    let spanreel = client_of(&cluster.service_account("spanreel", "spanreel").await).await;
    let permissions = [
        (true, "watch", "opentelemetry.io", "instrumentations", ""),
        (true, "patch", "opentelemetry.io", "opentelemetrycollectors/status", "anywhere"),
        (true, "patch", "opentelemetry.io", "instrumentations", "anywhere"),
        (true, "patch", "opentelemetry.io", "instrumentations/status", "anywhere"),
        (false, "patch", "opentelemetry.io", "opentelemetrycollectors", "anywhere"),
        (true, "watch", "", "namespaces", ""),
        (true, "watch", "", "pods", ""),
        (true, "watch", "", "nodes", ""),
        (false, "patch", "", "nodes", ""),
        (true, "get", "apps", "statefulsets", "anywhere"),
        (true, "get", "batch", "cronjobs", "anywhere"),
        (false, "list", "policy", "poddisruptionbudgets", "anywhere"),
        (true, "create", "", "services", "anywhere"),
        (true, "create", "discovery.k8s.io", "endpointslices", "anywhere"),
        (true, "create", "apiextensions.k8s.io", "customresourcedefinitions", ""),
        (true, "create", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", ""),
        (true, "create", "admissionregistration.k8s.io", "validatingwebhookconfigurations", ""),
        (true, "create", "", "secrets", "spanreel"),
        (true, "create", "", "podtemplates", "spanreel"),
        (false, "create", "", "podtemplates", "anywhere"),
        (false, "patch", "apiextensions.k8s.io", "customresourcedefinitions", ""),
        (false, "patch", "admissionregistration.k8s.io", "validatingwebhookconfigurations", ""),
        (false, "delete", "", "services", "anywhere"),
        (false, "get", "", "secrets", "spanreel"),
        (false, "list", "", "secrets", ""),
        (false, "create", "", "secrets", "anywhere"),
        (false, "patch", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", ""),
        (false, "delete", "apiextensions.k8s.io", "customresourcedefinitions", ""),
        (false, "create", "", "pods", "spanreel"),
        (false, "patch", "apps", "deployments", "anywhere"),
    ];
    for (expected, verb, group, resource, namespace) in permissions {
        let allowed = KubeCluster::may(&spanreel, verb, group, resource, namespace).await;
        assert_eq!(allowed, expected, "{verb} {resource}.{group} in {namespace:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_installed_pod_passes_the_restricted_pod_security_standard() {
    let cluster = KubeCluster::start_with(POD_CONTROLLERS).await;
    cluster.apply("default", include_str!("../../deploy/install.yaml")).await;
    let pods = "/api/v1/namespaces/spanreel/pods";
    wait_until("the pod", Duration::from_secs(60), || async { cluster.list(pods).await.pop() }).await;
}
