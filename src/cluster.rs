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
//! everything else is tried again until it works, and said once. The room must not know spans (the receivers tell it who
//! spoke, see [`LifeLine`]), and decides nothing about pods: that is [`crate::inject`].
//!
//! Rights it needs: get and create customresourcedefinitions; list and watch instrumentations, opentelemetrycollectors,
//! namespaces, pods; get namespaces, instrumentations, deployments, statefulsets, daemonsets, replicasets, jobs, cronjobs;
//! patch instrumentations, instrumentations/status and
//! opentelemetrycollectors/status; get, create and patch services and endpointslices; get, create and update secrets in
//! its own namespace; list, create and patch mutatingwebhookconfigurations; create and patch
//! validatingwebhookconfigurations and patch customresourcedefinitions, without which custom resources are not checked
//! and not converted. With create of podtemplates in its own namespace it finds out whether image volumes are served;
//! without, it goes by the version. With get of secrets and configmaps everywhere it also refuses pods whose exporter's
//! TLS files are missing; without, these pods wait for them. With get and list of deployments, statefulsets, daemonsets,
//! jobs and cronjobs `doctor` decides on their templates; without, on the pods that exist. With list of replicasets and
//! controllerrevisions earlier revisions tell whether a crash loop came with the injection.

mod admission;
mod catch_up;
mod certificates;
mod collector;
mod collectors;
mod crds;
mod defaults;
mod doctor;
mod events;
mod ignored;
mod index;
mod life;
mod lookup;
mod metrics;
mod refusals;
mod registration;
mod resources;
mod retry;
mod secret;
mod server;
mod services;
mod settings;
mod sidecar;
mod status;
mod template;
mod upgrade;
mod view;
mod webhook;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
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

pub use catch_up::{CatchUp, CrashLoop, Evidence, Finding, OutOfDate, Report as CatchUpReport};
pub use crds::YAML as CUSTOM_RESOURCE_DEFINITIONS;
pub use doctor::{Doctor, DoctorError};
pub use life::LifeLine;
pub use metrics::Metrics;
pub use resources::Resources;
pub use settings::{ClusterSettings, SettingsError};
pub use view::View;

use crate::inject::{self, Delivery, Instrumentation};
use certificates::{Certificates, Served};
use collectors::Collectors;
use events::Events;
use index::Index;
use lookup::Lookup;
use registration::{Address, Registration};
use retry::{STEP_TIMEOUT, State, until_done};
use secret::Keeper;
use server::Server;
use webhook::{Pods, Webhook};

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
    /// Starts or replaces the pipelines of `source.owner`; what stays the same is not disturbed. `Err`: what ran goes on,
    /// and after a restart what ran before it.
    fn apply(&self, source: PipelineSource) -> impl Future<Output = Result<Applied, Refusal>> + Send;

    /// By owner, what people should know and what changes by itself, such as spans that wait for nobody.
    fn remarks(&self) -> impl Future<Output = BTreeMap<String, Vec<String>>> + Send;

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
    /// The same of extensions that answer somebody, such as `health-check`.
    pub extensions: Vec<ListenerPort>,
    pub warnings: Vec<String>,
    /// Owners whose pipelines stopped, because their ports belong to this older resource: they are to be applied again,
    /// to learn it.
    pub displaced: Vec<String>,
}

/// Why [`PipelineHost::apply`] did not start a configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Refusal {
    /// Lines that say what is wrong and where.
    pub reasons: Vec<String>,
    /// What goes on of an earlier configuration of the same resource; `None`: nothing of it runs.
    pub running: Option<Applied>,
}

/// One listener of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerPort {
    /// Component id and protocol as the operator names Service ports, e.g. `otlp-grpc`.
    pub name: String,
    pub port: u16,
    /// Instead of TCP.
    pub udp: bool,
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
    doctor: Arc<Doctor>,
    resources: Resources,
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
        life: Arc<LifeLine>,
        shutdown: CancellationToken,
        tracker: &TaskTracker,
    ) -> Result<Self, StartError> {
        let (client, default_namespace) = settings.client().await?;
        let namespace = settings.namespace.clone().unwrap_or(default_namespace);
        let endpoint = settings.endpoint;
        let listen = |source| StartError::Listen { endpoint, source };
        let listener = TcpListener::bind(endpoint).await.map_err(listen)?;
        let webhook_address = listener.local_addr().map_err(listen)?;
        let served = Arc::new(Served::new(metrics.certificate_expiry.clone()));
        let acceptor = webhook::tls_acceptor(Arc::clone(&served))?;

        let index = Arc::new(Index::default());
        let built_in = Instrumentation::built_in(&settings.own_endpoint(&namespace));
        let injection = Arc::new(ArcSwap::from_pointee(settings.injection.clone()));
        let (events, notes) = Events::channel(metrics.clone());
        let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| "spanreel".to_owned());
        tracker.spawn(events::write(client.clone(), instance, metrics.clone(), notes, shutdown.clone()));
        let pods = Arc::new(Pods {
            index: Arc::clone(&index),
            lookup: Lookup::new(client.clone()),
            settings: Arc::clone(&injection),
            built_in,
            events: events.clone(),
            metrics,
        });
        let webhook = Webhook::new(Arc::clone(&pods));
        tracker.spawn(webhook::serve(listener, acceptor, Arc::new(webhook), shutdown.clone()));

        life.set_own_service(&settings.service, &namespace);
        let lives = Arc::clone(&life);
        let following = life::follow(client.clone(), Arc::clone(&index), life, events.clone(), shutdown.clone());
        tracker.spawn(following);

        let (registered_sender, registered) = tokio::sync::watch::channel(false);
        let doctor =
            Arc::new(Doctor::new(client.clone(), Arc::clone(&pods), lives, registered.clone(), namespace.clone()));
        let (catch_up, own_namespace) = (settings.catch_up.clone(), namespace.clone());
        let catch_up = catch_up::Worker::new(client.clone(), pods, events.clone(), catch_up, own_namespace);
        tracker.spawn(catch_up::run(catch_up, registered.clone(), shutdown.clone()));
        let collectors = Collectors::new(
            client.clone(),
            crds::collectors(),
            host,
            settings.pod_address,
            settings.collectors_max,
            events.clone(),
        );
        let resources = Resources::new(Arc::clone(&index), collectors.board.clone());
        let control = Control {
            keeper: Keeper {
                client: client.clone(),
                namespace: namespace.clone(),
                name: format!("{}-webhook-cert", settings.service),
                names: settings.certificate_names(&namespace),
            },
            address: settings.address(&namespace),
            collectors,
            client,
            namespace: namespace.clone(),
            index,
            injection,
            events,
            served,
            check_interval: settings.check_interval,
            clock: settings.clock,
            registered: registered_sender,
            shutdown,
            tracker: tracker.clone(),
        };
        tracker.spawn(control.run());
        Ok(Self { webhook_address, namespace, registered, doctor, resources })
    }

    /// Where the webhook listens.
    #[must_use]
    pub fn webhook_address(&self) -> SocketAddr {
        self.webhook_address
    }

    /// Who examines what is in the cluster.
    #[must_use]
    pub fn doctor(&self) -> &Arc<Doctor> {
        &self.doctor
    }

    /// What is known of its custom resources.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.resources
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
    injection: Arc<ArcSwap<inject::Settings>>,
    events: Events,
    served: Arc<Served>,
    check_interval: Duration,
    clock: fn() -> SystemTime,
    collectors: Collectors<H>,
    registered: tokio::sync::watch::Sender<bool>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl<H: PipelineHost> Control<H> {
    /// Ends at shutdown, in whichever step that finds it.
    async fn run(self) {
        let definitions = || crds::install(&self.client);
        if until_done("installing custom resource definitions", &self.shutdown, definitions).await.is_none() {
            return;
        }
        self.watch_what_decides();
        let Self { client, namespace, keeper, address, index, injection, served, collectors, .. } = self;
        let Self { events, check_interval, clock, registered, shutdown, tracker, .. } = self;
        tracker.spawn(collectors.run(shutdown.clone()));
        tracker.spawn(upgrade::run(client.clone(), (**injection.load()).clone(), Some(events), shutdown.clone()));

        // The registration comes last: the webhook must have a certificate and know what there is.
        let (mut synced, mut asking) = (index.synced(), index.asking());
        let mut clocks = Clocks { own: clock, differ: false };
        let mut held: Option<Certificates> = None;
        let mut operators: Option<String> = None;
        let mut checks = State::new("registering checks and conversion of custom resources");
        loop {
            let asked = until_done("asking the API server for its version", &shutdown, || server::ask(&client)).await;
            let Some(server) = asked else { return };
            let noted = note_image_volumes(&injection, &client, &namespace, &server);
            if shutdown.run_until_cancelled(noted).await.is_none() {
                return;
            }
            let now = clocks.now(server.now);
            let ensured =
                until_done("keeping the webhook's certificate", &shutdown, || keeper.ensure(now, held.as_ref())).await;
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
            let namespaces = asking.borrow_and_update().clone();
            let search = tokio::time::timeout(STEP_TIMEOUT, registration::operator_configuration(&client));
            let Some(operator) = shutdown.run_until_cancelled(search).await else { return };
            let operator = operator.unwrap_or_default();
            if let Some(configuration) = operator.as_ref().filter(|_| operator != operators) {
                tracing::warn!(
                    %configuration,
                    "opentelemetry-operator is installed as well: whichever webhook runs first injects a pod, both act on OpenTelemetryCollectors, and defaults and checks of its resources are left to it; remove one"
                );
            }
            operators = operator;
            let registration = Registration {
                address: &address,
                own_namespace: &namespace,
                ca_bundle: &certificates.ca,
                asking: &namespaces,
                resources: operators.is_none(),
            };
            let register = || registration.ensure_mutating(&client);
            if until_done("registering the webhook", &shutdown, register).await.is_none() {
                return;
            }
            let resources = register_for_resources(&client, &registration, &mut checks);
            if shutdown.run_until_cancelled(resources).await.is_none() {
                return;
            }
            let is_other = |held: &Certificates| !held.shares_authority(&certificates);
            if held.as_ref().is_some_and(is_other)
                && shutdown.run_until_cancelled(tokio::time::sleep(TRUST_DELAY)).await.is_none()
            {
                return;
            }
            serve_certificates(&served, &certificates);
            held = Some(certificates);
            if !registered.send_replace(true) {
                tracing::info!(?address, "the API server asks about new pods from now on");
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(check_interval) => {}
                // The index lives as long as the watches that feed it.
                Ok(()) = asking.changed() => {}
            }
        }
    }

    /// Instrumentations and namespaces, into the index.
    fn watch_what_decides(&self) {
        let (client, index, shutdown) = (&self.client, &self.index, &self.shutdown);
        let instrumentations: Api<DynamicObject> = Api::all_with(client.clone(), &crds::instrumentations());
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        let (for_instrumentations, for_namespaces) = (Arc::clone(index), Arc::clone(index));
        let config = watcher::Config::default;
        let events = watcher(instrumentations, config()).default_backoff();
        let feed = move |event| for_instrumentations.on_instrumentation(event);
        self.tracker.spawn(watch("watching Instrumentations", events, feed, shutdown.clone()));
        let events = watcher(namespaces, config()).default_backoff();
        let feed = move |event| for_namespaces.on_namespace(event);
        self.tracker.spawn(watch("watching namespaces", events, feed, shutdown.clone()));
    }
}

/// Between telling of a new authority and serving what it signed: every API server must have heard of it.
const TRUST_DELAY: Duration = Duration::from_secs(5);
/// At least between two checks: the first namespace that asks is registered at once, for its pods may follow close behind,
/// and what comes right after it together.
const PAUSE: Duration = Duration::from_millis(200);
/// Clocks that differ by less are the same: certificates are valid from an hour before they are made.
const CLOCKS_DIFFER_MIN: Duration = Duration::from_secs(300);

/// Whose time certificates are made for: who checks them is the API server.
struct Clocks {
    own: fn() -> SystemTime,
    /// Said already.
    differ: bool,
}

impl Clocks {
    fn now(&mut self, servers: Option<SystemTime>) -> SystemTime {
        let own = (self.own)();
        let Some(servers) = servers else { return own };
        let difference = own.duration_since(servers).unwrap_or_else(|error| error.duration());
        if difference < CLOCKS_DIFFER_MIN {
            self.differ = false;
            return own;
        }
        if !std::mem::replace(&mut self.differ, true) {
            tracing::warn!(
                seconds = difference.as_secs(),
                "this machine's clock differs from the API server's, whose time the webhook's certificate is made for; set the clock, or spans that are stamped here will be misplaced"
            );
        }
        servers
    }
}

/// What pods do not need must not hold them up: tried once, and again with the next check.
async fn register_for_resources(client: &Client, registration: &Registration<'_>, state: &mut State) {
    let attempt = async {
        registration.ensure_validating(client).await?;
        crds::ensure_conversion(client, registration.address, registration.ca_bundle).await
    };
    match tokio::time::timeout(STEP_TIMEOUT, attempt).await {
        Ok(Ok(())) => state.ok(),
        Ok(Err(error)) => state.failed(&error),
        Err(_) => state.failed(&"no answer within 45 s"),
    }
}

/// Finds out whether pods may mount images, if that matters.
async fn note_image_volumes(settings: &ArcSwap<inject::Settings>, client: &Client, namespace: &str, server: &Server) {
    let current = settings.load_full();
    if current.delivery == Delivery::InitContainer {
        return;
    }
    let served = server::takes_image_volumes(client, namespace).await.unwrap_or(server.image_volumes);
    if current.image_volumes_served != served {
        tracing::info!(served, "image volumes, as far as the API server is concerned");
        settings.store(Arc::new(inject::Settings { image_volumes_served: served, ..(*current).clone() }));
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
            Err(error) if retry::is_expiry(&error) => {}
            Err(error) => state.failed(&error),
        }
    }
}
