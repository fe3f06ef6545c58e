//! What a configuration asks for, made ready beside what runs: it can fail, and disturbs nobody.

use super::Shared;
use super::authenticators::Authenticators;
use super::components::{Components, spanreel_settings};
use super::connectors::ConnectorOutlet;
use super::credentials::ClientSettings;
use super::doors::Wanted;
use super::intake::{Intake, ItemIntake, PipelineIntake};
use super::pipelines::{PipelineSet, Processing, RunningDestination, StartError, Task};
use super::probes::PlannedProbe;
use super::samplings::PlannedSampling;
use super::ways;
use crate::config::{ComponentId, Config};
use crate::forward::delivery::DeliverySettings;
use crate::forward::settings::ExporterSettings;
use crate::forward::{Destination, Feed, Sampling, Surroundings};
use crate::otlp::Signal;
use crate::process::Chain;
use crate::process::connector::{Connector, Outlet};
use crate::receive::Receiver;
use crate::receive::items::{ItemSink, ItemSinks};
use crate::receive::listener::Behind;
use crate::receive::settings::Port;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A configuration that is going to run.
pub(super) struct Plan {
    pub wanted: Vec<Wanted>,
    pipelines: Vec<PlannedPipeline>,
    pub destinations: Vec<PlannedDestination>,
    pub samplings: Vec<PlannedSampling>,
    pub probes: Vec<PlannedProbe>,
    pub processing: Processing,
    pub connectors: Vec<(Arc<dyn Connector>, Arc<dyn Outlet>)>,
}

struct PlannedPipeline {
    name: String,
    signal: Signal,
    intake: PipelineIntake,
    exporters: Vec<ComponentId>,
}

pub(super) enum PlannedDestination {
    /// It runs already, with the same settings.
    Kept(RunningDestination),
    New {
        log_name: String,
        running: RunningDestination,
    },
}

impl Plan {
    /// Names the pipelines and what stands behind each port. `owner` prefixes the names of pipelines that a custom
    /// resource brought.
    pub async fn draw(shared: &Shared, owner: Option<&str>, config: &Config<Components>) -> Result<Self, StartError> {
        // If nothing comes of the plan, what was begun for it ends.
        let stop = CancellationToken::new();
        let ending = stop.clone().drop_guard();
        let tasks = TaskTracker::new();
        let mut intakes = Vec::new();
        for pipeline in &config.service.pipelines {
            let id = shared.spool.pipeline_of(pipeline.signal, &owned(owner, &pipeline.name)).await?;
            let processors = pipeline.processors.iter().filter_map(|id| Some(&config.processors.get(id)?.settings));
            let processors: Vec<_> = processors.collect();
            let chain = Chain::build(&processors, &shared.surroundings, &tasks, &stop).await;
            let chain =
                chain.map_err(|problem| StartError::Processor { pipeline: owned(owner, &pipeline.name), problem })?;
            intakes.push(PipelineIntake { id, chain, connectors: Vec::new() });
        }
        let mut running = Vec::new();
        for (id, component) in &config.connectors {
            let Some(connector) = component.settings.build(id.to_string(), &shared.connector_metrics) else { continue };
            for (pipeline, intake) in config.service.pipelines.iter().zip(&mut intakes) {
                if pipeline.feeds.contains(id) {
                    intake.connectors.push(Arc::clone(&connector));
                }
            }
            running.push((id, connector));
        }
        let ways = ways::Ways::new(config, &intakes);
        let mut plan = Self {
            wanted: Vec::new(),
            pipelines: Vec::new(),
            destinations: Vec::new(),
            samplings: Vec::new(),
            probes: Vec::new(),
            processing: Processing::new(ending, tasks),
            connectors: Vec::new(),
        };
        for (id, connector) in running {
            let pipelines = ways.of_connector(id)?;
            let outlet: Arc<dyn Outlet> = Arc::new(ConnectorOutlet { spool: shared.spool.clone(), pipelines });
            plan.connectors.push((connector, outlet));
        }
        let mut authenticators = Authenticators::default();
        for (id, component) in &config.receivers {
            if !config.service.pipelines.iter().any(|pipeline| pipeline.receivers.contains(id)) {
                continue;
            }
            let settings = &component.settings;
            let items = |signal| -> Result<Option<Arc<dyn ItemSink>>, StartError> {
                let pipelines = ways.of_receiver(id, signal)?;
                let intake = ItemIntake { signal, spool: shared.spool.clone(), pipelines };
                Ok((!intake.pipelines.is_empty()).then(|| Arc::new(intake) as _))
            };
            let pipelines = ways.of_receiver(id, Signal::Traces)?;
            let receiver = Arc::new(Receiver {
                name: id.to_string(),
                dialect: settings.dialect(),
                sink: Arc::new(Intake {
                    spool: shared.spool.clone(),
                    pipelines,
                    witness: shared.witness.clone(),
                    red: shared.red.clone(),
                }),
                items: ItemSinks { metrics: items(Signal::Metrics)?, logs: items(Signal::Logs)? },
                other_signals: shared.other_signals.clone(),
                admission: shared.admission.clone(),
                limits: settings.limits(),
                metrics: shared.receive_metrics.clone(),
                witness: shared.witness.clone(),
            });
            for Port { protocol, endpoint, policy } in settings.ports() {
                let policy = Arc::new(authenticators.policy(config, &policy)?);
                let behind = Behind { receiver: Arc::clone(&receiver), policy };
                plan.wanted.push(Wanted { protocol, endpoint, behind });
            }
        }
        plan.pipelines = config
            .service
            .pipelines
            .iter()
            .zip(intakes)
            .map(|(pipeline, intake)| PlannedPipeline {
                name: owned(owner, &pipeline.name),
                signal: pipeline.signal,
                intake,
                exporters: pipeline.exporters.clone(),
            })
            .collect();
        Ok(plan)
    }

    /// Binds the ports of health checks; see [`Probes::plan`].
    pub async fn bind_probes(
        &mut self,
        config: &Config<Components>,
        running: &PipelineSet,
        others_give_way: bool,
    ) -> Result<(), StartError> {
        self.probes = running.probes.plan(config, others_give_way).await?;
        Ok(())
    }

    /// Builds every destination that `running` does not have with the same settings; `is_wanted` may leave some out, by
    /// pipeline and exporter. On an error `running` goes on as before.
    pub async fn build_destinations(
        &mut self,
        shared: &Shared,
        owner: Option<&str>,
        config: &Config<Components>,
        running: &PipelineSet,
        is_wanted: impl Fn(&str, &str) -> bool,
    ) -> Result<(), StartError> {
        let own = spanreel_settings(config);
        for PlannedPipeline { name, signal, intake, exporters } in &self.pipelines {
            let sampling = running.samplings.plan(shared, name, intake).await?;
            for id in exporters {
                let Some(component) = config.exporters.get(id) else { continue };
                let exporter = id.to_string();
                if !is_wanted(name, &exporter) {
                    continue;
                }
                let batch = intake.chain.batch();
                let mut delivery = own.delivery.get(&exporter).cloned().unwrap_or_default();
                if sampling.is_some() && !delivery.resend.is_zero() {
                    // Verdicts go once they are carried out; without them spans that were sampled out would go.
                    tracing::warn!(exporter, pipeline = name, "delivery::resend does not work behind tail_sampling");
                    delivery.resend = Duration::ZERO;
                }
                let authenticator = component.settings.authenticator();
                let client = authenticator.and_then(|id| ClientSettings::find(config, id));
                let known = running.destinations.iter().find(|running| {
                    running.is_of(name, &exporter)
                        && running.settings == component.settings
                        && running.batch.as_ref() == batch
                        && running.delivery == delivery
                        && running.client == client
                        && running.is_sampled == sampling.is_some()
                });
                let built = match known {
                    Some(known) => Ok(PlannedDestination::Kept(known.clone())),
                    None => {
                        let sampling = sampling.as_ref().map(|planned| &planned.sampling);
                        let settings = (&component.settings, delivery, client);
                        new_destination(shared, owner, (name, *signal), (intake, sampling), exporter, settings).await
                    }
                };
                match built {
                    Ok(planned) => self.destinations.push(planned),
                    Err(error) => {
                        self.abandon(running);
                        return Err(error);
                    }
                }
            }
            self.samplings.extend(sampling);
        }
        Ok(())
    }

    /// It is not going to run: cursors that were taken up for it hold nothing back.
    pub fn abandon(&self, running: &PipelineSet) {
        self.samplings.iter().for_each(|planned| planned.abandon(&running.samplings));
        for planned in &self.destinations {
            if let PlannedDestination::New { running: new, .. } = planned
                && !running.destinations.iter().any(|running| running.is_of(&new.pipeline, &new.exporter))
            {
                new.consumer.retire();
            }
        }
    }
}

impl PlannedDestination {
    pub fn is_of(&self, running: &RunningDestination) -> bool {
        let (Self::Kept(planned) | Self::New { running: planned, .. }) = self;
        planned.is_of(&running.pipeline, &running.exporter)
    }
}

/// Opens no connection and moves no cursor.
async fn new_destination(
    shared: &Shared,
    owner: Option<&str>,
    (pipeline, signal): (&str, Signal),
    (intake, sampling): (&PipelineIntake, Option<&Sampling>),
    exporter: String,
    (settings, delivery, client): (&ExporterSettings, DeliverySettings, Option<ClientSettings>),
) -> Result<PlannedDestination, StartError> {
    let consumer = {
        let (spool, exporter, id) = (shared.spool.clone(), exporter.clone(), intake.id);
        tokio::task::spawn_blocking(move || spool.consumer(&exporter, id))
            .await
            .map_err(|error| StartError::Internal(error.to_string()))??
    };
    let log_name = match owner {
        None => exporter.clone(),
        Some(owner) => format!("{owner}/{exporter}"),
    };
    let batch = intake.chain.batch();
    let (metrics, budget) = (&shared.forward_metrics, &shared.forward_budget);
    let credentials = client.clone().map(ClientSettings::credentials);
    let around = Surroundings { signal, batch, delivery: &delivery, credentials, metrics, budget };
    let feed = sampling.map_or_else(|| Feed::from(consumer.clone()), |sampling| sampling.feed(consumer.clone()));
    let built = Destination::build(&log_name, settings, feed, around);
    let destination = built.map_err(|problem| StartError::Exporter { exporter: exporter.clone(), problem })?;
    let running = RunningDestination {
        exporter,
        pipeline: pipeline.to_owned(),
        destination: Arc::new(destination),
        settings: settings.clone(),
        batch: batch.cloned(),
        delivery,
        client,
        is_sampled: sampling.is_some(),
        consumer,
        task: Task::default(),
        leaving: false,
    };
    Ok(PlannedDestination::New { log_name, running })
}

fn owned(owner: Option<&str>, name: &ComponentId) -> String {
    match owner {
        None => name.to_string(),
        Some(owner) => format!("{owner}/{name}"),
    }
}
