//! What ends a query before it is done: its client left, its time is over, it needs too much memory.
//!
//! The pool of memory is not for queries alone: work in the background borrows from it ([`Pool::lend`]), so that both never
//! hold their most at the same time. Who borrows waits until those have ended that hold much; who needs much then waits until
//! it is given back. Light queries go on meanwhile. Of queries that wait for one another the youngest gives in, and what can be
//! begun anew is ([`Control::again`]).

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

/// Memory is taken from the pool in such portions: most bookings are a few hundred bytes.
const PORTION_BYTES: usize = 256 * 1024;
/// How long a query waits for memory that others hold. It may hold some itself, so waiting longer would not help all.
const POOL_WAIT_MAX: Duration = Duration::from_secs(10);
/// As long, if an older query waits too that holds much: nobody else may be left to give anything back.
const YOUNGER_WAIT_MAX: Duration = Duration::from_secs(1);
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
    /// How many queries there were.
    queries: AtomicU64,
}

/// What a pool has left.
#[derive(Debug)]
struct Free {
    bytes: usize,
    /// The least that there ever was.
    least_bytes: usize,
    /// Queries that wait for memory, by their numbers, with what they hold.
    queries_waiting: Vec<(u64, usize)>,
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
    /// The younger, the greater.
    number: u64,
    pool: Arc<Pool>,
    /// Taken from the pool.
    taken_bytes: Mutex<usize>,
    /// What it would have held when others did not give back enough in time.
    missed_bytes: AtomicUsize,
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
        let free = Free { bytes: bytes_max, least_bytes: bytes_max, queries_waiting: Vec::new(), loans_waiting: 0 };
        Arc::new(Self { bytes_max, free: Mutex::new(free), freed: Condvar::new(), queries: AtomicU64::new(0) })
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

    /// Lends `wanted` bytes, or as many as there are, but no fewer than `least`. Blocks until so many are free; queries
    /// that hold much get what they still need before, and after `patience` new ones only what is light. `None`: `goes_on` said
    /// no.
    pub fn lend(
        self: &Arc<Self>,
        least: usize,
        wanted: usize,
        patience: Duration,
        goes_on: impl Fn() -> bool,
    ) -> Option<Loan> {
        let (least, wanted) = (least.min(self.bytes_max), wanted.min(self.bytes_max));
        let begun = Instant::now();
        let mut free = self.free();
        // What was given back a moment ago is theirs who wait.
        let gives_way = |free: &Free| !free.queries_waiting.is_empty() && begun.elapsed() < GIVE_WAY_MAX;
        while (free.bytes < least || gives_way(&free)) && begun.elapsed() < patience && goes_on() {
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

    /// A query that holds `held` waits a little, or until something changed; not if there is enough by now. Returns how long
    /// it may do so in all.
    fn wait_for(&self, bytes: usize, query: u64, held: usize) -> Duration {
        let mut free = self.free();
        if free.bytes < bytes || free.loans_waiting > 0 {
            free.queries_waiting.push((query, held));
            free = self.wait(free);
            if let Some(own) = free.queries_waiting.iter().position(|(number, _)| *number == query) {
                free.queries_waiting.swap_remove(own);
            }
        }
        let gives_in = |(number, held): &(u64, usize)| *number < query && *held > LIGHT_BYTES;
        if held > LIGHT_BYTES && free.queries_waiting.iter().any(gives_in) { YOUNGER_WAIT_MAX } else { POOL_WAIT_MAX }
    }

    /// Waits until so many bytes are free, but not longer than this.
    fn wait_until_free(&self, bytes: usize, until: Instant, goes_on: impl Fn() -> bool) {
        let mut free = self.free();
        while (free.bytes < bytes || free.loans_waiting > 0) && Instant::now() < until && goes_on() {
            free = self.wait(free);
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
            number: pool.queries.fetch_add(1, Ordering::Relaxed),
            pool,
            taken_bytes: Mutex::new(0),
            missed_bytes: AtomicUsize::new(0),
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

    /// Runs what can be run again, since it changes nothing: as often as `is_busy` says of its error that others held the
    /// memory that it needed, when they have given that back, for a bounded time. All that it held is gone by then.
    ///
    /// # Errors
    /// Those of `run`.
    pub fn again<T, E>(&self, mut run: impl FnMut() -> Result<T, E>, is_busy: impl Fn(&E) -> bool) -> Result<T, E> {
        let account = &self.account;
        let until = Instant::now() + POOL_WAIT_MAX;
        loop {
            match run() {
                Err(error) if is_busy(&error) && Instant::now() < until => {
                    account.used_bytes.store(0, Ordering::Relaxed);
                    account.give_back_all();
                    let missed = account.missed_bytes.load(Ordering::Relaxed).saturating_add(PORTION_BYTES);
                    account.pool.wait_until_free(missed.min(account.bytes_max), until, || account.check().is_ok());
                }
                done => return done,
            }
        }
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
        let mut since = None;
        loop {
            let (missing, held) = {
                let mut taken = self.taken();
                let used = self.used_bytes.load(Ordering::Relaxed).min(self.bytes_max);
                let missing = used.saturating_sub(*taken);
                if missing == 0 {
                    return Ok(());
                }
                let held = *taken;
                let portion = missing.next_multiple_of(PORTION_BYTES).min(self.bytes_max - *taken);
                *taken += self.pool.take(*taken, missing, portion);
                (used.saturating_sub(*taken), held)
            };
            if missing > 0 {
                self.check()?;
                let since = *since.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.pool.wait_for(missing, self.number, held) {
                    self.missed_bytes.store(held + missing, Ordering::Relaxed);
                    return Err(Stopped::MemoryBusy(self.bytes_max));
                }
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

    fn give_back_all(&self) {
        let mut taken = self.taken();
        self.pool.give_back(std::mem::take(&mut *taken));
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
