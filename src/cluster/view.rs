//! What processors are told of the cluster: watches that end with their pipeline.

use super::StartError;
use super::retry::{STEP_TIMEOUT, State, is_expiry};
use super::settings::connect;
use crate::process::surroundings::{ClusterView, Observer, Seen, Wanted};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// Whole pods are read, some KiB each; few at a time keep the memory of a list small.
const PAGE_PODS: u32 = 50;
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Before credentials that could not be read are looked at again.
const ACCESS_PAUSE: Duration = Duration::from_secs(10);

type Events<T> = BoxStream<'static, Result<Event<T>, watcher::Error>>;

/// Access to the cluster, taken up when somebody asks. Clones share it.
#[derive(Clone)]
pub struct View {
    kubeconfig: Option<PathBuf>,
    client: Arc<OnceCell<Client>>,
}

impl View {
    /// `kubeconfig`: none: the pod's service account.
    pub fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self { kubeconfig, client: Arc::default() }
    }

    async fn client(&self) -> Result<Client, StartError> {
        let connect = || async { Ok(connect(self.kubeconfig.as_deref()).await?.0) };
        self.client.get_or_try_init(connect).await.cloned()
    }

    /// Tries until there is access. `None`: shut down before.
    async fn patient_client(&self, shutdown: &CancellationToken) -> Option<Client> {
        let mut state = State::new("reading the access to the cluster");
        loop {
            match self.client().await {
                Ok(client) => return Some(client),
                Err(error) => state.failed(&error),
            }
            shutdown.run_until_cancelled(tokio::time::sleep(ACCESS_PAUSE)).await?;
        }
    }

    async fn run(self, wanted: Wanted, observer: Arc<dyn Observer>, shutdown: CancellationToken) {
        let Some(client) = self.patient_client(&shutdown).await else { return };
        let mut pods = pods(&client, &wanted);
        let mut namespaces: Events<PartialObjectMeta<Namespace>> = match wanted.namespaces {
            true => watcher(Api::all(client.clone()), watcher::Config::default()).default_backoff().boxed(),
            false => futures_util::stream::pending().boxed(),
        };
        let mut nodes: Events<PartialObjectMeta<Node>> = match wanted.nodes {
            true => watcher(Api::all(client), watcher::Config::default()).default_backoff().boxed(),
            false => futures_util::stream::pending().boxed(),
        };
        let mut state = State::new("watching what k8s_attributes tells of");
        let mut ticks = tokio::time::interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => observer.tick(),
                event = pods.next() => seen(event, &mut state, |pod| pod, |seen| observer.saw_pod(seen)),
                event = namespaces.next() => seen(event, &mut state, meta, |seen| observer.saw_namespace(seen)),
                event = nodes.next() => seen(event, &mut state, meta, |seen| observer.saw_node(seen)),
            }
        }
    }
}

impl ClusterView for View {
    fn follow(
        &self,
        wanted: Wanted,
        observer: Arc<dyn Observer>,
        shutdown: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.clone().run(wanted, observer, shutdown))
    }

    fn node_uid(&self, name: String) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> {
        let view = self.clone();
        Box::pin(async move {
            let client = view.client().await.map_err(|error| error.to_string())?;
            let nodes: Api<Node> = Api::all(client);
            let node = tokio::time::timeout(STEP_TIMEOUT, nodes.get_metadata(&name)).await;
            let node = node.map_err(|_| format!("the API server said nothing about the node {name}"))?;
            let node = node.map_err(|error| format!("the node {name} cannot be read: {error}"))?;
            node.metadata.uid.ok_or_else(|| format!("the node {name} has no uid"))
        })
    }
}

fn pods(client: &Client, wanted: &Wanted) -> Events<Pod> {
    let api: Api<Pod> = match &wanted.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut config = watcher::Config::default().page_size(PAGE_PODS);
    if !wanted.fields.is_empty() {
        config = config.fields(&wanted.fields);
    }
    if !wanted.labels.is_empty() {
        config = config.labels(&wanted.labels);
    }
    watcher(api, config).default_backoff().boxed()
}

fn meta<K>(object: PartialObjectMeta<K>) -> ObjectMeta {
    object.metadata
}

/// Passes one event of a watch on. A watch never ends by itself.
fn seen<T, U>(
    event: Option<Result<Event<T>, watcher::Error>>,
    state: &mut State,
    part: impl FnOnce(T) -> U,
    tell: impl FnOnce(Seen<U>),
) {
    match event {
        Some(Ok(event)) => {
            state.ok();
            tell(match event {
                Event::Init => Seen::ListBegins,
                Event::InitApply(object) | Event::Apply(object) => Seen::Present(part(object)),
                Event::InitDone => Seen::ListEnds,
                Event::Delete(object) => Seen::Gone(part(object)),
            });
        }
        Some(Err(error)) if is_expiry(&error) => {}
        Some(Err(error)) => state.failed(&error),
        None => {}
    }
}
