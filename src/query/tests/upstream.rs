//! With a Tempo behind: what is asked of it, and what becomes of its answers and of its absence.

use std::sync::Mutex;

use super::shop::ids;
use super::*;
use crate::query::upstream::Away;
use crate::traceql::answer::SearchAnswer;
use crate::traceql::control::Control;
use crate::traceql::request::SearchRequest;
use crate::traceql::tests::spans::{Trace, span, trace};

const SECOND: u64 = 1_000_000_000;

/// Keeps what it is told, and who asked for what.
struct Elder {
    memory: Memory,
    away: bool,
    asked: Mutex<Vec<SearchRequest>>,
    trace: Bytes,
}

impl Upstream for Elder {
    fn trace(&self, _: TraceId) -> Result<Bytes, Away> {
        self.answers()?;
        Ok(self.trace.clone())
    }

    fn search(&self, query: &str, request: &SearchRequest) -> Result<SearchAnswer, Away> {
        self.answers()?;
        self.asked.lock().unwrap().push(*request);
        let query = crate::traceql::read(query).unwrap();
        let control = Control::new(std::time::Duration::from_secs(60), usize::MAX);
        Ok(crate::traceql::search::run(&query, request, &self.memory, &control, &mut |_| {}).unwrap())
    }
}

impl Elder {
    fn answers(&self) -> Result<(), Away> {
        match self.away {
            true => Err(Away { address: "tempo:3200".to_owned(), problem: "connection refused".to_owned() }),
            false => Ok(()),
        }
    }
}

fn at(id: u64, seconds_ago: u64) -> Trace {
    let start = call::now() as u64 - seconds_ago * SECOND;
    trace(u128::from(id), [span(id).service("shop").named("work").lasting(start, 5)])
}

/// A span of trace 0xab with this id and, unless it is a root, this parent, as OTLP.
fn request_of(span: u8, parent: Option<u8>) -> Bytes {
    use crate::otlp::wire::put_bytes;
    let mut message = Vec::new();
    put_bytes(&mut message, 1, &[0xab; 16]);
    put_bytes(&mut message, 2, &[span; 8]);
    if let Some(parent) = parent {
        put_bytes(&mut message, 4, &[parent; 8]);
    }
    let (mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut scope, 2, &message);
    put_bytes(&mut resource, 2, &scope);
    put_bytes(&mut request, 1, &resource);
    request.into()
}

/// What is here and found by id.
struct Here(Memory, Vec<Bytes>);

impl TraceSource for Here {
    fn trace(&self, _: TraceId, _: &AssembleLimits) -> Result<FoundTrace, SourceError> {
        Ok(FoundTrace { fragments: self.1.clone(), completeness: Completeness::Complete, inspected_bytes: 0 })
    }
}

impl SpanSource for Here {
    fn searchable(&self) -> Result<Arc<dyn Source>, SourceError> {
        Ok(Arc::new(self.0.clone()))
    }
}

fn api(here: Here, elder: Elder) -> (Api, Arc<Elder>) {
    let elder = Arc::new(elder);
    let state = QueryState::new(Arc::new(here), Arc::new(Process), QueryLimits::default());
    (Api(router(state.with_upstream(Arc::clone(&elder) as _))), elder)
}

fn elder(traces: &[Trace]) -> Elder {
    Elder { memory: Memory::whole(traces), away: false, asked: Mutex::new(Vec::new()), trace: Bytes::new() }
}

#[tokio::test]
async fn a_search_goes_on_where_what_is_here_ends() {
    let here = Here(Memory::whole(&[at(1, 10), at(2, 20)]), Vec::new());
    let (api, elder) = api(here, elder(&[at(2, 20), at(3, 30), at(4, 40), at(5, 1800)]));
    let id = |number: u8| format!("{number:032x}");
    assert_eq!(ids(&api.search("{}", &[]).await), [1, 2, 3, 4, 5].map(id));
    assert_eq!(ids(&api.search("{ name = `work` }", &[("limit", "3")]).await), [1, 2, 3].map(id));
    let asked = elder.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    // Not for what is here.
    assert!(asked.iter().all(|request| request.end <= call::now() as u64 - 10 * SECOND));
}

#[tokio::test]
async fn a_search_that_finds_enough_here_asks_nobody() {
    let here = Here(Memory::whole(&[at(1, 10), at(2, 20)]), Vec::new());
    let (api, elder) = api(here, elder(&[at(3, 30)]));
    api.search("{}", &[("limit", "2")]).await;
    let start = (call::now() / 1_000_000_000 - 5).to_string();
    api.json("/api/search", &[("q", "{}"), ("start", &start), ("end", "4000000000")]).await;
    assert!(elder.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_search_is_answered_from_here_while_nobody_is_there() {
    let here = Here(Memory::whole(&[at(1, 10)]), Vec::new());
    let (api, _) = api(here, Elder { away: true, ..elder(&[at(3, 30)]) });
    assert_eq!(ids(&api.search("{}", &[]).await).len(), 1);
}

async fn spans_of(api: &Api) -> (u16, usize, Json) {
    let answer = api.get("/api/v2/traces/abababababababababababababababab", &[]).await;
    let json: Json = serde_json::from_slice(&answer.body).unwrap();
    let spans = json["trace"]["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().map_or(0, Vec::len);
    (answer.status.as_u16(), spans, json)
}

#[tokio::test]
async fn a_trace_that_lost_its_beginning_gets_it_back() {
    let here = Here(Memory::whole(&[]), vec![request_of(2, Some(1))]);
    let (api, _) = api(here, Elder { trace: request_of(1, None), ..elder(&[]) });
    assert_eq!(spans_of(&api).await.1, 2);
}

#[tokio::test]
async fn a_trace_that_is_not_here_is_found_there() {
    let (api, _) = api(Here(Memory::whole(&[]), Vec::new()), Elder { trace: request_of(1, None), ..elder(&[]) });
    let (status, spans, json) = spans_of(&api).await;
    assert_eq!((status, spans, json.get("status")), (200, 1, None));
    assert_eq!(api.get("/api/traces/abababababababababababababababab", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_trace_with_its_root_is_not_asked_for() {
    let here = Here(Memory::whole(&[]), vec![request_of(1, None)]);
    let (api, _) = api(here, Elder { away: true, ..elder(&[]) });
    let (_, spans, json) = spans_of(&api).await;
    assert_eq!((spans, json.get("status")), (1, None));
}

#[tokio::test]
async fn a_trace_says_that_it_may_be_partial_while_nobody_is_there() {
    let here = Here(Memory::whole(&[]), vec![request_of(2, Some(1))]);
    let (api, _) = api(here, Elder { away: true, ..elder(&[]) });
    let (status, spans, json) = spans_of(&api).await;
    assert_eq!((status, spans), (200, 1));
    let text = "the Tempo at tempo:3200 does not answer (connection refused); older data may be missing";
    assert_eq!((&json["status"], &json["message"]), (&"PARTIAL".into(), &text.into()));

    let (api, _) = self::api(Here(Memory::whole(&[]), Vec::new()), Elder { away: true, ..elder(&[]) });
    let missing = api.get("/api/traces/ab", &[]).await;
    assert_eq!((missing.status, missing.text().as_str()), (StatusCode::BAD_GATEWAY, text));
}
