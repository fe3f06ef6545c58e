//! Pinned traces: what retention drops of them is copied before, and stays findable by id and by search.
//!
//! ```text
//! meta   "pin/" trace id                   pinned
//!        "pinned/" trace id, run           the spans of it that a dropped run had: a chunk of an ExportTraceServiceRequest
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rocksdb::WriteBatch;

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
/// Copies beyond it are found by id alone: the searchable ones are in memory.
const SEARCHABLE_BYTES_MAX: usize = 16 * 1024 * 1024;
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

    fn ids(&self) -> MutexGuard<'_, BTreeSet<TraceId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn list(&self) -> Vec<TraceId> {
        self.ids().iter().copied().collect()
    }

    pub fn pin(&self, database: &Database, trace: TraceId) -> Result<(), PinError> {
        let mut ids = self.ids();
        if ids.contains(&trace) {
            return Ok(());
        }
        if ids.len() >= PINS_MAX {
            return Err(PinError::TooMany);
        }
        let key = [PIN_PREFIX, &trace.0].concat();
        database.raw().put_cf_opt(database.family(META), key, b"{}", &synced()).map_err(RunsError::Disk)?;
        ids.insert(trace);
        Ok(())
    }

    /// Also removes what was copied of it.
    pub fn unpin(&self, database: &Database, trace: TraceId) -> Result<(), RunsError> {
        let mut ids = self.ids();
        let meta = database.family(META);
        let mut write = WriteBatch::default();
        write.delete_cf(meta, [PIN_PREFIX, &trace.0].concat());
        for (key, _) in copies(database, Some(trace))? {
            write.delete_cf(meta, key);
        }
        database.raw().write(write)?;
        ids.remove(&trace);
        Ok(())
    }
}

/// Adds the copy of a trace's spans to the write that drops their run.
pub(super) fn put_copy(write: &mut WriteBatch, database: &Database, trace: TraceId, run: RunKey, request: &[u8]) {
    let key = [COPY_PREFIX, &trace.0, &run.bytes()].concat();
    write.put_cf(database.family(META), key, Packer::default().pack(request));
}

type KeyValue = (Box<[u8]>, Box<[u8]>);

fn copies(database: &Database, trace: Option<TraceId>) -> Result<Vec<KeyValue>, RunsError> {
    let id = trace.map_or_else(Vec::new, |trace| trace.0.to_vec());
    prefixed(database, &[COPY_PREFIX, &id].concat())
}

/// What was copied of a trace, or of all, oldest first. Copies that cannot be read are passed over and said so.
pub(super) fn read_copies(
    database: &Database,
    unpacker: &Unpacker,
    trace: Option<TraceId>,
) -> Result<Vec<Bytes>, RunsError> {
    let mut requests = Vec::new();
    for (_, value) in copies(database, trace)? {
        match unpacker.unpack(&value) {
            Ok(request) => requests.push(request.into_owned().into()),
            Err(error) => tracing::error!(%error, "a copy of a pinned trace is damaged"),
        }
    }
    Ok(requests)
}

/// All copies as a segment that can be searched; `None` if there are none.
pub(super) fn searchable(database: &Database, unpacker: &Unpacker) -> Result<Option<Arc<InMemory>>, RunsError> {
    let copies = read_copies(database, unpacker, None)?;
    if copies.is_empty() {
        return Ok(None);
    }
    let mut builder = Builder::new();
    let mut bytes = 0;
    for request in copies {
        bytes += request.len();
        if bytes > SEARCHABLE_BYTES_MAX || builder.push(request, 0) != Pushed::Whole {
            tracing::warn!("pinned traces are too large to be searched all; each is still found by its id");
            break;
        }
    }
    Ok(Some(Arc::new(InMemory { id: PINNED_SEGMENT, built: builder.finish() })))
}
