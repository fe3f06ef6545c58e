//! Attributes out of Kubernetes objects, by the rules of the configuration. Pure functions.

use super::settings::{Extract, From, K8sAttributesSettings, Rule};
use super::table::{Container, Facts, Run};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;

/// A pod with this annotation wants to be left alone.
const IGNORE: &str = "opentelemetry.io/k8s-processor/ignore";

type Texts = BTreeMap<String, String>;

/// `None`: the pod is to be ignored.
pub fn pod(settings: &K8sAttributesSettings, pod: &Pod) -> Option<Facts> {
    let meta = &pod.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let ignored = annotation(meta, IGNORE).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    if ignored || settings.exclude.iter().any(|pattern| pattern.is_match(&name)) {
        return None;
    }
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let address = status.and_then(|status| status.pod_ip.clone()).unwrap_or_default();
    let started = status.and_then(|status| status.start_time.as_ref()).map_or(0, |time| time.0.as_second());
    Some(Facts {
        namespace: meta.namespace.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        started,
        attributes: attributes(&settings.extract, pod, &name, &address),
        containers: containers(&settings.extract, pod),
        name,
        address,
    })
}

pub fn namespace(settings: &K8sAttributesSettings, meta: &ObjectMeta) -> Vec<(String, String)> {
    let mut found = Texts::new();
    by_rules(&settings.extract, From::Namespace, meta, &mut found);
    found.into_iter().collect()
}

pub fn node(settings: &K8sAttributesSettings, meta: &ObjectMeta) -> Vec<(String, String)> {
    let mut found = Texts::new();
    if let Some(uid) = meta.uid.clone().filter(|_| settings.extract.node_uid) {
        found.insert("k8s.node.uid".to_owned(), uid);
    }
    by_rules(&settings.extract, From::Node, meta, &mut found);
    found.into_iter().collect()
}

fn annotation<'m>(meta: &'m ObjectMeta, key: &str) -> Option<&'m str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

fn label<'m>(meta: &'m ObjectMeta, key: &str) -> Option<&'m str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn attributes(extract: &Extract, pod: &Pod, name: &str, address: &str) -> Vec<(String, String)> {
    let (meta, spec) = (&pod.metadata, pod.spec.as_ref());
    let mut found = Texts::new();
    let mut put = |wanted: bool, key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| wanted && !value.is_empty()) {
            found.insert(key.to_owned(), value.to_owned());
        }
    };
    put(extract.pod_name, "k8s.pod.name", Some(name));
    put(extract.pod_uid, "k8s.pod.uid", meta.uid.as_deref());
    put(extract.pod_hostname, "k8s.pod.hostname", spec.and_then(|spec| spec.hostname.as_deref()));
    put(extract.pod_ip, "k8s.pod.ip", Some(address));
    put(extract.namespace, "k8s.namespace.name", meta.namespace.as_deref());
    put(extract.service_namespace, "service.namespace", meta.namespace.as_deref());
    put(extract.node, "k8s.node.name", spec.and_then(|spec| spec.node_name.as_deref()));
    let created = meta.creation_timestamp.as_ref().map(|time| time.0.to_string());
    put(extract.pod_start_time, "k8s.pod.start_time", created.as_deref());
    put(extract.service_name, "service.name", Some(name));
    for owner in meta.owner_references.iter().flatten() {
        by_owner(extract, owner, &mut put);
    }
    by_label_rules(extract, From::Pod, meta, &mut found);
    let well_known = |key: &str| label(meta, key).map(str::to_owned);
    if extract.service_name {
        // The instance is more exact than the name.
        for key in ["app.kubernetes.io/name", "app.kubernetes.io/instance"] {
            found.extend(well_known(key).map(|value| ("service.name".to_owned(), value)));
        }
    }
    if extract.service_version {
        found.extend(well_known("app.kubernetes.io/version").map(|value| ("service.version".to_owned(), value)));
    }
    by_annotation_rules(extract, From::Pod, meta, &mut found);
    found.into_iter().collect()
}

fn by_owner(extract: &Extract, owner: &OwnerReference, put: &mut impl FnMut(bool, &str, Option<&str>)) {
    let (name, uid) = (Some(owner.name.as_str()), Some(owner.uid.as_str()));
    match owner.kind.as_str() {
        "ReplicaSet" => {
            put(extract.replicaset_name, "k8s.replicaset.name", name);
            put(extract.replicaset_uid, "k8s.replicaset.uid", uid);
            put(extract.service_name, "service.name", name);
            // A Deployment names its ReplicaSets by itself and a hash.
            let hash = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let deployment = owner.name.rsplit_once('-').filter(|(_, tail)| hash(tail)).map(|(name, _)| name);
            put(extract.deployment_name, "k8s.deployment.name", deployment);
            put(extract.service_name, "service.name", deployment);
        }
        "DaemonSet" => {
            put(extract.daemonset_name, "k8s.daemonset.name", name);
            put(extract.daemonset_uid, "k8s.daemonset.uid", uid);
            put(extract.service_name, "service.name", name);
        }
        "StatefulSet" => {
            put(extract.statefulset_name, "k8s.statefulset.name", name);
            put(extract.statefulset_uid, "k8s.statefulset.uid", uid);
            put(extract.service_name, "service.name", name);
        }
        "Job" => {
            put(extract.job_name, "k8s.job.name", name);
            put(extract.job_uid, "k8s.job.uid", uid);
            put(extract.service_name, "service.name", name);
            // A CronJob names its Jobs by itself and a time.
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let cron_job = owner.name.rsplit_once('-').filter(|(_, tail)| digits(tail)).map(|(name, _)| name);
            put(extract.cronjob_name, "k8s.cronjob.name", cron_job);
            put(extract.service_name, "service.name", cron_job);
        }
        _ => {}
    }
}

fn by_rules(extract: &Extract, from: From, meta: &ObjectMeta, found: &mut Texts) {
    by_label_rules(extract, from, meta, found);
    by_annotation_rules(extract, from, meta, found);
}

fn by_label_rules(extract: &Extract, from: From, meta: &ObjectMeta, found: &mut Texts) {
    let rules = extract.labels.iter().filter(|rule| rule.from == from);
    rules.for_each(|rule| by_rule(rule, "labels", meta.labels.as_ref(), found));
}

fn by_annotation_rules(extract: &Extract, from: From, meta: &ObjectMeta, found: &mut Texts) {
    let rules = extract.annotations.iter().filter(|rule| rule.from == from);
    rules.for_each(|rule| by_rule(rule, "annotations", meta.annotations.as_ref(), found));
}

fn by_rule(rule: &Rule, what: &str, texts: Option<&Texts>, found: &mut Texts) {
    let Some(texts) = texts else { return };
    let default_name = |key: &str| format!("k8s.{}.{what}.{key}", rule.from.as_str());
    match &rule.pattern {
        None => {
            if let Some(value) = texts.get(&rule.key) {
                let name = if rule.tag_name.is_empty() { default_name(&rule.key) } else { rule.tag_name.clone() };
                found.insert(name, value.clone());
            }
        }
        Some(pattern) => {
            for (key, value) in texts.iter().filter(|(_, value)| !value.is_empty()) {
                let Some(groups) = pattern.regex().captures(key) else { continue };
                let mut name = String::new();
                if groups.len() > 1 && !rule.tag_name.is_empty() {
                    groups.expand(&rule.tag_name, &mut name);
                } else {
                    name = default_name(key);
                }
                found.insert(name, value.clone());
            }
        }
    }
}

fn containers(extract: &Extract, pod: &Pod) -> Vec<Container> {
    if !extract.wants_containers() {
        return Vec::new();
    }
    let mut containers: Vec<Container> = Vec::new();
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let specs = spec.map(|spec| spec.containers.iter()).into_iter().flatten().chain(init);
    for spec in specs {
        let mut attributes = Vec::new();
        let mut put = |wanted: bool, key: &str, value: Option<String>| {
            attributes.extend(value.filter(|_| wanted).map(|value| (key.to_owned(), value)));
        };
        let image = spec.image.as_deref().filter(|image| !image.is_empty()).map(Image::parse);
        put(extract.container_name, "k8s.container.name", Some(spec.name.clone()));
        put(extract.image_name, "container.image.name", image.as_ref().map(|image| image.repository.to_owned()));
        let tag = image.as_ref().map(|image| image.tag.unwrap_or("latest").to_owned());
        put(extract.image_tag, "container.image.tag", tag);
        put(extract.service_version, "service.version", image.as_ref().and_then(Image::version));
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        let instance = format!("{namespace}.{pod_name}.{}", spec.name);
        put(extract.service_instance_id, "service.instance.id", Some(instance));
        containers.push(Container {
            name: spec.name.clone(),
            attributes,
            runs: Vec::new(),
            wants_id: extract.container_id,
        });
    }
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let init = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    for status in statuses.chain(init) {
        if let Some(container) = containers.iter_mut().find(|container| container.name == status.name) {
            container.runs.extend(run(extract, status));
        }
    }
    containers
}

fn run(extract: &Extract, status: &ContainerStatus) -> Option<Run> {
    let id = status.container_id.as_deref().filter(|id| !id.is_empty())?;
    // Without the runtime in front: `containerd://`.
    let id = id.split_once("://").map_or(id, |(_, id)| id).to_owned();
    let digest = status.image_id.rsplit_once("://").map_or(status.image_id.as_str(), |(_, image)| image);
    let repo_digest = (extract.repo_digests && digest.contains("@sha256:")).then(|| digest.to_owned());
    Some(Run { restarts: status.restart_count.into(), id, repo_digest })
}

/// An image as a pod names it.
#[derive(Debug, PartialEq, Eq)]
struct Image<'a> {
    repository: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Image<'a> {
    fn parse(image: &'a str) -> Self {
        let (rest, digest) = image.split_once('@').map_or((image, None), |(rest, digest)| (rest, Some(digest)));
        // A colon before the last slash is a registry's port.
        match rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((repository, tag)) => Self { repository, tag: Some(tag), digest },
            None => Self { repository: rest, tag: None, digest },
        }
    }

    fn version(&self) -> Option<String> {
        match (self.tag, self.digest) {
            (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
            (tag, digest) => digest.or(tag).map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_taken_apart() {
        let image = |repository, tag, digest| Image { repository, tag, digest };
        assert_eq!(Image::parse("shop"), image("shop", None, None));
        assert_eq!(Image::parse("reg:5000/a/shop:1.2"), image("reg:5000/a/shop", Some("1.2"), None));
        assert_eq!(Image::parse("reg:5000/a/shop"), image("reg:5000/a/shop", None, None));
        assert_eq!(Image::parse("shop:1@sha256:ab"), image("shop", Some("1"), Some("sha256:ab")));
        assert_eq!(Image::parse("shop:1@sha256:ab").version().as_deref(), Some("1@sha256:ab"));
        assert_eq!(Image::parse("shop@sha256:ab").version().as_deref(), Some("sha256:ab"));
    }
}
