//! Requests that wait until a rate lets them pass: the oldest of them alone asks.

use crate::spool::Seq;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Who is not the oldest looks again after so long, whatever it was told.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Tells those of one order apart.
    next: u64,
    places: BTreeSet<(Seq, u64)>,
}

/// A place among those that wait, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    place: (Seq, u64),
}

impl Turns {
    pub(super) fn join(&self, order: Seq) -> Turn<'_> {
        let mut waiting = self.lock();
        let place = (order, waiting.next);
        waiting.next += 1;
        waiting.places.insert(place);
        Turn { turns: self, place }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Waits until nobody older waits.
    pub(super) async fn first(&self) {
        loop {
            let changed = self.turns.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.turns.lock().places.first() == Some(&self.place) {
                return;
            }
            let _ = tokio::time::timeout(LOOK_INTERVAL, changed).await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().places.remove(&self.place);
        self.turns.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn the_oldest_goes_first_and_who_goes_away_holds_up_nobody() {
        let turns = Turns::default();
        let (later, first, second) = (turns.join(Seq(9)), turns.join(Seq(1)), turns.join(Seq(1)));
        assert!(first.first().now_or_never().is_some());
        assert!(second.first().now_or_never().is_none());
        drop(first);
        second.first().await;
        assert!(later.first().now_or_never().is_none());
        let older = turns.join(Seq(0));
        assert!(second.first().now_or_never().is_none(), "one that is older came");
        drop((older, second));
        later.first().await;
    }
}
