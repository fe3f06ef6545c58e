//! The processor trait and the processors.
//!
//! In: the processors that a pipeline names, in order. Out: a [`Chain`] that every request of the pipeline passes, and
//! what the pipeline asks of those who forward it ([`Chain::batch`]).
//!
//! `memory_limiter` and `batch` never look inside a request, so its bytes pass untouched. The room must not know where
//! requests come from or go.

pub mod batch;
pub mod memory_limiter;
pub mod settings;
pub mod tail_sampling;

use self::batch::settings::BatchSettings;
use self::memory_limiter::MemoryLimiter;
use self::settings::ProcessorSettings;
use self::tail_sampling::settings::TailSamplingSettings;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A request is not wanted right now; the client may send it again. The text is what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub &'static str);

/// A running processor.
pub trait Processor: Send + Sync + 'static {
    /// Asked before a request is read into memory.
    fn admit(&self) -> Result<(), Refused>;
}

/// The processors of one pipeline.
#[derive(Clone, Default)]
pub struct Chain {
    processors: Vec<Arc<dyn Processor>>,
    batch: Option<BatchSettings>,
    tail_sampling: Option<TailSamplingSettings>,
}

impl Chain {
    /// Builds the processors in order; those that need a task get one on `tasks`, until `shutdown`.
    pub fn build<'a>(
        settings: impl IntoIterator<Item = &'a ProcessorSettings>,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Self {
        let mut chain = Self::default();
        for settings in settings {
            match settings {
                ProcessorSettings::MemoryLimiter(settings) => {
                    let limiter = Arc::new(MemoryLimiter::new(settings));
                    tasks.spawn(Arc::clone(&limiter).watch(shutdown.clone()));
                    chain.processors.push(limiter);
                }
                // Of several, the last one groups what is sent, as in a Collector.
                ProcessorSettings::Batch(settings) => chain.batch = Some(settings.clone()),
                // Decides about what lies in the spool: requests pass.
                ProcessorSettings::TailSampling(settings) => chain.tail_sampling = Some(settings.clone()),
            }
        }
        chain
    }

    pub fn admit(&self) -> Result<(), Refused> {
        self.processors.iter().try_for_each(|processor| processor.admit())
    }

    /// How destinations group what they send.
    pub fn batch(&self) -> Option<&BatchSettings> {
        self.batch.as_ref()
    }

    /// Which of its traces destinations get.
    pub fn tail_sampling(&self) -> Option<&TailSamplingSettings> {
        self.tail_sampling.as_ref()
    }
}
