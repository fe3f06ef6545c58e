//! The life line of a pod that asked for instrumentation: how far it came.
//!
//! In: pods, from a watch; who connects and whose spans became durable, from the receivers. Out: states, metrics, an Event
//! for what runs and never speaks, and what is most likely wrong with it.
//!
//! ```text
//! pods ─▶ watch ─▶ facts ─▶ index ◀─ line ◀─ receivers (Witness)
//!                             └─▶ state, cause ─▶ metrics, Events, status, doctor
//! ```
//!
//! Invariants: only pods that ask or were injected are kept, and of them only what is needed; nothing that a client sends
//! adds an entry anywhere; nobody is called silent before it was listened to for as long as silence takes.

mod cause;
mod facts;
mod index;
mod line;
mod metrics;
mod speech;
mod watch;

pub use line::LifeLine;
pub(super) use watch::follow;

use jiff::Timestamp;
use serde::Serialize;

use crate::inject::Language;

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

/// What would end a silence. A guess, as the likely cause is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fix {
    /// This variable of the container is to go.
    NoVariable(String),
    /// The sampler is to keep something.
    Sampler,
    /// Spans are to be sent here.
    Endpoint(String),
    /// The agent of another language is to be asked for.
    Language { instead_of: Language, program: &'static str },
    /// The last run's log tells.
    PreviousLog,
}

/// Whoever knows lives; `doctor` asks.
pub(super) trait Lives: Send + Sync + 'static {
    /// `None`: no pod of that uid is known to ask for anything.
    fn life(&self, uid: &str) -> Option<Life>;

    /// The same for each of the pod's injected containers; empty for pods that are not known.
    fn containers(&self, _uid: &str) -> Vec<ContainerLife> {
        Vec::new()
    }

    /// What would end a container's silence, where that can be told.
    fn fix(&self, _uid: &str, _container: &str) -> Option<Fix> {
        None
    }
}

/// What is known of one container's life. Spans that name no container count for every one of its pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ContainerLife {
    pub(super) container: String,
    #[serde(flatten)]
    pub(super) life: Life,
}

impl LifeState {
    /// In the order in which a pod goes through them.
    const ALL: [Self; 5] = [Self::Asked, Self::Injected, Self::Started, Self::Speaking, Self::Silent];

    /// The metric label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Injected => "injected",
            Self::Started => "started",
            Self::Speaking => "speaking",
            Self::Silent => "silent",
        }
    }
}

#[cfg(test)]
mod tests;
