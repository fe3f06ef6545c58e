//! What processors can be configured.

/// The settings of one configured processor.
#[derive(Debug, Clone, PartialEq)]
pub enum ProcessorSettings {
    Attributes(super::attributes::settings::AttributesSettings),
    Filter(super::filter::settings::FilterSettings),
    /// Boxed: it is far larger than the others.
    K8sAttributes(Box<super::k8s_attributes::settings::K8sAttributesSettings>),
    MemoryLimiter(super::memory_limiter::settings::MemoryLimiterSettings),
    Batch(super::batch::settings::BatchSettings),
    ProbabilisticSampler(super::probabilistic_sampler::settings::ProbabilisticSamplerSettings),
    /// As the grouping that it asks for.
    QueueBatch(super::batch::settings::BatchSettings),
    Resource(super::resource::settings::ResourceSettings),
    Transform(super::transform::settings::TransformSettings),
    ResourceDetection(super::resource_detection::settings::ResourceDetectionSettings),
    TailSampling(super::tail_sampling::settings::TailSamplingSettings),
}
