//! A bound port: accepts connections, tells the protocols apart, and ends in order. What stands behind it can change.

use super::accept::{Address, Calls, Connection, Socket, UnixSocket};
use super::answer::{AnswerBody, Refusal};
use super::jaeger::udp::{self, UdpSettings};
use super::settings::{ServerTlsSettings, ServerTransport};
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
use std::path::Path;
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
    pub waits: Waits,
    pub connection_age: Option<ConnectionAge>,
    pub paths: Paths,
}

/// How long connections may do nothing, and how they are asked whether they live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// For the head of a request of HTTP/1.1, counted from the end of the one before.
    pub head_max: Duration,
    /// Whether a connection of HTTP/1.1 serves more than one request.
    pub keeps_http: bool,
    /// Without a request of HTTP/1.1; `None`: as long as there is room.
    pub http_idle_max: Option<Duration>,
    /// Without a call of HTTP/2; `None`: as long as there is room.
    pub grpc_idle_max: Option<Duration>,
    pub ping_interval: Duration,
    pub ping_wait_max: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            head_max: HEADER_WAIT_MAX,
            keeps_http: true,
            http_idle_max: None,
            grpc_idle_max: None,
            ping_interval: PING_INTERVAL,
            ping_wait_max: PING_WAIT_MAX,
        }
    }
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
    /// `host:port`, or the path of a socket.
    pub address: String,
    pub tls: Option<ServerTlsSettings>,
    pub transport: Transport,
}

/// What comes in at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP and gRPC.
    Tcp,
    /// The same, by a socket in the file system.
    Unix,
    /// Packets of Jaeger's clients.
    Udp(UdpSettings),
}

impl Endpoint {
    /// As configured: `:4317` means every interface, as in Go.
    pub fn serving(endpoint: &str, transport: ServerTransport, tls: Option<ServerTlsSettings>) -> Self {
        match transport {
            ServerTransport::Tcp => Self { address: bindable(endpoint), tls, transport: Transport::Tcp },
            ServerTransport::Unix => Self { address: endpoint.to_owned(), tls, transport: Transport::Unix },
        }
    }

    pub fn udp(endpoint: &str, settings: UdpSettings) -> Self {
        Self { address: bindable(endpoint), tls: None, transport: Transport::Udp(settings) }
    }

    /// The address, told apart from the same one of the other transport: `udp 127.0.0.1:6831`.
    pub fn name(&self) -> String {
        match self.transport {
            Transport::Tcp => self.address.clone(),
            Transport::Unix => format!("unix {}", self.address),
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
    socket: Bound,
    handshake: Handshake,
    address: Address,
}

enum Bound {
    Streams(Socket),
    Packets(UdpSocket, UdpSettings),
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
        let streams = |socket: Socket| {
            let address = socket.address();
            (Bound::Streams(socket), address)
        };
        let (socket, address) = match endpoint.transport {
            Transport::Tcp => streams(TcpListener::bind(&endpoint.address).await.map_err(failed)?.into()),
            Transport::Unix => {
                let socket = UnixSocket::bind(Path::new(&endpoint.address)).await.map_err(failed)?;
                streams(Socket::Unix(socket))
            }
            Transport::Udp(settings) => {
                let socket = udp::bind(&endpoint.address, settings).await.map_err(failed)?;
                let address = socket.local_addr().map(Address::Ip);
                (Bound::Packets(socket, settings), address)
            }
        };
        Ok(Self { socket, handshake, address: address.map_err(failed)? })
    }

    pub fn address(&self) -> &Address {
        &self.address
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
            Bound::Streams(socket) => {
                let port = address.port().unwrap_or(0);
                let serve = move |stream, peer: SocketAddr| {
                    let from = Origin { port, peer: peer.ip().to_canonical() };
                    serve_stream(stream, Arc::clone(&opened), from)
                };
                let bounds = accept::Bounds {
                    connections_max: CONNECTIONS_MAX,
                    patience: accept::Patience { first_words: HEADER_WAIT_MAX, ..Default::default() },
                    dismissed: door.receiver().metrics.dismissed.clone(),
                };
                (door, accept::accept(socket, address, bounds, shutdown, serve).boxed())
            }
            Bound::Packets(socket, settings) => (door, udp::serve(socket, address, settings, opened, shutdown).boxed()),
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
    /// As configured; 0 where there is none.
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
    let Limits { streams_max, waits, connection_age, .. } = door.receiver().limits;
    let streams_max = streams_max.unwrap_or(STREAMS_MAX);
    let mut server = auto::Builder::new(TokioExecutor::new());
    // Who closes its side once it has sent everything is answered all the same.
    server.http1().timer(TokioTimer::new()).header_read_timeout(waits.head_max).half_close(true);
    server.http1().keep_alive(waits.keeps_http);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(waits.ping_interval)
        .keep_alive_timeout(waits.ping_wait_max);
    let calls = Calls::watched(waits.http_idle_max, waits.grpc_idle_max).map(Arc::new);
    let counted = calls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let behind = door.behind.load_full();
        let call = counted.as_ref().map(|calls| calls.begin(request.version()));
        // Apart: every connection has room for one future of this kind, whether it asks anything or not.
        Box::pin(async move {
            let response = answer(&behind, from, request).await;
            drop(call);
            Ok::<_, Infallible>(response)
        })
    });
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let end = stop.child_token();
    let ageing = async {
        let aged = async {
            match connection_age {
                Some(age) => tokio::time::sleep(age.one()).await,
                None => std::future::pending().await,
            }
        };
        let idle = async {
            match &calls {
                Some(calls) => calls.idle().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = aged => {}
            () = idle => {}
        }
        end.cancel();
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
