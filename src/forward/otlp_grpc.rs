//! The `otlp_grpc` (alias `otlp`) exporter: unary gRPC over hyper's HTTP/2 client.
//!
//! No gRPC library: a client that cannot send an already compressed message would have to inflate what the spool stored.
//! What is left of the protocol is a five-byte prefix, a few headers, and the trailers.

mod client;
mod connections;
pub mod settings;

pub(super) use client::Client;
