//! The modules that read what comes from outside, as the targets see them. Of the rooms only what needs neither RocksDB nor
//! sockets.

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
        #[allow(dead_code)]
        pub mod admission;
        pub mod framing;
        pub mod inflate;
        pub mod jaeger {
            pub mod convert;
        }
        pub mod thrift;
        pub mod zipkin {
            pub mod convert;
        }
    }

    pub mod query {
        mod logfmt;
        #[allow(dead_code, unused_imports)]
        mod parameters;

        /// Everything that a parameter of a URL may be read as.
        pub fn parameter(text: &str) {
            use parameters::{go_duration, prometheus_duration, seconds_or_go_duration, signed, timestamp, unsigned};

            let times = (timestamp(text), go_duration(text), prometheus_duration(text), seconds_or_go_duration(text));
            let numbers = (unsigned(text), signed(text));
            for error in [times.0.err(), times.1.err(), times.2.err(), times.3.err(), numbers.0.err(), numbers.1.err()]
            {
                // What is wrong is said, but not at any length.
                assert!(error.is_none_or(|error| error.to_string().len() < 1024), "{text}");
            }
            let _ = logfmt::pairs(text);
        }
    }

    pub mod store {
        pub mod build;
        pub mod envelope;
        pub mod format;
    }
}

pub use sources::{config, otlp, process, query, receive, store, traceql};
