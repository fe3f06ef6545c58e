//! Search, tags and metrics on the real process: spans go in over OTLP, and what Grafana's data source and Traces
//! Drilldown ask must find them at once. The answers' letters are tested in `src/query`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::compression::Compression;
use crate::support::http::{Connection, Response};
use crate::support::otlp::{Client, GrpcConnection, Protocol, frame};
use crate::support::ports;
use crate::support::spanreel::{Options, Spanreel};
use crate::support::traces::{Traces, attribute, hex, request_of};
use bytes::Bytes;
use http::Method;
use opentelemetry_proto::tonic::common::v1::any_value::Value as OtlpValue;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::Event, span::SpanKind};
use prost::Message;
use serde_json::Value as Json;

const SEARCH: &str = "/tempopb.StreamingQuerier/Search";

/// `tempopb.SearchRequest`.
#[derive(Clone, PartialEq, Message)]
struct SearchRequest {
    #[prost(uint32, tag = "4")]
    limit: u32,
    #[prost(uint32, tag = "5")]
    start: u32,
    #[prost(uint32, tag = "6")]
    end: u32,
    #[prost(string, tag = "8")]
    query: String,
    #[prost(uint32, tag = "9")]
    spans_per_span_set: u32,
}

/// `tempopb.SearchResponse`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct SearchResponse {
    #[prost(message, repeated, tag = "1")]
    traces: Vec<FoundTrace>,
}

#[derive(Clone, PartialEq, Message)]
struct FoundTrace {
    #[prost(string, tag = "1")]
    trace_id: String,
}

/// `tempopb.QueryRangeRequest`.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(string, tag = "1")]
    query: String,
    #[prost(uint64, tag = "2")]
    start: u64,
    #[prost(uint64, tag = "3")]
    end: u64,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_nanos() as u64
}

/// A parameter's value with everything encoded that could mean something.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// `path` with these parameters and the last hour.
fn of_last_hour(path: &str, parameters: &[(&str, &str)]) -> String {
    let end = now() / 1_000_000_000;
    let mut uri = format!("{path}?start={}&end={end}", end - 3600);
    for (name, value) in parameters {
        uri.push_str(&format!("&{name}={}", encoded(value)));
    }
    uri
}

async fn get(connection: &mut Connection, uri: &str) -> Response {
    connection.send(Method::GET, uri, &[], Bytes::new()).await.unwrap()
}

async fn json(connection: &mut Connection, uri: &str) -> Json {
    let response = get(connection, uri).await;
    assert_eq!(response.status, 200, "{uri}: {}", response.text());
    serde_json::from_slice(&response.body).unwrap()
}

async fn found(connection: &mut Connection, query: &str) -> Vec<String> {
    let answer = json(connection, &of_last_hour("/api/search", &[("q", query), ("limit", "1000")])).await;
    answer["traces"].as_array().unwrap().iter().map(|trace| trace["traceID"].as_str().unwrap().to_owned()).collect()
}

async fn found_by_stream(connection: &mut GrpcConnection, query: &str) -> Vec<String> {
    let end = (now() / 1_000_000_000) as u32;
    let request = SearchRequest { limit: 1000, start: end - 3600, end, query: query.to_owned(), spans_per_span_set: 3 };
    let answer = connection.stream(SEARCH, frame(false, &request.encode_to_vec())).await.unwrap();
    assert_eq!((answer.code, answer.message.as_str()), (0, ""));
    let traces = answer.messages.into_iter().flat_map(|message| SearchResponse::decode(message).unwrap().traces);
    traces.map(|trace| trace.trace_id).collect()
}

/// A request that failed in a service called by another: a root with a child that has an exception.
fn failed_checkout(trace: [u8; 16]) -> Vec<Span> {
    let text = |text: &str| OtlpValue::StringValue(text.to_owned());
    let end = now();
    let root = Span {
        trace_id: trace.to_vec(),
        span_id: vec![1; 8],
        name: "POST /checkout".to_owned(),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: end - 2_000_000_000,
        end_time_unix_nano: end,
        attributes: vec![attribute("http.route", text("/checkout")), attribute("a/b", text("slash"))],
        status: Some(Status { code: 2, message: String::new() }),
        ..Span::default()
    };
    let failure = Event {
        time_unix_nano: end - 1_000_000_000,
        name: "exception".to_owned(),
        attributes: vec![attribute("exception.message", text("out of stock"))],
        ..Event::default()
    };
    let child = Span {
        trace_id: trace.to_vec(),
        span_id: vec![2; 8],
        parent_span_id: vec![1; 8],
        name: "SELECT".to_owned(),
        kind: SpanKind::Client as i32,
        start_time_unix_nano: end - 1_500_000_000,
        end_time_unix_nano: end - 500_000_000,
        attributes: vec![attribute("db.system.name", text("mysql"))],
        events: vec![failure],
        status: Some(Status { code: 2, message: "out of stock".to_owned() }),
        ..Span::default()
    };
    vec![root, child]
}

async fn send_checkout(spanreel: &Spanreel, trace: [u8; 16]) {
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    let request = request_of("shop", failed_checkout(trace));
    assert!(client.export(&request, Compression::Identity).await.unwrap().is_ok());
}

#[tokio::test]
async fn every_span_is_searchable_the_moment_it_is_acknowledged_and_after_a_kill() {
    let grpc_port = ports::free();
    let endpoint = format!("query_grpc_endpoint: 127.0.0.1:{grpc_port}");
    let mut spanreel = Spanreel::start(&Options { appliance: vec![endpoint], ..Options::default() }).await;
    let traces = Traces { seed: 7, spans_per_trace: 3 };
    let mut connection = Connection::open(spanreel.ports.query).await.unwrap();
    let mut streams = GrpcConnection::open(spanreel.ports.query).await.unwrap();
    let mut streams_apart = GrpcConnection::open(grpc_port).await.unwrap();
    for (index, protocol) in (0..30).zip(Protocol::ALL.into_iter().cycle()) {
        let mut client = Client::connect(spanreel.ports.of(protocol), protocol).await.unwrap();
        let answer = client.export(&traces.request("shop", index..index + 1), Compression::Identity).await.unwrap();
        assert!(answer.is_ok(), "{answer:?}");
        let (query, expected) = (format!("{{ span.item = {index} }}"), [hex(&traces.id(index))]);
        assert_eq!(found(&mut connection, &query).await, expected);
        assert_eq!(found_by_stream(&mut streams, &query).await, expected);
        assert_eq!(found_by_stream(&mut streams_apart, &query).await, expected);
    }
    let before = found(&mut connection, "{ resource.service.name = `shop` }").await;
    assert_eq!(before.len(), 30);
    spanreel.kill();
    spanreel.start_again().await;
    let mut connection = Connection::open(spanreel.ports.query).await.unwrap();
    assert_eq!(found(&mut connection, "{ resource.service.name = `shop` }").await, before);
}

#[tokio::test]
async fn requests_of_grafana_and_drilldown_are_answered_with_what_was_sent() {
    let spanreel = Spanreel::start(&Options::default()).await;
    let id = [9; 16];
    send_checkout(&spanreel, id).await;
    let expected = [hex(&id)];
    let mut connection = Connection::open(spanreel.ports.query).await.unwrap();

    for (who, query) in [
        ("Explore", "{}"),
        ("search builder", r#"{resource.service.name="shop" && name="POST /checkout" && duration>1s}"#),
        ("search builder, several values", r#"{resource.service.name=~"shop|other" && span.http.route!="/other"}"#),
        ("search builder, trace duration", "{traceDuration>1s && status=error}"),
        ("database link of the service graph", r#"{span.db.name="mysql" || span.db.system.name="mysql"}"#),
        ("Drilldown, spans", "{nestedSetParent<0 && status=error} | select(status, resource.service.name, name)"),
        (
            "Drilldown, exceptions",
            "{true && status = error} | select(resource.service.name, event.exception.message, event.exception.type) \
             with(most_recent=true)",
        ),
        (
            "Drilldown, structure",
            "({nestedSetParent<0} &>> { status = error }) || ({nestedSetParent<0}) | select(status, \
             resource.service.name, name, nestedSetParent, nestedSetLeft, nestedSetRight)",
        ),
    ] {
        assert_eq!(found(&mut connection, query).await, expected, "{who}: {query}");
    }

    for (who, query, series) in [
        ("Drilldown, probe", "{} | rate()", 1),
        ("Drilldown, rate", "{nestedSetParent<0} | rate()", 1),
        ("Drilldown, rate by", "{true && span.http.route != nil} | rate() by(span.http.route)", 1),
        ("Drilldown, errors", "{kind=server && status=error} | rate()", 1),
        ("Drilldown, database calls", r#"{span.db.system.name!=""} | rate()"#, 1),
        ("Drilldown, duration", "{nestedSetParent<0} | quantile_over_time(duration, 0.9)", 1),
        ("Drilldown, heatmap", "{nestedSetParent<0} | histogram_over_time(duration) with(sample=true)", 1),
        ("panel with a limit", "{} | count_over_time() by(name) | topk(1)", 2),
    ] {
        let answer = json(&mut connection, &of_last_hour("/api/metrics/query_range", &[("q", query)])).await;
        let found = answer["series"].as_array().unwrap().len();
        // Both spans can be the largest, each in another interval.
        assert!((1..=series).contains(&found), "{who}: {query}: {answer}");
    }
    let comparison = "{nestedSetParent<0} | compare({status=error})";
    let answer = json(&mut connection, &of_last_hour("/api/metrics/query_range", &[("q", comparison)])).await;
    assert!(answer.to_string().contains("selection_total"), "{answer}");
    let instant = "{status=error} | count_over_time()";
    let answer = json(&mut connection, &of_last_hour("/api/metrics/query", &[("q", instant)])).await;
    assert_eq!(answer["series"][0]["value"], 2, "{answer}");

    let tags = json(&mut connection, &of_last_hour("/api/v2/search/tags", &[("limit", "5000")])).await;
    for (scope, tag) in [("span", "http.route"), ("resource", "service.name"), ("event", "exception.message")] {
        let scopes = tags["scopes"].as_array().unwrap();
        let found = scopes.iter().find(|found| found["name"] == scope).unwrap_or_else(|| panic!("{scope}: {tags}"));
        assert!(found["tags"].as_array().unwrap().contains(&tag.into()), "{tag}: {tags}");
    }
    for (identifier, value) in
        [("resource.service.name", "shop"), ("span.a%2Fb", "slash"), ("span.a/b", "slash"), ("event:name", "exception")]
    {
        let path = format!("/api/v2/search/tag/{identifier}/values");
        let values = json(&mut connection, &of_last_hour(&path, &[("limit", "5000"), ("tag", identifier)])).await;
        assert_eq!(values["tagValues"], serde_json::json!([{"type": "string", "value": value}]), "{identifier}");
    }
}

#[tokio::test]
async fn bad_requests_are_refused_in_one_line_and_hurt_nobody() {
    let spanreel = Spanreel::start(&Options::default()).await;
    send_checkout(&spanreel, [9; 16]).await;
    let mut connection = Connection::open(spanreel.ports.query).await.unwrap();
    let too_long_a_range = of_last_hour("/api/search", &[]).replace("start=", "start=1&was=");
    for (uri, status) in [
        ("/api/search?q=%7B%7D&start=20&end=10", 400),
        ("/api/search?q=%7B%7D&start=20", 400),
        (too_long_a_range.as_str(), 400),
        ("/api/search?q=%7B%7D&limit=-1", 400),
        ("/api/search?q=%7B%7D&limit=99999999999999", 400),
        ("/api/search?q=%7B%7D&limit=300000", 400),
        ("/api/search?q=%7B", 400),
        ("/api/search?q=%7B%20.a%20%3D~%20%22(%22%20%7D", 400),
        ("/api/search?q=%7B%7D&unknown=1&unknown=2&%FF=%FF", 200),
        ("/api/metrics/query_range?q=%7B%7D%7Crate()&start=20&end=10", 400),
        ("/api/metrics/query_range?q=%7B%7D%7Crate()&step=1ns", 400),
        ("/api/v2/search/tag/%7B/values", 400),
        ("/api/traces/xyz", 400),
        ("/api/v2/traces/0123456789abcdef0123456789abcdef0", 400),
        ("/api/v2/traces/1", 200),
        ("/api/traces/1", 404),
        ("/api/nothing", 404),
    ] {
        let response = get(&mut connection, uri).await;
        assert_eq!(response.status, status, "{uri}: {}", response.text());
        if status == 400 {
            assert_eq!(response.header("content-type"), "text/plain; charset=utf-8", "{uri}");
            assert_eq!(response.text().lines().count(), 1, "{uri}: {}", response.text());
        }
    }
    for method in [Method::HEAD, Method::POST, Method::PUT] {
        let uri = of_last_hour("/api/search", &[("q", "{}")]);
        let response = connection.send(method.clone(), &uri, &[], Bytes::new()).await.unwrap();
        assert_eq!(response.status, 200, "{method}");
        assert_eq!(response.body.is_empty(), method == Method::HEAD);
    }

    let mut streams = GrpcConnection::open(spanreel.ports.query).await.unwrap();
    let whole = frame(false, &SearchRequest { query: "{}".to_owned(), ..SearchRequest::default() }.encode_to_vec());
    for (body, code) in [
        (whole.slice(..whole.len() - 1), 3),
        (whole.slice(..3), 3),
        (Bytes::new(), 3),
        (frame(false, &[0x42, 0x7f, b'{']), 3),
        (frame(true, &[]), 12),
        (Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]), 8),
        (frame(false, &SearchRequest { query: "{".to_owned(), ..SearchRequest::default() }.encode_to_vec()), 3),
        (frame(false, &SearchRequest { query: "a".repeat(131_073), ..SearchRequest::default() }.encode_to_vec()), 3),
        (whole.clone(), 0),
    ] {
        let answer = streams.stream(SEARCH, body.clone()).await.unwrap();
        assert_eq!(answer.code, code, "{body:?}: {}", answer.message);
    }
    let nobody = streams.stream("/tempopb.Querier/FindTraceByID", whole.clone()).await.unwrap();
    assert_eq!(nobody.code, 12);
    let health = streams.stream("/grpc.health.v1.Health/Check", frame(false, &[])).await.unwrap();
    assert_eq!((health.code, &health.messages[0][..]), (0, &[8, 1][..]));
    assert_eq!(found(&mut connection, "{}").await, [hex(&[9; 16])]);
}

/// Of the one budget of memory, bytes: what is not resting, and not on its way to disk. See `memory.rs` of the appliance.
const PASSING_BYTES: u64 = 29 * 1024 * 1024;
const BUDGET_BYTES: u64 = 64 * 1024 * 1024;

/// What the allocator may keep beside it: pages that were given back less than a second ago. On a busy machine many queries end
/// within that second.
const DECAYING_BYTES: u64 = 64 * 1024 * 1024;

/// Five of each of four kinds at once: series by the hundred, a comparison, a relation of spans, and traces with all they have;
/// over sealed runs, while more are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_of_memory_holds_while_twenty_heavy_queries_run() {
    const REQUESTS: u64 = 80;
    const TRACES_PER_REQUEST: u64 = 150;
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let idle = spanreel.process().anonymous_memory();
    let traces = Traces { seed: 5, spans_per_trace: 10 };
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    let (mut sent, mut peak) = (0, 0);
    while sent < REQUESTS * TRACES_PER_REQUEST {
        let request = traces.request("shop", sent..sent + TRACES_PER_REQUEST);
        assert!(client.export(&request, Compression::Zstd).await.unwrap().is_ok());
        sent += TRACES_PER_REQUEST;
        peak = peak.max(spanreel.process().anonymous_memory());
    }
    let port = spanreel.ports.query;
    let mut queries: tokio::task::JoinSet<_> = (0..20)
        .map(|number| {
            let metrics = |q| of_last_hour("/api/metrics/query_range", &[("q", q), ("step", "1")]);
            let search = |q| of_last_hour("/api/search", &[("q", q), ("limit", "2000"), ("spss", "100")]);
            let uri = match number % 4 {
                0 => metrics("{} | quantile_over_time(duration, .5, .9, .99) by (name, kind, status)"),
                1 => metrics("{} | compare({ status = error })"),
                2 => search("{} >> {} | count() > 1"),
                _ => search("{} | select(span.item, span.http.route, kind, status)"),
            };
            async move { crate::support::http::get(port, &uri, &[]).await.unwrap() }
        })
        .collect();
    let mut answered = 0;
    let mut sample = tokio::time::interval(std::time::Duration::from_millis(5));
    while !queries.is_empty() {
        tokio::select! {
            _ = sample.tick() => {}
            Some(response) = queries.join_next() => {
                let response = response.unwrap();
                // What needs more than there is, or than others leave for long, is told so.
                let status = response.status.as_u16();
                assert!(matches!(status, 200 | 422 | 503 | 504), "{status}: {}", response.text());
                answered += u64::from(status == 200);
            }
        }
        peak = peak.max(spanreel.process().anonymous_memory());
    }
    assert!(answered >= 5, "{answered}");
    let metrics = spanreel.metrics().await;
    let booked = |name| metrics.sum(name, &[]).unwrap_or_default() as u64;
    let most = booked("spanreel_query_memory_peak_bytes");
    assert_eq!(booked("spanreel_query_memory_max_bytes"), PASSING_BYTES);
    assert!((1024 * 1024..=PASSING_BYTES).contains(&most), "{most}");
    assert!(peak <= idle + BUDGET_BYTES + DECAYING_BYTES, "{peak}, {idle} when idle");
}

/// What queries hold together is promised exactly, and counted. What the process
/// holds besides (columns of the tail, answers, requests under way) has bounds of its own, and a thousand connections take
/// what the allocator and the kernel make of it: that is sampled, and bounded by the whole budget beside the connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_at_once_are_answered_in_bounded_memory_while_intake_goes_on() {
    const CLIENTS: u64 = 1000;
    /// Buffers of hyper on our side, and a task.
    const CONNECTION_BYTES: u64 = 48 * 1024;
    const TRACES_PER_REQUEST: u64 = 50;
    let mut spanreel = Spanreel::start(&Options::default()).await;
    let idle = spanreel.process().anonymous_memory();
    let traces = Traces { seed: 3, spans_per_trace: 10 };
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    let mut sent = 0;
    for _ in 0..100 {
        let request = traces.request("shop", sent..sent + TRACES_PER_REQUEST);
        assert!(client.export(&request, Compression::Zstd).await.unwrap().is_ok());
        sent += TRACES_PER_REQUEST;
    }
    let port = spanreel.ports.query;
    let queries = ["{}", "{ span.item > 5 } | select(span.item)", "{ name =~ `GET.*` && duration > 1us }"];
    let mut clients: tokio::task::JoinSet<_> = (0..CLIENTS)
        .map(|number| {
            let uri = match number % 4 {
                3 => of_last_hour("/api/metrics/query_range", &[("q", "{} | rate() by(name)")]),
                kind => of_last_hour("/api/search", &[("q", queries[kind as usize]), ("limit", "400")]),
            };
            async move { crate::support::http::get(port, &uri, &[]).await.unwrap() }
        })
        .collect();
    let mut peak = 0;
    while let Some(response) = clients.join_next().await {
        let response = response.unwrap();
        // Who waits for half a minute is told so.
        assert!(matches!(response.status.as_u16(), 200 | 504), "{}: {}", response.status, response.text());
        peak = peak.max(spanreel.process().anonymous_memory());
        if clients.len() % 10 == 0 {
            let request = traces.request("shop", sent..sent + TRACES_PER_REQUEST);
            assert!(client.export(&request, Compression::Zstd).await.unwrap().is_ok(), "intake goes on");
            sent += TRACES_PER_REQUEST;
        }
    }
    let metrics = spanreel.metrics().await;
    let booked = |name| metrics.sum(name, &[]).unwrap_or_default() as u64;
    let (booked_max, booked_peak) =
        (booked("spanreel_query_memory_max_bytes"), booked("spanreel_query_memory_peak_bytes"));
    assert_eq!(booked_max, PASSING_BYTES);
    assert!(booked_peak > 0 && booked_peak <= booked_max, "{booked_peak}");
    let bound = idle + BUDGET_BYTES + CLIENTS * CONNECTION_BYTES;
    assert!(peak <= bound, "{peak} of {bound}, {idle} when idle");
}

/// No Tempo can be built where these tests run; another appliance, which is held to Tempo's answers by its own tests, stands
/// for it.
#[tokio::test]
async fn what_is_not_here_is_found_in_the_tempo_behind_and_its_absence_is_told() {
    let mut elder = Spanreel::start(&Options::default()).await;
    let upstream = format!("query_upstream: 'http://127.0.0.1:{}'", elder.ports.query);
    let here = Spanreel::start(&Options { appliance: vec![upstream], ..Options::default() }).await;
    let (old, new) = ([1; 16], [2; 16]);
    send_checkout(&elder, old).await;
    send_checkout(&here, new).await;
    let mut connection = Connection::open(here.ports.query).await.unwrap();
    let mut streams = GrpcConnection::open(here.ports.query).await.unwrap();
    let mut both = [hex(&new), hex(&old)];
    both.sort_unstable();
    let sorted = |mut ids: Vec<String>| {
        ids.sort_unstable();
        ids
    };
    assert_eq!(sorted(found(&mut connection, "{ status = error }").await), both);
    assert_eq!(sorted(found_by_stream(&mut streams, "{ status = error }").await), both);
    let by_id = format!("/api/v2/traces/{}", hex(&old));
    let trace = json(&mut connection, &by_id).await;
    assert!(trace["trace"]["resourceSpans"].is_array() && trace.get("status").is_none(), "{trace}");

    elder.kill();
    assert_eq!(found(&mut connection, "{ status = error }").await, [hex(&new)]);
    let trace = json(&mut connection, &by_id).await;
    assert_eq!(trace["status"], "PARTIAL", "{trace}");
    assert!(trace["message"].as_str().unwrap().contains("does not answer"), "{trace}");
    for path in ["/api/metrics/query_range", "/api/metrics/query"] {
        let series = json(&mut connection, &of_last_hour(path, &[("q", "{} | rate()")])).await;
        assert_eq!(series["status"], "PARTIAL", "{path}: {series}");
    }
    let tags = get(&mut connection, &of_last_hour("/api/v2/search/tags", &[])).await;
    assert!(tags.status == 200 && tags.headers.contains_key("x-spanreel-partial"), "{}", tags.text());
}

#[tokio::test]
async fn metrics_stream_like_searches() {
    let spanreel = Spanreel::start(&Options::default()).await;
    send_checkout(&spanreel, [9; 16]).await;
    let mut streams = GrpcConnection::open(spanreel.ports.query).await.unwrap();
    let end = now();
    for method in ["MetricsQueryRange", "MetricsQueryInstant"] {
        let request = RangeRequest { query: "{} | count_over_time()".to_owned(), start: end - 3_600_000_000_000, end };
        let path = format!("/tempopb.StreamingQuerier/{method}");
        let answer = streams.stream(&path, frame(false, &request.encode_to_vec())).await.unwrap();
        assert_eq!((answer.code, answer.messages.len()), (0, 1), "{method}: {}", answer.message);
    }
}
