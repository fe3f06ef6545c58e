//! Restarts, one at a time: who is next, whether it may be now, and how it went. Pure; the steps are taken elsewhere.
//!
//! ```text
//! queue ─▶ look: an obstacle? ──no──▶ restarted ─▶ watched ─▶ complete | failed ─▶ pause ─▶ queue
//!              └─yes─▶ left for the next round
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::cluster::template::{Rollout, Template};
use crate::cluster::workloads::Workload;

/// What was restarted last, as kubectl marks it.
pub(super) const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// What the last restart of ours was for.
pub(super) const RESTARTED_FOR: &str = "spanreel.dev/restarted-for";

/// A rollout that is not through by then has failed; Kubernetes' own deadline for progress is as long.
pub(super) const ROLLOUT_TIME_MAX: Duration = Duration::from_secs(600);
/// Pods of a restart come within that time; later ones came of something else.
const OWN_PODS_WITHIN: SignedDuration = SignedDuration::from_mins(10);
/// Besides: for so long nothing is restarted for the same again, whatever the clocks say.
const AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// Workloads remembered that were restarted, or whose rollout failed; when full all are forgotten.
const REMEMBERED_MAX: usize = 1000;

/// A workload with pods that a restart would mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) workload: Workload,
    /// What the restart would be for, see `Wanted::key`.
    pub(super) key: String,
    /// When the newest of its pods that are out of date came.
    pub(super) newest: Option<Timestamp>,
}

/// A restart that is not through.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Underway {
    pub(super) workload: Workload,
    pub(super) uid: String,
    /// Since the restart.
    pub(super) generation: i64,
    started: Instant,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Nothing,
    /// Look whether it may be restarted, then say what came of it.
    Look(Candidate),
    /// Look how far it is.
    Watch(Underway),
}

/// Why a workload is not restarted now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Obstacle {
    #[error("it is gone")]
    Gone,
    #[error("a {0} is not restarted; start it anew yourself")]
    Kind(&'static str),
    #[error("its template reaches no pod by itself (paused, OnDelete or partitioned); replace its pods yourself")]
    Held,
    #[error("not all of its pods are available, or a rollout is under way")]
    NotAvailable,
    #[error("PodDisruptionBudget {0} allows no disruption now")]
    Budget(String),
    #[error("a restart for the same did not help: its pods came out as before; see `spanreel doctor`")]
    NoUse,
    #[error("its last restart did not become available in time; it is left alone until somebody changes it")]
    GivenUp,
}

/// How a restart ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    Complete(Underway),
    Failed(Underway),
    Gone(Underway),
}

#[derive(Debug)]
pub(super) struct Restarts {
    pause: Duration,
    queue: VecDeque<Candidate>,
    underway: Option<Underway>,
    not_before: Option<Instant>,
    /// Uid to what it was restarted for, and when.
    done: BTreeMap<String, (String, Instant)>,
    /// Uid to the generation whose rollout failed.
    given_up: BTreeMap<String, i64>,
}

impl Restarts {
    pub(super) fn new(pause: Duration) -> Self {
        Self {
            pause,
            queue: VecDeque::new(),
            underway: None,
            not_before: None,
            done: BTreeMap::new(),
            given_up: BTreeMap::new(),
        }
    }

    /// Replaces who is waiting by what the latest round found.
    pub(super) fn plan(&mut self, candidates: Vec<Candidate>) {
        let underway = self.underway.as_ref().map(|underway| &underway.workload);
        self.queue = candidates.into_iter().filter(|candidate| Some(&candidate.workload) != underway).collect();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.underway.is_none()
    }

    pub(super) fn next(&mut self, now: Instant) -> Step {
        if let Some(underway) = &self.underway {
            return Step::Watch(underway.clone());
        }
        if self.not_before.is_some_and(|time| now < time) {
            return Step::Nothing;
        }
        self.queue.pop_front().map_or(Step::Nothing, Step::Look)
    }

    /// Whether a workload may be restarted now; `budget`: one that allows no disruption.
    pub(super) fn obstacle(
        &self,
        candidate: &Candidate,
        template: &Template,
        budget: Option<String>,
        now: Instant,
    ) -> Option<Obstacle> {
        let Some(rollout) = template.rollout else { return Some(Obstacle::Kind(candidate.workload.kind)) };
        let uid = template.metadata.uid.as_deref().unwrap_or_default();
        if rollout.held {
            Some(Obstacle::Held)
        } else if self.given_up.get(uid).copied() == template.metadata.generation {
            Some(Obstacle::GivenUp)
        } else if self.was_done(candidate, uid, now) || is_no_use(candidate, template) {
            Some(Obstacle::NoUse)
        } else if !rollout.is_complete() {
            Some(Obstacle::NotAvailable)
        } else {
            budget.map(Obstacle::Budget)
        }
    }

    pub(super) fn restarted(&mut self, candidate: &Candidate, uid: String, generation: i64, now: Instant) {
        if self.done.len() >= REMEMBERED_MAX {
            self.done.clear();
        }
        self.done.insert(uid.clone(), (candidate.key.clone(), now));
        self.underway = Some(Underway { workload: candidate.workload.clone(), uid, generation, started: now });
    }

    fn was_done(&self, candidate: &Candidate, uid: &str, now: Instant) -> bool {
        self.done
            .get(uid)
            .is_some_and(|(key, at)| *key == candidate.key && now.saturating_duration_since(*at) < AGAIN_AFTER)
    }

    /// `rollout` of what is under way; `None`: the workload is gone. The answer is `None` while it goes on.
    pub(super) fn watched(&mut self, rollout: Option<&Rollout>, now: Instant) -> Option<End> {
        let underway = self.underway.take()?;
        let end = match rollout {
            None => End::Gone(underway),
            Some(rollout) if rollout.is_complete() => End::Complete(underway),
            Some(rollout) => {
                let late = now.saturating_duration_since(underway.started) >= ROLLOUT_TIME_MAX;
                let failed = rollout.observed && rollout.failed;
                if !late && !failed {
                    self.underway = Some(underway);
                    return None;
                }
                if self.given_up.len() >= REMEMBERED_MAX {
                    self.given_up.clear();
                }
                self.given_up.insert(underway.uid.clone(), underway.generation);
                End::Failed(underway)
            }
        };
        self.not_before = Some(now + self.pause);
        Some(end)
    }
}

/// Whether the pods that are out of date came of a restart for the very same.
fn is_no_use(candidate: &Candidate, template: &Template) -> bool {
    let annotation = |key: &str| template.pod.metadata.annotations.as_ref().and_then(|all| all.get(key));
    if annotation(RESTARTED_FOR) != Some(&candidate.key) {
        return false;
    }
    let Some(restarted) = annotation(RESTARTED_AT).and_then(|text| text.parse::<Timestamp>().ok()) else {
        return false;
    };
    // A creation's time has no fractions.
    let earliest = restarted - SignedDuration::from_secs(1);
    candidate.newest.is_some_and(|newest| newest >= earliest && newest.duration_since(restarted) < OWN_PODS_WITHIN)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    fn candidate(name: &str) -> Candidate {
        let workload = Workload { kind: "Deployment", namespace: "shop".to_owned(), name: name.to_owned() };
        Candidate { workload, key: "n/i@2".to_owned(), newest: Some("2026-01-02T03:00:00Z".parse().unwrap()) }
    }

    const COMPLETE: Rollout =
        Rollout { desired: 2, present: 2, updated: 2, available: 2, observed: true, held: false, failed: false };

    fn template(rollout: Option<Rollout>, annotations: &[(&str, &str)]) -> Template {
        let annotations: BTreeMap<String, String> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Template {
            pod: Pod {
                metadata: ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() },
                ..Pod::default()
            },
            metadata: ObjectMeta { uid: Some("u".to_owned()), generation: Some(4), ..ObjectMeta::default() },
            selector: None,
            rollout,
        }
    }

    #[test]
    fn one_at_a_time_and_a_pause_in_between() {
        let (mut restarts, start) = (Restarts::new(PAUSE), Instant::now());
        restarts.plan(vec![candidate("a"), candidate("b")]);
        assert_eq!(restarts.next(start), Step::Look(candidate("a")));
        restarts.restarted(&candidate("a"), "u".to_owned(), 5, start);
        assert!(matches!(restarts.next(start), Step::Watch(underway) if underway.generation == 5));
        let halfway = Rollout { updated: 1, ..COMPLETE };
        assert_eq!(restarts.watched(Some(&halfway), start), None);
        // A round meanwhile finds it out of date still; it is not restarted a second time.
        restarts.plan(vec![candidate("a"), candidate("b")]);
        assert!(matches!(restarts.watched(Some(&COMPLETE), start), Some(End::Complete(_))));
        assert_eq!(restarts.next(start + PAUSE / 2), Step::Nothing);
        assert_eq!(restarts.next(start + PAUSE), Step::Look(candidate("b")));
        assert_eq!(restarts.next(start + PAUSE), Step::Nothing);
        assert!(restarts.is_idle());
    }

    #[test]
    fn a_rollout_that_fails_is_not_tried_again_until_the_template_changes() {
        for (rollout, late) in [
            (Rollout { failed: true, available: 1, ..COMPLETE }, Duration::ZERO),
            (Rollout { available: 1, ..COMPLETE }, ROLLOUT_TIME_MAX),
        ] {
            let (mut restarts, start) = (Restarts::new(PAUSE), Instant::now());
            restarts.restarted(&candidate("a"), "u".to_owned(), 4, start);
            assert!(matches!(restarts.watched(Some(&rollout), start + late), Some(End::Failed(_))));
            assert_eq!(
                restarts.obstacle(&candidate("a"), &template(Some(COMPLETE), &[]), None, start),
                Some(Obstacle::GivenUp)
            );
            let mut changed = template(Some(COMPLETE), &[]);
            changed.metadata.generation = Some(6);
            assert_eq!(restarts.obstacle(&candidate("a"), &changed, None, start + AGAIN_AFTER), None);
        }
        let (mut restarts, start) = (Restarts::new(PAUSE), Instant::now());
        restarts.restarted(&candidate("a"), "u".to_owned(), 4, start);
        assert!(matches!(restarts.watched(None, start), Some(End::Gone(_))));
    }

    #[test]
    fn only_what_is_whole_and_may_be_disrupted_is_restarted() {
        let restarts = Restarts::new(PAUSE);
        let obstacle =
            |rollout, budget| restarts.obstacle(&candidate("a"), &template(rollout, &[]), budget, Instant::now());
        assert_eq!(obstacle(Some(COMPLETE), None), None);
        assert_eq!(obstacle(None, None), Some(Obstacle::Kind("Deployment")));
        assert_eq!(obstacle(Some(Rollout { held: true, ..COMPLETE }), None), Some(Obstacle::Held));
        assert_eq!(obstacle(Some(Rollout { available: 1, ..COMPLETE }), None), Some(Obstacle::NotAvailable));
        assert_eq!(obstacle(Some(Rollout { observed: false, ..COMPLETE }), None), Some(Obstacle::NotAvailable));
        let budget = || "web".to_owned();
        assert_eq!(obstacle(Some(COMPLETE), Some(budget())), Some(Obstacle::Budget(budget())));
    }

    #[test]
    fn a_restart_that_changes_nothing_is_not_repeated() {
        let restarts = Restarts::new(PAUSE);
        let of = |key: &str, at: &str| {
            let template = template(Some(COMPLETE), &[(RESTARTED_FOR, key), (RESTARTED_AT, at)]);
            restarts.obstacle(&candidate("a"), &template, None, Instant::now())
        };
        assert_eq!(of("n/i@2", "2026-01-02T03:00:00.5Z"), Some(Obstacle::NoUse), "its pods are out of date again");
        assert_eq!(of("n/i@1", "2026-01-02T03:00:00Z"), None, "it was for something else");
        assert_eq!(of("n/i@2", "2026-01-02T02:00:00Z"), None, "the pods came an hour later");
        assert_eq!(of("n/i@2", "2026-01-02T03:30:00Z"), None, "the pods are from before");
    }

    #[test]
    fn whatever_the_clocks_say_nothing_is_restarted_for_the_same_all_the_time() {
        let (mut restarts, start) = (Restarts::new(PAUSE), Instant::now());
        restarts.restarted(&candidate("a"), "u".to_owned(), 4, start);
        assert!(matches!(restarts.watched(Some(&COMPLETE), start), Some(End::Complete(_))));
        let whole = || template(Some(COMPLETE), &[]);
        assert_eq!(restarts.obstacle(&candidate("a"), &whole(), None, start + PAUSE), Some(Obstacle::NoUse));
        assert_eq!(restarts.obstacle(&candidate("a"), &whole(), None, start + AGAIN_AFTER), None);
        let newer = Candidate { key: "n/i@3".to_owned(), ..candidate("a") };
        assert_eq!(restarts.obstacle(&newer, &whole(), None, start + PAUSE), None);
    }
}
