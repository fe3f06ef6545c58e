//! Span metrics and service graph: what Prometheus and Grafana learn about spans, counted once, when they become durable.
//!
//! ```text
//! request ─▶ facts ─▶ spans  calls, latency, size by service and operation ─▶ page, remote write, OTLP
//!                └──▶ graph  pairs of client and server, by trace and span id ┘
//! ```
//!
//! In: bytes of requests that the scan accepted. Out: readings of series ([`Red::read`]) under the names that Tempo's
//! metrics-generator uses, or those of the Collector's connectors.
//!
//! Invariants: nothing is allocated for a span of a known series; the number of series, of pairs that wait, and the length
//! of a label are bounded, and what did not fit is counted. The room does no I/O; sending is [`remote_write`]'s.

pub mod connector;
pub mod exponential;
pub mod exposition;
pub mod extrapolation;
pub mod facts;
pub mod glob;
pub mod graph;
pub mod histogram;
pub mod labels;
pub mod metrics;
pub mod otlp;
pub mod remote_write;
pub mod resources;
pub mod settings;
pub mod spans;
pub mod symbols;
pub mod table;

pub use metrics::RedCollector;
pub use settings::RedSettings;

use crate::otlp::view::messages;
use exponential::Exponential;
use facts::{Facts, Keys, Resource};
use graph::ServiceGraph;
use histogram::{Bounds, Histogram};
use labels::Labels;
use spans::{Seen, SpanMetrics};
use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The moment of an observation, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Since the counting began: what waits and what goes stale is judged by it.
    pub uptime_millis: u64,
    /// Unix time: what exemplars carry.
    pub unix_millis: u64,
}

/// What a family of metrics is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its samples are named `NAME_total`.
    Counter,
    Gauge,
    /// Its samples are named `NAME_bucket`, `NAME_sum` and `NAME_count`.
    Histogram,
    /// Only connectors have it: it has no place in the text formats.
    ExponentialHistogram,
}

/// A family of metrics; all of its series have the same label names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Without the suffixes of samples.
    pub name: Cow<'static, str>,
    /// As UCUM has it: `1`, `s`, `ms`, `By`.
    pub unit: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

/// The value of one series.
#[derive(Debug, Clone, Copy)]
pub enum Reading<'a> {
    Counter(u64),
    Gauge(u64),
    Histogram(&'a Histogram, &'a Bounds),
    Exponential(&'a Exponential),
}

/// What the collection of figures says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    pub span_series: usize,
    pub edge_series: usize,
    pub target_series: usize,
    /// Spans counted in the overflow series, because there were too many others.
    pub overflowed_spans: u64,
    pub overflowed_edges: u64,
    /// Resources without a `traces_target_info`, because there were too many others.
    pub overflowed_targets: u64,
    /// Times a resource came whose series have none, because there were too many others.
    pub overflowed_resources: u64,
    /// Resources that nothing came from for long and that made room for others.
    pub evicted_resources: u64,
    /// Spans that wait for the other side of their call.
    pub waiting_edges: usize,
    pub edges: u64,
    /// Waited in vain.
    pub expired_edges: u64,
    /// Were not paired, because too many others waited.
    pub unpaired_spans: u64,
}

/// The counters. Shared by all who receive; one lock, held for the time of one request.
pub struct Red {
    engine: Mutex<Engine>,
    started: Instant,
}

/// The counters without lock and clock.
pub struct Engine {
    keys: Keys,
    spans: Option<SpanMetrics>,
    graph: Option<ServiceGraph>,
    stale_after_millis: u64,
}

impl Red {
    pub fn new(engine: Engine) -> Self {
        Self { engine: Mutex::new(engine), started: Instant::now() }
    }

    /// Counts every span of a request that became durable.
    pub fn observe(&self, request: &[u8]) {
        let now = self.now();
        self.engine().observe(request, now);
    }

    /// Gives up pairs that waited long enough, and series that nothing was added to for long. To be called every second or
    /// two.
    pub fn tidy(&self) {
        let now = self.now();
        self.engine().tidy(now);
    }

    /// Looks at the engine and may begin anew.
    pub fn with_engine_mut<T>(&self, change: impl FnOnce(&mut Engine) -> T) -> T {
        change(&mut self.engine())
    }

    pub fn census(&self) -> Census {
        self.engine().census()
    }

    /// Looks at the engine; nobody counts meanwhile.
    pub fn with_engine<T>(&self, look: impl FnOnce(&Engine) -> T) -> T {
        look(&self.engine())
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        // Counters are never left half changed in a way that matters.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { uptime_millis: self.started.elapsed().as_millis() as u64, unix_millis: unix.as_millis() as u64 }
    }
}

impl Engine {
    /// `stale_after_millis` zero: series stay for ever.
    pub fn new(keys: Keys, spans: Option<SpanMetrics>, graph: Option<ServiceGraph>, stale_after_millis: u64) -> Self {
        Self { keys, spans, graph, stale_after_millis }
    }

    pub fn observe(&mut self, request: &[u8], now: Now) {
        let mut of_resource = self.keys.nothing_found();
        let mut of_span = self.keys.nothing_found();
        let mut of_event = self.keys.nothing_found();
        let (wants_attributes, wants_events) =
            self.spans.as_ref().map_or((false, false), |spans| (spans.wants_attributes(), spans.wants_events()));
        for resource_spans in messages(request, 1) {
            of_resource.fill(None);
            // A Resource that comes in pieces is one, as protobuf has it.
            for resource in messages(resource_spans, 1) {
                self.keys.find(resource, 1, &mut of_resource);
            }
            let resource = Resource { message: resource_spans, found: &of_resource };
            if let Some(spans) = &mut self.spans {
                spans.begin(&resource, now);
            }
            let is_node = match &mut self.graph {
                Some(graph) => graph.begin(&resource),
                None => false,
            };
            for scope_spans in messages(resource_spans, 2) {
                let scope = self.spans.as_ref().and_then(|spans| spans.scope(scope_spans));
                for span in messages(scope_spans, 2) {
                    let facts = Facts::read(span);
                    let for_graph = is_node && self.graph.as_ref().is_some_and(|graph| graph.wants_attributes(&facts));
                    of_span.fill(None);
                    if for_graph || wants_attributes {
                        self.keys.find(span, 9, &mut of_span);
                    }
                    if let Some(spans) = &mut self.spans {
                        let seen = Seen { resource, scope, span: facts, of_span: &of_span, event: None };
                        let times = spans.observe(&seen, now);
                        for event in messages(span, 11).filter(|_| wants_events) {
                            of_event.fill(None);
                            self.keys.find(event, 3, &mut of_event);
                            let seen = Seen { event: Some((event, &of_event)), ..seen };
                            spans.observe_event(&seen, times, now);
                        }
                    }
                    if is_node && let Some(graph) = &mut self.graph {
                        graph.observe(&resource, &facts, &of_span, now);
                    }
                }
            }
        }
    }

    pub fn tidy(&mut self, now: Now) {
        if let Some(graph) = &mut self.graph {
            graph.expire(now);
        }
        if self.stale_after_millis == 0 {
            return;
        }
        let seen_since = now.uptime_millis.saturating_sub(self.stale_after_millis);
        if let Some(spans) = &mut self.spans {
            spans.forget(seen_since);
        }
        if let Some(graph) = &mut self.graph {
            graph.forget(seen_since);
        }
    }

    /// Every series goes; what waits for the other side of a call waits on. For those who report differences.
    pub fn clear(&mut self) {
        if let Some(spans) = &mut self.spans {
            spans.forget(u64::MAX);
        }
        if let Some(graph) = &mut self.graph {
            graph.forget(u64::MAX);
        }
    }

    /// The families, in a fixed order; their indexes go into [`Self::read`].
    pub fn families(&self) -> impl Iterator<Item = &Family> {
        let spans = self.spans.iter().flat_map(SpanMetrics::families);
        spans.chain(self.graph.iter().flat_map(ServiceGraph::families))
    }

    /// Slots of a family's series; some are empty.
    pub fn slots(&self, family: usize) -> usize {
        match self.locate(family) {
            Some(Place::Spans(spans, family)) => spans.slots(family),
            Some(Place::Graph(graph, _)) => graph.slots(),
            None => 0,
        }
    }

    /// The series of `family` in `slot`, if there is one.
    pub fn read(&self, family: usize, slot: usize) -> Option<(Labels<'_>, Reading<'_>)> {
        match self.locate(family)? {
            Place::Spans(spans, family) => spans.read(family, slot),
            Place::Graph(graph, family) => graph.read(family, slot),
        }
    }

    pub fn census(&self) -> Census {
        let mut census = Census::default();
        if let Some(spans) = &self.spans {
            spans.count(&mut census);
        }
        if let Some(graph) = &self.graph {
            graph.count(&mut census);
        }
        census
    }

    fn locate(&self, family: usize) -> Option<Place<'_>> {
        let of_spans = self.spans.as_ref().map_or(0, |spans| spans.families().len());
        match (&self.spans, &self.graph) {
            (Some(spans), _) if family < of_spans => Some(Place::Spans(spans, family)),
            (_, Some(graph)) => Some(Place::Graph(graph, family - of_spans)),
            _ => None,
        }
    }
}

enum Place<'a> {
    Spans(&'a SpanMetrics, usize),
    Graph(&'a ServiceGraph, usize),
}

#[cfg(test)]
mod tests;
