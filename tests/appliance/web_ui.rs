//! What the web UI asks of the process, over real HTTP: new traces as they come, health, configuration; and who may ask.

use crate::support::compression::Compression;
use crate::support::eventually;
use crate::support::http::{self, Connection, Response};
use crate::support::otlp::{Client, Protocol};
use crate::support::ports;
use crate::support::spanreel::{Options, Spanreel, binary};
use crate::support::traces::{Traces, hex};
use ::http::{Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::TcpStream;

const TRACES: Traces = Traces { seed: 0x7765_6275, spans_per_trace: 3 };
/// For what comes within a second or two; the machine may be busy with other tests.
const SOON: Duration = Duration::from_secs(60);

async fn send(spanreel: &Spanreel, traces: std::ops::Range<u64>) {
    send_all(spanreel, &TRACES.request("shop", traces)).await;
}

async fn send_all(spanreel: &Spanreel, request: &ExportTraceServiceRequest) {
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    let answer = client.export(request, Compression::Identity).await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
}

async fn get(spanreel: &Spanreel, path: &str) -> Response {
    http::get(spanreel.ports.query, path, &[]).await.unwrap()
}

async fn json(spanreel: &Spanreel, path: &str) -> Value {
    let response = get(spanreel, path).await;
    assert_eq!(response.status, StatusCode::OK, "{path}: {}", response.text());
    serde_json::from_slice(&response.body).unwrap()
}

/// A stream of events as a browser holds it open.
struct Events {
    status: StatusCode,
    body: Incoming,
    /// What came and was not looked at yet.
    text: String,
}

/// One of them.
#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Events {
    async fn open(port: u16, query: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(format!("/ui/api/live{query}")).header("host", "127.0.0.1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        Self { status: response.status(), body: response.into_body(), text: String::new() }
    }

    /// The next event, without comments in between; `None`: the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let of_name = |line: &str| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned);
                    block.lines().find_map(of_name).unwrap_or_default()
                };
                if field("event").is_empty() {
                    continue;
                }
                let data = serde_json::from_str(&field("data")).unwrap();
                return Some(Event { name: field("event"), id: field("id"), data });
            }
            let frame = tokio::time::timeout(SOON, self.body.frame()).await.expect("something comes in time")?;
            self.text.push_str(std::str::from_utf8(frame.ok()?.data_ref()?).unwrap());
        }
    }

    /// Events up to the first that shows this trace, which is returned with its row.
    async fn until(&mut self, trace: u64) -> (Event, Value) {
        let id = hex(&TRACES.id(trace));
        loop {
            let event = self.next().await.expect("the stream goes on");
            assert_eq!(event.name, "traces", "{event:?}");
            let row =
                event.data["traces"].as_array().unwrap().iter().find(|row| row["traceID"] == id.as_str()).cloned();
            if let Some(row) = row {
                return (event, row);
            }
        }
    }
}

#[tokio::test]
async fn new_traces_come_as_they_arrive_with_all_that_is_known_of_them() {
    let spanreel = Spanreel::start(&Options::default()).await;
    send(&spanreel, 0..1).await;
    let mut all = Events::open(spanreel.ports.query, "", &[]).await;
    let mut some = Events::open(spanreel.ports.query, "?q=%7B%20span.item%20%3D%202%20%7D&spss=2", &[]).await;
    assert_eq!((all.status, some.status), (StatusCode::OK, StatusCode::OK));

    send(&spanreel, 1..2).await;
    let (event, row) = all.until(1).await;
    assert_eq!(event.data["traces"].as_array().unwrap().len(), 1, "what was there before is history: {event:?}");
    assert_eq!((&event.data["more"], &event.data["skippedSpans"]), (&json!(0), &json!(0)));
    assert_eq!((&row["rootServiceName"], &row["rootTraceName"]), (&json!("shop"), &json!("GET /item/0")));
    assert_eq!(row["serviceStats"], json!({"shop": {"spanCount": 3}}));

    // More spans of a trace: it comes again, with the totals; those that came before are the same spans.
    let longer = Traces { spans_per_trace: 5, ..TRACES };
    send_all(&spanreel, &longer.request("shop", 1..2)).await;
    let (_, row) = all.until(1).await;
    assert_eq!(row["serviceStats"], json!({"shop": {"spanCount": 5}}));

    send(&spanreel, 2..4).await;
    let (event, row) = some.until(2).await;
    assert_eq!(event.data["traces"].as_array().unwrap().len(), 1, "only what matches: {event:?}");
    assert_eq!(row["spanSets"][0]["matched"], 3);
    assert_eq!(row["spanSets"][0]["spans"].as_array().unwrap().len(), 2);
    all.until(3).await;
}

#[tokio::test]
async fn a_browser_that_comes_again_misses_nothing_and_a_flood_is_counted() {
    let spanreel = Spanreel::start(&Options::default()).await;
    let mut events = Events::open(spanreel.ports.query, "?limit=1", &[]).await;
    send(&spanreel, 0..1).await;
    let (event, _) = events.until(0).await;
    drop(events);
    // All in one request, so that one look finds them.
    send(&spanreel, 1..31).await;
    let mut again = Events::open(spanreel.ports.query, "?limit=1", &[("last-event-id", &event.id)]).await;
    let event = again.next().await.unwrap();
    assert_eq!(event.data["traces"].as_array().unwrap().len(), 1);
    assert_eq!(event.data["more"], 29);
}

#[tokio::test]
async fn live_views_are_bounded_refused_in_words_and_end_with_the_process() {
    let mut spanreel = Spanreel::start(&Options::default()).await;
    for (query, what) in [
        ("?q=%7B%20span.item%20%3D%20%7D", "parse error at line 1, col 15"),
        ("?q=%7B%7D%20%7C%20rate()", "metrics query"),
        ("?limit=101", "limit"),
        ("?limit=x", "limit"),
        ("?spss=101", "spans"),
    ] {
        let refused = get(&spanreel, &format!("/ui/api/live{query}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(refused.text().contains(what), "{query}: {}", refused.text());
    }
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(Events::open(spanreel.ports.query, "", &[]).await);
    }
    assert!(open.iter().all(|events| events.status == StatusCode::OK));
    assert_eq!(spanreel.metrics().await.sum("spanreel_query_live_streams", &[]), Some(16.0));
    let refused = get(&spanreel, "/ui/api/live").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let mut last = open.pop().unwrap();
    drop(open);
    let port = spanreel.ports.query;
    eventually("the places of those who left are free", SOON, async || {
        Events::open(port, "", &[]).await.status == StatusCode::OK
    })
    .await;

    assert!(spanreel.stop().success());
    // A connection that is not done in time is cut off before it is told; that it is told is tested beside the stream.
    if let Some(event) = last.next().await {
        assert_eq!((event.name.as_str(), &event.data["message"]), ("end", &json!("Spanreel is stopping")));
    }
    assert!(last.next().await.is_none());
}

#[tokio::test]
async fn health_shows_accounts_that_balance_what_waits_and_what_was_warned_of() {
    let options = Options::default().with_grpc_destination("otlp/away", ports::free());
    let spanreel = Spanreel::start(&options).await;
    send(&spanreel, 0..5).await;
    eventually("the destination that is away is warned of", SOON, async || {
        let health = json(&spanreel, "/ui/api/health").await;
        let entries = health["recent"]["entries"].as_array().cloned().unwrap_or_default();
        health["destinations"][0]["queued"] == 15
            && entries.iter().any(|entry| entry["level"] == "WARN" && entry["fields"].to_string().contains("otlp/away"))
    })
    .await;
    let health = json(&spanreel, "/ui/api/health").await;
    let account = &health["ledger"][0];
    assert_eq!((&account["received"], &account["stored"], &account["difference"]), (&json!(15), &json!(15), &json!(0)));
    let delivery = &account["destinations"][0];
    assert_eq!((&delivery["destination"], &delivery["queued"]), (&json!("otlp/away"), &json!(15)));
    assert_eq!(delivery["difference"], 0);
    let waiting = &health["destinations"][0];
    assert!(waiting["oldest_waiting_age_seconds"].is_u64(), "{health}");
    assert_eq!((&waiting["waiting_batches"], &waiting["waiting_bytes"]), (&json!(1), &health["spool"]["bytes"]));
    assert_eq!(health["dead_letters"], json!({"count": 0, "items": 0, "bytes": 0, "more": false, "problem": null}));
    assert!(health["store"]["bytes_max"].is_u64() && health["certificates"] == json!([]), "{health}");
    // The status that the command line prints is part of it.
    let status = json(&spanreel, "/api/spanreel/status").await;
    assert!(status.as_object().unwrap().keys().all(|key| health.get(key).is_some()), "{status}");
    assert_eq!(status["pipelines"], health["pipelines"]);
}

#[tokio::test]
async fn the_configuration_in_force_says_where_each_value_was_written() {
    let exporter = ("otlp/tempo".to_owned(), "{endpoint: 'tempo:4317', headers: {authorization: hidden}}".to_owned());
    let mut options = Options { exporters: vec![exporter], ..Options::default() };
    options.arguments = vec!["--set".to_owned(), "exporters.otlp/tempo.timeout=7s".to_owned()];
    let spanreel = Spanreel::start(&options).await;
    let configuration = json(&spanreel, "/ui/api/config").await;
    let value = |path: &[&str]| {
        let found = configuration["values"].as_array().unwrap().iter().find(|value| value["path"] == json!(path));
        let found = found.unwrap_or_else(|| panic!("{path:?} is not in {configuration}"));
        (found["value"].as_str().unwrap(), found["origin"].as_str().unwrap_or_default())
    };
    let file = spanreel.config().display().to_string();
    let (endpoint, origin) = value(&["exporters", "otlp/tempo", "endpoint"]);
    assert!(endpoint == "tempo:4317" && origin.starts_with(&format!("{file}:")), "{origin}");
    let (timeout, origin) = value(&["exporters", "otlp/tempo", "timeout"]);
    assert!(timeout == "7s" && origin.starts_with("--set exporters.otlp/tempo.timeout"), "{origin}");
    assert_eq!(value(&["extensions", "spanreel", "memory", "max_mib"]), ("64", ""), "nobody wrote it");
    assert_eq!(value(&["exporters", "otlp/tempo", "headers", "authorization"]).0, "[REDACTED]");
    assert!(!configuration.to_string().contains("hidden"));
    assert!(configuration["yaml"].as_str().unwrap().contains("endpoint: tempo:4317"));
    assert_eq!((&configuration["built_in"], &configuration["after_restart"]), (&json!(false), &json!([])));
    // Without a cluster there is nothing to say of one, and that is said.
    let cluster = get(&spanreel, "/ui/api/cluster").await;
    assert_eq!(cluster.status, StatusCode::NOT_FOUND);
    assert!(cluster.text().contains("no_cluster"));
}

/// Ann may look, who has the token may do everything, nobody else comes in.
fn logins() -> Options {
    let users = "{htpasswd: {inline: 'ann:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs='}}".to_owned();
    Options {
        extensions: vec![
            ("basicauth/people".to_owned(), users),
            ("bearertokenauth/robots".to_owned(), "{token: s3cret}".to_owned()),
        ],
        appliance: vec!["access: {full: [bearertokenauth/robots], read_only: [basicauth/people]}".to_owned()],
        ..Options::default()
    }
}

#[tokio::test]
async fn with_access_settings_the_query_port_lets_in_who_they_name() {
    let spanreel = Spanreel::start(&logins()).await;
    send(&spanreel, 0..1).await;
    let port = spanreel.ports.query;
    for path in ["/api/search", "/metrics", "/status", "/api/spanreel/status", "/ui/api/health", "/ui/api/live"] {
        let refused = get(&spanreel, path).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(refused.text().contains("\"code\":\"unauthenticated\""), "{path}: {}", refused.text());
    }
    for path in ["/", "/traces", "/icon.svg", "/ready", "/healthz", "/ui/api/session"] {
        assert_eq!(get(&spanreel, path).await.status, StatusCode::OK, "{path}");
    }

    let id = hex(&TRACES.id(0));
    let ann = format!("http://ann:123456@127.0.0.1:{port}");
    let run = |endpoint: &str, token: Option<&str>, arguments: &[&str]| {
        let mut command = binary();
        command.args(arguments).args(["--endpoint", endpoint]);
        if let Some(token) = token {
            command.env("SPANREEL_AUTHORIZATION", format!("Bearer {token}"));
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let anonymous = format!("http://127.0.0.1:{port}");
    let (code, said) = run(&anonymous, None, &["show", &id]);
    assert!(
        code == Some(1) && said.contains("credentials are needed") && said.contains("SPANREEL_AUTHORIZATION"),
        "{said}"
    );
    let (code, said) = run(&ann, None, &["show", &id]);
    assert!(code == Some(0) && said.starts_with(&id), "{said}");
    let (code, said) = run(&ann, None, &["pin", &id]);
    assert!(code == Some(1) && said.contains("ann may look and change nothing"), "{said}");
    assert_eq!(run(&anonymous, Some("s3cret"), &["pin", &id]), (Some(0), String::new()));
    let (code, said) = run(&anonymous, Some("other"), &["pin", &id]);
    assert!(code == Some(1) && said.contains("does not match"), "{said}");

    // A browser logs in once, and its streams come with the cookie alone.
    let mut connection = Connection::open(port).await.unwrap();
    let login = json!({"token": "s3cret"}).to_string();
    let headers = [("content-type", "application/json"), ("sec-fetch-site", "same-origin")];
    let answer = connection.send(Method::POST, "/ui/api/login", &headers, login.into()).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    let mut events = Events::open(port, "", &[("cookie", &cookie)]).await;
    assert_eq!(events.status, StatusCode::OK);
    send(&spanreel, 1..2).await;
    events.until(1).await;

    let bearer = [("authorization", "Bearer s3cret")];
    let metrics = http::get(port, "/metrics", &bearer).await.unwrap().text();
    for (reason, count) in [("unauthenticated", 7), ("read_only", 1), ("wrong_credentials", 1)] {
        let line = format!("spanreel_query_requests_refused_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{reason}: {metrics}");
    }
}

#[tokio::test]
async fn the_streaming_rpcs_ask_for_credentials_too() {
    let mut options = logins();
    let separate = ports::free();
    options.appliance.push(format!("query_grpc_endpoint: 127.0.0.1:{separate}"));
    let spanreel = Spanreel::start(&options).await;
    for port in [spanreel.ports.query, separate] {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for (credentials, status) in [("", "16"), ("Bearer wrong", "16"), ("Bearer s3cret", "0")] {
            let uri = format!("http://127.0.0.1:{port}/tempopb.StreamingQuerier/SearchTags");
            let mut request = Request::post(uri).header("content-type", "application/grpc");
            if !credentials.is_empty() {
                request = request.header("authorization", credentials);
            }
            let body = http_body_util::Full::new(Bytes::from_static(&[0; 5]));
            let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap();
            let told = head.headers.get("grpc-status").or_else(|| body.trailers()?.get("grpc-status")).cloned();
            assert_eq!(told.unwrap(), status, "{port} {credentials:?}");
        }
    }
}

#[tokio::test]
async fn a_page_that_was_led_here_under_a_name_of_its_own_sees_nothing_and_is_told_the_setting() {
    let spanreel = Spanreel::start(&Options::default()).await;
    let port = spanreel.ports.query;
    for path in ["/api/search", "/ui/api/live", "/metrics", "/ui/api/config"] {
        let refused = http::get(port, path, &[("host", "evil.example:3200")]).await.unwrap();
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        assert!(refused.text().contains("extensions::spanreel::access::hosts"), "{}", refused.text());
    }
    for (path, host) in [("/ready", "evil.example"), ("/api/echo", "spanreel.observe.svc"), ("/api/echo", "10.0.0.1")] {
        let answer = http::get(port, path, &[("host", host)]).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{host}{path}");
    }
}
