//! What is kept for each series and interval while spans are folded.
//!
//! ```text
//!            interval 0   1   2   ...
//! series 0   [ cell     cell cell ... ]      one line per series; for histograms one line per series and bucket,
//! series 1   [ cell     cell cell ... ]      made when the bucket is first needed
//! ```

use super::histogram::{BUCKETS, Bucket};
use super::table::Table;
use crate::traceql::control::{Control, Stopped};

/// What is computed of the spans of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Count,
    Min,
    Max,
    Sum,
    Avg,
    Histogram,
}

pub struct Cells {
    kind: Kind,
    booked_bytes: usize,
}

enum Kind {
    Counts(Table<u64>),
    /// NaN: nothing yet.
    Min(Table<f64>),
    Max(Table<f64>),
    /// Sums, and averages by their counts.
    Sums(Table<Sum>),
    Averages(Table<Sum>),
    Histograms {
        /// By series and bucket: the line, counted from 1; 0 where there is none.
        lines: Table<u32>,
        counts: Table<u64>,
    },
}

/// A sum that does not depend on the order of its parts, but for the last bits: what rounding loses is summed as well
/// (Neumaier).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    sum: f64,
    lost: f64,
    count: u64,
}

/// What the function is computed of, for each of the rows that are added.
#[derive(Debug, Clone, Copy)]
pub enum Measured<'a> {
    Nothing,
    /// NaN where a span has none.
    Numbers(&'a [f64]),
    /// 0 where a span has none.
    Buckets(&'a [Bucket]),
}

impl Cells {
    #[must_use]
    pub fn new(function: Function, intervals: usize) -> Self {
        let kind = match function {
            Function::Count => Kind::Counts(Table::new(intervals, 0)),
            Function::Min => Kind::Min(Table::new(intervals, f64::NAN)),
            Function::Max => Kind::Max(Table::new(intervals, f64::NAN)),
            Function::Sum => Kind::Sums(Table::new(intervals, Sum::default())),
            Function::Avg => Kind::Averages(Table::new(intervals, Sum::default())),
            Function::Histogram => Kind::Histograms { lines: Table::new(BUCKETS, 0), counts: Table::new(intervals, 0) },
        };
        Self { kind, booked_bytes: 0 }
    }

    #[must_use]
    pub fn booked_bytes(&self) -> usize {
        self.booked_bytes
    }

    /// Makes room for so many series in all.
    ///
    /// # Errors
    /// The query needs too much memory.
    pub fn grow(&mut self, series: usize, control: &Control) -> Result<(), Stopped> {
        let booked = &mut self.booked_bytes;
        match &mut self.kind {
            Kind::Counts(counts) => counts.grow(series, booked, control),
            Kind::Min(values) | Kind::Max(values) => values.grow(series, booked, control),
            Kind::Sums(sums) | Kind::Averages(sums) => sums.grow(series, booked, control),
            Kind::Histograms { lines, .. } => lines.grow(series, booked, control),
        }
    }

    /// Adds spans by their series and intervals, after [`Cells::grow`]. A span without a number is left out.
    ///
    /// # Errors
    /// The query needs too much memory.
    pub fn add(
        &mut self,
        series: &[u32],
        intervals: &[u32],
        measured: Measured<'_>,
        control: &Control,
    ) -> Result<(), Stopped> {
        let places = series.iter().zip(intervals).map(|(series, at)| (*series as usize, *at as usize));
        match (&mut self.kind, measured) {
            (Kind::Counts(counts), _) => {
                for (series, at) in places {
                    if let Some(count) = counts.get_mut(series, at) {
                        *count += 1;
                    }
                }
            }
            (Kind::Min(values), Measured::Numbers(numbers)) => each(values, places, numbers, lower),
            (Kind::Max(values), Measured::Numbers(numbers)) => each(values, places, numbers, raise),
            (Kind::Sums(sums) | Kind::Averages(sums), Measured::Numbers(numbers)) => {
                each(sums, places, numbers, |sum, number| {
                    if !number.is_nan() {
                        sum.add(number);
                        sum.count += 1;
                    }
                });
            }
            (Kind::Histograms { lines, counts }, Measured::Buckets(buckets)) => {
                for ((series, at), bucket) in places.zip(buckets) {
                    if *bucket == 0 {
                        continue;
                    }
                    let Some(line) = lines.get_mut(series, usize::from(*bucket)) else { continue };
                    if *line == 0 {
                        counts.grow(counts.lines() + 1, &mut self.booked_bytes, control)?;
                        *line = counts.lines() as u32;
                    }
                    if let Some(count) = counts.get_mut(*line as usize - 1, at) {
                        *count += 1;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds what another thread folded; its series `i` is `numbers[i]` here.
    ///
    /// # Errors
    /// The query needs too much memory.
    pub fn merge(&mut self, other: &Self, numbers: &[u32], control: &Control) -> Result<(), Stopped> {
        match (&mut self.kind, &other.kind) {
            (Kind::Counts(counts), Kind::Counts(others)) => {
                add_lines(counts, others, numbers, |count, other| *count += other);
            }
            (Kind::Min(values), Kind::Min(others)) => add_lines(values, others, numbers, lower),
            (Kind::Max(values), Kind::Max(others)) => add_lines(values, others, numbers, raise),
            (Kind::Sums(sums), Kind::Sums(others)) | (Kind::Averages(sums), Kind::Averages(others)) => {
                add_lines(sums, others, numbers, |sum, other| {
                    sum.add(other.sum);
                    sum.add(other.lost);
                    sum.count += other.count;
                });
            }
            (Kind::Histograms { lines, counts }, Kind::Histograms { lines: other_lines, counts: others }) => {
                for (series, number) in (0..other_lines.lines()).zip(numbers) {
                    let met = other_lines.line(series).iter().enumerate().filter(|(_, line)| **line > 0);
                    for (bucket, other_line) in met {
                        let Some(line) = lines.get_mut(*number as usize, bucket) else { continue };
                        if *line == 0 {
                            counts.grow(counts.lines() + 1, &mut self.booked_bytes, control)?;
                            *line = counts.lines() as u32;
                        }
                        let own = counts.line_mut(*line as usize - 1).iter_mut();
                        own.zip(others.line(*other_line as usize - 1)).for_each(|(count, other)| *count += other);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The number of each interval of a series; NaN where there is none. Of histograms there are none, see
    /// [`Cells::buckets`].
    #[must_use]
    pub fn numbers(&self, series: usize) -> Vec<f64> {
        match &self.kind {
            Kind::Counts(counts) => counts.line(series).iter().map(|count| *count as f64).collect(),
            Kind::Min(values) | Kind::Max(values) => values.line(series).to_vec(),
            Kind::Sums(sums) => {
                let sum = |sum: &Sum| if sum.count == 0 { f64::NAN } else { sum.total() };
                sums.line(series).iter().map(sum).collect()
            }
            // 0 / 0 is NaN.
            Kind::Averages(sums) => sums.line(series).iter().map(|sum| sum.total() / sum.count as f64).collect(),
            Kind::Histograms { .. } => Vec::new(),
        }
    }

    /// The buckets of a series that were met, ascending, with a count for each interval.
    pub fn buckets(&self, series: usize) -> impl Iterator<Item = (usize, &[u64])> {
        let (lines, counts) = match &self.kind {
            Kind::Histograms { lines, counts } => (lines.line(series), Some(counts)),
            _ => (&[][..], None),
        };
        let met = lines.iter().enumerate().filter(|(_, line)| **line > 0);
        met.filter_map(move |(bucket, line)| Some((bucket, counts?.line(*line as usize - 1))))
    }
}

impl Sum {
    fn add(&mut self, number: f64) {
        let sum = self.sum + number;
        if sum.is_finite() {
            self.lost +=
                if self.sum.abs() >= number.abs() { (self.sum - sum) + number } else { (number - sum) + self.sum };
        }
        self.sum = sum;
    }

    fn total(&self) -> f64 {
        if self.sum.is_finite() { self.sum + self.lost } else { self.sum }
    }
}

fn lower(least: &mut f64, number: f64) {
    if number < *least || least.is_nan() {
        *least = number;
    }
}

fn raise(most: &mut f64, number: f64) {
    if number > *most || most.is_nan() {
        *most = number;
    }
}

fn each<T: Copy>(
    cells: &mut Table<T>,
    places: impl Iterator<Item = (usize, usize)>,
    numbers: &[f64],
    mut add: impl FnMut(&mut T, f64),
) {
    for ((series, at), number) in places.zip(numbers) {
        if let Some(cell) = cells.get_mut(series, at) {
            add(cell, *number);
        }
    }
}

/// Line `i` of `others` is added to line `numbers[i]`.
fn add_lines<T: Copy>(cells: &mut Table<T>, others: &Table<T>, numbers: &[u32], mut add: impl FnMut(&mut T, T)) {
    for (line, number) in (0..others.lines()).zip(numbers) {
        let own = cells.line_mut(*number as usize).iter_mut();
        own.zip(others.line(line)).for_each(|(cell, other)| add(cell, *other));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn control() -> Control {
        Control::new(Duration::from_secs(60), 1 << 20)
    }

    /// Two series and two intervals.
    fn folded(function: Function, spans: &[(u32, u32, f64)]) -> Cells {
        let mut cells = Cells::new(function, 2);
        cells.grow(2, &control()).unwrap();
        let series: Vec<u32> = spans.iter().map(|span| span.0).collect();
        let intervals: Vec<u32> = spans.iter().map(|span| span.1).collect();
        let numbers: Vec<f64> = spans.iter().map(|span| span.2).collect();
        cells.add(&series, &intervals, Measured::Numbers(&numbers), &control()).unwrap();
        cells
    }

    const SPANS: [(u32, u32, f64); 5] = [(0, 0, 4.0), (0, 0, 2.0), (0, 1, 7.0), (1, 1, f64::NAN), (0, 0, f64::NAN)];

    fn assert_numbers(cells: &Cells, series: usize, expected: [f64; 2]) {
        let numbers = cells.numbers(series);
        let same = numbers.len() == 2
            && numbers
                .iter()
                .zip(expected)
                .all(|(number, expected)| *number == expected || number.is_nan() && expected.is_nan());
        assert!(same, "{numbers:?} instead of {expected:?}");
    }

    #[test]
    fn every_span_counts() {
        let cells = folded(Function::Count, &SPANS);
        assert_numbers(&cells, 0, [3.0, 1.0]);
        assert_numbers(&cells, 1, [0.0, 1.0]);
    }

    #[test]
    fn spans_without_a_number_do_not_take_part() {
        for (function, expected) in [
            (Function::Min, [2.0, 7.0]),
            (Function::Max, [4.0, 7.0]),
            (Function::Sum, [6.0, 7.0]),
            (Function::Avg, [3.0, 7.0]),
        ] {
            let cells = folded(function, &SPANS);
            assert_numbers(&cells, 0, expected);
            assert_numbers(&cells, 1, [f64::NAN; 2]);
        }
    }

    #[test]
    fn buckets_are_there_once_they_are_met() {
        let mut cells = Cells::new(Function::Histogram, 2);
        cells.grow(2, &control()).unwrap();
        let buckets = Measured::Buckets(&[3, 3, 0, 9]);
        cells.add(&[1, 1, 1, 1], &[0, 1, 1, 1], buckets, &control()).unwrap();
        assert_eq!(cells.buckets(0).count(), 0);
        assert_eq!(cells.buckets(1).collect::<Vec<_>>(), [(3, &[1, 1][..]), (9, &[0, 1][..])]);
    }

    #[test]
    fn sums_keep_what_rounding_would_lose() {
        let cells = folded(Function::Sum, &[(0, 0, 1e16), (0, 0, 1.0), (0, 0, 1.0), (0, 0, -1e16)]);
        assert_numbers(&cells, 0, [2.0, f64::NAN]);
    }

    #[test]
    fn infinite_values_stay_infinite() {
        let cells = folded(Function::Sum, &[(0, 0, f64::INFINITY), (0, 0, 1.0)]);
        assert_numbers(&cells, 0, [f64::INFINITY, f64::NAN]);
    }

    #[test]
    fn cells_that_do_not_fit_are_refused_before_they_exist() {
        let control = Control::new(Duration::from_secs(60), 1000);
        let mut cells = Cells::new(Function::Sum, 1_000_000);
        assert_eq!(cells.grow(1_000_000, &control), Err(Stopped::MemoryOver(1000)));
        assert!(cells.numbers(0).is_empty());
    }

    proptest! {
        #[test]
        fn two_halves_merged_are_the_whole(
            left in prop::collection::vec((0_u32..2, 0_u32..2, -1e6_f64..1e6, 0_u8..65), 0..30),
            right in prop::collection::vec((0_u32..2, 0_u32..2, -1e6_f64..1e6, 0_u8..65), 0..30),
        ) {
            let whole: Vec<_> = left.iter().chain(&right).copied().collect();
            for function in [
                Function::Count, Function::Min, Function::Max, Function::Sum, Function::Avg, Function::Histogram,
            ] {
                let fold = |spans: &[(u32, u32, f64, u8)], turned: u32| {
                    let mut cells = Cells::new(function, 2);
                    cells.grow(2, &control()).unwrap();
                    let series: Vec<u32> = spans.iter().map(|span| span.0 ^ turned).collect();
                    let intervals: Vec<u32> = spans.iter().map(|span| span.1).collect();
                    let numbers: Vec<f64> = spans.iter().map(|span| span.2).collect();
                    let buckets: Vec<u8> = spans.iter().map(|span| span.3).collect();
                    let measured = if function == Function::Histogram {
                        Measured::Buckets(&buckets)
                    } else {
                        Measured::Numbers(&numbers)
                    };
                    cells.add(&series, &intervals, measured, &control()).unwrap();
                    cells
                };
                let mut merged = fold(&left, 0);
                // The other thread met the series the other way round.
                merged.merge(&fold(&right, 1), &[1, 0], &control()).unwrap();
                let whole = fold(&whole, 0);
                for series in 0..2 {
                    let pairs = merged.numbers(series).into_iter().zip(whole.numbers(series));
                    for (merged, whole) in pairs {
                        prop_assert!((merged - whole).abs() <= 1e-6 || merged.is_nan() && whole.is_nan());
                    }
                    prop_assert_eq!(
                        merged.buckets(series).collect::<Vec<_>>(),
                        whole.buckets(series).collect::<Vec<_>>()
                    );
                }
            }
        }
    }
}
