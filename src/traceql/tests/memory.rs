//! Segments in memory, built from plain traces the simplest way: every answer is computed from the spans when it is asked
//! for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::spans::{Attributes, Span, Trace};
use crate::otlp::TraceId;
use crate::traceql::ast::{Attribute, Field, Intrinsic, Scope};
use crate::traceql::column::{Cell, Code, Codes, Dictionary, NIL, ROWS_MAX};
use crate::traceql::mask::Mask;
use crate::traceql::segment::{
    Column, Ids, Parent, Piece, SKETCH_ANY, SLICE_ROWS, Segment, SegmentError, SegmentId, Source, Times, Traces, sketch,
};
use crate::traceql::value::{Kind, Value};

/// A source of segments in memory, the oldest first.
#[derive(Clone, Default)]
pub struct Memory {
    segments: Vec<Arc<MemorySegment>>,
    /// [`Source::may_be_split`] says so of every trace, as a store may that does not know.
    split_unsure: bool,
    /// `None`: as if the oldest segment began where it ends.
    whole_since: Option<u64>,
}

pub struct MemorySegment {
    id: SegmentId,
    rows: Vec<(TraceId, Span)>,
    unlisted: BTreeSet<Field>,
    gone: bool,
}

impl Memory {
    /// All traces whole, in one segment.
    pub fn whole(traces: &[Trace]) -> Self {
        Self::parts(vec![traces.to_vec()])
    }

    /// One segment for each part, the oldest first. A trace may be in several parts, and so may a span. Of spans with one
    /// id and kind within a part the first counts.
    pub fn parts(parts: Vec<Vec<Trace>>) -> Self {
        let segments = parts.into_iter().enumerate().map(|(index, part)| Arc::new(MemorySegment::new(index, part)));
        Self { segments: segments.collect(), split_unsure: false, whole_since: None }
    }

    /// Each span goes to the parts that `place` names for it (from 0, of `count`), by the numbers of the trace and of the
    /// span.
    pub fn spread(traces: &[Trace], count: usize, mut place: impl FnMut(usize, usize) -> Vec<usize>) -> Self {
        let mut parts = vec![Vec::new(); count];
        for (number, trace) in traces.iter().enumerate() {
            let mut pieces = vec![Vec::new(); count];
            for (position, span) in trace.spans.iter().enumerate() {
                for part in place(number, position) {
                    pieces[part].push(span.clone());
                }
            }
            for (part, spans) in parts.iter_mut().zip(pieces) {
                if !spans.is_empty() {
                    part.push(Trace { id: trace.id, spans });
                }
            }
        }
        Self::parts(parts)
    }

    /// These fields are not listed, in any segment.
    pub fn unlisted(mut self, fields: impl IntoIterator<Item = Field>) -> Self {
        let fields: BTreeSet<Field> = fields.into_iter().collect();
        self.segments = self
            .segments
            .iter()
            .map(|segment| {
                Arc::new(MemorySegment {
                    id: segment.id,
                    rows: segment.rows.clone(),
                    unlisted: fields.clone(),
                    gone: segment.gone,
                })
            })
            .collect();
        self
    }

    /// Every trace may be split, for all that the source knows.
    pub fn split_unsure(mut self) -> Self {
        self.split_unsure = true;
        self
    }

    /// Everything that started since then is here, Unix nanoseconds.
    pub fn complete_from(mut self, since: u64) -> Self {
        self.whole_since = Some(since);
        self
    }

    /// Retention removes a segment (counted from the oldest, 0) that the source still names.
    pub fn gone(mut self, index: usize) -> Self {
        let segment = &self.segments[index];
        self.segments[index] = Arc::new(MemorySegment {
            id: segment.id,
            rows: segment.rows.clone(),
            unlisted: segment.unlisted.clone(),
            gone: true,
        });
        self
    }

    /// The segment, counted from the oldest, 0.
    pub fn segment(&self, index: usize) -> Arc<dyn Segment> {
        self.segments[index].clone()
    }
}

impl Source for Memory {
    fn segments(&self, start: u64, end: u64) -> Vec<Arc<dyn Segment>> {
        let mut within: Vec<&Arc<MemorySegment>> = self
            .segments
            .iter()
            .filter(|segment| !segment.rows.is_empty())
            .filter(|segment| segment.times().min_start <= end && segment.times().max_start >= start)
            .collect();
        within.sort_by_key(|segment| std::cmp::Reverse((segment.times().max_start, segment.id)));
        within.into_iter().map(|segment| segment.clone() as Arc<dyn Segment>).collect()
    }

    fn pieces(&self, trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        let piece = |segment: &Arc<MemorySegment>| {
            let position = segment.trace_table().position(trace)?;
            Some(Piece { segment: segment.clone(), trace: position })
        };
        Ok(self.segments.iter().filter_map(piece).collect())
    }

    fn may_be_split(&self, segment: &dyn Segment, trace: usize) -> bool {
        let own = self.segments.iter().find(|own| own.id == segment.id()).expect("a segment of this source");
        let id = own.trace_table().ids[trace];
        let holders = self.segments.iter().filter(|segment| segment.trace_table().position(id).is_some()).count();
        self.split_unsure || holders > 1
    }

    /// Known for every other segment, as of runs it is and of the tail it is not; of many it would take too long to find out.
    fn split_traces(&self, segment: &dyn Segment) -> Option<Mask> {
        if segment.id().0 % 2 == 1 || self.segments.len() > 8 {
            return None;
        }
        let traces = segment.traces().ok()?.len();
        let mut split = Mask::none(traces);
        (0..traces).filter(|trace| self.may_be_split(segment, *trace)).for_each(|trace| split.set(trace));
        Some(split)
    }

    fn whole_since(&self) -> u64 {
        let ends = self.segments.iter().map(|segment| segment.times().max_start);
        self.whole_since.unwrap_or_else(|| ends.min().unwrap_or(u64::MAX))
    }
}

impl MemorySegment {
    /// Every other segment has slices, as runs do and the tail does not.
    fn slice<T: Copy>(&self, whole: &[T], slice: usize) -> Option<Vec<T>> {
        self.id.0.is_multiple_of(2).then(|| whole.chunks(SLICE_ROWS).nth(slice).unwrap_or_default().to_vec())
    }

    fn new(index: usize, traces: Vec<Trace>) -> Self {
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for trace in traces {
            for span in trace.spans {
                if seen.insert((trace.id, span.id, span.kind)) {
                    rows.push((trace.id, span));
                }
            }
        }
        rows.sort_by_key(|(trace, span)| (*trace, span.start, span.id, span.kind));
        assert!(rows.len() <= ROWS_MAX, "too many spans for a segment");
        Self { id: SegmentId(index as u64, 0), rows, unlisted: BTreeSet::new(), gone: false }
    }

    fn trace_table(&self) -> Traces {
        let mut first_rows = BTreeMap::new();
        for (row, (trace, _)) in self.rows.iter().enumerate() {
            first_rows.entry(*trace).or_insert(row as u32);
        }
        Traces {
            ids: first_rows.keys().copied().collect(),
            first_rows: first_rows.into_values().chain([self.rows.len() as u32]).collect(),
        }
    }

    fn readable(&self) -> Result<(), SegmentError> {
        if self.gone { Err(SegmentError::Gone) } else { Ok(()) }
    }

    /// Where the parent of a row is. Of two spans with one id (Zipkin's halves of a call) a server is the child of the
    /// client, everything else of the server; of three nobody can tell.
    fn parent(&self, row: usize) -> Parent {
        let (trace, span) = &self.rows[row];
        let Some(parent) = span.parent else { return Parent::Root };
        let candidates: Vec<usize> = (0..self.rows.len())
            .filter(|candidate| self.rows[*candidate].0 == *trace && self.rows[*candidate].1.id == parent)
            .collect();
        let wanted = if span.kind == Kind::Server { Kind::Client } else { Kind::Server };
        let found = match candidates[..] {
            [only] => Some(only),
            [one, other] => [one, other].into_iter().find(|row| self.rows[*row].1.kind == wanted),
            _ => None,
        };
        found.map_or(Parent::Away, |row| Parent::Row(row as u32))
    }

    fn dictionary(&self, cells: &[Option<Cell>]) -> Dictionary {
        let mut strings = BTreeSet::new();
        let mut ints = BTreeSet::new();
        let mut others = BTreeMap::new();
        for cell in cells.iter().flatten() {
            match cell {
                Cell::One(Value::String(string)) => {
                    strings.insert(string.clone());
                }
                Cell::One(Value::Int(int)) => {
                    ints.insert(*int);
                }
                other => {
                    others.insert(format!("{other:?}"), other.clone());
                }
            }
        }
        let mut dictionary = Dictionary::default();
        for string in &strings {
            dictionary.strings.push(string);
        }
        dictionary.ints.extend(ints);
        dictionary.others.extend(others.into_values());
        dictionary
    }

    fn cells(&self, field: &Field) -> Vec<Option<Cell>> {
        self.rows.iter().map(|(_, span)| cell(span, field)).collect()
    }
}

impl Segment for MemorySegment {
    fn id(&self) -> SegmentId {
        self.id
    }

    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn times(&self) -> Times {
        let spans = || self.rows.iter().map(|(_, span)| span);
        Times {
            min_start: spans().map(|span| span.start).min().unwrap_or(0),
            max_start: spans().map(|span| span.start).max().unwrap_or(0),
            max_end: spans().map(Span::end).max().unwrap_or(0),
            min_duration: spans().map(|span| span.duration).min().unwrap_or(0),
            max_duration: spans().map(|span| span.duration).max().unwrap_or(0),
        }
    }

    fn stored_bytes(&self) -> u64 {
        self.rows.len() as u64 * 100
    }

    fn traces(&self) -> Result<Arc<Traces>, SegmentError> {
        self.readable()?;
        Ok(Arc::new(self.trace_table()))
    }

    fn starts(&self) -> Result<Arc<[u64]>, SegmentError> {
        self.readable()?;
        Ok(self.rows.iter().map(|(_, span)| span.start).collect())
    }

    fn durations(&self) -> Result<Arc<[u64]>, SegmentError> {
        self.readable()?;
        Ok(self.rows.iter().map(|(_, span)| span.duration).collect())
    }

    fn parents(&self) -> Result<Arc<[Parent]>, SegmentError> {
        self.readable()?;
        Ok((0..self.rows.len()).map(|row| self.parent(row)).collect())
    }

    fn starts_slice(&self, slice: usize) -> Result<Option<Vec<u64>>, SegmentError> {
        Ok(self.slice(&self.starts()?, slice))
    }

    fn durations_slice(&self, slice: usize) -> Result<Option<Vec<u64>>, SegmentError> {
        Ok(self.slice(&self.durations()?, slice))
    }

    fn parents_slice(&self, slice: usize) -> Result<Option<Vec<Parent>>, SegmentError> {
        Ok(self.slice(&self.parents()?, slice))
    }

    fn column(&self, field: &Field) -> Result<Column, SegmentError> {
        self.readable()?;
        let cells = self.cells(field);
        if cells.iter().all(Option::is_none) {
            return Ok(Column::Absent);
        }
        if !self.unlisted.contains(field) {
            return Ok(Column::Listed(Arc::new(self.dictionary(&cells))));
        }
        let sketch_of = |cell: &Option<Cell>| match cell {
            None => 0,
            Some(Cell::One(Value::String(string))) => sketch(string),
            Some(_) => SKETCH_ANY,
        };
        Ok(Column::Unlisted { sketches: cells.iter().map(sketch_of).collect() })
    }

    fn codes(&self, field: &Field) -> Result<Codes, SegmentError> {
        self.readable()?;
        let cells = self.cells(field);
        let dictionary = self.dictionary(&cells);
        let codes: Vec<Code> =
            cells.iter().map(|cell| cell.as_ref().map_or(NIL, |cell| code(&dictionary, cell))).collect();
        let group = |span: &Span| match field {
            Field::Attribute(Attribute { scope: Some(Scope::Resource), .. }) => Some(format!("{:?}", span.resource)),
            Field::Attribute(Attribute { scope: Some(Scope::Instrumentation), .. })
            | Field::Intrinsic(Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion) => {
                Some(format!("{:?}", span.scope))
            }
            _ => None,
        };
        let groups: Option<Vec<String>> = self.rows.iter().map(|(_, span)| group(span)).collect();
        let Some(groups) = groups else { return Ok(Codes::Rows(codes.into())) };
        let by_group: BTreeMap<&String, Code> = groups.iter().zip(codes).collect();
        let number = |group| by_group.keys().position(|other| *other == group).unwrap_or_default() as Code;
        let groups = Arc::new(groups.iter().map(number).collect());
        Ok(Codes::Groups { groups, codes: by_group.values().copied().collect() })
    }

    fn cell(&self, field: &Field, row: usize) -> Result<Option<Cell>, SegmentError> {
        self.readable()?;
        Ok(cell(&self.rows[row].1, field))
    }

    fn span_ids(&self, rows: Range<usize>) -> Result<Vec<Ids>, SegmentError> {
        self.readable()?;
        Ok(self.rows[rows].iter().map(|(_, span)| Ids { span: span.id, parent: span.parent }).collect())
    }

    fn names(&self, scope: Scope) -> Result<Arc<[Arc<str>]>, SegmentError> {
        self.readable()?;
        let names: BTreeSet<&String> = self.rows.iter().flat_map(|(_, span)| names(span, scope)).collect();
        Ok(names.into_iter().map(|name| Arc::from(name.as_str())).collect())
    }
}

fn code(dictionary: &Dictionary, cell: &Cell) -> Code {
    let place = match cell {
        Cell::One(Value::String(string)) => dictionary.strings.position(string),
        Cell::One(Value::Int(int)) => {
            dictionary.ints.iter().position(|other| other == int).map(|place| dictionary.strings.len() + place)
        }
        other => dictionary
            .others
            .iter()
            .position(|listed| format!("{listed:?}") == format!("{other:?}"))
            .map(|place| dictionary.strings.len() + dictionary.ints.len() + place),
    };
    place.expect("the dictionary was made from these cells") as Code + 1
}

fn names(span: &Span, scope: Scope) -> Vec<&String> {
    match scope {
        Scope::Span => span.attributes.keys().collect(),
        Scope::Resource => span.resource.keys().collect(),
        Scope::Instrumentation => span.scope.attributes.keys().collect(),
        Scope::Event => span.events.iter().flat_map(|event| event.attributes.keys()).collect(),
        Scope::Link => span.links.iter().flat_map(|link| link.attributes.keys()).collect(),
    }
}

/// What a span has for a field, as columns hold it. Names, messages and versions are there even if they are empty.
fn cell(span: &Span, field: &Field) -> Option<Cell> {
    match field {
        Field::Attribute(attribute) => {
            let scope = attribute.scope.expect("columns have a scope; evaluation looks into each of them");
            attribute_cell(span, scope, &attribute.name)
        }
        Field::Intrinsic(intrinsic) => intrinsic_cell(span, *intrinsic),
    }
}

fn attribute_cell(span: &Span, scope: Scope, name: &str) -> Option<Cell> {
    let one = |attributes: &Attributes| attributes.get(name).cloned().map(Cell::One);
    match scope {
        Scope::Span => one(&span.attributes),
        Scope::Resource => one(&span.resource),
        Scope::Instrumentation => one(&span.scope.attributes),
        Scope::Event => many(span.events.iter().filter_map(|event| event.attributes.get(name).cloned())),
        Scope::Link => many(span.links.iter().filter_map(|link| link.attributes.get(name).cloned())),
    }
}

fn intrinsic_cell(span: &Span, intrinsic: Intrinsic) -> Option<Cell> {
    let text = |text: &str| Some(Cell::One(Value::from(text)));
    match intrinsic {
        Intrinsic::Name => text(&span.name),
        Intrinsic::StatusMessage => text(&span.message),
        Intrinsic::InstrumentationName => text(&span.scope.name),
        Intrinsic::InstrumentationVersion => text(&span.scope.version),
        Intrinsic::Status => Some(Cell::One(Value::Status(span.status))),
        Intrinsic::Kind => Some(Cell::One(Value::Kind(span.kind))),
        Intrinsic::EventName => many(span.events.iter().map(|event| Value::from(event.name.as_str()))),
        Intrinsic::EventTimeSinceStart => many(span.events.iter().map(|event| Value::Duration(event.since_start))),
        Intrinsic::LinkTraceId => many(span.links.iter().map(|link| Value::from(link.trace.to_string().as_str()))),
        Intrinsic::LinkSpanId => many(span.links.iter().map(|link| Value::from(link.span.to_string().as_str()))),
        _ => None,
    }
}

fn many(values: impl Iterator<Item = Value>) -> Option<Cell> {
    let values: Arc<[Value]> = values.collect();
    (!values.is_empty()).then_some(Cell::Many(values))
}

#[cfg(test)]
mod tests {
    use super::super::spans::{event, span, trace};
    use super::*;

    fn span_attribute(name: &str) -> Field {
        Field::Attribute(Attribute { scope: Some(Scope::Span), of_parent: false, name: name.into() })
    }

    fn resource_attribute(name: &str) -> Field {
        Field::Attribute(Attribute { scope: Some(Scope::Resource), of_parent: false, name: name.into() })
    }

    #[test]
    fn rows_stand_by_trace_and_start_and_know_their_parents() {
        let memory = Memory::whole(&[
            trace(2, [span(3).child_of(9).lasting(5, 1)]),
            trace(1, [span(2).child_of(1).lasting(7, 1), span(1).lasting(6, 10)]),
        ]);
        let segment = memory.segment(0);
        let traces = segment.traces().unwrap();
        assert_eq!((traces.len(), traces.rows(0), traces.rows(1)), (2, 0..2, 2..3));
        assert_eq!(segment.starts().unwrap()[..], [6, 7, 5]);
        assert_eq!(segment.parents().unwrap()[..], [Parent::Root, Parent::Row(0), Parent::Away]);
        assert_eq!(
            segment.times(),
            Times { min_start: 5, max_start: 7, max_end: 16, min_duration: 1, max_duration: 10 }
        );
    }

    #[test]
    fn codes_lead_to_the_values_of_rows() {
        let memory = Memory::whole(&[trace(
            1,
            [
                span(1).service("shop").attribute("x", "b").event(event("e").after(3)),
                span(2).service("bank").attribute("x", 7).lasting(1, 0),
                span(3).service("shop").attribute("x", ["a", "b"]).lasting(2, 0),
                span(4).lasting(3, 0),
            ],
        )]);
        let segment = memory.segment(0);
        let fields = [
            span_attribute("x"),
            resource_attribute("service.name"),
            Field::Intrinsic(Intrinsic::EventTimeSinceStart),
            Field::Intrinsic(Intrinsic::Kind),
        ];
        for field in fields {
            let Column::Listed(dictionary) = segment.column(&field).unwrap() else { panic!("{field:?} is not listed") };
            let codes = segment.codes(&field).unwrap();
            for row in 0..4 {
                let by_code = dictionary.get(codes.get(row)).map(|entry| match entry {
                    crate::traceql::column::Entry::String(string) => Cell::One(string.into()),
                    crate::traceql::column::Entry::Int(int) => Cell::One(int.into()),
                    crate::traceql::column::Entry::Other(cell) => cell.clone(),
                });
                assert_eq!(by_code, segment.cell(&field, row).unwrap(), "{field:?} of row {row}");
            }
        }
        assert!(matches!(segment.column(&span_attribute("y")).unwrap(), Column::Absent));
    }

    #[test]
    fn zipkin_halves_are_told_apart_by_kind() {
        let memory = Memory::whole(&[trace(
            1,
            [
                span(1).kind(Kind::Client),
                span(1).kind(Kind::Server).child_of(1).lasting(1, 0),
                span(2).child_of(1).lasting(2, 0),
            ],
        )]);
        assert_eq!(memory.segment(0).parents().unwrap()[..], [Parent::Root, Parent::Row(0), Parent::Row(1)]);
    }

    #[test]
    fn pieces_of_a_trace_are_found_in_every_part() {
        let traces = [trace(1, [span(1), span(2).child_of(1).lasting(9, 1)]), trace(2, [span(1)])];
        let memory = Memory::spread(&traces, 2, |trace, span| if trace == 0 { vec![span] } else { vec![0] });
        let pieces = memory.pieces(traces[0].id).unwrap();
        assert_eq!(pieces.iter().map(|piece| piece.segment.id().0).collect::<Vec<_>>(), [0, 1]);
        assert!(memory.may_be_split(&*memory.segment(0), 0) && !memory.may_be_split(&*memory.segment(0), 1));
        let latest_first: Vec<u64> = memory.segments(0, 10).iter().map(|segment| segment.id().0).collect();
        assert_eq!(latest_first, [1, 0]);
        assert_eq!(memory.segments(1, 10).len(), 1);
    }

    #[test]
    fn unlisted_columns_hold_sketches() {
        let memory =
            Memory::whole(&[trace(1, [span(1).attribute("x", "long"), span(2)])]).unlisted([span_attribute("x")]);
        let Column::Unlisted { sketches } = memory.segment(0).column(&span_attribute("x")).unwrap() else {
            panic!("the column is listed")
        };
        assert_eq!(sketches[..], [sketch("long"), 0]);
        assert_eq!(memory.segment(0).cell(&span_attribute("x"), 0).unwrap(), Some(Cell::One("long".into())));
    }
}
