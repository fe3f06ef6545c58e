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

pub use feed::Feed;

use crate::process::tail_sampling::settings::TailSamplingSettings;
use crate::spool::{Consumer, ReadError, Seq, Spool, unix_nanos};
use decider::{Decider, Next};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
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
    pipeline: String,
    settings: TailSamplingSettings,
    spool: Spool,
    consumer: Consumer,
    /// Traces that are sampled out are marked for the store.
    marks: bool,
    decided: Arc<watch::Sender<Seq>>,
    metrics: SamplingMetrics,
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
    /// `consumer` is the decider's own cursor in the pipeline; what it noted before holds.
    pub fn new(
        pipeline: &str,
        settings: &TailSamplingSettings,
        spool: &Spool,
        consumer: Consumer,
        metrics: &SamplingMetrics,
    ) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            settings: settings.clone(),
            spool: spool.clone(),
            decided: Arc::new(watch::channel(consumer.position()).0),
            consumer,
            marks: false,
            metrics: metrics.clone(),
        }
    }

    /// One that marks what it leaves out, for a store that keeps it for a time of its own.
    pub fn marking(self) -> Self {
        Self { marks: true, ..self }
    }

    /// Other settings from where this one stands; feeds stay. To be run once this one has ended.
    pub fn with_settings(&self, settings: &TailSamplingSettings) -> Self {
        Self { settings: settings.clone(), ..self.clone() }
    }

    pub fn settings(&self) -> &TailSamplingSettings {
        &self.settings
    }

    /// The decider's cursor.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// What destinations of the pipeline read instead of the spool; `consumer` is the destination's cursor.
    pub fn feed(&self, consumer: Consumer) -> Feed {
        Feed::sampled(consumer, self.consumer.clone(), self.decided.subscribe())
    }

    /// Decides until `shutdown`. What is undecided then stays on disk.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut decider = None;
        while !shutdown.is_cancelled() {
            let pause = match self.step(&mut decider).await {
                Ok(Next::Now) => Duration::ZERO,
                Ok(Next::Later) => {
                    (self.settings.decision_wait / LOOK_SHARE).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX)
                }
                Err(problem) => {
                    tracing::error!(pipeline = self.pipeline, error = %problem, "tail_sampling cannot read the spool or move on; trying again");
                    SPOOL_RETRY
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// A step of the decider, which is opened for the first one.
    async fn step(&self, decider: &mut Option<Decider>) -> Result<Next, ReadError> {
        let (opened, sampling) = (decider.take(), self.clone());
        let work = move || -> Result<(Decider, Next), ReadError> {
            let mut decider = match opened {
                Some(decider) => decider,
                None => Decider::open(&sampling)?,
            };
            let next = decider.step(unix_nanos())?;
            Ok((decider, next))
        };
        let (worked, next) = match tokio::task::spawn_blocking(work).await {
            Ok(worked) => worked?,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        };
        *decider = Some(worked);
        self.decided.send_replace(self.consumer.position());
        Ok(next)
    }
}
