//! Kubernetes Events about what was decided, on the objects that people look at.

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;

/// Events that wait to be written; more are counted and dropped, as nobody may wait for them.
const QUEUE_MAX: usize = 1024;

/// What an Event says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Note {
    /// The object that it is about: the owning workload, where there is one.
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

/// Takes notes from anywhere; never waits.
#[derive(Debug, Clone)]
pub(super) struct Events {
    queue: mpsc::Sender<Note>,
}

impl Events {
    /// The sender, and what the writer reads from.
    pub(super) fn channel() -> (Self, mpsc::Receiver<Note>) {
        let (queue, notes) = mpsc::channel(QUEUE_MAX);
        (Self { queue }, notes)
    }

    pub(super) fn publish(&self, note: Note) {
        let _ = self.queue.try_send(note);
    }
}
