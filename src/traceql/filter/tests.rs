use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::traceql::ast::{Arithmetic, Attribute, Operator, Scope, Unary};
use crate::traceql::control::Control;
use crate::traceql::pattern::Pattern;
use crate::traceql::segment::Source;
use crate::traceql::tests::memory::Memory;
use crate::traceql::tests::spans::{self, Span, Trace, event, span, trace};
use crate::traceql::value::{Kind, Status};

fn attribute(scope: Option<Scope>, name: &str) -> Field {
    Field::Attribute(Attribute { scope, of_parent: false, name: name.into() })
}

fn of_span(name: &str) -> Field {
    attribute(Some(Scope::Span), name)
}

fn compare(field: Field, op: Comparison, value: impl Into<Value>) -> Expression {
    binary(Operator::Comparison(op), Expression::Field(field), Expression::Literal(value.into()))
}

fn binary(op: Operator, left: Expression, right: Expression) -> Expression {
    Expression::Binary { op, left: Box::new(left), right: Box::new(right) }
}

fn not(operand: Expression) -> Expression {
    Expression::Unary { op: Unary::Not, operand: Box::new(operand) }
}

fn exists(field: Field, exists: bool) -> Expression {
    Expression::Exists { operand: Box::new(Expression::Field(field)), exists }
}

/// Ids of the spans that an expression takes of the first segment.
fn found(memory: &Memory, expression: &Expression) -> Vec<u64> {
    let control = Control::new(Duration::from_secs(60), usize::MAX);
    let scan = Scan::new(memory, &control);
    let reader = scan.reader(&memory.segment(0));
    let mask = Filter::compile(Some(expression)).unwrap().mask(&scan, &reader).unwrap();
    let ids = reader.span_ids(0..reader.rows()).unwrap();
    mask.iter().map(|row| u64::from_be_bytes(ids[row].span.0)).collect()
}

/// Spans of one trace, started one after the other.
fn one_trace(spans: impl IntoIterator<Item = Span>) -> Memory {
    let spans = spans.into_iter().enumerate().map(|(at, mut span)| {
        span.start = at as u64;
        span
    });
    Memory::whole(&[trace(1, spans)])
}

#[test]
fn a_missing_attribute_passes_no_comparison() {
    let memory = one_trace([span(1).attribute("x", "a"), span(2).attribute("x", "b"), span(3)]);
    assert_eq!(found(&memory, &compare(of_span("x"), Comparison::NotEqual, "a")), [2]);
    assert_eq!(found(&memory, &not(compare(of_span("x"), Comparison::Equal, "a"))), [2, 3]);
    assert_eq!(found(&memory, &exists(of_span("x"), true)), [1, 2]);
    assert_eq!(found(&memory, &exists(of_span("x"), false)), [3]);
    let matches = |op| binary(op, Expression::Field(of_span("x")), Expression::Pattern(Pattern::new("a|c")));
    assert_eq!(found(&memory, &matches(Operator::Matches)), [1]);
    assert_eq!(found(&memory, &matches(Operator::MatchesNot)), [2]);
}

#[test]
fn a_value_of_another_type_passes_no_comparison() {
    let memory = one_trace([span(1).attribute("x", 1), span(2).attribute("x", "1"), span(3).attribute("x", true)]);
    assert_eq!(found(&memory, &compare(of_span("x"), Comparison::NotEqual, 2)), [1]);
    assert_eq!(found(&memory, &compare(of_span("x"), Comparison::GreaterOrEqual, "")), [2]);
    assert_eq!(found(&memory, &Expression::Field(of_span("x"))), [3]);
    assert_eq!(found(&memory, &not(Expression::Field(of_span("x")))), [0_u64; 0]);
}

#[test]
fn an_attribute_without_scope_is_the_first_that_is_found() {
    let memory = one_trace([
        span(1).attribute("x", "span").resource("x", "resource"),
        span(2).resource("x", "resource").event(event("e").attribute("x", "event")),
        span(3).event(event("e").attribute("x", "event")),
        span(4),
    ]);
    let of = |value: &str| found(&memory, &compare(attribute(None, "x"), Comparison::Equal, value));
    assert_eq!((of("span"), of("resource"), of("event")), (vec![1], vec![2], vec![3]));
    assert_eq!(found(&memory, &exists(attribute(None, "x"), false)), [4]);
}

#[test]
fn events_without_an_attribute_are_asked_for_only_where_there_are_events() {
    let memory = one_trace([span(1), span(2).event(event("e")), span(3).event(event("e").attribute("x", 1))]);
    assert_eq!(found(&memory, &exists(attribute(Some(Scope::Event), "x"), false)), [2]);
}

#[test]
fn durations_are_decided_by_bounds_or_by_rows() {
    let spans = [5, 10, 20].into_iter().zip(1..).map(|(duration, id)| span(id).lasting(0, duration));
    let memory = Memory::whole(&[trace(1, spans)]);
    let of = |op, value: Value| found(&memory, &compare(Field::Intrinsic(Intrinsic::Duration), op, value));
    assert_eq!(of(Comparison::Greater, Value::Duration(4)), [1, 2, 3]);
    assert_eq!(of(Comparison::Greater, Value::Duration(20)), [0_u64; 0]);
    assert_eq!(of(Comparison::Greater, Value::Duration(-1)), [1, 2, 3]);
    assert_eq!(of(Comparison::Less, Value::Duration(0)), [0_u64; 0]);
    assert_eq!(of(Comparison::NotEqual, Value::Duration(10)), [1, 3]);
    assert_eq!(of(Comparison::NotEqual, Value::Duration(-10)), [1, 2, 3]);
    assert_eq!(of(Comparison::Equal, Value::Float(10.0)), [2]);
    assert_eq!(of(Comparison::LessOrEqual, Value::Float(10.5)), [1, 2]);
}

#[test]
fn what_belongs_to_the_trace_is_known_to_each_of_its_spans() {
    let traces = [
        trace(1, [span(1).named("a").service("shop").lasting(0, 10), span(2).child_of(1).lasting(5, 20)]),
        trace(2, [span(3).child_of(9).lasting(0, 30)]),
    ];
    let expressions = |check: &dyn Fn(Intrinsic, Comparison, Value) -> Vec<u64>| {
        assert_eq!(check(Intrinsic::TraceDuration, Comparison::Equal, Value::Duration(25)), [1, 2]);
        assert_eq!(check(Intrinsic::RootName, Comparison::Equal, "a".into()), [1, 2]);
        assert_eq!(check(Intrinsic::RootServiceName, Comparison::NotEqual, "shop".into()), [3]);
        assert_eq!(check(Intrinsic::NestedSetParent, Comparison::Less, 0.into()), [1]);
        assert_eq!(check(Intrinsic::NestedSetParent, Comparison::Equal, 1.into()), [2]);
        assert_eq!(check(Intrinsic::NestedSetRight, Comparison::Equal, 4.into()), [1]);
        assert_eq!(check(Intrinsic::ChildCount, Comparison::Equal, 1.into()), [1]);
        assert_eq!(check(Intrinsic::TraceId, Comparison::Equal, "002".into()), [3]);
        assert_eq!(check(Intrinsic::TraceId, Comparison::NotEqual, "2".into()), [1, 2]);
        assert_eq!(check(Intrinsic::SpanId, Comparison::Equal, "02".into()), [2]);
        assert_eq!(check(Intrinsic::ParentId, Comparison::Equal, "9".into()), [3]);
    };
    let whole = Memory::whole(&traces);
    expressions(&|intrinsic, op, value| found(&whole, &compare(Field::Intrinsic(intrinsic), op, value)));
    let unsure = Memory::whole(&traces).split_unsure();
    expressions(&|intrinsic, op, value| found(&unsure, &compare(Field::Intrinsic(intrinsic), op, value)));
}

#[test]
fn pieces_elsewhere_count_for_what_belongs_to_the_trace() {
    let traces = [trace(1, [span(1).named("root").lasting(0, 10), span(2).child_of(1).lasting(5, 20)])];
    let memory = Memory::spread(&traces, 2, |_, span| if span == 0 { vec![1] } else { vec![0, 1] });
    let of = |intrinsic, value: Value| found(&memory, &compare(Field::Intrinsic(intrinsic), Comparison::Equal, value));
    assert_eq!(of(Intrinsic::RootName, "root".into()), [2]);
    assert_eq!(of(Intrinsic::TraceDuration, Value::Duration(25)), [2]);
    assert_eq!(of(Intrinsic::NestedSetLeft, 2.into()), [2]);
}

#[test]
fn time_ranges_take_both_ends() {
    let memory = one_trace([span(1), span(2), span(3), span(4)]);
    let control = Control::new(Duration::from_secs(60), usize::MAX);
    let reader = Reader::new(memory.segment(0), &control);
    assert_eq!(reader.within(0, 3).unwrap(), None);
    assert_eq!(reader.within(1, 2).unwrap().unwrap().iter().collect::<Vec<_>>(), [1, 2]);
    assert!(reader.within(4, 9).unwrap().unwrap().is_empty());
    assert!(reader.within(2, 1).unwrap().unwrap().is_empty());
}

#[test]
fn readers_are_kept_while_they_are_used() {
    let memory = Memory::parts(vec![vec![trace(1, [span(1)])], vec![trace(2, [span(2)])]]);
    let control = Control::new(Duration::from_secs(60), usize::MAX);
    let scan = Scan::new(&memory, &control);
    let segments = memory.segments(0, 10);
    let first = scan.reader(&segments[0]);
    let _ = scan.reader(&segments[1]);
    assert!(Rc::ptr_eq(&first, &scan.reader(&segments[0])));
}

const NAMES: [&str; 3] = ["x", "y", "z"];

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => "[a-c]{0,2}".prop_map(|string| Value::from(string.as_str())),
        2 => (-2_i64..3).prop_map(Value::Int),
        1 => (-4_i64..5).prop_map(|half| Value::Float(half as f64 / 2.0)),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => proptest::collection::vec("[a-c]{0,1}", 0..3)
            .prop_map(|strings| Value::Array(strings.iter().map(|string| Value::from(string.as_str())).collect())),
    ]
}

fn attributes() -> impl Strategy<Value = spans::Attributes> {
    let pair = (0..NAMES.len(), any_value()).prop_map(|(name, value)| (NAMES[name].to_owned(), value));
    proptest::collection::vec(pair, 0..3).prop_map(|pairs| pairs.into_iter().collect())
}

fn any_trace() -> impl Strategy<Value = Trace> {
    let parts =
        (attributes(), attributes(), attributes(), 0_u64..5, 0_u64..4, 0..Kind::ALL.len(), 0..Status::ALL.len());
    let one = (parts, proptest::option::of(0_u64..4)).prop_map(|(parts, parent)| {
        let (own, resource, of_event, start, duration, kind, status) = parts;
        let mut span = span(0).lasting(start, duration).kind(Kind::ALL[kind]).status(Status::ALL[status]);
        (span.attributes, span.resource) = (own, resource);
        span.events.extend((!of_event.is_empty()).then(|| spans::Event { attributes: of_event, ..event("e") }));
        span.parent = parent.map(spans::span_id);
        span
    });
    (1_u128..4, proptest::collection::vec(one, 1..5)).prop_map(|(id, spans)| {
        let numbered = spans.into_iter().zip(1..).map(|(mut span, id)| {
            span.id = spans::span_id(id);
            span
        });
        trace(id, numbered)
    })
}

fn any_field() -> impl Strategy<Value = Field> {
    let scope = prop_oneof![
        3 => Just(Some(Scope::Span)),
        2 => Just(Some(Scope::Resource)),
        1 => Just(Some(Scope::Event)),
        2 => Just(None),
    ];
    let intrinsics = [
        Intrinsic::Duration,
        Intrinsic::Kind,
        Intrinsic::Status,
        Intrinsic::TraceDuration,
        Intrinsic::RootName,
        Intrinsic::NestedSetLeft,
        Intrinsic::NestedSetParent,
        Intrinsic::ChildCount,
    ];
    prop_oneof![
        3 => (scope, 0..NAMES.len()).prop_map(|(scope, name)| attribute(scope, NAMES[name])),
        1 => (0..intrinsics.len()).prop_map(move |index| Field::Intrinsic(intrinsics[index])),
    ]
}

fn any_literal() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => any_value().prop_filter("no literal", |value| !matches!(value, Value::Array(_))),
        1 => (-1_i64..4).prop_map(Value::Duration),
        1 => (0..Kind::ALL.len()).prop_map(|kind| Value::Kind(Kind::ALL[kind])),
        1 => (0..Status::ALL.len()).prop_map(|status| Value::Status(Status::ALL[status])),
    ]
}

const COMPARISONS: [Comparison; 6] = [
    Comparison::Equal,
    Comparison::NotEqual,
    Comparison::Less,
    Comparison::LessOrEqual,
    Comparison::Greater,
    Comparison::GreaterOrEqual,
];

fn any_expression() -> impl Strategy<Value = Expression> {
    let comparison = (any_field(), 0..COMPARISONS.len(), any_literal(), any::<bool>()).prop_map(
        |(field, op, literal, literal_first)| {
            let (field, literal) = (Expression::Field(field), Expression::Literal(literal));
            let (left, right) = if literal_first { (literal, field) } else { (field, literal) };
            binary(Operator::Comparison(COMPARISONS[op]), left, right)
        },
    );
    let fields = (any_field(), any_field(), 0..COMPARISONS.len()).prop_map(|(left, right, op)| {
        binary(Operator::Comparison(COMPARISONS[op]), Expression::Field(left), Expression::Field(right))
    });
    let sum = (any_field(), any_field(), -3_i64..4).prop_map(|(left, right, sum)| {
        let left = binary(Operator::Arithmetic(Arithmetic::Add), Expression::Field(left), Expression::Field(right));
        binary(Operator::Comparison(Comparison::Less), left, Expression::Literal(sum.into()))
    });
    let matches = (any_field(), any::<bool>()).prop_map(|(field, negated)| {
        let op = if negated { Operator::MatchesNot } else { Operator::Matches };
        binary(op, Expression::Field(field), Expression::Pattern(Pattern::new("a.?|b")))
    });
    let leaf = prop_oneof![
        6 => comparison,
        1 => fields,
        1 => sum,
        2 => matches,
        1 => any_field().prop_map(Expression::Field),
        1 => any_field().prop_map(|field| exists(field, true)),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(left, right)| binary(Operator::And, left, right)),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| binary(Operator::Or, left, right)),
            inner.prop_map(not),
        ]
    })
}

#[test]
fn a_span_that_came_twice_passes_the_same_filters_both_times() {
    let both = vec![trace(1, [span(1), span(2).child_of(1)])];
    let memory = Memory::parts(vec![both.clone(), both]);
    let control = Control::new(Duration::from_secs(60), usize::MAX);
    let scan = Scan::new(&memory, &control);
    let is_left = compare(Field::Intrinsic(Intrinsic::NestedSetLeft), Comparison::Equal, 1);
    for (expression, row) in [(is_left.clone(), 0), (not(is_left), 1)] {
        for segment in 0..2 {
            let reader = scan.reader(&memory.segment(segment));
            let taken = Filter::compile(Some(&expression)).unwrap().mask(&scan, &reader).unwrap();
            assert_eq!(taken.iter().collect::<Vec<_>>(), [row], "segment {segment}");
        }
    }
}

fn mask(memory: &Memory, filter: impl Fn(&Scan<'_>, &Rc<Reader>) -> Mask) -> Mask {
    let control = Control::new(Duration::from_secs(60), usize::MAX);
    let scan = Scan::new(memory, &control);
    filter(&scan, &scan.reader(&memory.segment(0)))
}

proptest! {
    #[test]
    fn columns_and_span_by_span_agree(
        traces in proptest::collection::vec(any_trace(), 1..4),
        expression in any_expression(),
    ) {
        let filter = Filter::compile(Some(&expression)).unwrap();
        let by_rows = RowExpression::compile(&expression).unwrap();
        let listed = Memory::whole(&traces);
        let all = |reader: &Rc<Reader>| Mask::all(reader.rows());
        let expected = mask(&listed, |scan, reader| by_rows.mask(scan, reader, &all(reader)).unwrap());
        prop_assert_eq!(&mask(&listed, |scan, reader| filter.mask(scan, reader).unwrap()), &expected);

        let fields = NAMES.iter().flat_map(|name| row::scoped(name));
        let unlisted = Memory::whole(&traces).unlisted(fields).split_unsure();
        prop_assert_eq!(&mask(&unlisted, |scan, reader| filter.mask(scan, reader).unwrap()), &expected);
        prop_assert_eq!(&mask(&unlisted, |scan, reader| by_rows.mask(scan, reader, &all(reader)).unwrap()), &expected);
    }
}
