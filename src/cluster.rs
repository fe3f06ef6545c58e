//! The Kubernetes side: watches, webhook server, certificates, Services, status.
//!
//! In: what the API server knows (Instrumentations, OpenTelemetryCollectors, namespaces) and asks (admission of pods).
//! Out: patches and warnings for pods, pipelines for the [`PipelineHost`], objects that Spanreel keeps in the cluster.
//!
//! ```text
//! start ─▶ definitions ─▶ watches ─▶ index ─▶ webhook ◀─ kube-apiserver
//!                          │                     ▲ certificate (Secret)
//!                          └─▶ collectors ─▶ PipelineHost, Services, status        registration: last of all
//! ```
//!
//! Bias: telemetry goes on whatever becomes of the API server. Only a broken kubeconfig or a taken port stops the start;
//! everything else is tried again until it works, and said once. The room must not know spans, and decides nothing about
//! pods: that is [`crate::inject`].
//!
//! Rights it needs: get and create customresourcedefinitions; list and watch instrumentations, opentelemetrycollectors,
//! namespaces; get namespaces, instrumentations, replicasets, jobs; patch opentelemetrycollectors/status; get, create and
//! patch services and endpointslices; get, create and update secrets in its own namespace; list, create and patch
//! mutatingwebhookconfigurations. With get of secrets and configmaps everywhere it also refuses pods whose exporter's TLS
//! files are missing; without, these pods wait for them.

mod admission;
mod certificates;
mod collectors;
mod crds;
mod defaults;
mod events;
mod ignored;
mod index;
mod life;
mod lookup;
mod metrics;
mod refusals;
mod registration;
mod retry;
mod secret;
mod services;
mod settings;
mod sidecar;
mod status;
mod webhook;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crds::YAML as CUSTOM_RESOURCE_DEFINITIONS;
pub use metrics::Metrics;
pub use settings::{ClusterSettings, SettingsError};

use crate::inject::Instrumentation;
use certificates::{CHECK_INTERVAL, Certificates, Served};
use collectors::Collectors;
use index::Index;
use lookup::Lookup;
use registration::Address;
use retry::{State, until_done};
use secret::Keeper;
use webhook::Webhook;

/// A configuration that a custom resource brings, as the appliance is asked to run it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PipelineSource {
    /// `namespace/name` of the OpenTelemetryCollector; prefixes its pipelines' names.
    pub owner: String,
    /// The CR's `spec.config` as YAML text.
    pub config: String,
    /// YAML that completes it: what opentelemetry-operator would have written into it. Empty: nothing is missing.
    pub defaults: String,
    /// The CR's `spec.env`, for `${env:NAME}`.
    pub env: BTreeMap<String, String>,
    /// When the CR was created, Unix seconds: of two that want the same port the older one has it, then the first by name.
    pub created: i64,
}

/// Runs the pipelines that custom resources bring. The appliance implements it; the cluster room calls it.
pub trait PipelineHost: Send + Sync + 'static {
    /// Starts or replaces the pipelines of `source.owner`; what stays the same is not disturbed. `Err`: nothing changed;
    /// the lines say what is wrong and where.
    fn apply(&self, source: PipelineSource) -> impl Future<Output = Result<Applied, Vec<String>>> + Send;

    /// Stops the listeners of `owner`; what it spooled goes on being forwarded.
    fn remove(&self, owner: &str) -> impl Future<Output = ()> + Send;

    /// Told, whenever the resources were listed, who is there: what owners that are gone left in the spool is forwarded.
    fn listed(&self, owners: &BTreeSet<String>) -> impl Future<Output = ()> + Send;
}

/// What [`PipelineHost::apply`] started.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Applied {
    /// Every listener with its Service port name (`otlp-grpc`, `otlp-http`, ...), for Services and EndpointSlices.
    pub ports: Vec<ListenerPort>,
    pub warnings: Vec<String>,
    /// Owners whose pipelines stopped, because their ports belong to this older resource: they are to be applied again,
    /// to learn it.
    pub displaced: Vec<String>,
}

/// One listener of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerPort {
    /// Component id and protocol as the operator names Service ports, e.g. `otlp-grpc`.
    pub name: String,
    pub port: u16,
    /// `grpc` or `http`.
    pub app_protocol: Option<String>,
}

/// The cluster side cannot start; all later trouble is tried again instead.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no access to a cluster: {0}")]
    Client(String),
    #[error("the webhook cannot listen on {endpoint}: {source}")]
    Listen {
        endpoint: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("TLS for the webhook: {0}")]
    Tls(#[from] rustls::Error),
}

/// The running cluster side. Its tasks end with the shutdown token.
#[derive(Debug)]
pub struct Cluster {
    webhook_address: SocketAddr,
    namespace: String,
    registered: tokio::sync::watch::Receiver<bool>,
}

impl Cluster {
    /// Connects and starts every task on `tracker`; returns without waiting for the API server.
    ///
    /// # Errors
    /// The kubeconfig or service account cannot be used, or the webhook's port cannot be had.
    pub async fn start<H: PipelineHost>(
        settings: ClusterSettings,
        host: Arc<H>,
        metrics: Metrics,
        shutdown: CancellationToken,
        tracker: &TaskTracker,
    ) -> Result<Self, StartError> {
        let (client, default_namespace) = settings.client().await?;
        let namespace = settings.namespace.clone().unwrap_or(default_namespace);
        let endpoint = settings.endpoint;
        let listen = |source| StartError::Listen { endpoint, source };
        let listener = TcpListener::bind(endpoint).await.map_err(listen)?;
        let webhook_address = listener.local_addr().map_err(listen)?;
        let served = Arc::new(Served::default());
        let acceptor = webhook::tls_acceptor(Arc::clone(&served))?;

        let (events, _notes) = events::Events::channel();
        let index = Arc::new(Index::default());
        let built_in = Instrumentation::built_in(&settings.own_endpoint(&namespace));
        let webhook = Webhook::new(
            Arc::clone(&index),
            Lookup::new(client.clone()),
            settings.injection.clone(),
            built_in,
            metrics,
            events.clone(),
        );
        tracker.spawn(webhook::serve(listener, acceptor, Arc::new(webhook), shutdown.clone()));

        let (registered_sender, registered) = tokio::sync::watch::channel(false);
        let control = Control {
            keeper: Keeper {
                client: client.clone(),
                namespace: namespace.clone(),
                name: format!("{}-webhook-cert", settings.service),
                names: settings.certificate_names(&namespace),
            },
            address: settings.address(&namespace),
            collectors: Collectors::new(client.clone(), crds::collectors(), host, settings.pod_address, events),
            client,
            namespace: namespace.clone(),
            index,
            served,
            registered: registered_sender,
            shutdown,
            tracker: tracker.clone(),
        };
        tracker.spawn(control.run());
        Ok(Self { webhook_address, namespace, registered })
    }

    /// Where the webhook listens.
    #[must_use]
    pub fn webhook_address(&self) -> SocketAddr {
        self.webhook_address
    }

    /// Where Secret and Service live.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether the API server was told of the webhook since the start: from then on pods are injected.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        *self.registered.borrow()
    }
}

/// Brings the pieces up in order and keeps certificate and registration right.
struct Control<H> {
    client: Client,
    namespace: String,
    keeper: Keeper,
    address: Address,
    index: Arc<Index>,
    served: Arc<Served>,
    collectors: Collectors<H>,
    registered: tokio::sync::watch::Sender<bool>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl<H: PipelineHost> Control<H> {
    /// Ends at shutdown, in whichever step that finds it.
    async fn run(self) {
        let Self { client, namespace, keeper, address, index, served, collectors, registered, shutdown, tracker } =
            self;
        let definitions = || crds::install(&client);
        if until_done("installing custom resource definitions", &shutdown, definitions).await.is_none() {
            return;
        }
        let instrumentations: Api<DynamicObject> = Api::all_with(client.clone(), &crds::instrumentations());
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        let (for_instrumentations, for_namespaces) = (Arc::clone(&index), Arc::clone(&index));
        let config = watcher::Config::default;
        let events = watcher(instrumentations, config()).default_backoff();
        let feed = move |event| for_instrumentations.on_instrumentation(event);
        tracker.spawn(watch("watching Instrumentations", events, feed, shutdown.clone()));
        let events = watcher(namespaces, config()).default_backoff();
        let feed = move |event| for_namespaces.on_namespace(event);
        tracker.spawn(watch("watching namespaces", events, feed, shutdown.clone()));
        tracker.spawn(collectors.run(shutdown.clone()));

        // The registration comes last: the webhook must have a certificate and know what there is.
        let mut synced = index.synced();
        loop {
            let ensured = until_done("keeping the webhook's certificate", &shutdown, || keeper.ensure()).await;
            let Some(certificates) = ensured else { return };
            // Whoever asks already must first trust what is going to be served.
            let known = *registered.borrow();
            if !known {
                serve_certificates(&served, &certificates);
            }
            match shutdown.run_until_cancelled(synced.wait_for(|synced| synced.all())).await {
                None | Some(Err(_)) => return,
                Some(Ok(_)) => {}
            }
            let register = || registration::ensure(&client, &address, &namespace, &certificates.ca);
            if until_done("registering the webhook", &shutdown, register).await.is_none() {
                return;
            }
            serve_certificates(&served, &certificates);
            if !registered.send_replace(true) {
                tracing::info!(?address, "the API server asks about new pods from now on");
                if let Some(operator) = registration::operator_configuration(&client).await {
                    tracing::warn!(
                        configuration = %operator,
                        "opentelemetry-operator is installed as well: whichever webhook runs first injects a pod, and both act on OpenTelemetryCollectors; remove one"
                    );
                }
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL)).await.is_none() {
                return;
            }
        }
    }
}

fn serve_certificates(served: &Served, certificates: &Certificates) {
    match certificates.certified_key() {
        Ok(key) => served.replace(key),
        // Cannot be: they were checked or made just now.
        Err(error) => tracing::error!(%error, "the webhook's certificate cannot be served"),
    }
}

/// Feeds an index from a watch that outlives the API server's restarts.
async fn watch<K>(
    activity: &'static str,
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    feed: impl Fn(Event<K>) + Send,
    shutdown: CancellationToken,
) {
    let mut events = pin!(events);
    let mut state = State::new(activity);
    while let Some(Some(event)) = shutdown.run_until_cancelled(events.next()).await {
        match event {
            Ok(event) => {
                state.ok();
                feed(event);
            }
            Err(error) => state.failed(&error),
        }
    }
}
