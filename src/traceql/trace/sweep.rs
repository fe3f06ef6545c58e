//! A plan over all traces of a segment at once, as far as each trace has one spanset: until `by()`.

use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::fold::Folded;
use super::forest::Forest;
use super::plan::{Number, Plan, PlannedSpanset, PlannedStage, Upward};
use super::tree::inverse;
use crate::traceql::ast::{Arithmetic, Field, Fold, Form, Intrinsic, SpansetOperator};
use crate::traceql::datum::{Datum, Scalar, calculate_scalars, nanos, scalars_compare};
use crate::traceql::filter::row::Bound;
use crate::traceql::mask::Mask;
use crate::traceql::reader::{KeptMask, Reader, Scan};
use crate::traceql::segment::{Parent, SegmentError, Traces};
use crate::traceql::value::{Kind, Value};

/// Traces between two looks at whether the query is to end.
const TRACES_BETWEEN_CHECKS: usize = 256;

impl Plan {
    /// The spans that the leading stages leave of the rows `input`, which are those of traces that are wholly here.
    /// `masks` are the rows that the filters take.
    ///
    /// # Errors
    /// The segment cannot be read, or the query is to end.
    pub fn swept(
        &self,
        scan: &Scan<'_>,
        reader: &Rc<Reader>,
        masks: &[Arc<KeptMask>],
        input: Mask,
    ) -> Result<Mask, SegmentError> {
        let sweep = Sweep { scan, reader, masks, traces: reader.traces()?, forest: OnceCell::new() };
        sweep.stages(self.stages.get(..self.leading()).unwrap_or_default(), input)
    }
}

impl Plan {
    /// Whether a trace that yields nothing by its spans in one segment may yield something with those elsewhere that has to
    /// be looked at from here. `false` spares to put it together.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn may_yield(
        &self,
        reader: &Rc<Reader>,
        masks: &[Arc<KeptMask>],
        rows: Range<usize>,
    ) -> Result<bool, SegmentError> {
        let Some(upward) = self.upward() else { return Ok(true) };
        let (Some(below), Some(above)) = (masks.get(upward.below), masks.get(upward.above)) else { return Ok(true) };
        upward.may_relate(reader, (below, above), rows)
    }
}

/// Steps up to an ancestor that are taken row by row; who is further below is left to [`Plan::swept`], which takes no step
/// twice.
const STEPS_MAX: usize = 16;

impl Upward {
    /// Whether one of the spans `below` among `rows` may have one of those `above` as its parent, or ancestor, in its whole
    /// trace, which has spans elsewhere.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn may_relate(
        &self,
        reader: &Reader,
        (below, above): (&Mask, &Mask),
        rows: Range<usize>,
    ) -> Result<bool, SegmentError> {
        let kinds = reader.values(&Field::Intrinsic(Intrinsic::Kind))?;
        let kind = |row: usize| match kinds.get(reader, row) {
            Ok(Some(Datum::Kind(kind))) => kind,
            _ => Kind::Unspecified,
        };
        // Of two spans with one id, which may be apart, one is the parent of servers and the other of all others.
        let is_certain = |row: usize, parent: usize| {
            kind(parent) == if kind(row) == Kind::Server { Kind::Client } else { Kind::Server }
        };
        let forest = Forest::new(reader.parents()?, reader.traces()?);
        Ok(forest.may_relate(below, above, rows, self.any_distance, is_certain))
    }

    /// Those of the rows `below` that may have one of `above` as their parent, or ancestor, in their segment.
    #[must_use]
    pub fn related_here(&self, parents: &[Parent], below: &Mask, above: &Mask) -> Mask {
        let steps_max = if self.any_distance { STEPS_MAX } else { 1 };
        let may_relate = |row: usize| {
            let mut at = row;
            for _ in 0..steps_max {
                let Some(Parent::Row(parent)) = parents.get(at) else { return false };
                at = *parent as usize;
                if above.get(at) {
                    return true;
                }
            }
            self.any_distance
        };
        let mut related = Mask::none(below.rows());
        below.iter().filter(|row| may_relate(*row)).for_each(|row| related.set(row));
        related
    }
}

struct Sweep<'s, 'a> {
    scan: &'s Scan<'a>,
    reader: &'s Rc<Reader>,
    masks: &'s [Arc<KeptMask>],
    traces: &'s Traces,
    forest: OnceCell<Forest<'s>>,
}

/// A [`Number`] with the columns of the segment.
enum BoundNumber<'s, 'a> {
    Literal(&'s Value),
    Count,
    OfDurations(Fold, &'s [u64]),
    Of(Fold, Box<Bound<'s, 'a>>),
    Binary(Arithmetic, Box<BoundNumber<'s, 'a>>, Box<BoundNumber<'s, 'a>>),
    Unknown,
}

impl<'s, 'a> Sweep<'s, 'a> {
    fn stages(&self, stages: &'s [PlannedStage], input: Mask) -> Result<Mask, SegmentError> {
        let mut spans = input;
        for stage in stages {
            self.scan.check()?;
            match stage {
                PlannedStage::Spanset(spanset) => spans = self.spanset(spanset, &spans)?,
                PlannedStage::Filter { op, left, right } => {
                    let (left, right) = (self.bound(left)?, self.bound(right)?);
                    let mut kept = Mask::none(spans.rows());
                    for (count, trace) in self.traces_with(&spans).into_iter().enumerate() {
                        if count % TRACES_BETWEEN_CHECKS == 0 {
                            self.scan.check()?;
                        }
                        let rows = self.traces.rows(trace as usize);
                        let (left, right) = (left.value(&spans, rows.clone())?, right.value(&spans, rows.clone())?);
                        if let (Some(left), Some(right)) = (left, right)
                            && scalars_compare(*op, left, right)
                        {
                            kept.set_range(rows);
                        }
                    }
                    spans.and(&kept);
                }
                // There is one spanset already.
                PlannedStage::Coalesce | PlannedStage::By { .. } => {}
            }
        }
        Ok(spans)
    }

    fn spanset(&self, spanset: &'s PlannedSpanset, input: &Mask) -> Result<Mask, SegmentError> {
        let (op, left, right) = match spanset {
            PlannedSpanset::Filter(index) => {
                let mut spans = input.clone();
                match self.masks.get(*index) {
                    Some(mask) => spans.and(mask),
                    None => spans = Mask::none(input.rows()),
                }
                return Ok(spans);
            }
            PlannedSpanset::Pipeline(stages) => return self.stages(stages, input.clone()),
            PlannedSpanset::Binary { op, left, right } => (*op, left, right),
        };
        let (mut left, right) = (self.spanset(left, input)?, self.spanset(right, input)?);
        let (relation, form) = match op {
            SpansetOperator::Or => {
                left.or(&right);
                return Ok(left);
            }
            SpansetOperator::And => {
                let both = self.traces_with_both(&left, &right);
                left.or(&right);
                let mut kept = Mask::none(left.rows());
                both.iter().for_each(|trace| kept.set_range(self.traces.rows(*trace as usize)));
                left.and(&kept);
                return Ok(left);
            }
            SpansetOperator::Structural { relation, form } => (relation, form),
        };
        let traces = self.traces_with_both(&left, &right);
        if traces.is_empty() {
            return Ok(if form == Form::Negated { right } else { Mask::none(right.rows()) });
        }
        let forest = self.forest()?;
        let mut related = forest.related(relation, &left, &right, &traces);
        Ok(match form {
            Form::Plain => related,
            Form::Negated => {
                let mut others = right;
                others.and_not(&related);
                others
            }
            Form::Union => {
                related.or(&forest.related(inverse(relation), &right, &left, &traces));
                related
            }
        })
    }

    fn forest(&self) -> Result<&Forest<'s>, SegmentError> {
        let parents = self.reader.parents()?;
        Ok(self.forest.get_or_init(|| Forest::new(parents, self.traces)))
    }

    fn bound(&self, number: &'s Number) -> Result<BoundNumber<'s, 'a>, SegmentError> {
        Ok(match number {
            Number::Literal(value) => BoundNumber::Literal(value),
            Number::Count { .. } => BoundNumber::Count,
            Number::Of { fold, operand, .. } if operand.is_duration() => {
                BoundNumber::OfDurations(*fold, self.reader.durations()?)
            }
            Number::Of { fold, operand, .. } => BoundNumber::Of(*fold, Box::new(operand.bind(self.scan, self.reader)?)),
            Number::Binary { op, left, right } => {
                BoundNumber::Binary(*op, Box::new(self.bound(left)?), Box::new(self.bound(right)?))
            }
            Number::Unknown => BoundNumber::Unknown,
        })
    }

    fn traces_with(&self, mask: &Mask) -> Vec<u32> {
        let has = |trace: &u32| mask.any(self.traces.rows(*trace as usize));
        (0..self.traces.len() as u32).filter(has).collect()
    }

    fn traces_with_both(&self, left: &Mask, right: &Mask) -> Vec<u32> {
        let has = |trace: &u32| {
            let rows = self.traces.rows(*trace as usize);
            left.any(rows.clone()) && right.any(rows)
        };
        (0..self.traces.len() as u32).filter(has).collect()
    }
}

impl BoundNumber<'_, '_> {
    /// Of the spanset of a trace: those of `spans` within its rows.
    fn value(&self, spans: &Mask, rows: Range<usize>) -> Result<Option<Scalar<'_>>, SegmentError> {
        Ok(match self {
            Self::Literal(value) => Scalar::of(value),
            Self::Count => Some(Scalar::Int(spans.count_in(rows) as i64)),
            Self::OfDurations(fold, durations) => {
                let mut folded = Folded::default();
                for duration in spans.iter_in(rows).filter_map(|row| durations.get(row)) {
                    folded.add_number(Scalar::Duration(nanos(*duration)));
                }
                folded.value(*fold)
            }
            Self::Of(fold, operand) => {
                let mut folded = Folded::default();
                for row in spans.iter_in(rows) {
                    folded.add(operand.value(row)?);
                }
                folded.value(*fold)
            }
            Self::Binary(op, left, right) => match (left.value(spans, rows.clone())?, right.value(spans, rows)?) {
                (Some(left), Some(right)) => calculate_scalars(*op, left, right),
                _ => None,
            },
            Self::Unknown => None,
        })
    }
}
