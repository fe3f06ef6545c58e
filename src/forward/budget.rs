//! The memory that all destinations of the process share, however many there are.
//!
//! ```text
//! ahead     stored frames of the second and later requests of a destination; the first needs no permission
//! sending   bodies, from being encoded to being answered: one lane for destinations that answer, one for the others
//! shown     series of `prometheus` exporters, all pages together
//! ```
//!
//! Nobody waits for `ahead`: a destination that gets none goes on with one request at a time. Nor for `shown`: a series that
//! gets none is left out and counted. `sending` is waited for,
//! first come first served, and held for one attempt only, which the timeout ends: so there is no deadlock. A
//! destination that does not answer competes with its like only, and holds no body while it backs off.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much all destinations together may hold, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Requests beyond the first of each destination, as protobuf; they are held as compressed frames.
    pub ahead_raw_bytes: usize,
    /// Bodies on their way to destinations that answer.
    pub answering_bytes: usize,
    /// Bodies on their way to destinations that have not answered last time (or were never asked): fewer, so that many that
    /// hang do not cost much, and one that comes back waits its turn.
    pub silent_bytes: usize,
    /// Series that `prometheus` exporters show.
    pub shown_bytes: usize,
}

impl Default for Memory {
    /// Two requests of the largest size, uncompressed, to destinations that answer, and one to others.
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self { ahead_raw_bytes: 16 * MIB, answering_bytes: 8 * MIB, silent_bytes: 4 * MIB, shown_bytes: 8 * MIB }
    }
}

/// Which destinations an attempt competes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Answering,
    Silent,
}

/// Permission to hold so many bytes; dropping it gives them back.
#[derive(Debug)]
pub(super) struct Share {
    permit: OwnedSemaphorePermit,
}

/// One per process; clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    memory: Memory,
    ahead: Arc<Semaphore>,
    answering: Arc<Semaphore>,
    silent: Arc<Semaphore>,
    shown: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Memory::default())
    }
}

impl Budget {
    pub fn new(memory: Memory) -> Self {
        Self {
            memory,
            ahead: Arc::new(Semaphore::new(memory.ahead_raw_bytes)),
            answering: Arc::new(Semaphore::new(memory.answering_bytes)),
            silent: Arc::new(Semaphore::new(memory.silent_bytes)),
            shown: Arc::new(Semaphore::new(memory.shown_bytes)),
        }
    }

    /// For a request beyond the first; `None` if there is not that much left.
    pub(super) fn ahead(&self, raw_bytes: usize) -> Option<Share> {
        let permit =
            Arc::clone(&self.ahead).try_acquire_many_owned(permits(raw_bytes, self.memory.ahead_raw_bytes)).ok()?;
        Some(Share { permit })
    }

    /// For what is shown to whoever scrapes; `None` if there is not that much left.
    pub(super) fn shown(&self, bytes: usize) -> Option<Share> {
        let permits = u32::try_from(bytes).ok()?;
        Some(Share { permit: Arc::clone(&self.shown).try_acquire_many_owned(permits).ok()? })
    }

    /// Waits for room for a body. One that is larger than the lane takes the whole lane.
    pub(super) async fn sending(&self, lane: Lane, bytes: usize) -> Share {
        let (lane, bytes_max) = match lane {
            Lane::Answering => (&self.answering, self.memory.answering_bytes),
            Lane::Silent => (&self.silent, self.memory.silent_bytes),
        };
        match Arc::clone(lane).acquire_many_owned(permits(bytes, bytes_max)).await {
            Ok(permit) => Share { permit },
            // Nobody closes the semaphores.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Share {
    pub(super) fn bytes(&self) -> usize {
        self.permit.num_permits()
    }

    pub(super) fn grow(&mut self, more: Self) {
        self.permit.merge(more.permit);
    }

    /// Gives back what is more than `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize) {
        drop(self.permit.split(self.permit.num_permits().saturating_sub(bytes)));
    }
}

fn permits(bytes: usize, bytes_max: usize) -> u32 {
    u32::try_from(bytes.min(bytes_max)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn what_is_held_is_bounded_and_comes_back() {
        let budget = Budget::default();
        let mut first = budget.ahead(budget.memory.ahead_raw_bytes).unwrap();
        assert!(budget.clone().ahead(1).is_none());
        first.shrink(budget.memory.ahead_raw_bytes - 10);
        assert!(budget.ahead(11).is_none());
        assert!(budget.ahead(10).is_some());
    }

    #[tokio::test]
    async fn destinations_that_hang_do_not_keep_others_from_sending() {
        let budget = Budget::default();
        let hanging = budget.sending(Lane::Silent, usize::MAX).await;
        assert!(budget.sending(Lane::Silent, 1).now_or_never().is_none());
        assert!(budget.sending(Lane::Answering, budget.memory.answering_bytes).now_or_never().is_some());
        drop(hanging);
        assert!(budget.sending(Lane::Silent, budget.memory.silent_bytes).now_or_never().is_some());
    }
}
