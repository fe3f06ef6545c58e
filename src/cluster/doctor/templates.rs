//! Workloads as the API server has them, and the pod that each would make.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::de::DeserializeOwned;

use crate::cluster::workloads::Workload;
use crate::inject::OwnerKind;

/// A kind that makes pods.
pub(super) trait Templated:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
    const KIND: OwnerKind;

    fn template(&self) -> Option<&PodTemplateSpec>;

    /// It makes no pods any more.
    fn is_done(&self) -> bool {
        false
    }
}

impl Templated for Deployment {
    const KIND: OwnerKind = OwnerKind::Deployment;

    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.template)
    }
}

impl Templated for StatefulSet {
    const KIND: OwnerKind = OwnerKind::StatefulSet;

    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.template)
    }
}

impl Templated for DaemonSet {
    const KIND: OwnerKind = OwnerKind::DaemonSet;

    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.template)
    }
}

impl Templated for ReplicaSet {
    const KIND: OwnerKind = OwnerKind::ReplicaSet;

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.template.as_ref()
    }
}

impl Templated for CronJob {
    const KIND: OwnerKind = OwnerKind::CronJob;

    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.job_template.spec.as_ref()?.template)
    }
}

impl Templated for Job {
    const KIND: OwnerKind = OwnerKind::Job;

    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.as_ref()?.template)
    }

    fn is_done(&self) -> bool {
        let conditions = self.status.as_ref().and_then(|status| status.conditions.as_ref());
        let over = |kind: &str| ["Complete", "Failed"].contains(&kind);
        conditions.into_iter().flatten().any(|condition| over(&condition.type_) && condition.status == "True")
    }
}

/// A workload with the pod that it would make now.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) workload: Workload,
    pub(super) pod: Pod,
    /// Of the workload itself.
    pub(super) annotations: BTreeMap<String, String>,
    /// Its own controller, if there is one.
    pub(super) controller: Option<OwnerReference>,
    pub(super) is_done: bool,
}

impl Template {
    /// `None`: it has no template.
    pub(super) fn of<K: Templated>(object: &K) -> Option<Self> {
        let meta = object.meta();
        let template = object.template()?;
        let (name, uid) = (meta.name.clone()?, meta.uid.clone().unwrap_or_default());
        let namespace = meta.namespace.clone().unwrap_or_default();
        let given = template.metadata.as_ref();
        // As a controller would have it; the Deployment stands for its ReplicaSet, whose name is not known yet.
        let owner = OwnerReference {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            name: name.clone(),
            uid,
            controller: Some(true),
            ..OwnerReference::default()
        };
        let pod = Pod {
            metadata: ObjectMeta {
                generate_name: Some(format!("{name}-")),
                labels: given.and_then(|given| given.labels.clone()),
                annotations: given.and_then(|given| given.annotations.clone()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        };
        let controller =
            meta.owner_references.iter().flatten().find(|reference| reference.controller == Some(true)).cloned();
        Some(Self {
            workload: Workload { kind: K::KIND.kind(), namespace, name },
            pod,
            annotations: meta.annotations.clone().unwrap_or_default(),
            controller,
            is_done: object.is_done(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_gives_the_pod_that_it_would_make() {
        let template = json!({"metadata": {"labels": {"app": "a"}, "annotations": {"x": "y"}},
            "spec": {"containers": [{"name": "app"}]}});
        let meta = json!({"name": "web", "namespace": "shop", "uid": "u", "annotations": {"own": "1"}});
        let spec = json!({"selector": {}, "serviceName": "s", "schedule": "", "template": template,
            "jobTemplate": {"spec": {"template": template}}});
        let object = json!({"metadata": meta, "spec": spec});
        fn of<K: Templated>(object: &serde_json::Value) -> Template {
            Template::of(&serde_json::from_value::<K>(object.clone()).unwrap()).unwrap()
        }
        let all = [
            of::<Deployment>(&object),
            of::<StatefulSet>(&object),
            of::<DaemonSet>(&object),
            of::<ReplicaSet>(&object),
            of::<CronJob>(&object),
            of::<Job>(&object),
        ];
        for found in &all {
            assert_eq!(found.pod.metadata.annotations.as_ref().unwrap()["x"], "y", "{}", found.workload.kind);
            assert_eq!(found.pod.spec.as_ref().unwrap().containers[0].name, "app");
            assert_eq!(found.annotations["own"], "1");
            let made = Workload::of_pod(&found.pod, "shop", &crate::inject::OwnerMap::new());
            assert_eq!(made, found.workload, "its pods lead back to it");
        }
        let mut done = object.clone();
        done["status"] = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        assert!(of::<Job>(&done).is_done && !of::<Job>(&object).is_done);
    }
}
