//! When connections end that had served: what was sent by them shortly before may be lost with whoever took it.

use super::headers::with_sources;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The ends of a destination's connections, until somebody asks.
#[derive(Debug, Default)]
pub(super) struct Breaks {
    first: Mutex<Option<SystemTime>>,
}

/// What there is to say of one connection.
#[derive(Debug, Default)]
pub(super) struct Life {
    serves: AtomicBool,
    is_told: AtomicBool,
}

impl Life {
    /// It was answered by, and more is to come: if it ends now, the other side went away.
    pub(super) fn serves(&self) {
        self.serves.store(true, Ordering::Relaxed);
    }

    /// A request is under way that tells how it ends.
    pub(super) fn is_asked(&self) {
        self.serves.store(false, Ordering::Relaxed);
    }

    /// It is to end, and not because the other side went away.
    pub(super) fn ends_in_order(&self) {
        self.is_told.store(true, Ordering::Relaxed);
    }
}

impl Breaks {
    /// Drives a new connection, in a task that ends with it: it closes when its last sender is dropped.
    pub(super) fn follow<E: std::error::Error>(
        self: &Arc<Self>,
        driver: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Arc<Life> {
        let life = Arc::new(Life::default());
        let (breaks, followed) = (Arc::clone(self), Arc::clone(&life));
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(error = with_sources(&error), "connection to a destination ended");
            }
            breaks.ended(&followed);
        });
        life
    }

    /// A connection ended, perhaps noticed from both sides.
    pub(super) fn ended(&self, life: &Life) {
        if life.serves.load(Ordering::Relaxed) {
            self.broke(life);
        }
    }

    /// A connection that had served, or was just serving, broke off.
    pub(super) fn broke(&self, life: &Life) {
        if !life.is_told.swap(true, Ordering::Relaxed) {
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(SystemTime::now);
        }
    }

    /// The first end since the last call.
    pub(super) fn take(&self) -> Option<SystemTime> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
