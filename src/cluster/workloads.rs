//! The workload behind a pod: what people know by name, and what Events are about.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use serde::Serialize;

use crate::inject::{self, OwnerKind, OwnerMap};

/// The outermost owner that is known of a pod, or the pod itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) struct Workload {
    /// As in manifests: `Deployment`, `StatefulSet`, ..., `Pod`.
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Workload {
    /// Owners behind a Job take a look-up; without it the Job is the workload. A pod without owner is its own.
    pub(super) fn of_pod(pod: &Pod, namespace: &str, known: &OwnerMap) -> Self {
        let (kind, name) = match inject::workload(pod, namespace, known) {
            Some((kind, name)) => (kind.kind(), name),
            None => {
                let meta = &pod.metadata;
                ("Pod", meta.name.clone().or_else(|| meta.generate_name.clone()).unwrap_or_default())
            }
        };
        Self { kind, namespace: namespace.to_owned(), name }
    }

    pub(super) fn reference(&self) -> ObjectReference {
        let api_version = match self.kind {
            "Pod" => "v1",
            kind if kind == OwnerKind::Job.kind() || kind == OwnerKind::CronJob.kind() => "batch/v1",
            _ => "apps/v1",
        };
        ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(self.kind.to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            ..ObjectReference::default()
        }
    }
}
