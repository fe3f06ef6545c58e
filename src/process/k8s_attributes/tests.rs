use super::*;
use crate::process::surroundings::{ClusterView, Observer, Seen};
use crate::process::testing::{attribute, decoded_settings, edited, errors_of, request};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

fn pod(name: &str, address: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"app.kubernetes.io/name": "web", "app.kubernetes.io/version": "7", "team": "blue"},
            "annotations": {"resource.opentelemetry.io/deployment.environment": "prod", "note": "n"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6c45f8d6f6", "uid": "rs"}]
        },
        "spec": {
            "nodeName": "node-1", "hostname": "web-host",
            "containers": [{"name": "app", "image": "reg:5000/web:1.2"}, {"name": "side", "image": "side"}]
        },
        "status": {
            "podIP": address, "startTime": "2026-01-02T03:04:05Z",
            "containerStatuses": [{
                "name": "app", "containerID": "containerd://abc", "restartCount": 2, "image": "", "ready": true,
                "imageID": "docker-pullable://reg/web@sha256:12"
            }]
        }
    }))
    .unwrap()
}

fn meta(value: serde_json::Value) -> ObjectMeta {
    serde_json::from_value(value).unwrap()
}

/// A processor that has seen these pods, a namespace and a node.
fn processor(settings: &str, pods: Vec<Pod>) -> K8sAttributes {
    let settings = decoded_settings(settings, K8sAttributesSettings::decode);
    let table = Arc::new(Table::new(settings.clone()));
    table.saw_pod(Seen::ListBegins);
    pods.into_iter().for_each(|pod| table.saw_pod(Seen::Present(pod)));
    table.saw_pod(Seen::ListEnds);
    table.saw_namespace(Seen::Present(meta(json!({"name": "shop", "uid": "n", "labels": {"tier": "gold"}}))));
    table.saw_namespace(Seen::Present(meta(json!({"name": "kube-system", "uid": "cluster-1"}))));
    table.saw_node(Seen::Present(meta(json!({"name": "node-1", "uid": "node-uid", "labels": {"zone": "z1"}}))));
    K8sAttributes { settings, table }
}

fn text(value: Option<Any>) -> String {
    match value {
        Some(Any::StringValue(text)) => text,
        Some(Any::ArrayValue(list)) => {
            list.values.into_iter().map(|value| text(value.value)).collect::<Vec<_>>().join(",")
        }
        other => format!("{other:?}"),
    }
}

/// What a resource becomes that comes from this address.
fn enriched(processor: &K8sAttributes, peer: &str, attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let resource = Resource { attributes, ..Default::default() };
    let request = request(vec![ResourceSpans { resource: Some(resource), ..Default::default() }]);
    let peer: IpAddr = peer.parse().unwrap();
    let edited = edited(processor, &request, &Client::of(peer));
    let attributes = edited.resource_spans.into_iter().next().unwrap().resource.unwrap_or_default().attributes;
    attributes.into_iter().map(|it| (it.key, text(it.value.unwrap().value))).collect()
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[test]
fn a_connections_address_names_its_pod() {
    let processor = processor("{}", vec![pod("web-1", "10.0.0.7")]);
    let expected = map([
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.name", "web-1"),
        ("k8s.pod.uid", "uid-web-1"),
        ("k8s.pod.start_time", "2026-01-02T03:04:05Z"),
        ("k8s.deployment.name", "web"),
        ("k8s.node.name", "node-1"),
    ]);
    assert_eq!(enriched(&processor, "10.0.0.7", vec![]), expected, "two containers, and none is named");
    assert_eq!(
        enriched(&processor, "::ffff:10.0.0.7", vec![]),
        expected,
        "an address of version 4 in one of version 6"
    );
    assert_eq!(enriched(&processor, "10.0.0.8", vec![]), map([]));
}

#[test]
fn what_a_resource_says_stays() {
    let processor = processor("{extract: {metadata: [k8s.pod.name, k8s.node.name]}}", vec![pod("web-1", "10.0.0.7")]);
    let said = vec![attribute("k8s.pod.name", "mine"), attribute("k8s.node.name", "")];
    let expected = map([("k8s.pod.name", "mine"), ("k8s.node.name", "node-1")]);
    assert_eq!(enriched(&processor, "10.0.0.7", said), expected);
}

#[test]
fn a_container_is_found_by_name_or_id() {
    let settings = "{extract: {metadata: [k8s.container.name, container.id, container.image.name, container.image.tag, \
                    container.image.repo_digests, service.version, service.instance.id]}}";
    let processor = processor(settings, vec![pod("web-1", "10.0.0.7")]);
    let app = map([
        ("k8s.container.name", "app"),
        ("container.id", "abc"),
        ("container.image.name", "reg:5000/web"),
        ("container.image.tag", "1.2"),
        ("container.image.repo_digests", "reg/web@sha256:12"),
        ("service.version", "7"),
        ("service.instance.id", "shop.web-1.app"),
    ]);
    assert_eq!(enriched(&processor, "10.0.0.7", vec![attribute("k8s.container.name", "app")]), app);
    assert_eq!(enriched(&processor, "10.0.0.7", vec![attribute("container.id", "abc")]), app);
    let side = enriched(&processor, "10.0.0.7", vec![attribute("k8s.container.name", "side")]);
    assert_eq!((side["container.image.tag"].as_str(), side.contains_key("container.id")), ("latest", false));
    let restarted = vec![attribute("k8s.container.name", "app"), attribute("k8s.container.restart_count", 1)];
    assert!(!enriched(&processor, "10.0.0.7", restarted).contains_key("container.id"), "that life is not known");
}

#[test]
fn labels_and_annotations_become_attributes() {
    let settings = "{extract: {metadata: [], otel_annotations: true, \
                    labels: [{key: team}, {tag_name: t, key: team}, {tag_name: $1, key_regex: \"app\\\\.kubernetes\\\\.io/(.*)\"}, \
                    {key_regex: te.*}, {tag_name: tier, key: tier, from: namespace}, {key: zone, from: node}], \
                    annotations: [{key: note}]}}";
    let processor = processor(settings, vec![pod("web-1", "10.0.0.7")]);
    let expected = map([
        ("k8s.pod.labels.team", "blue"),
        ("t", "blue"),
        ("name", "web"),
        ("version", "7"),
        ("tier", "gold"),
        ("k8s.node.labels.zone", "z1"),
        ("k8s.pod.annotations.note", "n"),
        ("deployment.environment", "prod"),
    ]);
    assert_eq!(enriched(&processor, "10.0.0.7", vec![]), expected);
}

#[test]
fn service_attributes_follow_labels_before_owners() {
    let settings = "{extract: {metadata: [service.name, service.namespace, k8s.cluster.uid, k8s.node.uid]}}";
    let processor = processor(settings, vec![pod("web-1", "10.0.0.7")]);
    let expected = map([
        ("service.name", "web"),
        ("service.namespace", "shop"),
        ("k8s.cluster.uid", "cluster-1"),
        ("k8s.node.uid", "node-uid"),
    ]);
    assert_eq!(enriched(&processor, "10.0.0.7", vec![]), expected);
}

#[test]
fn the_first_association_whose_sources_are_there_counts() {
    let settings = "{extract: {metadata: [k8s.pod.uid]}, pod_association: [\
                    {sources: [{from: resource_attribute, name: k8s.pod.name}, {from: resource_attribute, name: k8s.namespace.name}]}, \
                    {sources: [{from: resource_attribute, name: container.id}]}, {sources: [{from: connection}]}]}";
    let processor = processor(settings, vec![pod("web-1", "10.0.0.7"), pod("web-2", "10.0.0.8")]);
    let uid = |attributes| enriched(&processor, "10.0.0.8", attributes).remove("k8s.pod.uid");
    let named = vec![attribute("k8s.pod.name", "web-1"), attribute("k8s.namespace.name", "shop")];
    assert_eq!(uid(named).as_deref(), Some("uid-web-1"));
    assert_eq!(uid(vec![attribute("k8s.pod.name", "web-1")]).as_deref(), Some("uid-web-2"), "one source is missing");
    let elsewhere = vec![attribute("k8s.pod.name", "web-1"), attribute("k8s.namespace.name", "other")];
    assert_eq!(uid(elsewhere), None, "the rule counts, and no pod meets it");
}

#[test]
fn passthrough_puts_the_address_on_and_asks_nobody() {
    let processor = processor("{passthrough: true}", vec![]);
    assert_eq!(enriched(&processor, "10.0.0.7", vec![]), map([("k8s.pod.ip", "10.0.0.7")]));
    let said = vec![attribute("k8s.pod.ip", "10.1.1.1")];
    assert_eq!(enriched(&processor, "10.0.0.7", said), map([("k8s.pod.ip", "10.1.1.1")]));
}

#[test]
fn excluded_pods_and_those_that_say_so_are_not_known() {
    let mut shy = pod("web-2", "10.0.0.8");
    let annotations = shy.metadata.annotations.get_or_insert_default();
    annotations.insert("opentelemetry.io/k8s-processor/ignore".to_owned(), " True".to_owned());
    let processor = processor("{exclude: {pods: [{name: ^web-1}]}}", vec![pod("web-1", "10.0.0.7"), shy]);
    assert_eq!(enriched(&processor, "10.0.0.7", vec![]), map([]));
    assert_eq!(enriched(&processor, "10.0.0.8", vec![]), map([]));
}

#[test]
fn a_pod_that_is_gone_is_known_for_a_while_unless_its_address_is_anothers() {
    let processor =
        processor("{extract: {metadata: [k8s.pod.name]}}", vec![pod("old", "10.0.0.7"), pod("gone", "10.0.0.9")]);
    let name = |peer| enriched(&processor, peer, vec![]).remove("k8s.pod.name");
    processor.table.saw_pod(Seen::Gone(pod("gone", "10.0.0.9")));
    assert_eq!(name("10.0.0.9").as_deref(), Some("gone"));
    let mut young = pod("young", "10.0.0.7");
    let status = young.status.get_or_insert_default();
    status.start_time = serde_json::from_value(json!("2026-01-02T03:05:00Z")).unwrap();
    processor.table.saw_pod(Seen::Present(young));
    assert_eq!(name("10.0.0.7").as_deref(), Some("young"));
    processor.table.saw_pod(Seen::Present(pod("old", "10.0.0.7")));
    assert_eq!(name("10.0.0.7").as_deref(), Some("young"), "a late word about the older one");
}

#[test]
fn what_a_new_list_does_not_name_goes_after_the_grace_period() {
    let settings = "{extract: {metadata: [k8s.pod.name]}, pod_delete_grace_period: 0s}";
    let processor = processor(settings, vec![pod("a", "10.0.0.1"), pod("b", "10.0.0.2")]);
    let name = |peer| enriched(&processor, peer, vec![]).remove("k8s.pod.name");
    processor.table.saw_pod(Seen::ListBegins);
    processor.table.saw_pod(Seen::Present(pod("b", "10.0.0.2")));
    processor.table.saw_pod(Seen::ListEnds);
    processor.table.tick();
    assert_eq!((name("10.0.0.1"), name("10.0.0.2").as_deref()), (None, Some("b")));
}

/// A cluster that is asked and never answers; nothing real can be made to do that on demand.
struct Silent;

impl ClusterView for Silent {
    fn follow(
        &self,
        _: Wanted,
        _: Arc<dyn Observer>,
        shutdown: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { shutdown.cancelled().await })
    }

    fn node_uid(&self, _: String) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_pipeline_does_not_start_without_what_it_was_told_to_wait_for() {
    let start = async |text: &str, surroundings: &Surroundings| {
        let settings = decoded_settings(text, K8sAttributesSettings::decode);
        K8sAttributes::start(&settings, surroundings, &TaskTracker::new(), &CancellationToken::new()).await.map(drop)
    };
    let error = start("{}", &Surroundings::default()).await.unwrap_err();
    assert!(error.contains("there is no access to a cluster"), "{error}");
    assert_eq!(start("{passthrough: true}", &Surroundings::default()).await, Ok(()));
    let silent = Surroundings { cluster: Some(Arc::new(Silent)) };
    assert_eq!(start("{}", &silent).await, Ok(()));
    let error = start("{wait_for_metadata: true, wait_for_metadata_timeout: 10ms}", &silent).await.unwrap_err();
    assert!(error.contains("listed nothing within 10ms"), "{error}");
    let error = start("{filter: {node_from_env_var: NO_SUCH_VARIABLE}}", &silent).await.unwrap_err();
    assert!(error.contains("NO_SUCH_VARIABLE is not set"), "{error}");
}

#[test]
fn filters_become_selectors() {
    let settings = "{filter: {node: n1, namespace: shop, labels: [{key: a, value: b}, {key: c, op: exists}, \
                    {key: d, op: does-not-exist}, {key: e, value: f, op: not-equals}], fields: [{key: status.phase, value: Running}]}}";
    let settings = decoded_settings(settings, K8sAttributesSettings::decode);
    let wanted = settings.wanted();
    assert_eq!((wanted.namespace.as_deref(), wanted.labels.as_str()), (Some("shop"), "a=b,c,!d,e!=f"));
    assert_eq!(settings.filter.field_selector().as_deref(), Ok("status.phase=Running,spec.nodeName=n1"));
    assert_eq!((wanted.namespaces, wanted.nodes), (false, false));
    assert_eq!(settings.pod_delete_grace_period, Duration::from_secs(120));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let errors = |text: &str| errors_of(text, |section| drop(K8sAttributesSettings::decode(section)));
    let cases = [
        ("{extract: {metadata: [k8s.deployment.uid]}}", "extract::metadata: k8s.deployment.uid is not supported"),
        (
            "{extract: {metadata: [k8s.pod.nam]}}",
            "extract::metadata: \"k8s.pod.nam\" is not a supported metadata field (did you mean \"k8s.pod.name\"?)",
        ),
        (
            "{extract: {deployment_name_from_replicaset: false}}",
            "extract::deployment_name_from_replicaset: not supported",
        ),
        (
            "{extract: {labels: [{key: a, from: deployment}]}}",
            "extract::labels::0::from: \"deployment\" is not supported",
        ),
        (
            "{extract: {labels: [{key: a, key_regex: b}]}}",
            "extract::labels::0::key_regex: cannot be given together with key",
        ),
        ("{extract: {annotations: [{tag_name: a}]}}", "extract::annotations::0::key: is missing"),
        ("{extract: {labels: [{key_regex: \"(\"}]}}", "extract::labels::0::key_regex: is no valid pattern"),
        ("{filter: {fields: [{key: a, op: exists}]}}", "filter::fields::0::op: \"exists\" is not one of its values"),
        ("{filter: {labels: [{key: \"a,b\"}]}}", "filter::labels::0::key: a key or value of a selector"),
        (
            "{pod_association: [{sources: [{from: build_hostname}]}]}",
            "pod_association::0::sources::0::from: \"build_hostname\" is not",
        ),
        (
            "{pod_association: [{sources: [{from: resource_attribute}]}]}",
            "pod_association::0::sources::0::name: is missing",
        ),
    ];
    for (text, expected) in cases {
        let said = errors(text);
        assert!(said.len() == 1 && said[0].starts_with(expected), "{text}: {said:?}");
    }
}
