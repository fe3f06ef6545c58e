use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::{names, values};
use crate::traceql::ast::{Expression, Field, Intrinsic, Root, Scope, Spanset, Stage};
use crate::traceql::control::Control;
use crate::traceql::request::TagsRequest;
use crate::traceql::tests::generate::expression::{predicates, windows};
use crate::traceql::tests::generate::{NAMES, World, Written, attribute, worlds};
use crate::traceql::tests::memory::Memory;
use crate::traceql::tests::reference::expression::{Term, evaluate, field_of};
use crate::traceql::tests::reference::tree::{Tree, trees};
use crate::traceql::tests::spans::{Trace, event, link, span, trace};
use crate::traceql::value::{Kind, Status, Value};
use crate::traceql::{field, read};

const REQUEST: TagsRequest = TagsRequest { start: 0, end: 100, count_max: 0, bytes_max: 1_000_000 };

fn control() -> Control {
    Control::new(Duration::from_secs(60), 1 << 20)
}

fn expression(text: &str) -> Option<Expression> {
    let Root::Search(pipeline) = read(text).unwrap().root else { panic!("{text} is a metrics query") };
    match pipeline.stages.into_iter().next() {
        Some(Stage::Spanset(Spanset::Spans(expression))) => expression,
        other => panic!("{other:?}"),
    }
}

fn traces() -> Vec<Trace> {
    vec![
        trace(
            1,
            [
                span(1).named("GET /").service("shop").attribute("code", 200).attribute("path", "/").lasting(5, 1),
                span(2)
                    .child_of(1)
                    .named("SELECT")
                    .service("db")
                    .attribute("code", "ok")
                    .instrumentation("sql", "1.0")
                    .instrumentation_attribute("lib", "x")
                    .event(event("slow").attribute("rows", 7))
                    .event(event("retry").attribute("rows", 9))
                    .lasting(6, 1),
            ],
        ),
        trace(
            2,
            [span(1)
                .named("POST /")
                .service("shop")
                .attribute("tags", ["b", "a"])
                .link(link(1, 1).attribute("why", "follows"))
                .status(Status::Error)
                .lasting(50, 1)],
        ),
    ]
}

fn memory() -> Memory {
    Memory::spread(&traces(), 2, |trace, _| vec![trace])
}

fn names_by_scope(scope: Option<Scope>, filter: &str, request: &TagsRequest) -> Vec<String> {
    let answer = names(&memory(), scope, expression(filter).as_ref(), request, &control()).unwrap();
    answer.scopes.iter().map(|(scope, names)| format!("{scope}: {}", names.join(" "))).collect()
}

fn values_in(memory: &Memory, name: &str, filter: &str, request: &TagsRequest) -> Vec<Value> {
    let field = field(name).unwrap();
    values(memory, &field, expression(filter).as_ref(), request, &control()).unwrap().values
}

fn values_of(name: &str, filter: &str) -> Vec<Value> {
    values_in(&memory(), name, filter, &REQUEST)
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<Value> {
    texts.map(Value::from).to_vec()
}

#[test]
fn names_are_listed_by_scope() {
    assert_eq!(
        names_by_scope(None, "{}", &REQUEST),
        ["span: code path tags", "resource: service.name", "event: rows", "link: why", "instrumentation: lib"]
    );
    assert_eq!(names_by_scope(Some(Scope::Event), "{}", &REQUEST), ["event: rows"]);
}

#[test]
fn names_are_those_of_spans_that_pass_the_filter_and_start_in_time() {
    assert_eq!(names_by_scope(Some(Scope::Span), "{ name = `SELECT` }", &REQUEST), ["span: code"]);
    assert_eq!(names_by_scope(Some(Scope::Event), "{ resource.service.name = `shop` }", &REQUEST), ["event: "]);
    let late = TagsRequest { start: 40, ..REQUEST };
    assert_eq!(names_by_scope(Some(Scope::Span), "{}", &late), ["span: tags"]);
    let first = TagsRequest { end: 5, ..REQUEST };
    assert_eq!(names_by_scope(Some(Scope::Span), "{}", &first), ["span: code path"]);
    assert_eq!(names_by_scope(Some(Scope::Span), "{ kind = unspecified }", &first), ["span: code path"]);
}

#[test]
fn names_are_bounded_by_count_and_bytes() {
    let two = TagsRequest { count_max: 2, ..REQUEST };
    assert_eq!(names_by_scope(Some(Scope::Span), "{}", &two), ["span: code tags"]);
    let ten_bytes = TagsRequest { bytes_max: 10, ..REQUEST };
    assert_eq!(names_by_scope(Some(Scope::Span), "{}", &ten_bytes), ["span: code tags"]);
}

#[test]
fn values_are_listed_with_their_types() {
    assert_eq!(values_of("span.code", "{}"), [Value::Int(200), "ok".into()]);
    assert_eq!(values_of("resource.service.name", "{}"), texts(["db", "shop"]));
    assert_eq!(values_of("event.rows", "{}"), [Value::Int(7), Value::Int(9)]);
    assert_eq!(values_of("link.why", "{}"), texts(["follows"]));
    assert_eq!(values_of("instrumentation.lib", "{}"), texts(["x"]));
    assert_eq!(values_of("span.none", "{}"), []);
}

#[test]
fn elements_of_arrays_are_values() {
    assert_eq!(values_of("span.tags", "{}"), texts(["a", "b"]));
}

#[test]
fn a_name_without_scope_is_looked_for_in_all() {
    assert_eq!(values_of(".code", "{}"), [Value::Int(200), "ok".into()]);
    assert_eq!(values_of(".rows", "{}"), [Value::Int(7), Value::Int(9)]);
}

#[test]
fn intrinsics_have_the_values_that_people_choose_from() {
    assert_eq!(values_of("name", "{}"), texts(["GET /", "POST /", "SELECT"]));
    assert_eq!(values_of("rootName", "{}"), texts(["GET /", "POST /"]));
    assert_eq!(values_of("rootServiceName", "{ name = `SELECT` }"), texts(["shop"]));
    assert_eq!(values_of("event:name", "{}"), texts(["retry", "slow"]));
    assert_eq!(values_of("instrumentation:version", "{ name = `SELECT` }"), texts(["1.0"]));
    assert_eq!(values_of("status", "{}"), Status::ALL.map(Value::Status));
    assert_eq!(values_of("kind", "{ name = `none` }"), Kind::ALL.map(Value::Kind));
    for none in ["duration", "trace:duration", "trace:id", "span:id", "span:parentID", "event:timeSinceStart"] {
        assert_eq!(values_of(none, "{}"), [], "{none}");
    }
}

#[test]
fn values_are_those_of_spans_that_pass_the_filter_and_start_in_time() {
    assert_eq!(values_of("name", "{ resource.service.name = `shop` }"), texts(["GET /", "POST /"]));
    assert_eq!(values_of("name", "{ status = error }"), texts(["POST /"]));
    let early = TagsRequest { end: 5, ..REQUEST };
    assert_eq!(values_in(&memory(), "name", "{ duration > 0 }", &early), texts(["GET /"]));
}

#[test]
fn values_are_bounded_by_count_and_bytes_the_newest_first() {
    let one = TagsRequest { count_max: 1, ..REQUEST };
    assert_eq!(values_in(&memory(), "name", "{}", &one), texts(["POST /"]));
    let eleven_bytes = TagsRequest { bytes_max: 11, ..REQUEST };
    assert_eq!(values_in(&memory(), "name", "{}", &eleven_bytes), texts(["GET /", "POST /"]));
}

#[test]
fn values_that_no_dictionary_lists_are_found() {
    let fields = ["name", "span.code"].map(|name| field(name).unwrap());
    let memory = memory().unlisted(fields);
    assert_eq!(values_in(&memory, "name", "{}", &REQUEST), texts(["GET /", "POST /", "SELECT"]));
    assert_eq!(values_in(&memory, "span.code", "{ name = `SELECT` }", &REQUEST), texts(["ok"]));
}

#[test]
fn a_segment_that_is_gone_has_no_part() {
    assert_eq!(values_in(&memory().gone(0), "name", "{}", &REQUEST), texts(["POST /"]));
}

/// Every attribute of the generated spans, and the intrinsics that people choose values of.
fn fields() -> Vec<Field> {
    let intrinsics = [
        Intrinsic::Name,
        Intrinsic::StatusMessage,
        Intrinsic::RootName,
        Intrinsic::RootServiceName,
        Intrinsic::EventName,
        Intrinsic::InstrumentationName,
    ];
    let attributes = Scope::ALL.into_iter().flat_map(|scope| NAMES.map(|name| attribute(Some(scope), name)));
    attributes.chain(intrinsics.map(Field::Intrinsic)).collect()
}

/// What spans that pass the filter and start in the window have for a field, found the slow way.
fn expected(trees: &[Tree], field: &Field, filter: &Expression, (start, end): (u64, u64)) -> BTreeSet<String> {
    let mut values = Vec::new();
    for tree in trees {
        for (index, span) in tree.spans.iter().enumerate() {
            if start <= span.start && span.start <= end && evaluate(filter, tree, index).is_true() {
                match field_of(field, tree, index) {
                    Term::Nil => {}
                    Term::One(value) => values.push(value),
                    Term::Many(several) => values.extend(several),
                }
            }
        }
    }
    let elements = values.into_iter().flat_map(|value| match value {
        Value::Array(elements) => elements.to_vec(),
        value => vec![value],
    });
    elements.map(|value| format!("{value:?}")).collect()
}

fn source(world: &World) -> Memory {
    let source = Memory::parts(world.parts.clone()).unlisted(world.unlisted.iter().cloned());
    if world.split_unsure { source.split_unsure() } else { source }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_and_values_are_those_that_a_look_at_every_span_finds(
        world in worlds(),
        filter in predicates().prop_map(Written),
        window in windows(),
    ) {
        let world = world.without_repetition();
        let (source, trees) = (source(&world), trees(&world.parts));
        let request = TagsRequest { start: window.0, end: window.1, ..REQUEST };
        let mut names_expected = BTreeSet::new();
        for field in fields() {
            let expected = expected(&trees, &field, &filter.0, window);
            let found = values(&source, &field, Some(&filter.0), &request, &control()).unwrap().values;
            let found: BTreeSet<String> = found.iter().map(|value| format!("{value:?}")).collect();
            prop_assert_eq!(&found, &expected, "{}", field);
            if let Field::Attribute(own) = &field
                // An empty array is no value, but has a name.
                && (!expected.is_empty() || own.name == "l")
            {
                names_expected.insert(field.to_string());
            }
        }
        let found = names(&source, None, Some(&filter.0), &request, &control()).unwrap();
        for (scope, names) in found.scopes {
            for name in names.iter().filter(|name| NAMES.contains(&&***name) && &***name != "l") {
                prop_assert!(names_expected.remove(&format!("{scope}.{name}")), "{} {}", scope, name);
            }
        }
        names_expected.retain(|name| !name.ends_with(".l"));
        prop_assert!(names_expected.is_empty(), "{:?}", names_expected);
    }
}
