//! The crash-loop guard: is it the injection that keeps a workload from running? Pure.
//!
//! The evidence is a pod of the same workload that runs fine without injection, now or in an earlier round of this process.
//! What a workload did before that nobody has seen, no object of Kubernetes tells.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::Seen;
use crate::cluster::workloads::Workload;

/// Workloads remembered as having run fine without injection; when full all are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// Injected pods of one workload that crash-loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) languages: Vec<&'static str>,
    pub(super) example: String,
}

/// What earlier rounds saw and said.
#[derive(Debug, Default)]
pub(super) struct Guard {
    ran_fine: BTreeSet<Workload>,
    /// Template generations that were reported.
    told: BTreeMap<Workload, i64>,
}

impl Guard {
    pub(super) fn suspect(pods: &[Seen]) -> Option<Suspect> {
        let example = pods.iter().find(|seen| !seen.crashing.is_empty())?.name.clone();
        let languages: BTreeSet<_> = pods.iter().flat_map(|seen| seen.crashing.iter().copied()).collect();
        Some(Suspect { languages: languages.into_iter().collect(), example })
    }

    /// Remembers what these pods show.
    pub(super) fn look(&mut self, workload: &Workload, pods: &[Seen]) {
        if pods.iter().any(|seen| seen.healthy && !seen.is_injected()) {
            if self.ran_fine.len() >= REMEMBERED_MAX {
                self.ran_fine.clear();
            }
            self.ran_fine.insert(workload.clone());
        }
    }

    pub(super) fn remembers(&self, workload: &Workload) -> bool {
        self.ran_fine.contains(workload)
    }

    /// Whether this is to be said: once per generation of the workload.
    pub(super) fn is_news(&mut self, workload: &Workload, generation: i64) -> bool {
        self.told.insert(workload.clone(), generation) != Some(generation)
    }

    /// Forgets what was said of workloads that are gone or run again.
    pub(super) fn retain(&mut self, loops: impl Fn(&Workload) -> bool) {
        self.told.retain(|workload, _| loops(workload));
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::Injection;
    use super::*;
    use crate::inject::Record;

    fn seen(injected: bool, crashing: &[&'static str], healthy: bool) -> Seen {
        let injection = if injected { Injection::Ours(Record::default()) } else { Injection::None };
        let crashing = crashing.iter().copied().collect();
        Seen { name: "p".to_owned(), created: None, injection, crashing, healthy }
    }

    #[test]
    fn only_a_pod_that_ran_without_injection_is_evidence() {
        let workload = Workload { kind: "Deployment", namespace: "shop".to_owned(), name: "web".to_owned() };
        let mut guard = Guard::default();
        guard.look(&workload, &[seen(true, &["java"], false), seen(true, &[], true), seen(false, &[], false)]);
        assert!(!guard.remembers(&workload));
        guard.look(&workload, &[seen(false, &[], true)]);
        assert!(guard.remembers(&workload));
        assert_eq!(Guard::suspect(&[seen(true, &[], false)]), None);
        let languages = Guard::suspect(&[seen(true, &["sdk"], false), seen(true, &["java"], false)]).unwrap().languages;
        assert_eq!(languages, ["java", "sdk"]);
        assert!(guard.is_news(&workload, 1) && !guard.is_news(&workload, 1) && guard.is_news(&workload, 2));
        guard.retain(|_| false);
        assert!(guard.is_news(&workload, 2));
    }
}
