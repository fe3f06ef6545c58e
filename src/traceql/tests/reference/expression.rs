//! What an expression says about one span.

use std::cell::RefCell;
use std::collections::HashMap;

use regex::Regex;

use super::super::spans::{Attributes, Span};
use super::tree::Tree;
use crate::traceql::ast::{Arithmetic, Attribute, Comparison, Expression, Field, Intrinsic, Operator, Scope, Unary};
use crate::traceql::value::Value;

/// A value of a span: none, one, or one for each event or link that has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    Nil,
    One(Value),
    /// Never empty.
    Many(Vec<Value>),
}

impl Term {
    fn values(&self) -> &[Value] {
        match self {
            Self::Nil => &[],
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }

    /// Where only one value can be used: that of the first event or link.
    pub fn first(self) -> Option<Value> {
        self.values().first().cloned()
    }

    /// Everything but `true` is as good as false.
    pub fn is_true(&self) -> bool {
        self.values().contains(&Value::Bool(true))
    }
}

pub fn evaluate(expression: &Expression, tree: &Tree, span: usize) -> Term {
    match expression {
        Expression::Literal(value) => Term::One(value.clone()),
        Expression::Pattern(pattern) => Term::One(Value::String(pattern.text().clone())),
        Expression::Field(field) => field_of(field, tree, span),
        Expression::Exists { operand, exists } => {
            let found = evaluate(operand, tree, span) != Term::Nil;
            Term::One(Value::Bool(found == *exists))
        }
        Expression::Unary { op, operand } => {
            let Some(value) = evaluate(operand, tree, span).first() else { return Term::Nil };
            match (op, value) {
                (Unary::Not, Value::Bool(value)) => Term::One(Value::Bool(!value)),
                (Unary::Negate, Value::Int(value)) => Term::One(Value::Int(value.wrapping_neg())),
                (Unary::Negate, Value::Float(value)) => Term::One(Value::Float(-value)),
                (Unary::Negate, Value::Duration(value)) => Term::One(Value::Duration(value.wrapping_neg())),
                _ => Term::Nil,
            }
        }
        Expression::Binary { op, left, right } => {
            let (left_term, right_term) = (evaluate(left, tree, span), evaluate(right, tree, span));
            match op {
                Operator::And => Term::One(Value::Bool(left_term.is_true() && right_term.is_true())),
                Operator::Or => Term::One(Value::Bool(left_term.is_true() || right_term.is_true())),
                Operator::Arithmetic(op) => match (left_term.first(), right_term.first()) {
                    (Some(left), Some(right)) => arithmetic(*op, &left, &right).map_or(Term::Nil, Term::One),
                    _ => Term::Nil,
                },
                Operator::Comparison(op) => {
                    let as_ids = is_id(left) || is_id(right);
                    Term::One(Value::Bool(any_pair(&left_term, &right_term, |left, right| {
                        if as_ids { compare_ids(*op, left, right) } else { compare(*op, left, right) }
                    })))
                }
                Operator::Matches => Term::One(Value::Bool(any_pair(&left_term, &right_term, |text, pattern| {
                    matches(text, pattern, true)
                }))),
                Operator::MatchesNot => Term::One(Value::Bool(any_pair(&left_term, &right_term, |text, pattern| {
                    matches(text, pattern, false)
                }))),
            }
        }
    }
}

/// With several events or links, one that fits is enough.
fn any_pair(left: &Term, right: &Term, holds: impl Fn(&Value, &Value) -> bool) -> bool {
    left.values().iter().any(|left| right.values().iter().any(|right| holds(left, right)))
}

/// Of an array, one element is enough; except that "not" has to hold for all.
pub fn compare(op: Comparison, left: &Value, right: &Value) -> bool {
    let elements = |values: &[Value], holds: &dyn Fn(&Value) -> bool| {
        if op == Comparison::NotEqual { values.iter().all(holds) } else { values.iter().any(holds) }
    };
    match (left, right) {
        (Value::Array(_), Value::Array(_)) => false,
        (Value::Array(values), right) => {
            comparable(&values[0], right) && elements(values, &|left| compare(op, left, right))
        }
        (left, Value::Array(values)) => {
            comparable(left, &values[0]) && elements(values, &|right| compare(op, left, right))
        }
        (left, right) => comparable(left, right) && ordered(op, left, right),
    }
}

fn comparable(left: &Value, right: &Value) -> bool {
    let numeric = |value: &Value| matches!(value, Value::Int(_) | Value::Float(_) | Value::Duration(_));
    (numeric(left) && numeric(right)) || std::mem::discriminant(left) == std::mem::discriminant(right)
}

fn ordered(op: Comparison, left: &Value, right: &Value) -> bool {
    let ordering = match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        (Value::Int(left) | Value::Duration(left), Value::Int(right) | Value::Duration(right)) => Some(left.cmp(right)),
        (Value::Bool(_) | Value::Status(_) | Value::Kind(_), _) => {
            return match op {
                Comparison::Equal => left == right,
                Comparison::NotEqual => left != right,
                _ => false,
            };
        }
        _ => as_float(left).partial_cmp(&as_float(right)),
    };
    match op {
        Comparison::Equal => ordering.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::NotEqual => ordering.is_none_or(std::cmp::Ordering::is_ne),
        Comparison::Less => ordering.is_some_and(std::cmp::Ordering::is_lt),
        Comparison::LessOrEqual => ordering.is_some_and(std::cmp::Ordering::is_le),
        Comparison::Greater => ordering.is_some_and(std::cmp::Ordering::is_gt),
        Comparison::GreaterOrEqual => ordering.is_some_and(std::cmp::Ordering::is_ge),
    }
}

/// Numbers; what is none is not a number.
pub fn as_float(value: &Value) -> f64 {
    match value {
        Value::Int(int) | Value::Duration(int) => *int as f64,
        Value::Float(float) => *float,
        _ => f64::NAN,
    }
}

fn matches(text: &Value, pattern: &Value, wanted: bool) -> bool {
    let Value::String(pattern) = pattern else { return false };
    let fits = |value: &Value| matches!(value, Value::String(text) if is_match(pattern, text) == wanted);
    match text {
        Value::Array(values) if wanted => values.iter().any(fits),
        Value::Array(values) => values.iter().all(fits),
        value => fits(value),
    }
}

/// Whether the whole text fits.
fn is_match(pattern: &str, text: &str) -> bool {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let regex =
            compiled.entry(pattern.to_string()).or_insert_with(|| Regex::new(&format!("^(?s:{pattern})$")).unwrap());
        regex.is_match(text)
    })
}

fn arithmetic(op: Arithmetic, left: &Value, right: &Value) -> Option<Value> {
    let numeric = |value: &Value| matches!(value, Value::Int(_) | Value::Float(_) | Value::Duration(_));
    if !numeric(left) || !numeric(right) {
        return None;
    }
    if let (Value::Int(left), Value::Int(right)) = (left, right) {
        return match op {
            Arithmetic::Add => Some(left.wrapping_add(*right)),
            Arithmetic::Subtract => Some(left.wrapping_sub(*right)),
            Arithmetic::Multiply => Some(left.wrapping_mul(*right)),
            Arithmetic::Divide => left.checked_div(*right),
            Arithmetic::Modulo => left.checked_rem(*right),
            Arithmetic::Power => Some((*left as f64).powf(*right as f64) as i64),
        }
        .map(Value::Int);
    }
    let (left, right) = (as_float(left), as_float(right));
    Some(Value::Float(match op {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
        Arithmetic::Modulo => left % right,
        Arithmetic::Power => left.powf(right),
    }))
}

fn is_id(expression: &Expression) -> bool {
    use Intrinsic::{LinkSpanId, LinkTraceId, ParentId, SpanId, TraceId};
    matches!(expression, Expression::Field(Field::Intrinsic(TraceId | SpanId | ParentId | LinkTraceId | LinkSpanId)))
}

/// Ids are the same however they are written: in capitals, with zeros in front or without.
fn compare_ids(op: Comparison, left: &Value, right: &Value) -> bool {
    let (Value::String(left), Value::String(right)) = (left, right) else { return false };
    let plain = |id: &str| id.trim_start_matches('0').to_lowercase();
    match op {
        Comparison::Equal => plain(left) == plain(right),
        Comparison::NotEqual => plain(left) != plain(right),
        _ => false,
    }
}

/// What a span has for a field.
pub fn field_of(field: &Field, tree: &Tree, index: usize) -> Term {
    let span = &tree.spans[index];
    match field {
        Field::Attribute(Attribute { scope: Some(scope), name, .. }) => attribute_of(*scope, name, span),
        Field::Attribute(Attribute { scope: None, name, .. }) => Scope::ALL
            .into_iter()
            .map(|scope| attribute_of(scope, name, span))
            .find(|term| *term != Term::Nil)
            .unwrap_or(Term::Nil),
        Field::Intrinsic(intrinsic) => intrinsic_of(*intrinsic, tree, index),
    }
}

fn attribute_of(scope: Scope, name: &str, span: &Span) -> Term {
    let one = |attributes: &Attributes| attributes.get(name).cloned().map_or(Term::Nil, Term::One);
    match scope {
        Scope::Span => one(&span.attributes),
        Scope::Resource => one(&span.resource),
        Scope::Instrumentation => one(&span.scope.attributes),
        Scope::Event => many(span.events.iter().filter_map(|event| event.attributes.get(name).cloned())),
        Scope::Link => many(span.links.iter().filter_map(|link| link.attributes.get(name).cloned())),
    }
}

fn intrinsic_of(intrinsic: Intrinsic, tree: &Tree, index: usize) -> Term {
    let span = &tree.spans[index];
    let text = |text: &str| Value::from(text);
    let value = match intrinsic {
        Intrinsic::Duration => Value::Duration(span.duration as i64),
        Intrinsic::Name => text(&span.name),
        Intrinsic::Status => Value::Status(span.status),
        Intrinsic::StatusMessage => text(&span.message),
        Intrinsic::Kind => Value::Kind(span.kind),
        Intrinsic::ChildCount => Value::Int(tree.child_count(index)),
        Intrinsic::SpanId => text(&span.id.to_string()),
        Intrinsic::ParentId => text(&span.parent.map(|parent| parent.to_string()).unwrap_or_default()),
        Intrinsic::TraceId => text(&tree.id.to_string()),
        Intrinsic::TraceDuration => Value::Duration(tree.duration() as i64),
        Intrinsic::RootName => text(&tree.root().map(|root| root.name.to_string()).unwrap_or_default()),
        Intrinsic::RootServiceName => text(&tree.root().map(|root| root.service.to_string()).unwrap_or_default()),
        Intrinsic::NestedSetLeft => Value::Int(tree.sets[index].left),
        Intrinsic::NestedSetRight => Value::Int(tree.sets[index].right),
        Intrinsic::NestedSetParent => Value::Int(tree.sets[index].parent),
        Intrinsic::InstrumentationName => text(&span.scope.name),
        Intrinsic::InstrumentationVersion => text(&span.scope.version),
        Intrinsic::EventName => return many(span.events.iter().map(|event| text(&event.name))),
        Intrinsic::EventTimeSinceStart => {
            return many(span.events.iter().map(|event| Value::Duration(event.since_start)));
        }
        Intrinsic::LinkTraceId => return many(span.links.iter().map(|link| text(&link.trace.to_string()))),
        Intrinsic::LinkSpanId => return many(span.links.iter().map(|link| text(&link.span.to_string()))),
        Intrinsic::Parent => return Term::Nil,
    };
    Term::One(value)
}

fn many(values: impl Iterator<Item = Value>) -> Term {
    let values: Vec<Value> = values.collect();
    if values.is_empty() { Term::Nil } else { Term::Many(values) }
}
