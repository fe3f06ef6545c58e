//! Batches that the disk does not give: how often each is tried, and from when on it is passed over.
//!
//! One that is damaged is passed over at once, one that the device cannot read after [`TRIES_MAX`] tries. From then on it is
//! not read again until the next start: a device may take half a minute to say no. Where a whole device is away nothing is
//! lost by that, as cursors move in writes to the same device.

use super::Seq;
use super::database::Verdict;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Reads of one batch that may fail.
const TRIES_MAX: u32 = 3;
/// Reads that follow each other faster are one try: a device that hiccups gets some seconds. In
/// unit tests time does not pass unless they say so.
const TRY_INTERVAL: Duration = Duration::from_secs(if cfg!(test) { 3600 } else { 1 });
/// Batches that are remembered. With more than that the device is failing as a whole, and reading has to wait for it.
const BATCHES_MAX: usize = 1024;

/// What a reader does about a batch that it could not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    TryAgain,
    /// From now on; this is to be counted and said.
    PassOver,
    /// As before.
    PassOverAgain,
}

#[derive(Debug, Default)]
pub(super) struct Unreadable {
    batches: Mutex<BTreeMap<Seq, Tries>>,
    /// How many there are, so that nobody locks while there is none.
    count: AtomicUsize,
    #[cfg(test)]
    failing: Mutex<std::collections::BTreeSet<Seq>>,
}

#[derive(Debug, Clone, Copy)]
struct Tries {
    count: u32,
    last: Instant,
}

impl Unreadable {
    pub fn is_passed_over(&self, seq: Seq) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.batches().get(&seq).is_some_and(|tries| tries.count >= TRIES_MAX)
    }

    /// A read failed. Batches before `head` are gone, and forgotten.
    pub fn note(&self, seq: Seq, head: Seq, verdict: Verdict) -> Advice {
        if verdict == Verdict::Innocent {
            return Advice::TryAgain;
        }
        let now = Instant::now();
        let mut batches = self.batches();
        if batches.len() >= BATCHES_MAX {
            *batches = batches.split_off(&head);
        }
        if batches.len() >= BATCHES_MAX && !batches.contains_key(&seq) {
            return if verdict == Verdict::Damaged { Advice::PassOver } else { Advice::TryAgain };
        }
        let tries = batches.entry(seq).or_insert(Tries { count: 0, last: now });
        let before = tries.count;
        if verdict == Verdict::Damaged {
            tries.count = TRIES_MAX;
        } else if before == 0 || tries.last.elapsed() >= TRY_INTERVAL {
            *tries = Tries { count: before + 1, last: now };
        }
        let advice = match tries.count {
            count if count < TRIES_MAX => Advice::TryAgain,
            _ if before < TRIES_MAX => Advice::PassOver,
            _ => Advice::PassOverAgain,
        };
        self.count.store(batches.len(), Ordering::Relaxed);
        advice
    }

    fn batches(&self) -> MutexGuard<'_, BTreeMap<Seq, Tries>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As if the last tries were some time ago.
    #[cfg(test)]
    fn let_time_pass(&self) {
        self.batches().values_mut().for_each(|tries| tries.last -= TRY_INTERVAL);
    }

    #[cfg(test)]
    pub fn fail_if_asked(&self, seq: Seq) -> Result<(), rocksdb::Error> {
        let failing = self.failing.lock().unwrap();
        if failing.contains(&seq) { Err(device_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
impl super::Spool {
    /// Makes the device fail for a batch, as far as readers can tell.
    pub(crate) fn fail_reads_of(&self, seq: Seq) {
        self.shared.unreadable.failing.lock().unwrap().insert(seq);
    }

    /// The next reads that fail are tries of their own.
    pub(crate) fn let_time_pass_for_unreadable(&self) {
        self.shared.unreadable.let_time_pass();
    }

    pub(crate) fn unreadable_batches(&self) -> u64 {
        self.shared.metrics.unreadable_batches()
    }
}

/// What RocksDB says of a file that the device cannot read: a real one, as its errors cannot be made.
#[cfg(test)]
fn device_error() -> rocksdb::Error {
    let directory = tempfile::TempDir::new().unwrap();
    // The first page of an address space is never there: reading it is an input/output error.
    std::os::unix::fs::symlink("/proc/self/mem", directory.path().join("CURRENT")).unwrap();
    rocksdb::DB::open_for_read_only(&rocksdb::Options::default(), directory.path(), false).unwrap_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_says_no_is_believed_after_some_tries_and_a_damaged_batch_at_once() {
        assert_eq!(Verdict::of(&device_error()), Verdict::Unreadable);
        let unreadable = Unreadable::default();
        let (slow, damaged) = (Seq(7), Seq(8));
        assert_eq!(unreadable.note(slow, Seq(1), Verdict::Innocent), Advice::TryAgain);
        assert_eq!(unreadable.count.load(Ordering::Relaxed), 0);
        assert_eq!(unreadable.note(damaged, Seq(1), Verdict::Damaged), Advice::PassOver);
        assert_eq!(unreadable.note(damaged, Seq(1), Verdict::Damaged), Advice::PassOverAgain);
        for _ in 0..2 * TRIES_MAX {
            assert_eq!(
                unreadable.note(slow, Seq(1), Verdict::Unreadable),
                Advice::TryAgain,
                "one try, as it is so quick"
            );
        }
        for _ in 2..TRIES_MAX {
            unreadable.let_time_pass();
            assert_eq!(unreadable.note(slow, Seq(1), Verdict::Unreadable), Advice::TryAgain);
        }
        assert!(!unreadable.is_passed_over(slow));
        unreadable.let_time_pass();
        assert_eq!(unreadable.note(slow, Seq(1), Verdict::Unreadable), Advice::PassOver);
        assert!(unreadable.is_passed_over(slow) && unreadable.is_passed_over(damaged));
    }

    #[test]
    fn a_device_that_fails_as_a_whole_is_waited_for() {
        let unreadable = Unreadable::default();
        for seq in 0..BATCHES_MAX as u64 {
            assert_eq!(unreadable.note(Seq(seq), Seq(0), Verdict::Unreadable), Advice::TryAgain);
        }
        let next = Seq(BATCHES_MAX as u64);
        for _ in 0..2 * TRIES_MAX {
            unreadable.let_time_pass();
            assert_eq!(unreadable.note(next, Seq(0), Verdict::Unreadable), Advice::TryAgain);
        }
        assert_eq!(unreadable.batches().len(), BATCHES_MAX);
        unreadable.note(next, next, Verdict::Unreadable);
        assert_eq!(unreadable.batches().len(), 1, "what is gone is forgotten");
    }
}
