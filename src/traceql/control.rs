//! What ends a query before it is done: its client left, its time is over, it needs too much memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use thiserror::Error;

/// Shared by a running query and whoever waits for it.
#[derive(Debug)]
pub struct Control {
    cancelled: AtomicBool,
    deadline: Instant,
    time_max: Duration,
    used_bytes: Arc<AtomicUsize>,
    bytes_max: usize,
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
}

impl Control {
    #[must_use]
    pub fn new(time_max: Duration, bytes_max: usize) -> Self {
        Self {
            cancelled: AtomicBool::new(false),
            deadline: Instant::now() + time_max,
            time_max,
            used_bytes: Arc::default(),
            bytes_max,
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

    /// Books memory that the query holds from now on (results, groups, assembled traces).
    ///
    /// # Errors
    /// It would hold more than it may.
    pub fn reserve(&self, bytes: usize) -> Result<(), Stopped> {
        let used = self.used_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if used > self.bytes_max { Err(Stopped::MemoryOver(self.bytes_max)) } else { Ok(()) }
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
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }
}
