//! Which rows of a segment a `{ ... }` takes.
//!
//! In: an expression, compiled once per query, and segments. Out: for each segment the set of its rows for which the
//! expression is true.
//!
//! ```text
//! expression ─▶ Filter ─┬▶ column     the dictionary says which codes pass; codes are read only if any does
//!                       ├▶ times      compared as they stand; bounds of the segment may decide for all rows
//!                       ├▶ traced     what belongs to the whole trace, computed once per trace with rows still alive
//!                       └▶ row        everything else, span by span, for rows still alive
//! ```
//!
//! ```text
//! let filter = Filter::compile(expression)?;              // once
//! let scan = Scan::new(source, control);                  // once per thread
//! let reader = scan.reader(&segment);                     // per segment; it remembers columns: use it for more
//! let mask = filter.mask(&scan, &reader)?;
//! ```
//!
//! Invariants: a missing attribute and a value of another type pass no comparison, `!=` and `!~` included; what is dear is
//! asked only of rows that the cheap conditions left.

mod codes;
mod compile;
pub mod row;
mod test;
mod traced;

use std::rc::Rc;

pub use codes::{CodeSet, present};
pub use test::Test;

use super::ast::{Comparison, Expression, Field, Intrinsic};
use super::column::Cell;
use super::datum::{Datum, Scalar, nanos, scalars_compare};
use super::error::Invalid;
use super::mask::Mask;
use super::reader::{Reader, Scan};
use super::segment::{Column, Parent, SKETCH_ANY, SegmentError};
use super::value::Value;
use crate::otlp::{SpanId, TraceId};
use row::RowExpression;
#[cfg(test)]
pub use test::LOOKS;

/// Rows of slow work between two looks at whether the query is to end.
const ROWS_BETWEEN_CHECKS: usize = 1024;

/// Ids of spans are read trace by trace if fewer than one row in so many is asked for, else all at once.
const IDS_AT_ONCE: usize = 4;

/// A compiled expression over single spans.
#[derive(Debug, Clone)]
pub struct Filter {
    node: Node,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    All,
    None,
    /// The cheap ones first.
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    /// A field with a column passes a test.
    Column {
        field: Field,
        test: Test,
    },
    /// An attribute without scope passes a test, where it is found first.
    Scopes {
        fields: Vec<Field>,
        test: Test,
    },
    Duration(Test),
    /// It has no parent.
    Root,
    Trace(TraceId),
    Span {
        /// `None`: it has no parent.
        id: Option<SpanId>,
        /// The id of the parent is meant.
        of_parent: bool,
    },
    /// What depends on the whole trace.
    Traced {
        intrinsic: Intrinsic,
        test: Test,
    },
    Row(RowExpression),
}

impl Filter {
    /// `None` is `{}`, which takes every span.
    ///
    /// # Errors
    /// A regular expression is wrong or too large.
    pub fn compile(expression: Option<&Expression>) -> Result<Self, Invalid> {
        Ok(Self { node: expression.map_or(Ok(Node::All), compile::compile)? })
    }

    /// The tests that an expression makes of fields that may have several values, one for each event or link: which of
    /// them it is about.
    ///
    /// # Errors
    /// As with [`Filter::compile`].
    pub fn tests_of_many(expression: &Expression, tests: &mut Vec<(Field, Test)>) -> Result<(), Invalid> {
        compile::tests_of_many(expression, tests)
    }

    /// Whether it is known to take every span, so that no mask is needed.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        matches!(self.node, Node::All)
    }

    /// A guess of how many spans it takes, to begin with the filter that takes least: 0 one trace, 10 all.
    #[must_use]
    pub fn breadth(&self) -> u8 {
        self.node.breadth()
    }

    /// The rows for which the expression is true, whenever they start.
    ///
    /// # Errors
    /// The segment cannot be read, or the query is to end.
    pub fn mask(&self, scan: &Scan<'_>, reader: &Rc<Reader>) -> Result<Mask, SegmentError> {
        self.mask_of(scan, reader, &Mask::all(reader.rows()))
    }

    /// Those of the rows `alive` for which the expression is true.
    ///
    /// # Errors
    /// The segment cannot be read, or the query is to end.
    pub fn mask_of(&self, scan: &Scan<'_>, reader: &Rc<Reader>, alive: &Mask) -> Result<Mask, SegmentError> {
        scan.check()?;
        let mut mask = self.node.mask(&Rows { scan, reader }, alive)?;
        mask.and(alive);
        Ok(mask)
    }
}

impl Node {
    fn and(left: Self, right: Self) -> Self {
        match (left, right) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::All, other) | (other, Self::All) => other,
            (left, right) => {
                let mut nodes = left.into_operands(true);
                nodes.extend(right.into_operands(true));
                nodes.sort_by_key(Self::cost);
                Self::And(nodes)
            }
        }
    }

    fn or(left: Self, right: Self) -> Self {
        match (left, right) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, other) | (other, Self::None) => other,
            (left, right) => {
                let mut nodes = left.into_operands(false);
                nodes.extend(right.into_operands(false));
                nodes.sort_by_key(Self::cost);
                Self::Or(nodes)
            }
        }
    }

    fn not(node: Self) -> Self {
        match node {
            Self::All => Self::None,
            Self::None => Self::All,
            Self::Not(inner) => *inner,
            node => Self::Not(Box::new(node)),
        }
    }

    fn into_operands(self, of_and: bool) -> Vec<Self> {
        match self {
            Self::And(nodes) if of_and => nodes,
            Self::Or(nodes) if !of_and => nodes,
            node => vec![node],
        }
    }

    /// An order of what to ask first.
    fn cost(&self) -> u8 {
        match self {
            Self::All | Self::None | Self::Trace(_) => 0,
            Self::Column { .. } => 1,
            Self::Duration(_) | Self::Root => 2,
            Self::Scopes { .. } => 3,
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().map(Self::cost).max().unwrap_or(0),
            Self::Not(node) => node.cost(),
            Self::Traced { .. } => 4,
            Self::Span { .. } => 5,
            Self::Row(_) => 6,
        }
    }

    fn breadth(&self) -> u8 {
        match self {
            Self::None | Self::Trace(_) | Self::Span { .. } => 0,
            Self::Column { test, .. } | Self::Scopes { test, .. } => match test {
                Test::Compare(Comparison::Equal, Value::String(_)) => 1,
                Test::Matches { negated: false, .. } => 2,
                Test::Compare(Comparison::Equal, _) => 3,
                Test::Compare(Comparison::NotEqual, _) | Test::Matches { .. } | Test::Exists => 8,
                Test::Compare(..) | Test::Is(_) => 4,
            },
            Self::Duration(_) | Self::Root | Self::Traced { .. } | Self::Row(_) => 5,
            Self::And(nodes) => nodes.iter().map(Self::breadth).min().unwrap_or(10),
            Self::Or(nodes) => nodes.iter().map(Self::breadth).max().unwrap_or(0),
            Self::Not(_) => 8,
            Self::All => 10,
        }
    }

    /// Whether dictionaries show that no row passes, which costs next to nothing to see.
    fn is_excluded(&self, rows: &Rows<'_, '_>) -> Result<bool, SegmentError> {
        let excluded = |field: &Field, test: &Test| {
            Ok(match rows.reader.column(field)? {
                Column::Absent => true,
                Column::Listed(dictionary) => matches!(test, Test::Compare(..)) && test.codes(&dictionary).is_empty(),
                Column::Unlisted { .. } => false,
            })
        };
        match self {
            Self::None => Ok(true),
            Self::Column { field, test } => excluded(field, test),
            Self::Scopes { fields, test } => every(fields, |field| excluded(field, test)),
            Self::Or(nodes) => every(nodes, |node| node.is_excluded(rows)),
            Self::And(nodes) => Ok(!every(nodes, |node| Ok(!node.is_excluded(rows)?))?),
            _ => Ok(false),
        }
    }

    /// Rows that are not alive may be in the answer or not.
    fn mask(&self, rows: &Rows<'_, '_>, alive: &Mask) -> Result<Mask, SegmentError> {
        match self {
            Self::All => Ok(Mask::all(alive.rows())),
            Self::None => Ok(Mask::none(alive.rows())),
            Self::And(nodes) => {
                if self.is_excluded(rows)? {
                    return Ok(Mask::none(alive.rows()));
                }
                let mut alive = alive.clone();
                let mut later = Vec::new();
                for node in nodes {
                    if alive.is_empty() {
                        return Ok(alive);
                    }
                    if node.is_dear(rows)? {
                        later.push(node);
                    } else {
                        alive.and(&node.mask(rows, &alive)?);
                    }
                }
                for node in later {
                    if alive.is_empty() {
                        break;
                    }
                    alive.and(&node.mask(rows, &alive)?);
                }
                Ok(alive)
            }
            Self::Or(nodes) => {
                let mut found = Mask::none(alive.rows());
                let mut alive = alive.clone();
                for node in nodes {
                    let mut mask = node.mask(rows, &alive)?;
                    mask.and(&alive);
                    alive.and_not(&mask);
                    found.or(&mask);
                    if alive.is_empty() {
                        break;
                    }
                }
                Ok(found)
            }
            Self::Not(node) => {
                let mut mask = node.mask(rows, alive)?;
                mask.invert();
                Ok(mask)
            }
            Self::Column { field, test } => rows.column(field, test, alive),
            Self::Scopes { fields, test } => rows.scopes(fields, test, alive),
            Self::Duration(test) => rows.durations(test),
            Self::Root => Ok(Mask::of(rows.reader.parents()?, |parent| parent == Parent::Root)),
            Self::Trace(id) => {
                let traces = rows.reader.traces()?;
                let mut mask = Mask::none(alive.rows());
                if let Some(trace) = traces.position(*id) {
                    mask.set_range(traces.rows(trace));
                }
                Ok(mask)
            }
            Self::Span { id, of_parent } => rows.spans(*id, *of_parent, alive),
            Self::Traced { intrinsic, test } => traced::mask(rows, *intrinsic, test, alive),
            Self::Row(expression) => expression.mask(rows.scan, rows.reader, alive),
        }
    }

    /// Whether single values would have to be read from the spans themselves.
    fn is_dear(&self, rows: &Rows<'_, '_>) -> Result<bool, SegmentError> {
        Ok(match self {
            Self::Column { field, test } => {
                !matches!(test, Test::Exists) && matches!(rows.reader.column(field)?, Column::Unlisted { .. })
            }
            Self::Not(node) => node.is_dear(rows)?,
            _ => false,
        })
    }
}

fn every<T>(items: &[T], holds: impl Fn(&T) -> Result<bool, SegmentError>) -> Result<bool, SegmentError> {
    for item in items {
        if !holds(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The segment that a node looks at.
struct Rows<'r, 'a> {
    scan: &'r Scan<'a>,
    reader: &'r Rc<Reader>,
}

impl Rows<'_, '_> {
    fn column(&self, field: &Field, test: &Test, alive: &Mask) -> Result<Mask, SegmentError> {
        match self.reader.column(field)? {
            Column::Absent => Ok(Mask::none(alive.rows())),
            Column::Listed(dictionary) => {
                let codes = test.codes(&dictionary);
                if codes.is_empty() {
                    return Ok(Mask::none(alive.rows()));
                }
                Ok(codes.rows(&self.reader.codes(field)?))
            }
            Column::Unlisted { sketches } => self.unlisted(field, test, &sketches, alive),
        }
    }

    /// Sketches rule out most rows; values of the others are read.
    fn unlisted(&self, field: &Field, test: &Test, sketches: &[u16], alive: &Mask) -> Result<Mask, SegmentError> {
        let (mut found, mut doubtful) = match (test, test.sketch()) {
            (Test::Exists, _) => return Ok(Mask::of(sketches, |sketch| sketch != 0)),
            (Test::Compare(Comparison::NotEqual, Value::String(literal)), _) => {
                let equal = super::segment::sketch(literal);
                let found = Mask::of(sketches, |sketch| (sketch != 0) & (sketch != equal) & (sketch != SKETCH_ANY));
                (found, Mask::of(sketches, |sketch| (sketch == equal) | (sketch == SKETCH_ANY)))
            }
            (_, Some(wanted)) => {
                let doubtful = Mask::of(sketches, |sketch| (sketch == wanted) | (sketch == SKETCH_ANY));
                (Mask::none(alive.rows()), doubtful)
            }
            (_, None) => (Mask::none(alive.rows()), Mask::of(sketches, |sketch| sketch != 0)),
        };
        doubtful.and(alive);
        for (count, row) in doubtful.iter().enumerate() {
            if count % ROWS_BETWEEN_CHECKS == 0 {
                self.scan.check()?;
            }
            let value = self.reader.cell(field, row)?;
            let passes = value.is_some_and(|cell| match cell {
                Cell::One(value) => test.passes(&value.into()),
                Cell::Many(values) => test.passes(&Datum::Many(values)),
            });
            if passes {
                found.set(row);
            }
        }
        Ok(found)
    }

    fn scopes(&self, fields: &[Field], test: &Test, alive: &Mask) -> Result<Mask, SegmentError> {
        let mut there = Vec::with_capacity(fields.len());
        for field in fields {
            if !matches!(self.reader.column(field)?, Column::Absent) {
                there.push(field);
            }
        }
        let mut found = Mask::none(alive.rows());
        let mut open = alive.clone();
        while let Some((field, others)) = there.split_first() {
            let (field, others) = (*field, others.to_vec());
            let mut mask = self.column(field, test, &open)?;
            mask.and(&open);
            found.or(&mask);
            if !others.is_empty() {
                open.and_not(&self.column(field, &Test::Exists, &open)?);
                if open.is_empty() {
                    break;
                }
            }
            there = others;
        }
        Ok(found)
    }

    fn durations(&self, test: &Test) -> Result<Mask, SegmentError> {
        let rows = self.reader.rows();
        let (op, literal) = match test {
            Test::Exists => return Ok(Mask::all(rows)),
            Test::Compare(op, literal) => (*op, literal),
            Test::Matches { .. } | Test::Is(_) => return Ok(Mask::none(rows)),
        };
        match literal {
            Value::Int(literal) | Value::Duration(literal) => {
                let Some((lowest, highest)) = bounds(op, *literal) else { return Ok(Mask::none(rows)) };
                let times = self.reader.segment().times();
                let mut mask = if times.max_duration < lowest || highest < times.min_duration {
                    Mask::none(rows)
                } else if lowest <= times.min_duration && times.max_duration <= highest {
                    Mask::all(rows)
                } else {
                    let width = highest - lowest;
                    Mask::of(self.reader.durations()?, |duration| duration.wrapping_sub(lowest) <= width)
                };
                if op == Comparison::NotEqual {
                    mask.invert();
                }
                Ok(mask)
            }
            Value::Float(literal) => {
                let passes = |duration: u64| scalars_compare(op, Scalar::Int(nanos(duration)), Scalar::Float(*literal));
                Ok(Mask::of(self.reader.durations()?, passes))
            }
            _ => Ok(Mask::none(rows)),
        }
    }

    fn spans(&self, wanted: Option<SpanId>, of_parent: bool, alive: &Mask) -> Result<Mask, SegmentError> {
        let mut mask = Mask::none(alive.rows());
        let mut look = |first: usize, ids: Vec<super::segment::Ids>| {
            for (row, ids) in (first..).zip(ids) {
                if wanted == if of_parent { ids.parent } else { Some(ids.span) } {
                    mask.set(row);
                }
            }
        };
        if alive.count() >= self.reader.rows() / IDS_AT_ONCE {
            look(0, self.reader.span_ids(0..self.reader.rows())?);
        } else {
            let traces = self.reader.traces()?;
            for trace in (0..traces.len()).filter(|trace| alive.any(traces.rows(*trace))) {
                self.scan.check()?;
                let rows = traces.rows(trace);
                look(rows.start, self.reader.span_ids(rows)?);
            }
        }
        Ok(mask)
    }
}

/// The durations for which a comparison holds, both included; for `!=` those for which it does not. `None` if for none.
fn bounds(op: Comparison, literal: i64) -> Option<(u64, u64)> {
    let Ok(literal) = u64::try_from(literal) else {
        // Every duration is above a negative number.
        return matches!(op, Comparison::Greater | Comparison::GreaterOrEqual).then_some((0, u64::MAX)).or_else(|| {
            // An empty range, to be inverted.
            (op == Comparison::NotEqual).then_some((u64::MAX, u64::MAX))
        });
    };
    match op {
        Comparison::Equal | Comparison::NotEqual => Some((literal, literal)),
        Comparison::Less => literal.checked_sub(1).map(|below| (0, below)),
        Comparison::LessOrEqual => Some((0, literal)),
        Comparison::Greater => literal.checked_add(1).map(|above| (above, u64::MAX)),
        Comparison::GreaterOrEqual => Some((literal, u64::MAX)),
    }
}

#[cfg(test)]
mod tests;
