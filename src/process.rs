//! The processor trait and the processors.

pub mod batch;
pub mod memory_limiter;
pub mod settings;
