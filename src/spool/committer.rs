//! The committer: one thread that makes appends durable.
//!
//! Whatever arrived while the last sync ran is joined, compressed once, written once and synced once; then everybody
//! who waited is answered. An idle spool therefore syncs at once, and under load the groups grow by themselves.

use super::batch::{Header, PipelineId, TimeRange};
use super::consumer::Known;
use super::database::{BATCH, DICT, Database, META, synced};
use super::extent::{Extent, OpenExtent, TraceKey};
use super::ledger::{DropReason, Ledger};
use super::state::LEDGER_KEY;
use super::{Append, AppendError, Shared, reclaim};
use crate::otlp::Signal;
use rocksdb::WriteBatch;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// zstd level 1: level 3 saves 4 % of the bytes for half as much CPU again.
const ZSTD_LEVEL: i32 = 1;

pub(super) enum Command {
    Append(Append, oneshot::Sender<Result<(), AppendError>>),
    Register(String, Signal, oneshot::Sender<Result<PipelineId, AppendError>>),
    /// Pipelines by name, and how many of them were forgotten.
    Forget(Vec<String>, oneshot::Sender<usize>),
    /// Look after budgets.
    Housekeep,
    /// Commit what is queued, sync, end.
    Close,
}

pub(super) struct Committer {
    pub shared: Arc<Shared>,
    pub commands: mpsc::Receiver<Command>,
    pub compressor: zstd::bulk::Compressor<'static>,
}

/// A batch while it is put together.
#[derive(Default)]
struct Packing {
    spans: u32,
    keys: Vec<TraceKey>,
    /// Indexes of the appends that are joined in it.
    members: Vec<usize>,
    raw_bytes: usize,
}

/// A batch that was written; what the open extent learns of it.
struct Written {
    frame_bytes: usize,
    raw_bytes: u32,
    keys: Vec<TraceKey>,
}

type Waiting = (Append, oneshot::Sender<Result<(), AppendError>>);

impl Committer {
    /// Runs until closed. A panic costs the group it happened in (its clients are asked to retry), not the spool.
    pub fn run(mut self) {
        while std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.commit_groups())).is_err() {
            tracing::error!("the committer panicked; the requests it held were not acknowledged");
        }
        if let Err(error) = self.shared.database.raw().flush_wal(true) {
            tracing::error!(%error, "the spool's log could not be synced at shutdown");
        }
    }

    fn commit_groups(&mut self) {
        let mut last_sync = Instant::now() - self.shared.settings.sync_interval;
        let mut group: Vec<Waiting> = Vec::new();
        let mut closing = false;
        let mut was_full = false;
        let group_bytes_max = self.shared.settings.memory.group_raw_bytes;
        while !closing {
            let Some(command) = self.commands.blocking_recv() else { break };
            let mut housekeep = false;
            let mut group_bytes = 0;
            let mut next = Some(command);
            // A group that was full says that there is company enough already.
            if matches!(next, Some(Command::Append(..))) && !was_full {
                // A stretched interval spares flash: company gathers until the last sync is old enough.
                let wait = self.shared.settings.sync_interval.saturating_sub(last_sync.elapsed());
                std::thread::sleep(wait);
            }
            while let Some(command) = next {
                match command {
                    Command::Append(append, reply) => {
                        group_bytes += append.request.len();
                        group.push((append, reply));
                    }
                    Command::Register(name, signal, reply) => {
                        let _ = reply.send(self.register(&name, signal));
                    }
                    Command::Forget(names, reply) => {
                        let _ = reply.send(self.forget(&names));
                    }
                    Command::Housekeep => housekeep = true,
                    Command::Close => closing = true,
                }
                next = (group_bytes < group_bytes_max).then(|| self.commands.try_recv().ok()).flatten();
            }
            was_full = group_bytes >= group_bytes_max;
            if !group.is_empty() {
                let result = self.commit(&mut group);
                self.shared.note_write(&result);
                last_sync = Instant::now();
                for (_, reply) in group.drain(..) {
                    // The client may have left; its spans are stored all the same.
                    let _ = reply.send(result.clone());
                }
                self.close_extent_if_full();
            }
            if housekeep {
                self.close_extent_if_full();
                reclaim::run(&self.shared);
            }
        }
    }

    fn register(&self, name: &str, signal: Signal) -> Result<PipelineId, AppendError> {
        let mut ledger = self.shared.state().ledger.clone();
        let registered = ledger.register(name, signal, |id| self.shared.state().is_free(id));
        let (id, new) = registered.ok_or_else(|| AppendError::Disk("too many pipelines".to_owned()))?;
        if new {
            let meta = self.shared.database.family(META);
            self.shared.database.raw().put_cf(meta, LEDGER_KEY, encode(&ledger)).map_err(AppendError::from)?;
            self.shared.state_mut().ledger = ledger;
        }
        Ok(id)
    }

    /// Of pipelines that nothing feeds any more; one of which something is left stays.
    fn forget(&self, names: &[String]) -> usize {
        let (mut write, mut forgotten) = (WriteBatch::default(), Vec::new());
        // In the order in which everybody takes them.
        let state = self.shared.state();
        let mut consumers = self.shared.consumers();
        let mut ledger = state.ledger.clone();
        for (id, account) in state.ledger.known().filter(|(_, account)| names.contains(&account.name)) {
            let of_pipeline = || consumers.iter().filter(|(_, known)| known.account.pipeline == id);
            let is_done = |known: &Known| {
                !known.is_configured() && known.account.parked_bytes == 0 && known.account.accounted() == account.stored
            };
            if account.stored == reclaim::reclaimed(&state, id) && of_pipeline().all(|(_, known)| is_done(known)) {
                of_pipeline().for_each(|(key, _)| write.delete_cf(self.shared.database.family(META), key));
                ledger.forget(id);
                forgotten.push(id);
            }
        }
        drop(state);
        if forgotten.is_empty() {
            return 0;
        }
        write.put_cf(self.shared.database.family(META), LEDGER_KEY, encode(&ledger));
        if let Err(error) = self.shared.database.raw().write(write) {
            tracing::warn!(%error, "accounts of pipelines that are gone could not be removed");
            return 0;
        }
        consumers.retain(|_, known| !forgotten.contains(&known.account.pipeline));
        drop(consumers);
        self.shared.state_mut().ledger = ledger;
        forgotten.len()
    }

    fn commit(&mut self, group: &mut [Waiting]) -> Result<(), AppendError> {
        self.shared.check_free_space()?;
        let shared = Arc::clone(&self.shared);
        let batch_family = shared.database.family(BATCH);
        let now = unix_nanos();
        let mut ledger = shared.state().ledger.clone();
        let mut seq = shared.state().end();
        let mut write = WriteBatch::default();
        let mut written = Vec::new();

        for (pipeline, mut packing) in pack(group) {
            let account = ledger.account(pipeline);
            let (spans_before, signal) = account.map_or_else(Default::default, |it| (it.stored, it.signal));
            let time = packing.members.iter().fold(TimeRange::EMPTY, |time, index| time.join(group[*index].0.time));
            packing.keys.sort_unstable();
            packing.keys.dedup();
            let header = Header {
                raw_bytes: packing.raw_bytes as u32,
                signal,
                spans: packing.spans,
                pipeline,
                spans_before,
                received: now,
                time,
            };
            let value = self.encode_value(&header, &packing, group)?;
            write.put_cf(batch_family, seq.key(), &value);
            seq = seq.next();
            book_stored(&mut ledger, pipeline, packing.spans);
            written.push(Written { frame_bytes: value.len(), raw_bytes: header.raw_bytes, keys: packing.keys });
        }
        for (append, _) in group.iter() {
            book_removed(&mut ledger, append);
        }
        write.put_cf(shared.database.family(META), LEDGER_KEY, encode(&ledger));

        let (started, write_bytes) = (Instant::now(), write.size_in_bytes());
        shared.database.raw().write_opt(write, &synced()).map_err(AppendError::from)?;
        shared.metrics.observe_commit(started.elapsed(), group.len(), write_bytes);

        let mut state = shared.state_mut();
        state.ledger = ledger;
        for batch in &written {
            state.open.push(batch.frame_bytes, batch.raw_bytes, now, &batch.keys);
        }
        let end = state.end();
        shared.high_water.record(end, state.ledger.stored_spans());
        drop(state);
        shared.durable.send_replace(end);
        Ok(())
    }

    /// Header and frame. Requests are joined end to end: repeated fields concatenate.
    fn encode_value(&mut self, header: &Header, packing: &Packing, group: &[Waiting]) -> Result<Vec<u8>, AppendError> {
        let joined;
        let raw: &[u8] = match packing.members.as_slice() {
            [only] => &group[*only].0.request,
            members => {
                let mut buffer = Vec::with_capacity(packing.raw_bytes);
                members.iter().for_each(|index| buffer.extend_from_slice(&group[*index].0.request));
                joined = buffer;
                &joined
            }
        };
        let mut value = vec![0; Header::LEN + zstd::zstd_safe::compress_bound(raw.len())];
        value[..Header::LEN].copy_from_slice(&header.encode());
        let frame_len = self
            .compressor
            .compress_to_buffer(raw, &mut value[Header::LEN..])
            .map_err(|error| AppendError::Disk(format!("zstd: {error}")))?;
        value.truncate(Header::LEN + frame_len);
        Ok(value)
    }

    fn close_extent_if_full(&self) {
        let (extent, pages) = {
            let state = self.shared.state();
            if !state.open.is_full(unix_nanos(), self.shared.settings.age_max) {
                return;
            }
            state.open.close(state.spans_at_end())
        };
        match write_extent(&self.shared.database, &extent, &pages) {
            Ok(()) => {
                let mut state = self.shared.state_mut();
                state.open = OpenExtent::starting_at(super::Seq(extent.end));
                state.extents.push_back(extent);
            }
            Err(error) => tracing::warn!(%error, "an extent's index could not be written; it stays in memory"),
        }
    }
}

/// Not synced: after a crash the same extent is found again by rescanning its batches.
pub(super) fn write_extent(database: &Database, extent: &Extent, pages: &[Vec<u8>]) -> Result<(), rocksdb::Error> {
    let mut write = WriteBatch::default();
    let dict = database.family(DICT);
    for (number, page) in (0u16..).zip(pages) {
        write.put_cf(dict, Extent::page_key(extent.first, number), page);
    }
    write.put_cf(database.family(META), Extent::meta_key(extent.first), encode(extent));
    database.raw().write(write)
}

/// Appends grouped by pipeline and cut into batches, in the order of arrival.
fn pack(group: &[Waiting]) -> Vec<(PipelineId, Packing)> {
    let mut batches: Vec<(PipelineId, Packing)> = Vec::new();
    for (index, (append, _)) in group.iter().enumerate() {
        if append.request.is_empty() {
            continue;
        }
        let fits = |(pipeline, packing): &&mut (PipelineId, Packing)| {
            *pipeline == append.pipeline && packing.raw_bytes + append.request.len() <= Header::RAW_BYTES_MAX
        };
        let slot = match batches.iter_mut().rev().find(fits) {
            Some((_, packing)) => packing,
            None => {
                batches.push((append.pipeline, Packing::default()));
                let Some((_, packing)) = batches.last_mut() else { continue };
                packing
            }
        };
        slot.members.push(index);
        slot.raw_bytes += append.request.len();
        slot.spans += append.spans;
        slot.keys.extend_from_slice(&append.keys);
    }
    batches
}

fn book_stored(ledger: &mut Ledger, pipeline: PipelineId, spans: u32) {
    if let Some(account) = ledger.account_mut(pipeline) {
        account.received += u64::from(spans);
        account.stored += u64::from(spans);
    }
}

fn book_removed(ledger: &mut Ledger, append: &Append) {
    let Some(account) = ledger.account_mut(append.pipeline) else { return };
    for (reason, spans) in [(DropReason::InvalidId, append.rejected), (DropReason::Filtered, append.filtered)] {
        if spans > 0 {
            account.received += u64::from(spans);
            *account.dropped.entry(reason).or_default() += u64::from(spans);
        }
    }
    account.received += u64::from(append.sampled_out);
    account.sampled_out += u64::from(append.sampled_out);
}

/// One context for the life of the thread: making one costs more than compressing a small batch.
pub(super) fn compressor() -> std::io::Result<zstd::bulk::Compressor<'static>> {
    zstd::bulk::Compressor::new(ZSTD_LEVEL)
}

/// Records in `meta` are JSON, so that a person can read them with any RocksDB tool.
pub(super) fn encode(record: &impl serde::Serialize) -> Vec<u8> {
    // Plain structs of numbers, strings and maps with string keys: serialising them cannot fail.
    serde_json::to_vec(record).unwrap_or_default()
}

pub(crate) fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos() as u64)
}
