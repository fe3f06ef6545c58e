//! A bound port: accepts connections, tells the protocols apart, and ends in order. What stands behind it can change.

use super::settings::ServerTlsSettings;
use super::{Dialect, Receiver, accept, grpc, http, jaeger, tls, zipkin};
use crate::receive::answer::AnswerBody;
use ::http::{HeaderMap, Request, Response, header};
use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Connections served at once by one listener; the next wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 10_000;
/// Concurrent calls of one HTTP/2 connection, where the configuration does not say.
const STREAMS_MAX: u32 = 256;
/// Flow-control windows: large enough for one full request, small enough to bound what a connection may push.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Larger frames mean fewer copies when a body is put together.
const FRAME_BYTES_MAX: u32 = 64 * 1024;
const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// An HTTP/1.1 client has this long for a request's head; also how long an idle connection is kept.
const HEADER_WAIT_MAX: Duration = Duration::from_secs(75);
const TLS_HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Dead peers are noticed by a ping.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_WAIT_MAX: Duration = Duration::from_secs(20);
/// How long running requests may take to end after shutdown began. Together with what follows it must stay well within the
/// ten seconds of a stop, however many clients stall.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// Sizes and paths that the receiver's configuration sets.
#[derive(Debug, Clone)]
pub struct Limits {
    pub grpc_message_bytes_max: usize,
    pub http_body_bytes_max: usize,
    pub streams_max: Option<u32>,
    pub paths: Paths,
}

/// URL paths of OTLP by signal.
#[derive(Debug, Clone)]
pub struct Paths {
    pub traces: String,
    pub metrics: String,
    pub logs: String,
}

impl Default for Paths {
    fn default() -> Self {
        Self { traces: "/v1/traces".to_owned(), metrics: "/v1/metrics".to_owned(), logs: "/v1/logs".to_owned() }
    }
}

/// Where to listen.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    pub tls: Option<ServerTlsSettings>,
}

impl Endpoint {
    /// As configured: `:4317` means every interface, as in Go.
    pub fn tcp(endpoint: &str, tls: Option<ServerTlsSettings>) -> Self {
        Self { address: bindable(endpoint), tls }
    }
}

/// An address as the system takes it.
pub fn bindable(endpoint: &str) -> String {
    if endpoint.starts_with(':') { format!("0.0.0.0{endpoint}") } else { endpoint.to_owned() }
}

/// A port could not be opened.
#[derive(Debug, Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {problem}; stop what uses the port, or change the receiver's endpoint")]
    Bind { address: String, problem: std::io::Error },
    #[error("cannot use the certificate of {address}: {problem}")]
    Tls { address: String, problem: String },
}

/// A port that is bound, so that nothing that is sent to it from now on is refused.
pub struct Listener {
    socket: TcpListener,
    handshake: Handshake,
    address: SocketAddr,
}

/// How connections begin.
struct Handshake {
    /// `None`: in the clear.
    tls: Option<tokio_rustls::TlsAcceptor>,
}

/// What stands behind a served port. It can be exchanged while connections are open: the next request of each meets the
/// new receiver, requests under way end with the one that they began with.
pub struct Door {
    receiver: ArcSwap<Receiver>,
    handshake: ArcSwap<(Handshake, CancellationToken)>,
    shutdown: CancellationToken,
}

/// What a door is changed to; nothing can fail any more.
pub struct DoorChange {
    receiver: Arc<Receiver>,
    handshake: Handshake,
}

impl Handshake {
    fn of(endpoint: &Endpoint) -> Result<Self, ListenError> {
        let tls = endpoint.tls.as_ref().map(tls::acceptor).transpose();
        let tls = tls.map_err(|problem| ListenError::Tls { address: endpoint.address.clone(), problem })?;
        Ok(Self { tls })
    }
}

impl Listener {
    pub async fn bind(endpoint: &Endpoint) -> Result<Self, ListenError> {
        let failed = |problem| ListenError::Bind { address: endpoint.address.clone(), problem };
        let handshake = Handshake::of(endpoint)?;
        let socket = TcpListener::bind(&endpoint.address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, handshake, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The door to `receiver`, and the task that serves it until `shutdown`; then there are no more connections, and
    /// those that are open finish what they have begun.
    pub fn open(
        self,
        receiver: Arc<Receiver>,
        shutdown: CancellationToken,
    ) -> (Arc<Door>, impl Future<Output = ()> + Send + 'static) {
        let handshake = (self.handshake, shutdown.child_token());
        let door = Door {
            receiver: ArcSwap::new(receiver),
            handshake: ArcSwap::from_pointee(handshake),
            shutdown: shutdown.clone(),
        };
        let door = Arc::new(door);
        let (socket, address, behind) = (self.socket, self.address, Arc::clone(&door));
        let serve = move |stream, peer: SocketAddr| {
            let from = Origin { port: address.port(), peer: peer.ip().to_canonical() };
            serve_stream(stream, Arc::clone(&behind), from)
        };
        (door, accept::accept(socket, address, CONNECTIONS_MAX, shutdown, serve))
    }
}

impl Door {
    /// Reads the certificates again, which is what can fail.
    pub fn prepare(endpoint: &Endpoint, receiver: Arc<Receiver>) -> Result<DoorChange, ListenError> {
        Ok(DoorChange { receiver, handshake: Handshake::of(endpoint)? })
    }

    /// From the next request on, `change` holds. `keep_connections` says whether those that are open began as new ones
    /// would; otherwise they finish what they have begun, and end.
    pub fn change(&self, change: DoorChange, keep_connections: bool) {
        self.receiver.store(change.receiver);
        let before = self.handshake.load_full();
        let stop = if keep_connections { before.1.clone() } else { self.shutdown.child_token() };
        self.handshake.store(Arc::new((change.handshake, stop)));
        if !keep_connections {
            before.1.cancel();
        }
    }
}

/// Where a request came in, and from whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// As configured.
    pub port: u16,
    pub peer: IpAddr,
}

async fn serve_stream(stream: TcpStream, door: Arc<Door>, from: Origin) {
    let handshake = door.handshake.load_full();
    let (Handshake { tls }, stop) = &*handshake;
    let metrics = door.receiver.load().metrics.clone();
    metrics.connections.inc();
    if let Some(witness) = &door.receiver.load().witness {
        witness.connected(from.peer);
    }
    match tls {
        None => serve_connection(stream, door, from, stop).await,
        Some(tls) => {
            let accepted = tokio::time::timeout(TLS_HANDSHAKE_MAX, tls.accept(stream));
            match stop.run_until_cancelled(accepted).await {
                // Nothing was begun that could be finished.
                None => {}
                Some(Ok(Ok(stream))) => serve_connection(stream, door, from, stop).await,
                Some(failed) => {
                    if let Ok(Err(error)) = failed {
                        tracing::debug!(%error, port = from.port, "TLS handshake failed");
                    }
                    door.receiver.load().count(from, "tls", "handshake");
                }
            }
        }
    }
    metrics.connections.dec();
}

async fn serve_connection<S>(stream: S, door: Arc<Door>, from: Origin, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streams_max = door.receiver.load().limits.streams_max.unwrap_or(STREAMS_MAX);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_WAIT_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_WAIT_MAX);
    let service = service_fn(move |request| {
        let receiver = door.receiver.load_full();
        async move { Ok::<_, Infallible>(answer(&receiver, from, request).await) }
    });
    let connection = server.serve_connection(TokioIo::new(stream), service);
    accept::drive(connection, stop, DRAIN_MAX, |connection| connection.graceful_shutdown()).await;
}

async fn answer(receiver: &Receiver, from: Origin, request: Request<Incoming>) -> Response<AnswerBody> {
    let grpc = is_grpc(request.headers());
    let (protocol, (response, outcome)) = match receiver.dialect {
        _ if grpc => ("grpc", grpc::serve(receiver, from.peer, request).await),
        Dialect::Otlp => (http::protocol(request.headers()), http::serve(receiver, from.peer, request).await),
        Dialect::Zipkin(rules) => zipkin::http::serve(receiver, rules, from.peer, request).await,
        Dialect::Jaeger => (jaeger::http::PROTOCOL, jaeger::http::serve(receiver, from.peer, request).await),
    };
    receiver.count(from, protocol, outcome);
    response
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(.."application/grpc".len()))
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"application/grpc"))
}
