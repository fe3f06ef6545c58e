//! The memory that all destinations of the process share, however many there are.
//!
//! ```text
//! ahead     stored frames of the second and later requests of a destination; the first needs no permission
//! sending   bodies, from being encoded to being answered: one lane for destinations that answer, one for the others
//! ```
//!
//! Nobody waits for `ahead`: a destination that gets none goes on with one request at a time. `sending` is waited for,
//! first come first served, and held for one attempt only, which the timeout ends: so there is no deadlock. A
//! destination that does not answer competes with its like only, and holds no body while it backs off.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests beyond the first of each destination, bytes of protobuf; they are held as compressed frames.
const AHEAD_RAW_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Bodies on their way to destinations that answer: four requests of the largest size, uncompressed.
const ANSWERING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bodies on their way to destinations that have not answered last time (or were never asked): two requests of the
/// largest size at a time, so that many that hang do not cost much, and one that comes back waits its turn.
const SILENT_BYTES_MAX: usize = 8 * 1024 * 1024;

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
    ahead: Arc<Semaphore>,
    answering: Arc<Semaphore>,
    silent: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            ahead: Arc::new(Semaphore::new(AHEAD_RAW_BYTES_MAX)),
            answering: Arc::new(Semaphore::new(ANSWERING_BYTES_MAX)),
            silent: Arc::new(Semaphore::new(SILENT_BYTES_MAX)),
        }
    }
}

impl Budget {
    /// For a request beyond the first; `None` if there is not that much left.
    pub(super) fn ahead(&self, raw_bytes: usize) -> Option<Share> {
        let permit = Arc::clone(&self.ahead).try_acquire_many_owned(permits(raw_bytes, AHEAD_RAW_BYTES_MAX)).ok()?;
        Some(Share { permit })
    }

    /// Waits for room for a body. One that is larger than the lane takes the whole lane.
    pub(super) async fn sending(&self, lane: Lane, bytes: usize) -> Share {
        let (lane, bytes_max) = match lane {
            Lane::Answering => (&self.answering, ANSWERING_BYTES_MAX),
            Lane::Silent => (&self.silent, SILENT_BYTES_MAX),
        };
        match Arc::clone(lane).acquire_many_owned(permits(bytes, bytes_max)).await {
            Ok(permit) => Share { permit },
            // Nobody closes the semaphores.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Share {
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
        let mut first = budget.ahead(AHEAD_RAW_BYTES_MAX).unwrap();
        assert!(budget.clone().ahead(1).is_none());
        first.shrink(AHEAD_RAW_BYTES_MAX - 10);
        assert!(budget.ahead(11).is_none());
        assert!(budget.ahead(10).is_some());
    }

    #[tokio::test]
    async fn destinations_that_hang_do_not_keep_others_from_sending() {
        let budget = Budget::default();
        let hanging = budget.sending(Lane::Silent, usize::MAX).await;
        assert!(budget.sending(Lane::Silent, 1).now_or_never().is_none());
        assert!(budget.sending(Lane::Answering, ANSWERING_BYTES_MAX).now_or_never().is_some());
        drop(hanging);
        assert!(budget.sending(Lane::Silent, SILENT_BYTES_MAX).now_or_never().is_some());
    }
}
