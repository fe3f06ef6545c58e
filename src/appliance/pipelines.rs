//! The running pipelines of one configuration: what receivers hand spans to, and the destinations behind.
//!
//! A new configuration is a [`Plan`] first; then that replaces what runs, but for what is the same in both. Ports are the
//! [`super::doors`]'.

use super::Shared;
use super::components::{Components, ExtensionSettings};
use super::credentials::ClientSettings;
use super::doors::Wanted;
use super::plan::{Plan, PlannedDestination};
use super::probes::{self, Probes};
use super::samplings::Samplings;
use super::scraped;
use crate::auth::AuthError;
use crate::cluster::{self, ListenerPort};
use crate::config::Config;
use crate::forward::delivery::DeliverySettings;
use crate::forward::settings::ExporterSettings;
use crate::forward::{self, Destination};
use crate::process;
use crate::process::batch::settings::BatchSettings;
use crate::process::connector::{Connector, Outlet};
use crate::receive::listener::bindable;
use crate::receive::{ListenError, Receiver};
use crate::spool::{AppendError, Consumer, OpenError, ReadError};
use futures_util::FutureExt;
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;
use thiserror::Error;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Before a destination that panicked begins again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// A change waits so long for requests that began before it; destinations of what later ones feed stay until they end.
const REQUESTS_WAIT_MAX: Duration = Duration::from_secs(5);
const REQUESTS_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The process or a set of pipelines could not start. Each text stands alone on one line.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Data(#[from] OpenError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot listen on {address}: {problem}; stop what uses the port, or change the endpoint")]
    Bind { address: String, problem: std::io::Error },
    #[error("extensions::{extension}: {problem}")]
    Auth { extension: String, problem: AuthError },
    #[error("exporters::{exporter}: {problem}")]
    Exporter { exporter: String, problem: forward::BuildError },
    #[error("service::pipelines::{pipeline}: {problem}")]
    Processor { pipeline: String, problem: process::BuildError },
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
#[derive(Default)]
pub(super) struct PipelineSet {
    pub(super) destinations: Vec<RunningDestination>,
    /// Every port that the configuration wants, whether or not it listens there right now.
    pub(super) wanted: Vec<Wanted>,
    pub(super) probes: Probes,
    processing: Option<Processing>,
    pub(super) samplings: Samplings,
    connecting: Vec<Task>,
    /// Of earlier configurations, for as long as requests hold them: these may still store spans in pipelines that are no
    /// more.
    outgoing: Vec<Weak<Receiver>>,
    forwarding: CancellationToken,
    forwarding_tasks: TaskTracker,
}

/// The tasks of a configuration's processors. They end when it is replaced.
pub(super) struct Processing {
    _stop: DropGuard,
    tasks: TaskTracker,
}

impl Processing {
    pub fn new(stop: DropGuard, tasks: TaskTracker) -> Self {
        Self { _stop: stop, tasks }
    }
}

/// A destination at work.
#[derive(Clone)]
pub(super) struct RunningDestination {
    pub exporter: String,
    pub pipeline: String,
    pub destination: Arc<Destination>,
    pub settings: ExporterSettings,
    pub batch: Option<BatchSettings>,
    pub delivery: DeliverySettings,
    /// What its authenticator knows.
    pub client: Option<ClientSettings>,
    /// It gets what tail sampling lets pass.
    pub is_sampled: bool,
    pub consumer: Consumer,
    pub task: Task,
    /// It left the configuration, and still forwards what was stored before.
    pub leaving: bool,
}

/// How one task is stopped and waited for.
#[derive(Clone, Default)]
pub(super) struct Task {
    pub stop: CancellationToken,
    pub ended: CancellationToken,
}

impl Task {
    pub fn child_of(token: &CancellationToken) -> Self {
        Self { stop: token.child_token(), ended: CancellationToken::new() }
    }

    pub async fn stop(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}

impl RunningDestination {
    pub fn is_of(&self, pipeline: &str, exporter: &str) -> bool {
        self.pipeline == pipeline && self.exporter == exporter
    }
}

impl PipelineSet {
    /// Puts `plan` in the place of what runs. Ports have been handed over already; requests that began before may still
    /// end. What is the same in both goes on undisturbed. Returns what could not be had, in words for a status.
    pub async fn replace(&mut self, shared: &Shared, plan: Plan) -> Vec<String> {
        let Plan { wanted, destinations: planned, samplings, probes, processing, connectors, .. } = plan;
        let before = std::mem::replace(&mut self.wanted, wanted);
        self.let_go(before);
        // What they have counted goes to where it belonged, once the requests that they are told of have ended.
        self.connecting.retain(|connecting| !connecting.ended.is_cancelled());
        self.connecting.iter().for_each(|connecting| connecting.stop.cancel());
        self.processing = Some(processing);
        connectors.into_iter().for_each(|(connector, outlet)| self.connect(connector, outlet));

        let mut changed = Vec::new();
        let mut leaving = false;
        for mut running in std::mem::take(&mut self.destinations) {
            match planned.iter().find(|planned| planned.is_of(&running)) {
                Some(PlannedDestination::New { .. }) => changed.push(running),
                planned => {
                    running.leaving = planned.is_none();
                    leaving |= running.leaving;
                    self.destinations.push(running);
                }
            }
        }
        join_all(changed.iter().map(|running| running.task.stop())).await;
        self.samplings.exchange(samplings, &self.forwarding, &self.forwarding_tasks).await;
        for planned in planned {
            if let PlannedDestination::New { log_name, running } = planned {
                self.forward(log_name, running);
            }
        }
        if leaving {
            // Requests under way may still feed a pipeline that is no more.
            ended(&self.outgoing).await;
            self.stop_connectors(|connecting| connecting.stop.is_cancelled()).await;
            self.tidy().await;
        }
        self.end_samplings().await;
        self.probes.replace(shared, probes, &self.forwarding, &self.forwarding_tasks).await
    }

    fn forward(&mut self, log_name: String, mut running: RunningDestination) {
        running.task = Task::child_of(&self.forwarding);
        let (destination, task) = (Arc::clone(&running.destination), running.task.clone());
        self.destinations.push(running);
        if let Some(page) = destination.page() {
            self.forwarding_tasks.spawn(scraped::serve(page, task.stop.clone()));
        }
        self.forwarding_tasks.spawn(async move {
            keep_running(&log_name, &task.stop, || destination.run(task.stop.clone())).await;
            task.ended.cancel();
        });
    }

    fn connect(&mut self, connector: Arc<dyn Connector>, outlet: Arc<dyn Outlet>) {
        let task = Task::child_of(&self.forwarding);
        self.connecting.push(task.clone());
        self.forwarding_tasks.spawn(async move {
            // Also if it panics: nobody waits for it then.
            let _ended = task.ended.drop_guard();
            connector.run(outlet, task.stop).await;
        });
    }

    /// Nothing comes in any more: connectors emit what they still have.
    pub async fn end_connectors(&mut self) {
        let before = std::mem::take(&mut self.wanted);
        self.let_go(before);
        self.stop_connectors(|_| true).await;
    }

    /// These connectors emit what they still have, while the spool takes it.
    async fn stop_connectors(&mut self, which: impl Fn(&Task) -> bool) {
        let (ending, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.connecting).into_iter().partition(which);
        self.connecting = kept;
        if tokio::time::timeout(REQUESTS_WAIT_MAX, join_all(ending.iter().map(Task::stop))).await.is_err() {
            tracing::warn!("a connector did not end in time; what it had not emitted is lost");
        }
    }

    /// Nothing comes in any more: health checks and processors end, destinations go on with what is there.
    pub async fn stop_intake(&mut self) {
        self.end_connectors().await;
        self.probes.stop().await;
        if let Some(Processing { _stop, tasks }) = self.processing.take() {
            drop(_stop);
            tasks.close();
            tasks.wait().await;
        }
        ended(&self.outgoing).await;
    }

    fn let_go(&mut self, wanted: Vec<Wanted>) {
        self.outgoing.retain(|receiver| receiver.strong_count() > 0);
        self.outgoing.extend(wanted.iter().map(|wanted| Arc::downgrade(&wanted.behind.receiver)));
    }

    /// Whether neither a request under way nor a connector that ends can store anything in a pipeline that is no more.
    fn is_quiet(&self) -> bool {
        let has_ended = |task: &Task| !task.stop.is_cancelled() || task.ended.is_cancelled();
        self.outgoing.iter().all(|receiver| receiver.strong_count() == 0) && self.connecting.iter().all(has_ended)
    }

    /// Lets go of destinations that left the configuration and have nothing left to forward.
    pub async fn tidy(&mut self) {
        if !self.is_quiet() {
            return;
        }
        let (done, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.destinations)
            .into_iter()
            .partition(|running| running.leaving && running.consumer.backlog().spans == 0);
        self.destinations = kept;
        join_all(done.iter().map(|running| running.task.stop())).await;
        done.iter().for_each(|running| running.consumer.retire());
        self.end_samplings().await;
    }

    /// Of pipelines that sample no more, once no destination reads behind it.
    async fn end_samplings(&mut self) {
        let sampled = self.destinations.iter().filter(|running| running.is_sampled);
        let sampled: BTreeSet<&str> = sampled.map(|running| running.pipeline.as_str()).collect();
        self.samplings.tidy(|pipeline| sampled.contains(pipeline)).await;
    }

    /// Ports of health checks, as Services name them.
    pub fn probe_ports(&self) -> Vec<ListenerPort> {
        self.probes.ports()
    }

    /// Whether a destination is at work for this exporter of this pipeline.
    pub fn forwards(&self, pipeline: &str, exporter: &str) -> bool {
        self.destinations.iter().any(|running| running.is_of(pipeline, exporter))
    }

    /// Whether nothing is left to forward.
    pub fn is_drained(&self) -> bool {
        self.is_quiet() && self.destinations.iter().all(|running| running.consumer.backlog().spans == 0)
    }

    /// Spans still to be forwarded, all destinations together.
    pub fn backlog_spans(&self) -> u64 {
        self.destinations.iter().map(|running| running.consumer.backlog().spans).sum()
    }

    /// Everything at once, once nothing comes in any more: each has its time, and together they have no more.
    pub async fn stop(&mut self) {
        self.forwarding.cancel();
        self.stop_intake().await;
        self.stop_forwarding().await;
    }

    /// Requests under way get their time, the rest stays in the spool.
    pub async fn stop_forwarding(&self) {
        self.forwarding.cancel();
        self.forwarding_tasks.close();
        self.forwarding_tasks.wait().await;
    }

    /// The destinations are no longer wanted: their cursors hold nothing back from now on.
    pub fn retire(&self) {
        self.destinations.iter().for_each(|running| running.consumer.retire());
        self.samplings.retire();
    }
}

/// Waits until no request holds any of these receivers any more, or long enough.
async fn ended(receivers: &[Weak<Receiver>]) {
    let all = async {
        while receivers.iter().any(|receiver| receiver.strong_count() > 0) {
            tokio::time::sleep(REQUESTS_LOOK_INTERVAL).await;
        }
    };
    let _ = tokio::time::timeout(REQUESTS_WAIT_MAX, all).await;
}

/// Runs until `shutdown` what goes on at its cursor; if it panics it begins again there, where nothing is lost.
pub(super) async fn keep_running<F: Future<Output = ()>>(
    name: &str,
    shutdown: &CancellationToken,
    run: impl Fn() -> F,
) {
    while AssertUnwindSafe(run()).catch_unwind().await.is_err() {
        tracing::error!(name, "it panicked, and begins again at its cursor");
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Every address that a configuration's used receivers and its health checks listen on.
pub(super) fn addresses(config: &Config<Components>) -> BTreeSet<String> {
    let used: BTreeSet<_> = config.service.pipelines.iter().flat_map(|pipeline| &pipeline.receivers).collect();
    let used = config.receivers.iter().filter(|(id, _)| used.contains(id));
    let receivers = used.flat_map(|(_, component)| component.settings.ports()).map(|port| port.endpoint.name());
    let probes = probes::settings(config).map(|settings| bindable(settings.endpoint()));
    receivers.chain(probes).collect()
}

/// Says what of a configuration's extensions means nothing here.
pub(super) fn log_extensions(config: &Config<Components>) {
    for id in &config.service.extensions {
        if let Some(ExtensionSettings::FileStorage(settings)) = config.extensions.get(id).map(|it| &it.settings) {
            tracing::info!(
                directory = %settings.directory.display(),
                "file_storage: everything is kept in the data directory; this directory is not used"
            );
        }
    }
}
