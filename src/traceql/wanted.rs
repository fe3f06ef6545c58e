//! Rows of one segment of which codes are wanted, column after column.

use super::column::Code;

/// Rows, and what one column tells about the next: spans of a kind have the same attributes, so many columns have values in
/// the same rows.
pub struct Wanted<'r> {
    rows: &'r [u16],
    /// By row of the segment: one more than its place among `rows`, 0 for all others. Made when it is needed.
    places: Vec<u16>,
    /// The latest used first.
    known: Vec<Shape>,
}

/// The rows in which columns have values.
struct Shape {
    /// As they were written.
    written: Box<[u8]>,
    hits: Hits,
}

/// Those of a column's values that stand in wanted rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hits {
    /// Places among the wanted rows, ascending.
    pub places: Vec<u16>,
    /// Which value of the column stands there.
    pub values: Vec<u16>,
}

static NO_HITS: Hits = Hits { places: Vec::new(), values: Vec::new() };

/// Spans of a server, of clients, of databases, of messages; and roots.
const SHAPES_MAX: usize = 6;

impl<'r> Wanted<'r> {
    /// `rows` are ascending.
    #[must_use]
    pub fn new(rows: &'r [u16]) -> Self {
        Self { rows, places: Vec::new(), known: Vec::new() }
    }

    #[must_use]
    pub fn rows(&self) -> &'r [u16] {
        self.rows
    }

    /// Which of a column's values are wanted, where they stand in the rows that `read` reads out of `written`.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn hits<E>(&mut self, written: &[u8], read: impl FnOnce() -> Result<Vec<u16>, E>) -> Result<&Hits, E> {
        if let Some(known) = self.known.iter().position(|shape| *shape.written == *written) {
            self.known.get_mut(..=known).unwrap_or_default().rotate_right(1);
        } else {
            let hits = self.look_up(&read()?);
            self.known.truncate(SHAPES_MAX - 1);
            self.known.insert(0, Shape { written: written.into(), hits });
        }
        Ok(self.known.first().map_or(&NO_HITS, |shape| &shape.hits))
    }

    fn look_up(&mut self, rows: &[u16]) -> Hits {
        if self.places.is_empty() {
            self.places.resize(self.rows.last().map_or(0, |last| usize::from(*last) + 1), 0);
            for (place, row) in (1u32..).zip(self.rows) {
                if let Some(slot) = self.places.get_mut(usize::from(*row)) {
                    // A segment has no more rows than fit.
                    *slot = place as u16;
                }
            }
        }
        let mut hits = Hits::default();
        for (value, row) in (0u32..).zip(rows) {
            if let Some(place) = self.places.get(usize::from(*row)).and_then(|place| place.checked_sub(1)) {
                hits.places.push(place);
                hits.values.push(value as u16);
            }
        }
        hits
    }

    /// What it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let shapes = self.known.iter().map(|shape| shape.written.len() + 4 * shape.hits.places.len());
        self.places.len() * size_of::<Code>() + shapes.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_values_in_wanted_rows_are_found(
            wanted: std::collections::BTreeSet<u16>,
            shapes in proptest::collection::vec(any::<std::collections::BTreeSet<u16>>(), 1..9),
            order in proptest::collection::vec(0usize..9, 0..30),
        ) {
            let rows: Vec<u16> = wanted.iter().copied().collect();
            let mut asked = Wanted::new(&rows);
            for number in order.into_iter().map(|number| number % shapes.len()) {
                let shape: Vec<u16> = shapes[number].iter().copied().collect();
                let hits = asked.hits(&[number as u8], || Ok::<_, ()>(shape.clone())).unwrap();
                let expected: Vec<(u16, u16)> = (0..)
                    .zip(&shape)
                    .filter_map(|(value, row)| Some((rows.binary_search(row).ok()? as u16, value)))
                    .collect();
                let found: Vec<(u16, u16)> = hits.places.iter().copied().zip(hits.values.iter().copied()).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
