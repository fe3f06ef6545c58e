//! Which traces the tail has, by the fingerprints of their ids.

use std::sync::Arc;

use super::group::Group;

/// Fingerprints beyond this are not put together: a long backlog must not cost memory for being there.
const PRINTS_MAX: usize = 512 << 10;

/// Fingerprints of all traces of all groups, sorted.
#[derive(Debug, Default)]
pub(super) struct Prints {
    all: Vec<u32>,
    /// Those that several groups have.
    repeated: Vec<u32>,
    /// A bit for each of `all`, by its low bits: nearly all traces of runs are not in the tail, and one bit says so.
    seen: Vec<u64>,
}

/// Bits for each fingerprint: one in sixteen that is not here looks as if it were, and is looked for.
const BITS_PER_PRINT: usize = 16;

impl Prints {
    /// `None` while a group's traces are not known, or if they are too many.
    pub fn of(groups: &[Arc<Group>]) -> Option<Self> {
        let facts: Vec<_> = groups.iter().map(|group| group.facts()).collect::<Option<_>>()?;
        if facts.iter().map(|facts| facts.prints.len()).sum::<usize>() > PRINTS_MAX {
            return None;
        }
        let mut all: Vec<u32> = facts.iter().flat_map(|facts| facts.prints.iter().copied()).collect();
        all.sort_unstable();
        let mut repeated: Vec<u32> = all.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        repeated.dedup();
        all.dedup();
        let words = (all.len() * BITS_PER_PRINT).div_ceil(u64::BITS as usize).next_power_of_two();
        let mut prints = Self { all, repeated, seen: vec![0; words] };
        for print in &prints.all {
            let (word, bit) = place(*print, words);
            prints.seen[word] |= bit;
        }
        Some(prints)
    }

    pub fn may_hold(&self, print: u32) -> bool {
        let (word, bit) = place(print, self.seen.len());
        self.seen.get(word).is_some_and(|seen| seen & bit != 0) && self.all.binary_search(&print).is_ok()
    }

    pub fn may_be_split(&self, print: u32) -> bool {
        self.repeated.binary_search(&print).is_ok()
    }
}

/// Of `words`, a power of two, the one that has the bit of a fingerprint, and the bit.
fn place(print: u32, words: usize) -> (usize, u64) {
    ((print >> 6) as usize & (words - 1), 1 << (print & 63))
}
