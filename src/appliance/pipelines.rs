//! The running pipelines of one configuration: its listeners in front, its destinations behind.

use super::Shared;
use super::components::{Components, ExtensionSettings};
use super::health_check;
use super::http_server::{self, HttpServer};
use super::intake::{Intake, PipelineIntake};
use crate::cluster::{self, ListenerPort};
use crate::config::{ComponentId, Config, Pipeline};
use crate::forward::{self, Destination};
use crate::process::Chain;
use crate::receive::otlp::settings::OtlpReceiverSettings;
use crate::receive::settings::ReceiverSettings;
use crate::receive::{Endpoint, ListenError, Listener, Receiver};
use crate::spool::{AppendError, Consumer, OpenError, ReadError};
use futures_util::FutureExt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Before a destination that panicked begins again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The process or a set of pipelines could not start. Each text stands alone on one line.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Data(#[from] OpenError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot listen on {address}: {problem}; stop what uses the port, or change the endpoint")]
    Bind { address: String, problem: std::io::Error },
    #[error("exporters::{exporter}: {problem}")]
    Exporter { exporter: String, problem: forward::BuildError },
    #[error("the data directory: {0}")]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Cluster(#[from] cluster::StartError),
    #[error("extensions::spanreel::webhook: {0}")]
    ClusterSettings(#[from] cluster::SettingsError),
    #[error("{0}")]
    Internal(String),
}

/// One configuration at work.
pub struct PipelineSet {
    pub(super) listeners: Vec<Listening>,
    pub(super) destinations: Vec<RunningDestination>,
    /// Every port that the configuration wants, whether or not it listens there right now.
    wanted: Vec<Wanted>,
    listening: CancellationToken,
    listening_tasks: TaskTracker,
    forwarding: CancellationToken,
    forwarding_tasks: TaskTracker,
}

/// An open port of a receiver.
#[derive(Debug, Clone)]
pub(super) struct Listening {
    pub receiver: String,
    /// `grpc` or `http`, as configured; both are spoken on each.
    pub protocol: &'static str,
    pub address: SocketAddr,
    /// Cancelled to close this port alone; `ended` is cancelled once it is closed.
    stop: CancellationToken,
    ended: CancellationToken,
}

/// A port as configured.
struct Wanted {
    protocol: &'static str,
    endpoint: Endpoint,
    receiver: Arc<Receiver>,
}

/// A destination at work.
#[derive(Clone)]
pub(super) struct RunningDestination {
    pub exporter: String,
    pub pipeline: String,
    pub destination: Arc<Destination>,
    consumer: Consumer,
}

impl PipelineSet {
    /// Starts destinations, then listeners. `owner` prefixes the names of pipelines that a custom resource brought.
    pub(super) async fn start(
        shared: &Shared,
        owner: Option<&str>,
        config: &Config<Components>,
    ) -> Result<Self, StartError> {
        let mut set = Self {
            listeners: Vec::new(),
            destinations: Vec::new(),
            wanted: Vec::new(),
            listening: CancellationToken::new(),
            listening_tasks: TaskTracker::new(),
            forwarding: CancellationToken::new(),
            forwarding_tasks: TaskTracker::new(),
        };
        match set.start_all(shared, owner, config).await {
            Ok(()) => Ok(set),
            Err(error) => {
                set.stop_listening().await;
                set.stop_forwarding().await;
                Err(error)
            }
        }
    }

    async fn start_all(
        &mut self,
        shared: &Shared,
        owner: Option<&str>,
        config: &Config<Components>,
    ) -> Result<(), StartError> {
        let mut fed_by: BTreeMap<&ComponentId, Vec<PipelineIntake>> = BTreeMap::new();
        for pipeline in &config.service.pipelines {
            let intake = self.start_pipeline(shared, owner, config, pipeline).await?;
            for receiver in &pipeline.receivers {
                fed_by.entry(receiver).or_default().push(intake.clone());
            }
        }
        for extension in &config.service.extensions {
            self.start_extension(shared, config, extension).await?;
        }
        for (id, pipelines) in fed_by {
            let Some(component) = config.receivers.get(id) else { continue };
            let ReceiverSettings::Otlp(settings) = &component.settings;
            let receiver = Arc::new(Receiver {
                name: id.to_string(),
                sink: Arc::new(Intake { spool: shared.spool.clone(), pipelines, witness: shared.witness.clone() }),
                other_signals: shared.other_signals.clone(),
                admission: shared.admission.clone(),
                limits: settings.limits(),
                metrics: shared.receive_metrics.clone(),
                witness: shared.witness.clone(),
            });
            let wanted = endpoints(settings).into_iter().map(|(protocol, endpoint)| Wanted {
                protocol,
                endpoint,
                receiver: Arc::clone(&receiver),
            });
            self.wanted.extend(wanted);
        }
        // All ports are bound before any is served: a configuration that clashes takes no request.
        let mut bound = Vec::new();
        for (index, wanted) in self.wanted.iter().enumerate() {
            bound.push((index, Listener::bind(&wanted.endpoint).await?));
        }
        for (index, listener) in bound {
            self.listen(index, listener);
        }
        Ok(())
    }

    fn listen(&mut self, index: usize, listener: Listener) {
        let Some(wanted) = self.wanted.get(index) else { return };
        let (stop, ended) = (self.listening.child_token(), CancellationToken::new());
        self.listeners.push(Listening {
            receiver: wanted.receiver.name.clone(),
            protocol: wanted.protocol,
            address: listener.address(),
            stop: stop.clone(),
            ended: ended.clone(),
        });
        let receiver = Arc::clone(&wanted.receiver);
        self.listening_tasks.spawn(async move {
            listener.serve(receiver, stop).await;
            ended.cancel();
        });
    }

    /// Closes the listeners on these ports; says whether there were any.
    pub(super) async fn release(&mut self, ports: &BTreeSet<u16>) -> bool {
        let (released, kept) =
            std::mem::take(&mut self.listeners).into_iter().partition(|it| ports.contains(&it.address.port()));
        self.listeners = kept;
        let released: Vec<Listening> = released;
        released.iter().for_each(|listening| listening.stop.cancel());
        for listening in &released {
            listening.ended.cancelled().await;
        }
        !released.is_empty()
    }

    /// Listens again on the configured ports that were released, unless they are in `taken`.
    pub(super) async fn retake(&mut self, taken: &BTreeSet<u16>) {
        for index in 0..self.wanted.len() {
            let Some(port) = self.wanted.get(index).and_then(|wanted| port_of(&wanted.endpoint.address)) else {
                continue;
            };
            if taken.contains(&port) || self.listeners.iter().any(|listening| listening.address.port() == port) {
                continue;
            }
            let Some(wanted) = self.wanted.get(index) else { continue };
            match Listener::bind(&wanted.endpoint).await {
                Ok(listener) => self.listen(index, listener),
                Err(error) => tracing::error!(%error, "a port that was lent could not be taken back"),
            }
        }
    }

    /// Whether nothing is left to forward.
    pub(super) fn is_drained(&self) -> bool {
        self.destinations.iter().all(|running| running.consumer.backlog().spans == 0)
    }

    /// Spans still to be forwarded, all destinations together.
    pub(super) fn backlog_spans(&self) -> u64 {
        self.destinations.iter().map(|running| running.consumer.backlog().spans).sum()
    }

    async fn start_pipeline(
        &mut self,
        shared: &Shared,
        owner: Option<&str>,
        config: &Config<Components>,
        pipeline: &Pipeline,
    ) -> Result<PipelineIntake, StartError> {
        let name = owned(owner, &pipeline.name);
        let id = shared.spool.pipeline(&name).await?;
        let processors = pipeline.processors.iter().filter_map(|id| Some(&config.processors.get(id)?.settings));
        let chain = Chain::build(processors, &self.listening_tasks, &self.listening);
        for exporter in &pipeline.exporters {
            let Some(component) = config.exporters.get(exporter) else { continue };
            let exporter = exporter.to_string();
            let consumer = {
                let (spool, exporter) = (shared.spool.clone(), exporter.clone());
                tokio::task::spawn_blocking(move || spool.consumer(&exporter, id))
                    .await
                    .map_err(|error| StartError::Internal(error.to_string()))??
            };
            let log_name = match owner {
                None => exporter.clone(),
                Some(owner) => format!("{owner}/{exporter}"),
            };
            let destination = Destination::build(
                &log_name,
                &component.settings,
                chain.batch(),
                consumer.clone(),
                &shared.forward_metrics,
                &shared.forward_budget,
            )
            .map_err(|problem| StartError::Exporter { exporter: exporter.clone(), problem })?;
            let destination = Arc::new(destination);
            let running = RunningDestination {
                exporter,
                pipeline: name.clone(),
                destination: Arc::clone(&destination),
                consumer,
            };
            self.destinations.push(running);
            let forwarding = self.forwarding.clone();
            self.forwarding_tasks.spawn(keep_forwarding(log_name, destination, forwarding));
        }
        Ok(PipelineIntake { id, chain })
    }

    async fn start_extension(
        &mut self,
        shared: &Shared,
        config: &Config<Components>,
        id: &ComponentId,
    ) -> Result<(), StartError> {
        match config.extensions.get(id).map(|extension| &extension.settings) {
            Some(ExtensionSettings::HealthCheck(settings)) => {
                let server: HttpServer = http_server::bind(&settings.endpoint).await?;
                let router = health_check::router(settings.clone(), shared.readiness.clone());
                // It answers until the listeners have drained, so that a stopping process is seen to be stopping.
                self.forwarding_tasks.spawn(server.serve(router, self.forwarding.clone()));
            }
            Some(ExtensionSettings::FileStorage(settings)) => tracing::info!(
                directory = %settings.directory.display(),
                "file_storage: everything is kept in the data directory; this directory is not used"
            ),
            Some(ExtensionSettings::Spanreel(_)) | None => {}
        }
        Ok(())
    }

    /// No new requests; those under way are answered.
    pub(super) async fn stop_listening(&self) {
        self.listening.cancel();
        self.listening_tasks.close();
        self.listening_tasks.wait().await;
    }

    /// Requests under way get their time, the rest stays in the spool.
    pub(super) async fn stop_forwarding(&self) {
        self.forwarding.cancel();
        self.forwarding_tasks.close();
        self.forwarding_tasks.wait().await;
    }

    /// The destinations are no longer wanted: their cursors hold nothing back from now on.
    pub(super) fn retire(&self) {
        self.destinations.iter().for_each(|running| running.consumer.retire());
    }

    /// Ports as Services name them.
    pub(super) fn service_ports(&self) -> Vec<ListenerPort> {
        self.listeners
            .iter()
            .map(|listening| ListenerPort {
                name: format!("{}-{}", listening.receiver.replace(['/', '_'], "-"), listening.protocol),
                port: listening.address.port(),
                app_protocol: Some(listening.protocol.to_owned()),
            })
            .collect()
    }
}

/// Runs a destination; if it panics it begins again at its cursor, where nothing is lost.
async fn keep_forwarding(name: String, destination: Arc<Destination>, shutdown: CancellationToken) {
    while AssertUnwindSafe(destination.run(shutdown.clone())).catch_unwind().await.is_err() {
        tracing::error!(destination = name, "forwarding panicked; it begins again at its cursor");
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

fn owned(owner: Option<&str>, name: &ComponentId) -> String {
    match owner {
        None => name.to_string(),
        Some(owner) => format!("{owner}/{name}"),
    }
}

/// Whether the ports of `config`, but for those in `except`, can be had: asked before anything that runs is disturbed.
pub(super) async fn probe(config: &Config<Components>, except: &BTreeSet<u16>) -> Result<(), ListenError> {
    for (_, endpoint) in used_endpoints(config) {
        if port_of(&endpoint.address).is_some_and(|port| !except.contains(&port)) {
            Listener::bind(&endpoint).await?;
        }
    }
    Ok(())
}

/// The fixed ports that a configuration's used receivers listen on.
pub(super) fn ports(config: &Config<Components>) -> BTreeSet<u16> {
    used_endpoints(config).iter().filter_map(|(_, endpoint)| port_of(&endpoint.address)).collect()
}

fn used_endpoints(config: &Config<Components>) -> Vec<(&'static str, Endpoint)> {
    let used: BTreeSet<_> = config.service.pipelines.iter().flat_map(|pipeline| &pipeline.receivers).collect();
    let used = config.receivers.iter().filter(|(id, _)| used.contains(id));
    used.flat_map(|(_, component)| {
        let ReceiverSettings::Otlp(settings) = &component.settings;
        endpoints(settings)
    })
    .collect()
}

/// `None` for port 0, which is another one each time.
fn port_of(address: &str) -> Option<u16> {
    address.rsplit(':').next()?.parse().ok().filter(|port| *port != 0)
}

/// The ports of a receiver. Where both protocols name the same address, it is one port: each speaks both anyway.
fn endpoints(settings: &OtlpReceiverSettings) -> Vec<(&'static str, Endpoint)> {
    let mut endpoints: Vec<(&'static str, Endpoint)> = Vec::new();
    if let Some(grpc) = &settings.grpc {
        endpoints.push(("grpc", Endpoint { address: bindable(&grpc.endpoint), tls: grpc.tls.clone() }));
    }
    if let Some(http) = &settings.http {
        let endpoint = Endpoint { address: bindable(&http.endpoint), tls: http.tls.clone() };
        let fixed_port = !endpoint.address.ends_with(":0");
        if !(fixed_port && endpoints.iter().any(|(_, other)| other.address == endpoint.address)) {
            endpoints.push(("http", endpoint));
        }
    }
    endpoints
}

/// `:4317` means every interface, as in Go.
pub(super) fn bindable(endpoint: &str) -> String {
    if endpoint.starts_with(':') { format!("0.0.0.0{endpoint}") } else { endpoint.to_owned() }
}
