//! An agent's files: which image has them, what carries them into the pod, where containers find them.
//!
//! ```text
//! init:          image ─▶ init container ─ cp ─▶ emptyDir or claim ─▶ mount
//! image-volume:  image ─────────────────────────────────────────▶ mount, read-only
//! ```

use k8s_openapi::api::core::v1::{
    Container, EnvVar, ImageVolumeSource, PersistentVolumeClaimTemplate, ResourceRequirements, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;

use super::Language;
use super::agent::{Delivery, Preparation};
use super::outcome::{Reason, Refusal};
use super::settings::{Carrier, Settings};
use super::validity::{self, Requests};
use super::volumes::{agent_volume, mount};

/// What the sections of most languages have: `spec.nodejs`, `spec.python`, `spec.dotnet`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentSection {
    pub image: String,
    pub volume_claim_template: Option<PersistentVolumeClaimTemplate>,
    pub volume_limit_size: Option<Quantity>,
    pub env: Vec<EnvVar>,
    pub resource_requirements: ResourceRequirements,
}

/// The part of a language's section that concerns its files.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilesSection<'a> {
    pub(super) image: &'a str,
    pub(super) claim: Option<&'a PersistentVolumeClaimTemplate>,
    pub(super) limit: Option<&'a Quantity>,
    pub(super) resources: &'a ResourceRequirements,
    /// The section's key for them.
    pub(super) resources_key: &'static str,
}

impl AgentSection {
    pub(super) fn files(&self) -> FilesSection<'_> {
        FilesSection {
            image: &self.image,
            claim: self.volume_claim_template.as_ref(),
            limit: self.volume_limit_size.as_ref(),
            resources: &self.resource_requirements,
            resources_key: "resourceRequirements",
        }
    }
}

/// The files of one agent, with everything decided about how they come into the pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AgentFiles {
    /// Of the volume and of the init container; a marker of injected pods.
    name: String,
    /// Where the init container copies to, and where containers find it.
    directory: String,
    image: String,
    resources: ResourceRequirements,
    pull_policy: Option<String>,
    carrier: Carrier,
    volume: Volume,
    doubts: Vec<String>,
}

impl AgentFiles {
    /// # Errors
    /// The section would make pods invalid, or the server lacks what the settings ask for.
    pub(super) fn new(
        language: Language,
        section: FilesSection<'_>,
        requests_default: &Requests,
        preparation: &Preparation<'_>,
    ) -> Result<Self, Refusal> {
        let key = language.section();
        validity::check_image(&format!("spec.{key}.image"), section.image)?;
        validity::check_volume(key, section.claim, section.limit)?;
        let resources_field = format!("spec.{key}.{}", section.resources_key);
        let resources = validity::resources(&resources_field, section.resources, requests_default)?;
        let carrier = carrier(language, preparation.settings)?;
        let image = match section.image {
            "" => preparation.settings.images.of(language).unwrap_or_default(),
            given => given,
        };
        let name = format!("opentelemetry-auto-instrumentation-{language}");
        let pull_policy = preparation.spec.image_pull_policy.as_str();
        let pull_policy = (!pull_policy.is_empty()).then(|| pull_policy.to_owned());
        let volume = match carrier {
            Carrier::InitContainer => agent_volume(&name, section.claim, section.limit),
            Carrier::ImageVolume => image_volume(&name, image, pull_policy.as_deref()),
        };
        Ok(Self {
            directory: format!("/otel-auto-instrumentation-{language}"),
            image: image.to_owned(),
            resources,
            pull_policy,
            carrier,
            volume,
            name,
            doubts: doubts(key, &section, carrier),
        })
    }

    pub(super) fn carrier(&self) -> Carrier {
        self.carrier
    }

    pub(super) fn directory(&self) -> &str {
        &self.directory
    }

    /// What of the section has no effect, a sentence each.
    pub(super) fn doubts(&self) -> Vec<String> {
        self.doubts.clone()
    }

    /// Mounts the files into a container. `sub_path` is where an image has them, if not at its root.
    ///
    /// # Errors
    /// Something else is at that path.
    pub(super) fn mount(&self, container: &mut Container, path: &str, sub_path: Option<&str>) -> Result<(), Refusal> {
        let wanted = match self.carrier {
            Carrier::InitContainer => {
                VolumeMount { name: self.name.clone(), mount_path: path.to_owned(), ..VolumeMount::default() }
            }
            Carrier::ImageVolume => image_mount(&self.name, path, sub_path),
        };
        mount(container, wanted, |name| name == self.name)
    }

    /// What brings the files into the pod; `command` copies them where that is needed.
    pub(super) fn delivery(&self, command: &[&str]) -> Delivery {
        let mut delivery = Delivery { volumes: vec![self.volume.clone()], init_containers: Vec::new() };
        if self.carrier == Carrier::InitContainer {
            let mut copying = self.init_container(self.name.clone(), &self.image, command);
            copying.image_pull_policy.clone_from(&self.pull_policy);
            delivery.init_containers.push(copying);
        }
        delivery
    }

    /// An init container that has the volume mounted where `directory` says.
    pub(super) fn init_container(&self, name: String, image: &str, command: &[&str]) -> Container {
        Container {
            name,
            image: Some(image.to_owned()),
            command: Some(command.iter().map(|&word| word.to_owned()).collect()),
            resources: Some(self.resources.clone()),
            volume_mounts: Some(vec![VolumeMount {
                name: self.name.clone(),
                mount_path: self.directory.clone(),
                ..VolumeMount::default()
            }]),
            ..Container::default()
        }
    }
}

/// An image as a volume.
pub(super) fn image_volume(name: &str, image: &str, pull_policy: Option<&str>) -> Volume {
    let source = ImageVolumeSource { reference: Some(image.to_owned()), pull_policy: pull_policy.map(str::to_owned) };
    Volume { name: name.to_owned(), image: Some(source), ..Volume::default() }
}

/// Images can only be read; saying so keeps the API server's and the author's picture the same.
pub(super) fn image_mount(volume: &str, path: &str, sub_path: Option<&str>) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        sub_path: sub_path.map(str::to_owned),
        ..VolumeMount::default()
    }
}

fn carrier(language: Language, settings: &Settings) -> Result<Carrier, Refusal> {
    settings.carrier().ok_or_else(|| {
        Refusal::new(
            Reason::ImageVolumesNotServed,
            format!(
                "{language}: this cluster's API server has no image volumes; set extensions::spanreel::injection::delivery to auto or init"
            ),
        )
    })
}

fn doubts(key: &str, section: &FilesSection<'_>, carrier: Carrier) -> Vec<String> {
    match (carrier, section.claim.is_some(), section.limit.is_some()) {
        (Carrier::InitContainer, true, true) => {
            vec![format!("spec.{key} has volumeClaimTemplate and volumeLimitSize; the limit has no effect")]
        }
        (Carrier::ImageVolume, claim, limit) if claim || limit => {
            let field = if claim { "volumeClaimTemplate" } else { "volumeLimitSize" };
            vec![format!("spec.{key}.{field} has no effect: the image itself is mounted")]
        }
        _ => Vec::new(),
    }
}
