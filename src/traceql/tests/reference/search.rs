//! The answer of a search.

use std::cmp::Reverse;

use super::expression::{Term, evaluate, field_of};
use super::pipeline::{Set, SeveralSpansets, run};
use super::tree::Tree;
use crate::traceql::answer::{FoundSpan, FoundSpanset, FoundTrace};
use crate::traceql::ast::{Aggregate, Expression, Field, Intrinsic, Operator, Pipeline, Scalar, Spanset, Stage, Unary};
use crate::traceql::request::SearchRequest;
use crate::traceql::value::Value;

/// Every trace that is found, newest first, of equal starts the smallest id first. The limit of the request is not applied.
pub fn search(
    pipeline: &Pipeline,
    request: &SearchRequest,
    trees: &[Tree],
) -> Result<Vec<FoundTrace>, SeveralSpansets> {
    let fields = fields(pipeline);
    let conditions = conditions(pipeline);
    let mut found = Vec::new();
    for tree in trees {
        let within = |span: &usize| (request.start..=request.end).contains(&tree.spans[*span].start);
        let spans: Vec<usize> = (0..tree.spans.len()).filter(within).collect();
        if spans.is_empty() {
            continue;
        }
        let sets = run(pipeline, tree, vec![Set { spans, attributes: Vec::new() }])?;
        if !sets.is_empty() {
            found.push(FoundTrace {
                id: tree.id,
                root: tree.root(),
                start: tree.start(),
                duration: tree.duration(),
                spansets: sets.into_iter().map(|set| shown(set, request, (&fields, &conditions), tree)).collect(),
                services: tree.services(),
            });
        }
    }
    found.sort_by_key(|trace| (Reverse(trace.start), trace.id));
    Ok(found)
}

fn shown(
    set: Set,
    request: &SearchRequest,
    (fields, conditions): (&[Field], &[Expression]),
    tree: &Tree,
) -> FoundSpanset {
    let span = |index: usize| {
        let span = &tree.spans[index];
        let mentions_name = fields.contains(&Field::Intrinsic(Intrinsic::Name));
        FoundSpan {
            id: span.id,
            name: mentions_name.then(|| span.name.as_str().into()),
            start: span.start,
            duration: span.duration,
            attributes: fields
                .iter()
                .filter(|field| !has_its_place(field))
                .filter_map(|field| Some((key(field), value_of(field, conditions, tree, index)?)))
                .collect(),
        }
    };
    FoundSpanset {
        matched: set.spans.len() as u32,
        spans: set.spans.into_iter().take(request.spans_per_spanset).map(span).collect(),
        attributes: set.attributes,
    }
}

/// Of the values of several events or links the first that some condition is about, else the first.
fn value_of(field: &Field, conditions: &[Expression], tree: &Tree, span: usize) -> Option<Value> {
    let Term::Many(values) = field_of(field, tree, span) else { return field_of(field, tree, span).first() };
    let meant = |value: &&Value| {
        let about = conditions.iter().filter_map(|condition| with_value(condition, field, value));
        about.into_iter().any(|condition| evaluate(&condition, tree, span).is_true())
    };
    values.iter().find(meant).or(values.first()).cloned()
}

/// A condition on a field alone with a value of it in its place.
fn with_value(condition: &Expression, field: &Field, value: &Value) -> Option<Expression> {
    let put = |side: &Expression| match side {
        Expression::Field(named) if named == field => Expression::Literal(written_as(field, value)),
        Expression::Literal(literal) => Expression::Literal(written_as(field, literal)),
        other => other.clone(),
    };
    match condition {
        Expression::Field(named) => (named == field).then(|| Expression::Literal(value.clone())),
        Expression::Binary { op, left, right } => match (&**left, &**right) {
            (Expression::Field(named), Expression::Literal(_) | Expression::Pattern(_))
            | (Expression::Literal(_), Expression::Field(named)) => {
                let put = || Expression::Binary { op: *op, left: Box::new(put(left)), right: Box::new(put(right)) };
                (named == field).then(put)
            }
            _ => None,
        },
        // What is denied twice is meant.
        Expression::Unary { op: Unary::Not, operand } => match &**operand {
            Expression::Unary { op: Unary::Not, operand } if !matches!(**operand, Expression::Field(_)) => {
                with_value(operand, field, value)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Ids in the one way of writing them.
fn written_as(field: &Field, value: &Value) -> Value {
    match (field, value) {
        (Field::Intrinsic(Intrinsic::LinkTraceId | Intrinsic::LinkSpanId), Value::String(id)) => {
            Value::from(&*id.trim_start_matches('0').to_lowercase())
        }
        _ => value.clone(),
    }
}

/// What the filters of a pipeline ask, condition by condition.
fn conditions(pipeline: &Pipeline) -> Vec<Expression> {
    fn of_spanset(spanset: &Spanset) -> Vec<Expression> {
        match spanset {
            Spanset::Spans(expression) => expression.iter().flat_map(of_expression).collect(),
            Spanset::Binary { left, right, .. } => [of_spanset(left), of_spanset(right)].concat(),
            Spanset::Pipeline(pipeline) => conditions(pipeline),
        }
    }
    fn of_expression(expression: &Expression) -> Vec<Expression> {
        match expression {
            Expression::Binary { op: Operator::And | Operator::Or, left, right } => {
                [of_expression(left), of_expression(right)].concat()
            }
            other => vec![other.clone()],
        }
    }
    let spansets = pipeline.stages.iter().filter_map(|stage| match stage {
        Stage::Spanset(spanset) => Some(of_spanset(spanset)),
        _ => None,
    });
    spansets.flatten().collect()
}

fn has_its_place(field: &Field) -> bool {
    use Intrinsic::{Duration, Name, RootName, RootServiceName, SpanId, TraceDuration, TraceId};
    matches!(field, Field::Intrinsic(Name | Duration | TraceDuration | RootName | RootServiceName | TraceId | SpanId))
}

fn key(field: &Field) -> String {
    match field {
        Field::Attribute(attribute) => attribute.name.clone(),
        Field::Intrinsic(intrinsic) => intrinsic.as_str().into(),
    }
}

/// Every field that the pipeline names, once.
pub fn fields(pipeline: &Pipeline) -> Vec<Field> {
    let mut fields = Vec::new();
    in_pipeline(pipeline, &mut fields);
    fields.sort();
    fields.dedup();
    fields
}

fn in_pipeline(pipeline: &Pipeline, fields: &mut Vec<Field>) {
    for stage in &pipeline.stages {
        match stage {
            Stage::Spanset(spanset) => in_spanset(spanset, fields),
            Stage::By(expression) => in_expression(expression, fields),
            Stage::Coalesce => {}
            Stage::Select(selected) => fields.extend(selected.iter().cloned()),
            Stage::Filter { left, right, .. } => {
                for scalar in [left, right] {
                    if let Scalar::Aggregate(Aggregate::Of(_, expression)) = scalar {
                        in_expression(expression, fields);
                    }
                }
            }
        }
    }
}

fn in_spanset(spanset: &Spanset, fields: &mut Vec<Field>) {
    match spanset {
        Spanset::Spans(expression) => expression.iter().for_each(|expression| in_expression(expression, fields)),
        Spanset::Binary { left, right, .. } => {
            in_spanset(left, fields);
            in_spanset(right, fields);
        }
        Spanset::Pipeline(pipeline) => in_pipeline(pipeline, fields),
    }
}

fn in_expression(expression: &Expression, fields: &mut Vec<Field>) {
    match expression {
        Expression::Literal(_) | Expression::Pattern(_) => {}
        Expression::Field(field) => fields.push(field.clone()),
        Expression::Binary { left, right, .. } => {
            in_expression(left, fields);
            in_expression(right, fields);
        }
        Expression::Unary { operand, .. } | Expression::Exists { operand, .. } => in_expression(operand, fields),
    }
}
