//! What was decided, with a code for machines and a sentence for people.

use k8s_openapi::api::core::v1::Pod;

use super::{Instrumentation, Language};

/// Everything decided about one pod.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    /// The pod as it should be; `None`: unchanged.
    pub pod: Option<Pod>,
    /// One per language and container, or per language where no container was reached. Empty: nothing was asked.
    pub outcomes: Vec<Outcome>,
    /// Sentences for the user that concern no single container.
    pub notes: Vec<String>,
}

/// What became of one language in one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub language: Language,
    pub container: Option<String>,
    pub verdict: Verdict,
    pub reason: Reason,
    /// `namespace/name` of the Instrumentation, once one was chosen.
    pub instrumentation: Option<String>,
    /// That Instrumentation's `metadata.generation`.
    pub generation: Option<i64>,
    pub message: String,
}

/// The three ways it can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Injected,
    /// Nothing to do: it is done already, or would have no effect.
    Skipped,
    /// Asked for and not done; the user is told.
    Refused,
}

impl Verdict {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
        }
    }
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    Asked,
    AlreadyInstrumented,
    MirrorPod,
    /// The settings of the whole cluster say no.
    LanguageDisabled,
    InstrumentationMissing,
    InstrumentationAmbiguous,
    InstrumentationMalformed,
    /// Its content would make the pod invalid.
    InstrumentationInvalid,
    ContainerNamesInvalid,
    ContainerNamesDuplicated,
    ContainerNamesIncomplete,
    ContainerNamesNeeded,
    ContainerNotFound,
    /// A container or volume of the pod has a name that the agent's needs.
    NameTaken,
    /// The agent works in regular containers only.
    InitContainerUnsuitable,
    /// The agent of go watches one container of a pod.
    OneContainerOnly,
    /// The agent of go must see the target's processes, which the pod does not allow.
    ProcessesNotShared,
    /// Nobody says which executable the agent of go is to watch.
    TargetExecutableMissing,
    /// Something else is mounted where the agent's files must be.
    MountPathTaken,
    /// The variable that must be extended comes from a `valueFrom`.
    EnvironmentFromSource,
    TlsObjectMissing,
    /// The annotation of the language's platform or runtime has a value that the agent does not know.
    PlatformUnknown,
    /// The container is set up for an agent already.
    AgentPresent,
    /// The settings ask for image volumes, which the API server has not.
    ImageVolumesNotServed,
    /// Another language of the same pod was refused, which stops all.
    OtherLanguageRefused,
    /// With the injection the pod would be larger than the API server or a process takes.
    PodTooLarge,
    /// The namespace refuses pods with what the agent needs.
    PodSecurityEnforced,
}

impl Reason {
    pub const ALL: [Self; 27] = [
        Self::Asked,
        Self::AlreadyInstrumented,
        Self::MirrorPod,
        Self::LanguageDisabled,
        Self::InstrumentationMissing,
        Self::InstrumentationAmbiguous,
        Self::InstrumentationMalformed,
        Self::InstrumentationInvalid,
        Self::ContainerNamesInvalid,
        Self::ContainerNamesDuplicated,
        Self::ContainerNamesIncomplete,
        Self::ContainerNamesNeeded,
        Self::ContainerNotFound,
        Self::NameTaken,
        Self::InitContainerUnsuitable,
        Self::OneContainerOnly,
        Self::ProcessesNotShared,
        Self::TargetExecutableMissing,
        Self::MountPathTaken,
        Self::EnvironmentFromSource,
        Self::PodTooLarge,
        Self::PodSecurityEnforced,
        Self::TlsObjectMissing,
        Self::PlatformUnknown,
        Self::AgentPresent,
        Self::ImageVolumesNotServed,
        Self::OtherLanguageRefused,
    ];

    /// Stable; the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::AlreadyInstrumented => "already_instrumented",
            Self::MirrorPod => "mirror_pod",
            Self::LanguageDisabled => "language_disabled",
            Self::InstrumentationMissing => "instrumentation_missing",
            Self::InstrumentationAmbiguous => "instrumentation_ambiguous",
            Self::InstrumentationMalformed => "instrumentation_malformed",
            Self::InstrumentationInvalid => "instrumentation_invalid",
            Self::ContainerNamesInvalid => "container_names_invalid",
            Self::ContainerNamesDuplicated => "container_names_duplicated",
            Self::ContainerNamesIncomplete => "container_names_incomplete",
            Self::ContainerNamesNeeded => "container_names_needed",
            Self::ContainerNotFound => "container_not_found",
            Self::NameTaken => "name_taken",
            Self::InitContainerUnsuitable => "init_container_unsuitable",
            Self::OneContainerOnly => "one_container_only",
            Self::ProcessesNotShared => "processes_not_shared",
            Self::TargetExecutableMissing => "target_executable_missing",
            Self::MountPathTaken => "mount_path_taken",
            Self::EnvironmentFromSource => "environment_from_source",
            Self::TlsObjectMissing => "tls_object_missing",
            Self::PlatformUnknown => "platform_unknown",
            Self::AgentPresent => "agent_present",
            Self::ImageVolumesNotServed => "image_volumes_not_served",
            Self::OtherLanguageRefused => "other_language_refused",
            Self::PodTooLarge => "pod_too_large",
            Self::PodSecurityEnforced => "pod_security_enforced",
        }
    }
}

/// Why something cannot be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: cut(&message.into(), MESSAGE_BYTES_MAX) }
    }

    /// An Instrumentation that cannot be used is named: a pod's author may not know which one it is.
    pub(super) fn name_instrumentation(&mut self, instrumentation: &Instrumentation) {
        if self.reason == Reason::InstrumentationInvalid {
            self.message = format!("Instrumentation {}: {}", instrumentation.full_name(), self.message);
        }
    }
}

impl Outcome {
    pub(super) fn injected(language: Language, container: &str, instrumentation: &Instrumentation) -> Self {
        let name = instrumentation.full_name();
        Self {
            language,
            container: Some(container.to_owned()),
            verdict: Verdict::Injected,
            reason: Reason::Asked,
            message: format!("{language}: container {container} instrumented as {name} says"),
            instrumentation: Some(name),
            generation: Some(instrumentation.generation),
        }
    }

    pub(super) fn skipped(language: Language, why: &Refusal) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::refused(language, None, why) }
    }

    pub(super) fn refused(language: Language, container: Option<&str>, why: &Refusal) -> Self {
        Self {
            language,
            container: container.map(str::to_owned),
            verdict: Verdict::Refused,
            reason: why.reason,
            instrumentation: None,
            generation: None,
            message: why.message.clone(),
        }
    }
}

/// Kubernetes shows about 4 KiB of warnings per request and recommends short ones.
const WARNINGS_MAX: usize = 12;
/// Bytes per warning; longer ones are cut.
const WARNING_BYTES_MAX: usize = 300;
/// Bytes of a refusal's sentence, as an Event takes them: it quotes annotations, which can be long.
const MESSAGE_BYTES_MAX: usize = 1024;

impl Decision {
    /// Records that `culprit` (or the combination of all) stops every language.
    pub(super) fn refuse_all(&mut self, languages: &[Language], culprit: Option<Language>, refusal: &Refusal) {
        for &language in languages {
            let outcome = match culprit {
                Some(culprit) if culprit != language => Outcome::refused(
                    language,
                    None,
                    &Refusal::new(
                        Reason::OtherLanguageRefused,
                        format!("{language} is not injected because {culprit} was refused"),
                    ),
                ),
                _ => Outcome::refused(language, None, refusal),
            };
            self.outcomes.push(outcome);
        }
    }

    /// What the user should read while creating the pod: refusals and notes, each once, bounded in number and length.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = Vec::new();
        let refusals = self.outcomes.iter().filter(|o| o.verdict == Verdict::Refused).map(|o| &o.message);
        for message in refusals.chain(&self.notes) {
            let warning = cut(&format!("spanreel: {message}"), WARNING_BYTES_MAX);
            if !warnings.contains(&warning) && warnings.len() < WARNINGS_MAX {
                warnings.push(warning);
            }
        }
        warnings
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    format!("{}...", text.get(..text.floor_char_boundary(bytes_max - 3)).unwrap_or_default())
}
