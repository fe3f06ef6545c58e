//! What processors may ask of the process that they run in. The appliance brings it; so this room knows no API server.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::pin::Pin;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The default knows nothing.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// `None`: there is no access to a cluster.
    pub cluster: Option<Arc<dyn ClusterView>>,
}

/// The cluster, as far as spans are concerned.
pub trait ClusterView: Send + Sync + 'static {
    /// Tells `observer` what there is and what changes, until `shutdown`. Trouble with the API server is logged and tried
    /// again.
    fn follow(
        &self,
        wanted: Wanted,
        observer: Arc<dyn Observer>,
        shutdown: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// The uid of a node.
    fn node_uid(&self, name: String) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;
}

/// Which objects are followed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Pods of this namespace alone.
    pub namespace: Option<String>,
    /// Selectors for pods in the API server's own writing; empty: all.
    pub fields: String,
    pub labels: String,
    pub namespaces: bool,
    pub nodes: bool,
}

/// What is seen of one kind of objects.
#[derive(Debug)]
pub enum Seen<T> {
    /// A whole list follows, one [`Seen::Present`] each.
    ListBegins,
    Present(T),
    /// What the list did not name is gone.
    ListEnds,
    Gone(T),
}

/// Is told of objects, by one task at a time. Must not block.
pub trait Observer: Send + Sync + 'static {
    fn saw_pod(&self, seen: Seen<Pod>);
    fn saw_namespace(&self, seen: Seen<ObjectMeta>);
    fn saw_node(&self, seen: Seen<ObjectMeta>);
    /// Time passes; called about once a second.
    fn tick(&self);
}
