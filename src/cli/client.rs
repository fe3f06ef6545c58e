//! Asking a running process on its query port.

use crate::auth::basic;
use crate::otlp::percent;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;

const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The variable whose text is sent as the `Authorization` header, e.g. `Bearer` and a token.
const AUTHORIZATION: &str = "SPANREEL_AUTHORIZATION";

/// Why there is no answer to print.
#[derive(Debug)]
pub enum Failure {
    /// Nobody answered, or not in words that were understood.
    Unheard(String),
    /// The process itself says why not.
    Refused(String),
}

impl Failure {
    /// One line for stderr, with the remedy.
    pub fn line(&self, endpoint: &str) -> String {
        match self {
            Self::Unheard(error) => {
                format!("spanreel: {endpoint}: {error}; is it running there? Another place is given with --endpoint")
            }
            Self::Refused(message) => format!("spanreel: {message}"),
        }
    }
}

/// The JSON at a path of `endpoint`, an `http://` URL whose own path does not count.
pub fn get(endpoint: &str, path: &str, wait_max: Duration) -> Result<Value, Failure> {
    ask(endpoint, Method::GET, path, wait_max)
}

pub fn ask(endpoint: &str, method: Method, path: &str, wait_max: Duration) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Unheard(error.to_string()))?;
    runtime.block_on(async {
        let late = |_| Failure::Unheard(format!("no answer within {} s", wait_max.as_secs()));
        tokio::time::timeout(wait_max, fetch(endpoint, method, path)).await.map_err(late)?
    })
}

/// What the body of a refusal says: one plain line, as Tempo's API has it, or the message of Spanreel's own JSON.
pub(super) fn message_of(body: &[u8]) -> Option<String> {
    let message = match serde_json::from_slice::<Value>(body) {
        Ok(answer) => answer["error"]["message"].as_str()?.to_owned(),
        Err(_) => std::str::from_utf8(body).ok()?.trim().to_owned(),
    };
    // A page of some other server is no message.
    (!message.is_empty() && !message.contains(['\n', '<'])).then_some(message)
}

/// Who asks: what the environment says, otherwise the user and password of the URL.
fn credentials(authority: &Authority, given: Option<String>) -> Result<Option<(HeaderName, HeaderValue)>, Failure> {
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        let wrong = |_| Failure::Unheard(format!("{AUTHORIZATION} holds what cannot be sent in a header"));
        return Ok(Some((http::header::AUTHORIZATION, HeaderValue::from_str(&given).map_err(wrong)?)));
    }
    let Some((user, _)) = authority.as_str().rsplit_once('@') else { return Ok(None) };
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let plain = |text: &str| String::from_utf8(percent::decoded(text)).unwrap_or_else(|_| text.to_owned());
    let header = basic::header_of(&plain(user), &plain(password));
    let wrong = || Failure::Unheard("the user of the URL cannot be sent in a header".to_owned());
    Ok(Some(header.ok_or_else(wrong)?))
}

async fn fetch(endpoint: &str, method: Method, path: &str) -> Result<Value, Failure> {
    let unheard = |error: &dyn std::fmt::Display| Failure::Unheard(error.to_string());
    let uri: http::Uri = endpoint.parse().map_err(|error| unheard(&format!("not a URL: {error}")))?;
    if let Some(scheme) = uri.scheme_str().filter(|scheme| *scheme != "http") {
        return Err(unheard(&format!("only http:// can be asked, not {scheme}://")));
    }
    let authority = uri.authority().ok_or_else(|| unheard(&"a URL such as http://127.0.0.1:3200 is needed"))?;
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(3200));
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| unheard(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unheard(&error))?;
    let host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
    let mut request = http::Request::builder().method(method).uri(path).header(http::header::HOST, host);
    // No page can have sent this: whatever the host is called, it was meant.
    request = request.header("sec-fetch-site", "none");
    if let Some((name, value)) = credentials(authority, std::env::var(AUTHORIZATION).ok())? {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| unheard(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| unheard(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| unheard(&error))?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| unheard(&format!("not spanreel's answer: {error}")));
        }
        let refused = message_of(&body).map_or_else(|| unheard(&format!("answered {status}")), Failure::Refused);
        Err(match refused {
            Failure::Refused(message) if status == StatusCode::UNAUTHORIZED => Failure::Refused(format!(
                "{message}; say who asks by --endpoint http://USER:PASSWORD@HOST:3200, or by {AUTHORIZATION}='Bearer TOKEN'"
            )),
            other => other,
        })
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(ended.err().map_or_else(|| unheard(&"closed the connection"), |error| unheard(&error))),
    }
}
