use super::*;
use crate::process::testing::{attribute, decoded_settings, errors_of, request, run};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

/// Which of these spans the processor marks, by name.
fn marked(matching: &str) -> Vec<String> {
    let span = |name: &str, kind: i32, value: i64| Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: name.to_owned(),
        kind,
        attributes: vec![attribute("n", value), attribute("t", "text")],
        ..Default::default()
    };
    let scope = |name: &str, version: &str, spans| ScopeSpans {
        scope: Some(opentelemetry_proto::tonic::common::v1::InstrumentationScope {
            name: name.to_owned(),
            version: version.to_owned(),
            ..Default::default()
        }),
        spans,
        ..Default::default()
    };
    let resource = |service: &str, scope_spans| ResourceSpans {
        resource: Some(opentelemetry_proto::tonic::resource::v1::Resource {
            attributes: vec![attribute("service.name", service)],
            ..Default::default()
        }),
        scope_spans,
        ..Default::default()
    };
    let spans = request(vec![
        resource("shop", vec![scope("lib", "1.2", vec![span("a", 2, 1), span("b", 3, 2)])]),
        resource("cart", vec![scope("other", "2.0", vec![span("c", 2, 1)])]),
    ]);
    let text = format!("{matching}\nactions: [{{key: mark, value: true, action: insert}}]");
    let processor = Attributes::new(&decoded_settings(&text, AttributesSettings::decode));
    let marked = |span: &Span| span.attributes.iter().any(|attribute| attribute.key == "mark");
    run(&processor, &spans).into_iter().filter(marked).map(|span| span.name).collect()
}

#[test]
fn all_given_properties_must_match_and_any_entry_of_a_list() {
    assert_eq!(marked(""), ["a", "b", "c"]);
    assert_eq!(marked("include: {match_type: strict, services: [shop]}"), ["a", "b"]);
    assert_eq!(marked("include: {match_type: strict, services: [shop, cart], span_names: [a, c]}"), ["a", "c"]);
    assert_eq!(marked("include: {match_type: strict, span_kinds: [SPAN_KIND_SERVER]}"), ["a", "c"]);
    assert_eq!(marked("include: {match_type: strict, attributes: [{key: n, value: 1}]}"), ["a", "c"]);
    assert_eq!(marked("include: {match_type: strict, attributes: [{key: n, value: \"1\"}]}"), Vec::<String>::new());
    assert_eq!(marked("include: {match_type: strict, attributes: [{key: n}, {key: absent}]}"), Vec::<String>::new());
    assert_eq!(marked("include: {match_type: strict, resources: [{key: service.name, value: cart}]}"), ["c"]);
    assert_eq!(marked("include: {match_type: strict, libraries: [{name: lib, version: \"1.2\"}]}"), ["a", "b"]);
    assert_eq!(marked("include: {match_type: regexp, libraries: [{name: ., version: ^2}]}"), ["c"]);
    assert_eq!(marked("include: {match_type: regexp, services: [^sh], attributes: [{key: n, value: ^2$}]}"), ["b"]);
    assert_eq!(marked("include: {match_type: regexp, span_kinds: [CLIENT]}"), ["b"]);
}

#[test]
fn what_is_excluded_stays_as_it_is() {
    assert_eq!(marked("exclude: {match_type: strict, services: [shop]}"), ["c"]);
    assert_eq!(
        marked(
            "include: {match_type: regexp, span_names: [\"[ab]\"]}\nexclude: {match_type: strict, span_kinds: [SPAN_KIND_CLIENT]}"
        ),
        ["a"]
    );
}

#[test]
fn settings_that_cannot_mean_anything_are_refused() {
    let errors = |matching: &str| {
        let text = format!("include: {matching}\nactions: [{{key: a, action: delete}}]");
        errors_of(&text, |section| drop(AttributesSettings::decode(section)))
    };
    assert_eq!(
        errors("{services: [a]}"),
        ["include::match_type: is missing (strict compares texts, regexp searches in them)"]
    );
    assert!(errors("{match_type: strict}")[0].starts_with("include: says nothing to match"));
    assert!(errors("{match_type: strict, span_kinds: [SERVER]}")[0].contains("\"SERVER\" is no span kind"));
    assert!(errors("{match_type: regexp, services: [\"(\"]}")[0].contains("is no valid pattern"));
    assert!(errors("{match_type: regexp, attributes: [{key: a, value: 1}]}")[0].contains("takes a text"));
    assert!(errors("{match_type: strict, services: [a], log_bodies: [b]}")[0].contains("does not apply to spans"));
    assert_eq!(errors_of("actions:", |s| drop(AttributesSettings::decode(s))).len(), 1);
}
