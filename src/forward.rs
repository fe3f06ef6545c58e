//! Destinations: what lies in the spool goes to other systems, each at its own pace, each span accounted for.
//!
//! In: batches, by one [`Consumer`] (a durable cursor) per destination. Out: OTLP/gRPC or OTLP/HTTP requests, or lines
//! in the log, and what became of the spans, booked together with the cursor.
//!
//! ```text
//! consumer ─▶ cutter ─▶ request ─▶ deliver ─▶ link (gate, codec) ─▶ transport ─▶ destination
//!    ▲                                │  split, bisect, park
//!    └── window: finished prefix ◀────┘
//! ```
//!
//! Bias: keep the spans. A destination that is away, overloaded, misconfigured, or refuses everything costs disk and a
//! log line, never data; only what is proven to be the culprit is parked. At least once: a request whose answer was lost
//! goes again. Invariants: `sent + lost` is what was read, exactly; the cursor passes finished requests only, in order;
//! stored frames are not inflated unless the destination demands it; bodies under way are bounded for all together. The room must not know who filled the spool.

mod answer;
mod body;
mod breaks;
mod budget;
mod connect;
pub mod credentials;
mod cutter;
pub mod dead_letter;
pub mod debug;
mod deliver;
pub mod delivery;
mod engine;
pub mod file;
mod gate;
mod headers;
mod link;
mod metrics;
pub mod otlp_grpc;
pub mod otlp_http;
mod pace;
mod post;
pub mod prometheus;
mod proxy;
mod request;
mod retry;
mod sampling;
pub mod settings;
mod sizes;
mod status;
#[cfg(test)]
mod testing;
mod turns;
mod window;

pub use budget::{Budget, Memory};
pub use connect::TargetError;
pub use headers::HeaderError as BuildError;
pub use metrics::Metrics;
pub use post::{Posted, Poster};
pub use sampling::{Feed, Sampling, SamplingMetrics};
pub use status::{LastError, State, Status};

use crate::otlp::Signal;
use crate::process::batch::settings::BatchSettings;
use body::Dialect;
use credentials::Credentials;
use dead_letter::DeadFrame;
use delivery::DeliverySettings;
use engine::Engine;
use link::Link;
use otlp_http::settings::Encoding;
use settings::{Compression, ExporterSettings, RetrySettings};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// One exporter of one pipeline, at work once it runs.
pub struct Destination {
    kind: Kind,
}

enum Kind {
    Grpc(Engine<Feed, otlp_grpc::Client>),
    Http(Engine<Feed, otlp_http::Client>),
    Debug(Engine<Feed, debug::Printer>),
    File(Engine<Feed, file::Writer>),
    Prometheus(Engine<Feed, prometheus::Shower>),
}

/// What a destination needs besides its own settings.
#[derive(Clone)]
pub struct Surroundings<'a> {
    /// Its pipeline's.
    pub signal: Signal,
    /// The settings of the pipeline's `batch` processor, if it has one.
    pub batch: Option<&'a BatchSettings>,
    pub delivery: &'a DeliverySettings,
    /// What it says it is, where its settings name an authenticator.
    pub credentials: Option<Arc<dyn Credentials>>,
    pub metrics: &'a Metrics,
    /// The memory that all destinations share.
    pub budget: &'a Budget,
}

impl Destination {
    /// `name` is what logs and metrics call it; `feed` is what it reads. Opens no connection and no file.
    ///
    /// # Errors
    /// If the endpoint, a header, or a file that TLS needs is not usable.
    pub fn build(
        name: &str,
        settings: &ExporterSettings,
        feed: impl Into<Feed>,
        around: Surroundings<'_>,
    ) -> Result<Self, BuildError> {
        let (pages, files) = (around.metrics.pages.clone(), around.metrics.files.clone());
        let Surroundings { signal, batch, delivery, credentials, metrics, budget } = around;
        let (metrics, feed) = (metrics.of(name), feed.into());
        let kind = match settings {
            ExporterSettings::OtlpGrpc(settings) => {
                let client = otlp_grpc::Client::new(settings, signal, credentials)?;
                let retry = settings.retry.clone();
                let link = Link::new(name, client, Dialect::Grpc, settings.compression, retry, metrics, budget);
                let link = link.delivering(delivery);
                Kind::Grpc(Engine::new(feed, link, batch, settings.queue.num_consumers))
            }
            ExporterSettings::OtlpHttp(settings) => {
                let client = otlp_http::Client::new(settings, signal, credentials)?;
                let dialect = match settings.encoding {
                    Encoding::Proto => Dialect::HttpProtobuf,
                    Encoding::Json => Dialect::HttpJson,
                };
                let retry = settings.retry.clone();
                let link = Link::new(name, client, dialect, settings.compression, retry, metrics, budget);
                let link = link.delivering(delivery);
                Kind::Http(Engine::new(feed, link, batch, settings.queue.num_consumers))
            }
            ExporterSettings::Debug(settings) => {
                let printer = debug::Printer::new(name, settings, signal);
                let retry = RetrySettings::default();
                let link = Link::new(name, printer, Dialect::Plain, Compression::None, retry, metrics, budget);
                // One at a time: lines in the order of the spool.
                Kind::Debug(Engine::new(feed, link.delivering(delivery), batch, 1))
            }
            ExporterSettings::File(settings) => {
                let writer = file::Writer::new(settings, signal, &files);
                let retry = RetrySettings::default();
                let link = Link::new(name, writer, Dialect::Plain, Compression::None, retry, metrics, budget);
                // One at a time: lines in the order of the spool.
                Kind::File(Engine::new(feed, link.delivering(delivery), batch, 1))
            }
            ExporterSettings::Prometheus(settings) => {
                let shower = prometheus::Shower(pages.page(settings, budget));
                let retry = RetrySettings::default();
                let link = Link::new(name, shower, Dialect::Plain, Compression::None, retry, metrics, budget);
                // One at a time: later points after earlier ones.
                Kind::Prometheus(Engine::new(feed, link.delivering(delivery), batch, 1))
            }
        };
        Ok(Self { kind })
    }

    /// Forwards until `shutdown` is cancelled, then gives requests under way two seconds and books what is finished.
    pub async fn run(&self, shutdown: CancellationToken) {
        match &self.kind {
            Kind::Grpc(engine) => engine.run(shutdown).await,
            Kind::Http(engine) => engine.run(shutdown).await,
            Kind::Debug(engine) => engine.run(shutdown).await,
            Kind::File(engine) => engine.run(shutdown).await,
            Kind::Prometheus(engine) => engine.run(shutdown).await,
        }
    }

    /// Tries once more what was refused for good, beside everything else. `Ok`: taken, but for so many spans.
    ///
    /// # Errors
    /// It was not taken, in the destination's words, or could not be sent in time.
    pub async fn retry(&self, letter: DeadFrame) -> Result<u64, String> {
        match &self.kind {
            Kind::Grpc(engine) => dead_letter::retry(&engine.link, letter).await,
            Kind::Http(engine) => dead_letter::retry(&engine.link, letter).await,
            Kind::Debug(engine) => dead_letter::retry(&engine.link, letter).await,
            Kind::File(engine) => dead_letter::retry(&engine.link, letter).await,
            Kind::Prometheus(engine) => dead_letter::retry(&engine.link, letter).await,
        }
    }

    pub fn status(&self) -> Status {
        match &self.kind {
            Kind::Grpc(engine) => engine.link.status(),
            Kind::Http(engine) => engine.link.status(),
            Kind::Debug(engine) => engine.link.status(),
            Kind::File(engine) => engine.link.status(),
            Kind::Prometheus(engine) => engine.link.status(),
        }
    }

    /// What is to be served for whoever scrapes, if this destination has such a thing.
    pub fn page(&self) -> Option<Arc<prometheus::Page>> {
        match &self.kind {
            Kind::Prometheus(engine) => Some(Arc::clone(&engine.link.transport().0)),
            Kind::Grpc(_) | Kind::Http(_) | Kind::Debug(_) | Kind::File(_) => None,
        }
    }
}
