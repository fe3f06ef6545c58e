//! Destinations: one cursor each, retry, split, bisect, dead letters.

pub mod debug;
pub mod otlp_grpc;
pub mod otlp_http;
pub mod settings;
