//! The destination of every subject: takes OTLP/gRPC, counts spans, answers OK at once.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use spanreel::otlp::wire::{Fields, Payload};
use std::convert::Infallible;
use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpListener;

/// Several requests of 4 MiB may be under way on one connection.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const GRPC_HEAD_BYTES: usize = 5;

#[derive(Default)]
struct Counts {
    spans: AtomicU64,
    requests: AtomicU64,
    wire_bytes: AtomicU64,
}

/// What one subject has forwarded.
pub struct Sink {
    pub port: u16,
    counts: Arc<Counts>,
}

impl Sink {
    pub async fn start() -> std::io::Result<Self> {
        Self::start_at(0).await
    }

    pub async fn start_at(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let port = listener.local_addr()?.port();
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counts = shared.clone();
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let service = service_fn(move |request| {
                        let counts = counts.clone();
                        async move { Ok::<_, Infallible>(answer(&counts, request).await) }
                    });
                    // A subject that is stopped breaks its connection; nothing is lost by that here.
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .initial_stream_window_size(WINDOW_BYTES)
                        .initial_connection_window_size(WINDOW_BYTES)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { port, counts })
    }

    pub fn spans(&self) -> u64 {
        self.counts.spans.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    pub fn wire_bytes(&self) -> u64 {
        self.counts.wire_bytes.load(Ordering::Relaxed)
    }
}

async fn answer(
    counts: &Counts,
    request: Request<Incoming>,
) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let encoding = request.headers().get("grpc-encoding").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let status = match request.into_body().collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            counts.wire_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
            match spans(&body, encoding.as_deref()) {
                Ok(spans) => {
                    counts.spans.fetch_add(spans, Ordering::Relaxed);
                    counts.requests.fetch_add(1, Ordering::Relaxed);
                    "0"
                }
                Err(problem) => {
                    eprintln!("the sink cannot read what it was sent: {problem}");
                    "3"
                }
            }
        }
        Err(_) => "14",
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let body = Full::new(Bytes::from_static(&[0; GRPC_HEAD_BYTES])).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// Spans in one gRPC body.
fn spans(body: &Bytes, encoding: Option<&str>) -> Result<u64, String> {
    let message = body.get(GRPC_HEAD_BYTES..).ok_or("no gRPC message")?;
    let inflated;
    let message = match (body[0], encoding) {
        (0, _) => message,
        (_, Some("gzip")) => {
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(message).read_to_end(&mut out).map_err(|error| error.to_string())?;
            inflated = out;
            &inflated
        }
        (_, Some("zstd")) => {
            inflated = zstd::stream::decode_all(message).map_err(|error| error.to_string())?;
            &inflated
        }
        (_, other) => return Err(format!("unknown encoding {other:?}")),
    };
    let mut spans = 0;
    for resource_spans in messages(message, 1) {
        for scope_spans in messages(resource_spans?, 2) {
            for span in messages(scope_spans?, 2) {
                span?;
                spans += 1;
            }
        }
    }
    Ok(spans)
}

fn messages(message: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], String>> {
    Fields::new(message).filter_map(move |field| match field {
        Ok(field) if field.number == number => match field.payload {
            Payload::Bytes(bytes) => Some(Ok(bytes)),
            _ => None,
        },
        Ok(_) => None,
        Err(error) => Some(Err(error.to_string())),
    })
}
