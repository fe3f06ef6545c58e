//! How the sealer gives way: what it does can wait, what others do cannot.

use std::time::{Duration, Instant};

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

/// Measures turns of work and pauses between them.
#[derive(Debug)]
pub(super) struct Pace {
    hurry: Hurry,
    turn: Instant,
    worked: Duration,
}

impl Pace {
    pub fn new(hurry: Hurry) -> Self {
        Self { hurry, turn: Instant::now(), worked: Duration::ZERO }
    }

    /// To be called between small pieces of work.
    pub fn rest(&mut self) {
        let worked = self.turn.elapsed();
        if worked < TURN_MIN {
            return;
        }
        self.worked += worked;
        match self.hurry {
            Hurry::No => std::thread::sleep(worked.min(PAUSE_MAX)),
            Hurry::Yes => std::thread::yield_now(),
        }
        self.turn = Instant::now();
    }

    /// Time of work so far.
    pub fn worked(&self) -> Duration {
        self.worked + self.turn.elapsed()
    }
}
