//! The `debug` exporter.

pub mod settings;
