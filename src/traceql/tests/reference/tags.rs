//! Names of attributes and values of fields that spans have.

use std::collections::BTreeSet;

use super::super::spans::Span;
use super::expression::{Term, evaluate, field_of};
use super::tree::Tree;
use crate::traceql::ast::{Attribute, Expression, Field, Scope};
use crate::traceql::value::Value;

/// The spans that pass a filter and start within a time range, both ends included.
fn passing<'a>(
    trees: &'a [Tree],
    filter: &'a Expression,
    (start, end): (u64, u64),
) -> impl Iterator<Item = (&'a Tree, usize)> {
    let spans = trees.iter().flat_map(|tree| (0..tree.spans.len()).map(move |span| (tree, span)));
    spans.filter(move |(tree, span)| {
        (start..=end).contains(&tree.spans[*span].start) && evaluate(filter, tree, *span).is_true()
    })
}

/// Written out, each element of arrays by itself. An attribute without scope is looked for in each of them.
pub fn values(trees: &[Tree], field: &Field, filter: &Expression, window: (u64, u64)) -> BTreeSet<String> {
    let mut values = BTreeSet::new();
    for (tree, span) in passing(trees, filter, window) {
        for field in scoped(field) {
            let found = match field_of(&field, tree, span) {
                Term::Nil => Vec::new(),
                Term::One(value) => vec![value],
                Term::Many(values) => values,
            };
            for value in found {
                match value {
                    Value::Array(elements) => values.extend(elements.iter().map(|element| format!("{element:?}"))),
                    value => values.extend([format!("{value:?}")]),
                }
            }
        }
    }
    values
}

fn scoped(field: &Field) -> Vec<Field> {
    match field {
        Field::Attribute(attribute @ Attribute { scope: None, .. }) => {
            Scope::ALL.map(|scope| Field::Attribute(Attribute { scope: Some(scope), ..attribute.clone() })).to_vec()
        }
        field => vec![field.clone()],
    }
}

/// With the scope in front.
pub fn names(trees: &[Tree], filter: &Expression, window: (u64, u64)) -> BTreeSet<String> {
    let all = passing(trees, filter, window).flat_map(|(tree, span)| names_of(&tree.spans[span]));
    all.map(|(scope, name)| format!("{} {name}", scope.as_str())).collect()
}

fn names_of(span: &Span) -> Vec<(Scope, &String)> {
    let lists = [(Scope::Span, &span.attributes), (Scope::Resource, &span.resource)].into_iter();
    lists
        .chain([(Scope::Instrumentation, &span.scope.attributes)])
        .chain(span.events.iter().map(|event| (Scope::Event, &event.attributes)))
        .chain(span.links.iter().map(|link| (Scope::Link, &link.attributes)))
        .flat_map(|(scope, attributes)| attributes.keys().map(move |name| (scope, name)))
        .collect()
}
