//! The pods, namespaces and nodes that are known, fed by a watch.

use super::association::{Identifier, identifiers};
use super::extract;
use super::settings::K8sAttributesSettings;
use crate::process::surroundings::{Observer, Seen};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Pods that are known at the same time, about one KiB each. Beyond, spans of further pods stay as they are.
pub const PODS_MAX: usize = 20_000;
/// As [`PODS_MAX`].
const NAMESPACES_MAX: usize = 100_000;
const NODES_MAX: usize = 20_000;

/// What is wanted of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub node: String,
    pub address: String,
    pub host_network: bool,
    /// Unix seconds; of two pods that claim the same address the younger has it.
    pub started: i64,
    pub attributes: Vec<(String, String)>,
    pub containers: Vec<Container>,
}

/// What is wanted of one container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub runs: Vec<Run>,
    pub wants_id: bool,
}

/// One life of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    pub restarts: i64,
    pub id: String,
    pub repo_digest: Option<String>,
}

type Found = Arc<Vec<(String, String)>>;

/// Written by the watch, read by every request.
#[derive(Debug)]
pub struct Table {
    settings: K8sAttributesSettings,
    pods: RwLock<HashMap<Identifier, Arc<Facts>>>,
    namespaces: RwLock<HashMap<String, Found>>,
    nodes: RwLock<HashMap<String, Found>>,
    cluster_uid: RwLock<Option<String>>,
    keeping: Mutex<Keeping>,
    complete: watch::Sender<Complete>,
}

/// What only the watch needs.
#[derive(Debug, Default)]
struct Keeping {
    /// The identifiers of every pod, by uid.
    by_uid: HashMap<String, Vec<Identifier>>,
    /// Pods that are gone, oldest first: spans of theirs may still come for a while.
    leaving: VecDeque<(Instant, String)>,
    /// The uids of a list that is being read.
    listed: Option<Vec<String>>,
    listed_namespaces: Option<HashMap<String, Found>>,
    listed_nodes: Option<HashMap<String, Found>>,
    warned: bool,
}

/// Which lists have been read whole.
#[derive(Debug, Clone, Copy, Default)]
struct Complete {
    pods: bool,
    namespaces: bool,
    nodes: bool,
}

impl Table {
    pub fn new(settings: K8sAttributesSettings) -> Self {
        let wanted = settings.wanted();
        // What is not asked for is complete.
        let complete = Complete { pods: false, namespaces: !wanted.namespaces, nodes: !wanted.nodes };
        Self {
            settings,
            pods: RwLock::default(),
            namespaces: RwLock::default(),
            nodes: RwLock::default(),
            cluster_uid: RwLock::default(),
            keeping: Mutex::default(),
            complete: watch::Sender::new(complete),
        }
    }

    pub fn pod(&self, identifier: &Identifier) -> Option<Arc<Facts>> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner).get(identifier).cloned()
    }

    pub fn namespace(&self, name: &str) -> Option<Found> {
        self.namespaces.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub fn node(&self, name: &str) -> Option<Found> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub fn cluster_uid(&self) -> Option<String> {
        self.cluster_uid.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resolves once everything that is asked for has been listed.
    pub async fn complete(&self) {
        let mut complete = self.complete.subscribe();
        // The sender lives as long as this.
        let _ = complete.wait_for(|complete| complete.pods && complete.namespaces && complete.nodes).await;
    }

    fn keeping(&self) -> std::sync::MutexGuard<'_, Keeping> {
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, keeping: &mut Keeping, pod: &Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if let Some(listed) = &mut keeping.listed {
            listed.push(uid.clone());
        }
        keeping.leaving.retain(|(_, leaving)| *leaving != uid);
        let Some(facts) = extract::pod(&self.settings, pod) else {
            self.remove(keeping, &uid);
            return;
        };
        if !keeping.by_uid.contains_key(&uid) && keeping.by_uid.len() >= PODS_MAX {
            if !std::mem::replace(&mut keeping.warned, true) {
                tracing::warn!(
                    pods_max = PODS_MAX,
                    "k8s_attributes: more pods than are kept; spans of the others get no attributes (a filter helps)"
                );
            }
            return;
        }
        let facts = Arc::new(facts);
        let new = identifiers(&self.settings.associations, &facts);
        let old = keeping.by_uid.insert(uid, new.clone()).unwrap_or_default();
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        for identifier in old.iter().filter(|identifier| !new.contains(identifier)) {
            pods.remove_if_of(identifier, &facts.uid);
        }
        for identifier in new {
            let taken = pods.get(&identifier).is_some_and(|it| it.uid != facts.uid && it.started > facts.started);
            if !taken {
                pods.insert(identifier, Arc::clone(&facts));
            }
        }
    }

    fn remove(&self, keeping: &mut Keeping, uid: &str) {
        let identifiers = keeping.by_uid.remove(uid).unwrap_or_default();
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        identifiers.iter().for_each(|identifier| pods.remove_if_of(identifier, uid));
    }

    fn purge(&self, now: Instant, grace: Duration) {
        let mut keeping = self.keeping();
        while keeping.leaving.front().is_some_and(|(gone, _)| now.duration_since(*gone) >= grace) {
            if let Some((_, uid)) = keeping.leaving.pop_front() {
                self.remove(&mut keeping, &uid);
            }
        }
    }
}

trait RemoveIfOf {
    /// An address may have gone to another pod already.
    fn remove_if_of(&mut self, identifier: &Identifier, uid: &str);
}

impl RemoveIfOf for HashMap<Identifier, Arc<Facts>> {
    fn remove_if_of(&mut self, identifier: &Identifier, uid: &str) {
        if self.get(identifier).is_some_and(|facts| facts.uid == uid) {
            self.remove(identifier);
        }
    }
}

impl Observer for Table {
    fn saw_pod(&self, seen: Seen<Pod>) {
        let mut keeping = self.keeping();
        match seen {
            Seen::ListBegins => keeping.listed = Some(Vec::new()),
            Seen::Present(pod) => self.put(&mut keeping, &pod),
            Seen::ListEnds => {
                let mut listed = keeping.listed.take().unwrap_or_default();
                listed.sort_unstable();
                let leaving: Vec<String> = keeping.leaving.iter().map(|(_, uid)| uid.clone()).collect();
                let absent = |uid: &&String| listed.binary_search(uid).is_err() && !leaving.contains(uid);
                let gone: Vec<String> = keeping.by_uid.keys().filter(absent).cloned().collect();
                keeping.leaving.extend(gone.into_iter().map(|uid| (Instant::now(), uid)));
                self.complete.send_modify(|complete| complete.pods = true);
            }
            Seen::Gone(pod) => {
                if let Some(uid) = pod.metadata.uid.filter(|uid| keeping.by_uid.contains_key(uid)) {
                    keeping.leaving.push_back((Instant::now(), uid));
                }
            }
        }
    }

    fn saw_namespace(&self, seen: Seen<ObjectMeta>) {
        if let Seen::Present(namespace) = &seen
            && namespace.name.as_deref() == Some("kube-system")
        {
            // By this a cluster is told from others.
            *self.cluster_uid.write().unwrap_or_else(PoisonError::into_inner) = namespace.uid.clone();
        }
        let mut keeping = self.keeping();
        let make = |meta: &ObjectMeta| extract::namespace(&self.settings, meta);
        if follow(seen, &mut keeping.listed_namespaces, &self.namespaces, NAMESPACES_MAX, make) {
            self.complete.send_modify(|complete| complete.namespaces = true);
        }
    }

    fn saw_node(&self, seen: Seen<ObjectMeta>) {
        let mut keeping = self.keeping();
        let make = |meta: &ObjectMeta| extract::node(&self.settings, meta);
        if follow(seen, &mut keeping.listed_nodes, &self.nodes, NODES_MAX, make) {
            self.complete.send_modify(|complete| complete.nodes = true);
        }
    }

    fn tick(&self) {
        self.purge(Instant::now(), self.settings.pod_delete_grace_period);
    }
}

/// Keeps a map of names up to date. Tells whether a list ended. Objects of which nothing is wanted take no room.
fn follow(
    seen: Seen<ObjectMeta>,
    listed: &mut Option<HashMap<String, Found>>,
    known: &RwLock<HashMap<String, Found>>,
    max: usize,
    make: impl Fn(&ObjectMeta) -> Vec<(String, String)>,
) -> bool {
    let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
    match seen {
        Seen::ListBegins => *listed = Some(HashMap::new()),
        Seen::Present(meta) => {
            let Some(name) = meta.name.clone() else { return false };
            let found = make(&meta);
            let map = listed.as_mut().unwrap_or(&mut known);
            if found.is_empty() {
                map.remove(&name);
            } else if map.len() < max || map.contains_key(&name) {
                map.insert(name, Arc::new(found));
            }
        }
        Seen::ListEnds => {
            *known = listed.take().unwrap_or_default();
            return true;
        }
        Seen::Gone(meta) => drop(meta.name.and_then(|name| known.remove(&name))),
    }
    false
}
