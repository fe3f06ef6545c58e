//! Searches by tags, as Grafana made them before TraceQL: turned into queries that mean the same.
//!
//! A trace is found if each tag is on some span of it, not necessarily the same. Names of services and spans are
//! searched for as parts of the whole, everything else exactly.

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
        _ => {
            let exactly = |scope, value| compare(attribute(Some(scope), tag), Comparison::Equal, value);
            let text = Value::String(value.into());
            let either = or(exactly(Scope::Span, text.clone()), exactly(Scope::Resource, text));
            match value.parse() {
                Ok(number) if tag == "http.status_code" => or(either, exactly(Scope::Span, Value::Int(number))),
                _ => either,
            }
        }
    }
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
    fn durations_are_the_traces() {
        let search = TagSearch { min_duration_ms: 5, ..TagSearch::default() };
        let field = Field::Intrinsic(Intrinsic::TraceDuration);
        let expected = compare(field, Comparison::GreaterOrEqual, Value::Duration(5_000_000));
        assert_eq!(stage(search), spans(expected));
    }
}
