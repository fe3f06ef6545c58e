//! How the sealer gives way: what it does can wait, what others do cannot. And how it ends: between two small pieces of work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use thiserror::Error;

/// Work between two pauses, at least: shorter pauses cost more than they give.
const TURN_MIN: Duration = Duration::from_millis(2);
/// A pause, at most: after a turn that was long because somebody else had the processor, nothing is owed.
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// Whether sealing keeps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hurry {
    /// It pauses as long as it works.
    No,
    /// Much waits: memory and the spool fill up, so it only gives way to whoever is ready.
    Yes,
}

/// The sealer was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("shutting down")]
pub struct Stopped;

/// Measures turns of work and pauses between them.
#[derive(Debug)]
pub(super) struct Pace {
    hurry: Hurry,
    turn: Instant,
    worked: Duration,
    stopping: Arc<AtomicBool>,
}

impl Pace {
    pub fn new(hurry: Hurry, stopping: Arc<AtomicBool>) -> Self {
        Self { hurry, turn: Instant::now(), worked: Duration::ZERO, stopping }
    }

    /// To be called between small pieces of work.
    ///
    /// # Errors
    /// The sealer was told to stop.
    pub fn rest(&mut self) -> Result<(), Stopped> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        let worked = self.turn.elapsed();
        if worked < TURN_MIN {
            return Ok(());
        }
        self.worked += worked;
        match self.hurry {
            Hurry::No => std::thread::sleep(worked.min(PAUSE_MAX)),
            Hurry::Yes => std::thread::yield_now(),
        }
        self.turn = Instant::now();
        Ok(())
    }

    /// Time of work so far.
    pub fn worked(&self) -> Duration {
        self.worked + self.turn.elapsed()
    }
}
