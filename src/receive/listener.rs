//! A bound port: accepts connections, tells the protocols apart, and ends in order. What stands behind it can change.

use super::accept::Connection;
use super::answer::{AnswerBody, Refusal};
use super::jaeger::udp::{self, UdpSettings};
use super::settings::ServerTlsSettings;
use super::{Dialect, Policy, Receiver, accept, grpc, http, jaeger, tls, zipkin};
use crate::process::Client;
use ::http::{HeaderMap, Request, Response, header};
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

/// Connections served at once by one listener. Then the longest silent ones are closed for those that come.
pub const CONNECTIONS_MAX: usize = 10_000;
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
    /// Content encodings of HTTP that are taken, `""` being none; `None`: all that are supported.
    pub http_encodings: Option<Vec<String>>,
    pub streams_max: Option<u32>,
    pub connection_age: Option<ConnectionAge>,
    pub paths: Paths,
}

/// How old connections get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionAge {
    /// Then they are told to go, give or take a tenth, so that clients spread anew and not all at once.
    pub max: Duration,
    /// For what is under way then; `None`: as long as it takes.
    pub grace: Option<Duration>,
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

/// Where to listen, and how.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    pub tls: Option<ServerTlsSettings>,
    pub transport: Transport,
}

/// What comes in at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP and gRPC.
    Tcp,
    /// Packets of Jaeger's clients.
    Udp(UdpSettings),
}

impl Endpoint {
    /// As configured: `:4317` means every interface, as in Go.
    pub fn tcp(endpoint: &str, tls: Option<ServerTlsSettings>) -> Self {
        Self { address: bindable(endpoint), tls, transport: Transport::Tcp }
    }

    pub fn udp(endpoint: &str, settings: UdpSettings) -> Self {
        Self { address: bindable(endpoint), tls: None, transport: Transport::Udp(settings) }
    }

    /// The address, told apart from the same one of the other transport: `udp 127.0.0.1:6831`.
    pub fn name(&self) -> String {
        match self.transport {
            Transport::Tcp => self.address.clone(),
            Transport::Udp(_) => format!("udp {}", self.address),
        }
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
    socket: Socket,
    handshake: Handshake,
    address: SocketAddr,
}

enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket, UdpSettings),
}

/// How connections begin.
struct Handshake {
    /// `None`: in the clear.
    tls: Option<tls::Acceptor>,
}

/// What stands behind a served port. It can be exchanged while connections are open: the next request of each meets the
/// new receiver, requests under way end with the one that they began with.
pub struct Door {
    behind: ArcSwap<Behind>,
    handshake: ArcSwap<(Handshake, CancellationToken)>,
    shutdown: CancellationToken,
}

/// What a request meets: the port's policy, then the receiver.
#[derive(Clone)]
pub struct Behind {
    pub receiver: Arc<Receiver>,
    pub policy: Arc<Policy>,
}

/// What a door is changed to; nothing can fail any more.
pub struct DoorChange {
    behind: Behind,
    handshake: Handshake,
}

impl Handshake {
    fn of(endpoint: &Endpoint) -> Result<Self, ListenError> {
        let tls = endpoint.tls.as_ref().map(tls::Acceptor::new).transpose();
        let tls = tls.map_err(|problem| ListenError::Tls { address: endpoint.address.clone(), problem })?;
        Ok(Self { tls })
    }
}

impl Listener {
    pub async fn bind(endpoint: &Endpoint) -> Result<Self, ListenError> {
        let failed = |problem| ListenError::Bind { address: endpoint.name(), problem };
        let handshake = Handshake::of(endpoint)?;
        let (socket, address) = match endpoint.transport {
            Transport::Tcp => {
                let socket = TcpListener::bind(&endpoint.address).await.map_err(failed)?;
                let address = socket.local_addr();
                (Socket::Tcp(socket), address)
            }
            Transport::Udp(settings) => {
                let socket = udp::bind(&endpoint.address, settings).await.map_err(failed)?;
                let address = socket.local_addr();
                (Socket::Udp(socket, settings), address)
            }
        };
        Ok(Self { socket, handshake, address: address.map_err(failed)? })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The door to `behind`, and the task that serves it until `shutdown`; then there are no more connections, and those
    /// that are open finish what they have begun.
    pub fn open(self, behind: Behind, shutdown: CancellationToken) -> (Arc<Door>, BoxFuture<'static, ()>) {
        let handshake = (self.handshake, shutdown.child_token());
        let door = Arc::new(Door {
            behind: ArcSwap::from_pointee(behind),
            handshake: ArcSwap::from_pointee(handshake),
            shutdown: shutdown.clone(),
        });
        let (address, opened) = (self.address, Arc::clone(&door));
        match self.socket {
            Socket::Tcp(socket) => {
                let serve = move |stream, peer: SocketAddr| {
                    let from = Origin { port: address.port(), peer: peer.ip().to_canonical() };
                    serve_stream(stream, Arc::clone(&opened), from)
                };
                let bounds = accept::Bounds {
                    connections_max: CONNECTIONS_MAX,
                    patience: accept::Patience { first_words: HEADER_WAIT_MAX, ..Default::default() },
                    dismissed: door.receiver().metrics.dismissed.clone(),
                };
                (door, accept::accept(socket, address, bounds, shutdown, serve).boxed())
            }
            Socket::Udp(socket, settings) => (door, udp::serve(socket, address, settings, opened, shutdown).boxed()),
        }
    }
}

impl Door {
    /// Reads the certificates again, which is what can fail.
    pub fn prepare(endpoint: &Endpoint, behind: Behind) -> Result<DoorChange, ListenError> {
        Ok(DoorChange { behind, handshake: Handshake::of(endpoint)? })
    }

    /// The receiver right now.
    pub(super) fn receiver(&self) -> Arc<Receiver> {
        Arc::clone(&self.behind.load().receiver)
    }

    /// From the next request on, `change` holds. `keep_connections` says whether those that are open began as new ones
    /// would; otherwise they finish what they have begun, and end.
    pub fn change(&self, change: DoorChange, keep_connections: bool) {
        self.behind.store(Arc::new(change.behind));
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

async fn serve_stream(stream: Connection, door: Arc<Door>, from: Origin) {
    let handshake = door.handshake.load_full();
    let (Handshake { tls }, stop) = &*handshake;
    let _open = door.receiver().metrics.connection();
    if let Some(witness) = &door.receiver().witness {
        witness.connected(from.peer);
    }
    match tls {
        None => serve_connection(stream, door, from, stop).await,
        Some(tls) => {
            let accepted = tokio::time::timeout(TLS_HANDSHAKE_MAX, tls.get().accept(stream));
            match stop.run_until_cancelled(accepted).await {
                // Nothing was begun that could be finished.
                None => {}
                // Apart, so that a connection in the clear does not have its size.
                Some(Ok(Ok(mut stream))) => {
                    let (connection, session) = stream.get_mut();
                    // A client may send its first request along with the end of the handshake.
                    let said_bytes = session.process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read());
                    connection.begin_again(said_bytes);
                    Box::pin(serve_connection(stream, door, from, stop)).await;
                }
                Some(failed) => {
                    if let Ok(Err(error)) = failed {
                        tracing::debug!(%error, port = from.port, "TLS handshake failed");
                    }
                    door.receiver().count(from, "tls", "handshake");
                }
            }
        }
    }
}

async fn serve_connection<S>(stream: S, door: Arc<Door>, from: Origin, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Limits { streams_max, connection_age, .. } = door.receiver().limits;
    let streams_max = streams_max.unwrap_or(STREAMS_MAX);
    let mut server = auto::Builder::new(TokioExecutor::new());
    // Who closes its side once it has sent everything is answered all the same.
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_WAIT_MAX).half_close(true);
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
        let behind = door.behind.load_full();
        async move { Ok::<_, Infallible>(answer(&behind, from, request).await) }
    });
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let end = stop.child_token();
    let ageing = async {
        if let Some(age) = connection_age {
            tokio::time::sleep(age.one()).await;
            end.cancel();
        }
        std::future::pending::<()>().await;
    };
    let patience = || async {
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        match connection_age.and_then(|age| age.grace) {
            Some(grace) => tokio::time::timeout(grace, stopped).await.unwrap_or_default(),
            None => stopped.await,
        }
    };
    tokio::select! {
        () = accept::drive(connection, &end, patience, |connection| connection.graceful_shutdown()) => {}
        () = ageing => {}
    }
}

impl ConnectionAge {
    /// Of one connection.
    fn one(self) -> Duration {
        let random = RandomState::new().hash_one(self.max) as f64 / u64::MAX as f64;
        self.max.mul_f64(0.9 + 0.2 * random)
    }
}

async fn answer(behind: &Behind, from: Origin, request: Request<Incoming>) -> Response<AnswerBody> {
    let Behind { receiver, policy } = behind;
    if let Some(answer) = policy.preflight(&request) {
        return answer;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match policy.client(from.peer, &request).await {
        Ok(client) => serve(receiver, from, &client, request).await,
        Err(refusal) => {
            receiver.count(from, protocol(receiver, request.headers()), refusal.outcome());
            refused(receiver, &refusal, request.headers())
        }
    };
    policy.finish(origin.as_ref(), &mut response);
    response
}

async fn serve(receiver: &Receiver, from: Origin, client: &Client, request: Request<Incoming>) -> Response<AnswerBody> {
    let grpc = is_grpc(request.headers());
    let (protocol, (response, outcome)) = match receiver.dialect {
        _ if grpc => ("grpc", grpc::serve(receiver, client, request).await),
        Dialect::Otlp => (http::protocol(request.headers()), http::serve(receiver, client, request).await),
        Dialect::Zipkin(rules) => zipkin::http::serve(receiver, rules, client, request).await,
        Dialect::Jaeger => (jaeger::http::PROTOCOL, jaeger::http::serve(receiver, client, request).await),
    };
    receiver.count(from, protocol, outcome);
    response
}

/// The label `protocol` of a request that is not read.
fn protocol(receiver: &Receiver, headers: &HeaderMap) -> &'static str {
    match receiver.dialect {
        _ if is_grpc(headers) => "grpc",
        Dialect::Otlp => http::protocol(headers),
        Dialect::Zipkin(_) => "http/other",
        Dialect::Jaeger => jaeger::http::PROTOCOL,
    }
}

fn refused(receiver: &Receiver, refusal: &Refusal, headers: &HeaderMap) -> Response<AnswerBody> {
    match http::body_encoding(headers) {
        _ if is_grpc(headers) => refusal.to_grpc(),
        Some(encoding) if receiver.dialect == Dialect::Otlp => refusal.to_http(encoding),
        _ => refusal.to_plain(),
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(.."application/grpc".len()))
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"application/grpc"))
}
