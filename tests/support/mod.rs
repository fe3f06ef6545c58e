//! What the scenario tests and the load rig share: real processes, real clients, and the checks of the promises.
//!
//! Every wait in here is bounded and says in its panic what it waited for; every process is killed with its owner.
//! The two programs of tests and the benchmarks each compile a copy and use a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod compression;
pub mod http;
pub mod ledger;
pub mod metrics;
pub mod otelcol;
pub mod otlp;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod query;
pub mod spanreel;
pub mod traces;

use std::future::Future;
use std::time::{Duration, Instant};

/// How often a condition is looked at again.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds; panics with `what` after `bound`.
pub async fn eventually<F: Future<Output = bool>>(what: &str, bound: Duration, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + bound;
    while !condition().await {
        assert!(Instant::now() < deadline, "still not so after {bound:?}: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
