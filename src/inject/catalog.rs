//! Every Instrumentation of the cluster by namespace and name. Fed by a watch, read by decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Instrumentation, MalformedInstrumentation};

/// One Instrumentation, or why it cannot be used. A malformed one keeps its place: pods that name it are told so.
pub type Entry = Result<Arc<Instrumentation>, MalformedInstrumentation>;

/// Cheap to clone: objects are shared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalog {
    by_namespace: BTreeMap<String, BTreeMap<String, Entry>>,
    len: usize,
}

impl Catalog {
    pub fn insert(&mut self, namespace: &str, name: &str, entry: Entry) {
        let names = self.by_namespace.entry(namespace.to_owned()).or_default();
        self.len += usize::from(names.insert(name.to_owned(), entry).is_none());
    }

    pub fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(names) = self.by_namespace.get_mut(namespace) {
            self.len -= usize::from(names.remove(name).is_some());
            if names.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
    }

    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Entry> {
        self.by_namespace.get(namespace)?.get(name)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All, as (namespace, name), in order.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.by_namespace.iter();
        all.flat_map(|(namespace, names)| names.keys().map(move |name| (namespace.as_str(), name.as_str())))
    }

    /// In order of their names.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (&str, &Entry)> {
        self.by_namespace.get(namespace).into_iter().flatten().map(|(name, entry)| (name.as_str(), entry))
    }
}
