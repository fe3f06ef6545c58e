//! Marks of what a sampler left out of forwarding, which the store may keep for a shorter time than the rest.
//!
//! ```text
//! meta   "sampled_out/" batch u64 (big endian)  ─▶  for each trace: mark u48, spans u16 (little endian)
//! ```
//! Written with the cursor of whoever decides ([`super::Outcome::marks`]), read once by the store, and taken away with what
//! they speak of. What marks stand for is opaque to this room.

use super::database::{Database, META};
use super::{Seq, consumer};
use rocksdb::{Direction, IteratorMode, ReadOptions, WriteBatch};
use std::ops::Range;

/// The name of the cursors of those who decide: a pipeline has one at most.
pub const DECIDER: &str = "tail_sampling";

const PREFIX: &[u8] = b"sampled_out/";
const ENTRY_LEN: usize = 8;
const SPANS_BITS: u32 = 16;

/// Spans of one batch that are not forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampledOut {
    pub batch: Seq,
    /// Of each trace its mark, of which the upper 48 bits count, and its spans in the batch, of which at most 65,535 are
    /// counted.
    pub traces: Vec<(u64, u64)>,
}

/// The part of a mark that is stored.
#[must_use]
pub fn stored_mark(mark: u64) -> u64 {
    mark >> SPANS_BITS
}

impl SampledOut {
    pub(super) fn put(&self, write: &mut WriteBatch, database: &Database) {
        let spans_max = (1 << SPANS_BITS) - 1;
        let entries =
            self.traces.iter().map(|(mark, spans)| stored_mark(*mark) << SPANS_BITS | (*spans).min(spans_max));
        let value: Vec<u8> = entries.flat_map(u64::to_le_bytes).collect();
        write.put_cf(database.family(META), key(self.batch), value);
    }
}

fn key(batch: Seq) -> Vec<u8> {
    [PREFIX, &batch.key()].concat()
}

/// Hands over each mark of batches in `range`, as it is stored, with its spans. Blocking.
///
/// # Errors
/// The disk cannot be read.
pub fn each(database: &Database, range: Range<Seq>, mut each: impl FnMut(u64, u64)) -> Result<(), rocksdb::Error> {
    walk(database, range, |_, value| {
        for entry in value.as_chunks::<ENTRY_LEN>().0 {
            let entry = u64::from_le_bytes(*entry);
            each(entry >> SPANS_BITS, entry & ((1 << SPANS_BITS) - 1));
        }
    })
}

/// Adds to a write that all marks of batches before `end` go. Blocking.
///
/// # Errors
/// The disk cannot be read.
pub fn forget(database: &Database, end: Seq, write: &mut WriteBatch) -> Result<(), rocksdb::Error> {
    walk(database, Seq(0)..end, |key, _| write.delete_cf(database.family(META), key))
}

fn walk(database: &Database, range: Range<Seq>, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), rocksdb::Error> {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_iterate_upper_bound(key(range.end));
    let mode = IteratorMode::From(&key(range.start), Direction::Forward);
    for item in database.raw().iterator_cf_opt(database.family(META), options, mode) {
        let (key, value) = item?;
        each(&key, &value);
    }
    Ok(())
}

impl super::Spool {
    /// Up to where all who decide have decided; `None`: as far as there is something to decide about. One that nobody moves
    /// any more is not waited for.
    #[must_use]
    pub fn decided_to(&self) -> Option<Seq> {
        let state = self.shared.state();
        let is_waited_for = |known: &consumer::Known| {
            known.account.destination == DECIDER
                && self.shared.is_or_may_be_configured(known)
                && known.account.accounted() < state.stored(known.account.pipeline)
        };
        let consumers = self.shared.consumers();
        consumers.values().filter(|known| is_waited_for(known)).map(|known| Seq(known.account.position)).min()
    }
}
