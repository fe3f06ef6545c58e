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
}

pub use sources::{config, otlp, process, traceql};
