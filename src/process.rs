//! The processor traits and the processors.
//!
//! In: the processors that a pipeline names, in order. Out: a [`Chain`] that every request of the pipeline passes, and
//! what the pipeline asks of those who forward it ([`Chain::batch`]). [`connector`] is what stands between pipelines.
//!
//! `memory_limiter` and `batch` never look inside a request, so its bytes pass untouched. The others are [`Editor`]s: they
//! share one reading of the request ([`crate::otlp::edit`]), and only what they change is written anew. The room must not
//! know where requests come from or go.

pub mod actions;
pub mod attributes;
pub mod batch;
pub mod chain;
pub mod client;
pub mod connector;
pub mod filter;
pub mod k8s_attributes;
pub mod memory_limiter;
pub mod ottl;
pub mod pattern;
pub mod probabilistic_sampler;
pub mod queue_batch;
pub mod resource;
pub mod resource_detection;
pub mod settings;
pub mod surroundings;
pub mod tail_sampling;
#[cfg(test)]
mod testing;
pub mod text;
pub mod transform;

pub use chain::{Chain, ProcessError, Processed};
pub use client::{Client, ClientMetadata};
pub use surroundings::Surroundings;

use self::attributes::Attributes;
use self::filter::Filter;
use self::k8s_attributes::K8sAttributes;
use self::memory_limiter::MemoryLimiter;
use self::probabilistic_sampler::ProbabilisticSampler;
use self::resource::Resource;
use self::resource_detection::ResourceDetection;
use self::settings::ProcessorSettings;
use self::transform::Transform;
use crate::otlp::edit::{self, Item, Place, Traces};
use std::ops::AddAssign;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A request is not wanted right now; the client may send it again. The text is what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub &'static str);

/// A processor could not do its work on a request and was configured to say so; the client is told not to send it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// A running processor.
pub trait Processor: Send + Sync + 'static {
    /// Asked before a request is read into memory.
    fn admit(&self) -> Result<(), Refused> {
        Ok(())
    }

    /// What changes the resources of requests of every signal. A processor that has this has no other editor.
    fn resource_editor(&self) -> Option<&dyn ResourceEditor> {
        None
    }

    /// What looks into requests of traces, if it does.
    fn editor(&self) -> Option<&dyn Editor> {
        None
    }

    /// What looks into requests of metrics and logs, if it does.
    fn item_editor(&self) -> Option<&dyn ItemEditor> {
        None
    }
}

/// Looks into requests, changes them, takes spans out.
pub trait Editor: Send + Sync {
    /// Changes `traces` in place. Called on many threads at once; must not block. `'a` lets constants of the processor be
    /// put into the request without copying them.
    fn edit<'a>(&'a self, traces: &mut Traces<'a>, client: &'a Client) -> Result<Removed, Failed>;
}

/// Changes resources and nothing else, and so serves every signal.
pub trait ResourceEditor: Send + Sync {
    /// As [`Editor::edit`], for the attributes of one resource.
    fn edit_resource<'a>(&'a self, attributes: &mut edit::Attributes<'a>, client: &'a Client);
}

/// Changes data points and log records.
pub trait ItemEditor: Send + Sync {
    /// As [`Editor::edit`], for one of them.
    fn edit_item<'a>(&'a self, place: &Place<'_, 'a>, item: &mut Item<'a>, client: &'a Client);
}

impl<T: ResourceEditor + ?Sized> Editor for T {
    fn edit<'a>(&'a self, traces: &mut Traces<'a>, client: &'a Client) -> Result<Removed, Failed> {
        for resource_spans in traces.resources.iter_mut() {
            self.edit_resource(resource_spans.resource.attributes_mut(), client);
        }
        Ok(Removed::default())
    }
}

/// Spans that an editor took out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// By a condition of the configuration: `dropped{reason="filtered"}` in the ledger.
    pub filtered: u64,
    /// By a sampler.
    pub sampled_out: u64,
}

impl Removed {
    pub fn filtered(spans: u64) -> Self {
        Self { filtered: spans, ..Self::default() }
    }

    pub fn sampled_out(spans: u64) -> Self {
        Self { sampled_out: spans, ..Self::default() }
    }
}

impl AddAssign for Removed {
    fn add_assign(&mut self, more: Self) {
        self.filtered += more.filtered;
        self.sampled_out += more.sampled_out;
    }
}

/// A processor cannot run here. The text stands on one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);

impl Chain {
    /// Builds the processors in order; those that need a task get one on `tasks`, until `shutdown`. May wait for the
    /// surroundings, as long as the settings say.
    ///
    /// # Errors
    /// The surroundings lack what a processor needs.
    pub async fn build(
        settings: &[&ProcessorSettings],
        surroundings: &Surroundings,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Self, BuildError> {
        let mut chain = Self::default();
        for settings in settings {
            match settings {
                ProcessorSettings::MemoryLimiter(settings) => {
                    let limiter = Arc::new(MemoryLimiter::new(settings));
                    tasks.spawn(Arc::clone(&limiter).watch(shutdown.clone()));
                    chain.push(limiter);
                }
                ProcessorSettings::Attributes(settings) => chain.push(Arc::new(Attributes::new(settings))),
                ProcessorSettings::Filter(settings) => chain.push(Arc::new(Filter::new(settings))),
                ProcessorSettings::Transform(settings) => chain.push(Arc::new(Transform::new(settings))),
                ProcessorSettings::K8sAttributes(settings) => {
                    let started = K8sAttributes::start(settings, surroundings, tasks, shutdown).await;
                    let failed = |problem| BuildError(format!("k8s_attributes: {problem}"));
                    chain.push(Arc::new(started.map_err(failed)?));
                }
                ProcessorSettings::ProbabilisticSampler(settings) => {
                    chain.push(Arc::new(ProbabilisticSampler::new(settings)));
                }
                ProcessorSettings::Resource(settings) => chain.push(Arc::new(Resource::new(settings))),
                ProcessorSettings::ResourceDetection(settings) => {
                    let detected = ResourceDetection::detect(settings, surroundings).await;
                    let failed = |problem| BuildError(format!("resource_detection: {problem}"));
                    chain.push(Arc::new(detected.map_err(failed)?));
                }
                // Of several, the last one groups what is sent, as in a Collector.
                ProcessorSettings::Batch(settings) | ProcessorSettings::QueueBatch(settings) => {
                    chain.batch = Some(settings.clone());
                }
                // Decides about what lies in the spool: requests pass.
                ProcessorSettings::TailSampling(settings) => chain.tail_sampling = Some(settings.clone()),
            }
        }
        Ok(chain)
    }
}
