//! What a pipeline makes of the spans of one trace.

use super::expression::{as_float, compare, evaluate};
use super::tree::Tree;
use crate::traceql::ast::{
    Aggregate, Expression, Fold, Form, Pipeline, Relation, Scalar, Spanset, SpansetOperator, Stage,
};
use crate::traceql::value::Value;

/// Spans of one trace by their index in its [`Tree`], ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    pub spans: Vec<usize>,
    pub attributes: Vec<(String, Option<Value>)>,
}

/// A structural operator has more than one spanset on a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeveralSpansets;

pub fn run(pipeline: &Pipeline, tree: &Tree, input: Vec<Set>) -> Result<Vec<Set>, SeveralSpansets> {
    pipeline.stages.iter().try_fold(
        input,
        |sets, stage| {
            if sets.is_empty() { Ok(sets) } else { run_stage(stage, tree, sets) }
        },
    )
}

fn run_stage(stage: &Stage, tree: &Tree, input: Vec<Set>) -> Result<Vec<Set>, SeveralSpansets> {
    Ok(match stage {
        Stage::Spanset(spanset) => {
            let mut output = Vec::new();
            for set in input {
                output.extend(select(spanset, tree, set)?);
            }
            output
        }
        Stage::Select(_) => input,
        Stage::Coalesce => {
            let mut spans: Vec<usize> = input.into_iter().flat_map(|set| set.spans).collect();
            spans.sort_unstable();
            spans.dedup();
            vec![Set { spans, attributes: Vec::new() }]
        }
        Stage::By(expression) => input.into_iter().flat_map(|set| split(expression, tree, set)).collect(),
        Stage::Filter { op, left: Scalar::Aggregate(aggregate), right: Scalar::Literal(wanted) } => input
            .into_iter()
            .filter_map(|mut set| {
                let value = fold(aggregate, tree, &set)?;
                let kept = compare(*op, &value, wanted);
                set.attributes.push((aggregate.to_string(), Some(value)));
                kept.then_some(set)
            })
            .collect(),
        Stage::Filter { .. } => panic!("validation lets only `aggregate comparison literal` pass"),
    })
}

fn select(spanset: &Spanset, tree: &Tree, input: Set) -> Result<Vec<Set>, SeveralSpansets> {
    let spans = match spanset {
        Spanset::Spans(None) => input.spans,
        Spanset::Spans(Some(expression)) => {
            input.spans.into_iter().filter(|span| evaluate(expression, tree, *span).is_true()).collect()
        }
        Spanset::Pipeline(pipeline) => return run(pipeline, tree, vec![input]),
        Spanset::Binary { op, left, right } => {
            let left = select(left, tree, input.clone())?;
            let right = select(right, tree, input.clone())?;
            combine(*op, tree, left, right)?
        }
    };
    Ok(if spans.is_empty() { Vec::new() } else { vec![Set { spans, attributes: input.attributes }] })
}

fn combine(op: SpansetOperator, tree: &Tree, left: Vec<Set>, right: Vec<Set>) -> Result<Vec<usize>, SeveralSpansets> {
    let spans = |sets: &[Set]| sets.iter().flat_map(|set| set.spans.clone()).collect::<Vec<usize>>();
    let (left_spans, right_spans) = (spans(&left), spans(&right));
    let mut result = match op {
        SpansetOperator::And if left.is_empty() || right.is_empty() => Vec::new(),
        SpansetOperator::And | SpansetOperator::Or => [left_spans, right_spans].concat(),
        SpansetOperator::Structural { .. } if right.is_empty() => Vec::new(),
        SpansetOperator::Structural { .. } if left.len() > 1 || right.len() > 1 => return Err(SeveralSpansets),
        SpansetOperator::Structural { relation, form } => {
            let related = |left: usize, right: usize| holds(relation, tree, left, right);
            let right_with = |wanted: bool| {
                let has = |right: &usize| left_spans.iter().any(|left| related(*left, *right)) == wanted;
                right_spans.iter().copied().filter(has).collect::<Vec<usize>>()
            };
            match form {
                Form::Plain => right_with(true),
                Form::Negated => right_with(false),
                Form::Union => {
                    let has = |left: &usize| right_spans.iter().any(|right| related(*left, *right));
                    let left_with = left_spans.iter().copied().filter(has).collect::<Vec<usize>>();
                    [left_with, right_with(true)].concat()
                }
            }
        }
    };
    result.sort_unstable();
    result.dedup();
    Ok(result)
}

/// Whether the span on the right side stands in the relation to the one on the left. Roots are siblings of each other.
fn holds(relation: Relation, tree: &Tree, left: usize, right: usize) -> bool {
    let (left_set, right_set) = (tree.sets[left], tree.sets[right]);
    if left_set.left == 0 || right_set.left == 0 {
        return false;
    }
    match relation {
        Relation::Child => right_set.parent == left_set.left,
        Relation::Parent => left_set.parent == right_set.left,
        Relation::Descendant => left_set.left < right_set.left && right_set.right < left_set.right,
        Relation::Ancestor => right_set.left < left_set.left && left_set.right < right_set.right,
        Relation::Sibling => left != right && left_set.parent == right_set.parent,
    }
}

fn split(by: &Expression, tree: &Tree, set: Set) -> Vec<Set> {
    let mut groups: Vec<(Option<Value>, Vec<usize>)> = Vec::new();
    for span in set.spans {
        let value = evaluate(by, tree, span).first();
        let is_same = |known: &Option<Value>| *known == value || (is_nan(known) && is_nan(&value));
        match groups.iter_mut().find(|(known, _)| is_same(known)) {
            Some((_, spans)) => spans.push(span),
            None => groups.push((value, vec![span])),
        }
    }
    let groups = groups.into_iter().map(|(value, spans)| {
        let attributes = set.attributes.iter().cloned().chain([(format!("by({by})"), value)]).collect();
        Set { spans, attributes }
    });
    groups.collect()
}

/// Not equal to itself, but one group.
fn is_nan(value: &Option<Value>) -> bool {
    matches!(value, Some(Value::Float(number)) if number.is_nan())
}

/// `None` if no span has a number.
fn fold(aggregate: &Aggregate, tree: &Tree, set: &Set) -> Option<Value> {
    let (fold, expression) = match aggregate {
        Aggregate::Count => return Some(Value::Int(set.spans.len() as i64)),
        Aggregate::Of(fold, expression) => (*fold, expression),
    };
    let values = set.spans.iter().filter_map(|span| evaluate(expression, tree, *span).first());
    let numbers: Vec<Value> =
        values.filter(|value| matches!(value, Value::Int(_) | Value::Float(_) | Value::Duration(_))).collect();
    let by_size = |one: &&Value, other: &&Value| as_float(one).total_cmp(&as_float(other));
    let count = numbers.len();
    match fold {
        Fold::Min => numbers.iter().min_by(by_size).cloned(),
        Fold::Max => numbers.iter().max_by(by_size).cloned(),
        Fold::Sum => sum(&numbers),
        Fold::Avg => Some(match sum(&numbers)? {
            Value::Duration(sum) => Value::Duration(sum / count as i64),
            sum => Value::Float(as_float(&sum) / count as f64),
        }),
    }
}

/// Numbers of one type keep it.
fn sum(numbers: &[Value]) -> Option<Value> {
    let ints: Option<Vec<i64>> =
        numbers.iter().map(|value| if let Value::Int(int) = value { Some(*int) } else { None }).collect();
    let durations: Option<Vec<i64>> = numbers
        .iter()
        .map(|value| if let Value::Duration(duration) = value { Some(*duration) } else { None })
        .collect();
    Some(match (ints, durations) {
        _ if numbers.is_empty() => return None,
        (Some(ints), _) => Value::Int(ints.into_iter().fold(0, i64::wrapping_add)),
        (_, Some(durations)) => Value::Duration(durations.into_iter().fold(0, i64::wrapping_add)),
        _ => Value::Float(numbers.iter().map(as_float).sum()),
    })
}
