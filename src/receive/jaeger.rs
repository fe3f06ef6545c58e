//! The `jaeger` receiver.

pub mod convert;
pub(super) mod http;
pub mod settings;
pub mod udp;

pub use convert::{ConvertError, Format, to_request};

/// The call that brings spans by gRPC.
pub const POST_SPANS: &str = "/jaeger.api_v2.CollectorService/PostSpans";
