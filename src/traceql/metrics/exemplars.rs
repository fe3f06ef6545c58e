//! A few spans that stand for many: spread over time, one for each trace.
//!
//! Which ones is decided by the trace's fingerprint alone, so that it does not matter in which order, or by how many
//! threads, segments are folded.

use std::collections::HashSet;
use std::rc::Rc;

use super::intervals::Intervals;
use crate::otlp::TraceId;
use crate::traceql::ast::{Field, Intrinsic};
use crate::traceql::coded;
use crate::traceql::reader::{Reader, Scan};
use crate::traceql::segment::SegmentError;
use crate::traceql::value::Value;

/// A span chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    pub trace: TraceId,
    pub series: u32,
    /// Unix nanoseconds.
    pub start: u64,
    /// NaN: that of the series at this time.
    pub value: f64,
    /// `None` until the segment is done.
    pub labels: Option<Vec<(String, Option<Value>)>>,
    /// The row in the segment that is being folded.
    pub row: u16,
}

/// The time range in slots, each with the best of its spans.
pub struct Exemplars {
    slots: Vec<Vec<Chosen>>,
    max: usize,
    from: u64,
    /// Nanoseconds, not 0.
    slot_width: u64,
}

/// Of one slot of time, at most.
const PER_SLOT: usize = 2;

impl Exemplars {
    /// At most `max` in all; 0: none.
    #[must_use]
    pub fn new(max: usize, intervals: &Intervals) -> Self {
        let slots = if max == 0 { 0 } else { (max / PER_SLOT).max(1) };
        let range = intervals.to - intervals.from.min(intervals.to);
        Self {
            slots: vec![Vec::new(); slots],
            max,
            from: intervals.from,
            slot_width: (range / slots.max(1) as u64).max(1),
        }
    }

    #[must_use]
    pub fn is_off(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether a span of this trace and time would be chosen, as things stand.
    #[must_use]
    pub fn wants(&self, trace: TraceId, start: u64) -> bool {
        let Some(slot) = self.slots.get(self.slot(start)) else { return false };
        slot.len() < PER_SLOT || slot.last().is_some_and(|last| rank(trace) < rank(last.trace))
    }

    /// The greatest fingerprint with which a trace could still be chosen, of spans that start between these times.
    #[must_use]
    pub fn bar(&self, from: u64, to: u64) -> u32 {
        let slots = self.slots.get(self.slot(from)..=self.slot(to)).unwrap_or_default();
        let bar = |slot: &Vec<Chosen>| match slot.last() {
            Some(last) if slot.len() == PER_SLOT => last.trace.fingerprint(),
            _ => u32::MAX,
        };
        slots.iter().map(bar).max().unwrap_or(0)
    }

    pub fn offer(&mut self, chosen: Chosen) {
        let index = self.slot(chosen.start);
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.iter().any(|known| known.trace == chosen.trace && known.start <= chosen.start) {
            return;
        }
        slot.retain(|known| known.trace != chosen.trace);
        slot.push(chosen);
        slot.sort_by_key(|chosen| rank(chosen.trace));
        slot.truncate(PER_SLOT);
    }

    /// Forgets spans of a segment that could not be read to its end: what they are shown with is not known.
    pub fn forget_without_labels(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.retain(|chosen| chosen.labels.is_some()));
    }

    /// Those of the segment that was just folded: they have no labels yet.
    pub fn without_labels(&mut self) -> impl Iterator<Item = &mut Chosen> {
        self.slots.iter_mut().flatten().filter(|chosen| chosen.labels.is_none())
    }

    /// Adds what another thread chose; its series `i` is `numbers[i]` here.
    pub fn merge(&mut self, other: Self, numbers: &[u32]) {
        for mut chosen in other.slots.into_iter().flatten() {
            if let Some(number) = numbers.get(chosen.series as usize) {
                chosen.series = *number;
                self.offer(chosen);
            }
        }
    }

    /// One for each trace, by time.
    #[must_use]
    pub fn chosen(&self) -> Vec<&Chosen> {
        let mut all: Vec<&Chosen> = self.slots.iter().flatten().collect();
        all.sort_by_key(|chosen| (rank(chosen.trace), chosen.start));
        let mut seen = HashSet::new();
        all.retain(|chosen| seen.insert(chosen.trace));
        all.truncate(self.max);
        all.sort_by_key(|chosen| (chosen.start, chosen.trace));
        all
    }

    fn slot(&self, start: u64) -> usize {
        let slot = start.saturating_sub(self.from) / self.slot_width;
        (slot as usize).min(self.slots.len().saturating_sub(1))
    }
}

/// Of each trace with some of these rows (ascending), one by its fingerprint: calls `visit` with the trace and the position
/// of the row among `rows`. Traces whose fingerprint is above the bar are passed over; `visit` returns the bar from then on.
///
/// # Errors
/// The segment could not be read, or those of `visit`.
pub fn visit_traces(
    reader: &Reader,
    rows: &[u16],
    mut bar: u32,
    mut visit: impl FnMut(TraceId, usize) -> Result<u32, SegmentError>,
) -> Result<(), SegmentError> {
    let traces = reader.traces()?;
    let mut first = 0;
    for (trace, id) in traces.ids.iter().enumerate() {
        let fingerprint = id.fingerprint();
        if fingerprint > bar {
            continue;
        }
        let of_trace = traces.rows(trace);
        first += count_below(rows.get(first..).unwrap_or_default(), of_trace.start);
        let count = count_below(rows.get(first..).unwrap_or_default(), of_trace.end);
        if let Some(place) = (fingerprint as usize).checked_rem(count) {
            bar = visit(*id, first + place)?;
        }
        first += count;
    }
    Ok(())
}

/// How many of these rows (ascending) are below one. Few mostly: in steps that double, then among those between the last two.
fn count_below(rows: &[u16], below: usize) -> usize {
    let is_below = |row: &u16| usize::from(*row) < below;
    let mut steps = 1;
    while rows.get(steps - 1).is_some_and(is_below) {
        steps *= 2;
    }
    let known = steps / 2;
    let between = rows.get(known..steps.min(rows.len())).unwrap_or_default();
    known + between.partition_point(is_below)
}

/// Gives spans of a segment the labels that they are shown with: the fields of the query, and their trace.
///
/// # Errors
/// The segment could not be read.
pub fn label<'a>(
    chosen: impl Iterator<Item = &'a mut Chosen>,
    shown: &[Field],
    scan: &Scan<'_>,
    reader: &Rc<Reader>,
) -> Result<(), SegmentError> {
    let mut chosen: Vec<&mut Chosen> = chosen.collect();
    if chosen.is_empty() {
        return Ok(());
    }
    chosen.sort_by_key(|chosen| chosen.row);
    let rows: Vec<u16> = chosen.iter().map(|chosen| chosen.row).collect();
    for field in shown.iter().filter(|field| **field != TRACE_ID) {
        let Some(coded) = coded::read(field, scan, reader, &rows)? else { continue };
        for chosen in &mut chosen {
            if let Some(value) = coded.value(coded.codes().get(usize::from(chosen.row))) {
                chosen.labels.get_or_insert_default().push((field.to_string(), Some(value)));
            }
        }
    }
    for chosen in chosen {
        let id = Value::String(chosen.trace.to_string().into());
        chosen.labels.get_or_insert_default().push((TRACE_ID.to_string(), Some(id)));
    }
    Ok(())
}

const TRACE_ID: Field = Field::Intrinsic(Intrinsic::TraceId);

fn rank(trace: TraceId) -> (u32, TraceId) {
    (trace.fingerprint(), trace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traceql::request::RangeRequest;

    fn exemplars(max: usize) -> Exemplars {
        let request = RangeRequest { start: 100, end: 1000, step: 100, exemplars: max, series_max: 0 };
        Exemplars::new(max, &Intervals::of_range(&request))
    }

    fn chosen(trace: u128, start: u64) -> Chosen {
        Chosen { trace: TraceId(trace.to_be_bytes()), series: 0, start, value: 1.0, labels: None, row: 0 }
    }

    #[test]
    fn they_are_spread_over_time_and_bounded() {
        let mut exemplars = exemplars(10);
        (1..=1000).for_each(|id| exemplars.offer(chosen(id, id as u64)));
        let starts: Vec<u64> = exemplars.chosen().iter().map(|chosen| chosen.start).collect();
        assert_eq!(starts.len(), 10);
        assert!(starts.chunks(2).enumerate().all(|(slot, of_slot)| {
            of_slot.iter().all(|start| (slot as u64 * 200..=(slot as u64 + 1) * 200).contains(start))
        }));
    }

    #[test]
    fn the_order_of_offers_does_not_matter() {
        let mut forwards = exemplars(7);
        let mut backwards = exemplars(7);
        (1..=300).for_each(|id| forwards.offer(chosen(id % 90 + 1, id as u64 * 3)));
        (1..=300).rev().for_each(|id| backwards.offer(chosen(id % 90 + 1, id as u64 * 3)));
        assert_eq!(forwards.chosen(), backwards.chosen());
    }

    #[test]
    fn a_trace_has_one() {
        let mut exemplars = exemplars(10);
        (1..=10).for_each(|time| exemplars.offer(chosen(5, time * 100)));
        assert_eq!(exemplars.chosen().len(), 1);
    }

    #[test]
    fn none_are_wanted_when_they_are_off() {
        let mut exemplars = exemplars(0);
        assert!(exemplars.is_off() && !exemplars.wants(TraceId([1; 16]), 100));
        exemplars.offer(chosen(1, 100));
        assert!(exemplars.chosen().is_empty());
    }
}
