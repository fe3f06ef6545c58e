//! Records of runs in `meta`: JSON, so that a person can read them with any RocksDB tool.

use rocksdb::{Direction, IteratorMode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::RunsError;
use crate::spool::database::{META, SEALED_KEY};
use crate::spool::{Database, SealedAccount};
use crate::store::format::key::{RUN_LEN, RunKey};
use crate::traceql::segment::{SegmentId, Times};

pub(super) const RUN_PREFIX: &[u8] = b"run/";
pub(super) const SPLIT_PREFIX: &[u8] = b"split/";

/// What is known of a run without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Unix hours, when it was sealed; part of its key.
    pub hour: u32,
    /// The first batch in it; part of its key.
    pub first: u64,
    /// The first batch behind it.
    pub end: u64,
    pub segments: Vec<SegmentRecord>,
    /// Bytes of its table files.
    pub file_bytes: u64,
    /// Bytes of OTLP that went into it.
    pub raw_bytes: u64,
    /// When its batches became durable, Unix nanoseconds.
    pub oldest_received: u64,
    pub newest_received: u64,
    /// Why it is set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// What was sampled out of forwarding is no longer in it. Its segments are numbered from here: from
    /// [`crate::store::format::key::MADE_ANEW`], unless there was nothing to be taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinned: Option<u16>,
}

impl RunRecord {
    #[must_use]
    pub fn key(&self) -> RunKey {
        RunKey { hour: self.hour, first: self.first }
    }

    /// The number of its first segment.
    #[must_use]
    pub fn first_segment(&self) -> u16 {
        self.thinned.unwrap_or_default()
    }

    #[must_use]
    pub fn spans(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.rows)).sum()
    }
}

/// A segment of a run; nearly always the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRecord {
    pub rows: u32,
    pub traces: u32,
    /// Pages of words.
    pub word_pages: u16,
    /// Unix nanoseconds, and nanoseconds; see [`Times`].
    pub min_start: u64,
    pub max_start: u64,
    pub max_end: u64,
    pub min_duration: u64,
    pub max_duration: u64,
    /// Bytes of its pieces before RocksDB compresses them, and of its chunks.
    pub piece_bytes: u64,
    pub column_bytes: u64,
}

impl SegmentRecord {
    pub(super) fn times(&self) -> Times {
        let Self { min_start, max_start, max_end, min_duration, max_duration, .. } = *self;
        Times { min_start, max_start, max_end, min_duration, max_duration }
    }
}

pub(super) fn run_key(key: RunKey) -> Vec<u8> {
    [RUN_PREFIX, &key.bytes()].concat()
}

/// Segments are named in JSON and keys as evaluation names them.
pub(super) fn split_key(segment: SegmentId) -> Vec<u8> {
    [SPLIT_PREFIX, &segment.0.to_be_bytes(), &segment.1.to_be_bytes()].concat()
}

pub(super) fn segment_of_split_key(key: &[u8]) -> Option<SegmentId> {
    let (first, number) = key.strip_prefix(SPLIT_PREFIX)?.split_at_checked(8)?;
    Some(SegmentId(u64::from_be_bytes(first.try_into().ok()?), u16::from_be_bytes(number.try_into().ok()?)))
}

pub(super) fn encode(record: &impl Serialize) -> Vec<u8> {
    // Plain structs of numbers, strings and maps with numbers as keys: serialising them cannot fail.
    serde_json::to_vec(record).unwrap_or_default()
}

fn decode<T: DeserializeOwned>(what: &'static str, value: &[u8]) -> Result<T, RunsError> {
    serde_json::from_slice(value).map_err(|problem| RunsError::Record { what, problem: problem.to_string() })
}

/// Oldest first.
pub(super) fn load_runs(database: &Database) -> Result<Vec<RunRecord>, RunsError> {
    let mut runs = Vec::new();
    for (key, value) in prefixed(database, RUN_PREFIX)? {
        let record: RunRecord = decode("a run", &value)?;
        debug_assert_eq!(key.len(), RUN_PREFIX.len() + RUN_LEN);
        runs.push(record);
    }
    Ok(runs)
}

pub(super) fn load_sealed(database: &Database) -> Result<SealedAccount, RunsError> {
    match database.raw().get_cf(database.family(META), SEALED_KEY)? {
        Some(value) => decode("the sealed cursor", &value),
        None => Ok(SealedAccount::default()),
    }
}

pub(super) fn load_splits(database: &Database) -> Result<Vec<(SegmentId, Vec<u32>)>, RunsError> {
    let mut splits = Vec::new();
    for (key, value) in prefixed(database, SPLIT_PREFIX)? {
        if let Some(segment) = segment_of_split_key(&key) {
            splits.push((segment, decode("split traces", &value)?));
        }
    }
    Ok(splits)
}

type KeyValue = (Box<[u8]>, Box<[u8]>);

pub(super) fn prefixed(database: &Database, prefix: &[u8]) -> Result<Vec<KeyValue>, RunsError> {
    let from = IteratorMode::From(prefix, Direction::Forward);
    let mut entries = Vec::new();
    for item in database.raw().iterator_cf(database.family(META), from) {
        let (key, value) = item?;
        if !key.starts_with(prefix) {
            break;
        }
        entries.push((key, value));
    }
    Ok(entries)
}
