//! Web servers, as opentelemetry-operator injects them: the agent is a module that the server's own configuration loads.
//!
//! ```text
//! server's image: configuration ─ clone ─▶ conf volume ─ attach (Include, load_module) ─▶ mount over the original
//! agent's image:  module ──────────────── attach ─▶ agent volume ───────────────────────▶ mount
//! ```
//!
//! Both servers' modules read directives, not variables, and speak OTLP over gRPC only.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, ResourceRequirements, Volume, VolumeMount};

use super::Language;
use super::agent::{self, Agent, Delivery, Preparation, Staged};
use super::agent_files::AgentSection;
use super::environment::{Environment, field, literal};
use super::outcome::{Reason, Refusal};
use super::resource_attributes::Attributes;
use super::sdk_config::Facts;
use super::validity::{self, Requests};
use super::volumes::mount;

/// Runs the server's own image; a marker of injected pods. One pod has room for one.
pub(super) const CLONE_CONTAINER: &str = "otel-agent-source-container-clone";
/// Where containers find the agent.
pub(super) const AGENT_DIRECTORY: &str = "/opt/opentelemetry-webserver/agent";
/// Where init containers work on the configuration.
pub(super) const STAGING_DIRECTORY: &str = "/opt/opentelemetry-webserver/source-conf";

const REQUESTS_DEFAULT: Requests = Requests { cpu: "1m", memory: "128Mi" };
const LIBRARY_PATH_VARIABLE: &str = "LD_LIBRARY_PATH";
/// Stands for the pod's name, which is not known yet, until the attach container runs.
const INSTANCE_PLACEHOLDER: &str = "<<SID-PLACEHOLDER>>";
const ENDPOINT_DEFAULT: &str = "http://localhost:4317/";
/// As the resource's schema has it.
const PATH_BYTES_MAX: usize = 256;

/// What distinguishes one server from the other, whatever the Instrumentation says.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) language: Language,
    /// A marker of injected pods, too.
    pub(super) attach_container: &'static str,
    pub(super) configuration_volume: &'static str,
    pub(super) agent_volume: &'static str,
    /// Holds the agent's configuration for the attach script.
    pub(super) configuration_variable: &'static str,
    /// Holds the pod's name for the attach script.
    pub(super) instance_variable: &'static str,
    pub(super) attach_script: &'static str,
    /// What every directive's name begins with.
    pub(super) directive_prefix: &'static str,
    pub(super) line_end: &'static str,
    /// Whether the module finds its libraries by `LD_LIBRARY_PATH`.
    pub(super) needs_library_path: bool,
}

/// The agent of one server, as one Instrumentation has it.
#[derive(Debug)]
pub(super) struct WebServerAgent<'a> {
    pub(super) server: &'static Server,
    pub(super) section: &'a AgentSection,
    pub(super) attributes: &'a [EnvVar],
    /// Folder of the server's configuration, normalized.
    pub(super) directory: String,
    /// Paths in it, without the folder, that the attach script writes to.
    pub(super) written: Vec<String>,
    pub(super) clone_command: Vec<String>,
    pub(super) clone_arguments: Option<Vec<String>>,
    pub(super) attach_argument: String,
    /// The configuration's lines before the directives.
    pub(super) preamble: String,
    pub(super) volumes: Vec<Volume>,
    pub(super) doubts: Vec<String>,
    pub(super) files: AgentImage<'a>,
}

/// What the attach container is made from.
#[derive(Debug)]
pub(super) struct AgentImage<'a> {
    image: String,
    resources: ResourceRequirements,
    pull_policy: Option<String>,
    common_env: &'a [EnvVar],
    strict: bool,
}

impl<'a> AgentImage<'a> {
    /// # Errors
    /// The section would make pods invalid.
    pub(super) fn new(
        language: Language,
        section: &AgentSection,
        preparation: &Preparation<'a>,
    ) -> Result<Self, Refusal> {
        let key = language.section();
        validity::check_image(&format!("spec.{key}.image"), &section.image)?;
        validity::check_volume(key, section.volume_claim_template.as_ref(), section.volume_limit_size.as_ref())?;
        let resources_field = format!("spec.{key}.resourceRequirements");
        let resources = validity::resources(&resources_field, &section.resource_requirements, &REQUESTS_DEFAULT)?;
        let image = match section.image.as_str() {
            "" => preparation.settings.images.of(language).unwrap_or_default(),
            given => given,
        };
        let pull_policy = &preparation.spec.image_pull_policy;
        Ok(Self {
            image: image.to_owned(),
            resources,
            pull_policy: (!pull_policy.is_empty()).then(|| pull_policy.clone()),
            common_env: &preparation.spec.env,
            strict: preparation.settings.strict_operator_compat,
        })
    }
}

impl Agent for WebServerAgent<'_> {
    fn env(&self) -> &[EnvVar] {
        &self.section.env
    }

    fn suits_init_containers(&self) -> bool {
        false
    }

    fn attach(&self, container: &mut Container, env: &Environment) -> Result<(), Refusal> {
        if self.server.needs_library_path {
            agent::check_extensible(self.server.language, &container.name, env, LIBRARY_PATH_VARIABLE)?;
        }
        Ok(())
    }

    fn stage(&self, container: &mut Container, env: &mut Environment, facts: &Facts<'_>) -> Result<Staged, Refusal> {
        let attach = self.attach_container(container, env, facts);
        let mut notes = Vec::new();
        let clone_env = self.extend_library_path(env, &mut notes);
        let clone = self.clone_container(container, clone_env)?;
        self.mount_over(container, &mut notes)?;
        let delivery = Delivery { volumes: self.volumes.clone(), init_containers: vec![clone, attach] };
        Ok(Staged { delivery: Some(delivery), notes })
    }

    fn further(&self, container: &str, first: &str) -> Option<String> {
        let language = self.server.language;
        Some(format!(
            "{language}: the agent goes into container {first} only; container {container} has got the variables"
        ))
    }

    fn load(&self, _container: &str, _env: &mut Environment) -> Vec<String> {
        Vec::new()
    }

    fn doubts(&self) -> Vec<String> {
        let from_source = self.attributes.iter().filter(|attribute| attribute.value_from.is_some());
        let key = self.server.language.section();
        let left_out = from_source.map(|attribute| {
            format!("spec.{key}.attrs entry \"{}\" is left out: it needs a plain value", attribute.name)
        });
        self.doubts.iter().cloned().chain(left_out).collect()
    }

    fn delivery(&self) -> Option<Delivery> {
        None
    }
}

impl WebServerAgent<'_> {
    /// The server's own image and mounts, so that it sees the configuration that the server would see.
    fn clone_container(&self, container: &Container, env: Vec<EnvVar>) -> Result<Container, Refusal> {
        let mut clone = Container {
            name: CLONE_CONTAINER.to_owned(),
            image: container.image.clone(),
            command: Some(self.clone_command.clone()),
            args: self.clone_arguments.clone(),
            env: (!env.is_empty()).then_some(env),
            env_from: container.env_from.clone(),
            volume_mounts: container.volume_mounts.clone(),
            resources: Some(self.files.resources.clone()),
            image_pull_policy: container.image_pull_policy.clone(),
            ..Container::default()
        };
        mount(&mut clone, volume_mount(self.server.configuration_volume, STAGING_DIRECTORY), |_| false)?;
        Ok(clone)
    }

    fn attach_container(&self, container: &Container, env: &Environment, facts: &Facts<'_>) -> Container {
        let Server { configuration_variable, instance_variable, .. } = *self.server;
        let mut own = Environment::of(None);
        own.push_all_absent(&validity::usable_variables(&self.section.env));
        own.push_all_absent(&validity::usable_variables(self.files.common_env));
        own.append_addresses();
        own.set_last(literal(configuration_variable, self.configuration(container, env, facts)));
        own.set_last(field(instance_variable, "metadata.name"));
        let script = self.server.attach_script.to_owned();
        Container {
            name: self.server.attach_container.to_owned(),
            image: Some(self.files.image.clone()),
            image_pull_policy: self.files.pull_policy.clone(),
            command: Some(shell()),
            args: Some(vec![script, "--".to_owned(), self.attach_argument.clone()]),
            env: Some(if self.files.strict { own.into_variables_as_they_stand() } else { own.into_variables() }),
            resources: Some(self.files.resources.clone()),
            volume_mounts: Some(vec![
                volume_mount(self.server.agent_volume, AGENT_DIRECTORY),
                volume_mount(self.server.configuration_volume, STAGING_DIRECTORY),
            ]),
            ..Container::default()
        }
    }

    /// Extends the container's variable; returns what the clone gets. As for the operator the clone shares a variable that
    /// was there, and has none of its own.
    fn extend_library_path(&self, env: &mut Environment, notes: &mut Vec<String>) -> Vec<EnvVar> {
        let finished = |env: Environment| match self.files.strict {
            true => env.into_variables_as_they_stand(),
            false => env.into_variables(),
        };
        let before = env.clone();
        if !self.server.needs_library_path {
            return finished(before);
        }
        let ours = format!("{AGENT_DIRECTORY}/sdk_lib/lib");
        let extended = env.change_value(LIBRARY_PATH_VARIABLE, |existing| match existing {
            Some(existing) => format!("{existing}:{ours}"),
            None => ours.clone(),
        });
        notes.extend(agent::note_unless(extended, self.server.language, LIBRARY_PATH_VARIABLE, &format!(" {ours}")));
        let shared = if before.has(LIBRARY_PATH_VARIABLE) { env.clone() } else { before };
        finished(shared)
    }

    /// Mounts agent and configuration into the server. What the server has mounted there itself went into the copy; it
    /// would hide ours.
    ///
    /// The operator takes away the first mount whose path contains the folder's. Here it is the first one at the folder or
    /// below it, and every further one that hides what the attach script writes.
    fn mount_over(&self, container: &mut Container, notes: &mut Vec<String>) -> Result<(), Refusal> {
        let Server { language, configuration_volume, agent_volume, .. } = *self.server;
        let mut first = true;
        let mut taken = Vec::new();
        if let Some(mounts) = &mut container.volume_mounts {
            mounts.retain(|mount| {
                let path = mount.mount_path.trim_end_matches('/');
                let Some(below) = path.strip_prefix(&self.directory) else { return true };
                if !below.is_empty() && !below.starts_with('/') {
                    return true;
                }
                let inner = below.trim_start_matches('/');
                let hides = inner.is_empty() || self.written.iter().any(|written| written == inner);
                let keep = !std::mem::take(&mut first) && !hides;
                if !keep {
                    taken.push(mount.mount_path.clone());
                }
                keep
            });
        }
        if !taken.is_empty() {
            notes.push(format!(
                "{language}: container {} gets a copy of what was mounted at {}; later changes of the source do not reach it",
                container.name,
                taken.join(", ")
            ));
        }
        mount(container, volume_mount(agent_volume, AGENT_DIRECTORY), |_| false)?;
        mount(container, volume_mount(configuration_volume, &self.directory), |_| false)
    }

    /// The module's directives, sorted; the Instrumentation's attributes win.
    fn configuration(&self, container: &Container, env: &Environment, facts: &Facts<'_>) -> String {
        let namespace = facts.pod.metadata.namespace.as_deref().filter(|name| !name.is_empty());
        let endpoint = match facts.spec.exporter.endpoint.as_str() {
            "" => ENDPOINT_DEFAULT,
            given => given,
        };
        let service_name = Attributes::collect(facts, container, env).take_service_name();
        let mut directives: BTreeMap<String, &str> = [
            ("Enabled", "ON"),
            ("OtelSpanExporter", "otlp"),
            ("OtelExporterEndpoint", endpoint),
            ("ServiceName", &service_name),
            ("ServiceNamespace", namespace.unwrap_or(facts.namespace)),
            ("ServiceInstanceId", INSTANCE_PLACEHOLDER),
            ("ResolveBackends", "ON"),
            ("TraceAsError", "ON"),
        ]
        .into_iter()
        .map(|(name, value)| (format!("{}{name}", self.server.directive_prefix), value))
        .collect();
        for attribute in self.attributes.iter().filter(|attribute| attribute.value_from.is_none()) {
            directives.insert(attribute.name.clone(), attribute.value.as_deref().unwrap_or_default());
        }
        let line_end = self.server.line_end;
        let lines = directives.iter().map(|(name, value)| format!("{name} {value}{line_end}\n"));
        self.preamble.clone() + &lines.collect::<String>()
    }
}

/// How scripts are run: the script comes as the first argument, so that no other one is ever parsed by the shell.
pub(super) fn shell() -> Vec<String> {
    ["/bin/sh", "-c"].map(str::to_owned).to_vec()
}

/// An absolute path without doubled or trailing slashes.
///
/// # Errors
/// It is none that a folder in a container can have.
pub(super) fn normalized(field: &str, path: &str) -> Result<String, Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if !path.starts_with('/') || !path.chars().all(allowed) || path.len() > PATH_BYTES_MAX || parts.contains(&"..") {
        let message = format!("{field} \"{path}\" must be an absolute path of letters, digits, \".\", \"_\" and \"-\"");
        return Err(Refusal::new(Reason::InstrumentationInvalid, message));
    }
    if parts.is_empty() {
        let message = format!("{field} \"{path}\" is the root; a folder of its own is needed, for it is replaced");
        return Err(Refusal::new(Reason::InstrumentationInvalid, message));
    }
    Ok(format!("/{}", parts.join("/")))
}

fn volume_mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

#[cfg(test)]
mod tests;
