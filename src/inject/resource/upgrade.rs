use serde_json::Value;

use crate::inject::{Language, Settings};

/// What a new default image means for a resource.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Upgrade {
    /// The resource with new images; `None`: nothing to write.
    pub object: Option<Value>,
    /// Languages whose image stays, and why.
    pub blocked: Vec<Blocked>,
}

/// An image that is not replaced by the new default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    pub language: Language,
    /// For `status.upgradeBlockedVersions` and an Event of reason `UpgradeBlocked`.
    pub message: String,
}

/// Replaces images that nobody chose by the current defaults.
#[must_use]
pub fn upgrade_instrumentation(_object: &Value, _settings: &Settings) -> Upgrade {
    Upgrade::default()
}
