//! The answer of a search.

use std::cmp::Reverse;

use super::expression::field_of;
use super::pipeline::{Set, SeveralSpansets, run};
use super::tree::Tree;
use crate::traceql::answer::{FoundSpan, FoundSpanset, FoundTrace};
use crate::traceql::ast::{Aggregate, Expression, Field, Intrinsic, Pipeline, Scalar, Spanset, Stage};
use crate::traceql::request::SearchRequest;

/// Every trace that is found, newest first, of equal starts the smallest id first. The limit of the request is not applied.
pub fn search(
    pipeline: &Pipeline,
    request: &SearchRequest,
    trees: &[Tree],
) -> Result<Vec<FoundTrace>, SeveralSpansets> {
    let fields = fields(pipeline);
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
                spansets: sets.into_iter().map(|set| shown(set, request, &fields, tree)).collect(),
                services: tree.services(),
            });
        }
    }
    found.sort_by_key(|trace| (Reverse(trace.start), trace.id));
    Ok(found)
}

fn shown(set: Set, request: &SearchRequest, fields: &[Field], tree: &Tree) -> FoundSpanset {
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
                .filter_map(|field| Some((key(field), field_of(field, tree, index).first()?)))
                .collect(),
        }
    };
    FoundSpanset {
        matched: set.spans.len() as u32,
        spans: set.spans.into_iter().take(request.spans_per_spanset).map(span).collect(),
        attributes: set.attributes,
    }
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
        Expression::Literal(_) => {}
        Expression::Field(field) => fields.push(field.clone()),
        Expression::Binary { left, right, .. } => {
            in_expression(left, fields);
            in_expression(right, fields);
        }
        Expression::Unary { operand, .. } | Expression::Exists { operand, .. } => in_expression(operand, fields),
    }
}
