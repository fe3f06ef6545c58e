//! `compare()`: how often each value of each attribute is met inside a selection of spans, and how often outside.
//!
//! Counts are kept for each attribute and value, by side and interval. Memory is bounded by leaving out values that are rare
//! in a segment where there are many, and all values of an attribute of which there are still too many. Both are decided
//! by what lies in segments and in all of them together, so that the answer is the same whichever thread took which.

mod tally;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;

use super::exemplars::{self, Chosen, Exemplars};
use super::intervals::Intervals;
use super::lines::{Line, Mark};
use super::rows::{Matching, Selected};
use crate::traceql::ast::{Attribute, Field, Intrinsic, Scope};
use crate::traceql::coded::{self, Coded};
use crate::traceql::column::{Code, Codes, GroupsOfRows, NIL};
use crate::traceql::control::{Control, Stopped};
use crate::traceql::reader::{Reader, Scan};
use crate::traceql::segment::{Column, SegmentError};
use crate::traceql::value::Value;
use crate::traceql::wanted::Wanted;
use tally::{Tally, VALUE_OVERHEAD_BYTES};

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

impl Scratch {
    /// What it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.cells.capacity() + self.counted.capacity() + self.numbers.capacity()) * size_of::<u32>()
            + self.sides.capacity() * size_of::<[u32; 2]>()
            + self.rare.capacity()
    }
}

/// Distinct values of an attribute in a segment up to which all are counted. Where there are more, only those are that at
/// least two spans of one side have there, and one of [`COMMON_AMONG`].
const SEGMENT_VALUES_MAX: usize = 256;
const COMMON_AMONG: u64 = 512;

/// Counts by code and cell that are made before values are looked at, at most (1 MiB).
const COUNTED_MAX: usize = 1 << 18;

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
        let (mut wanted, mut booked) = (Wanted::new(&selected.rows), control.nothing_booked());
        for scope in SCOPES {
            for name in reader.segment().names(scope)?.iter() {
                let attribute = Attribute { scope: Some(scope), of_parent: false, name: name.to_string() };
                let remembered = reader.remembered();
                self.add_field(Field::Attribute(attribute), (scan, reader), &mut wanted, scratch, control)?;
                booked.grow(wanted.bytes().saturating_sub(booked.bytes()))?;
                reader.forget_since(remembered);
                scan.check()?;
            }
        }
        for intrinsic in INTRINSICS {
            self.add_field(Field::Intrinsic(intrinsic), (scan, reader), &mut wanted, scratch, control)?;
        }
        self.choose(scan, reader, selected, &scratch.cells)
    }

    /// Adds what another thread counted.
    ///
    /// # Errors
    /// The query needs too much memory.
    pub fn merge(&mut self, other: Self, control: &Control) -> Result<(), Stopped> {
        for (field, tally) in other.attributes {
            self.tally(field, control)?.merge(&tally, control)?;
            control.release(tally.booked_bytes);
        }
        self.baseline_exemplars.merge(other.baseline_exemplars, &[0]);
        self.selection_exemplars.merge(other.selection_exemplars, &[0]);
        Ok(())
    }

    #[must_use]
    pub fn booked_bytes(&self) -> usize {
        self.attributes.values().map(|tally| tally.booked_bytes).sum()
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
                for (value, counts) in tally.top(side, self.plan.top) {
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
        wanted: &mut Wanted<'_>,
        scratch: &mut Scratch,
        control: &Control,
    ) -> Result<(), SegmentError> {
        let (width, rows) = (self.width, wanted.rows());
        let coded = match &field {
            Field::Attribute(_) => {
                let codes = reader.segment().codes_at(&field, wanted)?;
                // Of a column in which none of these spans has a value nothing else is read.
                if let Codes::Rows(codes) = &codes
                    && !codes.is_empty()
                    && codes.iter().all(|code| *code == NIL)
                {
                    return Ok(());
                }
                match reader.column(&field)? {
                    Column::Absent => None,
                    Column::Listed(dictionary) => Some(Coded::listed(dictionary, codes)),
                    Column::Unlisted { sketches } => {
                        let tally = self.tally(field.clone(), control)?;
                        tally.lookups = tally.lookups.saturating_add(rows.len());
                        if tally.is_unlisted() {
                            for (row, cell) in rows.iter().zip(&scratch.cells) {
                                let present = sketches.get(usize::from(*row)).is_some_and(|sketch| *sketch != 0);
                                tally.count_total(*cell as usize, u64::from(present));
                            }
                            return Ok(());
                        }
                        coded::read(&field, scan, reader, rows)?.map(|coded| coded.at(rows))
                    }
                }
            }
            Field::Intrinsic(_) => coded::read(&field, scan, reader, rows)?.map(|coded| coded.at(rows)),
        };
        let Some(coded) = coded else { return Ok(()) };
        let _booked = control.book(coded.codes().bytes())?;
        scratch.find_rare(&coded, width / 2);
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
                    tally.add((&coded, code, scratch.is_rare(code)), counts, control)?;
                }
            }
        } else {
            tally.add_rows(&coded, rows, scratch, control)?;
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

impl Scratch {
    /// Which values of a column are left out; never those of resources and scopes, which are few.
    fn find_rare(&mut self, coded: &Coded, half: usize) {
        self.rare.clear();
        let Codes::Rows(codes) = coded.codes() else { return };
        if coded.code_max() <= SEGMENT_VALUES_MAX {
            return;
        }
        self.sides.clear();
        self.sides.resize(coded.code_max() + 1, [0; 2]);
        let mut totals = [0_u64; 2];
        for (code, cell) in codes.iter().copied().zip(&self.cells) {
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

    /// Counts rows by code and cell, which stand in the order of `rows`; of resources and scopes by their numbers, once for all of their attributes.
    fn count(&mut self, codes: &Codes, rows: &[u16], len: usize, width: usize) {
        let groups = match codes {
            Codes::Rows(_) => None,
            Codes::Groups { groups, .. } => Some(groups),
        };
        if let (Some(known), Some(groups)) = (&self.counted_of, groups)
            && Arc::ptr_eq(known, groups)
        {
            return;
        }
        self.counted.clear();
        self.counted.resize(len, 0);
        let mut count = |code: Code, cell: u32| {
            if let Some(count) = self.counted.get_mut(usize::from(code) * width + cell as usize) {
                *count += 1;
            }
        };
        match codes {
            Codes::Rows(codes) => codes.iter().zip(&self.cells).for_each(|(code, cell)| count(*code, *cell)),
            Codes::Groups { groups, .. } => {
                let of_rows = rows.iter().map(|row| groups.get(usize::from(*row)).copied().unwrap_or(NIL));
                of_rows.zip(&self.cells).for_each(|(group, cell)| count(group, *cell));
            }
        }
        self.counted_of = groups.cloned();
    }
}

fn numbers(counts: &[u64]) -> Vec<f64> {
    counts.iter().map(|count| *count as f64).collect()
}
