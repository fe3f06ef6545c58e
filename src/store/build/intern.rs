//! Byte strings that were met before, by hash. What a span repeats of earlier spans costs one look-up and no decoding.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

/// Where bytes lie in the batches of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Index of the batch.
    pub batch: u32,
    pub offset: u32,
    pub len: u32,
}

/// Batches under construction, whose bytes [`Place`]s mean.
pub(super) trait Bytes {
    fn at(&self, place: Place) -> &[u8];
}

impl<B: AsRef<[u8]>> Bytes for [B] {
    fn at(&self, place: Place) -> &[u8] {
        let start = place.offset as usize;
        let batch = self.get(place.batch as usize).map_or(&[][..], AsRef::as_ref);
        batch.get(start..start + place.len as usize).unwrap_or_default()
    }
}

/// Distinct byte strings, numbered from 0 in the order they came. An open-addressed table of numbers: the strings stay
/// where they lie.
#[derive(Debug)]
pub(super) struct Interner {
    hasher: RandomState,
    /// The upper half of the hash above a number counted from 1; 0 is free. A power of two of them, at most half used.
    slots: Vec<u64>,
    places: Vec<Place>,
}

/// Slots of a table that was not used yet.
const SLOTS_MIN: usize = 64;
/// A table of so many, which are 512 KiB, grows in smaller steps: half of it would mostly be free.
const LARGE_SLOTS: usize = 64 * 1024;

impl Default for Interner {
    fn default() -> Self {
        Self { hasher: RandomState::default(), slots: vec![0; SLOTS_MIN], places: Vec::new() }
    }
}

impl Interner {
    /// The number of a string, and whether it is new. `place` is where it lies, should it be new.
    #[inline]
    pub fn intern<B: Bytes + ?Sized>(
        &mut self,
        string: &[u8],
        batches: &B,
        place: impl FnOnce() -> Place,
    ) -> (u32, bool) {
        let hash = self.hasher.hash_one(string);
        let mask = self.slots.len() - 1;
        let tag = hash & 0xffff_ffff_0000_0000;
        let mut slot = hash as usize & mask;
        loop {
            let content = self.slots[slot];
            if content == 0 {
                break;
            }
            if content & 0xffff_ffff_0000_0000 == tag {
                let number = content as u32 - 1;
                if self.places.get(number as usize).is_some_and(|place| batches.at(*place) == string) {
                    return (number, false);
                }
            }
            slot = (slot + 1) & mask;
        }
        let number = self.places.len() as u32;
        self.slots[slot] = tag | u64::from(number + 1);
        self.places.push(place());
        if self.places.len() * 2 > self.slots.len() {
            self.grow(batches);
        }
        (number, true)
    }

    /// Forgets all strings and keeps the memory.
    pub fn clear(&mut self) {
        self.slots.fill(0);
        self.places.clear();
    }

    #[cold]
    fn grow<B: Bytes + ?Sized>(&mut self, batches: &B) {
        let len = self.slots.len() * if self.slots.len() < LARGE_SLOTS { 4 } else { 2 };
        self.slots.clear();
        self.slots.resize(len, 0);
        for (number, place) in (1u64..).zip(&self.places) {
            let hash = self.hasher.hash_one(batches.at(*place));
            let mut slot = hash as usize & (len - 1);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (len - 1);
            }
            self.slots[slot] = hash & 0xffff_ffff_0000_0000 | number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn equal_strings_get_equal_numbers_and_different_ones_different(strings in proptest::collection::vec("[ab]{0,6}", 0..400)) {
            let batches: Vec<Vec<u8>> = strings.iter().map(|string| string.as_bytes().to_vec()).collect();
            let mut interner = Interner::default();
            for _ in 0..2 {
                let mut known = HashMap::new();
                for (batch, string) in batches.iter().enumerate() {
                    let place = Place { batch: batch as u32, offset: 0, len: string.len() as u32 };
                    let (number, new) = interner.intern(string, batches.as_slice(), || place);
                    let next = known.len() as u32;
                    prop_assert_eq!(new, !known.contains_key(string));
                    prop_assert_eq!(*known.entry(string).or_insert(next), number);
                    prop_assert_eq!(batches.as_slice().at(interner.places[number as usize]), string.as_slice());
                }
                interner.clear();
            }
        }
    }
}
