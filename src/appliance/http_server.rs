//! The plain HTTP server (HTTP/1.1 and h2c on one port) behind the query API, health checks and own metrics.

mod stream;
mod target;
#[cfg(test)]
mod tests;

use super::StartError;
use crate::query::{Hangup, Peer};
use crate::receive::accept;
use crate::receive::listener::bindable;
use axum::Router;
use axum::response::{IntoResponse, Response};
use http::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::counter::Counter;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use stream::Watched;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Connections served at once. Then the longest silent ones are closed for those that come.
const CONNECTIONS_MAX: usize = 2_000;
const STREAMS_MAX: u32 = 128;
/// A header list of HTTP/2: a URL of 64 KiB, as over HTTP/1.1, and the rest.
const HEADER_LIST_BYTES_MAX: u32 = 80 * 1024;
const HEADER_WAIT_MAX: Duration = Duration::from_secs(75);
/// How long running requests may take to end once the process stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// A bound port.
pub(super) struct HttpServer {
    socket: TcpListener,
    address: SocketAddr,
    given_up: Counter,
}

pub(super) async fn bind(endpoint: &str) -> Result<HttpServer, StartError> {
    let failed = |problem| StartError::Bind { address: endpoint.to_owned(), problem };
    let socket = TcpListener::bind(bindable(endpoint)).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok(HttpServer { socket, address, given_up: Counter::default() })
}

/// A response in Prometheus' older text format, in which a Collector's names stand as they are.
pub(super) fn plain_text(text: String) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(http::header::CONTENT_TYPE, content_type)], text).into_response()
}

impl HttpServer {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts connections whose clients took nothing for too long where others can read it.
    pub fn counting(self, given_up: &Counter) -> Self {
        Self { given_up: given_up.clone(), ..self }
    }

    /// Serves until `shutdown`, then lets running requests end.
    pub async fn serve(self, router: Router, shutdown: CancellationToken) {
        let (stop, given_up) = (shutdown.clone(), self.given_up);
        let bounds = accept::Bounds {
            connections_max: CONNECTIONS_MAX,
            patience: accept::Patience { first_words: HEADER_WAIT_MAX, ..Default::default() },
            dismissed: Counter::default(),
        };
        accept::accept(self.socket.into(), accept::Address::Ip(self.address), bounds, shutdown, move |stream, peer| {
            let connection = CancellationToken::new();
            let service = Handlers { inner: TowerToHyperService::new(router.clone()), peer: Peer(peer), connection };
            serve_connection(stream, service, given_up.clone(), stop.clone())
        })
        .await;
    }
}

/// Tells the handlers who asks, and their answers how to end the connection.
#[derive(Clone)]
struct Handlers {
    inner: TowerToHyperService<Router>,
    peer: Peer,
    connection: CancellationToken,
}

impl Service<Request<Incoming>> for Handlers {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        let (answering, connection) = (self.inner.call(request), self.connection.clone());
        Box::pin(async move {
            let response = answering.await?;
            if let Some(hangup) = response.extensions().get::<Hangup>() {
                hangup.ends(&connection);
            }
            Ok(response)
        })
    }
}

async fn serve_connection(
    stream: accept::Connection,
    service: Handlers,
    given_up: Counter,
    shutdown: CancellationToken,
) {
    let hung_up = service.connection.clone();
    let stream = Watched::new(stream, given_up.clone());
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_WAIT_MAX);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    server.http2().max_header_list_size(HEADER_LIST_BYTES_MAX);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let driven = accept::drive(
        connection,
        &shutdown,
        || tokio::time::sleep(DRAIN_MAX),
        |connection| connection.graceful_shutdown(),
    );
    // Cut off: what is in its buffers nobody takes.
    if hung_up.run_until_cancelled(driven).await.is_none() {
        given_up.inc();
    }
}
