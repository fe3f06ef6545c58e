//! Pipelines that validation lets pass.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::expression::{comparisons, numbers, predicates};
use super::{attribute_fields, durations};
use crate::traceql::ast::{
    Aggregate, Expression, Field, Fold, Form, Intrinsic, Pipeline, Relation, Scalar, Spanset, SpansetOperator, Stage,
};
use crate::traceql::value::Value;

pub fn filters() -> BoxedStrategy<Spanset> {
    prop_oneof![1 => Just(Spanset::Spans(None)), 6 => predicates().prop_map(|filter| Spanset::Spans(Some(filter)))]
        .boxed()
}

fn operators() -> impl Strategy<Value = SpansetOperator> {
    use Relation::{Ancestor, Child, Descendant, Parent, Sibling};
    let structural = (
        select(vec![Child, Parent, Descendant, Ancestor, Sibling]),
        select(vec![Form::Plain, Form::Plain, Form::Negated, Form::Union]),
    )
        .prop_map(|(relation, form)| SpansetOperator::Structural { relation, form });
    prop_oneof![1 => Just(SpansetOperator::And), 1 => Just(SpansetOperator::Or), 4 => structural]
}

fn spansets() -> BoxedStrategy<Spanset> {
    joined(filters())
}

fn joined(leaves: BoxedStrategy<Spanset>) -> BoxedStrategy<Spanset> {
    leaves
        .prop_recursive(2, 4, 2, |inner| {
            (operators(), inner.clone(), inner).prop_map(|(op, left, right)| Spanset::Binary {
                op,
                left: Box::new(left),
                right: Box::new(right),
            })
        })
        .boxed()
}

/// Pipelines as operands. The language has them only where they are the whole query.
fn wrapped() -> BoxedStrategy<Pipeline> {
    let operand = (filters(), vec(stages(), 0..2)).prop_map(|(filter, stages)| {
        let stages = std::iter::once(Stage::Spanset(filter)).chain(stages).collect();
        Spanset::Pipeline(Pipeline { stages })
    });
    let whole = (operators(), joined(operand.boxed()), filters()).prop_map(|(op, left, right)| {
        let right = Spanset::Pipeline(Pipeline { stages: vec![Stage::Spanset(right)] });
        Spanset::Binary { op, left: Box::new(left), right: Box::new(right) }
    });
    whole.prop_map(|whole| Pipeline { stages: vec![Stage::Spanset(whole)] }).boxed()
}

fn aggregates() -> BoxedStrategy<Stage> {
    let number = (0..4_i64).prop_map(|int| Scalar::Literal(Value::Int(int)));
    let count = (comparisons(), number.clone()).prop_map(|(op, right)| Stage::Filter {
        op,
        left: Scalar::Aggregate(Aggregate::Count),
        right,
    });
    let folds = select(vec![Fold::Min, Fold::Max, Fold::Avg, Fold::Sum]);
    let duration = Expression::Field(Field::Intrinsic(Intrinsic::Duration));
    let of_durations = (folds.clone(), comparisons(), durations()).prop_map(move |(fold, op, nanos)| Stage::Filter {
        op,
        left: Scalar::Aggregate(Aggregate::Of(fold, duration.clone())),
        right: Scalar::Literal(Value::Duration(nanos as i64)),
    });
    let of_numbers = (folds, comparisons(), numbers(), number).prop_map(|(fold, op, of, right)| Stage::Filter {
        op,
        left: Scalar::Aggregate(Aggregate::Of(fold, of)),
        right,
    });
    prop_oneof![2 => count, 1 => of_durations, 1 => of_numbers].boxed()
}

pub fn selectable() -> BoxedStrategy<Field> {
    use Intrinsic::{
        ChildCount, Duration, EventName, InstrumentationName, Kind, Name, NestedSetLeft, NestedSetParent,
        NestedSetRight, RootName, RootServiceName, Status, StatusMessage, TraceDuration,
    };
    let intrinsics = select(vec![
        Name,
        Status,
        Kind,
        Duration,
        StatusMessage,
        TraceDuration,
        RootName,
        RootServiceName,
        NestedSetLeft,
        NestedSetRight,
        NestedSetParent,
        ChildCount,
        EventName,
        InstrumentationName,
    ]);
    prop_oneof![attribute_fields().boxed(), intrinsics.prop_map(Field::Intrinsic).boxed()].boxed()
}

fn stages() -> BoxedStrategy<Stage> {
    prop_oneof![
        2 => filters().prop_map(Stage::Spanset),
        3 => aggregates(),
        3 => selectable().prop_map(|by| Stage::By(Expression::Field(by))),
        1 => numbers().prop_map(Stage::By),
        1 => Just(Stage::Coalesce),
        2 => vec(selectable(), 1..4).prop_map(Stage::Select),
    ]
    .boxed()
}

/// Whole queries: these, and what [`straight`] makes.
pub fn pipelines() -> BoxedStrategy<Pipeline> {
    prop_oneof![8 => straight(), 1 => wrapped()].boxed()
}

/// Stages without pipelines inside.
pub fn straight() -> BoxedStrategy<Pipeline> {
    let one = filters().prop_map(Stage::Spanset);
    let first = prop_oneof![2 => one, 3 => spansets().prop_map(Stage::Spanset)];
    let rest = prop_oneof![2 => Just(Vec::new()), 2 => vec(stages(), 1..4)];
    (first, rest).prop_map(|(first, rest)| Pipeline { stages: std::iter::once(first).chain(rest).collect() }).boxed()
}
