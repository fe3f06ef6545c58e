//! OpenTelemetryCollector resources become pipelines of this process.
//!
//! One task keeps the wanted resources as the watch last saw them and works off those that changed, one at a time: hand
//! the configuration to the [`PipelineHost`], apply Services, write the status. What failed is tried again. Services of
//! what does not run lead nowhere: its ports are closed, or somebody else's.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::resources::CollectorBoard;
use super::retry::{STEP_TIMEOUT, State, is_expiry};
use super::status::Ready;
use super::{Applied, PipelineHost, PipelineSource, Refusal, services, sidecar, status};
use source::source;

/// The oldest ones are run, the others' status says so: each has listeners and pipelines of its own.
pub(super) const COLLECTORS_MAX: usize = 256;
/// Names of resources that get a status and are not run, some hundred bytes each; beyond, only the log speaks of them.
const ASIDE_MAX: usize = 20_000;
/// What failed is tried again after this long; a port may be free by then.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Services and status are repaired this often, should somebody have changed them.
const REPAIR_INTERVAL: Duration = Duration::from_secs(600);

/// Runs what the resources say, until shutdown.
pub(super) struct Collectors<H> {
    pub(super) client: Client,
    pub(super) resource: ApiResource,
    pub(super) host: Arc<H>,
    pub(super) pod_address: Option<IpAddr>,
    /// How many are run at once.
    pub(super) most: usize,
    /// What is to be run: at most `most`.
    pub(super) wanted: BTreeMap<String, DynamicObject>,
    /// What gets nothing but a status, by name: it is read when it is due.
    pub(super) aside: BTreeMap<String, Aside>,
    pub(super) running: BTreeMap<String, Running>,
    pub(super) dirty: BTreeSet<String>,
    /// What Services of what was refused were last made for; `None`: they lead nowhere.
    pub(super) served: BTreeMap<String, Option<Applied>>,
    /// What the host last remarked on each.
    pub(super) remarks: BTreeMap<String, Vec<String>>,
    /// For what a resource's author should see although its status is not where they look.
    pub(super) events: Events,
    /// A whole list came; the host has still to be told who is there.
    pub(super) listed: bool,
    /// What became of each, for whoever looks.
    pub(super) board: CollectorBoard,
}

/// What the host was last asked for, and what it said.
#[derive(Debug, Clone)]
pub(super) struct Running {
    source: PipelineSource,
    result: Result<Applied, Refusal>,
}

/// Why a resource is not run although its author wants it to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aside {
    Sidecar,
    /// There are enough older ones. Unix seconds.
    Waiting {
        created: i64,
    },
}

/// A resource's changes could not be carried out; they are tried again.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error("{0}")]
    Api(#[from] Box<kube::Error>),
    #[error("no answer within 45 s")]
    Timeout,
    #[error("the configuration was refused; its status says why")]
    Refused,
    #[error("Services of a deleted resource of the same name are still there")]
    Going,
    #[error("shutting down")]
    Shutdown,
}

/// A call to the API server, bounded. The host's own work is never cut off half-way.
async fn bounded<T>(
    shutdown: &CancellationToken,
    call: impl Future<Output = Result<T, Box<kube::Error>>>,
) -> Result<T, ReconcileError> {
    match shutdown.run_until_cancelled(tokio::time::timeout(STEP_TIMEOUT, call)).await {
        None => Err(ReconcileError::Shutdown),
        Some(Err(_)) => Err(ReconcileError::Timeout),
        Some(Ok(result)) => Ok(result?),
    }
}

impl<H: PipelineHost> Collectors<H> {
    pub(super) fn new(
        client: Client,
        resource: ApiResource,
        host: Arc<H>,
        pod_address: Option<IpAddr>,
        most: usize,
        events: Events,
    ) -> Self {
        Self {
            client,
            resource,
            host,
            pod_address,
            most,
            wanted: BTreeMap::new(),
            aside: BTreeMap::new(),
            running: BTreeMap::new(),
            dirty: BTreeSet::new(),
            served: BTreeMap::new(),
            remarks: BTreeMap::new(),
            events,
            listed: false,
            board: CollectorBoard::default(),
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &self.resource);
        let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
        let mut watch_state = State::new("watching OpenTelemetryCollectors");
        let mut retry = tokio::time::interval(RETRY_INTERVAL);
        let mut repair = tokio::time::interval(REPAIR_INTERVAL);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut relist: Option<BTreeSet<String>> = None;
        // With what was last said about each, so that the log has a line per change and not per attempt.
        let mut failed: BTreeMap<String, String> = BTreeMap::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        watch_state.ok();
                        self.take(event, &mut relist);
                    }
                    Some(Err(error)) if is_expiry(&error) => {}
                    Some(Err(error)) => watch_state.failed(&error),
                    None => return,
                },
                _ = retry.tick() => {
                    self.dirty.extend(failed.keys().cloned());
                    self.note_remarks().await;
                }
                _ = repair.tick() => {
                    self.served.clear();
                    self.dirty.extend(self.wanted.keys().cloned());
                }
            }
            self.fill();
            // A list counts only when it is whole.
            if relist.is_none() && std::mem::take(&mut self.listed) {
                self.host.listed(&self.wanted.keys().cloned().collect()).await;
            }
            while relist.is_none()
                && let Some(owner) = self.next_dirty()
            {
                match self.reconcile(&owner, &shutdown).await {
                    Ok(()) => {
                        failed.remove(&owner);
                    }
                    Err(ReconcileError::Shutdown) => return,
                    Err(error) => {
                        let text = error.to_string();
                        // A refusal was logged with its reasons.
                        if failed.get(&owner) != Some(&text) && !matches!(error, ReconcileError::Refused) {
                            tracing::warn!(collector = %owner, %error, "not carried out; tried again every 10 s");
                        }
                        failed.insert(owner, text);
                    }
                }
            }
        }
    }

    fn take(&mut self, event: Event<DynamicObject>, relist: &mut Option<BTreeSet<String>>) {
        match event {
            Event::Init => *relist = Some(BTreeSet::new()),
            Event::InitApply(object) => {
                let owner = owner_name(&object);
                if let Some(listed) = relist {
                    listed.insert(owner.clone());
                }
                self.want(owner, object);
            }
            Event::InitDone => {
                self.listed = true;
                if let Some(listed) = relist.take() {
                    self.aside.retain(|owner, _| listed.contains(owner));
                    let gone: Vec<String> =
                        self.wanted.keys().filter(|owner| !listed.contains(*owner)).cloned().collect();
                    for owner in gone {
                        self.wanted.remove(&owner);
                        self.dirty.insert(owner);
                    }
                }
            }
            Event::Apply(object) => self.want(owner_name(&object), object),
            Event::Delete(object) => {
                let owner = owner_name(&object);
                self.wanted.remove(&owner);
                self.aside.remove(&owner);
                self.dirty.insert(owner);
            }
        }
    }

    fn want(&mut self, owner: String, object: DynamicObject) {
        self.dirty.insert(owner.clone());
        self.wanted.remove(&owner);
        self.aside.remove(&owner);
        if !is_runnable(&object) {
            return;
        }
        if mode(&object) == "sidecar" {
            return self.put_aside(owner, Aside::Sidecar);
        }
        self.wanted.insert(owner, object);
        if self.wanted.len() > self.most {
            // The oldest stay, in whatever order they are listed.
            let rank = |(owner, object): &(&String, &DynamicObject)| (created(object), (*owner).clone());
            let Some((youngest, created)) =
                self.wanted.iter().max_by_key(rank).map(|(owner, object)| (owner.clone(), created(object)))
            else {
                return;
            };
            self.wanted.remove(&youngest);
            self.dirty.insert(youngest.clone());
            self.put_aside(youngest, Aside::Waiting { created });
        }
    }

    fn put_aside(&mut self, owner: String, why: Aside) {
        if self.aside.len() < ASIDE_MAX {
            self.aside.insert(owner, why);
        } else {
            tracing::warn!(collector = %owner, "neither run nor told why: there are too many OpenTelemetryCollectors");
        }
    }

    /// Places that have become free are for the oldest who wait.
    fn fill(&mut self) {
        let free = self.most.saturating_sub(self.wanted.len());
        if free == 0 {
            return;
        }
        let waiting = self.aside.iter().filter_map(|(owner, why)| match why {
            Aside::Waiting { created } => Some((*created, owner)),
            Aside::Sidecar => None,
        });
        let mut waiting: Vec<(i64, &String)> = waiting.collect();
        waiting.sort_unstable();
        self.dirty.extend(waiting.into_iter().take(free).map(|(_, owner)| owner.clone()));
    }

    /// What the host remarks changes by itself; whose remarks are others than before is due.
    async fn note_remarks(&mut self) {
        let now = self.host.remarks().await;
        let differs = |owner: &&String| self.remarks.get(*owner) != now.get(*owner);
        let changed: Vec<String> = self.running.keys().filter(differs).cloned().collect();
        self.dirty.extend(changed);
        self.remarks = now;
    }

    /// What goes comes first, because it frees ports; then the oldest resource, which has a right to its ports; then what
    /// is not run.
    fn next_dirty(&mut self) -> Option<String> {
        let rank = |owner: &String| match self.wanted.get(owner) {
            None if self.running.contains_key(owner) => (0, 0, owner.clone()),
            Some(object) => (1, created(object), owner.clone()),
            None => (2, 0, owner.clone()),
        };
        let next = self.dirty.iter().min_by_key(|owner| rank(owner)).cloned()?;
        self.dirty.remove(&next);
        Some(next)
    }

    /// Something else changed, so what was refused may be possible now.
    fn retry_refused(&mut self) {
        let refused = self.running.iter().filter(|(_, running)| running.result.is_err());
        self.dirty.extend(refused.map(|(owner, _)| owner.clone()));
    }

    async fn stop(&mut self, owner: &str) {
        if self.running.remove(owner).is_some() {
            tracing::info!(collector = owner, "no longer run");
            self.host.remove(owner).await;
            self.retry_refused();
        }
    }

    async fn reconcile(&mut self, owner: &str, shutdown: &CancellationToken) -> Result<(), ReconcileError> {
        let Some(object) = self.wanted.get(owner).cloned() else {
            self.stop(owner).await;
            return self.leave(owner, shutdown).await;
        };
        let (source, mut notes) = source(owner, &object);
        let known = self.running.get(owner).filter(|running| running.source == source && running.result.is_ok());
        let result = match known {
            Some(running) => running.result.clone(),
            None => {
                let result = self.host.apply(source.clone()).await;
                self.log(owner, &source, &result);
                let applied = result.as_ref().map_or_else(|refusal| refusal.running.as_ref(), Some);
                let displaced = applied.map(|applied| applied.displaced.clone()).unwrap_or_default();
                if result.is_ok() {
                    self.retry_refused();
                }
                for displaced in displaced {
                    // Asked again it is told why, and so is its author.
                    self.running.remove(&displaced);
                    self.dirty.insert(displaced);
                }
                self.note_remarks().await;
                result
            }
        };
        self.running.insert(owner.to_owned(), Running { source, result: result.clone() });
        notes.extend(self.remarks.get(owner).into_iter().flatten().cloned());
        match result {
            Ok(applied) => {
                let missing = bounded(shutdown, self.serve(&object, Some(&applied))).await?;
                self.served.remove(owner);
                notes.extend(missing.notes);
                let ready = running(&applied, notes);
                self.board.note(owner, &ready, Some(&applied));
                bounded(shutdown, status::write(&self.client, &self.resource, &object, &ready)).await?;
                if missing.going { Err(ReconcileError::Going) } else { Ok(()) }
            }
            Err(refusal) => {
                if self.served.get(owner) != Some(&refusal.running) {
                    bounded(shutdown, self.serve(&object, refusal.running.as_ref())).await?;
                    self.served.insert(owner.to_owned(), refusal.running.clone());
                }
                let ready = refused(&refusal, notes);
                self.board.note(owner, &ready, refusal.running.as_ref());
                bounded(shutdown, status::write(&self.client, &self.resource, &object, &ready)).await?;
                Err(ReconcileError::Refused)
            }
        }
    }

    /// What is not run, or is gone: its Services lead nowhere, and its status says why if that is Spanreel's doing.
    async fn leave(&mut self, owner: &str, shutdown: &CancellationToken) -> Result<(), ReconcileError> {
        self.served.remove(owner);
        let (namespace, name) = owner.split_once('/').unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &self.resource);
        let read = async { api.get_opt(name).await.map_err(Box::new) };
        let object = bounded(shutdown, read).await?.filter(|object| object.metadata.deletion_timestamp.is_none());
        let Some(object) = object else {
            self.aside.remove(owner);
            self.board.forget(owner);
            return Ok(());
        };
        let ready = match self.aside.get(owner) {
            None => None,
            Some(Aside::Waiting { .. }) if self.wanted.len() < self.most => {
                self.want(owner.to_owned(), object);
                return Ok(());
            }
            Some(Aside::Waiting { .. }) => {
                Some(Ready { ready: false, reason: "TooManyCollectors", message: self.too_many() })
            }
            Some(Aside::Sidecar) => {
                Some(Ready { ready: false, reason: sidecar::REASON, message: sidecar::remedy(&object) })
            }
        };
        match &ready {
            Some(ready) => self.board.note(owner, ready, None),
            None => self.board.forget(owner),
        }
        bounded(shutdown, self.serve(&object, None)).await?;
        let Some(ready) = ready else { return Ok(()) };
        let news = bounded(shutdown, status::write(&self.client, &self.resource, &object, &ready)).await?;
        if news && ready.reason == sidecar::REASON {
            self.events.publish(sidecar::mode_refused(&object));
        }
        Ok(())
    }

    /// Services lead to what runs, or nowhere if nothing does.
    async fn serve(
        &self,
        object: &DynamicObject,
        running: Option<&Applied>,
    ) -> Result<services::Missing, Box<kube::Error>> {
        let owner = services::Owner { object };
        match running {
            Some(applied) => services::apply(&self.client, owner, applied, self.pod_address).await,
            None => services::withdraw(&self.client, owner).await.map(|()| services::Missing::default()),
        }
    }

    fn too_many(&self) -> String {
        format!(
            "not run: Spanreel runs the {} oldest OpenTelemetryCollectors, and there are more. It is run as soon as one of \
             those goes; or put its receivers and pipelines into one of them",
            self.most
        )
    }

    /// Says what the host made of it, unless it said the same about the same before.
    fn log(&self, owner: &str, source: &PipelineSource, result: &Result<Applied, Refusal>) {
        let before = self.running.get(owner).filter(|running| running.source == *source);
        match result {
            Ok(applied) => {
                tracing::info!(collector = owner, ports = ?applied.ports.iter().map(|p| p.port).collect::<Vec<_>>(), "pipelines run")
            }
            Err(refusal) if before.is_none_or(|running| running.result.as_ref().err() != Some(refusal)) => {
                let previous = refusal.running.is_some();
                tracing::warn!(collector = owner, reasons = %refusal.reasons.join("; "), previous, "configuration refused");
            }
            Err(_) => {}
        }
    }
}

fn running(applied: &Applied, notes: Vec<String>) -> Ready {
    let mut lines = vec![format!("runs inside Spanreel; {}", listens(applied))];
    lines.extend(applied.warnings.iter().cloned());
    lines.extend(notes);
    Ready { ready: true, reason: "Running", message: lines.join("\n") }
}

fn refused(refusal: &Refusal, notes: Vec<String>) -> Ready {
    let mut lines = vec![match &refusal.running {
        Some(applied) => format!("its previous configuration goes on ({}), this one is refused:", listens(applied)),
        None => "nothing of it runs, its configuration is refused:".to_owned(),
    }];
    lines.extend(refusal.reasons.iter().cloned());
    lines.extend(notes);
    Ready { ready: false, reason: "ConfigurationRefused", message: lines.join("\n") }
}

fn listens(applied: &Applied) -> String {
    let ports: Vec<String> = applied.ports.iter().map(|port| format!("{} {}", port.name, port.port)).collect();
    if ports.is_empty() { "listens nowhere".to_owned() } else { format!("listens on {}", ports.join(", ")) }
}

fn owner_name(object: &DynamicObject) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether it is there to stay and Spanreel's to run.
fn is_runnable(object: &DynamicObject) -> bool {
    let is_managed = object.data.pointer("/spec/managementState").and_then(Value::as_str) != Some("unmanaged");
    is_managed && object.metadata.deletion_timestamp.is_none()
}

/// Unix seconds.
fn created(object: &DynamicObject) -> i64 {
    object.creation_timestamp().map_or(0, |time| time.0.as_second())
}

fn mode(object: &DynamicObject) -> &str {
    object.data.pointer("/spec/mode").and_then(Value::as_str).unwrap_or("deployment")
}
