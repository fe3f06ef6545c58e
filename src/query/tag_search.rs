//! Searches by tags, as Grafana made them before TraceQL: turned into queries that mean the same.
//!
//! A trace is found if each tag is on some span of it, not necessarily the same. What Tempo has a column of its own for is
//! searched for as it does it: texts, such as names of services and spans, as parts of the whole, numbers by their value.
//! Everything else is compared exactly.

use std::sync::Arc;

use crate::traceql::ast::{
    Attribute, Comparison, Expression, Field, Intrinsic, Operator, Pipeline, Query, Root, Scope, Spanset,
    SpansetOperator, Stage,
};
use crate::traceql::pattern::Pattern;
use crate::traceql::value::{Status, Value};

/// What a search by tags asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TagSearch {
    pub tags: Vec<(String, String)>,
    /// Bounds of the trace's duration in milliseconds; 0: none.
    pub min_duration_ms: u64,
    pub max_duration_ms: u64,
}

impl TagSearch {
    pub fn into_query(self) -> Query {
        const NANOS: u64 = 1_000_000;
        let mut spansets: Vec<Spanset> = self.tags.iter().map(|(tag, value)| spans(condition(tag, value))).collect();
        let bound = |op, millis: u64| {
            let nanos = i64::try_from(millis.saturating_mul(NANOS)).unwrap_or(i64::MAX);
            compare(Field::Intrinsic(Intrinsic::TraceDuration), op, Value::Duration(nanos))
        };
        if self.min_duration_ms > 0 {
            spansets.push(spans(bound(Comparison::GreaterOrEqual, self.min_duration_ms)));
        }
        if self.max_duration_ms > 0 {
            spansets.push(spans(bound(Comparison::LessOrEqual, self.max_duration_ms)));
        }
        let all = spansets.into_iter().reduce(|left, right| Spanset::Binary {
            op: SpansetOperator::And,
            left: Box::new(left),
            right: Box::new(right),
        });
        let stage = Stage::Spanset(all.unwrap_or(Spanset::Spans(None)));
        Query { root: Root::Search(Pipeline { stages: vec![stage] }), hints: Vec::new() }
    }
}

/// The field that a tag of the first API names.
pub(super) fn field_of_tag(tag: &str) -> Field {
    match tag {
        "service.name" => attribute(Some(Scope::Resource), tag),
        "name" => Field::Intrinsic(Intrinsic::Name),
        "root.name" => Field::Intrinsic(Intrinsic::RootName),
        "root.service.name" => Field::Intrinsic(Intrinsic::RootServiceName),
        _ => attribute(None, tag),
    }
}

fn condition(tag: &str, value: &str) -> Expression {
    match tag {
        "service.name" | "name" | "root.name" | "root.service.name" => contains(field_of_tag(tag), value),
        "status.code" => status(match value {
            "error" => Status::Error,
            "ok" => Status::Ok,
            _ => Status::Unset,
        }),
        // Its only value that is offered.
        "error" if value == "true" => status(Status::Error),
        _ => match DEDICATED.iter().find(|(name, ..)| *name == tag) {
            Some((_, scope, Column::Text)) => contains(attribute(Some(*scope), tag), value),
            Some((_, scope, Column::Number)) => match value.parse() {
                // As a text it is no number to Tempo; whoever sends it as one means the same.
                Ok(number) => or(
                    exactly(tag, value),
                    compare(attribute(Some(*scope), tag), Comparison::Equal, Value::Int(number)),
                ),
                Err(_) => exactly(tag, value),
            },
            None => exactly(tag, value),
        },
    }
}

/// What a column of Tempo holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Text,
    Number,
}

/// The attributes that Tempo has columns for if nobody says otherwise.
const DEDICATED: [(&str, Scope, Column); 14] = [
    ("k8s.cluster.name", Scope::Resource, Column::Text),
    ("k8s.namespace.name", Scope::Resource, Column::Text),
    ("k8s.pod.name", Scope::Resource, Column::Text),
    ("k8s.container.name", Scope::Resource, Column::Text),
    ("http.request.method", Scope::Span, Column::Text),
    ("http.response.status_code", Scope::Span, Column::Number),
    ("url.path", Scope::Span, Column::Text),
    ("url.route", Scope::Span, Column::Text),
    ("server.address", Scope::Span, Column::Text),
    ("server.port", Scope::Span, Column::Number),
    ("http.method", Scope::Span, Column::Text),
    ("http.url", Scope::Span, Column::Text),
    ("http.route", Scope::Span, Column::Text),
    ("http.status_code", Scope::Span, Column::Number),
];

/// On a span or on its resource.
fn exactly(tag: &str, value: &str) -> Expression {
    let text = Value::String(value.into());
    let of = |scope| compare(attribute(Some(scope), tag), Comparison::Equal, text.clone());
    or(of(Scope::Span), of(Scope::Resource))
}

fn attribute(scope: Option<Scope>, name: &str) -> Field {
    Field::Attribute(Attribute { scope, of_parent: false, name: name.to_owned() })
}

fn status(status: Status) -> Expression {
    compare(Field::Intrinsic(Intrinsic::Status), Comparison::Equal, Value::Status(status))
}

fn compare(field: Field, op: Comparison, value: Value) -> Expression {
    binary(Operator::Comparison(op), Expression::Field(field), Expression::Literal(value))
}

fn contains(field: Field, part: &str) -> Expression {
    let pattern: Arc<str> = format!(".*{}.*", quote(part)).into();
    binary(Operator::Matches, Expression::Field(field), Expression::Pattern(Pattern::new(pattern)))
}

/// A pattern for this text and no other, as Go's `QuoteMeta` writes it.
fn quote(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

fn or(left: Expression, right: Expression) -> Expression {
    binary(Operator::Or, left, right)
}

fn binary(op: Operator, left: Expression, right: Expression) -> Expression {
    Expression::Binary { op, left: Box::new(left), right: Box::new(right) }
}

fn spans(condition: Expression) -> Spanset {
    Spanset::Spans(Some(condition))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(search: TagSearch) -> Spanset {
        match search.into_query().root {
            Root::Search(Pipeline { mut stages }) => match stages.pop() {
                Some(Stage::Spanset(spanset)) if stages.is_empty() => spanset,
                other => panic!("one spanset was expected: {other:?}"),
            },
            Root::Metrics(_) => panic!("a search was expected"),
        }
    }

    fn tags(pairs: &[(&str, &str)]) -> TagSearch {
        let tags = pairs.iter().map(|(tag, value)| ((*tag).to_owned(), (*value).to_owned())).collect();
        TagSearch { tags, ..TagSearch::default() }
    }

    #[test]
    fn no_tags_are_all_spans() {
        assert_eq!(stage(TagSearch::default()), Spanset::Spans(None));
    }

    #[test]
    fn each_tag_may_be_on_another_span_of_the_trace() {
        let Spanset::Binary { op, left, right } = stage(tags(&[("name", "GET (1)"), ("status.code", "error")])) else {
            panic!("two spansets were expected")
        };
        assert_eq!(op, SpansetOperator::And);
        assert_eq!(*left, spans(contains(Field::Intrinsic(Intrinsic::Name), "GET (1)")));
        assert_eq!(*right, spans(status(Status::Error)));
    }

    #[test]
    fn parts_of_names_are_taken_literally() {
        let expected = Expression::Pattern(Pattern::new(r".*GET /\(\.\*\).*"));
        let Expression::Binary { op: Operator::Matches, right, .. } = condition("name", "GET /(.*)") else {
            panic!("a regular expression was expected")
        };
        assert_eq!(*right, expected);
    }

    #[test]
    fn other_tags_are_equal_on_span_or_resource() {
        let exactly = |scope, value| compare(attribute(Some(scope), "region"), Comparison::Equal, value);
        let text = Value::String("eu".into());
        let expected = or(exactly(Scope::Span, text.clone()), exactly(Scope::Resource, text));
        assert_eq!(stage(tags(&[("region", "eu")])), spans(expected));
    }

    #[test]
    fn texts_that_tempo_has_columns_for_are_searched_in_parts_and_numbers_by_value() {
        assert_eq!(condition("k8s.pod.name", "web"), contains(attribute(Some(Scope::Resource), "k8s.pod.name"), "web"));
        assert_eq!(condition("http.method", "GE"), contains(attribute(Some(Scope::Span), "http.method"), "GE"));
        let port = compare(attribute(Some(Scope::Span), "server.port"), Comparison::Equal, Value::Int(8080));
        assert_eq!(condition("server.port", "8080"), or(exactly("server.port", "8080"), port));
        assert_eq!(condition("server.port", "http"), exactly("server.port", "http"));
    }

    #[test]
    fn durations_are_the_traces() {
        let search = TagSearch { min_duration_ms: 5, ..TagSearch::default() };
        let field = Field::Intrinsic(Intrinsic::TraceDuration);
        let expected = compare(field, Comparison::GreaterOrEqual, Value::Duration(5_000_000));
        assert_eq!(stage(search), spans(expected));
    }
}
