//! The crash-loop guard: is it the injection that keeps a workload from running? Pure.
//!
//! The evidence is a pod of the same workload, with the same program, that runs fine without injection, now or in an
//! earlier round of this process. A newer image that crash-loops has nobody to compare with. Earlier revisions of the
//! workload tell less, see [`super::revisions`].

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use super::compare::Seen;
use crate::cluster::workloads::Workload;

/// Workloads remembered as having run fine without injection, by a hash of 8 bytes; when full all are forgotten.
const REMEMBERED_MAX: usize = 50_000;
/// Whoever keeps the template as it was (GitOps) and Spanreel must not take turns.
const SWITCH_OFF_AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// Workloads remembered as switched off; when full no more are, until an hour has gone by.
const SWITCHED_OFF_MAX: usize = 1000;

/// Injected pods of one workload that crash-loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) languages: Vec<&'static str>,
    pub(super) example: String,
    /// Of the example.
    pub(super) program: u64,
}

/// What earlier rounds saw and said.
#[derive(Debug, Default)]
pub(super) struct Guard {
    ran_fine: HashSet<u64>,
    switched_off: BTreeMap<Workload, Instant>,
    /// Template generations that were reported.
    told: BTreeMap<Workload, i64>,
}

impl Guard {
    pub(super) fn suspect(pods: &[Seen]) -> Option<Suspect> {
        let example = pods.iter().find(|seen| !seen.crashing.is_empty())?;
        let languages: BTreeSet<_> = pods.iter().flat_map(|seen| seen.crashing.iter().copied()).collect();
        let languages = languages.into_iter().collect();
        Some(Suspect { languages, example: example.name.clone(), program: example.program })
    }

    /// Remembers what a pod shows.
    pub(super) fn look(&mut self, workload: &Workload, seen: &Seen) {
        if seen.healthy && !seen.is_injected() {
            if self.ran_fine.len() >= REMEMBERED_MAX {
                self.ran_fine.clear();
            }
            self.ran_fine.insert(hash(workload, seen.program));
        }
    }

    /// Whether this program was seen to run fine without injection.
    pub(super) fn remembers(&self, workload: &Workload, program: u64) -> bool {
        self.ran_fine.contains(&hash(workload, program))
    }

    /// Whether injection may be switched off; from then on not again for an hour.
    pub(super) fn may_switch_off(&mut self, workload: &Workload, now: Instant) -> bool {
        self.switched_off.retain(|_, at| now.saturating_duration_since(*at) < SWITCH_OFF_AGAIN_AFTER);
        if self.switched_off.contains_key(workload) || self.switched_off.len() >= SWITCHED_OFF_MAX {
            return false;
        }
        self.switched_off.insert(workload.clone(), now);
        true
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

fn hash(workload: &Workload, program: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (workload, program).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::compare::Injection;
    use super::*;
    use crate::inject::Record;

    fn seen(injected: bool, crashing: &[&'static str], healthy: bool) -> Seen {
        let injection = if injected { Injection::Ours(Record::default()) } else { Injection::None };
        let crashing = crashing.iter().copied().collect();
        Seen { name: "p".to_owned(), created: None, injection, crashing, healthy, program: 1 }
    }

    #[test]
    fn only_a_pod_that_ran_without_injection_is_evidence() {
        let workload = Workload { kind: "Deployment", namespace: "shop".to_owned(), name: "web".to_owned() };
        let mut guard = Guard::default();
        for seen in [seen(true, &["java"], false), seen(true, &[], true), seen(false, &[], false)] {
            guard.look(&workload, &seen);
        }
        assert!(!guard.remembers(&workload, 1));
        guard.look(&workload, &seen(false, &[], true));
        assert!(guard.remembers(&workload, 1));
        assert!(!guard.remembers(&workload, 2), "another program may crash of itself");
        assert_eq!(Guard::suspect(&[seen(true, &[], false)]), None);
        let languages = Guard::suspect(&[seen(true, &["sdk"], false), seen(true, &["java"], false)]).unwrap().languages;
        assert_eq!(languages, ["java", "sdk"]);
        assert!(guard.is_news(&workload, 1) && !guard.is_news(&workload, 1) && guard.is_news(&workload, 2));
        guard.retain(|_| false);
        assert!(guard.is_news(&workload, 2));
    }

    #[test]
    fn nobody_takes_turns_with_spanreel() {
        let workload = Workload { kind: "Deployment", namespace: "shop".to_owned(), name: "web".to_owned() };
        let (mut guard, start) = (Guard::default(), Instant::now());
        assert!(guard.may_switch_off(&workload, start));
        assert!(!guard.may_switch_off(&workload, start + SWITCH_OFF_AGAIN_AFTER / 2));
        assert!(guard.may_switch_off(&workload, start + SWITCH_OFF_AGAIN_AFTER));
    }
}
