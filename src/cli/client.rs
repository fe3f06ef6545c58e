//! Asking a running process on its query port.

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Unheard(error.to_string()))?;
    runtime.block_on(async {
        let late = |_| Failure::Unheard(format!("no answer within {} s", wait_max.as_secs()));
        tokio::time::timeout(wait_max, fetch(endpoint, path)).await.map_err(late)?
    })
}

async fn fetch(endpoint: &str, path: &str) -> Result<Value, Failure> {
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
    let request = http::Request::get(path)
        .header(http::header::HOST, authority.as_str())
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| unheard(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| unheard(&error))?;
        let status = response.status();
        let content_type = response.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let plain_text = content_type.is_some_and(|value| value.starts_with("text/plain"));
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| unheard(&error))?.to_bytes();
        let answer = serde_json::from_slice::<Value>(&body);
        if status.is_success() {
            return answer.map_err(|error| unheard(&format!("not spanreel's answer: {error}")));
        }
        // Tempo's API says it in plain text, Spanreel's own in JSON.
        let plain = || std::str::from_utf8(&body).ok().filter(|_| plain_text).map(|text| text.trim().to_owned());
        let message = match answer {
            Ok(answer) => answer["error"]["message"].as_str().map(str::to_owned),
            Err(_) => plain().filter(|text| !text.is_empty()),
        };
        Err(message.map_or_else(|| unheard(&format!("answered {status}")), Failure::Refused))
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(ended.err().map_or_else(|| unheard(&"closed the connection"), |error| unheard(&error))),
    }
}
