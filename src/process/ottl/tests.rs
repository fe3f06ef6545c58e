//! Tables of statements and conditions (in `tests/data/ottl`), and properties of the grammar.

use super::{Condition, Context, Frame, NoContext, Prefixes, Problem, Statement, View, infer, parser};
use crate::otlp::edit::{Attributes, ResourceSpans, ScopeSpans, Traces};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as trace;
use proptest::prelude::*;
use prost::Message;

fn holding(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(text: &str) -> AnyValue {
    holding(Any::StringValue(text.to_owned()))
}

fn attributes<const LEN: usize>(entries: [(&str, AnyValue); LEN]) -> Vec<KeyValue> {
    let entry =
        |(key, value): (&str, AnyValue)| KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() };
    entries.into_iter().map(entry).collect()
}

/// The span that the tables are about, on its own.
fn sample() -> Vec<u8> {
    let list = ArrayValue { values: vec![text("a"), holding(Any::IntValue(2))] };
    let inner = ArrayValue { values: vec![holding(Any::BoolValue(true))] };
    let map = KeyValueList { values: attributes([("x", text("1")), ("y", holding(Any::ArrayValue(inner)))]) };
    let span = trace::Span {
        trace_id: (1..=16).collect(),
        span_id: (0x11..=0x18).collect(),
        trace_state: "a=1,b=2".to_owned(),
        flags: 257,
        name: "GET /users/7".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_001_500_000,
        attributes: attributes([
            ("text", text("text")),
            ("int", holding(Any::IntValue(7))),
            ("one", holding(Any::IntValue(1))),
            ("double", holding(Any::DoubleValue(1.5))),
            ("nan", holding(Any::DoubleValue(f64::NAN))),
            ("bool", holding(Any::BoolValue(true))),
            ("bytes", holding(Any::BytesValue(vec![0xde, 0xad]))),
            ("nobytes", holding(Any::BytesValue(Vec::new()))),
            ("empty", AnyValue { value: None }),
            ("list", holding(Any::ArrayValue(list))),
            ("map", holding(Any::KvlistValue(map))),
            ("key", text("int")),
            ("path", text("/api/v1")),
        ]),
        dropped_attributes_count: 1,
        dropped_events_count: 2,
        dropped_links_count: 3,
        events: vec![
            trace::span::Event { name: "first".to_owned(), ..Default::default() },
            trace::span::Event {
                name: "exception".to_owned(),
                time_unix_nano: 1_700_000_000_000_000_005,
                attributes: attributes([("type", text("io"))]),
                dropped_attributes_count: 6,
            },
        ],
        links: vec![trace::span::Link { trace_id: vec![1; 16], span_id: vec![2; 8], ..Default::default() }],
        status: Some(trace::Status { message: "boom".to_owned(), code: 2 }),
        ..Default::default()
    };
    let scope = trace::ScopeSpans {
        scope: Some(InstrumentationScope {
            name: "lib".to_owned(),
            version: "1.2".to_owned(),
            attributes: attributes([("s", holding(Any::IntValue(1)))]),
            ..Default::default()
        }),
        spans: vec![span],
        schema_url: "scope-url".to_owned(),
    };
    let resource_spans = trace::ResourceSpans {
        resource: Some(Resource {
            attributes: attributes([("service.name", text("shop"))]),
            dropped_attributes_count: 4,
            ..Default::default()
        }),
        scope_spans: vec![scope],
        schema_url: "resource-url".to_owned(),
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// The sample's messages as the statement of a context sees them; its second event is the one that is looked at.
fn frame<'f, 'a>(traces: &'f mut Traces<'a>, context: Context) -> Frame<'f, 'a> {
    let ResourceSpans { resource, scopes, schema_url: resource_url } = traces.resources.first_mut().unwrap();
    let ScopeSpans { scope, spans, schema_url } = scopes.first_mut().unwrap();
    Frame {
        resource: (resource, resource_url),
        scope: (context >= Context::Scope).then_some((scope, schema_url)),
        span: (context >= Context::Span).then(|| spans.first_mut().unwrap()),
        event: (context >= Context::SpanEvent).then_some(1),
        cache: Attributes::default(),
    }
}

/// `CONTEXT | TEXT`
fn line(line: &str) -> (Context, Prefixes, &str) {
    let (context, text) = line.split_once(" | ").unwrap_or_else(|| panic!("{line}"));
    let (context, prefixes) = match context.strip_suffix('+') {
        Some(context) => (context, Prefixes::Required),
        None => (context, Prefixes::Optional),
    };
    (Context::named(context).unwrap(), prefixes, text)
}

fn lines(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn is_statement(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.find('(').is_some_and(|at| text[..at].chars().all(|it| it.is_ascii_lowercase() || it == '_'))
        && !["not", "isMatch"].iter().any(|word| text.starts_with(word))
}

fn load(text: &str, context: Context, prefixes: Prefixes) -> Result<Vec<Problem>, Problem> {
    match is_statement(text) {
        true => Statement::parse(text, context, prefixes).map(|loaded| loaded.warnings),
        false => Condition::parse(text, context, prefixes).map(|loaded| loaded.warnings),
    }
}

#[test]
fn what_is_valid_loads_without_a_warning() {
    for entry in lines(include_str!("../../../tests/data/ottl/valid.txt")) {
        let (context, prefixes, text) = line(entry);
        assert_eq!(load(text, context, prefixes), Ok(Vec::new()), "{entry}");
    }
}

#[test]
fn what_is_invalid_is_refused_with_its_place_and_a_remedy() {
    let mut wrong = Vec::new();
    for entry in lines(include_str!("../../../tests/data/ottl/invalid.txt")) {
        let (left, expected) = entry.rsplit_once(" => ").unwrap_or_else(|| panic!("{entry}"));
        let (context, prefixes, text) = line(left);
        let problem = load(text, context, prefixes).map_or_else(|problem| problem.to_string(), |_| "valid".to_owned());
        let fits = match expected.strip_suffix('*') {
            Some(start) => problem.starts_with(start),
            None => problem == expected,
        };
        if !fits {
            wrong.push(format!("{entry}\n    {problem}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn conditions_hold_as_the_table_says() {
    let mut wrong = Vec::new();
    let bytes = sample();
    for entry in lines(include_str!("../../../tests/data/ottl/conditions.txt")) {
        let (left, expected) = entry.rsplit_once(" => ").unwrap_or_else(|| panic!("{entry}"));
        let (context, prefixes, text) = line(left);
        let condition =
            Condition::parse(text, context, prefixes).unwrap_or_else(|problem| panic!("{entry}\n{problem}"));
        let mut traces = Traces::parse(&bytes);
        let holds = condition.value.holds(frame(&mut traces, context).view());
        let found = holds.map_or_else(|failure| failure.to_string(), |holds| holds.to_string());
        if found != expected || traces.is_changed() {
            wrong.push(format!("{entry}\n    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn statements_leave_what_the_table_says() {
    let mut wrong = Vec::new();
    let bytes = sample();
    for entry in lines(include_str!("../../../tests/data/ottl/statements.txt")) {
        let (left, expected) = entry.rsplit_once(" => ").unwrap_or_else(|| panic!("{entry}"));
        let (context, prefixes, text) = line(left);
        let parse = |text| Statement::parse(text, context, prefixes).unwrap_or_else(|it| panic!("{entry}\n{it}")).value;
        let statements: Vec<Statement> = text.split(" ; ").map(parse).collect();
        let mut traces = Traces::parse(&bytes);
        let mut messages = frame(&mut traces, context);
        let mut last = Ok(());
        for statement in &statements {
            last = last.and_then(|()| statement.run(&mut messages));
        }
        let found = match (last, expected.strip_prefix("! ")) {
            (Err(failure), Some(reason)) if failure.to_string() == reason => continue,
            (Err(failure), _) => failure.to_string(),
            (Ok(()), Some(_)) => "it worked".to_owned(),
            (Ok(()), None) => {
                let written = traces.encode();
                let mut traces = Traces::parse(&written);
                let condition =
                    Condition::parse(expected, context, prefixes).unwrap_or_else(|it| panic!("{entry}\n{it}"));
                let holds = condition.value.holds(frame(&mut traces, context).view());
                if holds == Ok(true) {
                    continue;
                }
                let attributes = traces.resources[0].scopes[0].spans[0].attributes();
                format!("{holds:?}: {:?}", attributes.iter().map(|it| (it.key(), it.value())).collect::<Vec<_>>())
            }
        };
        wrong.push(format!("{entry}\n    {found}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_statement_that_does_nothing_leaves_every_byte() {
    let bytes = sample();
    for text in [
        r#"set(name, "x") where name == "other""#,
        r#"delete_key(attributes, "absent")"#,
        r#"delete_matching_keys(attributes, "^absent$")"#,
        r#"truncate_all(attributes, 1000)"#,
        r#"limit(attributes, 1000, [])"#,
        r#"keep_matching_keys(attributes, ".")"#,
        r#"replace_all_patterns(attributes, "value", "absent", "x")"#,
        r#"replace_all_matches(attributes, "absent", "x")"#,
        r#"replace_pattern(name, "absent", "x")"#,
        r#"set(cache["a"], name)"#,
    ] {
        let statement = Statement::parse(text, Context::Span, Prefixes::Optional).unwrap().value;
        let mut traces = Traces::parse(&bytes);
        statement.run(&mut frame(&mut traces, Context::Span)).unwrap();
        assert!(!traces.is_changed(), "{text}");
        assert_eq!(traces.encode(), bytes, "{text}");
    }
}

#[test]
fn what_can_never_work_earns_a_warning() {
    let warnings = |text| {
        let found = load(text, Context::Span, Prefixes::Optional).unwrap();
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(
        warnings(r#"kind == "Server""#),
        "1:1: this is never true: a whole number is compared with a text (kind.string is a text)"
    );
    assert_eq!(
        warnings(r#""x" != trace_id"#),
        "1:1: this is always true: a text is compared with a trace id (trace_id.string is a text)"
    );
    assert_eq!(warnings("name == nil"), "1:1: this is never true: a text is compared with nothing");
    assert_eq!(warnings("set(name, 5)"), "1:5: this can never work: name takes a text, and not a whole number");
    assert_eq!(
        warnings("Substring(kind, 0, 1) == \"\""),
        "1:11: this can never work: target must be a text, and this is a whole number"
    );
    assert_eq!(warnings(r#"attributes["a"] == "x" or start_time < Now()"#), "");
    assert_eq!(warnings("set(attributes[\"a\"], nil)"), "");
}

#[test]
fn the_context_is_the_innermost_that_a_path_names_and_that_has_what_is_used() {
    let context =
        |statements: &[&str], conditions: &[&str]| infer(statements, conditions).map_err(|it| format!("{it:?}"));
    let set = r#"set(resource.attributes["a"], "b")"#;
    assert_eq!(context(&[set], &[]), Ok(Context::Resource));
    assert_eq!(context(&[set, "set(span.name, \"x\")"], &[]), Ok(Context::Span));
    assert_eq!(context(&[set], &["spanevent.name == \"x\""]), Ok(Context::SpanEvent));
    assert_eq!(
        context(&[], &["instrumentation_scope.name == \"x\" or resource.attributes[\"a\"] == 1"]),
        Ok(Context::Scope)
    );
    assert_eq!(context(&[r#"set(resource.attributes["a"], "b") where IsRootSpan()"#], &[]), Ok(Context::Span));
    assert_eq!(context(&["set(resource.attributes[\"a\"], SPAN_KIND_SERVER)"], &[]), Ok(Context::SpanEvent));
    assert_eq!(context(&["set(resource.attributes[span.name], {\"a\": [Len(scope.name)]})"], &[]), Ok(Context::Span));
    assert!(matches!(infer(&[], &["true"]), Err(NoContext::NoPath)));
    assert!(matches!(infer(&[], &["spanevent.name == \"\" and IsRootSpan()"]), Err(NoContext::NoneFits)));
    assert!(matches!(infer(&[set, "set("], &[]), Err(NoContext::Statement(1, _))));
    assert!(matches!(infer(&[set], &["true", "and"]), Err(NoContext::Condition(1, _))));
}

#[test]
fn places_count_lines_and_characters() {
    let problem = Condition::parse("name == \"äö\" and\n  nmae == 1", Context::Span, Prefixes::Optional).unwrap_err();
    assert_eq!((problem.line, problem.column), (2, 3));
}

#[test]
fn length_and_nesting_are_bounded() {
    let long = format!("name == \"{}\"", "a".repeat(parser::TEXT_BYTES_MAX));
    assert!(parser::condition(&long).unwrap_err().reason.contains("more than"));
    for open in ["(", "[", "not (", "Len(", "a[", "-("] {
        let deep = open.repeat(2000);
        let problem = parser::condition(&deep).unwrap_err();
        assert!(problem.reason.contains("nested more than"), "{open}: {problem}");
    }
    let many = vec!["name == \"a\""; 1000].join(" or ");
    assert!(Condition::parse(&many, Context::Span, Prefixes::Optional).is_ok());
}

#[test]
fn a_view_without_span_answers_instead_of_panicking() {
    let bytes = sample();
    let traces = Traces::parse(&bytes);
    let resource = &traces.resources[0];
    let view = View {
        resource: (&resource.resource, &resource.schema_url),
        scope: None,
        span: None,
        event: None,
        cache: None,
    };
    let condition = Condition::parse("name == \"x\"", Context::Span, Prefixes::Optional).unwrap().value;
    assert!(condition.holds(view).is_err());
}

/// Texts that are mostly well formed, put together from pieces.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "set",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        ".",
        "where",
        "and",
        "or",
        "not",
        "nil",
        "true",
        "==",
        "!=",
        "<",
        "+",
        "-",
        "*",
        "/",
        "span",
        "name",
        "attributes",
        "[\"a\"]",
        "Concat",
        "SPAN_KIND_SERVER",
        "\"a\\n\"",
        "1",
        "1.5",
        "0xab",
        "x=",
        "IsMatch(name, \"a\")",
        "span.name == \"b\"",
        "set(name, 1)",
        "(1 + 2)",
    ]);
    prop::collection::vec(pieces, 0..14).prop_map(|pieces| pieces.join(" "))
}

/// What is valid in the tables, with one piece changed.
fn mutated() -> impl Strategy<Value = String> {
    let valid: Vec<&str> =
        lines(include_str!("../../../tests/data/ottl/valid.txt")).map(|entry| line(entry).2).collect();
    (prop::sample::select(valid), any::<prop::sample::Index>(), "[\\PC]{0,2}").prop_map(|(text, at, new)| {
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.index(characters.len());
        characters.splice(at..=at, new.chars());
        characters.into_iter().collect()
    })
}

fn printed_reads_back(text: &str) -> Result<(), TestCaseError> {
    if let Ok(tree) = parser::statement(text) {
        let printed = tree.to_string();
        prop_assert_eq!(parser::statement(&printed), Ok(tree), "{}", printed);
    }
    if let Ok(tree) = parser::condition(text) {
        let printed = tree.to_string();
        prop_assert_eq!(parser::condition(&printed), Ok(tree), "{}", printed);
    }
    for context in super::CONTEXTS {
        let _ = Statement::parse(text, context, Prefixes::Optional);
        let _ = Condition::parse(text, context, Prefixes::Required);
    }
    let _ = infer(&[text], &[]);
    Ok(())
}

#[test]
fn what_is_valid_reads_back_when_printed() {
    for entry in lines(include_str!("../../../tests/data/ottl/valid.txt")) {
        printed_reads_back(line(entry).2).unwrap();
    }
}

proptest! {
    #[test]
    fn trees_read_back_when_printed(text in prop_oneof![texts(), mutated()]) {
        printed_reads_back(&text)?;
    }

    #[test]
    fn any_text_is_refused_or_read_without_panic(text: String) {
        printed_reads_back(&text)?;
    }
}

#[test]
fn the_documentation_names_every_function() {
    let documentation = include_str!("../../../docs/ottl.md");
    for name in super::functions::names() {
        assert!(documentation.contains(&format!("`{name}`")), "{name}");
    }
}
