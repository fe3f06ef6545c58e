//! A consumer of the spool: one durable cursor and the account of what became of the spans behind it.

use super::committer::encode;
use super::database::META;
use super::ledger::{Ahead, ConsumerAccount};
use super::shared::Shared;
use super::state::State;
use super::{Batch, Header, PipelineId, ReadError, SampledOut, Seq, dead_letter};
use bytes::Bytes;
use rocksdb::{Direction, IteratorMode, ReadOptions, WriteBatch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Frames kept aside per destination; beyond it a culprit is still counted, but its bytes are not kept.
const PARKED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How far back the last batch of a pipeline is looked for, where other pipelines' batches lie in between.
const LOOK_BACK_MAX: u64 = 64;

/// Bounds of one [`Consumer::read`]; the first batch is returned even if it alone exceeds them.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    pub raw_bytes_max: usize,
    pub spans_max: u64,
    pub batches_max: usize,
}

/// Consecutive batches of the consumer's pipeline.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub batches: Vec<Batch>,
    /// The first number that was read.
    pub from: Seq,
    /// The first number not looked at: where to read on, and what to [`Consumer::advance`] to once the chunk is done.
    pub next: Seq,
}

/// Why spans behind a cursor were not delivered. The label `reason` of `spanreel_spans_expired_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// The spool's byte budget or the disk's free space demanded it.
    Budget,
    /// Older than the configured age.
    Age,
    /// The destination will never take it; kept aside, see [`Parked`].
    Poison,
    /// The destination took the request and reported these spans as rejected (`partial_success`).
    RejectedByDestination,
    /// The only attempt failed, and `retry_on_failure` is switched off.
    RetryDisabled,
    /// The batch could not be read back from disk.
    Damaged,
    /// Stored before the destination was configured.
    BeforeDestination,
    /// `tail_sampling` did not want the trace. It stays in the store.
    SampledOut,
}

impl LossReason {
    pub const ALL: [LossReason; 8] = [
        Self::Budget,
        Self::Age,
        Self::Poison,
        Self::RejectedByDestination,
        Self::RetryDisabled,
        Self::Damaged,
        Self::BeforeDestination,
        Self::SampledOut,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Age => "age",
            Self::Poison => "poison",
            Self::RejectedByDestination => "rejected_by_destination",
            Self::RetryDisabled => "retry_disabled",
            Self::Damaged => "damaged",
            Self::BeforeDestination => "before_destination",
            Self::SampledOut => "sampled_out",
        }
    }
}

/// A request that the destination refuses for good, kept for inspection.
#[derive(Debug, Clone)]
pub struct Parked {
    /// The batch it was part of.
    pub seq: Seq,
    pub spans: u64,
    /// The destination's own words.
    pub answer: String,
    /// One zstd frame of an `ExportTraceServiceRequest`.
    pub frame: Bytes,
}

/// What became of the spans of a chunk: `sent + lost` must be all of them.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub sent: u64,
    pub lost: Vec<(LossReason, u64)>,
    pub parked: Vec<Parked>,
    /// What of it the store may keep for a shorter time.
    pub marks: Vec<SampledOut>,
}

/// A small record beside a cursor: it is written in the write that moves the cursor, and goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub key: Vec<u8>,
    /// `None` takes the record away.
    pub value: Option<Vec<u8>>,
}

/// What came last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// Beyond the last batch.
    pub end: Seq,
    /// Unix nanoseconds; `None` if the last ones are of other pipelines.
    pub received: Option<u64>,
}

/// A note as it lies there.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// What a consumer has still before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    pub spans: u64,
    /// When the oldest waiting batch became durable, Unix nanoseconds; `None` when nothing waits.
    pub oldest_received: Option<u64>,
}

/// What the spool holds of one cursor.
#[derive(Debug)]
pub(super) struct Known {
    pub account: ConsumerAccount,
    pub bond: Bond,
    /// Numbers parked frames since the start.
    pub parked: u64,
}

/// Who moves a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bond {
    /// A configured destination.
    Configured,
    /// Nobody since this process started; its destination may be configured yet.
    Unclaimed,
    /// Nobody: its destination left the configuration.
    Retired,
}

impl Known {
    pub fn is_configured(&self) -> bool {
        self.bond == Bond::Configured
    }
}

/// A named cursor. Cloning gives another handle to the same cursor.
#[derive(Clone)]
pub struct Consumer {
    shared: Arc<Shared>,
    key: Arc<str>,
    pipeline: PipelineId,
}

impl Consumer {
    pub(super) fn attach(shared: Arc<Shared>, destination: &str, pipeline: PipelineId) -> Result<Self, ReadError> {
        let key = cursor_key(&shared.state(), destination, pipeline);
        {
            let state = shared.state();
            let mut consumers = shared.consumers();
            if let Some(known) = consumers.get_mut(&key) {
                known.bond = Bond::Configured;
            } else {
                let mut account = ConsumerAccount {
                    destination: destination.to_owned(),
                    pipeline,
                    position: state.end().0,
                    sent: 0,
                    lost: BTreeMap::new(),
                    parked_bytes: 0,
                    ahead: None,
                };
                account.lose(LossReason::BeforeDestination, state.stored(pipeline));
                shared.database.raw().put_cf(shared.database.family(META), &key, encode(&account))?;
                consumers.insert(key.clone(), Known { account, bond: Bond::Configured, parked: 0 });
            }
        }
        Ok(Self { shared, key: key.into(), pipeline })
    }

    /// A handle to a cursor that no configured destination moves.
    pub(super) fn idle(shared: Arc<Shared>, destination: &str, pipeline: PipelineId) -> Option<Self> {
        let key = cursor_key(&shared.state(), destination, pipeline);
        let is_idle = shared.consumers().get(&key).is_some_and(|known| !known.is_configured());
        is_idle.then(|| Self { shared, key: key.into(), pipeline })
    }

    /// The destination left the configuration: its cursor stays, but holds nothing back.
    pub fn retire(&self) {
        if let Some(known) = self.shared.consumers().get_mut(&*self.key) {
            known.bond = Bond::Retired;
        }
    }

    pub fn pipeline(&self) -> PipelineId {
        self.pipeline
    }

    fn account<T>(&self, look: impl FnOnce(&ConsumerAccount) -> T) -> Option<T> {
        self.shared.consumers().get(&*self.key).map(|known| look(&known.account))
    }

    /// The first number that is not accounted for yet.
    pub fn position(&self) -> Seq {
        self.account(|account| Seq(account.position)).unwrap_or(Seq::FIRST)
    }

    /// Reads on from `from`. An empty chunk means that nothing (of this pipeline) is there yet.
    /// Blocking (disk): call it off the async workers.
    pub fn read(&self, from: Seq, limits: ReadLimits) -> Result<Chunk, ReadError> {
        let (head, end) = {
            let state = self.shared.state();
            (state.head(), state.end())
        };
        let mut chunk = Chunk { batches: Vec::new(), from, next: from.max(head) };
        let (mut raw_bytes, mut spans) = (0, 0);
        while chunk.next < end {
            let is_mine = |header: &Header| header.pipeline == self.pipeline;
            if let Some(batch) = self.shared.batch_if(chunk.next, is_mine)? {
                raw_bytes += batch.header.raw_bytes as usize;
                spans += u64::from(batch.header.spans);
                let over = raw_bytes > limits.raw_bytes_max
                    || spans > limits.spans_max
                    || chunk.batches.len() >= limits.batches_max;
                if over && !chunk.batches.is_empty() {
                    break;
                }
                chunk.batches.push(batch);
            }
            chunk.next = chunk.next.next();
        }
        if let Some(first) = chunk.batches.first() {
            self.book_gap(from, first)?;
        }
        Ok(chunk)
    }

    /// Batches between the cursor and the next readable one that are gone (damaged on disk) are booked, so that the
    /// account stays exact.
    fn book_gap(&self, from: Seq, first: &Batch) -> Result<(), ReadError> {
        let mut consumers = self.shared.consumers();
        let Some(known) = consumers.get_mut(&*self.key) else { return Ok(()) };
        if known.account.position != from.0 {
            return Ok(());
        }
        let gap = first.header.spans_before.saturating_sub(known.account.accounted_in_order());
        if gap > 0 {
            let mut account = known.account.clone();
            account.lose(LossReason::Damaged, gap);
            self.shared.database.raw().put_cf(self.shared.database.family(META), &*self.key, encode(&account))?;
            known.account = account;
            tracing::error!(
                cursor = &*self.key,
                spans = gap,
                before = first.seq.0,
                "stored batches could not be read; their spans are lost to this destination"
            );
        }
        Ok(())
    }

    /// Returns once a batch numbered `from` or later is durable.
    pub async fn wait(&self, from: Seq) {
        let mut durable = self.shared.durable.subscribe();
        // The sender lives as long as the spool, which this handle keeps alive.
        let _ = durable.wait_for(|end| *end > from).await;
    }

    /// Moves the cursor over `[from, to)` and books the outcome in the same write. Blocking: it may wait for a sync.
    /// `Ok(false)`: the cursor no longer stood at `from` (the budget expired those batches meanwhile and booked them);
    /// nothing was booked, read on from [`Consumer::position`].
    pub fn advance(&self, from: Seq, to: Seq, outcome: Outcome) -> Result<bool, ReadError> {
        self.advance_noting(from, to, outcome, &[])
    }

    /// As [`Consumer::advance`], and changes notes in the same write.
    pub fn advance_noting(&self, from: Seq, to: Seq, outcome: Outcome, notes: &[Note]) -> Result<bool, ReadError> {
        self.book(outcome, notes, |account, _| {
            let stands_there = account.position == from.0;
            if stands_there {
                account.move_to(to.0);
            }
            stands_there
        })
    }

    /// Books what became of `[from, to)` while older batches wait; the cursor stays, and jumps over it later. There is one
    /// such stretch at a time, which this begins or prolongs. `Ok(false)`: it is not its end that lies at `from`, or the
    /// cursor is past that; nothing was booked. Blocking, as [`Consumer::advance`].
    pub fn advance_ahead(&self, from: Seq, to: Seq, outcome: Outcome) -> Result<bool, ReadError> {
        // Looked for only where a stretch begins: it costs reads of the disk.
        let begun = match self.ahead() {
            Some(_) => None,
            None => Some(Ahead { from: from.0, to: from.0, spans_before: self.spans_before(from)?, spans: 0 }),
        };
        self.book(outcome, &[], |account, spans| {
            // Without either, the cursor jumped over the stretch since it was looked at.
            let Some(ahead) = account.ahead.or(begun) else { return false };
            let fits = ahead.to == from.0 && account.position < ahead.from;
            if fits {
                account.ahead = Some(Ahead { to: to.0, spans: ahead.spans + spans, ..ahead });
            }
            fits
        })
    }

    /// What is accounted for ahead of the cursor.
    pub fn ahead(&self) -> Option<(Seq, Seq)> {
        self.account(|account| account.ahead).flatten().map(|ahead| (Seq(ahead.from), Seq(ahead.to)))
    }

    /// The end of the spool, and when the last batch of this pipeline before `end` became durable. Blocking (disk).
    pub fn newest(&self, end: Seq) -> Result<Newest, ReadError> {
        let end = end.min(self.shared.state().end());
        for back in 1..=LOOK_BACK_MAX.min(end.0) {
            if let Some((header, _)) = self.shared.batch_value(Seq(end.0 - back))?
                && header.pipeline == self.pipeline
            {
                return Ok(Newest { end, received: Some(header.received) });
            }
        }
        Ok(Newest { end, received: None })
    }

    /// Spans of the pipeline in batches before `seq`, ever.
    fn spans_before(&self, seq: Seq) -> Result<u64, ReadError> {
        let (end, stored) = {
            let state = self.shared.state();
            (state.end(), state.stored(self.pipeline))
        };
        let mut at = seq;
        while at < end {
            if let Some((header, _)) = self.shared.batch_value(at)?
                && header.pipeline == self.pipeline
            {
                return Ok(header.spans_before);
            }
            at = at.next();
        }
        Ok(stored)
    }

    /// Writes what `change` makes of the account, which is told the spans of the outcome, if it says so.
    fn book(
        &self,
        outcome: Outcome,
        notes: &[Note],
        change: impl FnOnce(&mut ConsumerAccount, u64) -> bool,
    ) -> Result<bool, ReadError> {
        let mut consumers = self.shared.consumers();
        let Some(known) = consumers.get_mut(&*self.key) else { return Ok(false) };
        let mut account = known.account.clone();
        if !change(&mut account, outcome.sent + outcome.lost.iter().map(|(_, spans)| spans).sum::<u64>()) {
            return Ok(false);
        }
        let meta = self.shared.database.family(META);
        let mut write = WriteBatch::default();
        account.sent += outcome.sent;
        for (reason, spans) in &outcome.lost {
            account.lose(*reason, *spans);
        }
        let mut parked_count = known.parked;
        for parked in &outcome.parked {
            if account.parked_bytes + parked.frame.len() as u64 > PARKED_BYTES_MAX {
                tracing::warn!(cursor = &*self.key, "too much is parked for this destination; the frame is not kept");
                continue;
            }
            account.parked_bytes += parked.frame.len() as u64;
            let value = dead_letter::value(parked.spans, &parked.answer, &parked.frame);
            write.put_cf(meta, dead_letter::key(&self.key, parked.seq, parked_count), value);
            parked_count += 1;
        }
        outcome.marks.iter().for_each(|marks| marks.put(&mut write, &self.shared.database));
        for Note { key, value } in notes {
            match value {
                Some(value) => write.put_cf(meta, self.note_key(key), value),
                None => write.delete_cf(meta, self.note_key(key)),
            }
        }
        write.put_cf(meta, &*self.key, encode(&account));
        self.shared.database.raw().write(write)?;
        known.account = account;
        known.parked = parked_count;
        Ok(true)
    }

    /// The notes with keys in `[from, to)`, in order. Blocking.
    pub fn notes(&self, from: &[u8], to: &[u8]) -> Result<Vec<KeyValue>, ReadError> {
        let (lower, upper) = (self.note_key(from), self.note_key(to));
        let own_len = lower.len() - from.len();
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(upper);
        let mode = IteratorMode::From(&lower, Direction::Forward);
        let database = &self.shared.database;
        let found = database.raw().iterator_cf_opt(database.family(META), options, mode);
        let found = found.map(|item| item.map(|(key, value)| (key[own_len..].to_vec(), value.into_vec())));
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// The cursor's own name, a byte that is in no name, the note's key.
    fn note_key(&self, key: &[u8]) -> Vec<u8> {
        let name = self.key.trim_start_matches("cursor/");
        [b"note/", name.as_bytes(), b"\0", key].concat()
    }

    /// Takes the cursor and its notes off the disk: nothing waits for it any more, and nothing is remembered of it.
    pub fn remove(&self) -> Result<(), ReadError> {
        let mut consumers = self.shared.consumers();
        let database = &self.shared.database;
        let mut write = WriteBatch::default();
        for (key, _) in self.notes(b"", &[u8::MAX])? {
            write.delete_cf(database.family(META), self.note_key(&key));
        }
        write.delete_cf(database.family(META), &*self.key);
        database.raw().write(write)?;
        consumers.remove(&*self.key);
        Ok(())
    }

    pub fn backlog(&self) -> Backlog {
        let Some((position, accounted)) = self.account(|account| (Seq(account.position), account.accounted())) else {
            return Backlog::default();
        };
        let spans = self.shared.state().stored(self.pipeline).saturating_sub(accounted);
        let oldest_received = (spans > 0).then(|| self.shared.oldest_waiting(position)).flatten();
        Backlog { spans, oldest_received }
    }
}

/// `cursor/<pipeline name>/<destination>`: a name of a component holds no control characters, so it reads well.
fn cursor_key(state: &State, destination: &str, pipeline: PipelineId) -> String {
    let pipeline = state.ledger.account(pipeline).map_or("", |account| account.name.as_str());
    format!("cursor/{pipeline}>{destination}")
}
