//! The small servers of extensions: health checks, and pages for people.

use super::Shared;
use super::components::{Components, ExtensionSettings};
use super::doors::overlap;
use super::health_check;
use super::health_check::settings::HealthCheckSettings;
use super::http_server::{self, HttpServer};
use super::pipelines::{StartError, Task};
use super::zpages::Pages;
use crate::cluster::ListenerPort;
use crate::config::Config;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What one of them is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ProbeSettings {
    HealthCheck(HealthCheckSettings),
    Pages(Pages),
}

impl ProbeSettings {
    pub fn endpoint(&self) -> &str {
        match self {
            Self::HealthCheck(settings) => &settings.endpoint,
            Self::Pages(pages) => &pages.settings.endpoint,
        }
    }

    fn router(&self, shared: &Shared) -> axum::Router {
        match self {
            Self::HealthCheck(settings) => health_check::router(settings.clone(), shared.readiness.clone()),
            Self::Pages(pages) => pages.router(),
        }
    }
}

/// One of them at work.
struct Probe {
    settings: ProbeSettings,
    task: Task,
}

/// All that are at work.
#[derive(Default)]
pub(super) struct Probes {
    running: Vec<Probe>,
}

/// One that is going to be at work.
pub(super) enum PlannedProbe {
    Bound(ProbeSettings, HttpServer),
    /// It runs already, or its port is free only once something else has stopped.
    Later(ProbeSettings),
}

impl Probes {
    /// Binds the ports that a configuration wants. One that is in use here is left for later, and so is one that cannot be
    /// had while others are still to give way.
    pub async fn plan(
        &self,
        config: &Config<Components>,
        others_give_way: bool,
    ) -> Result<Vec<PlannedProbe>, StartError> {
        let mut planned = Vec::new();
        for settings in settings(config) {
            let same_port = |probe: &Probe| overlap(probe.settings.endpoint(), settings.endpoint());
            planned.push(if self.running.iter().any(same_port) {
                PlannedProbe::Later(settings)
            } else {
                match http_server::bind(settings.endpoint()).await {
                    Ok(server) => PlannedProbe::Bound(settings, server),
                    Err(_) if others_give_way => PlannedProbe::Later(settings),
                    Err(error) => return Err(error),
                }
            });
        }
        Ok(planned)
    }

    /// Puts what is planned in the place of what runs, under `parent` and on `tasks`; what is the same in both goes on.
    /// Returns what could not be had, in words for a status.
    pub async fn replace(
        &mut self,
        shared: &Shared,
        planned: Vec<PlannedProbe>,
        parent: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let wanted = |probe: &Probe| {
            planned
                .iter()
                .any(|planned| matches!(planned, PlannedProbe::Later(settings) if *settings == probe.settings))
        };
        let (kept, stopped): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running).into_iter().partition(wanted);
        join_all(stopped.iter().map(|probe| probe.task.stop())).await;
        self.running = kept;
        for planned in planned {
            let (settings, server) = match planned {
                PlannedProbe::Later(settings) if self.running.iter().any(|probe| probe.settings == settings) => {
                    continue;
                }
                PlannedProbe::Later(settings) => match http_server::bind(settings.endpoint()).await {
                    Ok(server) => (settings, server),
                    Err(error) => {
                        problems.push(format!("a health check or a page does not answer: {error}"));
                        continue;
                    }
                },
                PlannedProbe::Bound(settings, server) => (settings, server),
            };
            let task = Task::child_of(parent);
            let router = settings.router(shared);
            self.running.push(Probe { settings, task: task.clone() });
            // It answers until the listeners have drained, so that a stopping process is seen to be stopping.
            tasks.spawn(async move {
                server.serve(router, task.stop).await;
                task.ended.cancel();
            });
        }
        problems
    }

    pub async fn stop(&mut self) {
        let running = std::mem::take(&mut self.running);
        join_all(running.iter().map(|probe| probe.task.stop())).await;
    }

    /// Ports of health checks, as Services name them.
    pub fn ports(&self) -> Vec<ListenerPort> {
        let port = |probe: &Probe| match &probe.settings {
            ProbeSettings::HealthCheck(settings) => settings.endpoint.rsplit(':').next()?.parse().ok(),
            ProbeSettings::Pages(_) => None,
        };
        let named = |port| ListenerPort {
            name: "health-check".to_owned(),
            port,
            udp: false,
            app_protocol: Some("http".to_owned()),
        };
        self.running.iter().filter_map(port).map(named).collect()
    }
}

/// What a configuration wants.
pub(super) fn settings(config: &Config<Components>) -> impl Iterator<Item = ProbeSettings> {
    config.service.extensions.iter().filter_map(|id| match &config.extensions.get(id)?.settings {
        ExtensionSettings::HealthCheck(settings) => Some(ProbeSettings::HealthCheck(settings.clone())),
        ExtensionSettings::ZPages(settings) => Some(ProbeSettings::Pages(Pages::new(settings, config))),
        _ => None,
    })
}
