//! The `otlp` receiver.

pub mod settings;
