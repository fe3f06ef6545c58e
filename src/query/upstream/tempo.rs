//! The client of that Tempo: its HTTP API, protobuf answers.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{Away, Upstream, decode};
use crate::otlp::TraceId;
use crate::query::negotiation::PROTOBUF;
use crate::traceql::answer::SearchAnswer;
use crate::traceql::request::SearchRequest;

/// Somebody waits meanwhile, for whom what is here is enough most of the time.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);

/// For so long it is not asked again after it did not answer, so that its absence does not slow every query.
const PAUSE: Duration = Duration::from_secs(10);

/// Larger answers are refused: they would be held whole.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

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

    /// Asks, unless it did not answer just now.
    fn ask(&self, path_and_query: &str) -> Result<Bytes, Away> {
        {
            let paused = self.paused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some((until, problem)) = &*paused
                && Instant::now() < *until
            {
                return Err(self.away(problem.as_str()));
            }
        }
        let answer = self.runtime.block_on(timeout(ANSWER_WAIT_MAX, self.get(path_and_query)));
        let answer = answer.unwrap_or_else(|_| Err(Failure::Away("no answer in time".to_owned())));
        let mut paused = self.paused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match answer {
            Ok(body) => {
                *paused = None;
                Ok(body)
            }
            Err(Failure::Refused(problem)) => Err(self.away(problem)),
            Err(Failure::Away(problem)) => {
                *paused = Some((Instant::now() + PAUSE, problem.clone()));
                Err(self.away(problem))
            }
        }
    }

    async fn get(&self, path_and_query: &str) -> Result<Bytes, Failure> {
        let away = |error: &dyn std::fmt::Display| Failure::Away(error.to_string());
        let stream = timeout(CONNECT_WAIT_MAX, TcpStream::connect(&self.authority));
        let stream = stream.await.map_err(|error| away(&error))?.map_err(|error| away(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| away(&error))?;
        // Ends when the sender is dropped.
        tokio::spawn(connection);
        let request = Request::get(format!("{}{path_and_query}", self.prefix))
            .header(HOST, &self.authority)
            .header(ACCEPT, PROTOBUF)
            .body(Empty::<Bytes>::new())
            .map_err(|error| Failure::Refused(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| away(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| away(&error))?.to_bytes();
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
}

fn line(body: &[u8]) -> String {
    String::from_utf8_lossy(body).lines().next().unwrap_or_default().chars().take(PROBLEM_CHARS_MAX).collect()
}

impl Upstream for Tempo {
    fn trace(&self, id: TraceId) -> Result<Bytes, Away> {
        let answer = self.ask(&format!("/api/v2/traces/{id}"))?;
        let trace = decode::trace(&answer).map_err(|error| self.away(error.to_string()))?;
        Ok(trace.into())
    }

    fn search(&self, query: &str, request: &SearchRequest) -> Result<SearchAnswer, Away> {
        const SECOND: u64 = 1_000_000_000;
        let (start, end) = (request.start / SECOND, request.end.div_ceil(SECOND));
        let (limit, spans) = (request.limit, request.spans_per_spanset);
        let query = encoded(query);
        let answer = self.ask(&format!("/api/search?q={query}&start={start}&end={end}&limit={limit}&spss={spans}"))?;
        decode::search(&answer).map_err(|error| self.away(error.to_string()))
    }
}

/// A parameter's value with everything encoded that could mean something.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn parameters_are_encoded() {
        assert_eq!(encoded("{ .a = \"ü&\" }"), "%7B%20.a%20%3D%20%22%C3%BC%26%22%20%7D");
    }
}
