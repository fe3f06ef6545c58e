//! Tail sampling: what of a pipeline its destinations get is decided here, on what lies in the spool.
//!
//! ```text
//!            older than decision_wait                          decided
//! spool ───────────────────────────────▶ decider ─▶ verdicts ─────────▶ feed ─▶ engine of each destination
//!   ▲  later batches of the same traces ◀──┘  (one write with the cursor)
//! ```
//!
//! Undecided spans are nowhere but on disk, so that waiting costs no memory and a crash loses no trace. A verdict is a bit
//! per trace of a batch and is written with the cursor of the decider; destinations read behind that cursor, and book
//! what was not wanted as `sampled_out`. Bias: keep. What cannot be read is not judged, and a batch without a verdict goes
//! out whole.

mod decider;
mod feed;
#[cfg(test)]
mod tests;
mod verdict;

pub(super) use feed::Feed;

use crate::process::tail_sampling::settings::TailSamplingSettings;
use crate::spool::{Consumer, Seq, Spool};
use decider::{Decider, Next};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

/// A decider looks so often for traces whose time has come: a share of the wait,
const LOOK_SHARE: u32 = 20;
/// within these bounds.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(100);
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(10);
/// The pause after the spool could not be read or moved on.
const SPOOL_RETRY: Duration = Duration::from_secs(1);

/// The sampling of one pipeline, at work once it runs. Cloning gives another handle.
#[derive(Clone)]
pub struct Sampling {
    decider: Arc<Mutex<Decider>>,
    decided: Arc<watch::Sender<Seq>>,
    consumer: Consumer,
    look_interval: Duration,
    name: String,
}

/// What was decided. Cloning gives another handle to the same counters.
#[derive(Debug, Clone, Default)]
pub struct SamplingMetrics {
    traces: Family<DecisionLabels, Counter>,
    again: Family<PipelineLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    pipeline: String,
    /// The policy that settled it; empty where none wanted the trace.
    policy: String,
    decision: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PipelineLabels {
    pipeline: String,
}

impl SamplingMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("spanreel_tail_sampling_traces", "Traces that were decided about", self.traces.clone());
        registry.register(
            "spanreel_tail_sampling_forgotten_decisions",
            "Decisions that num_traces had no room for; later spans of their traces are decided about on their own",
            self.again.clone(),
        );
    }
}

impl Sampling {
    /// `consumer` is the decider's own cursor in the pipeline. Reads what earlier ones left. Blocking.
    ///
    /// # Errors
    /// If the spool cannot be read.
    pub fn open(
        pipeline: &str,
        settings: &TailSamplingSettings,
        spool: &Spool,
        consumer: Consumer,
        metrics: &SamplingMetrics,
    ) -> Result<Self, crate::spool::ReadError> {
        let position = consumer.position();
        let decider = Decider::open(pipeline, settings, spool.clone(), consumer.clone(), metrics)?;
        let look_interval = (settings.decision_wait / LOOK_SHARE).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX);
        Ok(Self {
            decider: Arc::new(Mutex::new(decider)),
            decided: Arc::new(watch::channel(position).0),
            consumer,
            look_interval,
            name: pipeline.to_owned(),
        })
    }

    /// What destinations of the pipeline read instead of the spool; `consumer` is the destination's cursor.
    pub(super) fn feed(&self, consumer: Consumer) -> Feed {
        Feed::sampled(consumer, self.consumer.clone(), self.decided.subscribe())
    }

    /// The decider's cursor.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// Decides until `shutdown`. What is undecided then stays on disk.
    pub async fn run(&self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let pause = match self.step().await {
                Ok(Next::Now) => Duration::ZERO,
                Ok(Next::Later) => self.look_interval,
                Err(problem) => {
                    tracing::error!(pipeline = self.name, error = %problem, "tail_sampling cannot read the spool or move on; trying again");
                    SPOOL_RETRY
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn step(&self) -> Result<Next, crate::spool::ReadError> {
        // One step at a time: after a panic, or an exchange of settings, another run may begin while this one ends.
        let mut decider = Arc::clone(&self.decider).lock_owned().await;
        let work = move || decider.step(crate::spool::unix_nanos());
        let next = match tokio::task::spawn_blocking(work).await {
            Ok(next) => next?,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        };
        self.decided.send_replace(self.consumer.position());
        Ok(next)
    }
}
