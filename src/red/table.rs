//! The series of some families with the same labels: a bounded number, found by their label values.

use super::Now;
use super::labels::{Labels, repaired};
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
    overflow: Option<Series<S>>,
    overflowed: u64,
}

impl<S> Table<S> {
    pub fn new(series_max: usize) -> Self {
        let (index, slots, free) = (HashMap::default(), Vec::new(), Vec::new());
        Self { index, slots, free, series_max, overflow: None, overflowed: 0 }
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
        let series = |values| Series { values, state: new(), is_overflow: false, born_millis, seen_millis: 0 };
        if self.index.len() >= self.series_max {
            self.overflowed += 1;
            self.overflow.get_or_insert_with(|| Series { is_overflow: true, ..series(Arc::default()) });
            return None;
        }
        let series = series(Arc::from(values));
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
        for (slot, place) in self.slots.iter_mut().enumerate() {
            if let Some(series) = place.take_if(|series| series.seen_millis < seen_since_millis) {
                self.index.remove(&series.values);
                self.free.push(slot);
            }
        }
        self.overflow.take_if(|series| series.seen_millis < seen_since_millis);
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
    fn values_that_read_the_same_are_one_series() {
        let mut table = Table::new(2);
        [&b"x\xff"[..], b"x\xfe", "x\u{fffd}".as_bytes()].iter().for_each(|text| add(&mut table, text, 0));
        assert_eq!(all(&table), [(values("x\u{fffd}".as_bytes()), 3, false)]);
    }
}
