//! Cells by line and place, in pieces. One vector of all of them would be held twice whenever it grows, and be half empty
//! afterwards: memory that the budget of queries would not know of.

use crate::traceql::control::{Control, Stopped};

/// Cells of a piece, about: 8 KiB of counts.
const PIECE_CELLS: usize = 1024;

pub struct Table<T> {
    /// Cells of a line.
    width: usize,
    /// A piece has 2 to the power of this lines.
    line_bits: u32,
    empty: T,
    pieces: Vec<Box<[T]>>,
    lines: usize,
}

impl<T: Copy> Table<T> {
    #[must_use]
    pub fn new(width: usize, empty: T) -> Self {
        let width = width.max(1);
        Self { width, line_bits: (PIECE_CELLS / width).max(1).ilog2(), empty, pieces: Vec::new(), lines: 0 }
    }

    #[must_use]
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Makes room for so many lines in all.
    ///
    /// # Errors
    /// The query needs too much memory; nothing changed then.
    pub fn grow(&mut self, lines: usize, booked_bytes: &mut usize, control: &Control) -> Result<(), Stopped> {
        let missing = lines.div_ceil(1 << self.line_bits).saturating_sub(self.pieces.len());
        if missing > 0 {
            let cells = self.width << self.line_bits;
            let bytes = missing.saturating_mul(cells).saturating_mul(size_of::<T>());
            control.reserve(bytes)?;
            *booked_bytes += bytes;
            self.pieces.extend((0..missing).map(|_| vec![self.empty; cells].into_boxed_slice()));
        }
        self.lines = self.lines.max(lines);
        Ok(())
    }

    /// One cell; `at` is below the width.
    #[inline]
    pub fn get_mut(&mut self, line: usize, at: usize) -> Option<&mut T> {
        let place = self.place(line) + at;
        self.pieces.get_mut(line >> self.line_bits)?.get_mut(place)
    }

    /// The cells of a line, none if there is no such line.
    #[must_use]
    pub fn line(&self, line: usize) -> &[T] {
        let place = self.place(line);
        let piece = self.pieces.get(line >> self.line_bits);
        piece.filter(|_| line < self.lines).and_then(|piece| piece.get(place..place + self.width)).unwrap_or_default()
    }

    /// As [`Table::line`].
    pub fn line_mut(&mut self, line: usize) -> &mut [T] {
        let place = self.place(line);
        let piece = self.pieces.get_mut(line >> self.line_bits);
        let piece = piece.filter(|_| line < self.lines);
        piece.and_then(|piece| piece.get_mut(place..place + self.width)).unwrap_or_default()
    }

    #[inline]
    fn place(&self, line: usize) -> usize {
        (line & ((1 << self.line_bits) - 1)) * self.width
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_line_has_cells_of_its_own_and_all_are_booked() {
        for width in [1, 3, 700, 1024, 5000] {
            let control = Control::new(Duration::from_secs(60), 1 << 24);
            let (mut table, mut booked) = (Table::new(width, 7_u64), 0);
            for lines in [1, 2, 90, 300] {
                table.grow(lines, &mut booked, &control).unwrap();
                assert_eq!((table.lines(), booked), (lines, control.used_bytes()));
                assert!(booked >= lines * width * size_of::<u64>());
                assert!(table.line(lines).is_empty() && table.line_mut(lines).is_empty());
            }
            for line in 0..300 {
                assert!(table.line(line).iter().all(|cell| *cell == 7) && table.line(line).len() == width);
                *table.get_mut(line, width - 1).unwrap() = 1000 + line as u64;
                assert_eq!(table.line_mut(line).last().copied(), Some(1000 + line as u64));
            }
            assert!((0..300).all(|line| table.line(line)[width - 1] == 1000 + line as u64), "none was another's");
        }
    }
}
