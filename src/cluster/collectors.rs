//! OpenTelemetryCollector resources become pipelines of this process.
//!
//! One task keeps the wanted resources as the watch last saw them and works off those that changed, one at a time: hand
//! the configuration to the [`PipelineHost`], apply Services, write the status. What failed is tried again.

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
use super::retry::{STEP_TIMEOUT, State, is_expiry};
use super::status::Ready;
use super::{Applied, PipelineHost, PipelineSource, collector, defaults, ignored, services, sidecar, status};

/// Resources beyond this are not run, and the log says so: each has listeners and pipelines of its own.
const COLLECTORS_MAX: usize = 256;
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
    pub(super) wanted: BTreeMap<String, DynamicObject>,
    pub(super) running: BTreeMap<String, Running>,
    pub(super) dirty: BTreeSet<String>,
    /// For what a resource's author should see although its status is not where they look.
    pub(super) events: Events,
    /// A whole list came; the host has still to be told who is there.
    pub(super) listed: bool,
}

/// What the host was last asked for, and what it said.
#[derive(Debug, Clone)]
pub(super) struct Running {
    source: PipelineSource,
    result: Result<Applied, Vec<String>>,
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
        events: Events,
    ) -> Self {
        let (wanted, running, dirty) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { client, resource, host, pod_address, wanted, running, dirty, events, listed: false }
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
                _ = retry.tick() => self.dirty.extend(failed.keys().cloned()),
                _ = repair.tick() => self.dirty.extend(self.wanted.keys().cloned()),
            }
            // A list counts only when it is whole.
            if relist.is_none() && std::mem::take(&mut self.listed) {
                self.host.listed(&self.runnable()).await;
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
                self.dirty.insert(owner);
            }
        }
    }

    fn want(&mut self, owner: String, object: DynamicObject) {
        if self.wanted.len() >= COLLECTORS_MAX && !self.wanted.contains_key(&owner) {
            tracing::warn!(collector = %owner, "not run: there are {COLLECTORS_MAX} OpenTelemetryCollectors already");
            return;
        }
        self.wanted.insert(owner.clone(), object);
        self.dirty.insert(owner);
    }

    /// Who is to be run, whether or not it can be.
    fn runnable(&self) -> BTreeSet<String> {
        let runnable = self.wanted.iter().filter(|(_, object)| is_runnable(object) && mode(object) != "sidecar");
        runnable.map(|(owner, _)| owner.clone()).collect()
    }

    /// What goes comes first, because it frees ports; then the oldest resource, which has a right to its ports.
    fn next_dirty(&mut self) -> Option<String> {
        let rank = |owner: &String| (self.wanted.get(owner).map(created), owner.clone());
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
        let Some(object) = self.wanted.get(owner).filter(|object| is_runnable(object)).cloned() else {
            self.stop(owner).await;
            return Ok(());
        };
        if mode(&object) == "sidecar" {
            self.stop(owner).await;
            let ready = Ready { ready: false, reason: sidecar::REASON, message: sidecar::remedy(&object) };
            if bounded(shutdown, status::write(&self.client, &self.resource, &object, &ready)).await? {
                self.events.publish(sidecar::mode_refused(&object));
            }
            return Ok(());
        }

        let (source, mut notes) = source(owner, &object);
        let known = self.running.get(owner).filter(|running| running.source == source && running.result.is_ok());
        let result = match known {
            Some(running) => running.result.clone(),
            None => {
                let result = self.host.apply(source.clone()).await;
                self.log(owner, &source, &result);
                if let Ok(applied) = &result {
                    self.retry_refused();
                    for displaced in &applied.displaced {
                        // Asked again it is told why, and so is its author.
                        self.running.remove(displaced);
                        self.dirty.insert(displaced.clone());
                    }
                }
                result
            }
        };
        self.running.insert(owner.to_owned(), Running { source, result: result.clone() });
        match result {
            Ok(applied) => {
                let services = services::Owner { object: &object };
                let services = services::apply(&self.client, services, &applied.ports, self.pod_address);
                let missing = bounded(shutdown, services).await?;
                notes.extend(missing.notes);
                let ready = running(&applied, notes);
                bounded(shutdown, status::write(&self.client, &self.resource, &object, &ready)).await?;
                if missing.going { Err(ReconcileError::Going) } else { Ok(()) }
            }
            Err(lines) => {
                let ready = Ready { ready: false, reason: "ConfigurationRefused", message: lines.join("\n") };
                bounded(shutdown, status::write(&self.client, &self.resource, &object, &ready)).await?;
                Err(ReconcileError::Refused)
            }
        }
    }

    /// Says what the host made of it, unless it said the same about the same before.
    fn log(&self, owner: &str, source: &PipelineSource, result: &Result<Applied, Vec<String>>) {
        let before = self.running.get(owner).filter(|running| running.source == *source);
        match result {
            Ok(applied) => {
                tracing::info!(collector = owner, ports = ?applied.ports.iter().map(|p| p.port).collect::<Vec<_>>(), "pipelines run")
            }
            Err(lines) if before.is_none_or(|running| running.result.as_ref().err() != Some(lines)) => {
                tracing::warn!(collector = owner, reasons = %lines.join("; "), "configuration refused");
            }
            Err(_) => {}
        }
    }
}

fn running(applied: &Applied, notes: Vec<String>) -> Ready {
    let ports: Vec<String> = applied.ports.iter().map(|port| format!("{} {}", port.name, port.port)).collect();
    let mut lines = vec![format!("runs inside Spanreel; listens on {}", ports.join(", "))];
    lines.extend(applied.warnings.iter().cloned());
    lines.extend(notes);
    Ready { ready: true, reason: "Running", message: lines.join("\n") }
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

/// The configuration as the host takes it, and what of the resource has no effect.
fn source(owner: &str, object: &DynamicObject) -> (PipelineSource, Vec<String>) {
    let mut notes = Vec::new();
    let config = object.data.pointer("/spec/config").cloned().unwrap_or_default();
    let whole = serde_json::to_value(object).unwrap_or_default();
    let (text, defaults) = match collector::unreadable_config(&whole) {
        // What was no YAML when it was applied goes to the host as it was written: its errors say where.
        Some(unreadable) => (unreadable.to_owned(), String::new()),
        // Defaults apart from what its author wrote, so that error texts point at lines as `kubectl get -o yaml` shows them.
        None => (yaml(&config), defaults::missing(&config).as_ref().map(yaml).unwrap_or_default()),
    };
    let mut env = BTreeMap::new();
    for variable in object.data.pointer("/spec/env").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| variable.get(key).and_then(Value::as_str);
        let Some(name) = text("name") else { continue };
        if variable.get("valueFrom").is_some_and(|from| !from.is_null()) {
            notes
                .push(format!("spec.env {name}: valueFrom is not supported, the variable is not set; give it a value"));
        } else {
            env.insert(name.to_owned(), text("value").unwrap_or_default().to_owned());
        }
    }
    if object.data.pointer("/spec/envFrom").and_then(Value::as_array).is_some_and(|from| !from.is_empty()) {
        notes.push(
            "spec.envFrom is not supported, its variables are not set; name those that the configuration uses under spec.env"
                .to_owned(),
        );
    }
    notes.extend(ignored::notes(object));
    (PipelineSource { owner: owner.to_owned(), config: text, defaults, env, created: created(object) }, notes)
}

/// YAML, because people read the positions in error texts; JSON is YAML as well, should it not work out.
fn yaml(config: &Value) -> String {
    serde_saphyr::to_string(config).unwrap_or_else(|_| format!("{config:#}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn configuration() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop_oneof![
                "\\PC{0,12}",
                "[yYnNoO~0x1e:.#-]{1,4}",
                Just("line\n  two\n".to_owned()),
                Just(" pad ".to_owned())
            ]
            .prop_map(Value::from),
        ];
        scalar.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z/:. 0-9-]{1,8}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The reader here takes more plain words for booleans than the configuration's own does: what it reads back as
        /// text is text everywhere.
        #[test]
        fn any_configuration_survives_as_yaml(config in configuration()) {
            let text = yaml(&config);
            let read: Value = serde_saphyr::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
            prop_assert_eq!(read, config, "{}", text);
        }
    }

    #[test]
    fn a_source_has_the_defaults_and_reads_as_yaml() {
        let object: DynamicObject = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "x"},
            "spec": {
                "config": {
                    "receivers": {"otlp": {"protocols": {"grpc": null}}},
                    "service": {"pipelines": {"traces": {"receivers": ["otlp"]}}},
                },
                "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
                "envFrom": [{"secretRef": {"name": "s"}}],
                "ingress": {"route": {}}, "targetAllocator": {"enabled": true},
            },
        }))
        .unwrap();
        let (source, notes) = source("n/x", &object);
        assert!(!source.config.contains("endpoint: "), "lines are counted as the author sees them: {}", source.config);
        let read: Value = serde_saphyr::from_str(&source.defaults).unwrap();
        assert_eq!(read["receivers"], json!({"otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}}}}));
        assert_eq!(source.env, BTreeMap::from([("A".to_owned(), "1".to_owned())]));
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(
            notes[0].contains("spec.env B") && notes[1].contains("envFrom") && notes[2].contains("targetAllocator")
        );
        assert!(!notes[2].contains("envFrom"));
    }

    #[test]
    fn a_configuration_that_is_no_yaml_reaches_the_host_as_written() {
        let alpha = json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "OpenTelemetryCollector",
            "metadata": {"namespace": "n", "name": "x"}, "spec": {"config": "receivers:\n\totlp: {}\n"},
        });
        let mut beta = collector::convert_collector(alpha, "opentelemetry.io/v1beta1").unwrap();
        collector::default_collector(&mut beta);
        let (source, _) = source("n/x", &serde_json::from_value(beta).unwrap());
        assert_eq!(source.config, "receivers:\n\totlp: {}\n");
    }
}
