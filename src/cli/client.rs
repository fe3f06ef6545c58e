//! Asking a running process on its query port.

use http::Method;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;

const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

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
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, authority.as_str())
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| unheard(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| unheard(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| unheard(&error))?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| unheard(&format!("not spanreel's answer: {error}")));
        }
        Err(message_of(&body).map_or_else(|| unheard(&format!("answered {status}")), Failure::Refused))
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(ended.err().map_or_else(|| unheard(&"closed the connection"), |error| unheard(&error))),
    }
}
