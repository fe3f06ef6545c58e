//! Spans into series: the values that `by` names, as numbers of series.
//!
//! Per row there is no hashing: codes of a segment lead through a table to the series, and only a combination of codes
//! that the segment has not shown before is looked up by its values.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;

use crate::traceql::coded::Coded;
use crate::traceql::column::{Code, NIL};
use crate::traceql::control::{Control, Stopped};
use crate::traceql::keys::write_key;
use crate::traceql::value::Value;

/// Values of the fields of `by`, in its order; `None` is nil.
pub type Group = Box<[Option<Value>]>;

/// The series that were met, numbered from 0.
#[derive(Default)]
pub struct Grouping {
    numbers: HashMap<Box<[u8]>, u32, RandomState>,
    groups: Vec<Group>,
    key: Vec<u8>,
    booked_bytes: usize,
}

/// Scratch of [`Grouping::assign`].
#[derive(Default)]
pub struct Columns {
    codes: Vec<Vec<Code>>,
    table: Vec<u32>,
}

impl Columns {
    #[must_use]
    pub fn bytes(&self) -> usize {
        let codes: usize = self.codes.iter().map(|codes| codes.capacity() * size_of::<Code>()).sum();
        codes + self.table.capacity() * size_of::<u32>()
    }
}

/// Combinations of codes up to this go through a table of a number each (1 MiB); beyond it they are hashed.
const TABLE_MAX: usize = 1 << 18;

/// What a map of keys, and a vector of groups, hold besides the values.
const GROUP_OVERHEAD_BYTES: usize = 96;

/// No series yet.
const UNMET: u32 = u32::MAX;

impl Grouping {
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    #[must_use]
    pub fn booked_bytes(&self) -> usize {
        self.booked_bytes
    }

    /// # Errors
    /// The query needs too much memory.
    pub fn number(&mut self, group: Group, control: &Control) -> Result<u32, Stopped> {
        self.key.clear();
        group.iter().for_each(|value| write_key(value.as_ref(), &mut self.key));
        let next = self.groups.len() as u32;
        match self.numbers.entry(self.key.as_slice().into()) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(vacant) => {
                let bytes = 2 * self.key.len() + group.len() * size_of::<Value>() + GROUP_OVERHEAD_BYTES;
                self.booked_bytes += bytes;
                control.reserve(bytes)?;
                vacant.insert(next);
                self.groups.push(group);
                Ok(next)
            }
        }
    }

    /// The series of each of these rows; of none of the fields: one series.
    ///
    /// # Errors
    /// The query needs too much memory.
    pub fn assign(
        &mut self,
        fields: &[Option<&Coded>],
        rows: &[u16],
        columns: &mut Columns,
        control: &Control,
        series: &mut Vec<u32>,
    ) -> Result<(), Stopped> {
        series.clear();
        let Columns { codes, table } = columns;
        codes.resize_with(codes.len().max(fields.len()), Vec::new);
        let present: Vec<(usize, &Coded)> =
            fields.iter().enumerate().filter_map(|(position, field)| Some((position, (*field)?))).collect();
        for ((_, coded), codes) in present.iter().zip(codes.iter_mut()) {
            coded.gather(rows, codes);
        }
        let codes = &codes[..present.len()];
        let mut number = |code_of: &dyn Fn(usize) -> Code| {
            let mut group: Group = vec![None; fields.len()].into();
            for (index, (position, coded)) in present.iter().enumerate() {
                if let Some(value) = group.get_mut(*position) {
                    *value = coded.value(code_of(index));
                }
            }
            self.number(group, control)
        };
        let sizes: Vec<usize> = present.iter().map(|(_, coded)| coded.code_max() + 1).collect();
        let combinations = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        match (codes, &sizes[..], combinations) {
            ([], ..) => {
                let only = number(&|_| NIL)?;
                series.resize(rows.len(), only);
            }
            ([codes], [size], _) => {
                table.clear();
                table.resize(*size, UNMET);
                for code in codes {
                    let Some(known) = table.get_mut(usize::from(*code)) else { continue };
                    if *known == UNMET {
                        *known = number(&|_| *code)?;
                    }
                    series.push(*known);
                }
            }
            (_, _, Some(combinations @ ..=TABLE_MAX)) => {
                table.clear();
                table.resize(combinations, UNMET);
                for position in 0..rows.len() {
                    let code_of = |index: usize| code_at(codes, index, position);
                    let place = sizes
                        .iter()
                        .enumerate()
                        .fold(0, |place, (index, size)| place * size + usize::from(code_of(index)).min(size - 1));
                    let Some(known) = table.get_mut(place) else { continue };
                    if *known == UNMET {
                        *known = number(&code_of)?;
                    }
                    series.push(*known);
                }
            }
            _ => {
                let mut known: HashMap<u128, u32, RandomState> = HashMap::default();
                let mut last = (0, UNMET);
                for position in 0..rows.len() {
                    let code_of = |index: usize| code_at(codes, index, position);
                    // Grouping is by five fields at most: 80 bits.
                    let key = (0..present.len()).fold(0, |key, index| key << Code::BITS | u128::from(code_of(index)));
                    if last != (key, last.1) || last.1 == UNMET {
                        last = match known.get(&key) {
                            Some(known) => (key, *known),
                            None => (key, number(&code_of)?),
                        };
                        known.insert(key, last.1);
                    }
                    series.push(last.1);
                }
            }
        }
        Ok(())
    }
}

fn code_at(codes: &[Vec<Code>], field: usize, position: usize) -> Code {
    codes.get(field).and_then(|codes| codes.get(position)).copied().unwrap_or(NIL)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::traceql::column::{Codes, Dictionary};

    fn control() -> Control {
        Control::new(Duration::from_secs(60), 1 << 20)
    }

    /// A column of texts of which code `i` is text `i - 1`.
    fn column(texts: &[&str], codes: &[Code]) -> Coded {
        let mut dictionary = Dictionary::default();
        texts.iter().for_each(|text| dictionary.strings.push(text));
        Coded::listed(Arc::new(dictionary), Codes::Rows(codes.into()))
    }

    fn texts(grouping: &Grouping, series: &[u32]) -> Vec<String> {
        let text = |value: &Option<Value>| match value {
            Some(Value::String(text)) => text.to_string(),
            _ => "-".to_owned(),
        };
        series
            .iter()
            .map(|number| grouping.groups()[*number as usize].iter().map(text).collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn assign(grouping: &mut Grouping, fields: &[Option<&Coded>], rows: &[u16]) -> Vec<u32> {
        let mut series = Vec::new();
        grouping.assign(fields, rows, &mut Columns::default(), &control(), &mut series).unwrap();
        series
    }

    #[test]
    fn series_are_the_same_in_segments_with_other_codes() {
        let mut grouping = Grouping::default();
        let first = assign(&mut grouping, &[Some(&column(&["a", "b"], &[1, 2, 0, 1]))], &[0, 1, 2, 3]);
        let second = assign(&mut grouping, &[Some(&column(&["b", "c"], &[1, 2, 0]))], &[0, 1, 2]);
        assert_eq!(texts(&grouping, &first), ["a", "b", "-", "a"]);
        assert_eq!(texts(&grouping, &second), ["b", "c", "-"]);
        assert_eq!(grouping.groups().len(), 4);
    }

    #[test]
    fn only_the_wanted_rows_make_series() {
        let mut grouping = Grouping::default();
        let series = assign(&mut grouping, &[Some(&column(&["a", "b", "c"], &[1, 2, 3]))], &[2]);
        assert_eq!((texts(&grouping, &series), grouping.groups().len()), (vec!["c".to_owned()], 1));
    }

    #[test]
    fn several_fields_make_a_series_for_each_combination() {
        let (left, right) = (column(&["a", "b"], &[1, 1, 2, 0]), column(&["x", "y"], &[1, 2, 1, 2]));
        let mut grouping = Grouping::default();
        let series = assign(&mut grouping, &[Some(&left), None, Some(&right)], &[0, 1, 2, 3]);
        assert_eq!(texts(&grouping, &series), ["a - x", "a - y", "b - x", "- - y"]);
    }

    #[test]
    fn combinations_too_many_for_a_table_are_found_as_well() {
        let many: Vec<String> = (0..600).map(|number| format!("{number:03}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (left, right) = (column(&many, &[1, 600, 600, 1]), column(&many, &[600, 1, 1, 600]));
        let mut grouping = Grouping::default();
        let series = assign(&mut grouping, &[Some(&left), Some(&right)], &[0, 1, 2, 3]);
        assert_eq!(texts(&grouping, &series), ["000 599", "599 000", "599 000", "000 599"]);
        assert_eq!(grouping.groups().len(), 2);
    }

    #[test]
    fn groups_that_do_not_fit_end_the_query() {
        let control = Control::new(Duration::from_secs(60), 100);
        let mut grouping = Grouping::default();
        let column = column(&["a", "b"], &[1, 2]);
        let result = grouping.assign(&[Some(&column)], &[0, 1], &mut Columns::default(), &control, &mut Vec::new());
        assert_eq!(result, Err(Stopped::MemoryOver(100)));
    }
}
