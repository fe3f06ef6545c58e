//! The `health_check` extension.

pub mod settings;
