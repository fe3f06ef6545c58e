//! Java, as opentelemetry-operator injects it: the agent is a jar that `JAVA_TOOL_OPTIONS` names.

use k8s_openapi::api::core::v1::{Container, EnvVar, PersistentVolumeClaimTemplate, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;

use super::Language;
use super::agent::{self, Agent, Delivery, Preparation};
use super::agent_files::{AgentFiles, FilesSection, image_mount, image_volume};
use super::environment::Environment;
use super::outcome::{Reason, Refusal};
use super::settings::Carrier;
use super::validity::{self, Requests};
use super::volumes::mount;

/// Of an extension's init container, or of its volume.
const EXTENSION_PREFIX: &str = "opentelemetry-auto-instrumentation-extension-";
const VARIABLE: &str = "JAVA_TOOL_OPTIONS";
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
    files: AgentFiles,
}

impl<'a> JavaAgent<'a> {
    pub(super) fn new(preparation: &Preparation<'a>) -> Result<Self, Refusal> {
        let java = &preparation.spec.java;
        for (at, extension) in java.extensions.iter().enumerate() {
            let field = format!("spec.java.extensions[{at}]");
            if extension.image.is_empty() {
                return Err(Refusal::new(Reason::InstrumentationInvalid, format!("{field} has no image")));
            }
            validity::check_image(&format!("{field}.image"), &extension.image)?;
        }
        let section = FilesSection {
            image: &java.image,
            claim: java.volume_claim_template.as_ref(),
            limit: java.volume_limit_size.as_ref(),
            resources: &java.resources,
            resources_key: "resources",
        };
        let files = AgentFiles::new(Language::Java, section, &REQUESTS_DEFAULT, preparation)?;
        if files.carrier() == Carrier::ImageVolume
            && let Some(extension) = java.extensions.iter().find(|e| e.dir.split('/').any(|part| part == ".."))
        {
            let dir = &extension.dir;
            let message = format!("spec.java.extensions has dir \"{dir}\"; an image volume takes no \"..\"");
            return Err(Refusal::new(Reason::InstrumentationInvalid, message));
        }
        Ok(Self { java, files })
    }

    /// Where the agent is in a container. The path has the container's name in it, because containers that share the
    /// process namespace would otherwise load one another's agent.
    fn directory_in(&self, container: &str) -> String {
        format!("{}-{container}", self.files.directory())
    }

    /// Where an extension's image is in a container.
    fn extension_directory_in(&self, container: &str, at: usize) -> String {
        format!("{}-extension-{at}", self.directory_in(container))
    }

    /// What `otel.javaagent.extensions` names: folders of jars.
    fn extension_directories_in(&self, container: &str) -> Vec<String> {
        let extensions = &self.java.extensions;
        match self.files.carrier() {
            Carrier::InitContainer if extensions.is_empty() => Vec::new(),
            Carrier::InitContainer => vec![format!("{}/extensions", self.directory_in(container))],
            Carrier::ImageVolume => {
                (0..extensions.len()).map(|at| self.extension_directory_in(container, at)).collect()
            }
        }
    }
}

impl Agent for JavaAgent<'_> {
    fn env(&self) -> &[EnvVar] {
        &self.java.env
    }

    fn attach(&self, container: &mut Container, env: &Environment) -> Result<(), Refusal> {
        agent::check_extensible(Language::Java, &container.name, env, VARIABLE)?;
        let name = container.name.clone();
        self.files.mount(container, &self.directory_in(&name), None)?;
        if self.files.carrier() == Carrier::ImageVolume {
            for (at, extension) in self.java.extensions.iter().enumerate() {
                let volume = format!("{EXTENSION_PREFIX}{at}");
                let sub_path = extension.dir.trim_matches('/');
                let sub_path = (!sub_path.is_empty()).then_some(sub_path);
                let wanted = image_mount(&volume, &self.extension_directory_in(&name, at), sub_path);
                mount(container, wanted, |name| name == volume)?;
            }
        }
        Ok(())
    }

    fn load(&self, container: &str, env: &mut Environment) -> Vec<String> {
        let mut options = format!(" -javaagent:{}/javaagent.jar", self.directory_in(container));
        let extensions = self.extension_directories_in(container);
        if !extensions.is_empty() {
            options.push_str(&format!(" -Dotel.javaagent.extensions={}", extensions.join(",")));
        }
        let extended = env.change_value(VARIABLE, |existing| format!("{}{options}", existing.unwrap_or_default()));
        agent::note_unless(extended, Language::Java, VARIABLE, &options)
    }

    fn doubts(&self) -> Vec<String> {
        self.files.doubts()
    }

    fn delivery(&self) -> Option<Delivery> {
        let directory = self.files.directory();
        let jar = format!("{directory}/javaagent.jar");
        let mut delivery = self.files.delivery(&["cp", "/javaagent.jar", &jar]);
        for (at, extension) in self.java.extensions.iter().enumerate() {
            let name = format!("{EXTENSION_PREFIX}{at}");
            match self.files.carrier() {
                Carrier::InitContainer => {
                    let from = format!("{}/.", extension.dir);
                    let to = format!("{directory}/extensions");
                    let copying = self.files.init_container(name, &extension.image, &["cp", "-r", &from, &to]);
                    delivery.init_containers.push(copying);
                }
                Carrier::ImageVolume => delivery.volumes.push(image_volume(&name, &extension.image, None)),
            }
        }
        Some(delivery)
    }
}
