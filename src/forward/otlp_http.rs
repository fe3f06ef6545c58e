//! The `otlp_http` (alias `otlphttp`) exporter: POST over HTTP/1.1, protobuf or JSON.

mod client;
mod cookies;
pub mod settings;

pub(super) use client::Client;
