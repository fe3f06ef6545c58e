//! The series of some families with the same labels: a bounded number, found by their label values.

use super::Now;
use super::labels::{Labels, repaired, split_first};
use std::collections::HashMap;
use std::sync::Arc;

/// A label set and its figures.
#[derive(Debug)]
pub struct Series<S> {
    pub values: Arc<[u8]>,
    pub state: S,
    pub is_overflow: bool,
    /// Unix time of the first addition.
    pub born_millis: u64,
    seen_millis: u64,
}

impl<S> Series<S> {
    /// Its labels: these names and values, and the resource it belongs to.
    pub fn labels<'a>(&self, names: &'a [String], values: &'a [u8], resource: (u32, &'a [u8])) -> Labels<'a> {
        Labels { names, values, is_overflow: self.is_overflow, resource, born_millis: self.born_millis }
    }
}

/// All label sets.
#[derive(Debug)]
pub struct Table<S> {
    /// By label values: where in `slots`.
    index: HashMap<Arc<[u8]>, usize, foldhash::fast::RandomState>,
    /// A series stays in its slot, so that a reader may pause between two of them. The overflow series has none.
    slots: Vec<Option<Series<S>>>,
    free: Vec<usize>,
    series_max: usize,
    /// Of one first value; each has an overflow series of its own.
    of_first_max: Option<usize>,
    of_first: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    overflow: Option<Series<S>>,
    overflowed: u64,
}

impl<S> Table<S> {
    pub fn new(series_max: usize) -> Self {
        Self::bounded(series_max, None)
    }

    /// With a bound besides for those series whose first value is the same.
    pub fn bounded(series_max: usize, of_first_max: Option<usize>) -> Self {
        Self {
            index: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            series_max,
            of_first_max,
            of_first: HashMap::default(),
            overflow: None,
            overflowed: 0,
        }
    }

    /// Adds to the series with these label values, which `new` makes if it is not known yet. With no room for another
    /// one: to the overflow series.
    #[inline]
    pub fn update(&mut self, values: &[u8], now: Now, new: impl Fn() -> S, update: impl FnOnce(&mut S)) {
        let slot = match self.index.get(values) {
            Some(slot) => Some(*slot),
            None => self.find_or_add(values, now, &new),
        };
        let series = match slot {
            Some(slot) => self.slots.get_mut(slot).and_then(Option::as_mut),
            None => self.overflow.as_mut(),
        };
        if let Some(series) = series {
            series.seen_millis = now.uptime_millis;
            update(&mut series.state);
        }
    }

    /// `None`: the overflow series.
    #[cold]
    fn find_or_add(&mut self, values: &[u8], now: Now, new: &dyn Fn() -> S) -> Option<usize> {
        let repaired = repaired(values);
        let values = repaired.as_deref().unwrap_or(values);
        if let Some(slot) = self.index.get(values) {
            return Some(*slot);
        }
        let born_millis = now.unix_millis;
        let series = |values, is_overflow| Series { values, state: new(), is_overflow, born_millis, seen_millis: 0 };
        if self.index.len() >= self.series_max {
            self.overflowed += 1;
            self.overflow.get_or_insert_with(|| series(Arc::default(), true));
            return None;
        }
        let mut series_of = (values, false);
        if let Some(max) = self.of_first_max {
            let first = first(values);
            let count = self.of_first.get(first).copied().unwrap_or(0);
            if count >= max {
                self.overflowed += 1;
                if let Some(slot) = self.index.get(first) {
                    return Some(*slot);
                }
                series_of = (first, true);
            } else {
                self.of_first.insert(first.into(), count + 1);
            }
        }
        let series = series(Arc::from(series_of.0), series_of.1);
        let values = Arc::clone(&series.values);
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(series);
        }
        self.index.insert(values, slot);
        Some(slot)
    }

    /// Removes series to which nothing was added since `seen_since_millis`.
    pub fn forget(&mut self, seen_since_millis: u64) {
        self.remove(|series| series.seen_millis < seen_since_millis);
        self.overflow.take_if(|series| series.seen_millis < seen_since_millis);
    }

    /// Removes series by their label values.
    pub fn retain(&mut self, stays: impl Fn(&[u8]) -> bool) {
        self.remove(|series| !stays(&series.values));
    }

    fn remove(&mut self, goes: impl Fn(&Series<S>) -> bool) {
        for (slot, place) in self.slots.iter_mut().enumerate() {
            if let Some(series) = place.take_if(|series| goes(series)) {
                self.index.remove(&series.values);
                self.free.push(slot);
                let first = first(&series.values);
                if let Some(count) = self.of_first.get_mut(first).filter(|_| !series.is_overflow) {
                    *count -= 1;
                    if *count == 0 {
                        self.of_first.remove(first);
                    }
                }
            }
        }
    }

    /// Slots to look at, the overflow series' included.
    pub fn slots(&self) -> usize {
        self.slots.len() + 1
    }

    pub fn get(&self, slot: usize) -> Option<&Series<S>> {
        if slot == self.slots.len() { self.overflow.as_ref() } else { self.slots.get(slot)?.as_ref() }
    }

    /// Series, without the overflow series.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Additions that went to the overflow series.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }
}

/// The first value, encoded.
fn first(values: &[u8]) -> &[u8] {
    let rest = split_first(values).map_or(0, |(_, rest)| rest.len());
    values.get(..values.len() - rest).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::labels::Builder;
    use super::*;

    fn values(text: &[u8]) -> Vec<u8> {
        let mut builder = Builder::default();
        builder.push(text);
        builder.values().to_vec()
    }

    fn add(table: &mut Table<u64>, text: &[u8], now: u64) {
        let now = Now { uptime_millis: now, unix_millis: now };
        table.update(&values(text), now, || 0, |count| *count += 1);
    }

    fn all(table: &Table<u64>) -> Vec<(Vec<u8>, u64, bool)> {
        let series = (0..table.slots()).filter_map(|slot| table.get(slot));
        series.map(|series| (series.values.to_vec(), series.state, series.is_overflow)).collect()
    }

    #[test]
    fn beyond_the_limit_everything_is_counted_in_one_series() {
        let mut table = Table::new(2);
        ["a", "b", "a", "c", "d", "b"].iter().for_each(|text| add(&mut table, text.as_bytes(), 0));
        let expected = [(values(b"a"), 2, false), (values(b"b"), 2, false), (Vec::new(), 2, true)];
        assert_eq!(all(&table), expected);
        assert_eq!((table.len(), table.overflowed()), (2, 2));
    }

    #[test]
    fn a_forgotten_series_makes_room_for_another() {
        let mut table = Table::new(2);
        add(&mut table, b"a", 10);
        add(&mut table, b"b", 20);
        add(&mut table, b"c", 20);
        table.forget(20);
        add(&mut table, b"d", 30);
        assert_eq!(all(&table), [(values(b"d"), 1, false), (values(b"b"), 1, false), (Vec::new(), 1, true)]);
        table.forget(31);
        assert_eq!(all(&table), []);
        add(&mut table, b"b", 40);
        assert_eq!(all(&table).len(), 1);
    }

    #[test]
    fn those_with_the_same_first_value_have_a_bound_and_an_overflow_series_of_their_own() {
        let two = |one: &str, other: &str| [values(one.as_bytes()), values(other.as_bytes())].concat();
        let mut table = Table::bounded(5, Some(2));
        let add = |table: &mut Table<u64>, one, other, now| {
            let now = Now { uptime_millis: now, unix_millis: now };
            table.update(&two(one, other), now, || 0, |count| *count += 1);
        };
        [("x", "a"), ("x", "b"), ("x", "c"), ("y", "a"), ("x", "d"), ("x", "a")]
            .iter()
            .for_each(|(one, other)| add(&mut table, one, other, 0));
        let expected =
            [(two("x", "a"), 2, false), (two("x", "b"), 1, false), (values(b"x"), 2, true), (two("y", "a"), 1, false)];
        assert_eq!(all(&table), expected);
        // What went makes room for others of its kind; with no room at all everything goes to one series.
        table.forget(1);
        [("x", "d"), ("x", "e"), ("x", "f"), ("y", "a"), ("z", "a"), ("w", "a")]
            .iter()
            .for_each(|(one, other)| add(&mut table, one, other, 2));
        assert_eq!((table.len(), table.overflowed()), (5, 4));
        assert_eq!(table.get(table.slots() - 1).map(|series| (series.values.len(), series.state)), Some((0, 1)));
    }

    #[test]
    fn values_that_read_the_same_are_one_series() {
        let mut table = Table::new(2);
        [&b"x\xff"[..], b"x\xfe", "x\u{fffd}".as_bytes()].iter().for_each(|text| add(&mut table, text, 0));
        assert_eq!(all(&table), [(values("x\u{fffd}".as_bytes()), 3, false)]);
    }
}
