//! The pod that a workload's controller would create now, read from the workload when somebody asks.
//!
//! Nothing is watched: the few workloads that matter are read one by one, each with a deadline. Deciding about such a pod
//! says what the next one is going to look like.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, NamespaceResourceScope};
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::workloads::Workload;

/// For one workload.
const DEADLINE: Duration = Duration::from_secs(5);

/// A workload as it is now, and the pod that would come of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    /// As the controller would send it for creation: labels, annotations and spec of the template, owned by the workload
    /// itself, so that names derive as they do for its pods.
    pub(super) pod: Pod,
    /// The workload's own: uid, generation, annotations, ...
    pub(super) metadata: ObjectMeta,
    /// Which pods and revisions are its own; only of what rolls out.
    pub(super) selector: Option<LabelSelector>,
    /// `None`: it does not roll out changes of its template.
    pub(super) rollout: Option<Rollout>,
}

/// How far a Deployment, StatefulSet or DaemonSet is with its template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rollout {
    pub(super) desired: i32,
    /// Pods, old and new.
    pub(super) present: i32,
    /// Of those, the ones of the current template.
    pub(super) updated: i32,
    pub(super) available: i32,
    /// Whether the controller has seen the current generation; before, the other figures are of an older one.
    pub(super) observed: bool,
    /// Its author has it wait (`paused`, `OnDelete`, a partition): a changed template reaches no pod, or not all.
    pub(super) held: bool,
    /// The controller has given up (`ProgressDeadlineExceeded`).
    pub(super) failed: bool,
}

impl Rollout {
    /// Every pod is of the current template and available, and none is left over.
    pub(super) fn is_complete(&self) -> bool {
        self.observed && self.updated >= self.desired && self.available >= self.desired && self.present == self.desired
    }

    /// Whether its pods are all there will be: of the current template, or as long as nothing moves.
    pub(super) fn is_settled(&self) -> bool {
        self.held || self.failed || (self.observed && self.present == self.updated)
    }

    fn counted(desired: Option<i32>, present: Option<i32>, updated: Option<i32>, available: Option<i32>) -> Self {
        let count = Option::unwrap_or_default;
        Self {
            desired: count(desired),
            present: count(present),
            updated: count(updated),
            available: count(available),
            ..Self::default()
        }
    }
}

/// A workload cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("{0} cannot be read: {1}")]
    Read(String, #[source] Box<kube::Error>),
    #[error("{0} cannot be read: no answer within 5 s")]
    TimedOut(String),
}

impl TemplateError {
    /// The same for every workload.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Read(_, error) => error.to_string(),
            Self::TimedOut(_) => format!("no answer within {} s", DEADLINE.as_secs()),
        }
    }

    /// Whether the right to read it is missing, which waiting does not change.
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Read(_, error) if matches!(**error, kube::Error::Api(ref status) if status.code == 403))
    }
}

/// Reads templates.
pub(super) struct Templates {
    client: Client,
}

impl Templates {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// As it is now. `None`: a bare pod, a kind without a template, or gone.
    ///
    /// # Errors
    /// The API server refuses or does not answer.
    pub(super) async fn read(&self, workload: &Workload) -> Result<Option<Arc<Template>>, TemplateError> {
        let name = || format!("{} {}/{}", workload.kind, workload.namespace, workload.name);
        match tokio::time::timeout(DEADLINE, self.get(workload)).await {
            Ok(Ok(template)) => Ok(template.map(Arc::new)),
            Ok(Err(error)) => Err(TemplateError::Read(name(), Box::new(error))),
            Err(_) => Err(TemplateError::TimedOut(name())),
        }
    }

    async fn get(&self, workload: &Workload) -> kube::Result<Option<Template>> {
        match workload.kind {
            "Deployment" => Ok(self.object::<Deployment>(workload).await?.and_then(of_deployment)),
            "StatefulSet" => Ok(self.object::<StatefulSet>(workload).await?.and_then(of_stateful_set)),
            "DaemonSet" => Ok(self.object::<DaemonSet>(workload).await?.and_then(of_daemon_set)),
            "ReplicaSet" => Ok(self.object::<ReplicaSet>(workload).await?.and_then(of_replica_set)),
            "Job" => Ok(self.object::<Job>(workload).await?.and_then(of_job)),
            "CronJob" => Ok(self.object::<CronJob>(workload).await?.and_then(of_cron_job)),
            _ => Ok(None),
        }
    }

    async fn object<K>(&self, workload: &Workload) -> kube::Result<Option<K>>
    where
        K: k8s_openapi::Resource<Scope = NamespaceResourceScope>
            + Metadata<Ty = ObjectMeta>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        Api::<K>::namespaced(self.client.clone(), &workload.namespace).get_opt(&workload.name).await
    }
}

pub(super) fn of_deployment(object: Deployment) -> Option<Template> {
    let (spec, status) = (object.spec, object.status.unwrap_or_default());
    let observed = status.observed_generation;
    let progressing = status.conditions.iter().flatten().find(|condition| {
        condition.type_.as_deref() == Some("Progressing") && condition.status.as_deref() == Some("False")
    });
    let rollout = Rollout {
        held: spec.paused == Some(true),
        failed: progressing.is_some_and(|it| it.reason.as_deref() == Some("ProgressDeadlineExceeded")),
        ..Rollout::counted(
            spec.replicas.or(Some(1)),
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        )
    };
    let template = template::<Deployment>(object.metadata, spec.template, Some((rollout, observed)));
    Some(Template { selector: Some(spec.selector), ..template })
}

pub(super) fn of_stateful_set(object: StatefulSet) -> Option<Template> {
    let (spec, status) = (object.spec, object.status.unwrap_or_default());
    let strategy = spec.update_strategy.unwrap_or_default();
    let partition = strategy.rolling_update.and_then(|rolling| rolling.partition).unwrap_or_default();
    // Nobody counts updated pods once there is nothing older.
    let same = status.update_revision.is_some() && status.update_revision == status.current_revision;
    let updated = if same { status.current_replicas.max(status.updated_replicas) } else { status.updated_replicas };
    let rollout = Rollout {
        held: strategy.type_.as_deref() == Some("OnDelete") || partition > 0,
        ..Rollout::counted(spec.replicas.or(Some(1)), Some(status.replicas), updated, status.available_replicas)
    };
    let template = template::<StatefulSet>(object.metadata, spec.template, Some((rollout, status.observed_generation)));
    Some(Template { selector: Some(spec.selector), ..template })
}

pub(super) fn of_daemon_set(object: DaemonSet) -> Option<Template> {
    let (spec, status) = (object.spec, object.status.unwrap_or_default());
    let strategy = spec.update_strategy.unwrap_or_default();
    let rollout = Rollout {
        held: strategy.type_.as_deref() == Some("OnDelete"),
        ..Rollout::counted(
            Some(status.desired_number_scheduled),
            Some(status.current_number_scheduled),
            status.updated_number_scheduled,
            status.number_available,
        )
    };
    let template = template::<DaemonSet>(object.metadata, spec.template, Some((rollout, status.observed_generation)));
    Some(Template { selector: Some(spec.selector), ..template })
}

fn of_replica_set(object: ReplicaSet) -> Option<Template> {
    Some(template::<ReplicaSet>(object.metadata, object.spec.template?, None))
}

pub(super) fn of_job(object: Job) -> Option<Template> {
    Some(template::<Job>(object.metadata, object.spec?.template, None))
}

pub(super) fn of_cron_job(object: CronJob) -> Option<Template> {
    let job = object.spec.job_template.spec?;
    Some(template::<CronJob>(object.metadata, job.template, None))
}

fn template<K: k8s_openapi::Resource>(
    metadata: ObjectMeta,
    template: PodTemplateSpec,
    rollout: Option<(Rollout, Option<i64>)>,
) -> Template {
    let of_template = template.metadata.unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let pod = Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: metadata.namespace.clone(),
            labels: of_template.labels,
            annotations: of_template.annotations,
            owner_references: Some(vec![OwnerReference {
                api_version: K::API_VERSION.to_owned(),
                kind: K::KIND.to_owned(),
                name,
                uid: metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    };
    let rollout = rollout.map(|(rollout, observed)| Rollout {
        observed: observed.unwrap_or_default() >= metadata.generation.unwrap_or_default(),
        ..rollout
    });
    Template { pod, metadata, selector: None, rollout }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inject::OwnerMap;

    fn deployment(status: serde_json::Value) -> Template {
        of_deployment(
            serde_json::from_value(json!({
                "metadata": {"namespace": "shop", "name": "web", "uid": "u", "generation": 3},
                "spec": {
                    "replicas": 2, "selector": {},
                    "template": {
                        "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
                        "spec": {"containers": [{"name": "app"}]},
                    },
                },
                "status": status,
            }))
            .unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn the_pod_belongs_to_the_workload_by_name_and_uid() {
        let template = deployment(json!({}));
        let workload = Workload::of_pod(&template.pod, "shop", &OwnerMap::new());
        assert_eq!((workload.kind, workload.name.as_str()), ("Deployment", "web"));
        let meta = &template.pod.metadata;
        assert_eq!(meta.owner_references.as_ref().unwrap()[0].uid, "u");
        assert_eq!(meta.annotations.as_ref().unwrap()["a"], "b");
        assert_eq!(template.pod.spec.as_ref().unwrap().containers[0].name, "app");
    }

    #[test]
    fn a_cron_jobs_pod_is_two_templates_deep() {
        let object = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "nightly"},
            "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": {"spec": {"containers": []}}}}},
        }))
        .unwrap();
        let template = of_cron_job(object).unwrap();
        assert_eq!(Workload::of_pod(&template.pod, "shop", &OwnerMap::new()).kind, "CronJob");
        assert_eq!(template.rollout, None);
    }

    #[test]
    fn a_rollout_is_complete_when_only_available_pods_of_the_current_template_are_there() {
        let complete = |status| deployment(status).rollout.unwrap().is_complete();
        let done = json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        let with = |key: &str, value: i32| {
            let mut status = done.clone();
            status[key] = json!(value);
            complete(status)
        };
        assert!(complete(done.clone()));
        assert!(!with("observedGeneration", 2));
        assert!(!with("replicas", 3));
        assert!(!with("updatedReplicas", 1));
        assert!(!with("availableReplicas", 1));
        assert!(!complete(json!({})));
    }
}
