//! The appliance: starts the rooms in order, hands each its neighbours, owns every task, and stops them in order.
//!
//! ```text
//! start   data directory ─▶ query port ─▶ pipelines (destinations, then listeners) ─▶ cluster ─▶ ready
//! stop    listeners, requests in flight ─▶ spool synced ─▶ destinations ─▶ query port
//! ```
//!
//! It knows no wire format; what is configured comes in typed, what runs goes out as tasks.

mod access;
mod archive;
mod authenticators;
mod banner;
mod collector_metrics;
pub mod components;
mod configuration;
pub mod connectors;
mod credentials;
mod dead_letters;
mod doors;
pub mod file_storage;
mod forecast;
mod health;
pub mod health_check;
mod host;
mod http_server;
mod intake;
mod introspection;
mod memory;
mod pipelines;
mod plan;
mod probes;
mod remote_write;
mod samplings;
mod scraped;
pub mod spanreel;
mod ways;
pub mod zpages;

pub use host::Host;
pub use pipelines::StartError;

use crate::cluster::{self, Cluster, ClusterSettings, LifeLine};
use crate::config::{Config, TelemetrySettings};
use crate::otlp::scan::trace_keys;
use crate::query::{self, AccessMetrics, QueryMetrics, QueryState, Tempo};
use crate::receive::admission::Admission;
use crate::red::{self, Red, RedCollector};
use crate::store::retention::RetentionSettings;
use crate::store::runs::{self, Runs};
use crate::store::seal::{SealSettings, Sealing};
use crate::store::{Keeper, Store};
use crate::telemetry::Metrics;
use crate::traceql::control::Pool;
use crate::{forward, process, receive, spool, telemetry};
use collector_metrics::{CollectorMetrics, older_text};
use components::{Components, spanreel_settings};
use dead_letters::Letters;
use forecast::Forecast;
use introspection::{Process, ReadinessFlag};
use memory::Memory;
use prometheus_client::registry::Registry;
use remote_write::RemoteWrite;
use spanreel::settings::SpanreelSettings;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Everything has stopped by then, or is abandoned: what was acknowledged is on disk since long.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);
/// How late, at most, a span is given up that waits for the other side of its call; Tempo looks as often.
const RED_TIDY_INTERVAL: Duration = Duration::from_secs(2);
const DEFAULT_DATA_DIRECTORY: &str = "spanreel-data";

/// What the appliance is started with.
pub struct Options {
    pub config: Config<Components>,
    /// Whether `config` is the built-in one, which gives way when a custom resource wants its ports.
    pub built_in: bool,
    /// `--data`; wins over the configuration.
    pub data_directory: Option<PathBuf>,
    /// How to reach the cluster, if there is one.
    pub cluster: Option<ClusterAccess>,
    /// Whether the banner may be several lines of text.
    pub text_banner: bool,
}

/// How the API server is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterAccess {
    InCluster,
    Kubeconfig(PathBuf),
}

/// What the rooms share.
#[derive(Clone)]
struct Shared {
    pub spool: spool::Spool,
    pub admission: Admission,
    pub receive_metrics: receive::Metrics,
    pub forward_metrics: forward::Metrics,
    pub sampling_metrics: forward::SamplingMetrics,
    /// The store keeps what is sampled out for a time of its own, so it is to be told.
    pub marks_sampled_out: bool,
    pub connector_metrics: red::connector::ConnectorMetrics,
    pub forward_budget: forward::Budget,
    pub other_signals: receive::other_signals::OtherSignals,
    /// In a cluster: who wants to know which pods speak.
    pub witness: Option<Arc<dyn receive::Witness>>,
    /// Metrics from spans, unless they are turned off.
    pub red: Option<Arc<Red>>,
    /// What processors may ask.
    pub surroundings: process::Surroundings,
    readiness: ReadinessFlag,
}

/// The running appliance.
pub struct Appliance {
    running: Running,
    host: Arc<Host>,
    /// `extensions::spanreel` and `service::telemetry` as the process was started with them: they hold until it ends.
    fixed: (SpanreelSettings, TelemetrySettings),
    /// Of the query port, if there is one.
    access: Option<query::Access>,
    readiness: ReadinessFlag,
}

/// What is to be stopped, as far as it was started.
struct Running {
    spool: spool::Spool,
    host: Option<Arc<Host>>,
    sealing: Option<Arc<Sealing>>,
    /// Ends what serves the outside besides receivers: query port, cluster.
    serving: CancellationToken,
    serving_tasks: TaskTracker,
}

impl Appliance {
    /// Starts everything; on an error nothing is left running.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let settings = spanreel_settings(&options.config);
        let fixed = (settings.clone(), options.config.service.telemetry.clone());
        let mut registry = Registry::default();
        telemetry::process::register(&mut registry);
        let spool = open_spool(&options, &settings, &mut registry).await?;
        let mut running = Running {
            spool,
            host: None,
            sealing: None,
            serving: CancellationToken::new(),
            serving_tasks: TaskTracker::new(),
        };
        match Self::start_rooms(options, &settings, registry, &mut running).await {
            Ok((host, access, readiness)) => Ok(Self { running, host, fixed, access, readiness }),
            Err(error) => {
                running.stop().await;
                Err(error)
            }
        }
    }

    /// Starts what stands on the spool; what has started is in `running`, also after an error.
    async fn start_rooms(
        options: Options,
        settings: &SpanreelSettings,
        mut registry: Registry,
        running: &mut Running,
    ) -> Result<(Arc<Host>, Option<query::Access>, ReadinessFlag), StartError> {
        let in_cluster = options.cluster.is_some();
        let (spool, serving, serving_tasks) =
            (running.spool.clone(), running.serving.clone(), running.serving_tasks.clone());
        let memory = Memory::of(settings.memory);
        let runs = open_runs(&spool, memory.runs, &mut registry).await?;
        // What queries and runs in the making share.
        let passing = Pool::new(memory.query.scratch_bytes_max);
        running.sealing = Some(start_sealing(&spool, &runs, settings, (memory.sealing, Arc::clone(&passing)))?);
        let receive_metrics = receive::Metrics::default();
        receive_metrics.register(&mut registry);
        let forward_metrics = forward::Metrics::default();
        forward_metrics.register(&mut registry);
        let sampling_metrics = forward::SamplingMetrics::default();
        sampling_metrics.register(&mut registry);
        let connector_metrics = red::connector::ConnectorMetrics::default();
        connector_metrics.register(&mut registry);
        let readiness = ReadinessFlag::default();
        let life = in_cluster.then(|| LifeLine::new(settings.silent_after.0));
        if let Some(life) = &life {
            life.register(&mut registry);
        }
        let red = start_red(settings, &mut registry, &serving, &serving_tasks)?;
        let shared = Shared {
            spool: spool.clone(),
            admission: Admission::new(memory.intake_bytes),
            other_signals: receive::other_signals::OtherSignals::new(settings.other_signals, receive_metrics.clone()),
            receive_metrics,
            forward_metrics,
            sampling_metrics,
            marks_sampled_out: settings.store.keep_sampled_out.is_some(),
            connector_metrics,
            forward_budget: forward::Budget::new(memory.forward),
            witness: life.clone().map(|life| life as Arc<dyn receive::Witness>),
            red: red.clone(),
            surroundings: surroundings(options.cluster.as_ref()),
            readiness: readiness.clone(),
        };
        let host = Arc::new(Host::new(shared.clone()));
        running.host = Some(Arc::clone(&host));
        let forecast = Forecast::default();
        forecast.register(&mut registry);
        serving_tasks.spawn(forecast.clone().watch(spool.clone(), serving.clone()));
        let cluster_metrics = cluster::Metrics::default();
        cluster_metrics.register(&mut registry);
        let query_metrics = QueryMetrics::default();
        query_metrics.register(&mut registry);
        let access_metrics = AccessMetrics::default();
        access_metrics.register(&mut registry);
        let metrics = Metrics::new(registry);
        let metrics = match red {
            Some(red) => metrics.with_series(move || Box::new(red::exposition::Pages::of(Arc::clone(&red)))),
            None => metrics,
        };

        let query_endpoint = settings.query_endpoint.clone().unwrap_or_else(|| {
            let host = if in_cluster { "0.0.0.0" } else { "127.0.0.1" };
            format!("{host}:3200")
        });
        let process = Arc::new(Process::new(
            &shared,
            runs.clone(),
            cluster_metrics.clone(),
            metrics.clone(),
            Arc::clone(&host),
            life.clone(),
            (forecast, settings.clone()),
        ));
        let (query_address, access) = if query_endpoint.is_empty() {
            (None, None)
        } else {
            let store = Store::new(spool.clone(), Arc::new(runs.clone()), memory.tail);
            serving_tasks.spawn(store.clone().housekeep(serving.clone()));
            let mut state = QueryState::new(Arc::new(store), Arc::clone(&process) as _, memory.query)
                .sharing(query_metrics.clone(), Arc::clone(&passing))
                .until(serving.clone());
            if let Some(url) = &settings.query_upstream {
                let tempo = Tempo::new(url, Handle::current());
                state = state.with_upstream(Arc::new(tempo.map_err(|error| StartError::Internal(error.to_string()))?));
            }
            let server = http_server::bind(&query_endpoint).await?.counting(&query_metrics.stalled);
            let address = server.address();
            let access = access::access(&options.config, settings, access_metrics)?;
            if let Some(endpoint) = &settings.query_grpc_endpoint {
                let grpc = http_server::bind(endpoint).await?.counting(&query_metrics.stalled);
                let routes = access::guarded(crate::query::grpc_router(state.clone()), &access);
                serving_tasks.spawn(grpc.serve(routes, serving.clone()));
            }
            let keeper = Arc::new(Keeper { spool: spool.clone(), runs: runs.clone(), beside: &[archive::NAME] });
            let routes = crate::query::router(state).merge(crate::query::upkeep_routes(keeper));
            let letters = Letters { spool: spool.clone(), host: Arc::clone(&host) };
            let routes = access::guarded(routes.merge(crate::query::dead_letter_routes(Arc::new(letters))), &access);
            let routes = routes.merge(crate::query::session_routes(access.clone())).merge(crate::web::routes());
            serving_tasks.spawn(server.serve(routes, serving.clone()));
            (Some(address), Some(access))
        };
        let collector =
            CollectorMetrics { spool: spool.clone(), receive: shared.receive_metrics.clone(), started: Instant::now() };
        let telemetry = &options.config.service.telemetry;
        serve_own_metrics(telemetry, (&metrics, &collector), &serving, &serving_tasks).await;

        host.start_base(options.config, options.built_in).await?;
        warn_of_stranded(&spool, in_cluster);
        // Budgets are looked after once it is known who still wants something.
        serving_tasks.spawn({
            let (spool, serving) = (spool.clone(), serving.clone());
            async move { spool.housekeep(serving).await }
        });
        serving_tasks.spawn({
            let (host, serving) = (Arc::clone(&host), serving.clone());
            async move { host.tidy(serving).await }
        });
        if let (Some(cluster), Some(life)) = (&options.cluster, life) {
            let cluster =
                start_cluster(cluster, settings, &host, (cluster_metrics, life), &serving, &serving_tasks).await?;
            process.set_cluster(&cluster);
        }
        serving_tasks.close();
        readiness.set_ready();
        banner::print(&host, query_address, spool.database().directory(), options.text_banner);
        Ok((host, access, readiness))
    }

    /// Stops in order. What was acknowledged is safe whatever happens here; this is about finishing politely.
    pub async fn stop(self) {
        self.readiness.set_stopping();
        self.running.stop().await;
        tracing::info!("stopped");
    }

    /// Has another configuration run in the place of the one it was started with; ports, connections and destinations that
    /// are the same in both are not disturbed. Returns what is worth a warning.
    ///
    /// # Errors
    /// The new configuration cannot run; the old one goes on.
    pub async fn reload(&self, config: Config<Components>) -> Result<Vec<String>, StartError> {
        let (own, telemetry) = (spanreel_settings(&config), config.service.telemetry.clone());
        let rules = self.access.as_ref().map(|_| access::rules(&config, &own.access)).transpose()?;
        // What pipelines take from there, and who may ask, is not fixed.
        let (delivery, access) = (self.fixed.0.delivery.clone(), self.fixed.0.access.clone());
        let own = SpanreelSettings { delivery, access, ..own };
        let mut remarks = self.host.replace_base(config).await?;
        if let (Some(access), Some(rules)) = (&self.access, rules) {
            access.replace(rules);
        }
        let fixed = [(own != self.fixed.0, "extensions::spanreel"), (telemetry != self.fixed.1, "service::telemetry")];
        let changed: Vec<String> = fixed.into_iter().filter(|(is, _)| *is).map(|(_, path)| path.to_owned()).collect();
        for path in &changed {
            remarks.push(format!("{path} has changed: that takes a restart, and the old settings hold until then"));
        }
        self.host.configure(|configuration| configuration.after_restart = changed);
        Ok(remarks)
    }

    /// Every listener of receivers, for tests and status.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }
}

impl Running {
    async fn stop(&self) {
        let orderly = async {
            if let Some(host) = &self.host {
                host.stop_listening().await;
            }
            self.spool.close().await;
            let sealed = async {
                let Some(sealing) = self.sealing.clone() else { return };
                let _ = tokio::task::spawn_blocking(move || sealing.stop()).await;
            };
            // Each may have to wait for somebody who says nothing more.
            let serving = async {
                self.serving.cancel();
                self.serving_tasks.close();
                self.serving_tasks.wait().await;
            };
            let forwarding = async {
                if let Some(host) = &self.host {
                    host.stop_forwarding().await;
                }
            };
            let _ = tokio::join!(forwarding, serving, sealed);
        };
        if tokio::time::timeout(STOP_WAIT_MAX, orderly).await.is_err() {
            tracing::warn!("stopping took longer than {} s; the rest is abandoned", STOP_WAIT_MAX.as_secs());
        }
    }
}

/// Says which spans nobody will send: a renamed or removed exporter or pipeline leaves its cursor behind.
fn warn_of_stranded(spool: &spool::Spool, in_cluster: bool) {
    for consumer in spool.snapshot().consumers {
        // Pipelines of custom resources carry their owner, `namespace/name/`; those are applied later.
        let owned = in_cluster && consumer.pipeline.matches('/').count() >= 2;
        if !consumer.active && consumer.queued > 0 && !owned {
            tracing::warn!(
                destination = consumer.account.destination,
                pipeline = consumer.pipeline,
                spans = consumer.queued,
                "spans wait for an exporter that is not configured any more; configure it again under this name and in this \
                 pipeline to have them sent, otherwise they go with the spool's budget"
            );
        }
    }
}

fn surroundings(cluster: Option<&ClusterAccess>) -> process::Surroundings {
    let view = cluster.map(|access| match access {
        ClusterAccess::InCluster => cluster::View::new(None),
        ClusterAccess::Kubeconfig(path) => cluster::View::new(Some(path.clone())),
    });
    process::Surroundings { cluster: view.map(|view| Arc::new(view) as _) }
}

async fn start_cluster(
    access: &ClusterAccess,
    settings: &SpanreelSettings,
    host: &Arc<Host>,
    (metrics, life): (cluster::Metrics, Arc<LifeLine>),
    serving: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Cluster, StartError> {
    let kubeconfig = match access {
        ClusterAccess::InCluster => None,
        ClusterAccess::Kubeconfig(path) => Some(path.clone()),
    };
    let pod_ip = std::env::var("POD_IP").ok();
    let settings = ClusterSettings::new(settings, kubeconfig, pod_ip.as_deref())?;
    Ok(Cluster::start(settings, Arc::clone(host), metrics, life, serving.clone(), tasks).await?)
}

async fn open_spool(
    options: &Options,
    settings: &SpanreelSettings,
    registry: &mut Registry,
) -> Result<spool::Spool, StartError> {
    const MIB: u64 = 1024 * 1024;
    let directory = options
        .data_directory
        .clone()
        .or_else(|| settings.data_directory.clone())
        .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIRECTORY));
    let spool_settings = spool::Settings {
        directory,
        bytes_max: settings.spool.max_size_mib.saturating_mul(MIB),
        age_max: settings.spool.max_age,
        free_bytes_min: settings.spool.min_free_mib.saturating_mul(MIB),
        sync_interval: settings.spool.sync_interval,
        memory: Memory::of(settings.memory).spool,
        trace_keys,
    };
    let metrics = spool::Metrics::default();
    metrics.register(registry);
    let spool = tokio::task::spawn_blocking(move || spool::Spool::open(spool_settings, metrics))
        .await
        .map_err(|error| StartError::Internal(error.to_string()))??;
    registry.register_collector(Box::new(spool::LedgerCollector(spool.clone())));
    Ok(spool)
}

/// Metrics from spans, and the task that keeps them tidy.
fn start_red(
    settings: &SpanreelSettings,
    registry: &mut Registry,
    serving: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Option<Arc<Red>>, StartError> {
    let Some(engine) = settings.metrics_from_spans.engine() else { return Ok(None) };
    let red = Arc::new(Red::new(engine));
    registry.register_collector(Box::new(RedCollector(Arc::clone(&red))));
    tasks.spawn({
        let (red, serving) = (Arc::clone(&red), serving.clone());
        async move {
            while serving.run_until_cancelled(tokio::time::sleep(RED_TIDY_INTERVAL)).await.is_some() {
                red.tidy();
            }
        }
    });
    if let Some(settings) = &settings.remote_write {
        let problem = |problem| StartError::Exporter { exporter: "remote_write".to_owned(), problem };
        let remote_write = RemoteWrite::new(Arc::clone(&red), settings.clone(), registry).map_err(problem)?;
        tasks.spawn(remote_write.run(serving.clone()));
    }
    Ok(Some(red))
}

async fn open_runs(spool: &spool::Spool, memory: runs::Memory, registry: &mut Registry) -> Result<Runs, StartError> {
    let metrics = runs::Metrics::default();
    metrics.register(registry);
    let database = spool.database().clone();
    tokio::task::spawn_blocking(move || Runs::open(database, metrics, memory))
        .await
        .map_err(|error| StartError::Internal(error.to_string()))?
        .map_err(|error| StartError::Internal(format!("sealed runs cannot be opened: {error}")))
}

fn start_sealing(
    spool: &spool::Spool,
    runs: &Runs,
    settings: &SpanreelSettings,
    (memory, passing): (memory::Sealing, Arc<Pool>),
) -> Result<Arc<Sealing>, StartError> {
    const MIB: u64 = 1024 * 1024;
    let retention = RetentionSettings {
        age_max: Some(settings.store.max_age).filter(|age| !age.is_zero()),
        sampled_out_age_max: settings.store.keep_sampled_out,
        bytes_max: settings.store.max_size_mib.saturating_mul(MIB),
        free_bytes_min: settings.spool.min_free_mib.saturating_mul(MIB),
    };
    let memory::Sealing { raw_bytes, raw_bytes_min } = memory;
    let make_runs = settings.store.enabled;
    let mut sealing = SealSettings { make_runs, raw_bytes, raw_bytes_min, ..SealSettings::default() };
    if let Some(age_max) = settings.spool.max_age {
        // What the spool drops by age must be in a run long before.
        sealing.age_max = sealing.age_max.min(age_max / 4);
        sealing.age = sealing.age.min(age_max / 4);
    }
    Sealing::start(spool.clone(), runs.clone(), sealing, retention, passing)
        .map(Arc::new)
        .map_err(|error| StartError::Internal(format!("no thread for the sealer: {error}")))
}

/// Where a Collector shows its own metrics (`service::telemetry::metrics`). A port in use is not worth failing for: the
/// same figures are on the query port.
async fn serve_own_metrics(
    telemetry: &TelemetrySettings,
    (metrics, collector): (&Metrics, &CollectorMetrics),
    serving: &CancellationToken,
    tasks: &TaskTracker,
) {
    for endpoint in &telemetry.metrics_endpoints {
        match http_server::bind(endpoint).await {
            Ok(server) => {
                let (metrics, collector) = (metrics.clone(), collector.clone());
                let text =
                    move || async move { http_server::plain_text(older_text(&metrics.text()) + &collector.text()) };
                let router = axum::Router::new().route("/metrics", axum::routing::get(text));
                tasks.spawn(server.serve(router, serving.clone()));
            }
            Err(error) => {
                tracing::warn!("own metrics are not served there: {error}; /metrics on the query port has them")
            }
        }
    }
}
