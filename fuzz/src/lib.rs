//! The modules that read bytes from outside, as the targets see them.

#[path = "../../src"]
mod sources {
    pub mod traceql;
    pub mod otlp {
        pub mod draft;
        pub mod ids;
        pub mod json;
        pub mod scan;
        pub mod schema;
        pub mod view;
        pub mod wire;

        pub use ids::{SpanId, TraceId};
    }
    pub mod receive {
        pub mod jaeger {
            pub mod convert;
        }
        pub mod thrift;
        pub mod zipkin {
            pub mod convert;
        }
    }
}

pub use sources::{otlp, receive, traceql};
