//! A pipeline, compiled: its filters numbered, and what a trace must have to be worth a look.

use std::sync::Arc;

use crate::traceql::ast::{
    Aggregate, Arithmetic, Comparison, Expression, Field, Fold, Form, Pipeline, Relation, Scalar, Spanset,
    SpansetOperator, Stage,
};
use crate::traceql::error::Invalid;
use crate::traceql::filter::row::RowExpression;
use crate::traceql::filter::{Filter, Test};
use crate::traceql::reader::KeptMask;
use crate::traceql::value::Value;

/// What yields the spansets of traces.
#[derive(Debug)]
pub struct Plan {
    /// Which pipeline of its query it is.
    pub(super) number: usize,
    /// Every `{ ... }`.
    pub(super) filters: Vec<Filter>,
    pub(super) stages: Vec<PlannedStage>,
    wanted: Wanted,
    drivers: Vec<usize>,
    upward: Option<Upward>,
    fields: Vec<Field>,
    tests_of_many: Vec<(Field, Test)>,
}

/// A first stage that relates two filters: whether a trace may yield anything shows at the spans that are below, wherever
/// those above are.
#[derive(Debug, Clone, Copy)]
pub struct Upward {
    /// The filters of the spans that are below, and above.
    pub below: usize,
    pub above: usize,
    /// Children of spans, or descendants.
    pub any_distance: bool,
}

#[derive(Debug)]
pub(super) enum PlannedStage {
    Spanset(PlannedSpanset),
    Filter { op: Comparison, left: Number, right: Number },
    By { key: RowExpression, label: Arc<str> },
    Coalesce,
}

#[derive(Debug)]
pub(super) enum PlannedSpanset {
    /// The filter of this index.
    Filter(usize),
    Binary {
        op: SpansetOperator,
        left: Box<PlannedSpanset>,
        right: Box<PlannedSpanset>,
    },
    Pipeline(Vec<PlannedStage>),
}

/// A number per spanset.
#[derive(Debug)]
pub(super) enum Number {
    Literal(Value),
    Count {
        label: Arc<str>,
    },
    Of {
        fold: Fold,
        operand: RowExpression,
        label: Arc<str>,
    },
    Binary {
        op: Arithmetic,
        left: Box<Number>,
        right: Box<Number>,
    },
    /// What validation refuses.
    Unknown,
}

/// Which filters must take some span of a trace for the plan to yield anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Anything,
    Filter(usize),
    Both(Box<Wanted>, Box<Wanted>),
    Either(Box<Wanted>, Box<Wanted>),
}

impl Plan {
    /// `number` tells the pipelines of one query apart, as far as they share a [`crate::traceql::reader::Scan`].
    ///
    /// # Errors
    /// A regular expression is wrong or too large.
    pub fn compile(pipeline: &Pipeline, number: usize) -> Result<Self, Invalid> {
        let mut planner = Planner::default();
        let stages = planner.stages(&pipeline.stages)?;
        let wanted = wanted_by(&stages);
        let mut drivers = wanted.drivers(&planner.filters);
        let breadth = |filter: usize| planner.filters.get(filter).map_or(u8::MAX, Filter::breadth);
        let upward = upward(&stages).filter(|upward| breadth(upward.below) <= breadth(upward.above));
        if let Some(upward) = upward {
            drivers = vec![upward.below];
        }
        let Planner { filters, fields, tests_of_many } = planner;
        Ok(Self { number, filters, stages, wanted, drivers, upward, fields, tests_of_many })
    }

    /// The filter that alone decides, span by span: then nothing has to be known of whole traces.
    #[must_use]
    pub fn single_filter(&self) -> Option<&Filter> {
        match (&self.stages[..], &self.filters[..]) {
            ([PlannedStage::Spanset(PlannedSpanset::Filter(_))], [filter]) => Some(filter),
            _ => None,
        }
    }

    /// How many stages come before the first that may yield several spansets per trace.
    #[must_use]
    pub(super) fn leading(&self) -> usize {
        self.stages.iter().take_while(|stage| stage.yields_one()).count()
    }

    /// Whether there never is more than one spanset per trace.
    #[must_use]
    pub fn yields_one(&self) -> bool {
        self.leading() == self.stages.len()
    }

    /// How many `{ ... }` there are; they are numbered from 0.
    #[must_use]
    pub fn filters(&self) -> usize {
        self.filters.len()
    }

    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Filters of which one at least takes some span of every trace that yields anything; none if there are no such. A
    /// trace is found even if it is only looked at where these take a span of it.
    #[must_use]
    pub fn drivers(&self) -> &[usize] {
        &self.drivers
    }

    /// Where this is, spans that are below drive: a trace is looked at in every segment that has some of them.
    #[must_use]
    pub fn upward(&self) -> Option<Upward> {
        self.upward
    }

    /// Every field that the pipeline names, in the order it does.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// What filters ask of fields that may have several values, one for each event or link.
    #[must_use]
    pub fn tests_of_many(&self) -> &[(Field, Test)] {
        &self.tests_of_many
    }
}

impl PlannedStage {
    /// Whether one spanset of a trace stays one at most.
    fn yields_one(&self) -> bool {
        match self {
            Self::Spanset(spanset) => spanset.yields_one(),
            Self::Filter { .. } | Self::Coalesce => true,
            Self::By { .. } => false,
        }
    }
}

impl PlannedSpanset {
    fn yields_one(&self) -> bool {
        match self {
            Self::Filter(_) => true,
            Self::Binary { left, right, .. } => left.yields_one() && right.yields_one(),
            Self::Pipeline(stages) => stages.iter().all(PlannedStage::yields_one),
        }
    }
}

impl Wanted {
    fn drivers(&self, filters: &[Filter]) -> Vec<usize> {
        let breadth = |indices: &[usize]| {
            indices.iter().filter_map(|index| filters.get(*index)).map(Filter::breadth).max().unwrap_or(u8::MAX)
        };
        match self {
            Self::Anything => Vec::new(),
            Self::Filter(index) => vec![*index],
            Self::Both(left, right) => {
                let (left, right) = (left.drivers(filters), right.drivers(filters));
                if breadth(&right) < breadth(&left) { right } else { left }
            }
            Self::Either(left, right) => [left.drivers(filters), right.drivers(filters)].concat(),
        }
    }

    /// Whether filters that take these rows take enough of them within `rows`.
    #[must_use]
    pub fn within(&self, masks: &[Arc<KeptMask>], rows: &std::ops::Range<usize>) -> bool {
        match self {
            Self::Anything => true,
            Self::Filter(index) => masks.get(*index).is_some_and(|mask| mask.any(rows.clone())),
            Self::Both(left, right) => left.within(masks, rows) && right.within(masks, rows),
            Self::Either(left, right) => left.within(masks, rows) || right.within(masks, rows),
        }
    }
}

fn upward(stages: &[PlannedStage]) -> Option<Upward> {
    let Some(PlannedStage::Spanset(PlannedSpanset::Binary { op, left, right })) = stages.first() else { return None };
    let (PlannedSpanset::Filter(left), PlannedSpanset::Filter(right)) = (&**left, &**right) else { return None };
    let SpansetOperator::Structural { relation, form: Form::Plain | Form::Union } = op else { return None };
    let (below, above, any_distance) = match relation {
        Relation::Child => (*right, *left, false),
        Relation::Descendant => (*right, *left, true),
        Relation::Parent => (*left, *right, false),
        Relation::Ancestor => (*left, *right, true),
        Relation::Sibling => return None,
    };
    Some(Upward { below, above, any_distance })
}

fn wanted_by(stages: &[PlannedStage]) -> Wanted {
    let of_stages = stages.iter().filter_map(|stage| match stage {
        PlannedStage::Spanset(spanset) => Some(wanted_by_spanset(spanset)),
        _ => None,
    });
    of_stages.reduce(both).unwrap_or(Wanted::Anything)
}

fn wanted_by_spanset(spanset: &PlannedSpanset) -> Wanted {
    match spanset {
        PlannedSpanset::Filter(index) => Wanted::Filter(*index),
        PlannedSpanset::Pipeline(stages) => wanted_by(stages),
        PlannedSpanset::Binary { op, left, right } => {
            let (left, right) = (wanted_by_spanset(left), wanted_by_spanset(right));
            match op {
                SpansetOperator::Or if left == Wanted::Anything || right == Wanted::Anything => Wanted::Anything,
                SpansetOperator::Or => Wanted::Either(Box::new(left), Box::new(right)),
                SpansetOperator::Structural { form: Form::Negated, .. } => right,
                SpansetOperator::And | SpansetOperator::Structural { .. } => both(left, right),
            }
        }
    }
}

fn both(left: Wanted, right: Wanted) -> Wanted {
    match (left, right) {
        (Wanted::Anything, other) | (other, Wanted::Anything) => other,
        (left, right) => Wanted::Both(Box::new(left), Box::new(right)),
    }
}

#[derive(Default)]
struct Planner {
    filters: Vec<Filter>,
    fields: Vec<Field>,
    tests_of_many: Vec<(Field, Test)>,
}

impl Planner {
    fn stages(&mut self, stages: &[Stage]) -> Result<Vec<PlannedStage>, Invalid> {
        let mut planned = Vec::with_capacity(stages.len());
        for stage in stages {
            planned.push(match stage {
                Stage::Spanset(spanset) => PlannedStage::Spanset(self.spanset(spanset)?),
                Stage::Filter { op, left, right } => {
                    PlannedStage::Filter { op: *op, left: self.number(left)?, right: self.number(right)? }
                }
                Stage::By(key) => PlannedStage::By { key: self.row(key)?, label: format!("by({key})").into() },
                Stage::Coalesce => PlannedStage::Coalesce,
                Stage::Select(fields) => {
                    fields.iter().for_each(|field| self.mention(field));
                    continue;
                }
            });
        }
        Ok(planned)
    }

    fn spanset(&mut self, spanset: &Spanset) -> Result<PlannedSpanset, Invalid> {
        Ok(match spanset {
            Spanset::Spans(expression) => {
                self.filters.push(Filter::compile(expression.as_ref())?);
                let index = self.filters.len() - 1;
                if let Some(expression) = expression {
                    self.mention_all(expression);
                    Filter::tests_of_many(expression, &mut self.tests_of_many)?;
                }
                PlannedSpanset::Filter(index)
            }
            Spanset::Binary { op, left, right } => PlannedSpanset::Binary {
                op: *op,
                left: Box::new(self.spanset(left)?),
                right: Box::new(self.spanset(right)?),
            },
            Spanset::Pipeline(pipeline) => PlannedSpanset::Pipeline(self.stages(&pipeline.stages)?),
        })
    }

    fn number(&mut self, scalar: &Scalar) -> Result<Number, Invalid> {
        Ok(match scalar {
            Scalar::Literal(value) => Number::Literal(value.clone()),
            Scalar::Aggregate(aggregate) => {
                let label = aggregate.to_string().into();
                match aggregate {
                    Aggregate::Count => Number::Count { label },
                    Aggregate::Of(fold, operand) => Number::Of { fold: *fold, operand: self.row(operand)?, label },
                }
            }
            Scalar::Binary { op, left, right } => {
                Number::Binary { op: *op, left: Box::new(self.number(left)?), right: Box::new(self.number(right)?) }
            }
            Scalar::Pipeline { .. } => Number::Unknown,
        })
    }

    fn row(&mut self, expression: &Expression) -> Result<RowExpression, Invalid> {
        self.mention_all(expression);
        RowExpression::compile(expression)
    }

    fn mention_all(&mut self, expression: &Expression) {
        match expression {
            Expression::Literal(_) | Expression::Pattern(_) => {}
            Expression::Field(field) => self.mention(field),
            Expression::Binary { left, right, .. } => {
                self.mention_all(left);
                self.mention_all(right);
            }
            Expression::Unary { operand, .. } | Expression::Exists { operand, .. } => self.mention_all(operand),
        }
    }

    fn mention(&mut self, field: &Field) {
        if !self.fields.contains(field) {
            self.fields.push(field.clone());
        }
    }
}
