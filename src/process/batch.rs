//! The `batch` processor: kept as the grouping of what is forwarded.
//!
//! Intake needs no batching (the spool joins what arrives together), so nothing runs here; destinations read
//! [`settings::BatchSettings`] from their pipeline's chain. What a Collector loses in this processor at a crash is on
//! disk here.

pub mod settings;
