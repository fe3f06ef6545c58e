//! All pods of interest, by workload. Read in pages; what is kept of a pod is small, and of all pods bounded.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};

use super::compare::{Injection, Seen, Wanted};
use super::guard::Guard;
use crate::cluster::webhook::Pods;
use crate::cluster::workloads::Workload;
use crate::inject::{self, OwnerMap, PodRequest};

/// Whole pods are read, some KiB each.
const PAGE_PODS: u32 = 50;
/// With [`PAGE_PODS`] more pods than Kubernetes supports in a cluster.
const PAGES_MAX: usize = 4000;
/// Pods of interest in one round, a few hundred bytes each.
const PODS_MAX: usize = 20_000;
/// Pods that are done are not caught up with.
const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// Younger pods are left for the next round: the watches may be behind them.
const AGE_MIN: SignedDuration = SignedDuration::from_secs(5);
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Pages of one namespace that are looked through for a pod that runs without injection.
const SEARCH_PAGES_MAX: usize = 20;

/// The pods of one workload.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) pods: Vec<Seen>,
    /// Of a pod that is its own workload: what it would be. Others have a template to tell.
    pub(super) wanted: Option<Wanted>,
}

/// One round's pods.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) groups: BTreeMap<Workload, Group>,
    pub(super) left_out: u64,
}

/// Lists all pods that ask for instrumentation or have it; `is_looked_at` says in which namespaces. What others show is
/// evidence for the guard.
///
/// # Errors
/// A page cannot be had; the round is to be tried again.
pub(super) async fn take(
    client: &Client,
    pods: &Pods,
    is_looked_at: impl Fn(&str) -> bool,
    guard: &mut Guard,
    now: Timestamp,
) -> kube::Result<Census> {
    let api: Api<Pod> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE_PODS).fields(UNFINISHED);
    let (mut census, mut kept) = (Census::default(), 0);
    for _ in 0..PAGES_MAX {
        let page = api.list(&params).await?;
        for pod in &page.items {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            if !is_looked_at(namespace) || !is_settled(pod, now) {
                continue;
            }
            let annotations = pods.index.namespace(namespace).unwrap_or_default();
            let asks = asks(pod, namespace, &annotations);
            let seen = Seen::read(pod, now);
            let workload = Workload::of_pod(pod, namespace, &OwnerMap::new());
            guard.look(&workload, &seen);
            if !asks && !seen.is_injected() {
                continue;
            }
            if kept >= PODS_MAX {
                census.left_out += 1;
                continue;
            }
            kept += 1;
            let wanted = match (&seen.injection, workload.kind) {
                (Injection::Ours(record), "Pod") => Some(Wanted::of_injected(record, asks, &pods.index.catalog())),
                (Injection::None, "Pod") => Some(Wanted::of(&pods.decide(&as_new(pod), namespace).await)),
                (Injection::Foreign, "Pod") => Some(Wanted::Untold),
                _ => None,
            };
            let group = census.groups.entry(workload).or_default();
            group.wanted = wanted;
            group.pods.push(seen);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(census),
        }
    }
    census.left_out += 1;
    Ok(census)
}

/// Whether a pod of the workload runs this program fine and was not injected.
///
/// # Errors
/// The pods cannot be listed.
pub(super) async fn runs_without_injection(
    client: &Client,
    workload: &Workload,
    program: u64,
    now: Timestamp,
) -> kube::Result<bool> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &workload.namespace);
    let mut params = ListParams::default().limit(PAGE_PODS).fields(UNFINISHED);
    for _ in 0..SEARCH_PAGES_MAX {
        let page = api.list(&params).await?;
        let found = page.items.iter().any(|pod| {
            let seen = Seen::read(pod, now);
            let is_its = Workload::of_pod(pod, &workload.namespace, &OwnerMap::new()) == *workload;
            is_its && seen.healthy && !seen.is_injected() && seen.program == program
        });
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            _ if found => return Ok(true),
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    Ok(false)
}

fn asks(pod: &Pod, namespace: &str, namespace_annotations: &BTreeMap<String, String>) -> bool {
    !inject::asked_languages(&PodRequest { pod, namespace, namespace_annotations }).is_empty()
}

/// Whether the pod is there to stay: not going, not brand-new, and not a static pod's mirror.
fn is_settled(pod: &Pod, now: Timestamp) -> bool {
    let meta = &pod.metadata;
    let young = meta.creation_timestamp.as_ref().is_some_and(|created| now.duration_since(created.0) < AGE_MIN);
    let mirrored = meta.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR_ANNOTATION));
    !young && !mirrored && meta.deletion_timestamp.is_none()
}

/// The pod as it was sent, as far as that can be told.
fn as_new(pod: &Pod) -> Pod {
    Pod { status: None, ..pod.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_that_come_go_or_mirror_are_left_alone() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let settled = |meta| is_settled(&serde_json::from_value(json!({"metadata": meta})).unwrap(), now);
        let old = "2026-01-02T03:00:00Z";
        assert!(settled(json!({"creationTimestamp": old})));
        assert!(!settled(json!({"creationTimestamp": "2026-01-02T03:04:03Z"})));
        assert!(!settled(json!({"creationTimestamp": old, "deletionTimestamp": old})));
        assert!(!settled(json!({"creationTimestamp": old, "annotations": {"kubernetes.io/config.mirror": "x"}})));
    }
}
