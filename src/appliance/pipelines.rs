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
use std::collections::BTreeMap;
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
        // All ports are bound before any is served: a configuration that clashes takes no request.
        let mut bound = Vec::new();
        for (id, pipelines) in fed_by {
            let Some(component) = config.receivers.get(id) else { continue };
            let ReceiverSettings::Otlp(settings) = &component.settings;
            let receiver = Arc::new(Receiver {
                name: id.to_string(),
                sink: Arc::new(Intake { spool: shared.spool.clone(), pipelines }),
                other_signals: shared.other_signals.clone(),
                admission: shared.admission.clone(),
                limits: settings.limits(),
                metrics: shared.receive_metrics.clone(),
            });
            for (protocol, endpoint) in endpoints(settings) {
                let listener = Listener::bind(&endpoint).await?;
                self.listeners.push(Listening { receiver: id.to_string(), protocol, address: listener.address() });
                bound.push((listener, Arc::clone(&receiver)));
            }
        }
        for (listener, receiver) in bound {
            self.listening_tasks.spawn(listener.serve(receiver, self.listening.clone()));
        }
        Ok(())
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
