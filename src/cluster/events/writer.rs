//! Writes Events at a pace that no API server minds.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::series::{Series, Step};
use super::{Dated, Note};
use crate::cluster::Metrics;
use crate::cluster::metrics::EventResult;
use crate::cluster::retry::State;

/// Who says so, as `reportingController`.
const CONTROLLER: &str = "spanreel.dev/spanreel";
/// Bytes of an Event's note that the API server takes.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Bytes of a name, of which an Event's ends in a dot and 16 digits.
const NAME_BYTES_MAX: usize = 253 - 17;
/// For one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Events in a row, and then one per interval.
const BURST: u32 = 50;
const INTERVAL: Duration = Duration::from_millis(200);
/// A pod that is about to be created has a uid a moment later.
const POD_DELAY: Duration = Duration::from_secs(1);
/// Uids remembered. When full all are forgotten, which costs one GET each.
const UIDS_MAX: usize = 1024;

/// Writes what comes from [`super::Events`], until shutdown.
pub(in crate::cluster) async fn write(
    client: Client,
    instance: String,
    metrics: Metrics,
    mut notes: mpsc::Receiver<Dated>,
    shutdown: CancellationToken,
) {
    let mut writer = Writer { client, instance, series: Series::default(), uids: HashMap::new(), named: 0 };
    let mut pace = Pace { left: BURST, since: Instant::now() };
    let mut state = State::new("writing Events");
    while let Some(Some(dated)) = shutdown.run_until_cancelled(notes.recv()).await {
        let write = async {
            tokio::time::sleep(pace.next(Instant::now())).await;
            if dated.note.regarding.kind.as_deref() == Some("Pod") {
                tokio::time::sleep_until(dated.published + POD_DELAY).await;
            }
            tokio::time::timeout(CALL_TIMEOUT * 2, writer.write(dated.note)).await
        };
        match shutdown.run_until_cancelled(write).await {
            None => return,
            Some(Ok(Ok(written))) => {
                state.ok();
                if written {
                    metrics.record_event(EventResult::Written);
                }
            }
            Some(Ok(Err(error))) => {
                state.failed(&error);
                metrics.record_event(EventResult::Failed);
            }
            Some(Err(late)) => {
                state.failed(&late);
                metrics.record_event(EventResult::Failed);
            }
        }
    }
}

struct Writer {
    client: Client,
    instance: String,
    series: Series,
    uids: HashMap<(String, String, String), String>,
    named: u64,
}

impl Writer {
    /// Whether something had to be written.
    async fn write(&mut self, mut note: Note) -> Result<bool, kube::Error> {
        note.message = cut(&note.message, MESSAGE_BYTES_MAX).to_owned();
        let now = jiff::Timestamp::now();
        let name = note.regarding.name.clone().unwrap_or_default();
        let number = self.named;
        let named = || {
            format!(
                "{}.{:016x}",
                cut(name.trim_end_matches('-'), NAME_BYTES_MAX),
                now.as_microsecond().unsigned_abs() + number
            )
        };
        let namespace = note.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &events());
        match self.series.take(&note, Instant::now(), named) {
            Step::Nothing => Ok(false),
            Step::Create { event } => {
                self.named += 1;
                let uid = self.uid(&note.regarding).await;
                let event = self.event(&event, &namespace, &note, uid, now);
                let event: DynamicObject = serde_json::from_value(event).map_err(kube::Error::SerdeError)?;
                api.create(&PostParams::default(), &event).await.map(|_| true)
            }
            Step::Count { event, count } => {
                let series = json!({"series": {"count": count, "lastObservedTime": micro_time(now)}});
                match api.patch(&event, &PatchParams::default(), &Patch::Merge(&series)).await {
                    // Events go after an hour.
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
                    written => written.map(|_| true),
                }
            }
        }
    }

    fn event(&self, name: &str, namespace: &str, note: &Note, uid: Option<String>, now: jiff::Timestamp) -> Value {
        let regarding = ObjectReference { uid: uid.or_else(|| note.regarding.uid.clone()), ..note.regarding.clone() };
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": micro_time(now),
            "reportingController": CONTROLLER,
            "reportingInstance": self.instance,
            "type": note.kind.as_str(),
            "reason": note.reason,
            "action": note.action,
            "regarding": regarding,
            "note": note.message,
        })
    }

    /// `kubectl describe` shows an object the Events that name its uid. `None`: not found out, which costs only that.
    async fn uid(&mut self, regarding: &ObjectReference) -> Option<String> {
        if regarding.uid.is_some() {
            return regarding.uid.clone();
        }
        let (kind, name) = (regarding.kind.clone()?, regarding.name.clone()?);
        let key = (kind, regarding.namespace.clone().unwrap_or_default(), name);
        if let Some(known) = self.uids.get(&key) {
            return Some(known.clone());
        }
        let resource = resource(regarding)?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.1, &resource);
        let found = tokio::time::timeout(CALL_TIMEOUT, api.get_metadata_opt(&key.2)).await;
        let uid = found.ok()?.ok()??.metadata.uid?;
        if self.uids.len() >= UIDS_MAX {
            self.uids.clear();
        }
        self.uids.insert(key, uid.clone());
        Some(uid)
    }
}

/// A bucket of permissions that fills up again.
struct Pace {
    left: u32,
    since: Instant,
}

impl Pace {
    /// How long to wait before the next Event.
    fn next(&mut self, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.since).as_millis() / INTERVAL.as_millis();
        if gained > 0 {
            self.left = self.left.saturating_add(u32::try_from(gained).unwrap_or(BURST)).min(BURST);
            self.since = now;
        }
        if self.left == 0 {
            // What is gained while waiting is used at once.
            self.since = now + INTERVAL;
            return INTERVAL;
        }
        self.left -= 1;
        Duration::ZERO
    }
}

fn events() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("events.k8s.io", "v1", "Event"), "events")
}

/// Where objects of this kind are; only kinds whose names Events of ours carry.
fn resource(regarding: &ObjectReference) -> Option<ApiResource> {
    let kind = regarding.kind.as_deref()?;
    let (group, version) = regarding.api_version.as_deref()?.rsplit_once('/').unwrap_or(("", "v1"));
    let plural = match kind {
        "Pod" => "pods",
        "Deployment" => "deployments",
        "ReplicaSet" => "replicasets",
        "StatefulSet" => "statefulsets",
        "DaemonSet" => "daemonsets",
        "Job" => "jobs",
        "CronJob" => "cronjobs",
        "Instrumentation" => "instrumentations",
        "OpenTelemetryCollector" => "opentelemetrycollectors",
        _ => return None,
    };
    Some(ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural))
}

fn micro_time(time: jiff::Timestamp) -> String {
    format!("{time:.6}")
}

fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=text.len().min(bytes_max)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_intervals() {
        let mut now = Instant::now();
        let mut pace = Pace { left: BURST, since: now };
        for _ in 0..BURST {
            assert_eq!(pace.next(now), Duration::ZERO);
        }
        for _ in 0..10 {
            let wait = pace.next(now);
            assert_eq!(wait, INTERVAL);
            now += wait;
        }
        now += INTERVAL * BURST * 2;
        for _ in 0..BURST {
            assert_eq!(pace.next(now), Duration::ZERO);
        }
        assert_eq!(pace.next(now), INTERVAL);
    }

    #[test]
    fn kinds_are_found_where_they_are() {
        let regarding = |api: &str, kind: &str| ObjectReference {
            api_version: Some(api.to_owned()),
            kind: Some(kind.to_owned()),
            ..ObjectReference::default()
        };
        let deployment = resource(&regarding("apps/v1", "Deployment")).unwrap();
        assert_eq!((deployment.group.as_str(), deployment.plural.as_str()), ("apps", "deployments"));
        assert_eq!(resource(&regarding("v1", "Pod")).unwrap().api_version, "v1");
        assert_eq!(resource(&regarding("argoproj.io/v1", "Rollout")), None);
    }
}
