//! Connections that are open and have nothing to do, where a configuration bounds that.

use http::Version;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The requests of one connection.
pub struct Calls {
    running: watch::Sender<Running>,
    http_idle_max: Option<Duration>,
    grpc_idle_max: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Running {
    calls: usize,
    /// When that number was reached.
    since: Instant,
    is_http1: bool,
}

/// A request that is answered; over when it is dropped.
pub struct Call(watch::Sender<Running>);

impl Calls {
    /// `None`: nothing is bounded.
    pub fn watched(http_idle_max: Option<Duration>, grpc_idle_max: Option<Duration>) -> Option<Self> {
        http_idle_max.or(grpc_idle_max)?;
        let none = Running { calls: 0, since: Instant::now(), is_http1: false };
        Some(Self { running: watch::Sender::new(none), http_idle_max, grpc_idle_max })
    }

    pub fn begin(&self, version: Version) -> Call {
        self.running.send_modify(|running| {
            running.calls += 1;
            running.is_http1 = version < Version::HTTP_2;
        });
        Call(self.running.clone())
    }

    /// Ends when there was nothing to do for as long as may be.
    pub async fn idle(&self) {
        let mut changes = self.running.subscribe();
        loop {
            let running = *changes.borrow_and_update();
            let max = if running.is_http1 { self.http_idle_max } else { self.grpc_idle_max };
            let change = changes.changed();
            match max.filter(|_| running.calls == 0) {
                Some(max) => match tokio::time::timeout_at(running.since + max, change).await {
                    Ok(_) => {}
                    Err(_) => return,
                },
                // The sender is ours: there will be a change, or nobody to wait for it.
                None => drop(change.await),
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|running| {
            running.calls -= 1;
            running.since = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_connection_is_idle_when_its_last_call_is_over_for_so_long() {
        let calls = Calls::watched(Some(MAX), None).unwrap();
        let (one, two) = (calls.begin(Version::HTTP_11), calls.begin(Version::HTTP_11));
        drop(one);
        assert!(tokio::time::timeout(3 * MAX, calls.idle()).await.is_err(), "one is running");
        let over = Instant::now();
        drop(two);
        calls.idle().await;
        assert!(over.elapsed() >= MAX);
    }

    #[test]
    fn without_a_bound_nothing_is_watched() {
        assert!(Calls::watched(None, None).is_none());
    }
}
