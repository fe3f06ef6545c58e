//! How pods stand, compared with what would become of them now. Nothing here asks anybody.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::prospect::{Prospect, excluded_why};
use super::remedy;
use super::report::{Condition, ContainerReport, DecisionReport, InstrumentationReport, PodReport, WorkloadReport};
use crate::cluster::life::{ContainerLife, Life, LifeState, Lives};
use crate::inject::{self, Catalog, Instrumentation, Record, Verdict};

/// Pods shown in full of a workload that is named.
const EXAMPLES_MAX: usize = 20;

/// Which pods of a workload are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// Up to [`EXAMPLES_MAX`], those that stand worst first.
    Full,
    /// One for each condition.
    OneOfEach,
    /// None.
    Summary,
}

/// What is kept of a pod that exists.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) uid: String,
    created: Option<Timestamp>,
    record: Option<Record>,
    /// Container, language where it is known, agent image.
    injected: Vec<(String, Option<&'static str>, Option<String>)>,
}

impl Member {
    pub(super) fn read(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let mut injected = Vec::new();
        for found in inject::injected_containers(pod) {
            let name = &found.container.name;
            if found.languages.is_empty() {
                injected.push((name.clone(), None, None));
            }
            injected.extend(found.languages.iter().map(|&language| {
                (name.clone(), Some(language.as_str()), inject::agent_image(pod, language).map(str::to_owned))
            }));
        }
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            record: Record::of(pod),
            injected,
        }
    }

    pub(super) fn is_injected(&self) -> bool {
        !self.injected.is_empty()
    }
}

/// What is true at this moment of more than one workload.
#[derive(Clone, Copy)]
pub(super) struct Present<'a> {
    pub(super) lives: &'a dyn Lives,
    pub(super) catalog: &'a Catalog,
}

impl<'a> Present<'a> {
    /// `None`: there is no such Instrumentation, it cannot be read, or it is the built-in one.
    fn instrumentation(self, full_name: &str) -> Option<&'a Instrumentation> {
        let (namespace, name) = full_name.split_once('/')?;
        self.catalog.get(namespace, name)?.as_ref().ok().map(|found| &**found)
    }

    fn generation(self, full_name: &str) -> Option<i64> {
        match full_name.contains('/') {
            true => Some(self.instrumentation(full_name)?.generation),
            false => Some(0),
        }
    }
}

/// The whole of a workload. `left_out` counts pods that are not shown.
pub(super) fn workload(
    prospect: &Prospect,
    members: &[Member],
    present: Present<'_>,
    detail: Detail,
    left_out: &mut usize,
) -> WorkloadReport {
    let mut pods: Vec<PodReport> = members.iter().map(|member| pod(prospect, member, present)).collect();
    let mut pod_conditions: BTreeMap<Condition, usize> = BTreeMap::new();
    for pod in &pods {
        *pod_conditions.entry(pod.condition).or_default() += 1;
    }
    pods.sort_by(|one, other| (one.condition, &one.name).cmp(&(other.condition, &other.name)));
    let worst = pods.first().and_then(|pod| {
        let container = pod.containers.iter().min_by_key(|container| container.condition)?;
        Some((container.condition, container.why.clone(), container.remedy.clone()))
    });
    let (condition, why, remedy) = worst.unwrap_or_else(|| prospect.without_pods());
    let examples = match detail {
        Detail::Full => {
            *left_out += pods.len().saturating_sub(EXAMPLES_MAX);
            pods.truncate(EXAMPLES_MAX);
            pods
        }
        Detail::OneOfEach => {
            pods.dedup_by_key(|pod| pod.condition);
            pods
        }
        Detail::Summary => Vec::new(),
    };
    WorkloadReport {
        workload: prospect.workload.clone(),
        condition,
        why,
        remedy,
        asked: prospect.asked.clone(),
        decisions: prospect.decisions.clone(),
        notes: prospect.notes.clone(),
        pods: members.len(),
        pod_conditions,
        examples,
    }
}

fn pod(prospect: &Prospect, member: &Member, present: Present<'_>) -> PodReport {
    let mut containers = injected(prospect, member, present);
    containers.extend(not_injected(prospect, member));
    if containers.is_empty() {
        let unasked = &prospect.unasked;
        containers.push(ContainerReport {
            container: None,
            language: None,
            condition: unasked.condition,
            reason: None,
            why: unasked.why.clone(),
            instrumentation: None,
            agent_image: None,
            life: None,
            remedy: Some(unasked.remedy.clone()),
        });
    }
    containers.sort_by(|one, other| (&one.container, one.language).cmp(&(&other.container, other.language)));
    let condition = containers.iter().map(|container| container.condition).min().unwrap_or(Condition::NotAsked);
    PodReport { name: member.name.clone(), created: member.created, condition, containers }
}

/// What the pod has.
fn injected(prospect: &Prospect, member: &Member, present: Present<'_>) -> Vec<ContainerReport> {
    let of_containers = present.lives.containers(&member.uid);
    let of_pod = present.lives.life(&member.uid);
    let life = |container: &str| -> Option<Life> {
        let own = |life: &&ContainerLife| life.container == container;
        of_containers.iter().find(own).map(|life| life.life.clone()).or_else(|| of_pod.clone())
    };
    let report = |(container, language, image): &(String, Option<&'static str>, Option<String>)| {
        let life = life(container);
        let next = language.and_then(|language| prospect.decision(language, Some(container)));
        let used = used(member, next, present);
        let (condition, why, remedy) = standing(prospect, member, container, life.as_ref(), next, used.as_ref());
        let silent = matches!(condition, Condition::Silent | Condition::Stuck | Condition::Quiet);
        let fix = silent.then(|| present.lives.fix(&member.uid, container)).flatten();
        let fixed = fix.map(|fix| {
            let from = used.as_ref().and_then(|used| present.instrumentation(&used.name));
            remedy::of_fix(&fix, &prospect.workload, &prospect.asked, &member.name, container, from)
        });
        let remedy = fixed.or(remedy);
        ContainerReport {
            container: Some(container.clone()),
            language: *language,
            condition,
            reason: next.map(|next| next.reason),
            why,
            instrumentation: used,
            agent_image: image.clone(),
            life,
            remedy,
        }
    };
    member.injected.iter().map(report).collect()
}

/// The Instrumentation that a container was injected from: the one that would be used now if the record has it, else the
/// only one of the record.
fn used(member: &Member, next: Option<&DecisionReport>, present: Present<'_>) -> Option<InstrumentationReport> {
    let record = member.record.as_ref()?;
    let of_next = next.and_then(|next| next.instrumentation.as_ref());
    let known = of_next.filter(|next| record.instrumentations.contains_key(&next.name));
    let name = known.map(|next| &next.name).or_else(|| record.instrumentations.keys().next())?;
    Some(InstrumentationReport {
        name: name.clone(),
        generation: present.generation(name),
        created: None,
        injected_generation: record.instrumentations.get(name).copied(),
    })
}

fn standing(
    prospect: &Prospect,
    member: &Member,
    container: &str,
    life: Option<&Life>,
    next: Option<&DecisionReport>,
    used: Option<&InstrumentationReport>,
) -> (Condition, String, Option<String>) {
    let namespace = &prospect.workload.namespace;
    let pod = &member.name;
    let cause = life.and_then(|life| life.likely_cause.clone());
    let state = life.map(|life| life.state);
    let heard = life.is_some_and(|life| life.last_span.is_some());
    match (state, cause.clone()) {
        (Some(LifeState::Silent), cause) if !heard => {
            let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
            let why = format!("no span ever came{cause}");
            return (Condition::Silent, why, Some(remedy::listen(namespace, pod, container)));
        }
        (Some(LifeState::Injected), Some(cause)) => {
            return (Condition::Stuck, cause, Some(remedy::look(namespace, pod)));
        }
        _ => {}
    }
    let restart = || Some(remedy::restart(&prospect.workload, Some(pod)));
    if let (Some(_), None) = (&member.record, next) {
        if prospect.decisions.is_empty() {
            return (Condition::Unwanted, "it is injected and nothing asks for it any more".to_owned(), restart());
        }
        if prospect.decisions.iter().all(|decision| decision.result == Verdict::Injected.as_str()) {
            let why = "it is injected; a pod that came now would be injected differently".to_owned();
            return (Condition::Stale, why, restart());
        }
    }
    if let Some(next) = next.filter(|next| next.result == Verdict::Refused.as_str()) {
        let why = format!("it is injected, and a pod that came now would not be: {}", next.message);
        return (Condition::RefusedNext, why, Some(next.remedy.clone()));
    }
    if let Some(why) = next.filter(|_| member.record.is_some()).and_then(|next| outdated(next, used)) {
        return (Condition::Stale, why, restart());
    }
    let by = if member.record.is_some() { "" } else { " by opentelemetry-operator, or by hand" };
    match state {
        Some(LifeState::Silent) => {
            let why = cause.unwrap_or_else(|| "no span came lately".to_owned());
            (Condition::Quiet, why, Some(remedy::listen(namespace, pod, container)))
        }
        Some(LifeState::Speaking) => (Condition::Speaking, "spans come".to_owned(), None),
        Some(LifeState::Started) => (Condition::Started, format!("injected{by}; it runs, no span came yet"), None),
        _ => (Condition::Injected, format!("injected{by}; it does not run yet"), None),
    }
}

/// Whether what was used is not what would be used now.
fn outdated(next: &DecisionReport, used: Option<&InstrumentationReport>) -> Option<String> {
    let (now, used) = (next.instrumentation.as_ref()?, used?);
    if now.name != used.name {
        return Some(format!("injected from {}; a pod that came now would be from {}", used.name, now.name));
    }
    let (generation, injected) = (now.generation?, used.injected_generation?);
    (injected < generation)
        .then(|| format!("injected from generation {injected} of {}, which is at {generation}", used.name))
}

/// What the pod asks for, or would now, and has not.
fn not_injected<'a>(prospect: &'a Prospect, member: &'a Member) -> impl Iterator<Item = ContainerReport> + 'a {
    let has = |decision: &&DecisionReport| {
        member.injected.iter().any(|(container, language, _)| {
            language.is_none_or(|language| language == decision.language)
                && decision.container.as_ref().is_none_or(|wanted| wanted == container)
        })
    };
    let lacking = prospect.decisions.iter().filter(move |decision| !has(decision));
    // Of what is there already, somebody else's injection included, nothing is missing.
    let lacking = lacking.filter(|decision| !member.is_injected() || decision.result != Verdict::Skipped.as_str());
    lacking.map(|decision| {
        let (condition, why, remedy) = if prospect.excluded {
            (Condition::Excluded, excluded_why(&prospect.workload.namespace), decision.remedy.clone())
        } else if decision.result == Verdict::Injected.as_str() {
            let why = "it was created without instrumentation; one that came now would be injected".to_owned();
            (Condition::Missed, why, remedy::restart(&prospect.workload, Some(&member.name)))
        } else {
            (Condition::Refused, decision.message.clone(), decision.remedy.clone())
        };
        ContainerReport {
            container: decision.container.clone(),
            language: Some(decision.language),
            condition,
            reason: Some(decision.reason),
            why,
            instrumentation: decision.instrumentation.clone(),
            agent_image: None,
            life: None,
            remedy: Some(remedy),
        }
    })
}
