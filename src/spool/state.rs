//! What the spool knows in memory, and how it is found again at a start.

use super::batch::{Header, PipelineId, Seq};
use super::committer::{encode, write_extent};
use super::database::{BATCH, Database, META, OpenError, SEALED_KEY};
use super::extent::{Extent, OpenExtent, TraceKey};
use super::high_water::Mark;
use super::ledger::{ConsumerAccount, Ledger, SealedAccount};
use crate::otlp::Signal;
use rocksdb::{Direction, IteratorMode, ReadOptions};
use std::collections::{BTreeMap, VecDeque};

pub(super) const LEDGER_KEY: &str = "ledger";
pub(super) const CURSOR_PREFIX: &[u8] = b"cursor/";

/// Changed by the committer thread alone; read by everybody.
#[derive(Debug, Default)]
pub(super) struct State {
    pub ledger: Ledger,
    /// Closed extents, oldest first.
    pub extents: VecDeque<Extent>,
    pub open: OpenExtent,
    /// Spans stored by each pipeline before the oldest extent that is kept.
    pub spans_at_head: BTreeMap<u16, u64>,
}

/// How much lies between a cursor and the end of the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    pub batches: u64,
    pub bytes: u64,
}

impl State {
    /// The oldest batch that is kept.
    pub fn head(&self) -> Seq {
        Seq(self.extents.front().map_or(self.open.first, |extent| extent.first))
    }

    /// The first number that is not stored yet.
    pub fn end(&self) -> Seq {
        Seq(self.open.end)
    }

    pub fn frame_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.frame_bytes).sum::<u64>() + self.open.frame_bytes
    }

    pub fn raw_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.raw_bytes).sum::<u64>() + self.open.raw_bytes
    }

    /// Batches from `position` on, of all pipelines, and the bytes of their frames; where that is in the midst of an extent,
    /// its share by number.
    pub fn depth_from(&self, position: u64) -> Depth {
        let of = |first: u64, end: u64, frame_bytes: u64| {
            let batches = end.saturating_sub(position.max(first));
            let share = u128::from(frame_bytes) * u128::from(batches) / u128::from((end - first).max(1));
            Depth { batches, bytes: share as u64 }
        };
        let closed = self.extents.iter().map(|extent| of(extent.first, extent.end, extent.frame_bytes));
        let open = of(self.open.first, self.open.end, self.open.frame_bytes);
        closed.fold(open, |sum, one| Depth { batches: sum.batches + one.batches, bytes: sum.bytes + one.bytes })
    }

    pub fn oldest_received(&self) -> Option<u64> {
        match self.extents.front() {
            Some(extent) => Some(extent.oldest_received),
            None => (!self.open.is_empty()).then_some(self.open.oldest_received),
        }
    }

    pub fn stored(&self, pipeline: PipelineId) -> u64 {
        self.ledger.account(pipeline).map_or(0, |account| account.stored)
    }

    /// Stored totals of all pipelines, as an extent that closes now records them.
    pub fn spans_at_end(&self) -> BTreeMap<u16, u64> {
        self.ledger.known().map(|(id, account)| (id.0, account.stored)).collect()
    }

    /// Whether no record of this number is left from a pipeline that was forgotten.
    pub fn is_free(&self, id: PipelineId) -> bool {
        !self.spans_at_head.contains_key(&id.0)
            && self.extents.iter().all(|extent| !extent.spans_at_end.contains_key(&id.0))
    }

    /// Reads ledger and extents from `meta` and rescans the batches behind the last closed extent (at most
    /// [`super::extent::FRAME_BYTES_MAX`] of frames), whose keys `trace_keys` finds in the inflated bytes.
    pub fn load(database: &Database, trace_keys: fn(&[u8], &mut Vec<TraceKey>)) -> Result<Self, OpenError> {
        let damaged = |problem: String| OpenError::Damaged { directory: database.directory().to_path_buf(), problem };
        let meta = database.family(META);
        let mut state = Self::default();
        if let Some(bytes) = database.raw().get_cf(meta, LEDGER_KEY).map_err(|error| damaged(error.to_string()))? {
            state.ledger = serde_json::from_slice(&bytes).map_err(|error| damaged(format!("the ledger: {error}")))?;
        }
        for item in prefixed(database, Extent::META_PREFIX) {
            let (_, value) = item.map_err(|error| damaged(error.to_string()))?;
            let extent: Extent =
                serde_json::from_slice(&value).map_err(|error| damaged(format!("an extent's record: {error}")))?;
            state.extents.push_back(extent);
        }
        if let Some(bytes) = database.raw().get_cf(meta, HEAD_SPANS_KEY).map_err(|error| damaged(error.to_string()))? {
            state.spans_at_head =
                serde_json::from_slice(&bytes).map_err(|error| damaged(format!("the head's record: {error}")))?;
        }
        let first = match (state.extents.back(), first_after_reclaim(database).map_err(damaged)?) {
            (Some(extent), _) => Seq(extent.end),
            (None, Some(seq)) => seq,
            (None, None) => Seq::FIRST,
        };
        state.open = rescan(database, first, trace_keys).map_err(damaged)?;
        Ok(state)
    }
}

/// Where `spans_at_head` lies in `meta`; written when extents are dropped.
pub(super) const HEAD_SPANS_KEY: &str = "head_spans";
/// The first number that was not reclaimed; only needed when no closed extent is left.
pub(super) const HEAD_KEY: &str = "head";

fn first_after_reclaim(database: &Database) -> Result<Option<Seq>, String> {
    let value = database.raw().get_cf(database.family(META), HEAD_KEY).map_err(|error| error.to_string())?;
    Ok(value.and_then(|bytes| Some(Seq(u64::from_be_bytes(bytes.as_slice().try_into().ok()?)))))
}

/// All accounts of destinations, by their key in `meta`.
pub(super) fn load_consumers(database: &Database) -> Result<BTreeMap<String, ConsumerAccount>, OpenError> {
    let damaged = |problem: String| OpenError::Damaged { directory: database.directory().to_path_buf(), problem };
    let mut accounts = BTreeMap::new();
    for item in prefixed(database, CURSOR_PREFIX) {
        let (key, value) = item.map_err(|error| damaged(error.to_string()))?;
        let account = serde_json::from_slice(&value).map_err(|error| damaged(format!("a cursor: {error}")))?;
        accounts.insert(String::from_utf8_lossy(&key).into_owned(), account);
    }
    Ok(accounts)
}

/// The store's account; empty in a directory that never had runs.
pub(super) fn load_sealed(database: &Database) -> Result<SealedAccount, OpenError> {
    let damaged = |problem: String| OpenError::Damaged { directory: database.directory().to_path_buf(), problem };
    match database.raw().get_cf(database.family(META), SEALED_KEY).map_err(|error| damaged(error.to_string()))? {
        Some(value) => serde_json::from_slice(&value).map_err(|error| damaged(format!("the sealed cursor: {error}"))),
        None => Ok(SealedAccount::default()),
    }
}

/// Compares what was found with what is known to have been acknowledged. After a damaged log, numbers that were given
/// out before are not given out again (cursors may be past them, the store's too), and what is missing is counted and said.
pub(super) fn reconcile(
    database: &Database,
    state: &mut State,
    mark: Mark,
    consumers: &BTreeMap<String, ConsumerAccount>,
    sealed: &SealedAccount,
) -> Result<(), OpenError> {
    let end = consumers.values().map(ConsumerAccount::end).fold(mark.end.max(sealed.position), u64::max);
    if end <= state.end().0 {
        return Ok(());
    }
    let lost = mark.stored_spans.saturating_sub(state.ledger.stored_spans());
    tracing::error!(
        batches = end - state.end().0,
        spans = lost,
        "the log in the data directory is damaged: acknowledged spans are gone; check the disk"
    );
    state.ledger.lost_to_damage += lost;
    // What was sent or sealed was stored: the account must say so, or later spans would seem to be that already.
    let of_destinations = consumers.values().map(|account| (account.pipeline, account.accounted()));
    let of_store: Vec<_> = state.ledger.known().map(|(id, _)| (id, sealed.accounted(id.0))).collect();
    for (pipeline, accounted) in of_destinations.chain(of_store) {
        if let Some(pipeline) = state.ledger.account_mut(pipeline) {
            let missing = accounted.saturating_sub(pipeline.stored);
            pipeline.stored += missing;
            pipeline.received += missing;
        }
    }
    let damaged = |problem: rocksdb::Error| OpenError::Damaged {
        directory: database.directory().to_path_buf(),
        problem: problem.to_string(),
    };
    if !state.open.is_empty() {
        let (extent, pages) = state.open.close(state.spans_at_end());
        write_extent(database, &extent, &pages).map_err(damaged)?;
        state.extents.push_back(extent);
    }
    state.open = OpenExtent::starting_at(Seq(end));
    database.raw().put_cf(database.family(META), LEDGER_KEY, encode(&state.ledger)).map_err(damaged)
}

type KeyValue = (Box<[u8]>, Box<[u8]>);

/// The entries of `meta` whose keys start with `prefix`, in order.
pub(super) fn prefixed<'a>(
    database: &'a Database,
    prefix: &'static [u8],
) -> impl Iterator<Item = Result<KeyValue, rocksdb::Error>> + 'a {
    database
        .raw()
        .iterator_cf(database.family(META), IteratorMode::From(prefix, Direction::Forward))
        .take_while(move |item| item.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
}

/// Reads the batches from `first` on into the open extent. One that cannot be read is passed over, as readers do: those
/// behind it are whole, and so is everything else.
fn rescan(database: &Database, first: Seq, trace_keys: fn(&[u8], &mut Vec<TraceKey>)) -> Result<OpenExtent, String> {
    let mut scan = Rescan {
        database,
        trace_keys,
        decompressor: zstd::bulk::Decompressor::new().map_err(|error| error.to_string())?,
        keys: Vec::new(),
        open: OpenExtent::starting_at(first),
    };
    while let Err(problem) = scan.run() {
        let unreadable = Seq(scan.open.end);
        let Some(next) = scan.next_readable() else { break };
        tracing::error!(
            batch = unreadable.0,
            until = next.0,
            problem,
            "stored batches cannot be read; they are passed over"
        );
        scan.open.pass_over(next);
    }
    Ok(scan.open)
}

struct Rescan<'a> {
    database: &'a Database,
    trace_keys: fn(&[u8], &mut Vec<TraceKey>),
    decompressor: zstd::bulk::Decompressor<'static>,
    keys: Vec<TraceKey>,
    open: OpenExtent,
}

impl Rescan<'_> {
    /// Adds batches as far as they can be read, or what keeps the next one from it.
    fn run(&mut self) -> Result<(), String> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let start = Seq(self.open.end).key();
        let from = IteratorMode::From(&start, Direction::Forward);
        for item in self.database.raw().iterator_cf_opt(self.database.family(BATCH), options, from) {
            let (key, value) = item.map_err(|error| error.to_string())?;
            let seq = seq_of(&key)?;
            // Numbers may jump between extents, after a damaged log.
            if self.open.is_empty() && seq.0 > self.open.end {
                self.open = OpenExtent::starting_at(seq);
            }
            if seq.0 != self.open.end {
                return Err(format!("batch {} is missing", self.open.end));
            }
            let header = Header::decode(&value).ok_or("it has no readable header")?;
            self.keys.clear();
            // A frame that does not inflate is kept out of the index; readers report it when they meet it.
            match self.decompressor.decompress(&value[Header::LEN..], header.raw_bytes as usize) {
                Ok(raw) if header.signal == Signal::Traces => (self.trace_keys)(&raw, &mut self.keys),
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(batch = seq.0, %error, "a stored batch cannot be inflated; it is not searchable");
                }
            }
            self.keys.sort_unstable();
            self.keys.dedup();
            self.open.push(value.len(), header.raw_bytes, header.received, &self.keys);
        }
        Ok(())
    }

    /// The first batch behind the one that could not be read, asked for one by one, since an iterator does not get past a
    /// damaged block. `None`: there is none, and what was acknowledged behind it is missed by the high-water mark.
    fn next_readable(&self) -> Option<Seq> {
        let family = self.database.family(BATCH);
        // What files hold is known without reading them: their last block may be damaged, too.
        let in_files = self.database.raw().live_files().unwrap_or_default().into_iter();
        let in_files = in_files.filter(|file| file.column_family_name == BATCH).filter_map(|file| file.end_key);
        let in_files = in_files.filter_map(|key| seq_of(&key).ok()).max();
        let last = self.database.raw().iterator_cf(family, IteratorMode::End).next();
        let last = last.and_then(|item| seq_of(&item.ok()?.0).ok()).max(in_files)?;
        let readable = |seq: &Seq| {
            let value = self.database.raw().get_pinned_cf(family, seq.key());
            matches!(value, Ok(Some(value)) if Header::decode(&value).is_some())
        };
        (self.open.end + 1..=last.0).map(Seq).find(readable)
    }
}

fn seq_of(key: &[u8]) -> Result<Seq, String> {
    Ok(Seq(u64::from_be_bytes(key.try_into().map_err(|_| "a batch key of a wrong length")?)))
}
