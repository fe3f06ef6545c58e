//! What an examination finds, as it is served: docs/doctor.md explains every field.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::cluster::life::Life;
use crate::cluster::workloads::Workload;

/// The whole answer.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) scope: Scope,
    /// Whether the API server asks about new pods since this process started.
    pub(super) webhook_registered: bool,
    /// Workloads that were examined, by how they stand.
    pub(super) conditions: BTreeMap<Condition, usize>,
    pub(super) workloads: Vec<WorkloadReport>,
    pub(super) left_out: LeftOut,
    /// What could not be found out, and why.
    pub(super) notes: Vec<String>,
}

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Scope {
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

/// What was seen and is not in `workloads`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct LeftOut {
    /// Workloads beyond what is shown at once.
    pub(super) workloads: usize,
    /// Workloads that ask for nothing, in an examination of the whole cluster.
    pub(super) not_asking: usize,
    /// Pods beyond what is shown per workload.
    pub(super) pods: usize,
}

/// How a container, a pod or a workload stands. In the order in which a person should know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Condition {
    /// Injected, and no span ever came.
    Silent,
    /// Injected, and it does not get to run.
    Stuck,
    /// Asked for and refused.
    Refused,
    /// In a namespace whose pods are never asked about.
    Excluded,
    /// The annotation is where it has no effect.
    Misplaced,
    /// The annotation names no language.
    Misspelt,
    /// Not injected; a pod that came now would be.
    Missed,
    /// Injected; a pod that came now would be refused.
    RefusedNext,
    /// Injected from something older than what there is now.
    Stale,
    /// Injected; nothing asks for it any more.
    Unwanted,
    /// It spoke before; no span came lately. It may have nothing to do.
    Quiet,
    /// Injected; does not run yet.
    Injected,
    /// Runs; no span came yet.
    Started,
    /// No pod; one that came now would be injected.
    Ready,
    Speaking,
    /// Nothing asks for it.
    NotAsked,
}

/// A workload, or a pod without one.
#[derive(Debug, Serialize)]
pub(super) struct WorkloadReport {
    #[serde(flatten)]
    pub(super) workload: Workload,
    pub(super) condition: Condition,
    /// Why, of the container that stands worst.
    pub(super) why: String,
    /// The one line that would change it.
    pub(super) remedy: Option<String>,
    pub(super) asked: Vec<Asked>,
    /// What would become of a pod that came now.
    pub(super) decisions: Vec<DecisionReport>,
    pub(super) notes: Vec<String>,
    pub(super) pods: usize,
    pub(super) pod_conditions: BTreeMap<Condition, usize>,
    /// In full for a pod or workload by name, one of each kind otherwise.
    pub(super) examples: Vec<PodReport>,
}

/// A wish, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Asked {
    pub(super) language: &'static str,
    pub(super) annotation: String,
    pub(super) value: String,
    /// `pod` or `namespace`.
    #[serde(rename = "where")]
    pub(super) place: &'static str,
}

/// One language, and the container where one was reached.
#[derive(Debug, Clone, Serialize)]
pub(super) struct DecisionReport {
    pub(super) language: &'static str,
    pub(super) container: Option<String>,
    /// `injected`, `skipped` or `refused`.
    pub(super) result: &'static str,
    /// The reason's code.
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) instrumentation: Option<InstrumentationReport>,
    pub(super) agent_image: Option<String>,
    pub(super) remedy: String,
}

/// An Instrumentation at two times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct InstrumentationReport {
    /// `namespace/name` or `built-in`.
    pub(super) name: String,
    /// Now; `None`: it is gone.
    pub(super) generation: Option<i64>,
    /// Of the built-in one: none.
    pub(super) created: Option<Timestamp>,
    /// When the pod was injected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) injected_generation: Option<i64>,
}

/// One pod that exists.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PodReport {
    pub(super) name: String,
    pub(super) created: Option<Timestamp>,
    pub(super) condition: Condition,
    pub(super) containers: Vec<ContainerReport>,
}

/// One language in one container.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ContainerReport {
    pub(super) container: Option<String>,
    pub(super) language: Option<&'static str>,
    pub(super) condition: Condition,
    /// The reason's code, where a decision led here.
    pub(super) reason: Option<&'static str>,
    pub(super) why: String,
    pub(super) instrumentation: Option<InstrumentationReport>,
    pub(super) agent_image: Option<String>,
    pub(super) life: Option<Life>,
    pub(super) remedy: Option<String>,
}
