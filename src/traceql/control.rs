//! What ends a query before it is done: its client left, its time is over, it needs too much memory.
//!
//! The pool of memory is not for queries alone: work in the background borrows from it ([`Pool::lend`]), so that both never
//! hold their most at the same time. Who borrows waits until those have ended that hold much; who needs much then waits until
//! it is given back. Light queries go on meanwhile.

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
/// A query that holds no more than this is let on while a loan is waited for: columns of a segment for each of two threads.
const LIGHT_BYTES: usize = 4 * 1024 * 1024;
/// A loan leaves as much to light queries, if there is.
const LEFT_BYTES: usize = 2 * LIGHT_BYTES;
/// How long a loan lets queries go first that waited for one before it.
const GIVE_WAY_MAX: Duration = Duration::from_secs(1);

/// Memory that all queries share, and that work in the background borrows.
#[derive(Debug)]
pub struct Pool {
    bytes_max: usize,
    free: Mutex<Free>,
    freed: Condvar,
}

/// What a pool has left.
#[derive(Debug, Clone, Copy)]
struct Free {
    bytes: usize,
    /// The least that there ever was.
    least_bytes: usize,
    /// Queries that wait for memory.
    queries_waiting: usize,
    /// Loans that are waited for.
    loans_waiting: usize,
}

impl Free {
    fn take(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.least_bytes = self.least_bytes.min(self.bytes);
    }
}

/// Memory of a [`Pool`] that work in the background holds until this is dropped.
#[derive(Debug)]
pub struct Loan {
    pool: Arc<Pool>,
    bytes: usize,
}

impl Loan {
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is no longer needed.
    pub fn shrink_to(&mut self, bytes: usize) {
        if let Some(freed) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.pool.give_back(freed);
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.pool.give_back(self.bytes);
    }
}

/// Shared by a running query, what it keeps in memory, and whoever waits for it.
#[derive(Debug)]
pub struct Control {
    account: Arc<Account>,
}

/// What a query may hold, and holds. Lives as long as the last thing that is booked.
#[derive(Debug)]
struct Account {
    cancelled: AtomicBool,
    deadline: Instant,
    time_max: Duration,
    used_bytes: AtomicUsize,
    bytes_max: usize,
    pool: Arc<Pool>,
    /// Taken from the pool.
    taken_bytes: Mutex<usize>,
}

/// Memory that is given back when this is dropped.
#[derive(Debug)]
pub struct Booked {
    account: Arc<Account>,
    bytes: usize,
}

impl Booked {
    /// Books more.
    ///
    /// # Errors
    /// The query would hold more than it may.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Stopped> {
        self.account.reserve(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back what is booked beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        if let Some(freed) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.account.release(freed);
        }
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Stays booked for as long as the query runs, or until [`Control::settle`].
    pub fn leave(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Booked {
    fn drop(&mut self) {
        self.account.release(self.bytes);
    }
}

/// Why a query ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Stopped {
    #[error("the client left")]
    Cancelled,
    /// It begins as Go, and with it Tempo, says it.
    #[error("context deadline exceeded: the query took longer than {} s; ask for a shorter time range or fewer spans", .0.as_secs())]
    TimeOver(Duration),
    #[error("the query needs more than {} MiB of memory; ask for a shorter time range, a lower limit, or fewer groups", .0 >> 20)]
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
        let free = Free { bytes: bytes_max, least_bytes: bytes_max, queries_waiting: 0, loans_waiting: 0 };
        Arc::new(Self { bytes_max, free: Mutex::new(free), freed: Condvar::new() })
    }

    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Bytes that queries, and whoever borrowed, hold now.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.bytes_max - self.free().bytes
    }

    /// The most that was ever held together.
    #[must_use]
    pub fn peak_bytes(&self) -> usize {
        self.bytes_max - self.free().least_bytes
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends `wanted` bytes, or as many as there are, but no fewer than `least`. Blocks until so many are free; queries that
    /// hold much get what they still need before, and new ones only what is light. `None`: `goes_on` said no.
    pub fn lend(self: &Arc<Self>, least: usize, wanted: usize, goes_on: impl Fn() -> bool) -> Option<Loan> {
        let (least, wanted) = (least.min(self.bytes_max), wanted.min(self.bytes_max));
        let begun = Instant::now();
        let mut free = self.free();
        // What was given back a moment ago is theirs.
        while free.queries_waiting > 0 && begun.elapsed() < GIVE_WAY_MAX && goes_on() {
            free = self.wait(free);
        }
        free.loans_waiting += 1;
        while free.bytes < least && goes_on() {
            free = self.wait(free);
        }
        free.loans_waiting -= 1;
        let is_lent = free.bytes >= least;
        let bytes = if is_lent { wanted.min(free.bytes.saturating_sub(LEFT_BYTES).max(least)) } else { 0 };
        free.take(bytes);
        drop(free);
        // Queries that it kept waiting look again.
        self.freed.notify_all();
        is_lent.then(|| Loan { pool: Arc::clone(self), bytes })
    }

    /// Takes `wanted` bytes for a query that holds `held`, or as many as there are, but no fewer than `least`; 0: it is to
    /// wait.
    fn take(&self, held: usize, least: usize, wanted: usize) -> usize {
        let mut free = self.free();
        let most = match held {
            // Who holds much is to end, not to wait for others.
            _ if free.loans_waiting == 0 || held > LIGHT_BYTES => free.bytes,
            _ => free.bytes.min(LIGHT_BYTES - held),
        };
        let taken = if most < least { 0 } else { wanted.min(most) };
        free.take(taken);
        taken
    }

    /// A query waits a little, or until something changed; not if there is enough by now.
    fn wait_for(&self, bytes: usize) {
        let mut free = self.free();
        if free.bytes < bytes || free.loans_waiting > 0 {
            free.queries_waiting += 1;
            free = self.wait(free);
            free.queries_waiting -= 1;
        }
    }

    fn wait<'f>(&self, free: MutexGuard<'f, Free>) -> MutexGuard<'f, Free> {
        self.freed.wait_timeout(free, LOOK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0
    }

    fn give_back(&self, bytes: usize) {
        self.free().bytes += bytes;
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
        let account = Account {
            cancelled: AtomicBool::new(false),
            deadline: Instant::now() + time_max,
            time_max,
            used_bytes: AtomicUsize::new(0),
            bytes_max: pool.bytes_max,
            pool,
            taken_bytes: Mutex::new(0),
        };
        Self { account: Arc::new(account) }
    }

    /// The client left: the query ends at its next [`Control::check`].
    pub fn cancel(&self) {
        self.account.cancelled.store(true, Ordering::Relaxed);
    }

    /// To be called at least once per segment and per few thousand rows of slow work.
    ///
    /// # Errors
    /// The query is to end.
    pub fn check(&self) -> Result<(), Stopped> {
        self.account.check()
    }

    /// Books memory that the query holds from now on (results, groups, assembled traces). Waits while other queries hold it.
    ///
    /// # Errors
    /// It would hold more than it may, or others do not give it back in time; nothing is booked then.
    pub fn reserve(&self, bytes: usize) -> Result<(), Stopped> {
        self.account.reserve(bytes)
    }

    /// As [`Control::reserve`], for as long as what it returns is kept.
    ///
    /// # Errors
    /// The query would hold more than it may.
    pub fn book(&self, bytes: usize) -> Result<Booked, Stopped> {
        let mut booked = self.nothing_booked();
        booked.grow(bytes)?;
        Ok(booked)
    }

    /// To be grown.
    #[must_use]
    pub fn nothing_booked(&self) -> Booked {
        Booked { account: Arc::clone(&self.account), bytes: 0 }
    }

    /// Whether half of the memory is still free, also for others: what only saves time is not kept beyond.
    #[must_use]
    pub fn has_plenty(&self) -> bool {
        let account = &self.account;
        let of_others = account.pool.used_bytes().saturating_sub(*account.taken());
        of_others.saturating_add(self.used_bytes()) <= account.bytes_max / 2
    }

    pub fn release(&self, bytes: usize) {
        self.account.release(bytes);
    }

    /// The query is over, and all that it held is gone but `bytes`.
    ///
    /// # Errors
    /// It held less, and there is no more.
    pub fn settle(&self, bytes: usize) -> Result<(), Stopped> {
        self.account.used_bytes.store(bytes, Ordering::Relaxed);
        self.account.give_back_spare();
        self.account.cover()
    }

    /// What it may hold at most.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.account.bytes_max
    }

    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.account.used_bytes.load(Ordering::Relaxed)
    }
}

impl Account {
    fn check(&self) -> Result<(), Stopped> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Stopped::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(Stopped::TimeOver(self.time_max));
        }
        Ok(())
    }

    fn reserve(&self, bytes: usize) -> Result<(), Stopped> {
        let used = self.used_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let covered = if used > self.bytes_max { Err(Stopped::MemoryOver(self.bytes_max)) } else { self.cover() };
        covered.inspect_err(|_| {
            self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        })
    }

    /// Takes what is used from the pool. Nothing is locked while it waits: other threads of the query may give back meanwhile.
    fn cover(&self) -> Result<(), Stopped> {
        let mut until = None;
        loop {
            let missing = {
                let mut taken = self.taken();
                let used = self.used_bytes.load(Ordering::Relaxed).min(self.bytes_max);
                let missing = used.saturating_sub(*taken);
                if missing == 0 {
                    return Ok(());
                }
                let portion = missing.next_multiple_of(PORTION_BYTES).min(self.bytes_max - *taken);
                *taken += self.pool.take(*taken, missing, portion);
                used.saturating_sub(*taken)
            };
            if missing > 0 {
                if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + POOL_WAIT_MAX) {
                    return Err(Stopped::MemoryBusy(self.bytes_max));
                }
                self.check()?;
                self.pool.wait_for(missing);
            }
        }
    }

    fn release(&self, bytes: usize) {
        if bytes > 0 {
            let less = |used: usize| Some(used.saturating_sub(bytes));
            let _ = self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            self.give_back_spare();
        }
    }

    /// A portion is kept, so that small steps to and fro cost nothing.
    fn give_back_spare(&self) {
        let mut taken = self.taken();
        let wanted = self.used_bytes.load(Ordering::Relaxed).next_multiple_of(PORTION_BYTES).min(self.bytes_max);
        if *taken > wanted.saturating_add(PORTION_BYTES) {
            self.pool.give_back(*taken - wanted);
            *taken = wanted;
        }
    }

    fn taken(&self) -> MutexGuard<'_, usize> {
        self.taken_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Account {
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
        assert!((3 * MIB..=4 * MIB).contains(&pool.peak_bytes()), "{}", pool.peak_bytes());
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
    fn a_thread_that_waits_does_not_keep_others_of_its_query_from_giving_back() {
        let pool = Pool::new(4 * MIB);
        let (query, other) = (sharing(&pool), sharing(&pool));
        other.reserve(2 * MIB).unwrap();
        query.reserve(2 * MIB).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| query.reserve(MIB));
            // Should it give up before, that shows below.
            while query.used_bytes() < 3 * MIB && !waits.is_finished() {
                std::thread::yield_now();
            }
            // Given back by the query itself while one of its threads waits for it.
            query.release(2 * MIB);
            assert_eq!(waits.join().unwrap(), Ok(()));
        });
        assert_eq!(query.used_bytes(), MIB);
    }

    #[test]
    fn a_loan_takes_what_queries_leave_and_leaves_something_to_light_ones() {
        let pool = Pool::new(32 * MIB);
        let loan = pool.lend(8 * MIB, 40 * MIB, || true).unwrap();
        assert_eq!(loan.bytes(), 32 * MIB - LEFT_BYTES);
        sharing(&pool).reserve(LIGHT_BYTES).unwrap();
        drop(loan);
        let heavy = sharing(&pool);
        heavy.reserve(20 * MIB).unwrap();
        let loan = pool.lend(8 * MIB, 24 * MIB, || true).unwrap();
        assert_eq!(loan.bytes(), 8 * MIB, "a smaller one, beside a heavy query");
        assert!(pool.lend(8 * MIB, 24 * MIB, || false).is_none());
        drop((loan, heavy));
        assert_eq!((pool.used_bytes(), pool.peak_bytes()), (0, 28 * MIB));
        let mut loan = pool.lend(MIB, MIB, || true).unwrap();
        loan.shrink_to(1000);
        assert_eq!((loan.bytes(), pool.used_bytes()), (1000, 1000));
    }

    #[test]
    fn who_holds_much_gets_more_before_a_loan_and_new_queries_only_what_is_light() {
        let pool = Pool::new(32 * MIB);
        let (heavy, light) = (sharing(&pool), sharing(&pool));
        heavy.reserve(20 * MIB).unwrap();
        std::thread::scope(|scope| {
            let loan = scope.spawn(|| pool.lend(20 * MIB, 20 * MIB, || true).map(|loan| loan.bytes()));
            while pool.free().loans_waiting == 0 {
                std::thread::yield_now();
            }
            light.reserve(LIGHT_BYTES / 2).unwrap();
            assert_eq!(pool.take(0, LIGHT_BYTES + 1, LIGHT_BYTES + 1), 0, "more than light");
            assert_eq!(pool.take(0, 1, 2 * LIGHT_BYTES), LIGHT_BYTES, "no more than light");
            pool.give_back(LIGHT_BYTES);
            heavy.reserve(4 * MIB).unwrap();
            drop(heavy);
            assert_eq!(loan.join().unwrap(), Some(20 * MIB));
        });
    }

    #[test]
    fn a_query_waits_for_a_loan_to_be_given_back() {
        let pool = Pool::new(32 * MIB);
        let loan = pool.lend(8 * MIB, 24 * MIB, || true).unwrap();
        std::thread::scope(|scope| {
            let heavy = scope.spawn(|| sharing(&pool).reserve(30 * MIB));
            while pool.free().queries_waiting == 0 && !heavy.is_finished() {
                std::thread::yield_now();
            }
            drop(loan);
            assert_eq!(heavy.join().unwrap(), Ok(()));
        });
        assert_eq!((pool.used_bytes(), pool.peak_bytes()), (0, 32 * MIB));
    }

    #[test]
    fn what_is_refused_is_not_booked_and_what_is_kept_outlives_its_query() {
        let pool = Pool::new(MIB);
        let query = sharing(&pool);
        let mut kept = query.book(1000).unwrap();
        assert_eq!(kept.grow(MIB), Err(Stopped::MemoryOver(MIB)));
        assert_eq!((kept.bytes(), query.used_bytes()), (1000, 1000));
        drop(query);
        assert!(pool.used_bytes() >= 1000);
        drop(kept);
        assert_eq!(pool.used_bytes(), 0);
    }

    #[test]
    fn a_query_that_is_over_holds_its_answer_alone() {
        let pool = Pool::new(4 * MIB);
        let query = sharing(&pool);
        query.reserve(3 * MIB).unwrap();
        query.settle(1000).unwrap();
        assert_eq!((query.used_bytes(), pool.used_bytes()), (1000, PORTION_BYTES));
        query.settle(2 * MIB).unwrap();
        assert_eq!(pool.used_bytes(), 2 * MIB);
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
