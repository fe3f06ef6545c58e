//! Every set of pipelines that runs: the base configuration's, and one per custom resource.

use super::Shared;
use super::components::Components;
use super::pipelines::{PipelineSet, StartError, ports, probe};
use crate::cluster::{Applied, PipelineHost, PipelineSource};
use crate::config::{self, Config, Files, Input, Loaded, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether deleted custom resources have been forwarded.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

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
    /// The built-in configuration lends its ports to custom resources.
    built_in: bool,
    running: PipelineSet,
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
        sets.base = Some(Base { config, built_in, running });
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

    /// Lends the built-in configuration's ports that `config` wants to it; the others stay open.
    async fn make_way(&self, sets: &mut Sets, owner: &str, config: &Config<Components>) {
        let Some(base) = sets.base.as_mut().filter(|base| base.built_in) else { return };
        let wanted = &ports(&base.config) & &ports(config);
        if base.running.release(&wanted).await {
            tracing::info!(owner, ports = ?wanted, "the built-in pipeline lends ports to a custom resource");
        }
    }

    /// The built-in configuration listens again where no custom resource does.
    async fn take_back(&self, sets: &mut Sets) {
        let taken: BTreeSet<u16> = sets.by_owner.values().flat_map(|owned| ports(&owned.config)).collect();
        if let Some(base) = sets.base.as_mut().filter(|base| base.built_in) {
            base.running.retake(&taken).await;
        }
    }

    /// Lets go of sets that have forwarded everything since their custom resource went. Until `shutdown`.
    pub(super) async fn tidy(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(TIDY_INTERVAL) => {}
            }
            let mut sets = self.sets.lock().await;
            let drained: Vec<String> =
                sets.draining.iter().filter(|(_, set)| set.is_drained()).map(|(owner, _)| owner.clone()).collect();
            for owner in drained {
                if let Some(set) = sets.draining.remove(&owner) {
                    set.stop_forwarding().await;
                    tracing::info!(owner, "everything of a deleted custom resource has been forwarded");
                }
            }
            self.look(&sets);
        }
    }
}

impl Sets {
    fn running(&self) -> impl Iterator<Item = (Option<&str>, &PipelineSet)> {
        let base = self.base.iter().map(|base| (None, &base.running));
        base.chain(self.by_owner.iter().map(|(owner, owned)| (Some(owner.as_str()), &owned.running)))
            .chain(self.draining.iter().map(|(owner, set)| (Some(owner.as_str()), set)))
    }
}

impl PipelineHost for Host {
    async fn apply(&self, source: PipelineSource) -> Result<Applied, Vec<String>> {
        let owner = source.owner.clone();
        let loaded = load(source)?;
        let mut sets = self.sets.lock().await;
        // Ports that this change can free itself; any other must be free already, or nothing is touched.
        let own = sets.by_owner.get(&owner).map(|owned| ports(&owned.config)).unwrap_or_default();
        let lent = sets.base.as_ref().filter(|base| base.built_in).map(|base| {
            let taken =
                sets.by_owner.iter().filter(|(other, _)| **other != owner).flat_map(|(_, owned)| ports(&owned.config));
            &ports(&base.config) - &taken.collect()
        });
        probe(&loaded.config, &(&own | &lent.unwrap_or_default())).await.map_err(|error| vec![error.to_string()])?;
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
            let spans = owned.running.backlog_spans();
            if spans > 0 {
                tracing::warn!(
                    owner,
                    spans,
                    "a custom resource was deleted before all its spans were forwarded; they are sent while this process \
                     runs, and wait in the spool for a resource of the same name after a restart"
                );
            }
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
