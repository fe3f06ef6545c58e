//! With a Tempo behind: what is asked of it, and what becomes of its answers and of its absence.

use std::sync::Mutex;

use super::shop::ids;
use super::*;
use crate::query::upstream::Away;
use crate::traceql::answer::{MetricsAnswer, SearchAnswer, TagsAnswer, ValuesAnswer};
use crate::traceql::ast::{Expression, Field, Scope};
use crate::traceql::control::Control;
use crate::traceql::request::{InstantRequest, RangeRequest, SearchRequest, TagsRequest};
use crate::traceql::search::Nobody;
use crate::traceql::tests::spans::{Trace, span, trace};

const SECOND: u64 = 1_000_000_000;

/// Keeps what it is told, and who asked for what.
struct Elder {
    memory: Memory,
    away: bool,
    asked: Mutex<Vec<(u64, u64)>>,
    trace: Bytes,
}

impl Upstream for Elder {
    fn trace(&self, _: TraceId, _: &Control) -> Result<Bytes, Unanswered> {
        self.answers()?;
        Ok(self.trace.clone())
    }

    fn search(&self, query: &str, request: &SearchRequest, control: &Control) -> Result<SearchAnswer, Unanswered> {
        self.answers()?;
        self.asked.lock().unwrap().push((request.start, request.end));
        let query = crate::traceql::read(query).unwrap();
        Ok(crate::traceql::search::run(&query, request, &self.memory, control, &mut Nobody).unwrap())
    }

    fn range(&self, query: &str, request: &RangeRequest, control: &Control) -> Result<MetricsAnswer, Unanswered> {
        self.answers()?;
        self.asked.lock().unwrap().push((request.start, request.end));
        // As a Tempo does it: an interval more in front.
        let request = RangeRequest { start: request.start - request.step, ..*request };
        let query = crate::traceql::read(query).unwrap();
        Ok(crate::traceql::metrics::range(&query, &request, &self.memory, control, &mut |_| {}).unwrap())
    }

    fn instant(&self, query: &str, request: &InstantRequest, control: &Control) -> Result<MetricsAnswer, Unanswered> {
        self.answers()?;
        let query = crate::traceql::read(query).unwrap();
        Ok(crate::traceql::metrics::instant(&query, request, &self.memory, control, &mut |_| {}).unwrap())
    }

    fn tag_names(
        &self,
        scope: Option<Scope>,
        filter: Option<&Expression>,
        request: &TagsRequest,
        control: &Control,
    ) -> Result<TagsAnswer, Unanswered> {
        self.answers()?;
        Ok(crate::traceql::tags::names(&self.memory, scope, filter, request, control).unwrap())
    }

    fn tag_values(
        &self,
        field: &Field,
        filter: Option<&Expression>,
        request: &TagsRequest,
        control: &Control,
    ) -> Result<ValuesAnswer, Unanswered> {
        self.answers()?;
        Ok(crate::traceql::tags::values(&self.memory, field, filter, request, control).unwrap())
    }
}

const AWAY: &str = "the Tempo at tempo:3200 does not answer (connection refused); older data may be missing";

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
    assert!(asked.iter().all(|(_, end)| *end <= call::now() as u64 - 10 * SECOND));
}

#[tokio::test]
async fn spans_older_than_what_is_kept_here_hide_nothing_that_is_upstream() {
    // A pinned trace, or one that came late: far older than anything else here.
    let here = Memory::parts(vec![vec![at(1, 10)], vec![at(2, 3000)]]);
    let since = call::now() as u64 - 20 * SECOND;
    let (api, _) = api(Here(here.complete_from(since), Vec::new()), elder(&[at(3, 30), at(4, 400)]));
    let id = |number: u8| format!("{number:032x}");
    assert_eq!(ids(&api.search("{}", &[]).await), [1, 3, 4, 2].map(id));
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
async fn a_search_is_answered_from_here_while_nobody_is_there_and_says_so() {
    let here = Here(Memory::whole(&[at(1, 10)]), Vec::new());
    let (api, _) = api(here, Elder { away: true, ..elder(&[at(3, 30)]) });
    let answer = api.get("/api/search", &[("q", "{}")]).await;
    let json: Json = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(ids(&json).len(), 1);
    assert_eq!(answer.headers["x-spanreel-partial"], AWAY);
    // Grafana refuses members that it does not know; that a job was not done it can tell.
    assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), ["metrics", "traces"]);
    assert_eq!((&json["metrics"]["completedJobs"], &json["metrics"]["totalJobs"]), (&1.into(), &2.into()));
}

/// Spans of two services: `shop` in each minute before these, and `old` once, 25 minutes ago.
fn minutes(ago: std::ops::Range<u64>) -> Vec<Trace> {
    ago.map(|minute| at(minute + 1, minute * 60 + 30)).collect()
}

fn values(series: &Json) -> Vec<f64> {
    let samples = series["samples"].as_array().unwrap();
    samples.iter().map(|sample| sample["value"].as_f64().unwrap_or(0.0)).collect()
}

fn half_an_hour(step: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![("since", "30m"), ("step", step)]
}

async fn series(api: &Api, path: &str, query: &str) -> Json {
    let mut parameters = half_an_hour("60s");
    parameters.push(("q", query));
    api.json(path, &parameters).await
}

#[tokio::test]
async fn series_go_on_where_what_is_here_begins() {
    let all = minutes(0..28);
    let alone = Api::over(Memory::whole(&all));
    let recent: Vec<Trace> = minutes(0..10);
    let (api, asked) =
        self::api(Here(Memory::parts(recent.iter().map(|one| vec![one.clone()]).collect()), Vec::new()), elder(&all));
    for query in ["{} | count_over_time()", "{} | rate() by (resource.service.name)", "{} | max_over_time(duration)"] {
        let (whole, joined) = (
            series(&alone, "/api/metrics/query_range", query).await,
            series(&api, "/api/metrics/query_range", query).await,
        );
        assert_eq!(joined["series"].as_array().map(Vec::len), Some(1), "{query}");
        assert_eq!(joined["series"][0]["labels"], whole["series"][0]["labels"], "{query}");
        assert_eq!(joined["series"][0]["samples"], whole["series"][0]["samples"], "{query}");
        assert!(joined.get("status").is_none());
    }
    // Not for what is here.
    let now = call::now() as u64;
    assert!(asked.asked.lock().unwrap().iter().all(|(_, end)| *end <= now - 8 * 60 * SECOND));
}

#[tokio::test]
async fn a_series_that_one_side_lacks_has_zeros_there() {
    let one_of = |service: &str, id: u64, minute: u64| {
        let start = call::now() as u64 - (minute * 60 + 30) * SECOND;
        trace(u128::from(id), [span(id).service(service).lasting(start, 5)])
    };
    let (old, mid, new) = (one_of("old", 3, 25), one_of("mid", 2, 9), one_of("new", 1, 1));
    let here = Memory::parts(vec![vec![new.clone()], vec![mid.clone()]]);
    let (api, _) = api(Here(here, Vec::new()), elder(&[old.clone(), mid.clone()]));
    let alone = Api::over(Memory::whole(&[old, mid, new]));
    let query = "{} | count_over_time() by (resource.service.name)";
    let answers = [&api, &alone].map(|api| series(api, "/api/metrics/query_range", query));
    let [joined, whole] = <[Json; 2]>::try_from(futures_util::future::join_all(answers).await).unwrap();
    assert_eq!(whole["series"].as_array().map(Vec::len), Some(3));
    assert_eq!(joined["series"], whole["series"]);
}

#[tokio::test]
async fn a_single_value_comes_from_where_all_of_its_range_is() {
    let all = minutes(0..28);
    let (api, _) = api(Here(Memory::whole(&minutes(0..10)), Vec::new()), elder(&all));
    let answer = series(&api, "/api/metrics/query", "{} | count_over_time()").await;
    assert_eq!(answer["series"][0]["value"].as_f64(), Some(28.0));
}

#[tokio::test]
async fn series_say_that_they_may_be_partial_while_nobody_is_there() {
    let (api, _) = api(Here(Memory::whole(&minutes(0..10)), Vec::new()), Elder { away: true, ..elder(&[]) });
    for (path, sum) in [("/api/metrics/query_range", 10.0), ("/api/metrics/query", 10.0)] {
        let answer = series(&api, path, "{} | count_over_time()").await;
        assert_eq!((&answer["status"], &answer["message"]), (&"PARTIAL".into(), &AWAY.into()), "{path}");
        let found = answer["series"][0]["value"].as_f64().unwrap_or_else(|| values(&answer["series"][0]).iter().sum());
        assert_eq!(found, sum, "{path}");
    }
}

#[tokio::test]
async fn tags_of_both_are_offered_and_own_ones_while_nobody_is_there() {
    let old =
        trace(9, [span(9).service("old").attribute("retired", "yes").lasting(call::now() as u64 - 600 * SECOND, 5)]);
    let here = || Here(Memory::whole(&[at(1, 10)]), Vec::new());
    let services = "/api/v2/search/tag/resource.service.name/values";
    let names = "/api/v2/search/tags";
    let list = |answer: &Json| -> Vec<String> {
        answer["tagValues"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value["value"].as_str().unwrap().to_owned())
            .collect()
    };
    let (api, _) = api(here(), elder(&[old]));
    assert_eq!(list(&api.json(services, &[]).await), ["old", "shop"]);
    assert!(api.json(names, &[]).await.to_string().contains("\"retired\""));

    let (api, _) = self::api(here(), Elder { away: true, ..elder(&[]) });
    let answer = api.get(services, &[]).await;
    assert_eq!(answer.headers["x-spanreel-partial"], AWAY);
    assert_eq!(list(&serde_json::from_slice(&answer.body).unwrap()), ["shop"]);
    assert_eq!(api.get(names, &[]).await.headers["x-spanreel-partial"], AWAY);
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

/// The root ends last, so it may be all that retention has left.
#[tokio::test]
async fn a_trace_that_began_before_everything_here_gets_its_first_spans_back() {
    let here = Here(Memory::whole(&[]).complete_from(1), vec![request_of(1, None)]);
    let (api, _) = api(here, Elder { trace: request_of(2, Some(1)), ..elder(&[]) });
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
    let here = Here(Memory::whole(&[]).complete_from(0), vec![request_of(1, None)]);
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
    assert_eq!((&json["status"], &json["message"]), (&"PARTIAL".into(), &AWAY.into()));

    let (api, _) = self::api(Here(Memory::whole(&[]), Vec::new()), Elder { away: true, ..elder(&[]) });
    let missing = api.get("/api/traces/ab", &[]).await;
    assert_eq!((missing.status, missing.text().as_str()), (StatusCode::BAD_GATEWAY, AWAY));
}
