//! The accept loop that every port of the process has: bounded, never closed by clients that say nothing, ends in order.

mod connections;

pub use connections::{Connection, Patience};

use connections::Connections;
use prometheus_client::metrics::counter::Counter;
use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::TcpListener;
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

/// Hands every connection to a task of `serve`. When there are as many as may be, the longest silent ones are closed for
/// those that come; while none is silent, more wait in the kernel's queue. After `shutdown` the port is closed; returns
/// when the connections have ended, which `serve` must see to.
pub async fn accept<F: Future<Output = ()> + Send + 'static>(
    socket: TcpListener,
    address: SocketAddr,
    bounds: Bounds,
    shutdown: CancellationToken,
    serve: impl Fn(Connection, SocketAddr) -> F,
) {
    let tasks = TaskTracker::new();
    let connections = Connections::new(address, bounds.connections_max, bounds.patience);
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
                let _ = stream.set_nodelay(true);
                let Some(place) = shutdown.run_until_cancelled(connections.place()).await else { break };
                let (served, dismissed) = (serve(place.connection(stream), peer), bounds.dismissed.clone());
                tasks.spawn(async move {
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
