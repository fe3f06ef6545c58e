//! Every set of pipelines that runs: the base configuration's, and one per custom resource.

use super::Shared;
use super::components::Components;
use super::pipelines::{PipelineSet, StartError};
use crate::cluster::{Applied, PipelineHost, PipelineSource};
use crate::config::{self, Config, Files, Input, Loaded, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex as StdMutex, PoisonError};
use tokio::sync::Mutex;

/// Starts, replaces and stops sets of pipelines, one change at a time.
pub struct Host {
    shared: Shared,
    sets: Mutex<Sets>,
    /// What runs, for status: kept apart so that nobody waits for a change to finish.
    view: StdMutex<View>,
}

#[derive(Default)]
struct Sets {
    base: Option<Base>,
    by_owner: BTreeMap<String, Owned>,
    /// Sets whose custom resource is gone: no listeners, but what they spooled is still forwarded.
    draining: BTreeMap<String, PipelineSet>,
}

struct Base {
    config: Config<Components>,
    built_in: bool,
    /// `None` while a custom resource holds the built-in configuration's ports.
    running: Option<PipelineSet>,
}

struct Owned {
    config: Config<Components>,
    running: PipelineSet,
}

/// A look at what runs.
#[derive(Clone, Default)]
pub(super) struct View {
    pub listeners: Vec<(Option<String>, super::pipelines::Listening)>,
    pub destinations: Vec<super::pipelines::RunningDestination>,
}

impl Host {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared, sets: Mutex::default(), view: StdMutex::default() }
    }

    /// Starts the process's own configuration.
    pub(super) async fn start_base(&self, config: Config<Components>, built_in: bool) -> Result<(), StartError> {
        let mut sets = self.sets.lock().await;
        let running = PipelineSet::start(&self.shared, None, &config).await?;
        sets.base = Some(Base { config, built_in, running: Some(running) });
        self.look(&sets);
        Ok(())
    }

    pub(super) async fn stop_listening(&self) {
        let sets = self.sets.lock().await;
        futures_util::future::join_all(sets.running().map(|(_, set)| set.stop_listening())).await;
    }

    pub(super) async fn stop_forwarding(&self) {
        let sets = self.sets.lock().await;
        futures_util::future::join_all(sets.running().map(|(_, set)| set.stop_forwarding())).await;
    }

    pub(super) fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, sets: &Sets) {
        let mut view = View::default();
        for (owner, set) in sets.running() {
            view.listeners.extend(set.listeners.iter().map(|listening| (owner.map(str::to_owned), listening.clone())));
            view.destinations.extend(set.destinations.iter().cloned());
        }
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// Frees the built-in configuration's ports for `config`, if it wants one of them.
    async fn make_way(&self, sets: &mut Sets, owner: &str, config: &Config<Components>) {
        let Some(base) = sets.base.as_mut().filter(|base| base.built_in) else { return };
        if ports(&base.config).is_disjoint(&ports(config)) {
            return;
        }
        if let Some(running) = base.running.take() {
            tracing::info!(owner, "the built-in pipeline gives its ports to a custom resource");
            running.stop_listening().await;
            running.stop_forwarding().await;
        }
    }

    /// Starts the built-in configuration again once nobody holds its ports.
    async fn take_back(&self, sets: &mut Sets) {
        let taken: BTreeSet<u16> = sets.by_owner.values().flat_map(|owned| ports(&owned.config)).collect();
        let Some(base) = sets.base.as_mut().filter(|base| base.running.is_none()) else { return };
        if !ports(&base.config).is_disjoint(&taken) {
            return;
        }
        match PipelineSet::start(&self.shared, None, &base.config).await {
            Ok(running) => base.running = Some(running),
            Err(error) => tracing::error!(%error, "the built-in pipeline could not take its ports back"),
        }
    }
}

impl Sets {
    fn running(&self) -> impl Iterator<Item = (Option<&str>, &PipelineSet)> {
        let base = self.base.iter().filter_map(|base| Some((None, base.running.as_ref()?)));
        base.chain(self.by_owner.iter().map(|(owner, owned)| (Some(owner.as_str()), &owned.running)))
            .chain(self.draining.iter().map(|(owner, set)| (Some(owner.as_str()), set)))
    }
}

impl PipelineHost for Host {
    async fn apply(&self, source: PipelineSource) -> Result<Applied, Vec<String>> {
        let owner = source.owner.clone();
        let loaded = load(source)?;
        let mut sets = self.sets.lock().await;
        let previous = sets.by_owner.remove(&owner);
        if let Some(draining) = sets.draining.remove(&owner) {
            draining.stop_forwarding().await;
        }
        if let Some(previous) = &previous {
            // The same ports are bound again in a moment; connections that were open are told to come again.
            previous.running.stop_listening().await;
            previous.running.stop_forwarding().await;
            previous.running.retire();
        }
        self.make_way(&mut sets, &owner, &loaded.config).await;
        let result = match PipelineSet::start(&self.shared, Some(&owner), &loaded.config).await {
            Ok(running) => {
                let ports = running.service_ports();
                sets.by_owner.insert(owner, Owned { config: loaded.config, running });
                Ok(Applied { ports, warnings: loaded.notes.iter().map(ToString::to_string).collect() })
            }
            Err(error) => {
                if let Some(previous) = previous {
                    match PipelineSet::start(&self.shared, Some(&owner), &previous.config).await {
                        Ok(running) => {
                            sets.by_owner.insert(owner, Owned { config: previous.config, running });
                        }
                        Err(error) => {
                            tracing::error!(owner, %error, "the previous pipeline could not be started again")
                        }
                    }
                }
                self.take_back(&mut sets).await;
                Err(vec![error.to_string()])
            }
        };
        self.look(&sets);
        result
    }

    async fn remove(&self, owner: &str) {
        let mut sets = self.sets.lock().await;
        if let Some(mut owned) = sets.by_owner.remove(owner) {
            owned.running.stop_listening().await;
            owned.running.retire();
            owned.running.listeners.clear();
            sets.draining.insert(owner.to_owned(), owned.running);
        }
        self.take_back(&mut sets).await;
        self.look(&sets);
    }
}

fn load(source: PipelineSource) -> Result<Loaded<Components>, Vec<String>> {
    let text = Source::Text { name: source.owner, text: source.config };
    let env = |name: &str| source.env.get(name).cloned();
    let input = Input { sources: &[text], sets: &[], env: &env, files: Files::Refused };
    config::load(&input).map_err(|diagnostics| diagnostics.lines())
}

/// The ports that a configuration's used receivers listen on.
fn ports(config: &Config<Components>) -> BTreeSet<u16> {
    use crate::receive::settings::ReceiverSettings;
    let used: BTreeSet<_> = config.service.pipelines.iter().flat_map(|pipeline| &pipeline.receivers).collect();
    let mut ports = BTreeSet::new();
    for (_, component) in config.receivers.iter().filter(|(id, _)| used.contains(id)) {
        let ReceiverSettings::Otlp(settings) = &component.settings;
        let endpoints =
            [settings.grpc.as_ref().map(|grpc| &grpc.endpoint), settings.http.as_ref().map(|http| &http.endpoint)];
        ports.extend(
            endpoints.into_iter().flatten().filter_map(|endpoint| endpoint.rsplit(':').next()?.parse::<u16>().ok()),
        );
    }
    ports.remove(&0);
    ports
}
