//! From an expression to a plan of which columns decide it.

use regex::Regex;

use super::Node;
use super::row::{RowExpression, scoped};
use super::test::Test;
use crate::otlp::{SpanId, TraceId};
use crate::traceql::ast::{Attribute, Comparison, Expression, Field, Intrinsic, Operator, Scope, Unary};
use crate::traceql::datum::{self, Datum};
use crate::traceql::error::Invalid;
use crate::traceql::reader::has_column;
use crate::traceql::value::Value;

pub fn compile(expression: &Expression) -> Result<Node, Invalid> {
    if let Some(constant) = constant(expression) {
        return Ok(if constant.is(true) { Node::All } else { Node::None });
    }
    Ok(match expression {
        Expression::Literal(_) | Expression::Pattern(_) => Node::None,
        Expression::Field(field) => tested(field, Test::Is(true)),
        Expression::Binary { op: Operator::And, left, right } => Node::and(compile(left)?, compile(right)?),
        Expression::Binary { op: Operator::Or, left, right } => Node::or(compile(left)?, compile(right)?),
        Expression::Binary { op: Operator::Comparison(op), left, right } => match (&**left, &**right) {
            (Expression::Field(field), other) => match literal(other) {
                Some(value) => tested(field, Test::Compare(*op, value)),
                None => row(expression)?,
            },
            (other, Expression::Field(field)) => match literal(other) {
                Some(value) => tested(field, Test::Compare(flipped(*op), value)),
                None => row(expression)?,
            },
            _ => row(expression)?,
        },
        Expression::Binary { op: op @ (Operator::Matches | Operator::MatchesNot), left, right } => match &**left {
            Expression::Field(field) => {
                tested(field, Test::Matches { regex: regex(right)?, negated: *op == Operator::MatchesNot })
            }
            _ => row(expression)?,
        },
        // Numbers are not true.
        Expression::Binary { op: Operator::Arithmetic(_), .. } | Expression::Unary { op: Unary::Negate, .. } => {
            Node::None
        }
        Expression::Unary { op: Unary::Not, operand } => match &**operand {
            Expression::Field(field) => tested(field, Test::Is(false)),
            operand if is_definite(operand) => Node::not(compile(operand)?),
            _ => row(expression)?,
        },
        Expression::Exists { operand, exists } => match &**operand {
            Expression::Field(field) if *exists => tested(field, Test::Exists),
            Expression::Field(field) => missing(field),
            _ => row(expression)?,
        },
    })
}

/// The tests that a filter makes of fields that may have a value for each event or link, where it is true if they pass.
pub fn tests_of_many(expression: &Expression, tests: &mut Vec<(Field, Test)>) -> Result<(), Invalid> {
    if let Expression::Binary { op: Operator::And | Operator::Or, left, right } = expression {
        tests_of_many(left, tests)?;
        return tests_of_many(right, tests);
    }
    let mut fields = Vec::new();
    expression.visit_fields(&mut |field| fields.push(field));
    let [field] = fields[..] else { return Ok(()) };
    if may_be_many(field)
        && let Node::Column { test, .. } | Node::Scopes { test, .. } = compile(expression)?
    {
        tests.push((field.clone(), test));
    }
    Ok(())
}

fn may_be_many(field: &Field) -> bool {
    match field {
        Field::Attribute(attribute) => matches!(attribute.scope, None | Some(Scope::Event | Scope::Link)),
        Field::Intrinsic(intrinsic) => matches!(
            intrinsic,
            Intrinsic::EventName | Intrinsic::EventTimeSinceStart | Intrinsic::LinkTraceId | Intrinsic::LinkSpanId
        ),
    }
}

/// Whether an expression is true or false of every span, never nil.
fn is_definite(expression: &Expression) -> bool {
    match expression {
        Expression::Binary { op, .. } => !matches!(op, Operator::Arithmetic(_)),
        Expression::Exists { .. } => true,
        Expression::Unary { op: Unary::Not, operand } => is_definite(operand),
        _ => false,
    }
}

fn row(expression: &Expression) -> Result<Node, Invalid> {
    Ok(Node::Row(RowExpression::compile(expression)?))
}

/// The value of an expression that names no field.
fn constant(expression: &Expression) -> Option<Datum<'static>> {
    match expression {
        Expression::Literal(value) => Some(value.clone().into()),
        Expression::Unary { op: Unary::Negate, operand } => datum::negate(constant(operand)?),
        Expression::Unary { op: Unary::Not, operand } => match constant(operand)? {
            Datum::Bool(bool) => Some(Datum::Bool(!bool)),
            _ => None,
        },
        Expression::Binary { op: Operator::Arithmetic(op), left, right } => {
            datum::calculate(*op, &constant(left)?, &constant(right)?)
        }
        Expression::Binary { op: Operator::Comparison(op), left, right } => {
            Some(Datum::Bool(datum::compare(*op, &constant(left)?, &constant(right)?)))
        }
        _ => None,
    }
}

fn literal(expression: &Expression) -> Option<Value> {
    constant(expression)?.into_value().filter(|value| !matches!(value, Value::Array(_)))
}

/// The pattern of `=~` and `!~`.
pub fn regex(pattern: &Expression) -> Result<Regex, Invalid> {
    match pattern {
        Expression::Pattern(pattern) => pattern.regex().cloned().map_err(|error| Invalid::Regex(error.to_owned())),
        // Validation says it with the text of the query.
        _ => Err(Invalid::RegexType("a string is wanted on the right".into())),
    }
}

fn flipped(op: Comparison) -> Comparison {
    match op {
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        Comparison::Equal | Comparison::NotEqual => op,
    }
}

/// A field that passes a test.
fn tested(field: &Field, test: Test) -> Node {
    match field {
        Field::Attribute(Attribute { of_parent: true, .. }) | Field::Intrinsic(Intrinsic::Parent) => Node::None,
        Field::Attribute(Attribute { scope: Some(_), .. }) => Node::Column { field: field.clone(), test },
        Field::Attribute(Attribute { scope: None, name, .. }) => Node::Scopes { fields: scoped(name).collect(), test },
        Field::Intrinsic(intrinsic) => intrinsic_tested(*intrinsic, test),
    }
}

fn intrinsic_tested(intrinsic: Intrinsic, test: Test) -> Node {
    let field = Field::Intrinsic(intrinsic);
    match (intrinsic, test) {
        (Intrinsic::Duration, test) => Node::Duration(test),
        (Intrinsic::TraceId, Test::Compare(op, Value::String(id))) => {
            equality(op, parse_id(&id).map(TraceId), Node::Trace)
        }
        (Intrinsic::SpanId, Test::Compare(op, Value::String(id))) => {
            equality(op, parse_id(&id).map(SpanId), |id| Node::Span { id: Some(id), of_parent: false })
        }
        (Intrinsic::ParentId, Test::Compare(op, Value::String(id))) if id.is_empty() => {
            equality(op, Some(()), |()| Node::Span { id: None, of_parent: true })
        }
        (Intrinsic::ParentId, Test::Compare(op, Value::String(id))) => {
            equality(op, parse_id(&id).map(SpanId), |id| Node::Span { id: Some(id), of_parent: true })
        }
        (Intrinsic::LinkTraceId, Test::Compare(op, Value::String(id))) => {
            let id = parse_id(&id).map_or(id, |id| TraceId(id).to_string().into());
            Node::Column { field, test: Test::Compare(op, Value::String(id)) }
        }
        (Intrinsic::LinkSpanId, Test::Compare(op, Value::String(id))) => {
            let id = parse_id(&id).map_or(id, |id| SpanId(id).to_string().into());
            Node::Column { field, test: Test::Compare(op, Value::String(id)) }
        }
        (Intrinsic::NestedSetParent, test) => root_tested(&test).unwrap_or(Node::Traced { intrinsic, test }),
        (intrinsic, test) if has_column(intrinsic) => Node::Column { field, test },
        (intrinsic, test) => Node::Traced { intrinsic, test },
    }
}

/// `=` or `!=` with an id; no span has one that cannot be an id.
fn equality<T>(op: Comparison, id: Option<T>, node: impl FnOnce(T) -> Node) -> Node {
    let equal = id.map_or(Node::None, node);
    match op {
        Comparison::Equal => equal,
        Comparison::NotEqual => Node::not(equal),
        _ => Node::None,
    }
}

/// A test that only tells roots (-1) from other spans (0 and above), such as `nestedSetParent < 0`.
fn root_tested(test: &Test) -> Option<Node> {
    let Test::Compare(_, literal @ (Value::Int(_) | Value::Float(_))) = test else { return None };
    let at = |number: i64| test.passes(&Datum::Int(number));
    // The result changes at the literal only: below it, at it, above it.
    let above_zero = match literal {
        Value::Int(int) => *int > 0,
        Value::Float(float) => *float > 0.0,
        _ => true,
    };
    if above_zero || at(0) != at(1) {
        return None;
    }
    Some(match (at(-1), at(0)) {
        (true, true) => Node::All,
        (true, false) => Node::Root,
        (false, true) => Node::not(Node::Root),
        (false, false) => Node::None,
    })
}

/// `field = nil`: of events and links there must be some, of which none has it.
fn missing(field: &Field) -> Node {
    let absent = Node::not(tested(field, Test::Exists));
    let some = |intrinsic| Node::Column { field: Field::Intrinsic(intrinsic), test: Test::Exists };
    match field {
        Field::Attribute(Attribute { scope: Some(Scope::Event), .. }) => Node::and(some(Intrinsic::EventName), absent),
        Field::Attribute(Attribute { scope: Some(Scope::Link), .. }) => Node::and(some(Intrinsic::LinkTraceId), absent),
        _ => absent,
    }
}

/// An id as people write it: hexadecimal, zeros in front may be missing.
fn parse_id<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.is_empty() || text.len() > 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let number = u128::from_str_radix(text, 16).ok()?;
    number.to_be_bytes().last_chunk::<N>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_lack_zeros_in_front() {
        assert_eq!(parse_id::<8>("1F"), Some([0, 0, 0, 0, 0, 0, 0, 0x1f]));
        assert_eq!(parse_id::<8>("00000000000000000"), None);
        assert_eq!(parse_id::<16>("xyz"), None);
        assert_eq!(parse_id::<16>("+1"), None);
    }

    #[test]
    fn roots_are_told_from_others_without_numbers_of_sets() {
        let node = |op, literal| root_tested(&Test::Compare(op, literal));
        assert!(matches!(node(Comparison::Less, Value::Int(0)), Some(Node::Root)));
        assert!(matches!(node(Comparison::Equal, Value::Int(-1)), Some(Node::Root)));
        assert!(matches!(node(Comparison::GreaterOrEqual, Value::Int(0)), Some(Node::Not(_))));
        assert!(matches!(node(Comparison::Less, Value::Int(-1)), Some(Node::None)));
        assert!(node(Comparison::Greater, Value::Int(0)).is_none());
        assert!(node(Comparison::Equal, Value::Int(3)).is_none());
    }
}
