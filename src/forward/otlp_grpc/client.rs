//! Unary calls to a destination.

use super::connections::{Connections, Used};
use super::settings::OtlpGrpcSettings;
use crate::forward::answer::Answer;
use crate::forward::answer::{self, GrpcAnswer, bounded, classify_grpc, code};
use crate::forward::body::{Body, Segments};
use crate::forward::connect::{ConnectError, Connector, Target, TargetError};
use crate::forward::credentials::{self, Credentials};
use crate::forward::headers::{self, HeaderError};
use crate::forward::link::{Reply, Transport};
use crate::otlp::{Signal, percent};
use base64::Engine as _;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn path_of(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

/// How much of a response is read, bytes. The OTLP specification recommends this bound.
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Length of the prefix of a gRPC message: a flag and the length.
const PREFIX_LEN: usize = 5;

pub(in crate::forward) struct Client {
    connections: Connections,
    uri: Uri,
    headers: HeaderMap,
    timeout: Duration,
    credentials: Option<Arc<dyn Credentials>>,
}

/// Why a call has no gRPC status.
pub(super) enum CallError {
    /// What the exporter says it is could not be had.
    Credentials(String),
    Connect(ConnectError),
    /// The connection broke; `is_reused` if it had served before, so that a fresh one may well do.
    Broken {
        why: String,
        is_reused: bool,
    },
}

impl Client {
    /// # Errors
    /// If the endpoint, a header, or a file that TLS needs is not usable.
    pub(in crate::forward) fn new(
        settings: &OtlpGrpcSettings,
        signal: Signal,
        credentials: Option<Arc<dyn Credentials>>,
    ) -> Result<Self, HeaderError> {
        let (target, is_tls) = endpoint(settings)?;
        let socket = socket(&settings.endpoint);
        let scheme = if is_tls { "https" } else { "http" };
        let authority = settings.authority.clone().unwrap_or_else(|| target.to_string());
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(authority.as_str())
            .path_and_query(path_of(signal))
            .build()
            .map_err(|_| HeaderError::Authority(authority))?;
        let mut headers = headers::configured(&settings.headers, headers::Kind::Grpc)?;
        headers.entry(USER_AGENT).or_insert(headers::USER_AGENT_VALUE);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        // The answer's message is a few bytes, if any.
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        if !settings.timeout.is_zero() {
            headers.insert("grpc-timeout", headers::grpc_timeout(settings.timeout));
        }
        let connector = Connector::new(target, is_tls.then_some(&settings.tls), b"h2")?.at_socket(socket);
        let timeout = headers::attempt_timeout(settings.timeout);
        let connections = Connections::new(connector, settings.balancer);
        Ok(Self { connections, uri, headers, timeout, credentials })
    }

    /// `used` gets the connection that is used.
    async fn call(&self, body: &Body, used: &Used) -> Result<Reply, CallError> {
        let request = self.request(body).map_err(CallError::Credentials)?;
        let (mut connection, is_reused) = self.connections.get(used).await?;
        let broken = |error: hyper::Error| CallError::Broken { why: describe(&error), is_reused };
        connection.sender.ready().await.map_err(broken)?;
        let response = connection.sender.send_request(request).await.map_err(broken)?;
        connection.life.serves();
        self.read(response).await.map_err(|why| CallError::Broken { why, is_reused: false })
    }

    fn request(&self, body: &Body) -> Result<Request<Segments>, String> {
        let encoding = body.codec.name();
        let mut prefix = BytesMut::with_capacity(PREFIX_LEN);
        prefix.put_u8(u8::from(encoding.is_some()));
        // Bodies are megabytes at most.
        prefix.put_u32(u32::try_from(body.encoded_bytes()).unwrap_or(u32::MAX));
        let segments = std::iter::once(prefix.freeze()).chain(body.segments.iter().cloned()).collect();
        let mut request = Request::new(Segments::new(segments));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        credentials::apply(self.credentials.as_ref(), request.headers_mut())?;
        if let Some(encoding) = encoding {
            request.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding));
        }
        Ok(request)
    }

    async fn read(&self, response: http::Response<Incoming>) -> Result<Reply, String> {
        let (head, mut body) = response.into_parts();
        let is_grpc =
            head.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if !is_grpc {
            return Ok(not_grpc(head.status.as_u16(), &head.headers));
        }
        // "Trailers only": the status came with the headers, and no message.
        if head.headers.contains_key("grpc-status") {
            return Ok(reply(&head.headers, &[]));
        }
        let mut message = BytesMut::new();
        let mut trailers = HeaderMap::new();
        while let Some(frame) = body.frame().await {
            match frame.map_err(|error| describe(&error))?.into_data() {
                Ok(data) if message.len() + data.len() > RESPONSE_BYTES_MAX => {
                    return Err(format!("the response is longer than {RESPONSE_BYTES_MAX} bytes"));
                }
                Ok(data) => message.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        if !trailers.contains_key("grpc-status") {
            return Err("the response ended without a status".to_owned());
        }
        Ok(reply(&trailers, &unframed(&message.freeze())))
    }
}

impl Transport for Client {
    async fn send(&self, body: Body) -> Reply {
        let used = Used::default();
        let exchange = async {
            match self.call(&body, &used).await {
                // The server closed a connection that was idle, or asked to go elsewhere: not its fault, not ours.
                Err(CallError::Broken { is_reused: true, .. }) => {
                    self.connections.forget(&used).await;
                    self.call(&body, &used).await
                }
                result => result,
            }
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(CallError::Connect(error @ ConnectError::Tls { .. }))) => {
                Reply { name: "tls".into(), answer: Answer::Misconfigured { why: bounded(&error.to_string()) } }
            }
            Ok(Err(CallError::Credentials(why))) => {
                Reply { name: "credentials".into(), answer: Answer::Misconfigured { why: bounded(&why) } }
            }
            Ok(Err(CallError::Connect(error))) => Reply::no_answer(&error.to_string()),
            Ok(Err(CallError::Broken { why, .. })) => {
                self.connections.forget(&used).await;
                Reply::no_answer(&why)
            }
            Err(_) => {
                self.connections.forget(&used).await;
                Reply::no_answer(&format!("no answer within {:?}", self.timeout))
            }
        }
    }

    fn broke_at(&self) -> Option<SystemTime> {
        self.connections.breaks.take()
    }
}

/// The address in one of the forms that gRPC accepts, and whether TLS is spoken there.
fn endpoint(settings: &OtlpGrpcSettings) -> Result<(Target, bool), TargetError> {
    let endpoint = settings.endpoint.as_str();
    let (authority, is_https) = match endpoint.split_once("://") {
        // Nothing is looked up; the other side is told this name.
        Some(("unix", _)) => ("localhost:4317", false),
        Some(("https", rest)) => (rest, true),
        Some(("http", rest)) => (rest, false),
        // dns://authority/host:port; the authority names a resolver, which is the system's here.
        Some(("dns" | "passthrough", rest)) => (rest.split_once('/').map_or(rest, |(_, name)| name), false),
        Some(_) => return Err(TargetError::Endpoint(endpoint.to_owned())),
        None => (endpoint, false),
    };
    let authority = authority.trim_end_matches('/');
    let target = Target::parse(authority, None).ok_or_else(|| TargetError::Endpoint(endpoint.to_owned()))?;
    let is_plain = settings.tls.insecure && settings.tls.ca.is_none();
    Ok((target, is_https || !is_plain))
}

/// `unix:///path`.
fn socket(endpoint: &str) -> Option<PathBuf> {
    endpoint.strip_prefix("unix://").map(PathBuf::from)
}

/// The message of a response without its prefix; nothing if there is none, or it is compressed.
fn unframed(framed: &Bytes) -> Bytes {
    match framed.first_chunk::<PREFIX_LEN>() {
        Some([0, ..]) => framed.slice(PREFIX_LEN..),
        _ => Bytes::new(),
    }
}

fn reply(status: &HeaderMap, response: &[u8]) -> Reply {
    let text = |name: &str| status.get(name).map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
    let code = text("grpc-status").parse().unwrap_or(code::UNKNOWN);
    let message = percent_decoded(&text("grpc-message"));
    let details = text("grpc-status-details-bin");
    // Padded or not, both are seen.
    let details =
        base64::engine::general_purpose::STANDARD_NO_PAD.decode(details.trim_end_matches('=')).unwrap_or_default();
    let answer = classify_grpc(GrpcAnswer { code, message: &message, details: &details, response });
    Reply { name: answer::code_name(code).into(), answer }
}

/// Something answered that does not speak gRPC: a proxy, or an HTTP server.
fn not_grpc(status: u16, headers: &HeaderMap) -> Reply {
    let content_type =
        headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
    let code = answer::code_of_http_status(status);
    let message = format!("HTTP {status} with content type {content_type:?} instead of gRPC");
    let answer = match classify_grpc(GrpcAnswer { code, message: &message, details: &[], response: &[] }) {
        answer @ (Answer::Retry { .. } | Answer::Limited { .. } | Answer::Misconfigured { .. }) => answer,
        // What does not speak gRPC has not looked at the spans.
        _ => Answer::Misconfigured { why: bounded(&format!("{message}; is this the OTLP/gRPC port?")) },
    };
    Reply { name: answer::code_name(code).into(), answer }
}

/// `grpc-message` is percent-encoded; what is not valid stays as it is.
fn percent_decoded(text: &str) -> String {
    String::from_utf8_lossy(&percent::decoded(text)).into_owned()
}

/// hyper's errors name the cause only in their sources.
pub(super) fn describe(error: &hyper::Error) -> String {
    headers::with_sources(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::settings::ClientTlsSettings;

    fn settings(endpoint: &str, insecure: bool) -> OtlpGrpcSettings {
        OtlpGrpcSettings {
            endpoint: endpoint.to_owned(),
            tls: ClientTlsSettings { insecure, ..Default::default() },
            compression: Default::default(),
            headers: Vec::new(),
            balancer: Default::default(),
            authority: None,
            timeout: Duration::from_secs(1),
            retry: Default::default(),
            queue: Default::default(),
            authenticator: None,
        }
    }

    #[test]
    fn endpoints() {
        let table = [
            ("tempo:4317", true, Some(("tempo:4317", false))),
            ("tempo:4317", false, Some(("tempo:4317", true))),
            ("http://tempo:4317", true, Some(("tempo:4317", false))),
            ("http://tempo:4317/", false, Some(("tempo:4317", true))),
            ("https://tempo:4317", true, Some(("tempo:4317", true))),
            ("dns:///tempo:4317", true, Some(("tempo:4317", false))),
            ("dns://resolver/tempo:4317", true, Some(("tempo:4317", false))),
            ("passthrough:///tempo:4317", true, Some(("tempo:4317", false))),
            ("unix:///run/tempo", true, Some(("localhost:4317", false))),
            ("xds:///tempo:4317", true, None),
            ("tempo", true, None),
        ];
        for (text, insecure, expected) in table {
            let found = endpoint(&settings(text, insecure)).ok();
            let found = found.as_ref().map(|(target, is_tls)| (target.to_string(), *is_tls));
            assert_eq!(found, expected.map(|(target, is_tls)| (target.to_owned(), is_tls)), "{text}");
        }
    }

    #[test]
    fn messages_are_percent_decoded() {
        assert_eq!(percent_decoded("a%20b%25 %zz %4"), "a b% %zz %4");
        assert_eq!(percent_decoded("%C3%A9"), "é");
    }

    #[test]
    fn who_does_not_speak_grpc_is_never_blamed_on_the_spans() {
        for status in [200, 301, 400, 404, 405, 415, 500] {
            let answer = not_grpc(status, &HeaderMap::new()).answer;
            assert!(matches!(answer, Answer::Misconfigured { .. }), "{status}: {answer:?}");
        }
        assert!(matches!(not_grpc(503, &HeaderMap::new()).answer, Answer::Retry { .. }));
    }
}
