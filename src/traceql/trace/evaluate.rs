//! The spansets that a plan yields for one trace.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::fold::Folded;
use super::plan::{Number, Plan, PlannedSpanset, PlannedStage};
use super::tree::inverse;
use super::view::View;
use crate::traceql::ast::{Form, SpansetOperator};
use crate::traceql::control::Stopped;
use crate::traceql::datum::{self, Datum, Scalar};
use crate::traceql::error::{Invalid, QueryError};
use crate::traceql::filter::Test;
use crate::traceql::filter::row::{Bound, RowExpression};
use crate::traceql::mask::Mask;
use crate::traceql::reader::{KeptMask, Reader, Scan};
use crate::traceql::segment::SegmentError;
use crate::traceql::value::Value;

/// Spans of one trace that belong together.
#[derive(Debug, Clone)]
pub struct SpansetOf {
    /// By their numbers in the [`View`]; never empty.
    pub spans: Mask,
    /// What `by()` and scalar filters say of them; `None` is nil.
    pub attributes: Vec<(Arc<str>, Option<Value>)>,
}

/// When spans must have started to count, Unix nanoseconds, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartedWithin {
    pub start: u64,
    pub end: u64,
}

impl Plan {
    /// The rows of a segment that a filter takes, of those that count.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn filtered(
        &self,
        scan: &Scan<'_>,
        reader: &Rc<Reader>,
        filter: usize,
        within: StartedWithin,
    ) -> Result<Arc<KeptMask>, SegmentError> {
        reader.mask(scan, (self.number, filter), || {
            let Some(filter) = self.filters.get(filter) else { return Ok(Mask::none(reader.rows())) };
            let mut mask = filter.mask(scan, reader)?;
            // Times last: most filters leave few segments where they are needed.
            if !mask.is_empty()
                && let Some(within) = reader.within(within.start, within.end)?
            {
                mask.and(&within);
            }
            Ok(mask)
        })
    }

    /// [`Self::filtered`] for every filter.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn masks(
        &self,
        scan: &Scan<'_>,
        reader: &Rc<Reader>,
        within: StartedWithin,
    ) -> Result<Vec<Arc<KeptMask>>, SegmentError> {
        (0..self.filters()).map(|filter| self.filtered(scan, reader, filter, within)).collect()
    }

    /// The rows of a segment in which traces have spans that a driver takes; all if there is no driver.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn driven(&self, scan: &Scan<'_>, reader: &Rc<Reader>, within: StartedWithin) -> Result<Mask, SegmentError> {
        if self.drivers().is_empty() {
            return Ok(Mask::all(reader.rows()));
        }
        let mut driven = Mask::none(reader.rows());
        for driver in self.drivers() {
            driven.or(&*self.filtered(scan, reader, *driver, within)?);
        }
        Ok(driven)
    }

    /// The rows of a segment that are in some spanset, of the spans that count: what metrics are made of. Of a span that
    /// came in several segments, one row. `within` has to be the same for all calls with one scan.
    ///
    /// # Errors
    /// The segment cannot be read, or the query asks for what there is not.
    pub fn rows(&self, scan: &Scan<'_>, reader: &Rc<Reader>, within: StartedWithin) -> Result<Mask, QueryError> {
        let masks = self.masks(scan, reader, within)?;
        // A trace may yield rows of any filter here, whatever decides in other segments.
        let mut any = Mask::all(reader.rows());
        if !self.drivers().is_empty() {
            any = Mask::none(reader.rows());
            masks.iter().for_each(|mask| any.or(mask));
        }
        if let (Some(_), [mask]) = (self.single_filter(), &masks[..]) {
            return Ok(Mask::clone(mask));
        }
        let mut found = Mask::none(reader.rows());
        if any.is_empty() {
            return Ok(found);
        }
        let traces = reader.traces()?;
        let mut input = Mask::none(reader.rows());
        let mut one_by_one = Vec::new();
        for trace in 0..traces.len() {
            let rows = traces.rows(trace);
            if !any.any(rows.clone()) {
                continue;
            }
            if reader.may_be_split(scan, trace) || !self.yields_one() {
                one_by_one.push(trace);
            } else if self.wanted().within(&masks, &rows) {
                input.set_range(rows);
            }
        }
        if let Some(within) = reader.within(within.start, within.end)? {
            input.and(&within);
        }
        if !input.is_empty() {
            found = self.swept(scan, reader, &masks, input)?;
        }
        let own = reader.segment().id();
        for trace in one_by_one {
            scan.check()?;
            let view = View::open(scan, reader, trace)?;
            let piece = view.pieces().iter().position(|piece| piece.reader.segment().id() == own);
            for spanset in self.spansets(scan, &view, within)? {
                let places = spanset.spans.iter().filter_map(|span| view.places().get(span));
                places
                    .filter(|place| Some(place.piece as usize) == piece)
                    .for_each(|place| found.set(place.row as usize));
            }
        }
        Ok(found)
    }

    /// The spansets of a trace, in the order of their first spans.
    ///
    /// # Errors
    /// A piece of the trace cannot be read, or the query asks for what there is not.
    pub fn spansets(&self, scan: &Scan<'_>, view: &View, within: StartedWithin) -> Result<Vec<SpansetOf>, QueryError> {
        let counted = Mask::of(view.places(), |place| within.start <= place.start && place.start <= within.end);
        let input = SpansetOf { spans: counted, attributes: Vec::new() };
        let evaluation = Evaluation { plan: self, scan, view, within, taken: RefCell::default() };
        evaluation.stages(&self.stages, if input.spans.is_empty() { Vec::new() } else { vec![input] })
    }
}

struct Evaluation<'e, 'a> {
    plan: &'e Plan,
    scan: &'e Scan<'a>,
    view: &'e View,
    within: StartedWithin,
    /// By filter: the spans of the trace that it takes. Every group of spansets is asked for the same.
    taken: RefCell<Vec<(usize, Rc<Mask>)>>,
}

/// Groups of one trace, each with a bit per span: 16 MiB.
const GROUP_SPANS_MAX: usize = 16 << 23;
const SPANS_PER_CHECK: usize = 1024;

impl Evaluation<'_, '_> {
    fn stages(&self, stages: &[PlannedStage], input: Vec<SpansetOf>) -> Result<Vec<SpansetOf>, QueryError> {
        let mut spansets = input;
        for stage in stages {
            if spansets.is_empty() {
                break;
            }
            spansets = match stage {
                PlannedStage::Spanset(spanset) => self.spanset(spanset, &spansets)?,
                PlannedStage::Filter { op, left, right } => {
                    let mut kept = Vec::with_capacity(spansets.len());
                    for mut spanset in spansets {
                        let left = self.number(left, &mut spanset)?;
                        let right = self.number(right, &mut spanset)?;
                        if let (Some(left), Some(right)) = (left, right)
                            && datum::compare(*op, &left, &right)
                        {
                            kept.push(spanset);
                        }
                    }
                    kept
                }
                PlannedStage::By { key, label } => self.grouped(key, label, &spansets)?,
                PlannedStage::Coalesce => {
                    let mut spans = Mask::none(self.view.len());
                    spansets.iter().for_each(|spanset| spans.or(&spanset.spans));
                    vec![SpansetOf { spans, attributes: Vec::new() }]
                }
            };
        }
        Ok(spansets)
    }

    fn spanset(&self, spanset: &PlannedSpanset, input: &[SpansetOf]) -> Result<Vec<SpansetOf>, QueryError> {
        let (op, left, right) = match spanset {
            PlannedSpanset::Filter(index) => return self.filtered(*index, input),
            PlannedSpanset::Pipeline(stages) => return self.stages(stages, input.to_vec()),
            PlannedSpanset::Binary { op, left, right } => (*op, left, right),
        };
        let mut output = Vec::new();
        for one in input {
            self.scan.check()?;
            let left = self.spanset(left, std::slice::from_ref(one))?;
            let right = self.spanset(right, std::slice::from_ref(one))?;
            let spans = match op {
                SpansetOperator::And if left.is_empty() || right.is_empty() => continue,
                SpansetOperator::And | SpansetOperator::Or => {
                    let mut spans = Mask::none(self.view.len());
                    left.iter().chain(&right).for_each(|spanset| spans.or(&spanset.spans));
                    spans
                }
                SpansetOperator::Structural { relation, form } => {
                    // Without right side there is nothing to relate, whatever is on the left.
                    let Some((right, others)) = right.split_first() else { continue };
                    if left.len() > 1 || !others.is_empty() {
                        return Err(Invalid::SeveralSpansets.into());
                    }
                    let none = Mask::none(self.view.len());
                    let left = left.first().map_or(&none, |spanset| &spanset.spans);
                    let tree = self.view.tree()?;
                    let mut related = tree.related(relation, left, &right.spans);
                    match form {
                        Form::Plain => related,
                        Form::Negated => {
                            let mut others = right.spans.clone();
                            others.and_not(&related);
                            others
                        }
                        Form::Union => {
                            related.or(&tree.related(inverse(relation), &right.spans, left));
                            related
                        }
                    }
                }
            };
            if !spans.is_empty() {
                output.push(SpansetOf { spans, attributes: one.attributes.clone() });
            }
        }
        Ok(output)
    }

    fn filtered(&self, filter: usize, input: &[SpansetOf]) -> Result<Vec<SpansetOf>, QueryError> {
        let taken = self.taken(filter)?;
        let mut output = Vec::with_capacity(input.len());
        for one in input {
            let mut spans = one.spans.clone();
            spans.and(&taken);
            if !spans.is_empty() {
                output.push(SpansetOf { spans, attributes: one.attributes.clone() });
            }
        }
        Ok(output)
    }

    fn taken(&self, filter: usize) -> Result<Rc<Mask>, SegmentError> {
        if let Some((_, taken)) = self.taken.borrow().iter().find(|(number, _)| *number == filter) {
            return Ok(Rc::clone(taken));
        }
        let mut taken = Mask::none(self.view.len());
        let mut masks = Vec::with_capacity(self.view.pieces().len());
        for piece in self.view.pieces() {
            masks.push(self.plan.filtered(self.scan, &piece.reader, filter, self.within)?);
        }
        for (span, place) in self.view.places().iter().enumerate() {
            if masks.get(place.piece as usize).is_some_and(|mask| mask.get(place.row as usize)) {
                taken.set(span);
            }
        }
        let taken = Rc::new(taken);
        self.taken.borrow_mut().push((filter, Rc::clone(&taken)));
        Ok(taken)
    }

    /// Spansets by the values of an expression, in the order in which the values come up.
    fn grouped(
        &self,
        key: &RowExpression,
        label: &Arc<str>,
        input: &[SpansetOf],
    ) -> Result<Vec<SpansetOf>, QueryError> {
        let keys = PerSpan::new(key, self.scan, self.view)?;
        let mut output: Vec<SpansetOf> = Vec::new();
        for one in input {
            let mut groups: HashMap<Vec<u8>, usize, foldhash::fast::RandomState> = HashMap::default();
            for span in one.spans.iter() {
                let value = keys.value(span)?;
                if span % SPANS_PER_CHECK == 0 {
                    self.scan.check()?;
                }
                if output.len().saturating_mul(self.view.len()) > GROUP_SPANS_MAX {
                    return Err(Stopped::MemoryOver(GROUP_SPANS_MAX / 8).into());
                }
                let group = *groups.entry(group_key(value.as_ref())).or_insert_with(|| {
                    let mut attributes = one.attributes.clone();
                    attributes.push((label.clone(), value));
                    output.push(SpansetOf { spans: Mask::none(self.view.len()), attributes });
                    output.len() - 1
                });
                if let Some(group) = output.get_mut(group) {
                    group.spans.set(span);
                }
            }
        }
        Ok(output)
    }

    /// The number of a spanset; what was computed of it is put on it.
    fn number(&self, number: &Number, spanset: &mut SpansetOf) -> Result<Option<Datum<'static>>, QueryError> {
        let (label, value) = match number {
            Number::Literal(value) => return Ok(Some(value.clone().into())),
            Number::Unknown => return Ok(None),
            Number::Binary { op, left, right } => {
                return Ok(match (self.number(left, spanset)?, self.number(right, spanset)?) {
                    (Some(left), Some(right)) => datum::calculate(*op, &left, &right),
                    _ => None,
                });
            }
            Number::Count { label } => (label, Some(Value::Int(spanset.spans.count() as i64))),
            Number::Of { fold, operand, label } => {
                let operands = PerSpan::new(operand, self.scan, self.view)?;
                let mut folded = Folded::default();
                for span in spanset.spans.iter() {
                    folded.add(operands.datum(span)?);
                }
                (label, folded.value(*fold).and_then(Scalar::into_number))
            }
        };
        let Some(value) = value else { return Ok(None) };
        spanset.attributes.push((label.clone(), Some(value.clone())));
        Ok(Some(value.into()))
    }
}

/// An expression with the columns of all pieces of a trace.
pub struct PerSpan<'e, 'a> {
    view: &'e View,
    bound: Vec<Bound<'e, 'a>>,
}

impl<'e, 'a> PerSpan<'e, 'a> {
    /// # Errors
    /// A piece cannot be read.
    pub fn new(expression: &'e RowExpression, scan: &'e Scan<'a>, view: &'e View) -> Result<Self, SegmentError> {
        let bound = view.pieces().iter().map(|piece| expression.bind(scan, &piece.reader)).collect::<Result<_, _>>()?;
        Ok(Self { view, bound })
    }

    /// What the expression yields for a span; of the values of several events the first.
    ///
    /// # Errors
    /// A piece cannot be read.
    pub fn value(&self, span: usize) -> Result<Option<Value>, SegmentError> {
        Ok(self.datum(span)?.and_then(Datum::into_value))
    }

    /// As [`PerSpan::value`], but of the values of several events the first that passes one of the tests, if any does.
    ///
    /// # Errors
    /// A piece cannot be read.
    pub fn value_passing(&self, span: usize, tests: &[Test]) -> Result<Option<Value>, SegmentError> {
        Ok(match self.datum(span)? {
            Some(Datum::Many(values)) => {
                let passes = |value: &&Value| tests.iter().any(|test| test.passes(&Datum::borrowed(value)));
                values.iter().find(passes).or_else(|| values.first()).cloned()
            }
            other => other.and_then(Datum::into_value),
        })
    }

    fn datum(&self, span: usize) -> Result<Option<Datum<'_>>, SegmentError> {
        let Some(place) = self.view.places().get(span) else { return Ok(None) };
        let Some(bound) = self.bound.get(place.piece as usize) else { return Ok(None) };
        bound.value(place.row as usize)
    }
}

/// Equal for equal values of one type.
fn group_key(value: Option<&Value>) -> Vec<u8> {
    let mut key = Vec::new();
    push_key(value, &mut key);
    key
}

fn push_key(value: Option<&Value>, key: &mut Vec<u8>) {
    match value {
        None => key.push(0),
        Some(Value::String(text)) => {
            key.push(1);
            key.extend_from_slice(&(text.len() as u64).to_le_bytes());
            key.extend_from_slice(text.as_bytes());
        }
        Some(Value::Int(int)) => {
            key.push(2);
            key.extend_from_slice(&int.to_le_bytes());
        }
        Some(Value::Float(float)) => {
            key.push(3);
            key.extend_from_slice(&float.to_bits().to_le_bytes());
        }
        Some(Value::Bool(bool)) => key.extend_from_slice(&[4, u8::from(*bool)]),
        Some(Value::Duration(duration)) => {
            key.push(5);
            key.extend_from_slice(&duration.to_le_bytes());
        }
        Some(Value::Status(status)) => key.extend_from_slice(&[6, *status as u8]),
        Some(Value::Kind(kind)) => key.extend_from_slice(&[7, *kind as u8]),
        Some(Value::Array(values)) => {
            key.push(8);
            key.extend_from_slice(&(values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| push_key(Some(value), key));
        }
    }
}
