//! The memory that all destinations of the process share, however many there are.
//!
//! ```text
//! ahead     stored frames of the second and later requests of a destination; the first needs no permission
//! sending   bodies, from being encoded to being answered: one lane for destinations that answer, one for the others
//! shown     series of `prometheus` exporters, all pages together
//! ```
//!
//! Nobody waits for `ahead`: a destination that gets none goes on with one request at a time. Nor for `shown`: a series that
//! gets none is left out and counted. `sending` is waited for, and held for one attempt only, which the timeout ends: so
//! there is no deadlock. Of the lane for destinations that answer each has a slice of its own ([`Seat`]), and waits for
//! nobody's bodies but its own: one that takes its time stops no other. A destination that does not answer competes with
//! its like only, first come first served, and holds no body while it backs off.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A slice of the lane is never smaller, however many destinations there are.
const SLICE_MIN: usize = 256 * 1024;

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
    answering: Arc<Mutex<Bodies>>,
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
            answering: Arc::new(Mutex::new(Bodies {
                bytes_max: memory.answering_bytes,
                destinations: 0,
                common_bytes: 0,
            })),
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

    /// A destination's place among the others, for as long as it is kept.
    pub(super) fn seat(&self) -> Seat {
        lock(&self.answering).destinations += 1;
        Seat { budget: self.clone(), own: Arc::default() }
    }
}

/// The bodies on their way to destinations that answer. Half of the room is cut into slices, one for each destination; the
/// other half is for whoever comes first, and nobody waits for it.
#[derive(Debug)]
struct Bodies {
    bytes_max: usize,
    destinations: usize,
    /// Held of the half that is for everybody.
    common_bytes: usize,
}

impl Bodies {
    fn slice(&self) -> usize {
        (self.bytes_max / 2 / self.destinations.max(1)).max(SLICE_MIN)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one destination holds of its slice. Locked only by who holds the lock of [`Bodies`].
#[derive(Debug, Default)]
struct Own {
    slice_bytes: Mutex<usize>,
    released: Notify,
}

/// One destination's place among all that bodies go to.
#[derive(Debug)]
pub(super) struct Seat {
    budget: Budget,
    own: Arc<Own>,
}

impl Seat {
    /// How large a body may be that the destination's slice has room for, bytes.
    pub(super) fn slice(&self) -> usize {
        lock(&self.budget.answering).slice()
    }

    /// Waits for room for a body. One that is larger than what there is room for goes alone.
    pub(super) async fn sending(&self, lane: Lane, bytes: usize) -> Room {
        match lane {
            Lane::Answering => loop {
                if let Some(room) = self.answering(bytes) {
                    break room;
                }
                self.own.released.notified().await;
            },
            Lane::Silent => {
                let permits = permits(bytes, self.budget.memory.silent_bytes);
                match Arc::clone(&self.budget.silent).acquire_many_owned(permits).await {
                    Ok(permit) => Room::Silent(Share { permit }),
                    // Nobody closes the semaphore.
                    Err(_) => std::future::pending().await,
                }
            }
        }
    }

    /// Room for a body, if there is.
    fn answering(&self, bytes: usize) -> Option<Room> {
        let mut bodies = lock(&self.budget.answering);
        let mut own = lock(&self.own.slice_bytes);
        let (slice, common) = if *own == 0 || *own + bytes <= bodies.slice() {
            (bytes, 0)
        } else if bodies.common_bytes + bytes <= bodies.bytes_max / 2 {
            (0, bytes)
        } else {
            return None;
        };
        *own += slice;
        bodies.common_bytes += common;
        drop((own, bodies));
        // Another one of this destination that waits may find room as well.
        self.own.released.notify_one();
        Some(Room::Answering(Held {
            bodies: Arc::clone(&self.budget.answering),
            own: Arc::clone(&self.own),
            slice,
            common,
        }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut bodies = lock(&self.budget.answering);
        bodies.destinations = bodies.destinations.saturating_sub(1);
    }
}

/// Permission to hold a body; dropping it gives the room back.
#[derive(Debug)]
#[must_use]
pub(super) enum Room {
    Answering(Held),
    Silent(Share),
}

impl Room {
    /// Gives back what is more than `bytes`: what a body had before it was compressed.
    pub(super) fn shrink(&mut self, bytes: usize) {
        match self {
            Self::Answering(held) => held.shrink(bytes),
            Self::Silent(share) => share.shrink(bytes),
        }
    }
}

/// Bytes of a destination's slice, or of what is for everybody.
#[derive(Debug)]
pub(super) struct Held {
    bodies: Arc<Mutex<Bodies>>,
    own: Arc<Own>,
    slice: usize,
    common: usize,
}

impl Held {
    fn shrink(&mut self, bytes: usize) {
        let (slice, common) = (self.slice.min(bytes), self.common.min(bytes));
        let mut bodies = lock(&self.bodies);
        bodies.common_bytes = bodies.common_bytes.saturating_sub(self.common - common);
        let mut own = lock(&self.own.slice_bytes);
        *own = own.saturating_sub(self.slice - slice);
        drop((own, bodies));
        (self.slice, self.common) = (slice, common);
        self.own.released.notify_one();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink(0);
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
        let (first, second) = (budget.seat(), budget.seat());
        let hanging = first.sending(Lane::Silent, usize::MAX).await;
        assert!(second.sending(Lane::Silent, 1).now_or_never().is_none());
        assert!(second.sending(Lane::Answering, budget.memory.answering_bytes).now_or_never().is_some());
        drop(hanging);
        assert!(second.sending(Lane::Silent, budget.memory.silent_bytes).now_or_never().is_some());
    }

    #[tokio::test]
    async fn slow_destinations_leave_each_other_its_slice() {
        let budget = Budget::default();
        let seats: Vec<_> = (0..5).map(|_| budget.seat()).collect();
        let body = seats[0].slice();
        let mut held = Vec::new();
        for slow in &seats[..4] {
            while let Some(room) = slow.sending(Lane::Answering, body).now_or_never() {
                held.push(room);
            }
        }
        assert_eq!(held.len(), 9, "a slice each, and five from what is for everybody");
        let healthy = seats[4].sending(Lane::Answering, body).now_or_never();
        assert!(healthy.is_some());
        assert!(seats[4].sending(Lane::Answering, body).now_or_never().is_none());
        drop(healthy);
        assert!(seats[4].sending(Lane::Answering, body).now_or_never().is_some());
        held.clear();
        assert_eq!(lock(&budget.answering).common_bytes, 0);
    }

    #[tokio::test]
    async fn who_waits_goes_when_a_body_of_its_destination_is_done_or_compressed() {
        let budget = Budget::default();
        let (seat, other) = (budget.seat(), budget.seat());
        let taken = |_| other.sending(Lane::Answering, other.slice()).now_or_never();
        let _slice_and_what_is_for_everybody: Vec<_> = (0..3).map(taken).collect();
        let mut first = seat.sending(Lane::Answering, seat.slice()).await;
        let mut second = std::pin::pin!(seat.sending(Lane::Answering, seat.slice() / 2));
        let mut third = std::pin::pin!(seat.sending(Lane::Answering, seat.slice() / 4));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        first.shrink(seat.slice() / 4);
        let _second = second.await;
        let _third = third.await;
        drop(first);
    }

    #[tokio::test]
    async fn a_body_larger_than_a_slice_goes_alone_and_what_ends_leaves_its_slice_to_others() {
        let budget = Budget::default();
        let seat = budget.seat();
        let large = seat.sending(Lane::Answering, usize::MAX / 2).await;
        let half = budget.memory.answering_bytes / 2;
        let common = seat.sending(Lane::Answering, half).now_or_never();
        assert!(common.is_some());
        assert!(seat.sending(Lane::Answering, 1).now_or_never().is_none());
        drop(large);
        assert!(seat.sending(Lane::Answering, 1).now_or_never().is_some());
        assert_eq!(seat.slice(), half);
        let others: Vec<_> = (0..100).map(|_| budget.seat()).collect();
        assert_eq!(seat.slice(), SLICE_MIN);
        drop(others);
        assert_eq!(seat.slice(), half);
    }
}
