//! Expressions over one span that validation lets pass.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use super::{
    BEGIN, attribute, attribute_fields, bools, durations, floats, ints, kinds, service, span_names, statuses, strings,
    value_of,
};
use crate::traceql::ast::{Arithmetic, Attribute, Comparison, Expression, Field, Intrinsic, Operator, Scope, Unary};
use crate::traceql::pattern::Pattern;
use crate::traceql::value::Value;

pub fn literal(value: Value) -> Expression {
    Expression::Literal(value)
}

pub fn field(field: Field) -> Expression {
    Expression::Field(field)
}

fn intrinsic(intrinsic: Intrinsic) -> Expression {
    Expression::Field(Field::Intrinsic(intrinsic))
}

fn binary(op: Operator, left: Expression, right: Expression) -> Expression {
    Expression::Binary { op, left: Box::new(left), right: Box::new(right) }
}

pub fn comparisons() -> impl Strategy<Value = Comparison> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    select(vec![Equal, Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual])
}

fn equalities() -> impl Strategy<Value = Comparison> {
    select(vec![Comparison::Equal, Comparison::Equal, Comparison::NotEqual])
}

/// What a condition may compare with a value.
fn comparison_for(value: &Value) -> BoxedStrategy<Comparison> {
    match value {
        Value::Bool(_) | Value::Status(_) | Value::Kind(_) => equalities().boxed(),
        _ => comparisons().boxed(),
    }
}

/// `field op value`, at times the other way round.
fn compared(
    fields: impl Strategy<Value = Field>,
    values: impl Strategy<Value = Value>,
) -> impl Strategy<Value = Expression> {
    let sides = (fields, values, prop::bool::weighted(0.1));
    sides
        .prop_flat_map(|(left, value, swapped)| (comparison_for(&value), Just(left), Just(value), Just(swapped)))
        .prop_map(|(op, left, value, swapped)| {
            let (left, right) = (field(left), literal(value));
            let (left, right) = if swapped { (right, left) } else { (left, right) };
            binary(Operator::Comparison(op), left, right)
        })
}

fn duration_values() -> impl Strategy<Value = Value> {
    durations().prop_map(|nanos| Value::Duration(nanos as i64))
}

fn attribute_conditions() -> BoxedStrategy<Expression> {
    let like_it = attribute_fields().prop_flat_map(|of| {
        let value = match &of {
            Field::Attribute(Attribute { name, .. }) if name == "service.name" => service().boxed(),
            Field::Attribute(Attribute { name, .. }) if name == "l" => {
                prop_oneof![strings(), ints(), floats(), bools()].boxed()
            }
            Field::Attribute(Attribute { name, .. }) => value_of(name),
            Field::Intrinsic(_) => strings().boxed(),
        };
        compared(Just(of), value)
    });
    let whatever =
        prop_oneof![strings(), ints(), floats(), bools(), duration_values(), statuses().prop_map(Value::Status)];
    prop_oneof![6 => like_it, 1 => compared(attribute_fields(), whatever)].boxed()
}

fn regexes() -> BoxedStrategy<Expression> {
    let texts = prop_oneof![
        attribute_fields(),
        select(vec![
            Intrinsic::Name,
            Intrinsic::RootName,
            Intrinsic::RootServiceName,
            Intrinsic::EventName,
            Intrinsic::StatusMessage
        ])
        .prop_map(Field::Intrinsic),
    ];
    let patterns =
        select(vec!["x", "x|y", ".*", ".+", "x.*", "[xz]", "", "GET.*", "shop|bank", "Shop", "(?i)SHOP", "s", "ex.*n"]);
    let op = select(vec![Operator::Matches, Operator::MatchesNot]);
    (op, texts, patterns)
        .prop_map(|(op, text, pattern)| binary(op, field(text), Expression::Pattern(Pattern::new(pattern))))
        .boxed()
}

fn intrinsic_conditions() -> BoxedStrategy<Expression> {
    let of = |intrinsics: Vec<Intrinsic>| select(intrinsics).prop_map(Field::Intrinsic);
    let names = span_names().prop_map(Value::from);
    prop_oneof![
        2 => compared(of(vec![Intrinsic::Duration, Intrinsic::Duration, Intrinsic::TraceDuration]), duration_values()),
        1 => compared(of(vec![Intrinsic::Duration]), ints()),
        2 => compared(of(vec![Intrinsic::Name, Intrinsic::RootName]), names),
        1 => compared(of(vec![Intrinsic::RootServiceName]), service()),
        2 => compared(of(vec![Intrinsic::Status]), statuses().prop_map(Value::Status)),
        2 => compared(of(vec![Intrinsic::Kind]), kinds().prop_map(Value::Kind)),
        1 => compared(of(vec![Intrinsic::StatusMessage]), Just(Value::from("failed"))),
        1 => compared(of(vec![Intrinsic::EventName]), Just(Value::from("exception"))),
        1 => compared(of(vec![Intrinsic::EventTimeSinceStart]), select(vec![0_i64, 1, 1_000_000]).prop_map(Value::Duration)),
        1 => compared(of(vec![Intrinsic::InstrumentationName]), select(vec!["http", ""]).prop_map(Value::from)),
        1 => compared(of(vec![Intrinsic::InstrumentationVersion]), Just(Value::from("1.0"))),
        2 => Just(binary(
            Operator::Comparison(Comparison::Less),
            intrinsic(Intrinsic::NestedSetParent),
            literal(Value::Int(0)),
        )),
        1 => compared(
            of(vec![Intrinsic::NestedSetParent, Intrinsic::NestedSetLeft, Intrinsic::NestedSetRight, Intrinsic::ChildCount]),
            (-1..6_i64).prop_map(Value::Int),
        ),
        1 => ids(),
    ]
    .boxed()
}

/// Ids as people write them.
fn ids() -> BoxedStrategy<Expression> {
    let trace = (1..4_u128, any::<bool>()).prop_map(|(id, high)| {
        let id = id + if high { 1 << 124 } else { 0 };
        (Intrinsic::TraceId, format!("{id:032x}"))
    });
    let short = (1..4_u128).prop_map(|id| (Intrinsic::TraceId, format!("{id:x}")));
    let link = (1..4_u128).prop_map(|id| (Intrinsic::LinkTraceId, format!("{id:032X}")));
    let span = (select(vec![Intrinsic::SpanId, Intrinsic::ParentId, Intrinsic::LinkSpanId]), 1..5_u64)
        .prop_map(|(intrinsic, id)| (intrinsic, format!("{id:016x}")));
    (equalities(), prop_oneof![trace, short, link, span])
        .prop_map(|(op, (id, text))| {
            binary(Operator::Comparison(op), intrinsic(id), literal(Value::String(Arc::from(text))))
        })
        .boxed()
}

fn existence() -> BoxedStrategy<Expression> {
    let fields =
        (select(vec![None, Some(Scope::Span), Some(Scope::Resource), Some(Scope::Event)]), select(&super::NAMES[..]));
    (fields, any::<bool>())
        .prop_map(|((scope, name), exists)| {
            // Of events only `!= nil`: what `= nil` says of spans without events is a matter of taste.
            let exists = exists || scope == Some(Scope::Event) || scope.is_none();
            Expression::Exists { operand: Box::new(field(attribute(scope, name))), exists }
        })
        .boxed()
}

/// Attributes that are numbers wherever they are, in scopes with one value to a span.
pub fn number_fields() -> BoxedStrategy<Field> {
    let attributes = (select(vec![Some(Scope::Span), Some(Scope::Resource)]), select(vec!["n", "f"]))
        .prop_map(|(scope, name)| attribute(scope, name));
    attributes.boxed()
}

/// Numbers made of one span's numbers.
pub fn numbers() -> BoxedStrategy<Expression> {
    let leaf = number_fields().prop_map(field);
    let calculated = (
        select(vec![Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply]),
        number_fields().prop_map(field),
        prop_oneof![number_fields().prop_map(field), ints().prop_map(literal), floats().prop_map(literal)],
    )
        .prop_map(|(op, left, right)| binary(Operator::Arithmetic(op), left, right));
    // By zero, too: as a literal, and where an attribute is 0.
    let divisors = prop_oneof![3 => select(vec![2_i64, 3, 0]).prop_map(|int| literal(int.into())), 1 => number_fields().prop_map(field)];
    let divided = (select(vec![Arithmetic::Divide, Arithmetic::Modulo]), number_fields(), divisors)
        .prop_map(|(op, left, right)| binary(Operator::Arithmetic(op), field(left), right));
    let squared =
        number_fields().prop_map(|of| binary(Operator::Arithmetic(Arithmetic::Power), field(of), literal(2.into())));
    let negated = number_fields().prop_map(|of| Expression::Unary { op: Unary::Negate, operand: Box::new(field(of)) });
    prop_oneof![3 => leaf, 2 => calculated, 1 => divided, 1 => squared, 1 => negated].boxed()
}

fn calculated_conditions() -> BoxedStrategy<Expression> {
    let against_number = (comparisons(), numbers(), prop_oneof![numbers(), ints().prop_map(literal)])
        .prop_map(|(op, left, right)| binary(Operator::Comparison(op), left, right));
    let doubled = (comparisons(), durations()).prop_map(|(op, nanos)| {
        let twice =
            binary(Operator::Arithmetic(Arithmetic::Multiply), intrinsic(Intrinsic::Duration), literal(2.into()));
        binary(Operator::Comparison(op), twice, literal(Value::Duration(nanos as i64)))
    });
    let two_fields = (equalities(), attribute_fields(), attribute_fields())
        .prop_map(|(op, left, right)| binary(Operator::Comparison(op), field(left), field(right)));
    let names = equalities()
        .prop_map(|op| binary(Operator::Comparison(op), intrinsic(Intrinsic::Name), intrinsic(Intrinsic::RootName)));
    prop_oneof![2 => against_number, 1 => doubled, 2 => two_fields, 1 => names].boxed()
}

fn conditions() -> BoxedStrategy<Expression> {
    prop_oneof![
        8 => attribute_conditions(),
        2 => regexes(),
        6 => intrinsic_conditions(),
        2 => existence(),
        2 => calculated_conditions(),
        1 => bools().prop_map(literal),
        1 => select(vec![None, Some(Scope::Span)]).prop_map(|scope| field(attribute(scope, "b"))),
    ]
    .boxed()
}

/// True or false of a span.
pub fn predicates() -> BoxedStrategy<Expression> {
    conditions()
        .prop_recursive(3, 8, 2, |inner| {
            let joined = (select(vec![Operator::And, Operator::And, Operator::Or]), inner.clone(), inner.clone())
                .prop_map(|(op, left, right)| binary(op, left, right));
            let negated = inner
                .prop_filter("not of what may be nothing", |inner| !matches!(inner, Expression::Field(_)))
                .prop_map(|inner| Expression::Unary { op: Unary::Not, operand: Box::new(inner) });
            prop_oneof![6 => joined, 1 => negated]
        })
        .boxed()
}

/// The window of a search or a metrics query, in ticks: rarely not everything.
pub fn windows() -> impl Strategy<Value = (u64, u64)> {
    let tick = |tick: u64| BEGIN + tick * super::TICK;
    prop_oneof![
        4 => Just((BEGIN, tick(super::TICKS))),
        1 => (0..super::TICKS, 1..super::TICKS).prop_map(move |(start, length)| (tick(start), tick(start + length))),
    ]
}
