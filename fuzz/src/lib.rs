//! The modules that read bytes from outside, as the targets see them.

#[path = "../../src"]
mod sources {
    pub mod traceql;
}
#[path = "../../src/otlp/ids.rs"]
mod ids;

pub use sources::traceql;

pub mod otlp {
    pub use crate::ids::{SpanId, TraceId};
}
