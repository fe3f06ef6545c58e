//! The `otlp_http` (alias `otlphttp`) exporter.

pub mod settings;
