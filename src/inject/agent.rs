//! The skeleton of an injection, the same for every language that loads an agent.
//!
//! Per container: the language's objections, its environment and mount; the common environment; what makes the runtime
//! load the agent; the SDK's configuration. Then, once per pod, what brings the agent's files. Unlike the operator this
//! last step is left out when no container was injected, unless strict compatibility is set.

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec, Volume};

use super::apache;
use super::dotnet::DotNetAgent;
use super::environment::Environment;
use super::java::JavaAgent;
use super::nginx;
use super::nodejs::NodeJsAgent;
use super::outcome::{Decision, Outcome, Reason, Refusal};
use super::owners::Owner;
use super::pod_security::ENFORCE_LABEL;
use super::python::PythonAgent;
use super::sdk::SdkOnly;
use super::sdk_config::Facts;
use super::web_server::CLONE_CONTAINER;
use super::{
    InstrumentationSpec, Language, Plan, PodRequest, Settings, go, pod_security, sdk_config, targets, validity, volumes,
};

/// What one language adds to the skeleton. One file implements it per language.
pub(super) trait Agent {
    /// The language's own part of the Instrumentation's variables.
    fn env(&self) -> &[EnvVar];

    /// Objections to this container, or else what the language mounts into it.
    fn attach(&self, container: &mut Container, env: &Environment) -> Result<(), Refusal>;

    fn suits_init_containers(&self) -> bool {
        true
    }

    /// For an agent whose files depend on the container: what brings them, and the container's changes. Called for the first
    /// container that takes the agent, with the language's own variables in `env`.
    ///
    /// # Errors
    /// The container has something where the agent must be.
    fn stage(&self, _container: &mut Container, _env: &mut Environment, _facts: &Facts<'_>) -> Result<Staged, Refusal> {
        Ok(Staged::default())
    }

    /// What to say of a container behind the `first` one, where only that one gets the agent's files.
    fn further(&self, _container: &str, _first: &str) -> Option<String> {
        None
    }

    /// Variables that come before the Instrumentation's common ones. Returned sentences go to the user.
    fn load_early(&self, _env: &mut Environment) -> Vec<String> {
        Vec::new()
    }

    /// The variables by which the runtime finds the agent. Returned sentences go to the user.
    fn load(&self, container: &str, env: &mut Environment) -> Vec<String>;

    /// What of the language's section has no effect as it is written, a sentence each.
    fn doubts(&self) -> Vec<String>;

    /// What brings the agent into the pod; `None` where nothing needs to.
    fn delivery(&self) -> Option<Delivery>;
}

/// Volumes and the init containers that fill them, in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Delivery {
    pub(super) volumes: Vec<Volume>,
    pub(super) init_containers: Vec<Container>,
}

/// A delivery made for one container, and sentences for the user.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) delivery: Option<Delivery>,
    pub(super) notes: Vec<String>,
}

/// What an agent is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preparation<'a> {
    pub(super) request: PodRequest<'a>,
    pub(super) settings: &'a Settings,
    pub(super) spec: &'a InstrumentationSpec,
}

/// The agent of a language; what would make pods invalid is refused here, before any container is touched.
fn for_language<'a>(language: Language, preparation: &Preparation<'a>) -> Result<Box<dyn Agent + 'a>, Refusal> {
    match language {
        Language::Java => Ok(Box::new(JavaAgent::new(preparation)?)),
        Language::NodeJs => Ok(Box::new(NodeJsAgent::new(preparation)?)),
        Language::Python => Ok(Box::new(PythonAgent::new(preparation)?)),
        Language::DotNet => Ok(Box::new(DotNetAgent::new(preparation)?)),
        Language::ApacheHttpd => Ok(Box::new(apache::agent(preparation)?)),
        Language::Nginx => Ok(Box::new(nginx::agent(preparation)?)),
        // Go has a skeleton of its own, see `go::apply`.
        Language::Go | Language::Sdk => Ok(Box::new(SdkOnly)),
    }
}

/// A variable of the container that is to be extended must have a literal value.
pub(super) fn check_extensible(
    language: Language,
    container: &str,
    env: &Environment,
    variable: &str,
) -> Result<(), Refusal> {
    if env.get(variable).is_none_or(|var| var.value_from.is_none()) {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::EnvironmentFromSource,
        format!(
            "{language}: container {container} takes {variable} from a valueFrom, which cannot be extended; give it a plain value"
        ),
    ))
}

/// What to say of an Instrumentation's variable that could not be extended. `ours` begins with a blank.
pub(super) fn note_unless(extended: bool, language: Language, variable: &str, ours: &str) -> Vec<String> {
    let note =
        || format!("{language}: the Instrumentation takes {variable} from a valueFrom; it must hold{ours} itself");
    (!extended).then(note).into_iter().collect()
}

/// Whether a container is the first of its language in the pod that takes the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    First,
    Further,
}

/// A pod while languages are applied to it, one after the other.
pub(super) struct Injection<'a> {
    pub(super) request: PodRequest<'a>,
    pub(super) settings: &'a Settings,
    owners: &'a [Owner],
    /// Whether the pod as it came passes Pod Security `restricted`.
    pub(super) restricted: bool,
    pub(super) pod: Pod,
    pub(super) changed: bool,
}

impl<'a> Injection<'a> {
    pub(super) fn new(request: &PodRequest<'a>, settings: &'a Settings, owners: &'a [Owner]) -> Self {
        let restricted = pod_security::is_restricted(request.pod);
        Self { request: *request, settings, owners, restricted, pod: request.pod.clone(), changed: false }
    }

    /// The pod, if any container was injected.
    pub(super) fn into_changed_pod(self) -> Option<Pod> {
        self.changed.then_some(self.pod)
    }

    /// Applies one language and records what became of each container.
    pub(super) fn apply(&mut self, plan: &Plan, decision: &mut Decision) {
        let language = plan.language;
        if language == Language::Go {
            return go::apply(self, plan, decision);
        }
        let spec = &plan.instrumentation.spec;
        let preparation = Preparation { request: self.request, settings: self.settings, spec };
        let prepared =
            validity::check(spec, self.pod.spec.as_ref()).and_then(|()| for_language(language, &preparation));
        let agent = match prepared {
            Ok(agent) => agent,
            Err(mut refusal) => {
                refusal.name_instrumentation(&plan.instrumentation);
                decision.outcomes.push(Outcome::refused(language, None, &refusal));
                return;
            }
        };
        let Some(spec) = &self.pod.spec else { return };
        let mut delivery = agent.delivery();
        if let Some(refusal) = delivery.as_ref().and_then(|delivery| name_clash(language, delivery, spec)) {
            decision.outcomes.push(Outcome::refused(language, None, &refusal));
            return;
        }
        let names = targets::in_processing_order(spec, &plan.containers);
        // An empty part of a list says nothing, unless there is nothing else.
        let says = |listed: &String| !listed.is_empty() || names.is_empty();
        for listed in plan.containers.iter().filter(|listed| says(listed) && !names.contains(listed)) {
            let message = format!("{language}: the pod has no container \"{listed}\"");
            let refusal = Refusal::new(Reason::ContainerNotFound, message);
            decision.outcomes.push(Outcome::refused(language, Some(listed), &refusal));
        }

        // The operator brings the files even to a pod whose containers were all refused.
        let strict = self.settings.strict_operator_compat;
        let mut first = names.first().filter(|_| strict).cloned();
        let mut injected_first: Option<String> = None;
        for name in names {
            let rank = if injected_first.is_none() { Rank::First } else { Rank::Further };
            match self.apply_to_container(&name, plan, agent.as_ref(), rank) {
                Ok(staged) => {
                    decision.outcomes.push(Outcome::injected(language, &name, &plan.instrumentation));
                    decision.notes.extend(staged.notes);
                    if staged.delivery.is_some() {
                        delivery = staged.delivery;
                        first = Some(name.clone());
                    }
                    self.changed = true;
                    decision.notes.extend(injected_first.as_ref().and_then(|first| agent.further(&name, first)));
                    injected_first.get_or_insert(name.clone());
                    first.get_or_insert(name);
                }
                Err(refusal) => decision.outcomes.push(Outcome::refused(language, Some(&name), &refusal)),
            }
        }
        if let (Some(first), Some(delivery)) = (first, delivery) {
            self.changed = true;
            decision.notes.extend(self.deliver(delivery, &first, plan));
        }
        Self::note_doubts(plan, agent.doubts(), agent.env(), decision);
    }

    /// What of the Instrumentation has no effect; `env` is the language's own list.
    pub(super) fn note_doubts(plan: &Plan, doubts: Vec<String>, env: &[EnvVar], decision: &mut Decision) {
        let sampler = validity::doubtful_sampler(&plan.instrumentation.spec.sampler);
        for doubt in doubts.into_iter().chain(sampler) {
            decision.notes.push(format!("Instrumentation {}: {doubt}", plan.instrumentation.full_name()));
        }
        for (list, env) in [
            (format!("spec.{}.env", plan.language.section()), env),
            ("spec.env".to_owned(), plan.instrumentation.spec.env.as_slice()),
        ] {
            for dropped in validity::dropped_variables(env) {
                decision.notes.push(format!("Instrumentation {}: {list} {dropped}", plan.instrumentation.full_name()));
            }
        }
    }

    /// What the SDK's configuration is derived from.
    pub(super) fn facts<'b>(&'b self, spec: &'b InstrumentationSpec) -> Facts<'b> {
        Facts {
            pod: self.request.pod,
            namespace: self.request.namespace,
            owners: self.owners,
            spec,
            strict: self.settings.strict_operator_compat,
        }
    }

    fn apply_to_container(
        &mut self,
        name: &str,
        plan: &Plan,
        agent: &dyn Agent,
        rank: Rank,
    ) -> Result<Staged, Refusal> {
        let facts = self.facts(&plan.instrumentation.spec);
        let Some(spec) = &self.pod.spec else { return Ok(Staged::default()) };
        let Some(place) = targets::container(spec, name) else { return Ok(Staged::default()) };
        if !agent.suits_init_containers() && !spec.containers.iter().any(|container| container.name == name) {
            return Err(targets::unsuitable_init_container(plan.language, name));
        }
        // Changed aside, so that a refusal half-way leaves nothing behind.
        let mut container = place.clone();
        let mut env = Environment::of(container.env.take());
        agent.attach(&mut container, &env)?;
        env.push_all_absent(&validity::usable_variables(agent.env()));
        let mut staged = match rank {
            Rank::First => agent.stage(&mut container, &mut env, &facts)?,
            Rank::Further => Staged::default(),
        };
        let mut volumes = spec.volumes.clone().unwrap_or_default();
        if let Some(delivery) = &staged.delivery {
            if let Some(refusal) = name_clash(plan.language, delivery, spec) {
                return Err(refusal);
            }
            add_volumes(&mut volumes, &delivery.volumes);
        }
        staged.notes.extend(agent.load_early(&mut env));
        env.prepend_addresses();
        env.push_all_absent(&validity::usable_variables(&plan.instrumentation.spec.env));
        staged.notes.extend(agent.load(name, &mut env));
        sdk_config::apply(&facts, &mut container, &mut env, &mut volumes)?;
        container.env = Some(if facts.strict { env.into_variables_as_they_stand() } else { env.into_variables() });
        let Some(spec) = &mut self.pod.spec else { return Ok(Staged::default()) };
        spec.volumes = (!volumes.is_empty()).then_some(volumes);
        if let Some(place) = targets::container_mut(spec, name) {
            *place = container;
        }
        Ok(staged)
    }

    /// Adds volumes and init containers; their names are free. Returned sentences go to the user.
    fn deliver(&mut self, delivery: Delivery, first: &str, plan: &Plan) -> Option<String> {
        let spec = self.pod.spec.as_mut()?;
        add_volumes(spec.volumes.get_or_insert_default(), &delivery.volumes);
        if delivery.init_containers.is_empty() {
            return None;
        }
        let target = targets::container(spec, first).cloned();
        let target_context = target.as_ref().and_then(|c| c.security_context.as_ref());
        let context = plan.instrumentation.spec.init_container_security_context.as_ref().or(target_context);
        let mut context = context.cloned();
        let mut taken_back = Vec::new();
        let mut level = "restricted, to which the pod keeps";
        let pod_context = spec.security_context.as_ref();
        if self.restricted {
            taken_back = pod_security::restrict(context.get_or_insert_default(), pod_context);
        } else if self.request.namespace_annotations.get(ENFORCE_LABEL).is_some_and(|level| level == "baseline")
            && let Some(context) = &mut context
        {
            level = "baseline, which the namespace enforces";
            taken_back = pod_security::keep_to_baseline(context);
        }
        let init_containers = spec.init_containers.get_or_insert_default();
        let at = init_containers.iter().position(|c| c.name == first).unwrap_or(init_containers.len());
        for (offset, mut container) in delivery.init_containers.into_iter().enumerate() {
            let mut context = context.clone();
            // The target's own image runs as it does in the target.
            if self.restricted && target.as_ref().is_none_or(|target| target.image != container.image) {
                pod_security::give_user(context.get_or_insert_default(), pod_context, target_context);
            }
            container.security_context = context;
            init_containers.insert(at + offset, container);
        }
        (!taken_back.is_empty()).then(|| {
            format!(
                "Instrumentation {}: spec.initContainerSecurityContext does not keep to Pod Security {level}; changed: {}",
                plan.instrumentation.full_name(),
                taken_back.join(", ")
            )
        })
    }
}

/// Adds what is not there. One that is there is ours, see `name_clash`.
fn add_volumes(volumes: &mut Vec<Volume>, ours: &[Volume]) {
    for volume in ours {
        if !volumes.iter().any(|present| present.name == volume.name) {
            volumes.push(volume.clone());
        }
    }
}

/// A container or volume of the pod that is called as one of ours; names are unique within a pod. That the container is
/// ours cannot be: such pods are left alone from the start.
fn name_clash(language: Language, delivery: &Delivery, spec: &PodSpec) -> Option<Refusal> {
    let container = delivery.init_containers.iter().find(|ours| targets::container(spec, &ours.name).is_some());
    let clashes = |volume: &Volume| {
        delivery.volumes.iter().any(|ours| volume.name == ours.name && !volumes::is_same(volume, ours))
    };
    let volume = || spec.volumes.iter().flatten().find(|volume| clashes(volume));
    let (kind, name) = match container {
        Some(container) => ("container", &container.name),
        None => ("volume", &volume()?.name),
    };
    let message = if name == CLONE_CONTAINER {
        // Pods that came with it are left alone from the start.
        format!("{language}: another web server's agent is injected into this pod, which has room for one; ask for one")
    } else {
        format!("{language}: the pod has a {kind} \"{name}\" already, a name that is needed; rename it")
    };
    Some(Refusal::new(Reason::NameTaken, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_an_agent() {
        let (pod, namespace_annotations) = (Pod::default(), std::collections::BTreeMap::new());
        let preparation = Preparation {
            request: PodRequest { pod: &pod, namespace: "ns", namespace_annotations: &namespace_annotations },
            settings: &Settings::default(),
            spec: &InstrumentationSpec::default(),
        };
        for language in Language::ALL {
            assert!(for_language(language, &preparation).is_ok(), "{language}");
        }
    }
}
