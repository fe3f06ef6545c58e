//! Traces of a bookshop: a page asks for details and reviews, reviews for ratings, two of them a database.
//!
//! ```text
//! GET /productpage            productpage   server
//! ├─ GET details              productpage   client
//! │  └─ GET /details/{id}     details       server
//! │     └─ SELECT books       details       client  (db.system postgresql)
//! └─ GET reviews              productpage   client
//!    └─ GET /reviews/{id}     reviews       server
//!       └─ GET ratings        reviews       client
//!          └─ GET /ratings/{id} ratings     server
//!             └─ HGET ratings ratings       client  (db.system redis)
//! ```
//!
//! Entropy as it is in life: random ids, 10,000 users, 500 books, durations over three orders of magnitude, several pods
//! of each service, 2 % of the ratings fail and take their callers along.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind};
use prost::Message;

use crate::support::traces::{Traces, attribute};

pub const SPANS_PER_TRACE: u64 = 9;
pub const USERS: u64 = 10_000;
const BOOKS: u64 = 500;
/// A request of productpage then has 120 spans, of the others 80.
const TRACES_PER_GROUP: u64 = 40;
const PODS: u64 = 3;
const FAILING_PER_THOUSAND: u64 = 20;
const IDS: Traces = Traces { seed: 0x5ca1_ab1e, spans_per_trace: 0 };
/// The file that says what is in a folder: groups, start and step.
const KEPT: &str = "shop";

#[derive(Debug, Clone)]
pub struct Shop {
    ids: Traces,
    groups: u64,
    /// Unix nanoseconds of the first trace.
    start: u64,
    /// Between the starts of two traces, nanoseconds.
    step: u64,
}

/// What is random about one trace.
#[derive(Debug, Clone, Copy)]
pub struct Visit {
    pub user: u64,
    pub fails: bool,
    /// Of the ratings' database call, nanoseconds; all else adds to it.
    base: u64,
    random: u64,
}

impl Shop {
    /// At least `spans` spans, evenly over `span_of_time` up to now.
    pub fn ending_now(spans: u64, span_of_time: Duration) -> Self {
        let groups = spans.div_ceil(TRACES_PER_GROUP * SPANS_PER_TRACE).max(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        let step = (span_of_time.as_nanos() as u64 / (groups * TRACES_PER_GROUP)).max(1);
        let start = (now - span_of_time).as_nanos() as u64;
        Self { ids: IDS, groups, start, step }
    }

    /// What was stored in a folder before; `None` if nothing was.
    pub fn kept_in(folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join(KEPT)).ok()?;
        let mut numbers = text.split_whitespace().map(|number| number.parse().expect("a number"));
        let mut next = || numbers.next().expect("three numbers");
        let (groups, start, step) = (next(), next(), next());
        Some(Self { ids: IDS, groups, start, step })
    }

    pub fn keep_in(&self, folder: &Path) {
        let text = format!("{} {} {}\n", self.groups, self.start, self.step);
        std::fs::write(folder.join(KEPT), text).expect("the folder is writable");
    }

    /// Other traces, from now on, for an hour at most.
    pub fn continued(&self) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        Self {
            ids: Traces { seed: 0xdead_beef, spans_per_trace: 0 },
            groups: 100_000,
            start: now.as_nanos() as u64,
            step: 1_000_000,
        }
    }

    pub fn groups(&self) -> u64 {
        self.groups
    }

    pub fn spans_per_group(&self) -> u64 {
        TRACES_PER_GROUP * SPANS_PER_TRACE
    }

    pub fn traces(&self) -> u64 {
        self.groups * TRACES_PER_GROUP
    }

    pub fn spans(&self) -> u64 {
        self.traces() * SPANS_PER_TRACE
    }

    /// From the start of the first trace to that of the last.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.traces() * self.step)
    }

    pub fn trace_id(&self, trace: u64) -> [u8; 16] {
        self.ids.id(trace)
    }

    /// Seconds around everything, for `start` and `end`.
    pub fn window(&self) -> (u64, u64) {
        let end = self.start + self.traces() * self.step;
        (self.start / 1_000_000_000 - 1, end / 1_000_000_000 + 10)
    }

    pub fn visit(&self, trace: u64) -> Visit {
        let random = Traces::spread(trace ^ 0x0bad_cafe);
        Visit {
            user: random % USERS,
            fails: (random >> 20) % 1000 < FAILING_PER_THOUSAND,
            // 0.2 to 200 ms, most of them short.
            base: 200_000 << ((random >> 32) % 11).min((random >> 40) % 11),
            random,
        }
    }

    /// The requests of a group of traces, one per service.
    pub fn requests(&self, group: u64) -> impl Iterator<Item = Vec<u8>> {
        let traces = group * TRACES_PER_GROUP..(group + 1) * TRACES_PER_GROUP;
        let mut spans: [Vec<Span>; 4] = Default::default();
        for trace in traces {
            self.trace(trace, &mut spans);
        }
        let pod = Traces::spread(group) % PODS;
        spans.into_iter().enumerate().map(move |(service, spans)| request(service, pod, spans).encode_to_vec())
    }

    fn trace(&self, trace: u64, out: &mut [Vec<Span>; 4]) {
        let visit = self.visit(trace);
        let Visit { user, fails, base, random } = visit;
        let trace_id = self.trace_id(trace);
        let id = |number: u64| (Traces::spread(random ^ number << 3) | 1).to_be_bytes();
        let start = self.start + trace * self.step;
        let jitter = |number: u64, below: u64| Traces::spread(random.rotate_left(17) ^ number) % below;
        let book = (random >> 8) % BOOKS;
        let text = |key: &str, value: String| attribute(key, Value::StringValue(value));
        let status_code = |code: i64| attribute("http.response.status_code", Value::IntValue(code));
        // Number, parent, service, name, kind, offset and length in the trace's time, attributes.
        let mut push = |number: u64,
                        service: usize,
                        name: &str,
                        kind: SpanKind,
                        offset: u64,
                        length: u64,
                        failed: bool,
                        attributes: Vec<KeyValue>| {
            const PARENTS: [Option<u64>; 9] =
                [None, Some(0), Some(1), Some(2), Some(0), Some(4), Some(5), Some(6), Some(7)];
            out[service].push(Span {
                trace_id: trace_id.to_vec(),
                span_id: id(number).to_vec(),
                parent_span_id: PARENTS[number as usize].map(|parent| id(parent).to_vec()).unwrap_or_default(),
                name: name.to_owned(),
                kind: kind as i32,
                start_time_unix_nano: start + offset,
                end_time_unix_nano: start + offset + length,
                attributes,
                status: Some(Status { code: if failed { 2 } else { 0 }, message: String::new() }),
                flags: 0x101,
                ..Span::default()
            });
        };
        let code = if fails { 503 } else { 200 };
        let (page, ratings) = (base * 4 + jitter(0, 900_000) + 500_000, base + jitter(8, 90_000) + 1000);
        let server = |route: &str, path: String, code: i64| {
            vec![
                text("http.request.method", "GET".to_owned()),
                text("http.route", route.to_owned()),
                text("url.path", path),
                text("url.scheme", "http".to_owned()),
                status_code(code),
                text("network.protocol.version", "1.1".to_owned()),
            ]
        };
        let client = |host: &str, path: String, code: i64| {
            vec![
                text("http.request.method", "GET".to_owned()),
                text("url.full", format!("http://{host}:9080{path}")),
                text("server.address", host.to_owned()),
                attribute("server.port", Value::IntValue(9080)),
                status_code(code),
            ]
        };
        let database = |system: &str, query: String| {
            vec![
                text("db.system", system.to_owned()),
                text("db.namespace", "books".to_owned()),
                text("db.query.text", query),
            ]
        };
        let mut attributes = server("/productpage", "/productpage".to_owned(), code);
        attributes.push(text("enduser.id", format!("user-{user}")));
        attributes.push(text("client.address", format!("10.42.{}.{}", user % 8, user % 250)));
        attributes.push(text("user_agent.original", AGENTS[(user % 5) as usize].to_owned()));
        push(0, 0, "GET /productpage", SpanKind::Server, 0, page, fails, attributes);
        let details = base + jitter(1, 300_000);
        push(
            1,
            0,
            "GET details",
            SpanKind::Client,
            50_000,
            details + 200_000,
            false,
            client("details", format!("/details/{book}"), 200),
        );
        push(
            2,
            1,
            "GET /details/{id}",
            SpanKind::Server,
            120_000,
            details + 60_000,
            false,
            server("/details/{id}", format!("/details/{book}"), 200),
        );
        push(
            3,
            1,
            "SELECT books",
            SpanKind::Client,
            150_000,
            details,
            false,
            database("postgresql", format!("SELECT * FROM books WHERE id = {book}")),
        );
        let at = details + 300_000;
        push(
            4,
            0,
            "GET reviews",
            SpanKind::Client,
            at,
            ratings + 500_000,
            fails,
            client("reviews", format!("/reviews/{book}"), code),
        );
        push(
            5,
            2,
            "GET /reviews/{id}",
            SpanKind::Server,
            at + 90_000,
            ratings + 350_000,
            fails,
            server("/reviews/{id}", format!("/reviews/{book}"), code),
        );
        push(
            6,
            2,
            "GET ratings",
            SpanKind::Client,
            at + 120_000,
            ratings + 250_000,
            fails,
            client("ratings", format!("/ratings/{book}"), code),
        );
        push(
            7,
            3,
            "GET /ratings/{id}",
            SpanKind::Server,
            at + 190_000,
            ratings + 100_000,
            fails,
            server("/ratings/{id}", format!("/ratings/{book}"), code),
        );
        push(
            8,
            3,
            "HGET ratings",
            SpanKind::Client,
            at + 220_000,
            ratings,
            fails,
            database("redis", format!("HGET ratings {book}")),
        );
    }
}

const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "curl/8.15.0",
    "k6/1.3.0 (https://k6.io/)",
];

pub const SERVICES: [&str; 4] = ["productpage", "details", "reviews", "ratings"];
const SCOPES: [&str; 4] = [
    "opentelemetry.instrumentation.flask",
    "@opentelemetry/instrumentation-http",
    "io.opentelemetry.tomcat-10.0",
    "@opentelemetry/instrumentation-http",
];

fn request(service: usize, pod: u64, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let name = SERVICES[service];
    let text = |key: &str, value: String| attribute(key, Value::StringValue(value));
    let resource = Resource {
        attributes: vec![
            text("service.name", name.to_owned()),
            text("service.version", "1.20.3".to_owned()),
            text("k8s.namespace.name", "bookinfo".to_owned()),
            text("k8s.deployment.name", format!("{name}-v1")),
            text("k8s.pod.name", format!("{name}-v1-7c9d6b5f4{pod}-x2k8{pod}")),
            text("k8s.node.name", format!("node-{pod}")),
            text("telemetry.sdk.language", ["python", "nodejs", "java", "nodejs"][service].to_owned()),
            text("telemetry.sdk.name", "opentelemetry".to_owned()),
            text("telemetry.sdk.version", "1.60.0".to_owned()),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: SCOPES[service].to_owned(),
        version: "2.26.0".to_owned(),
        ..InstrumentationScope::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }],
            schema_url: "https://opentelemetry.io/schemas/1.37.0".to_owned(),
        }],
    }
}
