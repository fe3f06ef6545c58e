//! The `otlp_grpc` (alias `otlp`) exporter.

pub mod settings;
