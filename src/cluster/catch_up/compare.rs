//! What a pod is against what it would be if it were created now. Pure.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus};
use serde::Serialize;

use crate::inject::{self, Catalog, Decision, Record};

/// What is wrong with a pod that a restart would mend; in order of what a person should know first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutOfDate {
    /// It would be injected now, and is not, or not wholly.
    Missed,
    /// It was injected from another Instrumentation or an older generation than would be used now.
    Stale,
    /// It was injected, and asks for it no more.
    Unwanted,
}

impl OutOfDate {
    pub(super) const ALL: [Self; 3] = [Self::Missed, Self::Stale, Self::Unwanted];

    /// The metric label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Stale => "stale",
            Self::Unwanted => "unwanted",
        }
    }
}

/// What the next pod of a workload would be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wanted {
    Nothing,
    Injected {
        record: Record,
        /// Languages that are asked for, injected or refused.
        asked: BTreeSet<&'static str>,
    },
    /// It asks and is refused, or carries instrumentation of its own: nothing to compare with.
    Untold,
}

impl Wanted {
    pub(super) fn of(decision: &Decision) -> Self {
        match Record::new(decision) {
            Some(record) => {
                let asked = decision.outcomes.iter().map(|outcome| outcome.language.as_str()).collect();
                Self::Injected { record, asked }
            }
            None if decision.outcomes.is_empty() => Self::Nothing,
            None => Self::Untold,
        }
    }

    /// Of a pod without a template that was injected: the same as before, from the Instrumentations as they are now.
    pub(super) fn of_injected(record: &Record, asks: bool, catalog: &Catalog) -> Self {
        if !asks {
            return Self::Nothing;
        }
        let mut record = record.clone();
        for (name, generation) in &mut record.instrumentations {
            if let Some((namespace, name)) = name.split_once('/')
                && let Some(Ok(current)) = catalog.get(namespace, name)
            {
                *generation = current.generation;
            }
        }
        let asked = inject::Language::ALL.into_iter().map(inject::Language::as_str).collect();
        Self::Injected { record, asked }
    }

    /// What a restart would be for, short and the same as long as the outcome is: `default/java@3`.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Injected { record, .. } => {
                let all = record.instrumentations.iter().map(|(name, generation)| format!("{name}@{generation}"));
                all.collect::<Vec<_>>().join(",")
            }
            Self::Nothing | Self::Untold => "none".to_owned(),
        }
    }

    /// `namespace/name` of what would be used.
    pub(super) fn instrumentations(&self) -> impl Iterator<Item = &str> {
        let record = match self {
            Self::Injected { record, .. } => Some(record),
            Self::Nothing | Self::Untold => None,
        };
        record.into_iter().flat_map(|record| record.instrumentations.keys().map(String::as_str))
    }
}

/// How a pod came by its instrumentation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Injection {
    None,
    Ours(Record),
    /// opentelemetry-operator's or by hand: there is no record to compare.
    Foreign,
}

/// What is kept of a pod for one round.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) created: Option<Timestamp>,
    pub(super) injection: Injection,
    /// Languages of injected containers that crash-loop.
    pub(super) crashing: BTreeSet<&'static str>,
    /// Ready, and nothing in it crash-loops.
    pub(super) healthy: bool,
    /// What runs in it, see [`program`].
    pub(super) program: u64,
}

/// Restarts from which on a container that does not run for long yet is in a loop.
const RESTARTS_MIN: i32 = 3;
/// A container that runs for so long has left its loop.
const STABLE_AFTER: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);
/// Ours and the operator's.
const AGENT_CONTAINER_PREFIX: &str = "opentelemetry-auto-instrumentation";

impl Seen {
    pub(super) fn read(pod: &Pod, now: Timestamp) -> Self {
        let injected = inject::injected_containers(pod);
        let injection = match Record::of(pod) {
            Some(record) if !injected.is_empty() => Injection::Ours(record),
            _ if injected.is_empty() => Injection::None,
            _ => Injection::Foreign,
        };
        let status = pod.status.as_ref();
        let loops = |name: &str| statuses(status).any(|it| it.name == name && is_looping(it, now));
        let mut crashing: BTreeSet<&'static str> = injected
            .iter()
            .filter(|it| loops(&it.container.name))
            .flat_map(|it| it.languages.iter().map(|language| language.as_str()))
            .collect();
        // What fails to bring an agent keeps the whole pod down.
        for it in statuses(status).filter(|it| it.name.starts_with(AGENT_CONTAINER_PREFIX) && is_looping(it, now)) {
            // The agent of go runs beside the application and has no further name.
            let language = match it.name.strip_prefix(AGENT_CONTAINER_PREFIX).unwrap_or_default() {
                "" => "go",
                language => language.trim_start_matches('-'),
            };
            let known = inject::Language::ALL.into_iter().map(inject::Language::as_str);
            crashing.extend(known.filter(|known| *known == language));
        }
        let ready = status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        Self {
            name: pod.metadata.name.clone().unwrap_or_default(),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            injection,
            crashing,
            healthy: ready && !statuses(status).any(|it| is_looping(it, now)),
            program: pod.spec.as_ref().map(program).unwrap_or_default(),
        }
    }

    /// `None`: as it should be, or nobody can tell.
    pub(super) fn judge(&self, wanted: &Wanted) -> Option<OutOfDate> {
        match (&self.injection, wanted) {
            (Injection::Foreign, _) | (_, Wanted::Untold) | (Injection::None, Wanted::Nothing) => None,
            (Injection::None, Wanted::Injected { .. }) => Some(OutOfDate::Missed),
            (Injection::Ours(_), Wanted::Nothing) => Some(OutOfDate::Unwanted),
            (Injection::Ours(had), Wanted::Injected { record, asked }) => compare(had, record, asked),
        }
    }

    pub(super) fn is_injected(&self) -> bool {
        self.injection != Injection::None
    }
}

/// The same for pods that differ by nothing but their injection, as far as what they run goes: names, images, commands and
/// arguments of their containers.
pub(super) fn program(spec: &PodSpec) -> u64 {
    let mut hasher = DefaultHasher::new();
    for container in spec.containers.iter().filter(|it| !it.name.starts_with(AGENT_CONTAINER_PREFIX)) {
        (&container.name, &container.image, &container.command, &container.args).hash(&mut hasher);
    }
    hasher.finish()
}

fn compare(had: &Record, wanted: &Record, asked: &BTreeSet<&'static str>) -> Option<OutOfDate> {
    let done: BTreeSet<_> = had.injected().collect();
    let due: BTreeSet<_> = wanted.injected().collect();
    if !due.is_subset(&done) {
        return Some(OutOfDate::Missed);
    }
    if wanted.instrumentations.iter().any(|(name, generation)| had.instrumentations.get(name) != Some(generation)) {
        return Some(OutOfDate::Stale);
    }
    let is_unwanted = |container: &str, language: &str| {
        let elsewhere = due.iter().any(|(_, due)| *due == language);
        let refused_here = wanted.containers.get(container).is_some_and(|all| all.contains_key(language));
        !asked.contains(language) || (elsewhere && !refused_here)
    };
    let mut extra = done.difference(&due);
    extra.any(|(container, language)| is_unwanted(container, language)).then_some(OutOfDate::Unwanted)
}

fn statuses(status: Option<&PodStatus>) -> impl Iterator<Item = &ContainerStatus> {
    let status = status.into_iter();
    status.flat_map(|status| status.container_statuses.iter().chain(&status.init_container_statuses).flatten())
}

/// Whether a container starts again and again, now.
fn is_looping(status: &ContainerStatus, now: Timestamp) -> bool {
    let state = status.state.as_ref();
    let waiting = state.and_then(|state| state.waiting.as_ref()?.reason.as_deref());
    if waiting == Some("CrashLoopBackOff") {
        return true;
    }
    let stable = state
        .and_then(|state| state.running.as_ref()?.started_at.as_ref())
        .is_some_and(|since| now.duration_since(since.0) >= STABLE_AFTER);
    // An init container that is through does not start again.
    let through = state.and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0);
    status.restart_count >= RESTARTS_MIN && !stable && !through
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn record(instrumentations: Value, containers: Value) -> Record {
        serde_json::from_value(json!({"instrumentations": instrumentations, "containers": containers})).unwrap()
    }

    fn seen(injection: Injection) -> Seen {
        Seen { name: "p".to_owned(), created: None, injection, crashing: BTreeSet::new(), healthy: true, program: 0 }
    }

    fn wanted(record: Record, asked: &[&'static str]) -> Wanted {
        Wanted::Injected { record, asked: asked.iter().copied().collect() }
    }

    #[test]
    fn injection_leaves_the_program_what_it_was() {
        let of = |image: &str, more: Value| {
            let mut containers = vec![json!({"name": "app", "image": image, "command": ["run"], "env": more})];
            if !more.is_null() {
                containers.push(json!({"name": "opentelemetry-auto-instrumentation", "image": "go"}));
            }
            program(&serde_json::from_value(json!({"containers": containers, "volumes": []})).unwrap())
        };
        assert_eq!(of("app:1", Value::Null), of("app:1", json!([{"name": "JAVA_TOOL_OPTIONS"}])));
        assert_ne!(of("app:1", Value::Null), of("app:2", Value::Null));
    }

    #[test]
    fn a_pod_is_judged_by_what_it_would_be() {
        let java = || record(json!({"n/i": 3}), json!({"app": {"java": "injected"}}));
        let now = || wanted(java(), &["java"]);
        let ours = |record| seen(Injection::Ours(record));
        assert_eq!(seen(Injection::None).judge(&now()), Some(OutOfDate::Missed));
        assert_eq!(seen(Injection::None).judge(&Wanted::Nothing), None);
        assert_eq!(seen(Injection::None).judge(&Wanted::Untold), None, "a refusal is no miss");
        assert_eq!(seen(Injection::Foreign).judge(&now()), None, "nobody knows what the operator used");
        assert_eq!(seen(Injection::Foreign).judge(&Wanted::Nothing), None);
        assert_eq!(ours(java()).judge(&now()), None);
        assert_eq!(ours(java()).judge(&Wanted::Nothing), Some(OutOfDate::Unwanted));
        assert_eq!(ours(java()).judge(&Wanted::Untold), None);
        let generation = |generation| record(json!({"n/i": generation}), json!({"app": {"java": "injected"}}));
        assert_eq!(ours(generation(2)).judge(&now()), Some(OutOfDate::Stale));
        assert_eq!(ours(generation(9)).judge(&now()), Some(OutOfDate::Stale), "deleted and made anew");
        let other = record(json!({"n/other": 3}), json!({"app": {"java": "injected"}}));
        assert_eq!(ours(other).judge(&now()), Some(OutOfDate::Stale));
    }

    #[test]
    fn single_containers_and_languages_count() {
        let both = || record(json!({"n/i": 1}), json!({"a": {"java": "injected"}, "b": {"python": "injected"}}));
        let java = || record(json!({"n/i": 1}), json!({"a": {"java": "injected"}}));
        let had = |record| seen(Injection::Ours(record));
        assert_eq!(had(java()).judge(&wanted(both(), &["java", "python"])), Some(OutOfDate::Missed));
        assert_eq!(had(both()).judge(&wanted(java(), &["java"])), Some(OutOfDate::Unwanted));
        assert_eq!(
            had(both()).judge(&wanted(java(), &["java", "python"])),
            None,
            "python is asked for, and refused now"
        );
        let moved = record(json!({"n/i": 1}), json!({"a": {"java": "injected"}, "b": {"java": "injected"}}));
        assert_eq!(had(moved).judge(&wanted(java(), &["java"])), Some(OutOfDate::Unwanted));
    }

    #[test]
    fn a_pod_without_template_is_compared_with_the_catalog() {
        let had = record(json!({"built-in": 0, "n/i": 1}), json!({"app": {"java": "injected"}}));
        let mut catalog = Catalog::default();
        let pod = seen(Injection::Ours(had.clone()));
        assert_eq!(pod.judge(&Wanted::of_injected(&had, true, &catalog)), None, "deleted: nothing newer");
        assert_eq!(pod.judge(&Wanted::of_injected(&had, false, &catalog)), Some(OutOfDate::Unwanted));
        let newer = inject::Instrumentation { generation: 2, ..inject::Instrumentation::default() };
        catalog.insert("n", "i", Ok(std::sync::Arc::new(newer)));
        assert_eq!(pod.judge(&Wanted::of_injected(&had, true, &catalog)), Some(OutOfDate::Stale));
    }

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "annotations": {"spanreel.dev/injection":
                r#"{"instrumentations":{"n/i":1},"containers":{"app":{"java":"injected"}}}"#}},
            "spec": {"containers": [
                {"name": "app", "env": [{"name": "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME"}]}, {"name": "side"}]},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn crash_loops_count_in_injected_containers_and_while_they_last() {
        let crashing = |status: Value| -> Vec<_> {
            Seen::read(&pod(&status), NOW.parse().unwrap()).crashing.into_iter().collect()
        };
        let container = |name: &str, restarts: i32, state: Value| {
            json!({"containerStatuses": [{"name": name, "image": "", "imageID": "", "ready": false,
                "restartCount": restarts, "state": state}]})
        };
        let waiting = || json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(crashing(container("app", 1, waiting())), ["java"]);
        assert!(crashing(container("side", 9, waiting())).is_empty(), "not injected");
        let since = |time: &str| json!({"running": {"startedAt": time}});
        assert_eq!(crashing(container("app", 3, since("2026-01-02T03:03:00Z"))), ["java"]);
        assert!(crashing(container("app", 2, since("2026-01-02T03:03:00Z"))).is_empty());
        assert!(crashing(container("app", 30, since("2026-01-02T02:00:00Z"))).is_empty(), "it has run for an hour");
        let init = json!({"initContainerStatuses": [{"name": "opentelemetry-auto-instrumentation-java", "image": "",
            "imageID": "", "ready": false, "restartCount": 1, "state": waiting()}]});
        assert_eq!(crashing(init), ["java"]);
    }
}
