//! The client of that Tempo: its HTTP API; protobuf answers where it has them.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::decode::{self, Unread};
use super::{Away, Unanswered, Upstream, series};
use crate::otlp::TraceId;
use crate::otlp::percent::url_value;
use crate::query::negotiation::PROTOBUF;
use crate::traceql::answer::{MetricsAnswer, SearchAnswer, TagsAnswer, ValuesAnswer};
use crate::traceql::ast::{Expression, Field, Scope};
use crate::traceql::control::{Booked, Control, Stopped};
use crate::traceql::request::{InstantRequest, RangeRequest, SearchRequest, TagsRequest};

/// Somebody waits meanwhile, for whom what is here is enough most of the time.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);

/// How often it is looked whether somebody still waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// For so long it is not asked again after it did not answer, so that its absence does not slow every query.
const PAUSE: Duration = Duration::from_secs(10);

/// Larger traces are refused: they are held whole, as memory of their query, which mostly ends before.
const TRACE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The same of other answers, which are held whole and then as what was read of them.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_MS: u64 = 1_000_000;

/// What an answer that is none is shown of.
const PROBLEM_CHARS_MAX: usize = 200;

/// A Tempo by its URL.
#[derive(Debug)]
pub struct Tempo {
    /// `host:port`.
    authority: String,
    /// What stands in front of `/api`.
    prefix: String,
    runtime: Handle,
    /// Until when it is not asked, and why.
    paused: Mutex<Option<(Instant, String)>>,
}

/// Why a text is no URL of a Tempo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UrlError {
    #[error("must be a URL such as http://tempo.tempo:3200")]
    Malformed,
    #[error("must begin with http://: this connection is made in the clear")]
    Scheme,
}

impl Tempo {
    /// # Errors
    /// The text is no `http://` URL.
    pub fn new(url: &str, runtime: Handle) -> Result<Self, UrlError> {
        let (authority, prefix) = Self::parse(url)?;
        Ok(Self { authority, prefix, runtime, paused: Mutex::new(None) })
    }

    /// Address and prefix of a URL.
    ///
    /// # Errors
    /// The text is no `http://` URL.
    pub fn parse(url: &str) -> Result<(String, String), UrlError> {
        let uri: Uri = url.parse().map_err(|_| UrlError::Malformed)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Malformed),
        }
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(UrlError::Malformed);
        }
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        Ok((address, uri.path().trim_end_matches('/').to_owned()))
    }

    fn away(&self, problem: impl Into<String>) -> Away {
        let problem = problem.into().chars().take(PROBLEM_CHARS_MAX).collect();
        Away { address: self.authority.clone(), problem }
    }

    /// Asks, unless it did not answer just now. What comes is booked as it comes.
    fn ask(&self, path_and_query: &str, bytes_max: usize, control: &Control) -> Result<(Bytes, Booked), Unanswered> {
        {
            let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((until, problem)) = &*paused
                && Instant::now() < *until
            {
                return Err(self.away(problem.as_str()).into());
            }
        }
        let mut booked = control.nothing_booked();
        let answer = self.runtime.block_on(async {
            let mut answer = pin!(timeout(ANSWER_WAIT_MAX, self.get(path_and_query, bytes_max, &mut booked)));
            loop {
                match timeout(LOOK_INTERVAL, answer.as_mut()).await {
                    Ok(answer) => break Ok(answer),
                    Err(_) => control.check()?,
                }
            }
        });
        // That nobody waits any more says nothing of the Tempo.
        let answer = answer.map_err(|stopped: Stopped| Unanswered::Stopped(stopped))?;
        let answer = answer.unwrap_or_else(|_| Err(Failure::Away("no answer in time".to_owned())));
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(body) => {
                *paused = None;
                Ok((body, booked))
            }
            Err(Failure::Stopped(stopped)) => Err(stopped.into()),
            Err(Failure::Refused(problem)) => Err(self.away(problem).into()),
            Err(Failure::Away(problem)) => {
                *paused = Some((Instant::now() + PAUSE, problem.clone()));
                Err(self.away(problem).into())
            }
        }
    }

    /// What `read` makes of an answer, and books. Both are memory of the query.
    fn read<T>(
        &self,
        path_and_query: &str,
        control: &Control,
        read: impl FnOnce(&[u8], &mut Booked) -> Result<T, Unread>,
    ) -> Result<T, Unanswered> {
        let (answer, _booked) = self.ask(path_and_query, ANSWER_BYTES_MAX, control)?;
        let mut booked = control.nothing_booked();
        let read = match read(&answer, &mut booked) {
            Ok(read) => read,
            Err(Unread::Stopped(stopped)) => return Err(stopped.into()),
            Err(malformed) => return Err(self.away(malformed.to_string()).into()),
        };
        booked.leave();
        Ok(read)
    }

    async fn get(&self, path_and_query: &str, bytes_max: usize, booked: &mut Booked) -> Result<Bytes, Failure> {
        let away = |error: &dyn std::fmt::Display| Failure::Away(error.to_string());
        let stream = timeout(CONNECT_WAIT_MAX, TcpStream::connect(&self.authority));
        let stream = stream.await.map_err(|error| away(&error))?.map_err(|error| away(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| away(&error))?;
        // Ends when the sender is dropped.
        tokio::spawn(connection);
        let request = Request::get(format!("{}{path_and_query}", self.prefix))
            .header(HOST, &self.authority)
            .header(ACCEPT, PROTOBUF)
            // If it is a Spanreel: no page can have sent this, whatever the host is called.
            .header("sec-fetch-site", "none")
            .body(Empty::<Bytes>::new())
            .map_err(|error| Failure::Refused(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| away(&error))?;
        let status = response.status();
        let mut frames = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = frames.frame().await {
            let Ok(data) = frame.map_err(|error| away(&error))?.into_data() else { continue };
            let len = body.len() + data.len();
            if len > bytes_max {
                return Err(Failure::Refused(format!("its answer is larger than {} MiB", bytes_max >> 20)));
            }
            if len > body.capacity() {
                let capacity = len.next_power_of_two();
                booked.grow(capacity - body.capacity()).map_err(Failure::Stopped)?;
                body.reserve_exact(capacity - body.len());
            }
            body.extend_from_slice(&data);
        }
        let body = Bytes::from(body);
        match status {
            StatusCode::OK => Ok(body),
            _ if status.is_server_error() => Err(Failure::Away(format!("{status}: {}", line(&body)))),
            _ => Err(Failure::Refused(format!("{status}: {}", line(&body)))),
        }
    }
}

enum Failure {
    /// It is not there, or not well.
    Away(String),
    /// It is there, and does not take this.
    Refused(String),
    /// There is no memory for what it answers.
    Stopped(Stopped),
}

fn line(body: &[u8]) -> String {
    String::from_utf8_lossy(body).lines().next().unwrap_or_default().chars().take(PROBLEM_CHARS_MAX).collect()
}

impl Upstream for Tempo {
    fn trace(&self, id: TraceId, control: &Control) -> Result<Bytes, Unanswered> {
        let (answer, booked) = self.ask(&format!("/api/v2/traces/{id}"), TRACE_BYTES_MAX, control)?;
        let trace = decode::trace(&answer).map_err(|error| self.away(error.to_string()))?;
        booked.leave();
        Ok(trace)
    }

    fn search(&self, query: &str, request: &SearchRequest, control: &Control) -> Result<SearchAnswer, Unanswered> {
        let (limit, spans) = (request.limit, request.spans_per_spanset);
        let (query, times) = (url_value(query), seconds(request.start, request.end));
        let path = format!("/api/search?q={query}&{times}&limit={limit}&spss={spans}");
        self.read(&path, control, decode::search)
    }

    fn range(&self, query: &str, request: &RangeRequest, control: &Control) -> Result<MetricsAnswer, Unanswered> {
        let path = range_path(query, request);
        self.read(&path, control, series::range)
    }

    fn instant(&self, query: &str, request: &InstantRequest, control: &Control) -> Result<MetricsAnswer, Unanswered> {
        let InstantRequest { start, end, series_max } = *request;
        let query = url_value(query);
        let path = format!("/api/metrics/query?q={query}&start={start}&end={end}&maxSeries={series_max}");
        self.read(&path, control, |json, booked| series::instant(json, (end / NANOS_PER_MS) as i64, booked))
    }

    fn tag_names(
        &self,
        scope: Option<Scope>,
        filter: Option<&Expression>,
        request: &TagsRequest,
        control: &Control,
    ) -> Result<TagsAnswer, Unanswered> {
        let scope = scope.map_or("none", Scope::as_str);
        let path = format!("/api/v2/search/tags?scope={scope}&{}", tag_parameters(filter, request));
        self.read(&path, control, decode::tag_names)
    }

    fn tag_values(
        &self,
        field: &Field,
        filter: Option<&Expression>,
        request: &TagsRequest,
        control: &Control,
    ) -> Result<ValuesAnswer, Unanswered> {
        let field = url_value(&field.to_string());
        let path = format!("/api/v2/search/tag/{field}/values?{}", tag_parameters(filter, request));
        self.read(&path, control, decode::tag_values)
    }
}

fn range_path(query: &str, request: &RangeRequest) -> String {
    let RangeRequest { start, end, step, exemplars, series_max } = *request;
    let query = url_value(query);
    // A Tempo takes no empty range: one sample is asked for by the interval that it ends.
    let (start, instant) = if start == end { (end.saturating_sub(step), "&instant=true") } else { (start, "") };
    let step = step as f64 / NANOS_PER_SECOND as f64;
    format!(
        "/api/metrics/query_range?q={query}&start={start}&end={end}&step={step}&exemplars={exemplars}&maxSeries={series_max}{instant}"
    )
}

/// A Tempo takes whole seconds here; its range is not less than what is asked for.
fn seconds(start: u64, end: u64) -> String {
    format!("start={}&end={}", start / NANOS_PER_SECOND, end.div_ceil(NANOS_PER_SECOND))
}

fn tag_parameters(filter: Option<&Expression>, request: &TagsRequest) -> String {
    let mut parameters = seconds(request.start, request.end);
    if let Some(filter) = filter {
        parameters.push_str(&format!("&q={}", url_value(&format!("{{ {filter} }}"))));
    }
    if request.count_max > 0 {
        parameters.push_str(&format!("&limit={}", request.count_max));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn one_sample_is_asked_for_by_its_interval() {
        let request = |start| RangeRequest { start, end: 90, step: 60, exemplars: 0, series_max: 0 };
        let path = range_path("{} | rate()", &request(90));
        assert!(path.contains("&start=30&end=90&") && path.ends_with("&instant=true"), "{path}");
        let path = range_path("{} | rate()", &request(30));
        assert!(path.contains("&start=30&end=90&") && !path.contains("instant"), "{path}");
    }

    #[test]
    fn urls_are_in_the_clear_and_may_have_a_prefix() {
        let parse = |url| Tempo::parse(url);
        let ok = |address: &str, prefix: &str| Ok((address.to_owned(), prefix.to_owned()));
        assert_eq!(parse("http://tempo.tempo:3200"), ok("tempo.tempo:3200", ""));
        assert_eq!(parse("http://gateway/tempo/"), ok("gateway:80", "/tempo"));
        assert_eq!(parse("https://tempo:3200"), Err(UrlError::Scheme));
        for url in ["tempo:3200", "", "http://", "http://a@b:1", "http://a:1/?x=y", "/x"] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    fn request() -> SearchRequest {
        SearchRequest { start: 0, end: u64::MAX, limit: 1, spans_per_spanset: 1, overlapping: None }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_query_that_nobody_waits_for_waits_for_no_tempo() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let tempo = Arc::new(Tempo::new(&url, Handle::current()).unwrap());
        let control = Arc::new(Control::new(Duration::from_secs(3600), usize::MAX));
        let asking = tokio::task::spawn_blocking({
            let (tempo, control) = (Arc::clone(&tempo), Arc::clone(&control));
            move || tempo.search("{}", &request(), &control)
        });
        let (_held, _) = silent.accept().await.unwrap();
        control.cancel();
        assert_eq!(asking.await.unwrap(), Err(Unanswered::Stopped(Stopped::Cancelled)));
        // It is asked again: nothing was learnt of it.
        assert!(tempo.paused.lock().unwrap().is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tempo_that_is_not_there_is_left_alone_for_a_while() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", port.local_addr().unwrap());
        drop(port);
        let tempo = Tempo::new(&url, Handle::current()).unwrap();
        let paused = tokio::task::spawn_blocking(move || {
            let control = Control::new(Duration::from_secs(3600), usize::MAX);
            assert!(matches!(tempo.search("{}", &request(), &control), Err(Unanswered::Away(_))));
            tempo.paused.lock().unwrap().is_some()
        });
        assert!(paused.await.unwrap());
    }
}
