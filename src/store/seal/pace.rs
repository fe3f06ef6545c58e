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

impl Hurry {
    /// What follows a turn of so much work: a pause, of no time where others are only to be let before; `None`: the turn goes on.
    fn pause_after(self, worked: Duration) -> Option<Duration> {
        let pause = match self {
            Self::No => worked.min(PAUSE_MAX),
            Self::Yes => Duration::ZERO,
        };
        (worked >= TURN_MIN).then_some(pause)
    }
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
        match self.hurry.pause_after(worked) {
            None => return Ok(()),
            Some(Duration::ZERO) => std::thread::yield_now(),
            Some(pause) => std::thread::sleep(pause),
        }
        self.worked += worked;
        self.turn = Instant::now();
        Ok(())
    }

    /// Time of work so far.
    pub fn worked(&self) -> Duration {
        self.worked + self.turn.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(hurry: Hurry) -> (Pace, Arc<AtomicBool>) {
        let stopping = Arc::new(AtomicBool::new(false));
        (Pace::new(hurry, Arc::clone(&stopping)), stopping)
    }

    /// A turn of work, which ends with the call that returns from its pause.
    fn turn(pace: &mut Pace) {
        let began = pace.turn;
        while pace.turn == began {
            pace.rest().unwrap();
        }
    }

    #[test]
    fn it_pauses_as_long_as_it_worked_and_in_a_hurry_not_at_all() {
        let (work, long) = (TURN_MIN + Duration::from_millis(1), 100 * PAUSE_MAX);
        for hurry in [Hurry::No, Hurry::Yes] {
            assert_eq!(hurry.pause_after(TURN_MIN / 2), None, "shorter pauses cost more than they give");
        }
        assert_eq!((Hurry::No.pause_after(work), Hurry::No.pause_after(long)), (Some(work), Some(PAUSE_MAX)));
        assert_eq!(
            (Hurry::Yes.pause_after(work), Hurry::Yes.pause_after(long)),
            (Some(Duration::ZERO), Some(Duration::ZERO))
        );
    }

    #[test]
    fn pauses_do_not_count_as_work() {
        let began = Instant::now();
        let (mut pace, _) = pace(Hurry::No);
        for _ in 0..5 {
            turn(&mut pace);
        }
        // Each turn was followed by a pause of two milliseconds at the least, however slow the machine is.
        assert!(pace.worked >= 5 * TURN_MIN);
        assert!(pace.worked() + 5 * TURN_MIN <= began.elapsed(), "{:?}", pace.worked());
    }

    #[test]
    fn who_is_told_to_stop_stops_in_the_midst_of_a_turn() {
        let (mut pace, stopping) = pace(Hurry::No);
        turn(&mut pace);
        stopping.store(true, Ordering::Relaxed);
        assert_eq!(pace.rest(), Err(Stopped));
    }
}
