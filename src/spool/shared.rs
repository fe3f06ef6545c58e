//! What the handles of one open spool share, and how a batch is read.

use super::batch::{Batch, Header, Seq};
use super::database::{BATCH, Database, Verdict};
use super::high_water::HighWater;
use super::metrics::Metrics;
use super::state::State;
use super::unreadable::{Advice, Unreadable};
use super::{AppendError, ReadError, Settings, consumer};
use bytes::Bytes;
use rocksdb::{DBPinnableSlice, ReadOptions};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A destination of the last process has this long to be configured again before nobody waits for its cursor any more where
/// that costs something. Those of custom resources come some seconds after the start.
const RETURN_WAIT_MAX: Duration = Duration::from_secs(10 * 60);

pub(super) struct Shared {
    pub database: Database,
    pub settings: Settings,
    pub state: RwLock<State>,
    pub consumers: Mutex<BTreeMap<String, consumer::Known>>,
    /// The first number that is not durable yet.
    pub durable: watch::Sender<Seq>,
    pub high_water: HighWater,
    pub metrics: Metrics,
    /// Batches that could not be read.
    pub unreadable: Unreadable,
    /// What the disk said when it last refused a write, until it takes one again.
    pub disk_error: Mutex<Option<String>>,
    pub disk_full: AtomicBool,
    pub warned_of_loss: AtomicBool,
    /// What is before is in sealed runs, and nobody reads it here; 0: nobody seals.
    pub released: AtomicU64,
    /// Whether the sealer's last attempt failed.
    pub sealing_fails: AtomicBool,
    pub opened: Instant,
}

impl Shared {
    pub fn new(
        database: Database,
        settings: Settings,
        state: State,
        consumers: BTreeMap<String, consumer::Known>,
        high_water: HighWater,
        metrics: Metrics,
    ) -> Self {
        Self {
            database,
            settings,
            durable: watch::channel(state.end()).0,
            state: RwLock::new(state),
            consumers: Mutex::new(consumers),
            high_water,
            metrics,
            unreadable: Unreadable::default(),
            disk_error: Mutex::default(),
            disk_full: AtomicBool::new(false),
            warned_of_loss: AtomicBool::new(false),
            released: AtomicU64::new(0),
            sealing_fails: AtomicBool::new(false),
            opened: Instant::now(),
        }
    }

    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_sealing(&self) -> bool {
        self.released.load(Ordering::Relaxed) > 0
    }

    /// Whether all batches before a number are in runs, and no query reads them here.
    pub fn is_sealed_to(&self, end: u64) -> bool {
        end <= self.released.load(Ordering::Relaxed)
    }

    pub fn consumers(&self) -> MutexGuard<'_, BTreeMap<String, consumer::Known>> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody moves a cursor, or may yet.
    pub fn is_or_may_be_configured(&self, known: &consumer::Known) -> bool {
        match known.bond {
            consumer::Bond::Configured => true,
            consumer::Bond::Unclaimed => self.opened.elapsed() < RETURN_WAIT_MAX,
            consumer::Bond::Retired => false,
        }
    }

    pub fn batch_if(&self, seq: Seq, wanted: impl FnOnce(&Header) -> bool) -> Result<Option<Batch>, ReadError> {
        let found = self.batch_value(seq)?.filter(|(header, _)| wanted(header));
        Ok(found.map(|(header, value)| Batch { seq, header, frame: Bytes::copy_from_slice(&value[Header::LEN..]) }))
    }

    /// When the batch at a cursor became durable, or, if that is gone, the oldest that is kept.
    pub fn oldest_waiting(&self, position: Seq) -> Option<u64> {
        let position = position.max(self.state().head());
        self.batch_value(position).ok().flatten().map(|(header, _)| header.received)
    }

    /// The header and the whole value. One batch that cannot be read must not stop those behind it: readers pass over it,
    /// and cursors book it as damaged.
    pub fn batch_value(&self, seq: Seq) -> Result<Option<(Header, DBPinnableSlice<'_>)>, ReadError> {
        // Numbers below the head may still lie in a file that was not worth rewriting.
        let head = self.state().head();
        if seq < head || self.unreadable.is_passed_over(seq) {
            return Ok(None);
        }
        let advice = match self.read_value(seq) {
            Ok(None) => return Ok(None),
            Ok(Some(value)) => match Header::decode(&value) {
                Some(header) => return Ok(Some((header, value))),
                None => (self.unreadable.note(seq, head, Verdict::Damaged), "it has no readable header".to_owned()),
            },
            Err(error) => match self.unreadable.note(seq, head, Verdict::of(&error)) {
                Advice::TryAgain => return Err(error.into()),
                advice => (advice, error.into_string()),
            },
        };
        if let (Advice::PassOver, problem) = advice {
            self.metrics.count_unreadable();
            tracing::error!(batch = seq.0, problem, "a stored batch cannot be read: it is passed over; check the disk");
        }
        Ok(None)
    }

    fn read_value(&self, seq: Seq) -> Result<Option<DBPinnableSlice<'_>>, rocksdb::Error> {
        #[cfg(test)]
        self.unreadable.fail_if_asked(seq)?;
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        self.database.raw().get_pinned_cf_opt(self.database.family(BATCH), seq.key(), &options)
    }

    /// Says once when the disk begins to refuse writes, and once when it takes them again.
    pub fn note_write(&self, result: &Result<(), AppendError>) {
        let mut disk_error = self.disk_error.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Err(AppendError::Disk(problem)) => {
                if disk_error.replace(problem.clone()).is_none() {
                    tracing::error!(
                        problem,
                        "the disk refuses writes: intake is refused until it takes them again; check the disk, then restart"
                    );
                }
            }
            Ok(()) => {
                if disk_error.take().is_some() {
                    tracing::info!("the disk takes writes again");
                }
            }
            Err(_) => {}
        }
    }

    pub fn check_free_space(&self) -> Result<(), AppendError> {
        let min = self.settings.free_bytes_min;
        // A file system that cannot say is not taken for full.
        let free = self.database.free_bytes().unwrap_or(u64::MAX);
        let full = free < min;
        if full != self.disk_full.swap(full, Ordering::Relaxed) {
            if full {
                tracing::error!(free, min, "the disk is full: intake is refused until space is free");
            } else {
                tracing::info!(free, "the disk has space again: intake goes on");
            }
        }
        if full { Err(AppendError::DiskFull { free_mib: free >> 20, min_mib: min >> 20 }) } else { Ok(()) }
    }
}
