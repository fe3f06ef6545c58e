//! Both directions against prost's own types, and every rule of OTLP's JSON by example.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        any::<String>().prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        any::<i64>().prop_map(Value::IntValue),
        // NaN is not equal to itself; it has its own example below.
        any::<f64>().prop_filter("NaN", |value| !value.is_nan()).prop_map(Value::DoubleValue),
        vec(any::<u8>(), 0..12).prop_map(Value::BytesValue),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let values = option::of(inner).prop_map(|value| AnyValue { value });
        let entries = (any::<String>(), option::of(values.clone())).prop_map(|(key, value)| KeyValue {
            key,
            value,
            ..KeyValue::default()
        });
        prop_oneof![
            vec(values, 0..4).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec(entries, 0..4).prop_map(|values| Value::KvlistValue(KeyValueList { values })),
        ]
    })
    .prop_map(|value| AnyValue { value: Some(value) })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let entry = (any::<String>(), option::of(any_value()));
    vec(entry.prop_map(|(key, value)| KeyValue { key, value, ..KeyValue::default() }), 0..4)
}

fn id(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), len), Just(Vec::new())]
}

fn span() -> impl Strategy<Value = Span> {
    let event = (any::<u64>(), any::<String>(), attributes(), any::<u32>()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    );
    let link = (id(16), id(8), any::<String>(), attributes(), any::<u32>(), any::<u32>()).prop_map(
        |(trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags)| Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        },
    );
    let ids = (id(16), id(8), id(8));
    let scalars = (any::<String>(), any::<String>(), any::<u32>(), any::<i32>(), any::<u64>(), any::<u64>());
    let status = (any::<i32>(), any::<String>());
    let lists = (attributes(), vec(event, 0..3), vec(link, 0..3), any::<[u32; 3]>());
    (ids, scalars, status, lists).prop_map(|(ids, scalars, status, lists)| Span {
        trace_id: ids.0,
        span_id: ids.1,
        parent_span_id: ids.2,
        name: scalars.0,
        trace_state: scalars.1,
        flags: scalars.2,
        kind: scalars.3,
        start_time_unix_nano: scalars.4,
        end_time_unix_nano: scalars.5,
        status: Some(Status { code: status.0, message: status.1 }),
        attributes: lists.0,
        events: lists.1,
        links: lists.2,
        dropped_attributes_count: lists.3[0],
        dropped_events_count: lists.3[1],
        dropped_links_count: lists.3[2],
    })
}

fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope = (any::<String>(), any::<String>(), attributes(), any::<u32>()).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    );
    let scope_spans = (scope, vec(span(), 0..3), any::<String>()).prop_map(|(scope, spans, schema_url)| ScopeSpans {
        scope: Some(scope),
        spans,
        schema_url,
    });
    let strings = || vec(any::<String>(), 0..2);
    let entity = (any::<String>(), any::<String>(), strings(), strings()).prop_map(
        |(schema_url, r#type, id_keys, description_keys)| EntityRef { schema_url, r#type, id_keys, description_keys },
    );
    let resource = (attributes(), any::<u32>(), vec(entity, 0..2)).prop_map(
        |(attributes, dropped_attributes_count, entity_refs)| Resource {
            attributes,
            dropped_attributes_count,
            entity_refs,
        },
    );
    let resource_spans =
        (resource, vec(scope_spans, 0..3), any::<String>()).prop_map(|(resource, scope_spans, schema_url)| {
            ResourceSpans { resource: Some(resource), scope_spans, schema_url }
        });
    vec(resource_spans, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

fn read(json: &str) -> Result<ExportTraceServiceRequest, JsonError> {
    let bytes = json_to_protobuf(json.as_bytes(), &JsonLimits::for_body(json.len()))?;
    Ok(ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap())
}

/// The one span in `members`, which stand inside its braces.
fn read_span(members: &str) -> Result<Span, JsonError> {
    let request = read(&format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{members}}}]}}]}}]}}"#))?;
    Ok(request.resource_spans[0].scope_spans[0].spans[0].clone())
}

fn read_value(value: &str) -> Result<Option<AnyValue>, JsonError> {
    let span = read_span(&format!(r#""attributes":[{{"key":"k","value":{value}}}]"#))?;
    Ok(span.attributes[0].value.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_as_otlp_json_reads_back_equal(request in request()) {
        let json = protobuf_to_otlp_json(&request.encode_to_vec()).unwrap();
        serde_json::from_slice::<serde_json::Value>(&json).unwrap();
        let bytes = json_to_protobuf(&json, &JsonLimits::for_body(json.len())).unwrap();
        prop_assert_eq!(ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap(), request.clone());
        // Canonical protobuf, so as long as prost's.
        prop_assert_eq!(bytes.len(), request.encoded_len());
    }

    #[test]
    fn tempo_json_is_json(request in request()) {
        let mut json = Vec::new();
        protobuf_to_tempo_json(&mut json, &request.encode_to_vec(), TopKey::Batches).unwrap();
        serde_json::from_slice::<serde_json::Value>(&json).unwrap();
    }

    #[test]
    fn white_space_and_unknown_members_change_nothing(request in request()) {
        let json = protobuf_to_otlp_json(&request.encode_to_vec()).unwrap();
        let unknown = "\"unknown\": [1, {\"a\": [null, true, \"\\u00e9\"]}, {}, []] \n, \"spans\" :\t[ ";
        let widened = String::from_utf8(json).unwrap().replace("\"spans\":[", unknown);
        let again = json_to_protobuf(widened.as_bytes(), &JsonLimits::for_body(widened.len())).unwrap();
        prop_assert_eq!(ExportTraceServiceRequest::decode(again.as_slice()).unwrap(), request);
    }

    #[test]
    fn any_text_is_refused_or_read_without_panic(text: Vec<u8>) {
        let _ = json_to_protobuf(&text, &JsonLimits::for_body(text.len()));
    }

    #[test]
    fn any_damage_to_a_document_is_refused_or_read_without_panic(request in request(), cut: prop::sample::Index, byte: u8) {
        let mut json = protobuf_to_otlp_json(&request.encode_to_vec()).unwrap();
        let at = cut.index(json.len());
        prop_assert!(json_to_protobuf(&json[..at], &JsonLimits::for_body(at)).is_err());
        json[at] = byte;
        let _ = json_to_protobuf(&json, &JsonLimits::for_body(json.len()));
    }

    #[test]
    fn any_bytes_are_written_or_refused_without_panic(bytes: Vec<u8>) {
        let _ = protobuf_to_otlp_json(&bytes);
        let _ = protobuf_to_tempo_json(&mut Vec::new(), &bytes, TopKey::Batches);
    }

    #[test]
    fn strings_of_any_escapes_are_read_like_serde_json_does(text: String) {
        let ascii: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        let span = read_span(&format!(r#""name":"{ascii}""#)).unwrap();
        prop_assert_eq!(&span.name, &text);
        let mut written = Vec::new();
        put_string(&mut written, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&written).unwrap(), text);
    }
}

#[test]
fn empty_documents() {
    for empty in ["{}", "null", r#"{"resourceSpans":null}"#, r#"{"resourceSpans":[]}"#, " {\n} trailing garbage ]"] {
        assert_eq!(read(empty), Ok(ExportTraceServiceRequest::default()), "{empty}");
    }
    for wrong in ["", "  ", "[]", "1", "\"\"", "{", "{\"a\"", "{\"a\":1,}", "{\"resourceSpans\":{}}", "nul", "{a:1}"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn names_are_camel_or_snake_case_and_case_matters() {
    let span =
        read_span(r#""trace_id":"","start_time_unix_nano":"7","endTimeUnixNano":8,"Name":"x","name":"y""#).unwrap();
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano, span.name.as_str()), (7, 8, "y"));
    assert!(read(r#"{"instrumentationLibrarySpans":[1]}"#).is_ok());
}

#[test]
fn ids_are_hex_of_any_case_and_bad_ones_become_ids_that_the_scan_refuses() {
    let span = read_span(r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174""#).unwrap();
    assert_eq!(span.trace_id[..2], [0x5b, 0x8e]);
    assert_eq!(span.span_id.len(), 8);
    let id = |text: &str| read_span(&format!(r#""spanId":{text}"#)).unwrap().span_id;
    assert_eq!(id(r#""abcd""#), [0xab, 0xcd], "wrong length: as given");
    assert_eq!(id(r#""abc""#), [0], "half a byte");
    assert_eq!(id(r#""xxxxxxxxxxxxxxxx""#), [0], "not hex");
    assert_eq!(id(r#""é""#), [0]);
    assert_eq!(id("null"), [0u8; 0]);
    assert_eq!(id(r#""""#), [0u8; 0]);
}

#[test]
fn enums_are_numbers_or_names() {
    let kind = |text: &str| read_span(&format!(r#""kind":{text}"#)).map(|span| span.kind);
    assert_eq!(kind("3"), Ok(3));
    assert_eq!(kind("99"), Ok(99));
    assert_eq!(kind("-1"), Ok(-1));
    assert_eq!(kind("null"), Ok(0));
    assert_eq!(kind(r#""SPAN_KIND_SERVER""#), Ok(2));
    assert!(kind(r#""SERVER""#).is_err());
    assert!(kind(r#""2""#).is_err());
    assert!(kind("1.0").is_err());
    let status = read_span(r#""status":{"code":"STATUS_CODE_ERROR","message":"m"}"#).unwrap().status.unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "m"));
}

#[test]
fn integers_are_numbers_or_strings_within_range() {
    let int = |text: &str| read_value(&format!(r#"{{"intValue":{text}}}"#)).map(|value| value.unwrap().value);
    assert_eq!(int("-5"), Ok(Some(Value::IntValue(-5))));
    assert_eq!(int(r#""9223372036854775807""#), Ok(Some(Value::IntValue(i64::MAX))));
    for wrong in ["1.5e18", "9223372036854775808", r#""x""#, r#""""#, r#"" 1""#, "true", "01", "- 1", "0x10", "1.0"] {
        assert!(int(wrong).is_err(), "{wrong}");
    }
    let flags = |text: &str| read_span(&format!(r#""flags":{text}"#)).map(|span| span.flags);
    assert_eq!(flags("257"), Ok(257));
    assert_eq!(flags(r#""257""#), Ok(257));
    assert!(flags("4294967296").is_err());
    assert!(flags("-1").is_err());
    assert!(read_span(r#""startTimeUnixNano":-1"#).is_err());
    assert_eq!(read_span(r#""startTimeUnixNano":18446744073709551615"#).unwrap().start_time_unix_nano, u64::MAX);
}

#[test]
fn doubles_are_numbers_or_strings() {
    let double = |text: &str| match read_value(&format!(r#"{{"doubleValue":{text}}}"#)) {
        Ok(Some(AnyValue { value: Some(Value::DoubleValue(value)) })) => Some(value),
        _ => None,
    };
    assert_eq!(double("0"), Some(0.0));
    assert_eq!(double("1.5e300"), Some(1.5e300));
    assert_eq!(double(r#""-2.5""#), Some(-2.5));
    assert_eq!(double(r#""Infinity""#), Some(f64::INFINITY));
    assert_eq!(double(r#""-Infinity""#), Some(f64::NEG_INFINITY));
    assert!(double(r#""NaN""#).is_some_and(f64::is_nan));
    assert_eq!(double("1e999"), None);
    assert_eq!(double("NaN"), None);
    assert_eq!(double(".5"), None);
}

#[test]
fn values_of_every_kind() {
    let value = |text: &str| read_value(text).map(|value| value.and_then(|value| value.value));
    assert_eq!(value(r#"{"stringValue":""}"#), Ok(Some(Value::StringValue(String::new()))));
    assert_eq!(value(r#"{"boolValue":false}"#), Ok(Some(Value::BoolValue(false))));
    assert_eq!(value(r#"{"bytesValue":"AQL/"}"#), Ok(Some(Value::BytesValue(vec![1, 2, 255]))));
    assert_eq!(value("{}"), Ok(None));
    assert_eq!(value("null"), Ok(None));
    assert_eq!(value(r#"{"unknownValue":[{"x":1}]}"#), Ok(None));
    let empty_list = Some(Value::ArrayValue(ArrayValue { values: Vec::new() }));
    assert_eq!(value(r#"{"arrayValue":{}}"#), Ok(empty_list.clone()));
    assert_eq!(value(r#"{"arrayValue":{"values":null}}"#), Ok(empty_list));
    let one_empty = Some(Value::ArrayValue(ArrayValue { values: vec![AnyValue::default()] }));
    assert_eq!(value(r#"{"arrayValue":{"values":[null]}}"#), Ok(one_empty));
    for wrong in [r#"{"bytesValue":"AQL"}"#, r#"{"boolValue":"true"}"#, r#"{"stringValue":1}"#, r#"["x"]"#, "\"x\""] {
        assert!(value(wrong).is_err(), "{wrong}");
    }
    assert!(read_span(r#""attributes":{"a":"b"}"#).is_err());
}

#[test]
fn surrogates_and_control_characters() {
    assert_eq!(read_span(r#""name":"\ud83d\ude00\u00e9\n\/""#).unwrap().name, "😀é\n/");
    assert_eq!(read_span(r#""name":"\ud83dx\udc00\ud83d\u0041""#).unwrap().name, "\u{fffd}x\u{fffd}\u{fffd}A");
    assert_eq!(read_span("\"name\":\"a\nb\"").unwrap_err().problem, JsonProblem::ControlCharacter);
    assert_eq!(read_span(r#""name":"\x""#).unwrap_err().problem, JsonProblem::Escape);
}

#[test]
fn errors_say_where() {
    let text = "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[\n{},{\"kind\":\"NOPE\"}]}]}]}";
    let error = json_to_protobuf(text.as_bytes(), &JsonLimits::for_body(text.len())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown enum value \"NOPE\" at line 2, column 18, in resourceSpans[0].scopeSpans[0].spans[1].kind"
    );
    let error = read("[]").unwrap_err();
    assert_eq!(error.to_string(), "expected an object at line 1, column 1");
}

fn nested(levels: usize) -> String {
    let open = r#"{"arrayValue":{"values":["#.repeat(levels);
    let close = "]}}".repeat(levels);
    let prefix = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"k","value":"#;
    format!("{prefix}{open}{{}}{close}}}]}}]}}]}}]}}")
}

#[test]
fn nesting_is_bounded_in_both_directions() {
    let limits = JsonLimits::for_body(0);
    let deepest = json_to_protobuf(nested(ANY_VALUE_DEPTH_MAX - 1).as_bytes(), &limits).unwrap();
    assert!(protobuf_to_otlp_json(&deepest).is_ok());
    assert!(crate::otlp::scan::scan(&deepest).is_ok());
    let error = json_to_protobuf(nested(ANY_VALUE_DEPTH_MAX).as_bytes(), &limits).unwrap_err();
    assert_eq!(error.problem, JsonProblem::TooDeep(ANY_VALUE_DEPTH_MAX));
    let error = json_to_protobuf(nested(100_000).as_bytes(), &limits).unwrap_err();
    assert!(error.path.len() < 400, "{}", error.path);

    let loose = JsonLimits { any_value_depth_max: usize::MAX, held_bytes_max: usize::MAX };
    let bytes = json_to_protobuf(nested(100_000).as_bytes(), &loose).unwrap();
    assert_eq!(protobuf_to_otlp_json(&bytes).unwrap_err().problem, crate::otlp::wire::WireProblem::Nesting);
}

#[test]
fn unknown_members_of_any_depth_are_skipped() {
    let deep = format!(r#"{{"x":{}1{},"resourceSpans":[{{}}]}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert_eq!(read(&deep).unwrap().resource_spans.len(), 1);
    assert!(read(r#"{"x":[1}"#).is_err());
}

#[test]
fn otlp_json_as_a_collector_writes_it() {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: vec![Span {
                    trace_id: vec![0x5b; 16],
                    span_id: vec![0xee; 8],
                    name: "a\"b".to_owned(),
                    kind: 2,
                    start_time_unix_nano: 1_544_712_660_000_000_000,
                    attributes: vec![KeyValue {
                        key: "n".to_owned(),
                        value: Some(AnyValue { value: Some(Value::IntValue(0)) }),
                        ..KeyValue::default()
                    }],
                    ..Span::default()
                }],
                ..ScopeSpans::default()
            }],
            schema_url: "u".to_owned(),
            ..ResourceSpans::default()
        }],
    };
    let json = protobuf_to_otlp_json(&request.encode_to_vec()).unwrap();
    assert_eq!(
        String::from_utf8(json).unwrap(),
        concat!(
            r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"scope":{},"spans":[{"#,
            r#""traceId":"5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b","spanId":"eeeeeeeeeeeeeeee","name":"a\"b","kind":2,"#,
            r#""startTimeUnixNano":"1544712660000000000","attributes":[{"key":"n","value":{"intValue":"0"}}],"#,
            r#""status":{}}]}],"schemaUrl":"u"}]}"#
        )
    );
}

#[test]
fn doubles_are_written_as_go_writes_them() {
    let written = |value: f64| {
        let message = AnyValue { value: Some(Value::DoubleValue(value)) }.encode_to_vec();
        String::from_utf8(message_to_json(&schema::ANY_VALUE, &message).unwrap()).unwrap()
    };
    for (value, text) in [
        (5.0, "5"),
        (-0.25, "-0.25"),
        (0.0, "0"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e-7, "1.5e-7"),
        (f64::NAN, "\"NaN\""),
        (f64::NEG_INFINITY, "\"-Infinity\""),
    ] {
        assert_eq!(written(value), format!("{{\"doubleValue\":{text}}}"));
    }
}

#[test]
fn split_messages_and_repeated_alternatives_follow_protobuf() {
    // status { message "m" } and status { code 2 } are one status; of two values the last counts.
    let span = [0x7a, 3, 0x12, 1, b'm', 0x7a, 2, 0x18, 2];
    let json = message_to_json(&schema::SPAN, &span).unwrap();
    assert_eq!(String::from_utf8(json).unwrap(), r#"{"status":{"message":"m","code":2}}"#);
    let value = [0x0a, 1, b's', 0x10, 1];
    assert_eq!(message_to_json(&schema::ANY_VALUE, &value).unwrap(), br#"{"boolValue":true}"#);
}

#[test]
fn responses_and_status() {
    let json = br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"why"}}"#;
    let message = &schema::EXPORT_TRACE_SERVICE_RESPONSE;
    let bytes = message_from_json(message, json, &JsonLimits::for_body(json.len())).unwrap();
    assert_eq!(message_to_json(message, &bytes).unwrap(), json);
    assert_eq!(message_to_json(message, &[]).unwrap(), b"{}");
    let status = message_to_json(&schema::RPC_STATUS, &[0x08, 3, 0x12, 1, b'x']).unwrap();
    assert_eq!(status, br#"{"code":3,"message":"x"}"#);
}

/// A request whose only resource attribute is an array of `count` values.
fn array_of(value: &str, count: usize) -> String {
    let values = vec![value; count].join(",");
    let attribute = format!(r#"{{"key":"k","value":{{"arrayValue":{{"values":[{values}]}}}}}}"#);
    format!(r#"{{"resourceSpans":[{{"resource":{{"attributes":[{attribute}]}}}}]}}"#)
}

#[test]
fn empty_objects_cost_no_more_than_their_text() {
    let json = array_of("{}", 100_000);
    let limits = JsonLimits { held_bytes_max: json.len(), ..JsonLimits::for_body(0) };
    let bytes = json_to_protobuf(json.as_bytes(), &limits).unwrap();
    let request = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
    assert_eq!(request.encode_to_vec(), bytes);
    assert!(bytes.capacity() <= json.len());
}

#[test]
fn a_conversion_that_outgrows_its_limit_is_refused() {
    for value in ["{}", r#"{"stringValue":"some text"}"#, r#"{"intValue":-1}"#] {
        let json = array_of(value, 10_000);
        let limits = JsonLimits { held_bytes_max: 10_000, ..JsonLimits::for_body(json.len()) };
        let error = json_to_protobuf(json.as_bytes(), &limits).unwrap_err();
        assert_eq!(error.problem, JsonProblem::TooMuchHeld(10_000));
        assert!(json_to_protobuf(json.as_bytes(), &JsonLimits::for_body(json.len())).is_ok());
    }
}

#[test]
fn lengths_of_every_size_are_woven_in() {
    for len in [0, 100, 115, 120, 121, 122, 123, 124, 125, 126, 127, 128, 200, 16_370, 16_380, 16_384, 2_097_150] {
        let text = "x".repeat(len);
        let small = r#""attributes":[{"key":"a"},{}]"#;
        let span = format!(r#"{{"name":"{text}",{small},"status":{{"message":"{text}"}}}},{{}},{{{small}}}"#);
        let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}},{{}}]}}]}}"#);
        let bytes = json_to_protobuf(json.as_bytes(), &JsonLimits::for_body(json.len())).unwrap();
        let request = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(request.encode_to_vec(), bytes, "{len}");
        let spans = &request.resource_spans[0].scope_spans[0].spans;
        assert_eq!((spans.len(), spans[0].name.len(), spans[0].attributes.len()), (3, len, 2));
    }
}
