//! Earlier revisions of a workload: ReplicaSets of a Deployment, ControllerRevisions of a StatefulSet or DaemonSet.
//!
//! They tell what a template was and how long it was the newest one, not whether its pods ran: a hint for people, not
//! enough to act on.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::core::Selector;
use kube::{Api, Client};
use serde::Deserialize as _;

use super::compare::program;
use crate::cluster::template::Template;
use crate::cluster::workloads::Workload;
use crate::inject::{self, PodRequest};

/// Kubernetes keeps ten of each by default.
const REVISIONS_MAX: u32 = 100;
/// Whoever watches a rollout has seen a crash loop by then, and taken the revision back.
const LIVED_MIN: SignedDuration = SignedDuration::from_secs(60);
/// The number of a ReplicaSet's revision.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// One revision.
#[derive(Debug, Clone, PartialEq)]
struct Revision {
    number: i64,
    created: Timestamp,
    template: PodTemplateSpec,
}

/// For how long the latest earlier revision that ran this program and asked for no injection was the newest one; `None`:
/// there is none, or it was there too shortly to tell anything.
///
/// # Errors
/// Revisions cannot be listed.
pub(super) async fn without_injection(
    client: &Client,
    workload: &Workload,
    template: &Template,
    program: u64,
    namespace_annotations: &BTreeMap<String, String>,
) -> kube::Result<Option<SignedDuration>> {
    let revisions = list(client, workload, template).await?;
    Ok(find(revisions, &workload.namespace, program, namespace_annotations))
}

async fn list(client: &Client, workload: &Workload, template: &Template) -> kube::Result<Vec<Revision>> {
    let Some(Ok(selector)) = template.selector.clone().map(Selector::try_from) else { return Ok(Vec::new()) };
    let params = ListParams::default().labels_from(&selector).limit(REVISIONS_MAX);
    let is_its = |metadata: &ObjectMeta| {
        metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == template.metadata.uid.as_ref())
    };
    match workload.kind {
        "Deployment" => {
            let api: Api<ReplicaSet> = Api::namespaced(client.clone(), &workload.namespace);
            let sets = api.list(&params).await?.items;
            Ok(sets.into_iter().filter(|set| is_its(&set.metadata)).filter_map(of_replica_set).collect())
        }
        "StatefulSet" | "DaemonSet" => {
            let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &workload.namespace);
            let revisions = api.list(&params).await?.items;
            Ok(revisions.into_iter().filter(|it| is_its(&it.metadata)).filter_map(of_controller_revision).collect())
        }
        _ => Ok(Vec::new()),
    }
}

fn of_replica_set(set: ReplicaSet) -> Option<Revision> {
    let number = set.metadata.annotations.as_ref()?.get(REVISION)?.parse().ok()?;
    Some(Revision { number, created: set.metadata.creation_timestamp?.0, template: set.spec.template? })
}

fn of_controller_revision(revision: ControllerRevision) -> Option<Revision> {
    let template = PodTemplateSpec::deserialize(revision.data.0.pointer("/spec/template")?).ok()?;
    Some(Revision { number: revision.revision?, created: revision.metadata.creation_timestamp?.0, template })
}

fn find(
    mut revisions: Vec<Revision>,
    namespace: &str,
    wanted: u64,
    namespace_annotations: &BTreeMap<String, String>,
) -> Option<SignedDuration> {
    revisions.sort_by_key(|revision| revision.number);
    revisions.windows(2).rev().find_map(|pair| {
        let [earlier, later] = pair else { return None };
        let PodTemplateSpec { metadata, spec } = earlier.template.clone();
        let pod = Pod { metadata: metadata.unwrap_or_default(), spec, status: None };
        let asked = inject::asked_languages(&PodRequest { pod: &pod, namespace, namespace_annotations });
        let same = pod.spec.as_ref().map(program) == Some(wanted);
        // One that was taken back to is older than those in between: how long it was the newest is not known.
        let lived = later.created.duration_since(earlier.created);
        (asked.is_empty() && same && lived >= LIVED_MIN).then_some(lived)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn revision(number: i64, created: &str, image: &str, asks: bool) -> Revision {
        let annotations = if asks { json!({"instrumentation.opentelemetry.io/inject-sdk": "true"}) } else { json!({}) };
        let set = json!({
            "metadata": {
                "creationTimestamp": format!("2026-01-02T{created}Z"), "annotations": {REVISION: number.to_string()},
            },
            "spec": {"selector": {}, "template": {
                "metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "app", "image": image}]},
            }},
        });
        let from_set = of_replica_set(serde_json::from_value(set.clone()).unwrap()).unwrap();
        let controller_revision = json!({
            "metadata": set["metadata"], "revision": number, "data": {"spec": {"template": set["spec"]["template"]}},
        });
        let from_revision = of_controller_revision(serde_json::from_value(controller_revision).unwrap()).unwrap();
        assert_eq!(from_set, from_revision);
        from_set
    }

    #[test]
    fn only_the_same_program_without_injection_that_was_there_for_a_while_is_a_hint() {
        let now = revision(4, "10:00:00", "app:1", true);
        let wanted = program(now.template.spec.as_ref().unwrap());
        let lived = |earlier: Vec<Revision>| {
            find(earlier.into_iter().chain([now.clone()]).collect(), "shop", wanted, &BTreeMap::new())
        };
        assert_eq!(lived(vec![revision(3, "07:00:00", "app:1", false)]), Some(SignedDuration::from_hours(3)));
        assert_eq!(lived(vec![revision(3, "09:59:30", "app:1", false)]), None, "too short");
        assert_eq!(lived(vec![revision(3, "07:00:00", "app:0", false)]), None, "another image");
        assert_eq!(lived(vec![revision(3, "07:00:00", "app:1", true)]), None, "it asked as well");
        assert_eq!(lived(Vec::new()), None);
        let earlier = vec![revision(3, "09:00:00", "app:1", true), revision(2, "08:00:00", "app:1", false)];
        assert_eq!(lived(earlier), Some(SignedDuration::from_hours(1)));
        let namespace = BTreeMap::from([("instrumentation.opentelemetry.io/inject-sdk".to_owned(), "true".to_owned())]);
        let earlier = vec![revision(3, "07:00:00", "app:1", false), now.clone()];
        assert_eq!(find(earlier, "shop", wanted, &namespace), None, "its namespace asked");
    }
}
