//! Records of runs in `meta`: JSON, so that a person can read them with any RocksDB tool.

use std::collections::BTreeMap;
use std::sync::Arc;

use rocksdb::{Direction, IteratorMode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::RunsError;
use super::disk::Run;
use crate::spool::database::META;
use crate::spool::{Database, Header};
use crate::store::format::key::{RUN_LEN, RunKey};
use crate::traceql::segment::{SegmentId, Times};

pub(super) const RUN_PREFIX: &[u8] = b"run/";
pub(super) const SPLIT_PREFIX: &[u8] = b"split/";
pub(super) const SEALED_KEY: &[u8] = b"sealed";

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
}

impl RunRecord {
    #[must_use]
    pub fn key(&self) -> RunKey {
        RunKey { hour: self.hour, first: self.first }
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

/// The sealed cursor, and what became of every span before it, by pipeline: `stored before it = sealed + lost + before`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The first batch that is in no run; 0 in a directory that never had runs.
    pub position: u64,
    /// In runs, once.
    pub sealed: BTreeMap<u16, u64>,
    /// Dropped by the spool's budget, or damaged, before they were sealed.
    pub lost: BTreeMap<u16, u64>,
    /// Dropped by the spool before there were runs.
    pub before: BTreeMap<u16, u64>,
}

impl Sealed {
    fn accounted(&self, pipeline: u16) -> u64 {
        let of = |map: &BTreeMap<u16, u64>| map.get(&pipeline).copied().unwrap_or(0);
        of(&self.sealed) + of(&self.lost) + of(&self.before)
    }

    /// Books what is missing before a batch; returns how many spans.
    pub fn book_gap(&mut self, header: &Header) -> u64 {
        let number = header.pipeline.0;
        if header.spans_before == 0 {
            // The first batch of a pipeline. If the number was another's, that one is forgotten (`Spool::forget`).
            for account in [&mut self.sealed, &mut self.lost, &mut self.before] {
                account.remove(&number);
            }
        }
        let gap = header.spans_before.saturating_sub(self.accounted(number));
        if gap > 0 {
            *self.lost.entry(number).or_default() += gap;
        }
        gap
    }

    pub fn book_sealed(&mut self, header: &Header) {
        *self.sealed.entry(header.pipeline.0).or_default() += u64::from(header.spans);
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

pub(super) fn load_runs(database: &Database) -> Result<Vec<Arc<Run>>, RunsError> {
    let mut runs = Vec::new();
    for (key, value) in prefixed(database, RUN_PREFIX)? {
        let record: RunRecord = decode("a run", &value)?;
        debug_assert_eq!(key.len(), RUN_PREFIX.len() + RUN_LEN);
        runs.push(Arc::new(Run::new(record)));
    }
    Ok(runs)
}

pub(super) fn load_sealed(database: &Database) -> Result<Sealed, RunsError> {
    match database.raw().get_cf(database.family(META), SEALED_KEY)? {
        Some(value) => decode("the sealed cursor", &value),
        None => Ok(Sealed::default()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{PipelineId, TimeRange};

    #[test]
    fn a_number_that_is_given_out_again_begins_a_new_account() {
        let header = |spans_before, spans| {
            let (pipeline, time) = (PipelineId(3), TimeRange::EMPTY);
            Header {
                signal: crate::otlp::Signal::Traces,
                raw_bytes: 1,
                spans,
                pipeline,
                spans_before,
                received: 1,
                time,
            }
        };
        let mut sealed = Sealed::default();
        for (header, gap) in [(header(0, 5), 0), (header(7, 1), 2), (header(0, 4), 0), (header(6, 1), 2)] {
            assert_eq!(sealed.book_gap(&header), gap, "{header:?}");
            sealed.book_sealed(&header);
        }
        assert_eq!((sealed.sealed[&3], sealed.lost[&3]), (5, 2));
    }
}
