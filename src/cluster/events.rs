//! Kubernetes Events about what was decided, on the objects that people look at.
//!
//! ```text
//! webhook, life line, catch-up, ... ─▶ bounded queue ─▶ series (the same again is counted) ─▶ pace ─▶ API server
//! ```
//!
//! Nobody waits for an Event: what finds the queue full or the API server refusing is counted and dropped.

mod series;
mod writer;

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Metrics;
use super::metrics::EventResult;

pub(super) use writer::write;

/// Events that wait to be written.
const QUEUE_MAX: usize = 1024;

/// What an Event says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Note {
    /// The object that it is about: the owning workload, where there is one. Its uid is found out when it is written.
    pub(super) regarding: ObjectReference,
    pub(super) kind: NoteKind,
    /// CamelCase, e.g. `InstrumentationRequestRejected`.
    pub(super) reason: &'static str,
    /// CamelCase: what was being done, e.g. `Injection`.
    pub(super) action: &'static str,
    /// For people; at most 1024 bytes are kept.
    pub(super) message: String,
}

/// `type` of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoteKind {
    Normal,
    Warning,
}

impl NoteKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// A note and when it was published.
#[derive(Debug)]
pub(super) struct Dated {
    note: Note,
    published: Instant,
}

/// Takes notes from anywhere; never waits.
#[derive(Debug, Clone)]
pub(super) struct Events {
    queue: mpsc::Sender<Dated>,
    metrics: Metrics,
}

impl Events {
    /// The sender, and what [`write`] reads from.
    pub(super) fn channel(metrics: Metrics) -> (Self, mpsc::Receiver<Dated>) {
        let (queue, notes) = mpsc::channel(QUEUE_MAX);
        (Self { queue, metrics }, notes)
    }

    pub(super) fn publish(&self, note: Note) {
        if self.queue.try_send(Dated { note, published: Instant::now() }).is_err() {
            self.metrics.record_event(EventResult::Dropped);
        }
    }
}
