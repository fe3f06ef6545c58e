//! What the person who runs Spanreel decides about injection, for the whole cluster.

use super::Language;

/// Settings of the room; the defaults are opentelemetry-operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Languages that annotations may ask for. Default: all but go and nginx.
    pub languages: Vec<Language>,
    /// Several languages in one pod, each with its own container list. Default: yes.
    pub multi_instrumentation: bool,
    /// Reproduces defects of opentelemetry-operator that somebody may depend on. Default: no.
    pub strict_operator_compat: bool,
    /// Agent images where the Instrumentation names none.
    pub images: Images,
    /// How agents come into pods.
    pub delivery: Delivery,
    /// Whether the API server takes image volumes; found out at start, not a setting.
    pub image_volumes_served: bool,
}

/// How agents come into pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// An init container copies the agent into a volume, as opentelemetry-operator does.
    #[default]
    InitContainer,
    /// The agent's image is mounted; nothing is copied. Pods of servers without image volumes are refused.
    ImageVolume,
    /// An image volume where the server has them, else an init container.
    Auto,
}

/// What brings an agent's files into one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    InitContainer,
    ImageVolume,
}

/// Default agent images by language; `sdk` has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    pub java: String,
    pub nodejs: String,
    pub python: String,
    pub dotnet: String,
    pub go: String,
    pub apache_httpd: String,
    pub nginx: String,
}

impl Default for Settings {
    fn default() -> Self {
        let opt_in = [Language::Go, Language::Nginx];
        Self {
            languages: Language::ALL.into_iter().filter(|language| !opt_in.contains(language)).collect(),
            multi_instrumentation: true,
            strict_operator_compat: false,
            images: Images::default(),
            delivery: Delivery::default(),
            image_volumes_served: false,
        }
    }
}

impl Settings {
    #[must_use]
    pub fn enables(&self, language: Language) -> bool {
        self.languages.contains(&language)
    }

    /// `None`: image volumes are wanted and the server has none.
    pub(super) fn carrier(&self) -> Option<Carrier> {
        match (self.delivery, self.image_volumes_served) {
            (Delivery::InitContainer, _) | (Delivery::Auto, false) => Some(Carrier::InitContainer),
            (Delivery::ImageVolume | Delivery::Auto, true) => Some(Carrier::ImageVolume),
            (Delivery::ImageVolume, false) => None,
        }
    }
}

impl Images {
    /// `None` for `sdk`, which has no agent.
    #[must_use]
    pub fn of(&self, language: Language) -> Option<&str> {
        match language {
            Language::Java => Some(&self.java),
            Language::NodeJs => Some(&self.nodejs),
            Language::Python => Some(&self.python),
            Language::DotNet => Some(&self.dotnet),
            Language::Go => Some(&self.go),
            Language::ApacheHttpd => Some(&self.apache_httpd),
            Language::Nginx => Some(&self.nginx),
            Language::Sdk => None,
        }
    }
}

/// opentelemetry-operator's defaults as of its release 0.158.0.
impl Default for Images {
    fn default() -> Self {
        let operators =
            |name: &str| format!("ghcr.io/open-telemetry/opentelemetry-operator/autoinstrumentation-{name}");
        Self {
            java: operators("java:2.30.0"),
            nodejs: operators("nodejs:0.78.0"),
            python: operators("python:0.64b0"),
            dotnet: operators("dotnet:1.16.0"),
            go: "ghcr.io/open-telemetry/opentelemetry-go-instrumentation/autoinstrumentation-go:v0.24.0".to_owned(),
            apache_httpd: operators("apache-httpd:1.0.4"),
            nginx: operators("apache-httpd:1.0.4"),
        }
    }
}
