//! Sets of codes, and the rows that have one of them.

use crate::traceql::column::{Code, Codes, NIL};
use crate::traceql::mask::Mask;

/// Up to so many ranges are compared one after the other, with wide instructions; more are looked up in a table.
const RANGES_MAX: usize = 4;

/// Codes of a dictionary, as ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CodeSet {
    /// First and last, ascending and apart from each other.
    ranges: Vec<(Code, Code)>,
}

impl CodeSet {
    /// The codes of the values at the places `from..to`.
    #[must_use]
    pub fn range(from: usize, to: usize) -> Self {
        let mut set = Self::default();
        set.push(from, to);
        set
    }

    /// Adds the codes of the values at the places `from..to`, which come after all that are in.
    pub fn push(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        // The value at place 0 has code 1.
        let (first, last) = (from as Code + 1, to as Code);
        match self.ranges.last_mut() {
            Some(range) if range.1 == first - 1 => range.1 = last,
            _ => self.ranges.push((first, last)),
        }
    }

    /// Adds those of the sorted places `from..to` for which a comparison with something holds that `below` divides:
    /// places before it are less, `equal` places from there equal it.
    pub fn push_compared(
        &mut self,
        op: crate::traceql::ast::Comparison,
        from: usize,
        to: usize,
        below: usize,
        equal: usize,
    ) {
        use crate::traceql::ast::Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        let above = below + equal;
        match op {
            Equal => self.push(below, above),
            NotEqual => {
                self.push(from, below);
                self.push(above, to);
            }
            Less => self.push(from, below),
            LessOrEqual => self.push(from, above),
            Greater => self.push(above, to),
            GreaterOrEqual => self.push(below, to),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    #[must_use]
    pub fn contains(&self, code: Code) -> bool {
        let before = self.ranges.partition_point(|range| range.1 < code);
        self.ranges.get(before).is_some_and(|range| range.0 <= code)
    }

    /// The rows whose code is in the set.
    #[must_use]
    pub fn rows(&self, codes: &Codes) -> Mask {
        match codes {
            Codes::Rows(rows) => self.rows_of(rows),
            Codes::Groups { groups, codes } => {
                let mut set = Self::default();
                for (group, code) in codes.iter().enumerate() {
                    if self.contains(*code) {
                        set.push(group, group + 1);
                    }
                }
                // Groups count from 0, codes from 1.
                set.ranges.iter_mut().for_each(|range| *range = (range.0 - 1, range.1 - 1));
                set.rows_of(groups)
            }
        }
    }

    fn rows_of(&self, rows: &[u16]) -> Mask {
        let within = |(first, last): (Code, Code)| {
            let width = last - first;
            move |code: u16| code.wrapping_sub(first) <= width
        };
        match &self.ranges[..] {
            [] => Mask::none(rows.len()),
            [only] if only.0 == only.1 => {
                let wanted = only.0;
                Mask::of(rows, |code| code == wanted)
            }
            [only] => Mask::of(rows, within(*only)),
            [first, rest @ ..] if rest.len() < RANGES_MAX => {
                let mut mask = Mask::of(rows, within(*first));
                for range in rest {
                    mask.or(&Mask::of(rows, within(*range)));
                }
                mask
            }
            ranges => {
                let mut table = vec![false; usize::from(Code::MAX) + 1];
                for (first, last) in ranges {
                    if let Some(part) = table.get_mut(usize::from(*first)..=usize::from(*last)) {
                        part.fill(true);
                    }
                }
                Mask::of(rows, |code| table.get(usize::from(code)).copied().unwrap_or(false))
            }
        }
    }
}

/// The rows that have a value.
#[must_use]
pub fn present(codes: &Codes) -> Mask {
    match codes {
        Codes::Rows(rows) => Mask::of(rows, |code| code != NIL),
        Codes::Groups { .. } => CodeSet { ranges: vec![(1, Code::MAX)] }.rows(codes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_of_a_set_are_those_whose_code_it_contains(
            places in proptest::collection::btree_set(0_usize..40, 0..20),
            codes in proptest::collection::vec(0_u16..45, 0..200),
        ) {
            let mut set = CodeSet::default();
            places.iter().for_each(|place| set.push(*place, place + 1));
            for code in 0..45 {
                prop_assert_eq!(set.contains(code), code > 0 && places.contains(&(usize::from(code) - 1)));
            }
            let expected = Mask::of(&codes, |code| set.contains(code));
            prop_assert_eq!(set.rows(&Codes::Rows(codes.clone().into())), expected);
        }

        #[test]
        fn codes_of_groups_count_for_their_rows(
            places in proptest::collection::btree_set(0_usize..10, 0..8),
            codes in proptest::collection::vec(0_u16..12, 1..30),
            rows in proptest::collection::vec(any::<u16>(), 0..200),
        ) {
            let mut set = CodeSet::default();
            places.iter().for_each(|place| set.push(*place, place + 1));
            let groups: Vec<u16> = rows.iter().map(|group| group % codes.len() as u16).collect();
            let flat: Vec<u16> = groups.iter().map(|group| codes[usize::from(*group)]).collect();
            let grouped = Codes::Groups { groups: std::sync::Arc::new(groups.into()), codes: codes.into() };
            prop_assert_eq!(set.rows(&grouped), Mask::of(&flat, |code| set.contains(code)));
            prop_assert_eq!(present(&grouped), Mask::of(&flat, |code| code != NIL));
        }
    }
}
