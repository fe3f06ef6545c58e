//! Writes Events at a pace that no API server minds.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
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
/// Objects remembered. When full all are forgotten, which costs one GET each.
const KNOWN_MAX: usize = 1024;
/// For so long a uid is believed: who deletes a Deployment and applies it anew looks for Events on the new one.
const KNOWN_AGE_MAX: Duration = Duration::from_secs(10);

/// Writes what comes from [`super::Events`], until shutdown.
pub(in crate::cluster) async fn write(
    client: Client,
    instance: String,
    metrics: Metrics,
    mut notes: mpsc::Receiver<Dated>,
    shutdown: CancellationToken,
) {
    let pace = Pace { left: BURST, since: Instant::now() };
    let mut writer = Writer { client, instance, series: Series::default(), pace, known: HashMap::new(), named: 0 };
    let mut state = State::new("writing Events");
    while let Some(Some(Dated { mut note, published })) = shutdown.run_until_cancelled(notes.recv()).await {
        note.message = cut(&note.message, MESSAGE_BYTES_MAX).to_owned();
        let write = async {
            if note.regarding.kind.as_deref() == Some("Pod") {
                tokio::time::sleep_until(published + POD_DELAY).await;
            }
            tokio::time::timeout(CALL_TIMEOUT * 2, writer.write(&mut note)).await
        };
        match shutdown.run_until_cancelled(write).await {
            None => return,
            Some(Ok(Ok(written))) => {
                state.ok();
                if written {
                    metrics.record_event(EventResult::Written);
                }
            }
            // Said again, it is worth another attempt.
            Some(Ok(Err(error))) => {
                writer.series.forget(&note);
                state.failed(&error);
                metrics.record_event(EventResult::Failed);
            }
            Some(Err(late)) => {
                writer.series.forget(&note);
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
    pace: Pace,
    /// By kind, namespace and name, with when it was read.
    known: HashMap<(String, String, String), (Known, Instant)>,
    named: u64,
}

/// What an Event must know of the object that it is about.
#[derive(Debug, Clone)]
struct Known {
    uid: String,
    controller: Option<OwnerReference>,
}

impl Writer {
    /// Whether something had to be written.
    async fn write(&mut self, note: &mut Note) -> Result<bool, kube::Error> {
        let is_job = note.regarding.kind.as_deref() == Some("Job");
        if (note.regarding.uid.is_none() || is_job)
            && let Some(known) = self.known(&note.regarding).await
        {
            // A CronJob makes a Job of another name each time; people look at the CronJob, and it is one series there.
            if let Some(cron_job) = known.controller.filter(|controller| is_job && controller.kind == "CronJob") {
                note.regarding.api_version = Some(cron_job.api_version);
                note.regarding.kind = Some(cron_job.kind);
                note.regarding.name = Some(cron_job.name);
                note.regarding.uid = Some(cron_job.uid);
            } else {
                note.regarding.uid.get_or_insert(known.uid);
            }
        }
        let namespace = note.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &events());
        loop {
            let now = jiff::Timestamp::now();
            let name = note.regarding.name.as_deref().unwrap_or_default();
            let named = || event_name(name, now.as_microsecond().unsigned_abs() + self.named);
            let step = self.series.take(note, Instant::now(), named);
            // Only what is written takes from the pace, so that a flood of the same cannot hold up the rest.
            if step != Step::Nothing {
                tokio::time::sleep(self.pace.next(Instant::now())).await;
            }
            match step {
                Step::Nothing => return Ok(false),
                Step::Create { event } => {
                    self.named += 1;
                    let event = self.event(&event, &namespace, note, now);
                    let event: DynamicObject = serde_json::from_value(event).map_err(kube::Error::SerdeError)?;
                    return api.create(&PostParams::default(), &event).await.map(|_| true);
                }
                Step::Count { event, count } => {
                    let series = json!({"series": {"count": count, "lastObservedTime": micro_time(now)}});
                    match api.patch(&event, &PatchParams::default(), &Patch::Merge(&series)).await {
                        // Events go after an hour, or somebody deleted it: the next turn makes a new one.
                        Err(kube::Error::Api(status)) if status.code == 404 => self.series.forget(note),
                        written => return written.map(|_| true),
                    }
                }
            }
        }
    }

    fn event(&self, name: &str, namespace: &str, note: &Note, now: jiff::Timestamp) -> Value {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": micro_time(now),
            "reportingController": CONTROLLER,
            "reportingInstance": self.instance,
            "type": note.kind.as_str(),
            "reason": note.reason,
            "action": note.action,
            "regarding": note.regarding,
            "note": note.message,
        })
    }

    /// `kubectl describe` shows an object the Events that name its uid. `None`: not found out, which costs only that.
    async fn known(&mut self, regarding: &ObjectReference) -> Option<Known> {
        let (kind, name) = (regarding.kind.clone()?, regarding.name.clone()?);
        let key = (kind, regarding.namespace.clone().unwrap_or_default(), name);
        if let Some((known, read)) = self.known.get(&key)
            && read.elapsed() < KNOWN_AGE_MAX
        {
            return Some(known.clone());
        }
        let resource = resource(regarding)?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.1, &resource);
        let found = tokio::time::timeout(CALL_TIMEOUT, api.get_metadata_opt(&key.2)).await;
        let metadata = found.ok()?.ok()??.metadata;
        let mut owners = metadata.owner_references.unwrap_or_default().into_iter();
        let known = Known { uid: metadata.uid?, controller: owners.find(|owner| owner.controller == Some(true)) };
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(key, (known.clone(), Instant::now()));
        Some(known)
    }
}

/// A valid name for an Event about the object `about`, which may be the beginning of a name that is still to be made.
fn event_name(about: &str, number: u64) -> String {
    format!("{}.{number:016x}", cut(about, NAME_BYTES_MAX).trim_end_matches(['-', '.']))
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
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
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
    fn events_have_valid_names() {
        assert_eq!(event_name("web-", 1), "web.0000000000000001");
        let cut_in_front_of_a_dash = format!("{}-b", "a".repeat(NAME_BYTES_MAX - 1));
        assert_eq!(event_name(&cut_in_front_of_a_dash, 1), format!("{}.{:016x}", "a".repeat(NAME_BYTES_MAX - 1), 1));
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
