//! The languages that an annotation can ask for, in the operator's order of processing.

use std::fmt;

use super::outcome::{Reason, Refusal};

/// A language (or `sdk`: environment only) as annotations name it. Order matters: languages are looked up and applied
/// in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    Java,
    NodeJs,
    Python,
    DotNet,
    Go,
    ApacheHttpd,
    Nginx,
    Sdk,
}

impl Language {
    pub const ALL: [Self; 8] =
        [Self::Java, Self::NodeJs, Self::Python, Self::DotNet, Self::Go, Self::ApacheHttpd, Self::Nginx, Self::Sdk];

    /// As in `instrumentation.opentelemetry.io/inject-<...>`; also the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::NodeJs => "nodejs",
            Self::Python => "python",
            Self::DotNet => "dotnet",
            Self::Go => "go",
            Self::ApacheHttpd => "apache-httpd",
            Self::Nginx => "nginx",
            Self::Sdk => "sdk",
        }
    }

    /// The key of this language's section in `spec` of an Instrumentation; `sdk` has none.
    pub(super) fn section(self) -> &'static str {
        match self {
            Self::ApacheHttpd => "apacheHttpd",
            other => other.as_str(),
        }
    }

    /// The key of this language's own container list, without prefix. Only nginx carries `inject-` in it.
    pub(super) fn container_names_key(self) -> String {
        match self {
            Self::Nginx => "inject-nginx-container-names".to_owned(),
            other => format!("{other}-container-names"),
        }
    }

    pub(super) fn disabled(self) -> Refusal {
        Refusal::new(
            Reason::LanguageDisabled,
            format!(
                "inject-{self} is switched off for this cluster; extensions::spanreel::injection::languages::{self}: true switches it on"
            ),
        )
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
