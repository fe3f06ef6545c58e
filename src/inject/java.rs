//! Java, as opentelemetry-operator injects it: the agent is a jar that `JAVA_TOOL_OPTIONS` names.

use k8s_openapi::api::core::v1::{Container, EnvVar, PersistentVolumeClaimTemplate, ResourceRequirements, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;

use super::agent::{Agent, Delivery};
use super::environment::Environment;
use super::instrumentation::InstrumentationSpec;
use super::outcome::{Reason, Refusal};
use super::validity::{self, Requests};
use super::volumes::{agent_volume, mount};

/// Volume and init container have the same name; it is a marker of injected pods.
const NAME: &str = "opentelemetry-auto-instrumentation-java";
const EXTENSION_PREFIX: &str = "opentelemetry-auto-instrumentation-extension-";
const DIRECTORY: &str = "/otel-auto-instrumentation-java";
const VARIABLE: &str = "JAVA_TOOL_OPTIONS";

/// opentelemetry-operator's default as of its java agent 2.30.0.
const IMAGE_DEFAULT: &str = "ghcr.io/open-telemetry/opentelemetry-operator/autoinstrumentation-java:2.30.0";
const REQUESTS_DEFAULT: Requests = Requests { cpu: "50m", memory: "64Mi" };

/// `spec.java`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JavaSection {
    pub image: String,
    pub volume_claim_template: Option<PersistentVolumeClaimTemplate>,
    pub volume_limit_size: Option<Quantity>,
    pub env: Vec<EnvVar>,
    pub resources: ResourceRequirements,
    pub extensions: Vec<Extension>,
}

/// One of `spec.java.extensions`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Extension {
    pub image: String,
    pub dir: String,
}

#[derive(Debug)]
pub(super) struct JavaAgent<'a> {
    java: &'a JavaSection,
    resources: ResourceRequirements,
    pull_policy: Option<String>,
}

impl<'a> JavaAgent<'a> {
    pub(super) fn new(spec: &'a InstrumentationSpec) -> Result<Self, Refusal> {
        let java = &spec.java;
        validity::check_image("spec.java.image", &java.image)?;
        for (at, extension) in java.extensions.iter().enumerate() {
            let field = format!("spec.java.extensions[{at}]");
            if extension.image.is_empty() {
                return Err(Refusal::new(Reason::InstrumentationInvalid, format!("{field} has no image")));
            }
            validity::check_image(&format!("{field}.image"), &extension.image)?;
        }
        validity::check_volume("java", java.volume_claim_template.as_ref(), java.volume_limit_size.as_ref())?;
        Ok(Self {
            java,
            resources: validity::resources("java", &java.resources, &REQUESTS_DEFAULT)?,
            pull_policy: (!spec.image_pull_policy.is_empty()).then(|| spec.image_pull_policy.clone()),
        })
    }

    fn init_container(&self, name: String, image: &str, command: &[&str]) -> Container {
        Container {
            name,
            image: Some(image.to_owned()),
            command: Some(command.iter().map(|&word| word.to_owned()).collect()),
            resources: Some(self.resources.clone()),
            volume_mounts: Some(vec![VolumeMount {
                name: NAME.to_owned(),
                mount_path: DIRECTORY.to_owned(),
                ..VolumeMount::default()
            }]),
            ..Container::default()
        }
    }
}

/// Where the volume is mounted in a container. The path has the container's name in it, because containers that share
/// the process namespace would otherwise load one another's agent.
fn directory_in(container: &str) -> String {
    format!("{DIRECTORY}-{container}")
}

impl Agent for JavaAgent<'_> {
    fn env(&self) -> &[EnvVar] {
        &self.java.env
    }

    fn attach(&self, container: &mut Container, env: &Environment) -> Result<(), Refusal> {
        if env.get(VARIABLE).is_some_and(|var| var.value_from.is_some()) {
            return Err(Refusal::new(
                Reason::EnvironmentFromSource,
                format!(
                    "java: container {} takes {VARIABLE} from a valueFrom, which cannot be extended; give it a plain value",
                    container.name
                ),
            ));
        }
        let path = directory_in(&container.name);
        mount(container, NAME, &path, false, |name| name == NAME)
    }

    fn load(&self, container: &str, env: &mut Environment) -> Option<String> {
        let directory = directory_in(container);
        let mut options = format!(" -javaagent:{directory}/javaagent.jar");
        if !self.java.extensions.is_empty() {
            options.push_str(&format!(" -Dotel.javaagent.extensions={directory}/extensions"));
        }
        let extended = env.extend_value(VARIABLE, &options);
        (!extended).then(|| {
            format!("java: the Instrumentation takes {VARIABLE} from a valueFrom; it must hold{options} itself")
        })
    }

    fn doubts(&self) -> Vec<String> {
        let both = self.java.volume_claim_template.is_some() && self.java.volume_limit_size.is_some();
        both.then(|| "spec.java has volumeClaimTemplate and volumeLimitSize; the limit has no effect".to_owned())
            .into_iter()
            .collect()
    }

    fn delivery(&self) -> Option<Delivery> {
        let java = self.java;
        let image = if java.image.is_empty() { IMAGE_DEFAULT } else { &java.image };
        let jar = format!("{DIRECTORY}/javaagent.jar");
        let mut agent = self.init_container(NAME.to_owned(), image, &["cp", "/javaagent.jar", &jar]);
        agent.image_pull_policy.clone_from(&self.pull_policy);
        let mut init_containers = vec![agent];
        for (at, extension) in java.extensions.iter().enumerate() {
            let from = format!("{}/.", extension.dir);
            let to = format!("{DIRECTORY}/extensions");
            let name = format!("{EXTENSION_PREFIX}{at}");
            init_containers.push(self.init_container(name, &extension.image, &["cp", "-r", &from, &to]));
        }
        let volume = agent_volume(NAME, java.volume_claim_template.as_ref(), java.volume_limit_size.as_ref());
        Some(Delivery { volume, init_containers })
    }
}
