//! The custom resource definitions against a real API server: what they refuse, what they explain, what lists show.
use std::time::Duration;

use serde_json::{Value, json};
use spanreel::cluster::CUSTOM_RESOURCE_DEFINITIONS;

use crate::kube_rig::{KubeCluster, wait_until};

/// For the API server to serve a definition, and to say so; generous, because other tests run meanwhile.
const SOON: Duration = Duration::from_secs(60);
const INSTRUMENTATIONS: &str = "/apis/opentelemetry.io/v1alpha1/namespaces/default/instrumentations";
const COLLECTORS: &str = "/apis/opentelemetry.io/v1beta1/namespaces/default/opentelemetrycollectors";
const COLLECTOR_DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/opentelemetrycollectors.opentelemetry.io";

async fn get(cluster: &KubeCluster, path: &str, accept: &str) -> Result<Value, String> {
    let request = http::Request::get(path).header("accept", accept).body(Vec::new()).unwrap();
    cluster.client().request(request).await.map_err(|error| error.to_string())
}

/// The definitions as `spanreel install` would create them, served.
async fn with_definitions() -> KubeCluster {
    let cluster = KubeCluster::start().await;
    for yaml in CUSTOM_RESOURCE_DEFINITIONS {
        cluster.apply("default", yaml).await;
    }
    for path in [INSTRUMENTATIONS, COLLECTORS] {
        wait_until(path, SOON, || async { get(&cluster, path, "application/json").await.ok() }).await;
    }
    cluster
}

fn instrumentation(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "opentelemetry.io/v1alpha1", "kind": "Instrumentation", "metadata": {"name": name}, "spec": spec,
    })
}

fn collector(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "opentelemetry.io/v1beta1", "kind": "OpenTelemetryCollector", "metadata": {"name": name},
        "spec": spec,
    })
}

fn config() -> Value {
    json!({"receivers": {"otlp": null}, "exporters": {}, "service": {"pipelines": {}}, "future": {"x": 1}})
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_refuse_what_is_wrong_and_keep_what_is_right() {
    let cluster = with_definitions().await;
    let variable = json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    let agent = json!({
        "image": "i", "env": variable, "volumeLimitSize": "1.5Gi",
        "resourceRequirements": {"limits": {"cpu": 1}, "requests": {"memory": "64Mi"}, "claims": [{"name": "c"}]},
    });
    let mut java = agent.clone();
    java["resources"] = java.as_object_mut().unwrap().remove("resourceRequirements").unwrap();
    java["extensions"] = json!([{"image": "i", "dir": "/d"}]);
    java["volumeClaimTemplate"] = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "v",
    }});
    let whole = json!({
        "exporter": {"endpoint": "https://a", "tls": {
            "secretName": "s", "configMapName": "c", "ca_file": "a", "cert_file": "b", "key_file": "k",
        }},
        "resource": {"resourceAttributes": {"a": "b"}, "addK8sUIDAttributes": true},
        "propagators": ["tracecontext", "baggage", "b3", "b3multi", "jaeger", "xray", "ottrace", "none"],
        "sampler": {"type": "parentbased_traceidratio", "argument": "0.25"},
        "defaults": {"useLabelsForResourceAttributes": true},
        "env": variable, "imagePullPolicy": "Always",
        "initContainerSecurityContext": {"runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
        "java": java, "nodejs": agent, "python": agent, "dotnet": agent,
        "go": {"image": "i", "securityContext": {"privileged": true}},
        "apacheHttpd": {"image": "i", "attrs": variable, "version": "2.4", "configPath": "/usr/local/apache2/conf"},
        "nginx": {"image": "i", "attrs": variable, "configFile": "/etc/nginx/nginx.conf"},
    });
    let stored = cluster.create(INSTRUMENTATIONS, &instrumentation("whole", whole.clone())).await.unwrap();
    assert_eq!(stored["spec"], whole, "every field that the reference lists is known");

    for (spec, expected) in [
        (json!({"sampler": {"type": "sometimes"}}), "spec.sampler.type: Unsupported value: \"sometimes\""),
        (json!({"propagators": ["b3", "carrier-pigeon"]}), "spec.propagators[1]: Unsupported value"),
        (json!({"apacheHttpd": {"configPath": "/a;b"}}), "spec.apacheHttpd.configPath in body should match"),
        (json!({"nginx": {"configFile": "a".repeat(257)}}), "spec.nginx.configFile: Too long"),
        (json!({"java": {"volumeLimitSize": "much"}}), "spec.java.volumeLimitSize in body should match"),
        (json!({"dotnet": {"resourceRequirements": {"limits": {"cpu": "a lot"}}}}), "limits.cpu in body should match"),
        (json!({"java": {"extensions": [{"image": "i"}]}}), "spec.java.extensions[0].dir: Required value"),
        (json!({"java": {"volumeClaimTemplate": {}}}), "spec.java.volumeClaimTemplate.spec: Required value"),
        (json!({"env": [{"value": "1"}]}), "spec.env[0].name: Required value"),
        (
            json!({"resource": {"addK8sUIDAttributes": "yes"}}),
            "spec.resource.addK8sUIDAttributes in body must be of type",
        ),
    ] {
        let refused = cluster.create(INSTRUMENTATIONS, &instrumentation("wrong", spec.clone())).await.unwrap_err();
        assert!(refused.contains(expected), "{spec}: {refused}");
    }

    let spec =
        json!({"config": config(), "mode": "deployment", "image": "i", "future": [1], "envFrom": [{"prefix": "p"}]});
    let stored = cluster.create(COLLECTORS, &collector("whole", spec.clone())).await.unwrap();
    for (key, value) in spec.as_object().unwrap() {
        assert_eq!(&stored["spec"][key], value, "{key}");
    }
    assert_eq!((&stored["spec"]["managementState"], &stored["spec"]["replicas"]), (&json!("managed"), &json!(1)));
    let sidecar = |key: &str, value: Value| json!({"config": config(), "mode": "sidecar", key: value});
    for (spec, expected) in [
        (json!({}), "spec.config: Required value"),
        (json!({"config": {"exporters": {}, "service": {"pipelines": {}}}}), "spec.config.receivers: Required value"),
        (json!({"config": "receivers:"}), "spec.config in body must be of type object"),
        (json!({"config": config(), "mode": "cluster"}), "spec.mode: Unsupported value: \"cluster\""),
        (json!({"config": config(), "managementState": "paused"}), "spec.managementState: Unsupported value"),
        (json!({"config": config(), "ports": [{"port": 0}]}), "spec.ports[0].port in body should be greater"),
        (
            json!({"config": config(), "autoscaler": {"maxReplicas": 0}}),
            "spec.autoscaler.maxReplicas in body should be",
        ),
        (sidecar("tolerations", json!([{"operator": "Exists"}])), "spec.tolerations does not go with mode sidecar"),
        (sidecar("priorityClassName", json!("p")), "spec.priorityClassName does not go with mode sidecar"),
        (sidecar("affinity", json!({})), "spec.affinity does not go with mode sidecar"),
        (sidecar("additionalContainers", json!([{"name": "c"}])), "spec.additionalContainers does not go with"),
    ] {
        let refused = cluster.create(COLLECTORS, &collector("wrong", spec.clone())).await.unwrap_err();
        assert!(refused.contains(expected), "{spec}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_is_explained_and_lists_have_columns() {
    let cluster = with_definitions().await;
    for (version, kind, fields_min) in [("v1alpha1", "Instrumentation", 200), ("v1beta1", "OpenTelemetryCollector", 90)]
    {
        let schema = wait_until(kind, SOON, || async {
            let path = format!("/openapi/v3/apis/opentelemetry.io/{version}");
            let document = get(&cluster, &path, "application/json").await.ok()?;
            let schemas = document.pointer("/components/schemas")?.as_object()?;
            schemas.iter().find(|(name, _)| name.ends_with(&format!(".{kind}"))).map(|(_, schema)| schema.clone())
        })
        .await;
        let mut fields = Fields::default();
        fields.visit(kind, &schema);
        assert!(fields.explained >= fields_min, "{kind} has {} fields", fields.explained);
        assert_eq!(fields.unexplained, Vec::<String>::new(), "{kind}");
    }

    cluster
        .create(
            INSTRUMENTATIONS,
            &instrumentation(
                "one",
                json!({
                    "exporter": {"endpoint": "http://a:4318"}, "sampler": {"type": "traceidratio", "argument": "0.5"},
                }),
            ),
        )
        .await
        .unwrap();
    cluster.create(COLLECTORS, &collector("two", json!({"mode": "daemonset", "config": config()}))).await.unwrap();
    let columns = |wide: bool, table: &Value| -> Vec<(String, String)> {
        let definitions = table["columnDefinitions"].as_array().unwrap().clone();
        let cells = table["rows"][0]["cells"].as_array().unwrap().clone();
        let all = definitions.into_iter().zip(cells);
        let shown = all.filter(|(definition, _)| wide || definition["priority"] == 0);
        shown
            .map(|(d, cell)| (d["name"].as_str().unwrap().to_owned(), cell.as_str().unwrap_or_default().to_owned()))
            .collect()
    };
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = columns(false, &get(&cluster, INSTRUMENTATIONS, accept).await.unwrap());
    let names: Vec<&str> = table.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Name", "Age", "Endpoint", "Sampler", "Sampler Arg"]);
    let cells: Vec<&str> = [0, 2, 3, 4].map(|at| table[at].1.as_str()).to_vec();
    assert_eq!(cells, ["one", "http://a:4318", "traceidratio", "0.5"]);

    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "message": "it runs"}]}});
    let request = http::Request::patch(format!("{COLLECTORS}/two/status"))
        .header("content-type", "application/merge-patch+json")
        .body(status.to_string().into_bytes())
        .unwrap();
    cluster.client().request::<Value>(request).await.unwrap();
    let table = get(&cluster, COLLECTORS, accept).await.unwrap();
    let pair = |name: &str, cell: &str| (name.to_owned(), cell.to_owned());
    let narrow: Vec<_> = columns(false, &table).into_iter().filter(|(name, _)| name != "Age").collect();
    let expected =
        [pair("Name", "two"), pair("Mode", "daemonset"), pair("Ready", "True"), pair("Management", "managed")];
    assert_eq!(narrow, expected);
    assert!(columns(true, &table).contains(&pair("Message", "it runs")));

    let resources = get(&cluster, "/apis/opentelemetry.io/v1beta1", "application/json").await.unwrap();
    let resources = resources["resources"].as_array().unwrap();
    let of = |name: &str| resources.iter().find(|resource| resource["name"] == name);
    assert_eq!(of("opentelemetrycollectors").unwrap()["shortNames"], json!(["otelcol", "otelcols"]));
    assert!(of("opentelemetrycollectors/scale").is_some() && of("opentelemetrycollectors/status").is_some());
}

#[derive(Default)]
struct Fields {
    explained: usize,
    unexplained: Vec<String>,
}

impl Fields {
    fn visit(&mut self, path: &str, schema: &Value) {
        // The API server explains what is its own.
        if path.ends_with(".metadata") {
            return;
        }
        match schema["description"].as_str() {
            Some(text) if !text.trim().is_empty() => self.explained += 1,
            _ => self.unexplained.push(path.to_owned()),
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            self.visit(&format!("{path}.{name}"), property);
        }
        if schema["items"].is_object() {
            self.visit(&format!("{path}[]"), &schema["items"]);
        }
        if schema["additionalProperties"].is_object() {
            self.visit(&format!("{path}.*"), &schema["additionalProperties"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn v1beta1_does_not_depend_on_the_webhook_that_converts() {
    let cluster = with_definitions().await;
    let alpha = "/apis/opentelemetry.io/v1alpha1/namespaces/default/opentelemetrycollectors";
    let refused = get(&cluster, alpha, "application/json").await.unwrap_err();
    assert!(refused.contains("404") || refused.contains("could not find"), "{refused}");

    // Nothing listens on port 9 of this machine.
    let client_config = json!({"url": "https://127.0.0.1:9/convert"});
    let patch = json!([
        {"op": "test", "path": "/spec/versions/1/name", "value": "v1alpha1"},
        {"op": "replace", "path": "/spec/versions/1/served", "value": true},
        {"op": "add", "path": "/spec/conversion", "value": {"strategy": "Webhook", "webhook": {
            "clientConfig": client_config, "conversionReviewVersions": ["v1"],
        }}},
    ]);
    let request = http::Request::patch(COLLECTOR_DEFINITION)
        .header("content-type", "application/json-patch+json")
        .body(patch.to_string().into_bytes())
        .unwrap();
    cluster.client().request::<Value>(request).await.unwrap();
    wait_until("v1alpha1 being served", SOON, || async {
        let resources = get(&cluster, "/apis/opentelemetry.io/v1alpha1", "application/json").await.ok()?;
        let resources = resources["resources"].as_array()?.clone();
        resources.iter().any(|resource| resource["name"] == "opentelemetrycollectors").then_some(())
    })
    .await;

    let spec = json!({"config": config(), "mode": "deployment"});
    cluster.create(COLLECTORS, &collector("x", spec)).await.unwrap();
    let listed = get(&cluster, COLLECTORS, "application/json").await.unwrap();
    assert_eq!(listed["items"][0]["spec"]["config"], config());
    let old = json!({
        "apiVersion": "opentelemetry.io/v1alpha1", "kind": "OpenTelemetryCollector", "metadata": {"name": "y"},
        "spec": {"config": "receivers: {}"},
    });
    let refused = cluster.create(alpha, &old).await.unwrap_err();
    assert!(refused.contains("conversion webhook"), "{refused}");
    let listed = get(&cluster, COLLECTORS, "application/json").await.unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}
