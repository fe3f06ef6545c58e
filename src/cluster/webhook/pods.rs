//! Reviews of new pods: what [`crate::inject`] decides, with what the index knows and a few bounded look-ups.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize as _;

use super::super::Metrics;
use super::super::admission::{Answer, Request};
use super::super::events::{Events, Note, NoteKind};
use super::super::index::Index;
use super::super::lookup::Lookup;
use super::super::refusals::Cause;
use super::super::sidecar;
use super::super::workloads::Workload;
use crate::inject::{self, Catalog, Decision, Instrumentation, OwnerMap, PodRequest, Reason, Settings, Verdict, View};

/// What deciding about pods takes.
pub(in super::super) struct Pods {
    pub(in super::super) index: Arc<Index>,
    pub(in super::super) lookup: Lookup,
    /// Replaced when it is found out what the API server can do.
    pub(in super::super) settings: Arc<ArcSwap<Settings>>,
    pub(in super::super) built_in: Instrumentation,
    pub(in super::super) events: Events,
    pub(in super::super) metrics: Metrics,
}

impl Pods {
    pub(super) async fn review(&self, request: &Request) -> Answer {
        if !request.concerns("", "pods", &["CREATE"]) {
            return Answer::unchanged("only the creation of pods is of interest");
        }
        let pod = match Pod::deserialize(&request.object) {
            Ok(pod) => pod,
            Err(error) => {
                return self.unlooked_at(request, Cause::Unreadable, &format!("the pod cannot be read: {error}"));
            }
        };
        if !self.index.synced().borrow().all() {
            // The registration may be an earlier process's. Only who asked for something needs to know.
            let annotations = self.index.namespace(&request.namespace).unwrap_or_default();
            let asked = PodRequest { pod: &pod, namespace: &request.namespace, namespace_annotations: &annotations };
            if inject::asked_languages(&asked).is_empty() {
                return Answer::default();
            }
            return self.unlooked_at(request, Cause::Starting, "Spanreel is still starting");
        }
        let namespace = request.namespace.as_str();
        let annotations = self.annotations(namespace).await;
        let asked = PodRequest { pod: &pod, namespace, namespace_annotations: &annotations };
        let decision = self.decide_about(&asked).await;
        self.metrics.record(&decision);
        log(&pod, namespace, &decision);
        if !request.dry_run {
            let sidecar = sidecar::annotation_refused(&asked, &OwnerMap::new());
            notes(&pod, namespace, &decision).into_iter().chain(sidecar).for_each(|note| self.events.publish(note));
        }
        let warnings = decision.warnings();
        match decision.pod.as_ref().map(|mutated| inject::patch(&request.object, &pod, mutated)) {
            None => Answer { warnings, ..Answer::default() },
            Some(Ok(patch)) => Answer { patch: Some(patch), warnings, denial: None },
            Some(Err(error)) => Answer::unchanged(&error.to_string()),
        }
    }

    /// No decision could be made: its author and whoever looks at its workload are told.
    fn unlooked_at(&self, request: &Request, cause: Cause, why: &str) -> Answer {
        self.metrics.record_refusal(cause.as_str());
        tracing::debug!(namespace = %request.namespace, why, "a pod is created unchanged");
        if !request.dry_run {
            // Of a pod that cannot be read its metadata still may.
            let metadata = request.object.get("metadata").map(ObjectMeta::deserialize);
            let pod = Pod { metadata: metadata.and_then(Result::ok).unwrap_or_default(), ..Pod::default() };
            self.events.publish(Note {
                regarding: Workload::of_pod(&pod, &request.namespace, &OwnerMap::new()).reference(),
                kind: NoteKind::Warning,
                reason: "InstrumentationRequestRejected",
                action: "Injection",
                message: format!("{why}; the pod was created unchanged"),
            });
        }
        Answer::unchanged(why)
    }

    /// What becomes of this pod if it is created now.
    pub(in super::super) async fn decide(&self, pod: &Pod, namespace: &str) -> Decision {
        let annotations = self.annotations(namespace).await;
        self.decide_about(&PodRequest { pod, namespace, namespace_annotations: &annotations }).await
    }

    async fn annotations(&self, namespace: &str) -> Arc<BTreeMap<String, String>> {
        match self.index.namespace(namespace) {
            Some(known) => known,
            None => Arc::new(self.lookup.namespace(namespace).await.unwrap_or_default()),
        }
    }

    async fn decide_about(&self, asked: &PodRequest<'_>) -> Decision {
        let (mut catalog, unknown, settings) = (self.index.catalog(), OwnerMap::new(), self.settings.load_full());
        // An Instrumentation that was applied together with the pod may not have reached the watch.
        let unseen = inject::unseen_instrumentations(asked, &self.view(&settings, &catalog, &unknown));
        if !unseen.is_empty() {
            self.lookup.add_instrumentations(&mut catalog, &unseen).await;
        }
        let view = self.view(&settings, &catalog, &unknown);
        let found = self.lookup.find(&inject::look_ups(asked, &view)).await;
        inject::decide(asked, &View { owners: &found.owners, absent: &found.absent, ..view })
    }

    /// What is known without asking.
    pub(in super::super) fn view<'a>(
        &'a self,
        settings: &'a Settings,
        catalog: &'a Catalog,
        owners: &'a OwnerMap,
    ) -> View<'a> {
        View { settings, catalog, built_in: &self.built_in, owners, absent: &[] }
    }
}

/// Refusals, and skips that are not our own doing, on the owning workload: the pod has no name yet, and its creator may be
/// a controller that shows no warnings.
fn notes(pod: &Pod, namespace: &str, decision: &Decision) -> Vec<Note> {
    let ours = inject::Record::of(pod).is_some();
    let mut said: Vec<(NoteKind, &str)> = Vec::new();
    for outcome in &decision.outcomes {
        let kind = match outcome.verdict {
            Verdict::Refused => NoteKind::Warning,
            Verdict::Skipped if outcome.reason == Reason::AlreadyInstrumented && !ours => NoteKind::Normal,
            Verdict::Skipped | Verdict::Injected => continue,
        };
        if !said.contains(&(kind, outcome.message.as_str())) {
            said.push((kind, outcome.message.as_str()));
        }
    }
    if said.is_empty() {
        return Vec::new();
    }
    let regarding = Workload::of_pod(pod, namespace, &OwnerMap::new()).reference();
    let note = |(kind, message): (NoteKind, &str)| Note {
        regarding: regarding.clone(),
        kind,
        reason: match kind {
            NoteKind::Warning => "InstrumentationRequestRejected",
            NoteKind::Normal => "InstrumentationSkipped",
        },
        action: "Injection",
        message: message.to_owned(),
    };
    said.into_iter().map(note).collect()
}

/// One line per language and container; what a reinvocation finds done is not worth one.
fn log(pod: &Pod, namespace: &str, decision: &Decision) {
    let pod = pod.metadata.name.as_deref().or(pod.metadata.generate_name.as_deref()).unwrap_or_default();
    for outcome in decision.outcomes.iter().filter(|outcome| outcome.verdict != Verdict::Skipped) {
        tracing::info!(
            namespace,
            pod,
            language = outcome.language.as_str(),
            container = outcome.container.as_deref().unwrap_or_default(),
            result = outcome.verdict.as_str(),
            reason = outcome.reason.as_str(),
            message = %outcome.message,
            "injection"
        );
    }
}
