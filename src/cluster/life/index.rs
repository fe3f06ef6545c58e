//! The pods that are followed, found by uid, by name and by address. Fed by the watch; a client's words only look up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;

use super::facts::{Facts, Shared};
use super::speech::Speech;
use crate::otlp::resource::Speaker;

/// Pods followed at once, about 1 KiB each; more are counted and left out.
pub(super) const PODS_MAX: usize = 20_000;
/// Texts that nobody has any more are let go after so many pods went.
const PRUNE_AFTER: usize = 512;

/// A pod and what was heard of it.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub(super) facts: Arc<Facts>,
    pub(super) speech: Arc<Speech>,
}

#[derive(Debug, Default)]
pub(super) struct Pods {
    by_uid: HashMap<Arc<str>, Followed>,
    /// Namespace to name to uid: of pods that had the same name the newest.
    by_name: HashMap<Arc<str>, HashMap<Arc<str>, Arc<str>>>,
    by_address: HashMap<IpAddr, Arc<str>>,
    shared: Shared,
    gone: usize,
    /// While the pods are listed anew: those that were there.
    relist: Option<HashSet<Arc<str>>>,
}

/// What became of a pod that the watch brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// It is found by other addresses than before.
    Address(Arc<str>),
    /// There was no room.
    LeftOut,
}

impl Pods {
    /// `annotations_of` knows the namespaces.
    pub(super) fn on_event(
        &mut self,
        event: &Event<Pod>,
        annotations_of: impl Fn(&str) -> Option<Arc<BTreeMap<String, String>>>,
    ) -> Change {
        match event {
            Event::Init => {
                self.relist = Some(HashSet::new());
                Change::Nothing
            }
            Event::InitApply(pod) | Event::Apply(pod) => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                let annotations = annotations_of(namespace).unwrap_or_default();
                match Facts::read(pod, &annotations, &mut self.shared) {
                    Some(facts) => self.put(facts),
                    None => {
                        self.remove(pod.metadata.uid.as_deref().unwrap_or_default());
                        Change::Nothing
                    }
                }
            }
            Event::InitDone => {
                if let Some(there) = self.relist.take() {
                    let gone: Vec<_> = self.by_uid.keys().filter(|uid| !there.contains(*uid)).cloned().collect();
                    gone.iter().for_each(|uid| self.remove(uid));
                    self.shared.prune();
                }
                Change::Nothing
            }
            Event::Delete(pod) => {
                self.remove(pod.metadata.uid.as_deref().unwrap_or_default());
                Change::Nothing
            }
        }
    }

    fn put(&mut self, facts: Facts) -> Change {
        let before = self.by_uid.get(&facts.uid);
        if before.is_none() && self.by_uid.len() >= PODS_MAX {
            return Change::LeftOut;
        }
        let names = || facts.containers.iter().map(|container| &container.name);
        let speech = match before {
            Some(before) if before.speech.is_of(names().map(|name| &**name)) => Arc::clone(&before.speech),
            _ => Arc::new(Speech::new(names().cloned())),
        };
        let before_it = before.map(|before| Arc::clone(&before.facts));
        let addresses_before = before_it.as_ref().map_or(&[][..], |facts| &facts.addresses);
        let uid = before.map_or_else(|| Arc::clone(&facts.uid), |before| Arc::clone(&before.facts.uid));
        if let Some(there) = &mut self.relist {
            there.insert(Arc::clone(&uid));
        }
        if before.is_none() {
            let names = self.by_name.entry(Arc::clone(&facts.namespace)).or_default();
            names.insert(Arc::clone(&facts.name), Arc::clone(&uid));
        }
        let mut change = Change::Nothing;
        if addresses_before != &*facts.addresses {
            self.forget_addresses(addresses_before, &uid);
            // An address is the pod's that got it last.
            for address in &facts.addresses {
                self.by_address.insert(*address, Arc::clone(&uid));
                change = Change::Address(Arc::clone(&uid));
            }
        }
        self.by_uid.insert(uid, Followed { facts: Arc::new(facts), speech });
        change
    }

    fn remove(&mut self, uid: &str) {
        let Some((uid, followed)) = self.by_uid.remove_entry(uid) else { return };
        let facts = &followed.facts;
        if let Some(names) = self.by_name.get_mut(&facts.namespace) {
            if names.get(&facts.name) == Some(&uid) {
                names.remove(&facts.name);
            }
            if names.is_empty() {
                self.by_name.remove(&facts.namespace);
            }
        }
        self.forget_addresses(&facts.addresses, &uid);
        drop(followed);
        self.gone += 1;
        if self.gone >= PRUNE_AFTER {
            self.gone = 0;
            self.shared.prune();
        }
    }

    fn forget_addresses(&mut self, addresses: &[IpAddr], uid: &Arc<str>) {
        for address in addresses {
            if self.by_address.get(address) == Some(uid) {
                self.by_address.remove(address);
            }
        }
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Followed> {
        self.by_uid.get(uid)
    }

    pub(super) fn at(&self, address: IpAddr) -> Option<&Followed> {
        self.by_uid.get(self.by_address.get(&address)?)
    }

    /// Whose spans they are: what the resource says counts, and only where it says nothing the peer's address.
    pub(super) fn speaking(&self, peer: IpAddr, speaker: &Speaker<'_>) -> Option<&Followed> {
        match (speaker.pod_uid, speaker.pod_name, speaker.namespace) {
            (Some(uid), ..) => self.get(uid),
            (None, Some(name), Some(namespace)) => self.get(self.by_name.get(namespace)?.get(name)?),
            _ => self.at(peer),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Followed> {
        self.by_uid.values()
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        let names: usize = self.by_name.values().map(HashMap::len).sum();
        self.by_uid.len() + names + self.by_address.len() + self.shared.len()
    }
}

/// Addresses that connected lately and belong to no pod that is known: an agent may be faster than the watch. A fixed
/// number, the oldest gives way.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    seen: Vec<(IpAddr, Timestamp)>,
    next: usize,
}

/// 32 KiB, and far more than pods that start within the second that the watch takes.
const STRANGERS_MAX: usize = 1024;

impl Strangers {
    pub(super) fn remember(&mut self, peer: IpAddr, now: Timestamp) {
        if let Some(known) = self.seen.iter_mut().find(|(known, _)| *known == peer) {
            known.1 = now;
        } else if self.seen.len() < STRANGERS_MAX {
            self.seen.push((peer, now));
        } else if let Some(oldest) = self.seen.get_mut(self.next) {
            *oldest = (peer, now);
            self.next = (self.next + 1) % STRANGERS_MAX;
        }
    }

    /// Whether it connected since then.
    pub(super) fn came_since(&self, peer: IpAddr, since: Timestamp) -> bool {
        self.seen.iter().any(|(known, at)| *known == peer && *at >= since)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }
}
