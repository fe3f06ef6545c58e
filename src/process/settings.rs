//! What processors can be configured.

/// The settings of one configured processor.
#[derive(Debug, Clone, PartialEq)]
pub enum ProcessorSettings {
    Attributes(super::attributes::settings::AttributesSettings),
    Filter(super::filter::settings::FilterSettings),
    MemoryLimiter(super::memory_limiter::settings::MemoryLimiterSettings),
    Batch(super::batch::settings::BatchSettings),
    ProbabilisticSampler(super::probabilistic_sampler::settings::ProbabilisticSamplerSettings),
    Resource(super::resource::settings::ResourceSettings),
    Transform(super::transform::settings::TransformSettings),
    TailSampling(super::tail_sampling::settings::TailSamplingSettings),
}
