//! The modules that read what comes from outside, as the targets see them.

#[path = "../../src"]
mod sources {
    pub mod config;
    pub mod otlp;
    pub mod traceql;
    /// Without the processors, which need a runtime.
    pub mod process {
        pub mod ottl;
        pub mod pattern;

        #[derive(Debug)]
        pub struct Failed(pub String);
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

pub use sources::{config, otlp, process, receive, traceql};
