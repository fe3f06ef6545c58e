//! The `zipkin` receiver.

pub mod convert;
pub(super) mod http;
pub mod settings;

pub use convert::{ConvertError, Format, Rules, to_request};
