//! Keeps the life line fed with pods, and says now and then who never spoke.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::LifeLine;
use crate::cluster::events::Events;
use crate::cluster::index::Index;
use crate::cluster::retry::{State, is_expiry};

/// Whole pods are read, some KiB each; few at a time keep the memory of a list small.
const PAGE_PODS: u32 = 50;
/// Pods that are done say nothing more.
const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// How often it is looked who is silent.
const ROUND_INTERVAL: Duration = Duration::from_secs(15);
const ROUND_INTERVAL_MIN: Duration = Duration::from_millis(500);
/// Namespaces are often changed several at a time; then pods are listed once.
const NAMESPACES_PAUSE: Duration = Duration::from_secs(2);
/// Whoever may change a namespace must not be able to have all pods listed all the time.
const LIST_INTERVAL_MIN: Duration = Duration::from_secs(30);

/// Runs until `shutdown`.
pub(in crate::cluster) async fn follow(
    client: Client,
    index: Arc<Index>,
    line: Arc<LifeLine>,
    events: Events,
    shutdown: CancellationToken,
) {
    let mut synced = index.synced();
    // Before, nobody knows what namespaces ask for.
    match shutdown.run_until_cancelled(synced.wait_for(|synced| synced.all())).await {
        None | Some(Err(_)) => return,
        Some(Ok(_)) => {}
    }
    let mut state = State::new("watching pods");
    let mut changes = index.namespace_changes();
    let interval = (line.silent_after() / 4).clamp(ROUND_INTERVAL_MIN, ROUND_INTERVAL);
    let mut rounds = tokio::time::interval(interval);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        changes.borrow_and_update();
        let listed = Instant::now();
        let mut list_again = None;
        let config = watcher::Config::default().page_size(PAGE_PODS).fields(UNFINISHED);
        let mut pods = pin!(watcher(Api::<Pod>::all(client.clone()), config).default_backoff());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                // Pods that did not ask are not kept: if their namespace asks from now on, they are to be read again.
                changed = changes.changed(), if list_again.is_none() => match changed {
                    Ok(()) => list_again = Some((Instant::now() + NAMESPACES_PAUSE).max(listed + LIST_INTERVAL_MIN)),
                    Err(_) => return,
                },
                () = at(list_again) => break,
                _ = rounds.tick() => {
                    line.round(Timestamp::now()).into_iter().for_each(|note| events.publish(note));
                }
                event = pods.next() => match event {
                    Some(Ok(event)) => {
                        state.ok();
                        line.on_pod(&event, |namespace| index.namespace(namespace));
                    }
                    Some(Err(error)) if is_expiry(&error) => {}
                    Some(Err(error)) => state.failed(&error),
                    None => break,
                },
            }
        }
    }
}

/// Never, if there is no time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
