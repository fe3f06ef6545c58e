use super::*;
use crate::process::testing::{attribute, decoded_settings, edited, errors_of, request};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1 as resource;
use opentelemetry_proto::tonic::trace::v1 as trace;
use std::net::{IpAddr, Ipv4Addr};

fn span(name: &str, number: i64, events: &[&str]) -> trace::Span {
    trace::Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: name.to_owned(),
        attributes: vec![attribute("n", number), attribute("http.target", "/healthz")],
        events: events
            .iter()
            .map(|name| trace::span::Event { name: (*name).to_owned(), ..Default::default() })
            .collect(),
        ..Default::default()
    }
}

fn sample() -> Vec<u8> {
    let scope = |name: &str, spans| trace::ScopeSpans {
        scope: Some(InstrumentationScope { name: name.to_owned(), ..Default::default() }),
        spans,
        ..Default::default()
    };
    let resource = |service: &str, scope_spans| trace::ResourceSpans {
        resource: Some(resource::Resource {
            attributes: vec![attribute("service.name", service)],
            ..Default::default()
        }),
        scope_spans,
        ..Default::default()
    };
    request(vec![
        resource(
            "shop",
            vec![
                scope("a", vec![span("one", 1, &["x", "y"]), span("two", 2, &[])]),
                scope("b", vec![span("three", 3, &["x"])]),
            ],
        ),
        resource("cart", vec![scope("a", vec![span("four", 4, &[])])]),
    ])
}

fn filter(settings: &str) -> Filter {
    Filter::new(&decoded_settings(settings, FilterSettings::decode))
}

/// `service/scope/span[events]` of what is left, and how many spans are said to be gone.
fn left(settings: &str) -> (Vec<String>, u64) {
    let filter = filter(settings);
    let bytes = sample();
    let client = Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let removed = filter.edit(&mut Traces::parse(&bytes), &client).unwrap();
    let ExportTraceServiceRequest { resource_spans } = edited(&filter, &bytes, &client);
    let mut left = Vec::new();
    for (index, resource_spans) in resource_spans.iter().enumerate() {
        for scope_spans in &resource_spans.scope_spans {
            for span in &scope_spans.spans {
                let events: Vec<&str> = span.events.iter().map(|event| event.name.as_str()).collect();
                let scope = &scope_spans.scope.as_ref().unwrap().name;
                left.push(format!("{index}/{scope}/{}[{}]", span.name, events.join(",")));
            }
        }
    }
    assert_eq!(removed.sampled_out, 0);
    (left, removed.filtered)
}

fn names(settings: &str) -> String {
    left(settings).0.join(" ")
}

#[test]
fn what_a_condition_holds_for_goes_with_all_that_belongs_to_it() {
    let all = "0/a/one[x,y] 0/a/two[] 0/b/three[x] 1/a/four[]";
    assert_eq!(names("trace_conditions: ['span.name == \"absent\"']"), all);
    assert_eq!(
        left("trace_conditions: ['span.name == \"two\"']"),
        (["0/a/one[x,y]", "0/b/three[x]", "1/a/four[]"].map(str::to_owned).to_vec(), 1)
    );
    assert_eq!(names("trace_conditions: ['resource.attributes[\"service.name\"] == \"shop\"']"), "0/a/four[]");
    assert_eq!(names("trace_conditions: ['scope.name == \"a\"']"), "0/b/three[x]");
    assert_eq!(names("trace_conditions: ['spanevent.name == \"x\"']"), "0/a/one[y] 0/a/two[] 0/b/three[] 1/a/four[]");
    assert_eq!(
        names("trace_conditions: ['span.name == \"one\"', 'spanevent.name == \"x\"', 'span.attributes[\"n\"] > 3']"),
        "0/a/two[] 0/b/three[]"
    );
    assert_eq!(left("trace_conditions: ['span.attributes[\"http.target\"] == \"/healthz\"']"), (Vec::new(), 4));
}

#[test]
fn old_styles_mean_what_they_did() {
    assert_eq!(
        names("traces: {span: ['name == \"one\"', 'attributes[\"n\"] == 2'], spanevent: ['name == \"x\"']}"),
        "0/b/three[] 1/a/four[]"
    );
    assert_eq!(names("traces: {resource: ['IsMatch(attributes[\"service.name\"], \"^sh\")']}"), "0/a/four[]");
    assert_eq!(names("spans: {include: {match_type: strict, span_names: [one, three]}}"), "0/a/one[x,y] 0/b/three[x]");
    assert_eq!(names("spans: {exclude: {match_type: regexp, services: [^sh]}}"), "0/a/four[]");
    assert_eq!(
        names(
            "trace_conditions: [{context: span, conditions: ['name == \"one\"', 'span.name == \"two\"']}, {conditions: ['scope.name == \"b\"']}]"
        ),
        "0/a/four[]"
    );
}

#[test]
fn what_cannot_be_said_is_passed_over_or_refuses_the_request() {
    let condition = "'span.attributes[\"n\"] / 0 == 1', 'span.name == \"one\"'";
    let rest = "0/a/two[] 0/b/three[x] 1/a/four[]";
    assert_eq!(names(&format!("trace_conditions: [{condition}]")), rest);
    assert_eq!(names(&format!("error_mode: silent\ntrace_conditions: [{condition}]")), rest);
    let propagate = filter(&format!("error_mode: propagate\ntrace_conditions: [{condition}]"));
    let bytes = sample();
    let client = Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let failed = propagate.edit(&mut Traces::parse(&bytes), &client).unwrap_err();
    assert_eq!(failed.to_string(), "filter: a division by zero, in span.attributes[\"n\"] / 0 == 1");
    let group = "trace_conditions: [{error_mode: Propagate, conditions: ['span.name / 1 == 1']}]";
    assert!(filter(group).edit(&mut Traces::parse(&bytes), &client).is_err());
}

#[test]
fn a_request_of_which_nothing_goes_stays_as_it_was() {
    let filter =
        filter("trace_conditions: ['span.attributes[\"n\"] == 9', 'spanevent.name == \"z\"', 'scope.name == \"c\"']");
    let bytes = sample();
    let mut traces = Traces::parse(&bytes);
    let client = Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST));
    filter.edit(&mut traces, &client).unwrap();
    assert!(!traces.is_changed());
}

#[test]
fn settings_are_refused_with_place_reason_and_remedy() {
    let errors = |text: &str| {
        errors_of(text, |section| {
            FilterSettings::decode(section);
        })
    };
    assert_eq!(
        errors("trace_conditions: ['span.nmae == \"a\"']"),
        ["trace_conditions::0: at column 6: a span has no nmae (did you mean \"name\"?)"]
    );
    assert_eq!(
        errors("trace_conditions: ['attributes[\"a\"] == 1']"),
        [
            "trace_conditions::0: no path says which context is meant (begin paths with resource., scope., span. or spanevent.)"
        ]
    );
    assert_eq!(
        errors("trace_conditions: [{context: metric, conditions: ['true']}]")[0],
        "trace_conditions::0::context: \"metric\" is not one of its values (one of: resource, scope, span, spanevent)"
    );
    assert_eq!(
        errors("trace_conditions: ['span.name == \"a\"', {conditions: ['span.name == \"b\"']}]"),
        ["trace_conditions::1: stands beside conditions without a group (put all of them into groups)"]
    );
    assert_eq!(
        errors("traces: {span: ['name == ']}\nmetrics: {metric: ['true']}"),
        [
            "traces::span::0: at column 9: expected a value, got the end",
            "metrics: not supported: only spans are filtered; metrics and logs pass as they came (remove it)"
        ]
    );
    assert_eq!(
        errors("traces: {span: ['true']}\nspans: {include: {match_type: strict, services: [a]}}"),
        ["spans: cannot be used together with traces (trace_conditions can say everything that the others say)"]
    );
    assert_eq!(
        errors("error_mode: panic\ntrace_conditions: ['span.name == \"a\"']"),
        ["error_mode: \"panic\" is not one of its values (one of: ignore, propagate, silent)"]
    );
    assert_eq!(errors("{}"), ["says nothing to filter (trace_conditions lists what is to go)"]);
    assert_eq!(
        errors("trace_conditions: ['span.kind == \"Server\"']"),
        [
            "trace_conditions::0: at column 1: this is never true: a whole number is compared with a text (span.kind.string is a text)"
        ]
    );
}
