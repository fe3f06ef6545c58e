//! Tempo's trace-by-id and operational endpoints, line by line, against the
//! router itself: bodies, types, codes and texts as Grafana sees them.

// In a test a panic is the finding, in its support code too.
use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use prost::Message;
use spanreel::otlp::TraceId;
use spanreel::query::{
    FoundTrace, Introspection, QueryLimits, QueryState, Readiness, SourceError, SpanSource, TraceSource, router,
};
use spanreel::store::assemble::{AssembleLimits, Completeness};
use spanreel::traceql::segment::Source;
use tower_service::Service;

const ID: &str = "0102030405060708090a0b0c0d0e0f10";
const JAEGER_ID: &str = "463ac35c9f6413ad";
const UNREADABLE_ID: &str = "dead";

/// Traces in memory.
#[derive(Default)]
struct Traces(HashMap<TraceId, Vec<Bytes>>);

impl TraceSource for Traces {
    fn trace(&self, id: TraceId, _: &AssembleLimits) -> Result<FoundTrace, SourceError> {
        if id == trace_id(UNREADABLE_ID) {
            return Err(SourceError::Read("checksum mismatch".to_owned()));
        }
        let fragments = self.0.get(&id).cloned().unwrap_or_default();
        let inspected_bytes = fragments.iter().map(|fragment| fragment.len() as u64).sum();
        Ok(FoundTrace { fragments, completeness: Completeness::Complete, inspected_bytes })
    }
}

/// They are only found by id here; what is searched for is in the tests on the whole process.
impl SpanSource for Traces {
    fn searchable(&self) -> Result<Arc<dyn Source>, SourceError> {
        Err(SourceError::Stopping)
    }
}

struct Process(Readiness);

impl Introspection for Process {
    fn metrics(&self) -> spanreel::telemetry::Pages {
        Box::new(["# TYPE spans counter\n", "spans_total 3\n# EOF\n"].map(str::to_owned).into_iter())
    }

    fn readiness(&self) -> Readiness {
        self.0.clone()
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({"spool": {"batches": 3}})
    }
}

/// `tempopb.TraceByIDResponse`.
#[derive(Clone, PartialEq, Message)]
struct TraceByIdResponse {
    #[prost(message, optional, tag = "1")]
    trace: Option<TracesData>,
    #[prost(message, optional, tag = "2")]
    metrics: Option<TraceByIdMetrics>,
    #[prost(int32, tag = "3")]
    status: i32,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct TraceByIdMetrics {
    #[prost(uint64, tag = "1")]
    inspected_bytes: u64,
}

fn trace_id(hex: &str) -> TraceId {
    TraceId(u128::from_str_radix(hex, 16).unwrap().to_be_bytes())
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn fragment(service: &str, scope: InstrumentationScope, spans: Vec<Span>) -> Bytes {
    let resource = Resource { attributes: vec![text("service.name", service)], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// A server span with everything in it.
fn full_span() -> Span {
    Span {
        trace_id: trace_id(ID).0.to_vec(),
        span_id: vec![1, 2, 3, 4, 5, 6, 7, 8],
        parent_span_id: vec![0xff; 8],
        trace_state: "k=v".to_owned(),
        flags: 257,
        name: "GET \"/\"".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_250_000_000,
        attributes: vec![
            attribute("http.response.status_code", Value::IntValue(500)),
            attribute("ratio", Value::DoubleValue(0.5)),
            attribute("retry", Value::BoolValue(false)),
        ],
        dropped_attributes_count: 1,
        events: vec![Event {
            time_unix_nano: 1_700_000_000_100_000_000,
            name: "exception".to_owned(),
            ..Event::default()
        }],
        links: vec![Link { trace_id: vec![0; 16], span_id: vec![9; 8], ..Link::default() }],
        status: Some(Status { code: 2, message: "no".to_owned() }),
        ..Span::default()
    }
}

fn plain_span(hex_trace_id: &str, id: u8) -> Span {
    Span { trace_id: trace_id(hex_trace_id).0.to_vec(), span_id: vec![id; 8], ..Span::default() }
}

struct Tempo(Router);

impl Tempo {
    fn new(limits: QueryLimits) -> Self {
        Self::with(limits, Readiness::Ready)
    }

    fn with(limits: QueryLimits, readiness: Readiness) -> Self {
        let scope = InstrumentationScope { name: "lib".to_owned(), version: "1.2".to_owned(), ..Default::default() };
        let full = fragment("shop", scope, vec![full_span()]);
        let bare = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans { spans: vec![plain_span(JAEGER_ID, 7)], ..ScopeSpans::default() }],
                ..ResourceSpans::default()
            }],
        };
        let mut traces = Traces::default();
        // Received twice, as after a lost acknowledgement.
        traces.0.insert(trace_id(ID), vec![full.clone(), full]);
        traces.0.insert(trace_id(JAEGER_ID), vec![bare.encode_to_vec().into()]);
        let many = (1..=200u8).map(|id| fragment("many", InstrumentationScope::default(), vec![plain_span("abc", id)]));
        traces.0.insert(trace_id("abc"), many.collect());
        Self(router(QueryState::new(Arc::new(traces), Arc::new(Process(readiness)), limits)))
    }

    async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.0.clone().call(request.body(Body::empty()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[]).await
    }

    async fn get_protobuf(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[("accept", "application/protobuf")]).await
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn is_text(&self, status: StatusCode, text: &str) {
        assert_eq!((self.status, self.text()), (status, text));
        assert_eq!(self.header("content-type"), "text/plain; charset=utf-8");
    }
}

fn standard() -> Tempo {
    Tempo::new(QueryLimits::default())
}

const FULL_RESOURCE_SPANS: &str = concat!(
    r#"[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"#,
    r#""scopeSpans":[{"scope":{"name":"lib","version":"1.2"},"spans":[{"#,
    r#""traceId":"AQIDBAUGBwgJCgsMDQ4PEA==","spanId":"AQIDBAUGBwg=","traceState":"k=v","#,
    r#""parentSpanId":"//////////8=","flags":257,"name":"GET \"/\"","kind":"SPAN_KIND_SERVER","#,
    r#""startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000000250000000","#,
    r#""attributes":[{"key":"http.response.status_code","value":{"intValue":"500"}},"#,
    r#"{"key":"ratio","value":{"doubleValue":0.5}},{"key":"retry","value":{"boolValue":false}}],"#,
    r#""droppedAttributesCount":1,"events":[{"timeUnixNano":"1700000000100000000","name":"exception"}],"#,
    r#""links":[{"traceId":"AAAAAAAAAAAAAAAAAAAAAA==","spanId":"CQkJCQkJCQk="}],"#,
    r#""status":{"message":"no","code":"STATUS_CODE_ERROR"}}]}]}]"#,
);

#[tokio::test]
async fn v1_json_has_batches_and_base64_ids() {
    let answer = standard().get(&format!("/api/traces/{ID}")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.text(), format!(r#"{{"batches":{FULL_RESOURCE_SPANS}}}"#));
}

#[tokio::test]
async fn v2_json_has_trace_resource_spans_and_metrics() {
    let answer = standard().get(&format!("/api/v2/traces/{ID}")).await;
    let scope = InstrumentationScope { name: "lib".to_owned(), version: "1.2".to_owned(), ..Default::default() };
    let inspected = 2 * fragment("shop", scope, vec![full_span()]).len();
    let metrics = format!(r#"{{"inspectedBytes":"{inspected}"}}"#);
    let expected = format!(r#"{{"trace":{{"resourceSpans":{FULL_RESOURCE_SPANS}}},"metrics":{metrics}}}"#);
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, expected.as_str()));
}

#[tokio::test]
async fn v1_protobuf_is_traces_data() {
    let answer = standard().get_protobuf(&format!("/api/traces/{ID}")).await;
    assert_eq!(answer.header("content-type"), "application/protobuf");
    let trace = TracesData::decode(answer.body).unwrap();
    assert_eq!(trace.resource_spans[0].scope_spans[0].spans, [full_span()]);
}

#[tokio::test]
async fn v2_protobuf_has_present_resource_scope_and_status() {
    let answer = standard().get_protobuf(&format!("/api/v2/traces/{JAEGER_ID}")).await;
    let response = TraceByIdResponse::decode(answer.body).unwrap();
    assert_eq!((response.status, response.message.as_str()), (0, ""));
    assert!(response.metrics.unwrap().inspected_bytes > 0);
    let resource_spans = &response.trace.unwrap().resource_spans[0];
    assert_eq!(resource_spans.resource, Some(Resource::default()));
    assert_eq!(resource_spans.scope_spans[0].scope, Some(InstrumentationScope::default()));
    assert_eq!(resource_spans.scope_spans[0].spans[0].status, Some(Status::default()));
}

/// Asks as the data source does: the second version, and the first where the second answers 404. Its spans, if any.
async fn opened_by_grafana(tempo: &Tempo, id: &str) -> Option<usize> {
    let spans = |trace: &TracesData| {
        let scopes = trace.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        scopes.map(|scope| scope.spans.len()).sum::<usize>()
    };
    let v2 = tempo.get_protobuf(&format!("/api/v2/traces/{id}")).await;
    if v2.status != StatusCode::NOT_FOUND {
        assert_eq!((v2.status, v2.header("content-type")), (StatusCode::OK, "application/protobuf"));
        // It reads into the trace without looking.
        let trace = TraceByIdResponse::decode(v2.body).unwrap().trace.unwrap();
        return Some(spans(&trace)).filter(|spans| *spans > 0);
    }
    let v1 = tempo.get_protobuf(&format!("/api/traces/{id}")).await;
    (v1.status == StatusCode::OK).then(|| spans(&TracesData::decode(v1.body).unwrap()))
}

#[tokio::test]
async fn grafana_opens_a_trace_by_the_second_version_and_older_ones_by_the_first() {
    let tempo = standard();
    for (id, count) in [(ID, Some(1)), (JAEGER_ID, Some(1)), ("abc", Some(200)), ("def", None)] {
        assert_eq!(opened_by_grafana(&tempo, id).await, count, "{id}");
        let v1 = tempo.get_protobuf(&format!("/api/traces/{id}")).await;
        assert_eq!(v1.status == StatusCode::OK, count.is_some(), "{id}");
        let shifted = tempo.get_protobuf(&format!("/api/v2/traces/{id}?start=1699990000&end=1700010000")).await;
        assert_eq!(shifted.status, StatusCode::OK, "with time shift on, {id}");
    }
}

#[tokio::test]
async fn zero_scalars_are_omitted_and_present_messages_are_empty_objects() {
    let answer = standard().get(&format!("/api/traces/{JAEGER_ID}")).await;
    let expected = concat!(
        r#"{"batches":[{"resource":{},"scopeSpans":[{"scope":{},"spans":[{"#,
        r#""traceId":"AAAAAAAAAABGOsNcn2QTrQ==","spanId":"BwcHBwcHBwc=","status":{}}]}]}]}"#,
    );
    assert_eq!(answer.text(), expected);
}

#[tokio::test]
async fn ids_of_any_form_find_the_trace() {
    let tempo = standard();
    for id in [
        ID.to_uppercase(),
        ID[1..].to_owned(),
        format!("0000000000000000{JAEGER_ID}"),
        JAEGER_ID.to_uppercase(),
        "0ABC".to_owned(),
    ] {
        assert_eq!(tempo.get(&format!("/api/traces/{id}")).await.status, StatusCode::OK, "{id}");
    }
}

#[tokio::test]
async fn wrong_ids_are_refused_with_tempos_texts() {
    let tempo = standard();
    for api in ["/api/traces", "/api/v2/traces"] {
        let answer = tempo.get(&format!("{api}/{ID}0")).await;
        answer.is_text(StatusCode::BAD_REQUEST, "trace IDs can't be larger than 128 bits");
        let answer = tempo.get(&format!("{api}/12xy")).await;
        let text = "trace IDs can only contain hex characters: invalid character 'x' at position 3";
        answer.is_text(StatusCode::BAD_REQUEST, text);
        let answer = tempo.get(&format!("{api}/%20")).await;
        let text = "trace IDs can only contain hex characters: invalid character ' ' at position 1";
        answer.is_text(StatusCode::BAD_REQUEST, text);
        assert_eq!(tempo.get(&format!("{api}/%ff")).await.status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn a_missing_trace_is_404_and_empty_in_v1() {
    let answer = standard().get("/api/traces/ffff").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::NOT_FOUND, ""));
}

#[tokio::test]
async fn a_missing_trace_is_200_and_present_in_v2() {
    let tempo = standard();
    let answer = tempo.get("/api/v2/traces/ffff").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, r#"{"trace":{},"metrics":{}}"#));
    let answer = tempo.get_protobuf("/api/v2/traces/ffff").await;
    // Field 1 and field 2, both of length 0.
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &[0x0a, 0, 0x12, 0][..]));
}

#[tokio::test]
async fn a_trace_that_is_too_large_is_422_in_v1_and_partial_in_v2() {
    let tempo = Tempo::new(QueryLimits { trace_bytes_max: 1000, ..QueryLimits::default() });
    let answer = tempo.get("/api/traces/abc").await;
    answer.is_text(StatusCode::UNPROCESSABLE_ENTITY, "trace exceeds max size (max bytes: 1000)");

    let message = "Trace exceeds maximum size of 1000 bytes, a partial trace is returned";
    let answer = tempo.get_protobuf("/api/v2/traces/abc").await;
    let response = TraceByIdResponse::decode(answer.body).unwrap();
    assert_eq!((response.status, response.message.as_str()), (1, message));
    let spans = response.trace.unwrap().resource_spans[0].scope_spans[0].spans.len();
    assert!((10..200).contains(&spans), "{spans}");

    let answer = tempo.get("/api/v2/traces/abc").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text().ends_with(&format!(r#""status":"PARTIAL","message":"{message}"}}"#)), "{}", answer.text());
    // A smaller one is whole.
    assert_eq!(tempo.get(&format!("/api/traces/{JAEGER_ID}")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn v2_leaves_the_spans_that_a_filter_takes_and_says_so() {
    let tempo = standard();
    let of_one_span = "%7B%20span:id%20=%20%220707070707070707%22%20%7D";
    let message = "Trace filtered, only a subset of spans matching the filter is returned";
    let answer = tempo.get_protobuf(&format!("/api/v2/traces/abc?q={of_one_span}")).await;
    let response = TraceByIdResponse::decode(answer.body).unwrap();
    assert_eq!((response.status, response.message.as_str()), (1, message));
    let spans = &response.trace.unwrap().resource_spans[0].scope_spans[0].spans;
    assert_eq!(spans.iter().map(|span| span.span_id.clone()).collect::<Vec<_>>(), [vec![7; 8]]);

    // What takes everything leaves everything; the first version takes no filter.
    for path in ["/api/v2/traces/abc?q=%7B%7D".to_owned(), format!("/api/traces/abc?q={of_one_span}")] {
        let answer = tempo.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.text().len() > 10_000 && !answer.text().contains("PARTIAL"), "{}", answer.text());
    }
    let none = tempo.get("/api/v2/traces/abc?q=%7B%20name%20=%20%60none%60%20%7D").await;
    assert!(none.text().starts_with(r#"{"trace":{},"#) && none.text().contains(message), "{}", none.text());
    let wrong = tempo.get("/api/v2/traces/abc?q=%7B%7D%7Crate()").await;
    let text = "invalid TraceQL filter: only a single TraceQL filter is supported: got a metrics query";
    wrong.is_text(StatusCode::BAD_REQUEST, text);
}

#[tokio::test]
async fn start_and_end_are_checked_and_other_parameters_tolerated() {
    let tempo = standard();
    let path = format!("/api/traces/{ID}");
    for query in ["start=1&end=2", "start=5", "end=5", "start=&end=", "start=0&end=0", "mode=all&blockStart=x&nope=%ff"]
    {
        assert_eq!(tempo.get(&format!("{path}?{query}")).await.status, StatusCode::OK, "{query}");
    }
    for (start, end) in [(2, 1), (2, 2)] {
        let text = format!("http parameter start must be before end. received start={start} end={end}");
        let answer = tempo.get(&format!("{path}?start={start}&end={end}")).await;
        answer.is_text(StatusCode::BAD_REQUEST, &text);
    }
    for (value, problem) in
        [("x", "invalid syntax"), ("1.5", "invalid syntax"), ("99999999999999999999", "value out of range")]
    {
        let answer = tempo.get(&format!("{path}?end={value}")).await;
        let text = format!("invalid end: strconv.ParseInt: parsing {value:?}: {problem}");
        answer.is_text(StatusCode::BAD_REQUEST, &text);
    }
}

#[tokio::test]
async fn accept_is_tested_with_contains_in_tempos_order() {
    let tempo = standard();
    for (accept, content_type) in [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        ("application/json", "application/json"),
        ("application/json, application/protobuf;q=0.1", "application/protobuf"),
        ("application/protobuf", "application/protobuf"),
        ("application/x-protobuf", "application/json"),
    ] {
        let answer = tempo.request(Method::GET, &format!("/api/traces/{ID}"), &[("accept", accept)]).await;
        assert_eq!(answer.header("content-type"), content_type, "{accept}");
    }
}

#[tokio::test]
async fn any_method_reaches_a_query_and_head_has_no_body() {
    let tempo = standard();
    let path = format!("/api/v2/traces/{ID}");
    let get = tempo.get(&path).await;
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        assert_eq!(tempo.request(method, &path, &[]).await.body, get.body);
    }
    let head = tempo.request(Method::HEAD, &path, &[]).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.header("content-type"), "application/json");
    assert_eq!(head.header("content-length"), get.body.len().to_string());
    assert_eq!(tempo.request(Method::HEAD, "/api/traces/ffff", &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(tempo.request(Method::POST, "/api/echo", &[]).await.text(), "echo\n");
}

#[tokio::test]
async fn gzip_when_it_is_accepted_and_pays() {
    let tempo = standard();
    let plain = tempo.get("/api/traces/abc").await;
    assert_eq!(plain.header("content-encoding"), "");
    let gzip = tempo.request(Method::GET, "/api/traces/abc", &[("accept-encoding", "deflate, gzip")]).await;
    assert_eq!(gzip.header("content-encoding"), "gzip");
    assert_eq!(gzip.header("content-type"), "application/json");
    assert!(gzip.body.len() * 2 < plain.body.len());
    let mut inflated = Vec::new();
    flate2::read::GzDecoder::new(&gzip.body[..]).read_to_end(&mut inflated).unwrap();
    assert_eq!(inflated, plain.body);
    let small = tempo.request(Method::GET, "/api/v2/traces/ffff", &[("accept-encoding", "gzip")]).await;
    assert_eq!(small.header("content-encoding"), "");
    let refused = tempo.request(Method::GET, "/api/traces/abc", &[("accept-encoding", "gzip;q=0")]).await;
    assert_eq!(refused.header("content-encoding"), "");
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_500_with_its_text() {
    let answer = standard().get(&format!("/api/v2/traces/{UNREADABLE_ID}")).await;
    answer.is_text(StatusCode::INTERNAL_SERVER_ERROR, "stored traces cannot be read: checksum mismatch");
}

#[tokio::test]
async fn operational_endpoints() {
    let tempo = standard();
    tempo.get("/api/echo").await.is_text(StatusCode::OK, "echo\n");
    tempo.get("/ready").await.is_text(StatusCode::OK, "ready\n");
    tempo.get("/healthz").await.is_text(StatusCode::OK, "ok\n");
    let stopping = Readiness::NotReady("Application is stopping".to_owned());
    let stopping = Tempo::with(QueryLimits::default(), stopping);
    stopping.get("/ready").await.is_text(StatusCode::SERVICE_UNAVAILABLE, "Application is stopping\n");
    stopping.get("/healthz").await.is_text(StatusCode::OK, "ok\n");

    let metrics = tempo.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    assert!(metrics.text().contains("spans_total 3"));
    let status = tempo.get("/api/spanreel/status").await;
    assert_eq!(status.text(), r#"{"spool":{"batches":3}}"#);
}

#[tokio::test]
async fn build_info_is_strings_and_a_version_that_enables_everything() {
    let answer = standard().get("/api/status/buildinfo").await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(answer.text().ends_with("}\n"));
    let info: HashMap<String, String> = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(info["version"], "2.9.0");
    for key in ["revision", "branch", "buildUser", "buildDate", "goVersion"] {
        assert!(info.contains_key(key), "{key}");
    }
}

#[tokio::test]
async fn unknown_paths_are_404_in_plain_text() {
    let tempo = standard();
    for path in ["/", "/api", "/api/traces", "/api/traces/", "/api/traces/1/2", "/api/v3/traces/1"] {
        tempo.get(path).await.is_text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
}

#[tokio::test]
async fn a_thousand_clients_at_once_are_all_answered() {
    let tempo = Arc::new(standard());
    let clients: Vec<_> = (0..1000)
        .map(|_| {
            let tempo = Arc::clone(&tempo);
            tokio::spawn(async move { tempo.get("/api/v2/traces/abc").await.status })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap(), StatusCode::OK);
    }
}
