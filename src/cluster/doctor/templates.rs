//! Workloads as they come in lists, and the pod that each would make.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::Resource;
use serde::de::DeserializeOwned;

use crate::cluster::template::{self, Template};
use crate::inject::OwnerKind;

/// A kind that makes pods and that people know.
pub(super) trait Listed:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
    const KIND: OwnerKind;

    fn template(self) -> Option<Template>;

    /// It makes no pods any more.
    fn is_done(&self) -> bool {
        false
    }
}

impl Listed for Deployment {
    const KIND: OwnerKind = OwnerKind::Deployment;

    fn template(self) -> Option<Template> {
        template::of_deployment(self)
    }
}

impl Listed for StatefulSet {
    const KIND: OwnerKind = OwnerKind::StatefulSet;

    fn template(self) -> Option<Template> {
        template::of_stateful_set(self)
    }
}

impl Listed for DaemonSet {
    const KIND: OwnerKind = OwnerKind::DaemonSet;

    fn template(self) -> Option<Template> {
        template::of_daemon_set(self)
    }
}

impl Listed for CronJob {
    const KIND: OwnerKind = OwnerKind::CronJob;

    fn template(self) -> Option<Template> {
        template::of_cron_job(self)
    }
}

impl Listed for Job {
    const KIND: OwnerKind = OwnerKind::Job;

    fn template(self) -> Option<Template> {
        template::of_job(self)
    }

    fn is_done(&self) -> bool {
        let conditions = self.status.as_ref().and_then(|status| status.conditions.as_ref());
        let over = |kind: &str| ["Complete", "Failed"].contains(&kind);
        conditions.into_iter().flatten().any(|condition| over(&condition.type_) && condition.status == "True")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_that_is_over_makes_no_pods() {
        let job = |kind: &str, status: &str| -> Job {
            let condition = json!({"type": kind, "status": status});
            serde_json::from_value(json!({"metadata": {}, "status": {"conditions": [condition]}})).unwrap()
        };
        assert!(job("Complete", "True").is_done() && job("Failed", "True").is_done());
        assert!(!job("Complete", "False").is_done() && !job("Suspended", "True").is_done());
    }
}
