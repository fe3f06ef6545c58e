//! Sets of rows, a bit for each.

use std::ops::Range;

/// Rows in a word.
const WORD: usize = u64::BITS as usize;

/// A set of the rows of one segment. Two masks are combined only if they are of the same segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Bits beyond the last row are 0.
    words: Vec<u64>,
    rows: usize,
}

impl Mask {
    #[must_use]
    pub fn none(rows: usize) -> Self {
        Self { words: vec![0; rows.div_ceil(WORD)], rows }
    }

    #[must_use]
    pub fn all(rows: usize) -> Self {
        let mut mask = Self { words: vec![u64::MAX; rows.div_ceil(WORD)], rows };
        mask.trim();
        mask
    }

    /// The rows whose value passes. The test should be without branches: it is run for many rows at once.
    #[must_use]
    pub fn of<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> Self {
        let (whole, rest) = values.as_chunks::<WORD>();
        let mut words = Vec::with_capacity(values.len().div_ceil(WORD));
        // First a byte for each row, which compilers turn into wide compares, then bits of the bytes.
        let mut flags = [0_u8; WORD];
        for chunk in whole {
            for (flag, value) in flags.iter_mut().zip(chunk) {
                *flag = u8::from(test(*value));
            }
            words.push(pack(&flags));
        }
        if !rest.is_empty() {
            flags = [0; WORD];
            for (flag, value) in flags.iter_mut().zip(rest) {
                *flag = u8::from(test(*value));
            }
            words.push(pack(&flags));
        }
        Self { words, rows: values.len() }
    }

    /// What it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.words.len() * size_of::<u64>()
    }

    /// Of how many rows some are in the set.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    #[must_use]
    pub fn get(&self, row: usize) -> bool {
        self.words.get(row / WORD).is_some_and(|word| word >> (row % WORD) & 1 == 1)
    }

    pub fn set(&mut self, row: usize) {
        if row < self.rows
            && let Some(word) = self.words.get_mut(row / WORD)
        {
            *word |= 1 << (row % WORD);
        }
    }

    pub fn set_range(&mut self, rows: Range<usize>) {
        let rows = rows.start..rows.end.min(self.rows);
        self.change(rows, |word, bits| *word |= bits);
    }

    /// Takes everything out that is not within `rows`.
    pub fn keep_range(&mut self, rows: Range<usize>) {
        self.change(0..rows.start.min(self.rows), |word, bits| *word &= !bits);
        self.change(rows.end..self.rows, |word, bits| *word &= !bits);
    }

    pub fn and(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    pub fn or(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    pub fn and_not(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
    }

    pub fn invert(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.trim();
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether any of these rows is in the set.
    #[must_use]
    pub fn any(&self, rows: Range<usize>) -> bool {
        if rows.is_empty() {
            return false;
        }
        let (first, last) = (rows.start / WORD, (rows.end - 1) / WORD);
        (first..=last).any(|index| self.words.get(index).is_some_and(|word| word & bits_of(&rows, index) != 0))
    }

    /// How many of these rows are in the set.
    #[must_use]
    pub fn count_in(&self, rows: Range<usize>) -> usize {
        if rows.is_empty() {
            return 0;
        }
        let indices = rows.start / WORD..=(rows.end - 1) / WORD;
        let words = indices.map(|index| self.words.get(index).copied().unwrap_or(0) & bits_of(&rows, index));
        words.map(|word| word.count_ones() as usize).sum()
    }

    /// The rows of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.iter_in(0..self.rows)
    }

    /// Those of these rows that are in the set, ascending.
    pub fn iter_in(&self, rows: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        let indices = if rows.is_empty() { 0..0 } else { rows.start / WORD..(rows.end - 1) / WORD + 1 };
        indices.flat_map(move |index| {
            let word = self.words.get(index).copied().unwrap_or(0) & bits_of(&rows, index);
            Ones(word).map(move |bit| index * WORD + bit)
        })
    }

    fn trim(&mut self) {
        let beyond = self.rows % WORD;
        if beyond != 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << beyond) - 1;
        }
    }

    fn change(&mut self, rows: Range<usize>, change: impl Fn(&mut u64, u64)) {
        if rows.is_empty() {
            return;
        }
        for index in rows.start / WORD..=(rows.end - 1) / WORD {
            if let Some(word) = self.words.get_mut(index) {
                change(word, bits_of(&rows, index));
            }
        }
    }
}

/// The bits in the word `index` that stand for `rows`, which has some there.
fn bits_of(rows: &Range<usize>, index: usize) -> u64 {
    let first = index * WORD;
    let mut bits = u64::MAX;
    if rows.start > first {
        bits &= u64::MAX << (rows.start - first);
    }
    if rows.end < first + WORD {
        bits &= (1 << (rows.end - first)) - 1;
    }
    bits
}

/// 64 bytes of 0 or 1 to 64 bits.
fn pack(flags: &[u8; WORD]) -> u64 {
    // Moves the lowest bit of byte i to bit 56 + i; no two products meet below that, so nothing carries.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let (eights, _) = flags.as_chunks::<8>();
    eights
        .iter()
        .enumerate()
        .fold(0, |word, (index, eight)| word | (u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56) << (8 * index))
}

/// Places of the ones of a word, lowest first.
struct Ones(u64);

impl Iterator for Ones {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(mask: &Mask) -> Vec<bool> {
        (0..mask.rows()).map(|row| mask.get(row)).collect()
    }

    fn flags() -> impl Strategy<Value = Vec<bool>> {
        proptest::collection::vec(any::<bool>(), 0..300)
    }

    proptest! {
        #[test]
        fn a_mask_holds_the_rows_that_pass(flags in flags()) {
            let mask = Mask::of(&flags, |flag| flag);
            let rows: Vec<usize> = (0..flags.len()).filter(|row| flags[*row]).collect();
            prop_assert_eq!(mask.count(), rows.len());
            prop_assert_eq!(mask.is_empty(), rows.is_empty());
            prop_assert_eq!(mask.iter().collect::<Vec<_>>(), rows);
            prop_assert_eq!(plain(&mask), flags);
        }

        #[test]
        fn masks_combine_row_by_row(flags in proptest::collection::vec(any::<(bool, bool)>(), 0..300)) {
            let left = Mask::of(&flags, |(left, _)| left);
            let right = Mask::of(&flags, |(_, right)| right);
            let combined = |combine: fn(&mut Mask, &Mask)| {
                let mut mask = left.clone();
                combine(&mut mask, &right);
                mask
            };
            prop_assert_eq!(combined(Mask::and), Mask::of(&flags, |(left, right)| left && right));
            prop_assert_eq!(combined(Mask::or), Mask::of(&flags, |(left, right)| left || right));
            prop_assert_eq!(combined(Mask::and_not), Mask::of(&flags, |(left, right)| left && !right));
            let mut inverted = left.clone();
            inverted.invert();
            prop_assert_eq!(inverted, Mask::of(&flags, |(left, _)| !left));
        }

        #[test]
        fn ranges_touch_their_rows_only(flags in flags(), start in 0_usize..310, length in 0_usize..310) {
            let rows = start..start + length;
            let mask = Mask::of(&flags, |flag| flag);
            let within: Vec<usize> = mask.iter().filter(|row| rows.contains(row)).collect();
            prop_assert_eq!(mask.iter_in(rows.clone()).collect::<Vec<_>>(), within.clone());
            prop_assert_eq!(mask.any(rows.clone()), !within.is_empty());
            prop_assert_eq!(mask.count_in(rows.clone()), within.len());

            let mut kept = mask.clone();
            kept.keep_range(rows.clone());
            prop_assert_eq!(kept.iter().collect::<Vec<_>>(), within);

            let mut more = mask.clone();
            more.set_range(rows.clone());
            let expected: Vec<bool> = (0..flags.len()).map(|row| flags[row] || rows.contains(&row)).collect();
            prop_assert_eq!(plain(&more), expected);
        }
    }

    #[test]
    fn all_and_none_are_each_others_inverse() {
        for rows in [0, 1, 63, 64, 65, 65_535] {
            let mut mask = Mask::all(rows);
            assert_eq!(mask.count(), rows);
            mask.invert();
            assert_eq!(mask, Mask::none(rows));
        }
    }
}
