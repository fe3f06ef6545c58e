//! Every set of pipelines that runs: the base configuration's, and one per custom resource.

use super::Shared;
use super::archive::Archive;
use super::components::{Components, files_of_the_process};
use super::configuration::Configuration;
use super::doors::{Doors, Listening, Prepared, overlap};
use super::pipelines::{PipelineSet, RunningDestination, StartError, addresses, log_extensions};
use super::plan::Plan;
use crate::cluster::{Applied, PipelineHost, PipelineSource, Refusal};
use crate::config::{self, Config, Files, Input, Loaded, Source};
use crate::spool::ConsumerSnapshot;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
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
    configuration: StdMutex<Arc<Configuration>>,
}

struct Sets {
    doors: Doors,
    base: Option<Base>,
    by_owner: BTreeMap<String, Owned>,
    /// Sets whose custom resource is gone: nothing comes in, but what they spooled is still forwarded.
    draining: BTreeMap<String, PipelineSet>,
    /// Custom resources as last listed; `None`: nobody knows yet who is there.
    listed: Option<BTreeSet<String>>,
    archive: Archive,
}

struct Base {
    addresses: BTreeSet<String>,
    /// The built-in configuration lends its ports to custom resources.
    built_in: bool,
    running: PipelineSet,
}

struct Owned {
    rank: Rank,
    addresses: BTreeSet<String>,
    running: PipelineSet,
}

/// Of two custom resources that want the same port, the lesser has it: the older one, then the first by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    created: i64,
    owner: String,
}

/// A look at what runs.
#[derive(Clone, Default)]
pub(super) struct View {
    pub listeners: Vec<(Option<String>, Listening)>,
    pub destinations: Vec<RunningDestination>,
}

impl Host {
    pub(super) fn new(shared: Shared) -> Self {
        let sets = Sets {
            doors: Doors::default(),
            base: None,
            by_owner: BTreeMap::new(),
            draining: BTreeMap::new(),
            listed: None,
            archive: Archive::open(shared.spool.database().directory()),
        };
        Self { shared, sets: Mutex::new(sets), view: StdMutex::default(), configuration: StdMutex::default() }
    }

    /// Starts the process's own configuration.
    pub(super) async fn start_base(&self, config: Config<Components>, built_in: bool) -> Result<(), StartError> {
        let mut sets = self.sets.lock().await;
        log_extensions(&config);
        let mut running = PipelineSet::default();
        let (plan, prepared) = plan(&self.shared, &sets.doors, None, &config, &running, &BTreeSet::new()).await?;
        sets.doors.carry_out(prepared).await?;
        running.replace(&self.shared, plan).await;
        self.configure(|current| *current = Configuration::of(&config, built_in));
        sets.base = Some(Base { addresses: addresses(&config), built_in, running });
        self.look(&sets);
        Ok(())
    }

    /// Puts another configuration in the place of the process's own. On an error everything runs on as before.
    pub(super) async fn replace_base(&self, config: Config<Components>) -> Result<Vec<String>, StartError> {
        let mut sets = self.sets.lock().await;
        let Some(mut base) = sets.base.take() else { return Ok(Vec::new()) };
        let planned = plan(&self.shared, &sets.doors, None, &config, &base.running, &BTreeSet::new()).await;
        let changed = match planned {
            Ok((plan, prepared)) => match sets.doors.carry_out(prepared).await {
                Ok(()) => Ok(plan),
                Err(error) => {
                    plan.abandon(&base.running);
                    Err(error.into())
                }
            },
            Err(error) => Err(error),
        };
        let result = match changed {
            Ok(plan) => {
                log_extensions(&config);
                self.configure(|current| *current = Configuration::of(&config, current.built_in));
                base.addresses = addresses(&config);
                Ok(base.running.replace(&self.shared, plan).await)
            }
            Err(error) => Err(error),
        };
        sets.base = Some(base);
        self.look(&sets);
        result
    }

    pub(super) async fn stop_listening(&self) {
        let mut sets = self.sets.lock().await;
        sets.doors.stop().await;
        join_all(sets.running_mut().map(PipelineSet::end_connectors)).await;
    }

    pub(super) async fn stop_forwarding(&self) {
        let mut sets = self.sets.lock().await;
        join_all(sets.running_mut().map(PipelineSet::stop)).await;
    }

    pub(super) fn configuration(&self) -> Arc<Configuration> {
        Arc::clone(&self.configuration.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn configure(&self, change: impl FnOnce(&mut Configuration)) {
        change(Arc::make_mut(&mut self.configuration.lock().unwrap_or_else(PoisonError::into_inner)));
    }

    pub(super) fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, sets: &Sets) {
        let listeners = sets.doors.listening().collect();
        let destinations = sets.running().flat_map(|set| set.destinations.iter().cloned()).collect();
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = View { listeners, destinations };
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
            for owned in sets.by_owner.values_mut() {
                owned.running.tidy().await;
            }
            if let Some(base) = &mut sets.base {
                base.running.tidy().await;
            }
            for owner in drained {
                if let Some(set) = sets.draining.remove(&owner) {
                    set.stop_forwarding().await;
                    set.retire();
                    sets.archive.forget(&owner).await;
                    tracing::info!(owner, "everything of a custom resource that is gone has been forwarded");
                }
            }
            self.forget_gone(&sets).await;
            self.look(&sets);
        }
    }

    /// Accounts of pipelines whose custom resource is gone go as soon as nothing of them is left: whoever makes resources of
    /// ever new names must not make the ledger, which every commit writes, grow for ever.
    async fn forget_gone(&self, sets: &Sets) {
        let gone = |owner: &str| {
            !sets.by_owner.contains_key(owner)
                && !sets.draining.contains_key(owner)
                && sets.listed.as_ref().is_some_and(|listed| !listed.contains(owner))
        };
        let snapshot = self.shared.spool.snapshot();
        let names = snapshot.ledger.known().map(|(_, account)| &account.name);
        let names: Vec<String> = names.filter(|name| owner_of(name).is_some_and(gone)).cloned().collect();
        if !names.is_empty()
            && let Err(error) = self.shared.spool.forget(names).await
        {
            tracing::debug!(%error, "accounts of pipelines that are gone stay for now");
        }
    }

    /// Has a configuration run, or changes nothing.
    async fn put(&self, sets: &mut Sets, source: PipelineSource) -> Result<Applied, Vec<String>> {
        let owner = source.owner.clone();
        let rank = Rank { created: source.created, owner: owner.clone() };
        let loaded = load(source.clone())?;
        let wanted = addresses(&loaded.config);
        let displaced = sets.displaced_by(&rank, &wanted).map_err(|line| vec![line])?;

        let nothing = PipelineSet::default();
        let running = sets.by_owner.get(&owner).map(|owned| &owned.running).or_else(|| sets.draining.get(&owner));
        let running = running.unwrap_or(&nothing);
        let planned = plan(&self.shared, &sets.doors, Some(&owner), &loaded.config, running, &displaced).await;
        let (plan, prepared) = planned.map_err(|error| vec![error.to_string()])?;
        if let Err(error) = sets.doors.carry_out(prepared).await {
            let running = sets.by_owner.get(&owner).map(|owned| &owned.running).or_else(|| sets.draining.get(&owner));
            plan.abandon(running.unwrap_or(&nothing));
            return Err(vec![error.to_string()]);
        }
        // From here on nothing can fail.
        for other in &displaced {
            sets.doors.close_all_of(other, &[]).await;
            if let Some(owned) = sets.by_owner.remove(other) {
                tracing::info!(owner = other, by = owner, "pipelines stop: their ports belong to an older resource");
                sets.drain(other, owned.running).await;
            }
        }
        let previous = sets.by_owner.remove(&owner).map(|owned| owned.running);
        let mut running = previous.or_else(|| sets.draining.remove(&owner)).unwrap_or_default();
        let problems = running.replace(&self.shared, plan).await;
        let extensions = running.probe_ports();
        sets.by_owner.insert(owner.clone(), Owned { rank, addresses: wanted, running });
        sets.take_back().await;
        sets.archive.keep(source).await;
        self.look(sets);
        let notes = loaded.notes.iter().map(ToString::to_string);
        Ok(Applied {
            ports: sets.doors.service_ports(&owner),
            extensions,
            warnings: notes.chain(problems).collect(),
            displaced: displaced.into_iter().collect(),
        })
    }

    /// Has what a resource was before a restart run again, if nothing of it runs: an edit that is refused must not be an
    /// outage from the next restart on.
    async fn put_previous(&self, sets: &mut Sets, refused: &PipelineSource) -> Option<Applied> {
        let owner = &refused.owner;
        let previous = sets.archive.get(owner).filter(|previous| previous.created == refused.created).cloned()?;
        if previous == *refused || sets.draining.contains_key(owner) {
            return None;
        }
        let applied = self.put(sets, previous).await.ok()?;
        tracing::info!(owner, "its configuration is refused, so the one from before the restart runs");
        Some(applied)
    }

    /// Forwards what `owner`, which is gone, left in the spool before this process started.
    async fn resume(&self, sets: &mut Sets, owner: &str) {
        let waiting = waiting(&self.shared, owner);
        let Some(source) = sets.archive.get(owner).cloned().filter(|_| !waiting.is_empty()) else {
            sets.archive.forget(owner).await;
            return;
        };
        let drain = async {
            let loaded = load(source).map_err(|lines| lines.join("; "))?;
            let mut running = PipelineSet::default();
            let drawn = Plan::draw(&self.shared, Some(owner), &loaded.config).await;
            let mut plan = drawn.map_err(|error| error.to_string())?;
            let is_wanted = |pipeline: &str, exporter: &str| {
                waiting.iter().any(|it| it.pipeline == pipeline && it.account.destination == exporter)
            };
            plan.build_destinations(&self.shared, Some(owner), &loaded.config, &running, is_wanted)
                .await
                .map_err(|error| error.to_string())?;
            running.replace(&self.shared, plan).await;
            running.stop_intake().await;
            Ok::<_, String>(running)
        };
        let spans: u64 = waiting.iter().map(|waiting| waiting.queued).sum();
        match drain.await {
            Ok(running) => {
                tracing::info!(
                    owner,
                    spans,
                    "a custom resource that is gone left spans that are still to be forwarded"
                );
                let stranded = waiting.iter().filter(|it| !running.forwards(&it.pipeline, &it.account.destination));
                let stranded = stranded.map(|it| it.queued).sum();
                warn_of_stranded(owner, stranded, "no exporter of this name was in its last configuration");
                sets.draining.insert(owner.to_owned(), running);
            }
            Err(error) => warn_of_stranded(owner, spans, &error),
        }
    }
}

impl Sets {
    fn running(&self) -> impl Iterator<Item = &PipelineSet> {
        let base = self.base.iter().map(|base| &base.running);
        base.chain(self.by_owner.values().map(|owned| &owned.running)).chain(self.draining.values())
    }

    fn running_mut(&mut self) -> impl Iterator<Item = &mut PipelineSet> {
        let base = self.base.iter_mut().map(|base| &mut base.running);
        base.chain(self.by_owner.values_mut().map(|owned| &mut owned.running)).chain(self.draining.values_mut())
    }

    /// Who would have to stop for the addresses of `rank`; `Err` says who will not.
    fn displaced_by(&self, rank: &Rank, wanted: &BTreeSet<String>) -> Result<BTreeSet<String>, String> {
        let clash = |theirs: &BTreeSet<String>| {
            let pairs = wanted.iter().flat_map(|mine| theirs.iter().map(move |their| (mine.clone(), their.clone())));
            pairs.into_iter().find(|(mine, their)| overlap(mine, their))
        };
        if let Some(base) = self.base.as_ref().filter(|base| !base.built_in)
            && let Some((mine, _)) = clash(&base.addresses)
        {
            return Err(format!(
                "cannot listen on {mine}: the configuration that Spanreel was started with has this port; change the endpoint"
            ));
        }
        let mut displaced = BTreeSet::new();
        for (other, owned) in self.by_owner.iter().filter(|(other, _)| **other != rank.owner) {
            let Some((mine, theirs)) = clash(&owned.addresses) else { continue };
            if owned.rank < *rank {
                let why = if owned.rank.created < rank.created { "which is older" } else { "which is first by name" };
                return Err(format!(
                    "cannot listen on {mine}: OpenTelemetryCollector {other}, {why}, has {theirs}; change the endpoint of \
                     one of them"
                ));
            }
            displaced.insert(other.clone());
        }
        Ok(displaced)
    }

    /// A set goes on forwarding, and nothing else. Its ports have closed, or are somebody else's.
    async fn drain(&mut self, owner: &str, mut running: PipelineSet) {
        running.stop_intake().await;
        self.draining.insert(owner.to_owned(), running);
    }

    /// Ports of the built-in configuration that nobody needs any more are its own again.
    async fn take_back(&mut self) {
        if let Some(base) = self.base.as_ref().filter(|base| base.built_in) {
            self.doors.take_back(&base.running.wanted).await;
        }
    }
}

/// Everything that can fail, done without disturbing what runs.
async fn plan(
    shared: &Shared,
    doors: &Doors,
    owner: Option<&str>,
    config: &Config<Components>,
    running: &PipelineSet,
    displaced: &BTreeSet<String>,
) -> Result<(Plan, Prepared), StartError> {
    let mut plan = Plan::draw(shared, owner, config).await?;
    // The base's doors are taken over as well: it was checked before that they may be.
    let takes = |holder: Option<&str>| holder.is_none_or(|it| Some(it) == owner || displaced.contains(it));
    let prepared = doors.prepare(owner.map(str::to_owned), plan.wanted.clone(), takes).await?;
    plan.bind_probes(config, running, !displaced.is_empty()).await?;
    plan.build_destinations(shared, owner, config, running, |_, _| true).await?;
    Ok((plan, prepared))
}

fn warn_of_stranded(owner: &str, spans: u64, reason: &str) {
    if spans > 0 {
        tracing::warn!(
            owner,
            spans,
            reason,
            "spans of a custom resource that is gone are not forwarded; they wait for a resource of the same name, or go with \
             the spool's budget"
        );
    }
}

/// The owner in the name of a pipeline, `namespace/name/traces`; the base configuration's have none.
fn owner_of(pipeline: &str) -> Option<&str> {
    let end = pipeline.match_indices('/').nth(1)?.0;
    pipeline.get(..end)
}

/// Destinations in pipelines of `owner` for which spans wait in the spool.
fn waiting(shared: &Shared, owner: &str) -> Vec<ConsumerSnapshot> {
    let prefix = format!("{owner}/");
    let mut waiting = shared.spool.snapshot().consumers;
    waiting.retain(|consumer| consumer.queued > 0 && consumer.pipeline.starts_with(&prefix));
    waiting
}

impl PipelineHost for Host {
    async fn apply(&self, source: PipelineSource) -> Result<Applied, Refusal> {
        let mut sets = self.sets.lock().await;
        let owner = source.owner.clone();
        let reasons = match self.put(&mut sets, source.clone()).await {
            Ok(applied) => return Ok(applied),
            Err(reasons) => reasons,
        };
        let running = match sets.by_owner.get(&owner) {
            Some(owned) => Some(Applied {
                ports: sets.doors.service_ports(&owner),
                extensions: owned.running.probe_ports(),
                ..Applied::default()
            }),
            None => self.put_previous(&mut sets, &source).await,
        };
        Err(Refusal { reasons, running })
    }

    async fn remarks(&self) -> BTreeMap<String, Vec<String>> {
        let mut remarks: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for waiting in self.shared.spool.snapshot().consumers {
            let Some(owner) = owner_of(&waiting.pipeline).filter(|_| !waiting.active && waiting.queued > 0) else {
                continue;
            };
            remarks.entry(owner.to_owned()).or_default().push(format!(
                "{} spans wait in pipeline {} for exporter {}, which no running configuration has; configure it again to have \
                 them sent, otherwise they go with the spool's budget",
                waiting.queued, waiting.pipeline, waiting.account.destination
            ));
        }
        remarks
    }

    async fn remove(&self, owner: &str) {
        let mut sets = self.sets.lock().await;
        if let Some(listed) = &mut sets.listed {
            listed.remove(owner);
        }
        match sets.by_owner.remove(owner) {
            Some(owned) => {
                let heirs = sets.base.iter().filter(|base| base.built_in).flat_map(|base| base.running.wanted.clone());
                let heirs: Vec<_> = heirs.collect();
                sets.doors.close_all_of(owner, &heirs).await;
                let spans = owned.running.backlog_spans();
                if spans > 0 {
                    tracing::warn!(
                        owner,
                        spans,
                        "a custom resource went before all its spans were forwarded; they are being sent, also after a restart"
                    );
                }
                sets.drain(owner, owned.running).await;
            }
            // It could not run, but its predecessor may have left something.
            None if !sets.draining.contains_key(owner) => self.resume(&mut sets, owner).await,
            None => {}
        }
        sets.take_back().await;
        self.look(&sets);
    }

    async fn listed(&self, owners: &BTreeSet<String>) {
        let mut sets = self.sets.lock().await;
        sets.listed = Some(owners.clone());
        let known = |sets: &Sets, owner: &String| {
            owners.contains(owner) || sets.by_owner.contains_key(owner) || sets.draining.contains_key(owner)
        };
        for owner in sets.archive.owners() {
            if !known(&sets, &owner) {
                self.resume(&mut sets, &owner).await;
            }
        }
        let mut stranded: BTreeMap<String, u64> = BTreeMap::new();
        for consumer in self.shared.spool.snapshot().consumers {
            let owner = owner_of(&consumer.pipeline).filter(|_| !consumer.active).map(str::to_owned);
            if let Some(owner) = owner.filter(|owner| !known(&sets, owner) && sets.archive.get(owner).is_none()) {
                *stranded.entry(owner).or_default() += consumer.queued;
            }
        }
        for (owner, spans) in stranded {
            warn_of_stranded(&owner, spans, "its configuration is not known");
        }
        self.look(&sets);
    }
}

fn load(source: PipelineSource) -> Result<Loaded<Components>, Vec<String>> {
    let mut sources = vec![Source::Text { name: source.owner.clone(), text: source.config }];
    if !source.defaults.is_empty() {
        sources.push(Source::Text { name: format!("{} (defaults)", source.owner), text: source.defaults });
    }
    let env = |name: &str| source.env.get(name).cloned();
    let input = Input { sources: &sources, sets: &[], env: &env, files: Files::Refused };
    let loaded: Loaded<Components> = config::load(&input).map_err(|diagnostics| diagnostics.lines())?;
    // Whoever may write a custom resource must not read or write what the process can.
    let refused = files_of_the_process(&loaded.config);
    if refused.is_empty() { Ok(loaded) } else { Err(refused) }
}
