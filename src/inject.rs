//! The injection decision and the pod mutation, as pure functions.
//!
//! In: a pod about to be created, its namespace's annotations, and a [`View`] of what the cluster room knows. Out: the
//! pod as it should be, and for every language that was asked for what became of it, why, in a sentence.
//!
//! ```text
//! annotations ─▶ selection ─▶ targets ─▶ agent (java, sdk, ...) ─▶ environment, SDK configuration ─▶ patch
//! ```
//!
//! Invariants: the result equals opentelemetry-operator's, but for the departures below; a pod that came valid leaves
//! valid; what the pod's author wrote is never removed (but for mounts that a web server's configuration replaces by a
//! copy); deciding twice changes nothing the second time. The room knows Kubernetes' types, but neither its API server nor
//! any I/O: what it would like to be looked up it says in [`look_ups`].
//!
//! # Departures from the operator
//! Each is a defect of the operator or makes pods that cannot be created or start; `docs/decisions.md` has the whole table.
//! Those marked (s) come back with `strict_operator_compat`, because somebody may depend on them:
//! - (s) No container accepted the agent: no volume and no init container either.
//! - (s) Nothing is written twice: marker variables and `k8s.pod.name`, `k8s.node.name` pairs, whether a second language
//!   or the container itself has them already.
//! - `OTEL_RESOURCE_ATTRIBUTES` from a `valueFrom` stays as it is; (s) an empty one gives no leading comma.
//! - (s) `service.*` of `spec.resource.resourceAttributes` count: after the pod's annotations and labels, before what is
//!   derived. Attributes with an empty value are left out.
//! - (s) A variable of ours that refers to a later one moves behind it; the order stays as it is where none does.
//! - The variable that marks a container as injected is always set, and counts in init containers, too.
//! - Listed containers that do not exist are reported.
//! - Defaults of the Instrumentation apply at injection; default requests and limits give way to what the user set.
//! - What the API server would refuse (see `validity`) is refused or left out by name; volume names are made valid; a
//!   container, volume or mount of the pod where ours must be is a refusal. Static pods' mirrors are left alone.
//! - A pod that injection would make larger than the API server or a process takes is refused (see `size`).
//! - go: the pod's own `kernel-debug` volume serves; (s) what describes the application does not depend on other languages.
//! - Web servers: the second one in a pod is refused; mounts that would hide the agent's configuration are taken away, others
//!   stay; (s) nginx's volumes have a size limit; scripts are Spanreel's own.
//! - An init container of a pod that passes Pod Security `restricted` passes as well.
//! - The Deployment is derived from the ReplicaSet's name; nothing waits for a cache.
//! - Refusals are admission warnings, never silent.

mod agent;
mod agent_files;
mod annotations;
mod apache;
mod catalog;
mod dotnet;
mod environment;
mod go;
mod image;
mod instrumentation;
mod java;
mod language;
mod nginx;
mod nodejs;
mod outcome;
mod owners;
mod patch;
mod pod_security;
mod python;
mod quantity;
mod record;
mod resource;
mod resource_attributes;
mod sdk;
mod sdk_config;
mod selection;
mod settings;
mod size;
mod standing;
mod targets;
mod tls;
mod validity;
mod volumes;
mod web_server;
mod wishes;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

pub use annotations::sidecar_note;
pub use catalog::{Catalog, Entry};
pub use instrumentation::{Instrumentation, InstrumentationSpec, MalformedInstrumentation};
pub use language::Language;
pub use outcome::{Decision, Outcome, Reason, Verdict};
pub use owners::{OwnerKey, OwnerKind, OwnerMap, workload};
pub use patch::{PatchError, patch};
pub use pod_security::ENFORCE_LABEL as POD_SECURITY_LABEL;
pub(crate) use quantity::value as quantity_value;
pub use record::{ANNOTATION as RECORD_ANNOTATION, Record};
pub use resource::{
    Blocked, Review, Upgrade, default_instrumentation, upgrade_instrumentation, validate_instrumentation,
};
pub(crate) use resource::{fields, set_if_absent, text};
pub use settings::{Delivery, Images, Settings};
pub use standing::{InjectedContainer, asked_languages, injected_containers};
pub use tls::{TlsObject, TlsObjectKind};
pub use wishes::{Place, Wish, agent_image, chosen, container_lists, unknown_requests, wishes};

use agent::Injection;
use outcome::Refusal;
use selection::Choice;

/// A pod about to be created.
#[derive(Debug, Clone, Copy)]
pub struct PodRequest<'a> {
    pub pod: &'a Pod,
    /// From the admission request: the pod's own metadata may not name it yet.
    pub namespace: &'a str,
    /// With the namespace's [`POD_SECURITY_LABEL`] among them.
    pub namespace_annotations: &'a BTreeMap<String, String>,
}

/// What is known of the cluster while deciding.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub settings: &'a Settings,
    pub catalog: &'a Catalog,
    /// Used for annotation value `true` in a namespace without any Instrumentation.
    pub built_in: &'a Instrumentation,
    /// Owners of ReplicaSets and Jobs, as far as they were looked up.
    pub owners: &'a OwnerMap,
    /// Secrets and ConfigMaps that are known not to exist.
    pub absent: &'a [TlsObject],
}

/// What a decision would like to know that no cache holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LookUps {
    pub owners: Vec<OwnerKey>,
    pub tls: Vec<TlsObject>,
}

/// Names the objects worth one bounded GET before [`decide`]; usually none. Deciding without them is sound: an unknown
/// owner is derived or left out, an unknown Secret is assumed to exist.
#[must_use]
pub fn look_ups(request: &PodRequest<'_>, view: &View<'_>) -> LookUps {
    let mut wanted = LookUps::default();
    if targets::already_instrumented(request.pod) {
        return wanted;
    }
    let chosen: Vec<Choice> = annotations::asked(request)
        .into_iter()
        .filter(|asked| view.settings.enables(asked.language))
        .filter_map(|asked| selection::choose(&asked, request.namespace, view).ok())
        .collect();
    if chosen.is_empty() {
        return wanted;
    }
    let uids = chosen.iter().any(|choice| choice.instrumentation.spec.resource.add_k8s_uid_attributes);
    wanted.owners = owners::look_ups(request.pod, request.namespace, uids);
    for choice in &chosen {
        for object in tls::objects(&choice.instrumentation.spec, request.namespace) {
            if !wanted.tls.contains(&object) {
                wanted.tls.push(object);
            }
        }
    }
    wanted
}

/// Instrumentations, as (namespace, name), that the pod names and the catalog lacks: the watch may be behind what was
/// applied together with the pod.
#[must_use]
pub fn unseen_instrumentations(request: &PodRequest<'_>, view: &View<'_>) -> Vec<(String, String)> {
    let mut unseen = Vec::new();
    if targets::already_instrumented(request.pod) {
        return unseen;
    }
    for asked in &annotations::asked(request) {
        if let Some((namespace, name)) = selection::named(asked, request.namespace)
            && view.catalog.get(namespace, name).is_none()
        {
            unseen.push((namespace.to_owned(), name.to_owned()));
        }
    }
    unseen.dedup();
    unseen
}

/// Decides about one pod by opentelemetry-operator's rules. Never fails: what cannot be done is an [`Outcome`].
#[must_use]
pub fn decide(request: &PodRequest<'_>, view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    if let Some(note) = annotations::sidecar_note(request) {
        decision.notes.push(note);
    }
    let asked = annotations::asked(request);
    if asked.is_empty() {
        return decision;
    }
    if let Some(skip) = targets::reason_to_skip(request.pod) {
        for asked in &asked {
            decision.outcomes.push(Outcome::skipped(asked.language, &skip));
        }
        if let Some(note) = targets::foreign_note(request.pod, &skip) {
            decision.notes.push(note);
        }
        return decision;
    }
    let mut languages: Vec<Language> = asked.iter().map(|asked| asked.language).collect();
    let plans = match plan(request, view, asked, &mut decision) {
        Ok(plans) => plans,
        Err((culprit, refusal)) => {
            // Those that are switched off have had their say.
            languages.retain(|language| !decision.outcomes.iter().any(|outcome| outcome.language == *language));
            decision.refuse_all(&languages, culprit, &refusal);
            return decision;
        }
    };

    let owners = owners::of_pod(request.pod, request.namespace, view.owners);
    let mut injection = Injection::new(request, view.settings, &owners);
    for plan in &plans {
        injection.apply(plan, &mut decision);
    }
    decision.pod = injection.into_changed_pod();
    if let (Some(record), Some(pod)) = (Record::new(&decision), decision.pod.as_mut()) {
        record.write(pod);
    }
    if let Some(refusal) = decision.pod.as_ref().and_then(|pod| size::objection(request.pod, pod)) {
        let injected: Vec<Language> = plans.iter().map(|plan| plan.language).collect();
        decision.outcomes.retain(|outcome| !injected.contains(&outcome.language));
        decision.pod = None;
        decision.refuse_all(&injected, None, &refusal);
    }
    decision
}

/// One language with everything decided about it but the containers' own objections.
pub(crate) struct Plan {
    pub(crate) language: Language,
    pub(crate) instrumentation: std::sync::Arc<Instrumentation>,
    pub(crate) containers: targets::ContainerList,
}

/// The steps that concern all languages at once: the first refusal stops everything, as the operator has it. A language
/// that is switched off is looked up as well, and only it is refused.
fn plan(
    request: &PodRequest<'_>,
    view: &View<'_>,
    asked: Vec<annotations::Asked>,
    decision: &mut Decision,
) -> Result<Vec<Plan>, (Option<Language>, Refusal)> {
    let mut plans = Vec::with_capacity(asked.len());
    for asked in asked {
        let choice = selection::choose(&asked, request.namespace, view).map_err(|r| (Some(asked.language), r))?;
        if !view.settings.enables(asked.language) {
            decision.outcomes.push(Outcome::refused(asked.language, None, &asked.language.disabled()));
            continue;
        }
        decision.notes.extend(choice.note);
        let containers = targets::listed_containers(request, asked.language, view.settings)
            .map_err(|r| (Some(asked.language), r))?;
        plans.push(Plan { language: asked.language, instrumentation: choice.instrumentation, containers });
    }
    if view.settings.multi_instrumentation {
        targets::check_lists(&plans).map_err(|r| (None, r))?;
    }
    for plan in &plans {
        tls::check(&plan.instrumentation.spec, request.namespace, view.absent).map_err(|r| (Some(plan.language), r))?;
    }
    Ok(plans)
}

#[cfg(test)]
mod tests;
