//! The accept loop that every port of the process has: bounded, never closed by clients that say nothing, ends in order.

mod connections;
mod idle;
mod socket;

pub use connections::{Connection, Patience};
pub use idle::Calls;
pub use socket::{Address, Socket, UnixSocket};

use connections::Connections;
use prometheus_client::metrics::counter::Counter;
use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections a port has at most, how long they may be silent, and what counts those that were closed for it.
pub struct Bounds {
    pub connections_max: usize,
    pub patience: Patience,
    pub dismissed: Counter,
}

/// Hands every connection to a task of `serve` as soon as its client says something: what a protocol needs is not made
/// for those that are silent, which then cost next to nothing. When there are as many as may be, the longest silent ones
/// are closed for those that come; while none is silent, more wait in the kernel's queue. After `shutdown` the port is
/// closed; returns when the connections have ended, which `serve` must see to.
pub async fn accept<F: Future<Output = ()> + Send + 'static>(
    socket: Socket,
    address: Address,
    bounds: Bounds,
    shutdown: CancellationToken,
    serve: impl Fn(Connection, SocketAddr) -> F + Send + Sync + 'static,
) {
    let serve = Arc::new(serve);
    let tasks = TaskTracker::new();
    let connections = Connections::new(address.clone(), bounds.connections_max, bounds.patience);
    let mut look = tokio::time::interval(bounds.patience.look_interval);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            _ = look.tick() => {
                connections.dismiss_speechless();
                continue;
            }
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = shutdown.run_until_cancelled(connections.place()).await else { break };
                let (serve, shutdown) = (Arc::clone(&serve), shutdown.clone());
                let (connection, dismissed) = (place.connection(stream), bounds.dismissed.clone());
                tasks.spawn(async move {
                    let served = async {
                        // One that has said nothing has begun nothing that could be finished.
                        if let Some(Ok(())) = shutdown.run_until_cancelled(connection.first_byte()).await {
                            // Apart, so that a silent one does not have its size.
                            Box::pin(serve(connection, peer)).await;
                        }
                    };
                    if !place.hold(served).await {
                        dismissed.inc();
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, %address, "a connection could not be accepted");
                // What one more needs, the longest silent one may have.
                connections.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    tasks.close();
    tasks.wait().await;
}

/// Drives a connection to its end. After `stop` it is told to `finish`, and has as long as `patience` for what it has begun.
pub async fn drive<C: Future<Output = Result<(), E>>, E: Display, P: Future<Output = ()>>(
    connection: C,
    stop: &CancellationToken,
    patience: impl FnOnce() -> P,
    finish: impl FnOnce(Pin<&mut C>),
) {
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            finish(connection.as_mut());
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = patience() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests;
