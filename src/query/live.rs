//! `GET /ui/api/live`: traces as they come, as server-sent events. docs/ui-api.md describes them.
//!
//! ```text
//! each second: was anything stored? ─▶ which traces got spans ─▶ a search among these, with all their pieces ─▶ event
//! ```
//!
//! A look costs what has come since the last one, not what is stored. It has its turn among the other queries, and its
//! answer is booked as theirs are, until the client has taken it. Nothing is remembered of a client but where it stands.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior};

use super::access::Standing;
use super::admission::{Answer, Lane, Room};
use super::arrivals::{Came, Look, Newcomers, Order};
use super::asked::Asked;
use super::body::Body as AnswerBody;
use super::call::{Origin, SPANS_MAX, check_query_lengths};
use super::encode::json::found_trace;
use super::engine;
use super::error::QueryError;
use super::lengths::Question;
use super::negotiation::Coding;
use super::paced::{self, Feed, Unread};
use super::parameters::{ParameterError, Parameters};
use super::router::{QueryState, Scanned};
use super::source::Mark;
use super::upkeep::Refusal;
use crate::traceql::ast::{Query, Root};
use crate::traceql::request::SearchRequest;
use crate::traceql::search::Nobody;

/// Streams that are open at once: a few people, each with a few tabs.
const STREAMS_MAX: usize = 16;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So often something is sent, so that nobody in between takes the connection for dead.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// What a browser waits before it comes again.
const RETRY: Duration = Duration::from_secs(2);
/// How often it is asked whether who listens may still do so. To check a password costs.
const JUDGE_INTERVAL: Duration = Duration::from_secs(5);
/// A stream ends after so long. Browsers come again by themselves, and see a certificate or a proxy that is new.
const STREAM_DURATION_MAX: Duration = Duration::from_secs(15 * 60);

const ROWS_DEFAULT: u32 = 20;
/// More nobody reads in a second.
const ROWS_MAX: u32 = 100;
const SPANS_DEFAULT: u32 = 3;
/// Traces that are found in one look; those beyond the rows are counted.
const FOUND_MAX: usize = 1000;
/// Rows beyond are counted, too.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Places for streams. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct LivePlaces(Arc<Semaphore>);

impl Default for LivePlaces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

/// What is asked for, understood.
#[derive(Debug)]
struct LiveCall {
    query: Query,
    rows: usize,
    spans_per_spanset: usize,
}

impl LiveCall {
    fn of(parameters: &Parameters) -> Result<Self, QueryError> {
        check_query_lengths(parameters)?;
        let query = engine::read(parameters.get("q").unwrap_or("{}"))?;
        if matches!(query.root, Root::Metrics(_)) {
            return Err(QueryError::NoSearch);
        }
        let given =
            |name, default| Ok::<u32, ParameterError>(parameters.u32(name)?.filter(|n| *n > 0).unwrap_or(default));
        let (rows, spans) = (given("limit", ROWS_DEFAULT)?, given("spss", SPANS_DEFAULT)?);
        if rows > ROWS_MAX {
            return Err(ParameterError::LimitTooLarge { limit: rows, max: ROWS_MAX }.into());
        }
        if spans > SPANS_MAX {
            return Err(ParameterError::SpansTooMany { given: spans, max: SPANS_MAX }.into());
        }
        Ok(Self { query, rows: rows as usize, spans_per_spanset: spans as usize })
    }
}

/// Only that it could be understood.
struct Understood(Arc<LiveCall>);

impl Answer for Understood {
    fn bytes(&self) -> usize {
        0
    }

    fn hold(&mut self, _: Room) {}
}

/// What one look found.
#[derive(Debug, Default)]
struct Looked {
    /// The whole event. `None`: nothing to tell.
    event: Option<Vec<u8>>,
    room: Option<Room>,
}

impl Answer for Looked {
    fn bytes(&self) -> usize {
        self.event.as_ref().map_or(0, Vec::len)
    }

    fn hold(&mut self, room: Room) {
        self.room = Some(room);
    }
}

/// A place that is taken, and counted.
struct Place {
    state: QueryState,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(state: &QueryState) -> Result<Self, Refusal> {
        let full =
            format!("{STREAMS_MAX} live views are open already; close one, or reload the page from time to time");
        let permit = Arc::clone(&state.live().0).try_acquire_owned();
        let permit = permit.map_err(|_| Refusal(StatusCode::TOO_MANY_REQUESTS, full))?;
        state.admission().metrics().live.inc();
        Ok(Self { state: state.clone(), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.admission().metrics().live.dec();
    }
}

pub(super) async fn live(
    State(state): State<QueryState>,
    headers: HeaderMap,
    extensions: Extensions,
    Asked(parameters): Asked,
) -> Result<Response, Response> {
    let place = Place::take(&state).map_err(IntoResponse::into_response)?;
    // What is stored from here on is new, whenever the first look comes.
    let from = resumed(&headers, state.source().stored());
    let read = move || LiveCall::of(&parameters).map(Arc::new);
    let understood = state.scan(Lane::Scan(Question::UNKNOWN), read, |call, _| Ok(Understood(call))).await;
    let Understood(call) = understood.map_err(IntoResponse::into_response)?;
    let (standing, wait_max) = (Standing::of(&headers, &extensions), state.limits().read_wait_max);
    let (body, hangup) = paced::fed(wait_max, move |feed| Live { place, call, mark: from, standing }.run(feed));
    let mut response = event_stream(body);
    response.extensions_mut().insert(hangup);
    Ok(response)
}

fn event_stream(body: Body) -> Response {
    let about = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // nginx would hold it back.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (about, body).into_response()
}

/// Where a browser that comes again had got to; what lies beyond `now` is of another data directory.
fn resumed(headers: &HeaderMap, now: Mark) -> Mark {
    let given = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let mark = given
        .and_then(|id| id.split_once('.'))
        .and_then(|(next, spans)| Some(Mark { next: next.parse().ok()?, spans: spans.parse().ok()? }));
    mark.filter(|mark| mark.next <= now.next && mark.spans <= now.spans).unwrap_or(now)
}

/// One stream.
struct Live {
    place: Place,
    call: Arc<LiveCall>,
    mark: Mark,
    standing: Option<Standing>,
}

impl Live {
    /// Until the client leaves or may not listen any more, the process stops, or the stream is as old as it may get.
    async fn run(mut self, feed: Feed) -> Result<(), Unread> {
        let stopping = self.place.state.stopping().clone();
        let telling = tokio::time::timeout(STREAM_DURATION_MAX, self.tell(&feed));
        match stopping.run_until_cancelled(telling).await {
            Some(Ok(told)) => told,
            // As old as it may get.
            Some(Err(_)) => Ok(()),
            None => feed.send(end("Spanreel is stopping")).await,
        }
    }

    /// Until the client may not listen any more.
    async fn tell(&mut self, feed: &Feed) -> Result<(), Unread> {
        let opening = format!("retry: {}\n{}\n", RETRY.as_millis(), id(self.mark));
        feed.send(opening.into()).await?;
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut judged) = (Instant::now(), Instant::now());
        loop {
            looks.tick().await;
            if judged.elapsed() >= JUDGE_INTERVAL {
                if !self.may_listen().await {
                    return feed.send(end("the session has ended: log in again")).await;
                }
                judged = Instant::now();
            }
            let piece: Bytes = match self.look().await {
                // It takes its room along until the client has it.
                Ok(Looked { event: Some(event), room, .. }) => feed.held(event, room),
                Ok(_) if told.elapsed() < HEARTBEAT_INTERVAL => continue,
                // Where it stands is told here, too: what was looked at in vain is not looked at again.
                Ok(_) => format!(":\n{}\n", id(self.mark)).into(),
                Err(error) => {
                    error.report();
                    let data = json!({ "message": error.to_string() }).to_string();
                    event("problem", None, data.as_bytes()).into()
                }
            };
            feed.send(piece).await?;
            told = Instant::now();
        }
    }

    async fn may_listen(&self) -> bool {
        match &self.standing {
            Some(standing) => standing.holds().await,
            None => true,
        }
    }

    /// What came since the last look. After an error the same is looked at again.
    async fn look(&mut self) -> Result<Looked, QueryError> {
        let (state, since) = (&self.place.state, self.mark);
        let now = state.source().stored();
        if now.next == since.next {
            return Ok(Looked::default());
        }
        let call = Arc::clone(&self.call);
        // What is searched is taken after `now`, so it holds all that came until then.
        let looked = state
            .scan(
                Lane::Scan(Question::UNKNOWN),
                move || Ok(call),
                move |call, scanned| look(&call, since, now, scanned),
            )
            .await?;
        self.mark = now;
        Ok(looked)
    }
}

fn look(call: &LiveCall, since: Mark, until: Mark, scanned: &Scanned<'_>) -> Result<Looked, QueryError> {
    let look = Look { batches: since.next..until.next, order: Order::NewestFirst, spans_wanted: u64::MAX };
    let mut came = Came::default();
    let arrivals =
        scanned.state.source().arrivals(&look, scanned.control, &mut |request| came.take(request, scanned.control))?;
    let skipped = until.spans.saturating_sub(since.spans).saturating_sub(arrivals.spans);
    let source = Newcomers { all: scanned.source, first: arrivals.batches.start, came };
    let request = SearchRequest {
        start: 0,
        end: u64::MAX,
        overlapping: None,
        limit: FOUND_MAX,
        spans_per_spanset: call.spans_per_spanset,
    };
    let found = match source.came.traces.is_empty() {
        true => Vec::new(),
        false => engine::search(&call.query, &request, &source, scanned.control, &mut Nobody)?.traces,
    };
    let mut event = opened("traces", Some(until));
    event.extend_from_slice(br#"{"traces":["#);
    let mut rows = 0;
    for trace in found.iter().take(call.rows) {
        let mut row = AnswerBody::new(Coding::Identity, scanned.allowance());
        found_trace(&mut row, trace, Origin::TraceQl);
        let row = row.finish()?.0.concat();
        // A row of very many services must not keep the others away.
        if event.len() + row.len() > EVENT_BYTES_MAX {
            continue;
        }
        if rows > 0 {
            event.push(b',');
        }
        event.extend_from_slice(&row);
        rows += 1;
    }
    let more = found.len() - rows;
    event.extend_from_slice(format!("],\"more\":{more},\"skippedSpans\":{skipped}}}\n\n").as_bytes());
    let has_news = !found.is_empty() || skipped > 0;
    Ok(Looked { event: has_news.then_some(event), room: None })
}

/// The line that browsers send back as `Last-Event-ID`; they also take it without an event.
fn id(Mark { next, spans }: Mark) -> String {
    format!("id: {next}.{spans}\n")
}

/// One event up to its data.
fn opened(name: &str, mark: Option<Mark>) -> Vec<u8> {
    format!("event: {name}\n{}data: ", mark.map(id).unwrap_or_default()).into_bytes()
}

/// One event. JSON as it is written here has no line feeds.
fn event(name: &str, mark: Option<Mark>, data: &[u8]) -> Vec<u8> {
    [&opened(name, mark), data, b"\n\n"].concat()
}

/// The last event.
fn end(message: &str) -> Bytes {
    event("end", None, json!({ "message": message }).to_string().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_that_comes_again_goes_on_where_it_was_unless_that_cannot_be() {
        let now = Mark { next: 100, spans: 5000 };
        let resumed = |id: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("last-event-id", HeaderValue::from_static(id));
            super::resumed(&headers, now)
        };
        assert_eq!(resumed("90.4000"), Mark { next: 90, spans: 4000 });
        for elsewhere in ["101.4000", "90.6000", "90", "x.y", "-1.0", ""] {
            assert_eq!(resumed(elsewhere), now, "{elsewhere:?}");
        }
        assert_eq!(super::resumed(&HeaderMap::new(), now), now);
    }

    #[test]
    fn events_have_the_form_that_browsers_read() {
        let told = event("traces", Some(Mark { next: 7, spans: 9 }), b"{}");
        assert_eq!(&told[..], b"event: traces\nid: 7.9\ndata: {}\n\n");
        assert_eq!(&event("end", None, b"{}")[..], b"event: end\ndata: {}\n\n");
    }
}
