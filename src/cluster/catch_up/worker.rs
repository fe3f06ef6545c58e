//! The task: rounds when they are due, restarts in between.

mod crash_loops;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::act::{self, Counts};
use super::census::{self, Group};
use super::compare::{Injection, OutOfDate, Wanted};
use super::guard::Guard;
use super::report::{CatchUp, Finding, Report, RestartResult, SHOWN_MAX};
use super::restart::{Candidate, End, Obstacle, Restarts, Step, Underway};
use super::{ANNOTATION, mode_of};
use crate::appliance::spanreel::catch_up::{CatchUpMode, CatchUpSettings};
use crate::cluster::events::{Events, Note, NoteKind};
use crate::cluster::retry::State;
use crate::cluster::template::{Rollout, Template, Templates};
use crate::cluster::webhook::Pods;
use crate::cluster::workloads::Workload;

/// Changes often come several at a time; then one round is enough.
const CHANGE_PAUSE: Duration = Duration::from_secs(2);
/// Whoever may change a namespace or an Instrumentation must not be able to have all pods listed all the time.
const ROUND_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// A round that failed is tried again after that, or at the next if that is sooner.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// A round that takes longer is given up, and starts anew at the next.
const ROUND_TIME_MAX: Duration = Duration::from_secs(900);
/// How often restarts are looked after.
const STEP_INTERVAL: Duration = Duration::from_secs(2);
/// For one look at a workload that is to be restarted.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);
/// Instrumentations whose status is written in one round; what is left comes with the next.
const STATUS_WRITES_MAX: usize = 200;
/// Events of one round; what is left comes with the next.
const NOTES_PER_ROUND_MAX: usize = 100;
/// Pods of Kubernetes itself.
const SYSTEM_NAMESPACE: &str = "kube-system";
const MISSING_RIGHT: &str =
    "the right to restart workloads is missing; the ClusterRole of deploy/restart.yaml grants it";

/// What the task works with.
pub(in crate::cluster) struct Worker {
    client: Client,
    pods: Arc<Pods>,
    events: Events,
    catch_up: CatchUp,
    settings: CatchUpSettings,
    own_namespace: String,
    templates: Templates,
    restarts: Restarts,
    guard: Guard,
    /// What was last said of a workload, and for what.
    told: BTreeMap<Workload, (OutOfDate, String)>,
    /// `status.workloads` as last written, by namespace and name.
    written: BTreeMap<(String, String), Counts>,
    /// (namespace, word) of annotations that say nothing.
    warned: BTreeSet<(String, String)>,
    said_right_is_missing: bool,
    listing: State,
    reading: State,
    restarting: State,
    writing: State,
}

/// What one round gathers.
#[derive(Default)]
struct Round {
    report: Report,
    counts: BTreeMap<String, Counts>,
    candidates: Vec<Candidate>,
    notes: usize,
}

/// Runs until `shutdown`.
pub(in crate::cluster) async fn run(
    mut worker: Worker,
    mut registered: watch::Receiver<bool>,
    shutdown: CancellationToken,
) {
    // Before, whatever is restarted would be missed again.
    match shutdown.run_until_cancelled(registered.wait_for(|registered| *registered)).await {
        None | Some(Err(_)) => return,
        Some(Ok(_)) => {}
    }
    let mut instrumentations = worker.pods.index.instrumentation_changes();
    let mut namespaces = worker.pods.index.namespace_changes();
    let (mut due, mut next_step) = (Instant::now(), Instant::now());
    let mut earliest = due;
    loop {
        let busy = !worker.restarts.is_idle();
        tokio::select! {
            () = shutdown.cancelled() => return,
            Ok(()) = instrumentations.changed() => due = due.min((Instant::now() + CHANGE_PAUSE).max(earliest)),
            Ok(()) = namespaces.changed() => due = due.min((Instant::now() + CHANGE_PAUSE).max(earliest)),
            () = tokio::time::sleep_until(due) => {
                let round = tokio::time::timeout(ROUND_TIME_MAX, worker.round());
                let Some(round) = shutdown.run_until_cancelled(round).await else { return };
                let interval = worker.settings.interval;
                let after = match round {
                    Ok(Ok(())) => {
                        worker.listing.ok();
                        interval
                    }
                    Ok(Err(error)) => {
                        worker.listing.failed(&error);
                        interval.min(RETRY_AFTER)
                    }
                    Err(_) => {
                        worker.listing.failed(&"the round was not through after 15 min");
                        interval
                    }
                };
                earliest = Instant::now() + ROUND_INTERVAL_MIN;
                due = Instant::now() + after;
            }
            () = tokio::time::sleep_until(next_step), if busy => {
                let step = tokio::time::timeout(STEP_TIME_MAX, worker.step());
                match shutdown.run_until_cancelled(step).await {
                    None => return,
                    // What was restarted shows whether that helped.
                    Some(Ok(true)) => due = due.min(earliest.max(Instant::now() + CHANGE_PAUSE)),
                    Some(_) => {}
                }
                next_step = Instant::now() + STEP_INTERVAL;
            }
        }
    }
}

impl Worker {
    pub(in crate::cluster) fn new(
        client: Client,
        pods: Arc<Pods>,
        events: Events,
        settings: CatchUpSettings,
        own_namespace: String,
    ) -> Self {
        Self {
            templates: Templates::new(client.clone()),
            restarts: Restarts::new(settings.pause),
            catch_up: pods.metrics.catch_up().clone(),
            client,
            pods,
            events,
            settings,
            own_namespace,
            guard: Guard::default(),
            told: BTreeMap::new(),
            written: BTreeMap::new(),
            warned: BTreeSet::new(),
            said_right_is_missing: false,
            listing: State::new("listing pods for catch-up"),
            reading: State::new("reading workloads for catch-up"),
            restarting: State::new("restarting workloads for catch-up"),
            writing: State::new("writing the status of Instrumentations"),
        }
    }

    /// Looks at all pods once.
    async fn round(&mut self) -> kube::Result<()> {
        if !self.read_modes() {
            self.catch_up.replace(Report { at: Some(Timestamp::now()), ..Report::default() });
            self.restarts.plan(Vec::new());
            return Ok(());
        }
        let now = Timestamp::now();
        // Apart, since the namespaces' modes are read meanwhile.
        let mut guard = std::mem::take(&mut self.guard);
        let looked_at = |namespace: &str| self.mode(namespace) != CatchUpMode::Off;
        let census = census::take(&self.client, &self.pods, looked_at, &mut guard, now).await;
        self.guard = guard;
        let census = census?;
        let mut round = Round::default();
        round.report.pods_left_out = census.left_out;
        if census.left_out > 0 {
            tracing::warn!(pods = census.left_out, "more pods ask for instrumentation than catch-up looks at");
        }
        self.told.retain(|workload, _| census.groups.contains_key(workload));
        for (workload, group) in &census.groups {
            self.workload(workload, group, &mut round, now).await;
        }
        self.guard.retain(|workload| round.report.crash_loops.iter().any(|it| it.workload == *workload));
        if round.report.unreadable == 0 {
            self.reading.ok();
        }
        self.write_status(&round.counts).await;
        self.restarts.plan(round.candidates);
        self.catch_up.replace(Report { at: Some(Timestamp::now()), ..round.report });
        Ok(())
    }

    /// Whether any namespace is looked at; says once which annotations are no mode.
    fn read_modes(&mut self) -> bool {
        let (cluster, mut unknown) = (self.settings.mode, BTreeSet::new());
        let mut any = cluster != CatchUpMode::Off;
        self.pods.index.for_each_namespace(|name, annotations| match mode_of(annotations, cluster) {
            Ok(mode) => any |= mode != CatchUpMode::Off,
            Err(word) => {
                any = true;
                unknown.insert((name.to_owned(), word));
            }
        });
        for (namespace, word) in unknown.difference(&self.warned) {
            tracing::warn!(namespace, "{ANNOTATION}: \"{word}\" is none of off, report, restart; it counts as report");
        }
        self.warned = unknown;
        any
    }

    fn mode(&self, namespace: &str) -> CatchUpMode {
        if namespace == SYSTEM_NAMESPACE || namespace == self.own_namespace {
            return CatchUpMode::Off;
        }
        let annotations = self.pods.index.namespace(namespace).unwrap_or_default();
        mode_of(&annotations, self.settings.mode).unwrap_or(CatchUpMode::Report)
    }

    /// One workload of the round.
    async fn workload(&mut self, workload: &Workload, group: &Group, round: &mut Round, now: Timestamp) {
        let template = match self.template(workload, group).await {
            Ok(template) => template,
            Err(()) => {
                round.report.unreadable += 1;
                return;
            }
        };
        if let Some(suspect) = Guard::suspect(&group.pods) {
            self.crash_loop(workload, template.as_deref(), suspect, round, now).await;
        }
        let wanted = match (&group.wanted, &template) {
            (Some(wanted), _) => wanted.clone(),
            (None, Some(template)) => Wanted::of(&self.pods.decide(&template.pod, &workload.namespace).await),
            // It is gone, and its pods soon will be.
            (None, None) => return,
        };
        let rollout = template.as_ref().and_then(|template| template.rollout);
        let settled = rollout.is_none_or(|rollout| rollout.is_settled());
        let judge = |seen: &super::compare::Seen| if settled { seen.judge(&wanted) } else { None };
        count(group, &wanted, judge, &mut round.counts);
        if !settled {
            return;
        }
        let mut pods: BTreeMap<OutOfDate, u64> = BTreeMap::new();
        let (mut example, mut newest) = (BTreeMap::new(), None);
        for seen in &group.pods {
            let Some(state) = seen.judge(&wanted) else { continue };
            *pods.entry(state).or_default() += 1;
            *round.report.pods.entry(state).or_default() += 1;
            example.entry(state).or_insert_with(|| seen.name.clone());
            newest = newest.max(seen.created);
        }
        let Some((state, example)) = example.pop_first() else {
            self.told.remove(workload);
            return;
        };
        let key = wanted.key();
        let mut waits = None;
        if self.mode(&workload.namespace) == CatchUpMode::Restart {
            if rollout.is_some() {
                let workload = workload.clone();
                round.candidates.push(Candidate { workload, key: key.clone(), newest });
            } else {
                waits = Some(Obstacle::Kind(workload.kind).to_string());
            }
        }
        let finding = Finding {
            workload: workload.clone(),
            state,
            pods,
            example,
            instrumentations: wanted.instrumentations().map(str::to_owned).collect(),
            waits,
        };
        let news = self.told.get(workload) != Some(&(state, key.clone()));
        if news && round.notes < NOTES_PER_ROUND_MAX {
            round.notes += 1;
            self.told.insert(workload.clone(), (state, key));
            tracing::info!(workload = %workload_name(workload), state = state.as_str(), pods = ?finding.pods, "catch-up");
            self.publish(
                workload,
                template.as_deref(),
                NoteKind::Warning,
                reason(state),
                describe(&finding, group.pods.len()),
            );
        }
        if round.report.workloads.len() < SHOWN_MAX {
            round.report.workloads.push(finding);
        }
    }

    /// `Ok(None)`: none is needed, or it is gone. `Err`: it cannot be read, which has been said.
    async fn template(&mut self, workload: &Workload, group: &Group) -> Result<Option<Arc<Template>>, ()> {
        if group.wanted.is_some() {
            return Ok(None);
        }
        self.templates.read(workload).await.map_err(|error| {
            // One missing right or absent server is one line, not one per workload.
            if error.is_forbidden() {
                self.reading.failed(&"the right to get workloads is missing, see deploy/install.yaml");
            } else {
                self.reading.failed(&error.cause());
            }
        })
    }

    /// One step of the restarts; `true`: one is through.
    async fn step(&mut self) -> bool {
        match self.restarts.next(Instant::now()) {
            Step::Nothing => false,
            Step::Look(candidate) => {
                let waits = self.look(&candidate).await.err();
                self.catch_up.note_wait(&candidate.workload, waits);
                false
            }
            Step::Watch(underway) => self.watch(&underway).await,
        }
    }

    /// Restarts the workload, or says why not now.
    async fn look(&mut self, candidate: &Candidate) -> Result<(), String> {
        let workload = &candidate.workload;
        if self.mode(&workload.namespace) != CatchUpMode::Restart {
            return Err("its namespace asks for no restarts any more".to_owned());
        }
        let template = self.templates.read(workload).await.map_err(|error| error.to_string())?;
        let Some(template) = template else { return Err(Obstacle::Gone.to_string()) };
        let mut obstacle = self.restarts.obstacle(candidate, &template, None, Instant::now());
        if obstacle.is_none() {
            let budget = act::budget_in_the_way(&self.client, workload, &template).await;
            let budget = budget.map_err(|error| self.refused(&error))?;
            obstacle = self.restarts.obstacle(candidate, &template, budget, Instant::now());
        }
        if let Some(obstacle) = obstacle {
            tracing::debug!(workload = %workload_name(workload), %obstacle, "not restarted");
            return Err(obstacle.to_string());
        }
        let restarted = act::restart(&self.client, workload, &template, &candidate.key, Timestamp::now()).await;
        let generation = restarted.map_err(|error| self.refused(&error))?;
        self.restarting.ok();
        let uid = template.metadata.uid.clone().unwrap_or_default();
        self.restarts.restarted(candidate, uid, generation, Instant::now());
        tracing::info!(workload = %workload_name(workload), "restarted to have its pods injected as they should be now");
        let message = "Restarted to have its pods come out as its annotations and Instrumentations say now".to_owned();
        self.publish(workload, Some(&template), NoteKind::Normal, "RestartedForInjection", message);
        Ok(())
    }

    async fn watch(&mut self, underway: &Underway) -> bool {
        let rollout = match self.templates.read(&underway.workload).await {
            Ok(template) => template
                .filter(|template| template.metadata.uid.as_deref() == Some(&underway.uid))
                .and_then(|template| template.rollout),
            // Not known is not through.
            Err(_) => Some(Rollout::default()),
        };
        match self.restarts.watched(rollout.as_ref(), Instant::now()) {
            None => return false,
            Some(End::Gone(_)) => {}
            Some(End::Complete(_)) => self.catch_up.count_restart(RestartResult::Complete),
            Some(End::Failed(underway)) => {
                self.catch_up.count_restart(RestartResult::Failed);
                let workload = &underway.workload;
                tracing::warn!(workload = %workload_name(workload), "not available again after the restart; it is left alone");
                let message = "Not all pods became available after the restart for injection; it is not restarted again until its template changes";
                self.publish(workload, None, NoteKind::Warning, "RestartFailed", message.to_owned());
            }
        }
        true
    }

    /// Says what keeps a restart from being made, a missing right once; returns it.
    fn refused(&mut self, error: &kube::Error) -> String {
        if act::is_forbidden(error) {
            if !std::mem::replace(&mut self.said_right_is_missing, true) {
                tracing::warn!(%error, "catch-up restarts nothing: {MISSING_RIGHT}");
            }
            return MISSING_RIGHT.to_owned();
        }
        // Somebody else's change is looked at in the next round.
        if !act::is_overtaken(error) {
            self.restarting.failed(error);
        }
        error.to_string()
    }

    async fn write_status(&mut self, counts: &BTreeMap<String, Counts>) {
        let catalog = self.pods.index.catalog();
        self.written.retain(|(namespace, name), _| catalog.get(namespace, name).is_some());
        let mut writes = 0;
        for (namespace, name) in catalog.names() {
            let now = counts.get(&format!("{namespace}/{name}")).copied().unwrap_or_default();
            let place = (namespace.to_owned(), name.to_owned());
            if self.written.get(&place) == Some(&now) {
                continue;
            }
            if writes >= STATUS_WRITES_MAX {
                return;
            }
            writes += 1;
            match act::write_counts(&self.client, namespace, name, now).await {
                Ok(()) => {
                    self.writing.ok();
                    self.written.insert(place, now);
                }
                Err(error) => return self.writing.failed(&error),
            }
        }
    }

    fn publish(
        &self,
        workload: &Workload,
        template: Option<&Template>,
        kind: NoteKind,
        reason: &'static str,
        message: String,
    ) {
        let mut regarding = workload.reference();
        regarding.uid = template.and_then(|template| template.metadata.uid.clone());
        self.events.publish(Note { regarding, kind, reason, action: "CatchUp", message });
    }
}

/// Adds the workload to the counts of every Instrumentation that it concerns.
fn count(
    group: &Group,
    wanted: &Wanted,
    judge: impl Fn(&super::compare::Seen) -> Option<OutOfDate>,
    counts: &mut BTreeMap<String, Counts>,
) {
    let (mut injected, mut stale, mut missed) = (BTreeSet::new(), BTreeSet::new(), false);
    let current = |name: &str| match wanted {
        Wanted::Injected { record, .. } => record.instrumentations.get(name).copied(),
        Wanted::Nothing | Wanted::Untold => None,
    };
    for seen in &group.pods {
        let state = judge(seen);
        missed |= state == Some(OutOfDate::Missed);
        let Injection::Ours(record) = &seen.injection else { continue };
        for (name, generation) in &record.instrumentations {
            injected.insert(name.as_str());
            if state == Some(OutOfDate::Stale) && current(name) != Some(*generation) {
                stale.insert(name.as_str());
            }
        }
    }
    let mut of = |name: &str, add: fn(&mut Counts)| add(counts.entry(name.to_owned()).or_default());
    injected.into_iter().for_each(|name| of(name, |counts| counts.injected += 1));
    stale.into_iter().for_each(|name| of(name, |counts| counts.stale += 1));
    wanted.instrumentations().filter(|_| missed).for_each(|name| of(name, |counts| counts.missed += 1));
}

fn reason(state: OutOfDate) -> &'static str {
    match state {
        OutOfDate::Missed => "InjectionMissed",
        OutOfDate::Stale => "InjectionStale",
        OutOfDate::Unwanted => "InjectionUnwanted",
    }
}

fn workload_name(workload: &Workload) -> String {
    format!("{} {}/{}", workload.kind, workload.namespace, workload.name)
}

/// A sentence for people, with what to do.
fn describe(finding: &Finding, all: usize) -> String {
    let Finding { workload, state, .. } = finding;
    let count = finding.pods.get(state).copied().unwrap_or_default();
    let from = finding.instrumentations.join(", ");
    let what = match state {
        OutOfDate::Missed => format!("not injected as new pods would be now, from {from}"),
        OutOfDate::Stale => format!("not injected from what new pods would be now, {from}"),
        OutOfDate::Unwanted => "injected, and new pods would not be".to_owned(),
    };
    let remedy = match workload.kind {
        "Pod" => "delete it and create it anew".to_owned(),
        "Job" => "its next run comes out right".to_owned(),
        "ReplicaSet" => "delete its pods".to_owned(),
        kind => {
            format!("kubectl -n {} rollout restart {}/{}", workload.namespace, kind.to_ascii_lowercase(), workload.name)
        }
    };
    let are = if count == 1 { "is" } else { "are" };
    format!("{count} of {all} pods ({}) {are} {what}: {remedy}", finding.example)
}

#[cfg(test)]
mod tests {
    use super::super::compare::Seen;
    use super::*;
    use crate::inject::Record;

    fn seen(record: Option<&str>) -> Seen {
        let injection = record.map_or(Injection::None, |record| Injection::Ours(serde_json::from_str(record).unwrap()));
        Seen { name: "p".to_owned(), created: None, injection, crashing: BTreeSet::new(), healthy: true, program: 0 }
    }

    #[test]
    fn workloads_count_once_for_each_instrumentation() {
        let text = |generation| {
            format!(r#"{{"instrumentations":{{"n/i":{generation}}},"containers":{{"app":{{"java":"injected"}}}}}}"#)
        };
        let record: Record = serde_json::from_str(&text(2)).unwrap();
        let wanted = Wanted::Injected { record, asked: BTreeSet::from(["java"]) };
        let mut counts = BTreeMap::new();
        let mut add = |pods: Vec<Seen>| {
            count(&Group { pods, wanted: None }, &wanted, |seen| seen.judge(&wanted), &mut counts);
        };
        add(vec![seen(Some(&text(2))), seen(Some(&text(2)))]);
        add(vec![seen(Some(&text(1))), seen(None)]);
        add(vec![seen(None)]);
        assert_eq!(counts, BTreeMap::from([("n/i".to_owned(), Counts { injected: 2, stale: 1, missed: 2 })]));
    }

    #[test]
    fn the_sentence_says_what_and_what_to_do() {
        let finding = Finding {
            workload: Workload { kind: "Deployment", namespace: "shop".to_owned(), name: "web".to_owned() },
            state: OutOfDate::Missed,
            pods: BTreeMap::from([(OutOfDate::Missed, 2)]),
            example: "web-1".to_owned(),
            instrumentations: vec!["n/i".to_owned()],
            waits: None,
        };
        assert_eq!(
            describe(&finding, 3),
            "2 of 3 pods (web-1) are not injected as new pods would be now, from n/i: \
             kubectl -n shop rollout restart deployment/web"
        );
    }
}
