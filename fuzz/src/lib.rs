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

    #[allow(dead_code, unused_imports)]
    pub mod query {
        mod call;
        mod engine;
        mod logfmt;
        mod parameters;
        mod tag_search;

        /// Without the answers that errors become.
        mod error {
            use super::parameters::ParameterError;
            use super::source::SourceError;
            use crate::traceql::control::Stopped;

            #[derive(Debug, thiserror::Error)]
            pub enum QueryError {
                #[error(transparent)]
                Parameter(#[from] ParameterError),
                #[error("invalid TraceQL query: {0}")]
                TraceQl(String),
                #[error("{0}")]
                Message(String),
                #[error("{0}")]
                Filter(String),
                #[error("please provide a valid tagName: {0}")]
                TagName(String),
                #[error("not a metrics query")]
                NoMetrics,
                #[error("no traces to show")]
                NoSearch,
                #[error(transparent)]
                Stopped(#[from] Stopped),
                #[error(transparent)]
                Source(#[from] SourceError),
            }

            impl QueryError {
                pub(super) fn is_busy(&self) -> bool {
                    matches!(self, Self::Stopped(Stopped::MemoryBusy(_)))
                }
            }
        }

        mod source {
            #[derive(Debug, thiserror::Error)]
            #[error("{self:?}")]
            pub enum SourceError {
                Read(String),
            }
        }

        /// A message as the request of each RPC of `tempopb.StreamingQuerier`.
        pub fn message(bytes: &[u8]) {
            use call::{InstantCall, RangeCall, SearchCall, TagNames, TagsCall, ValuesCall};

            let now = 1_700_000_000_000_000_000;
            let range = RangeCall::from_message(bytes, now);
            if let Ok(RangeCall { request, .. }) = &range {
                assert!(request.step > 0 && request.start <= request.end, "{request:?}");
            }
            let search = SearchCall::from_message(bytes, now);
            if let Ok(SearchCall { request, .. }) = &search {
                assert!(request.limit > 0 && request.start <= request.end, "{request:?}");
            }
            let refused = [
                range.err(),
                search.err(),
                InstantCall::from_message(bytes, now).err(),
                TagsCall::from_message(bytes, now).err(),
                ValuesCall::from_message(bytes, TagNames::Plain, now).err(),
                ValuesCall::from_message(bytes, TagNames::TraceQl, now).err(),
            ];
            for error in refused.into_iter().flatten() {
                assert!(!error.to_string().is_empty());
            }
        }

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

use sources::otlp::TraceId;
use sources::traceql::ast::{Query, Root};
use sources::traceql::control::Control;
use sources::traceql::request::{InstantRequest, SearchRequest};
use sources::traceql::search::Nobody;
use sources::traceql::segment::{Piece, Segment, SegmentError, Source};
use std::sync::Arc;

/// A source without spans.
struct Nothing;

impl Source for Nothing {
    fn segments(&self, _start: u64, _end: u64) -> Vec<Arc<dyn Segment>> {
        Vec::new()
    }

    fn pieces(&self, _trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        Ok(Vec::new())
    }

    fn may_be_split(&self, _segment: &dyn Segment, _trace: usize) -> bool {
        false
    }

    fn whole_since(&self) -> u64 {
        0
    }
}

/// Plans a query, and runs it where nothing is.
pub fn run(query: &Query) {
    let control = Control::new(std::time::Duration::from_secs(60), 64 << 20);
    match &query.root {
        Root::Search(_) => {
            let request =
                SearchRequest { start: 0, end: u64::MAX, limit: 20, spans_per_spanset: 3, overlapping: None };
            let _ = traceql::search::run(query, &request, &Nothing, &control, &mut Nobody);
        }
        Root::Metrics(_) => {
            let request = InstantRequest { start: 0, end: 1_000_000_000, series_max: 0 };
            let _ = traceql::metrics::instant(query, &request, &Nothing, &control, &mut |_| {});
        }
    }
}

pub use sources::{config, otlp, process, query, receive, store, traceql};
