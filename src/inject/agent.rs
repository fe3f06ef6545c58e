//! The skeleton of an injection, the same for every language that loads an agent.
//!
//! Per container: the language's objections, its environment and mount; the common environment; what makes the runtime
//! load the agent; the SDK's configuration. Then, once per pod, the volume and the init container that fills it. Unlike
//! the operator this last step is left out when no container was injected.

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec, SecurityContext, Volume};

use super::environment::Environment;
use super::java::JavaAgent;
use super::outcome::{Decision, Outcome, Reason, Refusal};
use super::owners::Owner;
use super::sdk::SdkOnly;
use super::{Instrumentation, Language, Plan, PodRequest, sdk_config, targets, validity, volumes};

/// What one language adds to the skeleton. One file implements it per language.
pub(super) trait Agent {
    /// The language's own part of the Instrumentation's variables.
    fn env(&self) -> &[EnvVar];

    /// Objections to this container, or else what the language mounts into it.
    fn attach(&self, container: &mut Container, env: &Environment) -> Result<(), Refusal>;

    /// The variables by which the runtime finds the agent. A returned sentence goes to the user.
    fn load(&self, container: &str, env: &mut Environment) -> Option<String>;

    /// What of the language's section has no effect as it is written, a sentence each.
    fn doubts(&self) -> Vec<String>;

    /// What brings the agent into the pod; `None` where nothing needs to.
    fn delivery(&self) -> Option<Delivery>;
}

/// A volume and the init containers that fill it, in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Delivery {
    pub(super) volume: Volume,
    pub(super) init_containers: Vec<Container>,
}

/// The agent of a supported language; what would make pods invalid is refused here, before any container is touched.
fn for_language(language: Language, instrumentation: &Instrumentation) -> Result<Box<dyn Agent + '_>, Refusal> {
    match language {
        Language::Java => Ok(Box::new(JavaAgent::new(&instrumentation.spec)?)),
        Language::Sdk => Ok(Box::new(SdkOnly)),
        other => Err(other.not_supported()),
    }
}

/// A pod while languages are applied to it, one after the other.
pub(super) struct Injection<'a> {
    request: PodRequest<'a>,
    owners: &'a [Owner],
    pod: Pod,
    changed: bool,
}

impl<'a> Injection<'a> {
    pub(super) fn new(request: &PodRequest<'a>, owners: &'a [Owner]) -> Self {
        Self { request: *request, owners, pod: request.pod.clone(), changed: false }
    }

    /// The pod, if any container was injected.
    pub(super) fn into_changed_pod(self) -> Option<Pod> {
        self.changed.then_some(self.pod)
    }

    /// Applies one language and records what became of each container.
    pub(super) fn apply(&mut self, plan: &Plan, decision: &mut Decision) {
        let language = plan.language;
        let prepared = validity::check(&plan.instrumentation.spec, self.pod.spec.as_ref())
            .and_then(|()| for_language(language, &plan.instrumentation));
        let agent = match prepared {
            Ok(agent) => agent,
            Err(refusal) => {
                let name = plan.instrumentation.full_name();
                let refusal = Refusal::new(refusal.reason, format!("Instrumentation {name}: {}", refusal.message));
                decision.outcomes.push(Outcome::refused(language, None, &refusal));
                return;
            }
        };
        let Some(spec) = &self.pod.spec else { return };
        let delivery = agent.delivery();
        if let Some(refusal) = delivery.as_ref().and_then(|delivery| name_clash(language, delivery, spec)) {
            decision.outcomes.push(Outcome::refused(language, None, &refusal));
            return;
        }
        let names = targets::in_processing_order(spec, &plan.containers);
        for listed in plan.containers.iter().filter(|listed| !names.contains(listed)) {
            let message = format!("{language}: the pod has no container \"{listed}\"");
            let refusal = Refusal::new(Reason::ContainerNotFound, message);
            decision.outcomes.push(Outcome::refused(language, Some(listed), &refusal));
        }

        let mut first_injected: Option<String> = None;
        for name in names {
            match self.apply_to_container(&name, plan, agent.as_ref()) {
                Ok(note) => {
                    decision.outcomes.push(Outcome::injected(language, &name, &plan.instrumentation));
                    decision.notes.extend(note);
                    first_injected.get_or_insert(name);
                }
                Err(refusal) => decision.outcomes.push(Outcome::refused(language, Some(&name), &refusal)),
            }
        }
        if let Some(first) = first_injected {
            self.changed = true;
            if let Some(delivery) = delivery {
                let context = &plan.instrumentation.spec.init_container_security_context;
                self.deliver(delivery, &first, context.as_ref());
            }
        }
        let sampler = validity::doubtful_sampler(&plan.instrumentation.spec.sampler);
        for doubt in agent.doubts().into_iter().chain(sampler) {
            decision.notes.push(format!("Instrumentation {}: {doubt}", plan.instrumentation.full_name()));
        }
        for (list, env) in [
            (format!("spec.{language}.env"), agent.env()),
            ("spec.env".to_owned(), plan.instrumentation.spec.env.as_slice()),
        ] {
            for dropped in validity::dropped_variables(env) {
                decision.notes.push(format!("Instrumentation {}: {list} {dropped}", plan.instrumentation.full_name()));
            }
        }
    }

    fn apply_to_container(&mut self, name: &str, plan: &Plan, agent: &dyn Agent) -> Result<Option<String>, Refusal> {
        let Some(spec) = &mut self.pod.spec else { return Ok(None) };
        let Some(place) = targets::container_mut(spec, name) else { return Ok(None) };
        // Changed aside, so that a refusal half-way leaves nothing behind.
        let mut container = place.clone();
        let mut env = Environment::of(container.env.take());
        agent.attach(&mut container, &env)?;
        env.push_all_absent(&validity::usable_variables(agent.env()));
        env.prepend_addresses();
        env.push_all_absent(&validity::usable_variables(&plan.instrumentation.spec.env));
        let note = agent.load(name, &mut env);
        let facts = sdk_config::Facts {
            pod: self.request.pod,
            namespace: self.request.namespace,
            owners: self.owners,
            spec: &plan.instrumentation.spec,
        };
        let mut volumes = spec.volumes.clone().unwrap_or_default();
        sdk_config::apply(&facts, &mut container, &mut env, &mut volumes)?;
        spec.volumes = (!volumes.is_empty()).then_some(volumes);
        container.env = Some(env.into_variables());
        if let Some(place) = targets::container_mut(spec, name) {
            *place = container;
        }
        Ok(note)
    }

    /// Adds volume and init containers; their names are free.
    fn deliver(&mut self, delivery: Delivery, first: &str, context: Option<&SecurityContext>) {
        let Some(spec) = &mut self.pod.spec else { return };
        let target = targets::container(spec, first);
        let context = context.or(target.and_then(|c| c.security_context.as_ref())).cloned();
        let volumes = spec.volumes.get_or_insert_default();
        // One that is there is ours, see `name_clash`.
        if !volumes.iter().any(|volume| volume.name == delivery.volume.name) {
            volumes.push(delivery.volume);
        }
        let init_containers = spec.init_containers.get_or_insert_default();
        let at = init_containers.iter().position(|c| c.name == first).unwrap_or(init_containers.len());
        for (offset, mut container) in delivery.init_containers.into_iter().enumerate() {
            container.security_context.clone_from(&context);
            init_containers.insert(at + offset, container);
        }
    }
}

/// A container or volume of the pod that is called as one of ours; names are unique within a pod. That the container is
/// ours cannot be: such pods are left alone from the start.
fn name_clash(language: Language, delivery: &Delivery, spec: &PodSpec) -> Option<Refusal> {
    let container = delivery.init_containers.iter().find(|ours| targets::container(spec, &ours.name).is_some());
    let ours = &delivery.volume;
    let volume =
        || spec.volumes.iter().flatten().find(|volume| volume.name == ours.name && !volumes::is_same(volume, ours));
    let (kind, name) = match container {
        Some(container) => ("container", &container.name),
        None => ("volume", &volume()?.name),
    };
    let message = format!("{language}: the pod has a {kind} \"{name}\" already, a name that is needed; rename it");
    Some(Refusal::new(Reason::NameTaken, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_language_has_an_agent_and_no_other() {
        let instrumentation = Instrumentation::default();
        for language in Language::ALL {
            assert_eq!(for_language(language, &instrumentation).is_ok(), language.is_supported(), "{language}");
        }
    }
}
