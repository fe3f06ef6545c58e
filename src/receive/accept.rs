//! The accept loop that every port of the process has: bounded, ends in order.

use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Hands every connection to a task of `serve`, at most `connections_max` at once; more wait in the kernel's queue.
/// After `shutdown` the port is closed; returns when the connections have ended, which `serve` must see to.
pub async fn accept<F: Future<Output = ()> + Send + 'static>(
    socket: TcpListener,
    address: SocketAddr,
    connections_max: usize,
    shutdown: CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) {
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(connections_max));
    loop {
        let (accepted, permit) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&room).acquire_owned().await.ok();
                (socket.accept().await, permit)
            } => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                let served = serve(stream, peer);
                connections.spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, %address, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    connections.close();
    connections.wait().await;
}

/// Drives a connection to its end. After `stop` it is told to `finish`, and has `drain_max` for what it has begun.
pub async fn drive<C: Future<Output = Result<(), E>>, E: Display>(
    connection: C,
    stop: &CancellationToken,
    drain_max: Duration,
    finish: impl FnOnce(Pin<&mut C>),
) {
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            finish(connection.as_mut());
            match tokio::time::timeout(drain_max, connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
