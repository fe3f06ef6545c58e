//! The `batch` processor.

pub mod settings;
