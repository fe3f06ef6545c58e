//! Metrics queries that validation lets pass.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::attribute_fields;
use super::expression::{comparisons, number_fields};
use super::pipeline::{filters, straight};
use crate::traceql::ast::{Arithmetic, Field, FirstStage, Intrinsic, Metrics, OverTime, Pipeline, SecondStage, Stage};
use crate::traceql::value::Value;

fn measured() -> BoxedStrategy<Field> {
    prop_oneof![
        2 => Just(Field::Intrinsic(Intrinsic::Duration)),
        2 => number_fields(),
        1 => attribute_fields(),
    ]
    .boxed()
}

fn groups() -> BoxedStrategy<Vec<Field>> {
    use Intrinsic::{EventName, Kind, Name, RootName, RootServiceName, Status, StatusMessage};
    let intrinsics = select(vec![Name, Status, Kind, RootName, RootServiceName, StatusMessage, EventName]);
    let fields = prop_oneof![3 => attribute_fields().boxed(), 2 => intrinsics.prop_map(Field::Intrinsic).boxed()];
    prop_oneof![2 => Just(Vec::new()), 3 => vec(fields, 1..4).prop_map(|mut fields| {
        fields.sort();
        fields.dedup();
        fields
    })]
    .boxed()
}

fn functions() -> BoxedStrategy<OverTime> {
    prop_oneof![
        2 => Just(OverTime::Rate),
        2 => Just(OverTime::Count),
        1 => measured().prop_map(OverTime::Min),
        1 => measured().prop_map(OverTime::Max),
        1 => measured().prop_map(OverTime::Avg),
        1 => measured().prop_map(OverTime::Sum),
        1 => measured().prop_map(OverTime::Histogram),
        1 => (measured(), select(vec![vec![0.5], vec![0.9, 0.5], vec![0.0, 1.0]]))
            .prop_map(|(field, quantiles)| OverTime::Quantile(field, quantiles)),
    ]
    .boxed()
}

fn series() -> BoxedStrategy<Metrics> {
    let one = filters().prop_map(|filter| Pipeline { stages: vec![Stage::Spanset(filter)] });
    let ungrouped = straight()
        .prop_filter("several spansets", |pipeline| !pipeline.stages.iter().any(|stage| matches!(stage, Stage::By(_))));
    (prop_oneof![3 => one, 1 => ungrouped], functions(), groups())
        .prop_map(|(pipeline, function, by)| Metrics::Series { pipeline, first: FirstStage::Over { function, by } })
        .boxed()
}

fn second_stages() -> BoxedStrategy<SecondStage> {
    prop_oneof![
        (1..4_i64).prop_map(SecondStage::TopK),
        (1..4_i64).prop_map(SecondStage::BottomK),
        (comparisons(), (0..4_i64).prop_map(Value::Int)).prop_map(|(op, value)| SecondStage::Filter(op, value)),
        (comparisons(), select(vec![0.5, 1.5]).prop_map(Value::Float))
            .prop_map(|(op, value)| SecondStage::Filter(op, value)),
    ]
    .boxed()
}

fn staged() -> BoxedStrategy<Metrics> {
    prop_oneof![
        2 => series(),
        1 => (series(), vec(second_stages(), 1..3)).prop_filter("arrays have no order", |(of, _)| !by_arrays(of))
            .prop_map(|(of, stages)| Metrics::Staged { of: Box::new(of), stages }),
    ]
    .boxed()
}

fn by_arrays(metrics: &Metrics) -> bool {
    let Metrics::Series { first: FirstStage::Over { by, .. }, .. } = metrics else { return false };
    by.iter().any(|field| matches!(field, Field::Attribute(attribute) if attribute.name == "l"))
}

fn arithmetic() -> impl Strategy<Value = Arithmetic> {
    select(vec![Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply, Arithmetic::Divide])
}

fn compared() -> BoxedStrategy<Metrics> {
    let one = filters().prop_map(|filter| Pipeline { stages: vec![Stage::Spanset(filter)] });
    (one, filters())
        .prop_map(|(pipeline, selection)| Metrics::Series {
            pipeline,
            // More than any field has distinct values: which of equally frequent ones are left out is not compared.
            first: FirstStage::Compare { selection, top: Some(1000), window: None },
        })
        .boxed()
}

pub fn metrics() -> BoxedStrategy<Metrics> {
    let binary = |op: Arithmetic, left: Metrics, right: Metrics| Metrics::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    };
    let constants = select(vec![0_i64, 2, 100]).prop_map(|value| Metrics::Constant(Value::Int(value)));
    prop_oneof![
        6 => staged(),
        2 => (arithmetic(), staged(), staged()).prop_map(move |(op, left, right)| binary(op, left, right)),
        1 => (arithmetic(), staged(), constants.clone()).prop_map(move |(op, left, right)| binary(op, left, right)),
        1 => (arithmetic(), constants, staged()).prop_map(move |(op, left, right)| binary(op, left, right)),
        1 => compared(),
    ]
    .boxed()
}
