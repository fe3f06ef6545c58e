//! Trees that the parser can make, whether they make sense or not.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::traceql::ast::*;
use crate::traceql::pattern::Pattern;
use crate::traceql::value::{Kind, Status, Value};

pub(super) fn token() -> BoxedStrategy<&'static str> {
    proptest::sample::select(vec![
        "{",
        "}",
        "(",
        ")",
        "|",
        "&&",
        "||",
        "=",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "=~",
        "!~",
        ">>",
        "<<",
        "~",
        "!>",
        "!<",
        "&>",
        "&>>",
        "&~",
        "!",
        "+",
        "-",
        "*",
        "/",
        "%",
        "^",
        ",",
        ".a",
        "span.b",
        "resource.c",
        "parent.",
        "span:",
        "name",
        "duration",
        "status",
        "nil",
        "true",
        "ok",
        "server",
        "1",
        "2.5",
        "10ms",
        "1h30m",
        "\"x\"",
        "`y`",
        "minInt",
        "count()",
        "max(duration)",
        "by(",
        "select(",
        "coalesce()",
        "rate()",
        "quantile_over_time(",
        "topk(3)",
        "with(",
        "foo",
        "{}",
        "({} | rate())",
        "({} | count())",
        "µ",
        "\"",
        "/*",
        "//",
        "\n",
        ";",
        "compare({}",
        "trace:id",
        "id",
    ])
    .boxed()
}

pub(super) fn query() -> BoxedStrategy<Query> {
    let root = prop_oneof![
        4 => pipeline().prop_map(Root::Search),
        1 => piped().prop_map(|set| Root::Search(Pipeline { stages: vec![Stage::Spanset(set)] })),
        1 => piped_filter().prop_map(|stage| Root::Search(Pipeline { stages: vec![stage] })),
        4 => metrics().prop_map(Root::Metrics),
    ];
    (root, vec(hint(), 0..3)).prop_map(|(root, hints)| Query { root, hints }).boxed()
}

pub(super) fn field() -> BoxedStrategy<Field> {
    let name = prop_oneof!["[a-z.]{1,6}", "[ -~]{0,6}", "\\PC{0,4}", Just("span.x".to_owned()), Just("5x".to_owned())];
    let scope = prop_oneof![Just(None), proptest::sample::select(Scope::ALL.to_vec()).prop_map(Some)];
    let attribute =
        (scope, name.clone()).prop_map(|(scope, name)| Field::Attribute(Attribute { scope, of_parent: false, name }));
    let of_parent = (proptest::sample::select(vec![None, Some(Scope::Span), Some(Scope::Resource)]), name)
        .prop_map(|(scope, name)| Field::Attribute(Attribute { scope, of_parent: true, name }));
    let intrinsic = proptest::sample::select(vec![
        Intrinsic::Duration,
        Intrinsic::Name,
        Intrinsic::Status,
        Intrinsic::StatusMessage,
        Intrinsic::Kind,
        Intrinsic::ChildCount,
        Intrinsic::SpanId,
        Intrinsic::ParentId,
        Intrinsic::TraceDuration,
        Intrinsic::RootName,
        Intrinsic::RootServiceName,
        Intrinsic::TraceId,
        Intrinsic::NestedSetLeft,
        Intrinsic::NestedSetRight,
        Intrinsic::NestedSetParent,
        Intrinsic::EventName,
        Intrinsic::EventTimeSinceStart,
        Intrinsic::LinkTraceId,
        Intrinsic::LinkSpanId,
        Intrinsic::InstrumentationName,
        Intrinsic::InstrumentationVersion,
        Intrinsic::Parent,
    ])
    .prop_map(Field::Intrinsic);
    prop_oneof![4 => attribute, 1 => of_parent, 3 => intrinsic].boxed()
}

fn hint() -> BoxedStrategy<Hint> {
    // No signs in hints.
    let value = literal().prop_map(|value| match value {
        Value::Int(int) if int != i64::MIN => Value::Int(int.abs()),
        Value::Float(float) => Value::Float(float.abs()),
        Value::Duration(duration) => Value::Duration(duration.abs()),
        other => other,
    });
    ("h_[a-z0-9_]{0,6}", value).prop_map(|(name, value)| Hint { name, value }).boxed()
}

fn literal() -> BoxedStrategy<Value> {
    prop_oneof![
        "\\PC{0,6}".prop_map(|string| Value::String(string.into())),
        "[`\"\\\\\\n\\r\\t\\x00-\\x1fa]{0,4}".prop_map(|string| Value::String(string.into())),
        any::<i64>().prop_map(Value::Int),
        number(),
        any::<bool>().prop_map(Value::Bool),
        proptest::sample::select(Status::ALL.to_vec()).prop_map(Value::Status),
        proptest::sample::select(Kind::ALL.to_vec()).prop_map(Value::Kind),
        Just(Value::Int(i64::MIN)),
    ]
    .boxed()
}

fn number() -> BoxedStrategy<Value> {
    prop_oneof![
        (-1_000_i64..1_000).prop_map(Value::Int),
        (-i64::MAX..=i64::MAX).prop_map(Value::Int),
        (-1e3_f64..1e3).prop_map(Value::Float),
        any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::Float),
        (-100_000_i64..100_000).prop_map(|seconds| Value::Duration(seconds * 1_000_000_000)),
        (-i64::MAX..=i64::MAX).prop_map(Value::Duration),
    ]
    .boxed()
}

fn expression() -> BoxedStrategy<Expression> {
    let leaf = prop_oneof![literal().prop_map(Expression::Literal), field().prop_map(Expression::Field)];
    leaf.prop_recursive(5, 24, 2, |inner| {
        let binary = (operator(), inner.clone(), inner.clone()).prop_map(|(op, left, right)| {
            let right = match (op, right) {
                (Operator::Matches | Operator::MatchesNot, Expression::Literal(Value::String(text))) => {
                    Expression::Pattern(Pattern::new(text))
                }
                (_, right) => right,
            };
            Expression::Binary { op, left: Box::new(left), right: Box::new(right) }
        });
        let unary = (any::<bool>(), inner.clone()).prop_map(|(not, operand)| match operand {
            // The parser takes the sign into the number.
            Expression::Literal(Value::Int(_) | Value::Float(_) | Value::Duration(_)) if !not => operand,
            operand => {
                let op = if not { Unary::Not } else { Unary::Negate };
                Expression::Unary { op, operand: Box::new(operand) }
            }
        });
        let exists = (any::<bool>(), inner).prop_map(|(exists, operand)| match operand {
            Expression::Literal(_) => Expression::Literal(Value::Bool(exists)),
            operand => Expression::Exists { operand: Box::new(operand), exists },
        });
        prop_oneof![4 => binary, 1 => unary, 1 => exists]
    })
    .boxed()
}

fn operator() -> BoxedStrategy<Operator> {
    prop_oneof![
        arithmetic().prop_map(Operator::Arithmetic),
        comparison().prop_map(Operator::Comparison),
        proptest::sample::select(vec![Operator::Matches, Operator::MatchesNot, Operator::And, Operator::Or]),
    ]
    .boxed()
}

fn arithmetic() -> BoxedStrategy<Arithmetic> {
    proptest::sample::select(vec![
        Arithmetic::Add,
        Arithmetic::Subtract,
        Arithmetic::Multiply,
        Arithmetic::Divide,
        Arithmetic::Modulo,
        Arithmetic::Power,
    ])
    .boxed()
}

fn comparison() -> BoxedStrategy<Comparison> {
    proptest::sample::select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ])
    .boxed()
}

fn spanset_operator() -> BoxedStrategy<SpansetOperator> {
    let relation = proptest::sample::select(vec![
        Relation::Child,
        Relation::Parent,
        Relation::Descendant,
        Relation::Ancestor,
        Relation::Sibling,
    ]);
    let form = proptest::sample::select(vec![Form::Plain, Form::Negated, Form::Union]);
    prop_oneof![
        Just(SpansetOperator::And),
        Just(SpansetOperator::Or),
        (relation, form).prop_map(|(relation, form)| SpansetOperator::Structural { relation, form }),
    ]
    .boxed()
}

fn spans() -> BoxedStrategy<Spanset> {
    option::of(expression()).prop_map(Spanset::Spans).boxed()
}

fn binary_set(inner: impl Strategy<Value = Spanset> + Clone + 'static) -> BoxedStrategy<Spanset> {
    (spanset_operator(), inner.clone(), inner)
        .prop_map(|(op, left, right)| Spanset::Binary { op, left: Box::new(left), right: Box::new(right) })
        .boxed()
}

fn spanset() -> BoxedStrategy<Spanset> {
    spans().prop_recursive(3, 6, 2, binary_set).boxed()
}

fn piped() -> BoxedStrategy<Spanset> {
    let operand = pipeline().prop_map(|pipeline| match pipeline.stages.as_slice() {
        [Stage::Spanset(set)] => set.clone(),
        _ => Spanset::Pipeline(pipeline),
    });
    binary_set(operand.prop_recursive(2, 4, 2, binary_set)).boxed()
}

fn aggregate() -> BoxedStrategy<Aggregate> {
    let fold = proptest::sample::select(vec![Fold::Min, Fold::Max, Fold::Avg, Fold::Sum]);
    prop_oneof![Just(Aggregate::Count), (fold, expression()).prop_map(|(fold, of)| Aggregate::Of(fold, of))].boxed()
}

fn scalar_binary(op: Arithmetic, left: Scalar, right: Scalar) -> Scalar {
    Scalar::Binary { op, left: Box::new(left), right: Box::new(right) }
}

/// With an aggregate in it.
fn scalar() -> BoxedStrategy<Scalar> {
    aggregate()
        .prop_map(Scalar::Aggregate)
        .prop_recursive(2, 4, 2, |inner| {
            let literal = number().prop_map(Scalar::Literal);
            prop_oneof![
                (arithmetic(), inner.clone(), inner.clone())
                    .prop_map(|(op, left, right)| scalar_binary(op, left, right)),
                (arithmetic(), inner.clone(), literal.clone())
                    .prop_map(|(op, left, right)| scalar_binary(op, left, right)),
                (arithmetic(), literal, inner).prop_map(|(op, left, right)| scalar_binary(op, left, right)),
            ]
        })
        .boxed()
}

fn filter() -> BoxedStrategy<Stage> {
    let literal = || number().prop_map(Scalar::Literal);
    prop_oneof![
        (comparison(), scalar(), scalar()),
        (comparison(), scalar(), literal()),
        (comparison(), literal(), scalar()),
    ]
    .prop_map(|(op, left, right)| Stage::Filter { op, left, right })
    .boxed()
}

fn piped_filter() -> BoxedStrategy<Stage> {
    let scalar = || {
        let leaf = (pipeline(), aggregate()).prop_map(|(pipeline, aggregate)| Scalar::Pipeline { pipeline, aggregate });
        leaf.prop_recursive(1, 2, 2, |inner| {
            (arithmetic(), inner.clone(), inner).prop_map(|(op, left, right)| scalar_binary(op, left, right))
        })
    };
    prop_oneof![(comparison(), scalar(), scalar()), (comparison(), scalar(), number().prop_map(Scalar::Literal)),]
        .prop_map(|(op, left, right)| Stage::Filter { op, left, right })
        .boxed()
}

fn stage() -> BoxedStrategy<Stage> {
    prop_oneof![
        3 => spanset().prop_map(Stage::Spanset),
        2 => filter(),
        1 => expression().prop_map(Stage::By),
        1 => vec(field(), 1..4).prop_map(Stage::Select),
    ]
    .boxed()
}

fn pipeline() -> BoxedStrategy<Pipeline> {
    let later = prop_oneof![5 => stage(), 1 => Just(Stage::Coalesce)];
    (stage(), vec(later, 0..3))
        .prop_map(|(first, mut stages)| {
            stages.insert(0, first);
            Pipeline { stages }
        })
        .boxed()
}

fn first_stage() -> BoxedStrategy<FirstStage> {
    let quantiles = vec(prop_oneof![0.0..1.0, Just(1.0), 0.0..1e30], 1..3);
    let function = prop_oneof![
        Just(OverTime::Rate),
        Just(OverTime::Count),
        field().prop_map(OverTime::Min),
        field().prop_map(OverTime::Max),
        field().prop_map(OverTime::Avg),
        field().prop_map(OverTime::Sum),
        field().prop_map(OverTime::Histogram),
        (field(), quantiles).prop_map(|(field, quantiles)| OverTime::Quantile(field, quantiles)),
    ];
    let window = option::of((0..i64::MAX, 0..i64::MAX));
    let compare = (spans(), option::of((0..i64::MAX, window))).prop_map(|(selection, rest)| FirstStage::Compare {
        selection,
        top: rest.map(|(top, _)| top),
        window: rest.and_then(|(_, window)| window),
    });
    prop_oneof![
        4 => (function, vec(field(), 0..4)).prop_map(|(function, by)| FirstStage::Over { function, by }),
        1 => compare,
    ]
    .boxed()
}

fn metrics() -> BoxedStrategy<Metrics> {
    let series = (pipeline(), first_stage()).prop_map(|(pipeline, first)| Metrics::Series { pipeline, first });
    staged(series)
        .prop_recursive(3, 5, 2, |inner| {
            let op = || {
                proptest::sample::select(vec![
                    Arithmetic::Add,
                    Arithmetic::Subtract,
                    Arithmetic::Multiply,
                    Arithmetic::Divide,
                ])
            };
            let constant = number()
                .prop_filter("no duration", |value| !matches!(value, Value::Duration(_)))
                .prop_map(Metrics::Constant)
                .boxed();
            staged(
                prop_oneof![
                    (op(), inner.clone(), inner.clone()),
                    (op(), inner.clone(), constant.clone()),
                    (op(), constant, inner),
                ]
                .prop_map(|(op, left, right)| Metrics::Binary {
                    op,
                    left: Box::new(left),
                    right: Box::new(right),
                }),
            )
        })
        .boxed()
}

fn staged(of: impl Strategy<Value = Metrics> + 'static) -> BoxedStrategy<Metrics> {
    let stage = prop_oneof![
        (0..i64::MAX).prop_map(SecondStage::TopK),
        (0..i64::MAX).prop_map(SecondStage::BottomK),
        (comparison(), number()).prop_map(|(op, value)| SecondStage::Filter(op, value)),
    ];
    (of, vec(stage, 0..3))
        .prop_map(|(of, stages)| if stages.is_empty() { of } else { Metrics::Staged { of: Box::new(of), stages } })
        .boxed()
}
