//! The plain HTTP server (HTTP/1.1 and h2c on one port) behind the query API, health checks and own metrics.

use super::StartError;
use axum::Router;
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 2_000;
const STREAMS_MAX: u32 = 128;
const HEADER_WAIT_MAX: Duration = Duration::from_secs(75);
/// How long running requests may take to end once the process stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port.
pub(super) struct HttpServer {
    socket: TcpListener,
    address: SocketAddr,
}

pub(super) async fn bind(endpoint: &str) -> Result<HttpServer, StartError> {
    let failed = |problem| StartError::Bind { address: endpoint.to_owned(), problem };
    let socket = TcpListener::bind(super::pipelines::bindable(endpoint)).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok(HttpServer { socket, address })
}

/// A response in the format that Prometheus negotiates first.
pub(super) fn open_metrics(text: String) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(http::header::CONTENT_TYPE, content_type)], text).into_response()
}

impl HttpServer {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn serve(self, router: Router, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let (accepted, permit) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = async {
                    // The semaphore is never closed.
                    let permit = Arc::clone(&room).acquire_owned().await.ok();
                    (self.socket.accept().await, permit)
                } => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (router, shutdown) = (router.clone(), shutdown.clone());
                    connections.spawn(async move {
                        serve_connection(stream, router, shutdown).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, address = %self.address, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        connections.close();
        connections.wait().await;
    }
}

async fn serve_connection(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_WAIT_MAX);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
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
        tracing::debug!(%error, "a connection ended early");
    }
}
