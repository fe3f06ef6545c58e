use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

const ALL: AssembleLimits = AssembleLimits { trace_bytes_max: usize::MAX };

fn span(id: u64, parent: u64, kind: i32, start: u64) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        kind,
        start_time_unix_nano: start,
        name: format!("span {id}"),
        ..Span::default()
    }
}

fn request(service: &str, scope: &str, spans: Vec<Span>) -> Vec<u8> {
    let attribute = KeyValue {
        key: "service.name".to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(service.to_owned())) }),
        ..KeyValue::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: vec![attribute], ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { name: scope.to_owned(), ..InstrumentationScope::default() }),
                spans,
                schema_url: "scope schema".to_owned(),
            }],
            schema_url: "resource schema".to_owned(),
        }],
    }
    .encode_to_vec()
}

fn assembled(fragments: &[Vec<u8>]) -> ExportTraceServiceRequest {
    let trace = assemble(fragments.iter().map(Vec::as_slice), &ALL).unwrap();
    assert_eq!(trace.completeness, Completeness::Complete);
    let decoded = ExportTraceServiceRequest::decode(trace.request.as_slice()).unwrap();
    assert_eq!(spans(&decoded).len(), trace.spans);
    decoded
}

fn spans(request: &ExportTraceServiceRequest) -> Vec<Span> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

fn id(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

#[test]
fn equal_resources_and_scopes_become_one_and_order_is_by_start() {
    let trace = assembled(&[
        request("late", "s", vec![span(3, 1, 1, 30)]),
        request("early", "b", vec![span(2, 1, 1, 20), span(1, 0, 1, 10)]),
        request("early", "a", vec![span(5, 1, 1, 5)]),
        request("late", "s", vec![span(4, 1, 1, 25)]),
    ]);
    let ids: Vec<u64> = spans(&trace).iter().map(|span| id(&span.span_id)).collect();
    assert_eq!(ids, [5, 1, 2, 4, 3]);
    assert_eq!(trace.resource_spans.len(), 2);
    assert_eq!(trace.resource_spans[0].scope_spans.len(), 2);
    assert_eq!(trace.resource_spans[0].schema_url, "resource schema");
    assert_eq!(trace.resource_spans[1].scope_spans[0].schema_url, "scope schema");
}

#[test]
fn a_repeated_span_shows_once_and_another_kind_stays() {
    let once = request("a", "s", vec![span(1, 0, 1, 1), span(2, 1, 4, 2)]);
    let trace = assembled(&[once.clone(), once, request("b", "s", vec![span(2, 1, 5, 3)])]);
    assert_eq!(spans(&trace).len(), 3);
}

#[test]
fn absent_resource_scope_and_status_become_empty_ones_and_given_ones_stay() {
    let mut with_status = span(2, 1, 1, 2);
    with_status.status = Some(Status { code: 2, message: "m".to_owned() });
    let bare = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: vec![span(1, 0, 1, 1), with_status.clone()],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let trace = assembled(&[bare.encode_to_vec()]);
    assert_eq!(trace.resource_spans[0].resource, Some(Resource::default()));
    assert_eq!(trace.resource_spans[0].scope_spans[0].scope, Some(InstrumentationScope::default()));
    assert_eq!(spans(&trace)[0].status, Some(Status::default()));
    assert_eq!(spans(&trace)[1], with_status);
}

#[test]
fn unknown_fields_survive() {
    let span = [&[0x12, 8, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0xa2, 0x06, 1, b'u']].concat();
    let mut scope = Vec::new();
    wire::put_bytes(&mut scope, 2, &span);
    wire::put_bytes(&mut scope, 101, b"in scope");
    let mut resource = Vec::new();
    wire::put_bytes(&mut resource, 102, b"in resource");
    wire::put_bytes(&mut resource, 2, &scope);
    let mut request = Vec::new();
    wire::put_bytes(&mut request, 1, &resource);
    let trace = assemble([request.as_slice()], &ALL).unwrap().request;
    let contains = |part: &[u8]| trace.windows(part.len()).any(|window| window == part);
    assert!(contains(&span) && contains(b"in scope") && contains(b"in resource"));
}

#[test]
fn a_server_span_that_shares_its_clients_id_gets_its_own() {
    let trace = assembled(&[
        request("client", "s", vec![span(1, 0, 1, 1), span(2, 1, 3, 10)]),
        request("server", "s", vec![span(2, 1, 2, 11), span(9, 2, 1, 12)]),
    ]);
    let found: Vec<_> =
        spans(&trace).iter().map(|span| (span.kind, id(&span.span_id), id(&span.parent_span_id))).collect();
    // 1 and 2 are taken, so the server span becomes 3; its child follows, the client span stays.
    assert_eq!(found, [(1, 1, 0), (3, 2, 1), (2, 3, 2), (1, 9, 3)]);
    assert_eq!(spans(&trace)[2].name, "span 2");
}

#[test]
fn a_limit_truncates_and_says_so() {
    let fragments: Vec<_> = (1..100).map(|id| request("a", "s", vec![span(id, 0, 1, id)])).collect();
    let limits = AssembleLimits { trace_bytes_max: 1000 };
    let trace = assemble(fragments.iter().map(Vec::as_slice), &limits).unwrap();
    assert_eq!(trace.completeness, Completeness::Truncated);
    assert!(trace.spans > 5 && trace.request.len() < 1100, "{} {}", trace.spans, trace.request.len());
}

#[test]
fn nothing_gives_an_empty_trace() {
    let trace = assemble([], &ALL).unwrap();
    assert_eq!(trace, Trace { request: Vec::new(), spans: 0, completeness: Completeness::Complete });
    assert_eq!(assemble([request("a", "s", Vec::new()).as_slice()], &ALL).unwrap(), trace);
}

proptest! {
    #[test]
    fn however_spans_are_cut_and_repeated_each_is_there_once_in_order(
        starts in proptest::collection::vec(0u64..50, 1..30),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 1..60),
    ) {
        let all: Vec<Span> = starts.iter().enumerate().map(|(index, start)| Span {
            status: Some(Status::default()),
            ..span(index as u64 + 1, 0, 1, *start)
        }).collect();
        // Each span has one home; batches arrive in any order, some of them twice, some never.
        let fragments: Vec<Vec<u8>> = cuts.iter().map(|which| {
            let span = which.get(&all).clone();
            let home = id(&span.span_id) % 3;
            request(&format!("service {home}"), "s", vec![span])
        }).collect();
        let trace = assembled(&fragments);
        let mut expected: Vec<Span> = all.iter().filter(|span| cuts.iter().any(|which| which.get(&all) == *span)).cloned().collect();
        let mut found = spans(&trace);
        for resource in &trace.resource_spans {
            let starts: Vec<_> = resource.scope_spans[0].spans.iter().map(|span| span.start_time_unix_nano).collect();
            prop_assert!(starts.is_sorted());
        }
        prop_assert!(trace.resource_spans.len() <= 3);
        found.sort_by_key(|span| id(&span.span_id));
        expected.sort_by_key(|span| id(&span.span_id));
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_bytes_are_assembled_or_refused_without_panic(bytes: Vec<u8>) {
        let _ = assemble([bytes.as_slice()], &ALL);
    }
}
