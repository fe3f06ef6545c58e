//! Pinned traces: what retention drops of them is copied before, and stays findable by id and by search.
//!
//! ```text
//! meta   "pin/" trace id                   pinned
//!        "pinned/" trace id, run           the spans of it that a dropped run had: a chunk of an ExportTraceServiceRequest
//! ```

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rocksdb::{ReadOptions, WriteBatch};

use super::RunsError;
use super::record::prefixed;
use crate::otlp::TraceId;
use crate::spool::Database;
use crate::spool::database::{META, synced};
use crate::store::build::{Builder, InMemory, Pushed};
use crate::store::format::chunk::{Packer, Unpacker};
use crate::store::format::key::RunKey;
use crate::traceql::segment::SegmentId;

const PIN_PREFIX: &[u8] = b"pin/";
const COPY_PREFIX: &[u8] = b"pinned/";
/// More is no longer a choice that a person made.
const PINS_MAX: usize = 1_000;
/// Batches count from 1, so no run has this id.
pub(super) const PINNED_SEGMENT: SegmentId = SegmentId(0, 0);

/// A trace cannot be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("{PINS_MAX} traces are pinned already; unpin one before")]
    TooMany,
    #[error(transparent)]
    Runs(#[from] RunsError),
}

#[derive(Default)]
pub(super) struct Pins {
    ids: Mutex<BTreeSet<TraceId>>,
}

impl Pins {
    pub fn load(database: &Database) -> Result<Self, RunsError> {
        let entries = prefixed(database, PIN_PREFIX)?;
        let ids = entries.iter().filter_map(|(key, _)| TraceId::from_wire(key.strip_prefix(PIN_PREFIX)?)).collect();
        Ok(Self { ids: Mutex::new(ids) })
    }

    /// Nobody pins or unpins while it is held. Who drops a run holds it from the look at what is pinned to the copies
    /// being shown, and so does who unpins: otherwise a copy could be missed, or stay for ever.
    pub fn hold(&self) -> Held<'_> {
        Held { ids: self.ids.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// All pins, and the right to change them and their copies.
pub(super) struct Held<'p> {
    ids: MutexGuard<'p, BTreeSet<TraceId>>,
}

impl Held<'_> {
    pub fn list(&self) -> Vec<TraceId> {
        self.ids.iter().copied().collect()
    }

    pub fn pin(&mut self, database: &Database, trace: TraceId) -> Result<(), PinError> {
        if self.ids.contains(&trace) {
            return Ok(());
        }
        if self.ids.len() >= PINS_MAX {
            return Err(PinError::TooMany);
        }
        let key = [PIN_PREFIX, &trace.0].concat();
        database.raw().put_cf_opt(database.family(META), key, b"{}", &synced()).map_err(RunsError::Disk)?;
        self.ids.insert(trace);
        Ok(())
    }

    /// Also removes what was copied of it.
    pub fn unpin(&mut self, database: &Database, trace: TraceId) -> Result<(), RunsError> {
        let meta = database.family(META);
        let mut write = WriteBatch::default();
        write.delete_cf(meta, [PIN_PREFIX, &trace.0].concat());
        each_copy(database, Some(trace), |key, _| {
            write.delete_cf(meta, key);
            ControlFlow::Continue(())
        })?;
        database.raw().write(write)?;
        self.ids.remove(&trace);
        Ok(())
    }
}

/// Adds the copy of a trace's spans to the write that drops their run.
pub(super) fn put_copy(write: &mut WriteBatch, database: &Database, trace: TraceId, run: RunKey, request: &[u8]) {
    let key = [COPY_PREFIX, &trace.0, &run.bytes()].concat();
    write.put_cf(database.family(META), key, Packer::default().pack(request));
}

/// The trace that a key of `meta` holds a copy of.
pub(super) fn trace_of_copy(key: &[u8]) -> Option<TraceId> {
    TraceId::from_wire(key.strip_prefix(COPY_PREFIX)?.get(..size_of::<TraceId>())?)
}

/// Hands over the copies of a trace, or of all, oldest first, as they lie on disk: one at a time is in memory.
fn each_copy(
    database: &Database,
    trace: Option<TraceId>,
    mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<(), RunsError> {
    let id = trace.map_or_else(Vec::new, |trace| trace.0.to_vec());
    let prefix = [COPY_PREFIX, &id].concat();
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    let mut entries = database.raw().raw_iterator_cf_opt(database.family(META), options);
    entries.seek(&prefix);
    while let Some((key, value)) = entries.item().filter(|(key, _)| key.starts_with(&prefix)) {
        if each(key, value).is_break() {
            return Ok(());
        }
        entries.next();
    }
    Ok(entries.status()?)
}

fn unpack(unpacker: &Unpacker, value: &[u8]) -> Option<Bytes> {
    match unpacker.unpack(value) {
        Ok(request) => Some(request.into_owned().into()),
        Err(error) => {
            tracing::error!(%error, "a copy of a pinned trace is damaged");
            None
        }
    }
}

/// What was copied of a trace, oldest first, until it is more than `bytes_max`. Copies that cannot be read are passed over
/// and said so.
pub(super) fn read_copies(
    database: &Database,
    unpacker: &Unpacker,
    trace: TraceId,
    bytes_max: usize,
) -> Result<Vec<Bytes>, RunsError> {
    let (mut requests, mut bytes) = (Vec::new(), 0);
    each_copy(database, Some(trace), |_, value| {
        if let Some(request) = unpack(unpacker, value) {
            bytes += request.len();
            requests.push(request);
        }
        if bytes > bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(requests)
}

/// Copies as a segment that can be searched, as many as `bytes_max` has room for; `None` if there are none.
pub(super) fn searchable(
    database: &Database,
    unpacker: &Unpacker,
    bytes_max: usize,
) -> Result<Option<Arc<InMemory>>, RunsError> {
    let mut builder = Builder::new();
    let (mut bytes, mut is_any, mut is_all) = (0, false, true);
    each_copy(database, None, |_, value| {
        is_any = true;
        // What is packed is not larger than what comes out: so the last one is not even inflated.
        let request = (bytes + value.len() <= bytes_max).then(|| unpack(unpacker, value));
        let Some(request) = request else {
            is_all = false;
            return ControlFlow::Break(());
        };
        let Some(request) = request else { return ControlFlow::Continue(()) };
        bytes += request.len();
        is_all = bytes <= bytes_max && builder.push(request, 0) == Pushed::Whole;
        if is_all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if !is_all {
        tracing::warn!("pinned traces are too large to be searched all; each is still found by its id");
    }
    Ok(is_any.then(|| Arc::new(InMemory { id: PINNED_SEGMENT, built: builder.finish() })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::build::tests::generate;
    use crate::traceql::segment::Segment;
    use prost::Message as _;

    #[test]
    fn copies_beyond_their_room_are_found_by_id_alone() {
        let directory = tempfile::TempDir::new().unwrap();
        let database = Database::open(directory.path(), u64::MAX, crate::spool::Memory::default()).unwrap();
        let unpacker = Unpacker::default();
        let id = |trace: u64| TraceId(u128::from(trace).to_be_bytes());
        let copy = |trace: u64| generate::request("shop", vec![generate::span(trace, 1, 0, 1)]).encode_to_vec();
        let mut write = WriteBatch::default();
        for trace in 1..=3u64 {
            put_copy(&mut write, &database, id(trace), RunKey { hour: 1, first: trace }, &copy(trace));
        }
        database.raw().write(write).unwrap();
        let rows = |bytes_max| searchable(&database, &unpacker, bytes_max).unwrap().map(|pinned| pinned.rows());
        assert_eq!(rows(usize::MAX), Some(3));
        assert_eq!(rows(copy(1).len() + copy(2).len()), Some(2));
        assert_eq!(rows(0), Some(0));
        assert_eq!(read_copies(&database, &unpacker, id(3), usize::MAX).unwrap(), [copy(3)]);
        assert_eq!(read_copies(&database, &unpacker, id(4), usize::MAX).unwrap().len(), 0);
    }
}
