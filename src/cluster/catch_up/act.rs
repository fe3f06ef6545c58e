//! What catch-up changes in the cluster, and what it must know before: restarts, budgets, the status of Instrumentations.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{Selector, SelectorExt as _};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Map, Value, json};

use super::restart::{RESTARTED_AT, RESTARTED_FOR};
use crate::cluster::crds;
use crate::cluster::template::Template;
use crate::cluster::workloads::Workload;

/// Who owns the fields that restarts set.
const FIELD_MANAGER: &str = "spanreel";
/// Budgets of one namespace that are looked at; with more, nothing is disrupted there.
const BUDGETS_MAX: u32 = 500;
/// Why a workload's pods are no longer injected; on its template, so that it goes with a new one.
pub(super) const INJECTION_OFF: &str = "spanreel.dev/injection-off";

/// Whether the API server says that the right is missing.
pub(super) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Whether somebody else was faster, or the object is gone.
pub(super) fn is_overtaken(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

/// A PodDisruptionBudget that allows no disruption of the workload's pods now.
///
/// # Errors
/// They cannot be listed.
pub(super) async fn budget_in_the_way(
    client: &Client,
    workload: &Workload,
    template: &Template,
) -> kube::Result<Option<String>> {
    let api: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), &workload.namespace);
    let budgets = api.list(&ListParams::default().limit(BUDGETS_MAX)).await?;
    if budgets.metadata.continue_.is_some_and(|token| !token.is_empty()) {
        return Ok(Some(format!("(one of more than {BUDGETS_MAX})")));
    }
    let labels = template.pod.metadata.labels.clone().unwrap_or_default();
    Ok(budgets.items.iter().find(|budget| forbids(budget, &labels)).map(|budget| budget.name_any()))
}

/// Whether the budget covers such pods and allows none of them to go, or has not been reckoned yet.
fn forbids(budget: &PodDisruptionBudget, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = budget.spec.as_ref().and_then(|spec| spec.selector.clone()) else { return false };
    // One that nobody understands may well cover them.
    let covers = Selector::try_from(selector).map_or(true, |selector| selector.matches(labels));
    let allowed = budget.status.as_ref().is_some_and(|status| {
        let current = status.observed_generation >= budget.metadata.generation;
        current && status.disruptions_allowed.is_some_and(|allowed| allowed > 0)
    });
    covers && !allowed
}

/// Has the workload's pods replaced, as `kubectl rollout restart` does, and returns its new generation.
///
/// # Errors
/// The API server refuses; a workload that changed since the template was read is refused, too.
pub(super) async fn restart(
    client: &Client,
    workload: &Workload,
    template: &Template,
    key: &str,
    now: Timestamp,
) -> kube::Result<i64> {
    let annotations = [(RESTARTED_AT.to_owned(), json!(format!("{now:.0}"))), (RESTARTED_FOR.to_owned(), json!(key))];
    annotate_template(client, workload, template, annotations.into_iter().collect()).await
}

/// Has the workload's pods replaced by ones that are not injected with these languages.
///
/// # Errors
/// As [`restart`].
pub(super) async fn restart_without(
    client: &Client,
    workload: &Workload,
    template: &Template,
    languages: &[&'static str],
    why: &str,
) -> kube::Result<i64> {
    let off = languages
        .iter()
        .map(|language| (format!("instrumentation.opentelemetry.io/inject-{language}"), json!("false")));
    annotate_template(client, workload, template, off.chain([(INJECTION_OFF.to_owned(), json!(why))]).collect()).await
}

async fn annotate_template(
    client: &Client,
    workload: &Workload,
    template: &Template,
    annotations: Map<String, Value>,
) -> kube::Result<i64> {
    let resource = match workload.kind {
        "StatefulSet" => ApiResource::erase::<StatefulSet>(&()),
        "DaemonSet" => ApiResource::erase::<DaemonSet>(&()),
        _ => ApiResource::erase::<Deployment>(&()),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &workload.namespace, &resource);
    let patch = json!({
        // What was decided holds for what was read.
        "metadata": {"resourceVersion": template.metadata.resource_version},
        "spec": {"template": {"metadata": {"annotations": annotations}}},
    });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patched = api.patch(&workload.name, &params, &Patch::Merge(&patch)).await?;
    Ok(patched.metadata.generation.unwrap_or_default())
}

/// Workloads that an Instrumentation concerns, as its status has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// With pods injected from it.
    pub(super) injected: u64,
    /// With pods injected from an older generation.
    pub(super) stale: u64,
    /// With pods that should be injected from it, and are not.
    pub(super) missed: u64,
}

/// Writes `status.workloads`.
///
/// # Errors
/// The API server refuses; one that is gone is none.
pub(super) async fn write_counts(client: &Client, namespace: &str, name: &str, counts: Counts) -> kube::Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &crds::instrumentations());
    let Counts { injected, stale, missed } = counts;
    let patch = json!({"status": {"workloads": {"injected": injected, "stale": stale, "missed": missed}}});
    match api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(error) if !is_overtaken(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_counts_if_it_covers_the_pods() {
        let budget = |selector: Value, allowed: i32, observed: i64| -> PodDisruptionBudget {
            serde_json::from_value(json!({
                "metadata": {"name": "b", "generation": 2},
                "spec": {"selector": selector},
                "status": {"disruptionsAllowed": allowed, "observedGeneration": observed,
                    "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
            }))
            .unwrap()
        };
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let web = || json!({"matchLabels": {"app": "web"}});
        assert!(forbids(&budget(web(), 0, 2), &labels));
        assert!(!forbids(&budget(web(), 1, 2), &labels));
        assert!(forbids(&budget(web(), 1, 1), &labels), "reckoned for an older budget");
        assert!(forbids(&budget(json!({}), 0, 2), &labels), "an empty selector covers all");
        assert!(!forbids(&budget(json!({"matchLabels": {"app": "db"}}), 0, 2), &labels));
        assert!(!forbids(&budget(Value::Null, 0, 2), &labels));
        let not_reckoned = PodDisruptionBudget { status: None, ..budget(web(), 0, 0) };
        assert!(forbids(&not_reckoned, &labels));
    }
}
