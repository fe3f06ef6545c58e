//! Which traces a segment may hold, in memory: RocksDB's own filters answer the same, but through its table cache, which
//! takes five microseconds a run while its file is open, and five times as long once there are more files than may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;

/// One or two of a hundred traces that are not there are taken for ones that may be.
const BITS_PER_TRACE: usize = 10;
const BITS_SET: u32 = 6;
/// A cache line: one look at memory a segment.
type Line = [u64; 8];
const LINE_BITS: usize = 512;

/// A Bloom filter of fingerprints, in lines of the processor's cache.
#[derive(Debug)]
pub(super) struct Filter {
    lines: Box<[Line]>,
}

impl Filter {
    pub fn of(fingerprints: &[u32]) -> Self {
        let mut filter = Self::with_room(fingerprints.len());
        fingerprints.iter().for_each(|fingerprint| filter.add(*fingerprint));
        filter
    }

    /// For so many traces, of which none is in it yet.
    pub fn with_room(traces: usize) -> Self {
        Self { lines: vec![[0; 8]; (traces * BITS_PER_TRACE).div_ceil(LINE_BITS).max(1)].into() }
    }

    pub fn add(&mut self, fingerprint: u32) {
        let (line, mask) = self.place(fingerprint);
        if let Some(line) = self.lines.get_mut(line) {
            line.iter_mut().zip(mask).for_each(|(word, mask)| *word |= mask);
        }
    }

    pub fn may_hold(&self, fingerprint: u32) -> bool {
        let (line, mask) = self.place(fingerprint);
        self.lines.get(line).is_none_or(|line| line.iter().zip(mask).all(|(word, mask)| word & mask == mask))
    }

    fn place(&self, fingerprint: u32) -> (usize, Line) {
        // The finish of splitmix64: fingerprints are even already, but one is not enough bits for all of them.
        let mut mixed = u64::from(fingerprint).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^= mixed >> 27;
        let line = (u64::from(mixed as u32) * self.lines.len() as u64) >> 32;
        let mut bits = mixed.wrapping_mul(0x94d0_49bb_1331_11eb);
        let mut mask = [0; 8];
        for _ in 0..BITS_SET {
            let bit = (bits >> 55) as usize;
            mask[bit / 64] |= 1 << (bit % 64);
            bits <<= 9;
        }
        (line as usize, mask)
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }
}

/// The place of a segment's filter.
#[derive(Debug, Default)]
pub(super) struct FilterSlot {
    filter: ArcSwapOption<Filter>,
}

/// Bytes of all filters.
#[derive(Debug)]
pub(super) struct FilterBytes {
    held: AtomicUsize,
    max: usize,
}

impl FilterBytes {
    pub fn up_to(max: usize) -> Self {
        Self { held: AtomicUsize::new(0), max }
    }

    pub fn is_over(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.max
    }

    fn count_out(&self, filter: Option<Arc<Filter>>) {
        if let Some(filter) = filter {
            self.held.fetch_sub(filter.bytes(), Ordering::Relaxed);
        }
    }
}

impl FilterSlot {
    pub fn is_set(&self) -> bool {
        self.filter.load().is_some()
    }

    pub fn set(&self, filter: Filter, total: &FilterBytes) {
        total.held.fetch_add(filter.bytes(), Ordering::Relaxed);
        total.count_out(self.filter.swap(Some(Arc::new(filter))));
    }

    pub fn clear(&self, total: &FilterBytes) {
        total.count_out(self.filter.swap(None));
    }

    /// Without a filter: yes.
    pub fn may_hold(&self, fingerprint: u32) -> bool {
        self.filter.load().as_ref().is_none_or(|filter| filter.may_hold(fingerprint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_trace_that_is_there_is_ruled_out(fingerprints: Vec<u32>) {
            let filter = Filter::of(&fingerprints);
            prop_assert!(fingerprints.iter().all(|fingerprint| filter.may_hold(*fingerprint)));
        }
    }

    #[test]
    fn nearly_all_others_are_ruled_out() {
        let spread = |number: u32| number.wrapping_mul(0x9e37_79b9);
        let filter = Filter::of(&(0..7_000).map(spread).collect::<Vec<_>>());
        let taken = (7_000..107_000).filter(|number| filter.may_hold(spread(*number))).count();
        assert!(taken < 2_500, "{taken} of 100,000");
    }

    #[test]
    fn what_is_cleared_or_replaced_is_no_longer_counted() {
        let (slot, total) = (FilterSlot::default(), FilterBytes::up_to(1));
        assert!(slot.may_hold(1) && !slot.is_set());
        for _ in 0..2 {
            slot.set(Filter::of(&[1, 2, 3]), &total);
        }
        assert_eq!(total.held.load(Ordering::Relaxed), size_of::<Line>());
        slot.clear(&total);
        assert_eq!(total.held.load(Ordering::Relaxed), 0);
        assert!(!slot.is_set() && slot.may_hold(9));
    }
}
