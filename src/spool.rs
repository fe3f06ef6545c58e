//! The spool: the only queue, on disk. An append that returned `Ok` survives `kill -9` and power loss.
//!
//! In: whole OTLP requests of any signal with the little that the scan learned about them. Out: batches, each one zstd frame of joined
//! requests, in the order of their sequence numbers, to any number of consumers with a durable cursor each.
//!
//! ```text
//! append ─▶ committer thread: join (<= 2 MiB raw) ─▶ zstd ─▶ one write ─▶ one fsync ─▶ answer all that waited
//!
//! batch   seq u64 (big endian)  ─▶ header (48 bytes), zstd frame
//! dict    extent, page          ─▶ trace key -> batches, see `extent`
//! meta    "cursor/...", "ledger", "extent/...", "parked/...", "sampled_out/...", "head", "format"
//! ```
//!
//! Invariants: sequence numbers have no holes between head and end; a batch holds requests of one pipeline, which has one signal; cursors and
//! the ledger move in the same write as what they account for (a cursor may have one stretch accounted for ahead of it); reading starts at a stored cursor, never at the first key
//! (deleted keys would be walked). The room must not know what a span contains: trace keys are opaque to it.

pub mod batch;
mod committer;
pub mod consumer;
pub mod database;
pub mod dead_letter;
pub mod extent;
mod find;
mod high_water;
pub mod ledger;
mod metrics;
mod reclaim;
pub mod sampled_out;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod unreadable;

pub(crate) use committer::unix_nanos;

pub use batch::{Batch, Header, PipelineId, Seq, TimeRange};
pub use consumer::{Backlog, Chunk, Consumer, LossReason, Newest, Note, Outcome, Parked, ReadLimits};
use database::Verdict;
pub use database::{Access, Database, OpenError};
pub use dead_letter::{DeadLetter, Settled};
pub use extent::TraceKey;
pub use ledger::{Ahead, ConsumerAccount, DropReason, Ledger, PipelineAccount, SealedAccount};
pub use metrics::{LedgerCollector, Metrics, SyncTimes};
pub use sampled_out::SampledOut;

use crate::otlp::Signal;
use bytes::Bytes;
use committer::{Command, Committer};
use high_water::HighWater;
use shared::Shared;
use state::State;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Appends that may wait for the committer; their bytes are bounded by whoever receives them.
const WAITING_APPENDS_MAX: usize = 4096;
/// A disk that takes longer than this for one sync is treated as failing; the client is asked to retry.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(30);
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// How a spool is opened.
#[derive(Debug, Clone)]
pub struct Settings {
    pub directory: PathBuf,
    /// Bytes of stored frames; beyond it the oldest extent goes.
    pub bytes_max: u64,
    pub age_max: Option<Duration>,
    /// Appends are refused while the disk has fewer bytes free.
    pub free_bytes_min: u64,
    /// Zero: an idle spool syncs at once. Longer: a sync at most this often.
    pub sync_interval: Duration,
    pub memory: Memory,
    /// Finds the trace keys in the bytes of a request, for the index of what is not indexed yet after a start.
    pub trace_keys: fn(&[u8], &mut Vec<TraceKey>),
}

/// What the spool, and the database under it, may hold in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Blocks of table files, their indexes and filters included.
    pub block_cache_bytes: usize,
    /// What is not flushed yet; two of them may exist at once.
    pub batch_memtable_bytes: usize,
    /// Requests that are joined in one write: bounds its memory, and the time that its first member waits for the others.
    pub group_raw_bytes: usize,
}

impl Default for Memory {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self { block_cache_bytes: 8 * MIB, batch_memtable_bytes: 4 * MIB, group_raw_bytes: 4 * MIB }
    }
}

/// One request to be stored.
#[derive(Debug, Clone)]
pub struct Append {
    pub pipeline: PipelineId,
    /// A request of the pipeline's signal; may be empty when all its spans were taken out.
    pub request: Bytes,
    /// Spans in `request`; of other signals its data points or log records.
    pub spans: u32,
    /// Spans that were taken out before because of invalid ids; they are booked with this append.
    pub rejected: u32,
    /// Spans that a processor's condition took out; booked with this append.
    pub filtered: u32,
    /// Spans that a sampler took out; booked with this append.
    pub sampled_out: u32,
    pub time: TimeRange,
    /// One per distinct trace in `request`; repetition is harmless.
    pub keys: Vec<TraceKey>,
}

/// Why an append was not stored. The client may retry all of them.
#[derive(Debug, Clone, Error)]
pub enum AppendError {
    #[error("the disk has {free_mib} MiB free, less than the {min_mib} MiB that must stay free")]
    DiskFull { free_mib: u64, min_mib: u64 },
    #[error("the disk refused the write: {0}")]
    Disk(String),
    #[error("the disk took longer than {} s", COMMIT_WAIT_MAX.as_secs())]
    Slow,
    #[error("shutting down")]
    Closed,
}

impl From<rocksdb::Error> for AppendError {
    fn from(error: rocksdb::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

/// The spool could not be read or moved on; the text says what the disk said.
#[derive(Debug, Error)]
#[error("the spool cannot be read: {0}")]
pub struct ReadError(#[from] rocksdb::Error);

impl ReadError {
    /// What it says of the data.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.0)
    }
}

/// A copy could not be made.
#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error("{0}")]
    Database(#[from] rocksdb::Error),
    #[error("{0}")]
    File(#[from] std::io::Error),
}

/// A handle to the open spool; clones share it.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    thread: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

/// A coherent look at the whole spool, for metrics and status.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub ledger: Ledger,
    /// Per pipeline: spans that are no longer on disk.
    pub reclaimed: Vec<u64>,
    pub consumers: Vec<ConsumerSnapshot>,
    pub frame_bytes: u64,
    pub raw_bytes: u64,
    pub bytes_max: u64,
    pub batches: u64,
    /// Unix nanoseconds.
    pub oldest_received: Option<u64>,
    pub free_bytes: Option<u64>,
    pub disk_full: bool,
    /// What the disk said when it refused the last write.
    pub disk_error: Option<String>,
}

impl Snapshot {
    /// How long the oldest stored batch has been there.
    pub fn oldest_age(&self) -> Duration {
        let nanos = self.oldest_received.map_or(0, |oldest| committer::unix_nanos().saturating_sub(oldest));
        Duration::from_nanos(nanos)
    }
}

/// One destination in a [`Snapshot`].
#[derive(Debug, Clone)]
pub struct ConsumerSnapshot {
    pub account: ConsumerAccount,
    pub pipeline: String,
    /// Whether a configured destination moves this cursor.
    pub active: bool,
    pub queued: u64,
}

impl Spool {
    /// Opens or creates the data directory and starts the committer thread. Blocking.
    pub fn open(settings: Settings, metrics: Metrics) -> Result<Self, OpenError> {
        let database = Database::open(&settings.directory, settings.bytes_max, settings.memory)?;
        let mut state = State::load(&database, settings.trace_keys)?;
        let accounts = state::load_consumers(&database)?;
        let (high_water, mark) = HighWater::open(&settings.directory).map_err(|problem| OpenError::NotWritable {
            directory: settings.directory.clone(),
            problem: problem.to_string(),
        })?;
        let sealed = state::load_sealed(&database)?;
        state::reconcile(&database, &mut state, mark, &accounts, &sealed)?;
        let consumers = accounts
            .into_iter()
            .map(|(key, account)| (key, consumer::Known { account, bond: consumer::Bond::Unclaimed, parked: 0 }))
            .collect();
        let directory = settings.directory.clone();
        let damaged =
            |problem: std::io::Error| OpenError::Damaged { directory: directory.clone(), problem: problem.to_string() };
        let compressor = committer::compressor().map_err(damaged)?;
        let shared = Arc::new(Shared::new(database, settings, state, consumers, high_water, metrics));
        let (commands, receiver) = mpsc::channel(WAITING_APPENDS_MAX);
        let committer = Committer { shared: Arc::clone(&shared), commands: receiver, compressor };
        let thread = std::thread::Builder::new()
            .name("spool-committer".to_owned())
            .spawn(move || committer.run())
            .map_err(damaged)?;
        Ok(Self { shared, commands, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Opens an existing data directory to look into it: nothing is written, appends answer [`AppendError::Closed`], and
    /// the budgets of `settings` are nobody's. Blocking.
    pub fn open_read_only(settings: Settings, metrics: Metrics) -> Result<Self, OpenError> {
        let database = Database::open_read_only(&settings.directory, settings.memory)?;
        let state = State::load(&database, settings.trace_keys)?;
        let shared = Shared::new(database, settings, state, BTreeMap::new(), HighWater::unmarked(), metrics);
        // Nobody commits, so the other end is gone.
        let (commands, _) = mpsc::channel(1);
        Ok(Self { shared: Arc::new(shared), commands, thread: Arc::default() })
    }

    /// Returns once the request is on disk and synced.
    pub async fn append(&self, append: Append) -> Result<(), AppendError> {
        self.ask(|reply| Command::Append(append, reply)).await?
    }

    /// The number of a pipeline of traces, bound to its name until it is forgotten.
    pub async fn pipeline(&self, name: &str) -> Result<PipelineId, AppendError> {
        self.pipeline_of(Signal::Traces, name).await
    }

    /// The number of a pipeline of any signal. Names say what they carry, so that none comes with two signals.
    pub async fn pipeline_of(&self, signal: Signal, name: &str) -> Result<PipelineId, AppendError> {
        self.ask(|reply| Command::Register(name.to_owned(), signal, reply)).await?
    }

    /// Forgets the accounts of pipelines that nothing feeds any more, by name, as far as nothing of them is left: neither
    /// stored spans nor a destination that is behind, nor something kept aside. Returns how many.
    pub async fn forget(&self, pipelines: Vec<String>) -> Result<usize, AppendError> {
        self.ask(|reply| Command::Forget(pipelines, reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, AppendError> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.commands.send(command(reply)).await.map_err(|_| AppendError::Closed)?;
            answer.await.map_err(|_| AppendError::Closed)
        };
        tokio::time::timeout(COMMIT_WAIT_MAX, exchange).await.map_err(|_| AppendError::Slow)?
    }

    /// Looks after budgets until `shutdown`.
    pub async fn housekeep(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(HOUSEKEEPING_INTERVAL) => {}
            }
            if self.commands.send(Command::Housekeep).await.is_err() {
                return;
            }
        }
    }

    /// Commits what is queued and ends the committer thread. Later appends answer [`AppendError::Closed`].
    pub async fn close(&self) {
        if self.commands.send(Command::Close).await.is_err() {
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && tokio::task::spawn_blocking(move || thread.join()).await.is_err()
        {
            tracing::error!("the spool's committer ended by a panic");
        }
    }

    /// The cursor of `destination` in `pipeline`. A new destination starts at the end: what was stored before it was
    /// configured is booked as [`LossReason::BeforeDestination`]. Blocking.
    pub fn consumer(&self, destination: &str, pipeline: PipelineId) -> Result<Consumer, ReadError> {
        Consumer::attach(Arc::clone(&self.shared), destination, pipeline)
    }

    /// Takes away a cursor that nobody moves, and its notes, if there is one. Blocking.
    pub fn remove_consumer(&self, destination: &str, pipeline: PipelineId) -> Result<(), ReadError> {
        match Consumer::idle(Arc::clone(&self.shared), destination, pipeline) {
            Some(consumer) => consumer.remove(),
            None => Ok(()),
        }
    }

    /// A batch of spans, as [`Self::batch`]; `None` also for batches of other signals. Blocking.
    pub fn trace_batch(&self, seq: Seq) -> Result<Option<Batch>, ReadError> {
        self.shared.batch_if(seq, |header| header.signal == Signal::Traces)
    }

    /// A batch by number; `None` if it is gone, damaged, or not there yet. Blocking.
    ///
    /// # Errors
    /// The disk cannot read it now. What it cannot read after some tries counts as damaged.
    pub fn batch(&self, seq: Seq) -> Result<Option<Batch>, ReadError> {
        self.shared.batch_if(seq, |_| true)
    }

    /// What is known of a batch of spans without its frame; `None` if it is gone, damaged, not there yet, or of another
    /// signal. Blocking.
    pub fn trace_header(&self, seq: Seq) -> Result<Option<Header>, ReadError> {
        let header = self.shared.batch_value(seq)?.map(|(header, _)| header);
        Ok(header.filter(|header| header.signal == Signal::Traces))
    }

    /// The batches that are there: from the oldest that is kept to the first number that is not stored yet.
    pub fn range(&self) -> std::ops::Range<Seq> {
        let state = self.shared.state();
        state.head()..state.end()
    }

    /// The first number that is not stored yet, and how many spans were stored before it, ever.
    pub fn end(&self) -> (Seq, u64) {
        let state = self.shared.state();
        let spans = state.ledger.known().filter(|(_, account)| account.signal == Signal::Traces);
        (state.end(), spans.map(|(_, account)| account.stored).sum())
    }

    /// Whether the oldest closed extent holds batches from `seq` on.
    pub fn oldest_extent_ends_behind(&self, seq: Seq) -> bool {
        self.shared.state().extents.front().is_some_and(|extent| extent.end > seq.0)
    }

    /// Bytes of stored frames.
    pub fn frame_bytes(&self) -> u64 {
        self.shared.state().frame_bytes()
    }

    /// Of these, those that a cursor has still to get, with what lies among them.
    pub fn waiting_bytes(&self) -> u64 {
        reclaim::waiting_bytes(&self.shared)
    }

    /// Batches before `seq` are in sealed runs: they may go once every destination has them. From the first call on the
    /// spool keeps nothing longer than destinations and the sealer need it.
    pub fn release(&self, seq: Seq) {
        self.shared.released.fetch_max(seq.0, Ordering::Relaxed);
    }

    /// Whether sealing fails now. Short of space, the spool waits for a sealer, but not for one that cannot.
    pub fn set_sealing_fails(&self, fails: bool) {
        self.shared.sealing_fails.store(fails, Ordering::Relaxed);
    }

    /// Whether the disk is so short of space that what waits to be sealed should be sealed at once, so that it can go.
    pub fn is_short_of_space(&self) -> bool {
        reclaim::is_short_of_space(&self.shared)
    }

    /// When the oldest batch that waits behind a cursor became durable, Unix nanoseconds. Blocking.
    pub fn oldest_waiting(&self, account: &ConsumerAccount) -> Option<u64> {
        self.shared.oldest_waiting(Seq(account.position))
    }

    pub fn sync_times(&self) -> SyncTimes {
        self.shared.metrics.sync_times()
    }

    pub fn database(&self) -> &Database {
        &self.shared.database
    }

    /// A copy of everything as it stands, in a directory that must not exist yet. Blocking.
    ///
    /// # Errors
    /// The directory exists, or cannot be written.
    pub fn snapshot_to(&self, directory: &Path) -> Result<(), SnapshotError> {
        // Read before the copy is made: a mark must not claim more than is there.
        let mark = self.shared.high_water.mark()?;
        self.shared.database.snapshot(directory)?;
        Ok(mark.write_beside(directory)?)
    }

    pub fn snapshot(&self) -> Snapshot {
        let state = self.shared.state();
        let consumers = self.shared.consumers();
        let snapshot_of = |known: &consumer::Known| ConsumerSnapshot {
            account: known.account.clone(),
            pipeline: state
                .ledger
                .account(known.account.pipeline)
                .map_or_else(String::new, |account| account.name.clone()),
            active: known.is_configured(),
            queued: state.stored(known.account.pipeline).saturating_sub(known.account.accounted()),
        };
        Snapshot {
            ledger: state.ledger.clone(),
            reclaimed: (0..state.ledger.pipelines.len() as u16)
                .map(|id| reclaim::reclaimed(&state, PipelineId(id)))
                .collect(),
            // A destination that left the configuration with nothing to get is history.
            consumers: consumers
                .values()
                .map(snapshot_of)
                .filter(|consumer| consumer.active || consumer.queued > 0)
                .collect(),
            frame_bytes: state.frame_bytes(),
            raw_bytes: state.raw_bytes(),
            bytes_max: self.shared.settings.bytes_max,
            batches: state.end().0 - state.head().0,
            oldest_received: state.oldest_received(),
            free_bytes: self.shared.database.free_bytes().ok(),
            disk_full: self.shared.disk_full.load(Ordering::Relaxed),
            disk_error: self.shared.disk_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Snapshot {
    /// Stored spans of a pipeline that are no longer on disk, because of a budget.
    pub fn reclaimed(&self, pipeline: PipelineId) -> u64 {
        self.reclaimed.get(usize::from(pipeline.0)).copied().unwrap_or(0)
    }
}
