//! What the webhook turned away: counted each time, logged when it starts and when it is over.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Metrics;

/// Refusals of one kind are over when there was none for this long; shorter pauses belong to the same trouble.
const QUIET_MIN: Duration = Duration::from_secs(10);

/// Why a connection or request got no decision. Its pod is created unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Cause {
    /// All places for connections are taken.
    Connections,
    /// The body was too large, or did not come in time.
    Body,
    /// Its turn did not come in time.
    Busy,
    /// The decision took too long.
    Late,
    /// Not everything that decisions need is known yet.
    Starting,
    /// The pod is none as far as this program knows pods.
    Unreadable,
}

impl Cause {
    /// Stable; the metric label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Body => "body",
            Self::Busy => "busy",
            Self::Late => "late",
            Self::Starting => "starting",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Counts and logs what is turned away.
#[derive(Debug)]
pub(super) struct Refusals {
    metrics: Metrics,
    /// One per cause that goes on at the moment.
    episodes: Mutex<BTreeMap<Cause, Episode>>,
}

#[derive(Debug)]
struct Episode {
    count: u64,
    last: Instant,
}

impl Refusals {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, episodes: Mutex::default() }
    }

    /// Something was turned away.
    pub(super) fn refused(&self, cause: Cause) {
        self.metrics.record_refusal(cause.as_str());
        if self.begins(cause, Instant::now()) {
            tracing::warn!(
                cause = cause.as_str(),
                "the webhook turns requests away; their pods are created unchanged (said once, counted in spanreel_webhook_refusals)"
            );
        }
    }

    /// Something got past what `cause` stands for.
    pub(super) fn passed(&self, cause: Cause) {
        if let Some(refused) = self.ends(cause, Instant::now()) {
            tracing::info!(cause = cause.as_str(), refused, "the webhook turns no more requests away");
        }
    }

    /// Whether this refusal is the first after a quiet time.
    fn begins(&self, cause: Cause, now: Instant) -> bool {
        let mut episodes = self.episodes.lock().unwrap_or_else(PoisonError::into_inner);
        let episode = episodes.entry(cause).or_insert(Episode { count: 0, last: now });
        episode.count += 1;
        episode.last = now;
        episode.count == 1
    }

    /// How many there were, if they are over.
    fn ends(&self, cause: Cause, now: Instant) -> Option<u64> {
        let mut episodes = self.episodes.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = now.saturating_duration_since(episodes.get(&cause)?.last);
        if quiet < QUIET_MIN {
            return None;
        }
        episodes.remove(&cause).map(|episode| episode.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_said_once() {
        let refusals = Refusals::new(Metrics::default());
        let start = Instant::now();
        assert_eq!(refusals.ends(Cause::Busy, start), None, "nothing began");
        assert!(refusals.begins(Cause::Busy, start));
        assert!(!refusals.begins(Cause::Busy, start));
        assert!(refusals.begins(Cause::Late, start), "causes are apart");
        assert_eq!(refusals.ends(Cause::Busy, start + QUIET_MIN / 2), None, "not quiet for long enough");
        assert!(!refusals.begins(Cause::Busy, start + QUIET_MIN / 2));
        assert_eq!(refusals.ends(Cause::Busy, start + QUIET_MIN), None);
        assert_eq!(refusals.ends(Cause::Busy, start + QUIET_MIN * 2), Some(3));
        assert!(refusals.begins(Cause::Busy, start + QUIET_MIN * 2), "said anew");
    }
}
