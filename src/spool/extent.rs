//! Extents: runs of consecutive batches, the unit in which the spool is indexed and reclaimed.
//!
//! ```text
//! meta   "extent/" first seq ─▶ Extent (JSON)
//! dict   0u32, b't', first seq, page u16 ─▶ page: up to 4096 x (trace key u32, batch offset u16), sorted by key
//! ```
//!
//! The open extent's keys are in memory (at most 6 bytes a trace and batch), closed ones on disk with one fence key a page,
//! so that a look-up costs one small read per extent and memory does not grow with the data.

use super::{PipelineId, Seq};
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// A fingerprint of a trace id. Several ids may share one: what is found by it must be checked.
pub type TraceKey = u32;

/// An extent closes at this many keys (1.5 MiB of memory),
pub const KEYS_MAX: usize = 256 * 1024;
/// or at this many bytes of frames (what is lost at once when the budget bites, and rescanned at a start),
pub const FRAME_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// or at this many batches (offsets are 16 bits),
pub const BATCHES_MAX: u64 = 65_000;
/// or when its first batch is this old.
pub const AGE_NANOS_MAX: u64 = 3_600 * 1_000_000_000;

const PAGE_ENTRIES: usize = 4096;
const ENTRY_LEN: usize = 6;

/// A closed extent, without its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    pub first: u64,
    /// The first number behind it.
    pub end: u64,
    pub frame_bytes: u64,
    pub raw_bytes: u64,
    pub oldest_received: u64,
    pub newest_received: u64,
    /// Spans stored by each pipeline up to the end of this extent, ever.
    pub spans_at_end: BTreeMap<u16, u64>,
    /// The first key of every page.
    pub fences: Vec<TraceKey>,
}

impl Extent {
    pub fn meta_key(first: u64) -> Vec<u8> {
        [b"extent/".as_slice(), &first.to_be_bytes()].concat()
    }

    /// The prefix of `meta` under which extents lie.
    pub const META_PREFIX: &'static [u8] = b"extent/";

    pub fn page_key(first: u64, page: u16) -> [u8; 15] {
        let mut key = [0; 15];
        key[4] = b't';
        key[5..13].copy_from_slice(&first.to_be_bytes());
        key[13..].copy_from_slice(&page.to_be_bytes());
        key
    }

    /// The pages that may hold `key`. Equal keys can run over a page's end.
    pub fn pages_of(&self, key: TraceKey) -> std::ops::Range<usize> {
        let end = self.fences.partition_point(|fence| *fence <= key);
        let start = self.fences.partition_point(|fence| *fence < key).saturating_sub(1);
        start..end
    }

    pub fn spans_at_end(&self, pipeline: PipelineId) -> u64 {
        self.spans_at_end.get(&pipeline.0).copied().unwrap_or(0)
    }
}

/// The batches that hold `key` by one page, as numbers.
pub fn search_page(first: u64, page: &[u8], key: TraceKey, found: &mut Vec<Seq>) {
    let entry = |index: usize| {
        let at = index * ENTRY_LEN;
        let bytes = page.get(at..at + ENTRY_LEN)?;
        let key = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Some((key, u16::from_be_bytes([bytes[4], bytes[5]])))
    };
    let (mut low, mut high) = (0, page.len() / ENTRY_LEN);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry(middle).is_some_and(|(at, _)| at < key) { low = middle + 1 } else { high = middle }
    }
    while let Some((at, offset)) = entry(low) {
        if at != key {
            break;
        }
        found.push(Seq(first + u64::from(offset)));
        low += 1;
    }
}

/// The batches that hold any of `keys` by one page. Repeats those that hold several.
pub fn search_page_any(first: u64, page: &[u8], keys: &HashSet<TraceKey, RandomState>, found: &mut Vec<Seq>) {
    let (entries, _) = page.as_chunks::<ENTRY_LEN>();
    for [a, b, c, d, offset @ ..] in entries {
        if keys.contains(&u32::from_be_bytes([*a, *b, *c, *d])) {
            found.push(Seq(first + u64::from(u16::from_be_bytes(*offset))));
        }
    }
}

/// The extent that batches are being added to.
#[derive(Debug, Default)]
pub struct OpenExtent {
    pub first: u64,
    pub end: u64,
    pub frame_bytes: u64,
    pub raw_bytes: u64,
    pub oldest_received: u64,
    pub newest_received: u64,
    keys: Vec<TraceKey>,
    offsets: Vec<u16>,
}

impl OpenExtent {
    pub fn starting_at(seq: Seq) -> Self {
        Self { first: seq.0, end: seq.0, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// Adds the next batch. `keys` without repetition.
    pub fn push(&mut self, frame_bytes: usize, raw_bytes: u32, received: u64, keys: &[TraceKey]) {
        if self.is_empty() {
            self.oldest_received = received;
        }
        // BATCHES_MAX keeps the offset below 2^16, unless so many batches were passed over: what follows is not indexed.
        if let Ok(offset) = u16::try_from(self.end - self.first) {
            self.keys.extend_from_slice(keys);
            self.offsets.extend(std::iter::repeat_n(offset, keys.len()));
        }
        self.end += 1;
        self.frame_bytes += frame_bytes as u64;
        self.raw_bytes += u64::from(raw_bytes);
        self.newest_received = received;
    }

    /// The batches before `next` cannot be read.
    pub fn pass_over(&mut self, next: Seq) {
        if self.is_empty() {
            *self = Self::starting_at(next);
        } else {
            self.end = next.0;
        }
    }

    /// With a maximum age, extents are short against it: they go as a whole.
    pub fn is_full(&self, now: u64, age_max: Option<Duration>) -> bool {
        let share = age_max.map_or(u64::MAX, |age| u64::try_from(age.as_nanos() / 8).unwrap_or(u64::MAX));
        self.keys.len() >= KEYS_MAX
            || self.frame_bytes >= FRAME_BYTES_MAX
            || self.end - self.first >= BATCHES_MAX
            || (!self.is_empty() && now.saturating_sub(self.oldest_received) >= AGE_NANOS_MAX.min(share))
    }

    /// The batches that hold `key`. A plain scan: a million keys take well under a millisecond.
    pub fn search(&self, key: TraceKey, found: &mut Vec<Seq>) {
        for (at, offset) in self.keys.iter().zip(&self.offsets) {
            if *at == key {
                found.push(Seq(self.first + u64::from(*offset)));
            }
        }
    }

    /// As [`search_page_any`], from batch `from` on.
    pub fn search_any(&self, keys: &HashSet<TraceKey, RandomState>, from: Seq, found: &mut Vec<Seq>) {
        // Offsets stand in the order in which batches came.
        let skip = from.0.saturating_sub(self.first);
        let start = self.offsets.partition_point(|offset| u64::from(*offset) < skip);
        for (key, offset) in self.keys.iter().zip(&self.offsets).skip(start) {
            if keys.contains(key) {
                found.push(Seq(self.first + u64::from(*offset)));
            }
        }
    }

    /// What the extent becomes on disk: its record and its pages.
    pub fn close(&self, spans_at_end: BTreeMap<u16, u64>) -> (Extent, Vec<Vec<u8>>) {
        let mut entries: Vec<(TraceKey, u16)> = self.keys.iter().copied().zip(self.offsets.iter().copied()).collect();
        entries.sort_unstable();
        let mut fences = Vec::new();
        let mut pages = Vec::new();
        for chunk in entries.chunks(PAGE_ENTRIES) {
            fences.push(chunk[0].0);
            let mut page = Vec::with_capacity(chunk.len() * ENTRY_LEN);
            for (key, offset) in chunk {
                page.extend_from_slice(&key.to_be_bytes());
                page.extend_from_slice(&offset.to_be_bytes());
            }
            pages.push(page);
        }
        let extent = Extent {
            first: self.first,
            end: self.end,
            frame_bytes: self.frame_bytes,
            raw_bytes: self.raw_bytes,
            oldest_received: self.oldest_received,
            newest_received: self.newest_received,
            spans_at_end,
            fences,
        };
        (extent, pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn closing_an_extent_changes_no_answer(batches in proptest::collection::vec(proptest::collection::vec(0u32..50, 0..200), 1..80), key in 0u32..50) {
            let mut open = OpenExtent::starting_at(Seq(7));
            for keys in &batches {
                let mut keys = keys.clone();
                keys.sort_unstable();
                keys.dedup();
                open.push(10, 100, 1, &keys);
            }
            let mut before = Vec::new();
            open.search(key, &mut before);
            let (extent, pages) = open.close(BTreeMap::new());
            let mut after = Vec::new();
            for page in extent.pages_of(key) {
                search_page(extent.first, &pages[page], key, &mut after);
            }
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn batches_that_are_passed_over_leave_no_wrong_places_behind() {
        let mut open = OpenExtent::starting_at(Seq(7));
        open.pass_over(Seq(9));
        assert!(open.is_empty() && open.first == 9, "it is as old as what it gets");
        open.push(1, 1, 5, &[1]);
        open.pass_over(Seq(12));
        open.push(1, 1, 6, &[1]);
        open.pass_over(Seq(12 + (1 << 16)));
        open.push(1, 1, 7, &[1]);
        let mut found = Vec::new();
        open.search(1, &mut found);
        assert_eq!((found, open.oldest_received), (vec![Seq(9), Seq(12)], 5));
        assert!(open.is_full(7, None));
    }

    #[test]
    fn equal_keys_over_several_pages_are_all_found() {
        let mut open = OpenExtent::starting_at(Seq(1));
        for _ in 0..PAGE_ENTRIES * 2 + 10 {
            open.push(1, 1, 1, &[5]);
        }
        open.push(1, 1, 1, &[4, 6]);
        let (extent, pages) = open.close(BTreeMap::new());
        let mut found = Vec::new();
        extent.pages_of(5).for_each(|page| search_page(1, &pages[page], 5, &mut found));
        assert_eq!(found.len(), PAGE_ENTRIES * 2 + 10);
    }
}
