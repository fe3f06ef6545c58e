//! Why a pod has no traces: what is asked for, what would become of it now, what became of it, and what would change it.
//!
//! In: a scope (the cluster, a namespace, a workload or pod), live objects from the API server, what the webhook decides
//! from, lives. Out: a report as JSON, which docs/doctor.md explains.
//!
//! ```text
//! workloads ─▶ templates ─▶ decision as if a pod came now ─▶ prospects ─┐
//! pods ─────▶ members (what they have) ─────────────────────────────────┼─▶ judge ─▶ report
//! lives ────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Invariants: an examination changes nothing; its objects, its time and the number that run at once are bounded, and what
//! was left out is counted; every decision comes with the line that would change it.

mod examination;
mod judge;
mod prospect;
mod remedy;
mod report;
mod templates;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::life::Lives;
use super::template::Templates;
use super::webhook::Pods;
use examination::Examination;
use report::Scope;

/// For one examination; its report is then as far as it came.
const DURATION_MAX: Duration = Duration::from_secs(8);
/// Examinations at once: each holds a page of whole objects.
const EXAMINATIONS_MAX: usize = 2;
/// Longest name of an object or namespace.
const NAME_BYTES_MAX: usize = 253;

/// Why there is no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoctorError {
    /// The namespace, or the name in it; with what exists nearby.
    #[error("{0}")]
    Unknown(String),
    /// The API server, or this process, is not ready for it.
    #[error("{0}")]
    Unavailable(String),
}

/// Examines what is in the cluster.
pub struct Doctor {
    client: Client,
    pods: Arc<Pods>,
    templates: Templates,
    lives: Arc<dyn Lives>,
    registered: tokio::sync::watch::Receiver<bool>,
    own_namespace: String,
    turns: Semaphore,
}

impl std::fmt::Debug for Doctor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doctor").field("own_namespace", &self.own_namespace).finish_non_exhaustive()
    }
}

impl Doctor {
    pub(super) fn new(
        client: Client,
        pods: Arc<Pods>,
        lives: Arc<dyn Lives>,
        registered: tokio::sync::watch::Receiver<bool>,
        own_namespace: String,
    ) -> Self {
        let templates = Templates::new(client.clone());
        let turns = Semaphore::new(EXAMINATIONS_MAX);
        Self { client, pods, templates, lives, registered, own_namespace, turns }
    }

    /// Everything, a namespace, or what has a name in it: `name` or `kind/name`.
    ///
    /// # Errors
    /// There is no such thing, or nobody can tell now.
    pub async fn examine(&self, namespace: Option<&str>, name: Option<&str>) -> Result<Value, DoctorError> {
        let wrong = |what: &str| DoctorError::Unknown(format!("\"{what}\" is no name that Kubernetes has"));
        if let Some(wrong_name) = namespace.filter(|namespace| !is_name(namespace)) {
            return Err(wrong(wrong_name));
        }
        if let Some(wrong_name) = name.filter(|name| !name.splitn(2, '/').all(is_name)) {
            return Err(wrong(wrong_name));
        }
        if namespace.is_none() && name.is_some() {
            return Err(DoctorError::Unknown("a name needs its namespace: namespace/name".to_owned()));
        }
        if !self.pods.index.synced().borrow().all() {
            let why =
                "Spanreel has not read namespaces and Instrumentations yet; its log tells if the API server is away";
            return Err(DoctorError::Unavailable(why.to_owned()));
        }
        let busy = || DoctorError::Unavailable("other examinations are still running; try again".to_owned());
        // Never closed.
        let turn = tokio::time::timeout(DURATION_MAX, self.turns.acquire()).await.map_err(|_| busy())?;
        let scope = Scope { namespace: namespace.map(str::to_owned), name: name.map(str::to_owned) };
        let deadline = tokio::time::Instant::now() + DURATION_MAX;
        let report = Examination::new(self, deadline).run(scope).await;
        drop(turn);
        let report = report?;
        serde_json::to_value(&report).map_err(|error| DoctorError::Unavailable(error.to_string()))
    }
}

/// As the API server has names, so that one cannot become another path there.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('.')
}

#[cfg(test)]
mod tests;
