//! A pod's owners, as resource attributes and service names need them.
//!
//! Controllers' pods name their ReplicaSet or Job; the Deployment or CronJob behind it takes a look-up, which a fresh
//! ReplicaSet would often lose against the cache. So the Deployment is derived: its ReplicaSet is called
//! `<deployment>-<pod-template-hash>`, and the pod carries that hash as a label.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// ReplicaSet to Deployment and Job to CronJob are one step each; more cannot be.
const DEPTH_MAX: usize = 3;

/// Owner references of a ReplicaSet or Job that was looked up.
pub type OwnerMap = BTreeMap<OwnerKey, Vec<OwnerReference>>;

/// A ReplicaSet or Job whose own owners matter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerKey {
    pub kind: OwnerKind,
    pub namespace: String,
    pub name: String,
    /// A Deployment that is deleted and made anew has a ReplicaSet of the same name, and another uid.
    pub uid: String,
}

/// Kinds that become resource attributes; all others are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerKind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    CronJob,
    Job,
}

impl OwnerKind {
    /// Which one names the service, if there are several.
    pub(super) const NAMING_ORDER: [Self; 6] =
        [Self::Deployment, Self::ReplicaSet, Self::StatefulSet, Self::DaemonSet, Self::CronJob, Self::Job];

    /// The middle of `k8s.<...>.name`.
    pub(super) fn attribute(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::ReplicaSet => "replicaset",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::CronJob => "cronjob",
            Self::Job => "job",
        }
    }

    /// As manifests write it.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::CronJob => "CronJob",
            Self::Job => "Job",
        }
    }

    fn parse(kind: &str) -> Option<Self> {
        Self::NAMING_ORDER.into_iter().find(|known| known.attribute().eq_ignore_ascii_case(kind))
    }

    fn has_owners(self) -> bool {
        matches!(self, Self::ReplicaSet | Self::Job)
    }
}

/// One owner, direct or not. The uid is empty where it was derived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) kind: OwnerKind,
    pub(super) name: String,
    pub(super) uid: String,
}

/// All owners that are known, direct ones before those behind them.
pub(super) fn of_pod(pod: &Pod, namespace: &str, known: &OwnerMap) -> Vec<Owner> {
    let mut owners = Vec::new();
    let references = pod.metadata.owner_references.as_deref().unwrap_or_default();
    collect(pod, namespace, references, known, DEPTH_MAX, &mut owners);
    owners
}

/// The owner behind all others that are known: what people call the workload.
#[must_use]
pub fn workload(pod: &Pod, namespace: &str, known: &OwnerMap) -> Option<(OwnerKind, String)> {
    let controller = |reference: &&OwnerReference| reference.controller == Some(true);
    let references = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let reference = references.iter().find(controller).or(references.first())?;
    let mut owners = Vec::new();
    collect(pod, namespace, std::slice::from_ref(reference), known, DEPTH_MAX, &mut owners);
    owners.pop().map(|owner| (owner.kind, owner.name))
}

/// Owners whose owners cannot be derived; with `uids` also those that can, as uids cannot.
pub(super) fn look_ups(pod: &Pod, namespace: &str, uids: bool) -> Vec<OwnerKey> {
    let references = pod.metadata.owner_references.iter().flatten();
    references
        .filter_map(|reference| {
            let kind = OwnerKind::parse(&reference.kind).filter(|kind| kind.has_owners())?;
            let derivable = kind == OwnerKind::ReplicaSet && deployment_of(pod, &reference.name).is_some();
            (uids || !derivable).then(|| key(kind, namespace, reference))
        })
        .collect()
}

fn collect(
    pod: &Pod,
    namespace: &str,
    references: &[OwnerReference],
    known: &OwnerMap,
    depth: usize,
    owners: &mut Vec<Owner>,
) {
    for reference in references {
        let Some(kind) = OwnerKind::parse(&reference.kind) else { continue };
        owners.push(Owner { kind, name: reference.name.clone(), uid: reference.uid.clone() });
        if depth == 0 || !kind.has_owners() {
            continue;
        }
        if let Some(behind) = known.get(&key(kind, namespace, reference)) {
            collect(pod, namespace, behind, known, depth - 1, owners);
        } else if kind == OwnerKind::ReplicaSet
            && let Some(name) = deployment_of(pod, &reference.name)
        {
            owners.push(Owner { kind: OwnerKind::Deployment, name: name.to_owned(), uid: String::new() });
        }
    }
}

/// The Deployment's name, if the ReplicaSet's ends in the pod's template hash.
fn deployment_of<'a>(pod: &Pod, replica_set: &'a str) -> Option<&'a str> {
    let hash = pod.metadata.labels.as_ref()?.get(TEMPLATE_HASH_LABEL).filter(|hash| !hash.is_empty())?;
    replica_set.strip_suffix(hash.as_str())?.strip_suffix('-').filter(|name| !name.is_empty())
}

fn key(kind: OwnerKind, namespace: &str, reference: &OwnerReference) -> OwnerKey {
    OwnerKey { kind, namespace: namespace.to_owned(), name: reference.name.clone(), uid: reference.uid.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_successor_of_the_same_name_is_another_owner() {
        let of = |uid: &str| -> OwnerKey {
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": uid});
            let pod = serde_json::from_value(json!({"metadata": {"ownerReferences": [owner]}})).unwrap();
            look_ups(&pod, "ns", true).remove(0)
        };
        assert_ne!(of("old"), of("new"));
    }
}
