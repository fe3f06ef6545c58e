//! What ends a query before it is done: its client left, its time is over, it needs too much memory.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

/// Memory is taken from the pool in such portions: most bookings are a few hundred bytes.
const PORTION_BYTES: usize = 256 * 1024;
/// How long a query waits for memory that others hold. It may hold some itself, so waiting longer would not help all.
const POOL_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a query that waits looks whether its client left.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Memory that all queries share.
#[derive(Debug)]
pub struct Pool {
    bytes_max: usize,
    free_bytes: Mutex<usize>,
    freed: Condvar,
}

/// Shared by a running query and whoever waits for it.
#[derive(Debug)]
pub struct Control {
    cancelled: AtomicBool,
    deadline: Instant,
    time_max: Duration,
    used_bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    pool: Arc<Pool>,
    /// Taken from the pool.
    taken_bytes: Mutex<usize>,
}

/// Memory that is given back when this is dropped.
#[derive(Debug)]
pub struct Booked {
    used_bytes: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Booked {
    fn drop(&mut self) {
        self.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why a query ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Stopped {
    #[error("the client left")]
    Cancelled,
    #[error("the query took longer than {} s; ask for a shorter time range or fewer spans", .0.as_secs())]
    TimeOver(Duration),
    #[error("the query needs more than {} MiB of memory; ask for a shorter time range, or group by fewer values", .0 >> 20)]
    MemoryOver(usize),
    #[error(
        "all queries together need more than {} MiB of memory; try again, or ask for a shorter time range (extensions::spanreel::memory)",
        .0 >> 20
    )]
    MemoryBusy(usize),
}

impl Pool {
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, free_bytes: Mutex::new(bytes_max), freed: Condvar::new() })
    }

    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Bytes that queries hold now.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.bytes_max - *self.free()
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `bytes`, not longer than [`POOL_WAIT_MAX`] and `go_on` says.
    fn take(&self, bytes: usize, go_on: impl Fn() -> Result<(), Stopped>) -> Result<(), Stopped> {
        let until = Instant::now() + POOL_WAIT_MAX;
        let mut free = self.free();
        loop {
            if let Some(left) = free.checked_sub(bytes) {
                *free = left;
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Stopped::MemoryBusy(self.bytes_max));
            }
            go_on()?;
            free = self.freed.wait_timeout(free, LOOK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn give_back(&self, bytes: usize) {
        *self.free() += bytes;
        self.freed.notify_all();
    }
}

impl Control {
    /// A query that has all memory to itself.
    #[must_use]
    pub fn new(time_max: Duration, bytes_max: usize) -> Self {
        Self::sharing(time_max, Pool::new(bytes_max))
    }

    /// One of several queries.
    #[must_use]
    pub fn sharing(time_max: Duration, pool: Arc<Pool>) -> Self {
        Self {
            cancelled: AtomicBool::new(false),
            deadline: Instant::now() + time_max,
            time_max,
            used_bytes: Arc::default(),
            bytes_max: pool.bytes_max,
            pool,
            taken_bytes: Mutex::new(0),
        }
    }

    /// The client left: the query ends at its next [`Control::check`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// To be called at least once per segment and per few thousand rows of slow work.
    ///
    /// # Errors
    /// The query is to end.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Stopped::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(Stopped::TimeOver(self.time_max));
        }
        Ok(())
    }

    /// Books memory that the query holds from now on (results, groups, assembled traces). Waits while other queries hold it.
    ///
    /// # Errors
    /// It would hold more than it may, or others do not give it back in time.
    pub fn reserve(&self, bytes: usize) -> Result<(), Stopped> {
        let used = self.used_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if used > self.bytes_max {
            return Err(Stopped::MemoryOver(self.bytes_max));
        }
        let mut taken = self.taken();
        if used > *taken {
            let portion = (used - *taken).next_multiple_of(PORTION_BYTES).min(self.bytes_max - *taken);
            self.pool.take(portion, || self.check())?;
            *taken += portion;
        }
        Ok(())
    }

    /// As [`Control::reserve`], for as long as what it returns is kept.
    ///
    /// # Errors
    /// The query would hold more than it may.
    pub fn book(&self, bytes: usize) -> Result<Booked, Stopped> {
        let booked = Booked { used_bytes: Arc::clone(&self.used_bytes), bytes };
        self.reserve(bytes).map(|()| booked)
    }

    /// Whether half of the memory is still free: what only saves time is not kept beyond.
    #[must_use]
    pub fn has_plenty(&self) -> bool {
        self.used_bytes() <= self.bytes_max / 2
    }

    pub fn release(&self, bytes: usize) {
        let used = self.used_bytes.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes);
        let mut taken = self.taken();
        let wanted = used.next_multiple_of(PORTION_BYTES).min(self.bytes_max);
        // A portion is kept, so that small steps to and fro cost nothing.
        if *taken > wanted + PORTION_BYTES {
            self.pool.give_back(*taken - wanted);
            *taken = wanted;
        }
    }

    /// What it may hold at most.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn taken(&self) -> MutexGuard<'_, usize> {
        self.taken_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let taken = *self.taken();
        self.pool.give_back(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn sharing(pool: &Arc<Pool>) -> Control {
        Control::sharing(Duration::from_secs(60), Arc::clone(pool))
    }

    #[test]
    fn what_one_query_gives_back_another_gets() {
        let pool = Pool::new(4 * MIB);
        let first = sharing(&pool);
        first.reserve(3 * MIB).unwrap();
        assert_eq!(pool.used_bytes(), 3 * MIB);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| sharing(&pool).reserve(2 * MIB));
            // It waits, or will, until there is room.
            first.release(2 * MIB);
            assert_eq!(second.join().unwrap(), Ok(()));
        });
        drop(first);
        assert_eq!(pool.used_bytes(), 0);
    }

    #[test]
    fn a_query_that_waits_for_memory_ends_when_its_client_leaves() {
        let pool = Pool::new(MIB);
        let first = sharing(&pool);
        first.reserve(MIB).unwrap();
        let second = sharing(&pool);
        second.cancel();
        assert_eq!(second.reserve(1), Err(Stopped::Cancelled));
        assert_eq!(first.reserve(1), Err(Stopped::MemoryOver(MIB)), "more than all there is");
    }

    #[test]
    fn any_steps_leave_the_pool_as_it_was() {
        let pool = Pool::new(4 * MIB);
        {
            let control = sharing(&pool);
            for step in 1..200usize {
                control.reserve(step * 100).unwrap();
                assert!(pool.used_bytes() >= control.used_bytes() && pool.used_bytes() <= 4 * MIB);
                if step % 3 == 0 {
                    control.release(step * 100);
                }
            }
            let _ = control.reserve(4 * MIB);
        }
        assert_eq!(pool.used_bytes(), 0);
    }
}
