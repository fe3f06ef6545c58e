//! When connections end that had served: what was sent by them shortly before may be lost with whoever took it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// The ends of a destination's connections, until somebody asks.
#[derive(Debug, Default)]
pub(super) struct Breaks {
    first: Mutex<Option<SystemTime>>,
}

/// What there is to say of one connection.
#[derive(Debug, Default)]
pub(super) struct Life {
    has_served: AtomicBool,
    is_told: AtomicBool,
}

impl Life {
    /// A request was answered.
    pub(super) fn serves(&self) {
        self.has_served.store(true, Ordering::Relaxed);
    }

    /// It is to end, and not because the other side went away.
    pub(super) fn ends_in_order(&self) {
        self.is_told.store(true, Ordering::Relaxed);
    }
}

impl Breaks {
    /// A connection ended, perhaps noticed from both sides.
    pub(super) fn ended(&self, life: &Life) {
        if life.has_served.load(Ordering::Relaxed) && !life.is_told.swap(true, Ordering::Relaxed) {
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(SystemTime::now);
        }
    }

    /// The first end since the last call.
    pub(super) fn take(&self) -> Option<SystemTime> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
