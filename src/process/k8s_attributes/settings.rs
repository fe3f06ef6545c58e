//! Settings of the `k8s_attributes` processor, with the Collector's names, defaults and checks.

use crate::config::{Declaration, Section, Shape, Stability, nearest};
use crate::otlp::Signal;
use crate::process::pattern::Pattern;
use crate::process::settings::ProcessorSettings;
use crate::process::surroundings::Wanted;
use std::time::Duration;

/// The `k8s_attributes` processor.
pub const DECLARATION: Declaration<ProcessorSettings> = Declaration::new(
    "k8s_attributes",
    Stability::Beta,
    "Adds what the cluster knows about a span's pod to its resource.",
    |section| ProcessorSettings::K8sAttributes(Box::new(K8sAttributesSettings::decode(section))),
)
.with_aliases(&["k8sattributes"])
.serving(&Signal::ALL);

/// Sources of one association, as in the Collector.
const SOURCES_MAX: usize = 4;

/// `processors::k8s_attributes`.
#[derive(Debug, Clone, PartialEq)]
pub struct K8sAttributesSettings {
    /// Only the connection's address is put on, as `k8s.pod.ip`; no access to a cluster is needed. Default false.
    pub passthrough: bool,
    pub extract: Extract,
    pub filter: Filter,
    /// `pod_association`: rules in order, each a list of sources. Default: the address.
    pub associations: Vec<Vec<Source>>,
    /// `exclude::pods`: pods with such a name are not known. Default: jaeger-agent, jaeger-collector.
    pub exclude: Vec<Pattern>,
    /// How long a pipeline waits at its start for the first list, if it does. Default: not at all.
    pub wait_for_metadata: Option<Duration>,
    /// A pod that is gone is known for so long. Default 2 min.
    pub pod_delete_grace_period: Duration,
}

/// What is put on a resource. Each flag is an attribute.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Extract {
    pub namespace: bool,
    pub pod_name: bool,
    pub pod_uid: bool,
    pub pod_hostname: bool,
    pub pod_ip: bool,
    pub pod_start_time: bool,
    pub node: bool,
    pub node_uid: bool,
    pub deployment_name: bool,
    pub replicaset_name: bool,
    pub replicaset_uid: bool,
    pub daemonset_name: bool,
    pub daemonset_uid: bool,
    pub statefulset_name: bool,
    pub statefulset_uid: bool,
    pub job_name: bool,
    pub job_uid: bool,
    pub cronjob_name: bool,
    pub cluster_uid: bool,
    pub container_name: bool,
    pub container_id: bool,
    pub image_name: bool,
    pub image_tag: bool,
    pub repo_digests: bool,
    pub service_name: bool,
    pub service_namespace: bool,
    pub service_version: bool,
    pub service_instance_id: bool,
    pub labels: Vec<Rule>,
    /// `otel_annotations` is one of them.
    pub annotations: Vec<Rule>,
}

/// Labels or annotations that become attributes.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// With a pattern: a template for its groups. Empty: `k8s.pod.labels.<key>`.
    pub tag_name: String,
    pub key: String,
    /// Instead of a key; the whole key must match.
    pub pattern: Option<Pattern>,
    pub from: From,
}

/// Whose labels or annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Pod,
    Namespace,
    Node,
}

/// Which pods are followed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    pub node: Option<String>,
    /// The variable that names the node; wins over `node`.
    pub node_from_env_var: Option<String>,
    pub namespace: Option<String>,
    /// Selectors in the API server's own writing.
    pub labels: Vec<String>,
    pub fields: Vec<String>,
}

/// Where a part of what names a pod comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The address of the other end of the connection.
    Connection,
    /// An attribute of the resource.
    Attribute(String),
}

type Flag = fn(&mut Extract) -> &mut bool;

/// The attributes of `extract::metadata`.
const METADATA: &[(&str, Flag)] = &[
    ("k8s.namespace.name", |extract| &mut extract.namespace),
    ("k8s.pod.name", |extract| &mut extract.pod_name),
    ("k8s.pod.uid", |extract| &mut extract.pod_uid),
    ("k8s.pod.hostname", |extract| &mut extract.pod_hostname),
    ("k8s.pod.ip", |extract| &mut extract.pod_ip),
    ("k8s.pod.start_time", |extract| &mut extract.pod_start_time),
    ("k8s.node.name", |extract| &mut extract.node),
    ("k8s.node.uid", |extract| &mut extract.node_uid),
    ("k8s.deployment.name", |extract| &mut extract.deployment_name),
    ("k8s.replicaset.name", |extract| &mut extract.replicaset_name),
    ("k8s.replicaset.uid", |extract| &mut extract.replicaset_uid),
    ("k8s.daemonset.name", |extract| &mut extract.daemonset_name),
    ("k8s.daemonset.uid", |extract| &mut extract.daemonset_uid),
    ("k8s.statefulset.name", |extract| &mut extract.statefulset_name),
    ("k8s.statefulset.uid", |extract| &mut extract.statefulset_uid),
    ("k8s.job.name", |extract| &mut extract.job_name),
    ("k8s.job.uid", |extract| &mut extract.job_uid),
    ("k8s.cronjob.name", |extract| &mut extract.cronjob_name),
    ("k8s.cluster.uid", |extract| &mut extract.cluster_uid),
    ("k8s.container.name", |extract| &mut extract.container_name),
    ("container.id", |extract| &mut extract.container_id),
    ("container.image.name", |extract| &mut extract.image_name),
    ("container.image.tag", |extract| &mut extract.image_tag),
    ("container.image.repo_digests", |extract| &mut extract.repo_digests),
    ("service.name", |extract| &mut extract.service_name),
    ("service.namespace", |extract| &mut extract.service_namespace),
    ("service.version", |extract| &mut extract.service_version),
    ("service.instance.id", |extract| &mut extract.service_instance_id),
];

const METADATA_DEFAULT: [&str; 8] = [
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.pod.start_time",
    "k8s.deployment.name",
    "k8s.node.name",
    "container.image.name",
    "container.image.tag",
];

/// Attributes of the Collector that would take watches on all ReplicaSets and Jobs.
const METADATA_UNSUPPORTED: [&str; 2] = ["k8s.deployment.uid", "k8s.cronjob.uid"];

/// The name to come of `container.image.tag`, whose value is a list.
const METADATA_GATED: &str = "container.image.tags";

impl K8sAttributesSettings {
    pub(super) fn decode(section: &mut Section<'_>) -> Self {
        let why = "Spanreel uses the access to the cluster that it has anyway";
        section.inert_but("auth_type", Shape::Text, &["serviceAccount"], why);
        for key in ["context", "kube_api_qps", "kube_api_burst"] {
            section.inert(key, Shape::Any, why);
        }
        section.inert("watch_sync_period", Shape::Duration, "a watch that missed something lists anew by itself");
        let wait = section.bool("wait_for_metadata", false);
        let timeout = section.duration("wait_for_metadata_timeout", Duration::from_secs(10));
        Self {
            passthrough: section.bool("passthrough", false),
            extract: section.section("extract", Extract::decode),
            filter: section.section("filter", Filter::decode),
            associations: associations(section),
            exclude: section.section("exclude", excluded),
            wait_for_metadata: wait.then_some(timeout),
            pod_delete_grace_period: section.duration("pod_delete_grace_period", Duration::from_secs(120)),
        }
    }

    /// What is to be followed, but for the fields that the environment names.
    pub fn wanted(&self) -> Wanted {
        let rules = || self.extract.labels.iter().chain(&self.extract.annotations);
        Wanted {
            namespace: self.filter.namespace.clone(),
            fields: String::new(),
            labels: self.filter.labels.join(","),
            namespaces: self.extract.cluster_uid || rules().any(|rule| rule.from == From::Namespace),
            nodes: self.extract.node_uid || rules().any(|rule| rule.from == From::Node),
        }
    }
}

impl Extract {
    fn decode(section: &mut Section<'_>) -> Self {
        let mut extract = Self::default();
        let written = section.has("metadata");
        let names = section.list("metadata");
        let defaults = || METADATA_DEFAULT.map(str::to_owned).to_vec();
        for name in if written { names } else { defaults() } {
            match METADATA.iter().find(|(known, _)| *known == name) {
                Some((_, flag)) => *flag(&mut extract) = true,
                None if name == METADATA_GATED => {
                    let reason = "container.image.tags is not put on: a Collector does so behind a feature gate alone";
                    section.note("metadata", reason);
                }
                None if METADATA_UNSUPPORTED.contains(&name.as_str()) => {
                    let reason = format!("{name} is not supported: it would take watching all ReplicaSets or Jobs");
                    section.error("metadata", reason, "the name is supported: k8s.deployment.name, k8s.cronjob.name");
                }
                None => {
                    let known = METADATA.iter().map(|(known, _)| *known);
                    let remedy = match nearest(&name, known.clone()) {
                        Some(close) => format!("did you mean {close:?}?"),
                        None => format!("one of: {}", known.collect::<Vec<_>>().join(", ")),
                    };
                    section.error("metadata", format!("{name:?} is not a supported metadata field"), remedy);
                }
            }
        }
        let why = "deployments are told by the names of their ReplicaSets; all of them would have to be watched";
        section.only("deployment_name_from_replicaset", &["true"], why, "remove it");
        extract.labels = section.sections("labels", Rule::decode).into_iter().flatten().collect();
        extract.annotations = section.sections("annotations", Rule::decode).into_iter().flatten().collect();
        if section.bool("otel_annotations", false) {
            extract.annotations.extend(Rule::otel());
        }
        extract
    }

    pub fn wants_containers(&self) -> bool {
        self.container_name
            || self.container_id
            || self.image_name
            || self.image_tag
            || self.repo_digests
            || self.service_version
            || self.service_instance_id
    }
}

impl Rule {
    /// Annotations that are meant to become attributes.
    fn otel() -> Option<Self> {
        let pattern = Pattern::compile("^resource\\.opentelemetry\\.io/(.+)$").ok()?;
        Some(Self { tag_name: "$1".to_owned(), key: String::new(), pattern: Some(pattern), from: From::Pod })
    }

    fn decode(section: &mut Section<'_>) -> Option<Self> {
        let (tag_name, key) = (section.text("tag_name", ""), section.text("key", ""));
        let key_regex = section.text("key_regex", "");
        let words = [("", From::Pod), ("pod", From::Pod), ("namespace", From::Namespace), ("node", From::Node)];
        let from = section.text("from", "pod");
        let found = words.iter().find(|(word, _)| *word == from).map(|(_, from)| *from);
        let workloads = ["deployment", "statefulset", "daemonset", "job", "replicaset", "cronjob"];
        match (key.is_empty(), key_regex.is_empty()) {
            (true, true) => section.error("key", "is missing", "give a key or a key_regex"),
            (false, false) => section.error("key_regex", "cannot be given together with key", "keep one of them"),
            _ => {}
        }
        if found.is_none() {
            let remedy = "supported: pod, namespace, node";
            let reason = match workloads.contains(&from.as_str()) {
                true => format!("{from:?} is not supported: all of them would have to be watched"),
                false => format!("{from:?} is not one of its values"),
            };
            section.error("from", reason, remedy);
        }
        section.unsupported("regex", "the Collector gave it up", "use the transform processor");
        let whole = (!key_regex.is_empty()).then(|| format!("^(?:{key_regex})$"));
        let pattern = whole.and_then(|text| Pattern::reported(section, "key_regex", &text));
        section.is_sound().then_some(())?;
        Some(Self { tag_name, key, pattern, from: found? })
    }
}

impl From {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Namespace => "namespace",
            Self::Node => "node",
        }
    }
}

impl Filter {
    fn decode(section: &mut Section<'_>) -> Self {
        let text = |section: &mut Section<'_>, key| Some(section.text(key, "")).filter(|text| !text.is_empty());
        let label_operators = ["equals", "not-equals", "exists", "does-not-exist"];
        Self {
            node: text(section, "node"),
            node_from_env_var: text(section, "node_from_env_var"),
            namespace: text(section, "namespace"),
            labels: section.sections("labels", |section| selector(section, &label_operators)),
            fields: section.sections("fields", |section| selector(section, &label_operators[..2])),
        }
    }

    /// The fields with the node in them, which the environment may name.
    ///
    /// # Errors
    /// The variable is not set.
    pub fn field_selector(&self) -> Result<String, String> {
        let node = match &self.node_from_env_var {
            Some(variable) => match std::env::var(variable) {
                Ok(node) => Some(node).filter(|node| !node.is_empty()),
                Err(_) => {
                    return Err(format!(
                        "filter::node_from_env_var: the environment variable {variable} is not set; give it the pod's \
                         spec.nodeName (downward API)"
                    ));
                }
            },
            None => self.node.clone(),
        };
        let node = node.map(|node| format!("spec.nodeName={node}"));
        Ok(self.fields.iter().cloned().chain(node).collect::<Vec<_>>().join(","))
    }
}

/// One requirement, as the API server writes it.
fn selector(section: &mut Section<'_>, operators: &[&str]) -> String {
    let key = section.required_text("key", "name it");
    let value = section.text("value", "");
    let operator = section.text("op", "equals");
    // What would end the requirement early.
    if [&key, &value].iter().any(|text| text.contains([',', '=', '!', '(', ')', ' '])) {
        section.error("key", "a key or value of a selector has none of , = ! ( ) and no spaces", "");
    }
    if !operator.is_empty() && !operators.contains(&operator.as_str()) {
        section.error(
            "op",
            format!("{operator:?} is not one of its values"),
            format!("one of: {}", operators.join(", ")),
        );
    }
    match operator.as_str() {
        "not-equals" => format!("{key}!={value}"),
        "exists" => key,
        "does-not-exist" => format!("!{key}"),
        _ => format!("{key}={value}"),
    }
}

fn associations(section: &mut Section<'_>) -> Vec<Vec<Source>> {
    let mut rules = section.sections("pod_association", |section| {
        let sources: Vec<Option<Source>> = section.sections("sources", |section| {
            let from = section.text("from", "");
            let name = section.text("name", "");
            match from.as_str() {
                "connection" => Some(Source::Connection),
                "resource_attribute" if name.is_empty() => {
                    section.error("name", "is missing", "name the attribute, e.g. k8s.pod.uid");
                    None
                }
                "resource_attribute" => Some(Source::Attribute(name)),
                other => {
                    let reason = format!("{other:?} is not one of its values");
                    section.error("from", reason, "one of: resource_attribute, connection");
                    None
                }
            }
        });
        if sources.len() > SOURCES_MAX {
            section.error("sources", format!("has more than {SOURCES_MAX} sources"), "");
        }
        if sources.is_empty() && section.is_sound() {
            section.error("sources", "is missing", "e.g. [{from: resource_attribute, name: k8s.pod.ip}]");
        }
        sources.into_iter().flatten().collect::<Vec<Source>>()
    });
    // What a resource is looked up by is the same in any order of the sources.
    let sorted: Vec<Vec<Source>> = rules
        .iter()
        .cloned()
        .map(|mut rule| {
            rule.sort_unstable();
            rule
        })
        .collect();
    if let Some(twice) = (1..sorted.len()).find(|at| sorted[..*at].contains(&sorted[*at])) {
        if section.is_sound() {
            section.error("pod_association", format!("rule {twice} says what an earlier one says"), "remove it");
        }
        rules.truncate(twice);
    }
    rules
}

fn excluded(section: &mut Section<'_>) -> Vec<Pattern> {
    let names = section.sections("pods", |section| {
        let name = section.required_text("name", "a pattern for pods' names");
        Pattern::reported(section, "name", &name)
    });
    let defaults = || ["jaeger-agent", "jaeger-collector"].map(|name| Pattern::compile(name).ok()).to_vec();
    if names.is_empty() { defaults() } else { names }.into_iter().flatten().collect()
}
