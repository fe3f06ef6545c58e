//! Go, as opentelemetry-operator injects it: a privileged sidecar that watches the target's process from outside.
//!
//! The target itself is not touched. What describes it is read from the target, what configures the agent goes into the
//! sidecar, so this language has a skeleton of its own.

use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, Pod, PodSpec, SecurityContext, Volume, VolumeMount};
use serde::Deserialize;

use super::agent::{Injection, Preparation};
use super::agent_files::AgentSection;
use super::environment::{Environment, literal};
use super::outcome::{Decision, Outcome, Reason, Refusal};
use super::pod_security::ENFORCE_LABEL;
use super::targets::{self, INJECTED_CONTAINER};
use super::validity::{self, Requests};
use super::{Language, Plan, annotations, sdk_config};

const TARGET_VARIABLE: &str = "OTEL_GO_AUTO_TARGET_EXE";
/// Of the pod only: no two workloads of a namespace share it.
const TARGET_KEY: &str = "otel-go-auto-target-exe";
const KERNEL_VOLUME: &str = "kernel-debug";
const KERNEL_PATH: &str = "/sys/kernel/debug";
const REQUESTS_DEFAULT: Requests = Requests { cpu: "50m", memory: "64Mi" };

/// `spec.go`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GoSection {
    #[serde(flatten)]
    pub agent: AgentSection,
    /// The sidecar's; it needs the rights of root on the node.
    pub security_context: Option<SecurityContext>,
}

/// Applies the language and records what became of it.
pub(super) fn apply(injection: &mut Injection<'_>, plan: &Plan, decision: &mut Decision) {
    let spec = &plan.instrumentation.spec;
    let preparation = Preparation { request: injection.request, settings: injection.settings, spec };
    let Some(pod_spec) = &injection.pod.spec else { return };
    let listed = plan.containers.first();
    let Some(target) = target(pod_spec, listed) else { return };
    let changed = validity::check(spec, Some(pod_spec))
        .and_then(|()| check_pod(&preparation, pod_spec, target))
        .and_then(|()| with_sidecar(injection, &preparation, target));
    let name = target.name.clone();
    match changed {
        Ok(pod) => {
            injection.pod = pod;
            injection.changed = true;
            decision.outcomes.push(Outcome::injected(Language::Go, &name, &plan.instrumentation));
        }
        Err(mut refusal) => {
            refusal.name_instrumentation(&plan.instrumentation);
            decision.outcomes.push(Outcome::refused(Language::Go, Some(&name), &refusal));
            return;
        }
    }
    if let Some(listed) = listed.filter(|listed| **listed != name) {
        decision.notes.push(format!("go: the pod has no container \"{listed}\"; container {name} is watched instead"));
    }
    if let Some((_, others)) = plan.containers.split_first().filter(|(_, others)| !others.is_empty()) {
        decision.notes.push(format!("go: one container is watched, {name}; {} left out", others.join(", ")));
    }
    if injection.restricted {
        decision.notes.push(
            "go: the agent is privileged and mounts a folder of the node; Pod Security restricted or baseline refuses such pods"
                .to_owned(),
        );
    }
    let section = &spec.go.agent;
    let unused = [
        ("volumeClaimTemplate", section.volume_claim_template.is_some()),
        ("volumeLimitSize", section.volume_limit_size.is_some()),
    ];
    let unused = unused.into_iter().filter(|(_, given)| *given);
    let doubts = unused.map(|(key, _)| format!("spec.go.{key} has no effect: the agent is not copied")).collect();
    Injection::note_doubts(plan, doubts, &section.env, decision);
}

/// The first listed container; the pod's first one where none is listed, or, as for the operator, no such one exists.
fn target<'a>(spec: &'a PodSpec, listed: Option<&String>) -> Option<&'a Container> {
    listed.and_then(|name| targets::container(spec, name)).or_else(|| spec.containers.first())
}

fn check_pod(preparation: &Preparation<'_>, spec: &PodSpec, target: &Container) -> Result<(), Refusal> {
    if spec.init_containers.iter().flatten().any(|init| init.name == target.name) {
        return Err(targets::unsuitable_init_container(Language::Go, &target.name));
    }
    let refuse = |reason, message: &str| Err(Refusal::new(reason, format!("go: {message}")));
    if spec.share_process_namespace == Some(false) {
        let message = "the pod sets shareProcessNamespace: false, and the agent must see the processes; remove it";
        return refuse(Reason::ProcessesNotShared, message);
    }
    if spec.host_pid == Some(true) {
        let message = "the pod sets hostPID, beside which shareProcessNamespace, needed by the agent, is not allowed";
        return refuse(Reason::ProcessesNotShared, message);
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return refuse(Reason::ProcessesNotShared, "Windows has no shared process namespaces");
    }
    let enforced = preparation.request.namespace_annotations.get(ENFORCE_LABEL).map(String::as_str);
    if let Some(level @ ("baseline" | "restricted")) = enforced {
        let message = format!(
            "the namespace enforces Pod Security {level}, which refuses the agent's privileges and its folder of the node; run the pod in another one"
        );
        return refuse(Reason::PodSecurityEnforced, &message);
    }
    let multi = preparation.settings.multi_instrumentation;
    let key = if multi { Language::Go.container_names_key() } else { "container-names".to_owned() };
    if annotations::of_pod(&preparation.request, &key).contains(',') {
        let message = format!("annotation {} lists several containers, go takes one", annotations::option_key(&key));
        return refuse(Reason::OneContainerOnly, &message);
    }
    if let Some(clash) = targets::container(spec, INJECTED_CONTAINER) {
        let message = format!("the pod has a container \"{}\" already, a name that is needed; rename it", clash.name);
        return refuse(Reason::NameTaken, &message);
    }
    if spec.volumes.iter().flatten().any(|volume| volume.name == KERNEL_VOLUME && !is_kernel_volume(volume)) {
        let message = format!("the pod has a volume \"{KERNEL_VOLUME}\" already, a name that is needed; rename it");
        return refuse(Reason::NameTaken, &message);
    }
    Ok(())
}

/// The pod as it should be.
fn with_sidecar(injection: &Injection<'_>, preparation: &Preparation<'_>, target: &Container) -> Result<Pod, Refusal> {
    let section = &preparation.spec.go;
    let strict = preparation.settings.strict_operator_compat;
    let (mut sidecar, mut env) = sidecar(preparation)?;
    let executable = annotations::of_pod(&preparation.request, TARGET_KEY);
    let annotated = annotations::has_of_pod(&preparation.request, TARGET_KEY);
    // The operator takes an empty one for a path.
    if !executable.is_empty() || (annotated && strict) {
        env.push(literal(TARGET_VARIABLE, executable));
    }
    env.push_all_absent(&validity::usable_variables(&section.agent.env));
    env.prepend_addresses();
    env.push_all_absent(&validity::usable_variables(&preparation.spec.env));
    if !env.has(TARGET_VARIABLE) {
        let message = format!(
            "go: the agent must know the executable's path; say it in annotation {} or as {TARGET_VARIABLE} in spec.go.env",
            annotations::option_key(TARGET_KEY)
        );
        return Err(Refusal::new(Reason::TargetExecutableMissing, message));
    }

    let mut pod = injection.pod.clone();
    let Some(spec) = &mut pod.spec else { return Ok(pod) };
    spec.share_process_namespace = Some(true);
    let mut volumes = spec.volumes.take().unwrap_or_default();
    if !volumes.iter().any(is_kernel_volume) {
        volumes.push(kernel_volume());
    }
    // As it came: what other languages added to it describes it no better. For the operator only what they left out counts.
    let came = preparation.request.pod.spec.as_ref().and_then(|spec| targets::container(spec, &target.name));
    let described = came.filter(|_| !strict).unwrap_or(target);
    let described_env = Environment::of(described.env.clone());
    let facts = injection.facts(preparation.spec);
    sdk_config::apply_for(&facts, (described, &described_env), &mut sidecar, &mut env, &mut volumes)?;
    sidecar.env = Some(if strict { env.into_variables_as_they_stand() } else { env.into_variables() });
    spec.volumes = Some(volumes);
    spec.containers.push(sidecar);
    Ok(pod)
}

fn sidecar(preparation: &Preparation<'_>) -> Result<(Container, Environment), Refusal> {
    let section = &preparation.spec.go;
    validity::check_image("spec.go.image", &section.agent.image)?;
    let pod = preparation.request.pod.spec.as_ref();
    if let Some(context) = &section.security_context {
        validity::check_security_context("spec.go.securityContext", context, pod)?;
    }
    let resources =
        validity::resources("spec.go.resourceRequirements", &section.agent.resource_requirements, &REQUESTS_DEFAULT)?;
    let image = match section.agent.image.as_str() {
        "" => preparation.settings.images.of(Language::Go).unwrap_or_default(),
        given => given,
    };
    let privileged = || SecurityContext { run_as_user: Some(0), privileged: Some(true), ..SecurityContext::default() };
    let mount =
        VolumeMount { name: KERNEL_VOLUME.to_owned(), mount_path: KERNEL_PATH.to_owned(), ..VolumeMount::default() };
    let pull_policy = &preparation.spec.image_pull_policy;
    let sidecar = Container {
        name: INJECTED_CONTAINER.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: (!pull_policy.is_empty()).then(|| pull_policy.clone()),
        resources: Some(resources),
        security_context: Some(section.security_context.clone().unwrap_or_else(privileged)),
        volume_mounts: Some(vec![mount]),
        ..Container::default()
    };
    Ok((sidecar, Environment::of(None)))
}

fn kernel_volume() -> Volume {
    let source = HostPathVolumeSource { path: KERNEL_PATH.to_owned(), type_: None };
    Volume { name: KERNEL_VOLUME.to_owned(), host_path: Some(source), ..Volume::default() }
}

fn is_kernel_volume(volume: &Volume) -> bool {
    let path = volume.host_path.as_ref().map(|source| source.path.trim_end_matches('/'));
    volume.name == KERNEL_VOLUME && path == Some(KERNEL_PATH)
}
