use super::*;
use crate::otlp::scan::{describe, scan};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1 as resource;
use opentelemetry_proto::tonic::trace::v1 as trace;
use proptest::prelude::*;
use prost::Message;

/// Few keys, so that changes meet them.
const KEYS: [&str; 4] = ["a", "b", "service.name", ""];

fn key() -> impl Strategy<Value = String> {
    proptest::sample::select(&KEYS[..]).prop_map(str::to_owned)
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        "[a-zü]{0,200}".prop_map(Any::StringValue),
        any::<bool>().prop_map(Any::BoolValue),
        any::<i64>().prop_map(Any::IntValue),
        (-1e9..1e9f64).prop_map(Any::DoubleValue),
        any::<Vec<u8>>().prop_map(Any::BytesValue),
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        let inner = proptest::option::weighted(0.9, inner).prop_map(|value| AnyValue { value });
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(|values| Any::ArrayValue(ArrayValue { values })),
            proptest::collection::vec((key(), inner), 0..3)
                .prop_map(|entries| Any::KvlistValue(KeyValueList { values: unique(entries) })),
        ]
    });
    proptest::option::weighted(0.9, value).prop_map(|value| AnyValue { value })
}

fn key_value(key: String, value: AnyValue) -> KeyValue {
    KeyValue { key, value: Some(value), ..KeyValue::default() }
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    proptest::collection::vec((key(), any_value()), 0..4).prop_map(unique)
}

/// What a key that comes twice means is not what these tests are about.
fn unique(entries: Vec<(String, AnyValue)>) -> Vec<KeyValue> {
    let mut kept: Vec<KeyValue> = Vec::new();
    for (key, value) in entries {
        if !kept.iter().any(|entry| entry.key == key) {
            kept.push(key_value(key, value));
        }
    }
    kept
}

fn span() -> impl Strategy<Value = trace::Span> {
    let event = (any::<u64>(), attributes()).prop_map(|(time_unix_nano, attributes)| trace::span::Event {
        time_unix_nano,
        name: "e".to_owned(),
        attributes,
        dropped_attributes_count: 2,
    });
    let link = attributes().prop_map(|attributes| trace::span::Link {
        trace_id: vec![3; 16],
        span_id: vec![4; 8],
        attributes,
        ..Default::default()
    });
    let status = (0..3i32, "[a-z]{0,3}").prop_map(|(code, message)| trace::Status { code, message });
    (
        attributes(),
        proptest::collection::vec(event, 0..3),
        proptest::collection::vec(link, 0..2),
        proptest::option::of(status),
        (any::<u64>(), any::<u64>(), 0..6i32, "[a-z]{0,5}", "[a-z]{0,3}", any::<u32>()),
    )
        .prop_map(|(attributes, events, links, status, (start, end, kind, name, state, flags))| trace::Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            trace_state: state,
            name,
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes,
            events,
            links,
            status,
            flags,
            ..Default::default()
        })
}

fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope = attributes().prop_map(|attributes| InstrumentationScope {
        name: "lib".to_owned(),
        attributes,
        ..Default::default()
    });
    let scope_spans = (proptest::option::of(scope), proptest::collection::vec(span(), 0..3))
        .prop_map(|(scope, spans)| trace::ScopeSpans { scope, spans, schema_url: "scope-url".to_owned() });
    let resource = attributes().prop_map(|attributes| resource::Resource {
        attributes,
        dropped_attributes_count: 1,
        ..Default::default()
    });
    let resource_spans = (proptest::option::of(resource), proptest::collection::vec(scope_spans, 0..3)).prop_map(
        |(resource, scope_spans)| trace::ResourceSpans { resource, scope_spans, schema_url: "url".to_owned() },
    );
    proptest::collection::vec(resource_spans, 0..3)
        .prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

/// The same message with fields of a later version before and after the known ones, in spans, scopes and resources.
fn with_unknown_fields(request: &[u8]) -> Vec<u8> {
    fn strange(message: &[u8], number: u32, change: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 77, b"before");
        out.extend(rebuilt(message, number, change));
        put_bytes(&mut out, 78, b"after");
        out
    }
    strange(request, 1, &|resource_spans| {
        strange(resource_spans, 2, &|scope_spans| strange(scope_spans, 2, &|span| strange(span, 99, &<[u8]>::to_vec)))
    })
}

/// Looks at everything.
fn touch(traces: &Traces<'_>) {
    fn look(attributes: &Attributes<'_>) {
        for attribute in attributes {
            match attribute.value() {
                Value::Map(map) => look(map.entries()),
                Value::List(list) => assert_eq!(list.items().len(), list.items().iter().count()),
                _ => {}
            }
        }
    }
    for resource_spans in traces.resources.iter() {
        look(resource_spans.resource.attributes());
        for scope in resource_spans.scopes.iter() {
            look(scope.scope.attributes());
            for span in scope.spans.iter() {
                look(span.attributes());
                span.events().iter().for_each(|event| look(event.attributes()));
                span.links().iter().for_each(|link| look(link.attributes()));
            }
        }
    }
}

/// One change, done on both sides.
#[derive(Debug, Clone)]
enum Change {
    Upsert(String, AnyValue),
    Insert(String, AnyValue),
    Update(String, AnyValue),
    Delete(String),
    Nested(String),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (key(), any_value()).prop_map(|(key, value)| Change::Upsert(key, value)),
        (key(), any_value()).prop_map(|(key, value)| Change::Insert(key, value)),
        (key(), any_value()).prop_map(|(key, value)| Change::Update(key, value)),
        key().prop_map(Change::Delete),
        key().prop_map(Change::Nested),
    ]
}

fn ours(value: &AnyValue) -> Value<'_> {
    match &value.value {
        None => Value::Empty,
        Some(Any::StringValue(text)) => Value::text(text.as_str()),
        Some(Any::BoolValue(value)) => Value::Bool(*value),
        Some(Any::IntValue(value)) => Value::Int(*value),
        Some(Any::DoubleValue(value)) => Value::Double(*value),
        Some(Any::BytesValue(bytes)) => Value::Bytes(bytes.as_slice().into()),
        Some(Any::ArrayValue(list)) => Value::List(list.values.iter().map(ours).collect::<Vec<_>>().into()),
        Some(Any::KvlistValue(map)) => {
            let entries = map.values.iter().map(|entry| (entry.key.as_str().into(), owned(entry.value.as_ref())));
            Value::Map(entries.collect::<Attributes<'_>>().into())
        }
        Some(_) => Value::Empty,
    }
}

fn owned(value: Option<&AnyValue>) -> Value<'_> {
    value.map_or(Value::Empty, ours)
}

fn change_ours<'a>(attributes: &mut Attributes<'a>, change: &'a Change) {
    match change {
        Change::Upsert(key, value) => attributes.upsert(key.as_str(), ours(value)),
        Change::Insert(key, value) => drop(attributes.insert(key.as_str(), ours(value))),
        Change::Update(key, value) => drop(attributes.update(key, ours(value))),
        Change::Delete(key) => drop(attributes.delete(key)),
        Change::Nested(key) => match attributes.get_mut(key) {
            Some(Value::Map(map)) => map.entries_mut().upsert("new", Value::Int(1)),
            Some(Value::List(list)) => list.items_mut().push(Value::Bool(true)),
            _ => {}
        },
    }
}

fn change_theirs(attributes: &mut Vec<KeyValue>, change: &Change) {
    let position = |attributes: &Vec<KeyValue>, key: &str| attributes.iter().position(|entry| entry.key == key);
    match change {
        Change::Upsert(key, value) => match position(attributes, key) {
            Some(at) => attributes[at].value = Some(value.clone()),
            None => attributes.push(key_value(key.clone(), value.clone())),
        },
        Change::Insert(key, value) => {
            if position(attributes, key).is_none() {
                attributes.push(key_value(key.clone(), value.clone()));
            }
        }
        Change::Update(key, value) => {
            if let Some(at) = position(attributes, key) {
                attributes[at].value = Some(value.clone());
            }
        }
        Change::Delete(key) => attributes.retain(|entry| entry.key != *key),
        Change::Nested(key) => {
            let Some(at) = position(attributes, key) else { return };
            match attributes[at].value.as_mut().and_then(|value| value.value.as_mut()) {
                Some(Any::KvlistValue(map)) => {
                    let value = common::AnyValue { value: Some(Any::IntValue(1)) };
                    change_theirs(&mut map.values, &Change::Upsert("new".to_owned(), value));
                }
                Some(Any::ArrayValue(list)) => list.values.push(AnyValue { value: Some(Any::BoolValue(true)) }),
                _ => {}
            }
        }
    }
}

proptest! {
    /// What serves metrics and logs does to traces what the whole model does to them.
    #[test]
    fn resources_alone_change_as_they_do_with_everything_else(request in request(), key in key()) {
        let bytes = request.encode_to_vec();
        let mut traces = Traces::parse(&bytes);
        for resource_spans in traces.resources.iter_mut() {
            resource_spans.resource.attributes_mut().upsert(key.clone(), Value::Int(5));
        }
        let alone = edit_resources(&bytes, usize::MAX, |attributes| attributes.upsert(key.clone(), Value::Int(5)));
        prop_assert_eq!(alone.unwrap(), traces.is_changed().then(|| traces.encode()));
        let untouched = edit_resources(&bytes, usize::MAX, |attributes| { attributes.delete("absent"); });
        prop_assert_eq!(untouched.unwrap(), None);
    }

    #[test]
    fn what_nobody_changed_comes_out_byte_for_byte(request in request()) {
        let bytes = with_unknown_fields(&request.encode_to_vec());
        let traces = Traces::parse(&bytes);
        touch(&traces);
        prop_assert!(!traces.is_changed());
        prop_assert_eq!(traces.encode(), bytes);
    }

    #[test]
    fn changes_mean_what_they_mean_to_decoded_messages(
        request in request(),
        on_resource in proptest::collection::vec(change(), 0..3),
        on_scope in proptest::collection::vec(change(), 0..2),
        on_span in proptest::collection::vec(change(), 0..3),
        on_event in proptest::collection::vec(change(), 0..2),
        drop_every in 2..4usize,
        rename: bool,
    ) {
        let mut theirs = request.clone();
        let mut at = 0;
        let mut keep = || { at += 1; at % drop_every != 0 };
        for resource_spans in &mut theirs.resource_spans {
            if !on_resource.is_empty() {
                let resource = resource_spans.resource.get_or_insert_default();
                on_resource.iter().for_each(|change| change_theirs(&mut resource.attributes, change));
            }
            for scope in &mut resource_spans.scope_spans {
                if !on_scope.is_empty() {
                    let attributes = &mut scope.scope.get_or_insert_default().attributes;
                    on_scope.iter().for_each(|change| change_theirs(attributes, change));
                }
                scope.spans.retain(|_| keep());
                for span in &mut scope.spans {
                    on_span.iter().for_each(|change| change_theirs(&mut span.attributes, change));
                    if rename {
                        span.name = "renamed".to_owned();
                        span.kind = 0;
                        span.parent_span_id = vec![9; 8];
                        span.status.get_or_insert_default().code = 2;
                    }
                    span.events.retain(|event| event.time_unix_nano % 2 == 0);
                    for event in &mut span.events {
                        on_event.iter().for_each(|change| change_theirs(&mut event.attributes, change));
                    }
                }
            }
        }

        let bytes = with_unknown_fields(&request.encode_to_vec());
        let mut traces = Traces::parse(&bytes);
        at = 0;
        let mut keep = || { at += 1; at % drop_every != 0 };
        for ResourceSpans { resource, scopes, .. } in traces.resources.iter_mut() {
            on_resource.iter().for_each(|change| change_ours(resource.attributes_mut(), change));
            for ScopeSpans { scope, spans, .. } in scopes.iter_mut() {
                on_scope.iter().for_each(|change| change_ours(scope.attributes_mut(), change));
                spans.retain(|_| keep());
                for span in spans.iter_mut() {
                    on_span.iter().for_each(|change| change_ours(span.attributes_mut(), change));
                    if rename {
                        span.set_name("renamed".into());
                        span.set_kind(0);
                        span.set_parent_span_id(Some([9; 8]));
                        span.set_status_code(2);
                    }
                    span.events_mut().retain(|event| event.time() % 2 == 0);
                    for event in span.events_mut().iter_mut() {
                        on_event.iter().for_each(|change| change_ours(event.attributes_mut(), change));
                    }
                }
            }
        }
        let encoded = traces.encode();
        let scanned = scan(&encoded).unwrap();
        match traces.effect() {
            Effect::Described => prop_assert_eq!(&scanned, &scan(&bytes).unwrap()),
            Effect::Removed => prop_assert_eq!(&scanned, &describe(&encoded)),
            Effect::Unknown => {}
        }
        let mut decoded = ExportTraceServiceRequest::decode(encoded.as_slice()).unwrap();
        // Envelopes that were emptied are gone; those that came empty are not asked about.
        for request in [&mut decoded, &mut theirs] {
            for resource_spans in &mut request.resource_spans {
                resource_spans.scope_spans.retain(|scope| !scope.spans.is_empty());
                for span in resource_spans.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
                    // Nothing was put into some of these: absent and empty are the same.
                    span.status = span.status.take().filter(|status| *status != trace::Status::default());
                }
                for scope in &mut resource_spans.scope_spans {
                    scope.scope = scope.scope.take().filter(|scope| *scope != InstrumentationScope::default());
                }
                resource_spans.resource =
                    resource_spans.resource.take().filter(|it| *it != resource::Resource::default());
            }
            request.resource_spans.retain(|resource_spans| !resource_spans.scope_spans.is_empty());
        }
        prop_assert_eq!(decoded, theirs);
    }

    #[test]
    fn any_bytes_are_edited_without_panic(bytes: Vec<u8>) {
        let mut traces = Traces::parse(&bytes);
        touch(&traces);
        traces.retain_spans(|resource, _, span| resource.attributes().is_empty() && span.kind() == 0);
        let _ = (traces.encode(), objects(&bytes), whole(&bytes));
    }

    #[test]
    fn values_read_as_they_were_written(value in any_value()) {
        let bytes = value.encode_to_vec();
        prop_assert_eq!(Value::parse(&bytes), ours(&value));
    }
}

#[test]
fn fields_read_as_they_were_written() {
    let span = trace::Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        trace_state: "k=v".to_owned(),
        parent_span_id: vec![3; 8],
        flags: 4,
        name: "n".to_owned(),
        kind: 5,
        start_time_unix_nano: 6,
        end_time_unix_nano: 7,
        dropped_attributes_count: 8,
        dropped_events_count: 9,
        dropped_links_count: 10,
        status: Some(trace::Status { message: "m".to_owned(), code: 2 }),
        ..Default::default()
    };
    let bytes = span.encode_to_vec();
    let span = Span::parse(&bytes);
    assert_eq!((span.trace_id(), span.span_id(), span.parent_span_id()), (&[1; 16][..], &[2; 8][..], &[3; 8][..]));
    assert_eq!((span.trace_state().as_ref(), span.name().as_ref(), span.status_message().as_ref()), ("k=v", "n", "m"));
    assert_eq!((span.flags(), span.kind(), span.start(), span.end(), span.status_code()), (4, 5, 6, 7, 2));
    let dropped = (span.dropped_attributes_count(), span.dropped_events_count(), span.dropped_links_count());
    assert_eq!(dropped, (8, 9, 10));
}

#[test]
fn a_resource_in_pieces_is_made_whole() {
    let piece = |key: &str| resource::Resource {
        attributes: vec![key_value(key.to_owned(), AnyValue { value: Some(Any::BoolValue(true)) })],
        ..Default::default()
    };
    let mut resource_spans = Vec::new();
    put_bytes(&mut resource_spans, 1, &piece("a").encode_to_vec());
    put_bytes(&mut resource_spans, 3, b"url");
    put_bytes(&mut resource_spans, 1, &piece("b").encode_to_vec());
    let mut request = Vec::new();
    put_bytes(&mut request, 1, &resource_spans);

    let whole_request = whole(&request).unwrap();
    let decode = |bytes: &[u8]| ExportTraceServiceRequest::decode(bytes).unwrap();
    assert_eq!(decode(&whole_request), decode(&request));
    let traces = Traces::parse(&whole_request);
    assert_eq!(traces.resources[0].resource.attributes().len(), 2);
    assert_eq!(whole(&whole_request), None);
}

#[test]
fn objects_are_counted_at_any_depth() {
    let text = |text: &str| AnyValue { value: Some(Any::StringValue(text.to_owned())) };
    let list = AnyValue { value: Some(Any::ArrayValue(ArrayValue { values: vec![text("a"), text("b")] })) };
    let map = KeyValueList { values: vec![key_value("l".to_owned(), list)] };
    let attribute = key_value("m".to_owned(), AnyValue { value: Some(Any::KvlistValue(map)) });
    let span = trace::Span {
        attributes: vec![attribute.clone()],
        events: vec![trace::span::Event { attributes: vec![attribute], ..Default::default() }],
        ..Default::default()
    };
    let scope = trace::ScopeSpans { spans: vec![span], ..Default::default() };
    let resource_spans = trace::ResourceSpans { scope_spans: vec![scope], ..Default::default() };
    let bytes = ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec();
    // A scope, a span, an event, and twice: an attribute, an entry, two items.
    assert_eq!(objects(&bytes), 3 + 2 * 4);
}
