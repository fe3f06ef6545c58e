//! The gate in front of a destination: open, or closed until a time at which one probe may pass.
//!
//! All requests of a destination pass here. The first failure closes the gate for everybody; when the wait is over, the
//! oldest waiting request goes out alone, and only its success opens the gate again. So an outage costs one request at a time,
//! and several requests that failed together count as one failure.

use super::retry::Backoff;
use super::settings::RetrySettings;
use super::status::State;
use crate::spool::Seq;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(super) struct Gate {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    closed: Option<Closed>,
    /// Counts closings: a failure that belongs to an earlier one is no further failure.
    generation: u64,
    backoff: Backoff,
    /// First numbers of the requests that wait; the lowest may probe.
    waiting: BTreeSet<Seq>,
    requests_in_flight: usize,
}

#[derive(Debug)]
struct Closed {
    since: Instant,
    until: Instant,
    until_wall: SystemTime,
    is_probing: bool,
    is_held: bool,
    because: String,
}

/// The permission to send one request. Dropping it without a verdict gives it back.
#[derive(Debug)]
#[must_use]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    generation: u64,
    is_probe: bool,
}

/// What closing or opening the gate changed: what is worth a log line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// It was open until now.
    Closed(Duration),
    /// It stays closed after a failed probe.
    ClosedAgain(Duration),
    /// It is open again after having been closed for so long.
    Opened(Duration),
}

struct Waiting<'a> {
    gate: &'a Gate,
    order: Seq,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.gate.lock().waiting.remove(&self.order);
        self.gate.changed.notify_waiters();
    }
}

impl Gate {
    pub(super) fn new(retry: RetrySettings) -> Self {
        Self {
            inner: Mutex::new(Inner {
                closed: None,
                generation: 0,
                backoff: Backoff::new(retry),
                waiting: BTreeSet::new(),
                requests_in_flight: 0,
            }),
            changed: Notify::new(),
        }
    }

    /// Nothing panics while the lock is held; if something did, the state would still be whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the permission to send the request that begins at `order`. `None`: shutting down.
    pub(super) async fn enter(&self, order: Seq, shutdown: &CancellationToken) -> Option<Pass<'_>> {
        let mut waiting = None;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if shutdown.is_cancelled() {
                return None;
            }
            let wake = {
                let mut inner = self.lock();
                let is_oldest = inner.waiting.first().is_none_or(|oldest| *oldest >= order);
                let generation = inner.generation;
                let (is_admitted, is_probe, wake) = match &mut inner.closed {
                    None => (true, false, None),
                    Some(closed) if closed.is_probing || !is_oldest => (false, false, None),
                    Some(closed) if Instant::now() >= closed.until => {
                        closed.is_probing = true;
                        (true, true, None)
                    }
                    Some(closed) => (false, false, Some(closed.until)),
                };
                if is_admitted {
                    inner.requests_in_flight += 1;
                    return Some(Pass { gate: self, generation, is_probe });
                }
                inner.waiting.insert(order);
                wake
            };
            waiting.get_or_insert_with(|| Waiting { gate: self, order });
            let until = async {
                match wake {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = until => {}
                () = shutdown.cancelled() => return None,
            }
        }
    }

    /// Whether the request that begins at `order` waits for its permission.
    pub(super) fn is_waiting(&self, order: Seq) -> bool {
        self.lock().waiting.contains(&order)
    }

    pub(super) fn state(&self) -> State {
        let inner = self.lock();
        match &inner.closed {
            Some(closed) if closed.is_held => State::Held { until: closed.until_wall, because: closed.because.clone() },
            Some(closed) => State::BackingOff { until: closed.until_wall, because: closed.because.clone() },
            None if inner.requests_in_flight > 0 => State::Sending,
            None => State::Idle,
        }
    }
}

impl Pass<'_> {
    /// Whether the gate was not closed since the permission was given.
    pub(super) fn is_current(&self) -> bool {
        self.generation == self.gate.lock().generation
    }

    /// The destination answered: the gate is open, and the next failure is a first one.
    pub(super) fn answered(self) -> Change {
        let mut inner = self.gate.lock();
        if self.generation != inner.generation {
            return Change::Nothing;
        }
        inner.backoff.reset();
        match inner.closed.take() {
            Some(closed) => Change::Opened(closed.since.elapsed()),
            None => Change::Nothing,
        }
    }

    /// The destination did not take the request, for now: wait by the backoff, at least as long as the hint.
    pub(super) fn failed(self, hint: Option<Duration>, because: &str) -> Change {
        self.close(None, hint, because)
    }

    /// Someone has to change something first: wait `pause`, and say so.
    pub(super) fn hold(self, pause: Duration, because: &str) -> Change {
        self.close(Some(pause), None, because)
    }

    fn close(self, pause: Option<Duration>, hint: Option<Duration>, because: &str) -> Change {
        let mut inner = self.gate.lock();
        let now = Instant::now();
        if self.generation != inner.generation {
            // Failed together with the one that closed the gate; only its hint is news.
            if let (Some(closed), Some(hint)) = (&mut inner.closed, hint)
                && !closed.is_probing
                && now + hint > closed.until
            {
                closed.until = now + hint;
                closed.until_wall = SystemTime::now() + hint;
            }
            return Change::Nothing;
        }
        let delay = pause.unwrap_or_else(|| inner.backoff.next_delay(hint));
        let since = inner.closed.as_ref().map(|closed| closed.since);
        inner.generation += 1;
        inner.closed = Some(Closed {
            since: since.unwrap_or(now),
            until: now + delay,
            until_wall: SystemTime::now() + delay,
            is_probing: false,
            is_held: pause.is_some(),
            because: because.to_owned(),
        });
        if since.is_some() { Change::ClosedAgain(delay) } else { Change::Closed(delay) }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut inner = self.gate.lock();
        inner.requests_in_flight = inner.requests_in_flight.saturating_sub(1);
        if self.is_probe
            && self.generation == inner.generation
            && let Some(closed) = &mut inner.closed
        {
            closed.is_probing = false;
        }
        drop(inner);
        self.gate.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        let delay = Duration::from_millis(30);
        Gate::new(RetrySettings {
            initial_interval: delay,
            max_interval: delay,
            randomization_factor: 0.0,
            ..Default::default()
        })
    }

    #[tokio::test]
    async fn failures_together_count_once_and_one_probe_goes_out() {
        let (gate, shutdown) = (gate(), CancellationToken::new());
        let first = gate.enter(Seq(1), &shutdown).await.unwrap();
        let second = gate.enter(Seq(2), &shutdown).await.unwrap();
        assert!(matches!(first.failed(None, "down"), Change::Closed(_)));
        assert_eq!(second.failed(None, "down"), Change::Nothing);
        assert!(matches!(gate.state(), State::BackingOff { .. }));

        // The oldest probes, though it asks last; the other one waits for the probe's verdict.
        let mut younger = std::pin::pin!(gate.enter(Seq(2), &shutdown));
        let soon = Duration::from_millis(5);
        assert!(tokio::time::timeout(soon, younger.as_mut()).await.is_err());
        let probe = gate.enter(Seq(1), &shutdown).await.unwrap();
        assert!(tokio::time::timeout(soon, younger.as_mut()).await.is_err());
        assert!(matches!(probe.failed(None, "down"), Change::ClosedAgain(_)));
        let probe = gate.enter(Seq(1), &shutdown).await.unwrap();
        assert!(matches!(probe.answered(), Change::Opened(_)));
        let pass = younger.await.unwrap();
        assert_eq!(pass.answered(), Change::Nothing);
        assert_eq!(gate.state(), State::Idle);
    }

    #[tokio::test]
    async fn an_abandoned_probe_leaves_the_way_free() {
        let (gate, shutdown) = (gate(), CancellationToken::new());
        let _ = gate.enter(Seq(1), &shutdown).await.unwrap().hold(Duration::from_millis(10), "401");
        assert!(matches!(gate.state(), State::Held { .. }));
        drop(gate.enter(Seq(1), &shutdown).await.unwrap());
        let probe = tokio::time::timeout(Duration::from_secs(1), gate.enter(Seq(5), &shutdown)).await;
        assert!(probe.unwrap().unwrap().is_probe);
    }

    #[tokio::test]
    async fn shutdown_ends_the_wait() {
        let (gate, shutdown) = (gate(), CancellationToken::new());
        let _ = gate.enter(Seq(1), &shutdown).await.unwrap().hold(Duration::from_secs(60), "401");
        let waiting = gate.enter(Seq(1), &shutdown);
        shutdown.cancel();
        assert!(waiting.await.is_none());
    }
}
