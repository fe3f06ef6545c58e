//! What was heard of a pod. Written by receivers without a lock, read whenever somebody asks.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

/// First and last time of something; milliseconds since 1970, 0 for never.
#[derive(Debug, Default)]
pub(super) struct Marks {
    first: AtomicI64,
    last: AtomicI64,
}

/// First and last time of something, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Heard {
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
}

impl Marks {
    fn mark(&self, now: Timestamp) {
        let now = now.as_millisecond();
        let _ = self.first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    fn heard(&self) -> Heard {
        let time = |millis: i64| (millis > 0).then(|| Timestamp::from_millisecond(millis).ok()).flatten();
        Heard { first: time(self.first.load(Ordering::Relaxed)), last: time(self.last.load(Ordering::Relaxed)) }
    }
}

impl Heard {
    /// Either of two.
    pub(super) fn or(self, other: Self) -> Self {
        let first = match (self.first, other.first) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Self { first, last: self.last.max(other.last) }
    }
}

/// One pod.
#[derive(Debug)]
pub(super) struct Speech {
    /// Spans that name no container, or one that was not injected.
    pod: Marks,
    containers: Box<[(Arc<str>, Marks)]>,
    pub(super) visits: Visits,
    /// An Event said that it never spoke.
    pub(super) reported: AtomicBool,
}

/// What came to the receivers from a pod's address, spans aside.
#[derive(Debug, Default)]
pub(super) struct Visits {
    connections: AtomicU32,
    refused: AtomicU32,
    other_signals: AtomicU32,
    last_refusal: Mutex<Option<&'static str>>,
}

impl Speech {
    pub(super) fn new(containers: impl Iterator<Item = Arc<str>>) -> Self {
        Self {
            pod: Marks::default(),
            containers: containers.map(|name| (name, Marks::default())).collect(),
            visits: Visits::default(),
            reported: AtomicBool::default(),
        }
    }

    /// Whether it is about exactly these containers.
    pub(super) fn is_of<'a>(&self, containers: impl Iterator<Item = &'a str>) -> bool {
        self.containers.iter().map(|(name, _)| &**name).eq(containers)
    }

    pub(super) fn mark(&self, container: Option<&str>, now: Timestamp) {
        let named = container.and_then(|name| self.containers.iter().find(|(known, _)| **known == *name));
        named.map_or(&self.pod, |(_, marks)| marks).mark(now);
    }

    /// What container number `index` said, or may have said.
    pub(super) fn of_container(&self, index: usize) -> Heard {
        let own = self.containers.get(index).map(|(_, marks)| marks.heard()).unwrap_or_default();
        own.or(self.pod.heard())
    }

    pub(super) fn of_pod(&self) -> Heard {
        self.containers.iter().fold(self.pod.heard(), |heard, (_, marks)| heard.or(marks.heard()))
    }
}

impl Visits {
    pub(super) fn connected(&self) {
        count(&self.connections);
    }

    pub(super) fn refused(&self, outcome: &'static str) {
        count(&self.refused);
        *self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    pub(super) fn other_signal(&self) {
        count(&self.other_signals);
    }

    pub(super) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn other_signals(&self) -> u32 {
        self.other_signals.load(Ordering::Relaxed)
    }

    /// How many requests were refused, and how the last one was.
    pub(super) fn refusals(&self) -> Option<(u32, &'static str)> {
        let outcome = (*self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some((self.refused.load(Ordering::Relaxed), outcome))
    }
}

/// Stops at the largest number instead of beginning again.
fn count(counter: &AtomicU32) {
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_add(1));
}
