//! The resources that series belong to, where series of different resources are kept apart.

use super::facts::attributes;
use super::labels::Builder;
use std::collections::HashMap;
use std::sync::Arc;

/// A larger resource is not kept: its series belong to the one without attributes.
const RESOURCE_BYTES_MAX: usize = 8 * 1024;

/// The resource without attributes, to which belongs what there was no room for.
pub const NAMELESS: u32 = 0;

/// A number among the values of a series, which must be UTF-8: seven bits a byte.
pub fn encode(number: u32) -> [u8; 4] {
    [0, 7, 14, 21].map(|shift| (number >> shift & 0x7f) as u8)
}

pub fn decode(encoded: &[u8]) -> Option<u32> {
    let bytes = <[u8; 4]>::try_from(encoded).ok()?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 7 | u32::from(*byte)))
}

/// A bounded number of resources. With no room for another, one that nothing came from for long goes, the longest first;
/// where all are in use, further ones have no name. So those that are there keep their counts, however many come.
#[derive(Debug, Default)]
pub struct Resources {
    /// What tells them apart; with none: all of their attributes.
    key_attributes: Vec<String>,
    resources_max: usize,
    /// After so long without a span a resource may go.
    idle_millis: u64,
    index: Index,
    /// A resource stays at its place; number 1 is the first.
    slots: Vec<Option<Known>>,
    overflowed: u64,
    evicted: u64,
    /// Numbers of those that went since somebody asked.
    just_evicted: Vec<u32>,
    /// Before, none has been idle for long enough.
    next_eviction_millis: u64,
    scratch: Vec<u8>,
    builder: Builder,
}

#[derive(Debug)]
struct Known {
    key: Arc<[u8]>,
    /// A Resource message: that of the first span.
    message: Arc<[u8]>,
    seen_millis: u64,
}

impl Resources {
    pub fn new(key_attributes: &[String], resources_max: usize, idle_millis: u64) -> Self {
        Self { key_attributes: key_attributes.to_vec(), resources_max, idle_millis, ..Self::default() }
    }

    /// The number of the resource of a ResourceSpans message.
    pub fn number_of(&mut self, resource_spans: &[u8], now_millis: u64) -> u32 {
        // A Resource that comes in pieces is one, as protobuf has it.
        self.scratch.clear();
        for message in crate::otlp::view::messages(resource_spans, 1) {
            self.scratch.extend_from_slice(message);
        }
        if self.scratch.len() > RESOURCE_BYTES_MAX {
            return NAMELESS;
        }
        let key = if self.key_attributes.is_empty() {
            self.scratch.as_slice()
        } else {
            self.builder.clear();
            for name in &self.key_attributes {
                let found = attributes(&self.scratch, 1).find(|(key, _)| *key == name.as_bytes());
                self.builder.push_with(|out| {
                    // Absent is not the same as empty.
                    out.push(u8::from(found.is_some()));
                    if let Some((_, Some(value))) = found {
                        value.write(out);
                    }
                });
            }
            self.builder.values()
        };
        let known = self.index.get(key).copied();
        if known.is_none() && self.index.len() >= self.resources_max && now_millis >= self.next_eviction_millis {
            let Self { index, slots, just_evicted, .. } = self;
            self.next_eviction_millis = evict(index, slots, just_evicted, now_millis, self.idle_millis);
            self.evicted += self.just_evicted.len() as u64;
        }
        let number = match known {
            Some(number) => number,
            None if self.index.len() >= self.resources_max => {
                if self.overflowed == 0 {
                    let resources_max = self.resources_max;
                    tracing::warn!(resources_max, "too many resources: the series of further ones have no resource");
                }
                self.overflowed += 1;
                return NAMELESS;
            }
            None => {
                let (key, message) = (Arc::<[u8]>::from(key), Arc::from(self.scratch.as_slice()));
                let place = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
                if place == self.slots.len() {
                    self.slots.push(None);
                }
                let number = u32::try_from(place + 1).unwrap_or(NAMELESS);
                if let Some(slot) = self.slots.get_mut(place) {
                    *slot = Some(Known { key: Arc::clone(&key), message, seen_millis: now_millis });
                }
                self.index.insert(key, number);
                number
            }
        };
        if let Some(Some(known)) = (number as usize).checked_sub(1).and_then(|place| self.slots.get_mut(place)) {
            known.seen_millis = now_millis;
        }
        number
    }

    /// Those that had to go since this was last asked: what is kept of them must go too.
    pub fn take_evicted(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.just_evicted)
    }

    /// How many had to go.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// How often a resource came for which there was no room.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// The Resource message of a number.
    pub fn message(&self, number: u32) -> &[u8] {
        let known = (number as usize).checked_sub(1).and_then(|place| self.slots.get(place)?.as_ref());
        known.map_or(&[], |known| &known.message)
    }

    /// Removes those of which nothing came since: their series have gone before.
    pub fn forget(&mut self, seen_since_millis: u64) {
        for slot in &mut self.slots {
            if let Some(known) = slot.take_if(|known| known.seen_millis < seen_since_millis) {
                self.index.remove(&known.key);
            }
        }
    }
}

type Index = HashMap<Arc<[u8]>, u32, foldhash::fast::RandomState>;

/// Takes out the resources that have been idle for the longest, a tenth of all at most, since each time costs a walk over
/// all series; their numbers go to `evicted`. When to look again.
fn evict(
    index: &mut Index,
    slots: &mut [Option<Known>],
    evicted: &mut Vec<u32>,
    now_millis: u64,
    idle_millis: u64,
) -> u64 {
    const SHARE: usize = 10;
    let seen = |slot: &Option<Known>| slot.as_ref().map(|known| known.seen_millis);
    let mut idle: Vec<(u64, usize)> =
        slots.iter().enumerate().filter_map(|(place, slot)| Some((seen(slot)?, place))).collect();
    idle.sort_unstable();
    let goes = |(seen, _): &&(u64, usize)| seen.saturating_add(idle_millis) <= now_millis;
    let gone = idle.iter().take_while(goes).take(slots.len().div_ceil(SHARE)).count();
    for (_, place) in idle.iter().take(gone) {
        if let Some(known) = slots.get_mut(*place).and_then(Option::take) {
            index.remove(&known.key);
            evicted.extend(u32::try_from(place + 1));
        }
    }
    idle.get(gone).map_or(now_millis, |(seen, _)| seen.saturating_add(idle_millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::red::tests::of;

    const IDLE: u64 = 100;

    fn number(resources: &mut Resources, pairs: &[(&str, &str)]) -> u32 {
        number_at(resources, pairs, 5)
    }

    fn number_at(resources: &mut Resources, pairs: &[(&str, &str)], now_millis: u64) -> u32 {
        let request = of(pairs, Vec::new());
        let resource_spans = crate::otlp::view::messages(&request, 1).next().unwrap();
        resources.number_of(resource_spans, now_millis)
    }

    #[test]
    fn numbers_come_back_from_what_is_valid_text() {
        for number in [0, 1, 127, 128, 200, 99_999, (1 << 28) - 1] {
            assert!(std::str::from_utf8(&encode(number)).is_ok());
            assert_eq!(decode(&encode(number)), Some(number));
        }
    }

    #[test]
    fn resources_are_told_apart_by_all_attributes_or_by_the_chosen_ones() {
        let (one, other) = ([("service.name", "a"), ("pod", "1")], [("service.name", "a"), ("pod", "2")]);
        let mut all = Resources::new(&[], 10, IDLE);
        assert_eq!([&one, &other, &one].map(|it| number(&mut all, it)), [1, 2, 1]);
        let mut chosen = Resources::new(&["service.name".to_owned()], 10, IDLE);
        assert_eq!([&one, &other].map(|it| number(&mut chosen, it)), [1, 1]);
        assert_eq!(number(&mut chosen, &[("pod", "1")]), 2);
        assert_eq!(number(&mut chosen, &[("service.name", "")]), 3);
    }

    #[test]
    fn beyond_the_bound_they_have_no_name_and_one_that_goes_makes_room() {
        let mut resources = Resources::new(&[], 1, IDLE);
        assert_eq!(number(&mut resources, &[("service.name", "a")]), 1);
        assert_eq!(number(&mut resources, &[("service.name", "b")]), NAMELESS);
        assert!(resources.message(NAMELESS).is_empty() && !resources.message(1).is_empty());
        assert_eq!(resources.overflowed(), 1);
        resources.forget(6);
        assert_eq!(number(&mut resources, &[("service.name", "b")]), 1);
    }

    #[test]
    fn those_that_were_idle_for_longest_make_room_and_those_in_use_never() {
        let mut resources = Resources::new(&[], 2, IDLE);
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| [("service.name", name)]);
        assert_eq!([number_at(&mut resources, &a, 0), number_at(&mut resources, &b, 50)], [1, 2]);
        assert_eq!(number_at(&mut resources, &c, IDLE - 1), NAMELESS);
        assert_eq!(number_at(&mut resources, &c, IDLE), 1);
        assert_eq!((resources.take_evicted(), resources.evicted(), resources.overflowed()), (vec![1], 1, 1));
        assert_eq!(number_at(&mut resources, &b, IDLE), 2);
        // Both are in use now.
        assert_eq!(number_at(&mut resources, &d, 2 * IDLE - 1), NAMELESS);
        assert_eq!((number_at(&mut resources, &d, 2 * IDLE), resources.take_evicted()), (1, vec![1]));
        assert!(resources.take_evicted().is_empty());
    }
}
