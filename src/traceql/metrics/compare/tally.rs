//! How often each value of one attribute was met, by side and interval.

use std::cmp::Reverse;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Scratch;
use crate::traceql::coded::{Coded, Met};
use crate::traceql::column::{Code, Codes, NIL};
use crate::traceql::control::{Control, Stopped};
use crate::traceql::keys;
use crate::traceql::metrics::table::Table;
use crate::traceql::value::Value;

/// Counts for one attribute.
pub(super) struct Tally {
    numbers: HashMap<Box<[u8]>, u32, RandomState>,
    /// Scratch for the key of a value.
    key: Vec<u8>,
    pub(super) values: Vec<Value>,
    /// A line for each value, by cell.
    counts: Table<u64>,
    /// What they take.
    counts_bytes: usize,
    /// By cell: values of any kind, those left out included.
    pub(super) totals: Vec<u64>,
    /// Spans whose values were to be looked at one by one.
    pub(super) lookups: usize,
    /// There are more than [`VALUES_MAX`] values: none is kept.
    has_too_many: bool,
    pub(super) booked_bytes: usize,
}

/// In place of the number of a value: not asked for yet.
const UNASKED: u32 = u32::MAX;
/// The code stands for none or several values, or for one that is left out.
const NOT_ONE: u32 = u32::MAX - 1;

/// Distinct values of an attribute that are counted. Of one with more none is answered.
const VALUES_MAX: usize = 4096;

/// Spans, of a query and by one thread, whose values of an attribute are looked at one by one where there is no dictionary.
const UNLISTED_LOOKUPS_MAX: usize = 256;

pub(super) const VALUE_OVERHEAD_BYTES: usize = 96;

impl Tally {
    pub(super) fn new(width: usize, booked_bytes: usize) -> Self {
        Self {
            numbers: HashMap::default(),
            key: Vec::new(),
            values: Vec::new(),
            counts: Table::new(width, 0),
            counts_bytes: 0,
            totals: vec![0; width],
            lookups: 0,
            has_too_many: false,
            booked_bytes,
        }
    }

    /// Values of some spans could not be told apart at a reasonable price: none are answered.
    pub(super) fn is_unlisted(&self) -> bool {
        self.lookups > UNLISTED_LOOKUPS_MAX
    }

    /// Adds spans that have a value, counted by cell; to the totals alone if it is rare.
    pub(super) fn add(
        &mut self,
        (coded, code, is_rare): (&Coded, Code, bool),
        counts: &[u32],
        control: &Control,
    ) -> Result<(), Stopped> {
        let mut result = Ok(());
        coded.each(code, |met| {
            for (total, count) in self.totals.iter_mut().zip(counts) {
                *total += u64::from(*count);
            }
            if is_rare || self.has_too_many {
                return;
            }
            match self.number(met, control) {
                Ok(number) => {
                    let own = self.counts.line_mut(number as usize).iter_mut();
                    own.zip(counts).for_each(|(own, count)| *own += u64::from(*count));
                }
                Err(stopped) => result = Err(stopped),
            }
        });
        result
    }

    /// Adds spans one by one, where there are too many codes and cells to count by both. Codes of rows are those of `rows`.
    pub(super) fn add_rows(
        &mut self,
        coded: &Coded,
        rows: &[u16],
        scratch: &mut Scratch,
        control: &Control,
    ) -> Result<(), Stopped> {
        scratch.numbers.clear();
        scratch.numbers.resize(coded.code_max() + 1, UNASKED);
        for ((position, row), cell) in rows.iter().enumerate().zip(&scratch.cells) {
            let code = match coded.codes() {
                Codes::Rows(codes) => codes.get(position).copied().unwrap_or(NIL),
                groups => groups.get(usize::from(*row)),
            };
            let is_left_out = self.has_too_many || scratch.is_rare(code);
            let Some(number) = scratch.numbers.get_mut(usize::from(code)) else { continue };
            if *number == UNASKED {
                let only = if is_left_out { None } else { self.only_number(coded, code, control)? };
                *number = only.unwrap_or(NOT_ONE);
            }
            if *number == NOT_ONE {
                let mut result = Ok(());
                coded.each(code, |met| {
                    if is_left_out {
                        return self.count_total(*cell as usize, 1);
                    }
                    match self.number(met, control) {
                        Ok(number) => self.count(number, *cell as usize),
                        Err(stopped) => result = Err(stopped),
                    }
                });
                result?;
            } else {
                self.count(*number, *cell as usize);
            }
        }
        Ok(())
    }

    /// The number of the value of a code, if it stands for one.
    fn only_number(&mut self, coded: &Coded, code: Code, control: &Control) -> Result<Option<u32>, Stopped> {
        let (mut met, mut number) = (0, Ok(0));
        coded.each(code, |value| {
            met += 1;
            if met == 1 {
                number = self.number(value, control);
            }
        });
        number.map(|number| (met == 1).then_some(number))
    }

    fn count(&mut self, number: u32, cell: usize) {
        if let Some(own) = self.counts.get_mut(number as usize, cell) {
            *own += 1;
        }
        self.count_total(cell, 1);
    }

    pub(super) fn merge(&mut self, other: &Self, control: &Control) -> Result<(), Stopped> {
        self.lookups = self.lookups.saturating_add(other.lookups);
        self.totals.iter_mut().zip(&other.totals).for_each(|(total, other)| *total += other);
        if other.has_too_many {
            self.forget_values(control);
        }
        if self.has_too_many {
            return Ok(());
        }
        for (line, value) in other.values.iter().enumerate() {
            let number = self.number(Met::Value(value), control)?;
            let own = self.counts.line_mut(number as usize).iter_mut();
            own.zip(other.counts.line(line)).for_each(|(count, other)| *count += other);
        }
        self.bound(control);
        Ok(())
    }

    fn number(&mut self, met: Met<'_>, control: &Control) -> Result<u32, Stopped> {
        self.key.clear();
        met.write_key(&mut self.key);
        if let Some(known) = self.numbers.get(self.key.as_slice()) {
            return Ok(*known);
        }
        let number = self.values.len() as u32;
        let before = self.counts_bytes;
        self.counts.grow(self.values.len() + 1, &mut self.counts_bytes, control)?;
        self.booked_bytes += self.counts_bytes - before;
        let bytes = booked_for(self.key.len());
        control.reserve(bytes)?;
        self.booked_bytes += bytes;
        self.numbers.insert(self.key.as_slice().into(), number);
        self.values.push(met.into_value());
        Ok(number)
    }

    pub(super) fn count_total(&mut self, cell: usize, spans: u64) {
        if let Some(total) = self.totals.get_mut(cell) {
            *total += spans;
        }
    }

    pub(super) fn bound(&mut self, control: &Control) {
        if self.values.len() > VALUES_MAX {
            self.forget_values(control);
        }
    }

    /// Leaves out all values, now and later, and their memory.
    fn forget_values(&mut self, control: &Control) {
        self.has_too_many = true;
        let freed = self.counts_bytes + self.numbers.keys().map(|key| booked_for(key.len())).sum::<usize>();
        (self.numbers, self.values) = Default::default();
        (self.counts, self.counts_bytes) = (Table::new(self.totals.len(), 0), 0);
        self.booked_bytes = self.booked_bytes.saturating_sub(freed);
        control.release(freed);
    }

    /// The most frequent values of a side, with a count for each interval.
    pub(super) fn top(&self, side: usize, top: usize) -> Vec<(&Value, &[u64])> {
        if self.is_unlisted() {
            return Vec::new();
        }
        let half = self.totals.len() / 2;
        let of_side = self.values.iter().enumerate().map(|(line, value)| {
            let counts = self.counts.line(line).get(side * half..(side + 1) * half);
            (value, counts.unwrap_or_default())
        });
        let mut met: Vec<(u64, &Value, &[u64])> =
            of_side.map(|(value, counts)| (counts.iter().sum(), value, counts)).filter(|(sum, ..)| *sum > 0).collect();
        met.sort_by(|(left, left_value, _), (right, right_value, _)| {
            Reverse(left).cmp(&Reverse(right)).then_with(|| keys::compare(Some(left_value), Some(right_value)))
        });
        met.truncate(top);
        met.into_iter().map(|(_, value, counts)| (value, counts)).collect()
    }
}

/// What one value with a key of so many bytes takes, beside its counts.
fn booked_for(key_len: usize) -> usize {
    2 * key_len + VALUE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn values_that_are_left_out_give_their_memory_back() {
        let control = Control::new(Duration::from_secs(60), 4 << 20);
        let mut tally = Tally::new(2, 0);
        // Held at once they would need five times what there is.
        for number in 0..150_000_i64 {
            let value = Value::String(format!("value number {number}").into());
            if !tally.has_too_many {
                tally.number(Met::Value(&value), &control).unwrap();
            }
            tally.bound(&control);
        }
        assert!(tally.has_too_many && tally.values.is_empty() && tally.numbers.is_empty() && tally.counts.lines() == 0);
        assert_eq!((control.used_bytes(), tally.booked_bytes), (0, 0));
    }

    /// Two sets of values, each of which would be kept, and which are too many together.
    #[test]
    fn too_many_values_are_left_out_whoever_counted_which() {
        let control = Control::new(Duration::from_secs(60), 64 << 20);
        let tally_of = |numbers: std::ops::Range<usize>| {
            let mut tally = Tally::new(2, 0);
            for number in numbers {
                let number = tally.number(Met::Int(number as i64), &control).unwrap();
                tally.count(number, 0);
                tally.bound(&control);
            }
            tally
        };
        for cut in [1, VALUES_MAX / 2, VALUES_MAX, VALUES_MAX + 1] {
            let mut merged = tally_of(0..cut);
            let other = tally_of(cut..VALUES_MAX + 1);
            merged.merge(&other, &control).unwrap();
            control.release(other.booked_bytes);
            assert!(merged.top(0, 10).is_empty(), "{cut}");
            assert_eq!(merged.totals.first(), Some(&(VALUES_MAX as u64 + 1)), "{cut}");
            control.release(merged.booked_bytes);
        }
        assert_eq!(control.used_bytes(), 0);
    }
}
