//! What processors can be configured.

/// The settings of one configured processor.
#[derive(Debug, Clone, PartialEq)]
pub enum ProcessorSettings {
    MemoryLimiter(super::memory_limiter::settings::MemoryLimiterSettings),
    Batch(super::batch::settings::BatchSettings),
    TailSampling(super::tail_sampling::settings::TailSamplingSettings),
}
