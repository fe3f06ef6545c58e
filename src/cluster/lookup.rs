//! The few objects that no watch holds, read one by one when a decision wants them.
//!
//! Owners of ReplicaSets and Jobs are remembered: all pods of one ask the same. Everything shares one deadline; what has
//! not come by then is decided without.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client};

use super::{crds, index};
use crate::inject::{Catalog, LookUps, OwnerKey, OwnerKind, OwnerMap, TlsObject, TlsObjectKind};

/// For all look-ups of one pod. The API server waits 3 s for the whole answer.
const DEADLINE: Duration = Duration::from_millis(800);
/// A right to read TLS objects that is missing is looked for again after this long: the installation grants none.
const FORBIDDEN_FOR: Duration = Duration::from_secs(60);
/// Owners remembered. When full all are forgotten, which costs one GET each.
const OWNERS_MAX: usize = 4096;

/// What was found out.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) owners: OwnerMap,
    pub(super) absent: Vec<TlsObject>,
}

pub(super) struct Lookup {
    client: Client,
    instrumentations: ApiResource,
    owners: Mutex<OwnerMap>,
    /// When reading TLS objects was last refused.
    forbidden: Mutex<Option<Instant>>,
}

impl Lookup {
    pub(super) fn new(client: Client) -> Self {
        let instrumentations = crds::instrumentations();
        Self { client, instrumentations, owners: Mutex::default(), forbidden: Mutex::default() }
    }

    pub(super) async fn find(&self, wanted: &LookUps) -> Found {
        let mut found = Found::default();
        let search = async {
            for key in &wanted.owners {
                if let Some(owners) = self.owners_of(key).await {
                    found.owners.insert(key.clone(), owners);
                }
            }
            for object in &wanted.tls {
                if self.is_absent(object).await {
                    found.absent.push(object.clone());
                }
            }
        };
        // What came before the deadline counts; the rest is derived, or assumed to exist.
        let _ = tokio::time::timeout(DEADLINE, search).await;
        found
    }

    /// A namespace's annotations, when its watch has not seen it yet.
    pub(super) async fn namespace(&self, name: &str) -> Option<std::collections::BTreeMap<String, String>> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = tokio::time::timeout(DEADLINE, api.get_metadata(name)).await.ok()?.ok()?;
        Some(index::relevant(&found))
    }

    /// Adds the named Instrumentations that exist and that their watch has not seen yet.
    pub(super) async fn add_instrumentations(&self, catalog: &mut Arc<Catalog>, names: &[(String, String)]) {
        let search = async {
            for (namespace, name) in names {
                let api: Api<DynamicObject> =
                    Api::namespaced_with(self.client.clone(), namespace, &self.instrumentations);
                if let Ok(Some(object)) = api.get_opt(name).await {
                    // Copied only now: a name that no watch has seen is a slip of the pen as a rule.
                    Arc::make_mut(catalog).insert(namespace, name, index::read_instrumentation(&object));
                }
            }
        };
        let _ = tokio::time::timeout(DEADLINE, search).await;
    }

    async fn owners_of(&self, key: &OwnerKey) -> Option<Vec<OwnerReference>> {
        if let Some(known) = self.owners.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Some(known.clone());
        }
        let meta = match key.kind {
            OwnerKind::ReplicaSet => {
                let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &key.namespace);
                api.get_metadata(&key.name).await.ok()?.metadata
            }
            OwnerKind::Job => {
                let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
                api.get_metadata(&key.name).await.ok()?.metadata
            }
            _ => return None,
        };
        if meta.uid.as_ref() != Some(&key.uid) {
            return None;
        }
        let references = meta.owner_references.unwrap_or_default();
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.len() >= OWNERS_MAX {
            owners.clear();
        }
        owners.insert(key.clone(), references.clone());
        Some(references)
    }

    /// Only a clear "not found" counts; without the right to read them, objects are assumed to exist.
    async fn is_absent(&self, object: &TlsObject) -> bool {
        let forbidden = *self.forbidden.lock().unwrap_or_else(PoisonError::into_inner);
        if forbidden.is_some_and(|since| since.elapsed() < FORBIDDEN_FOR) {
            return false;
        }
        let found = match object.kind {
            TlsObjectKind::Secret => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), &object.namespace);
                api.get_metadata_opt(&object.name).await.map(|found| found.is_some())
            }
            TlsObjectKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &object.namespace);
                api.get_metadata_opt(&object.name).await.map(|found| found.is_some())
            }
        };
        if matches!(&found, Err(kube::Error::Api(status)) if status.code == 403) {
            *self.forbidden.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        matches!(found, Ok(false))
    }
}
