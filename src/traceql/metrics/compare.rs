//! `compare()`: how often each value of each attribute is met inside a selection of spans, and how often outside.
//!
//! Counts are kept for each attribute and value, by side and interval. Memory is bounded by leaving out values that are rare
//! in a segment where there are many, and all values of an attribute of which there are still too many. Both are decided
//! by what lies in segments and in all of them together, so that the answer is the same whichever thread took which.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::exemplars::{self, Chosen, Exemplars};
use super::intervals::Intervals;
use super::lines::{Line, Mark};
use super::rows::{Matching, Selected};
use crate::traceql::ast::{Attribute, Field, Intrinsic, Scope};
use crate::traceql::coded::{self, Coded, Met};
use crate::traceql::column::{Code, Codes, GroupsOfRows, NIL};
use crate::traceql::control::{Control, Stopped};
use crate::traceql::keys;
use crate::traceql::reader::{Reader, Scan};
use crate::traceql::segment::{Column, SegmentError};
use crate::traceql::value::Value;

/// What is compared.
pub struct Plan {
    /// Values of an attribute that are answered for each side.
    pub top: usize,
    /// Only spans that start after the first and until the second can be selected. Unix nanoseconds.
    pub window: Option<(u64, u64)>,
    pub shown: Vec<Field>,
    pub intervals: Intervals,
    pub exemplars: usize,
}

pub struct Comparison<'q> {
    plan: &'q Plan,
    /// Cells of a line: intervals of the baseline, then of the selection.
    width: usize,
    attributes: HashMap<Field, Tally>,
    baseline_exemplars: Exemplars,
    selection_exemplars: Exemplars,
}

/// Counts for one attribute.
struct Tally {
    numbers: HashMap<Box<[u8]>, u32, RandomState>,
    /// Scratch for the key of a value.
    key: Vec<u8>,
    values: Vec<Value>,
    /// By value, then cell.
    counts: Vec<u64>,
    /// By cell: values of any kind, those left out included.
    totals: Vec<u64>,
    /// Spans whose values were to be looked at one by one.
    lookups: usize,
    /// There are more than [`VALUES_MAX`] values: none is kept.
    has_too_many: bool,
    booked_bytes: usize,
}

/// Scratch that is used again for each segment.
#[derive(Default)]
pub struct Scratch {
    /// The cell of each row.
    cells: Vec<u32>,
    /// Rows by code, or resource or scope, then cell.
    counted: Vec<u32>,
    counted_of: Option<GroupsOfRows>,
    /// By code: the number of its value.
    numbers: Vec<u32>,
    /// By code: the spans of each side.
    sides: Vec<[u32; 2]>,
    /// By code: whether the value is left out. Empty if none is.
    rare: Vec<bool>,
}

/// In place of the number of a value: not asked for yet.
const UNASKED: u32 = u32::MAX;
/// The code stands for none or several values, or for one that is left out.
const NOT_ONE: u32 = u32::MAX - 1;

/// Distinct values of an attribute that are counted. Of one with more none is answered.
const VALUES_MAX: usize = 4096;

/// Distinct values of an attribute in a segment up to which all are counted. Where there are more, only those are that at
/// least two spans of one side have there, and one of [`COMMON_AMONG`].
const SEGMENT_VALUES_MAX: usize = 256;
const COMMON_AMONG: u64 = 512;

/// Spans, of a query and by one thread, whose values of an attribute are looked at one by one where there is no dictionary.
const UNLISTED_LOOKUPS_MAX: usize = 256;

/// Counts by code and cell that are made before values are looked at, at most (1 MiB).
const COUNTED_MAX: usize = 1 << 18;

const VALUE_OVERHEAD_BYTES: usize = 96;

const TYPE_LABEL: &str = "__meta_type";

/// Attributes of events and links are not compared, as in Tempo: they are of parts of a span.
const SCOPES: [Scope; 3] = [Scope::Span, Scope::Resource, Scope::Instrumentation];

/// Intrinsics that tell something when their values are counted: no ids, times and numbers of nested sets.
const INTRINSICS: [Intrinsic; 8] = [
    Intrinsic::Name,
    Intrinsic::Status,
    Intrinsic::StatusMessage,
    Intrinsic::Kind,
    Intrinsic::RootName,
    Intrinsic::RootServiceName,
    Intrinsic::InstrumentationName,
    Intrinsic::InstrumentationVersion,
];

impl<'q> Comparison<'q> {
    #[must_use]
    pub fn new(plan: &'q Plan) -> Self {
        Self {
            plan,
            width: plan.intervals.count() * 2,
            attributes: HashMap::new(),
            baseline_exemplars: Exemplars::new(plan.exemplars, &plan.intervals),
            selection_exemplars: Exemplars::new(plan.exemplars, &plan.intervals),
        }
    }

    /// Adds the spans of a segment; `selection` are those that match the selection's filter.
    ///
    /// # Errors
    /// The segment could not be read, or the query is to end.
    pub fn add(
        &mut self,
        (scan, reader): (&Scan<'_>, &Rc<Reader>),
        selected: &Selected,
        selection: &Matching,
        scratch: &mut Scratch,
        control: &Control,
    ) -> Result<(), SegmentError> {
        if selected.rows.is_empty() {
            return Ok(());
        }
        self.place(reader, selected, selection, &mut scratch.cells)?;
        scratch.counted_of = None;
        for scope in SCOPES {
            for name in reader.segment().names(scope)?.iter() {
                let attribute = Attribute { scope: Some(scope), of_parent: false, name: name.to_string() };
                let remembered = reader.remembered();
                self.add_field(Field::Attribute(attribute), (scan, reader), &selected.rows, scratch, control)?;
                reader.forget_since(remembered);
                scan.check()?;
            }
        }
        for intrinsic in INTRINSICS {
            self.add_field(Field::Intrinsic(intrinsic), (scan, reader), &selected.rows, scratch, control)?;
        }
        self.choose(scan, reader, selected, &scratch.cells)
    }

    /// Adds what another thread counted.
    ///
    /// # Errors
    /// The query needs too much memory.
    pub fn merge(&mut self, other: Self, control: &Control) -> Result<(), Stopped> {
        for (field, tally) in other.attributes {
            let width = self.width;
            self.tally(field, control)?.merge(&tally, width, control)?;
            control.release(tally.booked_bytes);
        }
        self.baseline_exemplars.merge(other.baseline_exemplars, &[0]);
        self.selection_exemplars.merge(other.selection_exemplars, &[0]);
        Ok(())
    }

    /// How many [`Comparison::lines`] there are, at most.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.attributes.values().map(|tally| 2 * (tally.values.len().min(self.plan.top) + 1)).sum()
    }

    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let sides = [
            ("baseline", "baseline_total", &self.baseline_exemplars),
            ("selection", "selection_total", &self.selection_exemplars),
        ];
        for (side, (values_label, total_label, exemplars)) in sides.into_iter().enumerate() {
            let marks: Vec<Mark> = exemplars
                .chosen()
                .into_iter()
                .map(|chosen| Mark {
                    labels: chosen.labels.clone().unwrap_or_default(),
                    start: chosen.start,
                    value: f64::NAN,
                })
                .collect();
            for (field, tally) in &self.attributes {
                let name = field.to_string();
                let labels = |label: &str, value: Option<Value>| {
                    vec![(TYPE_LABEL.to_owned(), Some(Value::String(label.into()))), (name.clone(), value)]
                };
                let totals = tally.totals.chunks(self.width / 2).nth(side).unwrap_or_default();
                if totals.iter().all(|total| *total == 0) {
                    continue;
                }
                lines.push(Line {
                    labels: labels(total_label, None),
                    numbers: numbers(totals),
                    exemplars: marks
                        .iter()
                        .filter(|mark| mark.labels.iter().any(|label| label.0 == name))
                        .cloned()
                        .collect(),
                });
                for (value, counts) in tally.top(side, self.plan.top, self.width) {
                    let labels = labels(values_label, Some(value.clone()));
                    lines.push(Line { labels, numbers: numbers(counts), exemplars: Vec::new() });
                }
            }
        }
        lines
    }

    /// The cell of each row: its side and interval.
    fn place(
        &self,
        reader: &Rc<Reader>,
        selected: &Selected,
        selection: &Matching,
        cells: &mut Vec<u32>,
    ) -> Result<(), SegmentError> {
        let starts = reader.starts()?;
        let half = (self.width / 2) as u32;
        let in_window = |row: usize| match (self.plan.window, starts.get(row)) {
            (Some((after, until)), Some(start)) => *start > after && *start <= until,
            _ => true,
        };
        cells.clear();
        cells.extend(selected.rows.iter().zip(&selected.intervals).map(|(row, interval)| {
            let row = usize::from(*row);
            let matches = match selection {
                Matching::All => true,
                Matching::Rows(mask) => mask.get(row),
            };
            if matches && in_window(row) { interval + half } else { *interval }
        }));
        Ok(())
    }

    fn add_field(
        &mut self,
        field: Field,
        (scan, reader): (&Scan<'_>, &Rc<Reader>),
        rows: &[u16],
        scratch: &mut Scratch,
        control: &Control,
    ) -> Result<(), SegmentError> {
        let width = self.width;
        // Of a column in which none of these spans has a value nothing else is read.
        if matches!(field, Field::Attribute(_))
            && let Codes::Rows(codes) = reader.codes(&field)?
            && !codes.is_empty()
            && rows.iter().all(|row| codes.get(usize::from(*row)).is_none_or(|code| *code == NIL))
        {
            return Ok(());
        }
        if let Some(sketches) = unlisted(&field, reader)? {
            let tally = self.tally(field.clone(), control)?;
            tally.lookups = tally.lookups.saturating_add(rows.len());
            if tally.is_unlisted() {
                for (row, cell) in rows.iter().zip(&scratch.cells) {
                    let present = sketches.get(usize::from(*row)).is_some_and(|sketch| *sketch != 0);
                    tally.count_total(*cell as usize, u64::from(present));
                }
                return Ok(());
            }
        }
        let Some(coded) = coded::read(&field, scan, reader, rows)? else { return Ok(()) };
        scratch.find_rare(&coded, rows, width / 2);
        let tally = self.tally(field, control)?;
        let of_groups = match coded.codes() {
            Codes::Rows(_) => None,
            Codes::Groups { codes, .. } => Some(codes),
        };
        let count = match of_groups {
            Some(codes) => codes.len(),
            None => coded.code_max() + 1,
        };
        if count.saturating_mul(width) <= COUNTED_MAX {
            scratch.count(coded.codes(), rows, count * width, width);
            for (index, counts) in scratch.counted.chunks(width).enumerate() {
                let code = of_groups.map_or(index as Code, |codes| codes.get(index).copied().unwrap_or(NIL));
                if counts.iter().any(|count| *count > 0) {
                    tally.add((&coded, code, scratch.is_rare(code)), counts, width, control)?;
                }
            }
        } else {
            tally.add_rows(&coded, rows, scratch, width, control)?;
        }
        tally.bound(control);
        Ok(())
    }

    fn tally(&mut self, field: Field, control: &Control) -> Result<&mut Tally, Stopped> {
        Ok(match self.attributes.entry(field) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let bytes = self.width * size_of::<u64>() + VALUE_OVERHEAD_BYTES;
                control.reserve(bytes)?;
                vacant.insert(Tally::new(self.width, bytes))
            }
        })
    }

    fn choose(
        &mut self,
        scan: &Scan<'_>,
        reader: &Rc<Reader>,
        selected: &Selected,
        cells: &[u32],
    ) -> Result<(), SegmentError> {
        if self.baseline_exemplars.is_off() {
            return Ok(());
        }
        let (times, starts) = (reader.segment().times(), reader.starts()?);
        let half = self.width / 2;
        let (baseline, selection) = (&mut self.baseline_exemplars, &mut self.selection_exemplars);
        baseline.forget_without_labels();
        selection.forget_without_labels();
        let bar = |one: &Exemplars, other: &Exemplars| {
            one.bar(times.min_start, times.max_start).max(other.bar(times.min_start, times.max_start))
        };
        exemplars::visit_traces(reader, &selected.rows, bar(baseline, selection), |trace, position| {
            if let (Some(row), Some(cell)) = (selected.rows.get(position), cells.get(position)) {
                let start = starts.get(usize::from(*row)).copied().unwrap_or(0);
                let side = if *cell as usize >= half { &mut *selection } else { &mut *baseline };
                if side.wants(trace, start) {
                    side.offer(Chosen { trace, series: 0, start, value: f64::NAN, labels: None, row: *row });
                }
            }
            Ok(bar(baseline, selection))
        })?;
        let chosen = self.baseline_exemplars.without_labels().chain(self.selection_exemplars.without_labels());
        exemplars::label(chosen, &self.plan.shown, scan, reader)
    }
}

impl Tally {
    fn new(width: usize, booked_bytes: usize) -> Self {
        Self {
            numbers: HashMap::default(),
            key: Vec::new(),
            values: Vec::new(),
            counts: Vec::new(),
            totals: vec![0; width],
            lookups: 0,
            has_too_many: false,
            booked_bytes,
        }
    }

    /// Values of some spans could not be told apart at a reasonable price: none are answered.
    fn is_unlisted(&self) -> bool {
        self.lookups > UNLISTED_LOOKUPS_MAX
    }

    /// Adds spans that have a value, counted by cell; to the totals alone if it is rare.
    fn add(
        &mut self,
        (coded, code, is_rare): (&Coded, Code, bool),
        counts: &[u32],
        width: usize,
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
            match self.number(met, width, control) {
                Ok(number) => {
                    let own = self.counts.iter_mut().skip(number as usize * width);
                    own.zip(counts).for_each(|(own, count)| *own += u64::from(*count));
                }
                Err(stopped) => result = Err(stopped),
            }
        });
        result
    }

    /// Adds spans one by one, where there are too many codes and cells to count by both.
    fn add_rows(
        &mut self,
        coded: &Coded,
        rows: &[u16],
        scratch: &mut Scratch,
        width: usize,
        control: &Control,
    ) -> Result<(), Stopped> {
        scratch.numbers.clear();
        scratch.numbers.resize(coded.code_max() + 1, UNASKED);
        for (row, cell) in rows.iter().zip(&scratch.cells) {
            let code = coded.codes().get(usize::from(*row));
            let is_left_out = self.has_too_many || scratch.is_rare(code);
            let Some(number) = scratch.numbers.get_mut(usize::from(code)) else { continue };
            if *number == UNASKED {
                let only = if is_left_out { None } else { self.only_number(coded, code, width, control)? };
                *number = only.unwrap_or(NOT_ONE);
            }
            if *number == NOT_ONE {
                let mut result = Ok(());
                coded.each(code, |met| {
                    if is_left_out {
                        return self.count_total(*cell as usize, 1);
                    }
                    match self.number(met, width, control) {
                        Ok(number) => self.count(number, *cell as usize, width),
                        Err(stopped) => result = Err(stopped),
                    }
                });
                result?;
            } else {
                self.count(*number, *cell as usize, width);
            }
        }
        Ok(())
    }

    /// The number of the value of a code, if it stands for one.
    fn only_number(
        &mut self,
        coded: &Coded,
        code: Code,
        width: usize,
        control: &Control,
    ) -> Result<Option<u32>, Stopped> {
        let (mut met, mut number) = (0, Ok(0));
        coded.each(code, |value| {
            met += 1;
            if met == 1 {
                number = self.number(value, width, control);
            }
        });
        number.map(|number| (met == 1).then_some(number))
    }

    fn count(&mut self, number: u32, cell: usize, width: usize) {
        if let Some(own) = self.counts.get_mut(number as usize * width + cell) {
            *own += 1;
        }
        self.count_total(cell, 1);
    }

    fn merge(&mut self, other: &Self, width: usize, control: &Control) -> Result<(), Stopped> {
        self.lookups = self.lookups.saturating_add(other.lookups);
        self.totals.iter_mut().zip(&other.totals).for_each(|(total, other)| *total += other);
        if other.has_too_many {
            self.forget_values(control);
        }
        if self.has_too_many {
            return Ok(());
        }
        for (value, counts) in other.values.iter().zip(other.counts.chunks(width)) {
            let number = self.number(Met::Value(value), width, control)?;
            let own = self.counts.iter_mut().skip(number as usize * width);
            own.zip(counts).for_each(|(count, other)| *count += other);
        }
        self.bound(control);
        Ok(())
    }

    fn number(&mut self, met: Met<'_>, width: usize, control: &Control) -> Result<u32, Stopped> {
        self.key.clear();
        met.write_key(&mut self.key);
        if let Some(known) = self.numbers.get(self.key.as_slice()) {
            return Ok(*known);
        }
        let bytes = booked_for(self.key.len(), width);
        control.reserve(bytes)?;
        self.booked_bytes += bytes;
        let number = self.values.len() as u32;
        self.numbers.insert(self.key.as_slice().into(), number);
        self.values.push(met.into_value());
        self.counts.resize(self.counts.len() + width, 0);
        Ok(number)
    }

    fn count_total(&mut self, cell: usize, spans: u64) {
        if let Some(total) = self.totals.get_mut(cell) {
            *total += spans;
        }
    }

    fn bound(&mut self, control: &Control) {
        if self.values.len() > VALUES_MAX {
            self.forget_values(control);
        }
    }

    /// Leaves out all values, now and later, and their memory.
    fn forget_values(&mut self, control: &Control) {
        self.has_too_many = true;
        let width = self.totals.len();
        let freed = self.numbers.keys().map(|key| booked_for(key.len(), width)).sum();
        (self.numbers, self.values, self.counts) = Default::default();
        self.booked_bytes = self.booked_bytes.saturating_sub(freed);
        control.release(freed);
    }

    /// The most frequent values of a side, with a count for each interval.
    fn top(&self, side: usize, top: usize, width: usize) -> Vec<(&Value, &[u64])> {
        if self.is_unlisted() {
            return Vec::new();
        }
        let sides = self.values.iter().zip(self.counts.chunks(width));
        let of_side = sides.map(|(value, counts)| (value, counts.chunks(width / 2).nth(side).unwrap_or_default()));
        let mut met: Vec<(u64, &Value, &[u64])> =
            of_side.map(|(value, counts)| (counts.iter().sum(), value, counts)).filter(|(sum, ..)| *sum > 0).collect();
        met.sort_by(|(left, left_value, _), (right, right_value, _)| {
            Reverse(left).cmp(&Reverse(right)).then_with(|| keys::compare(Some(left_value), Some(right_value)))
        });
        met.truncate(top);
        met.into_iter().map(|(_, value, counts)| (value, counts)).collect()
    }
}

impl Scratch {
    /// Which values of a column are left out; never those of resources and scopes, which are few.
    fn find_rare(&mut self, coded: &Coded, rows: &[u16], half: usize) {
        self.rare.clear();
        let Codes::Rows(codes) = coded.codes() else { return };
        if coded.code_max() <= SEGMENT_VALUES_MAX {
            return;
        }
        self.sides.clear();
        self.sides.resize(coded.code_max() + 1, [0; 2]);
        let mut totals = [0_u64; 2];
        for (row, cell) in rows.iter().zip(&self.cells) {
            let code = codes.get(usize::from(*row)).copied().unwrap_or(NIL);
            let side = usize::from(*cell as usize >= half);
            if code != NIL
                && let (Some(count), Some(total)) =
                    (self.sides.get_mut(usize::from(code)).and_then(|sides| sides.get_mut(side)), totals.get_mut(side))
            {
                *count += 1;
                *total += 1;
            }
        }
        let is_met = |sides: &&[u32; 2]| sides.iter().any(|count| *count > 0);
        if self.sides.iter().filter(is_met).count() <= SEGMENT_VALUES_MAX {
            return;
        }
        let is_common = |count: u32, total: u64| count >= 2 && u64::from(count) * COMMON_AMONG >= total;
        let is_rare = |sides: &[u32; 2]| !sides.iter().zip(totals).any(|(count, total)| is_common(*count, total));
        self.rare.extend(self.sides.iter().map(is_rare));
    }

    fn is_rare(&self, code: Code) -> bool {
        self.rare.get(usize::from(code)).copied().unwrap_or(false)
    }

    /// Counts rows by code and cell; of resources and scopes by their numbers, once for all of their attributes.
    fn count(&mut self, codes: &Codes, rows: &[u16], len: usize, width: usize) {
        let (codes, groups) = match codes {
            Codes::Rows(codes) => (&codes[..], None),
            Codes::Groups { groups, .. } => (&groups[..], Some(groups)),
        };
        if let (Some(known), Some(groups)) = (&self.counted_of, groups)
            && Arc::ptr_eq(known, groups)
        {
            return;
        }
        self.counted.clear();
        self.counted.resize(len, 0);
        for (row, cell) in rows.iter().zip(&self.cells) {
            let code = codes.get(usize::from(*row)).copied().unwrap_or(NIL);
            if let Some(count) = self.counted.get_mut(usize::from(code) * width + *cell as usize) {
                *count += 1;
            }
        }
        self.counted_of = groups.cloned();
    }
}

/// The sketches of a column without dictionary.
fn unlisted(field: &Field, reader: &Rc<Reader>) -> Result<Option<Arc<[u16]>>, SegmentError> {
    match field {
        Field::Attribute(_) => Ok(match reader.column(field)? {
            Column::Unlisted { sketches } => Some(sketches),
            _ => None,
        }),
        Field::Intrinsic(_) => Ok(None),
    }
}

fn numbers(counts: &[u64]) -> Vec<f64> {
    counts.iter().map(|count| *count as f64).collect()
}

/// What one value with a key of so many bytes takes.
fn booked_for(key_len: usize, width: usize) -> usize {
    2 * key_len + width * size_of::<u64>() + VALUE_OVERHEAD_BYTES
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
                tally.number(Met::Value(&value), 2, &control).unwrap();
            }
            tally.bound(&control);
        }
        assert!(tally.has_too_many && tally.values.is_empty() && tally.numbers.is_empty() && tally.counts.is_empty());
        assert_eq!((control.used_bytes(), tally.booked_bytes), (0, 0));
    }

    /// Two sets of values, each of which would be kept, and which are too many together.
    #[test]
    fn too_many_values_are_left_out_whoever_counted_which() {
        let control = Control::new(Duration::from_secs(60), 64 << 20);
        let tally_of = |numbers: std::ops::Range<usize>| {
            let mut tally = Tally::new(2, 0);
            for number in numbers {
                let number = tally.number(Met::Int(number as i64), 2, &control).unwrap();
                tally.count(number, 0, 2);
                tally.bound(&control);
            }
            tally
        };
        for cut in [1, VALUES_MAX / 2, VALUES_MAX, VALUES_MAX + 1] {
            let mut merged = tally_of(0..cut);
            let other = tally_of(cut..VALUES_MAX + 1);
            merged.merge(&other, 2, &control).unwrap();
            control.release(other.booked_bytes);
            assert!(merged.top(0, 10, 2).is_empty(), "{cut}");
            assert_eq!(merged.totals.first(), Some(&(VALUES_MAX as u64 + 1)), "{cut}");
            control.release(merged.booked_bytes);
        }
        assert_eq!(control.used_bytes(), 0);
    }
}
