use super::*;
use crate::process::testing::{attribute, decoded_settings, edited, errors_of, request};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1 as resource;
use opentelemetry_proto::tonic::trace::v1 as trace;
use std::net::{IpAddr, Ipv4Addr};

fn sample() -> Vec<u8> {
    let span = |name: &str, n: i64| trace::Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: name.to_owned(),
        attributes: vec![attribute("n", n)],
        events: vec![trace::span::Event { name: "x".to_owned(), ..Default::default() }],
        ..Default::default()
    };
    request(vec![trace::ResourceSpans {
        resource: Some(resource::Resource {
            attributes: vec![attribute("service.name", "shop")],
            ..Default::default()
        }),
        scope_spans: vec![trace::ScopeSpans { spans: vec![span("one", 1), span("two", 2)], ..Default::default() }],
        ..Default::default()
    }])
}

fn transform(settings: &str) -> Transform {
    Transform::new(&decoded_settings(settings, TransformSettings::decode))
}

fn client() -> Client {
    Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn transformed(settings: &str) -> trace::ResourceSpans {
    let ExportTraceServiceRequest { mut resource_spans } = edited(&transform(settings), &sample(), &client());
    resource_spans.remove(0)
}

fn span_names(settings: &str) -> Vec<String> {
    transformed(settings).scope_spans.remove(0).spans.into_iter().map(|span| span.name).collect()
}

#[test]
fn statements_alone_run_together_in_the_innermost_context() {
    // Once per span, as in a Collector, though the attribute is the resource's.
    let settings = r#"
trace_statements:
  - set(resource.attributes["seen"], span.name)
  - set(span.name, Concat([span.name, "x"], "-"))
  - append(resource.attributes["all"], span.name)
"#;
    let resource_spans = transformed(settings);
    let resource = resource_spans.resource.unwrap();
    assert_eq!(resource.attributes[1], attribute("seen", "two"));
    assert!(format!("{:?}", resource.attributes[2]).contains("one-x"));
    assert_eq!(span_names(settings), ["one-x", "two-x"]);
}

#[test]
fn groups_run_one_after_the_other_each_over_the_whole_request() {
    let settings = r#"
trace_statements:
  - context: resource
    statements: ['set(attributes["a"], "b")', 'delete_key(attributes, "service.name")']
  - context: Span
    conditions: ['name == "two"', 'attributes["n"] == 7']
    statements: ['set(name, resource.attributes["a"])', 'set(cache["x"], 1)', 'set(attributes["c"], cache["x"])']
  - statements: ['set(spanevent.name, span.name)']
  - context: scope
    statements: ['set(name, "scope")']
  - set(span.attributes["last"], Len(span.events))
"#;
    let resource_spans = transformed(settings);
    assert_eq!(resource_spans.resource.unwrap().attributes, [attribute("a", "b")]);
    let scope_spans = &resource_spans.scope_spans[0];
    assert_eq!(scope_spans.scope.as_ref().unwrap().name, "scope");
    let [one, two] = scope_spans.spans.as_slice() else { panic!("{scope_spans:?}") };
    assert_eq!((one.name.as_str(), one.events[0].name.as_str()), ("one", "one"));
    assert_eq!((two.name.as_str(), two.events[0].name.as_str()), ("b", "b"));
    assert_eq!(one.attributes, [attribute("n", 1), attribute("last", 1)]);
    assert_eq!(two.attributes, [attribute("n", 2), attribute("c", 1), attribute("last", 1)]);
}

#[test]
fn a_cache_is_a_messages_own() {
    let settings = r#"
trace_statements:
  - set(span.attributes["before"], "yes") where span.cache["x"] != nil
  - set(span.cache["x"], 1)
"#;
    let attributes = |span: trace::Span| span.attributes.len();
    let spans = transformed(settings).scope_spans.remove(0).spans;
    assert_eq!(spans.into_iter().map(attributes).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn what_does_not_work_is_passed_over_or_refuses_the_request() {
    let statements = r#"trace_statements: ['set(span.name, span.attributes["n"])', 'set(span.name, "after")']"#;
    assert_eq!(span_names(statements), ["after", "after"]);
    assert_eq!(span_names(&format!("error_mode: silent\n{statements}")), ["after", "after"]);
    let refusing = transform(&format!("error_mode: propagate\n{statements}"));
    let bytes = sample();
    let client = client();
    let failed = refusing.edit(&mut Traces::parse(&bytes), &client).unwrap_err();
    assert_eq!(
        failed.to_string(),
        "transform: expected a text, got a whole number, in set(span.name, span.attributes[\"n\"])"
    );
}

#[test]
fn statements_that_change_nothing_leave_every_byte() {
    let transform = transform(r#"trace_statements: ['set(span.name, "x") where span.name == "absent"']"#);
    let bytes = sample();
    let mut traces = Traces::parse(&bytes);
    let client = client();
    transform.edit(&mut traces, &client).unwrap();
    assert!(!traces.is_changed());
}

#[test]
fn settings_are_refused_with_place_reason_and_remedy() {
    let errors = |text: &str| {
        errors_of(text, |section| {
            TransformSettings::decode(section);
        })
    };
    assert_eq!(
        errors("trace_statements: ['set(span.name, \"a\")', 'sett(span.name, \"a\")']"),
        ["trace_statements::1: at column 1: there is no function sett (did you mean \"set\"?)"]
    );
    assert_eq!(
        errors("trace_statements: ['set(name, \"a\")']"),
        [
            "trace_statements::0: no path says which context is meant (begin paths with resource., scope., span. or spanevent.)"
        ]
    );
    assert_eq!(
        errors("trace_statements: ['set(span.name, attributes[\"a\"])']"),
        [
            "trace_statements::0: at column 16: attributes[\"a\"] does not say whose it is (write e.g. span.attributes[\"a\"])"
        ]
    );
    assert_eq!(
        errors("trace_statements:\n  - context: span\n    statements:\n      - |\n        set(name,\n          nmae)"),
        ["trace_statements::0::statements::0: at line 2, column 3: a span has no nmae (did you mean \"name\"?)"]
    );
    assert_eq!(
        errors("trace_statements: ['set(span.name, \"a\")', {statements: ['set(span.name, \"a\")']}]"),
        ["trace_statements::1: stands behind statements without a group (put all of them into groups)"]
    );
    assert_eq!(
        errors(
            "log_statements: ['set(log.body, \"\")']\ntrace_statements: [{context: span, shared_cache: true, statements: ['set(name, \"a\")']}]"
        ),
        [
            "log_statements: not supported: only spans are transformed; metrics and logs pass as they came (remove it)",
            "trace_statements::0::shared_cache: not supported: a cache is a message's own, within its group (remove it)"
        ]
    );
    assert_eq!(errors("{}"), ["says nothing to transform (trace_statements lists what is to be done)"]);
}
