//! A real, small OTLP destination: OTLP/gRPC and OTLP/HTTP on one loopback port, decoding what it gets with
//! opentelemetry-proto, and giving any answer on demand. Every test uses a part of it.
#![allow(dead_code)]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// One request as it came in.
#[derive(Debug, Clone)]
pub struct Received {
    pub at: Instant,
    pub is_grpc: bool,
    /// `grpc-encoding` or `Content-Encoding`; empty if there was none.
    pub encoding: String,
    pub headers: HeaderMap,
    pub raw_bytes: usize,
    pub span_names: Vec<String>,
}

/// What to answer. Each is told in the protocol of the request.
#[derive(Debug, Clone)]
pub enum Answer {
    Ok,
    /// Taken, but for some spans.
    Partial(i64, &'static str),
    /// A gRPC status; over HTTP the status that the Collector maps it to is for the test to give.
    Grpc {
        code: u32,
        message: &'static str,
        retry_after: Option<Duration>,
    },
    Http {
        status: u16,
        retry_after: Option<&'static str>,
        body: &'static str,
    },
    /// The connection breaks off.
    Reset,
    /// Nothing, for so long; then [`Answer::Ok`].
    Silence(Duration),
}

/// How the destination is built; the default takes everything.
#[derive(Clone, Default)]
pub struct Options {
    /// A bound on the decompressed request, answered as grpc-go and the Collector do.
    pub raw_bytes_max: Option<usize>,
    pub refused_encodings: Vec<&'static str>,
    /// [`Destination::requests`] has what was sent in protobuf.
    pub keep_requests: bool,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// HTTP/1.1 connections serve one request each.
    pub closes_after_each: bool,
    /// Instead of any free port.
    pub address: Option<SocketAddr>,
}

type Answering = dyn Fn(&Received) -> Answer + Send + Sync;

/// A running destination. Dropping it closes the port and every connection.
pub struct Destination {
    #[allow(dead_code, reason = "not every test binary asks")]
    pub address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    options: Options,
    answer: Box<Answering>,
    /// Every request, whatever was answered.
    received: Mutex<Vec<Received>>,
    /// The names of the spans in requests that were answered OK.
    taken: Mutex<Vec<String>>,
    connections: AtomicUsize,
    /// Decompressed, if [`Options::keep_requests`] says so.
    requests: Mutex<Vec<ExportTraceServiceRequest>>,
}

impl Destination {
    pub async fn start(options: Options, answer: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let wanted = options.address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = TcpListener::bind(wanted).await.expect("the port is free");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State {
            options,
            answer: Box::new(answer),
            received: Mutex::default(),
            taken: Mutex::default(),
            connections: AtomicUsize::new(0),
            requests: Mutex::default(),
        });
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { address, state, server }
    }

    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    /// Every request in protobuf, whatever was answered.
    #[allow(dead_code, reason = "not every test binary asks")]
    pub fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Connections that were ever made to it.
    #[allow(dead_code, reason = "not every test binary asks")]
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Sorted, repetitions included.
    pub fn taken(&self) -> Vec<String> {
        let mut taken = self.state.taken.lock().unwrap().clone();
        taken.sort();
        taken
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    // Dropped with this task, and its connections with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        state.connections.fetch_add(1, Ordering::Relaxed);
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let tls = state.options.tls.clone();
            let closes = state.options.closes_after_each;
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http1().keep_alive(!closes);
            match tls {
                None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                        drop(builder.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        });
    }
}

type Body = BoxBody<Bytes, std::convert::Infallible>;

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let content_type = text(&head.headers, "content-type");
    let is_grpc = content_type.starts_with("application/grpc");
    let expected_path =
        if is_grpc { "/opentelemetry.proto.collector.trace.v1.TraceService/Export" } else { "/v1/traces" };
    assert_eq!(head.uri.path(), expected_path);
    assert_eq!(head.method, http::Method::POST);
    let encoding = text(&head.headers, if is_grpc { "grpc-encoding" } else { "content-encoding" });
    if state.options.refused_encodings.contains(&encoding.as_str()) {
        return Ok(match is_grpc {
            true => {
                grpc(12, &format!("grpc: Decompressor is not installed for grpc-encoding \"{encoding}\""), None, None)
            }
            false => http(400, "text/plain", None, format!("unsupported Content-Encoding: {encoding}").into()),
        });
    }
    let message = if is_grpc { grpc_message(&body, &encoding) } else { decompressed(&body, &encoding) };
    if let Some(max) = state.options.raw_bytes_max
        && message.len() > max
    {
        let text = format!("grpc: received message after decompression larger than max ({} vs. {max})", message.len());
        return Ok(if is_grpc { grpc(8, &text, None, None) } else { http(413, "text/plain", None, "".into()) });
    }
    let span_names = match content_type.as_str() {
        "application/json" => span_names_json(&serde_json::from_slice(&message).expect("JSON")),
        _ => {
            let request = ExportTraceServiceRequest::decode(message.as_slice()).expect("an ExportTraceServiceRequest");
            let names = span_names(&request);
            if state.options.keep_requests {
                state.requests.lock().unwrap().push(request);
            }
            names
        }
    };
    let received =
        Received { at: Instant::now(), is_grpc, encoding, headers: head.headers, raw_bytes: message.len(), span_names };
    let told = (state.answer)(&received);
    state.received.lock().unwrap().push(received.clone());
    let retry_info = |after: Duration| status_with_retry_info(after);
    Ok(match told {
        Answer::Reset => return Err(std::io::Error::other("reset on demand")),
        Answer::Grpc { code, message, retry_after } => grpc(code, message, retry_after.map(retry_info), None),
        Answer::Http { status, retry_after, body } => http(status, "text/plain", retry_after, body.into()),
        taken @ (Answer::Ok | Answer::Partial(..) | Answer::Silence(_)) => {
            if let Answer::Silence(pause) = taken {
                tokio::time::sleep(pause).await;
            }
            state.taken.lock().unwrap().extend(received.span_names);
            let (rejected_spans, error_message) = match taken {
                Answer::Partial(rejected_spans, message) => (rejected_spans, message),
                _ => (0, ""),
            };
            if content_type == "application/json" {
                let partial = serde_json::json!({
                    "partialSuccess": { "rejectedSpans": rejected_spans.to_string(), "errorMessage": error_message }
                });
                return Ok(http(200, "application/json", None, partial.to_string().into()));
            }
            let partial = ExportTracePartialSuccess { rejected_spans, error_message: error_message.to_owned() };
            let partial_success = (rejected_spans != 0).then_some(partial);
            let response = ExportTraceServiceResponse { partial_success }.encode_to_vec();
            match is_grpc {
                true => grpc(0, "", None, Some(response)),
                false => http(200, "application/x-protobuf", None, response.into()),
            }
        }
    })
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn grpc_message(body: &[u8], encoding: &str) -> Vec<u8> {
    let (prefix, message) = body.split_at_checked(5).expect("a gRPC prefix");
    assert_eq!(prefix[1..], u32::try_from(message.len()).unwrap().to_be_bytes(), "one message, of that length");
    match prefix[0] {
        0 => message.to_vec(),
        _ => decompressed(message, encoding),
    }
}

fn decompressed(body: &[u8], encoding: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        "" => out.extend_from_slice(body),
        "gzip" => drop(flate2::read::MultiGzDecoder::new(body).read_to_end(&mut out).expect("gzip")),
        // As klauspost's reader in the Collector: one frame or several, end to end.
        "zstd" => out = zstd::decode_all(body).expect("zstd"),
        "zlib" | "deflate" => drop(flate2::read::ZlibDecoder::new(body).read_to_end(&mut out).expect("zlib")),
        "x-snappy-framed" => drop(snap::read::FrameDecoder::new(body).read_to_end(&mut out).expect("snappy")),
        "lz4" => drop(lz4_flex::frame::FrameDecoder::new(body).read_to_end(&mut out).expect("lz4")),
        other => panic!("unexpected encoding {other:?}"),
    }
    out
}

/// The names of all spans, in order.
pub fn span_names(request: &ExportTraceServiceRequest) -> Vec<String> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).map(|span| span.name.clone()).collect()
}

fn span_names_json(request: &serde_json::Value) -> Vec<String> {
    let list = |value: &serde_json::Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut names = Vec::new();
    for resource_spans in list(request, "resourceSpans") {
        for scope_spans in list(&resource_spans, "scopeSpans") {
            for span in list(&scope_spans, "spans") {
                names.push(span["name"].as_str().expect("a name").to_owned());
            }
        }
    }
    names
}

/// A `google.rpc.Status` with a RetryInfo, as bytes: there is no crate for it among ours.
fn status_with_retry_info(after: Duration) -> Vec<u8> {
    let field = |number: u8, payload: &[u8]| [&[number << 3 | 2, payload.len() as u8], payload].concat();
    let mut delay = vec![1 << 3];
    prost::encoding::encode_varint(after.as_secs(), &mut delay);
    delay.push(2 << 3);
    prost::encoding::encode_varint(u64::from(after.subsec_nanos()), &mut delay);
    let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &field(1, &delay))].concat();
    field(3, &any)
}

fn grpc(code: u32, message: &str, details: Option<Vec<u8>>, response: Option<Vec<u8>>) -> Response<Body> {
    use base64::Engine as _;
    let mut status = HeaderMap::new();
    status.insert("grpc-status", HeaderValue::from(code));
    if !message.is_empty() {
        status.insert("grpc-message", HeaderValue::from_str(message).expect("printable"));
    }
    if let Some(details) = details {
        let details = base64::engine::general_purpose::STANDARD_NO_PAD.encode(details);
        status.insert("grpc-status-details-bin", HeaderValue::from_str(&details).expect("base64"));
    }
    let builder = Response::builder().header("content-type", "application/grpc");
    match response {
        Some(message) => {
            let mut framed = vec![0];
            framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
            framed.extend_from_slice(&message);
            let frames = [Ok(Frame::data(Bytes::from(framed))), Ok(Frame::trailers(status))];
            let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
            builder.body(BodyExt::boxed(body)).expect("a response")
        }
        // "Trailers only", as servers answer errors.
        None => {
            let mut response = builder.body(Full::default().boxed()).expect("a response");
            response.headers_mut().extend(status);
            response
        }
    }
}

fn http(status: u16, content_type: &str, retry_after: Option<&str>, body: Bytes) -> Response<Body> {
    let mut builder = Response::builder().status(status).header("content-type", content_type);
    if let Some(retry_after) = retry_after {
        builder = builder.header("retry-after", retry_after);
    }
    builder.body(Full::new(body).boxed()).expect("a response")
}
