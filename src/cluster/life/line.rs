//! The life line itself: shared by the receivers, the watch, and whoever asks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::cause::{self, OwnService};
use super::facts::{Facts, Run};
use super::index::{Change, Followed, Pods, Strangers};
use super::metrics::LifeCollector;
use super::speech::Heard;
use super::{ContainerLife, Fix, Life, LifeState, Lives};
use crate::cluster::events::{Note, NoteKind};
use crate::cluster::workloads::Workload;
use crate::otlp::resource::Speaker;
use crate::receive::Witness;
use crate::receive::other_signals::Signal;

/// Events of one round; what is left comes with the next.
const NOTES_PER_ROUND_MAX: usize = 50;

/// Silent pods that the status names.
const SILENT_SHOWN_MAX: usize = 20;

/// Who asked, who speaks, who does not.
#[derive(Debug)]
pub struct LifeLine {
    pods: RwLock<Pods>,
    strangers: Mutex<Strangers>,
    silent_after: Duration,
    /// Nothing was heard before, whoever spoke.
    listening_since: Timestamp,
    own: OnceLock<OwnService>,
    left_out: AtomicU64,
}

/// One pod at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) state: LifeState,
    /// It runs for long enough and was never heard, instrumented or not; or was injected and cannot get to run.
    pub(super) never_spoke: bool,
}

/// Pods and workloads by state at one moment.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) workloads: BTreeMap<LifeState, u64>,
    pub(super) pods: BTreeMap<(Arc<str>, LifeState), u64>,
    pub(super) never_spoke: u64,
    pub(super) fell_silent: u64,
    pub(super) left_out: u64,
}

impl LifeLine {
    /// `silent_after`: how long nobody is called silent.
    #[must_use]
    pub fn new(silent_after: Duration) -> Arc<Self> {
        Self::listening_since(Timestamp::now(), silent_after)
    }

    pub(super) fn listening_since(listening_since: Timestamp, silent_after: Duration) -> Arc<Self> {
        Arc::new(Self {
            pods: RwLock::default(),
            strangers: Mutex::default(),
            silent_after,
            listening_since,
            own: OnceLock::new(),
            left_out: AtomicU64::default(),
        })
    }

    /// Adds its metrics to a registry. Their names are whole: the registry has no prefix.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register_collector(Box::new(LifeCollector(Arc::clone(self))));
    }

    /// The figures of `spanreel status`.
    #[must_use]
    pub fn summary(&self) -> Value {
        let now = Timestamp::now();
        let census = self.census(now);
        let workloads: BTreeMap<LifeState, u64> = census.workloads;
        let of = |state| workloads.get(&state).copied().unwrap_or_default();
        let mut pods: BTreeMap<LifeState, u64> = BTreeMap::new();
        for ((_, state), count) in census.pods {
            *pods.entry(state).or_default() += count;
        }
        json!({
            "workloads": workloads.values().sum::<u64>(),
            "workloads_speaking": of(LifeState::Speaking),
            "workloads_silent": of(LifeState::Silent),
            "workloads_not_injected": of(LifeState::Asked),
            "pods": LifeState::ALL.map(|state| (state.as_str(), pods.get(&state).copied().unwrap_or_default()))
                .into_iter().collect::<BTreeMap<_, _>>(),
            "pods_never_spoke": census.never_spoke,
            "pods_left_out": census.left_out,
            "silent": self.silent(now),
        })
    }

    /// The first silent pods by name, those that never spoke before the others.
    fn silent(&self, now: Timestamp) -> Vec<Value> {
        let mut silent: Vec<(bool, Arc<Facts>)> = self
            .read()
            .all()
            .filter_map(|followed| {
                let standing = self.standing(followed, now);
                let silent = standing.never_spoke || standing.state == LifeState::Silent;
                silent.then(|| (!standing.never_spoke, Arc::clone(&followed.facts)))
            })
            .collect();
        silent.sort_unstable_by(|(spoke, one), (other_spoke, other)| {
            (spoke, &one.namespace, &one.name).cmp(&(other_spoke, &other.namespace, &other.name))
        });
        let pods = silent.into_iter().take(SILENT_SHOWN_MAX);
        pods.map(|(_, facts)| {
            json!({
                "namespace": &*facts.namespace,
                "pod": &*facts.name,
                "workload": &*facts.workload,
                "life": self.life(&facts.uid),
                "containers": self.containers(&facts.uid),
            })
        })
        .collect()
    }

    pub(super) fn silent_after(&self) -> Duration {
        self.silent_after
    }

    /// Where pods find Spanreel.
    pub(in crate::cluster) fn set_own_service(&self, service: &str, namespace: &str) {
        let _ = self.own.set(OwnService { service: service.to_owned(), namespace: namespace.to_owned() });
    }

    pub(super) fn on_pod(
        &self,
        event: &Event<Pod>,
        annotations_of: impl Fn(&str) -> Option<Arc<BTreeMap<String, String>>>,
    ) {
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        match pods.on_event(event, annotations_of) {
            Change::Nothing => {}
            Change::LeftOut => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
            Change::Address(uid) => {
                let Some(followed) = pods.get(&uid) else { return };
                let Some(created) = followed.facts.created else { return };
                let strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
                if followed.facts.addresses.iter().any(|&address| strangers.came_since(address, created)) {
                    followed.speech.visits.connected();
                }
            }
        }
    }

    /// Notes about pods that never spoke although it was time, each pod once.
    pub(super) fn round(&self, now: Timestamp) -> Vec<Note> {
        let mut silent: BTreeMap<Arc<Workload>, Vec<Followed>> = BTreeMap::new();
        for followed in self.read().all() {
            let reported = followed.speech.reported.load(Ordering::Relaxed);
            if !reported && self.standing(followed, now).never_spoke {
                silent.entry(Arc::clone(&followed.facts.workload)).or_default().push(followed.clone());
            }
        }
        let notes = silent.into_iter().take(NOTES_PER_ROUND_MAX);
        notes.filter_map(|(workload, pods)| self.note(&workload, &pods, now)).collect()
    }

    fn note(&self, workload: &Workload, pods: &[Followed], now: Timestamp) -> Option<Note> {
        pods.iter().for_each(|followed| followed.speech.reported.store(true, Ordering::Relaxed));
        let followed = pods.iter().min_by(|one, other| one.facts.name.cmp(&other.facts.name))?;
        let index =
            (0..followed.facts.containers.len()).find(|&index| self.of_container(followed, index, now).never_spoke)?;
        let container = followed.facts.containers.get(index)?;
        let others = match pods.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        let cause = cause::likely(&followed.facts, container, &followed.speech, self.own()).sentence;
        Some(Note {
            regarding: workload.reference(),
            kind: NoteKind::Warning,
            reason: "NeverSpoke",
            action: "Listening",
            message: format!(
                "Pod {}{others}, container {}, asks for instrumentation and no span came for {} s: {cause}",
                followed.facts.name,
                container.name,
                self.silent_after.as_secs(),
            ),
        })
    }

    pub(super) fn census(&self, now: Timestamp) -> Census {
        let mut census = Census { left_out: self.left_out.load(Ordering::Relaxed), ..Census::default() };
        let mut workloads: BTreeMap<Arc<Workload>, LifeState> = BTreeMap::new();
        for followed in self.read().all() {
            let standing = self.standing(followed, now);
            *census.pods.entry((Arc::clone(&followed.facts.namespace), standing.state)).or_default() += 1;
            if standing.never_spoke {
                census.never_spoke += 1;
            } else if standing.state == LifeState::Silent {
                census.fell_silent += 1;
            }
            let state = workloads.entry(Arc::clone(&followed.facts.workload)).or_insert(standing.state);
            *state = worst(*state, standing.state);
        }
        for state in workloads.into_values() {
            *census.workloads.entry(state).or_default() += 1;
        }
        census
    }

    fn standing(&self, followed: &Followed, now: Timestamp) -> Standing {
        let containers = (0..followed.facts.containers.len()).map(|index| self.of_container(followed, index, now));
        let nothing = Standing { state: LifeState::Asked, never_spoke: false };
        let both = |one: Standing, other: Standing| Standing {
            state: worst(one.state, other.state),
            never_spoke: one.never_spoke || other.never_spoke,
        };
        containers.reduce(both).unwrap_or(nothing)
    }

    fn of_container(&self, followed: &Followed, index: usize, now: Timestamp) -> Standing {
        let facts = &followed.facts;
        let heard = followed.speech.of_container(index);
        let within = |time: Timestamp| now.duration_since(time).unsigned_abs() < self.silent_after || time > now;
        let container = facts.containers.get(index);
        let run = container.map(|container| &container.run);
        let runs = matches!(run, Some(Run::Running { .. }));
        let since = match run {
            Some(Run::Running { since }) => Some(*since),
            _ if facts.injected && container.is_some_and(|it| facts.is_stuck(it)) => Some(facts.created),
            _ => None,
        };
        let waited = since.is_some_and(|since| {
            let since = since.map_or(self.listening_since, |since| since.max(self.listening_since));
            let since = heard.last.map_or(since, |last| since.max(last));
            !within(since)
        });
        let state = if heard.last.is_some_and(within) {
            LifeState::Speaking
        } else if !facts.injected {
            LifeState::Asked
        } else if runs && waited {
            LifeState::Silent
        } else if runs {
            LifeState::Started
        } else {
            LifeState::Injected
        };
        Standing { state, never_spoke: waited && heard.last.is_none() }
    }

    fn life_of(&self, followed: &Followed, standing: Standing, heard: Heard, index: usize) -> Life {
        let container = followed.facts.containers.get(index);
        let stuck = standing.state == LifeState::Injected && container.is_some_and(|it| followed.facts.is_stuck(it));
        let unheard = standing.never_spoke || standing.state == LifeState::Silent || stuck;
        let likely_cause = container
            .filter(|_| unheard)
            .map(|container| cause::likely(&followed.facts, container, &followed.speech, self.own()).sentence);
        Life { state: standing.state, first_span: heard.first, last_span: heard.last, likely_cause }
    }

    fn own(&self) -> &OwnService {
        static NOWHERE: OwnService = OwnService { service: String::new(), namespace: String::new() };
        self.own.get().unwrap_or(&NOWHERE)
    }

    fn read(&self) -> RwLockReadGuard<'_, Pods> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn life_at(&self, uid: &str, now: Timestamp) -> Option<Life> {
        let pods = self.read();
        let followed = pods.get(uid)?;
        let standing = self.standing(followed, now);
        let all = 0..followed.facts.containers.len();
        // The container that made the pod what it is, is the one to blame.
        let index = all.into_iter().find(|&index| self.of_container(followed, index, now).state == standing.state);
        Some(self.life_of(followed, standing, followed.speech.of_pod(), index.unwrap_or_default()))
    }

    pub(super) fn containers_at(&self, uid: &str, now: Timestamp) -> Vec<ContainerLife> {
        let pods = self.read();
        let Some(followed) = pods.get(uid) else { return Vec::new() };
        let containers = followed.facts.containers.iter().enumerate();
        containers
            .map(|(index, container)| ContainerLife {
                container: container.name.to_string(),
                life: self.life_of(
                    followed,
                    self.of_container(followed, index, now),
                    followed.speech.of_container(index),
                    index,
                ),
            })
            .collect()
    }

    pub(super) fn spoke_at(&self, peer: IpAddr, speaker: &Speaker<'_>, now: Timestamp) {
        if let Some(followed) = self.read().speaking(peer, speaker) {
            followed.speech.mark(speaker.container, now);
        }
    }

    #[cfg(test)]
    pub(super) fn addresses_of_who_is_at(&self, peer: IpAddr) -> Option<Vec<IpAddr>> {
        self.read().at(peer).map(|followed| followed.facts.addresses.to_vec())
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.read().entries() + self.strangers.lock().unwrap().len()
    }
}

/// What a person should know first: silence, then what speaks, then who is on the way.
fn worst(one: LifeState, other: LifeState) -> LifeState {
    one.max(other)
}

impl Witness for LifeLine {
    fn connected(&self, peer: IpAddr) {
        match self.read().at(peer) {
            Some(followed) => followed.speech.visits.connected(),
            None => {
                let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
                strangers.remember(peer, Timestamp::now());
            }
        }
    }

    fn refused(&self, peer: IpAddr, outcome: &'static str) {
        if let Some(followed) = self.read().at(peer) {
            match outcome {
                // With `other_signals: refuse` metrics and logs are turned away like this; spans never are.
                "unimplemented" => followed.speech.visits.other_signal(),
                _ => followed.speech.visits.refused(outcome),
            }
        }
    }

    fn other_signal(&self, peer: IpAddr, _signal: Signal) {
        if let Some(followed) = self.read().at(peer) {
            followed.speech.visits.other_signal();
        }
    }

    fn spoke(&self, peer: IpAddr, speaker: &Speaker<'_>) {
        self.spoke_at(peer, speaker, Timestamp::now());
    }
}

impl Lives for LifeLine {
    fn life(&self, uid: &str) -> Option<Life> {
        self.life_at(uid, Timestamp::now())
    }

    fn containers(&self, uid: &str) -> Vec<ContainerLife> {
        self.containers_at(uid, Timestamp::now())
    }

    fn fix(&self, uid: &str, container: &str) -> Option<Fix> {
        let pods = self.read();
        let followed = pods.get(uid)?;
        let container = followed.facts.containers.iter().find(|known| &*known.name == container)?;
        cause::likely(&followed.facts, container, &followed.speech, self.own()).fix
    }
}
