//! A bound port: accepts connections, tells the protocols apart, and ends in order.

use super::settings::ServerTlsSettings;
use super::{Receiver, grpc, http, tls};
use crate::receive::answer::AnswerBody;
use ::http::{HeaderMap, Request, Response, header};
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
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
/// How long running requests may take to end after shutdown began.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Sizes and paths that the receiver's configuration sets.
#[derive(Debug, Clone)]
pub struct Limits {
    pub grpc_message_bytes_max: usize,
    pub http_body_bytes_max: usize,
    pub streams_max: Option<u32>,
    pub paths: Paths,
}

/// URL paths by signal.
#[derive(Debug, Clone)]
pub struct Paths {
    pub traces: String,
    pub metrics: String,
    pub logs: String,
}

/// Where to listen.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    pub tls: Option<ServerTlsSettings>,
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
    tls: Option<tokio_rustls::TlsAcceptor>,
    address: SocketAddr,
}

impl Listener {
    pub async fn bind(endpoint: &Endpoint) -> Result<Self, ListenError> {
        let failed = |problem| ListenError::Bind { address: endpoint.address.clone(), problem };
        let tls = endpoint
            .tls
            .as_ref()
            .map(tls::acceptor)
            .transpose()
            .map_err(|problem| ListenError::Tls { address: endpoint.address.clone(), problem })?;
        let socket = TcpListener::bind(&endpoint.address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, tls, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`; then no more connections, and those that are open finish what they have begun.
    pub async fn serve(self, receiver: Arc<Receiver>, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = async {
                    // The semaphore is never closed.
                    let permit = Arc::clone(&room).acquire_owned().await.ok();
                    (self.socket.accept().await, permit)
                } => accepted,
            };
            match accepted {
                (Ok((stream, peer)), permit) => {
                    let (receiver, shutdown, tls) = (Arc::clone(&receiver), shutdown.clone(), self.tls.clone());
                    let from = Origin { port: self.address.port(), peer: peer.ip().to_canonical() };
                    connections.spawn(async move {
                        receiver.metrics.connections.inc();
                        if let Some(witness) = &receiver.witness {
                            witness.connected(from.peer);
                        }
                        serve_stream(stream, tls, &receiver, from, shutdown).await;
                        receiver.metrics.connections.dec();
                        drop(permit);
                    });
                }
                (Err(error), _) => {
                    tracing::warn!(%error, address = %self.address, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
    }
}

/// Where a request came in, and from whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// As configured.
    pub port: u16,
    pub peer: IpAddr,
}

async fn serve_stream(
    stream: TcpStream,
    tls: Option<tokio_rustls::TlsAcceptor>,
    receiver: &Arc<Receiver>,
    from: Origin,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve_connection(stream, receiver, from, shutdown).await,
        Some(tls) => match tokio::time::timeout(TLS_HANDSHAKE_MAX, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve_connection(stream, receiver, from, shutdown).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, port = from.port, "TLS handshake failed");
                receiver.count(from, "tls", "handshake");
            }
            Err(_) => receiver.count(from, "tls", "handshake"),
        },
    }
}

async fn serve_connection<S>(stream: S, receiver: &Arc<Receiver>, from: Origin, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_WAIT_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(receiver.limits.streams_max.unwrap_or(STREAMS_MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_WAIT_MAX);
    let service = service_fn(move |request| {
        let receiver = Arc::clone(receiver);
        async move { Ok::<_, Infallible>(answer(&receiver, from, request).await) }
    });
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_MAX, connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, port = from.port, "a connection ended early");
    }
}

async fn answer(receiver: &Receiver, from: Origin, request: Request<Incoming>) -> Response<AnswerBody> {
    let (protocol, (response, outcome)) = if is_grpc(request.headers()) {
        ("grpc", grpc::serve(receiver, from.peer, request).await)
    } else {
        (http::protocol(request.headers()), http::serve(receiver, from.peer, request).await)
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
