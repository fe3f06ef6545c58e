//! The `memory_limiter` processor.

pub mod settings;
