//! The process's own configuration as it holds, for people.

use super::components::Components;
use crate::config::{Config, Effective, Format, Origins, Secrets, Setting};
use serde_json::{Value, json};

/// What is in force, and where it was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Configuration {
    pub effective: Option<Effective>,
    pub origins: Origins,
    pub built_in: bool,
    /// Sections of it that hold only after a restart.
    pub after_restart: Vec<String>,
}

impl Configuration {
    pub fn of(config: &Config<Components>, built_in: bool) -> Self {
        let (effective, origins) = (Some(config.effective.clone()), config.origins.clone());
        Self { effective, origins, built_in, after_restart: Vec::new() }
    }

    /// docs/ui-api.md describes it.
    pub fn to_json(&self) -> Value {
        let settings = self.effective.as_ref().map(|effective| self.origins.settings(effective)).unwrap_or_default();
        let setting = |Setting { path, value, origin }: Setting<'_>| json!({ "path": path, "value": value, "origin": origin.map(ToString::to_string) });
        let yaml = self.effective.as_ref().map(|effective| effective.print(Format::Yaml, Secrets::Redacted));
        json!({
            "yaml": yaml,
            "values": settings.into_iter().map(setting).collect::<Vec<_>>(),
            "built_in": self.built_in,
            "after_restart": self.after_restart,
        })
    }
}
