//! An OTLP client for every protocol, encoding and port, that shows answers as they are.
//!
//! No retries, no queue: one call, one answer. The gRPC side does its own framing over HTTP/2, so that a test can also
//! send what no client library would.

use super::compression::{self, Compression};
use super::http::{ANSWER_BOUND, Broken, Connection};
use super::traces;
use base64::Engine;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::TcpStream;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    HttpProtobuf,
    HttpJson,
}

impl Protocol {
    pub const ALL: [Protocol; 3] = [Self::Grpc, Self::HttpProtobuf, Self::HttpJson];

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Grpc => "application/grpc",
            Self::HttpProtobuf => "application/x-protobuf",
            Self::HttpJson => "application/json",
        }
    }

    pub fn path(self, signal: Signal) -> &'static str {
        match (self, signal) {
            (Self::Grpc, Signal::Traces) => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            (Self::Grpc, Signal::Metrics) => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            (Self::Grpc, Signal::Logs) => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            (_, Signal::Traces) => "/v1/traces",
            (_, Signal::Metrics) => "/v1/metrics",
            (_, Signal::Logs) => "/v1/logs",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Traces,
    Metrics,
    Logs,
}

/// gRPC status codes that the tests name.
pub mod code {
    pub const OK: u32 = 0;
    pub const INVALID_ARGUMENT: u32 = 3;
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    pub const UNIMPLEMENTED: u32 = 12;
    pub const INTERNAL: u32 = 13;
    pub const UNAVAILABLE: u32 = 14;
}

/// What the server said.
#[derive(Debug, Clone)]
pub struct Answer {
    pub protocol: Protocol,
    pub http_status: u16,
    pub headers: HeaderMap,
    /// The gRPC status, from the trailers or the body's `google.rpc.Status`.
    pub code: Option<u32>,
    pub message: String,
    /// `RetryInfo` or `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Of a success: the spans that were refused one by one.
    pub rejected_spans: i64,
    /// The message (gRPC) or body (HTTP).
    pub body: Bytes,
}

impl Answer {
    /// The whole request is acknowledged, perhaps but for single spans.
    pub fn is_ok(&self) -> bool {
        self.http_status == 200 && (self.protocol != Protocol::Grpc || self.code == Some(code::OK))
    }

    /// The OTLP specification tells a client to send the same again.
    pub fn is_retryable(&self) -> bool {
        match self.protocol {
            // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
            Protocol::Grpc => match self.code {
                Some(1 | 4 | 10 | 11 | code::UNAVAILABLE | 15) => true,
                Some(code::RESOURCE_EXHAUSTED) => self.retry_after.is_some(),
                _ => false,
            },
            _ => matches!(self.http_status, 429 | 502 | 503 | 504),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<RetryDelay>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryDelay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl RpcStatus {
    fn retry_delay(&self) -> Option<Duration> {
        let info = self.details.iter().find(|detail| detail.type_url.ends_with("google.rpc.RetryInfo"))?;
        let delay = RetryInfo::decode(info.value.as_slice()).expect("a RetryInfo").retry_delay?;
        Some(Duration::new(u64::try_from(delay.seconds).expect("not negative"), delay.nanos.unsigned_abs()))
    }
}

/// A request as raw as a test wants it.
#[derive(Debug, Clone)]
pub struct Raw<'a> {
    pub method: Method,
    pub path: &'a str,
    pub content_type: Option<&'a str>,
    /// `content-encoding`, or `grpc-encoding` with the frame's compressed flag set.
    pub encoding: Option<&'a str>,
    /// HTTP: the body. gRPC: the message in its one frame.
    pub body: Bytes,
}

/// One connection of one protocol.
pub struct Client {
    protocol: Protocol,
    connection: Inner,
}

enum Inner {
    Http1(Connection),
    Http2(GrpcConnection),
}

impl Client {
    pub async fn connect(port: u16, protocol: Protocol) -> Result<Self, Broken> {
        let connection = match protocol {
            Protocol::Grpc => Inner::Http2(GrpcConnection::open(port).await?),
            Protocol::HttpProtobuf | Protocol::HttpJson => Inner::Http1(Connection::open(port).await?),
        };
        Ok(Self { protocol, connection })
    }

    /// Sends one request for traces.
    pub async fn export(
        &mut self,
        request: &ExportTraceServiceRequest,
        compression: Compression,
    ) -> Result<Answer, Broken> {
        let body = match self.protocol {
            Protocol::HttpJson => traces::json(request).into_bytes(),
            Protocol::Grpc | Protocol::HttpProtobuf => request.encode_to_vec(),
        };
        self.export_bytes(Signal::Traces, &body, compression).await
    }

    /// Sends `body`, which is already in the protocol's encoding, compressed.
    pub async fn export_bytes(
        &mut self,
        signal: Signal,
        body: &[u8],
        compression: Compression,
    ) -> Result<Answer, Broken> {
        self.send(Raw {
            method: Method::POST,
            path: self.protocol.path(signal),
            content_type: Some(self.protocol.content_type()),
            encoding: compression.name(),
            body: compression.apply(body).into(),
        })
        .await
    }

    pub async fn send(&mut self, raw: Raw<'_>) -> Result<Answer, Broken> {
        match &mut self.connection {
            Inner::Http1(connection) => {
                let headers: Vec<(&str, &str)> =
                    [("content-type", raw.content_type), ("content-encoding", raw.encoding)]
                        .into_iter()
                        .filter_map(|(name, value)| Some((name, value?)))
                        .collect();
                let response = connection.send(raw.method, raw.path, &headers, raw.body).await?;
                Ok(http_answer(self.protocol, response))
            }
            Inner::Http2(connection) => {
                let frame = frame(raw.encoding.is_some(), &raw.body);
                connection.send(raw.method, raw.path, raw.content_type, raw.encoding, frame).await
            }
        }
    }
}

/// A gRPC message in its frame: flag, length, bytes.
pub fn frame(compressed: bool, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(compressed.into());
    frame.put_u32(u32::try_from(message.len()).expect("a message below 4 GiB"));
    frame.put_slice(message);
    frame.freeze()
}

/// One HTTP/2 connection with prior knowledge. Clones share it, each with calls of its own.
#[derive(Clone)]
pub struct GrpcConnection {
    port: u16,
    /// Sent with every call.
    pub metadata: Vec<(&'static str, String)>,
    sender: http2::SendRequest<Full<Bytes>>,
}

impl GrpcConnection {
    pub async fn open(port: u16) -> Result<Self, Broken> {
        /// So that a call of several MiB does not wait for the server's window updates more than it must.
        const WINDOW_BYTES: u32 = 8 * 1024 * 1024;
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        // Ends with the connection; a failure shows in the answer that never comes.
        tokio::spawn(connection);
        Ok(Self { port, metadata: Vec::new(), sender })
    }

    /// Sends a body of gRPC frames and reads the one answer.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        encoding: Option<&str>,
        frames: Bytes,
    ) -> Result<Answer, Broken> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.port))
            .header("te", "trailers");
        for (name, value) in [("content-type", content_type), ("grpc-encoding", encoding)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        for (name, value) in &self.metadata {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(frames))?;
        let answer = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = body.collect().await?;
            // An answer without a message carries its status in the headers.
            let trailers = body.trailers().cloned().unwrap_or_else(|| head.headers.clone());
            Ok(grpc_answer(head.status.as_u16(), head.headers, &trailers, &body.to_bytes()))
        };
        tokio::time::timeout(ANSWER_BOUND, answer).await?
    }
}

/// What a streaming call answered.
#[derive(Debug, Clone)]
pub struct Streamed {
    pub messages: Vec<Bytes>,
    pub code: u32,
    pub message: String,
}

impl GrpcConnection {
    /// Sends a body of gRPC frames to a streaming method and reads all that comes, uncompressed.
    pub async fn stream(&mut self, path: &str, frames: Bytes) -> Result<Streamed, Broken> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://127.0.0.1:{}{path}", self.port))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("x-scope-orgid", "one|two")
            .body(Full::new(frames))?;
        let answer = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().cloned().unwrap_or(head.headers);
            let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let mut bytes = body.to_bytes();
            let mut messages = Vec::new();
            while !bytes.is_empty() {
                let prefix = bytes.split_to(5);
                assert_eq!(prefix[0], 0, "an uncompressed message");
                let len = u32::from_be_bytes(prefix[1..].try_into().expect("four bytes of length"));
                messages.push(bytes.split_to(len as usize));
            }
            let code = text("grpc-status").parse().expect("a numeric grpc-status");
            Ok(Streamed { messages, code, message: text("grpc-message").to_owned() })
        };
        tokio::time::timeout(ANSWER_BOUND, answer).await?
    }
}

fn grpc_answer(http_status: u16, headers: HeaderMap, trailers: &HeaderMap, body: &Bytes) -> Answer {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let details = text("grpc-status-details-bin").map(|encoded| {
        let bytes = LENIENT.decode(encoded).expect("base64 in grpc-status-details-bin");
        RpcStatus::decode(bytes.as_slice()).expect("a google.rpc.Status in grpc-status-details-bin")
    });
    let encoding = headers.get("grpc-encoding").and_then(|value| value.to_str().ok()).unwrap_or("identity");
    let body = match body.first() {
        // grpc-go answers in the encoding of the request.
        Some(1) => compression::decompress(encoding, &body[5..]).into(),
        Some(_) => body.slice(5..),
        None => Bytes::new(),
    };
    Answer {
        protocol: Protocol::Grpc,
        http_status,
        headers,
        code: text("grpc-status").map(|code| code.parse().expect("a numeric grpc-status")),
        message: text("grpc-message").unwrap_or_default().to_owned(),
        retry_after: details.as_ref().and_then(RpcStatus::retry_delay),
        rejected_spans: rejected_spans(&body),
        body,
    }
}

fn http_answer(protocol: Protocol, response: super::http::Response) -> Answer {
    let success = response.status == 200;
    let json = response.header("content-type").starts_with("application/json");
    let mut answer = Answer {
        protocol,
        http_status: response.status.as_u16(),
        headers: response.headers.clone(),
        code: None,
        message: response.text(),
        retry_after: response.header("retry-after").parse().ok().map(Duration::from_secs),
        rejected_spans: 0,
        body: response.body.clone(),
    };
    if json {
        let value: serde_json::Value = serde_json::from_slice(&response.body).expect("a JSON body");
        if success {
            let partial = &value["partialSuccess"]["rejectedSpans"];
            answer.rejected_spans = partial.as_i64().or_else(|| partial.as_str()?.parse().ok()).unwrap_or(0);
        } else {
            answer.code = value["code"].as_u64().and_then(|code| u32::try_from(code).ok());
            value["message"].as_str().unwrap_or_default().clone_into(&mut answer.message);
        }
    } else if success {
        answer.rejected_spans = rejected_spans(&response.body);
    } else if response.header("content-type").starts_with("application/x-protobuf") {
        let status = RpcStatus::decode(response.body).expect("a google.rpc.Status body");
        answer.code = u32::try_from(status.code).ok();
        answer.message = status.message;
    }
    answer
}

fn rejected_spans(body: &Bytes) -> i64 {
    let response = ExportTraceServiceResponse::decode(body.clone()).expect("an ExportTraceServiceResponse");
    response.partial_success.map_or(0, |partial| partial.rejected_spans)
}
