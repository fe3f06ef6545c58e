//! Expressions computed span by span: what no column can answer as a whole.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use regex::Regex;

use super::compile;
use super::test::Test;
use crate::traceql::ast::{Arithmetic, Attribute, Comparison, Expression, Field, Intrinsic, Operator, Scope, Unary};
use crate::traceql::datum::{self, Datum, Text, nanos};
use crate::traceql::error::Invalid;
use crate::traceql::mask::Mask;
use crate::traceql::reader::{Reader, Scan, Values, has_column};
use crate::traceql::segment::{Ids, SegmentError, Traces};
use crate::traceql::trace::view::{View, root_texts};
use crate::traceql::value::Value;

/// Rows of slow work between two looks at whether the query is to end.
const ROWS_BETWEEN_CHECKS: usize = 4096;

/// An expression that is computed for single spans.
#[derive(Debug, Clone)]
pub struct RowExpression {
    root: Term,
    /// What the terms name by number.
    fields: Vec<Field>,
}

#[derive(Debug, Clone)]
enum Term {
    Constant(Value),
    Field(usize),
    Compare(Comparison, Box<Term>, Box<Term>),
    Matches { operand: Box<Term>, test: Test },
    Calculate(Arithmetic, Box<Term>, Box<Term>),
    And(Box<Term>, Box<Term>),
    Or(Box<Term>, Box<Term>),
    Not(Box<Term>),
    Negate(Box<Term>),
    Exists { operand: Box<Term>, exists: bool },
}

/// An expression with the columns of a segment.
pub struct Bound<'q, 'a> {
    expression: &'q RowExpression,
    slots: Vec<Slot>,
    scan: &'q Scan<'a>,
    reader: Rc<Reader>,
    /// What was looked up last of the trace that rows belong to: rows come in order.
    facts: RefCell<Facts>,
}

/// Where the values of a field come from.
enum Slot {
    Column(Values),
    /// The first that has one.
    Scopes(Vec<Values>),
    Duration(Arc<[u64]>),
    Traced(Intrinsic),
    Nothing,
}

#[derive(Default)]
struct Facts {
    trace: Option<usize>,
    view: Option<View>,
    ids: Option<Vec<Ids>>,
    duration: Option<i64>,
    root: Option<(Arc<str>, Arc<str>)>,
}

impl RowExpression {
    /// # Errors
    /// A regular expression cannot be used.
    pub fn compile(expression: &Expression) -> Result<Self, Invalid> {
        let mut fields = Vec::new();
        let root = term(expression, &mut fields)?;
        Ok(Self { root, fields })
    }

    /// Whether it is the duration of a span, no more.
    #[must_use]
    pub fn is_duration(&self) -> bool {
        matches!(self.root, Term::Field(_)) && self.fields == [Field::Intrinsic(Intrinsic::Duration)]
    }

    /// Makes it ready for the rows of a segment.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn bind<'q, 'a>(&'q self, scan: &'q Scan<'a>, reader: &Rc<Reader>) -> Result<Bound<'q, 'a>, SegmentError> {
        let slots = self.fields.iter().map(|field| slot(field, reader)).collect::<Result<_, _>>()?;
        Ok(Bound { expression: self, slots, scan, reader: reader.clone(), facts: RefCell::default() })
    }

    /// Those of the rows `alive` for which it is true.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn mask(&self, scan: &Scan<'_>, reader: &Rc<Reader>, alive: &Mask) -> Result<Mask, SegmentError> {
        let bound = self.bind(scan, reader)?;
        let mut mask = Mask::none(alive.rows());
        for (count, row) in alive.iter().enumerate() {
            if count % ROWS_BETWEEN_CHECKS == 0 {
                scan.check()?;
            }
            if bound.value(row)?.is_some_and(|value| value.is(true)) {
                mask.set(row);
            }
        }
        Ok(mask)
    }
}

fn term(expression: &Expression, fields: &mut Vec<Field>) -> Result<Term, Invalid> {
    let mut boxed = |expression: &Expression| term(expression, fields).map(Box::new);
    Ok(match expression {
        Expression::Literal(value) => Term::Constant(value.clone()),
        Expression::Pattern(pattern) => Term::Constant(Value::String(pattern.text().clone())),
        Expression::Field(field) => {
            let known = fields.iter().position(|other| other == field);
            Term::Field(known.unwrap_or_else(|| {
                fields.push(field.clone());
                fields.len() - 1
            }))
        }
        Expression::Binary { op, left, right } => match op {
            Operator::Arithmetic(op) => Term::Calculate(*op, boxed(left)?, boxed(right)?),
            Operator::Comparison(op) => Term::Compare(*op, boxed(left)?, boxed(right)?),
            Operator::And => Term::And(boxed(left)?, boxed(right)?),
            Operator::Or => Term::Or(boxed(left)?, boxed(right)?),
            Operator::Matches | Operator::MatchesNot => {
                let regex: Regex = compile::regex(right)?;
                let test = Test::Matches { regex, negated: *op == Operator::MatchesNot };
                Term::Matches { operand: boxed(left)?, test }
            }
        },
        Expression::Unary { op: Unary::Not, operand } => Term::Not(boxed(operand)?),
        Expression::Unary { op: Unary::Negate, operand } => Term::Negate(boxed(operand)?),
        Expression::Exists { operand, exists } => Term::Exists { operand: boxed(operand)?, exists: *exists },
    })
}

fn slot(field: &Field, reader: &Reader) -> Result<Slot, SegmentError> {
    Ok(match field {
        Field::Attribute(Attribute { of_parent: true, .. }) | Field::Intrinsic(Intrinsic::Parent) => Slot::Nothing,
        Field::Attribute(Attribute { scope: Some(_), .. }) => Slot::Column(reader.values(field)?),
        Field::Attribute(Attribute { scope: None, name, .. }) => {
            let mut scopes = Vec::new();
            for field in scoped(name) {
                let values = reader.values(&field)?;
                if !values.is_absent() {
                    scopes.push(values);
                }
            }
            Slot::Scopes(scopes)
        }
        Field::Intrinsic(Intrinsic::Duration) => Slot::Duration(reader.durations()?.clone()),
        Field::Intrinsic(intrinsic) if has_column(*intrinsic) => Slot::Column(reader.values(field)?),
        Field::Intrinsic(intrinsic) => Slot::Traced(*intrinsic),
    })
}

/// An attribute in each of the scopes where one without scope is looked for, in their order.
pub fn scoped(name: &str) -> impl Iterator<Item = Field> + '_ {
    Scope::ALL
        .into_iter()
        .map(|scope| Field::Attribute(Attribute { scope: Some(scope), of_parent: false, name: name.to_owned() }))
}

impl Bound<'_, '_> {
    /// What the expression yields for a row; `None` stands for nil.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn value(&self, row: usize) -> Result<Option<Datum<'_>>, SegmentError> {
        self.term(&self.expression.root, row)
    }

    fn term<'s>(&'s self, term: &'s Term, row: usize) -> Result<Option<Datum<'s>>, SegmentError> {
        let truth = |term| Ok::<_, SegmentError>(self.term(term, row)?.is_some_and(|value| value.is(true)));
        Ok(match term {
            Term::Constant(value) => Some(Datum::borrowed(value)),
            Term::Field(slot) => match self.slots.get(*slot) {
                Some(slot) => self.field(slot, row)?,
                None => None,
            },
            Term::Compare(op, left, right) => {
                let holds = match (self.term(left, row)?, self.term(right, row)?) {
                    (Some(left), Some(right)) => datum::compare(*op, &left, &right),
                    _ => false,
                };
                Some(Datum::Bool(holds))
            }
            Term::Matches { operand, test } => {
                Some(Datum::Bool(self.term(operand, row)?.is_some_and(|value| test.passes(&value))))
            }
            Term::Calculate(op, left, right) => match (self.term(left, row)?, self.term(right, row)?) {
                (Some(left), Some(right)) => datum::calculate(*op, &left, &right),
                _ => None,
            },
            Term::And(left, right) => Some(Datum::Bool(truth(left)? && truth(right)?)),
            Term::Or(left, right) => Some(Datum::Bool(truth(left)? || truth(right)?)),
            Term::Not(operand) => match self.term(operand, row)? {
                Some(value) if value.is(true) => Some(Datum::Bool(false)),
                Some(value) if value.is(false) => Some(Datum::Bool(true)),
                _ => None,
            },
            Term::Negate(operand) => self.term(operand, row)?.and_then(datum::negate),
            Term::Exists { operand, exists } => Some(Datum::Bool(self.term(operand, row)?.is_some() == *exists)),
        })
    }

    fn field<'s>(&'s self, slot: &'s Slot, row: usize) -> Result<Option<Datum<'s>>, SegmentError> {
        match slot {
            Slot::Column(values) => values.get(&self.reader, row),
            Slot::Scopes(scopes) => {
                for values in scopes {
                    if let Some(value) = values.get(&self.reader, row)? {
                        return Ok(Some(value));
                    }
                }
                Ok(None)
            }
            Slot::Duration(durations) => Ok(durations.get(row).map(|duration| Datum::Duration(nanos(*duration)))),
            Slot::Traced(intrinsic) => self.traced(*intrinsic, row),
            Slot::Nothing => Ok(None),
        }
    }

    /// What depends on the trace that a row belongs to.
    fn traced(&self, intrinsic: Intrinsic, row: usize) -> Result<Option<Datum<'_>>, SegmentError> {
        let traces: &Traces = self.reader.traces()?;
        let mut facts = self.facts.borrow_mut();
        let trace = match facts.trace {
            Some(trace) if traces.rows(trace).contains(&row) => trace,
            _ => {
                let trace = traces.of_row(row);
                *facts = Facts { trace: Some(trace), ..Facts::default() };
                trace
            }
        };
        let shared = |text: String| Some(Datum::String(Text::Shared(text.into())));
        match intrinsic {
            Intrinsic::TraceId => return Ok(traces.ids.get(trace).and_then(|id| shared(id.to_string()))),
            Intrinsic::SpanId | Intrinsic::ParentId => {
                let rows = traces.rows(trace);
                let offset = row - rows.start.min(row);
                if facts.ids.is_none() {
                    facts.ids = Some(self.reader.span_ids(rows)?);
                }
                let ids = facts.ids.as_ref().and_then(|ids| ids.get(offset));
                return Ok(ids.and_then(|ids| match (intrinsic, ids.parent) {
                    (Intrinsic::SpanId, _) => shared(ids.span.to_string()),
                    (_, Some(parent)) => shared(parent.to_string()),
                    (_, None) => shared(String::new()),
                }));
            }
            _ => {}
        }
        if let Intrinsic::RootName | Intrinsic::RootServiceName = intrinsic {
            let (name, service) = match &facts.root {
                Some(known) => known,
                None => facts.root.insert(root_texts(self.scan, &self.reader, trace)?),
            };
            let text = if intrinsic == Intrinsic::RootName { name } else { service };
            return Ok(Some(Datum::String(Text::Shared(text.clone()))));
        }
        let Facts { view, duration, .. } = &mut *facts;
        let view = match view {
            Some(view) => view,
            None => view.insert(View::open(self.scan, &self.reader, trace)?),
        };
        Ok(match intrinsic {
            Intrinsic::TraceDuration => {
                let known = match duration {
                    Some(known) => *known,
                    None => *duration.insert(nanos(view.duration()?)),
                };
                Some(Datum::Duration(known))
            }
            Intrinsic::ChildCount
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent => {
                let tree = view.tree()?;
                let span = view.span_at(&self.reader, row)?;
                span.map(|span| Datum::Int(tree.number(intrinsic, span)))
            }
            _ => None,
        })
    }
}
