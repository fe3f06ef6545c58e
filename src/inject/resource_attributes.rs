//! `OTEL_RESOURCE_ATTRIBUTES` and the service's name, by opentelemetry-operator's rules for resource attributes.
//!
//! Rising precedence: the Instrumentation's attributes, what Kubernetes knows, the pod's `resource.opentelemetry.io/`
//! annotations. Keys in the container's own variable are left to it. Departures from the operator, unless strict
//! compatibility is set: `service.*` attributes of the Instrumentation win over derived ones (there they never counted),
//! nothing is written twice, what is empty is left out, and an empty variable gives no leading comma.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Container;

use super::environment::{Environment, POD_NAME_VARIABLE, POD_UID_VARIABLE, RESOURCE_ATTRIBUTES_VARIABLE, reference};
use super::image;
use super::owners::OwnerKind;
use super::sdk_config::Facts;
use super::targets::NODE_NAME_VARIABLE;

const ANNOTATION_PREFIX: &str = "resource.opentelemetry.io/";
const SERVICE_NAME: &str = "service.name";
const SERVICE_VERSION: &str = "service.version";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_INSTANCE_ID: &str = "service.instance.id";
const NODE_NAME: &str = "k8s.node.name";
const POD_NAME: &str = "k8s.pod.name";
const POD_UID: &str = "k8s.pod.uid";

/// Attributes of one container, before they become text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    service_name: String,
    /// Keys in the container's own variable.
    own: BTreeSet<String>,
    ours: BTreeMap<String, String>,
    strict: bool,
}

impl Attributes {
    pub(super) fn collect(facts: &Facts<'_>, container: &Container, env: &Environment) -> Self {
        let own_value = env.get(RESOURCE_ATTRIBUTES_VARIABLE).and_then(|var| var.value.clone()).unwrap_or_default();
        let mut all =
            Self { service_name: String::new(), own: keys_of(&own_value), ours: BTreeMap::new(), strict: facts.strict };
        for (key, value) in &facts.spec.resource.attributes {
            all.set_given(key, value.clone());
        }
        all.add_kubernetes(facts, container);
        for (key, value) in facts.pod.metadata.annotations.iter().flatten() {
            if let Some(key) = key.strip_prefix(ANNOTATION_PREFIX)
                && key != SERVICE_NAME
            {
                all.set_given(key, value.clone());
            }
        }

        let derived = Derived { facts, container };
        all.service_name = all.named_after(&derived);
        if !facts.strict {
            // Unlike other attributes it may not stand in the list: OTEL_SERVICE_NAME says it.
            all.ours.remove(SERVICE_NAME);
        }
        // At admission the name may not be known yet; the variable is, when the container starts.
        all.refer(POD_NAME, POD_NAME_VARIABLE);
        if let Some(namespace) = derived.chosen(SERVICE_NAMESPACE, None).or_else(|| non_empty(facts.namespace)) {
            all.set(SERVICE_NAMESPACE, namespace);
        }
        if !own_value.contains(SERVICE_VERSION)
            && let Some(version) = derived.service_version()
        {
            all.set(SERVICE_VERSION, version);
        }
        all
    }

    fn add_kubernetes(&mut self, facts: &Facts<'_>, container: &Container) {
        let meta = &facts.pod.metadata;
        self.set("k8s.namespace.name", facts.namespace.to_owned());
        self.set("k8s.container.name", container.name.clone());
        self.set(POD_NAME, meta.name.clone().unwrap_or_default());
        self.set(POD_UID, meta.uid.clone().unwrap_or_default());
        let node = facts.pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        self.set(NODE_NAME, node.unwrap_or_default());
        let derived = Derived { facts, container };
        let instance = derived
            .chosen(SERVICE_INSTANCE_ID, None)
            .unwrap_or_else(|| format!("{}.{}.{}", facts.namespace, reference(POD_NAME_VARIABLE), container.name));
        self.set(SERVICE_INSTANCE_ID, instance);
        for owner in facts.owners {
            let kind = owner.kind.attribute();
            self.set(&format!("k8s.{kind}.name"), owner.name.clone());
            if facts.spec.resource.add_k8s_uid_attributes {
                self.set(&format!("k8s.{kind}.uid"), owner.uid.clone());
            }
        }
    }

    /// Whether the key has a value already. The operator overlooks what the container says itself.
    fn knows(&self, key: &str) -> bool {
        (!self.strict && self.own.contains(key)) || self.ours.get(key).is_some_and(|value| !value.is_empty())
    }

    pub(super) fn knows_pod_uid(&self) -> bool {
        self.knows(POD_UID)
    }

    pub(super) fn knows_node_name(&self) -> bool {
        self.knows(NODE_NAME)
    }

    /// Empty values say nothing, and what the container says itself counts.
    fn set(&mut self, key: &str, value: String) {
        if !value.is_empty() && !self.own.contains(key) {
            self.ours.insert(key.to_owned(), value);
        }
    }

    /// What somebody wrote. The operator writes it even where it is empty.
    fn set_given(&mut self, key: &str, value: String) {
        if self.strict && value.is_empty() && !self.own.contains(key) {
            self.ours.insert(key.to_owned(), value);
        } else {
            self.set(key, value);
        }
    }

    /// The value is that of a variable. The operator writes it even where the container says its own.
    fn refer(&mut self, key: &str, variable: &str) {
        if self.strict {
            self.ours.insert(key.to_owned(), reference(variable));
        } else {
            self.set(key, reference(variable));
        }
    }

    pub(super) fn refer_to_pod_uid(&mut self) {
        self.refer(POD_UID, POD_UID_VARIABLE);
    }

    pub(super) fn refer_to_node_name(&mut self) {
        self.refer(NODE_NAME, NODE_NAME_VARIABLE);
    }

    /// The service's name: what somebody says, else the highest owner's, else the pod's, else the container's.
    fn named_after(&self, derived: &Derived<'_>) -> String {
        let attribute = |key: &str| self.ours.get(key).and_then(|name| non_empty(name));
        let owner = || {
            OwnerKind::NAMING_ORDER.iter().find_map(|kind| {
                // An owner's attribute that the container has itself does not stand among ours; the owner is the same.
                let from_owner = || derived.owner_name(*kind).filter(|_| !self.strict);
                attribute(&format!("k8s.{}.name", kind.attribute())).or_else(from_owner)
            })
        };
        derived
            .said_service_name()
            .or_else(owner)
            .or_else(|| attribute(POD_NAME))
            .or_else(|| derived.pod_name().filter(|_| !self.strict))
            .unwrap_or_else(|| derived.container.name.clone())
    }

    pub(super) fn take_service_name(&mut self) -> String {
        std::mem::take(&mut self.service_name)
    }

    /// `existing` with the pairs behind it, sorted by key. Nothing is escaped.
    pub(super) fn appended_to(&self, existing: Option<&str>) -> String {
        let pairs: Vec<String> = self.ours.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pairs = pairs.join(",");
        match existing {
            None => pairs,
            Some("") if !self.strict => pairs,
            Some(existing) if existing.ends_with(',') || pairs.is_empty() => format!("{existing}{pairs}"),
            Some(existing) => format!("{existing},{pairs}"),
        }
    }
}

/// What follows from the pod where nobody says it.
#[derive(Debug, Clone, Copy)]
struct Derived<'a> {
    facts: &'a Facts<'a>,
    container: &'a Container,
}

impl Derived<'_> {
    /// The pod's annotation, else one of its labels (if labels are to be used), else the Instrumentation's attribute.
    fn chosen(&self, key: &str, labels: Option<&[&str]>) -> Option<String> {
        let meta = &self.facts.pod.metadata;
        let annotation = meta.annotations.as_ref().and_then(|all| all.get(&format!("{ANNOTATION_PREFIX}{key}")));
        let used = self.facts.spec.defaults.use_labels_for_resource_attributes;
        let label = labels
            .unwrap_or_default()
            .iter()
            .filter(|_| used)
            .find_map(|label| meta.labels.as_ref()?.get(*label).filter(|value| !value.is_empty()));
        // The operator derives `service.*` before it looks at these.
        let attribute = self.facts.spec.resource.attributes.get(key).filter(|_| !self.facts.strict);
        annotation.filter(|v| !v.is_empty()).or(label).or(attribute).and_then(|value| non_empty(value))
    }

    fn said_service_name(&self) -> Option<String> {
        self.chosen(SERVICE_NAME, Some(&["app.kubernetes.io/instance", "app.kubernetes.io/name"]))
    }

    fn owner_name(&self, kind: OwnerKind) -> Option<String> {
        self.facts.owners.iter().rev().find(|owner| owner.kind == kind).map(|owner| owner.name.clone())
    }

    fn pod_name(&self) -> Option<String> {
        self.facts.pod.metadata.name.as_deref().and_then(non_empty)
    }

    fn service_version(&self) -> Option<String> {
        self.chosen(SERVICE_VERSION, Some(&["app.kubernetes.io/version"]))
            .or_else(|| image::version(self.container.image.as_deref()?))
    }
}

/// Keys of `a=b,c=d`. A part counts only if it has exactly one `=`, as for the operator.
fn keys_of(value: &str) -> BTreeSet<String> {
    value
        .split(',')
        .filter_map(|part| {
            let (key, value) = part.trim().split_once('=')?;
            (!value.contains('=')).then(|| key.to_owned())
        })
        .collect()
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
