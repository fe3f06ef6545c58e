//! A few kept-open HTTP/1.1 connections to a destination, and POSTs on them.

use super::cookies::Cookies;
use super::settings::{Encoding, OtlpHttpSettings};
use crate::config::url::split_user;
use crate::forward::answer::{Answer, HttpAnswer, bounded, classify_http};
use crate::forward::body::{Body, Segments};
use crate::forward::breaks::{Breaks, Life};
use crate::forward::connect::{ConnectError, Connector, Target, TargetError};
use crate::forward::credentials::{self, Credentials};
use crate::forward::headers::{self, HeaderError, with_sources};
use crate::forward::link::{Reply, Transport};
use crate::otlp::Signal;
use bytes::{Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, LOCATION, RETRY_AFTER, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How much of a response is read, bytes; the Collector's bound. What is longer is cut off, and the connection closed.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// How long the rest of a response may take once its status is there. The status decides; the body only says more.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is not ready for the next request so soon after a response will not be: the server answered
/// before it had read the request, and is about to close.
const READY_TIMEOUT: Duration = Duration::from_millis(50);

/// Idle connections kept; as many as requests can be under way.
const IDLE_CONNECTIONS_MAX: usize = 4;

pub(in crate::forward) struct Client {
    connector: Connector,
    /// Path and query, as HTTP/1.1 wants them.
    uri: Uri,
    headers: HeaderMap,
    timeout: Duration,
    credentials: Option<Arc<dyn Credentials>>,
    cookies: Option<Cookies>,
    idle: Mutex<Vec<Connection>>,
    breaks: Arc<Breaks>,
}

struct Connection {
    sender: SendRequest<Segments>,
    life: Arc<Life>,
}

enum ExchangeError {
    /// What the exporter says it is could not be had.
    Credentials(String),
    Connect(ConnectError),
    /// The connection broke before there was an answer; `is_reused` if it had served before.
    Broken {
        why: String,
        is_reused: bool,
    },
}

impl Client {
    /// # Errors
    /// If the URL, a header, or a file that TLS needs is not usable.
    pub(in crate::forward) fn new(
        settings: &OtlpHttpSettings,
        signal: Signal,
        credentials: Option<Arc<dyn Credentials>>,
    ) -> Result<Self, HeaderError> {
        let (user, url) = split_user(settings.url(signal).unwrap_or_default());
        let unusable = || TargetError::Endpoint(url.clone());
        let parsed: Uri = url.parse().map_err(|_| unusable())?;
        let (is_tls, default_port) = match parsed.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(unusable().into()),
        };
        let authority = parsed.authority().ok_or_else(unusable)?.as_str();
        let target = Target::parse(authority, Some(default_port)).ok_or_else(unusable)?;
        let path = parsed.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = path.parse().map_err(|_| unusable())?;

        let mut headers = headers::configured(&settings.headers, headers::Kind::Http)?;
        headers.entry(USER_AGENT).or_insert(headers::USER_AGENT_VALUE);
        if let Some(user) = user {
            let mut value = HeaderValue::try_from(headers::basic(user)).map_err(|_| unusable())?;
            value.set_sensitive(true);
            headers.entry(AUTHORIZATION).or_insert(value);
        }
        let host = HeaderValue::try_from(authority).map_err(|_| unusable())?;
        headers.entry(HOST).or_insert(host);
        let content_type = match settings.encoding {
            Encoding::Proto => "application/x-protobuf",
            Encoding::Json => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let cookies = settings.cookies.then(|| Cookies::new(&target.host, path, is_tls));
        let connector = Connector::new(target, is_tls.then_some(&settings.tls), b"http/1.1")?;
        let connector = connector.through(settings.proxy_url.as_deref())?;
        let timeout = headers::attempt_timeout(settings.timeout);
        Ok(Self {
            connector,
            uri,
            headers,
            timeout,
            credentials,
            cookies,
            idle: Mutex::default(),
            breaks: Arc::default(),
        })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if connection.sender.is_ready() {
                connection.life.is_asked();
                return Some(connection);
            }
            // Its own task may come to it only after the next answer.
            self.breaks.ended(&connection.life);
        }
        None
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS_MAX {
            connection.life.serves();
            idle.push(connection);
        } else {
            connection.life.ends_in_order();
        }
    }

    async fn connect(&self) -> Result<Connection, ExchangeError> {
        let stream = self.connector.connect().await.map_err(ExchangeError::Connect)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ExchangeError::Broken { why: with_sources(&error), is_reused: false })?;
        let life = self.breaks.follow(driver);
        Ok(Connection { sender, life })
    }

    /// `is_fresh`: on a new connection, whatever is idle.
    async fn exchange(&self, body: &Body, is_fresh: bool) -> Result<Reply, ExchangeError> {
        let request = self.request(body).map_err(ExchangeError::Credentials)?;
        let idle = if is_fresh { None } else { self.take_idle() };
        let is_reused = idle.is_some();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let response = connection.sender.send_request(request).await.map_err(|error| {
            if is_reused {
                self.breaks.broke(&connection.life);
            }
            ExchangeError::Broken { why: with_sources(&error), is_reused }
        })?;
        let (head, body) = response.into_parts();
        if let Some(cookies) = &self.cookies {
            cookies.take(&head.headers, SystemTime::now());
        }
        if says_close(&head.headers) {
            connection.life.ends_in_order();
        }
        let (body, rest) = read(body).await;
        match rest {
            Rest::Whole => match tokio::time::timeout(READY_TIMEOUT, connection.sender.ready()).await {
                Ok(Ok(())) => self.keep(connection),
                // Servers may close after a response without saying so.
                _ => connection.life.ends_in_order(),
            },
            Rest::Left => connection.life.ends_in_order(),
            Rest::Broken => self.breaks.broke(&connection.life),
        }
        Ok(reply(head.status.as_u16(), &head.headers, &body))
    }

    fn request(&self, body: &Body) -> Result<Request<Segments>, String> {
        let mut request = Request::new(Segments::new(body.segments.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        credentials::apply(self.credentials.as_ref(), request.headers_mut())?;
        if let Some(cookies) = &self.cookies {
            cookies.apply(request.headers_mut(), SystemTime::now());
        }
        if let Some(encoding) = body.codec.name() {
            request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        Ok(request)
    }
}

impl Transport for Client {
    async fn send(&self, body: Body) -> Reply {
        let exchange = async {
            match self.exchange(&body, false).await {
                // Servers close idle connections whenever they like.
                Err(ExchangeError::Broken { is_reused: true, .. }) => self.exchange(&body, true).await,
                result => result,
            }
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(ExchangeError::Connect(error @ ConnectError::Tls { .. }))) => {
                Reply { name: "tls".into(), answer: Answer::Misconfigured { why: bounded(&error.to_string()) } }
            }
            Ok(Err(ExchangeError::Credentials(why))) => {
                Reply { name: "credentials".into(), answer: Answer::Misconfigured { why: bounded(&why) } }
            }
            Ok(Err(ExchangeError::Connect(error))) => Reply::no_answer(&error.to_string()),
            Ok(Err(ExchangeError::Broken { why, .. })) => Reply::no_answer(&why),
            Err(_) => Reply::no_answer(&format!("no answer within {:?}", self.timeout)),
        }
    }

    fn broke_at(&self) -> Option<SystemTime> {
        self.breaks.take()
    }
}

/// What became of the rest of a body.
enum Rest {
    Whole,
    /// It is too long or takes too long.
    Left,
    Broken,
}

/// Whether the server closes the connection after this response.
fn says_close(headers: &HeaderMap) -> bool {
    let said = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    said.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("close"))
}

/// The body, at most [`RESPONSE_BYTES_MAX`] of it, and whether that is all. The status counts even if the body breaks
/// off or never ends.
async fn read(mut body: Incoming) -> (Bytes, Rest) {
    let deadline = Instant::now() + BODY_TIMEOUT;
    let mut out = BytesMut::new();
    while let Some(frame) = tokio::time::timeout_at(deadline, body.frame()).await.transpose() {
        let frame = match frame {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) => return (out.freeze(), Rest::Broken),
            Err(_) => return (out.freeze(), Rest::Left),
        };
        let Ok(data) = frame.into_data() else { continue };
        let room = RESPONSE_BYTES_MAX - out.len();
        out.extend_from_slice(data.get(..room).unwrap_or(&data));
        if data.len() > room {
            return (out.freeze(), Rest::Left);
        }
    }
    (out.freeze(), Rest::Whole)
}

fn reply(status: u16, headers: &HeaderMap, body: &[u8]) -> Reply {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let answer = classify_http(
        HttpAnswer {
            status,
            content_type: text(CONTENT_TYPE).unwrap_or_default(),
            retry_after: text(RETRY_AFTER),
            location: text(LOCATION),
            body,
        },
        SystemTime::now(),
    );
    Reply { name: status.to_string().into(), answer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::body::Codec;
    use crate::forward::settings::ClientTlsSettings;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Notify;

    /// A client of a server that closes each connection after a response, at once or when it is told to.
    async fn client(response: &'static str, close: Option<Arc<Notify>>) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"the end") {
                    request.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(response.as_bytes()).await.unwrap();
                if let Some(close) = &close {
                    close.notified().await;
                }
            }
        });
        let timeout = Duration::from_secs(60);
        let settings = OtlpHttpSettings::for_posts(&url, Vec::new(), ClientTlsSettings::default(), timeout);
        Client::new(&settings, Signal::Metrics, None).unwrap()
    }

    async fn sends(client: &Client) {
        let body = Body::of_block(Bytes::from_static(b"the end"), Codec::Identity);
        assert_eq!(client.send(body).await.name, "200");
    }

    #[tokio::test]
    async fn a_server_that_closes_after_each_response_was_not_restarted() {
        for response in [
            "HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        ] {
            let client = client(response, None).await;
            for _ in 0..5 {
                sends(&client).await;
                assert_eq!(client.broke_at(), None);
            }
        }
    }

    #[tokio::test]
    async fn a_kept_connection_that_is_closed_is_a_break_known_with_the_next_answer() {
        let close = Arc::new(Notify::new());
        let client = client("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some(Arc::clone(&close))).await;
        sends(&client).await;
        assert_eq!(client.broke_at(), None);
        close.notify_one();
        sends(&client).await;
        assert!(client.broke_at().is_some());
    }

    #[tokio::test]
    async fn what_a_server_sets_as_a_cookie_goes_back_to_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut requests = Vec::new();
            for _ in 0..2 {
                let mut request = Vec::new();
                while !request.ends_with(b"the end") {
                    request.push(stream.read_u8().await.unwrap());
                }
                requests.push(String::from_utf8(request).unwrap());
                let response = "HTTP/1.1 200 OK\r\nset-cookie: node=7; path=/\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(response.as_bytes()).await.unwrap();
            }
            requests
        });
        let tls = ClientTlsSettings::default();
        let settings = OtlpHttpSettings::for_posts(&url, Vec::new(), tls, Duration::from_secs(60));
        let client = Client::new(&OtlpHttpSettings { cookies: true, ..settings }, Signal::Metrics, None).unwrap();
        sends(&client).await;
        sends(&client).await;
        let requests = server.await.unwrap();
        let has_cookie = |request: &String| request.contains("cookie: node=7\r\n");
        assert_eq!(requests.iter().map(has_cookie).collect::<Vec<_>>(), [false, true]);
    }
}
