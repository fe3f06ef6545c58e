//! What the webhook decides from: Instrumentations and the namespaces' annotations, fed by watches.
//!
//! Reading takes no lock that a watch could hold for long; nothing here knows the API server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use crate::inject::{Catalog, Instrumentation, POD_SECURITY_LABEL};

/// Annotations that matter to injection and catch-up; all others of a namespace are not kept.
const PREFIXES: [&str; 3] =
    ["instrumentation.opentelemetry.io/", "sidecar.opentelemetry.io/", super::catch_up::ANNOTATION];

/// Bounds memory against a watch that runs wild; far above what an API server carries.
const NAMESPACES_MAX: usize = 100_000;
/// As [`NAMESPACES_MAX`]; beyond, they are read when a pod names them.
const INSTRUMENTATIONS_MAX: usize = 20_000;

type Annotations = Arc<BTreeMap<String, String>>;

/// Shared by watches (writing) and the webhook (reading).
#[derive(Debug)]
pub(super) struct Index {
    catalog: RwLock<Tracked<Catalog>>,
    namespaces: RwLock<Tracked<HashMap<String, Annotations>>>,
    synced: watch::Sender<Synced>,
    /// Counts changes of namespaces' annotations.
    namespace_changes: watch::Sender<u64>,
    /// Counts changes of what Instrumentations say.
    instrumentation_changes: watch::Sender<u64>,
    /// Namespaces whose annotations ask for their pods.
    asking: watch::Sender<BTreeSet<String>>,
}

/// Contents, and those of a list that is being read anew.
#[derive(Debug, Default)]
struct Tracked<T> {
    current: Arc<T>,
    relist: Option<T>,
}

/// Which watches have delivered a whole list since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Synced {
    instrumentations: bool,
    namespaces: bool,
}

impl Synced {
    pub(super) fn all(self) -> bool {
        self.instrumentations && self.namespaces
    }
}

impl Default for Index {
    fn default() -> Self {
        Self {
            catalog: RwLock::default(),
            namespaces: RwLock::default(),
            synced: watch::Sender::new(Synced::default()),
            namespace_changes: watch::Sender::new(0),
            instrumentation_changes: watch::Sender::new(0),
            asking: watch::Sender::default(),
        }
    }
}

impl Index {
    pub(super) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner).current)
    }

    /// `None`: the namespace has not been seen; it may be brand-new.
    pub(super) fn namespace(&self, name: &str) -> Option<Annotations> {
        self.namespaces.read().unwrap_or_else(PoisonError::into_inner).current.get(name).cloned()
    }

    pub(super) fn synced(&self) -> watch::Receiver<Synced> {
        self.synced.subscribe()
    }

    /// Changes whenever pods may ask for something else than before because their namespace does.
    pub(super) fn namespace_changes(&self) -> watch::Receiver<u64> {
        self.namespace_changes.subscribe()
    }

    /// Changes whenever pods may be injected otherwise than before because an Instrumentation is new, another, or gone.
    pub(super) fn instrumentation_changes(&self) -> watch::Receiver<u64> {
        self.instrumentation_changes.subscribe()
    }

    /// Every namespace with its annotations, in no order.
    pub(super) fn for_each_namespace(&self, mut visit: impl FnMut(&str, &BTreeMap<String, String>)) {
        let namespaces = Arc::clone(&self.namespaces.read().unwrap_or_else(PoisonError::into_inner).current);
        namespaces.iter().for_each(|(name, annotations)| visit(name, annotations));
    }

    /// Changes when a namespace begins or ceases to ask.
    pub(super) fn asking(&self) -> watch::Receiver<BTreeSet<String>> {
        self.asking.subscribe()
    }

    pub(super) fn on_instrumentation(&self, event: Event<DynamicObject>) {
        let mut tracked = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => tracked.relist = Some(Catalog::default()),
            Event::InitApply(object) => {
                if let Some(catalog) = &mut tracked.relist {
                    put(catalog, &object);
                }
            }
            Event::InitDone => {
                if let Some(catalog) = tracked.relist.take() {
                    if *tracked.current != catalog {
                        self.instrumentation_changes.send_modify(|changes| *changes += 1);
                    }
                    tracked.current = Arc::new(catalog);
                }
                self.synced.send_modify(|synced| synced.instrumentations = true);
            }
            Event::Apply(object) => {
                // Their status changes, too, and says nothing here.
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                let before = tracked.current.get(&namespace, &name).cloned();
                put(Arc::make_mut(&mut tracked.current), &object);
                if before.as_ref() != tracked.current.get(&namespace, &name) {
                    self.instrumentation_changes.send_modify(|changes| *changes += 1);
                }
            }
            Event::Delete(object) => {
                let namespace = object.namespace().unwrap_or_default();
                Arc::make_mut(&mut tracked.current).remove(&namespace, &object.name_any());
                self.instrumentation_changes.send_modify(|changes| *changes += 1);
            }
        }
    }

    pub(super) fn on_namespace(&self, event: Event<PartialObjectMeta<Namespace>>) {
        let mut tracked = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => tracked.relist = Some(HashMap::new()),
            Event::InitApply(object) => {
                if let Some(namespaces) = &mut tracked.relist {
                    put_namespace(namespaces, &object);
                }
            }
            Event::InitDone => {
                if let Some(namespaces) = tracked.relist.take() {
                    if *tracked.current != namespaces {
                        self.namespace_changes.send_modify(|changes| *changes += 1);
                    }
                    tracked.current = Arc::new(namespaces);
                }
                let asking: BTreeSet<String> =
                    tracked.current.iter().filter(|(_, all)| asks(all)).map(|(name, _)| name.clone()).collect();
                self.asking.send_if_modified(|known| {
                    let changed = *known != asking;
                    *known = asking;
                    changed
                });
                self.synced.send_modify(|synced| synced.namespaces = true);
            }
            Event::Apply(object) => {
                let name = object.name_any();
                let namespaces = Arc::make_mut(&mut tracked.current);
                let before = namespaces.get(&name).cloned().unwrap_or_default();
                put_namespace(namespaces, &object);
                let after = namespaces.get(&name).cloned().unwrap_or_default();
                if before != after {
                    self.namespace_changes.send_modify(|changes| *changes += 1);
                }
                let asks = asks(&after);
                self.asking.send_if_modified(|known| if asks { known.insert(name) } else { known.remove(&name) });
            }
            Event::Delete(object) => {
                let name = object.name_any();
                Arc::make_mut(&mut tracked.current).remove(&name);
                self.asking.send_if_modified(|known| known.remove(&name));
            }
        }
    }
}

/// Whether a namespace's annotations may ask for something for its pods.
fn asks(annotations: &BTreeMap<String, String>) -> bool {
    annotations.iter().any(|(key, value)| {
        let is_request =
            key.starts_with("instrumentation.opentelemetry.io/inject-") || key == "sidecar.opentelemetry.io/inject";
        is_request && !value.is_empty() && !value.eq_ignore_ascii_case("false")
    })
}

fn put(catalog: &mut Catalog, object: &DynamicObject) {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    if catalog.len() < INSTRUMENTATIONS_MAX || catalog.get(&namespace, &name).is_some() {
        catalog.insert(&namespace, &name, read_instrumentation(object));
    } else {
        tracing::warn!(namespace, name, "not kept: there are {INSTRUMENTATIONS_MAX} Instrumentations already");
    }
}

/// The Instrumentation in an object, or why there is none.
pub(super) fn read_instrumentation(object: &DynamicObject) -> crate::inject::Entry {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let generation = object.metadata.generation.unwrap_or_default();
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    Instrumentation::read(&namespace, &name, generation, spec).map(Arc::new)
}

fn put_namespace(namespaces: &mut HashMap<String, Annotations>, object: &PartialObjectMeta<Namespace>) {
    let name = object.name_any();
    if namespaces.len() < NAMESPACES_MAX || namespaces.contains_key(&name) {
        namespaces.insert(name, Arc::new(relevant(object)));
    }
}

/// The annotations that can matter here, and among them the one label that does.
pub(super) fn relevant(namespace: &PartialObjectMeta<Namespace>) -> BTreeMap<String, String> {
    let matters = |key: &&String| PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    let annotations = namespace.annotations().iter().filter(|(key, _)| matters(key));
    let label = namespace.labels().get_key_value(POD_SECURITY_LABEL);
    annotations.chain(label).map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instrumentation(name: &str) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"namespace": "a", "name": name}, "spec": {}})).unwrap()
    }

    fn namespace(name: &str, key: &str) -> PartialObjectMeta<Namespace> {
        serde_json::from_value(json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": name, "annotations": {key: "true", "other": "x"}}
        }))
        .unwrap()
    }

    #[test]
    fn a_relist_replaces_everything_at_its_end() {
        let index = Index::default();
        index.on_instrumentation(Event::Apply(instrumentation("old")));
        index.on_instrumentation(Event::Init);
        index.on_instrumentation(Event::InitApply(instrumentation("new")));
        assert!(index.catalog().get("a", "old").is_some(), "the old list counts until the new one is whole");
        assert!(!index.synced().borrow().all());
        index.on_instrumentation(Event::InitDone);
        assert!(index.catalog().get("a", "old").is_none());
        assert!(index.catalog().get("a", "new").is_some());
        index.on_instrumentation(Event::Delete(instrumentation("new")));
        assert!(index.catalog().get("a", "new").is_none());
    }

    #[test]
    fn no_event_makes_the_catalog_larger_than_its_bound() {
        let index = Index::default();
        index.on_instrumentation(Event::Init);
        for number in 0..INSTRUMENTATIONS_MAX + 1 {
            index.on_instrumentation(Event::InitApply(instrumentation(&format!("i{number}"))));
        }
        index.on_instrumentation(Event::InitDone);
        index.on_instrumentation(Event::Apply(instrumentation("another")));
        assert_eq!(index.catalog().len(), INSTRUMENTATIONS_MAX);
        let mut known = instrumentation("i0");
        known.metadata.generation = Some(2);
        index.on_instrumentation(Event::Apply(known));
        assert_eq!(index.catalog().get("a", "i0").unwrap().as_ref().unwrap().generation, 2);
        index.on_instrumentation(Event::Delete(instrumentation("i0")));
        index.on_instrumentation(Event::Apply(instrumentation("another")));
        assert!(index.catalog().get("a", "another").is_some());
    }

    #[test]
    fn only_what_an_instrumentation_says_is_a_change() {
        let index = Index::default();
        let mut changes = index.instrumentation_changes();
        let mut changed = |object: DynamicObject| {
            index.on_instrumentation(Event::Apply(object));
            let changed = changes.has_changed().unwrap();
            changes.borrow_and_update();
            changed
        };
        assert!(changed(instrumentation("i")));
        let mut other = instrumentation("i");
        other.data["status"] = json!({"workloads": {"injected": 1}});
        assert!(!changed(other.clone()), "its status is not");
        other.metadata.generation = Some(2);
        assert!(changed(other));
    }

    #[test]
    fn namespaces_keep_only_what_matters() {
        let index = Index::default();
        let key = "instrumentation.opentelemetry.io/inject-java";
        index.on_namespace(Event::Init);
        index.on_namespace(Event::InitApply(namespace("n", key)));
        index.on_namespace(Event::InitDone);
        assert_eq!(*index.namespace("n").unwrap(), BTreeMap::from([(key.to_owned(), "true".to_owned())]));
        let mut asking = index.asking();
        assert_eq!(*asking.borrow_and_update(), BTreeSet::from(["n".to_owned()]));
        index.on_namespace(Event::Apply(namespace("quiet", "instrumentation.opentelemetry.io/container-names")));
        assert!(!asking.has_changed().unwrap(), "a list asks for nothing");
        index.on_namespace(Event::Apply(namespace("m", key)));
        index.on_namespace(Event::Delete(namespace("n", key)));
        assert_eq!(*asking.borrow_and_update(), BTreeSet::from(["m".to_owned()]));
        assert_eq!(index.namespace("unseen"), None);
        let mut strict = namespace("s", "other2");
        strict
            .labels_mut()
            .extend([(POD_SECURITY_LABEL, "baseline"), ("a", "b")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        index.on_namespace(Event::Apply(strict));
        let label = (POD_SECURITY_LABEL.to_owned(), "baseline".to_owned());
        assert_eq!(*index.namespace("s").unwrap(), BTreeMap::from([label]));
    }
}
