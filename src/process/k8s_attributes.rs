//! The `k8s_attributes` processor: what the cluster knows about the pod that spans come from, on their resource.
//!
//! ```text
//! API server ─▶ Observer ─▶ Table: identifiers ─▶ pod's attributes        edit: resource, peer ─▶ identifier ─▶ Table
//! ```
//!
//! Attributes are made when a pod is seen, by the rules of the configuration, so that a pod takes no more memory than what
//! is wanted of it, and a resource costs one look-up. What a resource says itself is never overwritten.

mod association;
mod extract;
pub mod settings;
mod table;
#[cfg(test)]
mod tests;

use self::association::Identifier;
use self::settings::K8sAttributesSettings;
use self::table::{Container, Facts, Table};
use super::client::Client;
use super::surroundings::{Surroundings, Wanted};
use super::{Processor, ResourceEditor};
use crate::otlp::edit::{Attributes, Value};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const POD_IP: &str = "k8s.pod.ip";
const NAMESPACE: &str = "k8s.namespace.name";
const NODE: &str = "k8s.node.name";

/// One instance per pipeline, with a watch of its own: each has its own selectors.
#[derive(Debug)]
pub struct K8sAttributes {
    settings: K8sAttributesSettings,
    table: Arc<Table>,
}

impl K8sAttributes {
    /// Begins to follow the cluster, until `shutdown`; waits for the first whole list if configured so.
    ///
    /// # Errors
    /// There is no cluster to follow, or it did not answer in time; in one line.
    pub async fn start(
        settings: &K8sAttributesSettings,
        surroundings: &Surroundings,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Self, String> {
        let table = Arc::new(Table::new(settings.clone()));
        let processor = Self { settings: settings.clone(), table: Arc::clone(&table) };
        if settings.passthrough {
            return Ok(processor);
        }
        let Some(cluster) = &surroundings.cluster else {
            return Err(
                "there is no access to a cluster; run in one or with --kubeconfig, or set passthrough: true, which \
                        needs none"
                    .to_owned(),
            );
        };
        let wanted = Wanted { fields: settings.filter.field_selector()?, ..settings.wanted() };
        tasks.spawn(cluster.follow(wanted, Arc::clone(&table) as _, shutdown.clone()));
        if let Some(timeout) = settings.wait_for_metadata {
            let complete = table.complete();
            if tokio::time::timeout(timeout, complete).await.is_err() {
                return Err(format!("the API server listed nothing within {timeout:?} (wait_for_metadata)"));
            }
        }
        Ok(processor)
    }

    fn describe(&self, attributes: &mut Attributes<'_>, client: &Client) {
        let identifier = association::identify(&self.settings.associations, attributes, client);
        let address = identifier.as_ref().and_then(Identifier::address);
        if let Some(address) = address.filter(|_| self.settings.passthrough || self.settings.extract.pod_ip) {
            set(attributes, POD_IP, address);
        }
        if self.settings.passthrough {
            return;
        }
        let pod = identifier.and_then(|identifier| self.table.pod(&identifier));
        if let Some(pod) = &pod {
            set_all(attributes, &pod.attributes);
            if let Some(container) = container_of(pod, attributes) {
                set_container(attributes, container);
            }
        }
        let named = |known: Option<&str>, key: &str, attributes: &Attributes<'_>| {
            let known = known.filter(|name| !name.is_empty()).map(str::to_owned);
            known.or_else(|| attributes.get(key)?.as_text().map(str::to_owned))
        };
        if let Some(namespace) = named(pod.as_ref().map(|pod| pod.namespace.as_str()), NAMESPACE, attributes) {
            if let Some(found) = self.table.namespace(&namespace) {
                set_all(attributes, &found);
            }
            if self.settings.extract.service_namespace {
                set(attributes, "service.namespace", &namespace);
            }
        }
        if let Some(node) = named(pod.as_ref().map(|pod| pod.node.as_str()), NODE, attributes)
            && let Some(found) = self.table.node(&node)
        {
            set_all(attributes, &found);
        }
        if self.settings.extract.cluster_uid
            && let Some(uid) = self.table.cluster_uid()
        {
            set(attributes, "k8s.cluster.uid", &uid);
        }
    }
}

impl Processor for K8sAttributes {
    fn resource_editor(&self) -> Option<&dyn ResourceEditor> {
        Some(self)
    }
}

impl ResourceEditor for K8sAttributes {
    fn edit_resource<'a>(&'a self, attributes: &mut Attributes<'a>, client: &'a Client) {
        self.describe(attributes, client);
    }
}

/// Never overwrites, but for an empty text.
fn set(attributes: &mut Attributes<'_>, key: &str, value: &str) {
    let free = match attributes.get(key) {
        None | Some(Value::Empty) => true,
        Some(Value::Text(text)) => text.is_empty(),
        Some(_) => false,
    };
    if free {
        attributes.upsert(key.to_owned(), Value::from(value.to_owned()));
    }
}

fn set_all(attributes: &mut Attributes<'_>, found: &[(String, String)]) {
    found.iter().for_each(|(key, value)| set(attributes, key, value));
}

/// The container that the resource names, by name or id; the only one if it names none.
fn container_of<'p>(pod: &'p Facts, attributes: &Attributes<'_>) -> Option<&'p Container> {
    let text = |key| attributes.get(key).and_then(Value::as_text).filter(|text| !text.is_empty());
    if let Some(name) = text("k8s.container.name") {
        return pod.containers.iter().find(|container| container.name == name);
    }
    if let Some(id) = text("container.id") {
        return pod.containers.iter().find(|container| container.runs.iter().any(|run| run.id == id));
    }
    match pod.containers.as_slice() {
        [only] => Some(only),
        _ => None,
    }
}

fn set_container(attributes: &mut Attributes<'_>, container: &Container) {
    set_all(attributes, &container.attributes);
    let restarts = match attributes.get("k8s.container.restart_count") {
        Some(Value::Int(count)) => Some(*count),
        Some(Value::Text(text)) => text.parse().ok(),
        _ => None,
    };
    let run = match restarts {
        Some(restarts) => container.runs.iter().find(|run| run.restarts == restarts),
        // The last one is the one that runs.
        None => container.runs.iter().max_by_key(|run| run.restarts),
    };
    let Some(run) = run else { return };
    if container.wants_id {
        set(attributes, "container.id", &run.id);
    }
    if let Some(digest) = &run.repo_digest {
        let digests = Value::List(vec![Value::from(digest.clone())].into());
        attributes.insert("container.image.repo_digests", digests);
    }
}
