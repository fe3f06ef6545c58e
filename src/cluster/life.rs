//! The life line of a pod that asked for instrumentation: how far it came.

use jiff::Timestamp;
use serde::Serialize;

/// How far a pod came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LifeState {
    /// It asks by annotation and was not injected.
    Asked,
    /// Injected; none of its injected containers runs yet.
    Injected,
    /// An injected container runs; no span came from it yet.
    Started,
    /// A span came lately.
    Speaking,
    /// It runs and no span came for a while, or never.
    Silent,
}

/// What is known of one pod's life.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Life {
    pub(super) state: LifeState,
    pub(super) first_span: Option<Timestamp>,
    pub(super) last_span: Option<Timestamp>,
    /// For a silent pod: why that is, as far as can be told, and what to do.
    pub(super) likely_cause: Option<String>,
}

/// Whoever knows lives; `doctor` asks.
pub(super) trait Lives: Send + Sync + 'static {
    /// `None`: no pod of that uid is known to ask for anything.
    fn life(&self, uid: &str) -> Option<Life>;
}
